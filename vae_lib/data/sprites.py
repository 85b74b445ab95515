"""Sprites: small shapes drawn from five factors that are known, independent and visible in the image."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from vae_lib.data.dataset import Dataset, DatasetError, DatasetInfo, cut, hash_order

Grid: TypeAlias = npt.NDArray[np.float64]

SHAPES = ("square", "ellipse", "triangle")
SCALES = (2.5, 2.95, 3.4, 3.85, 4.3, 4.75)
ORIENTATIONS = tuple(range(0, 90, 9))
POSITIONS = tuple(range(8, 20))

FACTORS: Mapping[str, tuple[str, ...] | tuple[float, ...]] = MappingProxyType(
    {"shape": SHAPES, "scale": SCALES, "orientation": ORIENTATIONS, "x": POSITIONS, "y": POSITIONS}
)
"""What the columns of a factor table mean. Scale: radius in pixels of the disc of equal area. Orientation:
degrees, counter-clockwise. x and y: column and row of the pixel under the centre, from the top left."""

INFO = DatasetInfo(
    name="sprites",
    title="Sprites with known factors",
    image_shape=(28, 28),
    value_range=(0, 255),
    values="grey level from 0 (background) to 255 (shape); 255 times the covered part of the pixel",
    split="20,736 / 2592 / 2592 (80, 10 and 10 %) of all combinations, by the SHA-256 of 'sprites:<row>'",
    source="drawn by vae_lib.data.render_sprites, after the dSprites data set",
    licence="that of this package, which draws them",
    citation=(
        "After L. Matthey, I. Higgins, D. Hassabis and A. Lerchner (2017). dSprites: Disentanglement testing "
        "Sprites dataset. https://github.com/google-deepmind/dsprites-dataset"
    ),
    bib_key="matthey2017dsprites",
    factor_names=tuple(FACTORS),
    factor_sizes=tuple(len(values) for values in FACTORS.values()),
)

SIZES = (20_736, 2_592, 2_592)

# No shape covers a part of a pixel that is more than _REACH columns or rows from the one under its centre.
_REACH = 8
_SIDE = len(POSITIONS) + 2 * _REACH
_LAST = len(POSITIONS) - 1


def load_sprites() -> Dataset:
    """Draw the sprites: each of the 3 * 6 * 10 * 12 * 12 = 25,920 combinations of the factors once.

    Over the whole set the factors are therefore independent and uniform.

    Returns
    -------
    Dataset
        `Split.index` is the row in `sprite_factors`; `Split.factors` holds the five factors.
    """
    factors = sprite_factors()
    return cut(INFO, render_sprites(factors), hash_order("sprites", len(factors)), SIZES, factors=factors)


def sprite_factors() -> torch.Tensor:
    """Return all combinations of the factors, the last one fastest.

    Returns
    -------
    torch.Tensor
        (25920, 5), int64: indices into the values in `FACTORS`.
    """
    return torch.cartesian_prod(*(torch.arange(n) for n in INFO.factor_sizes))


def render_sprites(factors: torch.Tensor) -> torch.Tensor:
    """Draw one image per row of factors, the same bits on every machine.

    Parameters
    ----------
    factors : torch.Tensor
        (N, 5), int64: indices into the values of shape, scale, orientation, x and y in `FACTORS`.

    Returns
    -------
    torch.Tensor
        (N, 784), uint8: 255 times the covered part of each pixel, rounded.

    Raises
    ------
    DatasetError
        If `factors` has another shape or type, or an index out of range.

    Notes
    -----
    The covered part is clip(1/2 - d, 0, 1), where d is the signed distance in pixels from the pixel's centre
    to the shape's edge, negative inside: for square and triangle the largest of the distances to the lines
    through their sides, for the ellipse to first order. Edges are one pixel soft. Orientations stop short of
    90 degrees: the square repeats itself there, the triangle at 120, the ellipse at 180; so no two rows of
    the table give the same image. Positions are whole pixels: a moved shape is the same shape.
    """
    sizes = torch.tensor(INFO.factor_sizes)
    if factors.ndim != 2 or factors.shape[1] != len(sizes) or factors.dtype != torch.int64:
        raise DatasetError(
            f"factors: expected int64 (N, {len(sizes)}), found {str(factors.dtype).removeprefix('torch.')} "
            f"{tuple(factors.shape)}"
        )
    outside = ((factors < 0) | (factors >= sizes)).nonzero()
    if len(outside):
        row, column = outside[0].tolist()
        raise DatasetError(
            f"factors: expected {INFO.factor_names[column]} from 0 to {INFO.factor_sizes[column] - 1}, "
            f"found {factors[row, column].item()} in row {row}"
        )
    shape, scale, orientation, x, y = factors.unbind(1)
    windows = _canvases().unfold(3, _SIDE, 1).unfold(4, _SIDE, 1)
    return windows[shape, scale, orientation, _LAST - y, _LAST - x].reshape(-1, _SIDE * _SIDE)


@functools.cache
def _canvases() -> torch.Tensor:
    """Draw each shape, scale and orientation on a canvas whose windows are the images: (3, 6, 10, 39, 39)."""
    levels = np.floor(255 * _coverage() + 0.5).astype(np.uint8)
    return torch.from_numpy(np.pad(levels, [(0, 0)] * 3 + [(_LAST, _LAST)] * 2))


def _coverage() -> Grid:
    """Return the covered part of each pixel around the centre, (3, 6, 10, 17, 17), in [0, 1].

    Sines and cosines may differ in their last bit between machines. That cannot change a grey level as long
    as no value of 255 * coverage comes near the middle between two integers; a test checks the whole table.
    """
    angle = [math.radians(degrees) for degrees in ORIENTATIONS]
    cos = np.array([math.cos(a) for a in angle])[:, None, None]
    sin = np.array([math.sin(a) for a in angle])[:, None, None]
    reach = np.arange(-_REACH, _REACH + 1.0)
    right, up = reach[None, :], -reach[:, None]
    u, v = cos * right + sin * up, cos * up - sin * right
    distances = [[draw(u, v, s) for s in SCALES] for draw in (_square, _ellipse, _triangle)]
    return np.clip(0.5 - np.array(distances), 0.0, 1.0)


def _square(u: Grid, v: Grid, s: float) -> Grid:
    return np.maximum(abs(u), abs(v)) - 0.5 * math.sqrt(math.pi) * s


def _ellipse(u: Grid, v: Grid, s: float) -> Grid:
    # Axes 2 : 1. With f = u²/a² + v²/b² - 1, the distance to f = 0 is f / |∇f| to first order.
    a2, b2 = 2 * s * s, 0.5 * s * s
    with np.errstate(divide="ignore"):  # the gradient is 0 at the centre: distance minus infinity, covered
        distance: Grid = (u * u / a2 + v * v / b2 - 1) / (2 * np.sqrt(u * u / a2**2 + v * v / b2**2))
    return distance


def _triangle(u: Grid, v: Grid, s: float) -> Grid:
    # Equilateral, one corner up; the inscribed circle has the radius sqrt(π / (3 √3)) s.
    slope = 0.5 * math.sqrt(3.0) * abs(u)
    distance: Grid = np.maximum(-v, slope + 0.5 * v) - math.sqrt(math.pi / (3 * math.sqrt(3.0))) * s
    return distance
