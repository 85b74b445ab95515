"""The labelled equations of chapter 7, each met by a route that does not pass through the library's formula.

Rates and distortions of a table of probabilities are finite sums. The optimum of the linear VAE is searched for by
scipy, with prices that are taken from the joint covariance of datum and latent; Shannon's curve is a constrained
minimum. Integrals are scipy's quadrature or products of Gauss-Hermite rules.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, optimize, stats

from tests.oracles import assert_close, randn
from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.densities import DiagonalNormal
from vae_lib.evaluation import factor_entropies, mutual_information, mutual_information_gap, rate_distortion
from vae_lib.exact import (
    LinearEncoder,
    LinearGaussian,
    linear_vae_optimum,
    maximum_likelihood_variance,
    optimal_linear_vae,
    water_filling,
)
from vae_lib.learning import Warmup, free_bits
from vae_lib.rng import make_generator

Array = NDArray[np.float64]

# Three data, two values of the latent; nothing is symmetric.
P_DATA = np.array([0.5, 0.3, 0.2])
Q = np.array([[0.9, 0.1], [0.3, 0.7], [0.45, 0.55]])  # q(z | x), a row for each x
PRIOR = np.array([0.6, 0.4])
LIKELIHOOD = np.array([[0.7, 0.2, 0.1], [0.15, 0.25, 0.6]])  # p(x | z), a row for each z

VARIANCES = np.array([2.0, 1.1, 0.6, 0.25, 0.1])
AXES = np.linalg.qr(np.random.default_rng(7).normal(size=(5, 5)))[0]
COVARIANCE = AXES @ np.diag(VARIANCES) @ AXES.T


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def divergence(a: Array, b: Array) -> float:
    """KL of two tables of probabilities."""
    return float((a * np.log(a / b)).sum())


def rate_and_distortion() -> tuple[float, float]:
    rate = sum(p * divergence(q, PRIOR) for p, q in zip(P_DATA, Q, strict=True))
    return rate, -float((P_DATA[:, None] * Q * np.log(LIKELIHOOD.T)).sum())


@pytest.mark.equation("eq-rate-distortion")
def test_two_prices_are_minus_the_elbo() -> None:
    log_weight = np.log(LIKELIHOOD.T * PRIOR / Q)
    assert sum(rate_and_distortion()) == pytest.approx(-float((P_DATA[:, None] * Q * log_weight).sum()), rel=1e-12)
    # And the library's, on data, with draws.
    model = LinearGaussian(randn(4, 2, seed=1), zeros(4), zeros(4))
    encoder = LinearEncoder(0.1 * randn(2, 4, seed=2), zeros(2), zeros(2) - 1.0)
    x = randn(50, 4, seed=3)
    found = rate_distortion(model, encoder, x, num_samples=400, generator=make_generator(1))
    assert_close(found.rate.value + found.distortion.value, -found.elbo.value)
    exact = model.elbo(x, encoder(x)).mean()
    assert abs(float(found.elbo.value - exact)) < 0.05


@pytest.mark.equation("eq-rate-bound")
def test_no_model_is_below_the_entropy_of_the_data() -> None:
    evidence = PRIOR @ LIKELIHOOD
    posterior = (LIKELIHOOD * PRIOR[:, None] / evidence).T
    entropy = -float(P_DATA @ np.log(P_DATA))
    gap = sum(p * divergence(q, r) for p, q, r in zip(P_DATA, Q, posterior, strict=True))
    assert sum(rate_and_distortion()) == pytest.approx(entropy + divergence(P_DATA, evidence) + gap, rel=1e-12)
    assert sum(rate_and_distortion()) > entropy


@pytest.mark.equation("eq-rate-information")
def test_rate_is_information_and_waste() -> None:
    aggregate = P_DATA @ Q
    joint = P_DATA[:, None] * Q
    information = divergence(joint, P_DATA[:, None] * aggregate)
    assert rate_and_distortion()[0] == pytest.approx(information + divergence(aggregate, PRIOR), rel=1e-12)


def minus_objective(flat: Array, latents: int, tau: float, covariance: Array) -> float:
    """Half the squared error over tau plus the rate, from the joint covariance of datum and latent."""
    size = len(covariance)
    weight = flat[: size * latents].reshape(size, latents)
    slope = flat[size * latents : 2 * size * latents].reshape(latents, size)
    variance = np.exp(flat[2 * size * latents :])
    cross = covariance @ slope.T
    code = slope @ cross + np.diag(variance)
    error = np.trace(covariance) - 2.0 * np.trace(weight.T @ cross) + np.trace(weight @ code @ weight.T)
    return float(error / (2.0 * tau) + 0.5 * (np.trace(code) - latents - np.log(variance).sum()))


@pytest.mark.equation("eq-linear-vae")
@pytest.mark.parametrize("tau", [0.05, 0.4, 1.5, 3.0])
def test_search_finds_the_optimum_of_the_linear_vae(tau: float) -> None:
    latents, size = 3, len(VARIANCES)
    wanted = np.maximum(VARIANCES[:latents] - tau, 0.0)
    kl = 0.5 * np.maximum(np.log(VARIANCES[:latents] / tau), 0.0)
    weight = AXES[:, :latents] * np.sqrt(wanted)
    slope = (AXES[:, :latents] * np.sqrt(wanted) / VARIANCES[:latents]).T
    logvar = np.log(np.minimum(tau / VARIANCES[:latents], 1.0))
    solution = np.concatenate([weight.ravel(), slope.ravel(), logvar])
    best = minus_objective(solution, latents, tau, COVARIANCE)
    assert best == pytest.approx(
        kl.sum() + (np.minimum(VARIANCES[:3], tau).sum() + VARIANCES[3:].sum()) / (2 * tau), rel=1e-12
    )
    found = []
    for seed in range(2):
        start = 0.3 * np.random.default_rng(seed).normal(size=2 * size * latents + latents)
        result = optimize.minimize(
            minus_objective, start, (latents, tau, COVARIANCE), options={"maxiter": 3000, "gtol": 1e-9}
        )
        found.append(result.fun)
    assert min(found) == pytest.approx(best, abs=1e-6)
    theory = linear_vae_optimum(torch.as_tensor(VARIANCES), latents, logvar=math.log(tau))
    assert_close(theory.kl, torch.as_tensor(kl))
    assert_close(theory.weight_norms, torch.as_tensor(np.sqrt(wanted)))
    built = optimal_linear_vae(zeros(size), torch.as_tensor(COVARIANCE), latents, logvar=math.log(tau))
    x = randn(3, size, seed=4)
    assert_close(built.encoder(x).logvar[0], torch.as_tensor(logvar))
    outer = built.model.weight @ built.encoder.weight
    assert_close(outer, torch.as_tensor(weight @ slope), atol=1e-9)


@pytest.mark.equation("eq-water-filling")
def test_linear_vae_is_on_shannons_curve() -> None:
    for tau in (0.07, 0.3, 1.3):
        shannon = water_filling(torch.as_tensor(VARIANCES), tau)
        total = float(shannon.squared_error)

        def rate(errors: Array) -> float:
            return float(0.5 * np.log(VARIANCES / errors).sum())

        start = VARIANCES * total / VARIANCES.sum()
        constraint = {"type": "eq", "fun": lambda errors, total=total: errors.sum() - total}
        bounds = [(1e-6, v) for v in VARIANCES]
        result = optimize.minimize(
            rate, start, bounds=bounds, constraints=[constraint], options={"ftol": 1e-14, "maxiter": 500}
        )
        assert float(shannon.rate) == pytest.approx(result.fun, abs=1e-6)
        best = linear_vae_optimum(torch.as_tensor(VARIANCES), 5, logvar=math.log(tau))
        assert_close(best.rate, shannon.rate)
        assert_close(best.squared_error, shannon.squared_error)
        step = 1e-5
        below, above = (water_filling(torch.as_tensor(VARIANCES), tau + s) for s in (-step, step))
        slope = float((above.rate - below.rate) / (above.squared_error - below.squared_error))
        assert slope == pytest.approx(-1.0 / (2.0 * tau), rel=1e-6)


@pytest.mark.equation("eq-nearly-closed")
@pytest.mark.parametrize("tau", [0.3, 0.9, 2.5])
def test_a_bent_decoder_opens_no_earlier_than_a_straight_one(tau: float) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    prior = weights / weights.sum()
    data = np.array([[1.0, 0.4], [-1.0, -0.4], [0.3, -1.6], [-0.3, 1.6]])  # mean zero, not normal
    variances, axes = np.linalg.eigh(data.T @ data / 4)

    def bends(f: Array) -> float:
        """Second derivative of the mean log p(x) by the size of the decoder's mean f(z), by differences."""

        def evidence(size: float) -> float:
            rest = data[:, None] - size * f
            return float(np.log(np.exp(-0.5 * (rest**2).sum(-1) / tau) @ prior).mean())

        h = 1e-3
        return (evidence(h) - 2 * evidence(0.0) + evidence(-h)) / h**2

    shapes = [
        np.stack([nodes, 0.5 * nodes], 1),
        np.stack([(nodes**2 - 1) / math.sqrt(2), nodes], 1),
        np.stack([np.tanh(3 * nodes), np.exp(0.5 * nodes) - math.exp(0.125)], 1),
        nodes[:, None] * axes[:, -1],
    ]
    found = [bends(f) / float(prior @ (f**2).sum(1)) for f in shapes]
    formula = [
        float(prior @ ((f @ axes) ** 2 @ (variances - tau))) / tau**2 / float(prior @ (f**2).sum(1)) for f in shapes
    ]
    assert found == pytest.approx(formula, rel=1e-4)
    assert max(found) == found[-1]  # of one size, the straight line along the first axis opens most
    assert (found[-1] > 0) == (variances[-1] > tau)


