"""Train one model with several gradient estimators on the digits, at equal numbers of samples (chapters 3 and 4).

Run ``python book/runs/gradient_training.py`` from the root; it writes ``gradient_training.json`` beside itself. About
half an hour on one core. Two models: one with 8 normal latents, where the yardstick is the pathwise gradient, and one
with 8 bits, where it is the exact gradient by enumeration. For each estimator the learning rate is the best of three
on a seed of its own (validation ELBO at the end); then five seeds are trained with it.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.data import load_dataset
from vae_lib.densities import DiagonalNormal
from vae_lib.gradients import (
    GradientEstimator,
    GumbelSoftmax,
    Learned,
    LeaveOneOut,
    MovingAverage,
    Objective,
    Params,
    Pathwise,
    ScoreFunction,
    amortised,
    functional,
    sgvb_a,
    sgvb_b,
)
from vae_lib.models import (
    BernoulliEncoder,
    BinomialLikelihood,
    DecoderModel,
    NormalEncoder,
    fair_bits,
    mlp,
    standard_normal,
)
from vae_lib.rng import make_generator

LATENTS, HIDDEN, GREY_LEVELS = 8, 64, 16
BATCH, SAMPLES = 100, 4
LEARNING_RATES = (1e-3, 3e-3, 1e-2)
TUNING_SEED, SEEDS = 100, (0, 1, 2, 3, 4)
EVALUATE_EVERY = 50


class Problem:
    """A model with its networks; parameters in one dictionary."""

    def __init__(self, kind: str, seed: int) -> None:
        generator = make_generator(seed, "weights")
        self.kind = kind
        outputs = LATENTS if kind == "bits" else 2 * LATENTS
        network = mlp([64, HIDDEN, outputs], generator=generator)
        self.encoder = BernoulliEncoder(network) if kind == "bits" else NormalEncoder(network)
        self.decoder = mlp([LATENTS, HIDDEN, 64], generator=generator)
        self.params = {f"encoder.{n}": p.detach() for n, p in self.encoder.named_parameters()}
        self.params |= {f"decoder.{n}": p.detach() for n, p in self.decoder.named_parameters()}
        self.support = torch.tensor(list(product((0.0, 1.0), repeat=LATENTS)))

    def model(self, params: Params) -> DecoderModel:
        """The generative model with the decoder's weights from the parameters."""
        prior = fair_bits(LATENTS) if self.kind == "bits" else standard_normal(LATENTS)
        network = functional(self.decoder, params, "decoder.")
        return DecoderModel(network, BinomialLikelihood(GREY_LEVELS), LATENTS, 64, prior)

    def objective(self, x: Tensor, analytic_kl: bool = False) -> Objective:
        """The ELBO of a batch of counts."""
        make = sgvb_b if analytic_kl else sgvb_a
        return make(self.model, amortised(self.encoder, x / GREY_LEVELS, "encoder."), x)

    def exact_elbo(self, params: Params, x: Tensor) -> Tensor:
        """Sum over all 256 settings of the bits, ``(B,)``."""
        q = functional(self.encoder, params, "encoder.")(x / GREY_LEVELS)
        z = self.support.unsqueeze(1).expand(-1, x.shape[0], -1)
        log_q = q.log_prob(z)
        model = self.model(params)
        # The decoder sees each setting once, whatever the number of data.
        output = model.network(self.support).unsqueeze(1)
        log_joint = model.likelihood.log_prob(x, output) + model.prior(x.shape[0]).log_prob(z)
        return (log_q.exp() * (log_joint - log_q)).sum(0)

    def evaluate(self, params: Params, x: Tensor) -> float:
        """The mean ELBO of x in nats: exact for bits, with 50 fixed draws for normal latents."""
        with torch.no_grad():
            if self.kind == "bits":
                return float(self.exact_elbo(params, x).mean())
            q = functional(self.encoder, params, "encoder.")(x / GREY_LEVELS)
            assert isinstance(q, DiagonalNormal)
            z = q.sample(50, generator=make_generator(0, "evaluate"))
            return float(elbo_with_analytic_kl(self.model(params), q, x, z).mean())


