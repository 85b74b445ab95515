"""The labelled equations of chapter 5, each met by a route that does not pass through the library's formula.

Averages over q are sums over Gauss-Hermite nodes or scipy's quadrature, probabilities are sums over every value a pixel
can take, and densities are scipy's. Derivatives of averages are central differences. Nothing here draws at random but
the data and the weights.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, optimize, special, stats
from torch import Tensor, nn

from tests.oracles import assert_close, randn
from vae_lib.bounds import elbo_with_analytic_kl, log_weights
from vae_lib.densities import DiagonalNormal, log_bernoulli, log_binomial
from vae_lib.models import (
    VAE,
    BernoulliLikelihood,
    DiscretisedLogisticLikelihood,
    Likelihood,
    NormalEncoder,
    NormalLikelihood,
    mlp,
)
from vae_lib.rng import make_generator

Array = NDArray[np.float64]
DOUBLE = torch.float64
QUAD = {"epsabs": 1e-12, "epsrel": 1e-12, "limit": 400}
# A central difference of step h errs by some h² f''' / 6, and by rounding over h.
STEP, DIFFERENCE = 1e-5, 1e-8
D, L, B = 5, 2, 3


def small_vae(likelihood: Likelihood, *, latents: int = L, pixels: int = D) -> VAE:
    generator = make_generator(0, "small")
    encoder = NormalEncoder(mlp([pixels, 4, 2 * latents], generator=generator, dtype=DOUBLE))
    decoder = mlp([latents, 4, pixels], generator=generator, dtype=DOUBLE)
    return VAE(encoder, decoder, likelihood, latent_dim=latents, data_dim=pixels)


def numbers(network: nn.Module, value: Array) -> Array:
    """A network's output, computed by NumPy from its weights."""
    first, _, last = network
    hidden = np.tanh(value @ first.weight.detach().numpy().T + first.bias.detach().numpy())
    output: Array = hidden @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    return output


