"""The nonlinear decoder against scipy's quadrature, and the rule that refuses to return a wrong digit."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

from tests.oracles import assert_close, assert_mean, curve, model_case, randn
from vae_lib.densities import DiagonalNormal, FullNormal, log_normal, log_student_t
from vae_lib.divergences import kl
from vae_lib.exact import LinearGaussian, NonlinearDecoder, QuadratureError
from vae_lib.exact.quadrature import Interval, expectation, log_integral, rule
from vae_lib.rng import make_generator

ZERO = torch.zeros((), dtype=torch.float64)
SHIFTS = torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64)
WIDE = Interval(-12.0, 12.0, 60)
BATCH = torch.tensor([0.0, 1e-8, 0.0], dtype=torch.float64)  # three data, of which only the second has a wrong mass


def joint_by_scipy(z: float, x: np.ndarray[Any, Any]) -> float:
    mean = np.array([math.sin(2.0 * z), 0.5 * z * z])
    return float(scipy.stats.norm.pdf(z) * np.prod(scipy.stats.norm.pdf(x, mean, math.exp(-0.5))))


@pytest.mark.equation("eq-evidence")
def test_the_evidence_by_scipys_quadrature() -> None:
    model, x, _ = model_case("NonlinearDecoder")
    found = model.log_p_x(x)
    for b in range(3):
        mass, _ = scipy.integrate.quad(joint_by_scipy, -9.0, 9.0, (x[b].numpy(),), epsabs=0.0, epsrel=1e-12, limit=400)
        assert float(found[b]) == pytest.approx(math.log(mass), rel=1e-10)


@pytest.mark.equation("eq-bayes")
def test_the_posterior_by_scipys_quadrature() -> None:
    model, x, _ = model_case("NonlinearDecoder")
    posterior = model.posterior(x)
    grid = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)
    found = posterior.log_prob(grid[:, None, None].expand(9, 3, 1))
    for b in range(3):
        mass, _ = scipy.integrate.quad(joint_by_scipy, -9.0, 9.0, (x[b].numpy(),), epsabs=0.0, epsrel=1e-12, limit=400)
        expected = [math.log(joint_by_scipy(float(z), x[b].numpy()) / mass) for z in grid]
        assert_close(found[:, b], expected)


def test_with_a_straight_curve_it_is_the_linear_model() -> None:
    weight, bias, x = randn(3, 1, seed=1), randn(3, seed=2), randn(2, 3, seed=3)
    logvar = torch.tensor(-0.4, dtype=torch.float64)
    curved = NonlinearDecoder(lambda z: z @ weight.T + bias, logvar, 3)
    straight = LinearGaussian(weight, bias, logvar.expand(3))
    q = DiagonalNormal(randn(2, 1, seed=4), randn(2, 1, seed=5) - 1.0)
    assert_close(curved.log_p_x(x), straight.log_p_x(x))
    assert_close(curved.elbo(x, q), straight.elbo(x, q))
    assert_close(curved.kl_to_posterior(x, q), kl(q, straight.posterior(x)))
    z = randn(5, 2, 1, seed=6)
    assert_close(curved.posterior(x).log_prob(z), straight.posterior(x).log_prob(z))


def test_the_gradient_of_the_evidence_flows_through_the_rule() -> None:
    weight, bias, x = randn(3, 1, seed=1), randn(3, seed=2), randn(2, 3, seed=3)
    leaves = [weight.requires_grad_(), bias.requires_grad_(), torch.tensor(-0.4).double().requires_grad_()]
    curved = NonlinearDecoder(lambda z: z @ leaves[0].T + leaves[1], leaves[2], 3)
    straight = LinearGaussian(leaves[0], leaves[1], leaves[2].expand(3))
    for one, two in zip(
        torch.autograd.grad(curved.log_p_x(x).sum(), leaves),
        torch.autograd.grad(straight.log_p_x(x).sum(), leaves),
        strict=True,
    ):
        assert_close(one, two)


def test_the_grid_travels_with_a_normal_q() -> None:
    """However narrow, wide or far out q is: against the linear model, and by the fixed grid where that one reaches."""
    weight, bias, x = randn(3, 1, seed=1), randn(3, seed=2), randn(4, 3, seed=3)
    logvar = torch.tensor(-0.4, dtype=torch.float64)
    curved = NonlinearDecoder(lambda z: z @ weight.T + bias, logvar, 3)
    straight = LinearGaussian(weight, bias, logvar.expand(3))
    mu = torch.tensor([[0.0], [30.0], [-5.0], [0.0]], dtype=torch.float64)
    q = DiagonalNormal(mu, torch.tensor([[-20.0], [0.0], [3.0], [6.0]], dtype=torch.float64))
    # Terms up to 1e4 cancel in the ELBO of the widest q, and twice the relative tolerance covers them.
    assert_close(curved.elbo(x, q), straight.elbo(x, q), rtol=2e-10)
    assert_close(curved.kl_to_posterior(x, q), kl(q, straight.posterior(x)), rtol=2e-10)

    case = model_case("NonlinearDecoder")
    by_fixed_grid = FullNormal(case.q.mu, torch.diag_embed(case.q.std))
    assert_close(case.model.elbo(case.x, case.q), case.model.elbo(case.x, by_fixed_grid))
    assert_close(case.model.kl_to_posterior(case.x, case.q), case.model.kl_to_posterior(case.x, by_fixed_grid))
    with pytest.raises(QuadratureError, match="use a wider interval"):
        case.model.elbo(case.x, FullNormal(case.q.mu + 11.0, torch.diag_embed(case.q.std)))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_q_of_another_batch_is_refused(batch: int) -> None:
    model, x, q = model_case("NonlinearDecoder")
    small = DiagonalNormal(q.mu[:batch], q.logvar[:batch])
    for call in (model.elbo, model.kl_to_posterior):
        with pytest.raises(ValueError, match=rf"^q\.mu: expected shape \(3, 1\), found \({batch}, 1\)$"):
            call(x, small)


def test_draws_of_the_posterior() -> None:
    model, x, _ = model_case("NonlinearDecoder")
    posterior = model.posterior(x)
    draws = posterior.sample(20_000, generator=make_generator(1))
    assert draws.shape == (20_000, 3, 1)
    assert not draws.requires_grad
    grid = torch.linspace(-8.0, 8.0, 16_001, dtype=torch.float64)
    density = posterior.log_prob(grid[:, None, None].expand(-1, 3, 1)).exp()
    mean, square = ((density * grid[:, None] ** power).sum(0) * 1e-3 for power in (1, 2))
    assert_mean(draws[..., 0], mean, ceiling=0.01)
    assert_mean(draws[..., 0] ** 2, square, ceiling=0.012)
    assert_mean(draws[1:, :, 0] * draws[:-1, :, 0], mean**2, ceiling=0.012)
    assert_mean(draws[:, 0] * draws[:, 1], mean[:1] * mean[1:2], ceiling=0.012)
    distribution = np.cumsum(density.numpy(), axis=0) * 1e-3
    for b in range(3):
        cdf = lambda v, b=b: np.interp(v, grid.numpy(), distribution[:, b])  # noqa: E731
        assert scipy.stats.kstest(draws[:, b, 0].numpy(), cdf).pvalue > 1e-4
    # Within one cell of the grid, 24 / 2^14 wide, draws are spread evenly rather than stacked at one place.
    place = (draws[:, 0, 0] + 12.0) / (24.0 / 2**14) % 1.0
    assert scipy.stats.kstest(place.numpy(), "uniform").pvalue > 1e-4
    with pytest.raises(ValueError, match=r"^num_samples: expected a positive integer, found 0$"):
        posterior.sample(0, generator=make_generator(0))


def test_draws_of_data_have_the_moments_of_the_curve() -> None:
    model, _, _ = model_case("NonlinearDecoder")
    z = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64).reshape(1, 3, 1).expand(5000, 3, 1)
    standard = (model.sample_x_given_z(z, generator=make_generator(2)) - curve(z)) / math.exp(-0.5)
    assert_mean(standard, torch.zeros(3, 2), ceiling=0.015)
    assert_mean(standard**2, torch.ones(3, 2), ceiling=0.022)
    assert_mean(standard.prod(2), torch.zeros(3), ceiling=0.016)


@pytest.mark.equation("eq-forward-kl")
def test_the_normal_nearest_in_forward_kl_has_the_moments_of_the_posterior() -> None:
    """KL(p || q) = const - E_p log q, by quadrature over a posterior with no formula: flat at p's mean and variance."""
    model, x, _ = model_case("NonlinearDecoder")
    posterior = model.posterior(x)

    def average(f: Any) -> Tensor:
        return expectation(
            lambda n: posterior.log_prob(n[:, None, None].expand(-1, 3, 1)), f, model.interval, model.logvar
        )

    mean = average(lambda n: n[:, None].expand(-1, 3))
    variance = average(lambda n: (n[:, None] - mean) ** 2)
    mu, logvar = mean.clone().requires_grad_(), variance.log().requires_grad_()
    cross = average(lambda n: -log_normal(n[:, None], mu, logvar))
    for gradient in torch.autograd.grad(cross.sum(), (mu, logvar)):
        assert_close(gradient, torch.zeros(3), rtol=0.0, atol=1e-10)
    for seed in range(10):
        shift = 0.3 * randn(2, 3, seed=seed)
        other = average(lambda n, s=shift: -log_normal(n[:, None], mean + s[0], variance.log() + s[1]))
        assert bool((other > cross).all())


