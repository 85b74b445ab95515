r"""Likelihood heads: how a network's output becomes log p(x | z), in nats.

A head takes what the decoder's network puts out and reads it as the parameters of one density for each pixel. Where a
density has several parameters, they lie in blocks: first the first parameter of all D pixels, then the second of all D.

- :class:`BernoulliLikelihood`: bits; log-odds.
- :class:`BinomialLikelihood`: counts 0 ... n; log-odds.
- :class:`CategoricalLikelihood`: K levels without order; K unnormalised log-probabilities for each pixel.
- :class:`DiscretisedLogisticLikelihood`: K levels in order, 8-bit pixels say; centre and log-scale.
- ``NormalLikelihood``: real numbers; the mean, with a fixed variance.
- ``LearnedNormalLikelihood``: real numbers; the mean, with a variance that is a parameter of the model.
- ``PredictedNormalLikelihood``: real numbers; mean and log-variance.

The normal heads are in ``vae_lib.models.normal_likelihoods``. Their densities are not bounded: a model that is sure of
a pixel gains without limit as its variance shrinks, so grey levels, of which there are finitely many, are better
counted than measured. Nats compare between heads of the same discrete pixels, and between heads of the same real ones,
not across. Chapter 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from vae_lib import checks
from vae_lib.densities import log_binomial, log_categorical


class Likelihood(Protocol):
    """A density of data given a network's output for each latent.

    With K outputs for each number, ``output`` is ``(S, B, K D)``, in K blocks of D. Shapes are checked by the model
    that holds the head, not by the head, which lets ``x`` and ``output`` broadcast.
    """

    @property
    def outputs_per_number(self) -> int:
        """K, how many outputs of the network each number of a datum needs."""

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood of ``x (B, D)`` under ``output (S, B, K D)``, ``(S, B)``, in nats: summed over the pixels."""

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """One datum for each output, ``(S, B, D)``."""

    def mean(self, output: Tensor) -> Tensor:
        """The expected datum for each output, ``(S, B, D)``: the picture to show, in the units of the data."""


def blocks(output: Tensor, count: int) -> tuple[Tensor, ...]:
    """Split ``output (..., K D)`` into its K blocks ``(..., D)``.

    Raises
    ------
    ValueError
        If its length is no multiple of K.
    """
    if output.shape[-1] % count:
        raise ValueError(f"output: expected {count} numbers for each pixel, found {output.shape[-1]} in all")
    return output.chunk(count, dim=-1)


@dataclass(frozen=True)
class BernoulliLikelihood:
    """Bits; the output is log-odds."""

    @property
    def outputs_per_number(self) -> int:
        """One."""
        return 1

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        # The formula of densities.log_bernoulli in one fused call: a tenth off a training step.
        x, output = torch.broadcast_tensors(x, output)
        return -binary_cross_entropy_with_logits(output, x, reduction="none").sum(-1)

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """Bits ``(S, B, D)``."""
        uniform = torch.rand(output.shape, generator=generator, dtype=output.dtype, device=output.device)
        return (uniform < torch.sigmoid(output)).to(output.dtype)

    def mean(self, output: Tensor) -> Tensor:
        """Probabilities of a one, ``(S, B, D)``."""
        return torch.sigmoid(output)


@dataclass(frozen=True)
class BinomialLikelihood:
    """Counts from 0 to ``total_count``, as the grey levels of the small digits are; the output is log-odds."""

    total_count: int

    @property
    def outputs_per_number(self) -> int:
        """One."""
        return 1

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        return log_binomial(x, output, self.total_count).sum(-1)

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """Counts ``(S, B, D)``."""
        probs = torch.sigmoid(output).detach().contiguous()
        return torch.binomial(torch.full_like(probs, self.total_count), probs, generator=generator)

    def mean(self, output: Tensor) -> Tensor:
        """Expected counts, ``(S, B, D)``."""
        return self.total_count * torch.sigmoid(output)


@dataclass(frozen=True)
class CategoricalLikelihood:
    """One of K levels for each pixel, 0.0 ... K - 1.0, without any order between them.

    Parameters
    ----------
    levels
        K, at least 2. Not checked: that the data are among them.
    """

    levels: int

    def __post_init__(self) -> None:
        _check_levels(self.levels)

    @property
    def outputs_per_number(self) -> int:
        """Number of levels, K."""
        return self.levels

    def _logits(self, output: Tensor) -> Tensor:
        return torch.stack(blocks(output, self.levels), dim=-1)  # (S, B, D, K)

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        return log_categorical(x, self._logits(output)).sum(-1)

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """Levels ``(S, B, D)``."""
        probs = torch.softmax(self._logits(output).detach(), dim=-1)
        index = torch.multinomial(probs.reshape(-1, self.levels), 1, generator=generator)
        return index.reshape(probs.shape[:-1]).to(output.dtype)

    def mean(self, output: Tensor) -> Tensor:
        """Expected levels, ``(S, B, D)``."""
        values = torch.arange(self.levels, dtype=output.dtype, device=output.device)
        return torch.softmax(self._logits(output), dim=-1) @ values


