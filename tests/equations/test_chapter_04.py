"""The labelled equations of chapter 4, each met by a route that does not pass through the library's formula.

Averages over noise are sums over Gauss-Hermite nodes, over every outcome, or scipy's adaptive quadrature; derivatives
of averages are central differences. Nothing here draws at random.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, optimize, special, stats
from torch import Tensor
from torch.func import grad, jacrev, vmap

from tests.oracles import assert_close, randn
from vae_lib.densities import Bernoulli, DiagonalNormal, FullNormal, Gamma, implicit_draw
from vae_lib.exact import LinearGaussian
from vae_lib.gradients import (
    GumbelSoftmax,
    Objective,
    Params,
    Pathwise,
    ScoreFunction,
    expectation,
    sgvb_a,
    sgvb_b,
    sticking_the_landing,
)
from vae_lib.models import DecoderModel, NormalLikelihood, standard_normal
from vae_lib.rng import make_generator

Array = NDArray[np.float64]
DOUBLE = torch.float64
QUAD = {"epsabs": 1e-12, "epsrel": 1e-12, "limit": 400}
# A central difference of step h errs by some h² f''' / 6, and by the quadrature's 1e-12 over h.
STEP, DIFFERENCE = 1e-4, 1e-7


def scalars(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor([[value]], dtype=DOUBLE) for name, value in values.items()}


def normal(p: Params) -> DiagonalNormal:
    return DiagonalNormal(p["mu"], 2.0 * torch.log(p["std"]))


def hermite(count: int = 60) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a standard normal number."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.as_tensor(nodes), torch.as_tensor(weights / weights.sum())


def moments(gradients: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Exact mean and variance of estimates ``(R, ...)`` with probabilities ``(R,)``."""
    mean = torch.einsum("r,r...->...", weights, gradients)
    return mean, torch.einsum("r,r...->...", weights, (gradients - mean) ** 2)


def average(f: Callable[[float], float], mu: float, std: float) -> float:
    """The average of f under a normal, by quadrature of scipy's density."""
    low, high = mu - 12.0 * std, mu + 12.0 * std
    value, _ = integrate.quad(lambda z: f(z) * stats.norm.pdf(z, mu, std), low, high, points=[mu], **QUAD)
    return float(value)


def slope(function: Callable[[float], float], at: float) -> float:
    return (function(at + STEP) - function(at - STEP)) / (2.0 * STEP)


CURVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[float], float], Callable[[float], float]]] = {
    "square": (lambda z: (z - 0.7) ** 2, lambda z: (z - 0.7) ** 2, lambda z: 2.0 * (z - 0.7)),
    "tanh": (torch.tanh, math.tanh, lambda z: 1.0 / math.cosh(z) ** 2),
    "wave": (
        lambda z: z**3 + torch.sin(2.0 * z),
        lambda z: z**3 + math.sin(2.0 * z),
        lambda z: 3.0 * z**2 + 2.0 * math.cos(2.0 * z),
    ),
}
each_curve = pytest.mark.parametrize("name", CURVES)


@pytest.mark.equation("eq-reparameterization")
def test_noise_with_the_right_quantiles_makes_draws_with_the_right_quantiles() -> None:
    """A rising function takes quantiles to quantiles, so this is the whole distribution."""
    u = np.linspace(0.01, 0.99, 21)
    mu, std = 0.4, 1.7
    q = DiagonalNormal(*scalars(mu=mu, logvar=2.0 * math.log(std)).values())
    z = q.from_noise(torch.as_tensor(special.ndtri(u)).reshape(-1, 1, 1))
    assert_close(z.flatten(), stats.norm.ppf(u, mu, std))


@pytest.mark.equation("eq-reparameterization")
def test_a_full_normal_draw_has_the_right_mean_and_covariance() -> None:
    tril = torch.tensor([[[1.2, 0.0], [-0.7, 0.4]]], dtype=DOUBLE)
    q = FullNormal(torch.tensor([[0.3, -1.0]], dtype=DOUBLE), tril)
    nodes, weights = hermite(4)
    noise = torch.cartesian_prod(nodes, nodes).unsqueeze(1)
    share = torch.cartesian_prod(weights, weights).prod(-1)
    z = q.from_noise(noise).squeeze(1)
    mean = share @ z
    assert_close(mean, q.mu[0])
    assert_close((share[:, None] * (z - mean)).mT @ (z - mean), (tril @ tril.mT)[0])


