"""The linear-Gaussian model against full covariance matrices, and its fit against scikit-learn and its own score."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch import distributions as td

from tests.oracles import assert_close, assert_mean, assert_same_value_and_gradient, model_case, randn
from vae_lib.densities import DiagonalNormal, FullNormal, Gamma
from vae_lib.exact import LinearGaussian
from vae_lib.rng import make_generator

WEIGHT, BIAS, LOGVAR, X = randn(4, 2, seed=21), randn(4, seed=22), randn(4, seed=23), randn(3, 4, seed=24)


def foreign_evidence(x: Tensor, weight: Tensor, bias: Tensor, logvar: Tensor) -> Tensor:
    covariance = weight @ weight.T + torch.diag(torch.exp(logvar))
    return td.MultivariateNormal(bias, covariance).log_prob(x)


@pytest.mark.equation("eq-ppca-evidence")
def test_the_evidence_is_a_normal_with_the_full_covariance() -> None:
    assert_same_value_and_gradient(
        lambda x, *p: LinearGaussian(*p).log_p_x(x), foreign_evidence, (X, WEIGHT, BIAS, LOGVAR)
    )


@pytest.mark.equation("eq-evidence")
def test_the_evidence_is_the_integral_over_the_latent_plane() -> None:
    """A product trapezoid rule on ±10 in both latents, which converges beyond all digits for a Gaussian."""
    model = LinearGaussian(0.7 * WEIGHT, BIAS, LOGVAR)
    axis = torch.linspace(-10.0, 10.0, 401, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis).unsqueeze(1).expand(-1, 3, -1)
    log_prior = -0.5 * (z**2).sum(-1) - np.log(2.0 * np.pi)
    log_mass = torch.logsumexp(model.log_p_x_given_z(X, z) + log_prior, dim=0) + 2.0 * np.log(20.0 / 400.0)
    assert_close(model.log_p_x(X), log_mass)


def conditioned(x: Tensor, weight: Tensor, bias: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of z given x by conditioning the joint normal of (z, x): nothing but its covariance."""
    gain = torch.linalg.solve(weight @ weight.T + torch.diag(torch.exp(logvar)), weight).T
    return (x - bias) @ gain.T, torch.eye(weight.shape[1], dtype=torch.float64) - gain @ weight


def test_the_posterior_is_the_joint_normal_conditioned() -> None:
    posterior = LinearGaussian(WEIGHT, BIAS, LOGVAR).posterior(X)
    mean, covariance = conditioned(X, WEIGHT, BIAS, LOGVAR)
    assert_close(posterior.mu, mean)
    assert_close(posterior.covariance, covariance.expand(3, 2, 2))
    assert_close(posterior.scale_tril, posterior.scale_tril.tril())
    assert_same_value_and_gradient(
        lambda x, *p: LinearGaussian(*p).posterior(x).mu,
        lambda x, *p: conditioned(x, *p)[0],
        (X, WEIGHT, BIAS, LOGVAR),
    )
    assert_same_value_and_gradient(
        lambda weight, logvar: LinearGaussian(weight, BIAS, logvar).posterior(X).covariance[0],
        lambda weight, logvar: conditioned(X, weight, BIAS, logvar)[1],
        (WEIGHT, LOGVAR),
    )


@pytest.mark.equation("eq-ppca-posterior")
def test_the_posterior_of_ppca_by_its_formula() -> None:
    """N(M⁻¹ Wᵀ (x - b), σ² M⁻¹) with M = Wᵀ W + σ² I."""
    variance = 0.3
    posterior = LinearGaussian(WEIGHT, BIAS, torch.full((4,), np.log(variance)).double()).posterior(X)
    variance = float(torch.full((4,), np.log(variance)).double().exp()[0])
    inverse = scipy.linalg.inv(WEIGHT.numpy().T @ WEIGHT.numpy() + variance * np.eye(2))
    assert_close(posterior.mu, (X - BIAS).numpy() @ WEIGHT.numpy() @ inverse.T)
    assert_close(posterior.covariance, np.broadcast_to(variance * inverse, (3, 2, 2)).copy())


def foreign_elbo(x: Tensor, mu: Tensor, covariance: Tensor, weight: Tensor, bias: Tensor, logvar: Tensor) -> Tensor:
    """E_q log p(x|z) from the moments of x - W z - b, plus E_q log p(z), plus the entropy of q."""
    residual = x - mu @ weight.T - bias
    spread = torch.einsum("di,bij,dj->bd", weight, covariance, weight)
    likelihood = -0.5 * (np.log(2 * np.pi) + logvar + (residual**2 + spread) / torch.exp(logvar)).sum(1)
    prior = -0.5 * (2 * np.log(2 * np.pi) + (mu**2).sum(1) + covariance.diagonal(dim1=1, dim2=2).sum(1))
    return likelihood + prior + td.MultivariateNormal(mu, covariance).entropy()


