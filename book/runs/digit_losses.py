"""What a likelihood, and the noise that a loss implies, do to held-out log p(x) of the digits (chapter 5).

Run ``python book/runs/digit_losses.py`` from the root; it writes ``digit_losses.json`` beside itself. About ten
minutes on one core. Every model has 8 latents and one hidden layer of 64 tanh units each way.

*Heads.* Each is trained for 300 epochs, and the weights with the highest ELBO on the validation images are kept. The
normal one sees pixels with a uniform number from 0 to 1 added, drawn anew at each reading of the training images: its
log-density bounds the log-probability of the levels from below.

*Noise.* A normal head on pixels from 0 to 1 with one standard deviation for all, held at the value that a loss means,
or learned. All models of all seeds are trained at once. Then, with the decoder held fixed, the standard deviation is
chosen on the validation images and q is fitted to each image by itself, so that it is the decoder that is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import stack_module_state, vmap

from vae_lib.bounds import elbo_with_analytic_kl, log_weights
from vae_lib.data import Dataset, load_dataset
from vae_lib.densities import DiagonalNormal
from vae_lib.divergences import kl
from vae_lib.evaluation import MarginalLikelihood, log_p_x
from vae_lib.learning.batches import Images
from vae_lib.learning.checkpoints import load_vae
from vae_lib.learning.settings import TrainingConfig
from vae_lib.learning.training import train
from vae_lib.models import build, configuration
from vae_lib.protocols import Density, LatentVariableModel
from vae_lib.rng import make_generator

SEEDS = (0, 1, 2)
EPOCHS = 300
SIGMAS = (0.03, 0.05, 0.07, 0.09, 0.11, 0.13, 0.16, 0.2, 0.25, 0.35, 0.5, 0.5**0.5, 1.0, 2.0)
STEPS, BATCH, LEARNING_RATE = 6000, 100, 3e-3
FIT_STEPS, DRAWS = 250, 500
Head = Literal["binomial", "categorical", "discretised-logistic", "normal-predicted"]
HEADS: tuple[Head, ...] = ("binomial", "categorical", "discretised-logistic", "normal-predicted")


def run_head(head: Head, seed: int, digits: Dataset) -> dict[str, Any]:
    """Train one model with early stopping and measure it."""
    config = configuration("digits", likelihood=head, max_value=16)
    vae = build(config, generator=make_generator(seed, head))
    blur = make_generator(seed, head, "blur")

    def blurred(x: Tensor) -> Tensor:
        return x + torch.rand(x.shape, generator=blur, dtype=x.dtype) if head == "normal-predicted" else x

    def bound(_model: LatentVariableModel, q: Density, x: Tensor, z: Tensor) -> Tensor:
        if head == "normal-predicted":  # q and z are those of the levels, and q must see what the likelihood sees
            x = blurred(x)
            q = vae(x)
            assert isinstance(q, DiagonalNormal)
            z = q.rsample(1, generator=blur)
        return elbo_with_analytic_kl(vae, q, x, z)

    settings = TrainingConfig(
        epochs=EPOCHS, batch_size=BATCH, learning_rate=LEARNING_RATE, schedule="cosine", evaluate_every=4, seed=seed
    )
    images, validation = Images(digits.train.x), Images(blurred(digits.validation.pixels() * 16))
    with tempfile.TemporaryDirectory() as folder:
        done = train(
            vae, images, validation, settings, bound=bound, device="cpu", folder=folder, notes={"model": vars(config)}
        )
        assert done.checkpoint is not None
        best = load_vae(done.checkpoint)
    test = blurred(digits.test.pixels() * 16)
    measured = log_p_x(best, best, test, num_samples=DRAWS, generator=make_generator(seed, head, "test"))
    row = max(done.history, key=lambda row: row["validation_elbo"])
    return {
        "epoch kept": row["epoch"],
        "validation ELBO": row["validation_elbo"],
        "test log p(x)": float(measured.value.mean()),
        "error from the draws": float(measured.standard_error.square().sum().sqrt() / len(test)),
        "median effective sample size": float(measured.effective_sample_size.median()),
    }


class Noise:
    """All models of the second experiment: their weights stacked along a first axis."""

    def __init__(self, digits: Dataset) -> None:
        self.images, self.validation, self.test = (
            split.pixels() for split in (digits.train, digits.validation, digits.test)
        )
        self.config = configuration("digits", likelihood="normal-learned", max_value=1, logvar=-3.0)
        self.cases = [(sigma, seed) for sigma in (*SIGMAS, None) for seed in SEEDS]
        models = [build(self.config, generator=make_generator(seed, "noise")) for _, seed in self.cases]
        self.shell = models[0]
        stacked, _ = stack_module_state(models)
        self.weights = {name: value.detach() for name, value in stacked.items()}
        self.is_learned = torch.tensor([sigma is None for sigma, _ in self.cases])
        for row, (sigma, _) in enumerate(self.cases):
            if sigma is not None:
                self.weights["likelihood.logvar"][row] = 2 * math.log(sigma)

    def train(self) -> None:
        """Climb the ELBO of all models at once; a standard deviation that is not learned stays."""
        weights = {name: value.requires_grad_() for name, value in self.weights.items()}
        logvar = weights["likelihood.logvar"]
        groups: list[dict[str, Any]] = [
            {"params": [value for value in weights.values() if value is not logvar]},
            {"params": [logvar], "lr": 1e-2},
        ]
        adam = torch.optim.Adam(groups, lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
        generator = make_generator(0, "noise training")

        def one(weights: dict[str, Tensor], x: Tensor, noise: Tensor) -> Tensor:
            model = self.shell.functional(weights)
            q = model(x)
            assert isinstance(q, DiagonalNormal)
            return elbo_with_analytic_kl(model, q, x, q.from_noise(noise)).mean()

        for _ in range(STEPS):
            x = self.images[torch.randint(len(self.images), (BATCH,), generator=generator)]
            noise = torch.randn(len(self.cases), 1, BATCH, self.config.latent_dim, generator=generator)
            bound = vmap(one, in_dims=(0, None, 0))(weights, x, noise)
            adam.zero_grad()
            (-bound.sum()).backward()
            logvar.grad *= self.is_learned
            adam.step()
            schedule.step()
        self.weights = {name: value.detach() for name, value in weights.items()}

    def fit(self, row: int, x: Tensor, *, logvar: Tensor | None) -> tuple[DiagonalNormal, Tensor, dict[str, Tensor]]:
        """Fit q to each image, and the noise to all of them if none is given, with the decoder held fixed."""
        weights = {name: value[row] for name, value in self.weights.items()}
        generator = make_generator(row, "fit")
        with torch.no_grad():
            start = self.shell.functional(weights)(x)
            assert isinstance(start, DiagonalNormal)
        noise_logvar = (weights["likelihood.logvar"] if logvar is None else logvar).clone().requires_grad_()
        free = [start.mu.clone().requires_grad_(), start.logvar.clone().requires_grad_()]
        adam = torch.optim.Adam([*free, noise_logvar] if logvar is None else free, lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, FIT_STEPS)
        for _ in range(FIT_STEPS):
            q = DiagonalNormal(*free)
            model = self.shell.functional({**weights, "likelihood.logvar": noise_logvar})
            loss = -elbo_with_analytic_kl(model, q, x, q.rsample(2, generator=generator)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
        found = noise_logvar.detach()
        return DiagonalNormal(*(value.detach() for value in free)), found, {**weights, "likelihood.logvar": found}

    def measure(self, row: int) -> dict[str, Any]:
        """All numbers of one model."""
        sigma, seed = self.cases[row]
        weights = {name: value[row] for name, value in self.weights.items()}
        generator = make_generator(row, "measure")
        with torch.no_grad():
            own = self.shell.functional(weights)
            q = own(self.test)
            own_elbo = elbo_with_analytic_kl(own, q, self.test, q.sample(20, generator=generator)).mean()
            divergence = kl(q, own.prior(len(self.test))).mean()
        _, best_logvar, _ = self.fit(row, self.validation, logvar=None)
        q, _, best_weights = self.fit(row, self.test, logvar=best_logvar)
        with torch.no_grad():
            best = self.shell.functional(best_weights)
            z = q.sample(DRAWS, generator=generator)
            measured = MarginalLikelihood.from_log_weights(log_weights(best, q, self.test, z))
        return {
            "sigma of the loss": float(torch.exp(0.5 * weights["likelihood.logvar"])),
            "learned": sigma is None,
            "seed": seed,
            "test ELBO at the sigma of the loss": float(own_elbo),
            "KL": float(divergence),
            "best sigma": float(torch.exp(0.5 * best_logvar)),
            "test log p(x) at the best sigma": float(measured.value.mean()),
            "median effective sample size": float(measured.effective_sample_size.median()),
        }


def main() -> None:
    """Run both experiments and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    digits = load_dataset("digits")
    heads = {head: [run_head(head, seed, digits) for seed in SEEDS] for head in HEADS}
    noise = Noise(digits)
    noise.train()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    record = {
        "command": "python book/runs/digit_losses.py",
        "commit": commit,
        "device": "CPU, one thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seeds": list(SEEDS),
        "settings": {
            "latents": 8, "hidden": 64, "batch": BATCH, "optimiser": "Adam", "learning rate": LEARNING_RATE,
            "schedule": "cosine", "epochs of a head": EPOCHS, "steps of the noise": STEPS, "draws for log p(x)": DRAWS,
        },
        "unit": "nats an image; heads: probability of levels 0 to 16; noise: density of pixels from 0 to 1",
        "heads": heads,
        "noise": [noise.measure(row) for row in range(len(noise.cases))],
    }  # fmt: skip
    partial = options.out.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(options.out)


if __name__ == "__main__":
    main()
