r"""Table 1 of Burda, Grosse and Salakhutdinov (2016): the VAE's bound and the importance-weighted one, on MNIST.

One layer of 50 latents, bits drawn anew each time an image is read, minibatches of 20, Adam, and eight stages of a
falling learning rate. For the VAE k is the number of draws whose ELBOs are averaged, for the IWAE that of the draws
inside the logarithm; with k = 1 they are one. The negative log-likelihood (NLL) is estimated with 5000 draws. Unlike
there:

- 50,000 images are trained on, because 10,000 are kept for validation throughout this book; the paper has 60,000;
- the decoder's last biases start at zero, in the paper at the log-odds of the mean image;
- the bits of the test images are drawn once, and are the same for all cells;
- at laptop scale the eight stages are laid over 10 passes in place of 3280, and the NLL is that of every fifth test
  image: the first half of MNIST's test images is the easier one.

The proposal of a cell is its own q, so the estimates of two cells may lean by different amounts. For some of the images
a wider q is tried too, and what it adds is recorded.

Chapter 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vae_lib.bounds import importance_weighted, log_weights
from vae_lib.estimate import mean_with_error
from vae_lib.evaluation import MarginalLikelihood, Widened, log_p_x
from vae_lib.evaluation.diagnostics import active_units
from vae_lib.experiments.curves import Training, learning_curve, look_at_bound, round_numbers
from vae_lib.experiments.experiment import Advance, Experiment, Record, Scale, Unit
from vae_lib.experiments.images import fixed, load
from vae_lib.experiments.records import mean_and_spread
from vae_lib.learning import TrainingConfig
from vae_lib.learning.average_bound import Bound
from vae_lib.models import configuration
from vae_lib.plots import colour
from vae_lib.protocols import ApproximatePosterior
from vae_lib.rng import make_generator

BOUNDS: dict[str, Bound] = {"VAE": log_weights, "IWAE": importance_weighted}


class Published(NamedTuple):
    """A cell of the paper's table: one training each."""

    nll: float
    active_units: int


PUBLISHED = {
    ("VAE", 1): Published(86.76, 19),
    ("VAE", 5): Published(86.47, 20),
    ("VAE", 50): Published(86.35, 20),
    ("IWAE", 5): Published(85.54, 22),
    ("IWAE", 50): Published(84.78, 25),
}
PUBLISHED_PASSES = 3280
BATCH_SIZE = 20
# Images that a cell learns from, those whose likelihood is estimated, and draws for each.
SAMPLES: dict[Scale, int] = {"smoke": 2_000, "laptop": 500_000, "full": PUBLISHED_PASSES * 50_000}
_LOOKED_AT: dict[Scale, int] = {"smoke": 20, "laptop": 2_000, "full": 10_000}
_DRAWS = 5_000
# The second proposal, and how many images are tried with it.
_WIDER = 1.2
_TRIED: dict[Scale, int] = {"smoke": 4, "laptop": 200, "full": 1_000}
# Microseconds on one core: an image of training by the draws, and a draw of a test image.
_MICROSECONDS = {1: 150.0, 5: 210.0, 50: 920.0}
_MICROSECONDS_A_DRAW = 8.2
_SECONDS_BESIDE = 3.0


def units(scale: Scale, seeds: Sequence[int], stand_in: bool) -> list[Unit]:
    """Every cell for every seed; the first seed of all cells first."""
    found = []
    for seed in seeds:
        for method, draws in PUBLISHED:
            settings = {
                "data": "mnist",
                "stand_in": stand_in,
                "method": method,
                "draws": draws,
                "seed": seed,
                "samples": SAMPLES[scale],
                "images looked at": _LOOKED_AT[scale],
                "draws looked with": _DRAWS,
                "wider proposal": _WIDER,
                "images of the wider proposal": _TRIED[scale],
            }
            looking = _MICROSECONDS_A_DRAW * (_LOOKED_AT[scale] + _TRIED[scale]) * _DRAWS
            seconds = 1e-6 * (_MICROSECONDS[draws] * SAMPLES[scale] + looking) + _SECONDS_BESIDE
            found.append(Unit(f"{method.lower()}-{draws}-{seed}", settings, seconds))
    return found


def run(unit: Unit, folder: Path, device: torch.device, advance: Advance) -> dict[str, Any]:
    """One cell of the table for one seed: train, then estimate the likelihood and count the active units."""
    settings = unit.settings
    loaded = load(settings["data"], configuration("burda2016-1"), stand_in=settings["stand_in"])
    config = TrainingConfig(
        batch_size=BATCH_SIZE,
        learning_rate=1e-3,
        epsilon=1e-4,
        schedule="stages",
        num_samples=settings["draws"],
        seed=settings["seed"],
    )
    training = Training(loaded.model, loaded.train, config, BOUNDS[settings["method"]], device)
    test = fixed(loaded.test, "test", len(loaded.test), device=device)
    looked_at = settings["images looked at"] + settings["images of the wider proposal"]
    looking = 1e-6 * _MICROSECONDS_A_DRAW * looked_at * settings["draws looked with"]
    share = 1.0 - looking / unit.seconds
    vae, rows = learning_curve(
        training,
        round_numbers(1_000, settings["samples"]),
        look_at_bound({"test": test}),
        folder=folder,
        advance=lambda part: advance(share * part),
    )

    def likelihood(encoder: ApproximatePosterior, x: Tensor) -> MarginalLikelihood:
        return log_p_x(
            vae,
            encoder,
            x,
            num_samples=settings["draws looked with"],
            generator=make_generator(0, "log p(x)", device=device),  # the same noise for all cells
            rows=1_000 if device.type == "cpu" else 200_000,
        )

    rows_used = spread_out(len(test), settings["images looked at"])
    estimate = likelihood(vae, test[rows_used])
    tried = spread_out(len(rows_used), settings["images of the wider proposal"])
    wider = likelihood(Widened(vae, settings["wider proposal"]), test[rows_used][tried])
    gain, gain_error = mean_with_error((wider.value - estimate.value[tried]).cpu().double())
    nll, error = mean_with_error(-estimate.value.cpu().double())
    units_used = active_units(vae, test)
    return {
        "passes": settings["samples"] / len(loaded.train),
        "nll": round(float(nll), 4),
        "nll_error": round(float(error), 4),
        "nll_error_of_draws": round(float(estimate.standard_error.square().sum().sqrt()) / len(estimate.value), 5),
        "effective_sample_size": round(float(estimate.effective_sample_size.median()), 1),
        "least_effective_sample_size": round(float(estimate.effective_sample_size.min()), 2),
        # What a wider proposal adds to log p(x) of the images that it is tried on.
        "gain_of_the_wider": round(float(gain), 4),
        "gain_error": round(float(gain_error), 4),
        # Of each image, in the order of the test set: cells are compared image by image.
        "images": [round(-value, 3) for value in estimate.value.tolist()],
        "active_units": units_used.num_active,
        "variance_of_means": [float(f"{value:.4g}") for value in units_used.variance],
        "rows": rows,
    }