# The rule itself.


def test_the_rule_is_exact_for_polynomials_of_degree_31() -> None:
    nodes, weights = rule(Interval(-1.0, 2.0, 1), ZERO)
    assert nodes.shape == weights.shape == (16,)
    for degree in range(32):
        exact = (2.0 ** (degree + 1) - (-1.0) ** (degree + 1)) / (degree + 1)
        assert float((weights * nodes**degree).sum()) == pytest.approx(exact, rel=1e-12)
    assert float((weights * nodes**32).sum()) != pytest.approx((2.0**33 + 1.0) / 33.0, rel=1e-12)


def test_panels_lie_side_by_side() -> None:
    nodes, weights = rule(Interval(-1.0, 2.0, 3), ZERO)
    assert nodes.shape == (48,)
    assert bool((nodes.diff() > 0.0).all())
    assert_close(weights.reshape(3, 16).sum(1), torch.ones(3))
    assert_close(nodes.reshape(3, 16).mean(1), [-0.5, 0.5, 1.5])


def test_log_integral_and_expectation_of_normals() -> None:
    def log_f(nodes: Tensor) -> Tensor:
        return log_normal(nodes[:, None], SHIFTS, SHIFTS) + 3.0

    assert_close(log_integral(log_f, WIDE, ZERO), torch.full((3,), 3.0))

    def log_q(nodes: Tensor) -> Tensor:
        return log_normal(nodes[:, None], SHIFTS, SHIFTS)

    assert_close(expectation(log_q, lambda n: n[:, None].expand(-1, 3), WIDE, ZERO), SHIFTS)
    assert_close(expectation(log_q, lambda n: (n[:, None] - SHIFTS) ** 2, WIDE, ZERO), SHIFTS.exp())


