"""One contract: every estimator returns the same shapes, in one call or a loop, and draws from its generator only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from tests.gradients.elbos import X4, encoder_network, linear_gaussian_of
from tests.gradients.estimators import CASES, ESTIMATORS
from tests.gradients.problem import tensor
from tests.gradients.problems import PROBLEMS, names
from tests.oracles import assert_close, randn
from vae_lib.densities import Bernoulli, DiagonalNormal
from vae_lib.gradients import (
    Constant,
    GradientEstimator,
    GumbelSoftmax,
    LeaveOneOut,
    MovingAverage,
    Objective,
    OptimalBaseline,
    Params,
    Pathwise,
    RaoBlackwell,
    ScoreFunction,
    expectation,
    sgvb_a,
)
from vae_lib.gradients.contract import differentiate, regroup
from vae_lib.rng import make_generator

RELAXED = [("gumbel", name) for name in ("belief net", "categories")]


def make(estimator: str, name: str) -> GradientEstimator:
    return GumbelSoftmax(0.7) if estimator == "gumbel" else ESTIMATORS[estimator][2](PROBLEMS[name]())


@pytest.mark.parametrize(("estimator", "name"), CASES + RELAXED)
def test_one_call_is_the_loop(estimator: str, name: str) -> None:
    """To rounding: both sum the same terms, in another order."""
    problem = PROBLEMS[name]()
    runs = [
        make(estimator, name)(
            problem.objective,
            problem.params,
            num_estimates=3,
            num_samples=2,
            generator=make_generator(1),
            vectorised=vectorised,
        )
        for vectorised in (True, False)
    ]
    assert runs[0].keys() == runs[1].keys() == problem.params.keys()
    for key, value in problem.params.items():
        assert runs[0][key].shape == (3, *value.shape)
        assert not runs[0][key].requires_grad
        assert not runs[1][key].requires_grad
        size = 1.0 + float(runs[1][key].abs().max())
        assert_close(runs[0][key], runs[1][key], rtol=1e-9, atol=1e-11 * size)


@pytest.mark.parametrize(("estimator", "name"), CASES + RELAXED)
def test_the_generator_decides_everything(estimator: str, name: str) -> None:
    """That nothing touches the global generators is watched in every test (conftest.py)."""
    problem = PROBLEMS[name]()

    def run(generator: Generator) -> Tensor:
        gradients = make(estimator, name)(
            problem.objective, problem.params, num_estimates=2, num_samples=2, generator=generator
        )
        return torch.cat([value.flatten() for value in gradients.values()])

    generator = make_generator(1)
    first, second = run(generator), run(generator)
    assert torch.equal(run(make_generator(1)), first)
    assert not torch.equal(first, second)
    assert not torch.equal(run(make_generator(2)), first)


@pytest.mark.parametrize("estimator", ["score", "score, antithetic", "score, leave one out", "pathwise, antithetic"])
def test_estimates_are_independent(estimator: str) -> None:
    """The correlation of neighbours, and of the two halves, is zero to within 5 / sqrt(N)."""
    problem = PROBLEMS["cosine"]()
    count = 40_000
    gradients = make(estimator, "cosine")(
        problem.objective, problem.params, num_estimates=count, num_samples=4, generator=make_generator(3)
    )
    for value in gradients.values():
        flat = value.flatten(1).clamp(-5.0, 5.0)  # tails cut, so that a correlation has the error bar it should have
        for lag in (1, count // 2):
            left, right = flat[:-lag] - flat[:-lag].mean(0), flat[lag:] - flat[lag:].mean(0)
            correlation = (left * right).mean(0) / (left.std(0) * right.std(0))
            assert float(correlation.abs().max()) < 5.0 / (count - lag) ** 0.5


def test_an_estimate_is_the_mean_of_its_samples() -> None:
    problem = PROBLEMS["linear Gaussian, diagonal q"]()
    z = problem.objective.family(problem.params).sample(6, generator=make_generator(4))
    together = ScoreFunction().at(problem.objective, problem.params, z.reshape(2, 3, 3, 2))
    alone = ScoreFunction().at(problem.objective, problem.params, z.unsqueeze(1))
    for name, value in together.items():
        assert_close(value, alone[name].reshape(2, 3, *value.shape[1:]).mean(1))


def test_data_are_summed() -> None:
    """A datum's own parameters get the gradient they have alone; shared ones get the sum."""
    problem = PROBLEMS["linear Gaussian, diagonal q"]()
    noise = randn(2, 1, 3, 2, seed=151)
    whole = Pathwise().at(problem.objective, problem.params, noise)
    shared = torch.zeros_like(whole["weight"])
    for b in range(3):
        params = {k: v[[b]] if k in ("mu", "logvar") else v for k, v in problem.params.items()}
        objective = sgvb_a(linear_gaussian_of, problem.objective.family, X4[[b]])
        one = Pathwise().at(objective, params, noise[:, :, [b]])
        assert_close(one["mu"], whole["mu"][:, [b]])
        shared += one["weight"]
    assert_close(shared, whole["weight"])