def normal_nodes(count: int) -> tuple[Array, Array]:
    """Nodes ``(count ** 2, 2)`` and weights: sums that are averages over two standard normal numbers."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    pairs = np.array(list(itertools.product(nodes, nodes)))
    shares = np.outer(weights, weights).ravel() / weights.sum() ** 2
    return pairs, shares


def log_q(z: Array, mu: Array, std: Array) -> Array:
    value: Array = stats.norm.logpdf(z, mu, std).sum(-1)
    return value


def bits(count: int = B) -> Tensor:
    return (randn(count, D, seed=3) > 0.0).to(DOUBLE)


@pytest.mark.equation("eq-vae-model")
def test_the_densities_of_a_vae_are_those_of_its_networks() -> None:
    vae, x, z = small_vae(BernoulliLikelihood()), bits(), randn(4, B, L, seed=1)
    out = numbers(vae.encoder.network, x.numpy())
    assert_close(vae(x).log_prob(z), log_q(z.numpy(), out[:, :L], np.exp(0.5 * out[:, L:])))
    assert_close(vae.prior(B).log_prob(z), stats.norm.logpdf(z.numpy()).sum(-1))
    probability = special.expit(numbers(vae.decoder, z.numpy()))
    assert_close(vae.log_p_x_given_z(x, z), stats.bernoulli.logpmf(x.numpy(), probability).sum(-1))


def exact_terms(vae: VAE, x: Array) -> tuple[float, float, float]:
    """Reconstruction, KL to the prior and ELBO of one datum, all three as sums over nodes of q."""
    nodes, shares = normal_nodes(60)
    out = numbers(vae.encoder.network, x)
    mu, std = out[:L], np.exp(0.5 * out[L:])
    z = mu + std * nodes
    log_p = stats.bernoulli.logpmf(x, special.expit(numbers(vae.decoder, z))).sum(-1)
    log_prior, log_posterior = stats.norm.logpdf(z).sum(-1), log_q(z, mu, std)
    return (
        float(shares @ log_p),
        float(shares @ (log_posterior - log_prior)),
        float(shares @ (log_p + log_prior - log_posterior)),
    )


@pytest.mark.equation("eq-vae-loss")
def test_reconstruction_and_regulariser_are_minus_the_elbo() -> None:
    vae, x = small_vae(BernoulliLikelihood()), bits(1)
    reconstruction, divergence, elbo = exact_terms(vae, x[0].numpy())
    assert_close(torch.tensor(-reconstruction + divergence), -elbo)
    nodes, shares = normal_nodes(60)
    q = vae(x)
    z = q.from_noise(torch.as_tensor(nodes)[:, None])
    for bound in (elbo_with_analytic_kl, log_weights):
        assert_close((torch.as_tensor(shares)[:, None] * bound(vae, q, x, z)).sum(), elbo)


@pytest.mark.equation("eq-two-steps")
def test_backpropagation_is_a_small_e_step_and_a_small_m_step() -> None:
    """The exact loss is differentiated by differences, one network at a time; the right sides by formula."""
    vae, x = small_vae(BernoulliLikelihood()), bits(1)
    nodes, shares = normal_nodes(40)
    noise, weight = torch.as_tensor(nodes)[:, None], torch.as_tensor(shares)[:, None]
    z = vae(x).from_noise(noise)
    e_step = -(weight * elbo_with_analytic_kl(vae, vae(x), x, z)).sum()
    by_phi = torch.autograd.grad(e_step, list(vae.encoder.parameters()))
    m_step = -(weight * vae.log_p_x_given_z(x, z.detach())).sum()
    by_theta = torch.autograd.grad(m_step, list(vae.decoder.parameters()))

    def loss() -> float:
        reconstruction, divergence, _ = exact_terms(vae, x[0].numpy())
        return -reconstruction + divergence

    for network, gradients in ((vae.encoder, by_phi), (vae.decoder, by_theta)):
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            direction = randn(*parameter.shape, seed=7)
            start = parameter.detach().clone()
            ends = []
            for sign in (1.0, -1.0):
                parameter.data = start + sign * STEP * direction
                ends.append(loss())
            parameter.data = start
            slope = (ends[0] - ends[1]) / (2.0 * STEP)
            assert_close((gradient * direction).sum(), slope, rtol=DIFFERENCE, atol=DIFFERENCE)


@pytest.mark.parametrize(("centre", "log_scale"), [(0.1, -1.0), (-1.3, 0.5), (0.9, -3.0)])
@pytest.mark.equation("eq-discretised-logistic")
def test_levels_have_the_areas_under_a_logistic_curve(centre: float, log_scale: float) -> None:
    count = 7
    places = np.linspace(-1.0, 1.0, count)
    cuts = np.concatenate([[-np.inf], (places[1:] + places[:-1]) / 2.0, [np.inf]])
    expected = np.diff(stats.logistic.cdf(cuts, centre, math.exp(log_scale)))
    levels = torch.arange(count, dtype=DOUBLE)[:, None]
    output = torch.tensor([centre, log_scale], dtype=DOUBLE).expand(1, count, 2)
    found = DiscretisedLogisticLikelihood(count).log_prob(levels, output)[0].exp()
    # A difference of two distribution functions loses its leading digits in the tails.
    assert_close(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("n", [16.0, 0.25])
@pytest.mark.equation("eq-units")
def test_another_unit_shifts_the_log_density(n: float) -> None:
    """A density in one unit is the derivative of a distribution function; the function does not know the unit."""
    x = np.array([0.3, 2.0, 5.0])
    mu, std = np.array([0.5, 1.0, 4.0]), np.array([0.7, 2.0, 1.1])

    def log_density(point: Array, scale: float) -> float:
        up, down = (stats.norm.cdf((point + h) * scale, mu, std) for h in (STEP / scale, -STEP / scale))
        return float(np.log((up - down) / (2.0 * STEP / scale)).sum())

    assert log_density(x, 1.0) == pytest.approx(log_density(x / n, n) - len(x) * math.log(n), rel=1e-9)
    assert log_density(x, 1.0) == pytest.approx(stats.norm.logpdf(x, mu, std).sum(), rel=1e-7)
    as_tensor = [torch.as_tensor(v) for v in (x / n, mu / n)]
    logvar = torch.as_tensor(2.0 * np.log(std / n))
    ours = DiagonalNormal(as_tensor[1][None], logvar[None]).log_prob(as_tensor[0][None, None])
    assert_close(ours[0, 0] - 3 * math.log(n), stats.norm.logpdf(x, mu, std).sum())


@pytest.mark.parametrize(("mu", "std"), [(0.4, 0.3), (2.2, 1.5), (1.5, 0.05)])
@pytest.mark.equation("eq-dequantisation")
def test_a_dequantised_density_bounds_a_probability(mu: float, std: float) -> None:
    total = 0.0
    for level in range(-20, 25):
        mass, _ = integrate.quad(lambda u, k=level: stats.norm.pdf(k + u, mu, std), 0.0, 1.0, points=[0.5], **QUAD)
        average, _ = integrate.quad(lambda u, k=level: stats.norm.logpdf(k + u, mu, std), 0.0, 1.0, **QUAD)
        assert mass == pytest.approx(np.diff(stats.norm.cdf([level, level + 1], mu, std))[0], abs=1e-12)
        assert mass == 0.0 or average <= math.log(mass) + 1e-9
        total += mass
    assert total == pytest.approx(1.0, abs=1e-9)
    # With equality where the density is flat over the cell.
    assert integrate.quad(lambda u: stats.uniform.logpdf(u, 0.0, 2.0), 0.0, 1.0)[0] == pytest.approx(math.log(0.5))


@pytest.mark.equation("eq-mse-is-normal")
def test_a_squared_error_is_a_normal_likelihood() -> None:
    x, output = randn(B, D, seed=1), randn(4, B, D, seed=2)
    sigma = 0.37
    by_scipy = stats.norm.logpdf(x.numpy(), output.numpy(), sigma).sum(-1)
    squares = ((x - output) ** 2).sum(-1)
    assert_close(squares / (2.0 * sigma**2) + 0.5 * D * math.log(2.0 * math.pi * sigma**2), -by_scipy)
    assert_close(NormalLikelihood(2.0 * math.log(sigma)).log_prob(x, output), by_scipy)


def normal_case() -> tuple[VAE, Tensor, Array, Array, float, float]:
    """A VAE, one datum, nodes and weights of its q, and by them its average squared error and its KL."""
    vae, x = small_vae(NormalLikelihood(0.0)), randn(1, D, seed=5)
    nodes, shares = normal_nodes(40)
    out = numbers(vae.encoder.network, x[0].numpy())
    mu, std = out[:L], np.exp(0.5 * out[L:])
    z = mu + std * nodes
    squares = float(shares @ ((x[0].numpy() - numbers(vae.decoder, z)) ** 2).sum(-1))
    divergence = float(shares @ (log_q(z, mu, std) - stats.norm.logpdf(z).sum(-1)))
    return vae, x, z, shares, squares, divergence


def elbo_at(variance: float) -> float:
    """The exact ELBO of that case, with the library's head, under this noise."""
    vae, x, z, shares, _, divergence = normal_case()
    vae.likelihood = NormalLikelihood(math.log(variance))
    log_p = vae.log_p_x_given_z(x, torch.as_tensor(z)[:, None])[:, 0].detach()
    return float(torch.as_tensor(shares) @ log_p) - divergence


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1.0 / D, 1.0 / L), (1.0 / D, 0.00025), (3.0, 0.1)])
@pytest.mark.equation("eq-any-weights")
def test_any_two_weights_make_an_elbo(a: float, b: float) -> None:
    *_, squares, divergence = normal_case()
    variance = b / (2.0 * a)
    right = -b * elbo_at(variance) - 0.5 * b * D * math.log(2.0 * math.pi * variance)
    assert a * squares + b * divergence == pytest.approx(right, rel=1e-10)


