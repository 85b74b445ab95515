"""Bars that add up: the ELBO and the KL fill log p(x)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from vae_lib.plots.style import colour


def bound_bars(
    labels: Sequence[str], elbo: Sequence[float], kl: Sequence[float], left: float, ax: Axes | None = None
) -> Axes:
    """Draw one horizontal bar for each q: the ELBO from the left edge, then the KL from there on.

    Parameters
    ----------
    labels
        Names of the q's, from top to bottom.
    elbo, kl
        In nats.
    left
        Where the axis begins, in nats, below the smallest ELBO; the bars have no length of their own, only ends.
    ax
        Where to draw; new axes if it is not given.
    """
    if left >= min(elbo):
        raise ValueError(f"left: expected a number below the smallest ELBO, {min(elbo):.3f}, found {left}")
    ax = ax if ax is not None else plt.subplots()[1]
    rows = range(len(labels))
    ax.barh(
        rows,
        [e - left for e in elbo],
        left=left,
        color=colour("q"),
        height=0.62,
        label="ELBO reaches to here",
    )
    ax.barh(
        rows,
        list(kl),
        left=list(elbo),
        color=colour("paper"),
        edgecolor=colour("posterior"),
        hatch="////",
        height=0.62,
        label="KL fills the rest",
    )
    evidence = elbo[0] + kl[0]
    ax.axvline(evidence, color=colour("ink"), linewidth=1.4, label="log p(x)")
    ax.set_yticks(list(rows), labels)
    ax.invert_yaxis()
    ax.set_xlim(left, evidence + 0.06 * (evidence - left))
    ax.set_xlabel("nats")
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.22), ncols=3)
    return ax
