r"""How much each latent says about each known factor: mutual information, by quadrature and without draws.

.. math:: I(z_l; v_k) = \sum_v p(v) \int q(z_l \mid v) \log \frac{q(z_l \mid v)}{q(z_l)}\, dz_l, \qquad
          q(z_l \mid v) = \frac{1}{N_v} \sum_{n :\, v_k(n) = v} q(z_l \mid x_n)

All of these densities are mixtures of normal ones on a line. Chen, Li, Grosse and Duvenaud (2018) have the same
quantity; here the outer integral is a quadrature, and no number depends on a draw.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vae_lib import checks

# A normal density has less than 2e-15 of its mass beyond so many standard deviations.
_REACH = 8.0
# A panel is at most this many times as wide as the narrowest component near it, and has so many nodes.
_WIDTH, _NODES = 2.0, 16
# So many panels are made together: a node is then within 32 standard deviations of some component, and no density of
# all rows is zero in double precision. And so many numbers are held at a time.
_PANELS, _ENTRIES = 12, 8_000_000
# Of the largest mean: below this a node's place is no longer known well enough within a component.
_FINEST = 1e-9


class _Values(NamedTuple):
    """One factor with V values: which of them each row has, ``(N,)``, and how many rows each has, ``(V,)``."""

    place: Tensor
    counts: Tensor


def mutual_information(mu: Tensor, std: Tensor, factors: Tensor) -> Tensor:
    r"""Mutual information of each latent and each factor, ``(L, K)``, in nats.

    A row n is drawn uniformly, and :math:`z_l \sim \mathcal N(\mu_{nl}, \sigma_{nl}^2)`. So the noise of q counts: two
    values whose codes overlap are not told apart. The number lies between 0 and the entropy of the factor.

    Parameters
    ----------
    mu, std
        Means and standard deviations of q(z | x) for N data, ``(N, L)``.
    factors
        Values of the K factors for the same data, ``(N, K)``, int64. Any integers will do; only whether two are equal
        matters. The p(v) are the frequencies in this table, so the table should hold all combinations, or a fair
        sample of them.

    Returns
    -------
    Tensor
        ``(L, K)``, float64, on the CPU, without a gradient. Gauss and Legendre's rule on panels no wider than two
        standard deviations of the narrowest component in reach leaves an error below 1e-10 nats, so a latent that knows
        nothing may have a number that far below zero. (The means' own rounding may be more, where the noise is less
        than a millionth of the largest.)

    Raises
    ------
    ValueError, TypeError
        If the tables do not fit together, a number is not finite, or a standard deviation is not positive or so small
        beside the means that double precision cannot resolve it.

    Notes
    -----
    Not checked: that q(z | x) factorises. Of a full normal density the marginals are meant.
    """
    mu, std, factors = checked_codes(mu, std, factors)
    _refuse(std == 0.0, std, "positive numbers")
    _refuse(std < _FINEST * mu.abs().amax(0), std, f"at least {_FINEST:g} of the latent's largest mean")
    values = _values(factors)
    latents = zip(mu.unbind(1), std.unbind(1), strict=True)
    return torch.stack([_information(*latent, values) for latent in latents])


def factor_entropies(factors: Tensor) -> Tensor:
    r"""Entropy of each factor, :math:`H(v_k) = -\sum_v p(v) \log p(v)`, ``(K,)``, float64, in nats.

    Parameters
    ----------
    factors
        ``(N, K)``, int64, as for :func:`mutual_information`.

    Raises
    ------
    ValueError, TypeError
        If this is no table of integers, or it is empty.
    """
    frequencies = [counts.double() / len(factors) for _, counts in _values(checked_factors(factors))]
    return torch.stack([-torch.xlogy(p, p).sum() for p in frequencies])


def checked_codes(mu: Tensor, std: Tensor, factors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check that these are tables of the same data; return them on the CPU, the first two in double precision.

    Raises
    ------
    ValueError, TypeError
        If they do not fit together, a number is not finite, or a standard deviation is negative.
    """
    checks.shape("mu", mu, ("N", "L"))
    checks.shape("std", std, tuple(mu.shape), like=mu)
    factors = checked_factors(factors)
    if factors.shape[0] != mu.shape[0]:
        raise ValueError(f"factors: expected {mu.shape[0]} rows, as mu has, found {factors.shape[0]}")
    checks.finite("mu", mu)
    checks.finite("std", std)
    _refuse(std < 0, std, "no negative numbers")
    return mu.detach().cpu().double(), std.detach().cpu().double(), factors


def checked_factors(factors: Tensor) -> Tensor:
    """Check that this is a table of integers, ``(N, K)``, that is not empty; return it on the CPU.

    Raises
    ------
    ValueError, TypeError
        If it is not.
    """
    if not isinstance(factors, Tensor) or factors.dtype != torch.int64:
        found = factors.dtype if isinstance(factors, Tensor) else type(factors).__name__
        raise TypeError(f"factors: expected a tensor of torch.int64, found {found}")
    if factors.dim() != 2 or 0 in factors.shape:
        raise ValueError(f"factors: expected shape (N, K) with at least one of each, found {tuple(factors.shape)}")
    return factors.cpu()


def _refuse(bad: Tensor, std: Tensor, expected: str) -> None:
    if bool(bad.any()):
        row, latent = bad.nonzero()[0].tolist()
        raise ValueError(f"std: expected {expected}, found {float(std[row, latent]):.3g} at ({row}, {latent})")


def _values(factors: Tensor) -> list[_Values]:
    return [_Values(*column.unique(return_inverse=True, return_counts=True)[1:]) for column in factors.unbind(1)]


def _information(mu: Tensor, std: Tensor, factors: list[_Values]) -> Tensor:
    """Mutual information of one latent and each factor, ``(K,)``."""
    total = torch.zeros(len(factors), dtype=torch.float64)
    for nodes, weights, near in _quadrature(mu, std):
        m, s = mu[near].unsqueeze(1), std[near].unsqueeze(1)
        density = torch.exp(-0.5 * ((nodes - m) / s).square_()).div_(math.sqrt(2.0 * math.pi) * s)
        whole = density.sum(0) / len(mu)
        for k, (place, counts) in enumerate(factors):
            given_v = torch.zeros(len(counts), len(nodes), dtype=torch.float64).index_add_(0, place[near], density)
            given_v /= counts.unsqueeze(1)
            total[k] += counts.double() @ torch.xlogy(given_v, given_v / whole) @ weights / len(mu)
    return total


def _quadrature(mu: Tensor, std: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Nodes and weights on the part of the line where there is mass, and which components are in reach there.

    An interval is halved until a few panels are fine enough for its narrowest component; where nothing is in reach
    there is nothing to do.
    """
    place, weight = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(_NODES))
    low, high = mu - _REACH * std, mu + _REACH * std
    intervals = [(float(low.min()), float(high.max()), torch.arange(len(mu)))]
    while intervals:
        left, right, rows = intervals.pop()
        near = rows[(low[rows] < right) & (high[rows] > left)]
        if not len(near):
            continue
        count = math.ceil((right - left) / (_WIDTH * float(std[near].min())))
        if count > _PANELS:
            middle = 0.5 * (left + right)
            intervals += [(left, middle, near), (middle, right, near)]
            continue
        half = 0.5 * (right - left) / count
        centres = left + half * (2.0 * torch.arange(count, dtype=torch.float64) + 1.0)
        nodes, weights = (centres.unsqueeze(1) + half * place).flatten(), (half * weight).repeat(count)
        size = max(1, _ENTRIES // len(near))
        yield from zip(nodes.split(size), weights.split(size), itertools.repeat(near), strict=False)
