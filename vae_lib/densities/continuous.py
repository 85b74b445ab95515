"""Densities of real vectors: normal and heavy-tailed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.densities.batch import Factorised, Reparameterised
from vae_lib.densities.equations import LOG_2PI, log_normal, log_student_t
from vae_lib.densities.implicit import implicit_gamma, standard_gamma


@dataclass(frozen=True, eq=False)
class DiagonalNormal(Factorised, Reparameterised):
    r"""Normal densities with independent coordinates. A draw is :math:`\mu + \sigma \epsilon`.

    Parameters
    ----------
    mu, logvar
        Means and log-variances, ``(B, L)``.
    """

    mu: Tensor
    logvar: Tensor

    def __post_init__(self) -> None:
        checks.shape("mu", self.mu, ("B", "L"))
        checks.shape("logvar", self.logvar, tuple(self.mu.shape), like=self.mu)

    @property
    def std(self) -> Tensor:
        """Standard deviations, ``(B, L)``."""
        return torch.exp(0.5 * self.logvar)

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Log-density of each coordinate of ``value (S, B, L)``, ``(S, B, L)``, in nats."""
        self._check_value(value)
        return log_normal(value, self.mu, self.logvar)

    def noise(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Standard normal numbers, ``(S, B, L)``."""
        return self._standard_normal(num_samples, generator)

    def from_noise(self, noise: Tensor) -> Tensor:
        r"""Draws :math:`\mu + \sigma \epsilon`, ``(S, B, L)``, differentiable in the parameters."""
        return self.mu + self.std * noise

    def mirror(self, noise: Tensor) -> Tensor:
        """The noise of the draws on the other side of the mean (antithetic pairs, chapter 3)."""
        return -noise


@dataclass(frozen=True, eq=False)
class FullNormal(Reparameterised):
    r"""Normal densities with a full covariance :math:`\Sigma = T T^\top`. A draw is :math:`\mu + T \epsilon`.

    Parameters
    ----------
    mu
        Means, ``(B, L)``.
    scale_tril
        Lower-triangular factors T with a positive diagonal, ``(B, L, L)``. Not checked: that the part above the
        diagonal is zero and the diagonal positive; :meth:`from_covariance` sees to both.
    """

    mu: Tensor
    scale_tril: Tensor

    def __post_init__(self) -> None:
        checks.shape("mu", self.mu, ("B", "L"))
        batch, dim = self.mu.shape
        checks.shape("scale_tril", self.scale_tril, (batch, dim, dim), like=self.mu)

    @classmethod
    def from_covariance(cls, mu: Tensor, covariance: Tensor) -> FullNormal:
        """Build from means ``(B, L)`` and covariances ``(B, L, L)``.

        Raises
        ------
        ValueError
            If a covariance is not symmetric and positive definite.
        """
        checks.shape("mu", mu, ("B", "L"))
        batch, dim = mu.shape
        checks.shape("covariance", covariance, (batch, dim, dim), like=mu)
        tril, info = torch.linalg.cholesky_ex(covariance)
        if bool((info != 0).any()) or not torch.allclose(covariance, covariance.mT):
            raise ValueError("covariance: expected symmetric positive definite matrices, found one that is not")
        return cls(mu, tril)

    @property
    def covariance(self) -> Tensor:
        """Covariances, ``(B, L, L)``."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def half_log_det(self) -> Tensor:
        r""":math:`\frac12 \log\det\Sigma`, ``(B,)``."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Log-density of ``value (S, B, L)``, ``(S, B)``, in nats.

        .. math:: -\tfrac12 \left( L \log 2\pi + \log\det\Sigma + (v-\mu)^\top \Sigma^{-1} (v-\mu) \right)
        """
        self._check_value(value)
        deviation = (value - self.mu).permute(1, 2, 0)  # (B, L, S): one triangular solve per datum
        whitened: Tensor = torch.linalg.solve_triangular(self.scale_tril, deviation, upper=False)
        mahalanobis = (whitened**2).sum(1).mT  # (S, B)
        return -0.5 * (self.event_dim * LOG_2PI + mahalanobis) - self.half_log_det

    def noise(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Standard normal numbers, ``(S, B, L)``."""
        return self._standard_normal(num_samples, generator)

    def from_noise(self, noise: Tensor) -> Tensor:
        r"""Draws :math:`\mu + T \epsilon`, ``(S, B, L)``, differentiable in the parameters."""
        return self.mu + torch.einsum("blm,sbm->sbl", self.scale_tril, noise)

    def mirror(self, noise: Tensor) -> Tensor:
        """The noise of the draws on the other side of the mean."""
        return -noise


@dataclass(frozen=True, eq=False)
class StudentT(Factorised, Reparameterised):
    """Independent coordinates with heavy tails; the density that importance sampling likes as a proposal.

    A draw is a normal number over the root of an independent chi-square divided by ``df``.

    Parameters
    ----------
    mu, log_scale, df
        Centres, log-scales and degrees of freedom, ``(B, L)``. The variance is finite for ``df > 2`` only.
        Not checked: ``df > 0``.
    """

    mu: Tensor
    log_scale: Tensor
    df: Tensor

    def __post_init__(self) -> None:
        checks.shape("mu", self.mu, ("B", "L"))
        checks.shape("log_scale", self.log_scale, tuple(self.mu.shape), like=self.mu)
        checks.shape("df", self.df, tuple(self.mu.shape), like=self.mu)

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Log-density of each coordinate of ``value (S, B, L)``, ``(S, B, L)``, in nats."""
        self._check_value(value)
        return log_student_t(value, self.mu, self.log_scale, self.df)

    def noise(self, num_samples: int, *, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Standard normal numbers, and Gamma numbers with their slopes, ``(S, B, L)`` each."""
        normal = self._standard_normal(num_samples, generator)
        return normal, *standard_gamma(self._expand(0.5 * self.df, num_samples), generator=generator)

    def from_noise(self, noise: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Draws ``(S, B, L)``, differentiable in the parameters; in ``df`` by the implicit function theorem."""
        normal, *gamma = noise
        half_chi2 = implicit_gamma(0.5 * self.df, gamma[0], gamma[1])
        return self.mu + torch.exp(self.log_scale) * normal * torch.rsqrt(half_chi2 / (0.5 * self.df))

    def mirror(self, noise: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The noise of the draws on the other side of the centre."""
        return -noise[0], noise[1], noise[2]
