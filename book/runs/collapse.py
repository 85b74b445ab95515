"""Train VAEs that tend to close their latents, with and without the cures (chapter 7).

Run ``python book/runs/collapse.py`` from the root; it writes ``collapse.json`` beside itself. A quarter of an hour on
one core; a finished unit is not run again. The data are the small digits as bits. All networks have eight latents and
hidden layers of 64 tanh units; what differs is how many layers, how their first weights are drawn, and whether a pixel
is told the pixels before it: then the head is a masked network of its own (Germain and others, 2015), whose log-odds
are added to the decoder's. The warm-up takes the first half of the steps; free bits are half a nat for each latent.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.data import load_dataset
from vae_lib.densities import log_bernoulli
from vae_lib.evaluation import Widened, held_out_elbo, kl_per_dimension, log_p_x
from vae_lib.experiments.records import read_units, write_units
from vae_lib.learning import Images, TrainingConfig, train
from vae_lib.learning.objectives import Warmup, free_bits
from vae_lib.models import VAE, BernoulliLikelihood, NormalEncoder, fan_in_uniform, glorot_uniform, mlp
from vae_lib.rng import make_generator

SEEDS = (0, 1, 2, 3, 4)
PIXELS, LATENTS, HIDDEN, MASKED = 64, 8, 64, 256
EPOCHS, BATCH, RATE, MINIMUM, DRAWS, IMPORTANCE = 100, 100, 3e-3, 0.5, 20, 500


class PixelByPixel(nn.Module):
    """Bits, each of which is told the bits before it by a masked network."""

    outputs_per_number = 1
    reach_in: Tensor
    reach_out: Tensor

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.first = nn.utils.skip_init(nn.Linear, PIXELS, MASKED)
        self.last = nn.utils.skip_init(nn.Linear, MASKED, PIXELS)
        for layer in (self.first, self.last):
            fan_in_uniform(layer, generator)
        pixel, unit = torch.arange(PIXELS), torch.arange(MASKED) % PIXELS  # a unit sees the pixels before its own
        self.register_buffer("reach_in", (pixel[None, :] < unit[:, None]).double())
        self.register_buffer("reach_out", (unit[None, :] <= pixel[:, None]).double())

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)`` of ``x (B, D)``, in nats; the decoder's log-odds are ``output (S, B, D)``."""
        units = torch.tanh(nn.functional.linear(x, self.first.weight * self.reach_in, self.first.bias))
        told = nn.functional.linear(units, self.last.weight * self.reach_out)
        return log_bernoulli(x, output + told).sum(-1)


def model(kind: str, seed: int) -> VAE:
    """One of the models."""
    generator = make_generator(seed, "weights")
    init = glorot_uniform if kind == "four layers, Glorot" else fan_in_uniform
    hidden = [HIDDEN] * (4 if kind.startswith("four") else 1)
    encoder = mlp([PIXELS, *hidden, 2 * LATENTS], generator=generator, init=init)
    decoder = mlp([LATENTS, *hidden, PIXELS], generator=generator, init=init)
    head: Any = PixelByPixel(generator) if kind.startswith("pixel") else BernoulliLikelihood()
    return VAE(NormalEncoder(encoder), decoder, head, latent_dim=LATENTS, data_dim=PIXELS)


KINDS = ("one layer", "four layers, Glorot", "four layers, fan-in", "pixel by pixel")
BOUNDS: dict[str, Callable[[int], Any]] = {
    "ELBO": lambda steps: elbo_with_analytic_kl,
    "warm-up": lambda steps: Warmup(steps // 2),
    "free bits": lambda steps: functools.partial(free_bits, minimum=MINIMUM),
}


def bits(split: Any) -> Tensor:
    """A pixel is one where at least half of the 16 dots under it are inked."""
    return torch.as_tensor(split.x >= 8).double()


def summary(values: Tensor) -> dict[str, float]:
    """Mean and standard error over the images."""
    return {
        "mean": round(float(values.mean()), 4),
        "standard_error": round(float(values.std() / len(values) ** 0.5), 4),
    }


def run(kind: str, name: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train once; measure."""
    digits = load_dataset("digits")
    images = Images(bits(digits.train))
    steps = epochs * (len(images) // BATCH)
    vae = model(kind, seed)
    train(
        vae,
        images,
        None,
        TrainingConfig(epochs=epochs, batch_size=BATCH, learning_rate=RATE, schedule="cosine", seed=seed),
        bound=BOUNDS[name](steps),
        device="cpu",
        progress=False,
    )
    x = bits(digits.test)
    held_out = held_out_elbo(vae, vae, x, num_samples=DRAWS, generator=make_generator(seed, "draws"))
    marginal = log_p_x(vae, Widened(vae, 1.2), x, num_samples=IMPORTANCE, generator=make_generator(seed, "importance"))
    each = kl_per_dimension(vae, vae, x).mean(0)
    return {
        "model": kind,
        "bound": name,
        "seed": seed,
        "test ELBO": summary(held_out.elbo),
        "test KL": summary(held_out.kl),
        "test log p(x)": summary(marginal.value),
        "KL per latent": [round(float(v), 4) for v in each],
    }


def without_latents(seed: int, epochs: int) -> dict[str, Any]:
    """The masked head alone: the log-odds that a decoder would add are 64 numbers."""
    digits = load_dataset("digits")
    generator = make_generator(seed, "weights")
    head, offset = PixelByPixel(generator), torch.zeros(1, 1, PIXELS, requires_grad=True)
    x, steps = bits(digits.train), epochs * (len(digits.train) // BATCH)
    adam = torch.optim.Adam([*head.parameters(), offset], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        adam.zero_grad()
        loss = -head.log_prob(x[rows], offset.expand(1, BATCH, -1)).mean()
        loss.backward()
        adam.step()
        schedule.step()
    test = bits(digits.test)
    with torch.no_grad():
        values = head.log_prob(test, offset.expand(1, len(test), -1))[0]
    return {"model": "pixel by pixel", "bound": "no latents", "seed": seed, "test log p(x)": summary(values)}


def settings(epochs: int) -> dict[str, Any]:
    """What a result depends on, beside model, bound and seed."""
    return {
        "data": "digits as bits, one where at least 8 of 16 dots are inked", "latents": LATENTS, "hidden": HIDDEN,
        "units of the masked head": MASKED, "epochs": epochs, "batch": BATCH, "optimiser": "Adam",
        "learning rate": RATE, "schedule": "cosine", "warm-up": "half of the steps",
        "free bits, nats a latent": MINIMUM, "draws for the ELBO": DRAWS, "draws for log p(x)": IMPORTANCE,
        "proposal for log p(x)": "q, 1.2 times as wide",
    }  # fmt: skip


def main() -> None:
    """Run what is not done, and write after each unit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    results = read_units(options.out, settings(options.epochs))
    for seed in SEEDS:
        for kind, name in [*itertools.product(KINDS, BOUNDS), (KINDS[-1], "no latents")]:
            if any((r["model"], r["bound"], r["seed"]) == (kind, name, seed) for r in results):
                continue
            if name == "no latents":
                results.append(without_latents(seed, options.epochs))
            else:
                results.append(run(kind, name, seed, options.epochs))
            print(results[-1], flush=True)
            write_units(
                options.out, results, command="python book/runs/collapse.py", settings=settings(options.epochs),
                unit="nats an image, 360 test images",
            )  # fmt: skip


if __name__ == "__main__":
    main()
