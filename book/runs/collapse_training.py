"""What the deep networks of ``collapse.py`` reach on the images they were trained on (chapter 7).

Run ``python book/runs/collapse_training.py`` from the root; it writes ``collapse_training.json`` beside itself. Three
minutes on one core; a finished unit is not run again. The trainings are those of ``collapse.py`` with four layers and
Glorot's weights, run once more, from the same seeds: so the test ELBO must come out as it did there. To say that a
training missed a better maximum, one has to look at what was climbed.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import torch
from collapse import BATCH, BOUNDS, DRAWS, EPOCHS, RATE, bits, model, summary
from collapse import settings as settings_of_collapse

from vae_lib.data import load_dataset
from vae_lib.evaluation import held_out_elbo
from vae_lib.experiments.records import read_units, write_units
from vae_lib.learning import Images, TrainingConfig, train
from vae_lib.rng import make_generator

SEEDS = (0, 1, 2, 3, 4)
KIND = "four layers, Glorot"
COMMAND = "python book/runs/collapse_training.py"


def run(name: str, seed: int) -> dict[str, Any]:
    """Train as ``collapse.py`` does; measure the ELBO on both sets of images."""
    digits, vae = load_dataset("digits"), model(KIND, seed)
    images = Images(bits(digits.train))
    train(
        vae,
        images,
        None,
        TrainingConfig(epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE, schedule="cosine", seed=seed),
        bound=BOUNDS[name](EPOCHS * (len(images) // BATCH)),
        device="cpu",
        progress=False,
    )
    found: dict[str, Any] = {"model": KIND, "bound": name, "seed": seed}
    for part, split in (("test", digits.test), ("training", digits.train)):
        generator = make_generator(seed, "draws")
        elbo = held_out_elbo(vae, vae, bits(split), num_samples=DRAWS, generator=generator).elbo
        found[f"{part} ELBO"] = summary(elbo)
    return found


def settings() -> dict[str, Any]:
    """What a result depends on, beside bound and seed."""
    return settings_of_collapse(EPOCHS)


def main() -> None:
    """Run what is not done, and write after each unit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    results = read_units(options.out, settings())
    for seed, name in itertools.product(SEEDS, BOUNDS):
        if any((unit["bound"], unit["seed"]) == (name, seed) for unit in results):
            continue
        results.append(run(name, seed))
        print(results[-1], flush=True)
        unit = "nats an image"
        write_units(options.out, results, command=COMMAND, settings=settings(), unit=unit)


if __name__ == "__main__":
    main()
