r"""Kullback-Leibler divergences in nats: closed forms, and Monte Carlo with a standard error.

.. math:: D_{\mathrm{KL}}(p \,\|\, q) = \mathbb E_{p(z)}[\log p(z) - \log q(z)] \ge 0

:func:`kl` picks the closed form from the types of its two arguments; :func:`monte_carlo_kl` works for any pair of
which the first can be sampled. Chapter 1 derives both and meets them with each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from vae_lib import checks
from vae_lib.densities import (
    LOG_2PI,
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    DiagonalNormal,
    FullNormal,
    Gamma,
    StudentT,
)
from vae_lib.estimate import Estimate, mean_with_error, sample_average_terms
from vae_lib.protocols import Density

ClosedForm = Callable[[Any, Any], Tensor]
_CLOSED_FORMS: dict[tuple[type, type], ClosedForm] = {}


def closed_form(p: type, q: type) -> Callable[[ClosedForm], ClosedForm]:
    """Decorate a function ``(p, q) -> (B,)``, in nats, to enter it into the table that :func:`kl` looks in.

    This is how a density of your own joins in. Subclasses inherit the closed forms of their parents.
    """

    def enter(function: ClosedForm) -> ClosedForm:
        _CLOSED_FORMS[p, q] = function
        return function

    return enter


def has_closed_form(p: Density, q: Density) -> bool:
    """Whether :func:`kl` knows this pair of types."""
    return _find(p, q) is not None


def _find(p: Density, q: Density) -> ClosedForm | None:
    pairs = ((of_p, of_q) for of_p in type(p).__mro__ for of_q in type(q).__mro__)
    return next((_CLOSED_FORMS[pair] for pair in pairs if pair in _CLOSED_FORMS), None)


def kl(p: Density, q: Density) -> Tensor:
    r""":math:`D_{\mathrm{KL}}(p \,\|\, q)` in closed form for each pair in two batches of densities.

    Parameters
    ----------
    p, q
        Batches of the same B and L.

    Returns
    -------
    Tensor
        ``(B,)``, in nats.

    Raises
    ------
    ValueError
        If the sizes differ.
    NotImplementedError
        If there is no closed form for this pair of types; :func:`monte_carlo_kl` has an answer with an error bar.
    """
    _same_sizes(p, q)
    function = _find(p, q)
    if function is None:
        raise NotImplementedError(
            f"kl: expected a pair with a closed form, found {type(p).__name__} and {type(q).__name__}; "
            "sample instead (monte_carlo_kl, or elbo with analytic_kl=False), or enter one with closed_form"
        )
    result = function(p, q)
    checks.shape("kl(p, q)", result, (p.batch_size,))
    return result


def kl_terms(p: DiagonalNormal, q: DiagonalNormal) -> Tensor:
    r""":math:`D_{\mathrm{KL}}(p \,\|\, q)` of two batches of normals, latent by latent.

    Both densities factorise, so the terms of a pair sum to :func:`kl`.

    Parameters
    ----------
    p, q
        Batches of the same B and L.

    Returns
    -------
    Tensor
        ``(B, L)``, in nats.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    _same_sizes(p, q)
    log_ratio = p.logvar - q.logvar
    scaled = (p.mu - q.mu) * torch.exp(-0.5 * q.logvar)
    return 0.5 * (torch.expm1(log_ratio) - log_ratio + scaled**2)


def monte_carlo_kl(p: Density, q: Density, *, num_samples: int, generator: Generator) -> Estimate:
    r""":math:`D_{\mathrm{KL}}(p \,\|\, q)` by sampling p.

    .. math:: \frac1S \sum_{s=1}^S \log p(z^{(s)}) - \log q(z^{(s)}), \qquad z^{(s)} \sim p

    Parameters
    ----------
    p, q
        Batches of the same B and L.
    num_samples
        S, at least 2.
    generator
        The source of randomness.

    Returns
    -------
    Estimate
        Value and standard error, ``(B,)`` each, in nats. A single estimate can be negative; the KL cannot.
        Gradients as in :func:`~vae_lib.estimate.sample_average_terms`.
    """
    _same_sizes(p, q)

    def log_ratio(z: Tensor) -> Tensor:
        log_p, log_q = p.log_prob(z), q.log_prob(z)
        for name, values in (("p.log_prob(z)", log_p), ("q.log_prob(z)", log_q)):
            checks.shape(name, values, (num_samples, p.batch_size))
        return log_p - log_q

    return mean_with_error(sample_average_terms(p, log_ratio, num_samples=num_samples, generator=generator))


def _same_sizes(p: Density, q: Density) -> None:
    sizes_p, sizes_q = (p.batch_size, p.event_dim), (q.batch_size, q.event_dim)
    if sizes_p != sizes_q:
        raise ValueError(f"q: expected (B, L) = {sizes_p} as p has, found {sizes_q}")


