"""What a training says: nothing unless asked, words that parse, and never a word that changes the result."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.learning.runs import contents, same_bits, small_run, small_vae, weights, without_times
from vae_lib.learning import CheckpointError
from vae_lib.learning.reports import Report
from vae_lib.models import VAE


def test_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    small_run(tmp_path, progress=None)
    small_run(progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def every_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar that is drawn at every step, however fast these are."""
    from vae_lib.learning import reports

    real = reports.tqdm
    monkeypatch.setattr(reports, "tqdm", lambda **options: real(**options | {"mininterval": 0.0}))


@pytest.mark.usefixtures("every_word")
def test_a_bar_in_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    small_run(progress=None)
    out, err = capsys.readouterr()
    assert out == ""
    assert "60.0/60.0" in err


@pytest.mark.usefixtures("every_word")
def test_words_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    run = small_run(progress=True)
    words = capsys.readouterr().err
    assert "100%" in words
    assert "img/s" in words
    last = words.rstrip().rpartition("\r")[2]
    # The bar was last drawn before the last look; its words are of the step before.
    assert f"held-out={run.history[1]['validation_elbo']:.2f}" in last
    assert f"ELBO={run.history[2]['train_elbo']:.2f}" in last
    assert "KL=0." in last


class Counting(nn.Module):
    """A layer with a running statistic: it counts how often it is used for training."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count += 1
        return x


def counting_vae() -> VAE:
    vae = small_vae()
    vae.encoder = nn.Sequential(Counting(), vae.encoder)
    return vae


@pytest.mark.usefixtures("every_word")
@pytest.mark.parametrize("make", [small_vae, counting_vae])
def test_a_bar_does_not_change_the_training(tmp_path: Path, make: Any) -> None:
    shown = small_run(tmp_path / "shown", model=make(), progress=True)
    silent = small_run(tmp_path / "silent", model=make())
    assert same_bits(weights(shown), weights(silent))
    assert contents(tmp_path / "shown") == contents(tmp_path / "silent")


@pytest.mark.usefixtures("every_word")
def test_a_bar_without_a_kl_in_closed_form(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd:
        """A density of a type that no closed form knows."""

        def __init__(self, q: Any) -> None:
            self.q = q
            self.batch_size, self.event_dim, self.log_prob, self.sample = (
                q.batch_size,
                q.event_dim,
                q.log_prob,
                q.sample,
            )
            self.rsample = q.rsample

    def elbo(model: Any, q: Any, x: Tensor, z: Tensor) -> Tensor:
        return model.log_p_x_given_z(x, z) + model.prior(len(x)).log_prob(z) - q.log_prob(z)  # type: ignore[no-any-return]

    model = small_vae()

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = model.encoder

        def forward(self, x: Tensor) -> Any:
            return Odd(self.inside(x))

    run = small_run(model=model, encoder=Encoder(), bound=elbo, progress=True)
    words = capsys.readouterr().err
    assert "ELBO=-" in words
    assert "KL=" not in words
    assert run.history[-1]["step"] == 6


def test_a_closed_bar_leaves_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(None, [], progress=True, tensorboard=True, total=10, done=0)
    assert not capsys.readouterr().err.endswith("\n")
    report.close()
    assert capsys.readouterr().err.endswith("\n")


def test_metrics_are_the_history(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == run.history
    assert len(lines) == 3


def test_lines_from_after_the_checkpoint_are_not_there_twice(tmp_path: Path) -> None:
    """As after a power failure: the metrics are ahead of the checkpoint, and the last line is half a line."""
    small_run(tmp_path, epochs=1)
    early = (tmp_path / "checkpoint.safetensors").read_bytes()
    small_run(tmp_path, resume=True)
    (tmp_path / "checkpoint.safetensors").write_bytes(early)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')
    run = small_run(tmp_path, resume=True)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert without_times([json.loads(line) for line in lines]) == without_times(run.history)
    assert [row["epoch"] for row in run.history] == [1, 2, 3]


def test_metrics_that_cannot_be_written(tmp_path: Path) -> None:
    report = Report(tmp_path, [], progress=False, tensorboard=False, total=1, done=0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    message = r"^\S+: expected a file that can be written to, found: Is a directory$"
    with pytest.raises(CheckpointError, match=message):
        report.write({"step": 1})


class Writer:
    """Stands for TensorBoard's writer."""

    def __init__(self, folder: str) -> None:
        self.folder, self.is_closed = folder, False
        self.rows: list[tuple[str, float, int]] = []

    def add_scalar(self, name: str, value: float, global_step: int) -> None:
        self.rows.append((name, value, global_step))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    made: list[Writer] = []
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda folder: made.append(Writer(folder)) or made[-1]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return made


def test_tensorboard_gets_every_number(tmp_path: Path, writers: list[Writer]) -> None:
    run = small_run(tmp_path, tensorboard=True)
    (writer,) = writers
    assert writer.folder == str(tmp_path)
    assert writer.is_closed
    assert writer.rows == [(name, value, row["step"]) for row in run.history for name, value in row.items()]
    small_run(tensorboard=True)  # nowhere to write to
    assert len(writers) == 1


def test_reports_are_closed_after_an_error(tmp_path: Path, writers: list[Writer]) -> None:
    def fail(*_: object) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        small_run(tmp_path, tensorboard=True, bound=fail)
    assert [writer.is_closed for writer in writers] == [True]


def test_tensorboard_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = r"^tensorboard: expected the package tensorboard, found none; pip install it$"
    with pytest.raises(CheckpointError, match=message):
        small_run(tmp_path, tensorboard=True)