def test_far_outliers_open_a_decoder_of_steps_above_their_variance() -> None:
    """One case in fifty at plus or minus the root of 50, else zero: variance 1, and the level is 1.5."""
    place, share = np.array([-math.sqrt(50.0), 0.0, math.sqrt(50.0)]), np.array([0.01, 0.98, 0.01])
    assert share @ place**2 == pytest.approx(1.0)
    noise = stats.norm(0.0, math.sqrt(1.5))
    closed = share @ noise.logpdf(place)
    steps = share @ np.log(noise.pdf(place[:, None] - place) @ share)
    assert steps - closed == pytest.approx(0.2, abs=0.05)


@pytest.mark.equation("eq-noise-fixed-point")
@pytest.mark.parametrize("latents", [1, 2, 3, 4])
def test_noise_that_is_its_own_error_is_the_mean_of_the_rest(latents: int) -> None:
    def excess(tau: float) -> float:
        error = np.minimum(VARIANCES[:latents], tau).sum() + VARIANCES[latents:].sum()
        return float(tau - error / len(VARIANCES))

    grid = np.linspace(1e-3, 3.0, 3001)
    signs = np.sign([excess(tau) for tau in grid])
    (crossing,) = np.nonzero(np.diff(signs))[0][:2]  # one, and one alone
    root = optimize.brentq(excess, grid[crossing], grid[crossing + 1], xtol=1e-14)
    assert root == pytest.approx(VARIANCES[latents:].mean(), rel=1e-9)
    eigenvalues = torch.as_tensor(VARIANCES)
    assert float(maximum_likelihood_variance(eigenvalues, latents)) == pytest.approx(root, rel=1e-9)
    best = linear_vae_optimum(eigenvalues, latents, logvar=math.log(root))
    assert float(best.squared_error) / len(VARIANCES) == pytest.approx(root, rel=1e-9)


