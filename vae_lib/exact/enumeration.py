"""Exact sums over a latent that takes finitely many values."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.bounds import log_joint
from vae_lib.densities import Categorical, FiniteDensity
from vae_lib.protocols import Density, EnumerableModel


def log_joint_table(model: EnumerableModel, x: Tensor) -> Tensor:
    """log p(x, z) for every value of z, ``(K, B)``, in nats, in the order of ``model.latent_support()``."""
    return log_joint(model, x, _every_latent(model, x))


def log_evidence(model: EnumerableModel, x: Tensor) -> Tensor:
    r""":math:`\log p(x) = \log \sum_z p(x, z)`, ``(B,)``, in nats."""
    return torch.logsumexp(log_joint_table(model, x), dim=0)


def posterior(model: EnumerableModel, x: Tensor) -> FiniteDensity:
    """p(z | x) on the model's support."""
    return FiniteDensity(log_joint_table(model, x).mT, model.latent_support())


def categorical_posterior(model: EnumerableModel, x: Tensor) -> Categorical:
    """p(z | x) as a category, for a model whose latent is one number (L = 1) that runs through 0 ... K - 1.

    Raises
    ------
    ValueError
        If the latent is longer; :func:`posterior` takes any.
    """
    if model.latent_dim != 1:
        raise ValueError(f"model: expected one latent number, found {model.latent_dim}")
    return Categorical(log_joint_table(model, x).mT.unsqueeze(1))


def exact_elbo(model: EnumerableModel, x: Tensor, q: Density) -> Tensor:
    r""":math:`\sum_z q(z)\,(\log p(x, z) - \log q(z))`, ``(B,)``, in nats, for any q on the support."""
    log_q = q.log_prob(_every_latent(model, x))
    probs = log_q.exp()
    log_w = torch.where(probs > 0.0, log_joint_table(model, x) - log_q, 0.0)
    return (probs * log_w).sum(0)


def exact_kl_to_posterior(model: EnumerableModel, x: Tensor, q: Density) -> Tensor:
    r""":math:`\sum_z q(z)\,(\log q(z) - \log p(z \mid x))`, ``(B,)``, in nats, for any q on the support."""
    every = _every_latent(model, x)
    log_q = q.log_prob(every)
    probs = log_q.exp()
    log_ratio = torch.where(probs > 0.0, log_q - torch.log_softmax(log_joint_table(model, x), dim=0), 0.0)
    return (probs * log_ratio).sum(0)


def _every_latent(model: EnumerableModel, x: Tensor) -> Tensor:
    support = model.latent_support()
    checks.shape("x", x, ("B", model.data_dim), like=support)
    return support.unsqueeze(1).expand(support.shape[0], x.shape[0], support.shape[1])
