"""The labelled equations of chapter 2, each met by a route that does not pass through the library's formula.

Optima are found by SciPy or by solving the conditions for them, averages by quadrature or by sums over data, gradients
by automatic differentiation of torch.distributions. Nothing here is random but for the draws of one Monte Carlo test.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, special, stats
from torch import Tensor
from torch import distributions as td

from tests.oracles import assert_close, assert_mean, curve, randn
from vae_lib import bounds
from vae_lib.densities import Categorical, DiagonalNormal, FullNormal
from vae_lib.divergences import kl
from vae_lib.exact import GaussianMixture, LinearGaussian, NonlinearDecoder
from vae_lib.learning import exact, inference_gap, linear_gaussian_em, maximise, mixture_em, run_em
from vae_lib.rng import make_generator

N, D, L = 40, 5, 3
DOUBLE = torch.float64
WEIGHT, BIAS, LOG_NOISE = randn(D, L, seed=1), randn(D, seed=2), torch.tensor(-0.7, dtype=DOUBLE)
MODEL = LinearGaussian(WEIGHT, BIAS, LOG_NOISE.expand(D))
# Data with unequal variances along axes that are not the coordinates.
X = randn(N, D, seed=3) @ torch.diag(torch.tensor([2.0, 1.5, 1.0, 0.6, 0.5]).double()) @ randn(D, D, seed=4)
ROTATION = torch.linalg.qr(randn(L, L, seed=5)).Q
PRECISION = torch.eye(L).double() + WEIGHT.mT @ WEIGHT * torch.exp(-LOG_NOISE)


def evidence(x: Tensor, weight: Tensor, bias: Tensor, log_noise: Tensor) -> Tensor:
    """log p(x) of probabilistic PCA by PyTorch's normal with the full covariance."""
    covariance = weight @ weight.mT + torch.exp(log_noise) * torch.eye(len(bias)).double()
    return td.MultivariateNormal(bias, covariance).log_prob(x)


def kl_of_normals(mean_gap: Tensor, covariance: Tensor, precision: Tensor) -> Tensor:
    """KL(N(m + gap, covariance) || N(m, precision^-1)) by torch.distributions."""
    zero = torch.zeros(len(precision)).double()
    return td.kl_divergence(
        td.MultivariateNormal(mean_gap, covariance), td.MultivariateNormal(zero, precision_matrix=precision)
    )


