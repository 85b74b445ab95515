"""Small trainings that the tests of the trainer share: a VAE of 5 hidden units on 23 images of 12 grey pixels."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.learning import Images, Run, TrainingConfig, train
from vae_lib.learning.checkpoints import read_checkpoint
from vae_lib.models import VAE, VAEConfig, build
from vae_lib.rng import make_generator

# Sizes that are all different. 23 images make two minibatches of 10 and leave 3 behind.
MODEL = VAEConfig((3, 4), 2, (5,))
CONFIG = TrainingConfig(epochs=3, batch_size=10, learning_rate=1e-2, seed=7)
IN_STEP = 2


def small_vae(dtype: torch.dtype = torch.float64) -> VAE:
    return build(MODEL, generator=make_generator(1), dtype=dtype)


def grey_images(count: int = 23, seed: int = 2) -> Images:
    values = torch.randint(0, 256, (count, 12), generator=make_generator(seed))
    return Images(values.to(torch.uint8), "bits", 255)


def small_run(folder: Path | None = None, *, model: Any = None, **changes: Any) -> Run:
    """Train; what is a setting of ``TrainingConfig`` goes there, and the rest to ``train``."""
    names = {field.name for field in dataclasses.fields(TrainingConfig)}
    config = dataclasses.replace(CONFIG, **{name: changes.pop(name) for name in names & changes.keys()})
    options: dict[str, Any] = {
        "images": grey_images(),
        "validation": grey_images(11, seed=3),
        "device": "cpu",
        "progress": False,
        "checkpoint_seconds": 0.0,
    }
    return train(small_vae() if model is None else model, config=config, folder=folder, **(options | changes))


def at_step(number: int, action: Callable[[], object]) -> Callable[..., Tensor]:
    """The usual bound, which does something the number-th time it is asked for."""
    asked = 0

    def elbo(*arguments: Any) -> Tensor:
        nonlocal asked
        asked += 1
        if asked == number:
            action()
        return elbo_with_analytic_kl(*arguments)

    elbo.__name__ = elbo_with_analytic_kl.__name__
    return elbo


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row.keys() - {"seconds", "images_per_second"}} for row in history]


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return without_times([json.loads(line) for line in lines])


def contents(folder: Path) -> dict[str, Any]:
    """All that a checkpoint holds, but for times, in a form that == compares bit for bit."""
    tensors, header = read_checkpoint(folder / "checkpoint.safetensors")
    bits = {name: (value.dtype, tuple(value.shape), value.numpy().tobytes()) for name, value in tensors.items()}
    rest = {name: header[name] for name in header.keys() - {"seconds", "history"}}
    return bits | rest | {"history": without_times(header["history"])}


def weights(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
