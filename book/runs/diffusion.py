"""Train diffusion models on two moons and on the small digits, and count what they cost in nats and bits (chapter 9).

Run ``python book/runs/diffusion.py`` from the root; it writes ``diffusion.json`` beside itself. Some six minutes on
one core; finished trainings are kept beside it, so that a stopped run goes on. All models are trained by the library's
trainer. On the digits the ratio of the first step is chosen by the validation images with the first seed, and the
weights of each seed are those with the highest validation ELBO; the test images choose nothing. Split and likelihood
head are those of the digits' VAE (``digits.json``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.data import load_dataset, two_moons, two_moons_log_density
from vae_lib.estimate import mean_with_error
from vae_lib.evaluation.passes import evaluating
from vae_lib.experiments.records import commit, device_name, versions
from vae_lib.learning import DiffusionELBO, Images, SimpleLoss, TrainingConfig, load_trained, train
from vae_lib.models import (
    DiffusionTerms,
    GaussianDiffusion,
    LearnedReconstruction,
    MLPDenoiser,
    NoiseSchedule,
    bits_per_dim,
    cosine_schedule,
    linear_log_snr_schedule,
    mlp,
)
from vae_lib.rng import make_generator

SEEDS = (0, 1, 2)
MOONS: dict[str, Any] = {
    "train": 5000,
    "test": 2000,
    "ends": (8.0, -6.0),
    "steps": 200,
    "epochs": 200,
    "batch": 250,
    "hidden": 64,
}
MOON_SWEEP = (25, 50, 100, 200, 400, 800)
DIGITS: dict[str, Any] = {
    "ends": (1.0, 2.0, 3.0, 5.0),
    "last": -6.0,
    "steps": 100,
    "epochs": 150,
    "batch": 100,
    "hidden": 256,
}
DIGIT_SWEEP = (5, 10, 25, 50, 100, 200)
TIMES, GROUPS = 6, 10


def mean(values: Tensor) -> dict[str, float]:
    """Mean over the data and its standard error, rounded."""
    found = mean_with_error(values.double())
    return {"mean": round(float(found.value), 4), "standard_error": round(float(found.standard_error), 4)}


def with_schedule(model: GaussianDiffusion, schedule: NoiseSchedule) -> GaussianDiffusion:
    """The same networks with other steps."""
    return GaussianDiffusion(
        model.denoiser,
        schedule,
        data_dim=model.data_dim,
        predicts=model.predicts,
        reconstruction=model.reconstruction,
    )


def look(model: GaussianDiffusion, x: Tensor, draws: int = 1) -> DiffusionTerms:
    """The parts of the ELBO of each datum, averaged over draws: ``(N,)``, ``(T - 1, N)``, ``(N,)``."""
    with evaluating(model):
        terms = model.terms(x, num_samples=draws, generator=make_generator(0, "look"))
    return DiffusionTerms(terms.reconstruction.mean(0), terms.step_kl.mean(1), terms.prior_kl)


def elbo(terms: DiffusionTerms) -> Tensor:
    """The ELBO of each datum, ``(N,)``."""
    return terms.reconstruction - terms.step_kl.sum(0) - terms.prior_kl


def parts(terms: DiffusionTerms, log_snr: Tensor) -> dict[str, Any]:
    """Means of the parts; the steps' KLs summed over groups of neighbours, with the ratios where each group ends."""
    sums = [float(group.mean(1).sum()) for group in terms.step_kl.chunk(GROUPS)]
    ends = [float(group[-1]) for group in log_snr[1:].chunk(GROUPS)]
    return {
        "elbo": mean(elbo(terms)),
        "reconstruction": mean(terms.reconstruction),
        "step_kl": mean(terms.step_kl.sum(0)),
        "prior_kl": mean(terms.prior_kl),
        "step_kl_of_groups": [round(value, 4) for value in sums],
        "log_snr_of_groups": [round(float(log_snr[0]), 3), *(round(end, 3) for end in ends)],
    }


def rounded(values: Tensor, digits: int) -> list[Any]:
    """Nested lists with few digits."""
    found: list[Any] = (values.double() * 10**digits).round().div(10**digits).tolist()
    return found


