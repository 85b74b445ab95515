"""Variances of one draw on paper: met to 1e-10 by quadrature through `at`, and by the meter within its error."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.gradients.rules import hermite, mean_and_variance, one_each, scalar
from tests.oracles import assert_close
from vae_lib.densities import DiagonalNormal
from vae_lib.gradients import (
    Constant,
    GradientEstimator,
    Objective,
    OptimalBaseline,
    Pathwise,
    ScoreFunction,
    expectation,
    measure,
)
from vae_lib.gradients.score_function import score
from vae_lib.rng import make_generator

TARGET = 0.7
DISTANCES = (0.0, 0.5, 1.0, -2.0, 3.0)
ROWS = ("score", "mean", "optimal", "pathwise")


def family(p: dict[str, Tensor]) -> DiagonalNormal:
    return DiagonalNormal(p["mu"], 2.0 * torch.log(p["std"]))


def square() -> Objective:
    return expectation(family, lambda z: ((z - TARGET) ** 2).sum(-1))


def at_distance(d: float) -> dict[str, Tensor]:
    return {"mu": scalar(TARGET + d), "std": scalar(1.0)}


def table(row: str, d: float) -> tuple[float, float]:
    """Var of the gradients in mu and sigma, at sigma = 1."""
    return {
        "score": (d**4 + 14 * d**2 + 15, 2 * d**4 + 60 * d**2 + 74),
        "mean": (8 * d**2 + 10, 40 * d**2 + 56),
        "optimal": (8 * d**2 + 6, 40 * d**2 + 24),
        "pathwise": (4.0, 4 * d**2 + 8),
    }[row]


@pytest.mark.parametrize("d", DISTANCES)
@pytest.mark.parametrize("row", ROWS)
def test_the_table_in_closed_form(row: str, d: float) -> None:
    objective, params = square(), at_distance(d)
    nodes, weights = hermite(20)
    z = one_each(params["mu"] + params["std"] * nodes)
    if row == "pathwise":
        gradients = Pathwise().at(objective, params, one_each(nodes))
    elif row == "optimal":
        constants = OptimalBaseline().constants(objective, params, z, weights)
        assert_close(constants["mu"], scalar(d**2 + 3.0))
        assert_close(constants["std"], scalar(d**2 + 5.0))
        plain, scores = ScoreFunction().at(objective, params, z), score(objective, params, z)
        gradients = {name: plain[name] - constants[name] * scores[name] for name in plain}
    else:
        gradients = ScoreFunction(Constant(d**2 + 1.0) if row == "mean" else None).at(objective, params, z)
    found = mean_and_variance(gradients, weights)
    assert_close(found["mu"][0], scalar(2.0 * d))
    assert_close(found["std"][0], scalar(2.0))
    for name, variance in zip(("mu", "std"), table(row, d), strict=True):
        assert_close(found[name][1], scalar(variance))


@pytest.mark.parametrize("row", ROWS)
def test_the_table_by_the_meter(row: str) -> None:
    d, count = 1.5, 200_000
    estimators: dict[str, GradientEstimator] = {
        "score": ScoreFunction(),
        "mean": ScoreFunction(Constant(d**2 + 1.0)),
        "optimal": OptimalBaseline(20_000),
        "pathwise": Pathwise(),
    }
    found = measure(
        estimators[row], square(), at_distance(d), num_estimates=count, generator=make_generator(1), chunk_size=60_000
    )
    # Constants measured on N draws cost a share of the variance of order 1 / N: far below the error bar.
    for name, variance in zip(("mu", "std"), table(row, d), strict=True):
        error = float(found.variance_error[name])
        assert error < 0.05 * variance
        assert abs(float(found.variance[name]) - variance) <= 5.0 * error
    assert found.total_variance == pytest.approx(sum(table(row, d)), rel=0.05)


def test_samples_divide_the_variance() -> None:
    found = measure(
        ScoreFunction(), square(), at_distance(1.0), num_estimates=50_000, num_samples=5, generator=make_generator(2)
    )
    for name, variance in zip(("mu", "std"), table("score", 1.0), strict=True):
        assert abs(float(found.variance[name]) - variance / 5.0) <= 5.0 * float(found.variance_error[name])


def cosine_variances(k: float) -> dict[str, float]:
    """Var of d/dmu E cos kx at mu = sigma = 1 for three estimators of one draw: six digits by dense quadrature."""
    objective = expectation(family, lambda z: torch.cos(k * z).sum(-1))
    params = {"mu": scalar(1.0), "std": scalar(1.0)}
    nodes, weights = hermite(150)
    z = one_each(1.0 + nodes)
    mean = math.cos(k) * math.exp(-0.5 * k**2)
    gradients = {
        "score": ScoreFunction().at(objective, params, z),
        "mean": ScoreFunction(Constant(mean)).at(objective, params, z),
        "pathwise": Pathwise().at(objective, params, one_each(nodes)),
    }
    found = {name: mean_and_variance(gradient, weights)["mu"] for name, gradient in gradients.items()}
    for average, _ in found.values():
        assert_close(average, scalar(-k * math.sin(k) * math.exp(-0.5 * k**2)))
    return {name: float(variance) for name, (_, variance) in found.items()}


def cosine_on_paper(k: float) -> dict[str, float]:
    """The same by the moments of a normal number: with e = x - 1, E e² cos 2k(1 + e) = (1 - 4k²) cos 2k exp(-2k²)."""
    mean, slope = math.cos(k) * math.exp(-0.5 * k**2), -k * math.sin(k) * math.exp(-0.5 * k**2)
    square_term = 0.5 + 0.5 * (1.0 - 4.0 * k**2) * math.cos(2.0 * k) * math.exp(-2.0 * k**2)
    cross = (1.0 - k**2) * mean
    return {
        "score": square_term - slope**2,
        "mean": square_term - 2.0 * mean * cross + mean**2 - slope**2,
        "pathwise": 0.5 * k**2 * (1.0 - math.cos(2.0 * k) * math.exp(-2.0 * k**2)) - slope**2,
    }


def test_the_mean_baseline_can_hurt() -> None:
    found, paper = cosine_variances(1.0), cosine_on_paper(1.0)
    assert found == pytest.approx(paper, rel=1e-10)
    assert (round(found["score"], 4), round(found["mean"], 4)) == (0.3240, 0.4314)


def test_the_path_can_lose() -> None:
    found, paper = cosine_variances(5.0), cosine_on_paper(5.0)
    assert found == pytest.approx(paper, rel=1e-10)
    assert (round(found["pathwise"], 1), round(found["score"], 1)) == (12.5, 0.5)


def test_the_optimal_constant_is_the_best() -> None:
    """Any other constant has a larger variance; for cos x at mu = sigma = 1 the best is zero, far from the mean."""
    objective = expectation(family, lambda z: torch.cos(z).sum(-1))
    params = {"mu": scalar(1.0), "std": scalar(1.0)}
    nodes, weights = hermite(60)
    z = one_each(1.0 + nodes)
    best = float(OptimalBaseline().constants(objective, params, z, weights)["mu"])
    assert best == pytest.approx(0.0, abs=1e-12)

    def variance(constant: float) -> float:
        gradients = ScoreFunction(Constant(constant)).at(objective, params, z)
        return float(mean_and_variance(gradients, weights)["mu"][1])

    assert variance(best) < min(variance(best - 0.01), variance(best + 0.01))
    assert variance(best + 0.01) - variance(best) == pytest.approx(1e-4, rel=1e-6)  # (c - c*)² Var(score) at sigma = 1


def test_a_parameter_that_q_ignores_has_no_constant() -> None:
    objective = Objective(family, lambda p, _q, z: p["scale"] * (z**2).sum(-1))
    params = {**at_distance(1.0), "scale": torch.tensor(2.0, dtype=torch.float64)}
    nodes, weights = hermite(20)
    constants = OptimalBaseline().constants(objective, params, one_each(1.7 + nodes), weights)
    assert float(constants["scale"]) == 0.0
    assert float(constants["mu"]) > 1.0
