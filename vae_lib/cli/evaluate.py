"""``evaluate``: the ELBO of images that were not trained on, and log p(x) of some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vae_lib.cli.experiment import measure, ready_device
from vae_lib.cli.options import Evaluate
from vae_lib.cli.outcome import Outcome, labelled, with_error
from vae_lib.cli.parsing import BadInput
from vae_lib.cli.stored import facts_of, open_stored, split_of
from vae_lib.estimate import mean_with_error


def run(options: Evaluate, words: Sequence[str]) -> Outcome:
    """Measure, and say it with errors."""
    if options.images < 0:
        raise BadInput(f"--images: expected at least 0, found {options.images}")
    if options.draws < 2:
        raise BadInput(f"--draws: expected at least 2, for an error bar, found {options.draws}")
    device = ready_device(options.device)
    stored = open_stored(options.run, weights=options.weights, data=options.data)
    _, x = split_of(stored, options.split)
    held_out, estimate, rows = measure(stored.vae.to(device), x.to(device), images=options.images, draws=options.draws)
    facts: dict[str, Any] = {
        **facts_of(stored),
        "split": options.split,
        "unit": "nats an image",
        "images": len(x),
        "elbo": _summary(held_out.elbo),
        "kl": _summary(held_out.kl),
        "log_p_x": None,
    }
    lines = [
        ("weights", f"{stored.path} ({stored.weights})"),
        ("data", f"{stored.data}, {options.split} split, {len(x)} images"),
        ("ELBO", f"{_words(held_out.elbo)} nats an image"),
        ("KL", f"{_words(held_out.kl)} nats an image"),
    ]
    if estimate is not None:
        gap = estimate.value - held_out.elbo[rows]
        of_draws = float(estimate.standard_error.cpu().double().square().sum().sqrt()) / len(rows)
        size = float(estimate.effective_sample_size.median())
        facts["log_p_x"] = {
            **_summary(estimate.value),
            "error_of_the_draws": of_draws,
            "gap_to_elbo": _summary(gap),
            "images": len(rows),
            "draws": options.draws,
            "median_effective_sample_size": size,
        }
        lines += [
            (
                "log p(x)",
                f"{_words(estimate.value)} nats an image, on {len(rows)} images with {options.draws} draws each",
            ),
            (
                "",
                f"of that error the draws make {of_draws:.2g}; effective draws in the median: {size:.0f}",
            ),
            ("gap", f"{_words(gap)} nats an image from the ELBO of the same images up to log p(x)"),
        ]
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
