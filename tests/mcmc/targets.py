"""Densities with known moments, and chains on them: the last draw of each of many chains, so draws are independent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tests.oracles import model_case, randn
from vae_lib.bounds import log_joint
from vae_lib.densities import FullNormal
from vae_lib.mcmc import hmc
from vae_lib.rng import make_generator

DOUBLE = torch.float64


def two_normals() -> FullNormal:
    """Two correlated normals in three dimensions, B = 2; standard deviations from 0.5 to 1.3."""
    tril = 0.4 * randn(2, 3, 3, seed=11).tril(-1) + torch.diag_embed(
        0.5 + 0.5 * torch.rand(2, 3, generator=make_generator(12), dtype=DOUBLE)
    )
    return FullNormal(2.0 * randn(2, 3, seed=13), tril)


def log_posterior(name: str, dtype: torch.dtype = DOUBLE) -> Callable[[Tensor], Tensor]:
    """The unnormalised posterior of a model case, as a function of z alone."""
    model, x, _ = model_case(name, dtype)
    return lambda z: log_joint(model, x, z)


def settled(
    log_density: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    step_size: float | Tensor,
    transitions: int = 40,
    seed: int = 1,
) -> Tensor:
    """Where the chains are after so many transitions, ``(S, B, L)``."""
    return hmc(
        log_density,
        start,
        step_size=step_size,
        num_leapfrog=5,
        num_transitions=transitions,
        jitter=0.2,
        generator=make_generator(seed),
    ).z


def products(z: Tensor) -> Tensor:
    """Every z_i and every z_i z_j of draws ``(S, B, L)``: ``(S, B, L + L²)``."""
    return torch.cat([z, (z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(2)], -1)
