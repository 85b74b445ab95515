r"""The last step of a diffusion: from the least noisy latent to the data, log p(x | z₁), in nats.

The datum is normal around the denoiser's guess :math:`\hat x(z_1)`, with the variance :math:`1 / \mathrm{SNR}(1)` that
the noise in :math:`z_1 / \alpha_1` has. Real numbers get that density. Grey levels get areas under it: a density
of grey levels has no bound, and bits of one are not bits of the image. Chapter 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.special import log_ndtr

from vae_lib import checks
from vae_lib.densities import log_normal
from vae_lib.models.likelihoods import DiscretisedLogisticLikelihood, blocks


class Reconstruction(Protocol):
    """How data become numbers that noise is added to, and come back. Shapes are checked by the model that holds it."""

    def encode(self, x: Tensor) -> Tensor:
        """Data ``(..., D)`` in the units of the diffusion."""

    def decode(self, x_hat: Tensor) -> Tensor:
        """A guess ``(..., D)`` in the units of the data: the picture to show."""

    def log_prob(self, x: Tensor, x_hat: Tensor, log_snr: Tensor) -> Tensor:
        """Log-likelihood of data ``x (B, D)`` around guesses ``(S, B, D)``, ``(S, B)``, in nats."""

    def sample(self, x_hat: Tensor, log_snr: Tensor, *, generator: Generator) -> Tensor:
        """One datum for each guess, ``(S, B, D)``."""


@dataclass(frozen=True)
class NormalReconstruction:
    """Real numbers, diffused as they are: they should have about mean 0 and variance 1."""

    def encode(self, x: Tensor) -> Tensor:
        """The data themselves."""
        return x

    def decode(self, x_hat: Tensor) -> Tensor:
        """The guess itself."""
        return x_hat

    def log_prob(self, x: Tensor, x_hat: Tensor, log_snr: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        return log_normal(x, x_hat, -log_snr).sum(-1)

    def sample(self, x_hat: Tensor, log_snr: Tensor, *, generator: Generator) -> Tensor:
        """Real numbers ``(S, B, D)``."""
        noise = torch.randn(x_hat.shape, generator=generator, dtype=x_hat.dtype, device=x_hat.device)
        return x_hat + torch.exp(-0.5 * log_snr) * noise


@dataclass(frozen=True)
class DiscretisedNormalReconstruction:
    r"""Grey levels 0.0 ... K - 1.0, laid evenly on the line from -1 to 1; the outermost take all that lies beyond.

    .. math:: \log p(k \mid \hat x) = \log\left[ \Phi\!\left(\frac{e_k - \hat x}{s}\right)
              - \Phi\!\left(\frac{e_{k-1} - \hat x}{s}\right) \right], \qquad s = \mathrm{SNR}(1)^{-1/2}

    with edges :math:`e_k` half-way between neighbours. Ho, Jain and Abbeel (2020), equation 13.

    Parameters
    ----------
    levels
        K, at least 2. Not checked: that the data are among them.
    """

    levels: int

    def __post_init__(self) -> None:
        checks.positive_int("levels", self.levels)
        if self.levels < 2:
            raise ValueError(f"levels: expected at least 2, found {self.levels}")

    def encode(self, x: Tensor) -> Tensor:
        """Levels on the line from -1 to 1."""
        return 2.0 * x / (self.levels - 1) - 1.0

    def decode(self, x_hat: Tensor) -> Tensor:
        """A guess as a grey level, which need not be a whole one."""
        return 0.5 * (x_hat + 1.0) * (self.levels - 1)

    def log_prob(self, x: Tensor, x_hat: Tensor, log_snr: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        inverse = torch.exp(0.5 * log_snr)
        upper, lower = ((self.encode(x + shift) - x_hat) * inverse for shift in (0.5, -0.5))
        # Above the middle both tails are mirrored: there a difference of numbers near one would have no digits left.
        is_above = upper + lower > 0.0
        high, low = torch.where(is_above, -lower, upper), torch.where(is_above, -upper, lower)
        inner = log_ndtr(high) + _log_one_minus_exp(log_ndtr(low) - log_ndtr(high))
        outer = torch.where(x == 0.0, log_ndtr(upper), log_ndtr(-lower))
        return torch.where((x == 0.0) | (x == self.levels - 1.0), outer, inner).sum(-1)

    def sample(self, x_hat: Tensor, log_snr: Tensor, *, generator: Generator) -> Tensor:
        """Levels ``(S, B, D)``."""
        drawn = NormalReconstruction().sample(x_hat, log_snr, generator=generator)
        return self.decode(drawn).round().clamp(0.0, self.levels - 1.0)


class LearnedReconstruction(nn.Module):
    r"""Grey levels under a discretised logistic curve, whose centre and log-scale a network makes of the guess.

    Of a pixel that is always white it learns to be sure, and of the others how far to trust the guess; it is the head
    of the digits' VAE (:class:`~vae_lib.models.DiscretisedLogisticLikelihood`). The signal-to-noise ratio is not asked.

    Parameters
    ----------
    network
        Maps guesses ``(..., D)`` to what is added to them and to log-scales, ``(..., 2 D)``.
    levels
        K, at least 2. Not checked: that the data are among them.
    """

    def __init__(self, network: nn.Module, levels: int) -> None:
        super().__init__()
        self.network, self.head, self.line = (
            network,
            DiscretisedLogisticLikelihood(levels),
            DiscretisedNormalReconstruction(levels),
        )

    def encode(self, x: Tensor) -> Tensor:
        """Levels on the line from -1 to 1."""
        return self.line.encode(x)

    def decode(self, x_hat: Tensor) -> Tensor:
        """The expected grey level, which need not be a whole one."""
        return self.head.mean(self._output(x_hat))

    def log_prob(self, x: Tensor, x_hat: Tensor, log_snr: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        return self.head.log_prob(x, self._output(x_hat))

    def sample(self, x_hat: Tensor, log_snr: Tensor, *, generator: Generator) -> Tensor:
        """Levels ``(S, B, D)``."""
        return self.head.sample(self._output(x_hat), generator=generator)

    def _output(self, x_hat: Tensor) -> Tensor:
        shift, log_scale = blocks(self.network(x_hat), 2)
        return torch.cat([x_hat + shift, log_scale], dim=-1)


def bits_per_dim(elbo: Tensor, data_dim: int) -> Tensor:
    r"""Bits that a datum costs for each of its numbers, :math:`-\mathrm{ELBO} / (D \log 2)`, of the same shape.

    Of grey levels it is what a code needs, at most. Of real numbers it depends on their unit, and may be negative.

    Parameters
    ----------
    elbo
        In nats a datum; log p(x) may stand in its place.
    data_dim
        D.
    """
    checks.positive_int("data_dim", data_dim)
    return -elbo / (data_dim * math.log(2.0))


def _log_one_minus_exp(a: Tensor) -> Tensor:
    r""":math:`\log(1 - e^a)` for a < 0."""
    return torch.log(-torch.expm1(a))
