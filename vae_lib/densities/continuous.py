"""Densities of continuous vectors: normal, heavy-tailed, positive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.densities.batch import Batch
from vae_lib.densities.equations import LOG_2PI, log_gamma, log_normal, log_student_t


@dataclass(frozen=True, eq=False)
class DiagonalNormal(Batch):
    """Normal densities with independent coordinates.

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

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``value (S, B, L)``, ``(S, B)``, in nats: a sum over the coordinates."""
        self._check_value(value)
        return log_normal(value, self.mu, self.logvar).sum(-1)

    def rsample(self, num_samples: int, *, generator: Generator) -> Tensor:
        r"""Draws :math:`\mu + \sigma \epsilon`, ``(S, B, L)``, differentiable in the parameters."""
        return self.mu + self.std * self._standard_normal(num_samples, generator)

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, L)`` that carry no gradient."""
        return self.rsample(num_samples, generator=generator).detach()


@dataclass(frozen=True, eq=False)
class FullNormal(Batch):
    r"""Normal densities with a full covariance :math:`\Sigma = T T^\top`.

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

    def rsample(self, num_samples: int, *, generator: Generator) -> Tensor:
        r"""Draws :math:`\mu + T \epsilon`, ``(S, B, L)``, differentiable in the parameters."""
        noise = self._standard_normal(num_samples, generator)
        return self.mu + torch.einsum("blm,sbm->sbl", self.scale_tril, noise)

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, L)`` that carry no gradient."""
        return self.rsample(num_samples, generator=generator).detach()


@dataclass(frozen=True, eq=False)
class StudentT(Batch):
    """Independent coordinates with heavy tails; the density that importance sampling likes as a proposal.

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

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``value (S, B, L)``, ``(S, B)``, in nats."""
        self._check_value(value)
        return log_student_t(value, self.mu, self.log_scale, self.df).sum(-1)

    def rsample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, L)``: a normal over the root of an independent chi-square divided by ``df``."""
        normal = self._standard_normal(num_samples, generator)
        half_chi2 = torch._standard_gamma(self._expand(0.5 * self.df, num_samples), generator=generator)
        return self.mu + torch.exp(self.log_scale) * normal * torch.rsqrt(half_chi2 / (0.5 * self.df))

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, L)`` that carry no gradient."""
        return self.rsample(num_samples, generator=generator).detach()


@dataclass(frozen=True, eq=False)
class Gamma(Batch):
    """Independent positive numbers.

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

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of positive ``value (S, B, L)``, ``(S, B)``, in nats."""
        self._check_value(value)
        return log_gamma(value, self.concentration, self.rate).sum(-1)

    def rsample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, L)`` with implicit gradients to both parameters (chapter 4)."""
        standard = torch._standard_gamma(self._expand(self.concentration, num_samples), generator=generator)
        return standard / self.rate

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, L)`` that carry no gradient."""
        return self.rsample(num_samples, generator=generator).detach()
