"""Train one model with several gradient estimators on the digits, at equal numbers of samples (chapters 3 and 4).

Run ``python book/runs/gradient_training.py`` from the root; it writes ``gradient_training.json`` beside itself. About
half an hour on two cores. Two models: one with 8 normal latents, where the yardstick is the pathwise gradient, and one
with 8 bits, where it is the exact gradient by enumeration. For each estimator the learning rate
is the best of three: the one with the highest mean validation ELBO at the end, over three seeds that are not used
again. Then five seeds are trained with it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
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
TUNING_SEEDS, SEEDS = (100, 101, 102), (0, 1, 2, 3, 4)
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


class InHundredsOfNats(torch.nn.Module):
    """A network of grey levels between 0 and 1 whose output counts hundreds of nats, so that both are near 1."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Predictions for counts ``x (B, D)``, ``(B, 1)``, in nats."""
        output: Tensor = 100.0 * (self.network(x / GREY_LEVELS) - 1.0)
        return output


def estimators(kind: str) -> dict[str, Any]:
    """Name to a function that makes a fresh estimator."""
    network = mlp([64, HIDDEN, 1], generator=make_generator(0, "baseline"))
    common = {
        "score function": ScoreFunction,
        "moving average": lambda: ScoreFunction(MovingAverage(0.9)),
        "learned baseline": lambda: ScoreFunction(Learned(InHundredsOfNats(network), 1e-2)),
        "leave one out": lambda: ScoreFunction(LeaveOneOut()),
    }
    if kind == "bits":
        return {"exact": None, **common, "Gumbel-softmax": lambda: GumbelSoftmax(0.5)}
    return {"pathwise": Pathwise, **common}


def train(kind: str, name: str, seed: int, rate: float, steps: int, held_out: str) -> tuple[list[float], float]:
    """Train; return the held-out ELBO every EVALUATE_EVERY steps and the training ELBO at the end, nats per digit."""
    digits = load_dataset("digits")
    data, unseen = (getattr(digits, split).pixels() * GREY_LEVELS for split in ("train", held_out))
    problem = Problem(kind, seed)
    params = {name: value.clone().requires_grad_() for name, value in problem.params.items()}
    optimiser = torch.optim.Adam(params.values(), lr=rate)
    make = estimators(kind)[name]
    estimator: GradientEstimator | None = make() if make is not None else None
    order, noise = make_generator(seed, "order"), make_generator(seed, "noise")
    curve = [problem.evaluate(params, unseen)]
    for step in range(1, steps + 1):
        x = data[torch.randint(len(data), (BATCH,), generator=order)]
        optimiser.zero_grad()
        if estimator is None:
            (-problem.exact_elbo(params, x).mean()).backward()
        else:
            # The closed-form KL where it may be used: a relaxed bit has no log-probability.
            objective = problem.objective(x, analytic_kl=isinstance(estimator, GumbelSoftmax))
            # One estimate: ordinary differentiation is faster than a vectorised call.
            gradients = estimator(objective, params, num_samples=SAMPLES, generator=noise, vectorised=False)
            for key, leaf in params.items():
                leaf.grad = -gradients[key][0] / BATCH
        optimiser.step()
        if step % EVALUATE_EVERY == 0:
            curve.append(problem.evaluate(params, unseen))
    return curve, problem.evaluate(params, data)


def run(task: tuple[str, str, int]) -> dict[str, Any]:
    """Choose a learning rate, then train all seeds."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    kind, name, steps = task
    tried = {
        rate: [train(kind, name, seed, rate, steps, "validation")[0][-1] for seed in TUNING_SEEDS]
        for rate in LEARNING_RATES
    }
    best = max(tried, key=lambda rate: sum(v if math.isfinite(v) else -math.inf for v in tried[rate]))
    runs = [train(kind, name, seed, best, steps, "test") for seed in SEEDS]
    curves = [[round(value, 4) for value in curve] for curve, _ in runs]
    print(f"{kind:6} {name:20} rate {best:g}  {[curve[-1] for curve in curves]}", flush=True)
    return {
        "learning_rate": best,
        "tuning": {f"{rate:g}": [round(value, 4) for value in values] for rate, values in tried.items()},
        "curves": curves,
        "training_elbo": [round(value, 4) for _, value in runs],
    }


def main() -> None:
    """Run everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    torch.set_default_dtype(torch.float64)
    tasks = [(kind, name, options.steps) for kind in ("bits", "normal") for name in estimators(kind)]
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        done = dict(zip(tasks, pool.map(run, tasks), strict=True))
    results = {
        kind: {name: done[kind, name, options.steps] for name in estimators(kind)} for kind in ("normal", "bits")
    }
    record = {
        "command": f"python book/runs/gradient_training.py --steps {options.steps}",
        "commit": commit,
        "device": "CPU, two processes of one thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seeds": list(SEEDS),
        "settings": {
            "latents": LATENTS, "hidden": HIDDEN, "batch": BATCH, "samples": SAMPLES, "optimiser": "Adam",
            "learning rates tried": list(LEARNING_RATES), "tuning seeds": list(TUNING_SEEDS),
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
