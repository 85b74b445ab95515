"""The objectives of practice against torch.distributions, against each other, and in the trainer."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import scipy.optimize
import torch
from torch import Tensor
from torch import distributions as td

from tests.learning.runs import IN_STEP, same_bits, small_run, weights
from tests.learning.test_training import linear
from tests.oracles import assert_close, assert_same_value_and_gradient, model_case, randn
from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.densities import DiagonalNormal
from vae_lib.divergences import kl
from vae_lib.exact import LinearGaussian, linear_vae_optimum
from vae_lib.learning import (
    Images,
    TrainingConfig,
    Warmup,
    beta_elbo,
    calibrated_elbo,
    free_bits,
    optimal_logvar,
    train,
)
from vae_lib.learning.average_bound import ScheduledBound, name_of
from vae_lib.models import VAE, DecoderModel, NormalEncoder, NormalLikelihood, standard_normal

S, B, D, L = 4, 3, 5, 2
X, Z = randn(B, D, seed=1), randn(S, B, L, seed=2)
WEIGHT, BIAS = randn(D, L, seed=3), randn(D, seed=4)
MU, LOGVAR = randn(B, L, seed=5), randn(B, L, seed=6)
# A decoder that is no matrix, and q: what gradients are wanted in.
PARAMETERS = (WEIGHT, BIAS, MU, LOGVAR, Z)


def model_of(weight: Tensor, bias: Tensor, logvar: float = -0.7) -> DecoderModel:
    return DecoderModel(
        lambda z: torch.tanh(z @ weight.mT + bias),
        NormalLikelihood(logvar),
        L,
        D,
        standard_normal(L, dtype=torch.float64),
    )


def normal(mean: Tensor, variance: float | Tensor) -> td.Distribution:
    return td.Independent(td.Normal(mean, torch.as_tensor(variance, dtype=mean.dtype).sqrt()), 1)


def foreign_kl_terms(mu: Tensor, logvar: Tensor) -> Tensor:
    """Of each datum and latent, ``(B, L)``."""
    standard = td.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    return td.kl_divergence(td.Normal(mu, torch.exp(0.5 * logvar)), standard)


def foreign_log_likelihood(weight: Tensor, bias: Tensor, z: Tensor, variance: float | Tensor) -> Tensor:
    return normal(torch.tanh(z @ weight.mT + bias), variance).log_prob(X)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_beta_weighs_the_kl(beta: float) -> None:
    def oracle(weight: Tensor, bias: Tensor, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        return foreign_log_likelihood(weight, bias, z, math.exp(-0.7)) - beta * foreign_kl_terms(mu, logvar).sum(-1)

    assert_same_value_and_gradient(
        lambda w, b, mu, logvar, z: beta_elbo(model_of(w, b), DiagonalNormal(mu, logvar), X, z, beta=beta),
        oracle,
        PARAMETERS,
    )


@pytest.mark.parametrize("name", ["LinearGaussian", "GaussianMixture", "DiscreteJoint", "GammaPoisson"])
def test_with_beta_one_it_is_the_elbo_of_any_model(name: str) -> None:
    model, x, q = model_case(name)
    z = q.sample(S, generator=torch.Generator().manual_seed(1))
    assert torch.equal(beta_elbo(model, q, x, z, beta=1.0), elbo_with_analytic_kl(model, q, x, z))
    assert_close(beta_elbo(model, q, x, z, beta=3.0), model.log_p_x_given_z(x, z) - 3.0 * kl(q, model.prior(len(x))))


@pytest.mark.parametrize("beta", [0.25, 1.0, 8.0])
def test_beta_is_a_choice_of_the_variance(beta: float) -> None:
    """For variance s^2 the objective is beta times the ELBO for variance beta s^2, up to a constant."""
    variance, values, gradients = 0.3, [], []
    for logvar, weight_of_kl, scale in (
        (math.log(variance), beta, 1.0 / beta),
        (math.log(beta * variance), 1.0, 1.0),
    ):
        w, b, mu, logvar_q, z = leaves = [part.clone().requires_grad_() for part in PARAMETERS]
        value = scale * beta_elbo(model_of(w, b, logvar), DiagonalNormal(mu, logvar_q), X, z, beta=weight_of_kl)
        values.append(value.detach())
        cotangent = torch.linspace(0.5, 1.5, S * B, dtype=torch.float64).view(S, B)
        gradients.append(torch.autograd.grad((value * cotangent).sum(), leaves))
    # log N(x; m, s^2 I) / beta - log N(x; m, beta s^2 I), in which x and m are no longer found.
    constant = 0.5 * D * (math.log(2.0 * math.pi * beta * variance) - math.log(2.0 * math.pi * variance) / beta)
    assert_close(values[0] - values[1], torch.full((S, B), constant, dtype=torch.float64))
    for first, second in zip(*gradients, strict=True):
        assert_close(first, second)


# The latents cost 0.44 and 0.86 nats on average: both over the floor, one, or none.
@pytest.mark.parametrize("minimum", [0.0, 0.1, 0.6, 1.0, 50.0])
def test_free_bits_put_a_floor_under_each_latent(minimum: float) -> None:
    def oracle(weight: Tensor, bias: Tensor, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        averages = foreign_kl_terms(mu, logvar).mean(0)
        cost = sum(
            (average if float(average.detach()) > minimum else minimum for average in averages),
            torch.zeros(()).double(),
        )
        return foreign_log_likelihood(weight, bias, z, math.exp(-0.7)) - cost

    def ours(weight: Tensor, bias: Tensor, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        # A zero that depends on q, since under the floor the objective does not.
        value = free_bits(model_of(weight, bias), DiagonalNormal(mu, logvar), X, z, minimum=minimum)
        return value + 0.0 * (mu.sum() + logvar.sum())

    assert_same_value_and_gradient(
        ours, lambda *parts: oracle(*parts) + 0.0 * (parts[2].sum() + parts[3].sum()), PARAMETERS
    )


def test_the_floor_is_under_the_average_over_the_minibatch() -> None:
    """Costs of 0.1 and 1.9 nats average 1: over a floor of 0.5 nothing changes, though one of the two lies under it."""
    mu = torch.tensor([0.2, 3.8], dtype=torch.float64).sqrt().view(2, 1)
    q = DiagonalNormal(mu, torch.zeros_like(mu))
    model = DecoderModel(lambda z: z, NormalLikelihood(0.0), 1, 1, standard_normal(1, dtype=torch.float64))
    x, z = randn(2, 1, seed=1), randn(3, 2, 1, seed=2)
    for minimum, cost in ((0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (1.5, 1.5)):
        values = free_bits(model, q, x, z, minimum=minimum)
        assert_close(model.log_p_x_given_z(x, z) - values, torch.full((3, 2), cost, dtype=torch.float64))
    assert_close(free_bits(model, q, x, z, minimum=0.5).mean(), elbo_with_analytic_kl(model, q, x, z).mean())


def test_the_prior_need_not_be_standard() -> None:
    prior = DiagonalNormal(randn(B, L, seed=7), randn(B, L, seed=8))
    model = DecoderModel(
        lambda z: z @ WEIGHT.mT,
        NormalLikelihood(0.0),
        L,
        D,
        lambda count: DiagonalNormal(prior.mu[:count], prior.logvar[:count]),
    )
    q = DiagonalNormal(MU, LOGVAR)
    terms = td.kl_divergence(
        td.Normal(MU, torch.exp(0.5 * LOGVAR)), td.Normal(prior.mu, torch.exp(0.5 * prior.logvar))
    ).mean(0)
    assert float(terms.min()) < 3.0 < float(terms.max())
    expected = model.log_p_x_given_z(X, Z) - terms.clamp(min=3.0).sum()
    assert_close(free_bits(model, q, X, Z, minimum=3.0), expected)


def test_warmup_is_a_straight_line_and_then_flat() -> None:
    warmup = Warmup(4, beta=2.0)
    assert isinstance(warmup, ScheduledBound)
    assert [warmup.beta_at(step) for step in range(7)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert Warmup(10).beta_at(10**9) == 1.0
    model, q = model_of(WEIGHT, BIAS), DiagonalNormal(MU, LOGVAR)
    for step in (6, 1, 0, 4, 1):  # in any order, and again: nothing is remembered
        found = warmup.at_step(step)(model, q, X, Z)
        assert torch.equal(found, beta_elbo(model, q, X, Z, beta=warmup.beta_at(step)))
    assert warmup == Warmup(4, beta=2.0) != Warmup(5, beta=2.0)


@pytest.mark.parametrize("samples", [1, S])
def test_the_best_variance_is_the_mean_squared_error(samples: int) -> None:
    mean = 0.3 * randn(samples, B, D, seed=9)
    found = optimal_logvar(X, mean)
    assert found.shape == ()

    def negative(logvar: float) -> float:
        return -float(normal(mean, math.exp(logvar)).log_prob(X).mean())

    best = scipy.optimize.minimize_scalar(negative, bounds=(-5.0, 5.0), method="bounded", options={"xatol": 1e-10})
    # At a maximum a number is found to the root of the rounding of the value, 1e-8 or so.
    assert float(found) == pytest.approx(best.x, abs=1e-6)
    # There the score in the log-variance is nothing.
    at = found.clone().requires_grad_()
    (score,) = torch.autograd.grad(normal(mean, torch.exp(at)).log_prob(X).mean(), at)
    assert_close(score, 0.0)
    assert_same_value_and_gradient(
        lambda x, m: optimal_logvar(x, m).view(1), lambda x, m: torch.log(((x - m) ** 2).mean()).view(1), (X, mean)
    )


def test_where_every_mean_hits_there_is_no_best_variance() -> None:
    assert float(optimal_logvar(X, X.unsqueeze(0))) == -math.inf


def test_the_calibrated_elbo_is_the_elbo_of_its_variance() -> None:
    """Value and gradient of the average, with the variance held fixed on the other side: the envelope theorem."""
    with torch.no_grad():
        logvar = float(optimal_logvar(X, model_of(WEIGHT, BIAS).mean_x_given_z(Z)))
        mean = torch.tanh(Z @ WEIGHT.mT + BIAS)
        assert logvar == pytest.approx(float((X - mean).square().mean().log()), rel=1e-12)

    def calibrated(w: Tensor, b: Tensor, mu: Tensor, logvar_q: Tensor, z: Tensor) -> Tensor:
        # The head's own log-variance is 5, and nothing of it is seen.
        return calibrated_elbo(model_of(w, b, 5.0), DiagonalNormal(mu, logvar_q), X, z)

    def fixed(w: Tensor, b: Tensor, mu: Tensor, logvar_q: Tensor, z: Tensor) -> Tensor:
        return foreign_log_likelihood(w, b, z, math.exp(logvar)) - foreign_kl_terms(mu, logvar_q).sum(-1)

    assert_close(calibrated(*PARAMETERS), fixed(*PARAMETERS))
    assert_same_value_and_gradient(
        lambda *parts: calibrated(*parts).mean().view(1), lambda *parts: fixed(*parts).mean().view(1), PARAMETERS
    )
    # Any other variance is worse, and the average is that of a normal's entropy.
    for other in (logvar - 0.1, logvar + 0.1):
        worse = elbo_with_analytic_kl(model_of(WEIGHT, BIAS, other), DiagonalNormal(MU, LOGVAR), X, Z)
        assert float(calibrated(*PARAMETERS).mean()) > float(worse.mean())
    by_entropy = -0.5 * D * (math.log(2.0 * math.pi * math.e) + logvar) - foreign_kl_terms(MU, LOGVAR).sum(-1).mean()
    assert_close(calibrated(*PARAMETERS).mean(), by_entropy)


BOUNDS: dict[str, Callable[..., Tensor]] = {
    "beta": functools.partial(beta_elbo, beta=2.0),
    "free bits": functools.partial(free_bits, minimum=0.5),
    "calibrated": calibrated_elbo,
}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize(
    ("x", "z", "error", "message"),
    [
        (X[:, :4], Z, ValueError, "x: expected shape (B, 5), found (3, 4)"),
        (X, Z[:, :2], ValueError, "z: expected shape (S, 3, 2), found (4, 2, 2)"),
        (X, Z.float(), TypeError, "z: expected torch.float64"),
    ],
)
def test_shapes_are_told(name: str, x: Tensor, z: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        BOUNDS[name](model_of(WEIGHT, BIAS), DiagonalNormal(MU, LOGVAR), x, z)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_q_of_another_size_is_told(name: str) -> None:
    with pytest.raises(ValueError, match=r"q: expected \(B, L\) = \(3, 2\), found \(2, 2\)"):
        BOUNDS[name](model_of(WEIGHT, BIAS), DiagonalNormal(MU[:2], LOGVAR[:2]), X, Z)
    with pytest.raises(TypeError, match=r"q: expected a .*Density, for an encoder encoder\(x\), found function"):
        BOUNDS[name](model_of(WEIGHT, BIAS), lambda x: DiagonalNormal(MU, LOGVAR), X, Z)


class Averaged:
    """A model that forgets the axes of what it promised."""

    data_dim, latent_dim = D, L
    prior = staticmethod(standard_normal(L, dtype=torch.float64))

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        return model_of(WEIGHT, BIAS).log_p_x_given_z(x, z).mean(0)

    def mean_x_given_z(self, z: Tensor) -> Tensor:
        return model_of(WEIGHT, BIAS).mean_x_given_z(z).mean(0)


@pytest.mark.parametrize("name", BOUNDS)
def test_what_the_model_returns_is_checked(name: str) -> None:
    with pytest.raises(ValueError, match=r"(log_p_x_given_z\(x, z\)|mean_x_given_z\(z\)): expected shape \(4, 3"):
        BOUNDS[name](Averaged(), DiagonalNormal(MU, LOGVAR), X, Z)


MODEL, Q = model_of(WEIGHT, BIAS), DiagonalNormal(MU, LOGVAR)
BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: beta_elbo(MODEL, Q, X, Z, beta=-0.1), ValueError, "beta: expected a number of at least 0, found -0.1"),
    (lambda: beta_elbo(MODEL, Q, X, Z, beta=math.inf), ValueError, "beta: expected a number of at least 0, found inf"),
    (lambda: beta_elbo(MODEL, Q, X, Z, beta=math.nan), ValueError, "beta: expected a number of at least 0, found nan"),
    (lambda: free_bits(MODEL, Q, X, Z, minimum=-1.0), ValueError, "minimum: expected a number of at least 0"),
    (lambda: Warmup(0), ValueError, "steps: expected a positive integer, found 0"),
    (lambda: Warmup(10, beta=-1.0), ValueError, "beta: expected a number of at least 0, found -1.0"),
    (lambda: Warmup(10).beta_at(-1), ValueError, "step: expected a number of at least 0, found -1"),
    (lambda: optimal_logvar(X[0], Z), ValueError, "x: expected shape (B, D), found (5,)"),
    (lambda: optimal_logvar(X, X), ValueError, "mean: expected shape (S, 3, 5), found (3, 5)"),
    (
        lambda: calibrated_elbo(LinearGaussian(WEIGHT, BIAS, BIAS), Q, X, Z),
        TypeError,
        "model: expected one with mean_x_given_z, found LinearGaussian",
    ),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_told_in_one_line(case: int) -> None:
    ask, error, message = BAD[case]
    with pytest.raises(error, match=re.escape(message)) as told:
        ask()
    assert "\n" not in str(told.value)


def test_densities_of_another_kind_are_told() -> None:
    model, x, q = model_case("LinearGaussian")
    with pytest.raises(TypeError, match=r"q: expected a DiagonalNormal, found FullNormal"):
        free_bits(model, q, x, torch.zeros(2, 3, 2).double(), minimum=0.1)
    bits = model_case("DiscreteJoint")
    with pytest.raises(TypeError, match=r"q: expected a DiagonalNormal, found Categorical"):
        free_bits(bits.model, bits.q, bits.x, torch.zeros(2, 3, 1).double(), minimum=0.1)
    broad = DecoderModel(MODEL.network, MODEL.likelihood, L, D, lambda count: DiagonalNormal(MU.mT, LOGVAR.mT))
    with pytest.raises(ValueError, match=r"prior\(B\).mu: expected shape \(3, 2\), found \(2, 3\)"):
        free_bits(broad, Q, X, Z, minimum=0.1)
    wide = DecoderModel(lambda z: z @ WEIGHT.mT, NormalLikelihood(0.0), L, D, lambda count: q)
    with pytest.raises(TypeError, match=r"prior\(B\): expected a DiagonalNormal, found FullNormal"):
        free_bits(wide, Q, X, Z, minimum=0.1)


@pytest.mark.parametrize("bound", [*BOUNDS.values(), Warmup(3), Warmup(3, beta=0.0)], ids=[*BOUNDS, "warm-up", "no KL"])
def test_the_trainer_climbs_it(bound: Any) -> None:
    """Three epochs of the small VAE: finite, not the ELBO's weights, and repeatable."""
    first = small_run(bound=bound)
    assert first.history[-1]["step"] == 3 * IN_STEP
    assert all(math.isfinite(row["train_elbo"]) for row in first.history)
    assert same_bits(weights(first), weights(small_run(bound=bound)))
    assert not same_bits(weights(first), weights(small_run()))


