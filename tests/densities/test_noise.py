"""Draws made of noise: rsample is from_noise of noise, mirrored noise, and implicit gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor
from torch.func import grad, vmap

from tests.oracles import DENSITIES, B, L, assert_close, assert_mean, randn
from vae_lib.densities import Bernoulli, Beta, DiagonalNormal, Gamma, StudentT, implicit_draw
from vae_lib.densities.implicit import implicit_gamma, standard_gamma
from vae_lib.protocols import FactorisedDensity, NoiseDensity, ReparameterizedDensity
from vae_lib.rng import make_generator

DOUBLE = torch.float64
ALPHA, BETA = 0.5 + randn(B, L, seed=181).exp(), 0.5 + randn(B, L, seed=182).exp()


def with_noise(dtype: torch.dtype = DOUBLE) -> dict[str, Any]:
    found = {name: DENSITIES[name].density(dtype) for name in ("DiagonalNormal", "FullNormal", "StudentT", "Gamma")}
    return {**found, "Beta": Beta(ALPHA.to(dtype), BETA.to(dtype))}


def parts(noise: Any) -> tuple[Tensor, ...]:
    return noise if isinstance(noise, tuple) else (noise,)


each = pytest.mark.parametrize("name", with_noise())


@each
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_draw_is_made_of_its_noise(name: str, dtype: torch.dtype) -> None:
    density = with_noise(dtype)[name]
    noise = density.noise(7, generator=make_generator(1))
    draw = density.from_noise(noise)
    assert (draw.shape, draw.dtype) == ((7, B, L), dtype)
    assert torch.equal(draw, density.rsample(7, generator=make_generator(1)))
    assert torch.equal(draw, density.sample(7, generator=make_generator(1)))
    for part in parts(noise):
        assert part.shape == (7, B, L)
        assert not part.requires_grad


@each
def test_noise_carries_no_gradient(name: str) -> None:
    density = with_noise()[name]
    leaves = [value.clone().requires_grad_() for value in vars(density).values()]
    again = type(density)(*leaves)
    noise = again.noise(3, generator=make_generator(2))
    assert not any(part.requires_grad for part in parts(noise))
    draw = again.from_noise(noise)
    assert all(bool(g.any()) for g in torch.autograd.grad(draw.sum(), leaves))
    assert not again.sample(3, generator=make_generator(2)).requires_grad


@each
def test_gradients_of_many_draws_in_one_call(name: str) -> None:
    """What gradients build on: per-draw gradients by vmap are those of plain automatic differentiation."""
    density = with_noise()[name]
    values = tuple(vars(density).values())
    noise = density.noise(5, generator=make_generator(3))

    def of_one(parameters: tuple[Tensor, ...], one: Any) -> Tensor:
        kept = tuple(part.unsqueeze(0) for part in parts(one))
        draw = type(density)(*parameters).from_noise(kept if isinstance(one, tuple) else kept[0])
        return (draw**2).sum()

    together = vmap(grad(of_one), in_dims=(None, 0))(values, noise)
    for s in range(5):
        leaves = [value.clone().requires_grad_() for value in values]
        one = tuple(part[s] for part in noise) if isinstance(noise, tuple) else noise[s]
        alone = torch.autograd.grad(of_one(tuple(leaves), one), leaves)
        for first, second in zip(together, alone, strict=True):
            assert_close(first[s], second)


def test_what_the_protocols_say() -> None:
    for density in with_noise().values():
        assert isinstance(density, NoiseDensity)
    bits = Bernoulli(randn(B, L, seed=1))
    assert not isinstance(bits, ReparameterizedDensity)
    assert isinstance(bits, FactorisedDensity)
    assert isinstance(Beta(ALPHA, BETA), FactorisedDensity)
    assert not isinstance(DENSITIES["FullNormal"].density(), FactorisedDensity)


@pytest.mark.parametrize("name", ["DiagonalNormal", "FullNormal", "StudentT"])
def test_mirrored_noise_makes_draws_on_the_other_side(name: str) -> None:
    density = with_noise()[name]
    noise = density.noise(50, generator=make_generator(4))
    first, second = density.from_noise(noise), density.from_noise(density.mirror(noise))
    assert_close(first + second, (2.0 * density.mu).expand(50, B, L), rtol=1e-12)
    twice = density.mirror(density.mirror(noise))
    assert all(torch.equal(a, b) for a, b in zip(parts(twice), parts(noise), strict=True))


def test_mirrored_bits_have_the_right_probability() -> None:
    """Both halves of a pair are draws, and are as unlike as they can be: cov = max(2p - 1, 0) - p²."""
    bits = Bernoulli(torch.tensor([[-2.0, -0.3, 0.0, 0.8, 3.0]], dtype=DOUBLE))
    count = 40_000
    noise = bits.noise(count, generator=make_generator(5))
    first, second = bits.from_noise(noise), bits.from_noise(bits.mirror(noise))
    probs = torch.sigmoid(bits.logits)
    assert_mean(first, probs, ceiling=0.003)
    assert_mean(second, probs, ceiling=0.003)
    assert_mean(first * second, (2.0 * probs - 1.0).clamp(min=0.0), ceiling=0.003)
    assert bool(((first == 0.0) | (first == 1.0)).all())
    assert torch.equal(first, bits.sample(count, generator=make_generator(5)))


def test_a_bit_passes_no_gradient() -> None:
    logits = randn(2, 2, seed=183).requires_grad_()
    bits = Bernoulli(logits)
    assert not bits.from_noise(bits.noise(3, generator=make_generator(6))).requires_grad


# Implicit gradients.


def test_an_implicit_draw_of_a_density_with_an_inverse() -> None:
    """The Kumaraswamy distribution has F(z) = 1 - (1 - z^a)^b and a formula for z: both give the same gradient."""
    a, b = (value.requires_grad_() for value in (0.5 + randn(6, seed=184).exp(), 0.5 + randn(6, seed=185).exp()))
    u = torch.linspace(0.05, 0.95, 6, dtype=DOUBLE)
    explicit = (1.0 - (1.0 - u) ** (1.0 / b)) ** (1.0 / a)
    z = explicit.detach()
    cdf = 1.0 - (1.0 - z**a) ** b
    log_density = torch.log(a * b) + (a - 1.0) * torch.log(z) + (b - 1.0) * torch.log1p(-(z**a))
    implicit = implicit_draw(explicit, cdf, log_density)
    assert torch.equal(implicit.detach(), z)
    cotangent = torch.linspace(0.5, 1.5, 6, dtype=DOUBLE)
    found = torch.autograd.grad((implicit * cotangent).sum(), (a, b))
    expected = torch.autograd.grad((explicit * cotangent).sum(), (a, b))
    for first, second in zip(found, expected, strict=True):
        assert_close(first, second)


def test_an_implicit_draw_of_a_normal_number() -> None:
    """dz/dmu = 1 and dz/dstd = (z - mu) / std, without the formula for z."""
    mu, std = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True), torch.tensor(1.6, dtype=DOUBLE, requires_grad=True)
    z = torch.linspace(-3.0, 4.0, 9, dtype=DOUBLE)
    standard = (z - mu) / std
    cdf = torch.special.ndtr(standard)
    draw = implicit_draw(z, cdf, -0.5 * standard**2 - torch.log(std) - 0.5 * math.log(2.0 * math.pi))
    for i in range(9):
        slopes = torch.autograd.grad(draw[i], (mu, std), retain_graph=True)
        assert_close(slopes[0], 1.0)
        assert_close(slopes[1], (z[i] - 0.7) / 1.6, atol=1e-12)


def implicit_slope(z: np.ndarray[Any, Any], a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """-dF/da / p by central differences of scipy's incomplete Gamma function."""
    step = 1e-5 * a
    slope = (scipy.special.gammainc(a + step, z) - scipy.special.gammainc(a - step, z)) / (2.0 * step)
    expected: np.ndarray[Any, Any] = -slope / scipy.stats.gamma.pdf(z, a)
    return expected


