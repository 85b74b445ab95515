"""Curves: densities over a line, and any quantity against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from vae_lib.plots.style import colour

STYLES: dict[str, dict[str, Any]] = {
    "posterior": {"linestyle": "-"},
    "q": {"linestyle": "--"},
    "third": {"linestyle": "-."},
    "fourth": {"linestyle": (0, (5, 1, 1, 1))},
    "prior": {"linestyle": ":"},
    "ink": {"linestyle": "-", "linewidth": 1.4},
}


def density_curves(z: Tensor, densities: Mapping[str, tuple[str, Tensor]], ax: Axes | None = None) -> Axes:
    """Draw densities over one latent coordinate; the one in the role ``posterior`` is filled.

    Parameters
    ----------
    z
        Positions, ``(N,)``.
    densities
        From a label to a role (see :func:`~vae_lib.plots.style.colour`) and values ``(N,)``.
    ax
        Where to draw; new axes if it is not given.
    """
    ax = ax if ax is not None else plt.subplots()[1]
    positions = z.detach().numpy()
    for label, (role, values) in densities.items():
        heights = values.detach().numpy()
        ax.plot(positions, heights, color=colour(role), label=label, **STYLES[role])
        if role == "posterior":
            ax.fill_between(positions, heights, color=colour(role), alpha=0.18, linewidth=0)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("latent z")
    ax.set_ylabel("density")
    ax.legend()
    return ax


def curves(
    x: Sequence[float] | Tensor,
    lines: Mapping[str, tuple[str, Sequence[float] | Tensor]],
    *,
    xlabel: str,
    ylabel: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw quantities against one variable.

    Parameters
    ----------
    x
        Positions, ``(N,)``.
    lines
        From a label to a role and values ``(N,)``.
    xlabel, ylabel
        What the axes show, with units.
    ax
        Where to draw; new axes if it is not given.
    """
    ax = ax if ax is not None else plt.subplots()[1]
    for label, (role, values) in lines.items():
        ax.plot(_plain(x), _plain(values), color=colour(role), label=label, **STYLES[role])
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend()
    return ax


def _plain(values: Sequence[float] | Tensor) -> list[float]:
    return values.detach().tolist() if isinstance(values, Tensor) else list(values)
