r"""Diffusion of normal data: the best denoiser is linear, and every number of the model is known.

.. math:: x \sim \mathcal N(m, S): \qquad \mathbb E_{q(z_t \mid x)} |x - \hat x(z_t)|^2
          = \sum_j \frac{d_j^2 + \mathrm{SNR}(t)\, s_j^2}{(1 + \mathrm{SNR}(t)\, s_j)^2}

with the eigenvalues :math:`s_j` of S and the coordinates :math:`d_j` of :math:`x - m` along its axes. Averaged over the
data the numerator is :math:`s_j (1 + \mathrm{SNR}(t)\, s_j)`. As the steps grow many, the sum over them becomes an
integral, which the ELBO falls short of by a term in 1/T. Chapter 9.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.densities import LOG_2PI
from vae_lib.models.denoisers import LinearDenoiser
from vae_lib.models.diffusion import DiffusionTerms, GaussianDiffusion
from vae_lib.models.diffusion_schedule import NoiseSchedule
from vae_lib.models.linear_chain import LinearGaussianChain, LinearLink


class NormalDataDiffusion(GaussianDiffusion):
    """A diffusion model of normal data with the best denoiser.

    Parameters
    ----------
    mean, covariance
        Of the data, ``(D,)`` and ``(D, D)``.
    schedule
        The steps.

    Raises
    ------
    ValueError
        If the covariance is not symmetric and positive definite.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: NoiseSchedule) -> None:
        denoiser = LinearDenoiser(mean, covariance)
        super().__init__(denoiser, schedule, data_dim=mean.shape[0], predicts="x")
        self.best = denoiser

    def log_p_data(self, x: Tensor) -> Tensor:
        """Log-density of the data's own distribution at ``x (B, D)``, ``(B,)``, in nats."""
        coordinates = self._coordinates(x)
        half_log_det = 0.5 * self.best.variances.log().sum()
        return -0.5 * (coordinates**2 / self.best.variances + LOG_2PI).sum(-1) - half_log_det

    def entropy(self) -> Tensor:
        """Entropy of the data's own distribution, a number, in nats."""
        return 0.5 * (self.best.variances.log() + LOG_2PI + 1.0).sum()

    def exact_terms(self, x: Tensor) -> DiffusionTerms:
        """The parts of the ELBO of ``x (B, D)`` without sampling: expectations, with S = 1."""
        return self._terms(self._coordinates(x) ** 2, self.prior_kl(x))

    def mean_terms(self) -> DiffusionTerms:
        """The same, averaged over the data's own distribution, with S = B = 1."""
        last, variances = self.schedule.log_snr[-1], self.best.variances
        squares = torch.sigmoid(last) * (variances.sum() + (self.best.mean**2).sum())
        noise = torch.sigmoid(-last) - 1.0 - torch.nn.functional.logsigmoid(-last)
        return self._terms(variances.unsqueeze(0), 0.5 * (squares + self.data_dim * noise).reshape(1))

    def _coordinates(self, x: Tensor) -> Tensor:
        checks.shape("x", x, ("B", self.data_dim), like=self.best.mean)
        return (x - self.best.mean) @ self.best.axes

    def _terms(self, squares: Tensor, prior_kl: Tensor) -> DiffusionTerms:
        """Parts of the ELBO of data whose squared coordinates are ``(B, D)``."""
        snr, variances = self.schedule.snr.reshape(-1, 1, 1), self.best.variances
        error = ((squares + snr * variances**2) / (1.0 + snr * variances) ** 2).sum(-1, keepdim=True).mT  # (T, 1, B)
        first = self.schedule.log_snr[0]
        reconstruction = -0.5 * (self.data_dim * (LOG_2PI - first) + torch.exp(first) * error[0])
        steps = torch.arange(2, self.num_steps + 1, device=snr.device)
        weights = self.schedule.step_weight(steps) if len(steps) else snr.new_zeros(0)
        return DiffusionTerms(reconstruction, weights.reshape(-1, 1, 1) * error[1:], prior_kl)

    def as_linear_chain(self) -> LinearGaussianChain:
        """The same model as a chain of linear links, whose log p(x) and posterior are known."""
        eye = torch.eye(self.data_dim, dtype=self.best.mean.dtype, device=self.best.mean.device)
        zeros = torch.zeros_like(self.best.mean)

        def linear(t: int) -> LinearLink:
            # A linear map is known by what it does to zero and to the unit vectors.
            density = self.reverse(torch.cat([zeros.unsqueeze(0), eye]), t)
            return LinearLink((density.mu[1:] - density.mu[0]).mT, density.mu[0], density.logvar[0])

        guess = self.predict_x(torch.cat([zeros.unsqueeze(0), eye]), 1)
        observation = LinearLink((guess[1:] - guess[0]).mT, guess[0], (zeros - self.schedule.log_snr[0]))
        return LinearGaussianChain([linear(t) for t in range(self.num_steps, 1, -1)], observation)
