"""Train VAEs with five weights of the KL on sprites, and measure how far their latents follow the factors (chapter 7).

Run ``python book/runs/sprites_beta.py`` from the root; it writes ``sprites_beta.json`` beside itself. Fifty minutes on
one core. Two processes may share the work: give each its own ``--seeds``. A finished unit is in the JSON and is not run
again; an interrupted one goes on. Weights stay in ``.sprites-beta/`` beside the JSON, outside the repository, and
``--evaluate`` measures them anew.

All networks are 784-256-256-10-256-256-784 with ReLU. Pixels are bits, drawn anew at each reading with the grey level
as their probability. ELBO, rate and distortion are of 2592 test images. The factors are compared with the codes of all
25,920 images, training images among them, because only there every combination of the factors occurs, once.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import math
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.data import load_dataset, render_sprites, sprite_factors
from vae_lib.densities import DiagonalNormal
from vae_lib.evaluation import active_units, kl_per_dimension
from vae_lib.evaluation.disentanglement import majority_vote_score, mutual_information_gap
from vae_lib.evaluation.rate_distortion import rate_distortion
from vae_lib.experiments.records import read_units, write_units
from vae_lib.learning import Images, TrainingConfig, load_vae, save_vae, train
from vae_lib.learning.checkpoints import read_checkpoint
from vae_lib.learning.objectives import beta_elbo
from vae_lib.models import VAE, VAEConfig, build
from vae_lib.rng import make_generator

BETAS, SEEDS = (1.0, 2.0, 4.0, 8.0, 16.0), (0, 1, 2, 3, 4)
EPOCHS, LOOK_EVERY, DRAWS = 60, 5, 5
MODEL = VAEConfig((28, 28), 10, (256, 256), activation="relu")
COMMAND = "python book/runs/sprites_beta.py"


def images(values: Tensor) -> Images:
    """Sprites, read as bits."""
    return Images(values, "bits", 255)


def trained(beta: float, seed: int, epochs: int, folder: Path) -> Path:
    """Train, or go on; return where the weights and the curve are."""
    weights = folder / f"beta-{beta:g}-seed-{seed}.safetensors"
    if weights.exists():
        return weights
    state, sprites = weights.with_suffix(""), load_dataset("sprites")
    run = train(
        build(MODEL, generator=make_generator(seed, "weights"), dtype=torch.float32),
        images(sprites.train.x),
        images(sprites.validation.x),
        TrainingConfig(epochs=epochs, evaluate_every=min(epochs, LOOK_EVERY), seed=seed),
        bound=functools.partial(beta_elbo, beta=beta),
        device="cpu",
        folder=state,
        resume=True,
        notes={"model": asdict(MODEL)},
    )
    save_vae(weights, run.model, MODEL, history=run.history)
    shutil.rmtree(state)
    return weights


def curve(weights: Path) -> list[dict[str, float]]:
    """What was climbed, and the held-out ELBO with its KL, at some epochs, from the header of the weights."""
    rows = read_checkpoint(weights).header["notes"]["history"]
    names = {
        "train_elbo": "objective, train",
        "validation_elbo": "ELBO, validation",
        "validation_kl": "rate, validation",
    }
    return [{"epoch": row["epoch"], **{new: round(row[old], 3) for old, new in names.items()}} for row in rows]


def rounded(values: Tensor, digits: int = 4) -> Any:
    """Numbers for the JSON."""
    return [rounded(row, digits) for row in values] if values.dim() else round(float(values), digits)


def measure(weights: Path, beta: float, seed: int) -> dict[str, Any]:
    """All that is stored of a training."""
    vae, x, factors = load_vae(weights, dtype=torch.float32), load_dataset("sprites").test.x, sprite_factors()
    test = images(x).read_all(dtype=torch.float32, generator=make_generator(0, "bits", "test"))
    whole = images(render_sprites(factors)).read_all(dtype=torch.float32, generator=make_generator(0, "bits", "all"))
    nats = rate_distortion(vae, vae, test, num_samples=DRAWS, generator=make_generator(0, "draws"))
    mu, std = codes(vae, whole)
    gap = mutual_information_gap(mu, std, factors)
    votes = majority_vote_score(mu, std, factors, generator=make_generator(0, "votes"))
    units = active_units(vae, test)
    return {
        "beta": beta,
        "seed": seed,
        "test": {
            name: {"mean": round(float(e.value), 3), "standard_error": round(float(e.standard_error), 3)}
            for name, e in nats._asdict().items()
        },
        "active units": units.num_active,
        "variance of the means": rounded(units.variance),
        "KL per latent": rounded(kl_per_dimension(vae, vae, test).mean(0)),
        "MIG": round(gap.mean, 4),
        "gap": rounded(gap.gap),
        "information": rounded(gap.information),
        "majority votes": round(votes.score, 4),
        "votes": votes.votes.tolist(),
        "latents voted for": votes.is_active.tolist(),
        "curve": curve(weights),
    }


def codes(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of q, ``(N, 10)`` each."""
    with torch.no_grad():
        q = vae(x)
    assert isinstance(q, DiagonalNormal)
    return q.mu, torch.exp(0.5 * q.logvar)