@pytest.mark.parametrize("beta", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("variance", [0.01, 0.7])
@pytest.mark.equation("eq-beta-is-noise")
def test_a_weight_is_a_noise_variance(beta: float, variance: float) -> None:
    _, x, z, shares, _, divergence = normal_case()
    vae = small_vae(NormalLikelihood(0.0))
    log_p = stats.norm.logpdf(x[0].numpy(), numbers(vae.decoder, z), math.sqrt(variance)).sum(-1)
    left = float(shares @ log_p) - beta * divergence
    constant = 0.5 * D * ((beta - 1.0) * math.log(2.0 * math.pi * variance) + beta * math.log(beta))
    assert left == pytest.approx(beta * elbo_at(beta * variance) + constant, rel=1e-10)


@pytest.mark.equation("eq-means-are-beta")
def test_means_over_pixels_and_latents_are_a_weight_of_d_over_l() -> None:
    """The loss of the programs, by torch's own functions, against the model with the noise D / (2 L)."""
    vae, x = small_vae(NormalLikelihood(math.log(D / (2.0 * L)))), randn(B, D, seed=9)
    q = vae(x)
    z = q.from_noise(randn(1, B, L, seed=11))
    per_pixel = nn.functional.mse_loss(vae.decoder(z[0]), x)
    per_latent = (-0.5 * (1.0 + q.logvar - q.mu**2 - q.logvar.exp())).mean()
    weights = [*vae.encoder.parameters(), *vae.decoder.parameters()]
    popular = torch.autograd.grad(per_pixel + per_latent, weights, retain_graph=True)
    honest = torch.autograd.grad(-elbo_with_analytic_kl(vae, q, x, z).mean() / L, weights, retain_graph=True)
    for found, expected in zip(popular, honest, strict=True):
        assert_close(found, expected)
    by_sums = ((x - vae.decoder(z[0])) ** 2).sum(1).mean() + (D / L) * (per_latent * L)
    assert_close(D * (per_pixel + per_latent), by_sums.detach())


@pytest.mark.equation("eq-best-sigma")
def test_the_best_noise_is_the_mean_squared_error() -> None:
    *_, squares, divergence = normal_case()
    found = optimize.minimize_scalar(lambda t: -elbo_at(math.exp(t)), bounds=(-6.0, 6.0), method="bounded")
    # The top is flat: half the digits of the value are left for the place.
    assert math.exp(found.x) == pytest.approx(squares / D, rel=1e-4)
    profile = -0.5 * D * math.log(2.0 * math.pi * math.e * squares / D) - divergence
    assert elbo_at(squares / D) == pytest.approx(profile, rel=1e-10)
    assert -found.fun == pytest.approx(profile, rel=1e-8)


@pytest.mark.parametrize("beta", [0.5, 4.0])
@pytest.mark.equation("eq-tempered-bernoulli")
def test_a_bernoulli_to_a_power_sums_to_z(beta: float) -> None:
    a = np.array([-7.0, -0.4, 0.0, 2.3])
    p = special.expit(a)
    by_sum = p ** (1.0 / beta) + (1.0 - p) ** (1.0 / beta)
    z = (1.0 + np.exp(a / beta)) / (1.0 + np.exp(a)) ** (1.0 / beta)
    np.testing.assert_allclose(z, by_sum, rtol=1e-12)
    assert (np.abs(np.log(z)) <= abs(math.log(z[2]))).all()  # at a = 0: most undecided
    assert math.log(z[2]) == pytest.approx((1.0 - 1.0 / beta) * math.log(2.0))
    for x in itertools.product([0.0, 1.0], repeat=len(a)):
        x_t, a_t = torch.tensor(x, dtype=DOUBLE), torch.as_tensor(a)
        tempered = stats.bernoulli.logpmf(np.array(x), p).sum() / beta
        assert_close(log_bernoulli(x_t, a_t / beta).sum() + math.fsum(np.log(z)), tempered)


@pytest.mark.parametrize("a", [-30.0, -2.0, 1e-3, 0.7, 12.0])
@pytest.mark.equation("eq-continuous-bernoulli")
def test_a_grey_bernoulli_does_not_integrate_to_one(a: float) -> None:
    pi = special.expit(a)
    integral, _ = integrate.quad(lambda x: pi**x * special.expit(-a) ** (1.0 - x), 0.0, 1.0, **QUAD)
    normaliser = a / math.tanh(a / 2.0)
    assert integral == pytest.approx(1.0 / normaliser, rel=1e-10)
    assert normaliser >= 2.0
    theirs = torch.distributions.ContinuousBernoulli(logits=torch.tensor(a, dtype=DOUBLE))
    x = torch.tensor(0.3, dtype=DOUBLE)
    # torch's density takes a Taylor series near one half, good to some 1e-7.
    assert_close(log_bernoulli(x, theirs.logits) + math.log(normaliser), theirs.log_prob(x), rtol=1e-6, atol=1e-6)


@pytest.mark.equation("eq-grey-binomial")
def test_a_grey_bernoulli_is_a_sixteenth_of_a_binomial() -> None:
    a = np.array([-4.0, -0.3, 1.7])[:, None]
    k = np.arange(17.0)
    grey = k / 16.0 * a - np.log1p(np.exp(a))
    expected = stats.binom.logpmf(k, 16, special.expit(a))
    np.testing.assert_allclose(16.0 * grey + np.log(special.comb(16, k)), expected, rtol=1e-10, atol=1e-12)
    k_t, a_t = torch.as_tensor(k), torch.as_tensor(a)
    assert_close(log_binomial(k_t, a_t, 16), expected)
    assert_close(
        -nn.functional.binary_cross_entropy_with_logits(
            a_t.expand(3, 17), (k_t / 16.0).expand(3, 17), reduction="none"
        ),
        grey,
    )
