"""What was stored: the folder of a run, or a file with weights, and the data that go with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_lib.cli.experiment import SPLITS, Splits, check_fit, find_data, fixed_bits, load_splits
from vae_lib.cli.parsing import BadInput
from vae_lib.learning import load_vae
from vae_lib.learning.checkpoints import BEST, read_checkpoint, read_config
from vae_lib.learning.training import CHECKPOINT
from vae_lib.models import VAE, VAEConfig


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
    """

    path: Path
    config: VAEConfig
    vae: VAE
    weights: str
    data: str


def checkpoint_path(place: Path) -> Path:
    """The file that a folder of a run holds; a file is its own."""
    return place / CHECKPOINT if place.is_dir() else place


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
        If something does not fit.
    CheckpointError
        If the file cannot be used.
    """
    if weights not in ("best", "last"):
        raise BadInput(f"--weights: expected best or last, found {weights!r}")
    path = checkpoint_path(place)
    checkpoint = read_checkpoint(path)
    config = read_config(path, checkpoint.header)
    trained_on = checkpoint.header["notes"].get("data")
    if data is None and trained_on is None:
        raise BadInput(f"--data: expected the name of a data set, since {path} names none, found nothing")
    name = str(data or trained_on)
    check_fit(find_data(name), config)
    vae = load_vae(path, best=weights == "best", dtype=torch.float32)
    has_both = any(tensor.startswith(BEST) for tensor in checkpoint.tensors)
    return Stored(path, config, vae, weights if has_both else "only", name)


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
    return {"file": str(stored.path), "weights": stored.weights, "data": stored.data}
