"""For the tests of codes and factors: information by adaptive quadrature, and what no function of them takes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from scipy import integrate
from torch import Tensor


def mixture(z: float, mu: Any, std: Any) -> float:
    return float(np.mean(np.exp(-0.5 * ((z - mu) / std) ** 2) / (std * math.sqrt(2.0 * math.pi))))


def pieces(mu: Any, std: Any) -> list[tuple[float, float]]:
    """Intervals that end where a component may have an end, for an adaptive rule that must not miss a peak."""
    ends = np.unique(np.concatenate([mu + c * std for c in (-9.0, -3.0, -1.0, 0.0, 1.0, 3.0, 9.0)]))
    return list(itertools.pairwise(ends))


def by_adaptive_quadrature(mu: Tensor, std: Tensor, factor: Tensor) -> float:
    """The information of one latent and one factor: the differential entropy of z less that of z given v."""
    m, s, v = mu.numpy(), std.numpy(), factor.numpy()

    def entropy(mu: Any, std: Any) -> float:
        def integrand(z: float) -> float:
            p = mixture(z, mu, std)
            return -p * math.log(p) if p > 0.0 else 0.0

        return math.fsum(integrate.quad(integrand, *ends, epsabs=1e-12, epsrel=1e-10)[0] for ends in pieces(mu, std))

    return entropy(m, s) - sum(float(np.mean(v == value)) * entropy(m[v == value], s[v == value]) for value in set(v))


MU, STD, FACTORS = torch.zeros(3, 2), torch.ones(3, 2), torch.tensor([[0], [1], [2]])
MISTAKES = [
    ({"mu": [1.0]}, TypeError, "mu: expected a tensor, found list"),
    ({"mu": torch.zeros(3)}, ValueError, r"mu: expected shape \(N, L\), found \(3,\)"),
    ({"mu": torch.zeros(0, 2)}, ValueError, r"mu: expected shape \(N, L\), found \(0, 2\) \(an empty batch\)"),
    ({"std": torch.ones(3, 1)}, ValueError, r"std: expected shape \(3, 2\), found \(3, 1\)"),
    ({"std": STD.double()}, TypeError, "std: expected torch.float32 as the tensors it meets have, found torch.float64"),
    (
        {"mu": torch.full((3, 2), math.nan)},
        ValueError,
        r"mu: expected finite numbers, found 6 that are not, first nan at \(0, 0\)",
    ),
    (
        {"std": torch.full((3, 2), math.inf)},
        ValueError,
        r"std: expected finite numbers, found 6 that are not, first inf at \(0, 0\)",
    ),
    (
        {"std": torch.tensor([[1.0, 1.0], [1.0, -0.5], [1.0, 1.0]])},
        ValueError,
        r"std: expected no negative numbers, found -0\.5 at \(1, 1\)",
    ),
    ({"factors": FACTORS.double()}, TypeError, "factors: expected a tensor of torch.int64, found torch.float64"),
    ({"factors": [[1]]}, TypeError, "factors: expected a tensor of torch.int64, found list"),
    (
        {"factors": torch.tensor([0, 1, 2])},
        ValueError,
        r"factors: expected shape \(N, K\) with at least one of each, found \(3,\)",
    ),
    (
        {"factors": torch.zeros(3, 0, dtype=torch.int64)},
        ValueError,
        r"factors: expected shape \(N, K\) with at least one of each, found \(3, 0\)",
    ),
    ({"factors": FACTORS[:2]}, ValueError, "factors: expected 3 rows, as mu has, found 2"),
]
