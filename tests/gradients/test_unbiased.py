"""Every estimator has the exact gradient as its mean: by z-test, on every problem that it can take.

|error| <= 5 standard errors for every parameter, and the largest standard error below a ceiling that is stated as a
share of the largest exact gradient. Five standard errors are passed by chance once in two million.
"""

from __future__ import annotations

import pytest

from tests.gradients.estimators import CASES, ESTIMATORS
from tests.gradients.problems import PROBLEMS, names
from vae_lib.gradients import (
    measure,
)
from vae_lib.rng import make_generator

R, S = 16_000, 2


@pytest.mark.parametrize(("estimator", "name"), CASES)
def test_the_mean_is_the_exact_gradient(estimator: str, name: str) -> None:
    problem = PROBLEMS[name]()
    _, ceiling, make = ESTIMATORS[estimator]
    exact = problem.gradient()
    found = measure(
        make(problem),
        problem.objective,
        problem.params,
        num_estimates=R,
        num_samples=S,
        generator=make_generator(1, estimator, name),
        chunk_size=R // 8,  # so that what learns between calls has something to learn from
    )
    assert found.mean.keys() == exact.keys()
    largest = max(float(value.abs().max()) for value in exact.values())
    for parameter, value in exact.items():
        error = found.standard_error[parameter]
        assert float(error.max()) <= ceiling * largest
        # The last part is rounding, where an estimate does not vary.
        allowed = 5.0 * error + 1e-12 * largest
        assert bool(((found.mean[parameter] - value).abs() <= allowed).all()), parameter


def test_there_is_something_to_measure() -> None:
    """Every family of problems is there, and no exact gradient vanishes."""
    assert len(names("path")) >= 6
    assert len([name for name in PROBLEMS if "path" not in PROBLEMS[name]().kinds]) >= 6
    for make in PROBLEMS.values():
        assert all(float(value.abs().max()) > 0.01 for value in make().gradient().values())