def test_a_value_where_the_density_is_zero_does_not_count() -> None:
    """Where q underflows to exactly 0 the integrand is 0, even where f is infinite."""
    narrow = torch.tensor([-6.0], dtype=torch.float64)

    def log_q(nodes: Tensor) -> Tensor:
        return log_normal(nodes[:, None], 0.0 * narrow, narrow)

    far = expectation(
        log_q,
        lambda n: torch.where(n.abs() > 8.0, math.inf, 1.0)[:, None],
        Interval(-12.0, 12.0, 400),
        ZERO,
    )
    assert_close(far, [1.0])


def normal(nodes: Tensor) -> Tensor:
    return log_normal(nodes, ZERO, ZERO).unsqueeze(1)


def spiky(nodes: Tensor) -> Tensor:
    return log_normal(nodes, ZERO, ZERO - 8.0).unsqueeze(1)


def heavy(nodes: Tensor) -> Tensor:
    return log_student_t(nodes, ZERO, ZERO, ZERO + 3.0).unsqueeze(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: log_integral(normal, Interval(-12.0, 2.0, 60), ZERO),
            "quadrature: expected an integrand gone at both ends of [-12.0, 2.0], found a share of ",
        ),
        (
            lambda: log_integral(normal, Interval(-2.0, 12.0, 60), ZERO),
            "quadrature: expected an integrand gone at both ends of [-2.0, 12.0], found a share of ",
        ),
        (
            lambda: log_integral(heavy, WIDE, ZERO),
            "quadrature: expected an integrand gone at both ends of [-12.0, 12.0], found a share of ",
        ),
        (
            lambda: log_integral(spiky, Interval(-12.0, 12.0, 10), ZERO),
            "quadrature: expected a change of at most 1e-11 when 10 panels are halved, found ",
        ),
        (
            lambda: log_integral(lambda n: normal(n) * math.nan, WIDE, ZERO),
            "quadrature: expected an integrand gone at both ends",
        ),
        (
            lambda: expectation(lambda n: normal(n) + 1e-8, normal, WIDE, ZERO),
            "expectation: expected a density that integrates to 1 on [-12.0, 12.0], found a mass of 1.000000010000",
        ),
        (
            lambda: expectation(lambda n: normal(n) - 1e-8, normal, WIDE, ZERO),
            "expectation: expected a density that integrates to 1 on [-12.0, 12.0], found a mass of 0.999999990000",
        ),
        (
            lambda: expectation(lambda n: normal(n) + BATCH, normal, WIDE, ZERO),
            "expectation: expected a density that integrates to 1 on [-12.0, 12.0], found a mass of 1.000000010000",
        ),
        (
            lambda: expectation(lambda n: normal(n) - BATCH, normal, WIDE, ZERO),
            "expectation: expected a density that integrates to 1 on [-12.0, 12.0], found a mass of 0.999999990000",
        ),
        (
            lambda: expectation(normal, lambda n: torch.sin(300.0 * n).abs().unsqueeze(1), WIDE, ZERO),
            "quadrature: expected a change of at most 1e-11 when 60 panels are halved, found ",
        ),
        (
            lambda: expectation(normal, lambda n: (n * math.nan).unsqueeze(1), WIDE, ZERO),
            "quadrature: expected a change of at most 1e-11 when 60 panels are halved, found nan",
        ),
    ],
)
def test_a_wrong_integral_is_refused(call: Any, message: str) -> None:
    with pytest.raises(QuadratureError, match="^" + re.escape(message)):
        call()