@pytest.mark.equation("eq-collapse")
@pytest.mark.parametrize(("variance", "tau"), [(0.3, 0.5), (0.9, 0.5), (2.0, 0.1), (0.05, 1.7)])
def test_closed_latent_is_stable_below_the_level(variance: float, tau: float) -> None:
    covariance = np.array([[variance]])

    def elbo(w: float, c: float) -> float:
        # The best variance of q for this w.
        return -minus_objective(np.array([w, c, -math.log1p(w * w / tau)]), 1, tau, covariance)

    h = 1e-4
    ww = (elbo(h, 0) - 2 * elbo(0, 0) + elbo(-h, 0)) / h**2
    cc = (elbo(0, h) - 2 * elbo(0, 0) + elbo(0, -h)) / h**2
    wc = (elbo(h, h) - elbo(h, -h) - elbo(-h, h) + elbo(-h, -h)) / (4 * h * h)
    assert [ww, wc, cc] == pytest.approx([-1 / tau, variance / tau, -variance], rel=1e-4)
    determinant = variance * (tau - variance) / tau**2
    assert ww * cc - wc**2 == pytest.approx(determinant, rel=2e-3)
    is_maximum = bool((np.linalg.eigvalsh([[ww, wc], [wc, cc]]) < 0.0).all())
    assert is_maximum == (variance < tau)

    def evidence(w: float) -> float:
        # E log N(x; 0, w^2 + tau) over x of this variance, by Gauss and Hermite's rule.
        nodes, weights = np.polynomial.hermite_e.hermegauss(20)
        log_p = stats.norm(0.0, math.sqrt(w * w + tau)).logpdf(nodes * math.sqrt(variance))
        return float(weights @ log_p / weights.sum())

    curvature = (evidence(h) - 2 * evidence(0) + evidence(-h)) / h**2
    assert curvature == pytest.approx((variance - tau) / tau**2, rel=1e-4)


