"""The linear VAE's theory against evidence, quadrature, numerical optimisation, and linear VAEs that were trained."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import torch
from torch import Tensor
from torch import distributions as td

from tests.oracles import assert_close, assert_same_value_and_gradient, randn
from vae_lib.densities import DiagonalNormal
from vae_lib.divergences import kl
from vae_lib.exact import (
    LinearEncoder,
    LinearGaussian,
    linear_vae_optimum,
    maximum_likelihood_variance,
    optimal_linear_vae,
    water_filling,
)
from vae_lib.exact.linear_vae import LinearVAEOptimum

# Six eigenvalues for four latents, so that two directions are never seen.
EIGENVALUES = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25, 0.1], dtype=torch.float64)
DATA_DIM, LATENT_DIM = 6, 4
MEAN = randn(DATA_DIM, seed=3)
# Variance, beta, and how many of the four latents are open. 0.15 is below the eigenvalue of an unseen direction.
CASES = [
    (0.15, 1.0, 4),
    (0.3, 1.0, 4),
    (0.35, 2.0, 3),
    (0.7, 2.0, 2),
    (2.8, 0.5, 2),
    (0.3, 10.0, 1),
    (6.0, 1.0, 0),
]


def rows(eigenvalues: Tensor = EIGENVALUES, count: int = 20) -> Tensor:
    """Data whose mean is MEAN and whose covariance has exactly these eigenvalues, in directions of no special kind."""
    noise = randn(count, DATA_DIM, seed=1)
    noise = noise - noise.mean(0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.mT @ noise / count)).mT
    turn = torch.linalg.qr(randn(DATA_DIM, DATA_DIM, seed=2)).Q
    data: Tensor = white * eigenvalues.sqrt() @ turn.mT + MEAN
    return data


def covariance_of(x: Tensor) -> Tensor:
    covariance: Tensor = (x - x.mean(0)).mT @ (x - x.mean(0)) / x.shape[0]
    return covariance


X = rows()
COVARIANCE = covariance_of(X)


def optimum(variance: float, beta: float, latent_dim: int = LATENT_DIM) -> LinearVAEOptimum:
    return linear_vae_optimum(EIGENVALUES, latent_dim, logvar=math.log(variance), beta=beta)


def squared_error_of(model: LinearGaussian, q: DiagonalNormal, x: Tensor) -> Tensor:
    """E |x - W z - b|^2 over the rows and q: that of the mean, and what the variance of q adds."""
    at_mean = (x - q.mu @ model.weight.mT - model.bias).square().sum(-1)
    return (at_mean + (torch.exp(q.logvar) * model.weight.square().sum(0)).sum(-1)).mean()


def counts_above(level: float) -> int:
    return int((level < EIGENVALUES).sum())


def shannon(level: float) -> tuple[float, float]:
    """Rate and squared error as integrals over the water level t: each eigenvalue above t adds dt / 2t, or dt."""
    breaks = [0.0, *sorted(float(value) for value in EIGENVALUES if value != level), level]
    rate = error = 0.0
    for low, high in zip(sorted(breaks), sorted(breaks)[1:], strict=False):
        count = counts_above(0.5 * (low + high))
        if low >= level:
            rate += count * scipy.integrate.quad(lambda t: 0.5 / t, low, high, epsabs=1e-13, epsrel=1e-13)[0]
        else:
            error += count * (high - low)
    return rate, error


def level_of(squared_error: float) -> float:
    found: float = scipy.optimize.brentq(lambda level: shannon(level)[1] - squared_error, 1e-9, 10.0, xtol=1e-15)
    return found


@pytest.mark.parametrize("level", [0.03, 0.1, 0.3, 1.0, 1.4, 3.9, 4.0, 7.0])
def test_water_filling_is_an_integral_over_the_level(level: float) -> None:
    rate, squared_error = shannon(level)
    for eigenvalues in (EIGENVALUES, EIGENVALUES.flip(0), EIGENVALUES[[3, 0, 5, 1, 2, 4]]):
        found = water_filling(eigenvalues, level)
        assert_close(found.rate, rate)
        assert_close(found.squared_error, squared_error)


def test_water_filling_takes_levels_of_any_shape() -> None:
    levels = torch.tensor([[0.03, 0.3, 1.0], [1.4, 3.0, 7.0]]).double()
    found = water_filling(EIGENVALUES, levels)
    for index, level in np.ndenumerate(levels.numpy()):
        single = water_filling(EIGENVALUES, float(level))
        assert_close(found.rate[index], single.rate)
        assert_close(found.squared_error[index], single.squared_error)
    assert found.rate.shape == found.squared_error.shape == (2, 3)


@pytest.mark.parametrize("level", [0.03, 0.3, 0.7, 3.0])
def test_no_split_of_the_error_needs_less_rate(level: float) -> None:
    """The convex problem itself: the least rate of all ways to leave an error of this sum in the six directions."""
    curve = water_filling(EIGENVALUES, level)
    values = EIGENVALUES.numpy()
    total = float(curve.squared_error)
    solution = scipy.optimize.minimize(
        lambda errors: 0.5 * np.log(values / errors).sum(),
        values * total / values.sum(),
        jac=lambda errors: -0.5 / errors,
        bounds=[(1e-6, value) for value in values],
        constraints={"type": "eq", "fun": lambda errors: errors.sum() - total},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert solution.success
    assert float(curve.rate) == pytest.approx(solution.fun, abs=1e-7)
    assert np.minimum(values, level) == pytest.approx(solution.x, abs=1e-4)


@pytest.mark.parametrize("level", [0.03, 0.3, 0.7, 3.0])
def test_the_slope_of_the_curve_is_the_price_of_error(level: float) -> None:
    at = torch.tensor(level, dtype=torch.float64).requires_grad_()
    rate, squared_error = (torch.autograd.grad(part, at)[0] for part in water_filling(EIGENVALUES, at))
    assert_close(rate / squared_error, -0.5 / level)


def of_matrices(eigenvalues: Tensor, logvar: Tensor, beta: float, latent_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rate, squared error and average ELBO by full matrices: a model and its q, with averages over the data's normal.

    For beta = 1 the ELBO is the average log-evidence. Otherwise q is the posterior of the model with variance
    beta sigma^2.
    """
    level = beta * torch.exp(logvar)
    weight = torch.diag((eigenvalues - level).clamp(min=0.0).sqrt())[:, :latent_dim]
    data, eye = torch.diag(eigenvalues), torch.eye(latent_dim).double()
    spread = torch.linalg.inv(eye + weight.mT @ weight / level)
    gain = spread @ weight.mT / level
    means = gain @ data @ gain.mT  # covariance of q's means over the data
    rate = 0.5 * (torch.trace(spread + means) - latent_dim - torch.logdet(spread))
    left = torch.eye(len(data)).double() - weight @ gain
    squared_error = torch.trace(left @ data @ left.mT) + torch.trace(weight @ spread @ weight.mT)
    per_number = td.Normal(torch.zeros(()).double(), torch.exp(0.5 * logvar))
    # log N(0) minus half the squared error over the variance
    likelihood = len(data) * per_number.log_prob(torch.zeros(()).double()) - 0.5 * squared_error / torch.exp(logvar)
    return rate, squared_error, likelihood - rate