@pytest.mark.parametrize("concentration", [0.1, 0.7, 1.0, 2.5, 7.0, 30.0])
def test_the_slopes_of_gamma_numbers(concentration: float) -> None:
    shape = torch.full((2000,), concentration, dtype=DOUBLE)
    draw, slope = standard_gamma(shape, generator=make_generator(7))
    assert scipy.stats.kstest(draw, scipy.stats.gamma(concentration).cdf).pvalue > 1e-4
    middle = (draw > 1e-8) & (draw < 5.0 + 3.0 * concentration)  # where differences of F keep their digits
    expected = implicit_slope(draw[middle].numpy(), shape[middle].numpy())
    assert int(middle.sum()) > 1000
    assert_close(slope[middle], expected, rtol=1e-3)
    assert_mean(slope, torch.ones((), dtype=DOUBLE), ceiling=0.1)  # d E z / da


def test_a_gamma_number_keeps_its_value() -> None:
    a = torch.tensor([0.5, 3.0], dtype=DOUBLE, requires_grad=True)
    draw, slope = standard_gamma(a, generator=make_generator(8))
    assert not draw.requires_grad
    assert not slope.requires_grad
    z = implicit_gamma(a, draw, slope)
    assert torch.equal(z.detach(), draw)
    assert torch.equal(torch.autograd.grad(z.sum(), a)[0], slope)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("concentration", [1e-3, 1e-2, 1.0, 1e4, 1e6])
