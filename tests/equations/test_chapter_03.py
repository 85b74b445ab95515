"""The labelled equations of chapter 3, each met by a route that does not pass through the library's formula.

Averages are sums: over all values of a discrete latent, over Gauss-Hermite nodes (exact for the polynomials here), or
on a fine grid that is exact to rounding for a smooth integrand that dies out at both ends. Draws are compared with
their own arithmetic. So nothing here is random but for rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, optimize, special, stats
from torch import Tensor

from tests.oracles import ATOL, RTOL
from vae_lib.densities import Bernoulli, Categorical, DiagonalNormal, Gamma
from vae_lib.exact import LinearGaussian
from vae_lib.gradients import (
    Constant,
    LeaveOneOut,
    Objective,
    OptimalBaseline,
    Params,
    RaoBlackwell,
    ScoreFunction,
    expectation,
    score,
    sgvb_a,
)
from vae_lib.rng import make_generator

Array = NDArray[np.float64]
DOUBLE = torch.float64
# scipy's adaptive quadrature is asked for this; a central difference of step h = 1e-4 errs by some h² = 1e-8.
QUAD = {"epsabs": 1e-11, "epsrel": 1e-11, "limit": 200}
STEP, DIFFERENCE = 1e-4, 1e-7


def close(actual: object, expected: object, rtol: float = RTOL, atol: float = ATOL) -> None:
    np.testing.assert_allclose(np.asarray(actual, dtype=float), np.asarray(expected, dtype=float), rtol=rtol, atol=atol)


def slope(function: Callable[[float], float], at: float) -> float:
    """The derivative by a central difference."""
    return (function(at + STEP) - function(at - STEP)) / (2.0 * STEP)


def scalars(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor([[value]], dtype=DOUBLE) for name, value in values.items()}


def normal(p: Params) -> DiagonalNormal:
    return DiagonalNormal(p["mu"], 2.0 * torch.log(p["std"]))


def one_each(z: Array) -> Tensor:
    """Values ``(N,)`` of one latent number as N estimates of one draw."""
    return torch.as_tensor(z, dtype=DOUBLE).reshape(-1, 1, 1, 1)


def grid(mu: float, std: float) -> tuple[Array, Array]:
    """Points and probabilities of a normal by the trapezoidal rule: the error is below rounding for a smooth f."""
    eps = np.linspace(-12.0, 12.0, 2401)
    return mu + std * eps, stats.norm.pdf(eps) * (eps[1] - eps[0])


def hermite(count: int) -> tuple[Array, Array]:
    """Nodes and probabilities of a standard normal, exact for polynomials up to degree 2 count - 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weights / weights.sum()


def mean_of(gradients: dict[str, Tensor], probs: Array) -> dict[str, Array]:
    return {name: np.tensordot(probs, g.numpy(), axes=(0, 0)) for name, g in gradients.items()}


def variance_of(gradients: dict[str, Tensor], probs: Array) -> dict[str, Array]:
    means = mean_of(gradients, probs)
    return {n: np.tensordot(probs, (g.numpy() - means[n]) ** 2, axes=(0, 0)) for n, g in gradients.items()}


# A table for one latent with three categories, far from symmetric, and the exact gradient in its logits.
LOGITS, TABLE = np.array([0.3, -0.8, 0.9]), np.array([2.0, -1.0, 7.0])
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum()
TABLE_GRADIENT = PROBS * (TABLE - PROBS @ TABLE)
TABLE_SCORE = np.eye(3) - PROBS  # row k is the score of category k
CATEGORY = {"logits": torch.as_tensor(LOGITS).reshape(1, 1, 3)}
LOOK_UP = expectation(lambda p: Categorical(p["logits"]), lambda z: torch.as_tensor(TABLE)[z[..., 0].long()])


def triples(count: int) -> tuple[Array, Tensor, Array]:
    """All ways to draw `count` categories: indices ``(R, count)``, draws ``(R, count, 1, 1)``, probabilities."""
    chosen = np.array(list(itertools.product(range(3), repeat=count)))
    draws = torch.as_tensor(chosen, dtype=DOUBLE).reshape(len(chosen), count, 1, 1)
    return chosen, draws, PROBS[chosen].prod(1)


