"""The chapter harness: what it fixes, and the numbers it refuses to print."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_lib import chapter
from vae_lib.estimate import Estimate


@pytest.fixture(autouse=True)
def _restore_globals():
    dtype, threads, style = torch.get_default_dtype(), torch.get_num_threads(), dict(mpl.rcParams)
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    with mpl.rc_context():
        mpl.rcParams.update(style)


def test_begin_fixes_dtype_threads_and_generator():
    first = torch.randn(3, generator=chapter.begin(seed=5))
    assert torch.get_default_dtype() is torch.float64
    assert torch.get_num_threads() == 1
    assert torch.equal(first, torch.randn(3, generator=chapter.begin(seed=5)))
    assert not torch.equal(first, torch.randn(3, generator=chapter.begin(seed=6)))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (14.636814712, 6, "14.6368"),
        (-0.000123456789, 4, "-0.0001235"),
        (123456.7, 3, "123000"),
        (12345678.0, 3, "1.23e+07"),
        (0.0, 6, "0"),
        (99.99996, 3, "100"),
        (torch.tensor(2.5), 3, "2.50"),
    ],
)
def test_fixed_prints_significant_digits(value, digits, text):
    assert chapter.fixed(value, digits) == text


@pytest.mark.parametrize("value", [1.234565, 14.63685, -0.125, 2.0 + 0.5e-12])
def test_fixed_refuses_a_number_on_a_rounding_edge(value):
    digits = {1.234565: 6, 14.63685: 6, -0.125: 2, 2.0 + 0.5e-12: 13}[value]
    with pytest.raises(chapter.RoundingEdgeError, match=r"prints the same"):
        chapter.fixed(value, digits)


@given(st.floats(1e-3, 1e6), st.integers(3, 6))
def test_what_fixed_prints_survives_last_bit_noise(value, digits):
    try:
        text = chapter.fixed(value, digits)
    except chapter.RoundingEdgeError:
        return
    for noisy in (math.nextafter(value, 0.0), math.nextafter(value, math.inf), value * (1 + 5e-13)):
        assert chapter._significant(noisy, digits) == text


@pytest.mark.parametrize("bad", [math.nan, math.inf, torch.tensor(math.nan)])
def test_fixed_refuses_what_is_not_a_number(bad):
    with pytest.raises(ValueError, match="expected a finite number"):
        chapter.fixed(bad)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (34.6912, 0.0213, "34.69 ± 0.02"),
        (1234.4, 27.0, "1230 ± 30"),
        (-3.14159, 0.0962, "-3.1 ± 0.1"),
        (5.0, 2.0, "5 ± 2"),
    ],
)
def test_with_error_prints_to_the_first_digit_of_the_error(value, error, text):
    assert chapter.with_error(Estimate(torch.tensor(value).double(), torch.tensor(error).double())) == text


def test_with_error_refuses_a_rounding_edge_and_a_missing_error():
    with pytest.raises(chapter.RoundingEdgeError):
        chapter.with_error(Estimate(torch.tensor(0.125).double(), torch.tensor(0.01).double()))
    with pytest.raises(ValueError, match="standard_error: expected a positive number"):
        chapter.with_error(Estimate(torch.tensor(1.0), torch.tensor(0.0)))


def test_agree_prints_or_raises(capsys):
    chapter.agree("equal", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 1e-12]), tol=1e-10)
    assert capsys.readouterr().out == "equal: yes, to 1e-10\n"
    with pytest.raises(AssertionError, match=r"not equal: expected agreement to 1e-10, found a difference of"):
        chapter.agree("not equal", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.001]))
    with pytest.raises(AssertionError, match="nan"):
        chapter.agree("nan", torch.tensor([math.nan]), torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"expected shape \(2,\), found \(1,\)"):
        chapter.agree("shapes", torch.ones(2), torch.ones(1))


def test_agree_within_errors_needs_closeness_and_a_small_error(capsys):
    estimate = Estimate(torch.tensor([1.01]), torch.tensor([0.01]))
    chapter.agree_within_errors("near", estimate, torch.tensor([1.0]), ceiling=0.02)
    assert capsys.readouterr().out == "near: yes, within 5 standard errors, each below 0.02\n"
    with pytest.raises(AssertionError, match=r"expected standard errors of at most 0\.001"):
        chapter.agree_within_errors("vague", estimate, torch.tensor([1.0]), ceiling=0.001)
    with pytest.raises(AssertionError, match="expected at most 5 standard errors, found 9"):
        chapter.agree_within_errors("far", estimate, torch.tensor([0.92]), ceiling=0.02)


def test_table_aligns_and_checks_its_rows(capsys):
    chapter.table(["name", "nats"], [["a", 1.5], ["long name", "x"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name          nats", "---------  -------", "a          1.50000", "long name        x"]
    with pytest.raises(ValueError, match="expected 2 cells in each, found 1"):
        chapter.table(["a", "b"], [["only one"]])


def test_explorable_is_html_that_notebooks_show():
    figure = chapter.explorable("elbo_bars")
    assert 'data-explorable="elbo-bars"' in figure._repr_html_()


def test_few_digits_of_a_large_number_are_rounded_not_cut() -> None:
    assert chapter.fixed(484563.96, 2) == "480000"
    assert chapter.fixed(1234.5, 2) == "1200"
    assert chapter.fixed(99.96, 3) == "100"


def test_stored_run_is_read_from_beside_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^stored run: expected runs/some\.json beside"):
        chapter.stored_run("some")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "some.json").write_text('{"seeds": [1]}')
    assert chapter.stored_run("some") == {"seeds": [1]}


def test_a_stored_file_is_found_from_any_folder_but_one_of_your_own_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    book = Path(__file__).parents[1] / "book/runs"
    for name in ("digits.json", "digits.safetensors"):
        assert chapter.stored_file(name).samefile(book / name)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits.json").write_text("{}")
    assert chapter.stored_run("digits") == {}


def test_an_installed_package_reads_the_runs_that_came_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vae_lib/runs").mkdir(parents=True)
    (tmp_path / "vae_lib/runs/some.json").write_text('{"seeds": [2]}')
    monkeypatch.setattr(chapter, "__file__", str(tmp_path / "vae_lib/chapter.py"))
    monkeypatch.chdir(tmp_path / "vae_lib")
    (tmp_path / "vae_lib/runs").rename(tmp_path / "vae_lib/kept")
    with pytest.raises(FileNotFoundError):
        chapter.stored_run("some")
    (tmp_path / "vae_lib/kept").rename(tmp_path / "vae_lib/runs")
    monkeypatch.chdir(tmp_path)
    assert chapter.stored_run("some") == {"seeds": [2]}
