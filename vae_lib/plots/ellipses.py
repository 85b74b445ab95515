"""Ellipses: normal densities over two coordinates, seen from above."""

from __future__ import annotations

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from vae_lib import checks
from vae_lib.plots.lines import STYLES
from vae_lib.plots.style import colour


def normal_ellipses(
    normals: Mapping[str, tuple[str, Tensor, Tensor]], *, xlabel: str, ylabel: str, ax: Axes | None = None
) -> Axes:
    """Draw the ellipses of two standard deviations of normals in the plane; the role ``posterior`` is filled.

    Parameters
    ----------
    normals
        From a label to a role (see :func:`~vae_lib.plots.style.colour`), a mean ``(2,)`` and a covariance ``(2, 2)``.
    xlabel, ylabel
        What the two coordinates are.
    ax
        Where to draw; new axes if it is not given.
    """
    ax = ax if ax is not None else plt.subplots()[1]
    for label, (role, mean, covariance) in normals.items():
        checks.shape(f"mean of {label}", mean, (2,))
        checks.shape(f"covariance of {label}", covariance, (2, 2), like=mean)
        angle = torch.linspace(0.0, 2.0 * math.pi, 181, dtype=mean.dtype)
        circle = torch.stack([angle.cos(), angle.sin()])
        outline = mean.detach()[:, None] + 2.0 * torch.linalg.cholesky(covariance.detach()) @ circle
        across, up = outline.tolist()
        ax.plot(across, up, color=colour(role), label=label, **STYLES[role])
        if role == "posterior":
            ax.fill(across, up, color=colour(role), alpha=0.18, linewidth=0)
    ax.set_aspect("equal")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend()
    return ax
