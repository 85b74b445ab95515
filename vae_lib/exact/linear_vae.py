r"""The linear VAE, solved: which latents close, what the others cost, and where its optimum lies on Shannon's curve.

A decoder that is a matrix, normal pixels of one variance :math:`\sigma^2`, a linear encoder, and the objective

.. math:: \mathcal L_\beta = \mathbb E_{q(z \mid x)}[\log \mathcal N(x; W z + b, \sigma^2 I)]
          - \beta\, D_{\mathrm{KL}}(q(z \mid x) \,\|\, p(z))

averaged over data. Where its maximum lies depends on the data through their mean and covariance alone, whose
eigenvalues are :math:`\lambda_1 \ge \lambda_2 \ge \dots`, and on :math:`\sigma^2` and :math:`\beta` through
:math:`\tau = \beta \sigma^2` alone. A latent whose eigenvalue is at most :math:`\tau` closes: its weight is zero
and its q is the prior. Every other leaves an error of :math:`\tau` in its direction, and costs
:math:`\tfrac12 \log(\lambda_j / \tau)` nats. With latents enough that is reverse water-filling.

Tipping and Bishop (1999) and Lucas, Tucker, Grosse and Norouzi (2019). Two words are kept apart:
``distortion`` is :math:`-\mathbb E \log p(x \mid z)` in nats, and ``squared_error`` is
:math:`\mathbb E \lVert x - W z - b \rVert^2` in the squared unit of the data, what Shannon calls distortion. Chapter 7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.densities import LOG_2PI, DiagonalNormal
from vae_lib.exact.linear_gaussian import LinearGaussian


class WaterFilling(NamedTuple):
    """A point on Shannon's curve: the rate in nats, and the squared error summed over the D numbers of a datum."""

    rate: Tensor
    squared_error: Tensor


class LinearVAEOptimum(NamedTuple):
    r"""What the best linear VAE does. Latents are in the order of falling eigenvalues; averages are over the data.

    - ``is_active``, ``(L,)``: whether :math:`\lambda_j > \tau`.
    - ``weight_norms``, ``(L,)``: lengths of the columns of W, :math:`\sqrt{\lambda_j - \tau}`, or 0.
    - ``kl``, ``(L,)``: what each latent costs, :math:`\tfrac12 \log(\lambda_j / \tau)`, or 0, in nats.
    - ``rate``: their sum, the average KL.
    - ``squared_error``: :math:`\mathbb E \lVert x - W z - b \rVert^2`.
    - ``distortion``: :math:`-\mathbb E \log p(x \mid z)`, in nats.
    - ``elbo``: minus distortion minus rate. What was climbed is minus distortion minus :math:`\beta` times rate.
    """

    is_active: Tensor
    weight_norms: Tensor
    kl: Tensor
    rate: Tensor
    squared_error: Tensor
    distortion: Tensor
    elbo: Tensor


@dataclass(frozen=True, eq=False)
class LinearEncoder:
    """A normal q with independent coordinates, whose mean is linear in x and whose variance is the same for all x.

    Parameters
    ----------
    weight
        ``(L, D)``.
    bias, logvar
        ``(L,)`` each.
    """

    weight: Tensor
    bias: Tensor
    logvar: Tensor

    def __post_init__(self) -> None:
        checks.shape("weight", self.weight, ("L", "D"))
        for name, tensor in (("bias", self.bias), ("logvar", self.logvar)):
            checks.shape(name, tensor, (self.weight.shape[0],), like=self.weight)

    def __call__(self, x: Tensor) -> DiagonalNormal:
        """The density q(z | x) for each of the B data in ``x (B, D)``."""
        checks.shape("x", x, ("B", self.weight.shape[1]), like=self.weight)
        mu = x @ self.weight.mT + self.bias
        return DiagonalNormal(mu, self.logvar.expand_as(mu))


class LinearVAE(NamedTuple):
    """A model and its encoder."""

    model: LinearGaussian
    encoder: LinearEncoder


