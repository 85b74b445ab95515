r"""A generative model whose decoder is any network: :math:`p(z)\, p_\theta(x \mid z)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.densities import Bernoulli, DiagonalNormal
from vae_lib.models.likelihoods import Likelihood
from vae_lib.protocols import Density


@dataclass(frozen=True)
class DecoderModel:
    """A prior, a network, a likelihood. Meets :class:`~vae_lib.protocols.LatentVariableModel`.

    Parameters
    ----------
    network
        Maps latents ``(S, B, L)`` to the likelihood's input ``(S, B, K D)``, where the head needs K outputs for each
        number of a datum.
    likelihood
        The head.
    latent_dim, data_dim
        L and D.
    prior
        Takes B, returns p(z) repeated: :func:`standard_normal` or :func:`fair_bits` of L, for instance.
    """

    network: Callable[[Tensor], Tensor]
    likelihood: Likelihood
    latent_dim: int
    data_dim: int
    prior: Callable[[int], Density]

    def _output(self, z: Tensor) -> Tensor:
        output = self.network(z)
        expected = self.likelihood.outputs_per_number * self.data_dim
        checks.shape("network(z)", output, (*z.shape[:2], expected), like=z)
        return output

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """Log-likelihood of ``x (B, D)`` under ``z (S, B, L)``, ``(S, B)``, in nats."""
        checks.shape("x", x, ("B", self.data_dim))
        checks.shape("z", z, ("S", x.shape[0], self.latent_dim), like=x)
        return self.likelihood.log_prob(x, self._output(z))

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """One datum for each latent, ``(S, B, D)``."""
        checks.shape("z", z, ("S", "B", self.latent_dim))
        return self.likelihood.sample(self._output(z), generator=generator)

    def mean_x_given_z(self, z: Tensor) -> Tensor:
        """The expected datum for each latent, ``(S, B, D)``: the picture to show, in the units of the data."""
        checks.shape("z", z, ("S", "B", self.latent_dim))
        return self.likelihood.mean(self._output(z))


def standard_normal(
    latent_dim: int, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Callable[[int], DiagonalNormal]:
    """Return the prior N(0, I) of L numbers, as a function of the batch size."""

    def prior(batch_size: int) -> DiagonalNormal:
        zeros = torch.zeros(batch_size, latent_dim, dtype=dtype, device=device)
        return DiagonalNormal(zeros, zeros)

    return prior


def fair_bits(
    latent_dim: int, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Callable[[int], Bernoulli]:
    """Return the prior of L fair coins, as a function of the batch size."""

    def prior(batch_size: int) -> Bernoulli:
        return Bernoulli(torch.zeros(batch_size, latent_dim, dtype=dtype, device=device))

    return prior
