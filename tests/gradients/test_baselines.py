"""What each baseline says and learns, and that estimators ask before they tell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.gradients.functions import cosine, quadratic
from tests.gradients.problem import DOUBLE, tensor
from tests.oracles import assert_close, randn
from vae_lib.densities import Bernoulli
from vae_lib.gradients import (
    Constant,
    Learned,
    LeaveOneOut,
    MovingAverage,
    Objective,
    OptimalBaseline,
    Pathwise,
    RaoBlackwell,
    ScoreFunction,
    expectation,
    measure,
)
from vae_lib.gradients.score_function import score
from vae_lib.rng import make_generator

F = randn(4, 3, seed=161)
OBJECTIVE = cosine().objective


def test_leave_one_out_by_a_loop() -> None:
    found = LeaveOneOut()(F, OBJECTIVE)
    for s in range(4):
        assert_close(found[s], F[[t for t in range(4) if t != s]].mean(0))


def test_a_constant_of_any_kind() -> None:
    assert_close(Constant(2.5)(F, OBJECTIVE), 2.5)
    assert_close(Constant(tensor(1.0, 2.0, 3.0))(F, OBJECTIVE), tensor(1.0, 2.0, 3.0))
    single = Constant(tensor(1.0, 2.0, 3.0))(F.float(), OBJECTIVE)
    assert single.dtype == torch.float32


def test_a_moving_average_by_hand() -> None:
    average = MovingAverage(0.9)
    assert_close(average(F, OBJECTIVE), 0.0)
    average.update(torch.full((2, 3, 1), 4.0, dtype=DOUBLE), OBJECTIVE)
    assert_close(average(F, OBJECTIVE), 4.0)
    average.update(torch.full((2, 3, 1), 14.0, dtype=DOUBLE), OBJECTIVE)
    assert_close(average(F, OBJECTIVE), 0.9 * 4.0 + 0.1 * 14.0)
    assert_close(average(F, OBJECTIVE), 5.0)  # asking changes nothing


def linear(seed: int) -> nn.Linear:
    network = nn.utils.skip_init(nn.Linear, 2, 1, dtype=DOUBLE)
    with torch.no_grad():
        network.weight.copy_(randn(1, 2, seed=seed))
        network.bias.zero_()
    return network


def test_a_learned_baseline_finds_the_mean_of_each_datum() -> None:
    """Three data, three unknowns: least squares of noisy values ends at their means."""
    x = tensor([1.0, 0.0], [0.0, 1.0], [0.0, 0.0])
    objective = Objective(OBJECTIVE.family, OBJECTIVE.integrand, x=x)
    baseline = Learned(linear(162), learning_rate=0.05)
    means = tensor(3.0, -1.0, 2.0)
    first = baseline(F, objective)
    assert first.shape == (3,)
    assert not first.requires_grad
    for step in range(1500):
        baseline.update(means + 0.1 * randn(2, 4, 3, seed=1000 + step), objective)
    # Adam with a constant step keeps wandering by about its step times the relative noise of the gradient.
    assert float((baseline(F, objective) - means).abs().max()) < 0.05


def test_one_step_of_a_learned_baseline_is_adams() -> None:
    x = tensor([1.0, 0.5], [-0.3, 1.0])
    objective = Objective(OBJECTIVE.family, OBJECTIVE.integrand, x=x)
    network, twin = linear(163), linear(163)
    baseline = Learned(network, learning_rate=0.1)
    optimiser = torch.optim.Adam(twin.parameters(), lr=0.1)
    values = randn(3, 2, 2, seed=164)
    with torch.no_grad():  # a caller may have switched gradients off
        baseline.update(values, objective)
        baseline.update(values, objective)
    for _ in range(2):
        optimiser.zero_grad()
        ((values - twin(x).squeeze(-1)) ** 2).mean().backward()
        optimiser.step()
    assert_close(network.weight.detach(), twin.weight.detach())
    assert_close(network.bias.detach(), twin.bias.detach())


class Diary:
    """A baseline that notes what happens to it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[int, ...]]] = []
        self.told: list[Tensor] = []

    def __call__(self, f: Tensor, objective: Objective) -> Tensor:
        self.events.append(("asked", tuple(f.shape)))
        return torch.zeros_like(f)

    def update(self, f: Tensor, objective: Objective) -> None:
        self.events.append(("told", tuple(f.shape)))
        self.told.append(f)


@pytest.mark.parametrize("vectorised", [True, False])
def test_asked_before_told(vectorised: bool) -> None:
    """All values of a call are told once, after every gradient was taken."""
    problem = quadratic()
    for of, asked in ((ScoreFunction, 1), (RaoBlackwell, 3)):
        diary = Diary()
        of(diary)(
            problem.objective,
            problem.params,
            num_estimates=3,
            num_samples=4,
            generator=make_generator(1),
            vectorised=vectorised,
        )
        calls = asked * (1 if vectorised else 3)
        assert diary.events == [("asked", (4, 2))] * calls + [("told", (3, 4, 2))]
        assert not diary.told[0].requires_grad
        z = problem.objective.family(problem.params).sample(12, generator=make_generator(1))
        values = problem.objective.integrand(problem.params, problem.objective.family(problem.params), z)
        assert_close(diary.told[0], values.reshape(3, 4, 2))


