"""A training that was stopped, killed or refused goes on as if nothing had happened, to the last bit."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.learning.runs import (
    CONFIG,
    MODEL,
    at_step,
    contents,
    grey_images,
    interrupt,
    metrics,
    same_bits,
    small_run,
    small_vae,
    weights,
    without_times,
)
from vae_lib.learning import CheckpointError, Images, TrainingInterrupted
from vae_lib.learning.checkpoints import read_checkpoint, write_checkpoint
from vae_lib.learning.training import Trainer
from vae_lib.models import VAEConfig, build
from vae_lib.rng import make_generator


@pytest.mark.parametrize("optimiser", ["adam", "sgd", "adagrad", "adamax"])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_stopped_and_resumed_is_never_stopped(tmp_path: Path, optimiser: Any, step: int) -> None:
    options: dict[str, Any] = {"optimiser": optimiser, "schedule": "cosine", "warmup_steps": 3}
    whole = small_run(tmp_path / "whole", **options)
    part = tmp_path / "part"
    with pytest.raises(TrainingInterrupted) as caught:
        small_run(part, bound=at_step(step, interrupt), checkpoint_seconds=1e9, **options)
    assert str(caught.value) == (
        f"training stopped after step {step} of 6; the state is in {part / 'checkpoint.safetensors'}, "
        "and resume=True goes on from there"
    )
    assert read_checkpoint(part / "checkpoint.safetensors").header["step"] == step
    # A model with other weights, for the weights come from the file.
    other = build(VAEConfig((3, 4), 2, (5,)), generator=make_generator(99), dtype=torch.float64)
    resumed = small_run(part, model=other, resume=True, **options)
    assert same_bits(weights(resumed), weights(whole))
    assert contents(part) == contents(tmp_path / "whole")
    assert without_times(resumed.history) == without_times(whole.history) == metrics(part)
    assert resumed.checkpoint == part / "checkpoint.safetensors"


def test_more_epochs_are_a_longer_run(tmp_path: Path) -> None:
    notes = {"model": MODEL.__dict__}  # with tuples, which are lists in a file
    small_run(tmp_path / "grown", epochs=2, notes=notes)
    grown = small_run(tmp_path / "grown", epochs=5, resume=True, notes=notes)
    whole = small_run(tmp_path / "whole", epochs=5, notes=notes)
    assert same_bits(weights(grown), weights(whole))
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")
    # And there is nothing to do for one that has ended.
    again = small_run(tmp_path / "grown", epochs=5, resume=True, notes=notes)
    assert same_bits(weights(again), weights(whole))
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")
    assert metrics(tmp_path / "grown") == without_times(whole.history)


def test_resume_without_a_checkpoint_begins(tmp_path: Path) -> None:
    assert same_bits(weights(small_run(tmp_path / "new", resume=True)), weights(small_run()))


def test_a_look_that_had_no_held_out_images_is_no_look(tmp_path: Path) -> None:
    small_run(tmp_path, epochs=1, validation=None)
    assert not any("best" in name for name in read(tmp_path))
    run = small_run(tmp_path, epochs=2, resume=True)
    assert "validation_elbo" not in run.history[0]
    assert run.history[1]["validation_elbo"] == small_run(epochs=2).history[1]["validation_elbo"]
    best = {name.removeprefix("best.model."): value for name, value in read(tmp_path).items() if "best." in name}
    assert same_bits(best, weights(run))


def read(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoint.safetensors").tensors


def test_the_best_weights_outlive_an_interruption(tmp_path: Path) -> None:
    """At this rate the best look is not the last one: see test_checkpoints.py."""
    whole = small_run(tmp_path / "whole", epochs=4, learning_rate=1.0)
    with pytest.raises(TrainingInterrupted):
        small_run(tmp_path / "part", epochs=4, learning_rate=1.0, bound=at_step(7, interrupt))
    small_run(tmp_path / "part", epochs=4, learning_rate=1.0, resume=True)
    bounds = [row["validation_elbo"] for row in whole.history]
    assert bounds.index(max(bounds)) == 2
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("seconds", "writes"), [(0.0, 7), (1e9, 2)])
def test_how_often_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, writes: int) -> None:
    steps = []

    def noted(path: Path, tensors: Any, header: Any) -> None:
        steps.append(header["step"])
        write_checkpoint(path, tensors, header)

    monkeypatch.setattr("vae_lib.learning.state.write_checkpoint", noted)
    small_run(tmp_path, checkpoint_seconds=seconds)
    assert len(steps) == writes
    assert (steps[0], steps[-1]) == (0, 6)


def test_the_generator_of_another_device_is_made_anew(tmp_path: Path) -> None:
    small_run(tmp_path, epochs=1)
    path = tmp_path / "checkpoint.safetensors"
    tensors, header = read_checkpoint(path)
    write_checkpoint(path, tensors | {"generator": torch.zeros(16, dtype=torch.uint8)}, header | {"device": "cuda"})
    config = dataclasses.replace(CONFIG, epochs=2)
    trainer = Trainer(small_vae(), grey_images(), None, config, device=torch.device("cpu"))
    trainer.state.read(path)
    # Of a stream that the training has not used.
    assert torch.equal(trainer.state.generator.get_state(), make_generator(CONFIG.seed, "training", 2).get_state())
    trainer.run()
    assert trainer.state.step == 4


def test_a_checkpoint_from_before_a_setting_existed_is_taken_up(tmp_path: Path) -> None:
    """What the file does not name was what its default is now; another value is another training."""
    for name in ("old", "whole"):
        small_run(tmp_path / name, epochs=1)
    path = tmp_path / "old" / "checkpoint.safetensors"
    tensors, header = read_checkpoint(path)
    settings = header["config"]
    old = {name: settings[name] for name in settings.keys() - {"weight_prior", "epsilon"}}
    assert len(old) == len(settings) - 2
    write_checkpoint(path, tensors, header | {"config": old})
    for change, message in (
        ({"weight_prior": 1.0}, "weight_prior: expected 0.0 as in PATH, found 1.0"),
        ({"epsilon": 1e-4}, "epsilon: expected 1e-08 as in PATH, found 0.0001"),
    ):
        with pytest.raises(CheckpointError, match=f"^{message.replace('PATH', str(path))}$"):
            small_run(tmp_path / "old", epochs=2, resume=True, **change)  # type: ignore[arg-type]
    for name in ("old", "whole"):
        small_run(tmp_path / name, epochs=2, resume=True)
    assert contents(tmp_path / "old") == contents(tmp_path / "whole")


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_folder_with_a_training_is_not_overwritten(tmp_path: Path) -> None:
    small_run(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"^folder: expected one without a training, found \S+; resume=True goes on"):
        small_run(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.02}, "learning_rate: expected 0.01 as in PATH, found 0.02"),
        ({"batch_size": 5}, "batch_size: expected 10 as in PATH, found 5"),
        ({"seed": 8}, "seed: expected 7 as in PATH, found 8"),
        ({"optimiser": "sgd"}, "optimiser: expected 'adam' as in PATH, found 'sgd'"),
        ({"weight_prior": 1.0}, "weight_prior: expected 0.0 as in PATH, found 1.0"),
        ({"epsilon": 1e-4}, "epsilon: expected 1e-08 as in PATH, found 0.0001"),
        ({"schedule": "stages"}, "schedule: expected 'constant' as in PATH, found 'stages'"),
        ({"images": grey_images(22)}, "number of images: expected 23 as in PATH, found 22"),
        ({"images": grey_images(seed=9)}, r"values, SHA-256: expected '\w+' as in PATH, found '\w+'"),
        ({"images": Images(grey_images().values, "unit", 255)}, "reading: expected 'bits' as in PATH, found 'unit'"),
        ({"notes": {"who": 1}}, r"notes: expected {} as in PATH, found {'who': 1}"),
        ({"bound": lambda *_: None}, "bound: expected 'elbo_with_analytic_kl' as in PATH, found '<lambda>'"),
        ({"model": small_vae(torch.float32)}, "dtype: expected 'torch.float64' as in PATH, found 'torch.float32'"),
        (
            {"model": build(VAEConfig((3, 4), 2, (6,)), generator=make_generator(1), dtype=torch.float64)},
            r"PATH: expected model.encoder.network.0.weight of shape \(6, 12\) as in this model, found \(5, 12\)",
        ),
        (
            {"model": build(VAEConfig((3, 4), 2, (5, 5)), generator=make_generator(1), dtype=torch.float64)},
            r"PATH: expected the weights of this model, found model.decoder.4.bias only in the model",
        ),
    ],
)
def test_another_training_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    small_run(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=f"^{message.replace('PATH', str(tmp_path / 'checkpoint.safetensors'))}$"):
        small_run(tmp_path, resume=True, **change)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_weights_that_only_the_file_has_are_refused(tmp_path: Path) -> None:
    deep = build(VAEConfig((3, 4), 2, (5, 5)), generator=make_generator(1), dtype=torch.float64)
    small_run(tmp_path, model=deep)
    with pytest.raises(CheckpointError, match=r"^\S+: expected the weights of this model, found \S+ only in the file$"):
        small_run(tmp_path, resume=True)


@pytest.mark.parametrize("length", [0, 7, 100, 2000, -1])
def test_a_truncated_checkpoint_stops_nothing_else(tmp_path: Path, length: int) -> None:
    small_run(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=rf"^{path}: expected a whole checkpoint, found a truncated"):
        small_run(tmp_path, resume=True)
    assert len(metrics(tmp_path)) == 3


def test_a_full_disk_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third checkpoint does not fit; the second is still there, and the training goes on from it."""
    fsync = os.fsync

    def full(number: int) -> None:
        if os.fstat(number).st_size > 1000 and len(seen := [*calls, number]) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        calls[:] = seen if os.fstat(number).st_size > 1000 else calls
        fsync(number)

    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            CheckpointError, match=r"^\S+: expected a place .* written to, found: No space left on device$"
        ):
            small_run(tmp_path / "full")
    assert contents(tmp_path / "full")["step"] == 1
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["checkpoint.safetensors", "metrics.jsonl"]
    small_run(tmp_path / "full", resume=True)
    small_run(tmp_path / "whole")
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_a_place_that_cannot_be_written_to_is_told_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    asked: list[object] = []
    with pytest.raises(CheckpointError, match=r"^\S+: expected a place that can be written to, found: .+$"):
        small_run(tmp_path / "file" / "inside", bound=at_step(1, lambda: asked.append(1)))
    assert asked == []
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_without_a_folder_an_interruption_says_so() -> None:
    with pytest.raises(TrainingInterrupted, match=r"^training stopped after step 3 of 6; nothing was stored, for want"):
        small_run(bound=at_step(3, interrupt))


def test_outside_the_main_thread_it_trains_as_well() -> None:
    runs: list[Any] = []
    thread = threading.Thread(target=lambda: runs.append(small_run()))
    thread.start()
    thread.join()
    assert same_bits(weights(runs[0]), weights(small_run()))
    assert CONFIG.epochs == 3
