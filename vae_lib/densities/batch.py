"""What the batches of densities share: their sizes and the shape checks."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vae_lib import checks


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
