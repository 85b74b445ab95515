"""Bars of what a bound misses, part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from vae_lib.plots.style import colour

HATCHES = ("////", "....", "")


def gap_bars(
    labels: Sequence[str],
    parts: Mapping[str, tuple[str, Sequence[float]]],
    *,
    xlabel: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw one horizontal bar for each label, made of parts that add up from zero.

    Parameters
    ----------
    labels
        Names of the bars, from top to bottom.
    parts
        From the name of a part to a role (see :func:`~vae_lib.plots.style.colour`) and its length in each bar, none
        negative; at most three parts.
    xlabel
        What the length is, with its unit.
    ax
        Where to draw; new axes if it is not given.
    """
    if not 1 <= len(parts) <= len(HATCHES):
        raise ValueError(f"parts: expected 1 to {len(HATCHES)}, found {len(parts)}")
    ax = ax if ax is not None else plt.subplots()[1]
    rows, ends = range(len(labels)), [0.0] * len(labels)
    for (name, (role, lengths)), hatch in zip(parts.items(), HATCHES, strict=False):
        if len(lengths) != len(labels) or min(lengths) < 0.0:
            raise ValueError(f"{name}: expected {len(labels)} lengths, none negative, found {list(lengths)}")
        ax.barh(
            rows,
            list(lengths),
            left=ends,
            height=0.62,
            color=colour("paper"),
            edgecolor=colour(role),
            hatch=hatch,
            label=name,
        )
        ends = [end + length for end, length in zip(ends, lengths, strict=True)]
    ax.set_yticks(list(rows), labels)
    ax.invert_yaxis()
    ax.set_xlim(0.0, 1.04 * max(ends))
    ax.set_xlabel(xlabel)
    ax.legend()
    return ax