def water_filling(eigenvalues: Tensor, level: float | Tensor) -> WaterFilling:
    r"""Shannon's rate-distortion curve of a normal source, at given water levels.

    .. math:: R(\tau) = \sum_{\lambda_j > \tau} \tfrac12 \log \frac{\lambda_j}{\tau}, \qquad
              D(\tau) = \sum_j \min(\lambda_j, \tau)

    Cover and Thomas, *Elements of Information Theory*, second edition, theorem 10.3.3. No code of a normal source with
    these eigenvalues has a lower rate at the squared error D. The slope of the curve is
    :math:`\mathrm dR / \mathrm dD = -1 / 2\tau`. Of all sources with one covariance the normal is the hardest: the
    curve of another lies on this one or below.

    Parameters
    ----------
    eigenvalues
        Of the covariance of the source, ``(D,)``, in any order.
    level
        :math:`\tau`, positive, of any shape.

    Returns
    -------
    WaterFilling
        Rate and squared error, each of the shape of the level.

    Raises
    ------
    ValueError
        If an eigenvalue is negative by more than rounding, or a level is not positive.
    """
    eigenvalues = _falling(eigenvalues)
    level = torch.as_tensor(level, dtype=eigenvalues.dtype, device=eigenvalues.device)
    if not bool(((level > 0.0) & (level < math.inf)).all()):
        raise ValueError("level: expected positive finite numbers, found others")
    level = level.unsqueeze(-1)
    rate = 0.5 * (torch.maximum(eigenvalues, level).log() - level.log()).sum(-1)
    return WaterFilling(rate, torch.minimum(eigenvalues, level).sum(-1))


def linear_vae_optimum(
    eigenvalues: Tensor, latent_dim: int, *, logvar: float | Tensor, beta: float = 1.0
) -> LinearVAEOptimum:
    r"""The maximum of :math:`\mathcal L_\beta` over W, b and all linear encoders, from eigenvalues alone.

    Parameters
    ----------
    eigenvalues
        Of the covariance of the data (divided by N), ``(D,)``, in any order.
    latent_dim
        L, from 1 to D.
    logvar
        :math:`\log \sigma^2`, a number.
    beta
        Weight of the KL, positive.

    Returns
    -------
    LinearVAEOptimum
        With gradients to the eigenvalues and to ``logvar``, if it is a tensor.

    Raises
    ------
    ValueError
        If L or beta is out of range, or an eigenvalue is negative by more than rounding.
    """
    eigenvalues = _falling(eigenvalues)
    data_dim = eigenvalues.shape[0]
    logvar = torch.as_tensor(logvar, dtype=eigenvalues.dtype, device=eigenvalues.device)
    level = _level(logvar, beta)
    _check_latent_dim(latent_dim, data_dim)
    seen, unseen = eigenvalues[:latent_dim], eigenvalues[latent_dim:]
    is_active = seen > level
    # The root of the branch not taken is that of 1: at zero its gradient would be infinite.
    weight_norms = torch.where(is_active, torch.where(is_active, seen - level, 1.0).sqrt(), 0.0)
    kl = 0.5 * (torch.maximum(seen, level).log() - level.log())
    squared_error = torch.minimum(seen, level).sum() + unseen.sum()
    distortion = 0.5 * (data_dim * (LOG_2PI + logvar) + squared_error * torch.exp(-logvar))
    rate = kl.sum()
    return LinearVAEOptimum(is_active, weight_norms, kl, rate, squared_error, distortion, -distortion - rate)


