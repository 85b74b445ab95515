"""The labelled equations of chapter 9, each met by a route that does not pass through the library's formula.

Chains whose levels take two or three values are tables. Chains of normal links are one large normal density of data
and all levels together, made of the steps alone; marginals, conditionals and divergences are then linear algebra. Data
that are not normal are one number, and scipy's quadrature has the rest.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, stats
from torch import Tensor
from torch import distributions as td

from tests.oracles import assert_close, randn
from vae_lib.bounds import log_weights
from vae_lib.densities import Categorical
from vae_lib.exact import LinearGaussian
from vae_lib.models import (
    GaussianDiffusion,
    HierarchicalModel,
    LinearGaussianChain,
    LinearLink,
    NoiseSchedule,
    NormalDataDiffusion,
    bits_per_dim,
)
from vae_lib.models.hierarchical import SampledMarkovChain

Array = NDArray[np.float64]

# Four levels, unevenly spread; z_0 is the datum.
LOG_SNR = np.array([3.0, 1.2, -0.3, -2.5])
GAMMA = np.exp(LOG_SNR)
ALPHA, SIGMA = np.sqrt(GAMMA / (1 + GAMMA)), np.sqrt(1 / (1 + GAMMA))
T = len(GAMMA)
SCHEDULE = NoiseSchedule(torch.as_tensor(LOG_SNR))


class Joint:
    """A normal density of several numbers, x first, then z_1 to z_T."""

    def __init__(self, mean: Array, covariance: Array) -> None:
        self.mean, self.covariance = mean, covariance

    def of(self, keep: list[int]) -> Joint:
        return Joint(self.mean[keep], self.covariance[np.ix_(keep, keep)])

    def given(self, index: int, known: int) -> tuple[float, float, float]:
        """Slope, offset and variance of one number given another."""
        slope = self.covariance[index, known] / self.covariance[known, known]
        offset = self.mean[index] - slope * self.mean[known]
        return slope, offset, self.covariance[index, index] - slope * self.covariance[index, known]


def divergence(q: Joint, p: Joint) -> float:
    inverse, off = np.linalg.inv(p.covariance), p.mean - q.mean
    log_det = np.linalg.slogdet(p.covariance)[1] - np.linalg.slogdet(q.covariance)[1]
    return float(0.5 * (np.trace(inverse @ q.covariance) + off @ inverse @ off - len(off) + log_det))


def walk(order: list[int], mean: float, var: float, steps: list[tuple[float, float, float]]) -> Joint:
    """The joint density of a Markov chain of slopes, offsets and variances, numbers in the given order."""
    means, variances = [mean], [var]
    covariance = np.zeros((len(order), len(order)))
    covariance[0, 0] = var
    for k, (slope, offset, noise) in enumerate(steps, start=1):
        means.append(slope * means[-1] + offset)
        variances.append(slope**2 * variances[-1] + noise)
        covariance[k, :k] = covariance[:k, k] = slope * covariance[k - 1, :k]
        covariance[k, k] = variances[-1]
    back = np.argsort(order)
    return Joint(np.array(means)[back], covariance[np.ix_(back, back)])


def noising() -> list[tuple[float, float, float]]:
    """The steps of the forward process."""
    alpha, inverse = np.append(1.0, ALPHA), np.append(0.0, 1 / GAMMA)
    return [(alpha[t] / alpha[t - 1], 0.0, alpha[t] ** 2 * (inverse[t] - inverse[t - 1])) for t in range(1, T + 1)]


def forward(mean: float, var: float) -> Joint:
    return walk(list(range(T + 1)), mean, var, noising())


# A linear denoiser that is wrong at every level: x_hat = slope z + offset.
SLOPE, OFFSET = np.array([0.9, 0.6, 0.5, 0.1]), np.array([0.05, -0.1, 0.2, 0.3])


def reverse(slope: Array = SLOPE, offset: Array = OFFSET) -> Joint:
    """The model: from the noise down, with the posterior of a step at the denoiser's guess."""
    steps = []
    for t in range(T - 1, 0, -1):
        ratio = GAMMA[t] / GAMMA[t - 1]
        keep, guess = ALPHA[t - 1] * ratio / ALPHA[t], ALPHA[t - 1] * (1 - ratio)
        steps.append((keep + guess * slope[t], guess * offset[t], SIGMA[t - 1] ** 2 * (1 - ratio)))
    steps.append((slope[0], offset[0], 1 / GAMMA[0]))
    return walk(list(range(T, -1, -1)), 0.0, 1.0, steps)


