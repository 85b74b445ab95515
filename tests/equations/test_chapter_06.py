"""The labelled equations of chapter 6, each met by a route that does not pass through the library's formula.

Averages are sums over every outcome, over Gauss-Hermite nodes, or scipy's quadrature; derivatives of averages are
central differences; trajectories are taken by NumPy. One test draws at random, with an error bar: that of draws used
twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, optimize, special, stats
from torch import Tensor, nn

from tests.oracles import assert_close, randn
from vae_lib import mcmc
from vae_lib.densities import Categorical, DiagonalNormal
from vae_lib.exact import DiscreteJoint, LinearGaussian
from vae_lib.learning import TrainingConfig, WakeSleep
from vae_lib.learning.settings import make_optimiser
from vae_lib.rng import make_generator

Array = NDArray[np.float64]
DOUBLE = torch.float64
QUAD = {"epsabs": 1e-12, "epsrel": 1e-12, "limit": 400}
# A central difference of step h errs by some h² f''' / 6, and by rounding over h.
STEP, DIFFERENCE = 1e-5, 1e-8


def slope(function: Callable[[float], float], at: float) -> float:
    return (function(at + STEP) - function(at - STEP)) / (2.0 * STEP)


def normal_nodes(dimensions: int, count: int) -> tuple[Array, Array]:
    """Nodes ``(count ** dimensions, dimensions)`` and weights: sums that are averages over standard normal numbers."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    points = np.array(list(itertools.product(nodes, repeat=dimensions)))
    shares = np.array([math.prod(pair) for pair in itertools.product(weights / weights.sum(), repeat=dimensions)])
    return points, shares


@pytest.mark.equation("eq-at-the-mean")
def test_the_bound_at_the_mean_gains_half_a_nat_for_each_latent_in_use() -> None:
    # Orthogonal columns: the posterior has independent coordinates, each of another width.
    weight = torch.linalg.qr(randn(6, 3, seed=1)).Q * torch.tensor([3.0, 1.0, 0.05]).to(DOUBLE)
    model = LinearGaussian(weight, randn(6, seed=2), torch.zeros(6, dtype=DOUBLE))
    x = randn(1, 6, seed=3)
    mu = model.posterior(x).mu

    def loss(logvar: Array) -> float:
        return -float(model.elbo(x, DiagonalNormal(mu, torch.as_tensor(logvar)[None])))

    best = optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-10}).x
    z = mu[0].numpy()
    likelihood = stats.norm.logpdf(x[0].numpy(), weight.numpy() @ z + model.bias.numpy(), 1.0).sum()
    divergence = 0.5 * (z**2 + np.exp(best) - best - 1.0).sum()
    gain = likelihood - divergence + loss(best)
    # A gradient by differences finds the best logarithms of the variances to about 1e-6.
    assert gain == pytest.approx(0.5 * (1.0 - np.exp(best)).sum(), abs=1e-5)
    assert 0.5 * (1.0 - np.exp(best)) == pytest.approx([0.45, 0.25, 0.0012], abs=1e-3)


@pytest.mark.equation("eq-map")
def test_the_prior_adds_its_logarithm_over_the_number_of_images() -> None:
    """One plain step of the library's optimiser is the gradient of average bound plus log-prior over N."""
    layer, images, rate = nn.utils.skip_init(nn.Linear, 3, 2, dtype=DOUBLE), 50, 0.1
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(randn(*parameter.shape, seed=number))
    x = randn(4, 3, seed=5)
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    config = TrainingConfig(optimiser="sgd", learning_rate=rate, weight_prior=1.0)
    optimiser = make_optimiser(config, layer, torch.device("cpu"), images)
    (layer(x) ** 2).sum().backward()  # minus a bound
    optimiser.step()

    def climbed(flat: Array) -> float:
        weight, bias = flat[:6].reshape(2, 3), flat[6:]
        prior = stats.norm.logpdf(flat).sum() / images
        return float(-((x.numpy() @ weight.T + bias) ** 2).sum() + prior)

    start = np.concatenate([value.flatten().numpy() for value in before])
    expected = optimize.approx_fprime(start, climbed, 1e-7)
    moved = torch.cat([p.detach().flatten() for p in layer.parameters()]).numpy() - start
    assert moved / rate == pytest.approx(expected, abs=1e-4)


