"""The plane of a two-dimensional latent: where the data lie in it, and where to decode it for a map of the manifold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from torch import Tensor

from vae_lib import checks
from vae_lib.plots.style import LIGHT, colour

# Found by a search: each stands 3 to 1 against its paper, and any two stay apart for the colour-blind; a test computes
# both. The dark ones are what the built page makes of the light ones. Markers tell the classes apart a second time.
CLASSES_LIGHT = (
    "#006655",
    "#ff5500",
    "#330099",
    "#889955",
    "#cc7799",
    "#223300",
    "#4488ff",
    "#884400",
    "#6633ff",
    "#666699",
)
CLASSES_DARK = (
    "#61c7b6",
    "#ff6e19",
    "#ffd3ff",
    "#667733",
    "#b45f81",
    "#cadba8",
    "#3f83fa",
    "#eca864",
    "#cc99ff",
    "#9292c5",
)
MARKERS = ("o", "^", "s", "v", "D", "P", "X", "<", "p", ">")


def latent_manifold_grid(side: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Return the latents whose decoded means make the picture of a two-dimensional manifold.

    The standard normal prior cuts each coordinate into ``side`` cells of equal probability; the latents lie where its
    inverse distribution function takes the middle of each cell, so that every one is finite and stands for the same
    share of the prior. Kingma and Welling (2014), figure 4.

    Parameters
    ----------
    side
        Images in a row and in a column.
    dtype
        Of the result; torch's default if it is not given.

    Returns
    -------
    Tensor
        ``(side * side, 2)`` in reading order: the first coordinate grows to the right, the second upwards.
    """
    checks.positive_int("side", side)
    middles = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    steps = torch.special.ndtri(middles)
    up, right = torch.meshgrid(steps.flip(0), steps, indexing="ij")
    return torch.stack([right, up], dim=-1).reshape(-1, 2).to(dtype if dtype is not None else torch.get_default_dtype())


def latent_plane(
    mu: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    *,
    prior: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw posterior means in the latent plane, each class in its colour and marker, its name in its midst.

    Parameters
    ----------
    mu
        Posterior means, ``(N, 2)``.
    labels
        Classes, integers ``(N,)`` that count from 0 into ``class_names``.
    class_names
        At most ten. A class without points is not drawn.
    prior
        Draw the circles at one and two standard deviations of the standard normal prior.
    ax
        Where to draw; new axes if it is not given.

    Raises
    ------
    TypeError
        If ``mu`` is not a floating-point tensor, or ``labels`` holds no integers.
    ValueError
        If a shape or a label does not fit, a mean is NaN or infinite, or there are more than ten classes.
    """
    checks.shape("mu", mu, ("N", 2))
    checks.finite("mu", mu)
    _check_labels(labels, len(mu), len(class_names))
    ax = ax if ax is not None else plt.subplots(figsize=(5.2, 5.2))[1]
    means, classes = mu.detach().cpu().float(), labels.cpu()
    size = max(3.0, min(16.0, 20_000 / len(means)))  # points squared
    colours = CLASSES_LIGHT if colour("paper") == LIGHT["paper"] else CLASSES_DARK
    for which, name in enumerate(class_names):
        points = means[classes == which]
        if len(points) == 0:
            continue
        across, up = points.T.tolist()
        # Without its thin edge a mark this small may miss every pixel.
        ax.scatter(across, up, s=size, c=colours[which], marker=MARKERS[which], linewidths=0.4, label=name)
        x, y = _middle(points)
        ax.text(
            x,
            y,
            name,
            ha="center",
            va="center",
            fontsize=13,
            fontweight="bold",
            color=colour("ink"),
            path_effects=[withStroke(linewidth=4, foreground=colour("paper"))],
            zorder=4,
        )
    if prior:
        for radius in (1.0, 2.0):
            ax.add_patch(Circle((0.0, 0.0), radius, fill=False, edgecolor=colour("ink"), linestyle=":", zorder=3))
    ax.set_aspect("equal")
    ax.set_xlabel("latent $z_1$")
    ax.set_ylabel("latent $z_2$")
    return ax


def _middle(points: Tensor) -> tuple[float, float]:
    """Return the point around which the smallest circle holds half of them.

    The median of a class that lies in two pieces may fall between them, among strangers; this one never does.
    """
    candidates = points[:: math.ceil(len(points) / 500)]  # enough to stand well, however many points there are
    radii = torch.cdist(candidates, points).median(dim=1).values
    x, y = candidates[radii.argmin()].tolist()
    return x, y


def _check_labels(labels: Tensor, count: int, classes: int) -> None:
    if not 1 <= classes <= len(MARKERS):
        raise ValueError(f"class_names: expected 1 to {len(MARKERS)}, found {classes}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels: expected integers, found {labels.dtype}")
    if tuple(labels.shape) != (count,):
        raise ValueError(f"labels: expected shape ({count},), one for each mean, found {tuple(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels: expected 0 to {classes - 1}, found {low} to {high}")
