"""Images as ink on paper, and tables of probability as shaded squares."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from vae_lib.plots.style import colour


def image_row(
    images: Tensor, shape: tuple[int, int], captions: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw images side by side, dark where the pixel is large.

    Parameters
    ----------
    images
        Pixels in [0, 1], ``(N, height * width)``; values outside are cut off, as a screen would.
    shape
        Height and width.
    captions
        One for each image, written below it.
    ax
        Where to draw; new axes if it is not given.
    """
    count, (height, width) = images.shape[0], shape
    if images.shape[1] != height * width:
        raise ValueError(f"images: expected {height * width} pixels each for shape {shape}, found {images.shape[1]}")
    ax = ax if ax is not None else plt.subplots(figsize=(6.4, 6.4 / count + 0.3))[1]
    step = width * 1.12
    for i in range(count):
        left = i * step
        ax.imshow(
            images[i].detach().reshape(height, width).clamp(0.0, 1.0).numpy(),
            extent=(left, left + width, height, 0),
            cmap="gray_r",
            vmin=0.0,
            vmax=1.0,
        )
        ax.add_patch(Rectangle((left, 0), width, height, fill=False, edgecolor=colour("prior"), linewidth=0.6))
        if captions is not None:
            ax.text(left + width / 2, height * 1.08, captions[i], ha="center", va="top", fontsize=10)
    ax.set_xlim(-0.3, (count - 1) * step + width + 0.3)
    ax.set_ylim(height * (1.3 if captions is not None else 1.02), -0.3)
    ax.set_axis_off()
    return ax


def joint_table(
    probabilities: Tensor, *, xlabel: str, ylabel: str, title: str, vmax: float, ax: Axes | None = None
) -> Axes:
    """Draw a joint distribution over two discrete variables: one square for each pair, its probability in percent.

    Parameters
    ----------
    probabilities
        ``(K, M)``: rows are the vertical variable.
    xlabel, ylabel, title
        Words.
    vmax
        The probability that is drawn as full ink, so that two tables can be compared.
    ax
        Where to draw; new axes if it is not given.
    """
    ax = ax if ax is not None else plt.subplots()[1]
    table = probabilities.detach().numpy()
    ax.imshow(table, cmap="Blues", vmin=0.0, vmax=vmax, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        ink = "white" if value > 0.6 * vmax else "#1f2328"
        ax.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=ink, fontsize=9)
    ax.set_xticks(range(table.shape[1]))
    ax.set_yticks(range(table.shape[0]))
    ax.tick_params(length=0)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.set_title(title)
    return ax