def spread_out(count: int, some: int) -> Tensor:
    """Which of so many images are used: every so many-th, from the first on."""
    return torch.arange(count)[:: max(1, count // some)][:some]


def lines(record: Record) -> list[str]:
    """The table: the paper's cell beside ours; of several seeds the means, and in brackets their spread."""
    table = [f"{'':<6}{'k':>3}   {'NLL: paper':<11}{'ours':<16}{'active: paper':<14}{'ours':<12}test ELBO"]
    for (method, draws), results in _cells(record).items():
        paper = PUBLISHED[method, draws]
        nll = mean_and_spread([result["nll"] for result in results])
        active = mean_and_spread([result["active_units"] for result in results], digits=1)
        elbo = mean_and_spread([result["rows"][-1]["test_elbo"] for result in results])
        table.append(
            f"{method:<6}{draws:>3}   {paper.nll:<11.2f}{nll:<16}{paper.active_units:<14}{active:<12}{elbo}".rstrip()
        )
    return [*table, "", *_fine_print(record)]


def _fine_print(record: Record) -> list[str]:
    result = next(iter(_cells(record).values()))[0]
    settings = result["settings"]
    several = any(len(results) > 1 for results in _cells(record).values())
    errors = [result["nll_error"] for results in _cells(record).values() for result in results]
    draws = [result["nll_error_of_draws"] for results in _cells(record).values() for result in results]
    return [
        "nats an image; " + ("means of the seeds, in brackets their spread" if several else "one seed in each cell"),
        f"the schedule's stages over {result['passes']:,.3g} passes of the {PUBLISHED_PASSES:,} in the paper, "
        f"{settings['samples']:,} images",
        f"NLL of {settings['images looked at']:,} test images with {settings['draws looked with']:,} draws; standard "
        f"error up to {max(errors):.2f} for the choice of the images, which all cells share, and {max(draws):.3f} for "
        "the draws",
    ]


def _cells(record: Record) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Results by cell, in the order of the paper; one for each seed."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {cell: [] for cell in PUBLISHED}
    for result in record["results"]:
        found[result["settings"]["method"], result["settings"]["draws"]].append(result)
    return {cell: results for cell, results in found.items() if results}


def draw(record: Record) -> Figure:
    """NLL and active units of each cell, ours beside the paper's."""
    figure = plt.figure(figsize=(8.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    draw_dots(record, "nll", left)
    draw_dots(record, "active_units", right)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


_DOTS = {"paper": "Burda et al. (2016)", "VAE": "our VAE, each seed", "IWAE": "our IWAE, each seed"}
_ROLES = {"VAE": "q", "IWAE": "posterior"}
_LABELS = {"nll": "negative log-likelihood, nats an image", "active_units": "active units of 50"}


def draw_dots(record: Record, name: str, ax: Axes | None = None) -> Axes:
    """One row for each cell: the paper's number hollow, each seed of ours as a dot with its standard error.

    Parameters
    ----------
    record
        Of this experiment.
    name
        ``"nll"`` or ``"active_units"``, which has no error.
    ax
        Where to draw; new axes if it is not given.
    """
    ax = ax if ax is not None else plt.subplots()[1]
    cells = _cells(record)
    labels = dict(_DOTS)
    for row, (cell, results) in enumerate(cells.items()):
        paper, role = getattr(PUBLISHED[cell], name), _ROLES[cell[0]]
        ax.plot(paper, row, "D", color=colour("ink"), fillstyle="none", label=labels.pop("paper", None))
        for number, result in enumerate(results):
            height = row + 0.16 * (number - (len(results) - 1) / 2)
            error, label = result.get(f"{name}_error"), labels.pop(cell[0], None)
            ax.errorbar(result[name], height, xerr=error, fmt="o", markersize=4, color=colour(role), label=label)
    ax.set_yticks(range(len(cells)), [f"{method}, k = {draws}" for method, draws in cells])
    ax.set_ylim(len(cells) - 0.5, -0.5)
    ax.set_xlabel(_LABELS[name])
    return ax


IWAE_TABLE1 = Experiment(
    "iwae-table1",
    "Table 1 of Burda, Grosse and Salakhutdinov (2016), one layer on MNIST",
    "nats an image",
    units,
    run,
    lines,
    draw,
)
