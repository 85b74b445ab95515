"""The labelled equations of chapter 8, each met by a route that does not pass through the library's formula.

Where a latent takes three values, an average over K draws of it is a finite sum: over all tuples, or over all counts
with multinomial probabilities. Chains on a few states are products of matrices. The rest is scipy's quadrature and
Gauss-Hermite sums. One test draws at random, for a variance that has no other route.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, special, stats

from tests.oracles import assert_close, randn
from vae_lib.bounds import importance_weighted_bound, log_joint, log_weights
from vae_lib.densities import DiagonalNormal, FullNormal
from vae_lib.evaluation import MarginalLikelihood, active_units
from vae_lib.evaluation.chains import AnnealedPath, Between, walk
from vae_lib.exact import LinearGaussian
from vae_lib.rng import make_generator

Array = NDArray[np.float64]
QUAD = {"epsabs": 1e-13, "epsrel": 1e-12, "limit": 400}

# A latent of three values: joint p(x, z), likelihood, prior, q. Nothing is symmetric.
PRIOR = np.array([0.5, 0.3, 0.2])
LIKELIHOOD = np.array([0.9, 0.15, 0.4])
Q = np.array([0.2, 0.5, 0.3])
JOINT = PRIOR * LIKELIHOOD
EVIDENCE = float(JOINT.sum())
WEIGHTS = JOINT / Q
VARIANCE = float(Q @ (WEIGHTS / EVIDENCE) ** 2 - 1.0)


def tuples(count: int) -> tuple[NDArray[np.int64], Array]:
    """All tuples of draws of q, and their probabilities."""
    every = np.array(list(itertools.product(range(3), repeat=count)))
    return every, Q[every].prod(1)


def average_of_log(values: Array, count: int, q: Array = Q) -> float:
    """E log of the mean of so many draws of three values, over all counts of each."""
    first, second = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
    keep = first + second <= count
    counts = np.stack([first[keep], second[keep], count - first[keep] - second[keep]], axis=1)
    probability = stats.multinomial.pmf(counts, count, q)
    return float(probability @ np.log(counts @ values / count))


def frullani(ratios: Array, probabilities: Array, count: int) -> float:
    """E log of the mean of K draws from these positive values, as one integral over log t, by the trapezoid rule."""
    log_t = np.arange(-40.0, 60.0, 0.05)[:, None]
    missing = -np.expm1(-np.exp(log_t) / count * ratios) @ probabilities  # 1 - E exp(-t r / K)
    with np.errstate(divide="ignore"):
        inner = np.exp(count * np.log1p(-np.minimum(missing, 1.0)))
    return float(0.05 * (np.exp(-np.exp(log_t[:, 0])) - inner).sum())


@pytest.mark.equation("eq-iw-bound", "eq-iw-monotone")
def test_bound_rises_from_the_elbo_to_the_evidence() -> None:
    values = []
    for count in range(1, 7):
        every, probability = tuples(count)
        by_library = importance_weighted_bound(torch.as_tensor(np.log(WEIGHTS[every])).mT)[0]
        values.append(float(probability @ by_library.numpy()))
        assert values[-1] == pytest.approx(average_of_log(WEIGHTS, count), rel=1e-12)
    assert values[0] == pytest.approx(float(Q @ np.log(WEIGHTS)), rel=1e-12)
    assert np.all(np.diff(values) > 0.0)
    assert values[-1] < math.log(EVIDENCE)
    assert math.log(EVIDENCE) - average_of_log(WEIGHTS, 300) < 0.004
    assert average_of_log(WEIGHTS, 300) < math.log(EVIDENCE)


@pytest.mark.equation("eq-iw-exact")
@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_one_integral_for_every_number_of_samples(count: int) -> None:
    found = frullani(WEIGHTS / EVIDENCE, Q, count)
    assert math.log(EVIDENCE) + found == pytest.approx(average_of_log(WEIGHTS, count), abs=1e-9)


def small_model() -> tuple[LinearGaussian, torch.Tensor]:
    model = LinearGaussian(randn(5, 2, seed=1), randn(5, seed=2), 0.3 * randn(5, seed=3))
    return model, randn(3, 5, seed=4)


@pytest.mark.equation("eq-wide-weights")
@pytest.mark.parametrize("c", [0.5, 0.8, 1.7])
def test_weights_of_a_scaled_posterior_are_powers_of_a_uniform_number(c: float) -> None:
    model, x = small_model()
    posterior = model.posterior(x)
    q = FullNormal(posterior.mu, c * posterior.scale_tril)
    noise = randn(400, 3, 2, seed=5)
    ratio = log_weights(model, q, x, q.from_noise(noise)) - model.log_p_x(x)
    u = np.exp(-0.5 * (noise.numpy() ** 2).sum(-1))
    assert_close(ratio, 2 * math.log(c) + (c**2 - 1) * np.log(u))
    # The squared length of two standard normal numbers: u below v is the length above -2 log v.
    grid = np.linspace(0.01, 0.99, 20)
    np.testing.assert_allclose(stats.chi2(2).sf(-2 * np.log(grid)), grid, rtol=1e-12)


@pytest.mark.equation("eq-iw-gap", "eq-lean")
def test_gap_is_half_the_variance_over_k() -> None:
    """What is left of the gap after the first term falls like 1 / K²: halved twice when K doubles."""
    left = []
    for count in (100, 200, 400):
        gap = math.log(EVIDENCE) - average_of_log(WEIGHTS, count)
        squared_error = VARIANCE / count  # of the mean weight over the mean: the delta method
        left.append((gap - 0.5 * squared_error) * count**2)
        assert gap == pytest.approx(0.5 * squared_error, rel=3.0 / count)
    third = float(Q @ (WEIGHTS / EVIDENCE - 1.0) ** 3)
    assert 2 * left[2] - left[1] == pytest.approx(0.75 * VARIANCE**2 - third / 3, rel=1e-3)


@pytest.mark.equation("eq-heavy-tail")
@pytest.mark.parametrize("c", [0.45, 0.5, 0.6])
def test_gap_of_a_narrow_q_falls_by_a_smaller_power(c: float) -> None:
    alpha = 1.0 / (1.0 - c**2)
    lowest = c**2  # the weights are Pareto: at least this, above s with probability (lowest / s) ** alpha
    assert 1.0 < alpha < 2.0

    # The logarithm of r / lowest is exponential with rate alpha: nodes and masses of a fine rule for it.
    nodes, masses = np.polynomial.legendre.leggauss(16)
    centres = 0.25 + 0.5 * np.arange(300)
    y = (centres[:, None] + 0.25 * nodes).ravel()
    mass = np.tile(0.25 * masses, 300) * np.exp(-y)
    ratios = lowest * np.exp(y / alpha)
    constant = -math.pi * lowest**alpha / math.sin(math.pi * alpha)
    for count, within in ((10**6, 0.02), (10**9, 0.002)):
        formula = constant * count ** (1.0 - alpha)
        assert -frullani(ratios, mass, count) == pytest.approx(formula, rel=within + 2 * formula)


def tables(count: int) -> tuple[Array, Array, NDArray[np.int64]]:
    """Q and P of chapter 8 over (tuple, chosen index), and the chosen value of each."""
    every, probability = tuples(count)
    share = WEIGHTS[every] / WEIGHTS[every].sum(1, keepdims=True)
    target = np.stack(
        [JOINT[every[:, k]] / EVIDENCE / count * np.delete(Q[every], k, axis=1).prod(1) for k in range(count)],
        axis=1,
    )
    return probability[:, None] * share, target, every


@pytest.mark.equation("eq-augmented", "eq-q-iw")
@pytest.mark.parametrize("count", [1, 2, 5])
def test_bound_is_an_elbo_of_resampled_draws(count: int) -> None:
    forward, target, chosen = tables(count)
    assert forward.sum() == pytest.approx(1.0)
    assert target.sum() == pytest.approx(1.0)
    gap = math.log(EVIDENCE) - average_of_log(WEIGHTS, count)
    assert float((forward * np.log(forward / target)).sum()) == pytest.approx(gap, abs=1e-12)
    resampled = np.array([forward[chosen == value].sum() for value in range(3)])
    others, probability = tuples(count - 1) if count > 1 else (np.zeros((1, 0), int), np.ones(1))
    formula = [probability @ (JOINT[z] / ((WEIGHTS[z] + WEIGHTS[others].sum(1)) / count)) for z in range(3)]
    np.testing.assert_allclose(resampled, formula, rtol=1e-12)
    to_posterior = float(resampled @ np.log(resampled * EVIDENCE / JOINT))
    assert 0.0 < to_posterior <= gap + 1e-14
    assert (to_posterior < gap - 1e-3) == (count > 1)


# z ~ N(0, 1), x | z ~ N(theta z, 1/2), q = N(mu, exp(2 rho)): one number each, K = 2, sums over pairs of nodes.
NODES, SHARES = np.polynomial.hermite_e.hermegauss(80)
PAIRS = np.array(list(itertools.product(NODES, NODES)))
PAIR_SHARES = np.outer(SHARES, SHARES).ravel() / SHARES.sum() ** 2
AT = {"theta": 1.2, "mu": 0.3, "rho": -0.5}
X = 0.9


def log_w_of(z: Array, p: dict[str, float], q: dict[str, float]) -> Array:
    value: Array = (
        stats.norm.logpdf(X, p["theta"] * z, math.sqrt(0.5))
        + stats.norm.logpdf(z)
        - stats.norm.logpdf(z, q["mu"], math.exp(q["rho"]))
    )
    return value


def exact_bound(p: dict[str, float]) -> float:
    z = p["mu"] + math.exp(p["rho"]) * PAIRS
    return float(PAIR_SHARES @ (special.logsumexp(log_w_of(z, p, p), axis=1) - math.log(2.0)))


def moved(name: str, step: float) -> dict[str, float]:
    return AT | {name: AT[name] + step}


def slope_of_bound(name: str, step: float = 1e-4) -> float:
    return (exact_bound(moved(name, step)) - exact_bound(moved(name, -step))) / (2 * step)


@pytest.mark.equation("eq-iw-gradient")
@pytest.mark.parametrize("name", ["theta", "mu", "rho"])
def test_gradient_weights_each_draw_by_its_share(name: str) -> None:
    def along(step: float) -> Array:
        p = moved(name, step)
        return log_w_of(p["mu"] + math.exp(p["rho"]) * PAIRS, p, p)

    share = special.softmax(along(0.0), axis=1)
    each = (along(1e-4) - along(-1e-4)) / 2e-4
    assert PAIR_SHARES @ (share * each).sum(1) == pytest.approx(slope_of_bound(name), abs=2e-7)


@pytest.mark.equation("eq-dreg")
@pytest.mark.parametrize("name", ["mu", "rho"])
def test_squared_shares_along_the_path_alone(name: str) -> None:
    def path(step: float) -> Array:
        p = moved(name, step)
        return log_w_of(p["mu"] + math.exp(p["rho"]) * PAIRS, AT, AT)  # q itself is held

    share = special.softmax(path(0.0), axis=1)
    each = (path(1e-4) - path(-1e-4)) / 2e-4
    assert PAIR_SHARES @ (share**2 * each).sum(1) == pytest.approx(slope_of_bound(name), abs=2e-7)
    dropped = PAIR_SHARES @ (share * each).sum(1)
    assert abs(dropped - slope_of_bound(name)) > 1e-3  # one factor is not enough


@pytest.mark.equation("eq-snr")
@pytest.mark.parametrize("name", ["theta", "rho"])
def test_signal_to_noise_of_model_and_encoder(name: str) -> None:
    """Signals from the exact bound of K = 200; their noise from 3000 random estimates, known to a few per cent."""
    count, step = 200, 1e-4
    shares = SHARES / SHARES.sum()
    log_evidence = stats.norm.logpdf(X, 0.0, math.sqrt(AT["theta"] ** 2 + 0.5))

    def along(step: float, noise: Array) -> Array:
        p = moved(name, step)
        value: Array = log_w_of(p["mu"] + math.exp(p["rho"]) * noise, p, p) - log_evidence
        return value

    def slope(noise: Array) -> Array:
        value: Array = (along(step, noise) - along(-step, noise)) / (2 * step)
        return value

    ends = [frullani(np.exp(along(h, NODES)), shares, count) for h in (step, -step)]
    signal = abs(ends[0] - ends[1]) / (2 * step)
    draws = randn(3000, count, seed=8).numpy()
    estimates = (special.softmax(along(0.0, draws), axis=1) * slope(draws)).sum(1)
    assert abs(estimates.mean()) == pytest.approx(signal, abs=5 * estimates.std() / math.sqrt(3000))

    r, each = np.exp(along(0.0, NODES)), slope(NODES)
    log_slope = shares @ (r * each)  # the derivative of log p(x), zero for the encoder
    spread = math.sqrt(shares @ (r * (each - log_slope)) ** 2)  # of the derivative of w / p(x)
    if name == "theta":
        total = AT["theta"] ** 2 + 0.5
        assert log_slope == pytest.approx(AT["theta"] * (X**2 / total - 1.0) / total, rel=1e-6)
        formula = math.sqrt(count) * abs(log_slope) / spread
    else:
        assert log_slope == pytest.approx(0.0, abs=1e-7)
        second = [shares @ np.exp(2 * along(h, NODES)) for h in (step, -step)]
        formula = abs(second[0] - second[1]) / (2 * step) / (2 * spread) / math.sqrt(count)
    assert signal / estimates.std() == pytest.approx(formula, rel=0.08)


@pytest.mark.equation("eq-ess")
def test_error_bar_and_effective_size_are_one_number() -> None:
    log_w = 2.0 * randn(50, 3, seed=9)
    found = MarginalLikelihood.from_log_weights(log_w)
    w = np.exp(log_w.numpy())
    error = w.std(0, ddof=1) / w.mean(0) / math.sqrt(50)
    size = w.sum(0) ** 2 / (w**2).sum(0)
    assert_close(found.standard_error, error)
    assert_close(found.effective_sample_size, size)
    np.testing.assert_allclose(error**2, (50 / size - 1) / 49, rtol=1e-12)


@pytest.mark.equation("eq-missed")
def test_draws_from_one_part_give_that_part_of_the_evidence() -> None:
    def joint(z: float) -> float:
        return float(stats.norm.pdf(z) * stats.norm.pdf(1.5, z**2 + 0.5 * z, 0.5))

    whole, part = (integrate.quad(joint, a, 6.0, **QUAD)[0] for a in (-6.0, -0.25))

    def inside(z: float) -> float:  # q times the weight times the indicator
        density = stats.norm.pdf(z, 0.98, 0.2)
        return float(density * joint(z) / density)

    found = integrate.quad(inside, -0.25, 6.0, **QUAD)[0]
    assert found == pytest.approx(whole * (part / whole), rel=1e-10)
    assert 0.4 < part / whole < 0.9


@pytest.mark.equation("eq-markov")
@pytest.mark.parametrize("count", [1, 3, 6])
def test_an_estimate_is_seldom_far_too_high(count: int) -> None:
    every, probability = tuples(count)
    above = np.log(WEIGHTS[every].mean(1)) - math.log(EVIDENCE)
    mean_of_two = 0.5 * (above[:, None] + above)  # two independent data
    pairs = np.outer(probability, probability)
    for excess in np.linspace(0.01, 2.0, 40):
        assert probability[above >= excess].sum() <= math.exp(-excess)
        assert pairs[mean_of_two >= excess].sum() <= math.exp(-2 * excess)


START = np.array([0.6, 0.1, 0.3])
BETAS = np.array([0.0, 0.2, 0.7, 1.0])


def bridge(t: int) -> Array:
    value: Array = START ** (1 - BETAS[t]) * JOINT ** BETAS[t]
    return value


def metropolis(density: Array) -> Array:
    """A lazy chain: propose a neighbour on the ring, accept or stay. It mixes badly and leaves the density alone."""
    move = np.zeros((3, 3))
    for i in range(3):
        for j in ((i + 1) % 3, (i - 1) % 3):
            move[i, j] = 0.2 * min(1.0, density[j] / density[i])
        move[i, i] = 1.0 - move[i].sum()
    return move


def circulating(density: Array) -> Array:
    """The same with a current around the ring: it leaves the density alone and is not reversible."""
    move = metropolis(density)
    current = 0.1 * density.min()
    for i in range(3):
        move[i, (i + 1) % 3] += current / density[i]
        move[i, i] -= current / density[i]
    assert (move >= 0.0).all()
    np.testing.assert_allclose(density @ move, density, rtol=1e-12)
    flow = density[:, None] * move
    assert np.abs(flow - flow.T).max() > 1e-3
    return move


def log_weight(path: tuple[int, ...]) -> float:
    return sum(math.log(bridge(t)[path[t - 1]] / bridge(t - 1)[path[t - 1]]) for t in range(1, 4))


@pytest.mark.equation("eq-ais-path", "eq-ais-weight", "eq-ais-unbiased")
def test_annealed_weights_average_to_the_evidence() -> None:
    np.testing.assert_allclose(bridge(0), START)
    np.testing.assert_allclose(bridge(3), JOINT)
    mean, mean_log = 0.0, 0.0
    for path in itertools.product(range(3), repeat=3):  # z_0, z_1, z_2
        probability = START[path[0]]
        for t in (1, 2):
            probability *= metropolis(bridge(t))[path[t - 1], path[t]]
        log_w = log_weight(path)
        by_steps = sum((BETAS[t] - BETAS[t - 1]) * math.log(JOINT[path[t - 1]] / START[path[t - 1]]) for t in (1, 2, 3))
        assert log_w == pytest.approx(by_steps, abs=1e-13)
        mean += probability * math.exp(log_w)
        mean_log += probability * log_w
    assert mean == pytest.approx(EVIDENCE, rel=1e-12)
    assert mean_log < math.log(EVIDENCE)


@pytest.mark.equation("eq-ais-path", "eq-ais-weight")
def test_the_library_walks_between_the_same_densities() -> None:
    model, x = small_model()
    start = DiagonalNormal(randn(3, 2, seed=6), 0.2 * randn(3, 2, seed=7))
    z = randn(4, 3, 2, seed=8)
    between = Between(model, start, x)
    log_r, log_p = start.log_prob(z), log_joint(model, x, z)
    assert_close(between.at(0.3)(z), 0.7 * log_r + 0.3 * log_p)
    one_step = AnnealedPath(num_temperatures=1)
    log_w, _ = walk(between, z, one_step, [], backwards=False, generator=make_generator(0))
    assert_close(log_w, log_p - log_r)


@pytest.mark.equation("eq-ais-reverse")
@pytest.mark.parametrize("moves", [metropolis, circulating])
def test_backwards_it_is_the_inverse_that_is_unbiased(moves: Callable[[Array], Array]) -> None:
    posterior = JOINT / EVIDENCE
    inverse, mean_log = 0.0, 0.0
    for path in itertools.product(range(3), repeat=3):  # z_2 is the posterior's draw, then z_1, z_0
        probability = posterior[path[2]]
        for t in (2, 1):  # from z_t by a transition that leaves the density of temperature t invariant
            probability *= moves(bridge(t))[path[t], path[t - 1]]
        log_w = log_weight(path)
        inverse += probability * math.exp(-log_w)
        mean_log += probability * log_w
    assert inverse == pytest.approx(1.0 / EVIDENCE, rel=1e-12)
    assert mean_log > math.log(EVIDENCE)


@pytest.mark.equation("eq-ais-width")
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_width_of_the_sandwich_with_perfect_transitions(steps: int) -> None:
    """r = N(0, 1) and an unnormalised posterior 3 N(1.4, 0.3²): what lies between is normal, by its precision."""
    variance, mu = 0.09, 1.4

    def average(beta: float) -> float:
        precision = (1 - beta) + beta / variance
        centre, spread = beta * mu / variance / precision, precision**-0.5

        def log_ratio(z: float) -> float:
            return float(math.log(3.0) + stats.norm.logpdf(z, mu, 0.3) - stats.norm.logpdf(z))

        found: float = integrate.quad(
            lambda z: stats.norm.pdf(z, centre, spread) * log_ratio(z),
            centre - 12 * spread,
            centre + 12 * spread,
            **QUAD,
        )[0]
        return found

    levels = [average(t / steps) for t in range(steps + 1)]
    width = np.mean(levels[1:]) - np.mean(levels[:-1])
    forward = 0.5 * (1 / variance + mu**2 / variance - 1 + math.log(variance))  # KL(r || posterior)
    backward = 0.5 * (variance + mu**2 - 1 - math.log(variance))
    assert width == pytest.approx((forward + backward) / steps, rel=1e-9)
    assert np.mean(levels[:-1]) <= math.log(3.0) <= np.mean(levels[1:])


@pytest.mark.equation("eq-active")
def test_a_latent_is_active_if_its_mean_moves_with_the_data() -> None:
    data = randn(40, 6, seed=11) * torch.linspace(0.5, 2.0, 6) @ randn(6, 6, seed=12)
    model = LinearGaussian.maximum_likelihood(data, latent_dim=3)
    eigenvalues = np.linalg.eigvalsh(np.cov(data.numpy().T, bias=True))[::-1]
    activity = 1.0 - eigenvalues[3:].mean() / eigenvalues[:3]  # probabilistic PCA
    found = active_units(model.posterior, data)
    assert_close(found.variance * 39 / 40, activity)
    assert bool(found.is_active.all())
    for variance, active in ((0.0099, 0), (0.0101, 3)):  # the same means, on this scale in each latent
        scale = (variance / found.variance).sqrt()
        shrunk = active_units(
            lambda x, s=scale: DiagonalNormal(s * model.posterior(x).mu, torch.zeros(len(x), 3).to(x)), data
        )
        assert shrunk.num_active == active
    assert active_units(model.posterior, data[:1].expand(5, -1)).is_active.sum() == 0


@pytest.mark.equation("eq-kl-in-weight")
def test_closed_form_kl_inside_a_weight_tends_to_no_bound() -> None:
    q = JOINT / EVIDENCE  # the posterior
    divergence = float(q @ np.log(q / PRIOR))
    values = LIKELIHOOD * math.exp(-divergence)
    limit = math.log(q @ LIKELIHOOD) - divergence
    assert average_of_log(values, 1, q) == pytest.approx(math.log(EVIDENCE), rel=1e-12)  # an ELBO, for one draw
    spread = float(q @ LIKELIHOOD**2 / (q @ LIKELIHOOD) ** 2 - 1.0)
    assert average_of_log(values, 300, q) == pytest.approx(limit - spread / 600, abs=1e-5)
    assert limit > math.log(EVIDENCE)
