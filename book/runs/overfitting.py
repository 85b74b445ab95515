"""Train VAEs and plain autoencoders on a thousand images of MNIST, with few latents and many (chapter 6).

Run ``python book/runs/overfitting.py --jobs 2`` from the root; it writes ``overfitting.json`` beside itself. Half an
hour on one core. Both kinds have the same networks, 784-200-L-200-784 with tanh, the same images, bits drawn anew at
each reading, Adam at 0.001 and as many steps. The VAE climbs the ELBO, its z drawn. The autoencoder decodes the
encoder's mean and climbs the log-likelihood of the image that was encoded: no noise, no KL, no prior. Both are looked
at on the training images and on test images whose bits were drawn once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.data import load_dataset
from vae_lib.divergences import kl
from vae_lib.experiments.records import commit, device_name, versions
from vae_lib.learning import Images, reading_for
from vae_lib.models import VAE, build, configuration
from vae_lib.rng import make_generator

LATENTS = (3, 10, 50, 200)
SEEDS = (0, 1, 2)
KINDS = ("VAE", "autoencoder")
NUM_TRAIN, NUM_TEST, HIDDEN, BATCH, RATE, DRAWS = 1000, 2000, 200, 100, 1e-3, 5
MARKS = (100, 200, 500, 1000, 2000, 3000, 5000, 7000, 10_000)


def code(vae: VAE, x: Tensor, kind: str, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws of q, or the encoder's mean as the only one, and the KL to the prior, which the second does not have."""
    q = vae(x)
    if kind == "VAE":
        return q.rsample(draws, generator=generator), kl(q, vae.prior(len(x)))
    return q.mu.unsqueeze(0), torch.zeros(len(x))


def look(vae: VAE, x: Tensor, kind: str) -> dict[str, float]:
    """Log-likelihood of the images given their codes, the KL, and the first less the second, in nats an image."""
    with torch.no_grad():
        z, divergence = code(vae, x, kind, DRAWS, make_generator(0, "look"))
        likelihood = float(vae.log_p_x_given_z(x, z).mean())
    return {
        "likelihood": round(likelihood, 3),
        "kl": round(float(divergence.mean()), 3),
        "objective": round(likelihood - float(divergence.mean()), 3),
    }


def data() -> tuple[Images, Tensor, Tensor]:
    """Images to learn from, and the same and others with their bits drawn once."""
    mnist = load_dataset("mnist", progress=False)
    reading, largest = reading_for(configuration("kingma2014-mnist")), mnist.info.value_range[1]
    images = Images(mnist.train.x[:NUM_TRAIN], reading, largest)
    train, test = (
        Images(split.x[:count], reading, largest).read_all(
            dtype=torch.float32, generator=make_generator(0, "bits", name)
        )
        for name, split, count in (("train", mnist.train, NUM_TRAIN), ("test", mnist.test, NUM_TEST))
    )
    return images, train, test


def run(kind: str, latents: int, seed: int) -> dict[str, Any]:
    """Train once, on one thread; look at the marks."""
    torch.set_num_threads(1)
    images, train, test = data()
    config = configuration("kingma2014-mnist", latent_dim=latents, hidden=(HIDDEN,), init="fan-in")
    vae = build(config, generator=make_generator(seed, "weights"), dtype=torch.float32)
    adam = torch.optim.Adam(vae.parameters(), lr=RATE, fused=True)
    generator, rows = make_generator(seed, "steps"), []
    for step in range(1, max(MARKS) + 1):
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        x = images.read(chosen, dtype=torch.float32, generator=generator)
        if kind == "VAE":
            q = vae(x)
            value = elbo_with_analytic_kl(vae, q, x, q.rsample(1, generator=generator)).mean()
        else:
            value = vae.log_p_x_given_z(x, vae(x).mu.unsqueeze(0)).mean()
        adam.zero_grad()
        (-value).backward()
        adam.step()
        if step in MARKS:
            rows.append({"step": step, "train": look(vae, train, kind), "test": look(vae, test, kind)})
    print(kind, latents, seed, rows[-1], flush=True)
    return {"kind": kind, "latents": latents, "seed": seed, "rows": rows}


def main() -> None:
    """Run all and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; the result does not depend on it")
    options = parser.parse_args()
    started = time.perf_counter()
    tasks = [(kind, n, seed) for seed in SEEDS for kind in KINDS for n in LATENTS]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        results = pool.starmap(run, tasks, chunksize=1)
    record = {
        "command": f"python book/runs/overfitting.py --jobs {options.jobs}",
        "commit": commit(),
        "device": device_name(torch.device("cpu")),
        "versions": versions(),
        "seeds": list(SEEDS),
        "settings": {
            "data": "MNIST, bits drawn anew at each reading", "training images": NUM_TRAIN, "test images": NUM_TEST,
            "hidden": HIDDEN, "batch": BATCH, "optimiser": "Adam", "learning rate": RATE,
            "draws of z when looked at": DRAWS,
        },
        "unit": "nats an image",
        "seconds": round(time.perf_counter() - started),
        "results": results,
    }  # fmt: skip
    partial = options.out.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(options.out)


if __name__ == "__main__":
    main()