@closed_form(DiagonalNormal, DiagonalNormal)
def _kl_diagonal_diagonal(p: DiagonalNormal, q: DiagonalNormal) -> Tensor:
    return kl_terms(p, q).sum(-1)


def _full(p: DiagonalNormal) -> FullNormal:
    return FullNormal(p.mu, torch.diag_embed(p.std))


@closed_form(FullNormal, FullNormal)
def _kl_full_full(p: FullNormal, q: FullNormal) -> Tensor:
    # With T = T_q^{-1} T_p the trace is the squared Frobenius norm of T, and the whole is never a matrix inverse.
    tril: Tensor = torch.linalg.solve_triangular(q.scale_tril, p.scale_tril, upper=False)
    shift: Tensor = torch.linalg.solve_triangular(q.scale_tril, (p.mu - q.mu).unsqueeze(-1), upper=False)
    quadratic = (tril**2).sum((-2, -1)) + (shift**2).sum((-2, -1)) - p.event_dim
    return 0.5 * quadratic + q.half_log_det - p.half_log_det


@closed_form(DiagonalNormal, FullNormal)
def _kl_diagonal_full(p: DiagonalNormal, q: FullNormal) -> Tensor:
    return _kl_full_full(_full(p), q)


@closed_form(FullNormal, DiagonalNormal)
def _kl_full_diagonal(p: FullNormal, q: DiagonalNormal) -> Tensor:
    return _kl_full_full(p, _full(q))


def _kl_bits(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    probs_p = torch.sigmoid(logits_p)
    ones = probs_p * (logsigmoid(logits_p) - logsigmoid(logits_q))
    return ones + torch.sigmoid(-logits_p) * (logsigmoid(-logits_p) - logsigmoid(-logits_q))


@closed_form(Bernoulli, Bernoulli)
def _kl_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    return _kl_bits(p.logits, q.logits).sum(-1)


@closed_form(Binomial, Binomial)
def _kl_binomial(p: Binomial, q: Binomial) -> Tensor:
    if p.total_count != q.total_count:
        raise ValueError(f"q: expected total_count {p.total_count} as p has, found {q.total_count}")
    return p.total_count * _kl_bits(p.logits, q.logits).sum(-1)


@closed_form(Categorical, Categorical)
def _kl_categorical(p: Categorical, q: Categorical) -> Tensor:
    if p.logits.shape != q.logits.shape:
        raise ValueError(f"q: expected {p.logits.shape[-1]} categories as p has, found {q.logits.shape[-1]}")
    probs = p.log_probs.exp()
    # A category that p never takes costs nothing, even where both logs are minus infinity.
    log_ratio = torch.where(probs > 0.0, p.log_probs - q.log_probs, 0.0)
    return (probs * log_ratio).sum((-2, -1))


@closed_form(Gamma, Gamma)
def _kl_gamma(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    return (
        (a - b) * torch.digamma(a)
        - torch.lgamma(a)
        + torch.lgamma(b)
        + b * (torch.log(p.rate) - torch.log(q.rate))
        + a * (q.rate / p.rate - 1.0)
    ).sum(-1)


@closed_form(Beta, Beta)
def _kl_beta(p: Beta, q: Beta) -> Tensor:
    def log_normaliser(density: Beta) -> Tensor:
        total = density.alpha + density.beta
        return torch.lgamma(density.alpha) + torch.lgamma(density.beta) - torch.lgamma(total)

    mean_log_total = torch.digamma(p.alpha + p.beta)
    mean_log = torch.digamma(p.alpha) - mean_log_total
    mean_log_rest = torch.digamma(p.beta) - mean_log_total
    normalisers = log_normaliser(q) - log_normaliser(p)
    return (normalisers + (p.alpha - q.alpha) * mean_log + (p.beta - q.beta) * mean_log_rest).sum(-1)


def _negative_entropy_student_t(p: StudentT) -> Tensor:
    half, half_up = 0.5 * p.df, 0.5 * (p.df + 1.0)
    log_beta = torch.lgamma(half) + torch.lgamma(torch.full_like(half, 0.5)) - torch.lgamma(half_up)
    spread = half_up * (torch.digamma(half_up) - torch.digamma(half))
    return -(spread + 0.5 * torch.log(p.df) + log_beta + p.log_scale)


@closed_form(StudentT, DiagonalNormal)
def _kl_student_t_normal(p: StudentT, q: DiagonalNormal) -> Tensor:
    # A normal's log-density is a parabola, so only the variance of p enters: finite above two degrees of freedom.
    # The branch not taken gets an excess of 1: at df = 2 its gradient would be 0 times infinity.
    excess = torch.where(p.df > 2.0, p.df - 2.0, 1.0)
    variance = torch.where(p.df > 2.0, torch.exp(2.0 * p.log_scale) * p.df / excess, math.inf)
    cross = 0.5 * (LOG_2PI + q.logvar + (variance + (p.mu - q.mu) ** 2) * torch.exp(-q.logvar))
    return (_negative_entropy_student_t(p) + cross).sum(-1)
