"""Sums in place of draws: nodes and weights that turn an estimator's `at` into its exact mean and variance."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from tests.gradients.problem import DOUBLE


def hermite(count: int = 100) -> tuple[Tensor, Tensor]:
    """Nodes ``(N,)`` and weights of a standard normal number: exact for polynomials up to degree 2 N - 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.as_tensor(nodes), torch.as_tensor(weights / weights.sum())


def one_each(nodes: Tensor) -> Tensor:
    """Nodes ``(N,)`` as N estimates of one draw of one number, ``(N, 1, 1, 1)``."""
    return nodes.reshape(-1, 1, 1, 1)


def mean_and_variance(gradients: dict[str, Tensor], weights: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each parameter's estimates ``(N, ...)``."""
    found = {}
    for name, values in gradients.items():
        mean = torch.einsum("n,n...->...", weights, values)
        found[name] = mean, torch.einsum("n,n...->...", weights, (values - mean) ** 2)
    return found


def tuples(values: Tensor, probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Every way to draw `count` samples of one datum's value.

    Values ``(K, L)`` with probabilities ``(K,)`` become z ``(K^count, count, 1, L)`` with probabilities.
    """
    chosen = torch.tensor(list(itertools.product(range(len(values)), repeat=count)))
    return values[chosen].unsqueeze(2), probs[chosen].prod(-1)


def scalar(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=DOUBLE)