K, M = 3, 4  # values of z and of x


def joint_table(theta: Array) -> Array:
    """p(x, z), ``(M, K)``, of logits of z and of x given z."""
    prior = special.softmax(theta[:K])
    table: Array = (special.softmax(theta[K:].reshape(K, M), axis=1) * prior[:, None]).T
    return table


def encoder_table(phi: Array) -> Array:
    """q(z | x), ``(M, K)``."""
    table: Array = special.softmax(phi.reshape(M, K), axis=1)
    return table


THETA, PHI = randn(K + K * M, seed=1).numpy(), randn(M * K, seed=2).numpy()
DATA = special.softmax(randn(M, seed=3).numpy())


def mean_elbo(theta: Array, phi: Array) -> float:
    q = encoder_table(phi)
    return float((DATA[:, None] * q * (np.log(joint_table(theta)) - np.log(q))).sum())


def mean_dream_kl(theta: Array, phi: Array) -> float:
    joint = joint_table(theta)
    evidence = joint.sum(1)
    posterior = joint / evidence[:, None]
    return float((evidence * special.rel_entr(posterior, encoder_table(phi)).sum(1)).sum())


def gradient(function: Callable[[Array], float], at: Array) -> Array:
    found = [
        (function(at + STEP * unit) - function(at - STEP * unit)) / (2.0 * STEP)
        for unit in np.eye(len(at), dtype=float)
    ]
    return np.array(found)


def scores_of(table: Callable[[Array], Array], at: Array) -> Array:
    """Gradients of the logarithm of each entry, ``(M, K, parameters)``."""

    def log_entry(x: int, z: int) -> Callable[[Array], float]:
        return lambda values: math.log(table(values)[x, z])

    return np.array([[gradient(log_entry(x, z), at) for z in range(K)] for x in range(M)])


