"""The gaps of amortised inference, and the ascent that finds the best q."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import optimize
from torch import Tensor

from tests.oracles import assert_close, curve, model_case, randn
from vae_lib.densities import DiagonalNormal
from vae_lib.exact import NonlinearDecoder
from vae_lib.learning import inference_gap, linear_gaussian_em, maximise

DOUBLE = torch.float64


def test_the_gaps_are_the_two_differences() -> None:
    log_p_x, best, amortised = randn(4, seed=1), randn(4, seed=1) - 0.5, randn(4, seed=1) - 0.75
    gap = inference_gap(log_p_x, best, amortised)
    assert_close(gap.approximation, torch.full((4,), 0.5).double())
    assert_close(gap.amortisation, torch.full((4,), 0.25).double())


def test_gradients_pass() -> None:
    amortised = torch.zeros(3, dtype=DOUBLE, requires_grad=True)
    gap = inference_gap(torch.full((3,), 2.0).double(), torch.ones(3).double(), amortised)
    (slope,) = torch.autograd.grad(gap.amortisation.sum(), amortised)
    assert_close(slope, -torch.ones(3).double())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((1.0, 1.1, 0.0), r"^log_p_x - best: expected no negative gap, found -0\.1 nats$"),
        ((1.0, 0.5, 0.6), r"^best - amortised: expected no negative gap, found -0\.1 nats$"),
        ((1.0, 0.5, math.nan), r"^best - amortised: expected no negative gap, found nan nats$"),
    ],
)
def test_numbers_out_of_order_are_refused(numbers: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inference_gap(*(torch.tensor([0.5 + number, number]).double() for number in numbers))


def test_rounding_is_forgiven() -> None:
    gap = inference_gap(torch.tensor([1.0]), torch.tensor([1.0 + 1e-6]), torch.tensor([1.0]))
    assert float(gap.approximation) < 0.0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"^best: expected shape \(3,\), found \(1,\)$"):
        inference_gap(torch.ones(3), torch.ones(1), torch.ones(3))


def test_maximise_solves_each_datum_by_itself() -> None:
    case = model_case("LinearGaussian")
    zeros = torch.zeros(3, 2).double()
    found = maximise(
        lambda p: case.model.elbo(case.x, DiagonalNormal(p["mu"], p["logvar"])), {"mu": zeros, "logvar": zeros}
    )
    best = linear_gaussian_em.mean_field(case.model, case.x)
    torch.testing.assert_close(found["mu"], best.mu, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["logvar"], best.logvar, rtol=1e-6, atol=1e-6)
    assert not found["mu"].requires_grad
    assert bool((zeros == 0.0).all())  # the start is left as it was


def test_maximise_agrees_with_scipy_on_a_bent_decoder() -> None:
    model, x = NonlinearDecoder(curve, torch.tensor(-1.0, dtype=DOUBLE), 2), torch.tensor([[0.3, 0.5]], dtype=DOUBLE)

    def bound(mu: Tensor, logvar: Tensor) -> Tensor:
        return model.elbo(x, DiagonalNormal(mu.reshape(1, 1), logvar.reshape(1, 1)))

    start = {"mu": torch.tensor(0.2).double(), "logvar": torch.tensor(-1.0).double()}
    found = maximise(lambda p: bound(p["mu"], p["logvar"]), start)
    foreign = optimize.minimize(
        lambda free: -float(bound(torch.tensor(free[0]), torch.tensor(free[1]))),
        [0.2, -1.0],
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-13},
    )
    assert float(bound(found["mu"], found["logvar"])) == pytest.approx(-foreign.fun, abs=1e-10)
    assert float(found["mu"]) == pytest.approx(foreign.x[0], abs=1e-5)


def test_an_ascent_that_did_not_arrive_is_refused() -> None:
    def valley(p: dict[str, Tensor]) -> Tensor:
        a, b = p["z"]
        return -((1.0 - a) ** 2) - 100.0 * (b - a * a) ** 2

    start = {"z": torch.tensor([-1.2, 1.0]).double()}
    with pytest.raises(ArithmeticError, match=r"^maximise: expected a slope of at most 1e-05, found .*; take more"):
        maximise(valley, start, max_steps=3)  # type: ignore[arg-type]
    found = maximise(valley, start)  # type: ignore[arg-type]
    assert_close(found["z"], torch.ones(2).double(), rtol=1e-6)


def test_a_bound_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ArithmeticError, match=r"^maximise: expected a bound that is a number .*, found nan$"):
        maximise(lambda p: p["a"].log(), {"a": torch.tensor(-1.0).double()})


def test_max_steps_is_a_positive_integer() -> None:
    with pytest.raises(ValueError, match=r"^max_steps: expected a positive integer, found 0$"):
        maximise(lambda p: -(p["a"] ** 2), {"a": torch.ones(1)}, max_steps=0)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3, 1), (3, 1), (3, 1)), r"^log_p_x: expected shape \(B,\), found \(3, 1\)$"),
        (((3,), (3,), (1,)), r"^amortised: expected shape \(3,\), found \(1,\)$"),
    ],
)
def test_each_shape_is_checked(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inference_gap(*(torch.ones(shape) for shape in shapes))


def test_one_datum_out_of_order_is_enough() -> None:
    log_p_x, best = torch.tensor([1.0, 1.0, 1.0]).double(), torch.tensor([0.0, 1.1, 0.0]).double()
    with pytest.raises(ValueError, match=r"^log_p_x - best: expected no negative gap, found -0\.1 nats$"):
        inference_gap(log_p_x, best, best)


@pytest.mark.parametrize("size", [0.0, 1e4, -1e4])
def test_what_is_forgiven_grows_with_the_evidence(size: float) -> None:
    """A thousand roundings of a number of this size, or of one near zero; in float32 that is 1.2 or 0.00012 nats."""
    rounding = 1e3 * torch.finfo(torch.float32).eps * max(1.0, abs(size))
    log_p_x = torch.tensor([size])
    gap = inference_gap(log_p_x, log_p_x + 0.5 * rounding, log_p_x)
    assert float(gap.approximation) < 0.0
    with pytest.raises(ValueError, match=r"^log_p_x - best: expected no negative gap, found"):
        inference_gap(log_p_x, log_p_x + 2.0 * rounding, log_p_x)


def test_every_slope_counts_and_a_negative_one_too() -> None:
    """One parameter has arrived; the other climbs a bound without a top. With two of them, either may be the first."""
    for names in (("still", "moving"), ("moving", "still")):
        start = {name: torch.zeros((), dtype=DOUBLE) for name in names}
        with pytest.raises(ArithmeticError, match=r"^maximise: expected a slope of at most 1e-05, found 1; take more"):
            maximise(lambda p: p["moving"] - p["still"] ** 2, start, max_steps=2)


def test_maximise_climbs_the_hill_it_stands_on() -> None:
    """Many hills, and a slope so steep that a step of its length lands on another, lower one."""
    found = maximise(lambda p: 3.0 * torch.sin(5.0 * p["z"]) - p["z"] ** 2, {"z": torch.tensor(0.2).double()})
    top = optimize.brentq(lambda z: 15.0 * math.cos(5.0 * z) - 2.0 * z, 0.2, 0.4, xtol=1e-14)
    assert float(found["z"]) == pytest.approx(top, abs=1e-9)


@pytest.mark.parametrize("max_steps", [1, 2, 3, 20])
def test_the_slope_told_is_that_of_the_end(max_steps: int) -> None:
    """On a roof the slope is 1.5 or 0.5, and the point tried last is not always the point taken."""
    held: dict[str, Tensor] = {}

    def roof(p: dict[str, Tensor]) -> Tensor:
        held.update(p)
        side = p["z"] - 0.3
        return torch.where(side > 0.0, -1.5 * side, 0.5 * side)

    with pytest.raises(ArithmeticError, match=r"^maximise: expected a slope") as caught:
        maximise(roof, {"z": torch.tensor(3.0).double()}, max_steps=max_steps)  # type: ignore[arg-type]
    assert f"found {1.5 if float(held['z'].detach()) > 0.3 else 0.5};" in str(caught.value)
