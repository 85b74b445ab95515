"""Train VAEs whose latents stand on levels, beside one with a single level, on the small digits (chapter 9).

Run ``python book/runs/hierarchy.py`` from the root; it writes ``hierarchy.json`` beside itself. A quarter of an hour on
one core; a finished unit is not run again. Images, split and likelihood head are those of the digits' VAE
(``digits.json``), and so are the networks at the bottom: 8 latents, 64 tanh units. Each further level has 8 latents of
its own and one more such network for each link. q goes up through the levels or comes down, each step of it sees x. All
climb the ELBO of one draw, as it is or with its KL let in over the first half of the steps. The weights of a unit are
those with the highest validation ELBO; the test images choose nothing.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.bounds import log_weights
from vae_lib.data import load_dataset
from vae_lib.estimate import mean_with_error
from vae_lib.evaluation import log_p_x
from vae_lib.evaluation.passes import evaluating
from vae_lib.experiments.records import read_units, write_units
from vae_lib.learning import Images, TrainingConfig, load_trained, train
from vae_lib.models import (
    ChainEncoder,
    HierarchicalModel,
    NormalEncoder,
    NormalLink,
    build,
    configuration,
    mlp,
    standard_normal,
)
from vae_lib.protocols import Density, LatentVariableModel
from vae_lib.rng import make_generator

SEEDS = (0, 1, 2)
LATENTS, HIDDEN, PIXELS = 8, 64, 64
EPOCHS, BATCH, RATE, EVERY, DRAWS, IMPORTANCE = 300, 100, 2e-3, 10, 20, 1000
KINDS = ((1, "up"), (2, "up"), (2, "down"), (3, "up"), (3, "down"))
BOUNDS = ("ELBO", "warm-up")


@dataclass(frozen=True)
class SampledWarmup:
    """Log-likelihood minus a growing share of log q - log p at the draws: a warm-up that asks for no closed form."""

    steps: int

    def at_step(self, step: int) -> Any:
        """The bound after so many steps."""
        share = min(1.0, step / self.steps)

        def bound(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor) -> Tensor:
            cost = q.log_prob(z) - model.prior(x.shape[0]).log_prob(z)
            return model.log_p_x_given_z(x, z) - share * cost

        return bound


def pair(levels: int, way: str, seed: int) -> tuple[HierarchicalModel, ChainEncoder]:
    """A model and its q."""
    generator = make_generator(seed, "weights")
    vae = build(configuration("digits"), generator=generator, dtype=torch.float32)
    dims = [LATENTS] * levels

    def link(*inputs: int) -> NormalLink:
        return NormalLink(mlp([sum(inputs), HIDDEN, 2 * LATENTS], generator=generator))

    # In the order of drawing: the model's links come down; q's go up or come down, and see x.
    model = HierarchicalModel(vae, standard_normal(LATENTS), [link(LATENTS) for _ in dims[1:]], dims)
    first = vae if way == "up" else NormalEncoder(mlp([PIXELS, HIDDEN, 2 * LATENTS], generator=generator))
    encoder = ChainEncoder(first, [link(LATENTS, PIXELS) for _ in dims[1:]], dims, top_down=way == "down")
    return model, encoder


def summary(values: Tensor) -> dict[str, float]:
    """Mean and standard error over the images."""
    found = mean_with_error(values.double())
    return {"mean": round(float(found.value), 4), "standard_error": round(float(found.standard_error), 4)}


def run(levels: int, way: str, bound: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train once; measure."""
    splits = load_dataset("digits")
    images, validation = (Images(torch.as_tensor(s.x), max_value=16) for s in (splits.train, splits.validation))
    steps = epochs * (len(images) // BATCH)
    model, encoder = pair(levels, way, seed)
    config = TrainingConfig(
        epochs=epochs, batch_size=BATCH, learning_rate=RATE, schedule="cosine", seed=seed, evaluate_every=EVERY
    )
    with tempfile.TemporaryDirectory() as folder:
        trained = train(
            model, images, validation, config, encoder=encoder,
            bound=SampledWarmup(steps // 2) if bound == "warm-up" else log_weights,
            device="cpu", folder=folder, progress=False,
        )  # fmt: skip
        model, encoder = pair(levels, way, seed)
        assert trained.checkpoint is not None
        load_trained(trained.checkpoint, model, encoder)
    x = torch.as_tensor(splits.test.x).float()
    with evaluating(model, encoder):
        q, prior = encoder(x), model.prior(len(x))
        z = q.sample(DRAWS, generator=make_generator(seed, "draws"))
        levels_of = (q.log_prob_of_parts(z) - prior.log_prob_of_parts(z)).mean(1)
        held_out = model.log_p_x_given_z(x, z).mean(0) - levels_of.sum(0)
    marginal = log_p_x(model, encoder, x, num_samples=IMPORTANCE, generator=make_generator(seed, "importance"))
    return {
        "levels": levels, "q": way, "bound": bound, "seed": seed,
        "validation ELBO, best": round(max(row["validation_elbo"] for row in trained.history), 3),
        "test ELBO": summary(held_out),
        "test log p(x)": summary(marginal.value),
        "log q - log p of the levels": [round(float(v), 4) for v in levels_of.mean(1)],
    }  # fmt: skip


def settings(epochs: int) -> dict[str, Any]:
    """What a result depends on, beside levels, q, bound and seed."""
    return {
        "data": "digits, 17 grey values, discretised logistic head", "latents of a level": LATENTS, "hidden": HIDDEN,
        "epochs": epochs, "batch": BATCH, "optimiser": "Adam", "learning rate": RATE, "schedule": "cosine",
        "warm-up": "half of the steps", "validation every so many epochs": EVERY, "draws for the ELBO": DRAWS,
        "draws for log p(x)": IMPORTANCE, "precision": "float32",
    }  # fmt: skip


def main() -> None:
    """Run what is not done, and write after each unit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = read_units(options.out, settings(options.epochs))
    done = {(unit["levels"], unit["q"], unit["bound"], unit["seed"]) for unit in results}
    for seed, bound, (levels, way) in itertools.product(SEEDS, BOUNDS, KINDS):
        if (levels, way, bound, seed) not in done:
            results.append(run(levels, way, bound, seed, options.epochs))
            print(results[-1], flush=True)
            write_units(
                options.out, results, command="python book/runs/hierarchy.py", settings=settings(options.epochs),
                unit="nats an image, 360 test images",
            )  # fmt: skip


if __name__ == "__main__":
    main()