def naming_the_image() -> dict[str, float]:
    """Distortion and rate of a code that names the image: the model that drew the images costs at most their sum."""
    grey = load_dataset("sprites").test.pixels()
    entropy = -(torch.xlogy(grey, grey) + torch.xlogy(1.0 - grey, 1.0 - grey)).sum(1)
    return {"distortion": round(float(entropy.mean()), 3), "rate": round(math.log(len(sprite_factors())), 3)}


def settings(epochs: int) -> dict[str, Any]:
    """What a result depends on, beside beta and seed."""
    sprites = load_dataset("sprites")
    return {
        "data": "sprites, bits drawn anew at each reading", "training images": len(sprites.train),
        "validation images": len(sprites.validation), "test images": len(sprites.test),
        "images whose codes are compared with the factors": len(sprite_factors()),
        "factors": list(sprites.info.factor_names), "values of each factor": list(sprites.info.factor_sizes),
        "latents": MODEL.latent_dim, "hidden": list(MODEL.hidden), "activation": MODEL.activation,
        "epochs": epochs, "steps": epochs * (len(sprites.train) // 100), "batch": 100, "optimiser": "Adam",
        "learning rate": 1e-3, "draws of z, test": DRAWS, "weights": "of the last step",
    }  # fmt: skip


def store(unit: dict[str, Any], path: Path, epochs: int, lock: Path) -> None:
    """Put a unit into the record. Another process may be about to do the same."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        others = [
            old
            for old in read_units(path, settings(epochs))
            if (old["beta"], old["seed"]) != (unit["beta"], unit["seed"])
        ]
        results = sorted([*others, unit], key=lambda row: (row["beta"], row["seed"]))
        write_units(
            path, results, command=COMMAND, settings=settings(epochs),
            unit="nats an image; information in nats; scores from 0 to 1",
            **{"naming the image": naming_the_image(), "seconds": round(sum(row["seconds"] for row in results))},
        )  # fmt: skip


def main() -> None:
    """Run what is not done, and write after each unit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--betas", type=float, nargs="+", default=BETAS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--evaluate", action="store_true", help="measure finished units again, from their weights")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.out.with_name("." + options.out.stem.replace("_", "-"))
    folder.mkdir(exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    for seed in options.seeds:
        for beta in options.betas:
            done = {(unit["beta"], unit["seed"]): unit for unit in read_units(options.out, settings(options.epochs))}
            if (beta, seed) in done and not options.evaluate:
                continue
            started = time.process_time()
            weights = trained(beta, seed, options.epochs, folder)
            unit = measure(weights, beta, seed)
            spent = time.process_time() - started if (beta, seed) not in done else done[beta, seed]["seconds"]
            store({**unit, "seconds": round(spent)}, options.out, options.epochs, folder / "lock")
            print(
                {key: unit[key] for key in ("beta", "seed", "test", "active units", "MIG", "majority votes")},
                flush=True,
            )


if __name__ == "__main__":
    main()