@each_curve
@pytest.mark.equation("eq-lotus")
def test_an_average_over_z_is_one_over_the_noise(name: str) -> None:
    f, plain, _ = CURVES[name]
    nodes, weights = hermite()
    q = normal(scalars(mu=0.3, std=0.6))
    over_noise = (weights * f(q.from_noise(nodes.reshape(-1, 1, 1))).flatten()).sum()
    assert_close(over_noise, average(plain, 0.3, 0.6), rtol=1e-9)


@each_curve
@pytest.mark.equation("eq-pathwise")
def test_the_mean_of_the_path_is_the_derivative_of_the_average(name: str) -> None:
    f, plain, derivative = CURVES[name]
    nodes, weights = hermite()
    mu, std = 0.3, 0.6
    z = mu + std * nodes.numpy()
    slopes = np.array([derivative(value) for value in z])
    by_hand = {"mu": weights.numpy() @ slopes, "std": weights.numpy() @ (slopes * nodes.numpy())}
    truth = {
        "mu": slope(lambda m: average(plain, m, std), mu),
        "std": slope(lambda s: average(plain, mu, s), std),
    }
    estimates = Pathwise().at(
        expectation(normal, lambda z: f(z).sum(-1)), scalars(mu=mu, std=std), nodes.reshape(-1, 1, 1, 1)
    )
    for parameter, value in truth.items():
        assert by_hand[parameter] == pytest.approx(value, abs=DIFFERENCE)
        found, _ = moments(estimates[parameter], weights)
        assert_close(found, [[by_hand[parameter]]])


@pytest.mark.equation("eq-pathwise")
def test_a_jump_breaks_the_condition() -> None:
    """The average of a step has a slope; its pathwise gradient is zero for every sample."""
    nodes, _ = hermite()
    step = expectation(normal, lambda z: (z > 0.0).to(z.dtype).sum(-1))
    estimates = Pathwise().at(step, scalars(mu=0.2, std=1.0), nodes.reshape(-1, 1, 1, 1))
    assert not estimates["mu"].any()
    assert slope(lambda m: float(special.ndtr(m)), 0.2) == pytest.approx(float(stats.norm.pdf(0.2)), abs=DIFFERENCE)


@pytest.mark.parametrize("d", [-2.0, 0.0, 1.5])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
@pytest.mark.equation("eq-pathwise-variance")
def test_variances_of_the_path_for_the_square(d: float, sigma: float) -> None:
    # With a polynomial in noise its moments are those of a standard normal: 1, 0, 1, 0, 3.
    in_mu, in_sigma = np.poly1d([2.0 * sigma, 2.0 * d]), np.poly1d([2.0 * sigma, 2.0 * d, 0.0])

    def mean(p: np.poly1d) -> float:
        return float(sum(c * m for c, m in zip(p.coeffs[::-1], (1.0, 0.0, 1.0, 0.0, 3.0), strict=False)))

    expected = [mean(p * p) - mean(p) ** 2 for p in (in_mu, in_sigma)]
    assert expected == pytest.approx([4.0 * sigma**2, 4.0 * d**2 + 8.0 * sigma**2])
    nodes, weights = hermite(10)
    square = expectation(normal, lambda z: ((z - 0.7) ** 2).sum(-1))
    estimates = Pathwise().at(square, scalars(mu=0.7 + d, std=sigma), nodes.reshape(-1, 1, 1, 1))
    found = [float(moments(estimates[name], weights)[1]) for name in ("mu", "std")]
    assert found == pytest.approx(expected, rel=1e-10)


@each_curve
@pytest.mark.equation("eq-stein")
def test_integration_by_parts(name: str) -> None:
    _, plain, derivative = CURVES[name]
    mu, std = -0.4, 1.3
    left = average(lambda z: plain(z) * (z - mu) / std**2, mu, std)
    assert left == pytest.approx(average(derivative, mu, std), rel=1e-9)


