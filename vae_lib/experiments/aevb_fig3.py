r"""Figure 3 of Kingma and Welling (2014): the marginal likelihood under AEVB, wake-sleep and Monte Carlo EM.

MNIST, 3 latents, 100 hidden units, trained on 1000 and on 50,000 images. log p(x) is estimated from draws of the
posterior (appendix D of the paper, :func:`~vae_lib.evaluation.log_p_x_from_posterior`), in the same way for the three,
for the first images of the training and of the test set, with chains that begin at prior draws picked by their weights.
Below full scale these are fewer images than the paper's 1000, as each costs thousands of gradients. What the paper
leaves open is chosen as for Figure 2, and:

- the axis counts images times updates of the weights: a minibatch that Monte Carlo EM visits counts five times;
- Adagrad's step is chosen by log p(x) of a few training images after 500 minibatches: Monte Carlo EM has no bound;
- Monte Carlo EM keeps a chain for each training image, begun with a draw of the prior. So it can be run on 50,000
  images too, though each is then visited seldom. For its sake the bits of the training images are drawn once.

Chapter 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vae_lib.estimate import mean_with_error
from vae_lib.evaluation import held_out_elbo, log_p_x_from_posterior
from vae_lib.experiments.aevb_fig2 import METHODS, PILOT_STEPS
from vae_lib.experiments.curves import RATES, Training, curves_of_best_rates, round_numbers
from vae_lib.experiments.experiment import Advance, Experiment, Record, Scale, Unit
from vae_lib.experiments.images import fixed, load
from vae_lib.experiments.records import mean_and_spread
from vae_lib.learning import Images, TrainingConfig
from vae_lib.learning.average_bound import Bound, SurrogateObjective
from vae_lib.learning.monte_carlo_em import ChainConfig
from vae_lib.models import VAE, configuration
from vae_lib.plots import colour
from vae_lib.rng import make_generator

NUM_TRAIN = (1_000, 50_000)
NAMES = {"aevb": "AEVB", "wake-sleep": "wake-sleep", "mcem": "Monte Carlo EM"}
_METHODS: dict[str, Bound | SurrogateObjective | ChainConfig] = {**METHODS, "mcem": ChainConfig()}
SAMPLES: dict[Scale, int] = {"smoke": 10_000, "laptop": 1_000_000, "full": 60_000_000}
_LOOKED_AT: dict[Scale, int] = {"smoke": 2, "laptop": 100, "full": 1_000}
_OF_THE_PILOT: dict[Scale, int] = {"smoke": 2, "laptop": 20, "full": 100}
# Of the posterior's chains: candidates for where they begin, and transitions until the step size is fixed, and from
# there to the draw that counts. Begun anywhere, chains end in modes that hold nothing of p(x), a hundred nats too low.
_CHAINS = {"num_candidates": 5000, "num_warmup": 20, "num_transitions": 5}


def units(scale: Scale, seeds: Sequence[int], stand_in: bool) -> list[Unit]:
    """Every method on both sizes of the training set, for every seed; the first seed of all first."""
    found = []
    for seed in seeds:
        for num_train in NUM_TRAIN:
            for method in NAMES:
                settings = {
                    "data": "mnist",
                    "stand_in": stand_in,
                    "method": method,
                    "num_train": num_train,
                    "latents": 3,
                    "seed": seed,
                    "samples": SAMPLES[scale],
                    "images looked at": _LOOKED_AT[scale],
                    "pilot steps": PILOT_STEPS[scale],
                    "images of the pilot": _OF_THE_PILOT[scale],
                    "steps run to the end": 2,
                    **_CHAINS,
                }
                looked = 4 * _LOOKED_AT[scale] * len(_marks(SAMPLES[scale])) + 3 * _OF_THE_PILOT[scale]
                visits = len(RATES) * PILOT_STEPS[scale] + 2 * SAMPLES[scale] / (500 if method == "mcem" else 100)
                seconds = (0.022 if method == "mcem" else 0.0035) * visits + 0.13 * looked + 3.0
                found.append(Unit(f"{num_train}-{method}-{seed}", settings, seconds))
    return found


def _marks(samples: int) -> list[int]:
    return round_numbers(max(samples // 5, 10_000), samples)


def run(unit: Unit, folder: Path, device: torch.device, advance: Advance) -> dict[str, Any]:
    """The curves of the two best steps, and the values of the single images at their ends."""
    settings = unit.settings
    model = configuration("kingma2014-mnist", latent_dim=settings["latents"], hidden=(100,))
    loaded = load(settings["data"], model, stand_in=settings["stand_in"], num_train=settings["num_train"])
    # Bits drawn once: a chain that is kept for an image should follow one posterior.
    bits = fixed(loaded.train, "train", len(loaded.train), device=torch.device("cpu")).to(torch.uint8)
    config = TrainingConfig(batch_size=100, optimiser="adagrad", weight_prior=1.0, seed=settings["seed"])
    plain = Training(loaded.model, Images(bits, "bits", 1), config, _METHODS[settings["method"]], device)
    count = settings["images looked at"]
    parts = {
        split: fixed(images, split, count, device=device)
        for split, images in (("train", loaded.train), ("test", loaded.test))
    }
    few = {"train": parts["train"][: settings["images of the pilot"]]}
    found = curves_of_best_rates(
        plain,
        _marks(settings["samples"]),
        lambda vae: _look(vae, parts, settings),
        steps=settings["pilot steps"],
        judge=lambda vae: float(_look(vae, few, settings)["train_log_p_x"]),
        count=settings["steps run to the end"],
        folder=folder,
        advance=advance,
    )
    for curve in (found, *found["others"]):
        curve["rows"] = [
            {key: value for key, value in row.items() if row is curve["rows"][-1] or not isinstance(value, list)}
            for row in curve["rows"]
        ]
    return found


def _look(vae: VAE, parts: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A look at log p(x): mean, standard error over the images, and each image, which is kept of the last look.

    Beside it stands the ELBO, where there is a trained encoder: an estimate below it is wrong.
    """
    row: dict[str, Any] = {}
    for name, x in parts.items():
        # The same noise at every look: two rows differ by the weights alone.
        generator = make_generator(0, "look", name, device=x.device)
        found = log_p_x_from_posterior(
            vae,
            x,
            num_candidates=settings["num_candidates"],
            num_warmup=settings["num_warmup"],
            num_transitions=settings["num_transitions"],
            generator=generator,
        )
        mean, error = mean_with_error(found.value.cpu().double())
        row[f"{name}_log_p_x"], row[f"{name}_error"] = round(float(mean), 4), round(float(error), 4)
        row[f"{name}_acceptance"] = round(float(found.acceptance.mean()), 4)
        row[f"{name}_effective_sample_size"] = round(float(found.effective_sample_size.median()), 2)
        if settings["method"] != "mcem":
            held_out = held_out_elbo(vae, vae, x, num_samples=10, generator=generator)
            row[f"{name}_elbo"] = round(float(held_out.elbo.mean()), 4)
        row[f"{name}_images"] = [round(value, 3) for value in found.value.tolist()]
    return row