@dataclass(frozen=True)
class DiscretisedLogisticLikelihood:
    r"""One of K levels in order, 0.0 ... K - 1.0, whose probabilities are areas under a logistic curve.

    The levels are laid evenly on the line from -1 (level 0) to 1 (level K - 1). With edges half-way between neighbours,
    the edge :math:`e_k` above level k, centre :math:`m` and scale :math:`s`,

    .. math:: p(k) = F\!\left(\frac{e_k - m}{s}\right) - F\!\left(\frac{e_{k-1} - m}{s}\right), \qquad
              F(t) = \frac{1}{1 + e^{-t}}

    and the outermost levels take all that lies beyond: the probabilities sum to one. The difference is never formed.
    With :math:`u` and :math:`l` for the two arguments it is a product, and its logarithm a sum of three negative terms,

    .. math:: \log p(k) = \log F(u) + \log F(-l) + \log\left(1 - e^{-(u - l)}\right)

    The density is that of PixelCNN++ (Salimans et al., 2017, section 2.1) with one logistic curve, not a mixture, and
    without its floor under the probabilities and its limit on the scale.

    Parameters
    ----------
    levels
        K, at least 2; 256 for 8-bit pixels. Not checked: that the data are among them.
    """

    levels: int = 256

    def __post_init__(self) -> None:
        _check_levels(self.levels)

    @property
    def outputs_per_number(self) -> int:
        """Two, the centre and the log-scale."""
        return 2

    def _edge(self, level: Tensor) -> Tensor:
        """Return the upper edge of a level, to the last bit the lower one of the next: no gap opens between them."""
        return (2.0 * level + 1.0) / (self.levels - 1) - 1.0

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats.

        Finite, gradient included, as long as distance over scale is a number that the dtype can hold.
        """
        centre, log_scale = blocks(output, 2)
        inverse = torch.exp(-log_scale)
        upper, lower = (self._edge(x) - centre) * inverse, (self._edge(x - 1.0) - centre) * inverse
        is_first, is_last = x == 0.0, x == self.levels - 1.0
        log_p = torch.where(is_last, 0.0, logsigmoid(upper)) + torch.where(is_first, 0.0, logsigmoid(-lower))
        log_width = math.log(2.0 / (self.levels - 1)) - log_scale
        return (log_p + torch.where(is_first | is_last, 0.0, _log_one_minus_exp_minus_exp(log_width))).sum(-1)

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """Levels ``(S, B, D)``."""
        centre, log_scale = (part.detach() for part in blocks(output, 2))
        uniform = torch.rand(centre.shape, generator=generator, dtype=output.dtype, device=output.device)
        # The least number that can be drawn is 0, which stands for what lies below every level.
        value = centre + torch.exp(log_scale) * torch.logit(uniform)
        return (0.5 * (value + 1.0) * (self.levels - 1)).round().clamp(0.0, self.levels - 1.0)

    def mean(self, output: Tensor) -> Tensor:
        """Expected levels, ``(S, B, D)``: the sum over all edges of the probability to lie above."""
        centre, log_scale = blocks(output, 2)
        inverse, total = torch.exp(-log_scale), torch.zeros_like(centre)
        levels = torch.arange(self.levels - 1, dtype=output.dtype, device=output.device)
        for edge in self._edge(levels):  # one by one: all at once would need K times the memory
            total = total + torch.sigmoid((centre - edge) * inverse)
        return total


def _log_one_minus_exp_minus_exp(a: Tensor) -> Tensor:
    r""":math:`\log(1 - \exp(-e^a))`, without loss for small or large :math:`e^a`."""
    width = torch.exp(a)
    # Below 1e-3 the next term of the series, width⁴ / 2880, is beyond double precision. The clamp keeps the logarithm
    # of zero out of the branch that is not taken: it would spoil the gradient of the other.
    is_small = width < 1e-3
    series = a - width / 2.0 + width**2 / 24.0
    direct = torch.log(-torch.expm1(-width.clamp(min=1e-3)))
    return torch.where(is_small, series, direct)


def _check_levels(levels: int) -> None:
    checks.positive_int("levels", levels)
    if levels < 2:
        raise ValueError(f"levels: expected at least 2, found {levels}")