def estimators(kind: str) -> dict[str, Any]:
    """Name to a function that makes a fresh estimator."""
    learned = mlp([64, HIDDEN, 1], generator=make_generator(0, "baseline"))
    common = {
        "score function": ScoreFunction,
        "moving average": lambda: ScoreFunction(MovingAverage(0.9)),
        "learned baseline": lambda: ScoreFunction(Learned(learned, 1e-2)),
        "leave one out": lambda: ScoreFunction(LeaveOneOut()),
    }
    if kind == "bits":
        return {"exact": None, **common, "Gumbel-softmax": lambda: GumbelSoftmax(0.5)}
    return {"pathwise": Pathwise, **common}


def train(kind: str, name: str, seed: int, rate: float, steps: int, data: dict[str, Tensor]) -> list[float]:
    """Train and return the held-out ELBO every EVALUATE_EVERY steps, in nats per digit."""
    problem = Problem(kind, seed)
    params = {name: value.clone().requires_grad_() for name, value in problem.params.items()}
    optimiser = torch.optim.Adam(params.values(), lr=rate)
    make = estimators(kind)[name]
    estimator: GradientEstimator | None = make() if make is not None else None
    order, noise = make_generator(seed, "order"), make_generator(seed, "noise")
    curve = [problem.evaluate(params, data["held out"])]
    for step in range(1, steps + 1):
        x = data["train"][torch.randint(len(data["train"]), (BATCH,), generator=order)]
        optimiser.zero_grad()
        if estimator is None:
            (-problem.exact_elbo(params, x).mean()).backward()
        else:
            # The closed-form KL where it may be used: a relaxed bit has no log-probability.
            objective = problem.objective(x, analytic_kl=isinstance(estimator, GumbelSoftmax))
            gradients = estimator(objective, params, num_samples=SAMPLES, generator=noise)
            for key, leaf in params.items():
                leaf.grad = -gradients[key][0] / BATCH
        optimiser.step()
        if step % EVALUATE_EVERY == 0:
            curve.append(problem.evaluate(params, data["held out"]))
    return curve


def run(kind: str, name: str, steps: int, tuning: dict[str, Tensor], data: dict[str, Tensor]) -> dict[str, Any]:
    """Choose a learning rate, then train all seeds."""
    start = time.process_time()
    tried = {rate: train(kind, name, TUNING_SEED, rate, steps, tuning)[-1] for rate in LEARNING_RATES}
    best = max(tried, key=lambda rate: tried[rate])
    curves = [[round(value, 4) for value in train(kind, name, seed, best, steps, data)] for seed in SEEDS]
    seconds = time.process_time() - start
    print(f"{kind:6} {name:32} rate {best:g}  {[curve[-1] for curve in curves]}  {seconds:.0f} s", flush=True)
    return {"learning_rate": best, "tuning": {f"{rate:g}": round(v, 4) for rate, v in tried.items()}, "curves": curves}


def main() -> None:
    """Run everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    digits = load_dataset("digits")
    parts = {name: split.pixels() * GREY_LEVELS for name, split in (("train", digits.train), ("test", digits.test))}
    validation = digits.validation.pixels() * GREY_LEVELS
    tuning = {"train": parts["train"], "held out": validation}
    data = {"train": parts["train"], "held out": parts["test"]}
    results = {
        kind: {name: run(kind, name, options.steps, tuning, data) for name in estimators(kind)}
        for kind in ("normal", "bits")
    }
    record = {
        "command": f"python book/runs/gradient_training.py --steps {options.steps}",
        "commit": commit,
        "device": "CPU, one thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seeds": list(SEEDS),
        "settings": {
            "latents": LATENTS, "hidden": HIDDEN, "batch": BATCH, "samples": SAMPLES, "optimiser": "Adam",
            "learning rates tried": list(LEARNING_RATES), "tuning seed": TUNING_SEED,
            "evaluated every": EVALUATE_EVERY, "steps": options.steps,
        },
        "unit": "held-out ELBO, nats per digit (test images); learning rates chosen on the validation images",
        "results": results,
    }  # fmt: skip
    partial = options.out.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(options.out)


if __name__ == "__main__":
    main()