@pytest.mark.parametrize("c", [0.3, 0.851153, 2.0, 5.0])
@pytest.mark.equation("eq-cosine")
def test_variances_for_the_cosine(c: float) -> None:
    shrunk = math.exp(-2.0 * c**2)
    path, score = 0.5 * c**2 * (1.0 - shrunk), 0.5 + 0.5 * (1.0 - 4.0 * c**2) * shrunk
    assert average(lambda z: (c * math.sin(c * z)) ** 2, 0.0, 1.0) == pytest.approx(path, rel=1e-9)
    assert average(lambda z: (z * math.cos(c * z)) ** 2, 0.0, 1.0) == pytest.approx(score, rel=1e-9)
    nodes, weights = hermite(120)
    noise, wave = nodes.reshape(-1, 1, 1, 1), expectation(normal, lambda z: torch.cos(c * z).sum(-1))
    for estimator, expected in ((Pathwise(), path), (ScoreFunction(), score)):
        found = moments(estimator.at(wave, scalars(mu=0.0, std=1.0), noise)["mu"], weights)[1]
        assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.equation("eq-cosine")
def test_the_score_function_wins_beyond_the_root() -> None:
    for c, path_wins in ((0.85, True), (0.852, False), (5.0, False)):
        shrunk = math.exp(-2.0 * c**2)
        assert (c**2 - 1.0 < (1.0 - 3.0 * c**2) * shrunk) is path_wins
        assert (0.5 * c**2 * (1.0 - shrunk) < 0.5 + 0.5 * (1.0 - 4.0 * c**2) * shrunk) is path_wins


# One latent, one pixel: z ~ N(0, 1), x | z ~ N(w z, psi).


def line(w: float, psi: float) -> LinearGaussian:
    return LinearGaussian(
        torch.tensor([[w]], dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE), torch.tensor([math.log(psi)], dtype=DOUBLE)
    )


def forms(
    model: object, x: Tensor, family: Callable[[Params], DiagonalNormal]
) -> dict[str, tuple[Pathwise, Objective]]:
    return {
        "A": (Pathwise(), sgvb_a(model, family, x)),  # type: ignore[arg-type]
        "B": (Pathwise(), sgvb_b(model, family, x)),  # type: ignore[arg-type]
        "sticking": (sticking_the_landing(), sgvb_a(model, family, x)),  # type: ignore[arg-type]
    }


@pytest.mark.equation("eq-sgvb-a", "eq-sgvb-b")
def test_both_forms_sample_by_sample_and_on_average() -> None:
    w, psi, x, mu, std = 1.3, 0.5, 0.9, 0.4, 0.6
    nodes, weights = hermite(10)
    z = mu + std * nodes.numpy()
    likelihood = stats.norm.logpdf(x, w * z, math.sqrt(psi))
    a = likelihood + stats.norm.logpdf(z) - stats.norm.logpdf(z, mu, std)
    distance = average(lambda v: float(stats.norm.logpdf(v, mu, std) - stats.norm.logpdf(v)), mu, std)
    b = likelihood - distance
    model, data, q = line(w, psi), torch.tensor([[x]], dtype=DOUBLE), normal(scalars(mu=mu, std=std))
    draws = torch.as_tensor(z).reshape(-1, 1, 1)
    assert_close(sgvb_a(model, normal, data).values({}, q, draws).flatten(), a)
    assert_close(sgvb_b(model, normal, data).values({}, q, draws).flatten(), b, rtol=1e-9)
    # log p(x) minus the KL to the posterior: the ELBO by chapter 1's identity.
    precision = 1.0 + w**2 / psi
    mean, var = w * x / psi / precision, 1.0 / precision
    gap = 0.5 * (std**2 / var + (mu - mean) ** 2 / var - 1.0 + math.log(var / std**2))
    elbo = float(stats.norm.logpdf(x, 0.0, math.sqrt(w**2 + psi))) - gap
    assert weights.numpy() @ a == pytest.approx(elbo, rel=1e-10)
    assert weights.numpy() @ b == pytest.approx(elbo, rel=1e-9)