def lines(record: Record) -> list[str]:
    """The last log p(x) of each method, mean and spread of the seeds."""
    table = [f"{'images':<9}{'method':<17}{'step':<15}{'train':<18}test"]
    for (num_train, method), results in _curves(record).items():
        steps = "/".join(f"{result['rate']:g}" for result in results)
        last = [result["rows"][-1] for result in results]
        cells = [mean_and_spread([row[f"{split}_log_p_x"] for row in last]) for split in ("train", "test")]
        table.append(f"{num_train:<9}{NAMES[method]:<17}{steps:<15}{cells[0]:<18}{cells[1]}")
    samples = max(row["samples"] for result in record["results"] for row in result["rows"])
    count = record["results"][0]["settings"]["images looked at"]
    what = f"log p(x) in nats an image, of the first {count} images, after {samples:,}"
    return [*table, "", f"{what}; in brackets the spread of the seeds"]


def _curves(record: Record) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """Results by size of the training set and method; one for each seed."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for result in record["results"]:
        settings = result["settings"]
        found.setdefault((settings["num_train"], settings["method"]), []).append(result)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], list(NAMES).index(item[0][1]))))


_ROLES = {"aevb": "q", "wake-sleep": "posterior", "mcem": "third"}


def draw(record: Record) -> Figure:
    """One panel for each size of the training set: training images solid, test images dashed, a line for each seed."""
    curves = _curves(record)
    sizes = sorted({num_train for num_train, _ in curves})
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(4.4 * len(sizes), 3.9), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, num_train in zip(panels[0], sizes, strict=True):
        for method, label in NAMES.items():
            for number, result in enumerate(curves.get((num_train, method), [])):
                samples = [row["samples"] for row in result["rows"]]
                for split, line in (("train", "-"), ("test", "--")):
                    values = [row[f"{split}_log_p_x"] for row in result["rows"]]
                    name = f"{label} ({split})" if number == 0 else None
                    panel.plot(
                        samples, values, line, marker=".", color=colour(_ROLES[method]), linewidth=1.4, label=name
                    )
        panel.set_xscale("log")
        marks = sorted({row["samples"] for result in record["results"] for row in result["rows"]})
        panel.set_xticks(marks, [f"{mark:,}" for mark in marks])
        panel.minorticks_off()
        panel.set_title(f"{num_train:,} training images")
    figure.supxlabel("training images seen, times updates")
    panels[0][0].set_ylabel("log p(x), nats an image")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


AEVB_FIG3 = Experiment(
    "aevb-fig3",
    "Figure 3 of Kingma and Welling (2014), the marginal likelihood of AEVB, wake-sleep and Monte Carlo EM",
    "nats an image",
    units,
    run,
    lines,
    draw,
)
