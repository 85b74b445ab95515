"""Score codes that nobody trained on sprites: untrained networks and principal components (chapter 7).

Run ``python book/runs/sprites_baselines.py`` from the root; it writes ``sprites_baselines.json`` beside itself. A
minute on one core; a finished unit is not run again. Images, networks and scores are those of ``sprites_beta.py``. A
score by information depends on the noise of q. An untrained network has hardly any signal in its noise, so its means
are scored a second time with a noise of a tenth of their spread, latent by latent. The principal components come with a
noise of their own: they are the linear VAE with ten latents and the noise that fits best, in closed form, for the
training images as bits drawn once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.data import load_dataset, render_sprites, sprite_factors
from vae_lib.evaluation.disentanglement import majority_vote_score, mutual_information_gap
from vae_lib.exact import maximum_likelihood_variance, optimal_linear_vae
from vae_lib.experiments.records import read_units, write_units
from vae_lib.learning import Images
from vae_lib.models import VAEConfig, build
from vae_lib.rng import make_generator

SEEDS = (0, 1, 2, 3, 4)
MODEL = VAEConfig((28, 28), 10, (256, 256), activation="relu")  # of sprites_beta.py
NOISE = 0.1
COMMAND = "python book/runs/sprites_baselines.py"
UNTRAINED, ITS_MEANS, COMPONENTS = "untrained network", "untrained network, its means", "principal components"


def bits(values: Tensor, name: str) -> Tensor:
    """Sprites as bits, drawn once."""
    return Images(values, "bits", 255).read_all(dtype=torch.float32, generator=make_generator(0, "bits", name))


def untrained(seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Codes of all images by a network with its first weights, and its means with a smaller noise."""
    vae = build(MODEL, generator=make_generator(seed, "weights"), dtype=torch.float32)
    with torch.no_grad():
        q = vae(bits(render_sprites(sprite_factors()), "all"))
    yield UNTRAINED, q.mu, q.std
    yield ITS_MEANS, q.mu, NOISE * q.mu.std(0, keepdim=True).expand_as(q.mu)


def components() -> tuple[str, Tensor, Tensor]:
    """Codes of all images by the linear VAE whose noise is learned."""
    x = bits(load_dataset("sprites").train.x, "train").double()
    covariance = x.mT.cov(correction=0)
    variance = maximum_likelihood_variance(torch.linalg.eigvalsh(covariance), MODEL.latent_dim)
    linear = optimal_linear_vae(x.mean(0), covariance, MODEL.latent_dim, logvar=variance.log())
    q = linear.encoder(bits(render_sprites(sprite_factors()), "all").double())
    return COMPONENTS, q.mu, q.std


def score(name: str, seed: int, mu: Tensor, std: Tensor) -> dict[str, Any]:
    """What is stored of a code."""
    factors = sprite_factors()
    gap = mutual_information_gap(mu, std, factors)
    votes = majority_vote_score(mu, std, factors, generator=make_generator(0, "votes"))
    return {
        "code": name,
        "seed": seed,
        "variance of the means": [round(float(v), 6) for v in mu.var(0, correction=0)],
        "mean variance of q": [round(float(v), 6) for v in std.square().mean(0)],
        "MIG": round(gap.mean, 4),
        "gap": [round(float(v), 4) for v in gap.gap],
        "information": [[round(float(v), 4) for v in row] for row in gap.information],
        "majority votes": round(votes.score, 4),
        "latents voted for": votes.is_active.tolist(),
    }


def settings() -> dict[str, Any]:
    """What a result depends on, beside code and seed."""
    sprites = load_dataset("sprites")
    return {
        "data": "sprites as bits, drawn once", "training images": len(sprites.train),
        "images whose codes are compared with the factors": len(sprite_factors()),
        "factors": list(sprites.info.factor_names), "values of each factor": list(sprites.info.factor_sizes),
        "model": json.loads(json.dumps(asdict(MODEL))), "noise of the second score, in spreads of the means": NOISE,
    }  # fmt: skip


def store(results: list[dict[str, Any]], path: Path) -> None:
    """Write the record with what is finished."""
    unit = "information in nats; scores from 0 to 1; the components know no seed, theirs is that of the bits"
    write_units(path, results, command=COMMAND, settings=settings(), unit=unit)


def main() -> None:
    """Run what is not done, and write after each unit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = read_units(options.out, settings())
    done = {(unit["code"], unit["seed"]) for unit in results}
    if (COMPONENTS, 0) not in done:
        name, mu, std = components()
        results.append(score(name, 0, mu, std))
        store(results, options.out)
    for seed in SEEDS:
        if (ITS_MEANS, seed) in done:
            continue
        results = [unit for unit in results if (unit["code"], unit["seed"]) != (UNTRAINED, seed)]
        results += [score(name, seed, mu, std) for name, mu, std in untrained(seed)]
        store(results, options.out)
    for unit in results:
        print({key: unit[key] for key in ("code", "seed", "MIG", "majority votes", "gap")}, flush=True)


if __name__ == "__main__":
    main()
