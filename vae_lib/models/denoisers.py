r"""Denoisers: what a diffusion model learns, a map from noisy data and their noise level to a guess of the data.

Each takes ``z_t (N, D)`` and log signal-to-noise ratios ``(N,)``. A guess of the noise or of
:math:`v = \alpha \epsilon - \sigma x` is one of the data, by :math:`z_t = \alpha x + \sigma \epsilon`; what a denoiser
puts out is said to the diffusion (``predicts``).
"""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Generator, Tensor, nn

from vae_lib import checks
from vae_lib.models.networks import Layer, mlp


class _Options(TypedDict):
    generator: Generator
    dtype: torch.dtype | None


class MLPDenoiser(nn.Module):
    """Linear layers with skip connections; each block sees the noise level.

    Parameters
    ----------
    data_dim
        D.
    hidden
        Units of each layer.
    blocks
        How many blocks of two layers.
    frequencies
        Of the sines and cosines of the log signal-to-noise ratio, angular, from 0.1 to 3 in equal ratios.
    generator
        The source of the weights; they lie on its device. The last layer begins at zero.
    dtype
        Of the weights; the default dtype if not given.
    """

    waves: Tensor

    def __init__(
        self,
        data_dim: int,
        *,
        hidden: int = 128,
        blocks: int = 2,
        frequencies: int = 8,
        generator: Generator,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("data_dim", data_dim), ("hidden", hidden), ("blocks", blocks)):
            checks.positive_int(name, value)
        checks.positive_int("frequencies", frequencies)
        waves = torch.logspace(-1.0, 0.5, frequencies, dtype=dtype, device=generator.device)
        self.register_buffer("waves", waves, persistent=False)
        seen, options = 2 * frequencies, _Options(generator=generator, dtype=dtype)
        self.first = mlp([data_dim + seen, hidden], **options)
        self.blocks = nn.ModuleList(
            mlp([hidden + seen, hidden, hidden], activation=nn.SiLU, **options) for _ in range(blocks)
        )
        self.last = mlp([hidden, data_dim], init=_zero, **options)

    def forward(self, z_t: Tensor, log_snr: Tensor) -> Tensor:
        """Return the prediction ``(N, D)`` for ``z_t (N, D)`` and log signal-to-noise ratios ``(N,)``."""
        phase = log_snr.unsqueeze(1) * self.waves
        level = torch.cat([torch.sin(phase), torch.cos(phase)], dim=1)
        hidden = self.first(torch.cat([z_t, level], dim=1))
        for block in self.blocks:
            hidden = hidden + block(torch.cat([hidden, level], dim=1))
        output: Tensor = self.last(nn.functional.silu(hidden))
        return output


class LinearDenoiser(nn.Module):
    r"""The best guess of normal data, :math:`\mathbb E[x \mid z_t]` for :math:`x \sim \mathcal N(m, S)`.

    .. math:: \hat x(z_t) = m + \alpha_t S (\alpha_t^2 S + \sigma_t^2 I)^{-1} (z_t - \alpha_t m)

    Parameters
    ----------
    mean, covariance
        ``(D,)`` and ``(D, D)``.

    Raises
    ------
    ValueError
        If the covariance is not symmetric and positive definite.
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        checks.shape("mean", mean, ("D",))
        checks.shape("covariance", covariance, (mean.shape[0], mean.shape[0]), like=mean)
        variances, axes = torch.linalg.eigh(covariance)
        if not torch.allclose(covariance, covariance.mT) or not bool((variances > 0.0).all()):
            raise ValueError("covariance: expected a symmetric positive definite matrix, found one that is not")
        for name, tensor in (("mean", mean), ("variances", variances), ("axes", axes)):
            self.register_buffer(name, tensor)

    def gain(self, log_snr: Tensor) -> Tensor:
        r"""Factors :math:`\alpha s_j / (\alpha^2 s_j + \sigma^2)` along the axes, ``(N, D)``, for ratios ``(N,)``."""
        alpha2, noise2 = torch.sigmoid(log_snr).unsqueeze(1), torch.sigmoid(-log_snr).unsqueeze(1)
        return alpha2.sqrt() * self.variances / (alpha2 * self.variances + noise2)

    def forward(self, z_t: Tensor, log_snr: Tensor) -> Tensor:
        """Return the guess of the data ``(N, D)`` for ``z_t (N, D)`` and log signal-to-noise ratios ``(N,)``."""
        centred = z_t - torch.sigmoid(log_snr).sqrt().unsqueeze(1) * self.mean
        return self.mean + (centred @ self.axes * self.gain(log_snr)) @ self.axes.mT


def _zero(layer: Layer, generator: Generator) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