def gaussian_moment(terms: dict[int, Fraction]) -> Fraction:
    """The mean of a polynomial {power: coefficient} in a standard normal number: the even power n has (n - 1)!!."""
    return sum((c * math.prod(range(1, n, 2)) for n, c in terms.items() if n % 2 == 0), start=Fraction(0))


def times(*factors: dict[int, Fraction]) -> dict[int, Fraction]:
    product = {0: Fraction(1)}
    for factor in factors:
        found: dict[int, Fraction] = {}
        for (m, a), (n, b) in itertools.product(product.items(), factor.items()):
            found[m + n] = found.get(m + n, Fraction(0)) + a * b
        product = found
    return product


def polynomial(*coefficients: int) -> dict[int, Fraction]:
    return {n: Fraction(c) for n, c in enumerate(coefficients)}


def exact_variance(estimate: dict[int, Fraction]) -> Fraction:
    return gaussian_moment(times(estimate, estimate)) - gaussian_moment(estimate) ** 2


QUADRATIC = expectation(normal, lambda z: (z**2).sum(-1))


@pytest.mark.equation("eq-the-gradient")
def test_the_parameters_sit_in_the_distribution() -> None:
    """The quantity asked for is the slope of an integral; an average over draws has no slope at all."""
    mu, std = 0.4, 0.7

    def average(mu: float, std: float) -> float:
        value, _ = integrate.quad(lambda z: math.tanh(z) * z * stats.norm.pdf(z, mu, std), -10.0, 10.0, **QUAD)
        return value

    objective = expectation(normal, lambda z: (torch.tanh(z) * z).sum(-1))
    z, probs = grid(mu, std)
    found = mean_of(ScoreFunction().at(objective, scalars(mu=mu, std=std), one_each(z)), probs)
    close(found["mu"].item(), slope(lambda m: average(m, std), mu), rtol=0.0, atol=DIFFERENCE)
    close(found["std"].item(), slope(lambda s: average(mu, s), std), rtol=0.0, atol=DIFFERENCE)

    leaves = {name: value.requires_grad_() for name, value in scalars(mu=mu, std=std).items()}
    draws = normal(leaves).sample(10, generator=make_generator(0))
    assert not (torch.tanh(draws) * draws).mean().requires_grad


@pytest.mark.equation("eq-score-function")
def test_score_function_of_a_step() -> None:
    """P(z > c) under a normal has slope N(c) in mu; the step itself has slope zero almost everywhere."""
    mu, std, c = 0.3, 1.4, 1.0
    objective = expectation(normal, lambda z: (z > c).to(z.dtype).sum(-1))
    params = scalars(mu=mu, std=std)

    def weighted(z: float, name: str) -> float:
        return float(ScoreFunction().at(objective, params, one_each(np.array([z])))[name]) * stats.norm.pdf(z, mu, std)

    edge = stats.norm.pdf(c, mu, std)
    for name, expected in {"mu": edge, "std": edge * (c - mu) / std}.items():
        value, _ = integrate.quad(weighted, c, mu + 12.0 * std, args=(name,), **QUAD)
        close(value, expected, rtol=1e-9)
    assert weighted(c - 0.1, "mu") == 0.0


@pytest.mark.equation("eq-score-function")
def test_score_function_of_a_gamma() -> None:
    """E[log z] = digamma(a) - log b under a Gamma; its slopes are trigamma(a) and -1 / b."""
    a, b = 2.3, 0.8
    t = np.linspace(-30.0, 6.0, 6001)  # z = exp(t): the integrand dies out like exp(a t) and exp(-b exp(t))
    z = np.exp(t)
    probs = stats.gamma.pdf(z, a, scale=1.0 / b) * z * (t[1] - t[0])
    objective = expectation(lambda p: Gamma(p["a"], p["b"]), lambda z: torch.log(z).sum(-1))
    found = mean_of(ScoreFunction().at(objective, scalars(a=a, b=b), one_each(z)), probs)
    close(found["a"].item(), special.polygamma(1, a))
    close(found["b"].item(), -1.0 / b)


