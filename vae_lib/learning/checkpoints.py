"""Checkpoints: one safetensors file with a JSON header, written whole or not at all, read with suspicion.

Nothing is unpickled, so a file from a stranger can do no harm. A file is written beside its place, flushed to the
disk and renamed: whenever the power fails, the place holds the old file or the new one. The header carries a SHA-256 of
all else in the file, since safetensors by itself does not notice a flipped bit.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vae_lib.models.configurations import VAEConfig, build
from vae_lib.models.vae import VAE
from vae_lib.rng import make_generator

# The name of the file in the folder of a training.
CHECKPOINT = "checkpoint.safetensors"
FORMAT = "vae_lib checkpoint 1"
_KEY = "vae_lib"
# How names begin in a file: weights of the model; weights with the highest held-out bound so far; what is no weight.
MODEL, BEST = "model.", "best."
_NO_WEIGHTS = ("optimiser.", "generator", "bounds", "chains.")


class CheckpointError(ValueError):
    """A checkpoint cannot be read, written or used; one line says what was expected and what was found."""


class Checkpoint(NamedTuple):
    """What a file holds: named tensors on the CPU, and whatever JSON can say."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a checkpoint whole, or leave what is there as it is.

    Parameters
    ----------
    path
        Its place.
    tensors
        By name, on any device.
    header
        Whatever JSON can say.

    Raises
    ------
    CheckpointError
        If the folder or the disk does not take it.
    """
    # Copies, because safetensors takes no two tensors that share memory, as tied weights do.
    host = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    # Through JSON once, so that the digest is of what the file holds.
    written = json.loads(json.dumps({**header, "format": FORMAT}, allow_nan=False))
    text = json.dumps({**written, "sha256": _digest(host, written)})
    write_whole(path, save(host, metadata={_KEY: text}))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, flush it to the disk, and rename it.

    Raises
    ------
    CheckpointError
        If the folder or the disk does not take it; nothing half-written is left.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for orphan in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            orphan.unlink()  # of a process that was killed while it wrote
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: expected a place that can be written to, found: {error.strerror or error}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        If there is none, it is truncated or damaged, or it is not one of this library.
    """
    try:
        with open(path, "rb"):
            pass  # safetensors words a missing file and a folder in its own way
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise CheckpointError(f"{path}: expected a checkpoint, found: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: expected a whole checkpoint, found a truncated or foreign file") from error
    try:
        header = json.loads(metadata[_KEY])
        found = header["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a checkpoint of vae_lib, found safetensors of another kind") from error
    if found != FORMAT:
        raise CheckpointError(f"{path}: expected the format {FORMAT!r}, found {found!r}")
    if header.pop("sha256", None) != _digest(tensors, header):
        raise CheckpointError(f"{path}: expected contents with the SHA-256 in the header, found others: it is damaged")
    return Checkpoint(tensors, header)


def save_vae(
    path: str | os.PathLike[str],
    vae: VAE,
    config: VAEConfig,
    *,
    dtype: torch.dtype | None = None,
    **notes: Any,
) -> None:
    """Write the weights of a VAE with its configuration.

    Parameters
    ----------
    path
        Where to.
    vae
        Built from ``config``.
    config
        What :func:`load_vae` builds it from again.
    dtype
        Of the stored weights: ``torch.float16`` halves the file. The model's own if not given.
    notes
        More for the header, as JSON can say it.
    """
    tensors = {f"{MODEL}{name}": value.to(dtype or value.dtype) for name, value in vae.state_dict().items()}
    write_checkpoint(Path(path), tensors, {"notes": {**notes, "model": asdict(config)}})


def load_vae(path: str | os.PathLike[str], *, best: bool = True, dtype: torch.dtype | None = None) -> VAE:
    """Build the VAE of a checkpoint, of a training or of :func:`save_vae`, on the CPU.

    Parameters
    ----------
    path
        The file, or the folder of a training.
    best
        Take the weights with the highest held-out bound, if the file has them, and not those of the last step.
    dtype
        Of the model; the default dtype if not given.

    Raises
    ------
    CheckpointError
        If the file cannot be used.
    """
    path = Path(path) / CHECKPOINT if Path(path).is_dir() else path
    checkpoint = read_checkpoint(path)
    config = read_config(path, checkpoint.header)
    # The weights drawn here are replaced at once.
    vae = build(config, generator=make_generator(0), dtype=dtype or torch.get_default_dtype())
    weights = {
        name.removeprefix(MODEL): value
        for name, value in weights_in(checkpoint.tensors, best=best).items()
        if name.startswith(MODEL)
    }
    load_weights(path, vae, weights)
    return vae


def read_config(path: str | os.PathLike[str], header: Mapping[str, Any]) -> VAEConfig:
    """The configuration in the header of a checkpoint.

    Raises
    ------
    CheckpointError
        If there is none, or it is none of this library.
    """
    try:
        return VAEConfig(**header["notes"]["model"])
    except (KeyError, TypeError, ValueError) as error:
        hint = "; a model of your own takes its weights by load_trained"
        found = f"none{hint}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: expected the configuration of a VAE in its header, found {found}") from error


def weights_in(tensors: Mapping[str, Tensor], *, best: bool) -> dict[str, Tensor]:
    """The weights among the tensors of a checkpoint: the best, if they are asked for and there, or the last.

    Parameters
    ----------
    tensors
        All of them.
    best
        Whether those with the highest held-out bound are wanted.
    """
    kept = {name.removeprefix(BEST): value for name, value in tensors.items() if name.startswith(BEST)}
    if best and kept:
        return kept
    return {name: value for name, value in tensors.items() if not name.startswith((BEST, *_NO_WEIGHTS))}


def load_weights(path: str | os.PathLike[str], module: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a module, all or none.

    Raises
    ------
    CheckpointError
        If a name or a shape differs.
    """
    own = module.state_dict()
    if unmatched := sorted(own.keys() ^ weights.keys()):
        place = "the model" if unmatched[0] in own else "the file"
        raise CheckpointError(f"{path}: expected the weights of this model, found {unmatched[0]} only in {place}")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            expected, found = tuple(value.shape), tuple(weights[name].shape)
            raise CheckpointError(f"{path}: expected {name} of shape {expected} as in this model, found {found}")
    module.load_state_dict(dict(weights))


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
