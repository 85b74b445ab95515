"""Train the decoders of the latent explorer (chapter 7): MNIST in two latents, and the small digits at several betas.

Run ``python book/runs/explorer.py`` from the root; it writes ``explorer-mnist-2.json`` and ``explorer-betas.json``
beside itself. Five minutes on one core. The weights are rounded to float16 after training, and all that a record says
is of the rounded weights, in float64. A record holds what the figure shows under ``asset``: the decoders' weights, the
codes of some training images, and, of the small digits, their pictures. No image of MNIST is kept.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.data import load_dataset
from vae_lib.divergences import kl
from vae_lib.estimate import mean_with_error
from vae_lib.experiments.records import commit, device_name, versions
from vae_lib.explorables import latent_explorer
from vae_lib.explorables.latent_asset import Pictures
from vae_lib.learning import Images, TrainingConfig, beta_elbo, reading_for, train
from vae_lib.models import VAE, VAEConfig, build, configuration
from vae_lib.rng import make_generator

SEED = 0
BETAS = (0.0, 0.1, 0.3, 1.0, 3.0, 6.0, 10.0)
EXAMPLES = 300  # training images in a figure
PICTURES: dict[str, Pictures] = {"mnist": "decoded", "digits": "data"}  # nobody states a licence of MNIST's images
DRAWS = 10  # of z for each image that is looked at


def look(vae: VAE, x: Tensor) -> dict[str, dict[str, float]]:
    """ELBO, rate (the KL) and distortion (-log p(x | z)) in nats an image: means and their standard errors."""
    with torch.no_grad():
        q, generator = vae(x), make_generator(SEED, "look")
        rate, likelihood = kl(q, vae.prior(len(x))), torch.zeros(len(x), dtype=x.dtype)
        for _ in range(DRAWS):  # one by one, to save memory
            likelihood += vae.log_p_x_given_z(x, q.rsample(1, generator=generator))[0] / DRAWS
    distortion = -likelihood
    found = {}
    for name, values in {"elbo": -distortion - rate, "rate": rate, "distortion": distortion}.items():
        estimate = mean_with_error(values)
        found[name] = {
            "mean": round(float(estimate.value), 4),
            "standard_error": round(float(estimate.standard_error), 4),
        }
    return found


def fit(model: VAEConfig, images: Images, training: TrainingConfig, beta: float) -> VAE:
    """Train, round the weights to float16, and return them in float64."""
    vae = build(model, generator=make_generator(SEED, "weights"), dtype=torch.float32)
    train(vae, images, config=training, bound=partial(beta_elbo, beta=beta), device="cpu", progress=False)
    return vae.half().double()


def make(name: str, data: str, title: str, model: VAEConfig, training: TrainingConfig, betas: tuple[float, ...]) -> Any:
    """Train a decoder for each beta; return the record."""
    began = time.process_time()
    splits, reading = load_dataset(data, progress=False), reading_for(model)
    largest = splits.info.value_range[1]
    images = Images(splits.train.x, reading, largest)
    seen = {
        part: Images(x, reading, largest).read_all(dtype=torch.float64, generator=make_generator(SEED, "bits", part))
        for part, x in (("train", splits.train.x[:2000]), ("test", splits.test.x))
    }
    labels = splits.train.labels
    assert labels is not None
    # The encoder of examples is given grey levels, the expected bits, not bits drawn once.
    shown = splits.train.x[:EXAMPLES].double() / (largest if reading == "bits" else 1)
    assets: dict[float, dict[str, Any]] = {}
    results: list[dict[str, Any]] = []
    for beta in betas:
        vae = fit(model, images, training, beta)
        results.append({"beta": beta, "train": look(vae, seen["train"]), "test": look(vae, seen["test"])})
        assets[beta] = latent_explorer.asset(
            vae,
            shown,
            labels[:EXAMPLES],
            image_shape=model.image_shape,
            class_names=splits.info.classes,
            title=title,
            pictures=PICTURES[data],
        )
        print(name, results[-1], flush=True)
    found = assets[betas[0]]
    if len(betas) > 1:
        measured = {
            row["beta"]: {part: row["test"][part]["mean"] for part in ("rate", "distortion")} for row in results
        }
        found = latent_explorer.walk(assets, measured)
    return {
        "command": "python book/runs/explorer.py",
        "commit": commit(),
        "device": device_name(torch.device("cpu")),
        "versions": versions(),
        "seeds": [SEED],
        "settings": {
            "data": data, "model": vars(model), "training": vars(training), "betas": list(betas),
            "weights": "rounded to float16 after training; every number is of the rounded weights, in float64",
            "draws of z when looked at": DRAWS,
            "looked at": "all test images, and the first 2000 of training; bits drawn once",
            "examples": f"the first {EXAMPLES} training images; bits are replaced by grey levels",
            "pictures": PICTURES[data],
        },
        "unit": "nats an image",
        "seconds": round(time.process_time() - began),
        "results": results,
        "asset": found,
    }  # fmt: skip


def main() -> None:
    """Make both records, or one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--only", choices=["mnist-2", "betas"])
    parser.add_argument("--epochs", type=int, help="instead of those of the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = {
        "mnist-2": (
            "mnist",
            "MNIST in two latents",
            configuration("kingma2014-mnist", latent_dim=2, hidden=(256,), init="fan-in"),
            TrainingConfig(epochs=options.epochs or 60, learning_rate=1e-3, schedule="cosine"),
            (1.0,),
        ),
        "betas": (
            "digits",
            "From pure reconstruction to strong regularisation",
            configuration("digits", latent_dim=2),
            TrainingConfig(epochs=options.epochs or 400, batch_size=100, learning_rate=2e-3, schedule="cosine"),
            BETAS,
        ),
    }
    for name, settings in runs.items():
        if options.only in (None, name):
            path = options.out / f"explorer-{name}.json"
            partial_path = path.with_suffix(".part")
            partial_path.write_text(json.dumps(make(name, *settings), indent=1) + "\n", encoding="utf-8")
            partial_path.replace(path)


if __name__ == "__main__":
    main()
