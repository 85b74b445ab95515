"""Each log-density: value and gradient against torch.distributions, value against scipy, total mass, extreme values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as td

from tests.oracles import assert_close, assert_same_value_and_gradient, randn
from vae_lib.densities import (
    LOG_2PI,
    log_bernoulli,
    log_binomial,
    log_categorical,
    log_gamma,
    log_normal,
    log_poisson,
    log_student_t,
)

N = 12
REAL, OTHER, SPREAD = 2.0 * randn(N, seed=1), randn(N, seed=2), randn(N, seed=3)
POSITIVE, SHAPE, RATE = randn(N, seed=4).exp(), 0.3 + randn(N, seed=5).exp(), randn(N, seed=6).exp()
BITS = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(N // 2)
COUNTS = torch.arange(N, dtype=torch.float64)

# name: ours, the oracle in torch, the arguments
AGAINST_TORCH: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "normal": (log_normal, lambda v, m, lv: td.Normal(m, torch.exp(lv / 2)).log_prob(v), (REAL, OTHER, SPREAD)),
    "student_t": (
        log_student_t,
        lambda v, m, ls, df: td.StudentT(df, m, torch.exp(ls)).log_prob(v),
        (REAL, OTHER, SPREAD, SHAPE),
    ),
    "gamma": (log_gamma, lambda v, a, b: td.Gamma(a, b).log_prob(v), (POSITIVE, SHAPE, RATE)),
    "bernoulli": (
        lambda a: log_bernoulli(BITS, a),
        lambda a: td.Bernoulli(logits=a).log_prob(BITS),
        (REAL,),
    ),
    "binomial": (
        lambda a: log_binomial(COUNTS, a, 16),
        lambda a: td.Binomial(16, logits=a).log_prob(COUNTS),
        (REAL,),
    ),
    "poisson": (
        lambda r: log_poisson(COUNTS, r),
        lambda r: td.Poisson(r).log_prob(COUNTS),
        (RATE,),
    ),
    "categorical": (
        lambda a: log_categorical(COUNTS % 5, a),
        lambda a: td.Categorical(logits=a).log_prob(COUNTS % 5),
        (2.0 * randn(N, 5, seed=7),),
    ),
}


@pytest.mark.parametrize("name", AGAINST_TORCH)
def test_value_and_gradient_are_torchs(name: str) -> None:
    assert_same_value_and_gradient(*AGAINST_TORCH[name])


def test_values_are_scipys() -> None:
    v, m, lv, a, b = REAL.numpy(), OTHER.numpy(), SPREAD.numpy(), SHAPE.numpy(), RATE.numpy()
    bits, counts, probs = BITS.numpy(), COUNTS.numpy(), 1.0 / (1.0 + np.exp(-REAL.numpy()))
    stats: Any = scipy.stats
    assert_close(log_normal(REAL, OTHER, SPREAD), stats.norm.logpdf(v, m, np.exp(lv / 2)))
    assert_close(log_student_t(REAL, OTHER, SPREAD, SHAPE), stats.t.logpdf(v, a, m, np.exp(lv)))
    assert_close(log_gamma(POSITIVE, SHAPE, RATE), stats.gamma.logpdf(POSITIVE.numpy(), a, scale=1.0 / b))
    assert_close(log_bernoulli(BITS, REAL), stats.bernoulli.logpmf(bits, probs))
    assert_close(log_binomial(COUNTS, REAL, 16), stats.binom.logpmf(counts, 16, probs))
    assert_close(log_poisson(COUNTS, RATE), stats.poisson.logpmf(counts, b))
    assert math.log(2.0 * math.pi) == LOG_2PI


def t(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("log_density", "lower"),
    [
        (lambda v: log_normal(v, t(0.7), t(-1.3)), -math.inf),
        (lambda v: log_student_t(v, t(0.7), t(-0.4), t(3.5)), -math.inf),
        (lambda v: log_gamma(v, t(2.5), t(1.7)), 0.0),
    ],
    ids=["normal", "student_t", "gamma"],
)
def test_a_density_integrates_to_one(log_density: Callable[[Tensor], Tensor], lower: float) -> None:
    mass, _ = scipy.integrate.quad(lambda v: math.exp(float(log_density(t(v)))), lower, math.inf, epsabs=1e-12)
    assert mass == pytest.approx(1.0, abs=1e-9)  # a thousand times the tolerance asked of quad


@pytest.mark.parametrize(
    ("log_mass", "count"),
    [
        (lambda v: log_bernoulli(v, t(0.8)), 2),
        (lambda v: log_binomial(v, t(-0.6), 16), 17),
        (lambda v: log_poisson(v, t(3.7)), 80),  # the tail beyond is below 1e-70
        (lambda v: log_categorical(v, randn(5, seed=8)), 5),
    ],
    ids=["bernoulli", "binomial", "poisson", "categorical"],
)
def test_a_mass_function_sums_to_one(log_mass: Callable[[Tensor], Tensor], count: int) -> None:
    total = log_mass(torch.arange(count, dtype=torch.float64)).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-12)


def test_a_binomial_of_one_trial_is_a_bernoulli() -> None:
    assert_close(log_binomial(BITS, REAL, 1), log_bernoulli(BITS, REAL))


def test_arguments_broadcast() -> None:
    value = torch.tensor([0.0, 3.0, 1.0], dtype=torch.float64)
    logits = randn(6, 3, 4, seed=9)
    assert_close(log_categorical(value, logits), td.Categorical(logits=logits).log_prob(value))
    many = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    assert_close(log_categorical(many, logits[0, :2]), td.Categorical(logits=logits[0, :2]).log_prob(many))
    assert log_normal(value, randn(6, 1, seed=1), t(0.0)).shape == (6, 3)


# Hand-written formulas below, because an oracle that clamps would be the wrong one at the edge.


@given(st.floats(-80, 80), st.floats(-50, 50))
def test_normal_at_extreme_log_variances(logvar: float, deviation: float) -> None:
    m, lv = t(0.0).requires_grad_(), t(logvar).requires_grad_()
    value = log_normal(t(deviation), m, lv)
    grad_m, grad_lv = torch.autograd.grad(value, (m, lv))
    square = deviation**2 * math.exp(-logvar)
    assert_close(value.detach(), -0.5 * (math.log(2 * math.pi) + logvar + square), atol=1e-11)
    assert_close(grad_m, deviation * math.exp(-logvar))
    assert_close(grad_lv, 0.5 * square - 0.5)


@given(st.floats(-1e4, 1e4), st.sampled_from([0.0, 1.0]))
def test_bernoulli_at_extreme_logits(logit: float, bit: float) -> None:
    a = t(logit).requires_grad_()
    value = log_bernoulli(t(bit), a)
    (grad,) = torch.autograd.grad(value, a)
    signed = logit if bit else -logit
    # log s(a) = min(a, 0) - log(1 + exp(-|a|)), relatively exact in both tails
    assert_close(value.detach(), min(signed, 0.0) - math.log1p(math.exp(-abs(signed))), atol=0.0)
    sign = 1.0 if bit else -1.0
    tail = math.exp(min(-signed, 0.0)) / (1.0 + math.exp(-abs(signed)))  # s(-signed), without cancellation
    assert_close(grad, sign * tail, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("logit", [-1e4, -80.0, 0.0, 80.0, 1e4])
def test_logits_of_any_size_give_finite_values_and_gradients(logit: float, dtype: torch.dtype) -> None:
    for function in (
        lambda a: log_bernoulli(torch.tensor([0.0, 1.0], dtype=dtype), a),
        lambda a: log_binomial(torch.tensor([0.0, 16.0], dtype=dtype), a, 16),
        lambda a: log_categorical(torch.tensor([0.0, 1.0], dtype=dtype), torch.stack([a, -a, torch.zeros_like(a)], -1)),
    ):
        a = torch.full((2,), logit, dtype=dtype, requires_grad=True)
        value = function(a)
        (grad,) = torch.autograd.grad(value.sum(), a)
        assert value.dtype == dtype
        assert bool(torch.isfinite(value).all())
        assert bool(torch.isfinite(grad).all())
        assert bool((value <= 0.0).all())


@pytest.mark.parametrize("log_scale", [-40.0, 40.0])
def test_student_t_at_extreme_scales(log_scale: float) -> None:
    # log_scale ±40 is logvar ±80. Far out, log(1 + y²/ν) = 2 log|y| - log ν to rounding; far in, it is y²/ν.
    df, value, y = 4.0, 3.0, 3.0 * math.exp(-log_scale)
    ls = t(log_scale).requires_grad_()
    found = log_student_t(t(value), t(0.0), ls, t(df))
    (grad,) = torch.autograd.grad(found, ls)
    tail = 2.0 * math.log(y) - math.log(df) if log_scale < 0 else y**2 / df
    normaliser = math.lgamma(2.5) - math.lgamma(2.0) - 0.5 * math.log(4.0 * math.pi) - log_scale
    assert_close(found.detach(), normaliser - 2.5 * tail)
    assert_close(grad, df if log_scale < 0 else -1.0)


def test_large_counts_and_shapes_keep_their_digits() -> None:
    # The terms reach 1e6 and cancel to about 8: rounding leaves 1e6 * 2.2e-16 * a few = 1e-9.
    count = t(1e5)
    assert_close(log_poisson(count, count), scipy.stats.poisson.logpmf(1e5, 1e5), rtol=0.0, atol=2e-9)
    assert_close(log_gamma(count, count, t(1.0)), scipy.stats.gamma.logpdf(1e5, 1e5), rtol=0.0, atol=2e-9)


@pytest.mark.parametrize("name", ["normal", "student_t", "gamma"])  # the others: test_logits_of_any_size
def test_single_precision_stays_single(name: str) -> None:
    ours, _, arguments = AGAINST_TORCH[name]
    value = ours(*(argument.float() for argument in arguments))
    assert value.dtype == torch.float32
    # float32 rounds at 6e-8; the same hundred roundings as in RTOL, at terms of size up to 1e2
    torch.testing.assert_close(value, ours(*arguments).float(), rtol=1e-4, atol=1e-4)


def test_the_edge_of_the_support() -> None:
    """Below zero a Gamma density is zero; at zero it has its limit; a rate of zero gives no counts for certain."""
    inf = math.inf
    values = torch.tensor([-1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    shapes = torch.tensor([2.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    assert log_gamma(values, shapes, t(3.0)).tolist() == pytest.approx([-inf, -inf, math.log(3.0), inf])
    assert log_poisson(torch.tensor([0.0, 1.0], dtype=torch.float64), t(0.0)).tolist() == [0.0, -inf]
