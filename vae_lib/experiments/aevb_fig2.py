r"""Figure 2 of Kingma and Welling (2014): the bound against the number of training images, AEVB and wake-sleep.

MNIST with 3, 5, 10, 20 and 200 latents, Frey Face with 2, 5, 10 and 20. What the paper leaves open is chosen here:

- :math:`\mathcal N(0, 0.01)` for the first weights is read as a variance;
- MNIST's bits are drawn anew each time an image is read, with the grey value as probability;
- Frey Face is split in the order of the film, grey values from 0 to 1;
- the bound is that of all test images and of the first 10,000 training images, whose bits are drawn once;
- the weights' prior N(0, I) is on all weights and biases, for both methods;
- Adagrad's step is chosen for each curve by the bound of its first 500 updates, one pass over MNIST's training images.
  After 100 another one is chosen for some curves, which decides how far apart the methods end. So for the first
  seed the runner-up is run to the end too, and a comparison can be held to both.

Chapter 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.experiments.curves import RATES, Training, curves_of_best_rates, look_at_bound, round_numbers
from vae_lib.experiments.experiment import Advance, Experiment, Record, Scale, Unit
from vae_lib.experiments.images import fixed, load
from vae_lib.experiments.records import mean_and_spread
from vae_lib.learning import TrainingConfig, WakeSleep
from vae_lib.learning.average_bound import Bound, SurrogateObjective
from vae_lib.models import configuration
from vae_lib.plots import colour

LATENTS = {"mnist": (3, 5, 10, 20, 200), "frey": (2, 5, 10, 20)}
TITLES = {"mnist": "MNIST", "frey": "Frey Face"}
METHODS: dict[str, Bound | SurrogateObjective] = {"aevb": elbo_with_analytic_kl, "wake-sleep": WakeSleep()}
# Images that a curve learns from; those of the paper are between 10^7 and 10^8.
SAMPLES: dict[Scale, int] = {"smoke": 10_000, "laptop": 1_000_000, "full": 100_000_000}
_LOOKED_AT: dict[Scale, int] = {"smoke": 1_000, "laptop": 10_000, "full": 10_000}
PILOT_STEPS: dict[Scale, int] = {"smoke": 50, "laptop": 500, "full": 500}
# Microseconds an image on one core.
_MICROSECONDS = {"mnist": 90.0, "frey": 42.0}


def units(scale: Scale, seeds: Sequence[int], stand_in: bool) -> list[Unit]:
    """Every curve for every seed; the first seed of all curves first."""
    found = []
    for seed in seeds:
        curves = 2 if seed == seeds[0] else 1
        for data, dimensions in LATENTS.items():
            for latents in dimensions:
                for method in METHODS:
                    settings = {
                        "data": data,
                        "stand_in": stand_in,
                        "method": method,
                        "latents": latents,
                        "seed": seed,
                        "samples": SAMPLES[scale],
                        "images looked at": _LOOKED_AT[scale],
                        "pilot steps": PILOT_STEPS[scale],
                        "steps run to the end": curves,
                    }
                    name = f"{data}-{latents}-{method}-{seed}"
                    found.append(
                        Unit(
                            name,
                            settings,
                            seconds_of(data, latents, SAMPLES[scale], curves=curves),
                        )
                    )
    return found


def seconds_of(data: str, latents: int, samples: int, *, curves: int = 1) -> float:
    """About how long so many trainings take, with the choice of the step and what is looked at."""
    is_smoke = samples <= SAMPLES["smoke"]
    seen = curves * samples + len(RATES) * 100 * PILOT_STEPS["smoke" if is_smoke else "laptop"]
    return _MICROSECONDS[data] * (1.25 if latents == 200 else 1.0) * seen * 1e-6 + curves * (1.0 if is_smoke else 12.0)


def training(settings: dict[str, Any], device: torch.device) -> tuple[Training, dict[str, torch.Tensor]]:
    """What the paper trains, with the learning rate still to be chosen, and the images to look at it with."""
    data = settings["data"]
    model = configuration(f"kingma2014-{data}", latent_dim=settings["latents"])
    loaded = load(data, model, stand_in=settings["stand_in"])
    config = TrainingConfig(batch_size=100, optimiser="adagrad", weight_prior=1.0, seed=settings["seed"])
    parts = {
        split: fixed(images, split, settings["images looked at"], device=device)
        for split, images in (("train", loaded.train), ("test", loaded.test))
    }
    return Training(loaded.model, loaded.train, config, METHODS[settings["method"]], device), parts


def run(unit: Unit, folder: Path, device: torch.device, advance: Advance) -> dict[str, Any]:
    """The curves of the two best steps."""
    plain, parts = training(unit.settings, device)
    return curves_of_best_rates(
        plain,
        round_numbers(1_000, unit.settings["samples"]),
        look_at_bound(parts),
        steps=unit.settings["pilot steps"],
        count=unit.settings["steps run to the end"],
        folder=folder,
        advance=advance,
    )


def lines(record: Record) -> list[str]:
    """The last bound of each curve, mean and spread of the seeds."""
    table = [f"{'data':<11}{'latents':<9}{'method':<12}{'step':<15}{'train':<18}{'test':<18}test, other step"]
    for (data, latents, method), results in _curves(record).items():
        steps = "/".join(f"{result['rate']:g}" for result in results)
        cells = [mean_and_spread([result["rows"][-1][name] for result in results]) for name in _BOUNDS]
        others = [
            curve["rows"][-1]["test_elbo"] for result in results for curve in result.get("others", []) if curve["rows"]
        ]
        cells.append(mean_and_spread(others) if others else "")
        row = f"{TITLES[data]:<11}{latents:<9}{method:<12}{steps:<15}" + "".join(f"{cell:<18}" for cell in cells)
        table.append(row.rstrip())
    samples = max(row["samples"] for result in record["results"] for row in result["rows"])
    table += ["", f"bound in nats an image after {samples:,} images; in brackets the spread of the seeds"]
    return table + [f"{result['name']}: {result['stopped']}" for result in record["results"] if "stopped" in result]


_BOUNDS = ("train_elbo", "test_elbo")


def _curves(record: Record) -> dict[tuple[str, int, str], list[dict[str, Any]]]:
    """Results by data, latents and method; one for each seed."""
    found: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for result in record["results"]:
        settings = result["settings"]
        if result["rows"]:
            key = (settings["data"], settings["latents"], settings["method"])
            found.setdefault(key, []).append(result)
    return dict(sorted(found.items(), key=lambda item: (list(LATENTS).index(item[0][0]), item[0][1], item[0][2])))


def draw(record: Record) -> Figure:
    """All panels of the figure that the record has curves for."""
    present = [data for data in LATENTS if any(key[0] == data for key in _curves(record))]
    figure = plt.figure(figsize=(9.6, 5.2 * len(present)), layout="constrained")
    for part, data in zip(figure.subfigures(len(present), 1, squeeze=False)[:, 0], present, strict=True):
        draw_panels(record, data, part)
    return figure


def draw_panels(record: Record, data: str, figure: Any = None) -> Any:
    """One panel for each number of latents: a line for each seed, training images solid, test images dashed.

    Parameters
    ----------
    record
        Of this experiment.
    data
        ``"mnist"`` or ``"frey"``.
    figure
        Where to draw; a new figure if it is not given.
    """
    curves = _curves(record)
    dimensions = sorted({key[1] for key in curves if key[0] == data})
    columns = min(3, len(dimensions))
    shape = (math.ceil(len(dimensions) / columns), columns)
    if figure is None:
        figure = plt.figure(figsize=(3.2 * shape[1], 2.6 * shape[0]), layout="constrained")
    panels = list(figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).flat)
    for panel, latents in zip(panels, dimensions, strict=False):
        _draw_panel(panel, curves, data, latents)
    shown = [
        row[f"{split}_elbo"]
        for key, results in curves.items()
        for result in results
        for row in result["rows"]
        for split in ("train", "test")
        if key[0] == data
    ]
    low, high = min(shown), max(shown)
    if high > _FLOOR[data]:
        low = max(low, _FLOOR[data])
    panels[0].set_ylim(low, high + 0.05 * max(high - low, 1.0))
    labels = panels[0].get_legend_handles_labels()
    for panel in panels[len(dimensions) :]:
        panel.set_axis_off()
    if len(panels) > len(dimensions):
        panels[-1].legend(*labels, loc="center")
    else:
        panels[-1].legend(*labels)
    figure.supxlabel("training images seen")
    figure.supylabel("bound, nats an image")
    figure.suptitle(TITLES[data])
    return figure


_ROLES = {"aevb": ("AEVB", "q"), "wake-sleep": ("wake-sleep", "posterior")}
# What lies below is the start, which the paper does not show either.
_FLOOR = {"mnist": -200.0, "frey": 0.0}


def _draw_panel(panel: Axes, curves: dict[tuple[str, int, str], list[dict[str, Any]]], data: str, latents: int) -> None:
    for method, (label, role) in _ROLES.items():
        for number, result in enumerate(curves.get((data, latents, method), [])):
            samples = [row["samples"] for row in result["rows"]]
            for split, line in (("train", "-"), ("test", "--")):
                values = [row[f"{split}_elbo"] for row in result["rows"]]
                name = f"{label} ({split})" if number == 0 else None
                panel.plot(samples, values, line, color=colour(role), linewidth=1.2, label=name)
    panel.set_xscale("log")
    panel.set_title(f"{latents} latents")


AEVB_FIG2 = Experiment(
    "aevb-fig2",
    "Figure 2 of Kingma and Welling (2014), the bound of AEVB and wake-sleep",
    "nats an image",
    units,
    run,
    lines,
    draw,
)
