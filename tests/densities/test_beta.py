"""The Beta density: value and gradient against torch and scipy, mass, draws, divergence, extremes, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributions as td

from tests.oracles import B, L, S, assert_close, assert_mean, assert_same_value_and_gradient, randn
from vae_lib.densities import Beta, Gamma, log_beta
from vae_lib.divergences import has_closed_form, kl, monte_carlo_kl
from vae_lib.rng import make_generator

DOUBLE = torch.float64
N = 12
INSIDE, A1, B1 = torch.sigmoid(randn(N, seed=191)), randn(N, seed=192).exp(), randn(N, seed=193).exp()
ALPHA, BETA = 0.4 + randn(B, L, seed=194).exp(), 0.4 + randn(B, L, seed=195).exp()
OTHER = 0.4 + randn(B, L, seed=196).exp(), 0.4 + randn(B, L, seed=197).exp()


def test_value_and_gradient_are_torchs() -> None:
    assert_same_value_and_gradient(log_beta, lambda v, a, b: td.Beta(a, b).log_prob(v), (INSIDE, A1, B1))


def test_values_are_scipys() -> None:
    expected = scipy.stats.beta.logpdf(INSIDE.numpy(), A1.numpy(), B1.numpy())
    assert_close(log_beta(INSIDE, A1, B1), expected)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 5.0), (1.3, 1.0), (30.0, 40.0)])
def test_the_mass_is_one(a: float, b: float) -> None:
    def density(v: float) -> float:
        value = torch.tensor(v, dtype=DOUBLE)
        return float(log_beta(value, torch.tensor(a, dtype=DOUBLE), torch.tensor(b, dtype=DOUBLE)).exp())

    mass, _ = scipy.integrate.quad(density, 0.0, 1.0, epsabs=1e-12, epsrel=1e-12)
    assert mass == pytest.approx(1.0, rel=1e-9)


def test_the_ends_of_the_interval() -> None:
    """At 0 and 1 as the exponents say; minus infinity outside."""
    ends = torch.tensor([0.0, 1.0, -0.1, 1.1, -math.inf, math.inf], dtype=DOUBLE)

    def at(a: float, b: float) -> list[float]:
        found: list[float] = log_beta(ends, torch.tensor(a, dtype=DOUBLE), torch.tensor(b, dtype=DOUBLE)).tolist()
        return found

    inf = math.inf
    assert at(1.0, 1.0) == [0.0, 0.0, -inf, -inf, -inf, -inf]
    assert at(2.0, 3.0) == [-inf] * 6
    assert at(0.5, 0.5)[:2] == [inf, inf]
    assert at(0.5, 0.5)[2:] == [-inf] * 4
    assert at(1.0, 2.0)[:2] == [pytest.approx(math.log(2.0)), -inf]


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.floats(1e-12, 1.0 - 1e-12))
def test_extreme_shapes_are_scipys(a: float, b: float, v: float) -> None:
    value, alpha, beta = (torch.tensor(t, dtype=DOUBLE) for t in (v, a, b))
    found = float(log_beta(value, alpha, beta))
    assert math.isfinite(found)
    # log Gamma of 2e6 is about 3e7, right to some roundings; scipy's has errors of its own of that size.
    assert found == pytest.approx(float(scipy.stats.beta.logpdf(v, a, b)), rel=1e-10, abs=1e-7)


def test_the_class_sums_over_coordinates() -> None:
    density = Beta(ALPHA, BETA)
    value = torch.sigmoid(randn(S, B, L, seed=198))
    oracle = td.Beta(ALPHA, BETA)
    assert (density.batch_size, density.event_dim) == (B, L)
    assert_close(density.log_prob_terms(value), oracle.log_prob(value))
    assert_close(density.log_prob(value), oracle.log_prob(value).sum(-1))
    assert_same_value_and_gradient(
        lambda a, b: Beta(a, b).log_prob(value), lambda a, b: td.Beta(a, b).log_prob(value).sum(-1), (ALPHA, BETA)
    )


def test_draws_follow_the_distribution() -> None:
    density = Beta(ALPHA, BETA)
    draws = density.sample(20_000, generator=make_generator(1))
    oracle = td.Beta(ALPHA, BETA)
    assert_mean(draws, oracle.mean, ceiling=0.003)
    assert_mean((draws - oracle.mean) ** 2, oracle.variance, ceiling=0.003)
    for b in range(B):
        for i in range(L):
            frozen = scipy.stats.beta(float(ALPHA[b, i]), float(BETA[b, i]))
            assert scipy.stats.kstest(draws[:, b, i].numpy(), frozen.cdf).pvalue > 1e-4
    correlation = np.corrcoef(draws.flatten(1).numpy().T) - np.eye(B * L)
    assert float(np.abs(correlation).max()) < 5.0 / 20_000**0.5


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize(("a", "b"), [(0.05, 0.05), (1e-2, 5.0), (1e4, 1e4), (1e6, 1.0)])
def test_extreme_draws_stay_in_the_interval(dtype: torch.dtype, a: float, b: float) -> None:
    alpha, beta = torch.full((1, 1), a, dtype=dtype), torch.full((1, 1), b, dtype=dtype)
    leaves = [alpha.requires_grad_(), beta.requires_grad_()]
    draws = Beta(*leaves).rsample(1000, generator=make_generator(2))
    assert bool(((draws >= 0.0) & (draws <= 1.0)).all())
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(draws.sum(), leaves))


def test_the_divergence_is_torchs() -> None:
    def oracle(*parameters: torch.Tensor) -> torch.Tensor:
        p, q = td.Beta(*parameters[:2]), td.Beta(*parameters[2:])
        return td.kl_divergence(p, q).sum(-1)

    assert_same_value_and_gradient(lambda a, b, c, d: kl(Beta(a, b), Beta(c, d)), oracle, (ALPHA, BETA, *OTHER))


def test_the_divergence_by_quadrature() -> None:
    """With v = s(t) the integrand falls off like e^(-0.4 |t|), and the trapezoid rule converges exponentially."""
    t = np.linspace(-150.0, 150.0, 6001)[:, None, None]
    log_v, log_rest = scipy.special.log_expit(t), scipy.special.log_expit(-t)

    def log_density(alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:  # of t, so that dv/dt = v (1 - v) is in it
        return alpha * log_v + beta * log_rest - scipy.special.betaln(alpha, beta)

    log_p = log_density(ALPHA.numpy(), BETA.numpy())
    log_q = log_density(OTHER[0].numpy(), OTHER[1].numpy())
    expected = (np.exp(log_p) * (log_p - log_q)).sum((0, 2)) * 300.0 / 6000.0
    assert_close(kl(Beta(ALPHA, BETA), Beta(*OTHER)), expected)


def test_the_divergence_is_positive_and_zero_only_at_itself() -> None:
    p, q = Beta(ALPHA, BETA), Beta(*OTHER)
    assert has_closed_form(p, q)
    assert not has_closed_form(p, Gamma(ALPHA, BETA))
    assert bool((kl(p, q) > 0.0).all())
    assert_close(kl(p, p), torch.zeros(B, dtype=DOUBLE))
    estimate = monte_carlo_kl(p, q, num_samples=20_000, generator=make_generator(3))
    assert float(estimate.standard_error.max()) < 0.05
    assert bool(((estimate.value - kl(p, q)).abs() <= 5.0 * estimate.standard_error).all())


def test_shapes_and_types_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^alpha: expected shape \(B, L\), found \(3,\)$"):
        Beta(torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match=r"^beta: expected shape \(3, 2\), found \(1, 2\)$"):
        Beta(torch.ones(3, 2), torch.ones(1, 2))
    with pytest.raises(TypeError, match=r"^beta: expected torch\.float32 as the tensors it meets have, found"):
        Beta(torch.ones(3, 2), torch.ones(3, 2, dtype=DOUBLE))
    for shape in ((3, 2), (4, 3, 1), (4, 1, 2)):
        with pytest.raises(ValueError, match=r"^value: expected shape \(S, 3, 2\), found"):
            Beta(torch.ones(3, 2), torch.ones(3, 2)).log_prob(torch.full(shape, 0.5))
