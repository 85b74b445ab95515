r"""Two moons in the plane, with a density that is known: data of which the entropy can be told.

A point of an arc, drawn evenly, plus normal noise:

.. math:: p_{\mathcal D}(x) = \tfrac12 \sum_{c=1}^{2} \int_0^\pi \mathcal N(x; a_c(\theta), s^2 I)\, \frac{d\theta}{\pi}

The arcs are half circles that reach into each other, shifted and scaled to mean 0 and variance 1 in both directions.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from vae_lib import checks

# Standard deviation of the noise before scaling, and the points of the midpoint rule on each arc: sixty to the noise's
# standard deviation. At the arcs' ends, where the rule is at its worst, its error is a few parts in a million.
NOISE, POINTS = 0.1, 2000


def two_moons(count: int, *, generator: Generator) -> Tensor:
    """Draw points, ``(count, 2)``, in the default dtype.

    Parameters
    ----------
    count
        How many.
    generator
        The source of randomness.
    """
    checks.positive_int("count", count)
    angle = math.pi * torch.rand(count, generator=generator)
    which = torch.randint(2, (count,), generator=generator)
    return _standardise(_arc(angle, which) + NOISE * torch.randn(count, 2, generator=generator))


def two_moons_log_density(x: Tensor) -> Tensor:
    """Log-density of the moons at ``x (N, 2)``, ``(N,)``, in nats, by the midpoint rule along the arcs."""
    checks.shape("x", x, ("N", 2))
    middle = math.pi * (torch.arange(POINTS, dtype=x.dtype, device=x.device) + 0.5) / POINTS
    arcs = torch.cat([_arc(middle, torch.full((POINTS,), which, device=x.device)) for which in (0, 1)])
    std = NOISE / _SCALE.to(x)
    z = (x.unsqueeze(1) - _standardise(arcs)) / std  # (N, 2 POINTS, 2)
    log_normal = -0.5 * (z**2).sum(-1) - math.log(2.0 * math.pi) - std.log().sum()
    return torch.logsumexp(log_normal, dim=1) - math.log(2.0 * POINTS)


def _arc(angle: Tensor, which: Tensor) -> Tensor:
    """Points ``(N, 2)`` of the upper half circle, or of the lower one whose centre lies half below its right end."""
    sign = 1.0 - 2.0 * which
    return torch.stack([sign * torch.cos(angle) + which, sign * torch.sin(angle) + 0.5 * which], dim=1)


def _standardise(points: Tensor) -> Tensor:
    return (points - _MEAN.to(points)) / _SCALE.to(points)


# The arcs are mirror images of each other through the point (1/2, 1/4); the variances are of the arcs and the noise.
_MEAN = torch.tensor([0.5, 0.25], dtype=torch.float64)
_SCALE = torch.tensor(
    [0.5 + 0.25 + NOISE**2, 0.5 - 2.0 * 0.25 * 2.0 / math.pi + 0.25**2 + NOISE**2], dtype=torch.float64
).sqrt()