@pytest.mark.equation("eq-total")
def test_a_is_the_path_minus_the_score() -> None:
    """All derivatives written out for x | z ~ N(sin z, 1/4)."""
    x, mu, std = 0.8, 0.4, 0.6
    model = DecoderModel(torch.sin, NormalLikelihood(math.log(0.25)), 1, 1, standard_normal(1, dtype=DOUBLE))
    nodes, weights = hermite(40)
    eps = nodes.numpy()
    z = mu + std * eps
    bracket = (x - np.sin(z)) * np.cos(z) / 0.25 - z + eps / std
    path = {"mu": bracket, "std": bracket * eps}
    score = {"mu": eps / std, "std": (eps**2 - 1.0) / std}
    data, at, noise = torch.tensor([[x]], dtype=DOUBLE), scalars(mu=mu, std=std), nodes.reshape(-1, 1, 1, 1)
    found = {name: e.at(o, at, noise) for name, (e, o) in forms(model, data, normal).items()}
    for parameter in ("mu", "std"):
        assert weights.numpy() @ score[parameter] == pytest.approx(0.0, abs=1e-12)
        assert_close(found["A"][parameter].flatten(), path[parameter] - score[parameter])
        assert_close(found["sticking"][parameter].flatten(), path[parameter])


@pytest.mark.equation("eq-total")
def test_at_the_posterior_the_path_is_zero_for_every_sample() -> None:
    w, psi, x = 1.3, 0.5, 0.9
    precision = 1.0 + w**2 / psi
    at = scalars(mu=w * x / psi / precision, std=precision**-0.5)
    nodes, _ = hermite(20)
    found = {
        name: e.at(o, at, nodes.reshape(-1, 1, 1, 1))
        for name, (e, o) in forms(line(w, psi), torch.tensor([[x]], dtype=DOUBLE), normal).items()
    }
    for parameter in ("mu", "std"):
        assert_close(found["sticking"][parameter], torch.zeros_like(found["sticking"][parameter]), atol=1e-12)
        assert float(found["A"][parameter].abs().max()) > 1.0
        assert float(found["B"][parameter].abs().max()) > 1.0


def toy_variances(kappa: float, m: float, delta: float, sigma: float) -> dict[str, tuple[float, float]]:
    precision, rest = 1.0 + kappa, 1.0 / sigma - (1.0 + kappa) * sigma
    return {
        "A": (precision**2 * sigma**2, precision**2 * delta**2 + 2.0 * precision**2 * sigma**2),
        "B": (kappa**2 * sigma**2, (kappa * delta - m) ** 2 + 2.0 * kappa**2 * sigma**2),
        "sticking": (rest**2, precision**2 * delta**2 + 2.0 * rest**2),
    }


@pytest.mark.parametrize(("w", "psi", "x"), [(2.0, 1.0, 7.5), (0.5, 1.0, 1.0), (-1.5, 0.3, 0.8)])
@pytest.mark.parametrize(("delta", "sigma"), [(0.0, 0.4), (1.0, 1.3), (-2.0, 0.2)])
@pytest.mark.equation("eq-sgvb-toy")
def test_variances_on_the_toy(w: float, psi: float, x: float, delta: float, sigma: float) -> None:
    kappa = w**2 / psi
    m = w * x / psi / (1.0 + kappa)
    nodes, weights = hermite(8)
    data, at = torch.tensor([[x]], dtype=DOUBLE), scalars(mu=m + delta, std=sigma)
    expected = toy_variances(kappa, m, delta, sigma)
    for name, (estimator, objective) in forms(line(w, psi), data, normal).items():
        gradients = estimator.at(objective, at, nodes.reshape(-1, 1, 1, 1))
        found = [float(moments(gradients[parameter], weights)[1]) for parameter in ("mu", "std")]
        assert found == pytest.approx(expected[name], rel=1e-9, abs=1e-10)


@pytest.mark.equation("eq-sgvb-toy")
def test_sticking_the_landing_loses_to_a_below_half_the_variance() -> None:
    for factor, wins in ((0.49, False), (0.51, True)):
        v = toy_variances(4.0, 3.0, 0.7, math.sqrt(factor / 5.0))
        for i in range(2):
            assert (v["sticking"][i] < v["A"][i]) is wins


@pytest.mark.parametrize("kappa", [0.01, 1.0, 4.0, 300.0])
@pytest.mark.equation("eq-a-wins")
def test_where_a_beats_b_at_the_posterior(kappa: float) -> None:
    edge = math.sqrt(2.0 * (2.0 * kappa + 1.0) / (kappa + 1.0))
    assert math.sqrt(2.0) < edge < 2.0
    psi, w = 1.0, math.sqrt(kappa)
    nodes, weights = hermite(8)
    for m, a_wins in ((0.99 * edge, False), (1.01 * edge, True)):
        x = m * (1.0 + kappa) * psi / w
        at = scalars(mu=m, std=(1.0 + kappa) ** -0.5)
        found = {}
        for name, (e, o) in forms(line(w, psi), torch.tensor([[x]], dtype=DOUBLE), normal).items():
            found[name] = float(moments(e.at(o, at, nodes.reshape(-1, 1, 1, 1))["std"], weights)[1])
        assert (found["A"] < found["B"]) is a_wins


