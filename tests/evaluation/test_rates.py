"""How fast importance sampling comes near: its bias falls as 1 / K, its error as 1 / sqrt(K)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vae_lib.densities import DiagonalNormal
from vae_lib.estimate import mean_with_error
from vae_lib.evaluation import log_p_x
from vae_lib.exact import LinearGaussian
from vae_lib.rng import make_generator

DOUBLE = torch.float64
COUNTS = (8, 16, 32, 64)


def test_slopes_in_the_number_of_draws() -> None:
    """With r the mean weight over p(x), E[r] = 1 and Var[r] = s² / K, log r falls short by s² / 2K to first order.

    z ~ N(0, 1), x | z ~ N(z, 1), x = 1.5, and q has the posterior's mean and c² = 2 exp(0.6) times its variance: then
    s² = c² / sqrt(2 c² - 1) - 1 = 0.454 exactly. The bias is read off log r - (r - 1), whose mean is that of log r and
    whose noise is small. Of the next order, which is 1 / K², there is some per cent at K = 8.
    """
    one = torch.ones(1, dtype=DOUBLE)
    model = LinearGaussian(one[:, None], 0.0 * one, 0.0 * one)
    x = torch.full((20_000, 1), 1.5, dtype=DOUBLE)

    def wide(x: Tensor) -> DiagonalNormal:
        return DiagonalNormal(0.5 * x, torch.full_like(x, 0.6))

    square = 2.0 * math.exp(0.6)
    variance = square / math.sqrt(2.0 * square - 1.0) - 1.0
    biases, spreads, errors = [], [], []
    for count in COUNTS:
        result = log_p_x(model, wide, x, num_samples=count, generator=make_generator(count), rows=100_000)
        log_r = result.value - model.log_p_x(x[:1])
        bias = mean_with_error(torch.expm1(log_r) - log_r)
        assert float(bias.standard_error) < 0.02 * float(bias.value)
        assert float(bias.value) == pytest.approx(variance / (2.0 * count), rel=0.1)
        biases.append(float(bias.value))
        spreads.append(float(log_r.std()))
        errors.append(float(result.standard_error.square().mean().sqrt()))
        # Over 20,000 repeats a spread is known to half a per cent.
        assert spreads[-1] == pytest.approx(math.sqrt(variance / count), rel=0.1)
    for values, slope in ((biases, -1.0), (spreads, -0.5), (errors, -0.5)):
        assert np.polyfit(np.log(COUNTS), np.log(values), 1)[0] == pytest.approx(slope, abs=0.05)
