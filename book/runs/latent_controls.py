"""Walk between codes and add attribute vectors, with and without the KL term in training (chapter 7).

Run ``python book/runs/latent_controls.py`` from the root; it writes ``latent_controls.json`` beside itself. Three
minutes on one core; a finished unit is not run again. The network is that of ``digits.json``, trained in the same way
but for the weight of the KL: with weight 0 it is an autoencoder. Data, pairs of images and judges are the same for all.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.cli.recipes import RECIPES
from vae_lib.data import load_dataset
from vae_lib.evaluation import rate_distortion
from vae_lib.experiments.records import read_units, write_units
from vae_lib.learning import Images, reading_for, train
from vae_lib.learning.objectives import beta_elbo
from vae_lib.models import VAE, build
from vae_lib.rng import make_generator

BETAS, SEEDS = (0.0, 0.1, 1.0, 4.0), (0, 1, 2, 3, 4)
RECIPE = RECIPES["digits"]
NEIGHBOURS, DRAWS = 5, 10
COMMAND = "python book/runs/latent_controls.py"


@dataclass(frozen=True)
class Split:
    """Levels from 0 to 16, ``(N, 64)`` in float64, and classes."""

    x: Tensor
    labels: Tensor


def split(part: Any) -> Split:
    """A part of the digits."""
    return Split(part.x.double(), part.labels)


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Second moments of the ink about its centre: across, mixed, down; pixels."""
    column, row = (place.double() for place in (torch.arange(64) % 8, torch.arange(64) // 8))
    mass = x / x.sum(1, keepdim=True)
    across, down = column - (mass @ column)[:, None], row - (mass @ row)[:, None]
    return (mass * across**2).sum(1), (mass * across * down).sum(1), (mass * down**2).sum(1)


ATTRIBUTES: dict[str, Callable[[Tensor], Tensor]] = {
    "ink": lambda x: x.mean(1) / 16,
    "slant": lambda x: -moments(x)[1] / moments(x)[2],
    "width": lambda x: moments(x)[0].sqrt(),
}


def nearest(x: Tensor, train_x: Tensor) -> float:
    """Mean distance to the nearest training image, pixels from 0 to 1."""
    return float(torch.cdist(x / 16, train_x / 16).amin(1).mean())


def judged(points: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """The class that most of the nearest known points have."""
    return labels[torch.cdist(points, known).topk(NEIGHBOURS, largest=False).indices].mode(1).values


def walk(first: Tensor, second: Tensor, decode: Callable[[Tensor], Tensor], train_x: Tensor) -> dict[str, float]:
    """Distance to the nearest training image of an end, of the middle between codes, and of a cross-fade."""
    ends = decode(first), decode(second)
    return {
        "one end": nearest(ends[0], train_x),
        "middle of the codes": nearest(decode((first + second) / 2), train_x),
        "mean of the ends": nearest((ends[0] + ends[1]) / 2, train_x),
    }


def same_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in pairs: each with the next one of its class."""
    pairs = [(int(i), int(j)) for k in range(10) for i, j in itertools.pairwise((labels == k).nonzero()[:, 0])]
    first, second = torch.tensor(pairs).T
    return first, second


def arithmetic(
    name: str, known: Tensor, start: Tensor, to_image: Callable[[Tensor], Tensor], train_split: Split
) -> dict[str, float]:
    """Add the difference of the mean points of two thirds: what came of it, as shares of 1."""
    measure, values = ATTRIBUTES[name], ATTRIBUTES[name](train_split.x)
    low, high = values.quantile(torch.tensor([1 / 3, 2 / 3], dtype=values.dtype))
    most, least = values > high, values < low
    asked = values[most].mean() - values[least].mean()
    before, after = to_image(start), to_image(start + known[most].mean(0) - known[least].mean(0))
    others = [
        ((m(after) - m(before)).mean() / m(train_split.x).std()).abs()
        for other, m in ATTRIBUTES.items()
        if other != name
    ]
    kept = judged(after, train_split.x, train_split.labels) == judged(before, train_split.x, train_split.labels)
    return {
        "of what was asked": float((measure(after) - measure(before)).mean() / asked),
        "others moved, standard deviations": float(max(others)),
        "same class": float(kept.double().mean()),
    }


def measure_space(
    known: Tensor, points: Tensor, to_image: Callable[[Tensor], Tensor], data: tuple[Split, Split]
) -> dict[str, Any]:
    """All that is asked of a space: ``known`` are the codes of training images, ``points`` those of test images."""
    train_split, test = data
    order = torch.randperm(len(points), generator=make_generator(0, "pairs"))
    half = len(order) // 2
    first, second = same_class(test.labels)
    middle = to_image((points[first] + points[second]) / 2)
    kept = judged(middle, train_split.x, train_split.labels) == test.labels[first]
    return {
        "walk": walk(points[order[:half]], points[order[half:]], to_image, train_split.x),
        "walk within a class": {
            **walk(points[first], points[second], to_image, train_split.x),
            "middle of that class": float(kept.double().mean()),
        },
        "class of the neighbours": float((judged(points, known, train_split.labels) == test.labels).double().mean()),
        "arithmetic": {name: arithmetic(name, known, points, to_image, train_split) for name in ATTRIBUTES},
    }


def trained(beta: float, seed: int) -> VAE:
    """The network of the recipe after its steps, with this weight on the KL, in float64."""
    vae = build(RECIPE.model, generator=make_generator(seed, "weights"), dtype=torch.float32)
    images = Images(load_dataset(RECIPE.data).train.x, reading_for(RECIPE.model), 16)
    config = replace(RECIPE.training, seed=seed, evaluate_every=RECIPE.training.epochs)
    train(vae, images, None, config, bound=functools.partial(beta_elbo, beta=beta), device="cpu", progress=False)
    return vae.double()


def measure(vae: VAE, beta: float, seed: int, data: tuple[Split, Split]) -> dict[str, Any]:
    """All that is stored of a training."""

    def decode(z: Tensor) -> Tensor:
        return vae.mean_x_given_z(z[None])[0]

    with torch.no_grad():
        q, points = vae(data[0].x), vae(data[1].x).mu
        known = q.mu
        nats = rate_distortion(vae, vae, data[1].x, num_samples=DRAWS, generator=make_generator(0, "draws"))
        noise = torch.randn(1000, known.shape[1], generator=make_generator(0, "noise"), dtype=known.dtype)
        fitted = known.mean(0) + noise @ torch.linalg.cholesky(known.mT.cov()).mT
        found = measure_space(known, points, decode, data)
        draws = {
            "of the prior": nearest(decode(noise), data[0].x),
            "of a normal density fitted to the codes": nearest(decode(fitted), data[0].x),
        }
    return {
        "beta": beta,
        "seed": seed,
        "test": {name: float(e.value) for name, e in nats._asdict().items()},
        "standard deviation of the means": float(known.std(0).square().mean().sqrt()),
        "standard deviation of q": float(q.std.square().mean().sqrt()),
        **found,
        "decoded draws": draws,
    }


def on_pixels(data: tuple[Split, Split]) -> dict[str, Any]:
    """The same asked of the images themselves: the middle is a double exposure."""
    return measure_space(data[0].x, data[1].x, lambda x: x.clamp(0, 16), data)


def rounded(found: Any) -> Any:
    """Numbers for the JSON."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    return round(found, 4) if isinstance(found, float) else found


def settings() -> dict[str, Any]:
    """What a result depends on, beside beta and seed."""
    return {
        "data": RECIPE.data, "model": json.loads(json.dumps(asdict(RECIPE.model))),
        "training": {k: v for k, v in asdict(RECIPE.training).items() if k not in ("seed", "evaluate_every")},
        "weights": "of the last step", "neighbours": NEIGHBOURS, "draws of z, test": DRAWS,
    }  # fmt: skip


def main() -> None:
    """Run what is not done, and write after each unit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    digits = load_dataset(RECIPE.data)
    data = split(digits.train), split(digits.test)
    results = read_units(options.out, settings())
    for seed, beta in itertools.product(SEEDS, BETAS):
        if any((unit["beta"], unit["seed"]) == (beta, seed) for unit in results):
            continue
        results.append(rounded(measure(trained(beta, seed), beta, seed, data)))
        print(results[-1], flush=True)
        unit = "nats an image; walks and draws: distance to the nearest training image; the rest: shares of 1"
        write_units(
            options.out, results, command=COMMAND, settings=settings(), unit=unit, pixels=rounded(on_pixels(data))
        )


if __name__ == "__main__":
    main()
