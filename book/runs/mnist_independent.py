"""The VAE of the recipe mnist-20 once more, by somebody who has only PyTorch: the check of ``mnist-20.json``.

Run ``python book/runs/mnist_independent.py`` from the root; it writes ``mnist_independent.json`` beside itself. Model,
loss, order of the images, bits and noise are PyTorch's own (``nn.Linear``, ``torch.distributions``, the global random
state); only the loader of the images is the library's. If the library's bound were off by a constant, a factor
or a mean, the two curves would part.
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
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from vae_lib.data import load_dataset

LATENTS, HIDDEN, BATCH, RATE, STD = 20, 500, 100, 1e-3, 0.1


class PlainVAE(nn.Module):
    """784 - 500 - 20 - 500 - 784, tanh, bits."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, HIDDEN)
        self.mean = nn.Linear(HIDDEN, LATENTS)
        self.logvar = nn.Linear(HIDDEN, LATENTS)
        self.decode = nn.Sequential(nn.Linear(LATENTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 784))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=STD)

    def elbo(self, x: Tensor) -> Tensor:
        """One value for each image, in nats."""
        hidden = torch.tanh(self.hidden(x))
        q = Independent(Normal(self.mean(hidden), torch.exp(0.5 * self.logvar(hidden))), 1)
        prior = Independent(Normal(torch.zeros_like(q.mean), 1.0), 1)
        log_likelihood = Independent(Bernoulli(logits=self.decode(q.rsample())), 1).log_prob(x)
        value: Tensor = log_likelihood - kl_divergence(q, prior)
        return value


def one_seed(seed: int, samples: int) -> dict[str, Any]:
    """Train, and return the held-out ELBO against training samples."""
    torch.manual_seed(seed)
    dataset = load_dataset("mnist")
    train, held_out = dataset.train.pixels(torch.float32), dataset.validation.pixels(torch.float32)
    vae = PlainVAE()
    optimiser = torch.optim.Adam(vae.parameters(), lr=RATE)
    curve, start, seen, spent = [], time.perf_counter(), 0, 0.0
    while seen < samples:
        for rows in torch.randperm(len(train)).split(BATCH):
            loss = -vae.elbo(torch.bernoulli(train[rows])).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            seen += len(rows)
        if seen // len(train) % 2 == 0:
            spent += time.perf_counter() - start
            with torch.no_grad():
                bound = torch.cat([vae.elbo(torch.bernoulli(part)) for part in held_out.split(1000)]).mean()
            curve.append({"samples": seen, "validation_elbo": round(float(bound), 4), "seconds": round(spent, 1)})
            start = time.perf_counter()
    return {"seed": seed, "history": curve}


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=5_000_000, help="images to learn from, for each seed")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    record = {
        "command": "python book/runs/mnist_independent.py",
        "commit": commit or "unknown",
        "device": f"CPU, {torch.get_num_threads()} thread" + "s" * (torch.get_num_threads() > 1),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "seeds": options.seeds,
        "unit": "held-out ELBO, nats an image (validation images), against training images seen",
        "results": [one_seed(seed, options.samples) for seed in options.seeds],
    }
    part = options.out.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(options.out)


if __name__ == "__main__":
    main()