def optimal_linear_vae(
    mean: Tensor, covariance: Tensor, latent_dim: int, *, logvar: float | Tensor, beta: float = 1.0
) -> LinearVAE:
    r"""The linear VAE at the maximum of :math:`\mathcal L_\beta`: its model, and its encoder.

    .. math:: W = U_L \bigl((\Lambda_L - \tau I)_+\bigr)^{1/2}, \qquad
              q(z_j \mid x) = \mathcal N\Bigl(\frac{w_j^\top (x - b)}{\max(\lambda_j, \tau)},\;
              \frac{\tau}{\max(\lambda_j, \tau)}\Bigr)

    The encoder is the posterior of the model with variance :math:`\tau = \beta \sigma^2`; of the model itself, whose
    variance is :math:`\sigma^2`, for :math:`\beta = 1` alone. Any rotation of z leaves the evidence as it is, but a q
    with independent coordinates is the posterior only where, as here, the columns of W are at right angles.

    Parameters
    ----------
    mean
        Of the data, ``(D,)``.
    covariance
        Of the data (divided by N), ``(D, D)``. Not checked: that it is symmetric.
    latent_dim
        L, from 1 to D.
    logvar
        :math:`\log \sigma^2`, a number.
    beta
        Weight of the KL, positive.

    Returns
    -------
    LinearVAE
        Latents in the order of falling eigenvalues. The sign of a column of W is arbitrary.

    Raises
    ------
    ValueError
        If a shape is not the promised one, L or beta is out of range, or an eigenvalue is negative by more than
        rounding.
    """
    checks.shape("mean", mean, ("D",))
    data_dim = mean.shape[0]
    checks.shape("covariance", covariance, (data_dim, data_dim), like=mean)
    checks.finite("covariance", covariance)
    logvar = torch.as_tensor(logvar, dtype=mean.dtype, device=mean.device)
    level = _level(logvar, beta)
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)  # ascending
    norms = linear_vae_optimum(eigenvalues, latent_dim, logvar=logvar, beta=beta).weight_norms
    weight = eigenvectors.flip(1)[:, :latent_dim] * norms
    total = norms.square() + level  # of an active latent its eigenvalue, of another the level
    rows = (weight / total).mT
    encoder = LinearEncoder(rows, -rows @ mean, level.log() - total.log())
    return LinearVAE(LinearGaussian(weight, mean, logvar.expand(data_dim).clone()), encoder)


def maximum_likelihood_variance(eigenvalues: Tensor, latent_dim: int) -> Tensor:
    r"""The variance :math:`\sigma^2` at which the optimum for :math:`\beta = 1` has the highest ELBO: a number, ``()``.

    .. math:: \sigma^2 = \frac{1}{D - L} \sum_{j > L} \lambda_j

    Tipping and Bishop (1999), equation 8. It is at most :math:`\lambda_L`, and below it unless
    :math:`\lambda_L, \dots, \lambda_D` are all the same: at the optimum of a learned variance no latent is closed
    (Lucas, Tucker, Grosse and Norouzi, 2019). It is 0 where L directions hold all the variance; then the ELBO has no
    maximum.

    Parameters
    ----------
    eigenvalues
        Of the covariance of the data (divided by N), ``(D,)``, in any order.
    latent_dim
        L, from 1 to D - 1.

    Raises
    ------
    ValueError
        If L is out of range, or an eigenvalue is negative by more than rounding.
    """
    eigenvalues = _falling(eigenvalues)
    _check_latent_dim(latent_dim, eigenvalues.shape[0] - 1)
    return eigenvalues[latent_dim:].mean()


def _falling(eigenvalues: Tensor) -> Tensor:
    """The eigenvalues from the largest down. Those that rounding has made negative are zero."""
    checks.shape("eigenvalues", eigenvalues, ("D",))
    checks.finite("eigenvalues", eigenvalues)
    falling = eigenvalues.sort(descending=True).values
    lowest, highest = float(falling[-1].detach()), float(falling[0].detach())
    # Rounding leaves some D eps of the largest; the root of eps is far above that, and far below any variance meant.
    if lowest < -(torch.finfo(falling.dtype).eps ** 0.5) * abs(highest):
        raise ValueError(f"eigenvalues: expected numbers of at least 0, found {lowest}")
    return falling.clamp(min=0.0)


def _level(logvar: Tensor, beta: float) -> Tensor:
    checks.shape("logvar", logvar, ())
    checks.finite("logvar", logvar)
    if not 0.0 < beta < math.inf:
        raise ValueError(f"beta: expected a positive number, found {beta!r}")
    return beta * torch.exp(logvar)


def _check_latent_dim(latent_dim: int, most: int) -> None:
    checks.positive_int("latent_dim", latent_dim)
    if latent_dim > most:
        raise ValueError(f"latent_dim: expected at most {most}, found {latent_dim}")
