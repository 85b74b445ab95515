"""Draws: moments, marginals, independence, gradients, and a generator that is the only source of randomness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from tests.oracles import CONTINUOUS, DENSITIES, DISCRETE, B, K, L, assert_close, assert_mean
from vae_lib.densities import Bernoulli, Binomial, Categorical, Gamma
from vae_lib.rng import make_generator

N = 20_000
# The chance that a right sampler fails one of these tests; the seeds are fixed, so it was met once and for all. A
# Kolmogorov-Smirnov test at this level sees a distance between distribution functions of 2.2 / sqrt(N) = 0.016.
LEVEL = 1e-4

each_density = pytest.mark.parametrize("name", DENSITIES)


def moments(name: str) -> tuple[Tensor, Tensor]:
    """Mean ``(B, L)`` and covariance ``(B L, B L)`` by the oracle."""
    case = DENSITIES[name]
    if name == "Categorical":
        probs = torch.softmax(case.parameters[0], -1)
        k = torch.arange(K, dtype=torch.float64)
        mean = (probs * k).sum(-1)
        variance = (probs * k**2).sum(-1) - mean**2
    else:
        oracle = case.oracle(*case.parameters)
        mean, variance = oracle.mean, oracle.variance
    covariance = torch.diag(variance.flatten())
    if name == "FullNormal":
        covariance = torch.block_diag(*(case.parameters[1] @ case.parameters[1].mT))
    return mean, covariance


@each_density
def test_mean_and_covariance(name: str) -> None:
    draws = DENSITIES[name].density().sample(N, generator=make_generator(1)).flatten(1)
    mean, covariance = moments(name)
    scale = covariance.diagonal().sqrt()
    standard = (draws - mean.flatten()) / scale
    # In units of the standard deviation: 1/sqrt(N) = 0.0071 for a mean; products have at most 9 times that.
    assert_mean(standard, torch.zeros(B * L), ceiling=0.0075)
    products = (standard.unsqueeze(1) * standard.unsqueeze(2)).flatten(1)
    assert_mean(products, (covariance / scale / scale.unsqueeze(1)).flatten(), ceiling=0.025)
    # Successive draws are independent of each other.
    assert_mean(standard[1:] * standard[:-1], torch.zeros(B * L), ceiling=0.0105)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_marginals_by_kolmogorov_and_smirnov(name: str) -> None:
    draws = DENSITIES[name].density().sample(N, generator=make_generator(2)).numpy()
    p = [parameter.numpy() for parameter in DENSITIES[name].parameters]
    frozen: Any
    for b in range(B):
        for i in range(L):
            match name:
                case "DiagonalNormal":
                    frozen = scipy.stats.norm(p[0][b, i], np.exp(p[1][b, i] / 2))
                case "FullNormal":
                    frozen = scipy.stats.norm(p[0][b, i], np.sqrt((p[1][b] @ p[1][b].T)[i, i]))
                case "StudentT":
                    frozen = scipy.stats.t(p[2][b, i], p[0][b, i], np.exp(p[1][b, i]))
                case _:
                    frozen = scipy.stats.gamma(p[0][b, i], scale=1.0 / p[1][b, i])
            assert scipy.stats.kstest(draws[:, b, i], frozen.cdf).pvalue > LEVEL


@pytest.mark.parametrize("name", DISCRETE)
def test_the_marginals_by_chi_square(name: str) -> None:
    draws = DENSITIES[name].density().sample(N, generator=make_generator(3)).numpy()
    logits = DENSITIES[name].parameters[0].numpy()
    for b in range(B):
        for i in range(L):
            match name:
                case "Bernoulli":
                    probs = scipy.stats.bernoulli.pmf(np.arange(2), scipy.special.expit(logits[b, i]))
                case "Binomial":
                    probs = scipy.stats.binom.pmf(np.arange(17), 16, scipy.special.expit(logits[b, i]))
                case _:
                    probs = scipy.special.softmax(logits[b, i])
            counts = np.bincount(draws[:, b, i].astype(int), minlength=len(probs))
            assert counts.sum() == N
            assert len(counts) == len(probs)
            rare = N * probs < 5  # the chi-square approximation wants five in each cell
            counts = np.append(counts[~rare], counts[rare].sum())
            expected = np.append(N * probs[~rare], N * probs[rare].sum())
            keep = expected > 1e-9
            assert scipy.stats.chisquare(counts[keep], expected[keep]).pvalue > LEVEL


@each_density
def test_a_draw_carries_no_gradient(name: str) -> None:
    case = DENSITIES[name]
    parameters = [parameter.clone().requires_grad_() for parameter in case.parameters]
    density = case.ours(*parameters)
    draw = density.sample(3, generator=make_generator(1))
    assert not draw.requires_grad
    if name in CONTINUOUS:
        differentiable = density.rsample(3, generator=make_generator(1))
        assert torch.equal(differentiable.detach(), draw)
        assert all(g is not None for g in torch.autograd.grad(differentiable.sum(), parameters, allow_unused=True))


@each_density
def test_the_generator_decides_everything(name: str) -> None:
    density = DENSITIES[name].density()
    one, same, other = (density.sample(50, generator=make_generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    generator = make_generator(1)
    assert torch.equal(density.sample(50, generator=generator), one)
    assert not torch.equal(density.sample(50, generator=generator), one)


@each_density
@pytest.mark.parametrize("count", [0, -1])
def test_the_number_of_draws_is_positive(name: str, count: int) -> None:
    message = f"^num_samples: expected a positive integer, found {count}$"
    with pytest.raises(ValueError, match=message):
        DENSITIES[name].density().sample(count, generator=make_generator(0))


@pytest.mark.parametrize("name", ["DiagonalNormal", "FullNormal"])
def test_the_path_of_a_normal_draw(name: str) -> None:
    """z = mu + T eps, so dz/dmu is 1 and the rest of the gradient is the noise that the draw itself reveals."""
    case = DENSITIES[name]
    mu, spread = (parameter.clone().requires_grad_() for parameter in case.parameters)
    z = case.ours(mu, spread).rsample(1, generator=make_generator(4))[0]
    cotangent = torch.linspace(0.5, 1.5, B * L, dtype=torch.float64).reshape(B, L)
    grad_mu, grad_spread = torch.autograd.grad((z * cotangent).sum(), (mu, spread))
    deviation = (z - mu).detach()
    assert_close(grad_mu, cotangent)
    if name == "DiagonalNormal":
        assert_close(grad_spread, 0.5 * cotangent * deviation)
    else:
        noise = torch.linalg.solve(spread.detach(), deviation.unsqueeze(-1)).squeeze(-1)
        assert_close(grad_spread, (cotangent.unsqueeze(2) * noise.unsqueeze(1)).tril())


@pytest.mark.parametrize("name", CONTINUOUS)
def test_pathwise_gradients_of_the_second_moment(name: str) -> None:
    """The mean of d z²/dθ over draws is d E[z²]/dθ, which the oracle gives in closed form, for every parameter."""
    case = DENSITIES[name]
    # One draw each for N copies of the batch: every copy has its own leaf, so every draw has its own gradient.
    leaves = [p.repeat(N, *([1] * (p.ndim - 1))).requires_grad_() for p in case.parameters]
    z = case.ours(*leaves).rsample(1, generator=make_generator(5))
    gradients = torch.autograd.grad((z**2).sum(), leaves)
    exact = [p.clone().requires_grad_() for p in case.parameters]
    oracle = case.oracle(*exact)
    expected = torch.autograd.grad((oracle.mean**2 + oracle.variance).sum(), exact)
    for gradient, expectation in zip(gradients, expected, strict=True):
        # Relative to the spread of the gradient itself, plus the 1e-3 that torch's implicit Gamma gradient promises.
        samples = gradient.reshape(N, *expectation.shape)
        error = samples.std(0) / N**0.5
        assert float((error / (samples.abs().mean(0) + 1e-300)).max()) < 0.08
        assert bool(((samples.mean(0) - expectation).abs() <= 5.0 * error + 1e-3 * expectation.abs() + 1e-12).all())


def test_the_implicit_gradient_of_a_gamma_draw() -> None:
    """dz/da = -(dF/da) / p(z) by central differences of scipy's distribution function; dz/db = -z/b exactly."""
    case = DENSITIES["Gamma"]
    a, b = (parameter.clone().requires_grad_() for parameter in case.parameters)
    z = Gamma(a, b).rsample(1, generator=make_generator(6))[0]
    grad_a, grad_b = torch.autograd.grad(z.sum(), (a, b))
    a_, b_, z_ = (tensor.detach().numpy() for tensor in (a, b, z))
    step = 1e-5
    slope = (scipy.special.gammainc(a_ + step, b_ * z_) - scipy.special.gammainc(a_ - step, b_ * z_)) / (2 * step)
    expected = -slope / scipy.stats.gamma.pdf(z_, a_, scale=1.0 / b_)
    assert_close(grad_a, expected, rtol=2e-3)  # torch approximates this derivative to about 1e-3
    assert_close(grad_b, -z_ / b_)


def test_certain_bits_counts_and_categories() -> None:
    logits = torch.tensor([[-1e4, 1e4]], dtype=torch.float64)
    generator = make_generator(7)
    assert Bernoulli(logits).sample(100, generator=generator).unique(dim=0).tolist() == [[[0.0, 1.0]]]
    assert Binomial(logits, 16).sample(100, generator=generator).unique(dim=0).tolist() == [[[0.0, 16.0]]]
    one_hot = torch.tensor([[[-1e4, 1e4, -1e4]]], dtype=torch.float64)
    assert Categorical(one_hot).sample(100, generator=generator).unique().tolist() == [1.0]