class Table(nn.Module):
    """An encoder that is a table of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(PHI).reshape(M, K))

    def forward(self, x: Tensor) -> Categorical:
        return Categorical(self.logits[x[:, 0].long()].unsqueeze(1))


@pytest.mark.equation("eq-wake")
def test_awake_the_model_climbs_the_elbo() -> None:
    scores = scores_of(joint_table, THETA)
    average = np.einsum("x,xz,xzt->t", DATA, encoder_table(PHI), scores)
    assert average == pytest.approx(gradient(lambda t: mean_elbo(t, PHI), THETA), abs=DIFFERENCE)


@pytest.mark.equation("eq-sleep")
def test_asleep_the_encoder_lowers_the_other_kl_of_dreams() -> None:
    scores = scores_of(encoder_table, PHI)
    average = np.einsum("xz,xzf->f", joint_table(THETA), scores)
    exact = -gradient(lambda f: mean_dream_kl(THETA, f), PHI)
    assert average == pytest.approx(exact, abs=DIFFERENCE)
    # The library's sleep phase has that gradient on average over its dreams.
    logits = torch.as_tensor(THETA)
    model = DiscreteJoint(logits[:K], logits[K:].reshape(K, M))
    table, generator, found = Table(), make_generator(6), []
    x = torch.arange(M, dtype=DOUBLE)[:, None]
    for _ in range(200):
        values = WakeSleep().climb(model, table, x, num_samples=50, generator=generator)
        found.append(torch.autograd.grad(values.mean(), table.logits)[0].flatten())
    dreams = torch.stack(found)
    error = dreams.std(0) / len(dreams) ** 0.5
    assert float(error.max()) < 5e-3
    assert float(((dreams.mean(0) - torch.as_tensor(exact)).abs() / error).max()) < 5.0


@pytest.mark.equation("eq-two-directions")
def test_the_two_phases_lower_two_directions_of_one_kl() -> None:
    joint, q = joint_table(THETA), encoder_table(PHI)
    entropy = -(DATA * np.log(DATA)).sum()
    forward = special.rel_entr(q * DATA[:, None], joint).sum()
    assert forward == pytest.approx(-entropy - mean_elbo(THETA, PHI), abs=1e-12)
    backward = special.rel_entr(joint, q * joint.sum(1)[:, None]).sum()
    assert backward == pytest.approx(mean_dream_kl(THETA, PHI), abs=1e-12)


def linear_moves(w: float, u: float, v: float, c: float) -> tuple[float, float]:
    """Moves of w (wake) and v (sleep) from their definitions, as sums over nodes."""
    nodes, shares = normal_nodes(2, 8)
    x, eps = math.sqrt(c) * nodes[:, 0], nodes[:, 1]
    z = u * x + math.sqrt(v) * eps
    wake = float(shares @ ((x - w * z) * z))
    z_dream, x_dream = nodes[:, 0], w * nodes[:, 0] + nodes[:, 1]
    sleep = slope(lambda v: float(shares @ stats.norm.logpdf(z_dream, u * x_dream, math.sqrt(v))), v)
    return wake, sleep


@pytest.mark.equation("eq-cross")
@pytest.mark.parametrize(("w", "u", "v", "c"), [(0.7, 0.3, 0.6, 2.0), (1.4, -0.2, 1.1, 0.8)])
def test_wake_sleep_is_the_gradient_of_no_function(w: float, u: float, v: float, c: float) -> None:
    wake, sleep = linear_moves(w, u, v, c)
    assert wake == pytest.approx(c * u - w * (c * u**2 + v), abs=1e-12)
    assert sleep == pytest.approx(((1.0 - u * w) ** 2 + u**2 - v) / (2.0 * v**2), abs=DIFFERENCE)
    assert slope(lambda v: linear_moves(w, u, v, c)[0], v) == pytest.approx(-w, abs=DIFFERENCE)
    outer = 1e-4  # a difference of a difference
    crossed = (linear_moves(w + outer, u, v, c)[1] - linear_moves(w - outer, u, v, c)[1]) / (2.0 * outer)
    assert crossed == pytest.approx(-u * (1.0 - u * w) / v**2, abs=1e-5)
    assert abs(crossed + w) > 0.01  # as functions they differ; there are places where they agree


@pytest.mark.equation("eq-cross")
def test_at_the_right_place_the_cross_derivatives_agree() -> None:
    w = 1.3
    c = w**2 + 1.0
    u, v = w / c, 1.0 / c
    assert linear_moves(w, u, v, c) == pytest.approx((0.0, 0.0), abs=DIFFERENCE)
    assert -u * (1.0 - u * w) / v**2 == pytest.approx(-w, abs=1e-12)


@pytest.mark.equation("eq-parabola")
def test_the_wake_phase_of_the_parabola_rests_at_a_ratio_of_moments() -> None:
    data = [(-0.5, 0.2), (1.0, 0.5), (6.0, 0.3)]  # x and its share

    def q(x: float) -> tuple[float, float]:
        return 0.3 * x, 0.4 + 0.05 * x**2

    def moment(x: float, power: int) -> float:
        mean, variance = q(x)
        return float(stats.norm.moment(power, loc=mean, scale=math.sqrt(variance)))

    theta = sum(s * x * moment(x, 2) for x, s in data) / sum(s * moment(x, 4) for x, s in data)

    def likelihood(theta: float) -> float:
        total = 0.0
        for x, share in data:
            mean, variance = q(x)
            nodes, shares = normal_nodes(1, 20)
            z = mean + math.sqrt(variance) * nodes[:, 0]
            total += share * float(shares @ stats.norm.logpdf(x, theta * z**2, 1.0))
        return total

    assert slope(likelihood, theta) == pytest.approx(0.0, abs=DIFFERENCE * 100)
    assert slope(likelihood, theta + 0.1) < 0.0 < slope(likelihood, theta - 0.1)


def bent(z: Array) -> float:
    """Minus a log-density in two dimensions, up to a constant."""
    return float(0.5 * z[0] ** 2 + 0.5 * (z[1] - z[0] ** 2) ** 2 + 0.1 * z[1] ** 4)


def bent_slope(z: Array) -> Array:
    return np.array([z[0] - 2.0 * z[0] * (z[1] - z[0] ** 2), z[1] - z[0] ** 2 + 0.4 * z[1] ** 3])


def bent_log_density(z: Tensor) -> Tensor:
    first, second = z[..., 0], z[..., 1]
    return -0.5 * first**2 - 0.5 * (second - first**2) ** 2 - 0.1 * second**4


def leapfrog(z: Array, r: Array, h: float, steps: int) -> tuple[Array, Array]:
    """The three lines of the equation, taken one by one."""
    for _ in range(steps):
        r = r - 0.5 * h * bent_slope(z)
        z = z + h * r
        r = r - 0.5 * h * bent_slope(z)
    return z, r


@pytest.mark.equation("eq-energy")
def test_energy_stays_along_the_exact_motion() -> None:
    def motion(_time: float, state: Array) -> Array:
        return np.concatenate([state[2:], -bent_slope(state[:2])])

    start = np.array([0.7, -0.4, 1.1, 0.3])
    states = integrate.solve_ivp(motion, (0.0, 3.0), start, rtol=1e-11, atol=1e-12).y.T
    energies = [bent(state[:2]) + 0.5 * (state[2:] ** 2).sum() for state in states]
    assert energies == pytest.approx([energies[0]] * len(energies), abs=1e-9)


@pytest.mark.equation("eq-leapfrog")
def test_leapfrog_is_reversible_keeps_volumes_and_is_the_librarys() -> None:
    z, r, h = np.array([0.7, -0.4]), np.array([1.1, 0.3]), 0.2
    there, momentum = leapfrog(z, r, h, 7)
    back, _ = leapfrog(there, -momentum, h, 7)
    assert back == pytest.approx(z, abs=1e-13)

    def flat(state: Array) -> Array:
        return np.concatenate(leapfrog(state[:2], state[2:], h, 7))

    state = np.concatenate([z, r])
    columns = [(flat(state + STEP * unit) - flat(state - STEP * unit)) / (2.0 * STEP) for unit in np.eye(4)]
    assert np.linalg.det(np.array(columns)) == pytest.approx(1.0, abs=1e-7)
    # Energy errs by the square of the step.
    errors = []
    for step in (0.02, 0.01):
        end, momentum = leapfrog(z, r, step, round(1.0 / step))
        errors.append(bent(end) + 0.5 * (momentum**2).sum() - bent(z) - 0.5 * (r**2).sum())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.02)


@pytest.mark.equation("eq-leapfrog", "eq-metropolis")
def test_the_librarys_transition_is_the_one_of_the_text() -> None:
    start = randn(50, 1, 2, seed=4)
    moved = mcmc.hmc(bent_log_density, start, step_size=0.5, num_leapfrog=5, generator=make_generator(6))
    generator = make_generator(6)
    momenta = torch.randn(start.shape, generator=generator, dtype=DOUBLE)
    uniforms = torch.rand(start.shape[:2], generator=generator, dtype=DOUBLE)
    accepted = 0
    for number in range(50):
        z, r = start[number, 0].numpy(), momenta[number, 0].numpy()
        end, momentum = leapfrog(z, r, 0.5, 5)
        change = bent(end) + 0.5 * (momentum**2).sum() - bent(z) - 0.5 * (r**2).sum()
        chance = min(1.0, math.exp(-change))
        assert float(moved.acceptance[number, 0]) == pytest.approx(chance, abs=1e-10)
        is_accepted = float(uniforms[number, 0]) < chance
        accepted += is_accepted
        assert_close(moved.z[number, 0], end if is_accepted else z)
    assert 10 < accepted < 50


@pytest.mark.equation("eq-metropolis")
def test_the_test_makes_up_for_the_steps() -> None:
    """Averages of a standard normal are what they were after one transition, with a step that is much too long."""
    line = np.linspace(-9.0, 9.0, 1801)
    z, r = np.meshgrid(line, line, indexing="ij")
    mass = stats.norm.pdf(z) * stats.norm.pdf(r) * (line[1] - line[0]) ** 2
    z_new, r_new = z, r
    for _ in range(3):
        r_new = r_new - 0.6 * z_new
        z_new = z_new + 1.2 * r_new
        r_new = r_new - 0.6 * z_new
    chance = np.minimum(1.0, np.exp(0.5 * (z**2 + r**2 - z_new**2 - r_new**2)))
    assert float((mass * chance).sum()) < 0.95
    for f in (lambda t: t**2, lambda t: t**4, np.cos):
        after = (mass * (chance * f(z_new) + (1.0 - chance) * f(z))).sum()
        # The kink of the minimum costs a little of the grid's accuracy.
        assert float(after) == pytest.approx(float((mass * f(z)).sum()), abs=1e-4)
    untested = (mass * z_new**2).sum()
    assert abs(float(untested) - 1.0) > 0.1


@pytest.mark.equation("eq-reciprocal")
@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.3), (-0.2, 0.6)])
def test_a_reciprocal_weight_averages_to_one_over_the_evidence(mean: float, std: float) -> None:
    def joint(z: float) -> float:
        return float(stats.norm.pdf(z) * stats.norm.pdf(0.8, math.sin(2.0 * z) + 0.3 * z, 0.5))

    evidence, _ = integrate.quad(joint, -12.0, 12.0, **QUAD)
    # The average by its definition: over the posterior, of the ratio.
    average, _ = integrate.quad(
        lambda z: joint(z) / evidence * (stats.norm.pdf(z, mean, std) / joint(z)),
        mean - 9.0 * std,
        mean + 9.0 * std,
        **QUAD,
    )
    assert average == pytest.approx(1.0 / evidence, rel=1e-9)


@pytest.mark.equation("eq-reciprocal-variance")
@pytest.mark.parametrize("c", [0.5, 0.9, 1.3])
def test_the_variance_of_reciprocal_weights(c: float) -> None:
    def second(z: float) -> float:
        return float(stats.norm.pdf(z, 0.0, c) ** 2 / stats.norm.pdf(z))

    one, _ = integrate.quad(second, -30.0, 30.0, **QUAD)
    for dimensions in (1, 4):
        expected = (c * math.sqrt(2.0 - c**2)) ** -dimensions - 1.0
        assert one**dimensions - 1.0 == pytest.approx(expected, rel=1e-9)


@pytest.mark.equation("eq-reciprocal-variance")
def test_a_wide_q_has_no_variance() -> None:
    """At twice the variance the integrand is a constant, beyond it grows: no integral."""
    for c, growth in ((math.sqrt(2.0), 1.0), (1.6, 1.0000001)):
        values = [stats.norm.pdf(z, 0.0, c) ** 2 / stats.norm.pdf(z) for z in (0.0, 3.0, 9.0, 20.0)]
        assert all(later >= growth * earlier * (1.0 - 1e-9) for earlier, later in itertools.pairwise(values))


@pytest.mark.equation("eq-golden")
@pytest.mark.parametrize("w", [0.5, 2.0])
def test_with_a_leak_the_variance_rests_at_the_golden_section(w: float) -> None:
    right = 1.0 / (1.0 + w**2)
    u = w * right
    nodes, shares = normal_nodes(2, 8)

    def leak(v: float) -> float:
        """The average of log p(x, z) under q, for data of variance 2; what the wake phase passes through z."""
        x, eps = math.sqrt(2.0) * nodes[:, 0], nodes[:, 1]
        z = u * x + math.sqrt(v) * eps
        return float(shares @ (stats.norm.logpdf(z) + stats.norm.logpdf(x, w * z)))

    def move(v: float) -> float:
        return linear_moves(w, u, v, 2.0)[1] + slope(leak, v)

    rest = optimize.brentq(move, 0.2 * right, right)
    assert rest / right == pytest.approx((math.sqrt(5.0) - 1.0) / 2.0, abs=1e-6)
    assert linear_moves(w, u, right, 2.0)[1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.equation("eq-leak")
@pytest.mark.parametrize("c", [2.0, 5.0])
def test_the_decoder_answers_to_the_leak_with_too_large_a_weight(c: float) -> None:
    """All three moves of the slip vanish there; the model's variance and that of q are off by the golden section."""
    nodes, shares = normal_nodes(2, 8)
    golden = (math.sqrt(5.0) - 1.0) / 2.0

    def passed_through(w: float, u: float, v: float) -> float:
        x, eps = math.sqrt(c) * nodes[:, 0], nodes[:, 1]
        z = u * x + math.sqrt(v) * eps
        return float(shares @ (stats.norm.logpdf(z) + stats.norm.logpdf(x, w * z)))

    def sleep(w: float, u: float, v: float) -> float:
        z, x = nodes[:, 0], w * nodes[:, 0] + nodes[:, 1]
        return float(shares @ stats.norm.logpdf(z, u * x, math.sqrt(v)))

    w = math.sqrt((math.sqrt(5.0) + 1.0) / 2.0 * c - 1.0)
    u, v = w / (1.0 + w**2), golden / (1.0 + w**2)
    moves = (
        linear_moves(w, u, v, c)[0],
        slope(lambda t: sleep(w, t, v) + passed_through(w, t, v), u),
        slope(lambda t: sleep(w, u, t) + passed_through(w, u, t), v),
    )
    # Central differences err by the square of their step times a third derivative, here of the order of v^-3.
    assert moves == pytest.approx((0.0, 0.0, 0.0), abs=1e-6)
    assert c / (1.0 + w**2) == pytest.approx(golden, abs=1e-12)
    # Without the slip it is not a place of rest.
    assert abs(linear_moves(w, u, v, c)[1]) > 0.1


