"""The path: single gradients by hand, the landing, antithetic pairs, and estimators taken where they do not belong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.gradients.elbos import THETA, X4, linear_gaussian_diagonal, linear_gaussian_full, linear_gaussian_of
from tests.gradients.problem import tensor
from tests.gradients.problems import PROBLEMS
from tests.oracles import assert_close, randn
from vae_lib.densities import Bernoulli, DiagonalNormal, FullNormal, StudentT
from vae_lib.gradients import (
    Objective,
    Pathwise,
    ScoreFunction,
    expectation,
    measure,
    sgvb_a,
    sgvb_b,
    sticking_the_landing,
)
from vae_lib.rng import make_generator

NORMAL = {"mu": randn(2, 2, seed=131), "logvar": 0.5 * randn(2, 2, seed=132)}


def diagonal(p: dict[str, Tensor]) -> DiagonalNormal:
    return DiagonalNormal(p["mu"], p["logvar"])


def test_a_single_gradient_by_hand() -> None:
    """f = sum of z³: the slope in mu is 3 z², in logvar 3 z² std noise / 2, averaged over S, not over B."""
    noise = randn(3, 4, 2, 2, seed=133)
    found = Pathwise().at(expectation(diagonal, lambda z: (z**3).sum(-1)), NORMAL, noise)
    std = torch.exp(0.5 * NORMAL["logvar"])
    slope = 3.0 * (NORMAL["mu"] + std * noise) ** 2
    assert_close(found["mu"], slope.mean(1))
    assert_close(found["logvar"], (slope * 0.5 * std * noise).mean(1))


def at_the_posterior() -> tuple[dict[str, Tensor], Objective, Objective]:
    model = linear_gaussian_of(THETA)
    posterior = model.posterior(X4)
    params = {"mu": posterior.mu, "tril": posterior.scale_tril.clone()}

    def family(p: dict[str, Tensor]) -> FullNormal:
        return FullNormal(p["mu"], p["tril"].tril())

    return params, sgvb_a(model, family, X4), sgvb_b(model, family, X4)


@pytest.mark.parametrize("vectorised", [True, False])
def test_the_landing_at_the_exact_posterior(vectorised: bool) -> None:
    """Every single gradient is zero; those of SGVB A and B scatter around zero."""
    params, a, b = at_the_posterior()
    count = 500 if vectorised else 50
    arguments: dict[str, Any] = {"num_estimates": count, "num_samples": 1, "vectorised": vectorised}
    landed = sticking_the_landing()(a, params, generator=make_generator(1), **arguments)
    for value in landed.values():
        assert value.shape[0] == count
        # A difference of two gradients of size 10, each right to some roundings of 2e-16.
        assert float(value.abs().max()) < 1e-12
    for objective in (a, b):
        plain = Pathwise()(objective, params, generator=make_generator(1), **arguments)
        for value in plain.values():
            share = (value.flatten(1).abs().amax(1) > 1e-2).double().mean()
            assert float(share) > 0.95
            assert_close(value.mean(0), torch.zeros_like(value[0]), atol=5.0 * float(value.std(0).max()) / count**0.5)


def test_the_landing_holds_q_but_not_the_model() -> None:
    """What it leaves out is the score of q at the draw; the gradients of the model's parameters are those of SGVB A."""
    problem = linear_gaussian_full()
    noise = randn(6, 1, 3, 2, seed=134)
    plain = Pathwise().at(problem.objective, problem.params, noise)
    landed = sticking_the_landing().at(problem.objective, problem.params, noise)
    q = problem.objective.family(problem.params)
    for i in range(6):
        z = q.from_noise(noise[i])  # type: ignore[attr-defined]
        leaves = {name: problem.params[name].clone().requires_grad_() for name in ("mu", "tril")}
        log_q = problem.objective.family(leaves).log_prob(z).sum()
        for name, score in zip(leaves, torch.autograd.grad(log_q, list(leaves.values())), strict=True):
            assert_close(landed[name][i], plain[name][i] + score)
    for name in THETA:
        assert_close(landed[name], plain[name])


def test_the_landing_does_not_belong_with_sgvb_b() -> None:
    """There is no log q to hold fixed: it is refused, and if the mark were wrong, the z-test would see it."""
    problem = linear_gaussian_diagonal(analytic_kl=True)
    with pytest.raises(ValueError, match=r"^objective: expected one that uses q through its log-density alone"):
        sticking_the_landing()(problem.objective, problem.params, generator=make_generator(2))
    mislabelled = replace(problem.objective, only_log_q=True)
    found = measure(
        sticking_the_landing(), mislabelled, problem.params, num_estimates=4000, generator=make_generator(2)
    )
    exact = problem.gradient()
    assert float(((found.mean["mu"] - exact["mu"]).abs() / found.standard_error["mu"]).max()) > 5.0


