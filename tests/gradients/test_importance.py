"""Gradients of the importance-weighted bound: exact means by quadrature, single estimates by hand, and their noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from tests.gradients.elbos import THETA, X4, encoder_network, linear_gaussian_diagonal, linear_gaussian_of
from tests.gradients.problem import DOUBLE, Params, diagonal, tensor
from tests.gradients.problems import PROBLEMS, names
from tests.gradients.rules import mean_and_variance
from tests.oracles import assert_close, randn
from vae_lib.bounds import importance_weighted, importance_weighted_bound, log_weights
from vae_lib.densities import DiagonalNormal, FullNormal, Gamma
from vae_lib.exact import GammaPoisson, LinearGaussian
from vae_lib.gradients import (
    ImportanceWeighted,
    Objective,
    Pathwise,
    doubly_reparameterized,
    measure,
    sgvb_a,
    sticking_the_landing,
)
from vae_lib.protocols import Density
from vae_lib.rng import make_generator

BOTH = [ImportanceWeighted(), ImportanceWeighted(doubly=True)]

# -- one latent and two draws: everything by quadrature --------------------------------------------------------------

X = tensor([0.8, -0.4])
ONE_LATENT = {
    "mu": tensor([0.7]),
    "logvar": tensor([-0.4]),
    "weight": tensor([0.9], [-0.5]),
    "bias": torch.tensor([0.1, 0.2], dtype=DOUBLE),
    "noise": torch.tensor([-0.6, 0.3], dtype=DOUBLE),
}


def exact_bound_of_two(p: Params) -> Tensor:
    """The bound as a double integral over z, on a grid that does not move with q: spectrally accurate."""
    z = torch.linspace(-9.0, 9.0, 361, dtype=DOUBLE)
    q = td.Normal(p["mu"], torch.exp(p["logvar"] / 2)).log_prob(z).squeeze(0)
    x_given_z = td.Normal(z.unsqueeze(-1) * p["weight"].squeeze(-1) + p["bias"], torch.exp(p["noise"] / 2))
    log_w = td.Normal(0.0, 1.0).log_prob(z) + x_given_z.log_prob(X).sum(-1) - q
    bound = torch.logaddexp(log_w.unsqueeze(0), log_w.unsqueeze(1)) - math.log(2.0)
    return (torch.exp(q.unsqueeze(0) + q.unsqueeze(1)) * bound).sum() * (z[1] - z[0]) ** 2


def pairs_of_noise() -> tuple[Tensor, Tensor]:
    """Every pair of nodes ``(N^2, 2, 1, 1)`` of a trapezoid rule for two normal numbers, with its weight."""
    node = torch.linspace(-9.0, 9.0, 145, dtype=DOUBLE)
    weight = torch.softmax(-0.5 * node**2, 0)
    pairs = torch.cartesian_prod(node, node)
    return pairs.reshape(-1, 2, 1, 1), torch.outer(weight, weight).flatten()


@pytest.mark.parametrize("estimator", BOTH)
def test_the_exact_mean_with_two_draws(estimator: ImportanceWeighted) -> None:
    leaves = {name: value.clone().requires_grad_() for name, value in ONE_LATENT.items()}
    exact = torch.autograd.grad(exact_bound_of_two(leaves), list(leaves.values()))
    noise, weights = pairs_of_noise()
    gradients = estimator.at(sgvb_a(linear_gaussian_of, diagonal, X), ONE_LATENT, noise)
    found = mean_and_variance(gradients, weights)
    for name, value in zip(leaves, exact, strict=True):
        assert_close(found[name][0], value, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("estimator", BOTH)
def test_the_exact_mean_where_q_and_the_model_share_a_parameter(estimator: ImportanceWeighted) -> None:
    """One number is q's mean and the model's bias: it takes both ways, and both count."""

    def model(p: Params) -> LinearGaussian:
        return linear_gaussian_of({**ONE_LATENT, "bias": torch.cat([p["both"].squeeze(0), p["both"].squeeze(0) ** 2])})

    def family(p: Params) -> DiagonalNormal:
        return DiagonalNormal(p["both"], ONE_LATENT["logvar"])

    leaf = tensor([0.3]).requires_grad_()
    bias = torch.cat([leaf.squeeze(0), leaf.squeeze(0) ** 2])
    (exact,) = torch.autograd.grad(exact_bound_of_two({**ONE_LATENT, "mu": leaf, "bias": bias}), leaf)
    noise, weights = pairs_of_noise()
    gradients = estimator.at(sgvb_a(model, family, X), {"both": leaf.detach()}, noise)
    assert_close(mean_and_variance(gradients, weights)["both"][0], exact, rtol=1e-8, atol=1e-9)


# -- single estimates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", BOTH)
def test_a_model_that_cannot_be_vectorised(estimator: ImportanceWeighted) -> None:
    """A branch on a value: refused by default, and taken estimate by estimate when asked."""

    def integrand(_params: Params, q: Density, z: Tensor) -> Tensor:
        return -((z if float(z.detach().sum()) > 0.0 else 2.0 * z) ** 2).sum(-1) - q.log_prob(z)

    objective, params = Objective(diagonal, integrand), {"mu": randn(3, 2, seed=149), "logvar": randn(3, 2, seed=150)}
    with pytest.raises(RuntimeError, match=r"^vectorised: expected functions that torch\.func\.vmap can run"):
        estimator(objective, params, num_estimates=4, num_samples=2, generator=make_generator(7))
    found = estimator(objective, params, num_estimates=4, num_samples=2, generator=make_generator(7), vectorised=False)
    assert found["mu"].shape == (4, 3, 2)
    assert float(found["mu"].std(0).min()) > 0.0


def test_a_single_doubly_reparameterised_gradient_by_hand() -> None:
    """q's parameters: squared shares times the slope of log w in z times that of the draw; the model's: shares once."""
    problem = linear_gaussian_diagonal()
    noise = randn(3, 4, 3, 2, seed=141)
    found = ImportanceWeighted(doubly=True).at(problem.objective, problem.params, noise)
    mu, std = problem.params["mu"], torch.exp(0.5 * problem.params["logvar"])
    for i in range(3):
        z = (mu + std * noise[i]).requires_grad_()
        theta = {name: problem.params[name].clone().requires_grad_() for name in THETA}
        likelihood = td.Normal(z @ theta["weight"].mT + theta["bias"], torch.exp(0.5 * theta["noise"]))
        log_p = likelihood.log_prob(X4).sum(-1) + td.Normal(0.0, 1.0).log_prob(z).sum(-1)
        log_w = log_p - td.Normal(mu, std).log_prob(z).sum(-1)
        shares = (log_w.exp() / log_w.exp().sum(0)).detach()
        (slope,) = torch.autograd.grad(log_w.sum(), z, retain_graph=True)
        assert_close(found["mu"][i], (shares.unsqueeze(-1) ** 2 * slope).sum(0))
        assert_close(found["logvar"][i], (shares.unsqueeze(-1) ** 2 * slope * 0.5 * std * noise[i]).sum(0))
        for name, value in zip(theta, torch.autograd.grad((shares * log_w).sum(), list(theta.values())), strict=True):
            assert_close(found[name][i], value)


def test_a_single_plain_gradient_is_that_of_the_bound() -> None:
    problem = linear_gaussian_diagonal()
    noise = randn(3, 4, 3, 2, seed=142)
    found = ImportanceWeighted().at(problem.objective, problem.params, noise)
    for i in range(3):
        leaves = {name: value.clone().requires_grad_() for name, value in problem.params.items()}
        q = diagonal(leaves)
        bound = importance_weighted(linear_gaussian_of(leaves), q, X4, q.from_noise(noise[i])).sum()
        for name, value in zip(leaves, torch.autograd.grad(bound, list(leaves.values())), strict=True):
            assert_close(found[name][i], value)


@pytest.mark.parametrize("name", names("path", "elbo"))
def test_one_draw_is_the_path_and_the_landing(name: str) -> None:
    problem = PROBLEMS[name]()
    arguments: dict[str, Any] = {"num_estimates": 4, "num_samples": 3, "generator": make_generator(1)}
    pairs = ((ImportanceWeighted(1), Pathwise()), (ImportanceWeighted(1, doubly=True), sticking_the_landing()))
    for ours, theirs in pairs:
        found = ours(problem.objective, problem.params, **arguments)
        expected = theirs(problem.objective, problem.params, **(arguments | {"generator": make_generator(1)}))
        arguments["generator"] = make_generator(1)
        for parameter in expected:
            assert_close(found[parameter], expected[parameter])


@pytest.mark.parametrize("doubly", [False, True])
@pytest.mark.parametrize("vectorised", [True, False])
def test_groups_are_averaged(doubly: bool, vectorised: bool) -> None:
    """Six draws in groups of two are the mean of three estimates of two; all six are another bound."""
    problem = encoder_network()
    noise = randn(5, 6, 3, 2, seed=143)
    arguments: dict[str, Any] = {"vectorised": vectorised}
    whole = ImportanceWeighted(2, doubly).at(problem.objective, problem.params, noise, **arguments)
    parts = ImportanceWeighted(None, doubly).at(problem.objective, problem.params, noise.reshape(15, 2, 3, 2))
    six = ImportanceWeighted(None, doubly).at(problem.objective, problem.params, noise, **arguments)
    again = ImportanceWeighted(6, doubly).at(problem.objective, problem.params, noise, **arguments)
    for name, value in whole.items():
        assert_close(value, parts[name].reshape(5, 3, *value.shape[1:]).mean(1))
        assert not torch.allclose(value, six[name])
        assert_close(six[name], again[name])


def test_the_model_has_the_plain_gradient_in_both() -> None:
    problem = encoder_network()
    arguments: dict[str, Any] = {"num_estimates": 5, "num_samples": 4}
    plain, doubly = (each(problem.objective, problem.params, generator=make_generator(2), **arguments) for each in BOTH)
    for name in problem.params:
        if name in THETA:
            assert_close(doubly[name], plain[name])
        else:
            assert not torch.allclose(doubly[name], plain[name])


@pytest.mark.parametrize("vectorised", [True, False])
def test_at_the_exact_posterior_every_single_gradient_of_q_is_zero(vectorised: bool) -> None:
    posterior = linear_gaussian_of(THETA).posterior(X4)

    def family(p: Params) -> FullNormal:
        return FullNormal(p["mu"], p["tril"].tril())

    params = {**THETA, "mu": posterior.mu, "tril": posterior.scale_tril.clone()}
    plain, doubly = (
        each(
            sgvb_a(linear_gaussian_of, family, X4),
            params,
            num_estimates=40,
            num_samples=3,
            generator=make_generator(3),
            vectorised=vectorised,
        )
        for each in BOTH
    )
    for name in ("mu", "tril"):
        # A difference of two gradients of size 10, each right to some roundings of 2e-16.
        assert float(doubly[name].abs().max()) < 1e-12
        assert float((plain[name].flatten(1).abs().amax(1) > 1e-2).double().mean()) > 0.95
    for name in THETA:
        assert_close(doubly[name], plain[name])


# -- the bound for the trainer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [linear_gaussian_diagonal, encoder_network])
@pytest.mark.parametrize("count", [1, 4])
def test_the_bound_has_the_value_of_one_and_the_gradient_of_the_other(make: Callable[[], Any], count: int) -> None:
    """Through the parameters of q, an encoder network, and those of the model; the data are weighted unequally."""
    problem = make()
    noise = randn(count, 3, 2, seed=144)
    leaves = {name: value.clone().requires_grad_() for name, value in problem.params.items()}
    q, model = problem.objective.family(leaves), linear_gaussian_of(leaves)
    bound = doubly_reparameterized(model, q, X4, q.from_noise(noise))
    assert torch.equal(bound, importance_weighted(model, q, X4, q.from_noise(noise)))
    gradients = torch.autograd.grad(bound.sum(), list(leaves.values()))
    expected = ImportanceWeighted(doubly=True).at(problem.objective, problem.params, noise.unsqueeze(0))
    for name, value in zip(leaves, gradients, strict=True):
        assert_close(value, expected[name][0])


def test_the_draws_of_the_caller_keep_their_own_gradient() -> None:
    """The bound counts each slope twice on its own path only, not on another use of the same draws."""
    q = DiagonalNormal(tensor([0.2, 0.4]).requires_grad_(), tensor([-1.0, -0.5]))
    z = q.from_noise(randn(3, 1, 2, seed=145))
    doubly_reparameterized(linear_gaussian_of(THETA), q, X4[:1], z)
    (slope,) = torch.autograd.grad(z.sum(), q.mu)
    assert_close(slope, torch.full_like(slope, 3.0))


def test_the_bound_of_a_gamma() -> None:
    """Draws made of implicit gradients; the same shares, by hand."""
    problem = PROBLEMS["Gamma-Poisson"]()
    assert problem.objective.x is not None
    leaves = {name: value.clone().requires_grad_() for name, value in problem.params.items()}
    q = problem.objective.family(leaves)
    assert isinstance(q, Gamma)
    noise = q.noise(4, generator=make_generator(4))

    model = GammaPoisson(leaves["prior_a"], leaves["prior_b"], 3)
    bound = doubly_reparameterized(model, q, problem.objective.x, q.from_noise(noise))
    gradients = torch.autograd.grad(bound.sum(), list(leaves.values()))
    estimator = ImportanceWeighted(doubly=True)
    expected = estimator.at(problem.objective, problem.params, tuple(part.unsqueeze(0) for part in noise))
    for name, value in zip(leaves, gradients, strict=True):
        assert_close(value, expected[name][0])


def test_without_gradients_it_is_a_bound_all_the_same() -> None:
    q = DiagonalNormal(tensor([0.2, 0.4]).requires_grad_(), tensor([-1.0, -0.5]))
    model, x = linear_gaussian_of(THETA), X4[:1]
    z = q.sample(3, generator=make_generator(5))
    with torch.no_grad():
        assert_close(doubly_reparameterized(model, q, x, z), importance_weighted(model, q, x, z))
    held = DiagonalNormal(q.mu.detach(), q.logvar)  # an encoder that is not trained
    assert_close(doubly_reparameterized(model, held, x, z), importance_weighted(model, held, x, z))
    with pytest.raises(
        ValueError, match=r"^z: expected draws with a gradient \(q\.rsample\), found draws without one$"
    ):
        doubly_reparameterized(model, q, x, z)


# -- noise -----------------------------------------------------------------------------------------------------------


def test_signal_to_noise_has_its_slopes_in_k() -> None:
    """Rainforth and others (2018): the encoder's falls like K^-1/2, the model's and the doubly one rise like K^1/2.

    x | z ~ N(z + bias, 1), z ~ N(0, 1), with a q that is wider than the posterior, so that weights are bounded. The
    laws hold to a relative order 1/K: from K = 8 on, slopes are right to a tenth. Signals by the doubly reparameterised
    gradient, whose error is the smaller; every signal is known to 5 percent, every noise to 2.
    """
    params = {"mu": tensor([0.3]), "logvar": tensor([0.2]), "bias": torch.zeros(1, dtype=DOUBLE)}

    def model(p: Params) -> LinearGaussian:
        one = torch.ones(1, 1, dtype=DOUBLE)
        return LinearGaussian(one, p["bias"], 0.0 * one[0])

    objective = sgvb_a(model, diagonal, tensor([1.5]))
    counts = (8, 16, 32, 64)
    ratios: dict[str, list[float]] = {"encoder": [], "model": [], "doubly": []}
    for count in counts:
        arguments: dict[str, Any] = {"num_estimates": 16_000, "num_samples": count}
        plain, doubly = (
            measure(each, objective, params, generator=make_generator(6, count), **arguments) for each in BOTH
        )
        for name in ("mu", "bias"):
            assert float(doubly.standard_error[name]) < 0.05 * float(doubly.mean[name].abs())
            assert float(plain.variance_error[name]) < 0.04 * float(plain.variance[name])
        ratios["encoder"].append(float(doubly.mean["mu"].abs() / plain.variance["mu"].sqrt()))
        ratios["model"].append(float(plain.signal_to_noise["bias"]))
        ratios["doubly"].append(float(doubly.signal_to_noise["mu"]))
    slope = {
        name: math.log(values[-1] / values[0]) / math.log(counts[-1] / counts[0]) for name, values in ratios.items()
    }
    assert slope["encoder"] == pytest.approx(-0.5, abs=0.1)
    assert slope["model"] == pytest.approx(0.5, abs=0.1)
    assert slope["doubly"] == pytest.approx(0.5, abs=0.1)
    assert ratios["doubly"][-1] > 10.0 * ratios["encoder"][-1]


# -- what does not fit -----------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_told() -> None:
    problem = linear_gaussian_diagonal()
    with pytest.raises(ValueError, match=r"^num_importance: expected a divisor of the 3 samples, found 2$"):
        ImportanceWeighted(2)(problem.objective, problem.params, num_samples=3, generator=make_generator(1))
    with pytest.raises(ValueError, match=r"^num_importance: expected a positive integer, found 0$"):
        ImportanceWeighted(0)
    with pytest.raises(TypeError, match=r"^params\['mu'\]: expected a floating-point tensor, found torch\.int64$"):
        ImportanceWeighted()(problem.objective, {"mu": torch.tensor([1])}, generator=make_generator(1))
    with pytest.raises(ValueError, match=r"^params: expected at least one named tensor, found none$"):
        ImportanceWeighted().at(problem.objective, {}, randn(1, 1, 3, 2))
    with pytest.raises(ValueError, match=r"^num_estimates: expected a positive integer, found 0$"):
        ImportanceWeighted()(problem.objective, problem.params, num_estimates=0, generator=make_generator(1))
    bits = PROBLEMS["belief net"]()
    with pytest.raises(TypeError, match=r"^family: expected a density with rsample and from_noise, found Bernoulli$"):
        ImportanceWeighted()(bits.objective, bits.params, generator=make_generator(1))
    analytic = linear_gaussian_diagonal(analytic_kl=True)
    for estimator in BOTH:
        with pytest.raises(ValueError, match=r"^objective: expected one whose values are log-weights \(sgvb_a\)"):
            estimator(analytic.objective, analytic.params, generator=make_generator(1))


def test_the_integrand_is_any_log_weight() -> None:
    """An objective of one's own: its values are taken for log-weights."""
    objective = Objective(diagonal, lambda p, q, z: log_weights(linear_gaussian_of(THETA), q, X4, z))
    params = {"mu": randn(3, 2, seed=146), "logvar": randn(3, 2, seed=147)}
    noise = randn(1, 4, 3, 2, seed=148)
    found = ImportanceWeighted(2).at(objective, params, noise)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    q = diagonal(leaves)
    log_w = log_weights(linear_gaussian_of(THETA), q, X4, q.from_noise(noise[0]))
    bound = importance_weighted_bound(log_w, 2).mean(0).sum()
    for name, value in zip(leaves, torch.autograd.grad(bound, list(leaves.values())), strict=True):
        assert_close(found[name][0], value)
