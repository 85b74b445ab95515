"""A run of Monte Carlo EM: its rows and words, how it stops and goes on, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tests.learning.chains import CONFIG, DATA, linear_model, network_of, run, small_trainer, weights
from tests.learning.runs import contents, interrupt, metrics, same_bits, without_times
from vae_lib.learning import (
    CheckpointError,
    Images,
    NonFiniteError,
    TrainingConfig,
    TrainingInterrupted,
    load_trained,
    reports,
)
from vae_lib.learning import monte_carlo_em as em
from vae_lib.learning.checkpoints import read_checkpoint
from vae_lib.learning.monte_carlo_em import ChainConfig, monte_carlo_em
from vae_lib.models import DecoderModel, NormalLikelihood, standard_normal


def test_rows_and_checkpoints_come_when_they_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that moves with the evaluations of the network, a second for each visit."""
    other, values, rates, sizes = small_trainer(epochs=3), [], [], []
    for step in range(6):
        values.append(float(other.take_step()))
        rates.append(float(other.state.acceptances[step % 2]))
        sizes.append(float(other.state.log_step.exp()))
    model, evaluations, saved = linear_model(), [0], list[int]()
    trainer = small_trainer(model, tmp_path, epochs=3, evaluate_every=2)
    trainer.checkpoint_seconds = 1.5
    network_of(model).register_forward_hook(lambda *_: evaluations.append(0))
    monkeypatch.setattr(em, "time", SimpleNamespace(perf_counter=lambda: 100.0 + (len(evaluations) - 1) / 16))
    monkeypatch.setattr(trainer, "save", lambda: saved.append(trainer.state.step))
    trainer.run(progress=False)
    assert saved == [2, 4, 6]
    assert [row["epoch"] for row in trainer.state.history] == [2, 3]
    for row, step in zip(trainer.state.history, (4, 6), strict=True):
        expected: dict[str, float] = {
            "epoch": step // 2,
            "step": step,
            "samples": 4 * step,
            "updated_samples": 20 * step,
        }
        expected |= {"log_joint": sum(values[step - 2 : step]) / 2, "acceptance": sum(rates[step - 2 : step]) / 2}
        assert row == pytest.approx(expected | {"step_size": sizes[step - 1], "seconds": float(step)}, rel=1e-12)
    assert metrics(tmp_path) == without_times(trainer.state.history)


def test_a_bar_counts_images_and_says_the_last_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reports, "tqdm", lambda **options: tqdm(**options | {"mininterval": 0.0}))
    run(linear_model(), TrainingConfig(**{**CONFIG.__dict__, "epochs": 1}), folder=tmp_path)
    assert capsys.readouterr().err == ""
    run(linear_model(), folder=tmp_path, resume=True, progress=True)
    last = capsys.readouterr().err.rstrip().rpartition("\r")[2]
    first, second = read_checkpoint(tmp_path / "checkpoint.safetensors").tensors["bounds"].tolist()
    assert "24.0/24.0" in last
    assert f"log_joint={second:.2f}" in last
    assert f"{first:.2f}" != f"{second:.2f}"