def moons(seed: int, kind: str, test: Tensor, log_p_data: Tensor) -> dict[str, Any]:
    """Train on the moons, by the ELBO on a linear schedule or by the simple loss on a cosine; look by the ELBO."""
    high, low = MOONS["ends"]
    line = linear_log_snr_schedule(MOONS["steps"], log_snr_max=high, log_snr_min=low)
    bent = cosine_schedule(MOONS["steps"], log_snr_max=high, log_snr_min=low)
    network = MLPDenoiser(2, hidden=MOONS["hidden"], generator=make_generator(seed, "weights"))
    model = GaussianDiffusion(network, line if kind == "ELBO" else bent, data_dim=2, predicts="v")
    images = Images(two_moons(MOONS["train"], generator=make_generator(0, "train")))
    config = TrainingConfig(
        epochs=MOONS["epochs"], batch_size=MOONS["batch"], learning_rate=2e-3, schedule="cosine", seed=seed
    )
    bound = DiffusionELBO() if kind == "ELBO" else SimpleLoss()
    train(model, images, config=config, bound=bound, device="cpu", progress=False)
    model = with_schedule(model, line)
    terms = look(model, test)
    row: dict[str, Any] = {"kind": kind, "seed": seed, **parts(terms, line.log_snr)}
    # The joint KL of chapter 1, KL(q(z | x) p_D(x) || p(x, z)) = -E ELBO - H(p_D): here p_D is known.
    row["joint_kl"] = mean(log_p_data - elbo(terms))
    if kind == "ELBO" and seed == SEEDS[0]:
        row["steps"] = []
        for steps in MOON_SWEEP:
            schedule = linear_log_snr_schedule(steps, log_snr_max=high, log_snr_min=low)
            row["steps"].append({"steps": steps, "elbo": mean(elbo(look(with_schedule(model, schedule), test)))})
        with evaluating(model):
            path = model.sample_path(300, generator=make_generator(seed, "path"))
            samples = model.sample(300, generator=make_generator(seed, "samples"))
        times = torch.linspace(MOONS["steps"] - 1, 0, TIMES).round().long()
        row["path"] = {
            "log_snr": rounded(line.log_snr[times], 3),
            "points": rounded(path[times], 2),
        }
        row["samples"] = rounded(samples, 2)
    return row


def digits(seed: int, first: float, splits: dict[str, Tensor]) -> dict[str, Any]:
    """Train on the digits with a first step of a log signal-to-noise ratio; keep the best weights by validation."""
    schedule = linear_log_snr_schedule(DIGITS["steps"], log_snr_max=first, log_snr_min=DIGITS["last"])

    def build() -> GaussianDiffusion:
        generator = make_generator(seed, "weights")
        head = mlp([64, 128, 128], generator=generator)
        with torch.no_grad():  # it begins with the guess itself, and a scale of one level
            weight, bias = list(head.parameters())[-2:]
            weight.zero_()
            bias.copy_(torch.cat([torch.zeros(64), torch.full((64,), -2.0)]))
        network = MLPDenoiser(64, hidden=DIGITS["hidden"], generator=generator)
        return GaussianDiffusion(
            network, schedule, data_dim=64, predicts="v", reconstruction=LearnedReconstruction(head, 17)
        )

    config = TrainingConfig(
        epochs=DIGITS["epochs"], batch_size=DIGITS["batch"], learning_rate=2e-3, schedule="cosine", seed=seed,
        evaluate_every=20,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            build(), Images(splits["train"]), Images(splits["validation"]), config,
            bound=DiffusionELBO(), device="cpu", folder=folder, progress=False,
        )  # fmt: skip
        model = build()
        assert run.checkpoint is not None
        load_trained(run.checkpoint, model)
    history = [{name: row[name] for name in ("epoch", "train_elbo", "validation_elbo")} for row in run.history]
    row = {
        "seed": seed,
        "log_snr_of_the_first_step": first,
        "validation_elbo": mean(elbo(look(model, splits["validation"].float(), draws=2))),
        "history": [{name: round(value, 3) for name, value in each.items()} for each in history],
    }
    return finish(model, row, splits["test"].float())