@pytest.mark.parametrize("baseline", [Constant(tensor(1.5, -0.5)), LeaveOneOut()])
def test_what_is_subtracted(baseline: Constant | LeaveOneOut) -> None:
    """The gradient by hand: the mean over samples of (f - b) times the score."""
    problem = cosine()
    z = randn(5, 4, 2, 1, seed=165)
    found = ScoreFunction(baseline).at(problem.objective, problem.params, z)
    f = torch.cos(2.0 * z).squeeze(-1)
    for r in range(5):
        weight = (f[r] - baseline(f[r], problem.objective)).unsqueeze(-1)
        deviation = z[r] - problem.params["mu"]
        variance = problem.params["logvar"].exp()
        assert_close(found["mu"][r], (weight * deviation / variance).mean(0))
        assert_close(found["logvar"][r], (weight * 0.5 * (deviation**2 / variance - 1.0)).mean(0))


@pytest.mark.parametrize("baseline", [Constant(tensor(1.5, -0.5)), LeaveOneOut()])
def test_what_is_subtracted_from_each_coordinate(baseline: Constant | LeaveOneOut) -> None:
    """By hand: each coordinate's terms, less the baseline of those terms, times that coordinate's score."""
    problem = quadratic()
    assert problem.objective.local_terms is not None
    z = randn(3, 4, 2, 3, seed=166)
    found = RaoBlackwell(baseline).at(problem.objective, problem.params, z)
    q = problem.objective.family(problem.params)
    for r in range(3):
        terms = problem.objective.local_terms(problem.params, q, z[r])
        for i in range(3):
            weight = terms[..., i] - baseline(terms[..., i], problem.objective)
            score = (z[r] - problem.params["mu"]) / problem.params["logvar"].exp()
            assert_close(found["mu"][r][:, i], (weight * score[..., i]).mean(0))


def test_the_score_by_hand() -> None:
    """The slope of log q, averaged over samples; of data that share a parameter, summed."""
    problem = quadratic()
    z = randn(5, 4, 2, 3, seed=167)
    found = score(problem.objective, problem.params, z)
    deviation, variance = z - problem.params["mu"], problem.params["logvar"].exp()
    assert_close(found["mu"], (deviation / variance).mean(1))
    assert_close(found["logvar"], (0.5 * (deviation**2 / variance - 1.0)).mean(1))


def test_the_optimal_constant_is_subtracted_at_any_number_of_samples() -> None:
    """The variance of S samples is that of one over S."""
    problem = cosine()  # bounded, so that a variance has a small error bar
    one, four = (
        measure(
            OptimalBaseline(5000),
            problem.objective,
            problem.params,
            num_estimates=10_000,
            num_samples=samples,
            generator=make_generator(5),
            chunk_size=10_000,
        )
        for samples in (1, 4)
    )
    for name in problem.params:
        error = (one.variance_error[name] ** 2 + (4.0 * four.variance_error[name]) ** 2).sqrt()
        assert bool(((one.variance[name] - 4.0 * four.variance[name]).abs() <= 5.0 * error).all())
        assert float((error / one.variance[name]).max()) < 0.1


def test_the_optimal_constants_leave_the_least_variance() -> None:
    problem = quadratic()
    runs = {
        name: measure(estimator, problem.objective, problem.params, num_estimates=20_000, generator=make_generator(2))
        for name, estimator in (
            ("none", ScoreFunction()),
            ("mean", ScoreFunction(Constant(problem.mean()))),
            ("optimal", OptimalBaseline(5000)),
            ("terms", RaoBlackwell()),
            ("path", Pathwise()),
        )
    }
    variances = {name: run.total_variance for name, run in runs.items()}
    assert variances["path"] < variances["optimal"] < variances["mean"] < variances["none"]
    assert variances["path"] < variances["terms"] < variances["none"]


def test_pilot_draws_are_not_those_of_the_estimate() -> None:
    """Constants measured on the three draws they are subtracted from would bias the gradient: here they are not."""
    objective = expectation(lambda p: Bernoulli(p["q"]), lambda z: 2.0 + z.sum(-1))
    params = {"q": tensor([0.4])}
    found = measure(
        OptimalBaseline(3),
        objective,
        params,
        num_estimates=800,
        num_samples=3,
        generator=make_generator(3),
        chunk_size=1,
    )
    ones = torch.sigmoid(params["q"])
    assert float(found.standard_error["q"]) < 0.05
    assert bool(((found.mean["q"] - ones * (1.0 - ones)).abs() <= 5.0 * found.standard_error["q"]).all())


def test_constants_want_one_draw_an_estimate() -> None:
    problem = cosine()
    with pytest.raises(ValueError, match=r"^z: expected shape \(R, 1, B, L\), found \(5, 2, 2, 1\)$"):
        OptimalBaseline().constants(problem.objective, problem.params, randn(5, 2, 2, 1))