# Two latents and one pixel through a curve that is no parabola.


def bend(z: Tensor) -> Tensor:
    return (z[..., :1] ** 2 + 0.5 * z[..., :1] * z[..., 1:] + torch.sin(z[..., 1:])).expand(*z.shape[:-1], 1)


BENT = DecoderModel(bend, NormalLikelihood(math.log(0.5)), 2, 1, standard_normal(2, dtype=DOUBLE))
BENT_X = torch.tensor([[1.2]], dtype=DOUBLE)


def two(p: Params) -> DiagonalNormal:
    return DiagonalNormal(p["mu"], p["logvar"])


def plane(count: int = 40) -> tuple[Tensor, Tensor]:
    nodes, weights = hermite(count)
    return torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(-1)


def mean_curvature(p: Params) -> Tensor:
    """E of the second derivatives of log p(x | z) along each axis, ``(2,)``."""
    eps, weights = plane()
    z = p["mu"] + torch.exp(0.5 * p["logvar"]) * eps

    def log_likelihood(value: Tensor) -> Tensor:
        return -((BENT_X[0, 0] - bend(value)[0]) ** 2) / (2.0 * 0.5)

    hessians = vmap(jacrev(grad(log_likelihood)))(z)
    return weights @ hessians.diagonal(dim1=-2, dim2=-1)


def variances_in_mu(p: Params) -> dict[str, Tensor]:
    eps, weights = plane()
    return {
        name: moments(estimator.at(objective, p, eps[:, None, None, :])["mu"], weights)[1][0]
        for name, (estimator, objective) in forms(BENT, BENT_X, two).items()
    }


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.equation("eq-differences")
def test_differences_for_a_curved_likelihood(seed: int) -> None:
    p = {"mu": randn(1, 2, seed=seed), "logvar": -1.0 + 0.5 * randn(1, 2, seed=seed + 10)}
    v, curvature, var = variances_in_mu(p), mean_curvature(p), p["logvar"][0].exp()
    assert_close(v["A"] - v["B"], var * (1.0 - 2.0 * curvature), rtol=1e-8)
    assert_close(v["A"] - v["sticking"], 2.0 - 1.0 / var - 2.0 * curvature, rtol=1e-8)


@pytest.mark.equation("eq-at-optimum")
def test_differences_at_the_best_q() -> None:
    """The best q is found by scipy on the ELBO as a sum over nodes, and polished by Newton's method."""
    eps, weights = plane(30)

    def elbo(free: Tensor) -> Tensor:
        mu, logvar = free[:2], free[2:]
        z = mu + torch.exp(0.5 * logvar) * eps
        log_likelihood = -((BENT_X[0, 0] - bend(z)[:, 0]) ** 2) / (2.0 * 0.5)
        return weights @ log_likelihood - 0.5 * (mu**2 + logvar.exp() - logvar).sum()

    start = optimize.minimize(
        lambda v: -float(elbo(torch.as_tensor(v))),
        [1.0, 0.2, -2.0, -1.0],
        jac=lambda v: -grad(elbo)(torch.as_tensor(v)).numpy(),
    )
    free = torch.as_tensor(start.x)
    for _ in range(4):
        free = free - torch.linalg.solve(jacrev(grad(elbo))(free), grad(elbo)(free))
    assert float(grad(elbo)(free).abs().max()) < 1e-11
    p = {"mu": free[:2].reshape(1, 2), "logvar": free[2:].reshape(1, 2)}
    v, var = variances_in_mu(p), free[2:].exp()
    assert bool((var < 2.0).all())
    assert_close(mean_curvature(p), 1.0 - 1.0 / var, rtol=1e-8)
    assert_close(v["A"] - v["B"], 2.0 - var, rtol=1e-8)
    assert_close(v["B"] - v["sticking"], (var**-0.5 - var**0.5) ** 2, rtol=1e-8)


