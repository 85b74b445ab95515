"""Likelihood heads: how a network's output becomes log p(x | z), in nats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from vae_lib.densities import log_bernoulli, log_binomial, log_normal


class Likelihood(Protocol):
    """A density of data given a network's output for each latent."""

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood of ``x (B, D)`` under ``output (S, B, D)``, ``(S, B)``, in nats: summed over the pixels."""

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """One datum for each output, ``(S, B, D)``."""


@dataclass(frozen=True)
class BernoulliLikelihood:
    """Bits; the output is log-odds."""

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        return log_bernoulli(x, output).sum(-1)

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """Bits ``(S, B, D)``."""
        uniform = torch.rand(output.shape, generator=generator, dtype=output.dtype, device=output.device)
        return (uniform < torch.sigmoid(output)).to(output.dtype)


@dataclass(frozen=True)
class BinomialLikelihood:
    """Counts from 0 to ``total_count``, as the grey levels of the small digits are; the output is log-odds."""

    total_count: int

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        return log_binomial(x, output, self.total_count).sum(-1)

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """Counts ``(S, B, D)``."""
        probs = torch.sigmoid(output).detach().contiguous()
        return torch.binomial(torch.full_like(probs, self.total_count), probs, generator=generator)


@dataclass(frozen=True)
class NormalLikelihood:
    """Real numbers around the output, with one fixed log-variance."""

    logvar: float

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        return log_normal(x, output, torch.as_tensor(self.logvar, dtype=output.dtype, device=output.device)).sum(-1)

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """Real numbers ``(S, B, D)``."""
        noise = torch.randn(output.shape, generator=generator, dtype=output.dtype, device=output.device)
        scale = torch.exp(torch.as_tensor(0.5 * self.logvar, dtype=output.dtype, device=output.device))
        return output + scale * noise