@pytest.mark.equation("eq-ppca-elbo")
@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_the_elbo_in_closed_form(kind: str) -> None:
    mu, logvar = randn(3, 2, seed=25), randn(3, 2, seed=26)
    if kind == "diagonal":
        assert_same_value_and_gradient(
            lambda x, m, v, *p: LinearGaussian(*p).elbo(x, DiagonalNormal(m, v)),
            lambda x, m, v, *p: foreign_elbo(x, m, torch.diag_embed(torch.exp(v)), *p),
            (X, mu, logvar, WEIGHT, BIAS, LOGVAR),
        )
    else:
        tril = randn(3, 2, 2, seed=27).tril(-1) + torch.diag_embed(torch.exp(logvar / 2))
        assert_same_value_and_gradient(
            lambda x, m, t, *p: LinearGaussian(*p).elbo(x, FullNormal(m, t.tril())),
            lambda x, m, t, *p: foreign_elbo(x, m, t.tril() @ t.tril().mT, *p),
            (X, mu, tril, WEIGHT, BIAS, LOGVAR),
        )


def test_the_best_mean_field_gap() -> None:
    """At the best diagonal q the gap is ½ (Σ log Λᵢᵢ - log det Λ), with Λ the precision of the posterior."""
    model = LinearGaussian(WEIGHT, BIAS, LOGVAR)
    precision = torch.eye(2).double() + WEIGHT.T @ torch.diag(torch.exp(-LOGVAR)) @ WEIGHT
    q = DiagonalNormal(conditioned(X, WEIGHT, BIAS, LOGVAR)[0], -precision.diagonal().log().expand(3, 2).clone())
    gap = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    assert float(gap) > 0.01
    assert_close(model.log_p_x(X) - model.elbo(X, q), gap.expand(3))


def test_draws_have_the_moments_of_the_joint() -> None:
    model = LinearGaussian(WEIGHT, BIAS, LOGVAR)
    z = model.prior(20_000).sample(1, generator=make_generator(1))
    x = model.sample_x_given_z(z, generator=make_generator(2))[0]
    covariance = WEIGHT @ WEIGHT.T + torch.diag(torch.exp(LOGVAR))
    scale = covariance.diagonal().sqrt()
    standard = (x - BIAS) / scale
    assert_mean(standard, torch.zeros(4), ceiling=0.0075)
    products = standard.unsqueeze(1) * standard.unsqueeze(2)
    assert_mean(products, covariance / scale / scale.unsqueeze(1), ceiling=0.012)
    cross = standard.unsqueeze(2) * z[0].unsqueeze(1)
    assert_mean(cross, WEIGHT / scale.unsqueeze(1), ceiling=0.012)


def data() -> Tensor:
    """500 points near a plane in five dimensions, off-centre."""
    return randn(500, 2, seed=31) @ randn(2, 5, seed=32) + 0.4 * randn(500, 5, seed=33) + randn(5, seed=34)


def test_the_fit_has_no_slope_left() -> None:
    x = data()
    fit = LinearGaussian.maximum_likelihood(x, 2)
    weight, bias = fit.weight.clone().requires_grad_(), fit.bias.clone().requires_grad_()
    shared = fit.logvar[0].clone().requires_grad_()
    value = LinearGaussian(weight, bias, shared.expand(5)).log_p_x(x).mean()
    for gradient in torch.autograd.grad(value, (weight, bias, shared)):
        # Each entry is a sum of cancelling terms of size up to 10, over 500 data: 1e-10 leaves 4 digits.
        assert_close(gradient, torch.zeros_like(gradient), rtol=0.0, atol=1e-10)


def test_the_fit_beats_its_neighbours() -> None:
    x = data()
    fit = LinearGaussian.maximum_likelihood(x, 2)
    best = float(fit.log_p_x(x).mean())
    for seed in range(20):
        rival = LinearGaussian(
            fit.weight + 0.1 * randn(5, 2, seed=seed),
            fit.bias + 0.1 * randn(5, seed=seed + 100),
            fit.logvar + 0.1 * randn(1, seed=seed + 200),
        )
        assert float(rival.log_p_x(x).mean()) < best