@pytest.mark.equation("eq-score-function")
def test_score_function_of_a_table() -> None:
    """A latent with three values: the integral is a sum."""
    close((PROBS[:, None] * TABLE[:, None] * TABLE_SCORE).sum(0), TABLE_GRADIENT)
    _, draws, probs = triples(1)
    found = mean_of(ScoreFunction().at(LOOK_UP, CATEGORY, draws), probs)["logits"]
    close(found.ravel(), TABLE_GRADIENT)
    for k, unit in enumerate(np.eye(3)):
        expected = slope(lambda h, unit=unit: special.softmax(LOGITS + h * unit) @ TABLE, 0.0)
        close(TABLE_GRADIENT[k], expected, rtol=0.0, atol=DIFFERENCE)


@pytest.mark.equation("eq-score-estimator")
def test_score_estimator_is_a_mean_of_products() -> None:
    """Two data, three draws each: the scores of a Gamma are log z - digamma(a) + log b and a / b - z."""
    a, b = np.array([[1.5], [4.0]]), np.array([[0.6], [2.0]])
    z = stats.gamma.ppf(np.linspace(0.1, 0.9, 24), 2.0).reshape(4, 3, 2, 1)
    params = {"a": torch.as_tensor(a), "b": torch.as_tensor(b)}
    objective = expectation(lambda p: Gamma(p["a"], p["b"]), lambda z: torch.sqrt(z).sum(-1))
    found = ScoreFunction().at(objective, params, torch.as_tensor(z))
    close(found["a"], (np.sqrt(z) * (np.log(z) - special.digamma(a) + np.log(b))).mean(1))
    close(found["b"], (np.sqrt(z) * (a / b - z)).mean(1))


@pytest.mark.equation("eq-score-mean-zero")
def test_scores_have_mean_zero() -> None:
    """The library's score, averaged with densities that are not the library's."""
    z, probs = grid(0.4, 0.7)
    scores = score(QUADRATIC, scalars(mu=0.4, std=0.7), one_each(z))
    assert min(g.abs().max() for g in scores.values()) > 1.0
    for mean in mean_of(scores, probs).values():
        close(mean.item(), 0.0, atol=1e-10)

    t = np.linspace(-30.0, 6.0, 6001)
    probs = stats.gamma.pdf(np.exp(t), 2.3, scale=1.0 / 0.8) * np.exp(t) * (t[1] - t[0])
    family = expectation(lambda p: Gamma(p["a"], p["b"]), lambda z: z.sum(-1))
    for mean in mean_of(score(family, scalars(a=2.3, b=0.8), one_each(np.exp(t))), probs).values():
        close(mean.item(), 0.0, atol=1e-10)

    bit = expectation(lambda p: Bernoulli(p["a"]), lambda z: z.sum(-1))
    probs = stats.bernoulli.pmf([0, 1], special.expit(0.7))
    close(mean_of(score(bit, scalars(a=0.7), one_each(np.array([0.0, 1.0]))), probs)["a"].item(), 0.0)
    _, draws, probs = triples(1)
    close(mean_of(score(LOOK_UP, CATEGORY, draws), probs)["logits"].ravel(), np.zeros(3))


@pytest.mark.equation("eq-score-explicit")
def test_an_integrand_that_holds_the_parameters() -> None:
    """f = (z - 3 mu)² has mean 4 mu² + std²: slope 8 mu, of which the score gives -4 mu and the rest 12 mu."""
    mu, std = 0.7, 1.3
    eps, probs = hermite(4)
    params = scalars(mu=mu, std=std)
    inside = Objective(normal, lambda p, _q, z: ((z - 3.0 * p["mu"]) ** 2).sum(-1))
    found = mean_of(ScoreFunction().at(inside, params, one_each(mu + std * eps)), probs)
    close(found["mu"].item(), 8.0 * mu)
    close(found["std"].item(), 2.0 * std)
    blind = expectation(normal, lambda z: ((z - 3.0 * mu) ** 2).sum(-1))
    found = mean_of(ScoreFunction().at(blind, params, one_each(mu + std * eps)), probs)
    close(found["mu"].item(), -4.0 * mu)