def squared_error(x: float) -> Array:
    """E|x - x_hat(z_t)|^2 over q(z_t | x), level by level."""
    return np.asarray((x - SLOPE * ALPHA * x - OFFSET) ** 2 + (SLOPE * SIGMA) ** 2)


def at_data(x: float) -> float:
    return float(0.5 * np.log(GAMMA[0] / (2 * math.pi)) - 0.5 * GAMMA[0] * squared_error(x)[0])


def at_noise(x: float) -> float:
    return divergence(Joint(ALPHA[-1:] * x, SIGMA[-1:, None] ** 2), Joint(np.zeros(1), np.eye(1)))


def step_kls(x: float) -> Array:
    return np.asarray(0.5 * (GAMMA[:-1] - GAMMA[1:]) * squared_error(x)[1:])


def line(z_t: Tensor, log_snr: Tensor) -> Tensor:
    level = torch.argmin((log_snr[:, None] - torch.as_tensor(LOG_SNR)).abs(), dim=1)
    slope, offset = (torch.as_tensor(values)[level][:, None] for values in (SLOPE, OFFSET))
    return slope * z_t + offset


DIFFUSION = GaussianDiffusion(line, SCHEDULE, data_dim=1, predicts="x")


# Three levels that take 3, 2 and 3 values, and one datum that takes 2.
def table(*shape: int, seed: int) -> Array:
    """Random probabilities that add up to one over the first axis."""
    values = np.exp(randn(*shape, seed=seed).numpy())
    return np.asarray(values / values.sum(0))


TOP, DOWN_2, DOWN_1 = table(3, seed=1), table(2, 3, seed=2), table(3, 2, seed=3)  # p(z3), p(z2|z3), p(z1|z2)
LIKELIHOOD = table(2, 3, seed=4)[1]  # of one datum, given z1
MODEL = np.einsum("c,bc,ab->abc", TOP, DOWN_2, DOWN_1)  # p(z1, z2, z3)


@pytest.mark.equation("eq-chain")
def test_chain_is_a_product_of_links_and_the_data_see_the_first_level() -> None:
    every = torch.tensor([[a, b, c] for a in range(3) for b in range(2) for c in range(3)], dtype=torch.float64)

    def link(probabilities: Array) -> object:
        logits = torch.as_tensor(np.log(probabilities)).mT
        return lambda previous: Categorical(logits[previous[:, 0].long()][:, None])

    top = Categorical(torch.as_tensor(np.log(TOP)).reshape(1, 1, 3))
    prior = SampledMarkovChain(top, [link(DOWN_2), link(DOWN_1)], [1, 1, 1], top_down=True)  # type: ignore[list-item]
    assert_close(prior.log_prob(every[:, None])[:, 0].exp(), MODEL.reshape(-1))
    bottom = LinearGaussian(torch.tensor([[2.0]]), torch.tensor([0.3]), torch.tensor([-1.0]))
    links = [LinearLink(torch.tensor([[0.5]]), torch.zeros(1), torch.zeros(1))] * 2
    chain = HierarchicalModel(bottom, lambda _: prior, links, [1, 1, 1])
    x, z = randn(2, 1).float(), randn(4, 2, 3, seed=1).float()
    assert_close(chain.log_p_x_given_z(x, z), bottom.log_p_x_given_z(x, z[..., :1]))


