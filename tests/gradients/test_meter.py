"""The meter: the same numbers in any chunks, error bars that are right, bounded memory, and clear refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from tests.gradients.problem import tensor
from tests.oracles import assert_close, randn
from vae_lib.densities import DiagonalNormal
from vae_lib.gradients import (
    Measurement,
    Objective,
    Params,
    Pathwise,
    ScoreFunction,
    expectation,
    measure,
)
from vae_lib.gradients.contract import Gradients
from vae_lib.gradients.meter import _Moments
from vae_lib.rng import make_generator


class Replay:
    """An estimator that hands out stored estimates, and remembers how many it was asked for."""

    def __init__(self, estimates: dict[str, Tensor]) -> None:
        self.estimates, self.asked = estimates, list[int]()

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
        first = sum(self.asked)
        self.asked.append(num_estimates)
        return {name: values[first : first + num_estimates] for name, values in self.estimates.items()}


def normal(p: Params) -> DiagonalNormal:
    return DiagonalNormal(p["mu"], p["logvar"])


OBJECTIVE = expectation(normal, lambda z: (z**2).sum(-1))
PARAMS = {"mu": tensor([0.5, -1.0]), "logvar": tensor([0.0, 0.3])}


def replayed(estimates: dict[str, Tensor], chunk_size: int | None) -> tuple[Measurement, list[int]]:
    replay = Replay(estimates)
    found = measure(
        replay,
        OBJECTIVE,
        {name: PARAMS["mu"] for name in ("mu", "logvar")},
        num_estimates=next(iter(estimates.values())).shape[0],
        num_samples=3,
        generator=make_generator(0),
        chunk_size=chunk_size,
    )
    return found, replay.asked


SKEWED = {"mu": 3.0 + randn(41, 1, 2, seed=141).exp(), "logvar": -50.0 + randn(41, 1, 2, seed=142)}


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 20, 40, 41, 100, None])
def test_any_chunks_give_the_moments_of_one_pass(chunk_size: int | None) -> None:
    found, asked = replayed(SKEWED, chunk_size)
    assert sum(asked) == 41
    assert max(asked) == min(41, chunk_size or 41)
    for name, values in SKEWED.items():
        assert_close(found.mean[name], values.mean(0))
        assert_close(found.variance[name], values.var(0))
        # scipy's unbiased fourth-order statistic of the variance: Var(s²) = k4 / n + 2 k2² / (n - 1), without its k's.
        fourth = ((values - values.mean(0)) ** 4).mean(0)
        expected = ((fourth - 38.0 / 40.0 * values.var(0) ** 2) / 41.0).sqrt()
        assert_close(found.variance_error[name], expected, rtol=1e-8)
        assert_close(found.standard_error[name], scipy.stats.sem(values.numpy(), axis=0))
        assert_close(found.signal_to_noise[name], values.mean(0).abs() / values.std(0))
        assert_close(found.estimate(name).value, values.mean(0))
        assert_close(found.estimate(name).standard_error, values.std(0) / math.sqrt(41.0))
    assert found.total_variance == pytest.approx(sum(float(v.var(0).sum()) for v in SKEWED.values()), rel=1e-12)
    length = math.sqrt(sum(float((v.mean(0) ** 2).sum()) for v in SKEWED.values()))
    assert found.total_signal_to_noise == pytest.approx(length / math.sqrt(found.total_variance), rel=1e-12)
    assert (found.num_estimates, found.num_samples) == (41, 3)
    assert found.seconds > 0.0
    assert found.seconds_per_sample == pytest.approx(found.seconds / 123.0)


@given(
    st.lists(st.floats(-100.0, 100.0, allow_subnormal=False), min_size=2, max_size=40),
    st.integers(1, 40),
    st.floats(-1e3, 1e3, allow_subnormal=False),
)
def test_moments_of_any_numbers_in_any_chunks(numbers: list[float], size: int, shift: float) -> None:
    values = torch.tensor(numbers, dtype=torch.float64) + shift
    moments = _Moments()
    for chunk in values.split(size):
        moments.add(chunk)
    centred = values - values.mean()
    scale = 1.0 + float(values.abs().max())  # every term is at most (2 scale)^power, with some hundred roundings
    for power, found in ((2, moments.second), (3, moments.third), (4, moments.fourth)):
        assert float((found - (centred**power).sum()).abs()) <= 1e-12 * len(numbers) * (2.0 * scale) ** power
    assert float((moments.mean - values.mean()).abs()) <= 1e-12 * scale


def test_many_estimates_do_not_overflow() -> None:
    """The products of counts in the fourth moment pass 2**63 from some ten thousand estimates on."""
    values = randn(10, seed=143).repeat(30_000)
    moments = _Moments()
    for chunk in values.split(100_000):
        moments.add(chunk)
    assert_close(moments.fourth, ((values - values.mean()) ** 4).sum())
    assert moments.count == 300_000


def test_the_error_of_the_variance_by_repetition() -> None:
    """Over 400 measurements the variances scatter as each one says: that scatter is known to 1 part in √800, 3.5 %."""
    runs = [measure(Pathwise(), OBJECTIVE, PARAMS, num_estimates=1000, generator=make_generator(i)) for i in range(400)]
    for name in PARAMS:
        scatter = torch.stack([run.variance[name] for run in runs]).std(0)
        claimed = torch.stack([run.variance_error[name] for run in runs]).mean(0)
        assert bool(((scatter / claimed - 1.0).abs() < 5.0 / 800**0.5).all())


def test_chunks_of_an_estimator() -> None:
    """The draws of a chunk follow those of the last one: other numbers, the same distribution."""
    runs = [
        measure(Pathwise(), OBJECTIVE, PARAMS, num_estimates=4000, generator=make_generator(1), chunk_size=size)
        for size in (4000, 1000, 37)
    ]
    for run in runs[1:]:
        for name in PARAMS:
            error = (run.standard_error[name] ** 2 + runs[0].standard_error[name] ** 2).sqrt()
            assert bool(((run.mean[name] - runs[0].mean[name]).abs() <= 5.0 * error).all())


@pytest.mark.parametrize("vectorised", [True, False])
def test_single_precision(vectorised: bool) -> None:
    """Gradients in float32, moments in float64: a variance that is far below the mean's rounding survives."""
    params = {name: value.float() for name, value in PARAMS.items()}
    found = measure(
        Pathwise(), OBJECTIVE, params, num_estimates=200, generator=make_generator(1), vectorised=vectorised
    )
    assert all(value.dtype == torch.float64 for value in (*found.mean.values(), *found.variance.values()))
    for name, value in Pathwise()(OBJECTIVE, params, num_estimates=200, generator=make_generator(1)).items():
        assert value.dtype == torch.float32
        assert_close(found.variance[name], value.double().var(0), rtol=1e-5)


