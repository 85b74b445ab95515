"""Log-weights and the two ELBO estimators, by hand and on a model of two numbers; refusals that name both shapes."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from tests.oracles import MODELS, assert_close, assert_mean, assert_same_value_and_gradient, model_case, randn
from vae_lib.bounds import elbo, elbo_with_analytic_kl, log_joint, log_weights
from vae_lib.densities import DiagonalNormal, StudentT
from vae_lib.divergences import kl
from vae_lib.estimate import mean_with_error
from vae_lib.exact import LinearGaussian
from vae_lib.rng import make_generator

each_model = pytest.mark.parametrize("name", MODELS)
WEIGHT, BIAS, NOISE = randn(4, 2, seed=11), randn(4, seed=12), randn(4, seed=13)
X, Z, MU, LOGVAR = randn(3, 4, seed=14), randn(5, 3, 2, seed=15), randn(3, 2, seed=16), randn(3, 2, seed=17)


def foreign_log_joint(x: Tensor, z: Tensor, weight: Tensor, bias: Tensor, noise: Tensor) -> Tensor:
    likelihood = td.Normal(z @ weight.T + bias, torch.exp(noise / 2)).log_prob(x).sum(2)
    return likelihood + td.Normal(0.0, 1.0).log_prob(z).sum(2)


def foreign_log_q(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return td.Normal(mu, torch.exp(logvar / 2)).log_prob(z).sum(2)


def test_log_joint_is_likelihood_times_prior() -> None:
    assert_same_value_and_gradient(
        lambda x, z, *p: log_joint(LinearGaussian(*p), x, z), foreign_log_joint, (X, Z, WEIGHT, BIAS, NOISE)
    )


def test_log_weights_are_joint_over_q() -> None:
    assert_same_value_and_gradient(
        lambda x, z, mu, logvar, *p: log_weights(LinearGaussian(*p), DiagonalNormal(mu, logvar), x, z),
        lambda x, z, mu, logvar, *p: foreign_log_joint(x, z, *p) - foreign_log_q(z, mu, logvar),
        (X, Z, MU, LOGVAR, WEIGHT, BIAS, NOISE),
    )


@pytest.mark.equation("eq-elbo-split")
def test_the_analytic_form_is_likelihood_less_kl() -> None:
    def foreign(x: Tensor, z: Tensor, mu: Tensor, logvar: Tensor, *p: Tensor) -> Tensor:
        weight, bias, noise = p
        likelihood = td.Normal(z @ weight.T + bias, torch.exp(noise / 2)).log_prob(x).sum(2)
        prior = td.Normal(torch.zeros_like(mu), torch.ones_like(mu))
        return likelihood - td.kl_divergence(td.Normal(mu, torch.exp(logvar / 2)), prior).sum(1)

    assert_same_value_and_gradient(
        lambda x, z, mu, logvar, *p: elbo_with_analytic_kl(LinearGaussian(*p), DiagonalNormal(mu, logvar), x, z),
        foreign,
        (X, Z, MU, LOGVAR, WEIGHT, BIAS, NOISE),
    )


@each_model
@pytest.mark.parametrize("analytic_kl", [False, True])
def test_elbo_draws_and_evaluates(name: str, analytic_kl: bool) -> None:
    model, x, q = model_case(name)
    z = q.sample(5, generator=make_generator(1))
    evaluate = elbo_with_analytic_kl if analytic_kl else log_weights
    found = elbo(model, q, x, num_samples=5, generator=make_generator(1), analytic_kl=analytic_kl)
    assert_close(found, evaluate(model, q, x, z))


def test_sampling_is_the_default() -> None:
    model, x, q = model_case("LinearGaussian")
    by_default = elbo(model, q, x, num_samples=5, generator=make_generator(1))
    assert torch.equal(by_default, elbo(model, q, x, num_samples=5, generator=make_generator(1), analytic_kl=False))


@each_model
def test_the_two_estimators_differ_by_a_mean_of_zero(name: str) -> None:
    model, x, q = model_case(name)
    z = q.sample(20_000, generator=make_generator(2))
    difference = log_weights(model, q, x, z) - elbo_with_analytic_kl(model, q, x, z)
    assert float(difference.std()) > 0.1  # a sampled KL is not the closed one
    assert_mean(difference, torch.zeros(x.shape[0]), ceiling=0.03)


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_gradients_reach_the_parameters_of_q_through_the_draw(analytic_kl: bool) -> None:
    """The mean of the reparameterised gradient is the gradient of the closed-form ELBO."""
    count = 20_000
    model = LinearGaussian(WEIGHT, BIAS, NOISE)
    # A copy of q for every draw, so that every draw has a gradient of its own.
    mu, logvar = (parameter[:1].expand(count, -1).clone().requires_grad_() for parameter in (MU, LOGVAR))
    x = X[:1].expand(count, -1)
    bound = elbo(
        model, DiagonalNormal(mu, logvar), x, num_samples=1, generator=make_generator(3), analytic_kl=analytic_kl
    )
    gradients = torch.autograd.grad(bound.sum(), (mu, logvar))
    leaves = [parameter[:1].clone().requires_grad_() for parameter in (MU, LOGVAR)]
    exact = torch.autograd.grad(model.elbo(X[:1], DiagonalNormal(*leaves)).sum(), leaves)
    for gradient, expected in zip(gradients, exact, strict=True):
        scale = float(gradient.std())
        # A gradient without the path through z would be off by its whole size, many of these error bars.
        assert_mean(gradient / scale, expected[0] / scale, ceiling=2.0 / count**0.5)


def test_a_q_without_a_path_gives_no_gradient() -> None:
    """Fixed draws would give numbers that look like a gradient in q and are not one; log_weights leaves it to you."""
    model, x, q = model_case("DiscreteJoint")
    model.logits_z = model.logits_z.clone().requires_grad_()
    for analytic_kl in (False, True):
        bound = elbo(model, q, x, num_samples=5, generator=make_generator(4), analytic_kl=analytic_kl)
        assert not bound.requires_grad
    assert log_weights(model, q, x, q.sample(5, generator=make_generator(4))).requires_grad


@pytest.mark.equation("eq-mean-plug-in")
def test_evaluating_at_the_mean_is_no_bound() -> None:
    """log p(x | z = μ) exceeds E_q log p(x|z) by ½ tr(Wᵀ Ψ⁻¹ W Σ), so the 'ELBO' of it is too high by as much."""
    model, x, q = model_case("LinearGaussian")
    at_mean = elbo_with_analytic_kl(model, q, x, q.mu.unsqueeze(0))[0]
    precision = model.weight.T @ torch.diag(torch.exp(-model.logvar)) @ model.weight
    excess = 0.5 * torch.stack([torch.trace(precision @ sigma) for sigma in q.covariance])
    assert bool((excess > 0.1).all())
    assert_close(at_mean - model.elbo(x, q), excess)
    z = q.sample(20_000, generator=make_generator(5))
    plug_in = model.log_p_x_given_z(x, q.mu.unsqueeze(0))[0] - model.log_p_x_given_z(x, z)
    assert_mean(plug_in, excess, ceiling=0.03)
    posterior = model.posterior(x)  # with the exact posterior the ELBO is log p(x), so the plug-in lies above it
    above = elbo_with_analytic_kl(model, posterior, x, posterior.mu.unsqueeze(0))[0]
    assert bool((above > model.log_p_x(x) + 0.1).all())


@pytest.mark.equation("eq-naive-mc-error")
def test_the_error_of_the_naive_estimate() -> None:
    """Var[p(x|z)] / p(x)² over the prior is E_{p(z|x)}[p(z|x)/p(z)] - 1: by enumeration, then in 2000 repeats."""
    model, x, _ = model_case("DiscreteJoint")
    z = model.latent_support().unsqueeze(1).expand(-1, x.shape[0], -1)
    prior, posterior = (d.log_prob(z).exp() for d in (model.prior(x.shape[0]), model.posterior(x)))
    likelihood, p_x = model.log_p_x_given_z(x, z).exp(), model.log_p_x(x).exp()
    relative = ((prior * likelihood**2).sum(0) - p_x**2) / p_x**2
    chi_square = (posterior * posterior / prior).sum(0) - 1.0
    assert_close(relative, chi_square)
    samples, repeats = 10, 2000
    draws = model.prior(x.shape[0]).sample(samples * repeats, generator=make_generator(6))
    estimates = model.log_p_x_given_z(x, draws).exp().reshape(repeats, samples, -1).mean(1) / p_x
    assert_mean((estimates - 1.0) ** 2, chi_square / samples, ceiling=0.005)


@pytest.mark.equation("eq-naive-mc-error")
def test_the_error_of_the_naive_estimate_of_a_normal() -> None:
    """The same with integrals: z ~ N(0, 1), x | z ~ N(z, 1) at x = 1.5, where the chi-square has a closed form."""
    one = torch.ones(1, dtype=torch.float64)
    model = LinearGaussian(one[:, None], 0.0 * one, 0.0 * one)
    x = torch.tensor([[1.5]], dtype=torch.float64)
    # Posterior N(m, v) with m = x/2, v = 1/2: E[p(z|x)/p(z)] = exp(m²/(2 - v)) / sqrt(v (2 - v)).
    chi_square = math.exp(0.75**2 / 1.5) / math.sqrt(0.75) - 1.0
    z = model.prior(1).sample(40_000, generator=make_generator(7))
    estimate = mean_with_error((model.log_p_x_given_z(x, z) - model.log_p_x(x)).exp())
    assert_close(estimate.value, [1.0], rtol=0.0, atol=5.0 * float(estimate.standard_error))
    # A variance from 40 000 bounded weights is right to 1 %; five of them.
    assert float(estimate.standard_error**2 * 40_000) == pytest.approx(chi_square, rel=0.05)


def make_bad(name: str) -> tuple[Any, ...]:
    z32 = Z.float()
    return {
        "x of one axis": (X[0], Z, ValueError, "x: expected shape (B, 4), found (4,)"),
        "x too wide": (randn(3, 5), Z, ValueError, "x: expected shape (B, 4), found (3, 5)"),
        "x empty": (X[:0], Z, ValueError, "x: expected shape (B, 4), found (0, 4) (an empty batch)"),
        "z without S": (X, Z[0], ValueError, "z: expected shape (S, 3, 2), found (3, 2)"),
        "z of one datum": (X, Z[:, :1], ValueError, "z: expected shape (S, 3, 2), found (5, 1, 2)"),
        "z too wide": (X, randn(5, 3, 3), ValueError, "z: expected shape (S, 3, 2), found (5, 3, 3)"),
        "z single": (X, z32, TypeError, "z: expected torch.float64 as the tensors it meets have, found torch.float32"),
    }[name]


@pytest.mark.parametrize(
    "name", ["x of one axis", "x too wide", "x empty", "z without S", "z of one datum", "z too wide", "z single"]
)
@pytest.mark.parametrize("function", [log_joint, log_weights, elbo_with_analytic_kl])
def test_data_and_latents_of_another_shape_are_refused(function: Any, name: str) -> None:
    x, z, error, message = make_bad(name)
    arguments: list[Any] = [LinearGaussian(WEIGHT, BIAS, NOISE), x, z]
    if function is not log_joint:
        arguments.insert(1, DiagonalNormal(MU, LOGVAR))
    with pytest.raises(error, match="^" + re.escape(message) + "$"):
        function(*arguments)


class Trusting(LinearGaussian):
    """A model that leaves every check to the bounds and would broadcast whatever comes."""

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        return td.Normal(z @ self.weight.T + self.bias, torch.exp(self.logvar / 2)).log_prob(x).sum(-1)


@pytest.mark.parametrize("name", ["x of one axis", "z without S", "z of one datum", "z single"])
@pytest.mark.parametrize("function", [log_joint, log_weights, elbo_with_analytic_kl])
def test_the_bounds_check_before_the_model_can_broadcast(function: Any, name: str) -> None:
    x, z, error, message = make_bad(name)
    arguments: list[Any] = [Trusting(WEIGHT, BIAS, NOISE), x, z]
    if function is not log_joint:
        arguments.insert(1, DiagonalNormal(MU, LOGVAR))
    with pytest.raises(error, match="^" + re.escape(message) + "$"):
        function(*arguments)


@pytest.mark.parametrize("function", [log_joint, log_weights])
def test_no_sample_is_an_empty_answer(function: Any) -> None:
    arguments: list[Any] = [LinearGaussian(WEIGHT, BIAS, NOISE), X, Z[:0]]
    if function is log_weights:
        arguments.insert(1, DiagonalNormal(MU, LOGVAR))
    assert function(*arguments).shape == (0, 3)


class Careless(LinearGaussian):
    """A model that breaks its promise in one way: it averages over an axis it should have kept."""

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        return super().log_p_x_given_z(x, z).mean(0)


class CarelessDensity(DiagonalNormal):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value).mean(1)


class CarelessPrior(LinearGaussian):
    def prior(self, batch_size: int) -> DiagonalNormal:
        zeros = torch.zeros(batch_size, 2, dtype=torch.float64)
        return CarelessDensity(zeros, zeros)


def test_what_a_model_returns_is_checked() -> None:
    q = DiagonalNormal(MU, LOGVAR)
    message = r"^log_p_x_given_z\(x, z\): expected shape \(5, 3\), found \(3,\)$"
    for function in (log_weights, elbo_with_analytic_kl):
        with pytest.raises(ValueError, match=message):
            function(Careless(WEIGHT, BIAS, NOISE), q, X, Z)
    with pytest.raises(ValueError, match=message):
        log_joint(Careless(WEIGHT, BIAS, NOISE), X, Z)
    with pytest.raises(ValueError, match=r"^prior\(B\)\.log_prob\(z\): expected shape \(5, 3\), found \(5,\)$"):
        log_joint(CarelessPrior(WEIGHT, BIAS, NOISE), X, Z)
    with pytest.raises(ValueError, match=r"^q\.log_prob\(z\): expected shape \(5, 3\), found \(5,\)$"):
        log_weights(LinearGaussian(WEIGHT, BIAS, NOISE), CarelessDensity(MU, LOGVAR), X, Z)


def test_elbo_refuses_what_it_cannot_use() -> None:
    model, q = LinearGaussian(WEIGHT, BIAS, NOISE), DiagonalNormal(MU, LOGVAR)
    generator = make_generator(0)
    with pytest.raises(ValueError, match=r"^x: expected finite numbers, found 1 that are not, first nan at \(1, 2\)$"):
        elbo(model, q, torch.where(X == X[1, 2], math.nan, X), num_samples=2, generator=generator)
    with pytest.raises(ValueError, match=r"^x: expected shape \(B, 4\), found \(4,\)$"):
        elbo(model, q, X[0] * math.nan, num_samples=2, generator=generator)
    with pytest.raises(ValueError, match=r"^num_samples: expected a positive integer, found 0$"):
        elbo(model, q, X, num_samples=0, generator=generator)
    with pytest.raises(TypeError, match=r"^num_samples: expected a positive integer, found 2\.0$"):
        elbo(model, q, X, num_samples=2.0, generator=generator)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"^q: expected \(B, L\) = \(2, 2\), one density for each datum, found \(3, 2\)$"
    ):
        elbo(model, q, X[:2], num_samples=2, generator=generator)
    heavy = StudentT(MU, LOGVAR, MU.exp())
    with pytest.raises(
        NotImplementedError, match=r"^kl: expected a pair with a closed form, found StudentT and Categorical"
    ):
        elbo_with_analytic_kl(*_mixture_with(heavy))


def _mixture_with(q: StudentT) -> tuple[Any, ...]:
    model, x, _ = model_case("GaussianMixture")
    narrow = StudentT(q.mu[:, :1], q.log_scale[:, :1], q.df[:, :1])
    return model, narrow, x, torch.zeros(5, 3, 1, dtype=torch.float64)


def test_one_datum_one_sample_one_dimension() -> None:
    one = torch.ones(1, dtype=torch.float64)
    model = LinearGaussian(one[:, None], one, one)
    x = z = one[:, None]
    expected = td.Normal(2.0, math.exp(0.5)).log_prob(torch.tensor(1.0)) + td.Normal(0.0, 1.0).log_prob(
        torch.tensor(1.0)
    )
    assert float(log_joint(model, x, z[None])) == pytest.approx(float(expected), rel=1e-6)
    q = DiagonalNormal(x, x)
    assert kl(q, model.prior(1)).shape == (1,)
    assert log_weights(model, q, x, z[None]).shape == (1, 1)


@pytest.mark.parametrize("function", [log_weights, elbo_with_analytic_kl, elbo])
def test_a_q_of_other_sizes_or_none_at_all_is_refused(function: Any) -> None:
    model = LinearGaussian(WEIGHT, BIAS, NOISE)

    def call(q: Any) -> Tensor:
        if function is elbo:
            return elbo(model, q, X, num_samples=5, generator=make_generator(0))
        return function(model, q, X, Z)  # type: ignore[no-any-return]

    for q, sizes in (
        (DiagonalNormal(MU[:1], LOGVAR[:1]), "(1, 2)"),
        (DiagonalNormal(MU[:, :1], LOGVAR[:, :1]), "(3, 1)"),
    ):
        message = f"q: expected (B, L) = (3, 2), one density for each datum, found {sizes}"
        with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
            call(q)
    message = (
        "q: expected a vae_lib.protocols.Density, found function without batch_size, event_dim, log_prob, sample"
        "; for an encoder pass encoder(x)"
    )
    with pytest.raises(TypeError, match="^" + re.escape(message) + "$"):
        call(lambda x: DiagonalNormal(MU, LOGVAR))
    with pytest.raises(TypeError, match=r"found Tensor without batch_size, event_dim, log_prob, sample$"):
        call(MU)