@pytest.mark.equation("eq-chain-elbo")
def test_elbo_of_a_chain_is_a_sum_of_divergences_between_neighbours() -> None:
    first, second, third = table(3, seed=5), table(2, 3, seed=6), table(3, 2, seed=7)
    q = np.einsum("a,ba,cb->abc", first, second, third)  # bottom-up
    elbo = (q * (np.log(MODEL * LIKELIHOOD[:, None, None]) - np.log(q))).sum()
    q_3, q_2 = q.sum((0, 1)), q.sum((0, 2))
    down_2, down_1 = q.sum(0) / q_3, q.sum(2) / q_2  # q(z2 | z3), q(z1 | z2): the same chain from above
    np.testing.assert_allclose(np.einsum("c,bc,ab->abc", q_3, down_2, down_1), q, rtol=1e-12)
    divergences = (
        (q_3 * np.log(q_3 / TOP)).sum()
        + q_3 @ (down_2 * np.log(down_2 / DOWN_2)).sum(0)
        + q_2 @ (down_1 * np.log(down_1 / DOWN_1)).sum(0)
    )
    assert elbo == pytest.approx(q.sum((1, 2)) @ np.log(LIKELIHOOD) - divergences, rel=1e-12)


@pytest.mark.equation("eq-chain-posterior")
def test_posterior_of_a_chain_sees_the_data_at_its_first_step_only() -> None:
    posterior = MODEL * LIKELIHOOD[:, None, None]
    posterior /= posterior.sum()
    first = posterior.sum((1, 2))
    up_2 = MODEL.sum(2) / MODEL.sum((1, 2))[:, None]  # p(z2 | z1), without x
    up_3 = MODEL.sum(0) / MODEL.sum((0, 2))[:, None]  # p(z3 | z2)
    np.testing.assert_allclose(np.einsum("a,ab,bc->abc", first, up_2, up_3), posterior, rtol=1e-12)


@pytest.mark.equation("eq-chain-posterior")
def test_posterior_of_the_linear_chain() -> None:
    links = [LinearLink(*(randn(2, 2, seed=k), randn(2, seed=k + 1), randn(2, seed=k + 2))) for k in (1, 5)]
    chain = LinearGaussianChain(links, LinearLink(randn(3, 2, seed=9), randn(3, seed=10), randn(3, seed=11)))
    x, z = randn(2, 3, seed=12), randn(4, 2, 6, seed=13)
    joint = chain.log_p_x_given_z(x, z) + chain.prior(2).log_prob(z)
    assert_close(joint - chain.posterior(x).log_prob(z), chain.log_p_x(x).expand(4, 2), rtol=1e-9)


@pytest.mark.equation("eq-noising", "eq-forward-marginal")
def test_steps_of_noise_add_up_to_one_stride() -> None:
    x = 0.7
    joint = forward(x, 1e-300)
    np.testing.assert_allclose(joint.mean[1:], ALPHA * x, rtol=1e-12)
    np.testing.assert_allclose(np.diag(joint.covariance)[1:], SIGMA**2, rtol=1e-12)
    data = torch.tensor([[x]], dtype=torch.float64)
    by_library = DIFFUSION(data).log_prob(randn(5, 1, T))
    whole = stats.multivariate_normal(joint.mean[1:], joint.covariance[1:, 1:])
    assert_close(by_library[:, 0], whole.logpdf(randn(5, 1, T)[:, 0].numpy()))
    for t in range(1, T + 1):
        stride = SCHEDULE.marginal(data, t)
        assert float(stride.mu) == pytest.approx(joint.mean[t], rel=1e-12)
        assert float(stride.logvar.exp()) == pytest.approx(joint.covariance[t, t], rel=1e-12)


@pytest.mark.equation("eq-forward-posterior")
def test_a_level_between_two_known_ends() -> None:
    joint, x, z_t = forward(0.4, 1.7), 1.1, -0.6  # any distribution of the datum will do: it is given
    for t in range(2, T + 1):
        known, s = [0, t], t - 1
        gain = joint.covariance[s, known] @ np.linalg.inv(joint.covariance[np.ix_(known, known)])
        mean = joint.mean[s] + gain @ (np.array([x, z_t]) - joint.mean[known])
        var = joint.covariance[s, s] - gain @ joint.covariance[known, s]
        ratio = GAMMA[t - 1] / GAMMA[s - 1]
        assert mean == pytest.approx(ALPHA[s - 1] * (ratio * z_t / ALPHA[t - 1] + (1 - ratio) * x), rel=1e-12)
        assert var == pytest.approx(SIGMA[s - 1] ** 2 * (1 - ratio), rel=1e-12)
        data, noisy = (torch.tensor([[value]], dtype=torch.float64) for value in (x, z_t))
        found = SCHEDULE.posterior(data, noisy, t)
        assert_close(torch.stack([found.mu[0, 0], found.logvar.exp()[0, 0]]), [mean, var])


