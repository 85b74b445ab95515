"""Constructions that look right and are not: the z-test that every estimator passes turns red on each."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Generator, Tensor

from tests.gradients.problem import Problem, tensor
from tests.gradients.problems import PROBLEMS
from vae_lib.densities import Bernoulli
from vae_lib.gradients import (
    GradientEstimator,
    GumbelSoftmax,
    LeaveOneOut,
    Objective,
    Params,
    ScoreFunction,
    expectation,
    measure,
)
from vae_lib.gradients.contract import Gradients, differentiate
from vae_lib.gradients.score_function import draw
from vae_lib.rng import make_generator

R = 16_000


def worst_z(estimator: GradientEstimator, problem: Problem, num_samples: int, count: int = R) -> float:
    """The largest error in standard errors, over all parameters."""
    found = measure(
        estimator,
        problem.objective,
        problem.params,
        num_estimates=count,
        num_samples=num_samples,
        generator=make_generator(1),
    )
    exact = problem.gradient()
    return max(float(((found.mean[k] - exact[k]).abs() / (found.standard_error[k] + 1e-12)).max()) for k in exact)


class Surrogate(NamedTuple):
    """The score-function estimator written out, with a place for a mistake."""

    weights: Callable[[Tensor], Tensor]

    def __call__(
        self,
        objective: Objective,
        params: Params,
        *,
        num_estimates: int = 1,
        num_samples: int = 1,
        generator: Generator,
        vectorised: bool = True,
    ) -> Gradients:
        def surrogate(at: Params, z: Tensor) -> tuple[Tensor, Tensor]:
            q = objective.family(at)
            f = objective.values(at, q, z)
            return (self.weights(f) * q.log_prob(z) + f).mean(0).sum(), f.detach()

        z = draw(objective, params, num_estimates, num_samples, generator=generator)
        return differentiate(surrogate, params, z, vectorised=vectorised)[0]


def own_mean(f: Tensor) -> Tensor:
    return (f - f.mean(0)).detach()


ELBOS = ["linear Gaussian, diagonal q", "discrete joint", "belief net", "encoder network"]


@pytest.mark.parametrize("name", ELBOS)
def test_the_construction_without_a_mistake(name: str) -> None:
    assert worst_z(Surrogate(lambda f: f.detach()), PROBLEMS[name](), 2) <= 5.0


@pytest.mark.parametrize("name", ELBOS)
def test_a_missing_detach(name: str) -> None:
    """The weights of the score are differentiated as well: log q times the gradient of f is added."""
    assert worst_z(Surrogate(lambda f: f), PROBLEMS[name](), 2) > 5.0


@pytest.mark.parametrize("name", ELBOS)
def test_a_baseline_that_saw_its_sample(name: str) -> None:
    assert worst_z(Surrogate(own_mean), PROBLEMS[name](), 2) > 5.0


def test_a_forgotten_score_of_the_path() -> None:
    """Fixed draws: only the explicit dependence of f is left."""
    assert worst_z(Surrogate(torch.zeros_like), PROBLEMS["linear Gaussian, diagonal q"](), 2) > 5.0


def test_leave_one_out_of_antithetic_pairs_is_refused_for_it_is_biased() -> None:
    problem = PROBLEMS["belief net"]()
    message = "^baseline: expected one other than LeaveOneOut with antithetic draws, found LeaveOneOut$"
    with pytest.raises(ValueError, match=message):
        ScoreFunction(LeaveOneOut(), antithetic=True)(
            problem.objective, problem.params, num_samples=2, generator=make_generator(1)
        )

    class Smuggled:
        """The same baseline under another name."""

        def __call__(self, f: Tensor, objective: Objective) -> Tensor:
            return LeaveOneOut()(f, objective)

        def update(self, f: Tensor, objective: Objective) -> None:
            pass

    assert worst_z(ScoreFunction(Smuggled(), antithetic=True), problem, 2) > 5.0
    assert worst_z(ScoreFunction(Smuggled()), problem, 2) <= 5.0


def test_gumbel_softmax_at_a_finite_temperature() -> None:
    assert worst_z(GumbelSoftmax(1.0), PROBLEMS["belief net"](), 1) > 5.0
    assert worst_z(GumbelSoftmax(1.0), PROBLEMS["categories"](), 1) > 5.0
    assert worst_z(GumbelSoftmax(1.0, straight_through=True), PROBLEMS["belief net"](), 1) > 5.0
    assert worst_z(GumbelSoftmax(1.0, straight_through=True), PROBLEMS["categories"](), 1) > 5.0


def relaxed_slope(logit: float, temperature: float) -> float:
    """d/da E f(s((a + l) / t)) for f = y² and logistic l, by the trapezoid rule: what the relaxation aims at."""
    a = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    noise = torch.linspace(-60.0, 60.0, 60_001, dtype=torch.float64)
    density = torch.sigmoid(noise) * torch.sigmoid(-noise)
    value = (density * torch.sigmoid((a + noise) / temperature) ** 2).sum() * 120.0 / 60_000.0
    return float(torch.autograd.grad(value, a)[0])


@pytest.mark.parametrize("temperature", [2.0, 1.0, 0.5, 0.2])
def test_gumbel_softmax_has_the_gradient_of_the_relaxed_problem(temperature: float) -> None:
    objective = expectation(lambda p: Bernoulli(p["a"]), lambda z: (z**2).sum(-1))
    found = measure(
        GumbelSoftmax(temperature),
        objective,
        {"a": tensor([0.6])},
        num_estimates=100_000,
        generator=make_generator(2),
    )
    value, error = (float(t) for t in found.estimate("a"))
    assert error < 0.002
    assert abs(value - relaxed_slope(0.6, temperature)) <= 5.0 * error


def test_the_bias_of_gumbel_softmax_goes_with_its_temperature() -> None:
    """f = z² of a bit is the bit, with the slope p (1 - p): the bias halves with the temperature, and is measured."""
    exact = float(torch.sigmoid(tensor(-0.6)) * torch.sigmoid(-tensor(-0.6)))
    biases = [relaxed_slope(-0.6, temperature) - exact for temperature in (1.0, 0.5, 0.25, 0.125, 0.0625)]
    assert biases[0] < -0.08
    for larger, smaller in itertools.pairwise(biases):
        assert 0.4 * larger > smaller > 0.6 * larger
    objective = expectation(lambda p: Bernoulli(p["a"]), lambda z: (z**2).sum(-1))
    for temperature, bias in ((1.0, biases[0]), (0.25, biases[2])):
        found = measure(
            GumbelSoftmax(temperature),
            objective,
            {"a": tensor([-0.6])},
            num_estimates=100_000,
            generator=make_generator(3),
        )
        value, error = (float(t) for t in found.estimate("a"))
        assert abs(value - exact) > 5.0 * error
        assert abs(value - exact - bias) <= 5.0 * error