def test_no_spread_at_all() -> None:
    constant = {"mu": torch.full((6, 1, 2), 2.0, dtype=torch.float64), "logvar": torch.zeros(6, 1, 2).double()}
    found, _ = replayed(constant, 4)
    assert float(found.variance["mu"].abs().max()) == 0.0
    assert float(found.variance_error["mu"].abs().max()) == 0.0
    assert found.total_signal_to_noise == math.inf
    assert bool(found.signal_to_noise["logvar"].isnan().all())
    nothing, _ = replayed({name: torch.zeros(6, 1, 2).double() for name in constant}, 4)
    assert math.isnan(nothing.total_signal_to_noise)


def test_rounding_makes_no_nan_of_the_error() -> None:
    """Of two equally likely values the square of the error is 3 / n² of the variance's: below rounding from 1e8 on."""
    moments = _Moments()
    moments.count = 10**9
    moments.mean, moments.third = tensor(0.0), tensor(0.0)
    moments.second, moments.fourth = tensor(1e9), tensor(1e9 * (1.0 - 1e-15))
    assert_close(moments.variance_error, tensor(0.0))


def test_two_estimates_are_enough() -> None:
    found, _ = replayed({"mu": tensor([[1.0, 2.0]], [[3.0, 2.0]]), "logvar": torch.zeros(2, 1, 2).double()}, None)
    assert_close(found.variance["mu"], tensor([2.0, 0.0]))
    assert_close(found.standard_error["mu"], tensor([1.0, 0.0]))