@pytest.mark.equation("eq-at-optimum")
def test_the_best_widths_are_enough() -> None:
    """The means stay where no optimum is; only the widths are at their best, by Newton's method."""
    eps, weights = plane(30)
    mu = torch.tensor([0.9, -0.4], dtype=DOUBLE)

    def elbo(mean: Tensor, logvar: Tensor) -> Tensor:
        z = mean + torch.exp(0.5 * logvar) * eps
        log_likelihood = -((BENT_X[0, 0] - bend(z)[:, 0]) ** 2) / (2.0 * 0.5)
        return weights @ log_likelihood - 0.5 * (mean**2 + logvar.exp() - logvar).sum()

    in_logvar = grad(elbo, argnums=1)
    logvar = torch.tensor([-2.0, -1.0], dtype=DOUBLE)
    for _ in range(12):
        logvar = logvar - torch.linalg.solve(jacrev(in_logvar, argnums=1)(mu, logvar), in_logvar(mu, logvar))
    assert float(in_logvar(mu, logvar).abs().max()) < 1e-11
    assert float(grad(elbo)(mu, logvar).abs().min()) > 0.1
    v, var = variances_in_mu({"mu": mu.reshape(1, 2), "logvar": logvar.reshape(1, 2)}), logvar.exp()
    assert_close(v["A"] - v["B"], 2.0 - var, rtol=1e-8)
    assert_close(v["B"] - v["sticking"], (var**-0.5 - var**0.5) ** 2, rtol=1e-8)


@pytest.mark.equation("eq-at-optimum")
def test_in_sigma_there_is_no_such_order() -> None:
    """x | z ~ N(tanh 2z, 1/4) at x = 0: slopes by hand, the best width by scipy; sticking is noisiest in sigma."""
    nodes, weights = hermite(120)
    eps, share = nodes.numpy(), weights.numpy()

    def loss(sigma: float) -> float:
        return float(share @ (2.0 * np.tanh(2.0 * sigma * eps) ** 2) + 0.5 * sigma**2 - math.log(sigma))

    sigma = float(optimize.minimize_scalar(loss, bounds=(0.2, 1.5), method="bounded", options={"xatol": 1e-10}).x)
    z = sigma * eps
    slope_of_likelihood = -8.0 * np.tanh(2.0 * z) / np.cosh(2.0 * z) ** 2
    slopes = {"A": slope_of_likelihood - z, "B": slope_of_likelihood, "sticking": slope_of_likelihood - z + eps / sigma}

    def variance(values: Array) -> float:
        return float(share @ values**2 - (share @ values) ** 2)

    in_mu = {name: variance(values) for name, values in slopes.items()}
    in_sigma = {name: variance(values * eps) for name, values in slopes.items()}
    assert in_mu["sticking"] < in_mu["B"] < in_mu["A"]
    assert in_sigma["B"] < in_sigma["A"] < in_sigma["sticking"]
    assert in_mu["A"] - in_mu["B"] == pytest.approx(2.0 - sigma**2, rel=1e-5)


# Minibatches: every batch, and every draw of a coin that stands for the noise.


COIN_MEANS = np.random.default_rng(5).normal(size=(5, 3))
COIN_SWINGS = np.random.default_rng(6).normal(size=(5, 3))  # image i's gradient is its mean plus or minus its swing


def coin_estimates(batch: tuple[int, ...], samples: int) -> Iterator[Array]:
    """The batch's average gradient for every outcome of the coins."""
    for signs in itertools.product((-1.0, 1.0), repeat=len(batch) * samples):
        coins = np.array(signs).reshape(len(batch), samples).mean(1)
        yield (COIN_MEANS[list(batch)] + coins[:, None] * COIN_SWINGS[list(batch)]).mean(0)


def total_variance(estimates: list[Array]) -> float:
    values = np.stack(estimates)
    return float(((values - values.mean(0)) ** 2).sum(1).mean())


V_IMAGE = float(((COIN_MEANS - COIN_MEANS.mean(0)) ** 2).sum(1).mean())
V_DRAW = float((COIN_SWINGS**2).sum(1).mean())


