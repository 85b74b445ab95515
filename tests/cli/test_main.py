"""The program around the commands: help that teaches, errors in one line, exit codes, clean streams."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import vae_lib
from tests.cli.asking import Ask
from vae_lib.cli import options, parsing
from vae_lib.cli.hints import in_options
from vae_lib.cli.recipes import RECIPES
from vae_lib.data import dataset_names
from vae_lib.experiments import EXPERIMENTS, Scale
from vae_lib.learning.schedules import Schedule
from vae_lib.learning.settings import Optimiser, TrainingConfig
from vae_lib.models import VAEConfig, configuration, configuration_names
from vae_lib.models.configurations import Head

ROOT = Path(__file__).parents[2]
COMMANDS = ("train", "evaluate", "sample", "reproduce", "data")


def words_of(text: str) -> str:
    return " ".join(text.split())


def test_the_first_help_leads_to_the_others(ask: Ask) -> None:
    answer = ask("--help")
    assert (answer.code, answer.err) == (0, "")
    assert all(f"  {command} " in answer.out for command in COMMANDS)
    assert "train --help" in answer.out
    assert ask("-h").out == answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_every_option_with_its_default(ask: Ask, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    answer = ask(command, "--help")
    assert (answer.code, answer.err) == (0, "")
    text = words_of(answer.out)
    for field in dataclasses.fields(getattr(options, command.capitalize())):
        name = field.name.replace("_", "-")
        assert f"--{name} " in text or name in ("run", "name")
        if isinstance(field.default, bool | int | float) or (isinstance(field.default, str) and field.default):
            assert re.search(rf"--{name} .*?\(default: {field.default}\)", text), name
    entries = [words_of(entry) for entry in re.split(r"\n  (?=--)", answer.out.partition("Examples:")[0])]
    assert [entry for entry in entries[1:] if "(default: " not in entry] == []
    assert f"python -m vae_lib {command}" in answer.out.partition("Examples:")[2]
    assert max(len(line) for line in answer.out.partition("Examples:")[0].splitlines()) <= 100


def test_names_in_the_help_are_those_of_the_library(ask: Ask) -> None:
    text = words_of(ask("train", "--help").out)
    names = (*dataset_names(), *configuration_names(), *get_args(Head), *get_args(Optimiser), *get_args(Schedule))
    assert [name for name in names if name not in text] == []
    assert all(name in words_of(ask("reproduce", "--help").out) for name in (*RECIPES, *get_args(Scale)))
    assert all(name in words_of(ask("data", "--help").out) for name in dataset_names())


def test_the_help_tells_what_the_models_are(ask: Ask) -> None:
    assert {name: words_for(configuration(name)) for name in configuration_names()} == options.CONFIGURATIONS
    lines = ask("train", "--help").out.splitlines()
    assert all(
        any(line.split() == [name, *words.split()] for line in lines) for name, words in options.CONFIGURATIONS.items()
    )


def words_for(config: VAEConfig) -> str:
    """A configuration in one line."""
    layers = "{} x {}, ".format(*config.image_shape)
    if config.network == "conv":
        layers += "convolutions of {} and {} channels, ".format(*config.channels)
    layers += f"{' + '.join(map(str, config.hidden))} {config.activation} units"
    return f"{layers}, {config.latent_dim} latents, {config.likelihood}"


def test_library_names_become_options() -> None:
    several = "expected a multiple of the 2 processes, found 5"
    assert in_options(f"batch_size: {several}") == f"--batch-size: {several}"
    assert in_options("latent_dim: expected 3") == "--latents: expected 3"
    assert in_options("a/file: expected another") == "a/file: expected another"


def test_defaults_are_those_of_the_library() -> None:
    names = {"samples": "num_samples", "warmup": "warmup_steps"}
    typed, plain = options.Train(), TrainingConfig()
    for name in ("batch_size", "learning_rate", "optimiser", "schedule", "evaluate_every", "seed", *names):
        assert getattr(typed, name) == getattr(plain, names.get(name, name))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "expected a command out of train, evaluate, sample, reproduce, data, found none"),
        (("trian",), "found 'trian'; did you mean train"),
        (("train", "--epoch", 3), "expected options of this command, found --epoch; did you mean --epochs; see"),
        (("train", "--hiden", 3, "--latent", 3), "found --hiden; did you mean --hidden; see"),
        (("train", "--foo"), "expected options of this command, found --foo; see python -m vae_lib train --help"),
        (("train", "3"), "expected options of this command, found 3; see"),
        (("train", "--epochs", "x"), "--epochs: expected an integer, found 'x'; see python -m vae_lib train --help"),
        (("train", "--epochs", "1.5"), "--epochs: expected an integer, found '1.5'; see"),
        (("train", "--hidden", 3, "x"), "--hidden: expected an integer, found 'x'; see"),
        (("train", "--learning-rate", "x"), "--learning-rate: expected a number, found 'x'; see"),
        (("train", "--latents"), "--latents: expected a value, found none; see"),
        (("evaluate",), "expected RUN, found nothing; see python -m vae_lib evaluate --help"),
        (("sample", "a", "b"), "expected options of this command, found b; see"),
        (("train", "--epochs", -3), "--epochs: expected a positive integer, found -3"),
        (("train", "--seed", -1), "--seed: expected an integer of at least 0, found -1"),
        (("train", "--warmup", -1), "--warmup: expected an integer of at least 0, found -1"),
        (("train", "--samples", 0), "--samples: expected a positive integer, found 0"),
        (("train", "--latents", 0), "--latents: expected a positive integer, found 0"),
        (("train", "--learning-rate", "nan"), "--learning-rate: expected a positive number, found nan"),
        (("train", "--optimiser", "x"), "--optimiser: expected one of adam, adamax, adagrad, sgd, found 'x'"),
        (("train", "--data", "minst"), "expected one of digits, mnist, frey, binarized-mnist, sprites, found 'minst'"),
        (("train", "--model", "x"), "--model: expected one of kingma2014-mnist, "),
        (("train", "--likelihood", "x"), "--likelihood: expected one of bernoulli, "),
        (("train", "--data", "binarized-mnist", "--likelihood", "normal"), "for the bits of binarized-mnist"),
        (("train", "--model", "conv-mnist", "--hidden", 3, 4), "--hidden: expected one number beside convolutions"),
        (("train", "--device", "x"), "--device: expected a device of this machine (cpu"),
        (("train", "--device", "cuda:99"), "), found 'cuda:99'"),
        (("train", "--model", "digit"), ", found 'digit'; did you mean digits?"),
        (("train", "--likelihood", "normla"), "found 'normla'; did you mean normal?"),
        (("train", "--optimiser", "Adan"), "found 'Adan'; did you mean adam?"),
        (("train", "--resume", "."), "--resume: .: expected a run, found a folder without checkpoint.safetensors\n"),
        (("evaluate", "."), "vae-lib: .: expected a run, found a folder without checkpoint.safetensors\n"),
        (("evaluate", "x"), "x: expected a run or a checkpoint (.safetensors), found no such file\n"),
        (("sample", "x", "--kind", "draw"), "found 'draw'; did you mean draws?"),
        (("reproduce", "x"), f"NAME: expected one of {', '.join([*EXPERIMENTS, *RECIPES])}, found 'x'"),
        (("reproduce", "mnist20"), "found 'mnist20'; did you mean mnist-20?"),
        (("reproduce", "digits", "--seeds", -1), "--seeds: expected different integers of at least 0, found -1"),
        (("reproduce", "digits", "--seeds", 1, 1), "--seeds: expected different integers"),
        (("reproduce", "digits", "--jobs", 0), "--jobs: expected a positive integer, found 0"),
        (("data", "x"), "unknown data set: expected one of"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(ask: Ask, words: tuple[object, ...], expected: str) -> None:
    answer = ask(*words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith("vae-lib: ")
    assert expected in answer.err
    assert list(Path().iterdir()) == []


def test_a_wording_that_is_not_known_is_still_one_line() -> None:
    box = "╭─ News ─────────────╮\n│ Something is       │\n│ new here.          │\n│ ────────────────── │\n╰────╯"
    assert parsing.one_line(box) == "Something is new here."


def test_a_fault_of_the_library_is_not_hidden(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("a fault")

    monkeypatch.setattr("vae_lib.cli.data.run", fail)
    with pytest.raises(AssertionError, match="a fault"):
        ask("data")


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to", "DefaultCPUAllocator: can't allocate memory: you"])
def test_too_little_memory_is_one_line(ask: Ask, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr("vae_lib.cli.data.run", fail)
    answer = ask("data")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "expected enough memory" in answer.err


def test_only_the_first_of_several_processes_complains(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert ask("train", "--epochs", -1) == (2, "", "")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "train"])
def test_only_the_first_of_several_processes_does_what_is_no_training(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert ask(command, "nothing") == (0, "", "")
    monkeypatch.setenv("RANK", "0")
    assert ask(command, "nothing").code == 2


def test_ctrl_c_anywhere_is_130(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vae_lib.cli.data.run", stop)
    assert ask("data") == (130, "", "vae-lib: interrupted\n")


def test_the_version(ask: Ask) -> None:
    assert ask("--version").out == f"{vae_lib.__version__}\n"


def process(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60, **more)  # type: ignore[call-overload,no-any-return]


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys; from vae_lib.cli import main; main(['train', '--help']); sys.exit('torch' in sys.modules)"
    assert process("-c", program).returncode == 0


def test_the_module_is_a_program_and_a_broken_pipe_is_silent() -> None:
    listening, writing = os.pipe()
    os.close(listening)
    with os.fdopen(writing, "w") as stdout:
        command = [sys.executable, "-m", "vae_lib", "--help"]
        run = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=stdout, stderr=subprocess.PIPE, check=False
        )
    assert (run.returncode, run.stderr) == (141, b"")
    assert process("-m", "vae_lib", "frobnicate").returncode == 2
