"""A model written against protocols.py alone, whose posterior has two modes and whose evidence is known."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

DOUBLE = torch.float64


class Clusters:
    """Mixtures of two normals in L = 2 dimensions, one for each datum, with one covariance for both."""

    event_dim = 2

    def __init__(self, log_share: Tensor, means: Tensor, covariance: Tensor) -> None:
        """Take log-shares ``(B, 2)``, means ``(B, 2, L)`` and a covariance ``(L, L)``."""
        self.log_share, self.means, self.covariance = log_share, means, covariance
        self.batch_size = means.shape[0]
        self.precision = torch.linalg.inv(covariance)
        self.constant = 2.0 * math.log(2.0 * math.pi) + torch.logdet(covariance)

    def log_prob(self, value: Tensor) -> Tensor:
        deviation = value.unsqueeze(2) - self.means  # (S, B, 2, L)
        distance = (deviation @ self.precision * deviation).sum(-1)
        return torch.logsumexp(self.log_share - 0.5 * (distance + self.constant), -1)

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        second = torch.rand(num_samples, self.batch_size, 1, generator=generator, dtype=DOUBLE)
        chosen = torch.where(second < self.log_share[:, 1:].exp(), self.means[:, 1], self.means[:, 0])
        noise = torch.randn(chosen.shape, generator=generator, dtype=DOUBLE)
        return chosen + noise @ torch.linalg.cholesky(self.covariance).mT


class TwoClusters:
    """z from two clusters around (+-2, 0), x | z ~ N(W z, 0.49 I), D = 3; W hardly sees the first latent."""

    data_dim, latent_dim = 3, 2
    centres = torch.tensor([[2.0, 0.0], [-2.0, 0.0]], dtype=DOUBLE)
    spread, noise = 0.25, 0.49
    weight = torch.tensor([[0.05, 1.0], [-0.04, 0.5], [0.0, -1.0]], dtype=DOUBLE)

    def prior(self, batch_size: int) -> Clusters:
        shares = torch.full((batch_size, 2), math.log(0.5), dtype=DOUBLE)
        return Clusters(shares, self.centres.expand(batch_size, 2, 2), self.spread * torch.eye(2, dtype=DOUBLE))

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        squares = ((x - z @ self.weight.mT) ** 2).sum(-1)
        return -0.5 * squares / self.noise - 1.5 * math.log(2.0 * math.pi * self.noise)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        mean = z @ self.weight.mT
        return mean + self.noise**0.5 * torch.randn(mean.shape, generator=generator, dtype=DOUBLE)

    def _log_p_x_and_cluster(self, x: Tensor) -> Tensor:
        """log p(x, cluster), ``(B, 2)``: normal with covariance W W' s + noise."""
        eye = torch.eye(3, dtype=DOUBLE)
        covariance = self.spread * self.weight @ self.weight.mT + self.noise * eye
        normal = torch.distributions.MultivariateNormal(self.centres @ self.weight.mT, covariance)
        return normal.log_prob(x.unsqueeze(1)) + math.log(0.5)

    def log_p_x(self, x: Tensor) -> Tensor:
        return torch.logsumexp(self._log_p_x_and_cluster(x), 1)

    def posterior(self, x: Tensor) -> Clusters:
        precision = torch.eye(2, dtype=DOUBLE) / self.spread + self.weight.mT @ self.weight / self.noise
        covariance = torch.linalg.inv(precision)
        pull = (x @ self.weight / self.noise).unsqueeze(1) + self.centres / self.spread  # (B, 2, L)
        return Clusters(torch.log_softmax(self._log_p_x_and_cluster(x), 1), pull @ covariance, covariance)
