"""The sampled KL meets the closed form within its own error bar, and works where there is none."""

from __future__ import annotations

import pytest
import torch

from tests.divergences.test_closed_forms import PAIRS
from tests.oracles import DENSITIES, B, L, assert_close, assert_mean, randn
from vae_lib.densities import Bernoulli, DiagonalNormal, Gamma, StudentT
from vae_lib.divergences import kl, monte_carlo_kl
from vae_lib.estimate import mean_with_error
from vae_lib.rng import make_generator


@pytest.mark.equation("eq-kl")
@pytest.mark.parametrize("name", PAIRS)
def test_sampling_meets_the_closed_form(name: str) -> None:
    pair = PAIRS[name]
    p, q = DENSITIES[pair.p].density(), DENSITIES[pair.q].ours(*pair.q_parameters)
    estimate = monte_carlo_kl(p, q, num_samples=20_000, generator=make_generator(1))
    exact = kl(p, q)
    assert estimate.value.shape == estimate.standard_error.shape == (B,)
    assert bool((estimate.standard_error > 0.0).all())
    # The spread of log p - log q is of the size of the divergence: 3 % of 1 nat plus the divergence.
    assert bool((estimate.standard_error <= 0.03 * (1.0 + exact)).all())
    assert bool(((estimate.value - exact).abs() <= 5.0 * estimate.standard_error).all())


def test_it_is_the_mean_of_the_log_ratio_over_draws_of_p() -> None:
    p, q = DENSITIES["DiagonalNormal"].density(), DENSITIES["StudentT"].density()
    z = p.sample(50, generator=make_generator(2))
    expected = mean_with_error(p.log_prob(z) - q.log_prob(z))
    found = monte_carlo_kl(p, q, num_samples=50, generator=make_generator(2))
    assert_close(found.value, expected.value)
    assert_close(found.standard_error, expected.standard_error)


def test_a_pair_without_a_closed_form() -> None:
    """KL(normal || t) by quadrature: the trapezoid rule on ±12 standard deviations is exact to rounding."""
    v = torch.linspace(-12.0, 12.0, 2001, dtype=torch.float64)[:, None, None]
    zero = torch.zeros(1, 1, dtype=torch.float64)
    p, q = DiagonalNormal(zero, zero), StudentT(zero + 1.0, zero, zero + 3.0)
    log_p = p.log_prob(v)
    exact = (log_p.exp() * (log_p - q.log_prob(v))).sum(0) * 24.0 / 2000.0
    estimate = monte_carlo_kl(p, q, num_samples=20_000, generator=make_generator(3))
    assert float(estimate.standard_error) < 0.006
    assert bool(((estimate.value - exact).abs() <= 5.0 * estimate.standard_error).all())


def test_values_outside_the_support_of_q_are_not_hidden() -> None:
    zero = torch.zeros(1, 1, dtype=torch.float64)
    gamma = Gamma(zero + 2.0, zero + 1.0)
    with torch.no_grad():
        estimate = monte_carlo_kl(DiagonalNormal(zero, zero), gamma, num_samples=100, generator=make_generator(4))
    assert not bool(torch.isfinite(estimate.value).all())


def test_other_sizes_and_too_few_samples_are_refused() -> None:
    p = DENSITIES["DiagonalNormal"].density()
    with pytest.raises(ValueError, match=rf"^q: expected \(B, L\) = \({B}, {L}\) as p has, found \(1, {L}\)$"):
        monte_carlo_kl(p, DiagonalNormal(randn(1, L), randn(1, L)), num_samples=10, generator=make_generator(0))
    with pytest.raises(ValueError, match=r"^samples: expected at least 2 along axis 0, found 1$"):
        monte_carlo_kl(p, p, num_samples=1, generator=make_generator(0))
    with pytest.raises(ValueError, match=r"^num_samples: expected a positive integer, found 0$"):
        monte_carlo_kl(p, p, num_samples=0, generator=make_generator(0))


def test_gradients_flow_through_a_reparameterised_p_and_through_no_other() -> None:
    """With one datum copied for each draw, the average gradient is that of the closed form."""
    count = 20_000
    mu, logvar = (p[:1].repeat(count, 1).requires_grad_() for p in DENSITIES["DiagonalNormal"].parameters)
    q_mu, q_logvar = (p[:1] for p in PAIRS["DiagonalNormal-DiagonalNormal"].q_parameters)
    q = DiagonalNormal(q_mu.repeat(count, 1), q_logvar.repeat(count, 1))
    estimate = monte_carlo_kl(DiagonalNormal(mu, logvar), q, num_samples=2, generator=make_generator(5))
    leaves = [p[:1].clone().requires_grad_() for p in DENSITIES["DiagonalNormal"].parameters]
    exact = torch.autograd.grad(kl(DiagonalNormal(*leaves), DiagonalNormal(q_mu, q_logvar)).sum(), leaves)
    for gradient, expected in zip(torch.autograd.grad(estimate.value.sum(), (mu, logvar)), exact, strict=True):
        scale = float(gradient.std())
        assert_mean(gradient / scale, expected[0] / scale, ceiling=2.0 / count**0.5)
    # Fixed draws would give numbers that look like a gradient and are not one.
    logits = torch.zeros(B, L, dtype=torch.float64, requires_grad=True)
    of_bits = monte_carlo_kl(Bernoulli(logits), Bernoulli(logits + 1.0), num_samples=9, generator=make_generator(6))
    assert not of_bits.value.requires_grad


class CarelessDensity(DiagonalNormal):
    """It breaks its promise: one number for each sample instead of one for each sample and datum."""

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return super().log_prob(value).mean(1)


def test_what_the_densities_return_is_checked() -> None:
    p, careless = (kind(*DENSITIES["DiagonalNormal"].parameters) for kind in (DiagonalNormal, CarelessDensity))
    with pytest.raises(ValueError, match=rf"^q\.log_prob\(z\): expected shape \(4, {B}\), found \(4,\)$"):
        monte_carlo_kl(p, careless, num_samples=4, generator=make_generator(0))
    with pytest.raises(ValueError, match=rf"^p\.log_prob\(z\): expected shape \(4, {B}\), found \(4,\)$"):
        monte_carlo_kl(careless, p, num_samples=4, generator=make_generator(0))