def descend(loss: Callable[[Tensor], Tensor], start: Tensor) -> np.ndarray:
    """Minimise by SciPy's BFGS."""

    def value_and_slope(free: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(free, requires_grad=True)
        value = loss(leaf)
        (slope,) = torch.autograd.grad(value, leaf)
        return float(value.detach()), slope.numpy()

    found: np.ndarray = optimize.minimize(
        value_and_slope, start.numpy(), jac=True, method="BFGS", options={"gtol": 1e-10}
    ).x
    return found


@pytest.mark.equation("eq-mean-field-optimum")
def test_the_best_independent_q() -> None:
    """BFGS on PyTorch's KL finds the posterior's mean and the variances 1 / Lambda_jj; the library returns them."""
    found = descend(lambda f: kl_of_normals(f[:L], torch.exp(f[L:]).diag(), PRECISION), torch.zeros(2 * L).double())
    # The loss is flat to rounding within 1e-8 of its minimum.
    np.testing.assert_allclose(found[:L], 0.0, atol=1e-6)
    np.testing.assert_allclose(np.exp(found[L:]), 1.0 / PRECISION.diagonal(), rtol=1e-6)
    q = linear_gaussian_em.mean_field(MODEL, X)
    assert_close(q.mu, MODEL.posterior(X).mu)
    assert_close(torch.exp(q.logvar), (1.0 / PRECISION.diagonal()).expand(N, L))


@pytest.mark.equation("eq-mean-field-optimum")
def test_no_density_with_independent_coordinates_is_better() -> None:
    """Also among those that are not normal: the KL of a product of uniform or Laplace densities is larger."""
    best = 0.5 * (PRECISION.diagonal().log().sum() - torch.logdet(PRECISION))
    constant = 0.5 * L * math.log(2.0 * math.pi) - 0.5 * torch.logdet(PRECISION)
    for entropy in (0.5 * math.log(12.0), 1.0 + 0.5 * math.log(2.0)):  # uniform, Laplace, of variance 1
        # KL = - entropy + E[(z - m)^T Lambda (z - m)] / 2 + constant, smallest at the variances 1 / Lambda_jj.
        value = -(L * entropy - 0.5 * PRECISION.diagonal().log().sum()) + 0.5 * L + constant
        assert float(value) > float(best) + 0.05


@pytest.mark.equation("eq-mean-field-gap")
def test_the_gap_of_mean_field() -> None:
    expected = kl_of_normals(torch.zeros(L).double(), (1.0 / PRECISION.diagonal()).diag(), PRECISION)
    formula = 0.5 * (PRECISION.diagonal().log().sum() - torch.logdet(PRECISION))
    assert_close(formula, expected)
    q = linear_gaussian_em.mean_field(MODEL, X)
    assert_close(evidence(X, WEIGHT, BIAS, LOG_NOISE) - MODEL.elbo(X, q), formula.expand(N))
    assert float(formula) > 0.1


@pytest.mark.equation("eq-mean-field-gap")
def test_the_gap_is_zero_where_the_precision_is_diagonal() -> None:
    model = LinearGaussian(torch.linalg.qr(WEIGHT).Q, BIAS, LOG_NOISE.expand(D))
    assert_close(model.elbo(X, linear_gaussian_em.mean_field(model, X)), model.log_p_x(X))


@pytest.mark.equation("eq-rotation")
def test_a_rotation_of_the_latents() -> None:
    turned = LinearGaussian(WEIGHT @ ROTATION, BIAS, LOG_NOISE.expand(D))
    assert_close(turned.log_p_x(X), evidence(X, WEIGHT, BIAS, LOG_NOISE))
    precision = torch.linalg.inv(turned.posterior(X[:1]).covariance[0])
    assert_close(precision, ROTATION.mT @ PRECISION @ ROTATION)
    assert not torch.allclose(precision.diagonal(), PRECISION.diagonal(), rtol=1e-2)


@pytest.mark.equation("eq-em", "eq-em-monotone")
def test_each_half_step_is_a_maximum_and_the_likelihood_gains_what_the_identity_says() -> None:
    """The E-step by its optimality (no other q is better), the M-step by a zero slope and by SciPy's optimum."""
    q = MODEL.posterior(X)
    assert_close(MODEL.elbo(X, q), evidence(X, WEIGHT, BIAS, LOG_NOISE))
    moved = FullNormal(q.mu + 0.1 * randn(N, L, seed=6), 1.1 * q.scale_tril)
    assert bool((MODEL.elbo(X, moved) < MODEL.elbo(X, q)).all())
    new = linear_gaussian_em.m_step(X, q)

    def bound(free: Tensor) -> Tensor:
        weight, bias, log_noise = free[: D * L].reshape(D, L), free[D * L : -1], free[-1]
        return LinearGaussian(weight, bias, log_noise.expand(D)).elbo(X, q).mean()

    start = torch.cat([WEIGHT.flatten(), BIAS, LOG_NOISE[None]])
    found = torch.tensor(descend(lambda free: -bound(free), start))
    best = torch.cat([new.weight.flatten(), new.bias, new.logvar[:1]])
    torch.testing.assert_close(found, best, rtol=1e-5, atol=1e-5)
    before, after = evidence(X, WEIGHT, BIAS, LOG_NOISE), evidence(X, new.weight, new.bias, new.logvar[0])
    gain = (new.elbo(X, q) - MODEL.elbo(X, q)) + kl(q, new.posterior(X))
    assert_close(after - before, gain)
    assert float((after - before).mean()) > float((new.elbo(X, q) - MODEL.elbo(X, q)).mean()) > 0.0


@pytest.mark.equation("eq-fisher")
def test_the_bound_touches_the_evidence_with_one_tangent() -> None:
    leaves = [t.clone().requires_grad_() for t in (WEIGHT, BIAS, LOG_NOISE)]
    q = MODEL.posterior(X)
    of_bound = torch.autograd.grad(LinearGaussian(leaves[0], leaves[1], leaves[2].expand(D)).elbo(X, q).sum(), leaves)
    of_evidence = torch.autograd.grad(evidence(X, *leaves).sum(), leaves)
    for ours, theirs in zip(of_bound, of_evidence, strict=True):
        assert_close(ours, theirs)
    other = linear_gaussian_em.mean_field(MODEL, X)
    elsewhere = torch.autograd.grad(
        LinearGaussian(leaves[0], leaves[1], leaves[2].expand(D)).elbo(X, other).sum(), leaves
    )
    assert not torch.allclose(elsewhere[0], of_evidence[0], rtol=1e-2)


@pytest.mark.equation("eq-ppca-m-step", "eq-em-gradient")
def test_the_m_step_of_probabilistic_pca() -> None:
    """The printed formulas, datum by datum, against the library and against the gradient of the evidence."""
    bias = X.mean(0)
    model = LinearGaussian(WEIGHT, bias, LOG_NOISE.expand(D))
    variance = torch.exp(LOG_NOISE)
    m = WEIGHT.mT @ WEIGHT + variance * torch.eye(L).double()
    a, cross = torch.zeros(L, L).double(), torch.zeros(D, L).double()
    means = []
    for x in X:
        mu = torch.linalg.inv(m) @ WEIGHT.mT @ (x - bias)
        a += variance * torch.linalg.inv(m) + torch.outer(mu, mu)
        cross += torch.outer(x - bias, mu)
        means.append(mu)
    weight = cross @ torch.linalg.inv(a)
    squares = sum((x - bias) @ (x - bias) - mu @ weight.mT @ (x - bias) for x, mu in zip(X, means, strict=True))
    new = linear_gaussian_em.m_step(X, exact(model, X))
    assert_close(new.weight, weight)
    assert_close(new.bias, bias, atol=1e-10)
    assert_close(torch.exp(new.logvar), (squares / (N * D)).expand(D))
    leaf = WEIGHT.clone().requires_grad_()
    (slope,) = torch.autograd.grad(evidence(X, leaf, bias, LOG_NOISE).mean(), leaf)
    assert_close(new.weight - WEIGHT, slope @ torch.linalg.inv(a / N) * variance)


@pytest.mark.equation("eq-ppca-ml")
def test_the_maximum_likelihood_of_probabilistic_pca() -> None:
    """The slope of PyTorch's log-density is zero there, for any rotation, and BFGS from elsewhere goes no higher."""
    v, u = torch.linalg.eigh(torch.cov(X.mT, correction=0))
    v, u = v.flip(0), u.flip(1)
    noise = v[L:].mean()
    weight = u[:, :L] * (v[:L] - noise).sqrt() @ ROTATION
    leaves = [t.clone().requires_grad_() for t in (weight, X.mean(0), noise.log())]
    height = evidence(X, *leaves).mean()
    for slope in torch.autograd.grad(height, leaves):
        assert_close(slope, torch.zeros_like(slope), atol=1e-10)
    start = torch.cat([WEIGHT.flatten(), BIAS, LOG_NOISE[None]])
    found = torch.tensor(descend(lambda f: -evidence(X, f[: D * L].reshape(D, L), f[D * L : -1], f[-1]).mean(), start))
    climbed = evidence(X, found[: D * L].reshape(D, L), found[D * L : -1], found[-1]).mean()
    assert_close(climbed, height.detach(), rtol=1e-8)
    library = LinearGaussian.maximum_likelihood(X, L)
    assert_close(library.log_p_x(X).mean(), height.detach())


@pytest.mark.equation("eq-mixture-em")
def test_both_half_steps_of_a_mixture() -> None:
    """Responsibilities by Bayes' rule in SciPy, then the three averages by loops."""
    shares, mu, variance = np.array([0.5, 0.3, 0.2]), randn(3, 2, seed=7).numpy(), 0.8
    x = randn(12, 2, seed=8)
    model = GaussianMixture(
        torch.tensor(shares).log(), torch.tensor(mu), torch.full((3, 2), math.log(variance), dtype=DOUBLE)
    )
    joint = np.array(
        [[s * stats.multivariate_normal(m, variance).pdf(row) for s, m in zip(shares, mu, strict=True)] for row in x]
    )
    r = joint / joint.sum(1, keepdims=True)
    q = exact(model, x)
    assert isinstance(q, Categorical)
    assert_close(q.log_probs[:, 0].exp(), r)
    new = mixture_em.m_step(x, q, equal_variance=True)
    assert_close(new.logits.softmax(0), r.sum(0) / 12)
    means = np.array([(r[:, k : k + 1] * x.numpy()).sum(0) / r[:, k].sum() for k in range(3)])
    assert_close(new.mu, means)
    total = sum(r[i, k] * np.sum((x[i].numpy() - means[k]) ** 2) for i in range(12) for k in range(3))
    assert_close(new.logvar.exp(), np.full((3, 2), total / 24))


@pytest.mark.equation("eq-variational-em")
@pytest.mark.parametrize("family", [linear_gaussian_em.mean_field, linear_gaussian_em.isotropic])
def test_what_variational_em_climbs(family: Callable[[LinearGaussian, Tensor], DiagonalNormal]) -> None:
    """The best ELBO over a family, found by climbing, is the evidence minus the smallest KL, found by descending."""
    one = family is linear_gaussian_em.isotropic
    x = X[:1]

    def q(free: Tensor) -> DiagonalNormal:
        return DiagonalNormal(free[None, :L], (free[L].expand(L) if one else free[L:])[None])

    size = L + (1 if one else L)
    best = maximise(lambda p: MODEL.elbo(x, q(p["free"])), {"free": torch.zeros(size).double()})["free"]
    smallest = descend(
        lambda f: kl_of_normals(f[:L], (f[L].expand(L) if one else f[L:]).exp().diag(), PRECISION),
        torch.zeros(size).double(),
    )
    found = torch.tensor(smallest)
    distance = kl_of_normals(found[:L], (found[L].expand(L) if one else found[L:]).exp().diag(), PRECISION)
    assert_close(MODEL.elbo(x, q(best))[0], evidence(x, WEIGHT, BIAS, LOG_NOISE)[0] - distance, rtol=1e-9)
    assert_close(MODEL.elbo(x, family(MODEL, x)), MODEL.elbo(x, q(best)), rtol=1e-9)


@pytest.mark.equation("eq-isotropic-bias")
def test_where_variational_em_with_one_variance_ends() -> None:
    """BFGS on log p(x) minus the closed-form penalty, in all of W, b and the noise, from two starts."""
    v = torch.linalg.eigvalsh(torch.cov(X.mT, correction=0)).flip(0)
    c = v[:L].sqrt() * v[:L].sqrt().mean()
    assert float(c.min()) > float(v[L:].mean())  # the condition under which the formula holds
    lost = 0.5 * (c / v[:L]).log().sum()
    roots = np.sqrt(v[:L].numpy())
    assert_close(lost, np.asarray(0.5 * L * np.log(roots.mean() / stats.gmean(roots))))

    def minus_bound(free: Tensor) -> Tensor:
        weight, bias, log_noise = free[: D * L].reshape(D, L), free[D * L : -1], free[-1]
        precision = torch.eye(L).double() + weight.mT @ weight * torch.exp(-log_noise)
        penalty = 0.5 * (L * (precision.trace() / L).log() - torch.logdet(precision))
        return penalty - evidence(X, weight, bias, log_noise).mean()

    for seed in (9, 10):
        start = torch.cat([randn(D * L, seed=seed), X.mean(0), LOG_NOISE[None]])
        free = torch.tensor(descend(minus_bound, start))
        weight, bias, log_noise = free[: D * L].reshape(D, L), free[D * L : -1], free[-1]
        lengths = torch.linalg.svdvals(weight)
        torch.testing.assert_close(lengths**2 + torch.exp(log_noise), c, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(torch.exp(log_noise), v[L:].mean(), rtol=1e-5, atol=1e-6)
        top = LinearGaussian.maximum_likelihood(X, L).log_p_x(X).mean()
        torch.testing.assert_close(top - evidence(X, weight, bias, log_noise).mean(), lost, rtol=1e-5, atol=1e-8)
        # As much again stays open in KL: the bound ends twice the loss below the maximum.
        torch.testing.assert_close(top + minus_bound(free), 2.0 * lost, rtol=1e-8, atol=1e-10)
    assert float(lost) > 0.01


@pytest.mark.equation("eq-hard-bias")
def test_the_bias_of_hard_assignments() -> None:
    """E|x| by quadrature in SciPy, and the fixed point of the library's hard EM on the quantiles of the truth."""

    def density(x: float) -> float:
        return float(0.5 * stats.norm.pdf(x, 1.0) + 0.5 * stats.norm.pdf(x, -1.0))

    mean = 2.0 * integrate.quad(lambda x: x * density(x), 0.0, np.inf, epsabs=1e-13)[0]
    square = 2.0 * integrate.quad(lambda x: x * x * density(x), 0.0, np.inf, epsabs=1e-13)[0]
    formula = math.sqrt(2.0 / math.pi) * math.exp(-0.5) + 2.0 * special.ndtr(1.0) - 1.0
    assert mean == pytest.approx(formula, rel=1e-10)
    assert square == pytest.approx(2.0, rel=1e-10)
    count = 4000
    levels = (np.arange(count) + 0.5) / count
    grid = np.linspace(-8.0, 8.0, 200_001)
    mass = 0.5 * special.ndtr(grid - 1.0) + 0.5 * special.ndtr(grid + 1.0)
    x = torch.tensor(np.interp(levels, mass, grid))[:, None]
    truth = GaussianMixture(torch.zeros(2).double(), torch.tensor([[-1.0], [1.0]]).double(), torch.zeros(2, 1).double())
    run = run_em(
        truth,
        x,
        e_step=mixture_em.hard,
        m_step=lambda x, q: mixture_em.m_step(x, q, equal_variance=True),
        num_steps=3,
    )
    end = run.models[-1]
    # Mid-point quantiles cut the tails: the error of a second moment is of the order of log(count) / count.
    np.testing.assert_allclose(end.mu[:, 0], [-formula, formula], atol=2e-3)
    np.testing.assert_allclose(end.logvar.exp()[:, 0], 2.0 - formula**2, atol=5e-3)


@pytest.mark.equation("eq-amortised")
def test_an_encoder_gives_each_datum_its_own_q() -> None:
    """One function for all data and a q for each: the same numbers, datum by datum."""
    matrix, offset = randn(2 * L, D, seed=11), randn(2 * L, seed=12)
    output = X @ matrix.mT + offset
    together = MODEL.elbo(X, DiagonalNormal(output[:, :L], output[:, L:]))
    for i in (0, 7, 39):
        own = X[i] @ matrix.mT + offset
        q = td.Independent(td.Normal(own[:L], torch.exp(0.5 * own[L:])), 1)
        posterior = td.MultivariateNormal(MODEL.posterior(X[i : i + 1]).mu[0], precision_matrix=PRECISION)
        full = td.MultivariateNormal(q.mean, q.variance.diag())
        assert_close(together[i], MODEL.log_p_x(X[i : i + 1])[0] - td.kl_divergence(full, posterior))


@pytest.mark.equation("eq-amortisation-gap")
def test_the_two_gaps_add_up() -> None:
    """On a bent decoder, the best q from SciPy: both gaps positive, their sum the KL to the posterior."""
    model = NonlinearDecoder(curve, torch.tensor(-1.0, dtype=DOUBLE), 2)
    x = torch.tensor([[0.3, 0.5], [0.9, 0.4]], dtype=DOUBLE)
    encoder_q = DiagonalNormal(0.5 * x[:, :1] + 0.1, torch.full((2, 1), -1.0, dtype=DOUBLE))
    best = []
    for i in range(2):

        def loss(free: np.ndarray, datum: Tensor = x[i : i + 1]) -> float:
            q = DiagonalNormal(torch.tensor([[free[0]]], dtype=DOUBLE), torch.tensor([[free[1]]], dtype=DOUBLE))
            return -float(model.elbo(datum, q)[0])

        start = [float(encoder_q.mu[i, 0]), -1.0]
        best.append(-optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).fun)
    gap = inference_gap(model.log_p_x(x), torch.tensor(best, dtype=DOUBLE), model.elbo(x, encoder_q))
    assert bool((gap.approximation > 1e-3).all())
    assert bool((gap.amortisation > 1e-3).all())
    assert_close(gap.approximation + gap.amortisation, model.kl_to_posterior(x, encoder_q))


@pytest.mark.equation("eq-linear-encoder")
def test_a_linear_encoder_reaches_the_best_q_of_every_datum() -> None:
    matrix = torch.linalg.inv(PRECISION) @ WEIGHT.mT / torch.exp(LOG_NOISE)
    anywhere = 10.0 * randn(30, D, seed=13)
    q = DiagonalNormal((anywhere - BIAS) @ matrix.mT, (-PRECISION.diagonal().log()).expand(30, L))
    gap = 0.5 * (PRECISION.diagonal().log().sum() - torch.logdet(PRECISION))
    # Log-densities of size 1e3 lose three digits in the difference.
    assert_close(evidence(anywhere, WEIGHT, BIAS, LOG_NOISE) - MODEL.elbo(anywhere, q), gap.expand(30), rtol=1e-8)


@pytest.mark.equation("eq-elbo-sum")
def test_the_bound_of_a_data_set_is_the_sum_of_the_bounds_of_its_data() -> None:
    """All data at once, as one normal of N L latents, against one datum at a time."""
    x, mu, logvar = X[:3], randn(3, L, seed=14), 0.3 * randn(3, L, seed=15)
    block = torch.block_diag(*[WEIGHT] * 3)
    # E_q log p(x | z) by PyTorch's normal at the mean, minus half the trace; the KL of one normal in 3 L dimensions.
    at_mean = td.Normal(BIAS.repeat(3) + block @ mu.flatten(), torch.exp(0.5 * LOG_NOISE)).log_prob(x.flatten()).sum()
    trace = ((block**2).sum(0) * torch.exp(logvar).flatten()).sum() * torch.exp(-LOG_NOISE)
    q = td.MultivariateNormal(mu.flatten(), torch.exp(logvar).flatten().diag())
    prior = td.MultivariateNormal(torch.zeros(3 * L).double(), torch.eye(3 * L).double())
    together = at_mean - 0.5 * trace - td.kl_divergence(q, prior)
    assert_close(MODEL.elbo(x, DiagonalNormal(mu, logvar)).sum(), together)


@pytest.mark.equation("eq-elbo-monte-carlo")
def test_a_plain_average_over_samples_is_the_bound() -> None:
    """Weights 1 / S. The library's estimator is the printed line, sample by sample."""
    x, q = X[:2], DiagonalNormal(MODEL.posterior(X[:2]).mu, torch.full((2, L), -1.0, dtype=DOUBLE))
    samples = bounds.elbo(MODEL, q, x, num_samples=20_000, generator=make_generator(1), analytic_kl=True)
    z = q.sample(20_000, generator=make_generator(1))
    log_likelihood = td.Normal(BIAS + z @ WEIGHT.mT, torch.exp(0.5 * LOG_NOISE)).log_prob(x).sum(-1)
    to_prior = td.kl_divergence(td.Normal(q.mu, q.std), td.Normal(0.0, 1.0)).sum(-1)
    assert_close(samples, log_likelihood - to_prior)
    # The log-likelihoods spread by some 5 nats: 5 / sqrt(20 000) = 0.035.
    assert_mean(samples, MODEL.elbo(x, q), ceiling=0.1)
