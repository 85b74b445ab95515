"""The parts of a transition: leapfrog steps that can be run backwards, what is counted, rejected, tuned and refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.mcmc.targets import DOUBLE
from tests.oracles import assert_close, randn
from vae_lib.mcmc import _at, _leapfrog, hmc, tuned_hmc
from vae_lib.rng import make_generator

STEP = torch.tensor([0.1], dtype=DOUBLE)


def quartic(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(-1) - 0.1 * (z**4).sum(-1) - 0.3 * z.prod(-1)


def standard(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(-1)


def energy(log_density: Tensor, momentum: Tensor) -> Tensor:
    return 0.5 * momentum.square().sum(-1) - log_density


def test_a_trajectory_runs_backwards() -> None:
    start, momentum = _at(quartic, randn(5, 3, 2, seed=1)), randn(5, 3, 2, seed=2)
    end, end_momentum = _leapfrog(quartic, start, momentum, STEP, 7)
    assert float((end.z - start.z).abs().mean()) > 0.1
    back, back_momentum = _leapfrog(quartic, end, -end_momentum, STEP, 7)
    assert_close(back.z, start.z)
    assert_close(back_momentum, -momentum)


def test_a_trajectory_keeps_volumes() -> None:
    """The determinant of (z, p) -> (z', p') is one, by central differences: errors near 1e-5² and 1e-16 / 1e-5."""
    h, place = 1e-5, torch.cat([randn(2, seed=3), randn(2, seed=4)])

    def image(point: Tensor) -> Tensor:
        end, momentum = _leapfrog(quartic, _at(quartic, point[None, None, :2]), point[None, None, 2:], 4.0 * STEP, 3)
        return torch.cat([end.z, momentum], -1)[0, 0]

    columns = [(image(place + h * unit) - image(place - h * unit)) / (2.0 * h) for unit in torch.eye(4, dtype=DOUBLE)]
    assert float(torch.linalg.det(torch.stack(columns, 1))) == pytest.approx(1.0, abs=1e-8)


def test_the_energy_error_falls_with_the_square_of_the_step() -> None:
    """Over one unit of time it is c eps² + O(eps⁴): halving the step adds O(eps²) to the slope, and not more."""
    start, momentum = _at(quartic, randn(50, 3, 2, seed=5)), randn(50, 3, 2, seed=6)
    errors = []
    for count in (10, 20, 40, 80):
        end, end_momentum = _leapfrog(quartic, start, momentum, torch.full((1,), 1.0 / count, dtype=DOUBLE), count)
        error = energy(end.log_density, end_momentum) - energy(start.log_density, momentum)
        errors.append(float(error.square().mean().sqrt()))
    slopes = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert abs(slopes[0] - 2.0) < 0.1
    for coarse, fine in itertools.pairwise(slopes):
        assert abs(fine - 2.0) < 0.5 * abs(coarse - 2.0)


def test_the_probability_of_acceptance_is_that_of_the_energies() -> None:
    """With one step on N(0, 1): the momentum is the generator's first draw, and the rest is by hand."""
    z, eps = randn(4, 3, 1, seed=7), 1.5
    result = hmc(standard, z, step_size=eps, num_leapfrog=1, generator=make_generator(8))
    p = torch.randn(z.shape, generator=make_generator(8), dtype=DOUBLE)
    half = p - 0.5 * eps * z
    end = z + eps * half
    end_p = half - 0.5 * eps * end
    expected = (energy(standard(z), p) - energy(standard(end), end_p)).exp().clamp(max=1.0)
    assert_close(result.acceptance, expected)
    assert 0.0 < float(expected.min()) < 1.0
    moved = (result.z - end).abs() < 1e-12
    assert bool((moved | (result.z == z)).all())
    assert moved.any()


def test_what_comes_back_belongs_together_and_carries_no_gradient() -> None:
    weight = torch.nn.Parameter(torch.ones(2, dtype=DOUBLE))
    start = randn(5, 3, 2, seed=9).requires_grad_()

    def log_density(z: Tensor) -> Tensor:
        return quartic(z * weight)

    with torch.no_grad():
        result = hmc(log_density, start, step_size=0.8, num_transitions=4, generator=make_generator(10))
    assert_close(result.log_density, log_density(result.z).detach())
    assert result.z.shape == (5, 3, 2)
    assert result.acceptance.shape == result.log_density.shape == (5, 3)
    assert not any(part.requires_grad for part in result)
    assert weight.grad is None
    assert start.grad is None