@pytest.mark.parametrize("stop_q", [False, True])
def test_antithetic_pairs_cancel_for_a_linear_function(stop_q: bool) -> None:
    objective = expectation(diagonal, lambda z: (z * tensor([1.0, -2.0], [0.5, 3.0])).sum(-1))
    slopes = tensor([1.0, -2.0], [0.5, 3.0])
    estimator = Pathwise(stop_q=stop_q, antithetic=True)
    found = estimator(objective, NORMAL, num_estimates=20, num_samples=4, generator=make_generator(3))
    # Pairs of e and -e: to the last rounding of the sum of four.
    assert_close(found["mu"], slopes.expand(20, 2, 2), atol=1e-15)
    assert float(found["logvar"].abs().max()) < 1e-15
    plain = Pathwise()(objective, NORMAL, num_estimates=20, num_samples=4, generator=make_generator(3))
    assert float(plain["logvar"].std(0).min()) > 0.05


def test_antithetic_scores_cancel_for_an_even_function() -> None:
    """f even around mu and a score in mu that is odd: the pairs cancel in mu."""
    objective = expectation(diagonal, lambda z: ((z - NORMAL["mu"]) ** 2).sum(-1))
    estimator = ScoreFunction(antithetic=True)
    found = estimator(objective, NORMAL, num_estimates=20, num_samples=6, generator=make_generator(4))
    assert float(found["mu"].abs().max()) < 1e-14
    assert float(found["logvar"].std(0).min()) > 0.05


def test_antithetic_bits_are_as_unlike_as_they_can_be() -> None:
    """With a probability of one half the pair is 0 and 1, so the sum of the two never varies."""
    seen: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        seen.append(z)
        return z.sum(-1)

    objective = expectation(lambda p: Bernoulli(p["q"]), f)
    params = {"q": tensor([0.0, 0.0])}
    ScoreFunction(antithetic=True)(
        objective, params, num_estimates=1, num_samples=8, generator=make_generator(5), vectorised=False
    )
    first, second = seen[0].chunk(2)
    assert torch.equal(first + second, torch.ones_like(first))
    assert 0.0 < float(first.mean()) < 1.0


def test_pairs_stay_within_their_estimate() -> None:
    """The noise of each estimate is its own half and its mirror image."""
    seen: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        seen.append(z.detach())
        return z.sum(-1)

    for estimator in (Pathwise(antithetic=True), ScoreFunction(antithetic=True)):
        seen.clear()
        estimator(
            expectation(diagonal, f),
            NORMAL,
            num_estimates=3,
            num_samples=4,
            generator=make_generator(6),
            vectorised=False,
        )
        assert len(seen) == 3
        halves = [z.chunk(2) for z in seen]
        for first, second in halves:
            assert_close(first + second, (2.0 * NORMAL["mu"]).expand(2, 2, 2), atol=1e-14)
        assert not torch.allclose(halves[0][0], halves[1][0])


@pytest.mark.parametrize("name", ["linear Gaussian, diagonal q", "encoder network"])
def test_sgvb_b_and_a_have_the_same_gradient_but_not_the_same_draws(name: str) -> None:
    """A minus B is log q - log p(z) - KL, whose gradient has mean zero and varies."""
    problem = PROBLEMS[name]()
    b = sgvb_b(linear_gaussian_of, problem.objective.family, X4)
    noise = randn(4, 1, 3, 2, seed=135)
    first, second = (Pathwise().at(objective, problem.params, noise) for objective in (problem.objective, b))
    assert any(not torch.allclose(first[key], second[key]) for key in first)
    assert_close(first["weight"], second["weight"])  # the model's parameters are not in the KL


def test_antithetic_pairs_of_noise_in_parts() -> None:
    """Student's t is made of three kinds of noise. A linear f leaves only the slope in the centre."""
    params = {"mu": randn(2, 2, seed=136), "log_scale": 0.3 * randn(2, 2, seed=137), "df": 3.0 + randn(2, 2, seed=138)}
    objective = expectation(lambda p: StudentT(p["mu"], p["log_scale"], p["df"]), lambda z: z.sum(-1))
    found = Pathwise(antithetic=True)(objective, params, num_estimates=3, num_samples=4, generator=make_generator(1))
    assert_close(found["mu"], torch.ones(3, 2, 2).double())
    for name in ("log_scale", "df"):
        assert_close(found[name], torch.zeros(3, 2, 2).double(), atol=1e-12)