def test_the_tolerance_can_be_chosen() -> None:
    interval = Interval(-12.0, 12.0, 2)
    with pytest.raises(QuadratureError, match="of at most 1e-11 when"):
        log_integral(normal, interval, ZERO)
    rough = log_integral(normal, interval, ZERO, tol=1e-2)
    assert abs(float(rough)) < 1e-2


def test_single_precision_is_judged_by_its_own_roundings() -> None:
    single = torch.zeros((), dtype=torch.float32)

    def log_f(nodes: Tensor) -> Tensor:
        return log_normal(nodes, single, single).unsqueeze(1)

    assert abs(float(log_integral(log_f, WIDE, single))) < 1e-5
    with pytest.raises(QuadratureError, match=r"of at most 1\.19209e-05 when"):
        log_integral(lambda n: log_normal(n, single, single - 8.0).unsqueeze(1), Interval(-12.0, 12.0, 10), single)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: NonlinearDecoder(curve, torch.zeros(1), 2), ValueError, "logvar: expected shape (), found (1,)"),
        (lambda: NonlinearDecoder(curve, ZERO * math.nan, 2), ValueError, "logvar: expected finite numbers, found 1"),
        (lambda: NonlinearDecoder(curve, ZERO, 0), ValueError, "data_dim: expected a positive integer, found 0"),
        (
            lambda: NonlinearDecoder(curve, ZERO, 3).log_p_x(torch.zeros(1, 3).double()),
            ValueError,
            "decoder(z): expected shape (3840, 1, 3), found (3840, 1, 2)",
        ),
        (
            lambda: NonlinearDecoder(lambda z: curve(z).float(), ZERO, 2).log_p_x(torch.zeros(1, 2).double()),
            TypeError,
            "decoder(z): expected torch.float64 as the tensors it meets have, found torch.float32",
        ),
    ],
)
def test_what_it_cannot_use_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        call()
