"""What a run is to be: from what was typed, or from what is stored and what was typed on top of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vae_lib.cli.experiment import configuration_for, configuration_name, epochs_for, find_data
from vae_lib.cli.hints import option
from vae_lib.cli.options import Train
from vae_lib.cli.parsing import BadInput, read
from vae_lib.cli.stored import checkpoint_path, find_checkpoint
from vae_lib.learning import TrainingConfig
from vae_lib.learning.checkpoints import CHECKPOINT, read_checkpoint, read_config
from vae_lib.models import VAEConfig, configuration_names

Value = TypeVar("Value")

# What may differ when a run goes on; all else is part of what it is.
_FREE = ("epochs", "evaluate_every", "device", "resume", "tensorboard", "compiled", "quiet", "json")


class Plan(NamedTuple):
    """What is trained, on what, how, and the notes for the checkpoint; of a stored run also what it has done."""

    data: str
    model: VAEConfig
    training: TrainingConfig
    notes: dict[str, Any]
    epochs_done: float = 0.0
    history: Sequence[dict[str, Any]] = ()


def plan_of(options: Train) -> Plan:
    """The plan of a new run.

    Raises
    ------
    BadInput
        If an option does not fit.
    """
    info = find_data(options.data)
    model = configuration_name(options.data) if options.model is None else options.model
    if model not in configuration_names():
        raise BadInput(f"--model: expected one of {', '.join(configuration_names())}, found {model!r}")
    changes = {"latent_dim": options.latents, "hidden": options.hidden, "likelihood": options.likelihood}
    given = {name: value for name, value in changes.items() if value is not None}
    config = _by_option(lambda: configuration_for(info, model, **given))
    return Plan(
        options.data,
        config,
        _by_option(lambda: _training(options)),
        {"data": options.data, "configuration": model, "model": asdict(config)},
    )


def plan_to_go_on(folder: Path, words: Sequence[str]) -> Plan:
    """The plan of a run that is stored; what was typed is read once more, on top of its settings.

    Raises
    ------
    BadInput
        If something was typed that is not as it was.
    CheckpointError
        If the checkpoint cannot be used.
    """
    path = checkpoint_path(folder)
    tensors, header = read_checkpoint(path)
    model, notes = read_config(path, header), header["notes"]
    if "step" not in header or "data" not in notes:
        raise BadInput(f"--resume: expected a run of the command train, found another checkpoint: {path}")
    training = TrainingConfig(**header["config"])
    before = Train(
        data=notes["data"],
        model=notes.get("configuration"),
        latents=model.latent_dim,
        hidden=model.hidden,
        likelihood=model.likelihood,
        warmup=training.warmup_steps,
        samples=training.num_samples,
        **{field.name: value for field in fields(Train) if (value := header["config"].get(field.name)) is not None},
    )
    now = read(Train, words, default=before)
    for field in fields(Train):
        expected, found = getattr(before, field.name), getattr(now, field.name)
        if expected != found and field.name not in _FREE:
            stored = "" if expected is None else f" or {_typed(expected)}"
            raise BadInput(
                f"{option(field.name)}: expected nothing{stored} beside --resume {folder}, found {_typed(found)}"
            )
    planned, training = training.epochs, _by_option(lambda: _training(now))
    done = header["step"] / len(tensors["bounds"])  # which has one number for each step of an epoch
    least, why = math.ceil(done), "so many have begun"
    if training.schedule != "constant":
        least, why = planned, f"the {training.schedule} schedule has lowered the rate for so many"
    if training.epochs < least:
        raise BadInput(f"--epochs: expected at least {least} beside --resume {folder}, found {training.epochs}; {why}")
    return Plan(now.data, model, training, notes, done, header["history"])


def resumed_folder(place: Path) -> Path:
    """The folder of the run that is to go on: it may be named by its checkpoint too.

    Raises
    ------
    BadInput
        If there is no run.
    """
    if place.is_file() and place.name != CHECKPOINT:
        raise BadInput(f"--resume: expected the folder of a run, found a file: {place}")
    try:
        return find_checkpoint(place).parent
    except BadInput as error:
        raise BadInput(f"--resume: {error}") from None


def _training(options: Train) -> TrainingConfig:
    return TrainingConfig(
        epochs=epochs_for(options.data) if options.epochs is None else options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        optimiser=options.optimiser,  # type: ignore[arg-type]  # checked there
        schedule=options.schedule,  # type: ignore[arg-type]
        warmup_steps=options.warmup,
        num_samples=options.samples,
        evaluate_every=options.evaluate_every,
        seed=options.seed,
    )


def _by_option(make: Callable[[], Value]) -> Value:
    """Let a refusal of the library name the option."""
    try:
        return make()
    except (TypeError, ValueError) as error:
        name, _, words = str(error).partition(": ")
        raise BadInput(f"{option(name)}: {words}") from None


def _typed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