@pytest.mark.equation("eq-score-elbo")
def test_the_minus_one_of_the_elbo() -> None:
    """z ~ N(0, 1), x | z ~ N(z, 1): the ELBO is x mu - mu² - std² + log std and a constant."""
    mu, std, x = 0.2, 0.6, 1.5
    eps, probs = hermite(6)
    z = mu + std * eps
    log_w = stats.norm.logpdf(x, z) + stats.norm.logpdf(z) - stats.norm.logpdf(z, mu, std)
    scores = {"mu": eps / std, "std": (eps**2 - 1.0) / std}
    exact = {"mu": x - 2.0 * mu, "std": -2.0 * std + 1.0 / std}
    model = LinearGaussian(*(torch.tensor(v, dtype=DOUBLE) for v in ([[1.0]], [0.0], [0.0])))
    objective = sgvb_a(model, normal, torch.tensor([[x]], dtype=DOUBLE))
    library = ScoreFunction().at(objective, scalars(mu=mu, std=std), one_each(z))
    for name, s in scores.items():
        close(probs @ ((log_w - 1.0) * s), exact[name])
        close(probs @ (log_w * s), exact[name])
        close(library[name].flatten(), (log_w - 1.0) * s)


@pytest.mark.equation("eq-score-variance")
@pytest.mark.parametrize("d", [0, 1, 2, 3, 10])
@pytest.mark.parametrize("std", [1.0, 0.5])
def test_variance_of_the_quadratic(d: int, std: float) -> None:
    """In fractions for std = 1 (a polynomial of degree 4 in d is settled by five values), and the library's."""
    f = times(polynomial(d, 1), polynomial(d, 1))
    by_mu, by_std = d**4 + 14 * d**2 + 15, 2 * d**4 + 60 * d**2 + 74
    assert exact_variance(times(f, polynomial(0, 1))) == by_mu
    assert exact_variance(times(f, polynomial(-1, 0, 1))) == by_std
    # The same distance in units of std: the variance then grows by std².
    eps, probs = hermite(5)
    at = scalars(mu=d * std, std=std)
    found = variance_of(ScoreFunction().at(QUADRATIC, at, one_each(std * (d + eps))), probs)
    close(found["mu"].item(), std**2 * by_mu)
    close(found["std"].item(), std**2 * by_std)


