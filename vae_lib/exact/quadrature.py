"""Integrals over one real number that check themselves.

The rule is composite Gauss-Legendre: the interval is cut into equal panels with 16 nodes each. Every integral is
taken twice, the second time with twice the panels, and must not move; and the integrand must have died out at both
ends. An integral that fails either test raises :class:`QuadratureError` instead of returning a wrong digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NODES_PER_PANEL = 16


class QuadratureError(ArithmeticError):
    """An integral that did not converge or whose interval is too short."""


class Interval(NamedTuple):
    """Where to integrate, and how finely."""

    lower: float
    upper: float
    panels: int


def rule(interval: Interval, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the composite rule, ``(N,)`` each, with the dtype and device of ``like``."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES_PER_PANEL)
    width = (interval.upper - interval.lower) / interval.panels
    centres = interval.lower + width * (np.arange(interval.panels) + 0.5)
    all_nodes = (centres[:, None] + 0.5 * width * nodes).ravel()
    all_weights = np.tile(0.5 * width * weights, interval.panels)
    return torch.as_tensor(all_nodes).to(like), torch.as_tensor(all_weights).to(like)


def log_integral(log_f: Callable[[Tensor], Tensor], interval: Interval, like: Tensor, tol: float = 1e-11) -> Tensor:
    r""":math:`\log \int e^{\log f(z)}\, dz`, one for each datum, ``(B,)``.

    Parameters
    ----------
    log_f
        Takes nodes ``(N,)``, returns the log of a positive integrand, ``(N, B)``.
    interval
        Where to integrate.
    like
        A tensor of the dtype and device to work in.
    tol
        The largest accepted change of the result, in nats, when the panels are halved; never below 100 roundings
        of the dtype, which only single precision notices.

    Raises
    ------
    QuadratureError
        If the result moves by more, or an end of the interval still matters.
    """
    tol = max(tol, 100.0 * torch.finfo(like.dtype).eps)

    def integrate(panels: int) -> Tensor:
        nodes, weights = rule(interval._replace(panels=panels), like)
        log_values = log_f(nodes) + weights.log().unsqueeze(-1)
        result = torch.logsumexp(log_values, dim=0)
        _check_ends(log_values[[0, -1]] - result, interval)
        return result

    coarse, fine = integrate(interval.panels), integrate(2 * interval.panels)
    _check_moved((fine - coarse).abs(), tol, interval)
    return fine


def expectation(
    log_density: Callable[[Tensor], Tensor],
    f: Callable[[Tensor], Tensor],
    interval: Interval,
    like: Tensor,
    tol: float = 1e-11,
) -> Tensor:
    r""":math:`\int e^{\log q(z)} f(z)\, dz` for a normalised density q, one for each datum, ``(B,)``.

    Parameters as for :func:`log_integral`; both functions take nodes ``(N,)`` and return ``(N, B)``. ``tol`` is
    relative to the integral of the absolute value.

    Raises
    ------
    QuadratureError
        Also if the density does not integrate to one on the interval.
    """
    tol = max(tol, 100.0 * torch.finfo(like.dtype).eps)
    log_mass = log_integral(log_density, interval, like, tol)
    worst = max(log_mass.detach().flatten().tolist(), key=abs)
    if abs(worst) > 100.0 * tol:
        raise QuadratureError(
            f"expectation: expected a density that integrates to 1 on [{interval.lower}, {interval.upper}], "
            f"found a mass of {math.exp(worst):.12f}"
        )

    def integrate(panels: int) -> tuple[Tensor, Tensor]:
        nodes, weights = rule(interval._replace(panels=panels), like)
        mass = log_density(nodes).exp() * weights.unsqueeze(-1)
        terms = torch.where(mass > 0.0, mass * f(nodes), 0.0)
        return terms.sum(0), terms.abs().sum(0)

    (coarse, _), (fine, size) = integrate(interval.panels), integrate(2 * interval.panels)
    _check_moved((fine - coarse).abs() / (1.0 + size), tol, interval)
    return fine


def _check_moved(change: Tensor, tol: float, interval: Interval) -> None:
    worst = float(change.detach().max())
    if not worst <= tol:
        raise QuadratureError(
            f"quadrature: expected a change of at most {tol:g} when {interval.panels} panels are halved, "
            f"found {worst:.2g}; use more panels"
        )


def _check_ends(log_share: Tensor, interval: Interval) -> None:
    # One part in 1e16 at the last node, for an integrand that falls off, is less than rounding in all that is cut off.
    worst = float(log_share.detach().max())
    if not worst <= math.log(1e-16):
        raise QuadratureError(
            f"quadrature: expected an integrand gone at both ends of [{interval.lower}, {interval.upper}], "
            f"found a share of {math.exp(worst):.2g} there; use a wider interval"
        )
