r"""The equations: log-densities element by element, in nats.

Names carry the parametrisation: ``logvar`` is a log-variance, ``logits`` are log-odds, never probabilities. Nothing
is clamped and no small constant is added, so gradients are those of the formula. Arguments broadcast; the support
of a value is not checked.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LOG_2PI = math.log(2.0 * math.pi)


def log_normal(value: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    r"""Normal log-density of each element, in nats.

    .. math:: \log \mathcal N(v; \mu, \sigma^2)
              = -\tfrac12 \left( \log 2\pi + \log\sigma^2 + (v - \mu)^2 / \sigma^2 \right)

    All arguments have shapes that broadcast; so has the result. Derived in chapter 1.
    """
    return -0.5 * (LOG_2PI + logvar + ((value - mu) * torch.exp(-0.5 * logvar)) ** 2)


def log_bernoulli(value: Tensor, logits: Tensor) -> Tensor:
    r"""Bernoulli log-probability of each bit, in nats.

    .. math:: \log p(v) = v \log s(a) + (1 - v) \log s(-a), \qquad s(a) = \frac{1}{1 + e^{-a}}, \quad a = \text{logits}

    Exact to rounding for any finite logits, because neither term cancels the other. Not checked: that ``value`` is
    0 or 1. For a grey level in between the formula still gives a number, but no longer a log-probability (chapter 5).
    """
    return value * logsigmoid(logits) + (1.0 - value) * logsigmoid(-logits)


def log_binomial(value: Tensor, logits: Tensor, total_count: int) -> Tensor:
    r"""Binomial log-probability of each count ``value`` out of ``total_count``, in nats.

    .. math:: \log p(v) = \log\binom{n}{v} + v \log s(a) + (n - v) \log s(-a), \qquad s(a) = \frac{1}{1 + e^{-a}}
    """
    total = torch.as_tensor(float(total_count), dtype=value.dtype, device=value.device)
    log_choose = torch.lgamma(total + 1.0) - torch.lgamma(value + 1.0) - torch.lgamma(total - value + 1.0)
    return log_choose + value * logsigmoid(logits) + (total - value) * logsigmoid(-logits)


def log_categorical(value: Tensor, logits: Tensor) -> Tensor:
    r"""Log-probability of each category, in nats.

    .. math:: \log p(v) = a_v - \log \sum_k e^{a_k}

    Parameters
    ----------
    value
        Categories 0.0 ... K - 1.0, shape ``(...)``.
    logits
        Shape ``(..., K)``; the leading axes broadcast against those of ``value``.
    """
    log_probs = torch.log_softmax(logits, dim=-1)
    index = value.long().unsqueeze(-1)
    shape = torch.broadcast_shapes(index.shape[:-1], log_probs.shape[:-1])
    index, log_probs = index.expand(*shape, 1), log_probs.expand(*shape, log_probs.shape[-1])
    return log_probs.gather(-1, index).squeeze(-1)


def log_student_t(value: Tensor, mu: Tensor, log_scale: Tensor, df: Tensor) -> Tensor:
    r"""Log-density of Student's t with ``df`` degrees of freedom, element by element, in nats.

    .. math:: \log p(v) = \log\Gamma(\tfrac{\nu+1}{2}) - \log\Gamma(\tfrac{\nu}{2}) - \tfrac12 \log \nu\pi - \log s
              - \tfrac{\nu+1}{2} \log\left(1 + \frac{(v-\mu)^2}{\nu s^2}\right)
    """
    normaliser = torch.lgamma(0.5 * (df + 1.0)) - torch.lgamma(0.5 * df) - 0.5 * torch.log(df * math.pi) - log_scale
    return normaliser - 0.5 * (df + 1.0) * torch.log1p(((value - mu) * torch.exp(-log_scale)) ** 2 / df)


def log_gamma(value: Tensor, concentration: Tensor, rate: Tensor) -> Tensor:
    r"""Log-density of the Gamma distribution, element by element, in nats; minus infinity below zero.

    .. math:: \log p(v) = a \log b - \log\Gamma(a) + (a - 1) \log v - b v
    """
    normaliser = concentration * torch.log(rate) - torch.lgamma(concentration)
    log_p: Tensor = normaliser + torch.special.xlogy(concentration - 1.0, value) - rate * value
    return torch.where(value >= 0.0, log_p, -math.inf)


def log_beta(value: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    r"""Log-density of the Beta distribution, element by element, in nats; minus infinity outside [0, 1].

    .. math:: \log p(v) = (\alpha - 1) \log v + (\beta - 1) \log(1 - v)
              + \log\Gamma(\alpha + \beta) - \log\Gamma(\alpha) - \log\Gamma(\beta)
    """
    normaliser = torch.lgamma(alpha + beta) - torch.lgamma(alpha) - torch.lgamma(beta)
    log_p: Tensor = normaliser + torch.special.xlogy(alpha - 1.0, value) + torch.special.xlog1py(beta - 1.0, -value)
    return torch.where((value >= 0.0) & (value <= 1.0), log_p, -math.inf)


def log_poisson(value: Tensor, rate: Tensor) -> Tensor:
    r"""Poisson log-probability of each count, in nats.

    .. math:: \log p(v) = v \log r - r - \log v!
    """
    log_p: Tensor = torch.special.xlogy(value, rate) - rate - torch.lgamma(value + 1.0)
    return log_p