@pytest.mark.parametrize("size", [1, 2, 4, 5])
@pytest.mark.equation("eq-minibatch")
def test_scaled_batches_average_to_the_sum(size: int) -> None:
    batches = [
        5.0 / size * size * estimate
        for batch in itertools.combinations(range(5), size)
        for estimate in coin_estimates(batch, 1)
    ]
    np.testing.assert_allclose(np.mean(batches, axis=0), COIN_MEANS.sum(0), rtol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 4, 5])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.equation("eq-noise-split")
def test_the_noise_of_a_batch_splits(size: int, samples: int) -> None:
    estimates = [e for batch in itertools.combinations(range(5), size) for e in coin_estimates(batch, samples)]
    images, draws = V_IMAGE / size * (5 - size) / 4, V_DRAW / (size * samples)
    assert total_variance(estimates) == pytest.approx(images + draws, rel=1e-12)


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.equation("eq-budget")
def test_a_budget_of_four_decoder_calls(samples: int) -> None:
    """With images that may repeat, which is what a batch far smaller than the data comes to."""
    estimates = [
        e for batch in itertools.product(range(5), repeat=4 // samples) for e in coin_estimates(batch, samples)
    ]
    assert total_variance(estimates) == pytest.approx((samples * V_IMAGE + V_DRAW) / 4.0, rel=1e-12)


@pytest.mark.parametrize(("ratio", "two_win"), [(0.99, False), (1.01, True)])
@pytest.mark.equation("eq-budget")
def test_when_a_second_draw_pays(ratio: float, two_win: bool) -> None:
    """At equal cost, with an image's price on either side of twice V_image / V_draw times a draw's."""
    price = ratio * 2.0 * V_IMAGE / V_DRAW
    noise = {s: (price + s) * (V_IMAGE + V_DRAW / s) for s in (1, 2)}
    assert (noise[2] < noise[1]) is two_win


@pytest.mark.equation("eq-inverse-cdf")
def test_the_inverse_of_the_distribution_function_draws() -> None:
    """P(inverse(u) <= t) is the length of the u that get there."""
    rate = 1.7
    inverses: list[tuple[Callable[[Array], Array], Callable[[float], float]]] = [
        (lambda u: -np.log1p(-u) / rate, lambda t: 1.0 - math.exp(-rate * t)),
        (lambda u: stats.gamma.ppf(u, 2.5), lambda t: float(special.gammainc(2.5, t))),
    ]
    cells = 100_000
    u = (np.arange(cells) + 0.5) / cells
    for inverse, cdf in inverses:
        z = inverse(u)
        for t in (0.2, 0.9, 2.5):
            assert (z <= t).mean() == pytest.approx(cdf(t), abs=1.0 / cells)


@pytest.mark.parametrize("u", [0.05, 0.4, 0.9])
@pytest.mark.equation("eq-implicit")
def test_the_implicit_derivative_is_that_of_the_quantile(u: float) -> None:
    """Hold u, move the parameter, and see where scipy's quantile goes."""
    z = torch.tensor([[stats.expon.ppf(u, scale=1.0 / 1.7)]], dtype=DOUBLE)
    rate = torch.tensor([[1.7]], dtype=DOUBLE, requires_grad=True)
    live = implicit_draw(z, 1.0 - torch.exp(-rate * z), torch.log(rate) - rate * z)
    (found,) = torch.autograd.grad(live.sum(), rate)
    assert float(found) == pytest.approx(slope(lambda r: float(stats.expon.ppf(u, scale=1.0 / r)), 1.7), abs=DIFFERENCE)

    z = torch.tensor([[stats.norm.ppf(u, 0.3, 0.6)]], dtype=DOUBLE)
    std = torch.tensor([[0.6]], dtype=DOUBLE, requires_grad=True)
    log_density = torch.as_tensor(stats.norm.logpdf(z.numpy(), 0.3, 0.6))
    (found,) = torch.autograd.grad(implicit_draw(z, torch.special.ndtr((z - 0.3) / std), log_density).sum(), std)
    assert float(found) == pytest.approx(special.ndtri(u), rel=1e-10)


@pytest.mark.parametrize("a", [0.6, 2.5, 9.0])
@pytest.mark.equation("eq-implicit")
def test_the_gamma_draws_derivative_is_that_of_the_quantile(a: float) -> None:
    shape = torch.tensor([[a]], dtype=DOUBLE, requires_grad=True)
    z = Gamma(shape, torch.ones(1, 1, dtype=DOUBLE)).rsample(20, generator=make_generator(4)).flatten()
    for draw in z:
        (found,) = torch.autograd.grad(draw, shape, retain_graph=True)
        u = float(special.gammainc(a, float(draw.detach())))
        expected = slope(lambda v, u=u: float(special.gammaincinv(v, u)), a)  # type: ignore[misc]
        # torch's own derivative is right to about a thousandth.
        assert float(found) == pytest.approx(expected, rel=3e-3)


def bit_gradient(u: Array, tau: float, a: float) -> Array:
    """One sample of the derivative of f(y) = (y - 0.45)² in the log-odds, by hand."""
    y = special.expit((a + special.logit(u)) / tau)
    return np.asarray(2.0 * (y - 0.45) * y * (1.0 - y) / tau)


def library_bit(u: Array, tau: float, a: float) -> Array:
    objective = expectation(lambda p: Bernoulli(p["a"]), lambda z: ((z - 0.45) ** 2).sum(-1))
    gradients = GumbelSoftmax(tau).at(objective, scalars(a=a), torch.as_tensor(u).reshape(-1, 1, 1, 1))
    return np.asarray(gradients["a"].flatten().numpy())


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
@pytest.mark.equation("eq-gumbel-softmax")
def test_the_relaxed_bit(tau: float) -> None:
    u, a = np.linspace(0.01, 0.99, 199), -1.0
    np.testing.assert_allclose(library_bit(u, tau, a), bit_gradient(u, tau, a), rtol=1e-9, atol=1e-12)
    # Above one half exactly where the bit is 1, and the bit is 1 with the right probability.
    y = special.expit((a + special.logit(u)) / tau)
    np.testing.assert_array_equal(y > 0.5, u > 1.0 - special.expit(a))


@pytest.mark.equation("eq-gumbel-softmax")
def test_two_gumbel_numbers_make_the_logistic_noise_of_a_bit() -> None:
    """P(G1 - G2 <= t), by quadrature over G2, is the logistic distribution function."""
    for t in (-2.0, 0.3, 1.5):
        found, _ = integrate.quad(lambda g, t=t: stats.gumbel_r.pdf(g) * stats.gumbel_r.cdf(t + g), -6.0, 40.0, **QUAD)
        assert found == pytest.approx(special.expit(t), rel=1e-10)


@pytest.mark.parametrize("tau", [0.1, 0.25, 1.0])
@pytest.mark.equation("eq-relaxed-gradient")
def test_the_mean_of_the_relaxed_gradient(tau: float) -> None:
    a = -1.0

    def formula(y: float) -> float:
        s = special.expit(tau * special.logit(y) - a)
        return float(2.0 * (y - 0.45) * s * (1.0 - s))

    expected, _ = integrate.quad(formula, 0.0, 1.0, **QUAD)
    # The same mean over the noise itself, as t = logit(u), with the logistic density.
    t = np.linspace(-40.0, 40.0, 80_001)
    density = special.expit(t) * special.expit(-t)
    found = (density * library_bit(np.clip(special.expit(t), 1e-300, None), tau, a)).sum() * (t[1] - t[0])
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.equation("eq-relaxed-gradient")
def test_the_relaxed_gradient_tends_to_the_enumerated_one() -> None:
    a = -1.0

    def relaxed(tau: float) -> float:
        def formula(t: float) -> float:
            y, s = special.expit(t), special.expit(tau * t - a)
            return float(2.0 * (y - 0.45) * y * (1.0 - y) * s * (1.0 - s))

        return float(integrate.quad(formula, -60.0, 60.0, points=[0.0], **QUAD)[0])

    def enumerated(log_odds: float) -> float:
        p = special.expit(log_odds)
        return float(p * (1.0 - 0.45) ** 2 + (1.0 - p) * 0.45**2)

    p = special.expit(a)
    exact = p * (1.0 - p) * ((1.0 - 0.45) ** 2 - 0.45**2)
    assert slope(enumerated, a) == pytest.approx(exact, abs=DIFFERENCE)
    errors = [abs(relaxed(tau) - exact) for tau in (0.04, 0.02, 0.01)]
    # The bias falls in proportion to the temperature: halving it halves the error.
    assert [big / small for big, small in itertools.pairwise(errors)] == pytest.approx([2.0, 2.0], rel=0.05)
    assert relaxed(0.5) < 0.0 < exact