@pytest.mark.parametrize("data", [0, 1000])
def test_the_default_chunk_keeps_memory_bounded(data: int) -> None:
    """Gradients, draws and data of a chunk stay within 2**20 numbers, whichever of them is large."""
    x = torch.zeros(data, 10, dtype=torch.float64) if data else None
    sizes: list[int] = []

    class Watch(Replay):
        def __call__(self, objective: Objective, params: Params, **options: Any) -> Gradients:
            sizes.append(options["num_estimates"])
            return {name: torch.zeros(options["num_estimates"], 1).double() for name in params}

    def family(p: Params) -> DiagonalNormal:
        return DiagonalNormal(p["mu"].expand(max(data, 1), 3), p["mu"].expand(max(data, 1), 3))

    objective = Objective(family, lambda _p, _q, z: z.sum(-1), x=x)
    measure(
        Watch({}),
        objective,
        {"mu": tensor(0.0)},
        num_estimates=3_000_000 if not data else 2000,
        num_samples=2,
        generator=make_generator(0),
    )
    each = 1 + 2 * (3 * max(data, 1) + 10 * data)
    assert sizes[0] == 2**20 // each
    assert all(size * each <= 2**20 for size in sizes)
    assert len(sizes) > 1


def test_an_estimate_larger_than_the_bound_is_taken_alone() -> None:
    sizes: list[int] = []

    class Watch(Replay):
        def __call__(self, objective: Objective, params: Params, **options: Any) -> Gradients:
            sizes.append(options["num_estimates"])
            return {"mu": torch.zeros(1, 1).double()}

    params = {"mu": torch.zeros(1, 2**20 + 1)}
    objective = expectation(lambda p: DiagonalNormal(p["mu"], p["mu"]), lambda z: z.sum(-1))
    measure(Watch({}), objective, params, num_estimates=3, generator=make_generator(0))
    assert sizes == [1, 1, 1]


MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "one estimate": ({"num_estimates": 1}, ValueError, "num_estimates: expected at least 2 for a variance, found 1"),
    "no estimates": ({"num_estimates": 0}, ValueError, "num_estimates: expected a positive integer, found 0"),
    "half an estimate": ({"num_estimates": 2.5}, TypeError, "num_estimates: expected a positive integer, found 2.5"),
    "no samples": ({"num_samples": 0}, ValueError, "num_samples: expected a positive integer, found 0"),
    "a word": ({"num_samples": "two"}, TypeError, "num_samples: expected a positive integer, found 'two'"),
    "no chunk": ({"chunk_size": 0}, ValueError, "chunk_size: expected a positive integer, found 0"),
    "no params": ({"params": {}}, ValueError, "params: expected at least one named tensor, found none"),
    "a number": (
        {"params": {"mu": 1.0}},
        TypeError,
        "params['mu']: expected a floating-point tensor, found float",
    ),
    "integers": (
        {"params": {"mu": torch.zeros(1, 2, dtype=torch.int64)}},
        TypeError,
        "params['mu']: expected a floating-point tensor, found torch.int64",
    ),
    "not finite": (
        {"objective": expectation(normal, lambda z: torch.log(-(z**2)).sum(-1))},
        ValueError,
        "gradient of mu: expected finite numbers, found 20 that are not, first nan at (0, 0, 0)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_in_one_line(mistake: str) -> None:
    changes, kind, message = MISTAKES[mistake]
    arguments: dict[str, Any] = {"objective": OBJECTIVE, "params": PARAMS, "num_estimates": 10, **changes}
    run: Callable[..., Any] = measure
    with pytest.raises(kind) as caught:
        run(ScoreFunction(), **arguments, generator=make_generator(0))
    assert str(caught.value) == message
