"""`train`: what it leaves, how it goes on, and that nothing it left is ever lost."""

from __future__ import annotations

import errno
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch

from tests.cli.asking import Ask
from vae_lib.cli import main
from vae_lib.cli.experiment import reading_of
from vae_lib.cli.options import Train
from vae_lib.cli.pictures import training_curve
from vae_lib.cli.plans import plan_of
from vae_lib.data import dataset_info
from vae_lib.evaluation import HeldOut, held_out_elbo
from vae_lib.learning import TrainingInterrupted
from vae_lib.learning.checkpoints import read_checkpoint
from vae_lib.learning.training import Trainer
from vae_lib.models import configuration

SHORT = ("train", "--epochs", 2, "--hidden", 8)
ROOT = Path(__file__).parents[2]


def is_picture(path: str) -> bool:
    """A PNG that is not one flat colour."""
    pixels = plt.imread(path)
    return path.endswith(".png") and float(pixels.min()) != float(pixels.max())


def interrupt_before_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    step, steps = Trainer.take_step, itertools.count(1)

    def interrupting(self: Trainer) -> torch.Tensor:
        if next(steps) == number:
            signal.raise_signal(signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Trainer, "take_step", interrupting)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_says_where_everything_lies(ask: Ask) -> None:
    answer = ask(*SHORT)
    assert answer.code == 0
    places = "the run is runs/digits-1; numbers go to runs/digits-1/metrics.jsonl"
    assert answer.err == f"training on cpu; {places}; Ctrl-C saves it and stops\n"
    for part in ("runs/digits-1", "checkpoint.safetensors", "samples.png", "reconstructions.png", "curve.png"):
        assert part in answer.out
    for part in ("validation ELBO", "validation KL", "images a second", "nats", "evaluate runs/digits-1"):
        assert part in answer.out
    assert {path.name for path in Path("runs/digits-1").iterdir()} == {
        "checkpoint.safetensors",
        "metrics.jsonl",
        "samples.png",
        "reconstructions.png",
        "curve.png",
    }


def test_the_answer_in_json_is_that_of_the_metrics(ask: Ask) -> None:
    facts = ask(*SHORT, "--json", "--samples", 2, "--warmup", 3, "--schedule", "cosine").facts
    lines = Path(facts["metrics"]).read_text().splitlines()
    assert len(lines) == 2
    last = json.loads(lines[-1])
    assert {name: facts[name] for name in last} == last
    assert facts["best"]["validation_elbo"] == max(json.loads(line)["validation_elbo"] for line in lines)
    assert (facts["training"]["num_samples"], facts["training"]["warmup_steps"]) == (2, 3)
    assert facts["training"]["schedule"] == "cosine"
    assert facts["model"]["hidden"] == [8]
    assert all(is_picture(path) for path in facts["pictures"].values())


def test_two_latents_have_a_manifold_and_a_plane(run_folder: Path) -> None:
    names = ("manifold", "plane", "samples", "reconstructions", "curve")
    assert all(is_picture(str(run_folder / f"{name}.png")) for name in names)