@pytest.mark.equation("eq-step-kl", "eq-simple-loss")
def test_cost_of_a_step() -> None:
    x, eps = randn(6, 1), randn(6, 1, seed=1)
    for t in range(2, T + 1):
        z_t = ALPHA[t - 1] * x + SIGMA[t - 1] * eps
        ratio = GAMMA[t - 1] / GAMMA[t - 2]
        std = SIGMA[t - 2] * math.sqrt(1 - ratio)
        guess = line(z_t, torch.full((6,), LOG_SNR[t - 1]))
        right, link = (
            td.Normal(ALPHA[t - 2] * (ratio * z_t / ALPHA[t - 1] + (1 - ratio) * y), std) for y in (x, guess)
        )
        expected = td.kl_divergence(right, link)[:, 0]
        assert_close(0.5 * (GAMMA[t - 2] - GAMMA[t - 1]) * ((x - guess) ** 2)[:, 0], expected)
        noise = (z_t - ALPHA[t - 1] * guess) / SIGMA[t - 1]
        c_t = 0.5 * (GAMMA[t - 2] / GAMMA[t - 1] - 1)
        assert_close(c_t * ((eps - noise) ** 2)[:, 0], expected)
        assert_close(DIFFUSION.step_kl(x, z_t, t), expected)
        assert float(SCHEDULE.simple_weight(t)) == pytest.approx(c_t, rel=1e-12)


@pytest.mark.equation("eq-diffusion-elbo")
def test_elbo_is_that_of_the_whole_chain_at_once() -> None:
    x, levels = 0.8, list(range(1, T + 1))
    q, model = forward(x, 1e-300).of(levels), reverse()
    elbo = at_data(x) - divergence(q, model.of(levels))
    assert at_data(x) - at_noise(x) - step_kls(x).sum() == pytest.approx(elbo, rel=1e-12)
    # The library's weights are a parabola in z: points at the mean and along its axes average it exactly.
    factor = np.linalg.cholesky(q.covariance) * math.sqrt(T)
    points = torch.as_tensor(np.concatenate([q.mean + factor.T, q.mean - factor.T]))[:, None]
    data = torch.tensor([[x]], dtype=torch.float64)
    assert float(log_weights(DIFFUSION, DIFFUSION(data), data, points).mean()) == pytest.approx(elbo, rel=1e-10)


@pytest.mark.equation("eq-reversal")
def test_joint_divergence_is_a_sum_over_reversals() -> None:
    q, p = forward(0.4, 1.7), reverse()
    total = divergence(q.of([T]), p.of([T]))
    for t in range(T, 0, -1):
        (a, b, var), (c, d, link_var) = q.given(t - 1, t), p.given(t - 1, t)
        off = (a - c) ** 2 * q.covariance[t, t] + (
            (a - c) * q.mean[t] + b - d
        ) ** 2  # mean square of the means' distance
        total += 0.5 * ((var + off) / link_var - 1 - math.log(var / link_var))
    assert total == pytest.approx(divergence(q, p), rel=1e-12)
    # and it is minus the average ELBO, less the entropy of the data
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    data = 0.4 + math.sqrt(1.7) * nodes
    elbos = np.array([at_data(x) - at_noise(x) - step_kls(x).sum() for x in data])
    entropy = 0.5 * math.log(2 * math.pi * math.e * 1.7)
    assert -(weights / weights.sum()) @ elbos - entropy == pytest.approx(total, rel=1e-12)


MEAN, VAR = 0.4, 1.7


def best() -> tuple[Array, Array]:
    """Slope and offset of the best denoiser of normal data."""
    joint = forward(MEAN, VAR)
    lines = [joint.given(0, t)[:2] for t in range(1, T + 1)]
    return np.array([a for a, _ in lines]), np.array([b for _, b in lines])


