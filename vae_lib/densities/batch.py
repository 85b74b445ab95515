"""What the batches of densities share: sizes, shape checks, sums over coordinates, draws made of noise."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.protocols import Noise


class Batch:
    """B densities over vectors of length L, both sizes read off the first parameter, ``(B, L, ...)``."""

    @property
    def _first(self) -> Tensor:
        first: Tensor = next(iter(vars(self).values()))
        return first

    @property
    def batch_size(self) -> int:
        """B."""
        return self._first.shape[0]

    @property
    def event_dim(self) -> int:
        """L."""
        return self._first.shape[1]

    def _check_value(self, value: Tensor) -> None:
        checks.shape("value", value, ("S", self.batch_size, self.event_dim), like=self._first)

    def _expand(self, parameter: Tensor, num_samples: int) -> Tensor:
        """``num_samples`` views of a parameter, along a new first axis."""
        checks.positive_int("num_samples", num_samples)
        return parameter.expand(num_samples, *parameter.shape)

    def _standard_normal(self, num_samples: int, generator: Generator) -> Tensor:
        like = self._expand(self._first, num_samples)
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


class Factorised(Batch):
    """Densities whose coordinates are independent: the log-density is a sum with one term for each."""

    @abstractmethod
    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Log-density of each coordinate of ``value (S, B, L)``, ``(S, B, L)``, in nats."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``value (S, B, L)``, ``(S, B)``, in nats: the sum of the terms."""
        return self.log_prob_terms(value).sum(-1)


class Reparameterised(Batch):
    """Densities whose draws are differentiable functions of the parameters and of noise (chapter 4)."""

    @abstractmethod
    def noise(self, num_samples: int, *, generator: Generator) -> Noise:
        """Noise for S draws, first axis S; it carries no gradient."""

    @abstractmethod
    def from_noise(self, noise: Noise) -> Tensor:
        """The draws ``(S, B, L)`` that this noise makes, with gradients to the parameters."""

    def rsample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, L)``, differentiable in the parameters."""
        return self.from_noise(self.noise(num_samples, generator=generator))

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, L)`` that carry no gradient."""
        return self.rsample(num_samples, generator=generator).detach()
