r"""E- and M-steps of the linear-Gaussian model (probabilistic PCA and factor analysis). Chapter 2.

The posterior of every datum has the same precision :math:`\Lambda = I + W^\top \Psi^{-1} W`. The best q of a
restricted family has the posterior's mean; only its covariance is another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.densities import DiagonalNormal, FullNormal
from vae_lib.exact import LinearGaussian
from vae_lib.protocols import Density


def mean_field(model: LinearGaussian, x: Tensor) -> DiagonalNormal:
    r"""Return the best q with independent coordinates.

    Its variances are :math:`1 / \Lambda_{ll}`, smaller than those of the posterior, :math:`(\Lambda^{-1})_{ll}`.
    The bound it leaves open is :math:`\tfrac12 (\sum_l \log \Lambda_{ll} - \log\det\Lambda)` nats for each datum.
    """
    posterior = model.posterior(x)
    return DiagonalNormal(posterior.mu, -_precision(posterior).diagonal(dim1=-2, dim2=-1).log())


def isotropic(model: LinearGaussian, x: Tensor) -> DiagonalNormal:
    r"""Return the best q with one variance for all coordinates: :math:`L / \operatorname{tr} \Lambda`."""
    posterior = model.posterior(x)
    mean_precision = _precision(posterior).diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    return DiagonalNormal(posterior.mu, -mean_precision.log().expand_as(posterior.mu))


def m_step(x: Tensor, q: Density, *, equal_noise: bool = True) -> LinearGaussian:
    r"""Return the best linear-Gaussian model for a given normal q.

    .. math:: [W \; b] = \Big( \sum_n x_n \, \mathbb E[\tilde z_n]^\top \Big)
                         \Big( \sum_n \mathbb E[\tilde z_n \tilde z_n^\top] \Big)^{-1}, \quad
              \psi_d = \frac1N \sum_n \mathbb E\big[ (x_{nd} - w_d^\top z_n - b_d)^2 \big]

    with :math:`\tilde z = (z, 1)` and averages over q: least squares on moments.

    Parameters
    ----------
    x
        Data, ``(N, D)``.
    q
        A ``DiagonalNormal`` or ``FullNormal`` for each datum.
    equal_noise
        One noise variance for all pixels (probabilistic PCA), or one for each (factor analysis).

    Raises
    ------
    TypeError
        If q is another density.
    """
    checks.shape("x", x, ("N", "D"))
    if isinstance(q, DiagonalNormal):
        covariance = torch.diag_embed(torch.exp(q.logvar)).mean(0)
    elif isinstance(q, FullNormal):
        covariance = q.covariance.mean(0)
    else:
        raise TypeError(f"q: expected DiagonalNormal or FullNormal, found {type(q).__name__}")
    count, latents = x.shape[0], q.event_dim
    mean = torch.cat([q.mu, q.mu.new_ones(count, 1)], dim=1)  # (N, L + 1)
    second = mean.mT @ mean / count
    second[:latents, :latents] += covariance
    weight_and_bias = torch.linalg.solve(second, mean.mT @ x / count).mT  # (D, L + 1)
    weight, bias = weight_and_bias[:, :latents], weight_and_bias[:, latents]
    variance = ((x - mean @ weight_and_bias.mT) ** 2).mean(0) + ((weight @ covariance) * weight).sum(-1)
    if equal_noise:
        variance = variance.mean().expand_as(variance)
    return LinearGaussian(weight, bias, variance.log())


def factor_analysis_m_step(x: Tensor, q: Density) -> LinearGaussian:
    """Return the best model with a noise variance of its own for each pixel."""
    return m_step(x, q, equal_noise=False)


def _precision(posterior: FullNormal) -> Tensor:
    return torch.cholesky_inverse(posterior.scale_tril)