@pytest.mark.parametrize("visit", [1, 2, 3, 5])
def test_stopped_and_resumed_is_never_stopped(tmp_path: Path, visit: int) -> None:
    whole, model, calls = linear_model(), linear_model(), 0
    expected = run(whole, folder=tmp_path / "whole")

    def stop(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 16 * visit - 3:
            interrupt()

    network_of(model).register_forward_hook(stop)
    part = tmp_path / "part"
    with pytest.raises(TrainingInterrupted) as caught:
        run(model, folder=part)
    assert str(caught.value) == (
        f"training stopped after step {visit} of 6; the state is in {part / 'checkpoint.safetensors'}, "
        "and resume=True goes on from there"
    )
    other = linear_model(seed=99)
    resumed = run(other, folder=part, resume=True)
    assert same_bits(weights(other), weights(whole))
    assert contents(part) == contents(tmp_path / "whole")
    assert without_times(resumed.history) == without_times(expected.history) == metrics(part)


def test_stopped_without_a_folder() -> None:
    model = linear_model()

    def stop(*_: Any) -> None:
        handle.remove()
        interrupt()

    handle = network_of(model).register_forward_hook(stop)
    with pytest.raises(TrainingInterrupted, match=r"^training stopped after step 1 of 6; nothing was stored$"):
        run(model)


def test_more_epochs_are_a_longer_run_and_the_weights_can_be_taken_out(tmp_path: Path) -> None:
    whole, grown, taken = linear_model(), linear_model(), linear_model(seed=98)
    run(whole)
    run(grown, TrainingConfig(**{**CONFIG.__dict__, "epochs": 1}), folder=tmp_path)
    result = run(grown, folder=tmp_path, resume=True)
    assert same_bits(weights(grown), weights(whole))
    load_trained(tmp_path / "checkpoint.safetensors", taken)
    assert same_bits(weights(taken), weights(whole))
    assert result.checkpoint == tmp_path / "checkpoint.safetensors"


def test_a_training_that_breaks_leaves_the_state_before(tmp_path: Path) -> None:
    model, calls = linear_model(), 0

    def spoil(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return out * math.nan if calls > 2 * 16 else out

    network_of(model).register_forward_hook(spoil)
    with pytest.raises(NonFiniteError, match=r"^training stopped at step 3: expected finite log p\(x, z\), found nan$"):
        run(model, folder=tmp_path, checkpoint_seconds=0.0)
    whole = small_trainer(folder=tmp_path / "other", epochs=3)
    for _ in range(2):
        whole.take_step()
    whole.save()
    assert contents(tmp_path)["chains.chains"] == contents(tmp_path / "other")["chains.chains"]
    assert contents(tmp_path)["step"] == 2


def test_weights_that_break_are_not_stored(tmp_path: Path) -> None:
    model = linear_model()
    trainer = small_trainer(model, tmp_path)
    trainer.take_step()
    with torch.no_grad():
        network_of(model).bias[0] = math.inf
    with pytest.raises(
        NonFiniteError, match=r"^training stopped at step 1: expected finite numbers, found others in the"
    ):
        trainer.save()
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_folder_with_another_training_is_refused(tmp_path: Path) -> None:
    run(linear_model(), folder=tmp_path, notes={"a": "note"})
    assert contents(tmp_path)["notes"] == {"a": "note"}
    with pytest.raises(ValueError, match=r"^folder: expected one without a training, found .*; resume=True goes on"):
        run(linear_model(), folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"^chains: expected .*'num_updates': 5.*, found .*'num_updates': 4"):
        run(linear_model(), folder=tmp_path, resume=True, chains=ChainConfig(num_updates=4))
    options: dict[str, Any] = {"folder": tmp_path, "resume": True, "notes": {"a": "note"}}
    with pytest.raises(CheckpointError, match=r"^values, SHA-256: expected '"):
        monte_carlo_em(linear_model(), Images(-DATA.values), CONFIG, device="cpu", progress=False, **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.zeros(3, 3)}, TypeError, r"images: expected vae_lib\.learning\.Images, found Tensor"),
        (
            {"images": Images(torch.zeros(5, 2))},
            ValueError,
            r"images: expected 3 pixels, as the model has, found 2",
        ),
        (
            {"config": TrainingConfig(num_samples=2)},
            ValueError,
            r"num_samples: expected 1, a chain for each image, found 2",
        ),
        (
            {"config": TrainingConfig(batch_size=12)},
            ValueError,
            r"batch_size: expected at most the number of images, 11, found 12",
        ),
        (
            {"model": replace(linear_model(), prior=standard_normal(2))},
            TypeError,
            r"prior\(N\)\.sample\(1\)\[0\]: expected torch\.float64 as the tensors it meets have, found torch\.float32",
        ),
        (
            {"model": DecoderModel(nn.Identity(), NormalLikelihood(0.0), 3, 3, standard_normal(3))},
            ValueError,
            r"model: expected weights that want a gradient, found none",
        ),
    ],
)
def test_mistakes_get_one_line(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"model": linear_model(), "images": DATA, "config": CONFIG} | change
    with pytest.raises(error, match=f"^{message}$"):
        monte_carlo_em(**arguments, device="cpu", progress=False)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_leapfrog": 0}, ValueError, r"num_leapfrog: expected a positive integer, found 0"),
        ({"num_updates": 1.5}, TypeError, r"num_updates: expected a positive integer, found 1\.5"),
        ({"target": 1.0}, ValueError, r"target: expected a number between 0 and 1, found 1\.0"),
        ({"target": 0.0}, ValueError, r"target: expected a number between 0 and 1, found 0\.0"),
        ({"step_size": math.inf}, ValueError, r"step_size: expected a positive number, found inf"),
        ({"step_size": -0.1}, ValueError, r"step_size: expected a positive number, found -0\.1"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        ChainConfig(**change)