@pytest.mark.equation("eq-cures")
def test_warm_up_and_free_bits_are_what_they_are_said_to_be() -> None:
    warm = Warmup(8)
    assert [warm.beta_at(t) for t in (0, 2, 8, 100)] == [0.0, 0.25, 1.0, 1.0]
    model = LinearGaussian(randn(4, 3, seed=5), zeros(4), zeros(4))
    x = randn(6, 4, seed=6)
    mu, logvar = 0.4 * randn(6, 3, seed=7), 0.3 * randn(6, 3, seed=8)
    q, z = DiagonalNormal(mu, logvar), randn(2, 6, 3, seed=9)
    half = warm.at_step(4)(model, q, x, z)
    prior = torch.distributions.Normal(0.0, 1.0)
    each = torch.distributions.kl_divergence(torch.distributions.Normal(mu, torch.exp(0.5 * logvar)), prior)
    noise = torch.distributions.Normal(z @ model.weight.mT, 1.0)
    log_likelihood = noise.log_prob(x).sum(-1)
    assert_close(half, log_likelihood - 0.5 * each.sum(-1))
    for minimum in (0.0, 0.05, 0.3):
        charged = sum(max(minimum, float(cost)) for cost in each.mean(0))
        found = free_bits(model, q, x, z, minimum=minimum).mean()
        assert float(found) == pytest.approx(float(log_likelihood.mean()) - charged, rel=1e-10)
        assert float(found) <= float(elbo_with_analytic_kl(model, q, x, z).mean()) + 1e-12


@pytest.mark.equation("eq-mig")
def test_information_of_mixtures_and_its_gap() -> None:
    mu = np.array([[0.0, 0.3], [1.0, -0.2], [0.1, 0.9], [1.4, 1.1], [0.6, 0.2], [2.0, 0.4]])
    std = np.array([[0.3, 0.5], [0.4, 0.6], [0.2, 0.4], [0.5, 0.8], [0.7, 0.3], [0.3, 0.9]])
    factors = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]])

    def density(z: float, rows: Array, latent: int) -> float:
        off = (z - mu[rows, latent]) / std[rows, latent]
        return float((np.exp(-0.5 * off**2) / (std[rows, latent] * math.sqrt(2.0 * math.pi))).mean())

    expected = np.zeros((2, 2))
    for latent in range(2):
        for factor in range(2):
            for value in np.unique(factors[:, factor]):
                rows = np.nonzero(factors[:, factor] == value)[0]

                def integrand(z: float, rows: Array = rows, latent: int = latent) -> float:
                    given = density(z, rows, latent)
                    return given * math.log(given / density(z, np.arange(6), latent)) if given > 1e-300 else 0.0

                total = integrate.quad(integrand, -6.0, 8.0, epsabs=1e-12, limit=400, points=[0.0, 1.0, 2.0])[0]
                expected[latent, factor] += len(rows) / 6 * total
    tables = torch.as_tensor(mu), torch.as_tensor(std), torch.as_tensor(factors)
    assert_close(mutual_information(*tables), torch.as_tensor(expected), atol=1e-8)
    assert_close(factor_entropies(tables[2]), torch.tensor([math.log(2), math.log(3)], dtype=torch.float64))
    ordered = np.sort(expected, axis=0)
    gaps = (ordered[1] - ordered[0]) / np.log([2.0, 3.0])
    assert mutual_information_gap(*tables).mean == pytest.approx(gaps.mean(), abs=1e-8)


@pytest.mark.equation("eq-rotated-decoder")
def test_turned_latents_leave_the_evidence() -> None:
    angle = 0.7
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def evidence(x: float, by: Array) -> float:
        def integrand(b: float, a: float) -> float:
            u = by.T @ np.array([a, b])
            mean = math.sin(1.3 * u[0]) + 0.4 * u[1] ** 2
            return float(math.exp(-0.5 * ((x - mean) / 0.8) ** 2 - 0.5 * (a * a + b * b)))

        value = integrate.nquad(integrand, [(-6.5, 6.5), (-6.5, 6.5)], opts={"epsabs": 1e-8, "epsrel": 1e-8})[0]
        return float(value / (2 * math.pi) / (0.8 * math.sqrt(2 * math.pi)))

    assert evidence(0.6, turn) == pytest.approx(evidence(0.6, np.eye(2)), rel=1e-7)


@pytest.mark.equation("eq-rotation-price")
def test_price_of_an_upright_q() -> None:
    for first, second, tau, angle in ((2.0, 0.5, 0.1, 0.6), (1.1, 1.0, 0.3, 0.785), (3.0, 0.2, 0.05, 1.2)):
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        precision = turn @ np.diag([first / tau, second / tau]) @ turn.T

        def to_posterior(log_variances: Array, precision: Array = precision) -> float:
            variances = np.exp(log_variances)
            return float(
                0.5 * (np.diag(precision) @ variances - 2 - np.log(variances).sum() - np.linalg.slogdet(precision)[1])
            )

        least = optimize.minimize(to_posterior, np.zeros(2), tol=1e-12).fun
        general = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
        ratio = (first - second) ** 2 / (first * second)
        formula = 0.5 * math.log1p(ratio * math.sin(angle) ** 2 * math.cos(angle) ** 2)
        assert least == pytest.approx(general, abs=1e-8)
        assert least == pytest.approx(formula, abs=1e-8)