def test_gamma_numbers_at_extreme_concentrations_are_finite(dtype: torch.dtype, concentration: float) -> None:
    a = torch.full((1, 200), concentration, dtype=dtype, requires_grad=True)
    z = Gamma(a, torch.ones_like(a)).rsample(5, generator=make_generator(9))
    assert bool((z > 0.0).all())
    (gradient,) = torch.autograd.grad(z.sum(), a)
    assert bool(gradient.isfinite().all())


def test_the_path_of_a_beta_draw() -> None:
    """-dF/dalpha / p and -dF/dbeta / p by differences, averaged over many pairs of Gamma numbers with the same ratio.

    Given z, the two numbers are not determined, so the gradient is right on average at each z: for E z and E z².
    """
    count = 40_000
    leaves = [value.repeat(count, 1).requires_grad_() for value in (ALPHA, BETA)]
    z = Beta(*leaves).rsample(1, generator=make_generator(10))
    for power in (1, 2):
        found = torch.autograd.grad((z**power).sum(), leaves, retain_graph=True)
        exact = [value.clone().requires_grad_() for value in (ALPHA, BETA)]
        a, total = exact[0], exact[0] + exact[1]
        moment = a / total if power == 1 else a * (a + 1.0) / (total * (total + 1.0))
        for gradient, expected in zip(found, torch.autograd.grad(moment.sum(), exact), strict=True):
            samples = gradient.reshape(count, B, L)
            error = samples.std(0) / count**0.5
            # the last part is the thousandth that torch's slopes promise
            assert bool(((samples.mean(0) - expected).abs() <= 5.0 * error + 1e-3 * expected.abs()).all())
            assert float((error / expected.abs()).max()) < 0.02


def test_the_path_of_a_student_draw() -> None:
    """z = mu + s n / sqrt(g / (df / 2)) with g a Gamma number: each slope by hand."""
    mu, log_scale, df = (value.clone().requires_grad_() for value in DENSITIES["StudentT"].parameters)
    density = StudentT(mu, log_scale, df)
    noise = density.noise(1, generator=make_generator(11))
    normal, gamma, slope = (part[0] for part in noise)
    z = density.from_noise(noise)
    found = torch.autograd.grad(z.sum(), (mu, log_scale, df))
    deviation = torch.exp(log_scale) * normal * torch.rsqrt(gamma / (0.5 * df))
    assert_close(z[0].detach(), (mu + deviation).detach())
    assert_close(found[0], torch.ones(B, L, dtype=DOUBLE))
    assert_close(found[1], deviation.detach())
    # z - mu is proportional to df^½ g^-½, and dg/d df = slope / 2
    assert_close(found[2], (deviation * (0.5 / df - 0.25 * slope / gamma)).detach())


@each
def test_noise_has_the_dtype_of_the_parameters(name: str) -> None:
    density = with_noise(torch.float32)[name]
    assert all(part.dtype == torch.float32 for part in parts(density.noise(2, generator=make_generator(12))))


@pytest.mark.parametrize("count", [0, -3])
def test_the_number_of_draws_is_positive(count: int) -> None:
    for density in (*with_noise().values(), Bernoulli(randn(1, 1)), DiagonalNormal(randn(1, 1), randn(1, 1))):
        with pytest.raises(ValueError, match=f"^num_samples: expected a positive integer, found {count}$"):
            density.noise(count, generator=make_generator(0))


@pytest.mark.parametrize("name", ["DiagonalNormal", "FullNormal", "StudentT"])
def test_gradients_of_mirrored_draws_cancel_but_for_the_centre(name: str) -> None:
    density = with_noise()[name]
    leaves = [value.clone().requires_grad_() for value in vars(density).values()]
    again = type(density)(*leaves)
    noise = again.noise(50, generator=make_generator(9))
    sums = (again.from_noise(noise) + again.from_noise(again.mirror(noise))).sum(0)
    to_mu, *others = torch.autograd.grad(sums.sum(), leaves)
    assert_close(to_mu, torch.full((B, L), 100.0).double())
    # 50 draws with slopes of a few, and in df of heavy tails at most some hundred: rounding alone is left.
    for slope in others:
        assert_close(slope, torch.zeros_like(slope), atol=1e-11)