def finish(model: GaussianDiffusion, row: dict[str, Any], test: Tensor) -> dict[str, Any]:
    """Look at the test images; pictures and other numbers of steps from the first seed."""
    terms = look(model, test, draws=2)
    row |= parts(terms, model.schedule.log_snr)
    row["bits_per_dim"] = mean(bits_per_dim(elbo(terms), 64))
    if row["seed"] == SEEDS[0]:
        row["steps"] = []
        for steps in DIGIT_SWEEP:
            schedule = linear_log_snr_schedule(
                steps, log_snr_max=float(model.schedule.log_snr[0]), log_snr_min=DIGITS["last"]
            )
            row["steps"].append(
                {"steps": steps, "elbo": mean(elbo(look(with_schedule(model, schedule), test, draws=2)))}
            )
        with evaluating(model):
            path = model.sample_path(40, generator=make_generator(0, "path"))
            whole = path.transpose(0, 1).reshape(1, 40, -1)
            row["samples"] = rounded(model.sample_x_given_z(whole, generator=make_generator(0, "levels"))[0], 0)
            row["means"] = rounded(model.mean_x_given_z(whole)[0], 1)
            times = torch.linspace(DIGITS["steps"] - 1, 0, TIMES).round().long()
            guesses = torch.stack([model.predict_x(path[t, :8], int(t) + 1) for t in times])
        row["path"] = {
            "log_snr": rounded(model.schedule.log_snr[times], 3),
            "noisy, from -1 to 1": rounded(path[times, :8], 2),
            "guess, 0 to 16": rounded((8.0 * (guesses + 1.0)).clamp(0.0, 16.0), 1),
        }
    return row


def main() -> None:
    """Run all and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("digits")
    splits = {name: getattr(data, name).x for name in ("train", "validation", "test")}
    test = two_moons(MOONS["test"], generator=make_generator(0, "test"))
    log_p_data = two_moons_log_density(test.double())
    kept = options.out.with_suffix(".kept")
    units: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}

    def unit(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if name not in units:
            started = time.process_time()
            row = make()
            units[name] = row | {"seconds": round(time.process_time() - started, 1)}
            kept.write_text(json.dumps(units))
            print(name, {key: row.get(key) for key in ("validation_elbo", "elbo", "joint_kl")}, flush=True)
        found: dict[str, Any] = units[name]
        return found

    def moon(seed: int, kind: str) -> dict[str, Any]:
        return unit(f"moons, {kind}, {seed}", lambda: moons(seed, kind, test, log_p_data))

    def digit(seed: int, first: float) -> dict[str, Any]:
        return unit(f"digits, {first}, {seed}", lambda: digits(seed, first, splits))

    moon(SEEDS[0], "ELBO")
    tried = [digit(SEEDS[0], first) for first in DIGITS["ends"]]
    best = max(tried, key=lambda row: row["validation_elbo"]["mean"])
    digit_rows = [best, *(digit(seed, best["log_snr_of_the_first_step"]) for seed in SEEDS[1:])]
    moon_rows = [moon(seed, kind) for kind in ("ELBO", "simple loss") for seed in SEEDS]
    vae = json.loads(Path(__file__).with_name("digits.json").read_text())["results"]
    record = {
        "command": "python book/runs/diffusion.py",
        "commit": commit(),
        "device": device_name(torch.device("cpu")),
        "versions": versions(),
        "seeds": list(SEEDS),
        "settings": {
            "moons": MOONS, "digits": DIGITS, "denoiser": "MLPDenoiser, 2 blocks, predicts v",
            "optimiser": "Adam", "learning rate": 0.002, "rate": "falls as a cosine",
            "groups of steps": GROUPS, "test images": len(splits["test"]),
        },
        "unit": "nats a datum; bits per dimension where said",
        "seconds": round(sum(row["seconds"] for row in units.values())),
        "results": {
            "moons": {"log_p_data_of_the_test_points": mean(log_p_data), "runs": moon_rows},
            "digits": {
                "tried": [
                    {name: row[name] for name in ("log_snr_of_the_first_step", "validation_elbo")}
                    for row in tried
                ],
                "runs": digit_rows,
                "VAE of digits.json": [
                    {
                        "seed": row["seed"], "elbo": row["test_elbo"],
                        "log_p_x": {name: row["log_p_x"][name] for name in ("mean", "standard_error")},
                    }
                    for row in vae
                ],
            },
        },
    }  # fmt: skip
    partial = options.out.with_suffix(".part")
    partial.write_text(json.dumps(record) + "\n")
    partial.replace(options.out)
    kept.unlink()


if __name__ == "__main__":
    main()
