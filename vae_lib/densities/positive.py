"""Densities whose draws have implicit gradients: positive numbers, and numbers between 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.densities.batch import Factorised, Reparameterised
from vae_lib.densities.equations import log_beta, log_gamma
from vae_lib.densities.implicit import implicit_gamma, standard_gamma


@dataclass(frozen=True, eq=False)
class Gamma(Factorised, Reparameterised):
    """Independent positive numbers. Draws have implicit gradients to both parameters (chapter 4).

    Parameters
    ----------
    concentration, rate
        Shape and inverse scale, ``(B, L)``. Not checked: that they are positive.
    """

    concentration: Tensor
    rate: Tensor

    def __post_init__(self) -> None:
        checks.shape("concentration", self.concentration, ("B", "L"))
        checks.shape("rate", self.rate, tuple(self.concentration.shape), like=self.concentration)

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Log-density of each coordinate of positive ``value (S, B, L)``, ``(S, B, L)``, in nats."""
        self._check_value(value)
        return log_gamma(value, self.concentration, self.rate)

    def noise(self, num_samples: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """Gamma numbers of rate 1 and their slopes in the concentration, ``(S, B, L)`` each."""
        return standard_gamma(self._expand(self.concentration, num_samples), generator=generator)

    def from_noise(self, noise: tuple[Tensor, Tensor]) -> Tensor:
        """Draws ``(S, B, L)``, differentiable at the parameters that made the noise."""
        return implicit_gamma(self.concentration, *noise) / self.rate


@dataclass(frozen=True, eq=False)
class Beta(Factorised, Reparameterised):
    """Independent numbers between 0 and 1: one Gamma number over the sum of two.

    Parameters
    ----------
    alpha, beta
        Both shapes, ``(B, L)``. Not checked: that they are positive.
    """

    alpha: Tensor
    beta: Tensor

    def __post_init__(self) -> None:
        checks.shape("alpha", self.alpha, ("B", "L"))
        checks.shape("beta", self.beta, tuple(self.alpha.shape), like=self.alpha)

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Log-density of each coordinate of ``value (S, B, L)``, ``(S, B, L)``, in nats."""
        self._check_value(value)
        return log_beta(value, self.alpha, self.beta)

    def noise(self, num_samples: int, *, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Two sets of Gamma numbers with their slopes, ``(S, B, L)`` each."""
        first = standard_gamma(self._expand(self.alpha, num_samples), generator=generator)
        return *first, *standard_gamma(self._expand(self.beta, num_samples), generator=generator)

    def from_noise(self, noise: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Draws ``(S, B, L)``, differentiable at the parameters that made the noise."""
        first = implicit_gamma(self.alpha, noise[0], noise[1])
        return first / (first + implicit_gamma(self.beta, noise[2], noise[3]))