@pytest.mark.parametrize("latent_dim", [1, 2, 4])
def test_the_fit_is_scikit_learns(latent_dim: int) -> None:
    """scikit-learn divides the covariance by N - 1; maximum likelihood, by N: its variances are N/(N - 1) ours."""
    x = data()
    count = x.shape[0]
    fit = LinearGaussian.maximum_likelihood(x, latent_dim)
    pca = PCA(latent_dim, svd_solver="full").fit(x.numpy())
    assert_close(fit.bias, pca.mean_)
    assert_close(fit.logvar.exp(), np.full(5, pca.noise_variance_ * (count - 1) / count))
    ours = fit.weight @ fit.weight.T + torch.diag(fit.logvar.exp())
    assert_close(ours, pca.get_covariance() * (count - 1) / count)
    scaled = LinearGaussian(
        fit.weight * (count / (count - 1)) ** 0.5, fit.bias, fit.logvar + np.log(count / (count - 1))
    )
    assert_close(scaled.log_p_x(x), pca.score_samples(x.numpy()))
    # Columns from the strongest direction to the weakest, along the principal axes.
    lengths = fit.weight.norm(dim=0)
    assert bool((lengths[:-1] > lengths[1:]).all())
    assert_close((fit.weight / lengths).abs(), np.abs(pca.components_.T), rtol=1e-8, atol=1e-9)


def test_a_direction_weaker_than_the_noise_is_dropped() -> None:
    """Isotropic data: the kept eigenvalue equals the noise up to rounding, and no root of less than zero appears."""
    # Here the mean of three equal eigenvalues rounds to 3e-18 above them, so that the kept one lies below the noise.
    cross = 0.3 * torch.eye(4, dtype=torch.float64)
    fit = LinearGaussian.maximum_likelihood(torch.cat([cross, -cross]), 1)
    assert_close(fit.weight, torch.zeros(4, 1), rtol=0.0, atol=1e-7)
    assert_close(fit.logvar.exp(), [0.09 / 4.0] * 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: LinearGaussian.maximum_likelihood(torch.zeros(5), 1),
            ValueError,
            "x: expected shape (N, D), found (5,)",
        ),
        (
            lambda: LinearGaussian.maximum_likelihood(data() * torch.tensor([1, 1, 1, 1, torch.nan]), 1),
            ValueError,
            "x: expected finite numbers, found 500 that are not, first nan at (0, 4)",
        ),
        (
            lambda: LinearGaussian.maximum_likelihood(data(), 5),
            ValueError,
            "latent_dim: expected at most 4, one below D, found 5",
        ),
        (
            lambda: LinearGaussian.maximum_likelihood(data(), 0),
            ValueError,
            "latent_dim: expected a positive integer, found 0",
        ),
        (
            lambda: LinearGaussian.maximum_likelihood(randn(50, 2) @ randn(2, 5), 2),
            ValueError,
            "x: expected variance outside 2 dimensions, found none (rank too low)",
        ),
        (
            lambda: LinearGaussian.maximum_likelihood(data()[:1], 1),
            ValueError,
            "x: expected variance outside 1 dimensions, found none (rank too low)",
        ),
        (
            lambda: LinearGaussian(torch.zeros(3), torch.zeros(3), torch.zeros(3)),
            ValueError,
            "weight: expected shape (D, L), found (3,)",
        ),
        (
            lambda: LinearGaussian(torch.zeros(3, 2), torch.zeros(2), torch.zeros(3)),
            ValueError,
            "bias: expected shape (3,), found (2,)",
        ),
        (
            lambda: LinearGaussian(torch.zeros(3, 2), torch.zeros(3), torch.zeros(1)),
            ValueError,
            "logvar: expected shape (3,), found (1,)",
        ),
        (
            lambda: LinearGaussian(torch.zeros(3, 2), torch.zeros(3).double(), torch.zeros(3)),
            TypeError,
            "bias: expected torch.float32 as the tensors it meets have, found torch.float64",
        ),
        (
            lambda: LinearGaussian(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3).double()),
            TypeError,
            "logvar: expected torch.float32 as the tensors it meets have, found torch.float64",
        ),
        (
            lambda: LinearGaussian(torch.zeros(3, 2), torch.zeros(3), torch.full((3,), torch.inf)),
            ValueError,
            "logvar: expected finite numbers, found 3 that are not, first inf at (0,)",
        ),
        (
            lambda: model_case("LinearGaussian").model.elbo(X, Gamma(X[:, :2].exp(), X[:, :2].exp())),
            TypeError,
            "q: expected DiagonalNormal or FullNormal, found Gamma",
        ),
    ],
)
def test_what_it_cannot_use_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message) + "$"):
        call()
