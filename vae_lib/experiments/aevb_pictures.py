r"""Figures 4 and 5 of Kingma and Welling (2014): what models with few latents have learnt, in pictures.

Figure 4: the plane of two latents, decoded at the points whose coordinates are the normal distribution's quantiles, for
Frey Face and MNIST. Figure 5: images of MNIST for z drawn from the prior, with 2, 5, 10 and 20 latents. Both show
:math:`\mathbb E[x \mid z]`. The trainings are those of Figure 2, with as many images as the scale says. Chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vae_lib.experiments.aevb_fig2 import PILOT_STEPS, TITLES, seconds_of, training
from vae_lib.experiments.curves import learning_curve, look_at_bound, round_numbers, try_rates
from vae_lib.experiments.experiment import Advance, Experiment, Record, Scale, Unit
from vae_lib.experiments.pixels import pack, unpack
from vae_lib.models import VAE
from vae_lib.plots import image_grid, latent_manifold_grid
from vae_lib.rng import make_generator

SAMPLES: dict[Scale, int] = {"smoke": 10_000, "laptop": 2_000_000, "full": 100_000_000}
_MANIFOLD = {"mnist": 20, "frey": 10}
_DRAWN, _PER_ROW = 100, 10


def _units(models: Sequence[tuple[str, int]]) -> Callable[[Scale, Sequence[int], bool], list[Unit]]:
    def units(scale: Scale, seeds: Sequence[int], stand_in: bool) -> list[Unit]:
        found = []
        for seed in seeds:
            for data, latents in models:
                settings = {
                    "data": data,
                    "stand_in": stand_in,
                    "method": "aevb",
                    "latents": latents,
                    "seed": seed,
                    "samples": SAMPLES[scale],
                    "images looked at": 1_000 if scale == "smoke" else 10_000,
                    "pilot steps": PILOT_STEPS[scale],
                }
                found.append(Unit(f"{data}-{latents}-{seed}", settings, seconds_of(data, latents, SAMPLES[scale])))
        return found

    return units


def run(unit: Unit, folder: Path, device: torch.device, advance: Advance) -> dict[str, Any]:
    """Train as for Figure 2, and decode: the plane where there are two latents, draws of the prior always."""
    plain, parts = training(unit.settings, device)
    pilot = try_rates(plain, steps=unit.settings["pilot steps"])
    rate = float(next(iter(pilot)))
    chosen = replace(plain, config=replace(plain.config, learning_rate=rate))
    marks = round_numbers(1_000, unit.settings["samples"])
    vae, rows = learning_curve(chosen, marks, look_at_bound(parts), folder=folder, advance=advance)
    generator = make_generator(unit.settings["seed"], "pictures", device=device)
    shape = plain.model.image_shape
    z = vae.prior(_DRAWN).sample(1, generator=generator)
    pictures = {"samples": pack(_decode(vae, z), shape, _PER_ROW)}
    if unit.settings["latents"] == 2:
        side = _MANIFOLD[unit.settings["data"]]
        plane = latent_manifold_grid(side, dtype=torch.float32).to(device).unsqueeze(0)
        pictures["manifold"] = pack(_decode(vae, plane), shape, side)
    return {"rate": rate, "pilot": pilot, "rows": rows, "pictures": pictures}


@torch.no_grad()
def _decode(vae: VAE, z: Tensor) -> Tensor:
    """Mean images ``(N, D)`` of latents ``(1, N, L)``."""
    return vae.mean_x_given_z(z)[0]


def lines(record: Record) -> list[str]:
    """The bound of the models whose pictures these are."""
    table = [f"{'data':<11}{'latents':<9}{'seed':<6}{'step':<7}{'images':<12}{'train':<10}test"]
    for result in record["results"]:
        settings, last = result["settings"], result["rows"][-1]
        table.append(
            f"{TITLES[settings['data']]:<11}{settings['latents']:<9}{settings['seed']:<6}{result['rate']:<7g}"
            f"{last['samples']:<12,}{last['train_elbo']:<10.2f}{last['test_elbo']:.2f}"
        )
    return [*table, "", "bound in nats an image"]


def _sheets(record: Record, kind: str) -> Figure:
    """One sheet of images for each model of the first seed."""
    first = record["results"][0]["settings"]["seed"]
    results = [result for result in record["results"] if result["settings"]["seed"] == first]
    figure = plt.figure(figsize=(4.6 * min(2, len(results)), 5.0 * -(-len(results) // 2)), layout="compressed")
    panels = list(figure.subplots(-(-len(results) // 2), min(2, len(results)), squeeze=False).flat)
    for panel in panels[len(results) :]:
        panel.set_axis_off()
    for panel, result in zip(panels, results, strict=False):
        settings, picture = result["settings"], result["pictures"][kind]
        images, shape = unpack(picture), picture["image_shape"]
        # Ink is dark, and faces are light.
        ink = 1.0 - images if settings["data"] == "frey" else images
        image_grid(ink, (shape[0], shape[1]), columns=picture["columns"], ax=panel)
        panel.set_title(f"{TITLES[settings['data']]}, {settings['latents']} latents")
    return figure


AEVB_FIG4 = Experiment(
    "aevb-fig4",
    "Figure 4 of Kingma and Welling (2014), the plane of two latents",
    "nats an image; pixels from 0 to 1",
    _units([("frey", 2), ("mnist", 2)]),
    run,
    lines,
    lambda record: _sheets(record, "manifold"),
    usual_seeds=(0,),
)
AEVB_FIG5 = Experiment(
    "aevb-fig5",
    "Figure 5 of Kingma and Welling (2014), images drawn from models of MNIST",
    "nats an image; pixels from 0 to 1",
    _units([("mnist", latents) for latents in (2, 5, 10, 20)]),
    run,
    lines,
    lambda record: _sheets(record, "samples"),
    usual_seeds=(0,),
)