@pytest.mark.parametrize("beta", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("latent_dim", [1, 2, 4, 6])
@pytest.mark.parametrize("part", ["rate", "squared_error", "elbo"])
def test_the_optimum_is_that_of_full_matrices(part: str, latent_dim: int, beta: float) -> None:
    """Values and gradients. No eigenvalue is at the level, where the root of the matrix has no slope: see below."""
    number = ["rate", "squared_error", "elbo"].index(part)
    eigenvalues = EIGENVALUES[EIGENVALUES > beta * 0.08]
    latent_dim = min(latent_dim, len(eigenvalues))
    assert_same_value_and_gradient(
        lambda values, logvar: getattr(linear_vae_optimum(values, latent_dim, logvar=logvar, beta=beta), part),
        lambda values, logvar: of_matrices(values, logvar, beta, latent_dim)[number],
        (eigenvalues, torch.tensor(math.log(0.08), dtype=torch.float64)),
    )


@pytest.mark.parametrize(("variance", "beta", "count"), CASES)
@pytest.mark.parametrize("latent_dim", [1, 2, 4, 6])
def test_closed_latents_too_are_those_of_full_matrices(
    latent_dim: int, variance: float, beta: float, count: int
) -> None:
    found = optimum(variance, beta, latent_dim)
    logvar = torch.tensor(math.log(variance), dtype=torch.float64)
    rate, squared_error, elbo = of_matrices(EIGENVALUES, logvar, beta, latent_dim)
    assert_close(found.rate, rate)
    assert_close(found.kl.sum(), rate)
    assert_close(found.squared_error, squared_error)
    assert_close(found.elbo, elbo)
    assert_close(found.distortion + found.rate, -found.elbo)
    if latent_dim <= LATENT_DIM:
        assert int(found.is_active.sum()) == min(count, latent_dim)
    level = variance * beta
    for j in range(latent_dim):
        value = float(EIGENVALUES[j])
        assert bool(found.is_active[j]) == (value > level)
        assert_close(found.kl[j], 0.5 * math.log(value / level) if value > level else 0.0)
        assert_close(found.weight_norms[j], math.sqrt(value - level) if value > level else 0.0)
    if latent_dim == DATA_DIM:
        assert_close(torch.stack(water_filling(EIGENVALUES, level)), torch.stack([found.rate, found.squared_error]))


def test_gradients_are_finite_where_latents_are_closed_or_at_the_level() -> None:
    values, logvar = EIGENVALUES.clone().requires_grad_(), torch.tensor(0.0, dtype=torch.float64).requires_grad_()
    found = linear_vae_optimum(values, DATA_DIM, logvar=logvar)
    assert found.is_active.tolist() == [True, True, False, False, False, False]  # the third is at the level
    total = sum(part.sum() for part in (found.weight_norms, found.kl, found.elbo))
    assert isinstance(total, Tensor)
    for gradient in torch.autograd.grad(total, (values, logvar)):
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(("variance", "beta"), [(0.3, 1.0), (0.7, 1.0), (6.0, 1.0)])
@pytest.mark.parametrize("latent_dim", [1, 4, 6])
def test_the_elbo_is_the_average_evidence_of_the_optimal_model(latent_dim: int, variance: float, beta: float) -> None:
    """By torch.distributions, on data with this covariance, for the closed-form model."""
    model, encoder = optimal_linear_vae(X.mean(0), COVARIANCE, latent_dim, logvar=math.log(variance), beta=beta)
    evidence = td.MultivariateNormal(MEAN, model.weight @ model.weight.mT + variance * torch.eye(DATA_DIM).double())
    average = evidence.log_prob(X).mean()
    assert_close(optimum(variance, beta, latent_dim).elbo, average)
    assert_close(model.elbo(X, encoder(X)).mean(), average)
    assert_close(model.log_p_x(X), evidence.log_prob(X))


@pytest.mark.parametrize(("variance", "beta", "count"), CASES)
@pytest.mark.parametrize("latent_dim", [1, 4, 6])
def test_the_optimal_model_is_what_the_optimum_says(latent_dim: int, variance: float, beta: float, count: int) -> None:
    model, encoder = optimal_linear_vae(X.mean(0), COVARIANCE, latent_dim, logvar=math.log(variance), beta=beta)
    found, q = optimum(variance, beta, latent_dim), encoder(X)
    assert_close(model.weight.norm(dim=0), found.weight_norms)
    assert_close(model.bias, MEAN)
    assert_close(model.logvar, torch.full((DATA_DIM,), math.log(variance), dtype=torch.float64))
    assert_close(kl(q, model.prior(len(X))).mean(), found.rate)
    assert_close(squared_error_of(model, q, X), found.squared_error)
    assert_close(model.elbo(X, q).mean(), found.elbo)
    # q is the posterior of the model with variance theta, and the aggregate of all q has the prior's two moments.
    wider = LinearGaussian(model.weight, model.bias, model.logvar + math.log(beta)).posterior(X)
    assert_close(q.mu, wider.mu)
    assert_close(torch.diag_embed(torch.exp(q.logvar)), wider.covariance)
    assert_close(q.mu.mean(0), torch.zeros(latent_dim).double())
    assert_close(covariance_of(q.mu) + torch.diag(torch.exp(q.logvar[0])), torch.eye(latent_dim).double())


@pytest.mark.parametrize(("variance", "beta"), [(0.3, 1.0), (0.7, 2.0), (2.8, 0.5)])
def test_the_gradient_is_zero_at_the_optimum(variance: float, beta: float) -> None:
    model, encoder = optimal_linear_vae(X.mean(0), COVARIANCE, LATENT_DIM, logvar=math.log(variance), beta=beta)
    parameters = (model.weight, model.bias, encoder.weight, encoder.bias, encoder.logvar)
    weight, bias, rows_q, bias_q, logvar_q = leaves = [part.clone().requires_grad_() for part in parameters]
    q = LinearEncoder(rows_q, bias_q, logvar_q)(X)
    model = LinearGaussian(weight, bias, model.logvar)
    objective = (model.elbo(X, q) - (beta - 1.0) * kl(q, model.prior(len(X)))).mean()
    for gradient in torch.autograd.grad(objective, leaves):
        assert_close(gradient, torch.zeros_like(gradient), atol=1e-11)


@pytest.mark.parametrize("latent_dim", [1, 3, 5])
def test_the_best_variance_is_that_of_probabilistic_pca(latent_dim: int) -> None:
    variance = maximum_likelihood_variance(EIGENVALUES.flip(0), latent_dim)
    fitted = LinearGaussian.maximum_likelihood(X, latent_dim)
    assert_close(fitted.logvar.exp(), variance.expand(DATA_DIM))
    model, _ = optimal_linear_vae(X.mean(0), COVARIANCE, latent_dim, logvar=variance.log())
    assert_close(model.weight @ model.weight.mT, fitted.weight @ fitted.weight.mT)
    found = scipy.optimize.minimize_scalar(
        lambda logvar: -float(linear_vae_optimum(EIGENVALUES, latent_dim, logvar=logvar).elbo),
        bounds=(-6.0, 2.0),
        method="bounded",
        options={"xatol": 1e-10},
    )
    # At a maximum a number is found to the root of the rounding of the value, 1e-8 or so.
    assert float(variance.log()) == pytest.approx(found.x, abs=1e-6)


def test_eigenvalues_that_rounding_made_negative_are_zero() -> None:
    """As of images with pixels that are always blank."""
    given, meant = torch.tensor([2.0, -1e-15, 1.0]).double(), torch.tensor([2.0, 1.0, 0.0]).double()
    for part, expected in zip(
        linear_vae_optimum(given, 3, logvar=-1.0), linear_vae_optimum(meant, 3, logvar=-1.0), strict=True
    ):
        assert torch.equal(part, expected)
    assert torch.equal(water_filling(given, 0.5).squared_error, water_filling(meant, 0.5).squared_error)
    assert float(maximum_likelihood_variance(given, 2)) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_eigenvalues(dtype: torch.dtype) -> None:
    values = EIGENVALUES.to(dtype)
    found = linear_vae_optimum(values, 2, logvar=0.0)
    assert {part.dtype for part in found} == {dtype, torch.bool}
    assert {part.dtype for part in water_filling(values, 0.5)} == {dtype}
    model, encoder = optimal_linear_vae(MEAN.to(dtype), COVARIANCE.to(dtype), 2, logvar=0.0)
    assert {model.weight.dtype, model.logvar.dtype, encoder(X.to(dtype)).logvar.dtype} == {dtype}


def encoder_with(**changes: Tensor) -> LinearEncoder:
    parts: dict[str, Tensor] = {"weight": randn(2, 3), "bias": randn(2), "logvar": randn(2)}
    return LinearEncoder(**(parts | changes))


def test_the_encoder_is_linear() -> None:
    encoder, x = encoder_with(), randn(5, 3, seed=9)
    q = encoder(x)
    assert_close(q.mu, torch.nn.functional.linear(x, encoder.weight, encoder.bias))
    assert_close(q.logvar, torch.stack([encoder.logvar] * 5))


def of(**changes: Any) -> Callable[[], object]:
    options: dict[str, Any] = {"eigenvalues": EIGENVALUES, "latent_dim": 2, "logvar": 0.0}
    return lambda: linear_vae_optimum(**(options | changes))


def model_of(**changes: Any) -> Callable[[], object]:
    options: dict[str, Any] = {"mean": MEAN, "covariance": COVARIANCE, "latent_dim": 2, "logvar": 0.0}
    return lambda: optimal_linear_vae(**(options | changes))


BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (of(eigenvalues=EIGENVALUES.view(2, 3)), ValueError, "eigenvalues: expected shape (D,), found (2, 3)"),
    (of(eigenvalues=EIGENVALUES.log() * math.nan), ValueError, "eigenvalues: expected finite numbers"),
    (of(eigenvalues=EIGENVALUES - 0.2), ValueError, "eigenvalues: expected numbers of at least 0, found -0.1"),
    (of(latent_dim=7), ValueError, "latent_dim: expected at most 6, found 7"),
    (of(latent_dim=0), ValueError, "latent_dim: expected a positive integer, found 0"),
    (of(beta=0.0), ValueError, "beta: expected a positive number, found 0.0"),
    (of(beta=math.inf), ValueError, "beta: expected a positive number, found inf"),
    (of(logvar=math.nan), ValueError, "logvar: expected finite numbers"),
    (of(logvar=EIGENVALUES), ValueError, "logvar: expected shape (), found (6,)"),
    (lambda: water_filling(EIGENVALUES, 0.0), ValueError, "level: expected positive finite numbers, found others"),
    (lambda: water_filling(EIGENVALUES, math.inf), ValueError, "level: expected positive finite numbers"),
    (lambda: water_filling(EIGENVALUES, EIGENVALUES - 0.2), ValueError, "level: expected positive finite numbers"),
    (lambda: maximum_likelihood_variance(EIGENVALUES, 6), ValueError, "latent_dim: expected at most 5, found 6"),
    (model_of(mean=MEAN.view(2, 3)), ValueError, "mean: expected shape (D,), found (2, 3)"),
    (model_of(covariance=COVARIANCE[:5]), ValueError, "covariance: expected shape (6, 6), found (5, 6)"),
    (model_of(covariance=COVARIANCE * math.nan), ValueError, "covariance: expected finite numbers"),
    (model_of(covariance=COVARIANCE.float()), TypeError, "covariance: expected torch.float64"),
    (model_of(latent_dim=7), ValueError, "latent_dim: expected at most 6, found 7"),
    (lambda: encoder_with(weight=randn(2)), ValueError, "weight: expected shape (L, D), found (2,)"),
    (lambda: encoder_with(bias=randn(3)), ValueError, "bias: expected shape (2,), found (3,)"),
    (lambda: encoder_with(logvar=randn(3)), ValueError, "logvar: expected shape (2,), found (3,)"),
    (lambda: encoder_with()(randn(5, 4)), ValueError, "x: expected shape (B, 3), found (5, 4)"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_told_in_one_line(case: int) -> None:
    ask, error, message = BAD[case]
    with pytest.raises(error, match=re.escape(message)) as told:
        ask()
    assert "\n" not in str(told.value)


class Trained(NamedTuple):
    model: LinearGaussian
    encoder: LinearEncoder


@functools.cache
def train(variance: float, beta: float, *, learns_variance: bool = False, tolerance: float = 1e-7) -> Trained:
    """Climb the exact average objective from small random weights, by L-BFGS. No formula of the optimum is used."""
    weight, bias = 0.1 * randn(DATA_DIM, LATENT_DIM, seed=4), torch.zeros(DATA_DIM).double()
    rows_q, bias_q = 0.1 * randn(LATENT_DIM, DATA_DIM, seed=5), torch.zeros(LATENT_DIM).double()
    logvar_q, logvar = torch.zeros(LATENT_DIM).double(), torch.tensor(math.log(variance), dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (weight, bias, rows_q, bias_q, logvar_q)]
    leaves += [logvar.requires_grad_()] if learns_variance else []
    optimiser = torch.optim.LBFGS(
        leaves,
        max_iter=3000,
        tolerance_grad=tolerance,
        tolerance_change=1e-16,
        history_size=30,
        line_search_fn="strong_wolfe",
    )

    def parts() -> Trained:
        return Trained(LinearGaussian(weight, bias, logvar.expand(DATA_DIM)), LinearEncoder(rows_q, bias_q, logvar_q))

    def closure() -> Tensor:
        optimiser.zero_grad()
        model, encoder = parts()
        q = encoder(X)
        loss = -(model.elbo(X, q) - (beta - 1.0) * kl(q, model.prior(len(X)))).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        model, encoder = parts()
        return Trained(
            LinearGaussian(*(part.detach() for part in (model.weight, model.bias, model.logvar))),
            LinearEncoder(*(part.detach() for part in (encoder.weight, encoder.bias, encoder.logvar))),
        )


@pytest.mark.parametrize(("variance", "beta", "count"), CASES[1:])
def test_a_trained_linear_vae_ends_where_the_eigenvalues_say(variance: float, beta: float, count: int) -> None:
    model, encoder = train(variance, beta)
    theory = optimum(variance, beta)
    q = encoder(X)
    costs = 0.5 * (q.mu.square() + torch.exp(q.logvar) - 1.0 - q.logvar).mean(0)
    order = model.weight.norm(dim=0).argsort(descending=True)
    # It stops at a slope of 1e-7. The least curvature of the cases is some 0.05: weights are met to 1e-5, the objective
    # to 1e-12.
    assert_close(model.weight.norm(dim=0)[order], theory.weight_norms, rtol=0.0, atol=1e-5)
    assert_close(costs[order], theory.kl, rtol=0.0, atol=1e-5)
    assert_close(model.bias, MEAN, rtol=0.0, atol=1e-5)
    assert_close(squared_error_of(model, q, X), theory.squared_error, rtol=0.0, atol=1e-4)
    # What is climbed is flat at its maximum.
    objective = (model.elbo(X, q) - (beta - 1.0) * kl(q, model.prior(len(X)))).mean()
    assert_close(objective, -theory.distortion - beta * theory.rate, rtol=1e-10)
    # Closed are those that the eigenvalues name: weight nothing, q the prior. The rest is far from closed.
    is_open = model.weight.norm(dim=0)[order] > 1e-3
    assert is_open.tolist() == theory.is_active.tolist() == [True] * count + [False] * (LATENT_DIM - count)
    assert float(costs[order][~is_open].sum()) < 1e-9
    # The columns are at right angles: a q with independent coordinates chooses among the rotations.
    gram = model.weight.mT @ model.weight
    assert_close(gram - torch.diag(gram.diagonal()), torch.zeros_like(gram), atol=1e-4)


@pytest.mark.parametrize(("variance", "beta", "count"), CASES[1:])
def test_a_trained_linear_vae_lies_on_shannons_curve(variance: float, beta: float, count: int) -> None:
    """The curve is scipy's."""
    model, encoder = train(variance, beta)
    q = encoder(X)
    rate = float(kl(q, model.prior(len(X))).mean())
    squared_error = float(squared_error_of(model, q, X))
    least_rate, _ = shannon(level_of(squared_error))
    assert rate == pytest.approx(least_rate, abs=1e-4)
    assert_close(water_filling(EIGENVALUES, variance * beta).rate, rate, rtol=0.0, atol=1e-4)


# By hand. At 0.15 the error is 0.95, for which Shannon has five directions at 0.17 and 0.1 in the last; at 0.05 it is
# 0.55, six times 0.0917.
@pytest.mark.parametrize(
    ("variance", "excess"),
    [
        (0.26, 0.0),
        (0.25, 0.0),
        (0.15, 2.0 * math.log(0.17 / 0.15) - 0.5 * math.log(0.25 / 0.17)),
        (0.05, 2.0 * math.log(0.55 / 6.0 / 0.05) - 0.5 * math.log(0.25 * 0.1 / (0.55 / 6.0) ** 2)),
    ],
)
def test_with_a_latent_too_few_it_lies_above_the_curve(variance: float, excess: float) -> None:
    """The largest eigenvalue that no latent is left for is 0.25."""
    found = optimum(variance, 1.0)
    least_rate, _ = shannon(level_of(float(found.squared_error)))
    assert float(found.rate) - least_rate == pytest.approx(excess, abs=1e-9)


def test_a_learned_variance_closes_nothing() -> None:
    model, encoder = train(6.0, 1.0, learns_variance=True, tolerance=1e-6)
    variance = maximum_likelihood_variance(EIGENVALUES, LATENT_DIM)
    assert_close(variance, 0.175)
    assert_close(model.logvar.exp(), variance.expand(DATA_DIM), rtol=1e-5)
    theory = optimum(float(variance), 1.0)
    assert bool(theory.is_active.all())
    assert_close(model.weight.norm(dim=0).sort(descending=True).values, theory.weight_norms, rtol=1e-5)
    assert_close(model.elbo(X, encoder(X)).mean(), theory.elbo)
