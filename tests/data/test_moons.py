"""Two moons: a density that integrates to one, draws that follow it, mean 0 and variance 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate
from torch import Tensor

from tests.oracles import assert_close, assert_mean
from vae_lib.data import two_moons, two_moons_log_density
from vae_lib.rng import make_generator


def test_density_against_adaptive_quadrature() -> None:
    """Along both arcs, with the scales by hand: Var cos = 1/2, Var sin = 1/2 - 4/π², arcs 1/2 and 1/4 off."""
    scale = (math.sqrt(0.76), math.sqrt(0.5 - 4.0 / math.pi**2 + (2.0 / math.pi - 0.25) ** 2 + 0.01))
    std = (0.1 / scale[0], 0.1 / scale[1])

    def density(theta: float, which: int, x: tuple[float, float]) -> float:
        sign = 1 - 2 * which
        arc = (sign * math.cos(theta) + which, sign * math.sin(theta) + 0.5 * which)
        z = [(x[i] - (arc[i] - (0.5, 0.25)[i]) / scale[i]) / std[i] for i in range(2)]
        return math.exp(-0.5 * (z[0] ** 2 + z[1] ** 2)) / (2.0 * math.pi * std[0] * std[1]) / (2.0 * math.pi)

    points = [(0.0, 0.0), (1.2, 0.4), (-1.0, 0.6), (-1.75, -0.4), (0.3, -1.4)]
    expected = [
        math.log(
            sum(
                integrate.quad(density, 0.0, math.pi, args=(which, x), epsabs=0.0, epsrel=1e-9, limit=400)[0]
                for which in (0, 1)
            )
        )
        for x in points
    ]
    found = two_moons_log_density(torch.tensor(points, dtype=torch.float64))
    # The midpoint rule is at its worst where an arc ends: (π/2000)² / 24 times the slope there, over the density.
    assert_close(found, expected, rtol=0.0, atol=1e-4)


def test_it_integrates_to_one_with_mean_zero_and_variance_one() -> None:
    line = torch.linspace(-4.0, 4.0, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    weights = torch.cat([two_moons_log_density(part) for part in grid.split(5000)]).exp() * 0.05**2
    assert_close(weights.sum(), 1.0, rtol=1e-6)
    assert_close(weights @ grid, [0.0, 0.0], rtol=0.0, atol=1e-6)
    assert_close(weights @ grid**2, [1.0, 1.0], rtol=1e-5)


def test_draws_follow_it() -> None:
    x = two_moons(20_000, generator=make_generator(1)).double()
    line = torch.linspace(-4.0, 4.0, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    log_p = torch.cat([two_moons_log_density(part) for part in grid.split(5000)])
    weights = log_p.exp() * 0.05**2
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda v: v[:, 0] * v[:, 1],
        lambda v: v[:, 0] ** 4,
        lambda v: (v[:, 1] > 0.525).double(),
    ]
    for function in functions:
        assert_mean(function(x), weights @ function(grid), ceiling=0.03)
    entropy = -(weights * log_p.clamp(min=-700.0)).sum()
    assert_mean(-torch.cat([two_moons_log_density(part) for part in x[:5000].split(1000)]), entropy, ceiling=0.02)


def test_types_and_refusals() -> None:
    assert two_moons(3, generator=make_generator(1)).dtype == torch.get_default_dtype()
    assert two_moons_log_density(torch.zeros(2, 2, dtype=torch.float32)).dtype == torch.float32
    assert torch.equal(two_moons(3, generator=make_generator(1)), two_moons(3, generator=make_generator(1)))
    with pytest.raises(ValueError, match="count: expected"):
        two_moons(0, generator=make_generator(1))
    with pytest.raises(ValueError, match="x: expected shape"):
        two_moons_log_density(torch.zeros(2, 3))