@settings(max_examples=40)
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["float32", "float64"])
)
def test_any_shape_and_dtype(estimates: int, samples: int, batch: int, length: int, name: str) -> None:
    dtype: torch.dtype = getattr(torch, name)
    params = {
        "mu": torch.linspace(-1.0, 1.0, batch * length, dtype=dtype).reshape(batch, length),
        "logvar": torch.zeros(batch, length, dtype=dtype),
    }

    def terms(_params: Params, _q: object, z: Tensor) -> Tensor:
        return z**3

    def family(p: Params) -> DiagonalNormal:
        return DiagonalNormal(p["mu"], p["logvar"])

    objective = Objective(family, lambda _p, _q, z: (z**3).sum(-1), local_terms=terms)
    estimators: list[GradientEstimator] = [
        ScoreFunction(),
        ScoreFunction(Constant(torch.ones(batch))),
        ScoreFunction(MovingAverage()),
        RaoBlackwell(),
        OptimalBaseline(5),
        Pathwise(),
    ]
    if samples % 2 == 0:
        estimators += [ScoreFunction(antithetic=True), Pathwise(antithetic=True)]
    if samples > 1:
        estimators += [ScoreFunction(LeaveOneOut()), RaoBlackwell(LeaveOneOut())]
    for estimator in estimators:
        found = estimator(objective, params, num_estimates=estimates, num_samples=samples, generator=make_generator(1))
        for value in found.values():
            assert value.shape == (estimates, batch, length)
            assert value.dtype == dtype
            assert bool(value.isfinite().all())
    bits = {"q": params["mu"]}
    relaxed = expectation(lambda p: Bernoulli(p["q"]), lambda z: (z**2).sum(-1))
    found = GumbelSoftmax(0.5)(relaxed, bits, num_estimates=estimates, num_samples=samples, generator=make_generator(1))
    assert (found["q"].shape, found["q"].dtype) == ((estimates, batch, length), dtype)


def test_leaves_of_the_caller_are_left_alone() -> None:
    """Parameters that require gradients are read, not written: no graph, no grad, no change."""
    encoder = encoder_network()
    params = {name: value.clone().requires_grad_() for name, value in encoder.params.items()}
    for vectorised in (True, False):
        for estimator in (ScoreFunction(), Pathwise(), OptimalBaseline(5)):
            with torch.no_grad():  # a caller that has switched gradients off gets them all the same
                found = estimator(encoder.objective, params, generator=make_generator(1), vectorised=vectorised)
            assert all(bool(value.any()) for name, value in found.items() if "encoder" in name)
    for name, value in params.items():
        assert value.grad is None
        assert torch.equal(value, encoder.params[name])


def test_regroup_splits_the_first_axis_of_every_part() -> None:
    noise = torch.arange(12.0).reshape(6, 2)
    nested = regroup((noise, (noise + 100.0,)), 3)
    assert torch.equal(nested[0], noise.reshape(3, 2, 2))
    assert torch.equal(nested[1][0], noise.reshape(3, 2, 2) + 100.0)


@pytest.mark.parametrize("vectorised", [True, False])
def test_nested_noise(vectorised: bool) -> None:
    a, b = randn(3, 2, seed=152), randn(3, 2, seed=153)

    def surrogate(at: Params, draws: Any) -> tuple[Tensor, Tensor]:
        (first,), second = draws
        return (at["p"] * first * second).sum(), second

    found, kept = differentiate(surrogate, {"p": tensor(1.0, 2.0)}, ((a,), b), vectorised=vectorised)
    assert_close(found["p"], a * b)
    assert_close(kept, b)


@pytest.mark.parametrize("vectorised", [True, False])
def test_a_parameter_that_nothing_depends_on_has_gradient_zero(vectorised: bool) -> None:
    objective = expectation(lambda p: DiagonalNormal(p["mu"], torch.zeros_like(p["mu"])), lambda z: z.sum(-1))
    params = {"mu": tensor([0.5]), "idle": tensor(1.0)}
    for estimator in (ScoreFunction(), Pathwise()):
        found = estimator(objective, params, num_estimates=3, generator=make_generator(1), vectorised=vectorised)
        assert torch.equal(found["idle"], torch.zeros(3, 1, dtype=torch.float64))
    nothing = Objective(objective.family, lambda _p, _q, z: torch.ones_like(z[..., 0]))
    found = Pathwise()(nothing, params, num_estimates=3, generator=make_generator(1), vectorised=vectorised)
    assert torch.equal(found["mu"], torch.zeros(3, 1, 1, dtype=torch.float64))


def test_the_lists_are_not_empty() -> None:
    assert len(CASES) > 100
    assert names("path", "mirror")


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_no_graph_is_made_outside(vectorised: bool, requires_grad: bool) -> None:
    """Gradients carry no gradient, and whether the caller's parameters do is left as it was."""
    params = {"mu": tensor([0.5]).requires_grad_(requires_grad), "logvar": tensor([0.1]).requires_grad_(requires_grad)}
    objective = expectation(lambda p: DiagonalNormal(p["mu"], p["logvar"]), lambda z: (z**2).sum(-1))
    for estimator in (ScoreFunction(), Pathwise()):
        found = estimator(objective, params, num_estimates=3, generator=make_generator(1), vectorised=vectorised)
        assert not any(value.requires_grad for value in found.values())
        assert all(value.requires_grad == requires_grad for value in params.values())