@pytest.mark.equation("eq-step-split", "eq-normal-gap")
def test_what_a_step_loses_on_normal_data() -> None:
    q, p = forward(MEAN, VAR), reverse(*best())
    for t in range(2, T + 1):
        (a, b, var), (c, d, link_var) = q.given(t - 1, t), p.given(t - 1, t)
        assert (a, b) == pytest.approx((c, d), rel=1e-10)  # the best guess has the reversal's mean
        lost = 0.5 * (var / link_var - 1 - math.log(var / link_var))
        drop = GAMMA[t - 2] - GAMMA[t - 1]
        r = drop * VAR / (1 + GAMMA[t - 1] * VAR)
        assert 0.5 * (r - math.log1p(r)) == pytest.approx(lost, rel=1e-9)
        error = q.given(0, t)[2]
        pairs = [q.of([0, k]) for k in (t - 1, t)]
        news = [
            divergence(pair, Joint(pair.mean, np.diag(np.diag(pair.covariance)))) for pair in pairs
        ]  # I(x; z) as the divergence of the pair from independence
        assert 0.5 * drop * error == pytest.approx(lost + news[0] - news[1], rel=1e-10)


@pytest.mark.equation("eq-normal-gap", "eq-reversal")
def test_what_the_steps_and_both_ends_lose_is_all() -> None:
    r = (GAMMA[:-1] - GAMMA[1:]) * VAR / (1 + GAMMA[1:] * VAR)
    m = VAR / (1 + GAMMA[0] * VAR)
    a2, s2 = ALPHA[-1] ** 2, SIGMA[-1] ** 2
    at_the_data = 0.5 * (GAMMA[0] * m - 1 - math.log(GAMMA[0] * m))
    at_the_noise = 0.5 * (a2 * (VAR + MEAN**2) + s2 - 1 - math.log(a2 * VAR + s2))
    steps = 0.5 * (r - np.log1p(r)).sum()
    whole = divergence(forward(MEAN, VAR), reverse(*best()))
    assert at_the_data + steps + at_the_noise == pytest.approx(whole, rel=1e-10)


@pytest.mark.equation("eq-normal-gap")
def test_what_is_lost_on_several_axes() -> None:
    factor = randn(3, 3)
    covariance = factor @ factor.mT + 0.2 * torch.eye(3)
    exact = NormalDataDiffusion(randn(3, seed=1), covariance, SCHEDULE)
    v = np.linalg.eigvalsh(covariance.numpy())[None]
    r = (GAMMA[:-1] - GAMMA[1:])[:, None] * v / (1 + GAMMA[1:, None] * v)
    second = exact.mean_terms().step_kl[:, 0, 0].numpy()
    info = 0.5 * np.log1p(GAMMA[:, None] * v).sum(1)
    np.testing.assert_allclose(second - info[:-1] + info[1:], 0.5 * (r - np.log1p(r)).sum(1), rtol=1e-9)


@pytest.mark.equation("eq-step-split")
def test_the_split_of_a_step_on_two_humps() -> None:
    """Sums over an even grid: for smooth integrands that vanish at its ends they converge faster than any power."""
    z = np.linspace(-9, 9, 901)
    dz = z[1] - z[0]

    def log_density(z: Array, t: int) -> Array:
        std = math.hypot(0.3 * ALPHA[t], SIGMA[t])
        humps = np.logaddexp(*(stats.norm.logpdf(z, sign * ALPHA[t], std) for sign in (-1, 1)))
        return np.asarray(humps - math.log(2))

    def guess(z: Array, t: int) -> Array:
        var = (0.3 * ALPHA[t]) ** 2 + SIGMA[t] ** 2
        return np.asarray(np.tanh(ALPHA[t] * z / var) * SIGMA[t] ** 2 / var + 0.09 * ALPHA[t] / var * z)

    def information(t: int) -> float:
        log_q = log_density(z, t)
        return float(-(np.exp(log_q) * log_q).sum() * dz - 0.5 * math.log(2 * math.pi * math.e * SIGMA[t] ** 2))

    s, t = 1, 2
    ratio = GAMMA[t] / GAMMA[s]
    up = ALPHA[t] ** 2 * (1 / GAMMA[t] - 1 / GAMMA[s])
    square = (np.exp(log_density(z, t)) * guess(z, t) ** 2).sum() * dz
    cost = 0.5 * (GAMMA[s] - GAMMA[t]) * (1.09 - square)
    log_joint = log_density(z, s)[:, None] + stats.norm.logpdf(z, ALPHA[t] / ALPHA[s] * z[:, None], math.sqrt(up))
    link_mean = ALPHA[s] * (ratio * z / ALPHA[t] + (1 - ratio) * guess(z, t))
    log_link = stats.norm.logpdf(z[:, None], link_mean, SIGMA[s] * math.sqrt(1 - ratio))
    lost = (np.exp(log_joint) * (log_joint - log_density(z, t) - log_link)).sum() * dz**2
    assert lost > 1e-3
    assert cost == pytest.approx(lost + information(s) - information(t), rel=1e-10)