def test_quiet_prints_the_folder_alone(ask: Ask) -> None:
    answer = ask(*SHORT, "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "runs/digits-1\n", "")


def test_runs_are_numbered_and_none_is_overwritten(ask: Ask) -> None:
    assert ask(*SHORT, "--quiet").out == "runs/digits-1\n"
    before = contents(Path("runs/digits-1"))
    assert ask(*SHORT, "--quiet").out == "runs/digits-2\n"
    assert ask(*SHORT, "--quiet", "--model", "conv-mnist", "--hidden", 4).out == "runs/digits-conv-mnist-1\n"
    refused = ask(*SHORT, "--folder", "runs/digits-1")
    assert refused.code == 2
    assert "--resume runs/digits-1" in refused.err
    assert contents(Path("runs/digits-1")) == before


def test_the_same_seed_trains_the_same_weights(ask: Ask) -> None:
    first, second, other = (ask(*SHORT, "--json", "--seed", seed).facts for seed in (3, 3, 4))
    assert first["validation_elbo"] == second["validation_elbo"] != other["validation_elbo"]


def test_an_empty_folder_will_do(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert ask(*SHORT, "--folder", "mine", "--quiet").code == 0
    assert (tmp_path / "mine/checkpoint.safetensors").is_file()


def test_what_cannot_begin_leaves_no_folder(ask: Ask) -> None:
    answer = ask(*SHORT, "--batch-size", 5000)
    assert answer.code == 2
    assert answer.err == "vae-lib: --batch-size: expected at most the number of images, 1257, found 5000\n"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    "likelihood", ["bernoulli", "binomial", "categorical", "discretised-logistic", "normal", "normal-predicted-unit"]
)
def test_every_kind_of_likelihood_fits_the_digits(ask: Ask, likelihood: str) -> None:
    facts = ask(*SHORT, "--likelihood", likelihood, "--json").facts
    assert facts["model"]["max_value"] == (1 if likelihood.startswith(("bernoulli", "normal")) else 16)
    assert ask("evaluate", facts["folder"], "--images", 2, "--draws", 2, "--json").code == 0


def test_a_run_goes_on_as_if_it_had_never_stopped(ask: Ask) -> None:
    whole = ask("train", "--epochs", 4, "--hidden", 8, "--json", "--folder", "whole").facts
    ask("train", "--epochs", 2, "--hidden", 8, "--folder", "parts")
    parts = ask("train", "--resume", "parts", "--epochs", 4, "--json").facts
    assert parts["step"] == whole["step"]
    one, two = (read_checkpoint(Path(f"{name}/checkpoint.safetensors")) for name in ("whole", "parts"))
    assert one.tensors.keys() == two.tensors.keys()
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


def test_a_finished_run_may_be_resumed_and_stays(ask: Ask, run_folder: Path) -> None:
    shutil.copytree(run_folder, "again")
    before = contents(Path("again"))
    answer = ask("train", "--resume", "again", "--json")
    assert answer.code == 0
    assert (answer.facts["epoch"], answer.facts["nothing_to_do"]) == (3, True)
    line = "nothing to do: again is at epoch 3; --epochs may be raised"
    assert ask("train", "--resume", "again/checkpoint.safetensors", "--epochs", 3) == (0, f"{line}\n", "")
    assert contents(Path("again")) == before
    for name in ("samples", "curve"):
        Path(f"again/{name}.png").unlink()
    answer = ask("train", "--resume", "again")
    assert answer.out == f"{line}; its pictures were missing and are drawn\n"
    assert contents(Path("again")) == before


def test_a_run_may_end_early(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_before_step(30, monkeypatch)  # of 12 in an epoch
    assert ask("train", "--epochs", 9, "--hidden", 8).code == 130
    refused = ask("train", "--resume", "runs/digits-1", "--epochs", 2)
    assert refused.code == 2
    assert "--epochs: expected at least 3 beside --resume runs/digits-1, found 2; so many have begun" in refused.err
    assert ask("train", "--resume", "runs/digits-1", "--epochs", 3, "--json").facts["step"] == 36


def test_a_schedule_that_falls_to_the_end_cannot_end_early(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_before_step(5, monkeypatch)
    assert ask("train", "--epochs", 4, "--hidden", 8, "--schedule", "cosine").code == 130
    refused = ask("train", "--resume", "runs/digits-1", "--epochs", 3)
    assert refused.code == 2
    assert "expected at least 4 beside --resume runs/digits-1, found 3; the cosine schedule" in refused.err


def test_the_advice_is_more_epochs_only_where_the_bound_still_rises(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "python -m vae_lib train --resume runs/digits-1 --epochs 4" in ask(*SHORT).out
    look, looks = held_out_elbo, itertools.count()

    def worse(*args: Any, **options: Any) -> HeldOut:
        held_out = look(*args, **options)
        return held_out._replace(elbo=torch.full_like(held_out.elbo, -float(next(looks))))

    monkeypatch.setattr("vae_lib.learning.training.held_out_elbo", worse)
    out = ask(*SHORT).out
    assert "the validation ELBO has not risen since epoch 1" in out
    assert "--epochs" not in out


def test_how_many_epochs_there_are_if_nothing_is_said(ask: Ask) -> None:
    plans = {data: plan_of(Train(data=data)).training.epochs for data in ("digits", "mnist", "frey", "sprites")}
    assert plans == {"digits": 300, "mnist": 100, "frey": 100, "sprites": 100}
    assert "300 for the digits, about 10 s; 100 otherwise" in " ".join(ask("train", "--help").out.split())


@pytest.mark.parametrize(
    ("words", "reading", "is_density"),
    [
        (("digits", "--likelihood", "bernoulli"), "digits: bernoulli, bits drawn from grey levels", False),
        (("digits",), "digits: discretised-logistic, levels 0 to 16", False),
        (("digits", "--likelihood", "normal"), "digits: normal, grey levels from 0 to 1 (a density: its nats", True),
    ],
    ids=["bits", "levels", "density"],
)
def test_the_likelihood_is_named(ask: Ask, words: tuple[str, ...], reading: str, is_density: bool) -> None:
    assert f" {reading}" in ask(*SHORT, "--data", *words, "--folder", "mine").out
    assert f" {reading}" in ask("evaluate", "mine", "--images", 0).out
    facts = ask("evaluate", "mine", "--images", 0, "--json").facts
    assert f"{facts['configuration']}: {facts['likelihood']}, {facts['pixels']}" == reading.partition(" (")[0]
    assert facts["is_density"] is is_density
    trained = ask(*SHORT, "--data", *words, "--json").facts
    assert {name: trained[name] for name in ("likelihood", "pixels", "is_density")}.items() <= facts.items()


def test_published_bits_are_not_drawn() -> None:
    info = dataset_info("binarized-mnist")
    assert reading_of(info, configuration("kingma2014-mnist")) == ("the bits of the data", False)


def test_a_run_is_no_option(ask: Ask, run_folder: Path) -> None:
    answer = ask("train", run_folder)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.endswith(f"to go on with a run: python -m vae_lib train --resume {run_folder}\n")


def test_a_long_curve_is_thin_and_solid_and_epochs_are_whole() -> None:
    for epochs, style in ((3, {":", "--"}), (100, {"-"})):
        rows = [
            {"epoch": epoch, "train_elbo": -1.0 / epoch, "validation_elbo": -2.0 / epoch}
            for epoch in range(1, epochs + 1)
        ]
        axes = training_curve(rows)
        assert {str(line.get_linestyle()) for line in axes.get_lines()} == style
        legend = axes.get_legend()
        assert legend is not None
        assert {str(line.get_linestyle()) for line in legend.get_lines()} == style
        assert all(float(tick).is_integer() for tick in axes.get_xticks())
        plt.close(axes.get_figure(root=True))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--latents", 5), "--latents: expected nothing or 2 beside --resume"),
        (("--seed", 5), "--seed: expected nothing or 0"),
        (("--hidden", 5, 5), "--hidden: expected nothing or 16 "),
        (("--learning-rate", 5), "--learning-rate: expected nothing or 0.001"),
        (("--samples", 5), "--samples: expected nothing or 1"),
        (("--folder", "x"), "--folder: expected nothing beside"),
        (("--epochs", 2), "--epochs: expected at least 3"),
    ],
)
def test_a_run_goes_on_under_its_own_settings(
    ask: Ask, run_folder: Path, words: tuple[object, ...], expected: str
) -> None:
    before = contents(run_folder)
    answer = ask("train", "--resume", run_folder, *words)
    assert (answer.code, answer.out) == (2, "")
    assert expected in answer.err
    assert contents(run_folder) == before


def test_settings_may_be_repeated_as_they_were(ask: Ask, run_folder: Path) -> None:
    shutil.copytree(run_folder, "again")
    assert ask("train", "--resume", "again", "--latents", 2, "--seed", 0, "--epochs", 3, "--quiet").code == 0


def test_only_a_run_of_the_command_can_go_on(ask: Ask, run_folder: Path) -> None:
    for place, expected in (("nowhere", "found no such file"), (run_folder / "metrics.jsonl", "found a file")):
        answer = ask("train", "--resume", place)
        assert answer.code == 2
        assert expected in answer.err


def test_numbers_that_end_leave_the_last_good_state(ask: Ask) -> None:
    answer = ask("train", "--optimiser", "sgd", "--learning-rate", 1e30, "--folder", "burst", "--quiet")
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert "step 2" in answer.err
    assert ask("evaluate", "burst", "--images", 0).code == 0


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 1), (errno.EROFS, 2), (errno.EACCES, 2)], ids=["full", "read-only", "forbidden"]
)
def test_a_disk_that_does_not_take_it(ask: Ask, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    answer = ask(*SHORT, "--folder", "mine", "--json")
    assert (answer.code, answer.out, answer.err.count("\n")) == (code, "", 1)
    assert os.strerror(number) in answer.err
    assert not [path for path in Path("mine").rglob("*.part")]


def test_a_disk_that_fills_late_loses_nothing(ask: Ask, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run_folder, "mine")
    count, fsync = itertools.count(), os.fsync

    def fill(descriptor: int) -> None:
        if next(count) >= 2:  # after the first checkpoint and the metrics
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        assert ask("train", "--resume", "mine", "--epochs", 5).code == 1
    assert ask("train", "--resume", "mine", "--epochs", 5, "--json").facts["epoch"] == 5


@pytest.mark.parametrize("words", [(), ("--folder", "runs/mine")])
def test_a_folder_that_cannot_be_made(ask: Ask, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "runs").write_text("a file")
    answer = ask(*SHORT, *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "runs: expected a folder that can be made" in answer.err


def test_a_forbidden_folder_is_one_line(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    answer = ask(*SHORT)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "Permission denied" in answer.err


def test_a_missing_package_is_said_before_anything_begins(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answer = ask(*SHORT, "--tensorboard")
    assert answer.code == 2
    assert "tensorboard" in answer.err
    assert not Path("runs").exists()


def test_an_interruption_says_how_to_go_on(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_before_step(5, monkeypatch)
    answer = ask(*SHORT, "--json")
    assert (answer.code, answer.out, answer.err.count("\n")) == (130, "", 1)
    assert answer.err == (
        "vae-lib: training stopped after step 5 of 24; to go on: python -m vae_lib train --resume runs/digits-1\n"
    )
    assert ask("train", "--resume", "runs/digits-1", "--json").facts["step"] == 24


def test_an_interruption_before_the_first_step_says_so(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **options: object) -> None:
        raise TrainingInterrupted

    monkeypatch.setattr("vae_lib.cli.train.train", stop)
    answer = ask(*SHORT)
    assert answer.code == 130
    assert "before anything was stored" in answer.err


def test_the_process_ends_with_130_after_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vae_lib", "train", "--epochs", "100000", "--folder", "mine"]
    # A shell without job control hands its children a deaf ear for Ctrl-C.
    listening = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=listening
    ) as process:
        metrics, limit = tmp_path / "mine/metrics.jsonl", time.monotonic() + 60
        while time.monotonic() < limit and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert err.decode().endswith("to go on: python -m vae_lib train --resume mine\n")
    assert main(["train", "--resume", str(tmp_path / "mine"), "--epochs", "1000000", "--seed", "5"]) == 2


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_two_processes_compute_what_one_does(ask: Ask, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["train", "--epochs", "3", "--json", "--seed", "1"]
    command = [sys.executable, *launcher, "-m", "vae_lib", *words, "--folder", "two"]
    together = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert together.returncode == 0, together.stderr
    two, one = json.loads(together.stdout), ask(*words, "--folder", "one").facts
    # Sums in another order, in float32, through 36 steps: a relative error of 36 times a few units in the last place.
    for name in ("train_elbo", "validation_elbo", "validation_kl"):
        assert two[name] == pytest.approx(one[name], rel=36 * 8 * torch.finfo(torch.float32).eps)
    assert (two["step"], two["samples"]) == (one["step"], one["samples"])
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
