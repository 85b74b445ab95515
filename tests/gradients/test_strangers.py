"""Densities and models written against the protocols alone, and models that cannot be vectorised."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.gradients.elbos import Bits, belief_net
from tests.gradients.functions import Laplace
from tests.gradients.problem import tensor
from tests.oracles import assert_close
from vae_lib.densities import DiagonalNormal
from vae_lib.gradients import (
    GradientEstimator,
    LeaveOneOut,
    Objective,
    Pathwise,
    ScoreFunction,
    expectation,
    measure,
)
from vae_lib.rng import make_generator

LAPLACE = {"mu": tensor([0.4], [-1.0]), "scale": tensor([0.7], [1.3])}


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction(), ScoreFunction(LeaveOneOut())])
def test_a_strangers_density(estimator: GradientEstimator) -> None:
    """E z² = mu² + 2 scale²."""
    objective = expectation(lambda p: Laplace(p["mu"], p["scale"]), lambda z: (z**2).sum(-1))
    count = 4000 if isinstance(estimator, Pathwise) else 40_000
    found = measure(estimator, objective, LAPLACE, num_estimates=count, num_samples=2, generator=make_generator(5))
    for name, exact in (("mu", 2.0 * LAPLACE["mu"]), ("scale", 4.0 * LAPLACE["scale"])):
        assert float(found.standard_error[name].max()) < 0.2
        assert bool(((found.mean[name] - exact).abs() <= 5.0 * found.standard_error[name]).all())


def test_a_strangers_density_at_the_landing() -> None:
    """Inside log q the parameters are held: the explicit score -d log q is left out, estimate by estimate."""
    objective = Objective(lambda p: Laplace(p["mu"], p["scale"]), lambda _p, q, z: -q.log_prob(z))
    found = Pathwise(stop_q=True)(objective, LAPLACE, num_estimates=4, generator=make_generator(6))
    plain = Pathwise()(objective, LAPLACE, num_estimates=4, generator=make_generator(6))
    assert_close(plain["mu"], torch.zeros(4, 2, 1).double())
    assert_close(plain["scale"], (1.0 / LAPLACE["scale"]).expand(4, 2, 1))
    assert_close(found["mu"].abs(), (1.0 / LAPLACE["scale"]).expand(4, 2, 1))


def branches(z: Tensor) -> Tensor:
    """|z| by a branch on the value."""
    return (z if float(z.detach().sum()) > 0.0 else -z).sum(-1)


def through_numpy(z: Tensor) -> Tensor:
    return z.sum(-1) * float(z.detach().numpy().max())


def in_place(z: Tensor) -> Tensor:
    return torch.zeros(z.shape[:2], dtype=z.dtype).add_(z.sum(-1))


@pytest.mark.parametrize("f", [branches, through_numpy, in_place])
@pytest.mark.parametrize("estimator", [ScoreFunction(), Pathwise()])
def test_a_model_that_cannot_be_vectorised(f: Callable[[Tensor], Tensor], estimator: GradientEstimator) -> None:
    objective = expectation(lambda p: DiagonalNormal(p["mu"], torch.zeros_like(p["mu"])), f)
    params = {"mu": tensor([0.3], [0.1])}
    with pytest.raises(RuntimeError) as caught:
        estimator(objective, params, num_estimates=4, generator=make_generator(1))
    assert re.fullmatch(
        r"vectorised: expected functions that torch\.func\.vmap can run, found one that it cannot \(.+\); "
        r"vectorised=False takes the estimates one by one",
        str(caught.value),
    )
    assert len(str(caught.value)) < 300
    found = estimator(objective, params, num_estimates=4, generator=make_generator(1), vectorised=False)
    assert found["mu"].shape == (4, 2, 1)
    found_by_meter = measure(
        estimator, objective, params, num_estimates=4, generator=make_generator(1), vectorised=False
    )
    assert_close(found_by_meter.mean["mu"], found["mu"].mean(0))


def test_branches_by_the_loop_are_exact() -> None:
    """E |z| for z ~ N(mu, 1) has the slope 2 Phi(mu) - 1."""
    objective = expectation(lambda p: DiagonalNormal(p["mu"], torch.zeros_like(p["mu"])), branches)
    params = {"mu": tensor([0.3])}
    found = measure(Pathwise(), objective, params, num_estimates=2000, generator=make_generator(7), vectorised=False)
    exact = torch.special.erf(params["mu"] / 2**0.5)
    assert float(found.standard_error["mu"]) < 0.03
    assert bool(((found.mean["mu"] - exact).abs() <= 5.0 * found.standard_error["mu"]).all())


def test_a_mistake_that_is_not_vmaps_is_told_as_it_is() -> None:
    objective = expectation(lambda p: DiagonalNormal(p["mu"], p["mu"]), lambda z: z @ torch.ones(3).double())
    with pytest.raises(RuntimeError) as caught:
        Pathwise()(objective, {"mu": tensor([0.3, 0.1])}, generator=make_generator(1))
    assert "vectorised" not in str(caught.value)


def test_a_stranger_in_both_places() -> None:
    """A model and a q that share nothing with the library but the protocols."""
    problem = belief_net(own_q=True)
    assert isinstance(problem.objective.family(problem.params), Bits)
    with pytest.raises(
        TypeError,
        match="^"
        + re.escape(
            "family: expected a density with differentiable draws (rsample), found Bits; the score function needs none"
        ),
    ):
        Pathwise()(problem.objective, problem.params, generator=make_generator(1))
