r"""The linear-Gaussian model: a decoder that is a matrix, and everything about it in closed form.

.. math:: z \sim \mathcal N(0, I_L), \qquad x \mid z \sim \mathcal N(W z + b, \Psi), \; \Psi = \operatorname{diag} \psi

With :math:`\Psi = \sigma^2 I` it is probabilistic PCA (Tipping and Bishop, 1999), with unequal :math:`\psi` factor
analysis. Integrating z out leaves :math:`x \sim \mathcal N(b, W W^\top + \Psi)`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.densities import LOG_2PI, DiagonalNormal, FullNormal, log_normal
from vae_lib.divergences import kl


class LinearGaussian:
    """Linear decoder, normal prior, normal noise.

    Parameters
    ----------
    weight
        W, ``(D, L)``.
    bias
        b, ``(D,)``.
    logvar
        Log-variances of the noise, ``(D,)``.
    """

    def __init__(self, weight: Tensor, bias: Tensor, logvar: Tensor) -> None:
        checks.shape("weight", weight, ("D", "L"))
        checks.shape("bias", bias, (weight.shape[0],), like=weight)
        checks.shape("logvar", logvar, (weight.shape[0],), like=weight)
        for name, tensor in (("weight", weight), ("bias", bias), ("logvar", logvar)):
            checks.finite(name, tensor)
        self.weight, self.bias, self.logvar = weight, bias, logvar

    @classmethod
    def maximum_likelihood(cls, x: Tensor, latent_dim: int) -> LinearGaussian:
        r"""Probabilistic PCA fitted in closed form.

        .. math:: \sigma^2 = \frac{1}{D - L} \sum_{j > L} \lambda_j, \qquad
                  W = U_L (\Lambda_L - \sigma^2 I)^{1/2}

        with the eigenvalues :math:`\lambda_1 \ge \lambda_2 \ge \dots` and eigenvectors of the sample covariance
        (divided by N). Tipping and Bishop (1999), equations 7 and 8.

        Parameters
        ----------
        x
            Data, ``(N, D)``.
        latent_dim
            L, from 1 to D - 1.

        Raises
        ------
        ValueError
            If L is out of range, or the discarded directions have no variance left.
        """
        checks.shape("x", x, ("N", "D"))
        checks.finite("x", x)
        checks.positive_int("latent_dim", latent_dim)
        data_dim = x.shape[1]
        if latent_dim >= data_dim:
            raise ValueError(f"latent_dim: expected at most {data_dim - 1}, one below D, found {latent_dim}")
        bias = x.mean(0)
        centred = x - bias
        eigenvalues, eigenvectors = torch.linalg.eigh(centred.mT @ centred / x.shape[0])  # ascending
        noise_var = eigenvalues[: data_dim - latent_dim].mean()
        if float(noise_var.detach()) <= float(eigenvalues[-1].detach()) * torch.finfo(x.dtype).eps:
            raise ValueError(f"x: expected variance outside {latent_dim} dimensions, found none (rank too low)")
        kept = slice(data_dim - latent_dim, None)
        weight = eigenvectors[:, kept] * (eigenvalues[kept] - noise_var).clamp(min=0.0).sqrt()
        return cls(weight.flip(1), bias, noise_var.log().expand(data_dim).clone())

    @property
    def data_dim(self) -> int:
        """D."""
        return self.weight.shape[0]

    @property
    def latent_dim(self) -> int:
        """L."""
        return self.weight.shape[1]

    def prior(self, batch_size: int) -> DiagonalNormal:
        """N(0, I) for each datum."""
        zeros = self.weight.new_zeros(batch_size, self.latent_dim)
        return DiagonalNormal(zeros, zeros)

    def _mean_x(self, z: Tensor) -> Tensor:
        return z @ self.weight.mT + self.bias

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """log N(x; W z + b, diag(psi)), ``(S, B)``, in nats."""
        checks.shape("x", x, ("B", self.data_dim), like=self.weight)
        checks.shape("z", z, ("S", x.shape[0], self.latent_dim), like=self.weight)
        return log_normal(x, self._mean_x(z), self.logvar).sum(-1)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """W z + b plus noise, ``(S, B, D)``."""
        checks.shape("z", z, ("S", "B", self.latent_dim), like=self.weight)
        mean = self._mean_x(z)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + torch.exp(0.5 * self.logvar) * noise

    def _precision(self) -> tuple[Tensor, Tensor]:
        r"""Return :math:`W^\top \Psi^{-1}`, ``(L, D)``, and the posterior precision, ``(L, L)``."""
        projection = self.weight.mT * torch.exp(-self.logvar)
        eye = torch.eye(self.latent_dim, dtype=self.weight.dtype, device=self.weight.device)
        return projection, eye + projection @ self.weight

    def log_p_x(self, x: Tensor) -> Tensor:
        r"""log N(x; b, W Wᵀ + diag(psi)), ``(B,)``, in nats.

        By the matrix inversion lemma only an L by L matrix is factored.
        """
        checks.shape("x", x, ("B", self.data_dim), like=self.weight)
        projection, precision = self._precision()
        factor = torch.linalg.cholesky(precision)
        centred = x - self.bias
        explained: Tensor = torch.linalg.solve_triangular(factor, projection @ centred.mT, upper=False)  # (L, B)
        mahalanobis: Tensor = (centred**2 * torch.exp(-self.logvar)).sum(-1) - (explained**2).sum(0)
        log_det: Tensor = self.logvar.sum() + 2.0 * factor.diagonal().log().sum()
        return -0.5 * (self.data_dim * LOG_2PI + log_det + mahalanobis)

    def posterior(self, x: Tensor) -> FullNormal:
        r"""Normal with precision :math:`I + W^\top \Psi^{-1} W`, the same for all x, and a mean linear in x."""
        checks.shape("x", x, ("B", self.data_dim), like=self.weight)
        projection, precision = self._precision()
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        mu = (x - self.bias) @ projection.mT @ covariance
        tril = torch.linalg.cholesky(covariance)
        return FullNormal(mu, tril.expand(x.shape[0], *tril.shape))

    def elbo(self, x: Tensor, q: DiagonalNormal | FullNormal) -> Tensor:
        r"""The ELBO of a normal q without sampling, ``(B,)``, in nats.

        .. math:: \log \mathcal N(x; W\mu + b, \Psi) - \tfrac12 \operatorname{tr}(W^\top \Psi^{-1} W \Sigma)
                  - D_{\mathrm{KL}}(q \,\|\, p(z))
        """
        if isinstance(q, DiagonalNormal):
            covariance = torch.diag_embed(torch.exp(q.logvar))
        elif isinstance(q, FullNormal):
            covariance = q.covariance
        else:
            raise TypeError(f"q: expected DiagonalNormal or FullNormal, found {type(q).__name__}")
        projection, _ = self._precision()
        at_mean = self.log_p_x_given_z(x, q.mu.unsqueeze(0)).squeeze(0)
        spread = ((projection @ self.weight) * covariance).sum((-2, -1))
        return at_mean - 0.5 * spread - kl(q, self.prior(x.shape[0]))