def test_one_gradient_a_leapfrog_step_and_one_to_begin() -> None:
    calls = 0

    def counting(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return quartic(z)

    hmc(counting, randn(2, 3, 2), step_size=0.1, num_leapfrog=7, num_transitions=5, generator=make_generator(1))
    assert calls == 7 * 5 + 1


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_a_long_call_is_two_short_ones(jitter: float) -> None:
    """What is kept from one transition to the next, value and gradient, is that of the place after the test."""
    options: dict[str, Any] = {"step_size": 0.9, "num_leapfrog": 3, "jitter": jitter}
    start, generator = randn(6, 3, 2, seed=11), make_generator(12)
    first = hmc(quartic, start, **options, num_transitions=2, generator=generator)
    second = hmc(quartic, first.z, **options, num_transitions=3, generator=generator)
    whole = hmc(quartic, start, **options, num_transitions=5, generator=make_generator(12))
    assert torch.equal(whole.z, second.z)
    assert_close(whole.acceptance, (2.0 * first.acceptance + 3.0 * second.acceptance) / 5.0)
    other = hmc(quartic, start, **options, num_transitions=5, generator=make_generator(13))
    assert bool((whole.z != other.z).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_size_for_each_datum_or_chain(dtype: torch.dtype) -> None:
    start = randn(4, 3, 2, seed=14, dtype=dtype)
    size = torch.tensor([0.1, 1e-6, 0.2], dtype=dtype)
    moved = (hmc(quartic, start, step_size=size, generator=make_generator(1)).z - start).abs().amax(-1)
    assert moved.dtype == dtype
    assert bool((moved[:, 1] < 1e-4).all())
    assert bool((moved[:, [0, 2]] > 1e-3).all())
    size = torch.full((4, 3), 1e-6, dtype=dtype)
    size[2, 1] = 0.1
    moved = (hmc(quartic, start, step_size=size, generator=make_generator(1)).z - start).abs().amax(-1)
    assert (moved > 1e-3).nonzero().tolist() == [[2, 1]]
    # The same number said in four ways.
    ways = (0.125, torch.tensor(0.125), torch.full((3,), 0.125), torch.full((4, 3), 0.125))
    results = [
        hmc(quartic, start, step_size=way.to(dtype) if isinstance(way, Tensor) else way, generator=make_generator(2)).z
        for way in ways
    ]
    assert all(torch.equal(result, results[0]) for result in results)


def test_trajectories_that_go_astray_are_rejected() -> None:
    """Beyond 2 the log-density is NaN, beyond 3 it is plus infinity; steps of this size often end there."""

    def log_density(z: Tensor) -> Tensor:
        size = z.abs().squeeze(-1)
        return torch.where(size > 3.0, math.inf, torch.where(size > 2.0, math.nan, -0.5 * size**2))

    start = torch.zeros(500, 2, 1, dtype=DOUBLE)
    result = hmc(log_density, start, step_size=1.2, num_leapfrog=3, num_transitions=10, generator=make_generator(3))
    assert float(result.z.abs().max()) <= 2.0
    assert bool(result.log_density.isfinite().all())
    assert float(result.acceptance.min()) >= 0.0
    assert 0.1 < float(result.acceptance.mean()) < 0.9
    # Numbers that overflow on the way are such trajectories too.
    far = hmc(lambda z: -(z**4).sum(-1), 100.0 + start, step_size=1.0, generator=make_generator(4))
    assert torch.equal(far.z, 100.0 + start)
    assert float(far.acceptance.max()) == 0.0


def test_a_chain_that_starts_nowhere_says_so() -> None:
    start = torch.zeros(2, 1, 1, dtype=DOUBLE)
    start[1] = math.nan
    result = hmc(standard, start, step_size=0.1, num_transitions=3, generator=make_generator(5))
    assert result.acceptance[1].tolist() == [0.0]
    assert bool(result.log_density[1].isnan().all())
    assert float(result.acceptance[0]) > 0.9


@pytest.mark.parametrize(("target", "first"), [(0.6, 0.1), (0.8, 0.1), (0.9, 1e-3), (0.9, 30.0)])
def test_the_step_size_is_tuned_to_the_target(target: float, first: float) -> None:
    """A tenth more is too much and a tenth less is too little, from whichever side it began."""
    # Jitter, because on a normal the rate rises again where a trajectory comes near a period.
    options: dict[str, Any] = {"num_leapfrog": 3, "jitter": 0.3}
    start = torch.zeros(1000, 3, 2, dtype=DOUBLE)
    result, step_size = tuned_hmc(
        quartic,
        start,
        **options,
        num_warmup=100,
        num_transitions=3,
        target=target,
        step_size=first,
        generator=make_generator(6),
    )
    assert step_size.shape == ()
    rates = [
        float(hmc(quartic, result.z, **options, step_size=step_size * f, generator=make_generator(7)).acceptance.mean())
        for f in (0.9, 1.1)
    ]
    assert rates[1] < target < rates[0]


def test_a_step_size_tuned_for_each_datum() -> None:
    """Two normals of widths 1 and 0.1 want steps whose ratio is 10, whatever the target."""
    width = torch.tensor([1.0, 0.1], dtype=DOUBLE)

    def log_density(z: Tensor) -> Tensor:
        return -0.5 * (z.squeeze(-1) / width) ** 2

    start = torch.zeros(2000, 2, 1, dtype=DOUBLE)
    options: dict[str, Any] = {"num_warmup": 100, "num_leapfrog": 3, "generator": make_generator(8)}
    result, step_size = tuned_hmc(log_density, start, per_datum=True, **options)
    assert step_size.shape == (2,)
    assert float(step_size[0] / step_size[1]) == pytest.approx(10.0, rel=0.1)
    assert float(result.acceptance.mean(0).min()) > 0.85
    # One for all serves the narrow one alone as far as the mean of both rates allows.
    _, shared = tuned_hmc(log_density, start, **options)
    assert float(step_size[1]) < float(shared) < float(step_size[0])


def test_after_the_warm_up_the_step_size_is_fixed() -> None:
    """The generator is at the same place after a warm-up alone, so both end in the same draws."""
    start = randn(20, 3, 2, seed=15)
    generator = make_generator(9)
    warm, step_size = tuned_hmc(quartic, start, num_warmup=20, num_transitions=1, generator=generator)
    after = hmc(quartic, warm.z, step_size=step_size, num_transitions=4, generator=generator)
    whole, same = tuned_hmc(quartic, start, num_warmup=20, num_transitions=5, generator=make_generator(9))
    assert torch.equal(step_size, same)
    assert torch.equal(whole.z, after.z)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z": torch.zeros(3, 2)}, ValueError, r"z: expected shape \(S, B, L\), found \(3, 2\)"),
        ({"z": torch.zeros(3, 2, 1).int()}, TypeError, r"z: expected floating-point numbers, found torch\.int32"),
        ({"step_size": 0.0}, ValueError, r"step_size: expected a positive number, found 0\.0"),
        ({"step_size": math.nan}, ValueError, r"step_size: expected a positive number, found nan"),
        ({"step_size": "long"}, ValueError, r"step_size: expected a positive number, found 'long'"),
        (
            {"step_size": torch.ones(4)},
            ValueError,
            r"step_size: expected shape \(\), \(B,\) = \(2,\) or \(S, B\) = \(3, 2\), found \(4,\)",
        ),
        (
            {"step_size": torch.ones(2, dtype=DOUBLE)},
            TypeError,
            r"step_size: expected torch\.float32 as the tensors it meets have, found torch\.float64",
        ),
        ({"num_leapfrog": 0}, ValueError, r"num_leapfrog: expected a positive integer, found 0"),
        ({"num_transitions": 1.0}, TypeError, r"num_transitions: expected a positive integer, found 1\.0"),
        ({"jitter": 1.0}, ValueError, r"jitter: expected a number from 0 to below 1, found 1\.0"),
        (
            {"log_density": lambda z: -z.square().sum()},
            ValueError,
            r"log_density\(z\): expected shape \(3, 2\), found \(\)",
        ),
        (
            {"log_density": lambda z: -z.detach().square().sum(-1)},
            TypeError,
            r"log_density: expected a differentiable function of z, found values without a gradient",
        ),
    ],
)
def test_mistakes_get_one_line(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"log_density": standard, "z": torch.zeros(3, 2, 1), "step_size": 0.1} | change
    density, z = arguments.pop("log_density"), arguments.pop("z")
    for call in (hmc, lambda *given, **options: tuned_hmc(*given, num_warmup=2, **options)):
        with pytest.raises(error, match=f"^{message}$"):
            call(density, z, generator=make_generator(1), **arguments)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_warmup": 0}, ValueError, r"num_warmup: expected a positive integer, found 0"),
        ({"target": 1.0}, ValueError, r"target: expected a number between 0 and 1, found 1\.0"),
        (
            {"z": torch.full((1, 1, 1), math.nan)},
            ValueError,
            r"log_density\(z\): expected finite numbers, found 1 that are not, first nan at \(0, 0\)",
        ),
    ],
)
def test_mistakes_in_tuning_get_one_line(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"z": torch.zeros(3, 2, 1), "num_warmup": 2} | change
    with pytest.raises(error, match=f"^{message}$"):
        tuned_hmc(standard, arguments.pop("z"), generator=make_generator(1), **arguments)
