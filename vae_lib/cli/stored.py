"""What was stored: the folder of a run, or a file with weights, and the data that go with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_lib.cli.experiment import (
    SPLITS,
    Splits,
    check_fit,
    find_data,
    fixed_bits,
    load_splits,
    model_facts,
    reading_of,
)
from vae_lib.cli.hints import did_you_mean
from vae_lib.cli.parsing import BadInput
from vae_lib.learning import CheckpointError, load_vae
from vae_lib.learning.checkpoints import BEST, CHECKPOINT, read_checkpoint, read_config
from vae_lib.models import VAE, VAEConfig

SUFFIX = Path(CHECKPOINT).suffix


class Stored(NamedTuple):
    """A stored model, on the CPU.

    Parameters
    ----------
    path
        The file.
    config
        What the model was built from.
    vae
        The model.
    weights
        ``best`` or ``last``; ``only`` where the file has no others.
    data
        The name of the data set.
    configuration
        The name of the configuration, if it was stored.
    """

    path: Path
    config: VAEConfig
    vae: VAE
    weights: str
    data: str
    configuration: str | None


def checkpoint_path(place: Path) -> Path:
    """The file that a folder of a run holds; a file is its own."""
    return place / CHECKPOINT if place.is_dir() else place


def find_checkpoint(place: Path) -> Path:
    """The file that a folder of a run holds; a file is its own.

    Raises
    ------
    BadInput
        If there is nothing of the kind.
    """
    path = checkpoint_path(place)
    if path.is_file():
        return path
    if place.is_dir():
        runs = sorted((inside.parent for inside in place.glob(f"*/{CHECKPOINT}")), key=_by_number)
        inside = f"; runs in it: {', '.join(run.name for run in runs)}" if runs else ""
        raise BadInput(f"{place}: expected a run, found a folder without {CHECKPOINT}{inside}")
    beside = [path.name for path in place.parent.iterdir()] if place.parent.is_dir() else []
    hint = did_you_mean(place.name, beside)
    raise BadInput(f"{place}: expected a run or a checkpoint ({SUFFIX}), found no such file{hint}")


def _by_number(run: Path) -> list[str | int]:
    """So that digits-10 comes after digits-9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", run.name)]


def open_stored(place: Path, *, weights: str, data: str | None) -> Stored:
    """Read a stored model.

    Parameters
    ----------
    place
        A folder or a file.
    weights
        ``best`` or ``last``, of a training; a file with weights of one kind gives these.
    data
        A data set, if not the one that it was trained on.

    Raises
    ------
    BadInput
        If it is no checkpoint, or something does not fit.
    CheckpointError
        If the file cannot be used.
    """
    if weights not in ("best", "last"):
        raise BadInput(f"--weights: expected best or last, found {weights!r}")
    path = find_checkpoint(place)
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError:
        if path.suffix == SUFFIX:
            raise
        raise BadInput(f"{path}: expected a checkpoint ({SUFFIX}), found a file of another kind") from None
    config = read_config(path, checkpoint.header)
    trained_on = checkpoint.header["notes"].get("data")
    if data is None and trained_on is None:
        raise BadInput(f"--data: expected the name of a data set, since {path} names none, found nothing")
    name = str(data or trained_on)
    check_fit(find_data(name), config)
    vae = load_vae(path, best=weights == "best", dtype=torch.float32)
    has_both = any(tensor.startswith(BEST) for tensor in checkpoint.tensors)
    configuration = checkpoint.header["notes"].get("configuration")
    return Stored(path, config, vae, weights if has_both else "only", name, configuration)


def split_of(stored: Stored, split: str, *, progress: bool | None = None) -> tuple[Splits, Tensor]:
    """The data of a stored model, and one split ``(N, D)`` of them as every evaluation reads it.

    Raises
    ------
    BadInput
        If there is no such split.
    DatasetError
        If the data cannot be had.
    """
    if split not in SPLITS:
        raise BadInput(f"--split: expected {', '.join(SPLITS)}, found {split!r}")
    splits = load_splits(stored.data, stored.config, progress=progress)
    return splits, fixed_bits(getattr(splits, split), next(stored.vae.parameters()), split)


def facts_of(stored: Stored) -> dict[str, Any]:
    """What every answer about a stored model says first."""
    reading = reading_of(find_data(stored.data), stored.config)
    facts = {"file": str(stored.path), "weights": stored.weights, "data": stored.data}
    return {**facts, **model_facts(stored.configuration, stored.config, reading)}
