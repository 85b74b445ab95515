"""Gumbel-softmax: single gradients by hand, the discrete draw inside the smooth one, noise at its edges."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Generator, Tensor

from tests.gradients.functions import categories
from tests.gradients.problem import DOUBLE, Params, tensor
from tests.oracles import assert_close, randn
from vae_lib.densities import Bernoulli, Categorical
from vae_lib.gradients import GumbelSoftmax, Objective, expectation
from vae_lib.rng import make_generator

NOISE = torch.rand(3, 2, 2, 2, generator=make_generator(171), dtype=DOUBLE)
LOGITS = {"a": randn(2, 2, seed=172)}
CUBE = expectation(lambda p: Bernoulli(p["a"]), lambda z: (z**3).sum(-1))


@pytest.mark.parametrize("temperature", [0.3, 1.7])
def test_bits_by_hand(temperature: float) -> None:
    """y = s((a + logit u) / t), so dy³/da = 3 y² y (1 - y) / t."""
    y = torch.sigmoid((LOGITS["a"] + torch.logit(NOISE)) / temperature)
    found = GumbelSoftmax(temperature).at(CUBE, LOGITS, NOISE)
    assert_close(found["a"], (3.0 * y**3 * (1.0 - y) / temperature).mean(1))


@pytest.mark.parametrize("temperature", [0.3, 1.7])
def test_bits_straight_through_by_hand(temperature: float) -> None:
    """The slope of f at the bit, times that of y: 3 where the bit is one, nothing where it is zero."""
    y = torch.sigmoid((LOGITS["a"] + torch.logit(NOISE)) / temperature)
    bit = (NOISE > torch.sigmoid(-LOGITS["a"])).double()
    assert 0.0 < float(bit.mean()) < 1.0
    found = GumbelSoftmax(temperature, straight_through=True).at(CUBE, LOGITS, NOISE)
    assert_close(found["a"], (3.0 * bit**2 * y * (1.0 - y) / temperature).mean(1))


def corners_of(relaxed: list[Tensor]) -> Objective:
    weights = randn(2, 2, 3, seed=173)

    def keep(_params: Params, _q: object, y: Tensor) -> Tensor:
        relaxed.append(y.detach())
        return (weights * y**2).sum((-2, -1))

    return Objective(lambda p: Categorical(p["a"]), lambda _p, _q, z: z.sum(-1), relaxed=keep)


@pytest.mark.parametrize("straight_through", [False, True])
def test_categories_by_hand(straight_through: bool) -> None:
    temperature, seen = 0.6, list[Tensor]()
    params = {"a": randn(2, 2, 3, seed=174)}
    noise = torch.rand(4, 1, 2, 2, 3, generator=make_generator(175), dtype=DOUBLE)
    found = GumbelSoftmax(temperature, straight_through).at(corners_of(seen), params, noise, vectorised=False)
    weights = randn(2, 2, 3, seed=173)
    for r in range(4):
        gumbel = -torch.log(-torch.log(noise[r, 0]))
        y = torch.softmax((params["a"] + gumbel) / temperature, -1)
        at = torch.nn.functional.one_hot((params["a"] + gumbel).argmax(-1), 3).double() if straight_through else y
        assert_close(seen[r][0], at)
        slope = 2.0 * weights * at
        expected = y * (slope - (slope * y).sum(-1, keepdim=True)) / temperature
        assert_close(found["a"][r], expected)


class Watch:
    """A Bernoulli or Categorical objective that keeps the points where it is evaluated."""

    def __init__(self, categorical: bool) -> None:
        self.points: list[Tensor] = []
        self.categorical = categorical

    def objective(self) -> Objective:
        def keep(_params: Params, _q: object, z: Tensor) -> Tensor:
            self.points.append(z.detach())
            return z.flatten(2).sum(-1)

        if self.categorical:
            return Objective(lambda p: Categorical(p["a"]), keep, relaxed=keep)
        return Objective(lambda p: Bernoulli(p["a"]), keep)


def test_straight_through_draws_from_the_density() -> None:
    """The share of ones and of each category is its probability."""
    for categorical, logits in ((False, tensor([0.7, -1.2])), (True, tensor([[0.5, -0.4, 1.0]]))):
        watch = Watch(categorical)
        GumbelSoftmax(0.5, straight_through=True)(
            watch.objective(), {"a": logits}, num_samples=40_000, generator=make_generator(4), vectorised=False
        )
        draws = watch.points[0].flatten(1)
        probs = (torch.softmax(logits, -1) if categorical else torch.sigmoid(logits)).flatten()
        # smooth + (corner - smooth) is the corner up to one rounding
        assert bool(((draws - draws.round()).abs() < 1e-15).all())
        error = (probs * (1.0 - probs) / 40_000) ** 0.5
        assert bool(((draws.mean(0) - probs).abs() <= 5.0 * error).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_at_its_edges_is_finite(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A uniform number may be 0, and comes within one rounding of 1."""
    largest = 1.0 - torch.finfo(dtype).eps / 2.0

    def edges(*shape: int, generator: Generator, dtype: torch.dtype, device: torch.device) -> Tensor:
        numbers = torch.zeros(shape, dtype=dtype)
        numbers.view(-1)[6:] = largest  # so that some categories have all their noise at one edge
        return numbers

    monkeypatch.setattr(torch, "rand", edges)
    bits = GumbelSoftmax(1.0)(CUBE, {"a": LOGITS["a"].to(dtype)}, num_samples=3, generator=make_generator(0))
    assert bool(bits["a"].isfinite().all())
    problem = Objective(lambda p: Categorical(p["a"]), CUBE.integrand, relaxed=lambda _p, _q, y: y.sum((-2, -1)))
    logits = torch.zeros(1, 2, 3, dtype=dtype)  # three samples of two categories of three
    found = GumbelSoftmax(1.0)(problem, {"a": logits}, num_samples=3, generator=make_generator(0))
    assert bool(found["a"].isfinite().all())


def test_a_low_temperature_costs_variance() -> None:
    """For f = z² of a bit: ever larger as the temperature falls."""
    objective = expectation(lambda p: Bernoulli(p["a"]), lambda z: (z**2).sum(-1))
    spread = [
        float(
            GumbelSoftmax(t)(objective, {"a": tensor([0.3])}, num_estimates=20_000, generator=make_generator(5))[
                "a"
            ].var()
        )
        for t in (1.0, 0.3, 0.1, 0.03)
    ]
    assert all(later > 2.0 * earlier for earlier, later in itertools.pairwise(spread))


def test_the_relaxed_integrand_is_the_integrand_on_the_corners() -> None:
    """The problem of the tests keeps the promise that the estimator builds on."""
    objective = categories().objective
    assert objective.relaxed is not None
    z = torch.tensor([[[0.0, 2.0]], [[1.0, 1.0]]], dtype=DOUBLE).expand(-1, 2, -1)
    y = torch.nn.functional.one_hot(z.long(), 3).double()
    q = objective.family(categories().params)
    assert_close(objective.relaxed({}, q, y), objective.integrand({}, q, z))