@pytest.mark.equation("eq-no-metropolis")
@pytest.mark.parametrize(("std", "h", "steps"), [(1.0, 0.8, 1), (1.0, 0.8, 7), (0.3, 0.25, 4)])
def test_without_the_test_a_normal_chain_is_too_wide(std: float, h: float, steps: int) -> None:
    def end(z: float, r: float) -> float:
        for _ in range(steps):
            r = r - 0.5 * h * z / std**2
            z = z + h * r
            r = r - 0.5 * h * z / std**2
        return z

    from_z, from_r = end(1.0, 0.0), end(0.0, 1.0)  # the map is linear
    variance = 0.0
    for _ in range(20_000):
        variance = from_z**2 * variance + from_r**2
    assert variance == pytest.approx(std**2 / (1.0 - h**2 / (4.0 * std**2)), rel=1e-9)


@pytest.mark.equation("eq-energy-error")
@pytest.mark.parametrize(("h", "steps"), [(0.3, 5), (1.1, 2)])
def test_the_average_error_of_the_energy(h: float, steps: int) -> None:
    nodes, shares = normal_nodes(2, 4)  # exact for polynomials of this degree
    z, r = nodes[:, 0].copy(), nodes[:, 1].copy()
    for _ in range(steps):
        r -= 0.5 * h * z
        z += h * r
        r -= 0.5 * h * z
    change = float(shares @ (0.5 * (z**2 + r**2) - 0.5 * (nodes**2).sum(1)))
    angle = steps * math.acos(1.0 - h**2 / 2.0)
    formula = 0.5 * math.sin(angle) ** 2 * (h**4 / 16.0) / (1.0 - h**2 / 4.0)
    assert change == pytest.approx(formula, abs=1e-12)


@pytest.mark.equation("eq-reuse")
def test_draws_used_twice_cost_one_over_their_number_for_each_parameter() -> None:
    dimensions, draws, repeats = 2, 400, 4000
    z = randn(repeats, draws, dimensions, seed=8).numpy()
    mean = z.mean(1, keepdims=True)
    centred = z - mean
    covariance = np.einsum("rsi,rsj->rij", centred, centred) / (draws - 1)
    inverse, determinant = np.linalg.inv(covariance), np.linalg.det(covariance)
    quadratic = np.einsum("rsi,rij,rsj->rs", centred, inverse, centred)
    log_ratio = -0.5 * (quadratic + np.log(determinant)[:, None]) + 0.5 * (z**2).sum(2)
    off = math.log(draws) - special.logsumexp(log_ratio, axis=1)
    fitted = dimensions + dimensions * (dimensions + 1) // 2
    # The next term is of the order of the square.
    error = 5.0 * off.std() / math.sqrt(repeats) + 3.0 * (fitted / draws) ** 2
    assert error < 0.3 * fitted / draws
    assert off.mean() == pytest.approx(-fitted / draws, abs=error)