@pytest.mark.equation("eq-variance-dimension")
@pytest.mark.parametrize("d", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_variance_in_more_dimensions(d: float, dims: int) -> None:
    """The product of one-dimensional rules: degree 6 in each number, so four nodes do."""
    eps, one = hermite(4)
    nodes = np.array(list(itertools.product(eps, repeat=dims)))
    probs = np.array([math.prod(p) for p in itertools.product(one, repeat=dims)])
    z = torch.as_tensor(d + nodes).reshape(len(nodes), 1, 1, dims)
    at = {"mu": torch.full((1, dims), d, dtype=DOUBLE), "std": torch.ones(1, dims, dtype=DOUBLE)}
    rest = dims - 1
    plain = d**4 + 14 * d**2 + 15 + rest * (2 * (d**2 + 1) * (d**2 + 3) + 4 * d**2 + 2) + rest**2 * (d**2 + 1) ** 2
    found = variance_of(ScoreFunction().at(QUADRATIC, at, z), probs)["mu"].ravel()
    close(found, np.full(dims, plain))
    # Two lines of the text below it: what the mean of f and the own terms leave.
    found = variance_of(ScoreFunction(Constant(dims * (d**2 + 1))).at(QUADRATIC, at, z), probs)["mu"].ravel()
    close(found, np.full(dims, 8 * d**2 + 10 + rest * (4 * d**2 + 2)))
    terms = Objective(normal, lambda _p, _q, z: (z**2).sum(-1), local_terms=lambda _p, _q, z: z**2)
    found = variance_of(RaoBlackwell().at(terms, at, z), probs)["mu"].ravel()
    close(found, np.full(dims, d**4 + 14 * d**2 + 15))


@pytest.mark.equation("eq-baseline")
@pytest.mark.parametrize("b", [-30.0, 0.0, 2.5, 400.0])
def test_a_constant_leaves_the_mean(b: float) -> None:
    _, draws, probs = triples(1)
    gradients = ScoreFunction(Constant(b)).at(LOOK_UP, CATEGORY, draws)
    close(gradients["logits"].reshape(3, 3), (TABLE - b)[:, None] * TABLE_SCORE)
    close(mean_of(gradients, probs)["logits"].ravel(), TABLE_GRADIENT)
    eps, probs = hermite(4)
    found = mean_of(ScoreFunction(Constant(b)).at(QUADRATIC, scalars(mu=3.0, std=1.5), one_each(3 + 1.5 * eps)), probs)
    close([found["mu"].item(), found["std"].item()], [6.0, 3.0])


@pytest.mark.equation("eq-baseline-change")
@pytest.mark.parametrize("b", [-3.0, 0.5, 2.0, 11.0])
def test_the_variance_is_a_parabola_in_the_constant(b: float) -> None:
    _, draws, probs = triples(1)
    found = variance_of(ScoreFunction(Constant(b)).at(LOOK_UP, CATEGORY, draws), probs)["logits"].ravel()
    fs = TABLE[:, None] * TABLE_SCORE
    plain = PROBS @ fs**2 - (PROBS @ fs) ** 2
    close(found, plain - 2.0 * b * (PROBS @ (TABLE[:, None] * TABLE_SCORE**2)) + b**2 * (PROBS @ TABLE_SCORE**2))


@pytest.mark.equation("eq-optimal-constant")
def test_the_best_constant_is_the_lowest_point() -> None:
    """A search over constants, one parameter at a time, finds what the formula and the library say."""
    _, draws, probs = triples(1)
    formula = PROBS @ (TABLE[:, None] * TABLE_SCORE**2) / (PROBS @ TABLE_SCORE**2)
    assert np.ptp(formula) > 0.1  # each parameter has its own
    for j in range(3):
        search = optimize.minimize_scalar(
            lambda b, j=j: variance_of(ScoreFunction(Constant(b)).at(LOOK_UP, CATEGORY, draws), probs)[
                "logits"
            ].ravel()[j]
        )
        close(search.x, formula[j], rtol=1e-6)  # a minimum is found to the root of rounding
    found = OptimalBaseline().constants(LOOK_UP, CATEGORY, draws, torch.as_tensor(probs))["logits"]
    close(found.ravel(), formula)


@pytest.mark.equation("eq-optimal-constant")
@pytest.mark.parametrize("d", [0, 1, 3, 10])
def test_the_table_of_constants_and_variances(d: int) -> None:
    """The best constants of the quadratic are d² + 3 and d² + 5; the four rows of the table in fractions."""
    f, s_mu, s_std = times(polynomial(d, 1), polynomial(d, 1)), polynomial(0, 1), polynomial(-1, 0, 1)
    for s, best, plain, mean, lowest in (
        (s_mu, d**2 + 3, d**4 + 14 * d**2 + 15, 8 * d**2 + 10, 8 * d**2 + 6),
        (s_std, d**2 + 5, 2 * d**4 + 60 * d**2 + 74, 40 * d**2 + 56, 40 * d**2 + 24),
    ):
        assert gaussian_moment(times(f, s, s)) / gaussian_moment(times(s, s)) == best
        for b, expected in ((0, plain), (d**2 + 1, mean), (best, lowest)):
            assert exact_variance(times({**f, 0: f[0] - b}, s)) == expected
    assert exact_variance(polynomial(2 * d, 2)) == 4  # the slope of f along the draw
    assert exact_variance(times(polynomial(2 * d, 2), polynomial(0, 1))) == 4 * d**2 + 8


@pytest.mark.equation("eq-leave-one-out")
def test_leave_one_out_averages_the_others() -> None:
    f = np.array([[1.0, 10.0], [4.0, -2.0], [6.0, 0.0], [-3.0, 5.0]])
    expected = [[np.mean([f[t, i] for t in range(4) if t != s]) for i in range(2)] for s in range(4)]
    close(LeaveOneOut()(torch.as_tensor(f), LOOK_UP), expected)


@pytest.mark.equation("eq-leave-one-out")
@pytest.mark.parametrize("count", [2, 3])
def test_leave_one_out_has_no_bias(count: int) -> None:
    """Over all ways to draw: the mean is the exact gradient, each estimate is the one made by hand."""
    chosen, draws, probs = triples(count)
    gradients = ScoreFunction(LeaveOneOut()).at(LOOK_UP, CATEGORY, draws)
    f = TABLE[chosen]
    b = np.stack([np.delete(f, s, axis=1).mean(1) for s in range(count)], axis=1)
    close(gradients["logits"].reshape(-1, 3), ((f - b)[..., None] * TABLE_SCORE[chosen]).mean(1))
    close(mean_of(gradients, probs)["logits"].ravel(), TABLE_GRADIENT)


@pytest.mark.equation("eq-rao-blackwell")
def test_terms_that_do_not_feel_a_coordinate_may_go() -> None:
    """A chain of three bits, f = g(z1, z2) + h(z2, z3): all eight values, with the own terms and with the others."""
    g, h = np.array([[1.0, -2.0], [4.0, 0.5]]), np.array([[3.0, 5.0], [-6.0, 2.0]])
    logits = np.array([0.4, -1.1, 0.8])
    ones = special.expit(logits)
    bits = np.array(list(itertools.product([0, 1], repeat=3)))
    probs = np.where(bits == 1, ones, 1.0 - ones).prod(1)
    first, second = g[bits[:, 0], bits[:, 1]], h[bits[:, 1], bits[:, 2]]
    own = np.stack([first, first + second, second], axis=1)
    s = bits - ones
    # The mean of f is linear in each bit's probability: its slope is the difference of two conditional means.
    exact = np.empty(3)
    for j in range(3):
        up, down = ((probs * (bits[:, j] == value)) @ (first + second) for value in (1, 0))
        exact[j] = ones[j] * (1.0 - ones[j]) * (up / ones[j] - down / (1.0 - ones[j]))
    close(probs @ (own * s), exact)
    close(probs @ (((first + second)[:, None] - own) * s), np.zeros(3))

    def tables(z: Tensor) -> tuple[Tensor, Tensor]:
        i = z.long()
        return torch.as_tensor(g)[i[..., 0], i[..., 1]], torch.as_tensor(h)[i[..., 1], i[..., 2]]

    def own_terms(_p: Params, _q: object, z: Tensor) -> Tensor:
        one, two = tables(z)
        return torch.stack([one, one + two, two], -1)

    objective = Objective(lambda p: Bernoulli(p["a"]), lambda _p, _q, z: sum(tables(z)), local_terms=own_terms)
    draws = torch.as_tensor(bits, dtype=DOUBLE).reshape(8, 1, 1, 3)
    found = RaoBlackwell().at(objective, {"a": torch.as_tensor(logits).reshape(1, 3)}, draws)
    close(found["a"].reshape(8, 3), own * s)
    close(mean_of(found, probs)["a"].ravel(), exact)


@pytest.mark.equation("eq-antithetic")
@pytest.mark.parametrize("d", [0, 1, 2, 3, 10])
def test_variance_of_antithetic_pairs(d: int) -> None:
    """The mean over a draw and its mirror image, in fractions; then the library on mirrored nodes."""
    half = polynomial(1)
    half[0] = Fraction(1, 2)

    def pair(s: dict[int, Fraction]) -> dict[int, Fraction]:
        one = times(polynomial(d, 1), polynomial(d, 1), s)
        return times(half, {n: c + (-1) ** n * c for n, c in one.items()})

    by_mu, by_std = 8 * d**2, 2 * d**4 + 20 * d**2 + 74
    assert exact_variance(pair(polynomial(0, 1))) == by_mu
    assert exact_variance(pair(polynomial(-1, 0, 1))) == by_std
    # Against two independent samples: better for mu, worse for std, at every distance.
    assert 2 * by_mu < d**4 + 14 * d**2 + 15
    assert 2 * by_std > 2 * d**4 + 60 * d**2 + 74

    eps, probs = hermite(5)
    z = torch.as_tensor(np.stack([d + eps, d - eps], axis=1)).reshape(5, 2, 1, 1)
    found = variance_of(ScoreFunction(antithetic=True).at(QUADRATIC, scalars(mu=d, std=1.0), z), probs)
    close([found["mu"].item(), found["std"].item()], [by_mu, by_std], atol=1e-10)


@pytest.mark.equation("eq-antithetic")
def test_the_library_draws_mirrored_pairs() -> None:
    """One pair gives 2 d eps² and (d² + eps²)(eps² - 1): the second is a function of the first, for every draw."""
    d = 1.5
    found = ScoreFunction(antithetic=True)(
        QUADRATIC, scalars(mu=d, std=1.0), num_estimates=50, num_samples=2, generator=make_generator(0)
    )
    squared = found["mu"] / (2.0 * d)
    assert float(squared.min()) >= 0.0
    assert float(squared.std()) > 0.1
    close(found["std"], (d**2 + squared) * (squared - 1.0), rtol=1e-8, atol=1e-10)


@pytest.mark.equation("eq-missing-detach")
def test_a_missing_detach_adds_the_slope_of_the_entropy() -> None:
    """For a Gamma by scipy's entropy, for a normal by its slope 1 / std."""
    a, b = 2.3, 0.8
    t = np.linspace(-30.0, 6.0, 6001)
    z = np.exp(t)
    probs = stats.gamma.pdf(z, a, scale=1.0 / b) * z * (t[1] - t[0])
    log_q = stats.gamma.logpdf(z, a, scale=1.0 / b)
    family = expectation(lambda p: Gamma(p["a"], p["b"]), lambda z: z.sum(-1))
    scores = score(family, scalars(a=a, b=b), one_each(z))
    found = {name: -probs @ (log_q * s.numpy().ravel()) for name, s in scores.items()}
    entropy = stats.gamma.entropy
    close(found["a"], slope(lambda v: float(entropy(v, scale=1.0 / b)), a), rtol=0.0, atol=DIFFERENCE)
    close(found["b"], slope(lambda v: float(entropy(a, scale=1.0 / v)), b), rtol=0.0, atol=DIFFERENCE)


@pytest.mark.equation("eq-missing-detach")
@pytest.mark.parametrize("ratio", [1.0, 2.0, 3.0])
def test_without_the_detach_the_best_variance_is_doubled(ratio: float) -> None:
    """Posterior N(1/2, 1/2): at `ratio` times its variance the slope in log std is 1 - ratio; undetached, 2 - ratio."""
    std = math.sqrt(0.5 * ratio)
    eps, probs = hermite(6)
    x = torch.tensor([[1.0]], dtype=DOUBLE)
    model = LinearGaussian(*(torch.tensor(v, dtype=DOUBLE) for v in ([[1.0]], [0.0], [0.0])))
    objective = sgvb_a(model, normal, x)
    at, z = scalars(mu=0.5, std=std), one_each(0.5 + std * eps)

    def surrogate(p: Params, z: Tensor) -> Tensor:
        q = normal(p)
        return (objective.integrand(p, q, z) * q.log_prob(z)).sum()

    undetached = torch.func.vmap(torch.func.grad(surrogate), in_dims=(None, 0))(at, z)
    detached = ScoreFunction().at(objective, at, z)
    close(std * mean_of(detached, probs)["std"].item(), 1.0 - ratio)
    close(std * mean_of(undetached, probs)["std"].item(), 2.0 - ratio)
    close(mean_of(undetached, probs)["mu"].item(), 0.0)


class EveryonesMean:
    """The mistake: the mean of all draws, its own among them."""

    def __call__(self, f: Tensor, objective: Objective) -> Tensor:
        return f.mean(0, keepdim=True)

    def update(self, f: Tensor, objective: Objective) -> None:
        """Learn nothing."""


@pytest.mark.equation("eq-saw-its-sample")
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_baseline_that_saw_its_own_sample_shrinks_the_gradient(count: int) -> None:
    chosen, draws, probs = triples(count)
    f = TABLE[chosen]
    by_hand = ((f - f.mean(1, keepdims=True))[..., None] * TABLE_SCORE[chosen]).mean(1)
    close(probs @ by_hand, (1.0 - 1.0 / count) * TABLE_GRADIENT)
    found = ScoreFunction(EveryonesMean()).at(LOOK_UP, CATEGORY, draws)
    close(found["logits"].reshape(-1, 3), by_hand)
    # Leave-one-out is this estimate with the bias divided out.
    others = ScoreFunction(LeaveOneOut()).at(LOOK_UP, CATEGORY, draws)
    close(others["logits"], found["logits"] * count / (count - 1))
