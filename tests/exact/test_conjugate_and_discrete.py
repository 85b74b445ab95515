"""The Gaussian mixture, the discrete joint and the Gamma-Poisson pair against scipy, torch and sums written out."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from torch import Tensor
from torch import distributions as td

from tests.oracles import assert_close, assert_mean, assert_same_value_and_gradient, model_case, randn
from vae_lib.densities import Categorical, DiagonalNormal, Gamma
from vae_lib.exact import DiscreteJoint, GammaPoisson, GaussianMixture
from vae_lib.rng import make_generator

LOGITS, MU, LOGVAR, X = randn(4, seed=41), randn(4, 2, seed=42), randn(4, 2, seed=43), randn(3, 2, seed=44)
TABLE = randn(4, 5, seed=45)


def t(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.equation("eq-evidence")
def test_the_evidence_of_a_mixture() -> None:
    def foreign(x: Tensor, logits: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        components = td.Independent(td.Normal(mu, torch.exp(logvar / 2)), 1)
        return td.MixtureSameFamily(td.Categorical(logits=logits), components).log_prob(x)

    assert_same_value_and_gradient(lambda x, *p: GaussianMixture(*p).log_p_x(x), foreign, (X, LOGITS, MU, LOGVAR))


@pytest.mark.equation("eq-bayes")
def test_the_responsibilities_of_a_mixture() -> None:
    joint = np.array(
        [
            [
                scipy.special.softmax(LOGITS.numpy())[k]
                * np.prod([scipy.stats.norm.pdf(X[b, d], MU[k, d], math.exp(LOGVAR[k, d] / 2)) for d in range(2)])
                for k in range(4)
            ]
            for b in range(3)
        ]
    )
    posterior = GaussianMixture(LOGITS, MU, LOGVAR).posterior(X)
    assert_close(posterior.log_probs.exp()[:, 0], joint / joint.sum(1, keepdims=True))


def test_draws_of_a_mixture_have_its_moments() -> None:
    model = GaussianMixture(LOGITS, MU, LOGVAR)
    z = torch.arange(4).double().reshape(1, 4, 1).expand(5000, 4, 1)
    x = model.sample_x_given_z(z, generator=make_generator(1))
    std = torch.exp(LOGVAR / 2)
    assert_mean((x - MU) / std, torch.zeros(4, 2), ceiling=0.015)
    assert_mean(((x - MU) / std) ** 2, torch.ones(4, 2), ceiling=0.022)
    assert_mean(((x - MU) / std).prod(2), torch.zeros(4), ceiling=0.016)


@pytest.mark.equation("eq-evidence")
@pytest.mark.equation("eq-bayes")
def test_the_discrete_joint_by_loops() -> None:
    model = DiscreteJoint(LOGITS, TABLE)
    prior, table = scipy.special.softmax(LOGITS.numpy()), scipy.special.softmax(TABLE.numpy(), axis=1)
    evidence, posterior = np.zeros(5), np.zeros((5, 4))
    for k, m in itertools.product(range(4), range(5)):
        evidence[m] += prior[k] * table[k, m]
    for k, m in itertools.product(range(4), range(5)):
        posterior[m, k] = prior[k] * table[k, m] / evidence[m]
    x = model.data_support()
    assert x.tolist() == [[0.0], [1.0], [2.0], [3.0], [4.0]]
    assert model.latent_support().tolist() == [[0.0], [1.0], [2.0], [3.0]]
    assert_close(model.log_p_x(x).exp(), evidence)
    assert_close(model.posterior(x).log_probs.exp()[:, 0], posterior)
    assert float(model.log_p_x(x).exp().sum()) == pytest.approx(1.0, abs=1e-12)
    for k in range(4):
        z = torch.full((2, 5, 1), float(k), dtype=torch.float64)
        assert_close(model.log_p_x_given_z(x, z).exp(), np.broadcast_to(table[k], (2, 5)).copy())


def test_draws_of_the_discrete_joint_by_chi_square() -> None:
    model = DiscreteJoint(LOGITS, TABLE)
    z = torch.arange(4).double().reshape(1, 4, 1).expand(5000, 4, 1)
    x = model.sample_x_given_z(z, generator=make_generator(2))
    assert x.shape == (5000, 4, 1)
    table = scipy.special.softmax(TABLE.numpy(), axis=1)
    for k in range(4):
        counts = np.bincount(x[:, k, 0].numpy().astype(int), minlength=5)
        assert scipy.stats.chisquare(counts, 5000 * table[k]).pvalue > 1e-4  # the level of the draws' tests


@pytest.mark.parametrize("name", ["GaussianMixture", "DiscreteJoint"])
def test_the_elbo_by_enumeration(name: str) -> None:
    model, x, q = model_case(name)
    expected = torch.zeros(3, dtype=torch.float64)
    for k in range(4):
        z = torch.full((1, 3, 1), float(k), dtype=torch.float64)
        log_q = torch.log_softmax(q.logits[:, 0], 1)[:, k]
        log_joint = model.log_p_x_given_z(x, z)[0] + torch.log_softmax(model.prior(3).logits[:, 0], 1)[:, k]
        expected += log_q.exp() * (log_joint - log_q)
    assert_close(model.elbo(x, q), expected)


@pytest.mark.parametrize("name", ["GaussianMixture", "DiscreteJoint"])
def test_a_q_that_never_takes_a_value(name: str) -> None:
    """Its term is zero, in value and in gradient, and not the NaN of zero times minus infinity."""
    model, x, _ = model_case(name)
    logits = torch.full((3, 1, 4), -math.inf, dtype=torch.float64)
    logits[:, 0, 1] = 0.0
    logits.requires_grad_()
    bound = model.elbo(x, Categorical(logits))
    z = torch.ones(1, 3, 1, dtype=torch.float64)
    log_joint = model.log_p_x_given_z(x, z)[0] + model.prior(3).log_prob(z)[0]
    assert_close(bound.detach(), log_joint)


@pytest.mark.equation("eq-gamma-poisson")
def test_one_count_is_negative_binomial() -> None:
    a, b = 2.5, 0.7
    x = torch.arange(30, dtype=torch.float64).unsqueeze(1)
    found = GammaPoisson(t(a), t(b), 1).log_p_x(x)
    assert_close(found, scipy.stats.nbinom.logpmf(np.arange(30), a, b / (1.0 + b)))


@pytest.mark.equation("eq-gamma-poisson")
@pytest.mark.equation("eq-evidence")
def test_several_counts_by_quadrature() -> None:
    model, x, _ = model_case("GammaPoisson")
    found = model.log_p_x(x)

    def joint(z: float, *counts: float) -> float:
        return float(scipy.stats.gamma.pdf(z, 2.5, scale=1 / 0.7) * np.prod(scipy.stats.poisson.pmf(counts, z)))

    for b in range(3):
        counts = tuple(x[b].tolist())
        mass, _ = scipy.integrate.quad(joint, 0.0, 60.0, counts, epsabs=0.0, epsrel=1e-12, limit=200, points=[1, 3, 7])
        assert float(found[b]) == pytest.approx(math.log(mass), rel=1e-10)


@pytest.mark.equation("eq-gamma-poisson")
def test_the_counts_sum_to_one_and_have_a_gradient() -> None:
    x = torch.cartesian_prod(*2 * [torch.arange(120, dtype=torch.float64)])
    total = GammaPoisson(t(2.5), t(1.7), 2).log_p_x(x).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-12)  # the tail beyond 119 falls off like 0.37^119

    def foreign(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """log p(x) = log p(x|z) + log p(z) - log p(z|x) at any z, here 1.3."""
        z = t(1.3)
        posterior = td.Gamma(a + x.sum(1), b + 3.0)
        likelihood = (x * torch.log(z) - z - torch.lgamma(x + 1.0)).sum(1)
        return likelihood + td.Gamma(a, b).log_prob(z) - posterior.log_prob(z)

    x = model_case("GammaPoisson").x
    assert_same_value_and_gradient(lambda x, a, b: GammaPoisson(a, b, 3).log_p_x(x), foreign, (x + 0.0, t(2.5), t(0.7)))


def test_the_posterior_of_a_rate_counts_what_it_saw() -> None:
    model, x, _ = model_case("GammaPoisson")
    posterior = model.posterior(x)
    assert_close(posterior.concentration, [[3.5], [12.5], [22.5]])
    assert_close(posterior.rate, [[3.7], [3.7], [3.7]])


def test_the_elbo_of_a_gamma_q() -> None:
    def foreign(a_q: Tensor, b_q: Tensor, a: Tensor, b: Tensor) -> Tensor:
        x = model_case("GammaPoisson").x
        q = td.Gamma(a_q[:, 0], b_q[:, 0])
        mean_log = torch.digamma(a_q[:, 0]) - torch.log(b_q[:, 0])
        likelihood = x.sum(1) * mean_log - 3.0 * q.mean - torch.lgamma(x + 1.0).sum(1)
        prior = a * torch.log(b) - torch.lgamma(a) + (a - 1.0) * mean_log - b * q.mean
        return likelihood + prior + q.entropy()

    q = model_case("GammaPoisson").q
    assert_same_value_and_gradient(
        lambda a_q, b_q, a, b: GammaPoisson(a, b, 3).elbo(model_case("GammaPoisson").x, Gamma(a_q, b_q)),
        foreign,
        (q.concentration, q.rate, t(2.5), t(0.7)),
    )


def test_draws_of_counts_have_the_moments_of_the_rate() -> None:
    model = GammaPoisson(t(2.5), t(0.7), 3)
    z = torch.tensor([0.5, 4.0, 20.0], dtype=torch.float64).reshape(1, 3, 1).expand(5000, 3, 1)
    x = model.sample_x_given_z(z, generator=make_generator(3))
    standard = (x - z) / z.sqrt()
    assert_mean(standard, torch.zeros(3, 3), ceiling=0.016)
    assert_mean(standard**2, torch.ones(3, 3), ceiling=0.032)
    assert_mean(standard[..., 0] * standard[..., 1], torch.zeros(3), ceiling=0.016)


Z = torch.zeros


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GaussianMixture(Z(2, 1), Z(2, 3), Z(2, 3)), ValueError, "logits: expected shape (K,), found (2, 1)"),
        (lambda: GaussianMixture(Z(2), Z(3, 3), Z(3, 3)), ValueError, "mu: expected shape (2, D), found (3, 3)"),
        (lambda: GaussianMixture(Z(2), Z(2, 3), Z(2, 1)), ValueError, "logvar: expected shape (2, 3), found (2, 1)"),
        (
            lambda: GaussianMixture(Z(2), Z(2, 3).double(), Z(2, 3)),
            TypeError,
            "mu: expected torch.float32 as the tensors it meets have, found torch.float64",
        ),
        (
            lambda: GaussianMixture(Z(2), Z(2, 3), Z(2, 3).double()),
            TypeError,
            "logvar: expected torch.float32 as the tensors it meets have, found torch.float64",
        ),
        (
            lambda: GaussianMixture(Z(2), Z(2, 3) * math.nan, Z(2, 3)),
            ValueError,
            "mu: expected finite numbers, found 6 that are not, first nan at (0, 0)",
        ),
        (lambda: DiscreteJoint(Z(2, 1), Z(2, 3)), ValueError, "logits_z: expected shape (K,), found (2, 1)"),
        (lambda: DiscreteJoint(Z(2), Z(3, 3)), ValueError, "logits_x_given_z: expected shape (2, M), found (3, 3)"),
        (
            lambda: DiscreteJoint(Z(2), Z(2, 3).double()),
            TypeError,
            "logits_x_given_z: expected torch.float32 as the tensors it meets have, found torch.float64",
        ),
        (
            lambda: DiscreteJoint(Z(2) * math.nan, Z(2, 3)),
            ValueError,
            "logits_z: expected finite numbers, found 2 that are not, first nan at (0,)",
        ),
        (
            lambda: DiscreteJoint(Z(2), Z(2, 3) * math.nan),
            ValueError,
            "logits_x_given_z: expected finite numbers, found 6 that are not, first nan at (0, 0)",
        ),
        (lambda: GammaPoisson(Z(1), Z(()), 3), ValueError, "concentration: expected shape (), found (1,)"),
        (lambda: GammaPoisson(Z(()) + 1, Z(1), 3), ValueError, "rate: expected shape (), found (1,)"),
        (
            lambda: GammaPoisson(Z(()) + 1, t(1.0), 3),
            TypeError,
            "rate: expected torch.float32 as the tensors it meets have, found torch.float64",
        ),
        (lambda: GammaPoisson(t(1.0), t(1.0), 0), ValueError, "data_dim: expected a positive integer, found 0"),
        (lambda: GammaPoisson(t(0.0), t(1.0), 3), ValueError, "concentration: expected a positive number, found 0.0"),
        (lambda: GammaPoisson(t(1.0), t(-2.0), 3), ValueError, "rate: expected a positive number, found -2.0"),
        (
            lambda: GammaPoisson(t(1.0), t(math.nan), 3),
            ValueError,
            "rate: expected finite numbers, found 1 that are not, first nan at ()",
        ),
        (
            lambda: model_case("GammaPoisson").model.elbo(
                Z(3, 3).double(), DiagonalNormal(t(0.0).expand(3, 1), t(0.0).expand(3, 1))
            ),
            TypeError,
            "q: expected Gamma, found DiagonalNormal",
        ),
        (
            lambda: model_case("GammaPoisson").model.elbo(Z(2, 3).double(), model_case("GammaPoisson").q),
            ValueError,
            "x: expected shape (3, 3), found (2, 3)",
        ),
    ],
)
def test_what_they_cannot_use_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message) + "$"):
        call()
