r"""E- and M-steps of the Gaussian mixture. Chapter 2."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.densities import Categorical
from vae_lib.exact import GaussianMixture
from vae_lib.protocols import Density

# The log-odds of certainty: beyond it float64 probabilities are 1 and 0.
CERTAIN = 800.0


def hard(model: GaussianMixture, x: Tensor) -> Categorical:
    """Return the best q that is sure of one component for each datum: the likeliest one (as in k-means)."""
    log_joint = model.posterior(x).logits[:, 0]  # (N, K)
    chosen = log_joint.argmax(-1, keepdim=True) == torch.arange(log_joint.shape[1], device=x.device)
    return Categorical(torch.where(chosen, CERTAIN, 0.0).to(x.dtype).unsqueeze(1))


def m_step(x: Tensor, q: Density, *, equal_variance: bool = False) -> GaussianMixture:
    r"""Return the best mixture for given responsibilities :math:`r_{nk} = q(z_n = k)`.

    .. math:: \pi_k = \frac{R_k}{N}, \quad \mu_k = \frac{1}{R_k} \sum_n r_{nk} x_n, \quad
              \sigma_k^2 = \frac{1}{R_k} \sum_n r_{nk} (x_n - \mu_k)^2, \quad R_k = \sum_n r_{nk}

    Parameters
    ----------
    x
        Data, ``(N, D)``.
    q
        A ``Categorical`` with L = 1 for each datum.
    equal_variance
        One variance for all components and coordinates.

    Raises
    ------
    TypeError
        If q is another density.
    ValueError
        If a component has lost all its data, or sits on a single point so that its variance is zero.
    """
    checks.shape("x", x, ("N", "D"))
    if not isinstance(q, Categorical):
        raise TypeError(f"q: expected Categorical, found {type(q).__name__}")
    responsibility = q.log_probs.squeeze(1).exp()  # (N, K)
    mass = responsibility.sum(0)
    empty = (mass <= 0.0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"q: expected every component to have data, found none for {empty}")
    mu = (responsibility.mT @ x) / mass.unsqueeze(-1)
    squared = (x.unsqueeze(1) - mu) ** 2  # (N, K, D)
    variance = (responsibility.unsqueeze(-1) * squared).sum(0) / mass.unsqueeze(-1)
    if equal_variance:
        shared = (variance * mass.unsqueeze(-1)).sum() / (x.shape[0] * x.shape[1])
        variance = shared.expand_as(variance)
    if not bool((variance > 0.0).all()):
        raise ValueError("q: expected every component to have some spread, found one on a single point (variance 0)")
    return GaussianMixture(mass.log() - mass.sum().log(), mu, variance.log())