def test_with_neutral_settings_it_is_the_usual_training() -> None:
    usual = weights(small_run())
    assert same_bits(weights(small_run(bound=functools.partial(beta_elbo, beta=1.0))), usual)


def test_a_bound_is_named_with_its_setting() -> None:
    """By it a checkpoint knows whether it belongs to this training."""
    assert name_of(functools.partial(beta_elbo, beta=4.0)) == "beta_elbo {'beta': 4.0}"
    assert name_of(Warmup(10)) == "Warmup {'steps': 10, 'beta': 1.0}"


@pytest.mark.parametrize(("beta", "is_open"), [(1.0, [True, True]), (4.0, [True, False]), (40.0, [False, False])])
def test_a_network_closes_the_latents_that_the_eigenvalues_name(beta: float, is_open: list[bool]) -> None:
    """A linear VAE of the library, trained by minibatches and draws: the theory is exact for it too."""
    eigenvalues = torch.tensor([3.0, 1.0, 0.01], dtype=torch.float64)
    x = randn(400, 3, seed=1)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky((x - x.mean(0)).mT @ (x - x.mean(0)) / 400)).mT
    x = x * eigenvalues.sqrt()
    logvar = math.log(0.4)
    encoder, decoder = NormalEncoder(linear(3, 4, seed=2)), linear(2, 3, seed=3)
    vae = VAE(encoder, decoder, NormalLikelihood(logvar), latent_dim=2, data_dim=3)
    config = TrainingConfig(epochs=100, batch_size=100, learning_rate=0.05, schedule="cosine", num_samples=4, seed=4)
    train(vae, Images(x), config=config, bound=functools.partial(beta_elbo, beta=beta), device="cpu", progress=False)
    theory = linear_vae_optimum(eigenvalues, 2, logvar=logvar, beta=beta)
    assert theory.is_active.tolist() == is_open
    with torch.no_grad():
        q, norms = vae(x), decoder.weight.norm(dim=0)
        assert isinstance(q, DiagonalNormal)
        costs = foreign_kl_terms(q.mu, q.logvar).mean(0)[norms.argsort(descending=True)]
    # The noise of the last steps keeps a weight some 0.01 from its end; the smallest that is open is 0.77.
    assert (norms.sort(descending=True).values > 0.1).tolist() == is_open
    assert_close(norms.sort(descending=True).values, theory.weight_norms, rtol=0.0, atol=0.05)
    assert_close(costs, theory.kl, rtol=0.0, atol=0.05)
