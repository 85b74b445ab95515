"""Many images on one sheet: samples, manifolds, data above their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from vae_lib import checks

TILE = 0.8  # inches, the most that one image takes of a new figure
LINE = 0.25  # ink of the lines between the images
FINE = 24  # smaller images are drawn with each pixel as several, so that a line stays thin beside them
WIDTH = 6.4  # inches, the most that the figure takes of the page


def image_grid(
    images: Tensor,
    shape: tuple[int, int],
    *,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw images in rows and columns, dark where the pixel is large.

    The whole sheet is one picture, in which thin lines part the images: four hundred are drawn as fast as one.

    Parameters
    ----------
    images
        Pixels in [0, 1], ``(R * columns, height * width)`` in reading order, or ``(R, C, height * width)``; values
        outside are cut off, as a screen would.
    shape
        Height and width of one image, in pixels.
    columns
        Images in a row. Needed where ``images`` has two axes; with three it is their second size.
    captions
        One for each row, written to its left.
    ax
        Where to draw; new axes if it is not given.

    Raises
    ------
    TypeError
        If ``images`` is not a floating-point tensor.
    ValueError
        If the pixels do not fit the shape, a pixel is NaN or infinite, a row is not full, or captions are missing.
    """
    tiles = _in_rows(images, shape, columns)
    rows, across = tiles.shape[:2]
    if captions is not None and len(captions) != rows:
        raise ValueError(f"captions: expected {rows}, one for each row, found {len(captions)}")

    zoom = max(1, FINE // max(shape))
    tiles = tiles.repeat(zoom, axis=2).repeat(zoom, axis=3)
    lined = np.pad(tiles, ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=LINE)
    height, width = lined.shape[2:]
    sheet = lined.transpose(0, 2, 1, 3).reshape(rows * height, across * width)
    sheet = np.pad(sheet, ((0, 1), (0, 1)), constant_values=LINE)

    if ax is None:  # "compressed" is the layout for pictures, whose sides keep their ratio
        ax = plt.subplots(figsize=_figure_size(sheet, across, captions), layout="compressed")[1]
    ax.imshow(
        sheet,
        cmap="gray_r",
        vmin=0.0,
        vmax=1.0,
        extent=(0, sheet.shape[1], sheet.shape[0], 0),
        interpolation="antialiased",  # at nearly its own size the sheet would lose some of its lines to "nearest"
    )
    middles = [height * (row + 0.5) + 0.5 for row in range(rows)]
    ax.set_xticks([])
    ax.set_yticks(middles if captions is not None else [], captions)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _in_rows(images: Tensor, shape: tuple[int, int], columns: int | None) -> np.ndarray:
    """Check the images and return them as ``(rows, columns, height, width)``."""
    height, width = shape
    checks.positive_int("height", height)
    checks.positive_int("width", width)
    if isinstance(images, Tensor) and images.ndim == 3:
        checks.shape("images", images, ("R", "C", height * width))
        if columns not in (None, images.shape[1]):
            raise ValueError(f"columns: expected {images.shape[1]}, the second size of images, found {columns}")
        columns = images.shape[1]
    else:
        checks.shape("images", images, ("N", height * width))
        if columns is None:
            raise ValueError("columns: expected how many images stand in a row, found None")
        checks.positive_int("columns", columns)
        if len(images) % columns:
            raise ValueError(f"images: expected full rows of {columns}, found {len(images)} images")
    checks.finite("images", images)
    values: np.ndarray = images.detach().clamp(0.0, 1.0).cpu().float().numpy()
    return values.reshape(-1, columns, height, width)


def _figure_size(sheet: np.ndarray, columns: int, captions: Sequence[str] | None) -> tuple[float, float]:
    """Return the size in inches of a figure that the sheet fills, but for its margins."""
    margin = 0.1
    beside = margin if captions is None else 2 * margin + 0.085 * max(len(caption) for caption in captions)
    across = min(max(WIDTH - beside, WIDTH / 2), TILE * columns)
    return across + beside, across * sheet.shape[0] / sheet.shape[1] + margin
