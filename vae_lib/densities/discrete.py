"""Mass functions of discrete vectors: bits, counts, categories, and any finite set of vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.densities.batch import Batch, Factorised
from vae_lib.densities.equations import log_bernoulli, log_binomial, log_categorical


@dataclass(frozen=True, eq=False)
class Bernoulli(Factorised):
    """Independent bits.

    Parameters
    ----------
    logits
        Log-odds of a one, ``(B, L)``.
    """

    logits: Tensor

    def __post_init__(self) -> None:
        checks.shape("logits", self.logits, ("B", "L"))

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Log-probability of each bit of ``value (S, B, L)``, ``(S, B, L)``, in nats."""
        self._check_value(value)
        return log_bernoulli(value, self.logits)

    def noise(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Uniform numbers in [0, 1), ``(S, B, L)``."""
        like = self._expand(self.logits, num_samples)
        return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)

    def from_noise(self, noise: Tensor) -> Tensor:
        """Bits ``(S, B, L)``: one where the noise is below its probability. A step, so no gradient passes."""
        return (noise < torch.sigmoid(self.logits).detach()).to(noise.dtype)

    def mirror(self, noise: Tensor) -> Tensor:
        """The noise of bits that are as unlike as their probabilities allow (antithetic pairs, chapter 3)."""
        return 1.0 - noise

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Bits ``(S, B, L)`` as 0.0 and 1.0."""
        return self.from_noise(self.noise(num_samples, generator=generator))


@dataclass(frozen=True, eq=False)
class Binomial(Factorised):
    """Independent counts out of ``total_count``, as the 0 to 16 grey levels of the small digits are.

    Parameters
    ----------
    logits
        Log-odds of one success, ``(B, L)``.
    total_count
        The number of trials, the same for all.
    """

    logits: Tensor
    total_count: int

    def __post_init__(self) -> None:
        checks.shape("logits", self.logits, ("B", "L"))
        checks.positive_int("total_count", self.total_count)

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Log-probability of each count of ``value (S, B, L)``, ``(S, B, L)``, in nats."""
        self._check_value(value)
        return log_binomial(value, self.logits, self.total_count)

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Counts ``(S, B, L)`` as 0.0 ... total_count."""
        probs = self._expand(torch.sigmoid(self.logits), num_samples).detach().contiguous()
        return torch.binomial(torch.full_like(probs, self.total_count), probs, generator=generator)


@dataclass(frozen=True, eq=False)
class Categorical(Factorised):
    """Independent categories, K of them for each coordinate.

    Parameters
    ----------
    logits
        Unnormalised log-probabilities, ``(B, L, K)``.
    """

    logits: Tensor

    def __post_init__(self) -> None:
        checks.shape("logits", self.logits, ("B", "L", "K"))

    @property
    def log_probs(self) -> Tensor:
        """Normalised log-probabilities, ``(B, L, K)``, in nats."""
        return torch.log_softmax(self.logits, dim=-1)

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Log-probability of each category of ``value (S, B, L)``, ``(S, B, L)``, in nats."""
        self._check_value(value)
        return log_categorical(value, self.logits)

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Categories ``(S, B, L)`` as 0.0 ... K - 1.0."""
        checks.positive_int("num_samples", num_samples)
        batch, dim, categories = self.logits.shape
        probs = self.log_probs.detach().exp().reshape(batch * dim, categories)
        index = torch.multinomial(probs, num_samples, replacement=True, generator=generator)
        return index.mT.reshape(num_samples, batch, dim).to(self.logits.dtype)


@dataclass(frozen=True, eq=False)
class FiniteDensity(Batch):
    """Any mass function on K given vectors, for instance a posterior whose coordinates depend on each other.

    Parameters
    ----------
    logits
        Unnormalised log-probabilities of the vectors, ``(B, K)``.
    support
        The vectors, all different, ``(K, L)``.
    """

    logits: Tensor
    support: Tensor

    def __post_init__(self) -> None:
        checks.shape("logits", self.logits, ("B", "K"))
        checks.shape("support", self.support, (self.logits.shape[1], "L"), like=self.logits)

    @property
    def event_dim(self) -> int:
        """L."""
        return self.support.shape[1]

    @property
    def log_probs(self) -> Tensor:
        """Normalised log-probabilities, ``(B, K)``, in nats."""
        return torch.log_softmax(self.logits, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of ``value (S, B, L)``, ``(S, B)``, in nats; minus infinity off the support."""
        self._check_value(value)
        matches = (value.unsqueeze(2) == self.support).all(-1)  # (S, B, K)
        return torch.where(matches, self.log_probs, -math.inf).amax(-1)

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Vectors of the support, ``(S, B, L)``."""
        checks.positive_int("num_samples", num_samples)
        probs = self.log_probs.detach().exp()
        return self.support[torch.multinomial(probs, num_samples, replacement=True, generator=generator).mT]
