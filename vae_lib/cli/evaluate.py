"""``evaluate``: the ELBO of images that were not trained on, and log p(x) of some of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vae_lib.cli.experiment import find_data, measure, model_words, reading_of, ready_device
from vae_lib.cli.options import Evaluate
from vae_lib.cli.outcome import Outcome, labelled, with_error
from vae_lib.cli.parsing import BadInput
from vae_lib.cli.stored import facts_of, open_stored, split_of
from vae_lib.estimate import mean_with_error
from vae_lib.evaluation import active_units

# Where nothing is said, log p(x) is estimated for all of a few images, and for some of many.
_FEW, _SOME = 400, 100
# Effective draws of the median image, and what to say where there are fewer.
_ENOUGH = 10
_TOO_FEW = "too few draws: log p(x) is probably higher and its error larger; raise --draws"


def run(options: Evaluate, words: Sequence[str]) -> Outcome:
    """Measure, and say it with errors."""
    if options.images is not None and options.images < 0:
        raise BadInput(f"--images: expected at least 0, found {options.images}")
    if options.draws < 2:
        raise BadInput(f"--draws: expected at least 2, for an error bar, found {options.draws}")
    if not 1.0 <= options.widen < math.inf:
        raise BadInput(f"--widen: expected a number of at least 1, found {options.widen}")
    device = ready_device(options.device)
    stored = open_stored(options.run, weights=options.weights, data=options.data)
    _, x = split_of(stored, options.split)
    images = (len(x) if len(x) <= _FEW else _SOME) if options.images is None else options.images
    vae, x = stored.vae.to(device), x.to(device)
    held_out, estimate, rows = measure(vae, x, images=images, draws=options.draws, widen=options.widen)
    active = active_units(vae, x).num_active
    reading = reading_of(find_data(stored.data), stored.config)
    facts: dict[str, Any] = {
        **facts_of(stored),
        "split": options.split,
        "unit": "nats an image",
        "images": len(x),
        "elbo": _summary(held_out.elbo),
        "kl": _summary(held_out.kl),
        "latents": vae.latent_dim,
        "active_units": active,
        "log_p_x": None,
    }
    lines = [
        ("weights", f"{stored.path} ({stored.weights})"),
        ("data", f"{stored.data}, {options.split} split, {len(x)} images"),
        ("model", model_words(stored.configuration, stored.config, reading)),
        (f"{options.split} ELBO", f"{_words(held_out.elbo)} nats an image"),
        (f"{options.split} KL", f"{_words(held_out.kl)} nats an image"),
        (
            "latents",
            f"{vae.latent_dim}, of which {active} active: the mean of q varies over the images by more than 0.01",
        ),
    ]
    if estimate is not None:
        elbo = held_out.elbo[rows]
        gap = estimate.value - elbo
        of_draws = float(estimate.standard_error.cpu().double().square().sum().sqrt()) / len(rows)
        size = float(estimate.effective_sample_size.median())
        facts["log_p_x"] = {
            **_summary(estimate.value),
            "error_of_the_draws": of_draws,
            "elbo_of_the_same_images": _summary(elbo),
            "gap_to_elbo": _summary(gap),
            "images": len(rows),
            "draws": options.draws,
            "widen": options.widen,
            "median_effective_sample_size": size,
            "warning": _TOO_FEW if size < _ENOUGH else None,
        }
        same = "the same images" if len(rows) == len(x) else f"{len(rows)} of the images"
        wide = f" of q with {options.widen:g} times its width" if options.widen > 1.0 else ""
        values = f"{_words(estimate.value)} nats an image, on {same} with {options.draws} draws each{wide}"
        lines += [
            ("log p(x)", values),
            ("", f"of that error the draws make {of_draws:.2g}; effective draws in the median: {size:.0f}"),
        ]
        if size < _ENOUGH:
            lines += [("warning", _TOO_FEW)]
        if len(rows) < len(x):
            lines += [("their ELBO", f"{_words(elbo)} nats an image")]
        lines += [("gap", f"{_words(gap)} nats an image from the ELBO of the same images up to log p(x)")]
    return Outcome(facts, labelled(lines))


def _summary(values: Tensor) -> dict[str, float]:
    """Mean over the images, and its standard error, which is that of another choice of images."""
    if len(values) == 1:
        return {"mean": float(values), "standard_error": float("inf")}
    mean, error = mean_with_error(values.cpu().double())  # MPS has no doubles
    return {"mean": float(mean), "standard_error": float(error)}


def _words(values: Tensor) -> str:
    summary = _summary(values)
    return with_error(summary["mean"], summary["standard_error"])