@pytest.mark.equation("eq-weighted-elbo")
def test_weighted_steps_are_a_sum_of_elbos_of_noisy_data() -> None:
    x, weights = 0.8, np.array([0.3, 1.1, 0.7, 2.0])
    q, p = forward(x, 1e-300), reverse()
    above = [divergence(q.of(list(range(t, T + 1))), p.of(list(range(t, T + 1)))) for t in range(1, T + 1)]
    cost = np.append(-at_data(x), step_kls(x))  # D_1 ... D_T
    elbo = at_data(x) - above[0]
    right = -weights[0] * elbo + np.diff(weights) @ above[:-1]
    assert weights @ cost + weights[-1] * above[-1] == pytest.approx(right, rel=1e-12)
    # L_t is minus the ELBO of z_t as the datum, averaged, less the entropy of q(z_t | x)
    nodes, masses = np.polynomial.hermite_e.hermegauss(3)
    t, means = 2, []
    for z_t in ALPHA[t - 1] * x + SIGMA[t - 1] * nodes:
        rest = list(range(t + 1, T + 1))
        steps = noising()[t:]
        q_rest = walk(list(range(len(rest) + 1)), z_t, 1e-300, steps).of(list(range(1, len(rest) + 1)))
        a, b, var = p.given(t, t + 1)
        second = q_rest.covariance[0, 0] + q_rest.mean[0] ** 2
        error = z_t**2 - 2 * z_t * (a * q_rest.mean[0] + b) + a**2 * second + 2 * a * b * q_rest.mean[0] + b**2
        likelihood = -0.5 * math.log(2 * math.pi * var) - 0.5 * error / var
        means.append(likelihood - divergence(q_rest, p.of(rest)))
    entropy = 0.5 * math.log(2 * math.pi * math.e * SIGMA[t - 1] ** 2)
    assert -(masses / masses.sum()) @ np.array(means) - entropy == pytest.approx(above[t - 1], rel=1e-12)


@pytest.mark.equation("eq-tweedie")
@pytest.mark.parametrize("z", [-1.3, 0.2, 0.9])
def test_best_guess_is_the_score(z: float) -> None:
    def prior(x: float) -> float:
        return float(0.4 * stats.norm.pdf(x, -1, 0.4) + 0.6 * stats.gamma.pdf(x, 3.0, scale=0.4))

    t = 1

    def moment(z: float, power: int) -> float:
        def integrand(x: float) -> float:
            return x**power * prior(x) * float(stats.norm.pdf(z, ALPHA[t] * x, SIGMA[t]))

        return float(integrate.quad(integrand, -4, 9, points=[-1, 0, 1], epsabs=0, epsrel=1e-12, limit=200)[0])

    guess = moment(z, 1) / moment(z, 0)
    h = 1e-3
    logs = [math.log(moment(z + k * h, 0)) for k in (-2, -1, 1, 2)]
    score = (logs[0] - 8 * logs[1] + 8 * logs[2] - logs[3]) / (12 * h)
    assert (z + SIGMA[t] ** 2 * score) / ALPHA[t] == pytest.approx(guess, rel=1e-8)
    assert (z - ALPHA[t] * guess) / SIGMA[t] == pytest.approx(-SIGMA[t] * score, rel=1e-8)


@pytest.mark.equation("eq-bits")
def test_bits_of_equally_likely_levels() -> None:
    nats = torch.tensor(-64 * math.log(17.0), dtype=torch.float64)
    assert float(bits_per_dim(nats, 64)) == pytest.approx(math.log2(17.0), rel=1e-12)
