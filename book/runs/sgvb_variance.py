"""Measure the noise of four gradient estimators while a variational autoencoder learns the digits (chapter 4).

Run ``python book/runs/sgvb_variance.py`` from the root; it writes ``sgvb_variance.json`` beside itself. About ten
minutes on one core. The model has 8 normal latents; it is trained with SGVB B, minibatches of 100 and one draw. At
each checkpoint, and for each of 419 training images on its own, the meter takes 16 independent gradients of one draw.
Their variance is the noise of the draw; the spread of their means over the images is the noise of the minibatch.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.data import load_dataset
from vae_lib.densities import DiagonalNormal
from vae_lib.gradients import (
    GradientEstimator,
    Objective,
    Params,
    Pathwise,
    ScoreFunction,
    amortised,
    functional,
    measure,
    sgvb_a,
    sgvb_b,
    sticking_the_landing,
)
from vae_lib.models import BinomialLikelihood, DecoderModel, NormalEncoder, mlp, standard_normal
from vae_lib.rng import make_generator

LATENTS, HIDDEN, GREY_LEVELS = 8, 64, 16
BATCH, LEARNING_RATE = 100, 1e-3
CHECKPOINTS = (0, 30, 100, 300, 1000, 3000, 10000)
SEEDS = (0, 1, 2, 3, 4)
EVERY, DRAWS = 3, 16


class Problem:
    """The model with its networks; all weights in one dictionary."""

    def __init__(self, seed: int) -> None:
        generator = make_generator(seed, "weights")
        self.encoder = NormalEncoder(mlp([64, HIDDEN, 2 * LATENTS], generator=generator))
        self.decoder = mlp([LATENTS, HIDDEN, 64], generator=generator)
        self.params = {f"encoder.{n}": p.detach().clone() for n, p in self.encoder.named_parameters()}
        self.params |= {f"decoder.{n}": p.detach().clone() for n, p in self.decoder.named_parameters()}

    def model(self, params: Params) -> DecoderModel:
        """The decoder with these weights."""
        network = functional(self.decoder, params, "decoder.")
        return DecoderModel(network, BinomialLikelihood(GREY_LEVELS), LATENTS, 64, standard_normal(LATENTS))

    def objective(self, x: Tensor, form: str) -> Objective:
        """The ELBO of x, summed, in one of its two forms."""
        make = sgvb_b if form == "B" else sgvb_a
        return make(self.model, amortised(self.encoder, x / GREY_LEVELS, "encoder."), x)

    def evaluate(self, params: Params, x: Tensor) -> float:
        """The mean ELBO of x in nats, with 50 fixed draws."""
        with torch.no_grad():
            q = functional(self.encoder, params, "encoder.")(x / GREY_LEVELS)
            assert isinstance(q, DiagonalNormal)
            z = q.sample(50, generator=make_generator(0, "evaluate"))
            return float(elbo_with_analytic_kl(self.model(params), q, x, z).mean())


ESTIMATORS: dict[str, tuple[GradientEstimator, str]] = {
    "score function": (ScoreFunction(), "A"),
    "SGVB A": (Pathwise(), "A"),
    "SGVB B": (Pathwise(), "B"),
    "sticking the landing": (sticking_the_landing(), "A"),
}


def noise(problem: Problem, params: Params, images: Tensor, name: str, seed: int) -> dict[str, float]:
    """Split the variance of one image's gradient, for encoder and decoder apart.

    Returns, for each part, ``draw``: the mean over the images of the variance of a gradient of one draw; and
    ``image``: the variance over the images of the exact gradient. Both are traces, of gradients of one ELBO in nats.
    """
    estimator, form = ESTIMATORS[name]
    generator = make_generator(seed, f"noise of {name}")
    parts: dict[str, list[Tensor]] = {"encoder": [], "decoder": []}
    draws: dict[str, list[float]] = {"encoder": [], "decoder": []}
    for x in images.split(1):
        found = measure(
            estimator, problem.objective(x, form), params, num_estimates=DRAWS, num_samples=1, generator=generator
        )
        for part in parts:
            names = [key for key in params if key.startswith(part)]
            parts[part].append(torch.cat([found.mean[key].flatten() for key in names]))
            draws[part].append(sum(float(found.variance[key].sum()) for key in names))
    result = {}
    for part, means in parts.items():
        draw = sum(draws[part]) / len(images)
        # The means of 16 draws still carry a sixteenth of the draws' variance.
        image = float(torch.stack(means).var(0, correction=1).sum()) - draw / DRAWS
        result |= {f"{part} draw": draw, f"{part} image": image}
    return {key: float(f"{value:.5g}") for key, value in result.items()}


def run(seed: int, checkpoints: tuple[int, ...], train: Tensor, held_out: Tensor) -> list[dict[str, Any]]:
    """Train once and measure at each checkpoint."""
    problem = Problem(seed)
    params = {name: value.clone().requires_grad_() for name, value in problem.params.items()}
    optimiser = torch.optim.Adam(params.values(), lr=LEARNING_RATE)
    order, draws = make_generator(seed, "order"), make_generator(seed, "noise")
    records = []
    for step in range(max(checkpoints) + 1):
        if step in checkpoints:
            start = time.process_time()
            record: dict[str, Any] = {"step": step, "held-out ELBO": round(problem.evaluate(params, held_out), 3)}
            fixed = {name: value.detach() for name, value in params.items()}
            record |= {name: noise(problem, fixed, train[::EVERY], name, seed) for name in ESTIMATORS}
            records.append(record)
            print(seed, record, f"{time.process_time() - start:.0f} s", flush=True)
        x = train[torch.randint(len(train), (BATCH,), generator=order)]
        q = functional(problem.encoder, params, "encoder.")(x / GREY_LEVELS)
        optimiser.zero_grad()
        z = q.rsample(1, generator=draws)
        (-elbo_with_analytic_kl(problem.model(params), q, x, z).mean()).backward()
        optimiser.step()
    return records


def main() -> None:
    """Run all seeds and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=max(CHECKPOINTS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    digits = load_dataset("digits")
    train, held_out = digits.train.pixels() * GREY_LEVELS, digits.test.pixels() * GREY_LEVELS
    checkpoints = tuple(step for step in CHECKPOINTS if step <= options.steps)
    results = [run(seed, checkpoints, train, held_out) for seed in SEEDS]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    record = {
        "command": f"python book/runs/sgvb_variance.py --steps {options.steps}",
        "commit": commit,
        "device": "CPU, one thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seeds": list(SEEDS),
        "settings": {
            "latents": LATENTS, "hidden": HIDDEN, "batch": BATCH, "samples": 1, "optimiser": "Adam",
            "learning rate": LEARNING_RATE, "trained with": "SGVB B",
            "images measured": len(train[::EVERY]), "gradients of one draw, for each image": DRAWS,
        },
        "unit": "traces of covariances of the gradient of one image's ELBO (nats), one draw; held-out ELBO in nats",
        "results": results,
    }  # fmt: skip
    partial = options.out.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(options.out)


if __name__ == "__main__":
    main()
