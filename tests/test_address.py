"""The public address of the book stands in pyproject.toml; every other file that shows it agrees."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import address
import nbformat
import notebooks
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]
ON_GITHUB = "https://github.com/example/book"
ELSEWHERE = "https://git.example.org/reader/book"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with the two real files and a small notebook."""
    for name in ("pyproject.toml", "_config.yml"):
        shutil.copy(ROOT / name, tmp_path)
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("old", metadata={"tags": ["setup"]}),
        new_code_cell("1"),
    ]
    (tmp_path / "book").mkdir()
    (tmp_path / "book/01.ipynb").write_text(notebooks.dumps(new_notebook(cells=cells)), encoding="utf-8")
    set_address(tmp_path, None)
    return tmp_path


def set_address(root: Path, value: str | None) -> None:
    """Write the address into a copy of pyproject.toml, or take it out."""
    path = root / "pyproject.toml"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("Repository")]
    if value is not None:
        lines.insert(lines.index("[project.urls]") + 1, f'Repository = "{value}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def config(root: Path) -> dict[str, object]:
    """Return _config.yml as Jupyter Book reads it."""
    loaded = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def cell_sources(root: Path) -> list[str]:
    """Return the sources of the notebook's cells."""
    return [cell.source for cell in notebooks.read(root / "book/01.ipynb").cells]


def test_every_file_carries_the_address() -> None:
    assert [str(path.relative_to(ROOT)) for path in address.disagreements(ROOT)] == []


def test_an_address_is_carried_everywhere(copy: Path) -> None:
    set_address(copy, ON_GITHUB)
    assert address.main(["--check"], root=copy) == 1
    assert address.main([], root=copy) == 0
    assert address.main(["--check"], root=copy) == 0
    assert config(copy)["repository"] == {"url": ON_GITHUB, "branch": "main"}
    assert config(copy)["launch_buttons"] == {"colab_url": "https://colab.research.google.com"}
    assert f"git+{ON_GITHUB}" in cell_sources(copy)[1]
    assert [cell_sources(copy)[0], cell_sources(copy)[2]] == ["# Title", "1"]


def test_an_assignment_keeps_its_set_up_cell(copy: Path) -> None:
    (copy / "book/assignments").mkdir()
    shutil.copy(copy / "book/01.ipynb", copy / "book/assignments/a1.ipynb")
    set_address(copy, ON_GITHUB)
    address.main([], root=copy)
    assert notebooks.read(copy / "book/assignments/a1.ipynb").cells[1].source == "old"


def test_an_unset_address_leaves_nothing_behind(copy: Path) -> None:
    address.main([], root=copy)
    unset = {path: path.read_bytes() for path in (copy / "_config.yml", copy / "book/01.ipynb")}
    assert not {"repository", "launch_buttons"} & set(config(copy))
    set_address(copy, ON_GITHUB)
    address.main([], root=copy)
    assert all(path.read_bytes() != text for path, text in unset.items())
    set_address(copy, None)
    address.main([], root=copy)
    assert {path: path.read_bytes() for path in unset} == unset


def test_a_host_without_launch_buttons_gets_the_package_only(copy: Path) -> None:
    set_address(copy, ELSEWHERE + ".git/")
    address.main([], root=copy)
    assert not {"repository", "launch_buttons"} & set(config(copy))
    assert f'"git+{ELSEWHERE}"' in cell_sources(copy)[1]


@pytest.mark.parametrize(
    "value", ["git@example.org:reader/book.git", "http://example.org/book", "https://example.org", ""]
)
def test_an_address_that_is_none_is_one_line(value: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_address(copy, value)
    with pytest.raises(SystemExit, match="2"):
        address.main([], root=copy)
    assert f"expected https://host/owner/name, found {value!r}" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("text", ["", "# address: begin\n", "# address: end\n# address: begin\n"])
def test_lost_marks_are_one_line(text: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "_config.yml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        address.main([], root=copy)
    assert "_config.yml: expected the line" in capsys.readouterr().err.splitlines()[-1]


def test_a_notebook_without_a_setup_cell_is_one_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = nbformat.writes(new_notebook(cells=[new_code_cell("1")]))
    (copy / "book/02.ipynb").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        address.main([], root=copy)
    assert "02.ipynb: expected the first code cell to be tagged 'setup'" in capsys.readouterr().err


@pytest.mark.parametrize("value", [None, ON_GITHUB])
def test_the_setup_cell_is_short_and_silent_where_the_package_is(
    value: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    source = address.setup_source(value)
    assert len(source.splitlines()) <= 9
    exec(compile(source, "setup", "exec"), {})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("value", [None, ON_GITHUB, "https://github.com/a-long-name-of-an-owner/a-long-name"])
def test_the_setup_cell_is_laid_out_as_make_format_does(value: str | None) -> None:
    source = address.setup_source(value) + "\n"
    command = [sys.executable, "-m", "ruff", "format", "--config", "line-length = 79", "-"]
    run = subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True, check=True)
    assert run.stdout == source


def test_the_setup_cell_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"run `pip install \.` in the book's folder"):
        exec(compile(address.setup_source(None), "setup", "exec"), {})


def test_the_setup_cell_installs_from_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
    exec(compile(address.setup_source(ON_GITHUB), "setup", "exec"), {})
    assert commands[0][1:4] == ["-m", "pip", "install"]
    assert commands[0][-1] == f"git+{ON_GITHUB}"
