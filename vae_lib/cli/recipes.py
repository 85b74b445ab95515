"""Recipes: a data set, a model and settings that the book quotes results of, run by one command for several seeds.

What a recipe leaves is a stored run: one JSON with command, commit, device, versions, settings and results, and the
weights of the first seed. The weights are rounded to 16 bits *before* they are evaluated, so that what is evaluated is
what is stored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.cli.experiment import fixed_bits, load_splits, measure, ready_device
from vae_lib.estimate import mean_with_error
from vae_lib.evaluation import kl_per_dimension, log_p_x
from vae_lib.experiments.records import commit, device_name, versions
from vae_lib.learning import TrainingConfig, load_vae, save_vae, train
from vae_lib.learning.checkpoints import write_whole
from vae_lib.learning.distributed import choose_device
from vae_lib.models import VAEConfig, build, configuration
from vae_lib.rng import make_generator


@dataclass(frozen=True)
class Recipe:
    """What is run.

    Parameters
    ----------
    title
        What it is, in words.
    data
        The name of a data set.
    model
        What is trained.
    training
        How; the seed is set for each run.
    likelihood_images
        How many test images log p(x) is estimated for: every so many-th of them.
    likelihood_samples
        Draws for each of these.
    """

    title: str
    data: str
    model: VAEConfig
    training: TrainingConfig
    likelihood_images: int
    likelihood_samples: int = 5000


RECIPES = {
    "digits": Recipe(
        "the small digits of the book, 8 latents",
        "digits",
        configuration("digits"),
        TrainingConfig(epochs=300, evaluate_every=10),
        likelihood_images=360,
    ),
    "mnist-20": Recipe(
        "MNIST, 20 latents, one layer of 500 units as in Kingma and Welling (2014), Adam",
        "mnist",
        configuration("kingma2014-mnist"),
        TrainingConfig(epochs=100, evaluate_every=2),
        likelihood_images=1000,
    ),
    "mnist-50": Recipe(
        "MNIST, 50 latents, two layers of 200 units as in Burda and others (2016), Adam",
        "mnist",
        configuration("burda2016-1"),
        TrainingConfig(epochs=100, evaluate_every=2),
        likelihood_images=1000,
    ),
}


def reproduce(
    name: str,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    out: Path,
    device: str | None = None,
    jobs: int = 1,
    progress: bool | None = None,
) -> Path:
    """Run a recipe for each seed, and write ``NAME.json`` and ``NAME.safetensors`` to a folder.

    Parameters
    ----------
    name
        One of :data:`RECIPES`.
    seeds
        Each seeds the weights and the training.
    out
        The folder; the states of the trainings lie in a folder below it until all is done, so an interrupted command
        goes on where it stopped.
    device
        As for :func:`~vae_lib.learning.train`.
    jobs
        Seeds at a time, each a process of one thread.
    progress
        Whether to show a bar, with one job.

    Returns
    -------
    pathlib.Path
        The JSON.

    Raises
    ------
    ValueError
        If there is no recipe of that name.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, found {name!r}")
    recipe, work = RECIPES[name], out / f".{name}"
    arguments = (repeat(name), seeds, repeat(work), repeat(device), repeat(progress))
    if jobs == 1:
        results = list(map(_run_seed, *arguments))
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            results = list(pool.map(_run_seed, *arguments))
    record = {
        "command": f"python -m vae_lib reproduce {name} --seeds {' '.join(map(str, seeds))}",
        "commit": commit(),
        "device": results[0]["device"],
        "versions": versions(),
        "seeds": list(seeds),
        "title": recipe.title,
        "settings": {
            "data": recipe.data,
            "model": asdict(recipe.model),
            "training": {key: value for key, value in asdict(recipe.training).items() if key != "seed"},
            "processes": f"{jobs} at a time",
        },
        "unit": "nats an image; validation images for the curves, test images for the rest",
        "results": [{key: value for key, value in result.items() if key != "device"} for result in results],
    }
    path = out / f"{name}.json"
    write_whole(path.with_suffix(".safetensors"), (work / str(seeds[0]) / "rounded.safetensors").read_bytes())
    write_whole(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def _run_seed(name: str, seed: int, work: Path, device: str | None, progress: bool | None) -> dict[str, Any]:
    target = ready_device(device)
    recipe, folder = RECIPES[name], work / str(seed)
    splits = load_splits(recipe.data, recipe.model)
    vae = build(recipe.model, generator=make_generator(seed, "weights"), dtype=torch.float32)
    config = TrainingConfig(**{**asdict(recipe.training), "seed": seed})
    notes = {"recipe": name, "data": recipe.data, "model": asdict(recipe.model)}
    run = train(
        vae,
        splits.train,
        splits.validation,
        config,
        device=device,
        folder=folder,
        resume=True,  # of what an interrupted command left
        progress=progress,
        notes=notes,
    )
    assert run.checkpoint is not None
    rounded = folder / "rounded.safetensors"
    best = load_vae(run.checkpoint, dtype=torch.float32)
    save_vae(rounded, best, recipe.model, dtype=torch.float16, data=recipe.data, recipe=name, seed=seed)
    return {
        "seed": seed,
        "device": device_name(target),
        "history": [{key: round(value, 4) for key, value in row.items()} for row in run.history],
        **evaluate_weights(rounded, recipe, device=device),
    }


def evaluate_weights(path: Path, recipe: Recipe, *, device: str | None = None) -> dict[str, Any]:
    """Held-out ELBO of stored weights on all test images, and log p(x) on some of them, each with its error.

    Parameters
    ----------
    path
        Weights.
    recipe
        Which data, how many images, how many draws.
    device
        As for :func:`~vae_lib.learning.train`.
    """
    target = choose_device(device)
    vae = load_vae(path, dtype=torch.float32).to(target)
    test = load_splits(recipe.data, recipe.model).test
    x = fixed_bits(test, next(vae.parameters()), "test")
    held_out, estimate, rows = measure(vae, x, images=recipe.likelihood_images, draws=recipe.likelihood_samples)
    assert estimate is not None
    some = x[rows]
    # Image by image for a few, so that anybody can check them with a program of their own.
    first = log_p_x(
        vae,
        vae,
        some[:20],
        num_samples=recipe.likelihood_samples,
        generator=make_generator(0, "first images", device=target),
    )
    return {
        "test_elbo": _summary(held_out.elbo),
        "test_kl": _summary(held_out.kl),
        # A latent that is not used has none.
        "kl_of_each_latent": [
            round(value, 4) for value in kl_per_dimension(vae, vae, x).cpu().double().mean(0).tolist()
        ],
        "log_p_x": {
            **_summary(estimate.value),
            "elbo_of_the_same_images": round(float(held_out.elbo[rows].mean()), 4),
            "error_of_the_draws": round(float(estimate.standard_error.square().sum().sqrt()) / len(some), 4),
            "images": len(some),
            "samples": recipe.likelihood_samples,
            "first_images": [
                {"value": round(value, 4), "standard_error": round(error, 4)}
                for value, error in zip(first.value.tolist(), first.standard_error.tolist(), strict=True)
            ],
            "median_effective_sample_size": round(float(estimate.effective_sample_size.median()), 1),
        },
    }


def _summary(values: Tensor) -> dict[str, float]:
    """Mean over the images, and its standard error, which is that of another choice of images."""
    mean, error = mean_with_error(values.cpu().double())  # MPS has no doubles
    return {"mean": round(float(mean), 4), "standard_error": round(float(error), 4)}
