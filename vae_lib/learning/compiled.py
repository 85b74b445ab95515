"""The average of a bound, compiled: the same numbers from the same draws, with fewer and longer kernels.

The noise is drawn outside the compiled part, for a random generator in the middle would cut it in pieces. With the
noise in hand the bound is a deterministic function of data, noise and weights, as chapter 4 has it: one graph, which on
a GPU is captured and launched at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from vae_lib.densities import DiagonalNormal, FullNormal
from vae_lib.evaluation.passes import evaluating
from vae_lib.learning.average_bound import AverageBound


class CompiledBound:
    """Takes the place of an :class:`~vae_lib.learning.average_bound.AverageBound` in the trainer.

    Parameters
    ----------
    module
        What is compiled. It must be alone: gradients of several processes are not averaged.
    device
        Where it lies.

    Raises
    ------
    ValueError
        If several processes share the module.
    TypeError
        If its bound needs more than draws from q.
    """

    def __init__(self, module: AverageBound, device: torch.device) -> None:
        if module.world.size > 1:
            raise ValueError(f"compiled: expected one process, found {module.world.size}")
        self._module = module
        if not module.is_function_of_draws:
            raise TypeError("compiled: expected a bound that is a function of draws from q, found another objective")
        mode = "reduce-overhead" if device.type == "cuda" else "default"
        self._at: Callable[[Tensor, Tensor], Tensor] = torch.compile(module.at, mode=mode)
        self._like: DiagonalNormal | FullNormal | None = None

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """One number, in nats an image.

        Raises
        ------
        TypeError
            If q is not normal: only there the noise is known not to depend on the weights.
        """
        if self._like is None:
            with evaluating(self._module):  # one more pass, which no running statistic is to see
                q = self._module.posterior(x)
            if not isinstance(q, DiagonalNormal | FullNormal):
                raise TypeError(f"compiled: expected a normal q, found {type(q).__name__}")
            self._like = q
        return self._at(x, self._like.noise(self._module.num_samples, generator=generator))
