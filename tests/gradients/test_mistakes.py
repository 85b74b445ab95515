"""Bad input gets one line: what, expected, found."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from tests.gradients.elbos import X4, encoder_network, linear_gaussian_of
from tests.gradients.functions import Laplace
from tests.gradients.problem import tensor
from tests.gradients.problems import PROBLEMS
from tests.oracles import randn
from vae_lib.densities import Bernoulli, Categorical, DiagonalNormal, Gamma
from vae_lib.gradients import (
    Constant,
    GumbelSoftmax,
    Learned,
    LeaveOneOut,
    MovingAverage,
    Objective,
    OptimalBaseline,
    Params,
    Pathwise,
    RaoBlackwell,
    ScoreFunction,
    amortised,
    expectation,
    functional,
    sgvb_b,
)
from vae_lib.rng import make_generator

NORMAL = {"mu": tensor([0.5, -1.0]), "logvar": tensor([0.0, 0.3])}


def normal(p: Params) -> DiagonalNormal:
    return DiagonalNormal(p["mu"], p["logvar"])


LINEAR = nn.utils.skip_init(nn.Linear, 2, 1)
HALF = torch.full((2, 1, 1, 2), 0.5, dtype=torch.float64)
SQUARE = expectation(normal, lambda z: (z**2).sum(-1))
BITS_OF = expectation(lambda p: Bernoulli(p["mu"]), lambda z: z.sum(-1))
CATEGORIES_OF = expectation(lambda p: Categorical(p["mu"].unsqueeze(-1)), lambda z: z.sum(-1))
GAMMA_OF = expectation(lambda p: Gamma(p["logvar"].exp(), p["mu"].exp()), lambda z: z.sum(-1))
LAPLACE_OF = expectation(lambda p: Laplace(p["mu"], p["logvar"].exp()), lambda z: z.sum(-1))
ALL: list[Any] = [ScoreFunction(), OptimalBaseline(5), RaoBlackwell(), Pathwise(), GumbelSoftmax(1.0)]

MISTAKES: dict[str, tuple[Any, Objective, dict[str, Any], type[Exception], str]] = {
    "odd pairs, score": (
        ScoreFunction(antithetic=True),
        SQUARE,
        {"num_samples": 3},
        ValueError,
        "num_samples: expected an even number for antithetic pairs, found 3",
    ),
    "odd pairs, path": (
        Pathwise(antithetic=True),
        SQUARE,
        {"num_samples": 3},
        ValueError,
        "num_samples: expected an even number for antithetic pairs, found 3",
    ),
    "one to leave out": (
        ScoreFunction(LeaveOneOut()),
        SQUARE,
        {},
        ValueError,
        "num_samples: expected at least 2 to leave one out, found 1",
    ),
    "nothing to mirror, score": (
        ScoreFunction(antithetic=True),
        CATEGORIES_OF,
        {"num_samples": 2},
        TypeError,
        "family: expected a density that can mirror its noise, "
        "found Categorical without ['noise', 'from_noise', 'mirror']",
    ),
    "nothing to mirror, path": (
        Pathwise(antithetic=True),
        GAMMA_OF,
        {"num_samples": 2},
        TypeError,
        "family: expected a density that can mirror its noise, found Gamma",
    ),
    "no noise to mirror": (
        Pathwise(antithetic=True),
        LAPLACE_OF,
        {"num_samples": 2},
        TypeError,
        "family: expected a density with noise to mirror, found Laplace",
    ),
    "no path": (
        Pathwise(),
        BITS_OF,
        {},
        TypeError,
        "family: expected a density with differentiable draws (rsample), found Bernoulli; "
        "the score function needs none",
    ),
    "no local terms": (
        RaoBlackwell(),
        SQUARE,
        {},
        ValueError,
        "objective: expected one with local_terms for Rao-Blackwellisation, found none",
    ),
    "local terms summed": (
        RaoBlackwell(),
        Objective(normal, SQUARE.integrand, local_terms=SQUARE.integrand),
        {},
        ValueError,
        "local_terms(params, q, z): expected shape (1, 1, 2), found (1, 1)",
    ),
    "no terms of q": (
        RaoBlackwell(),
        Objective(LAPLACE_OF.family, SQUARE.integrand, local_terms=lambda _p, _q, z: z**2),
        {},
        TypeError,
        "family: expected a density with log_prob_terms, found Laplace",
    ),
    "no relaxed": (
        GumbelSoftmax(1.0),
        CATEGORIES_OF,
        {},
        ValueError,
        "objective: expected one with relaxed for categories, found none",
    ),
    "relaxed of a wrong shape": (
        GumbelSoftmax(1.0),
        Objective(CATEGORIES_OF.family, CATEGORIES_OF.integrand, relaxed=lambda _p, _q, y: y.sum(-1)),
        {},
        ValueError,
        "relaxed(params, q, y): expected shape (1, 1), found (1, 1, 2)",
    ),
    "nothing to relax": (
        GumbelSoftmax(1.0),
        SQUARE,
        {},
        TypeError,
        "family: expected Bernoulli or Categorical, found DiagonalNormal",
    ),
    "no data to learn from": (
        ScoreFunction(Learned(LINEAR)),
        SQUARE,
        {},
        ValueError,
        "objective: expected one with data x for a learned baseline, found x=None",
    ),
    "constants for other data": (
        ScoreFunction(Constant(torch.zeros(3))),
        SQUARE,
        {},
        ValueError,
        "value: expected shape (1,), found (3,)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("vectorised", [True, False])
def test_mistakes_are_told_in_one_line(mistake: str, vectorised: bool) -> None:
    estimator, objective, options, kind, message = MISTAKES[mistake]
    with pytest.raises(kind) as caught:
        estimator(objective, NORMAL, generator=make_generator(0), vectorised=vectorised, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
def test_counts_and_params_are_checked_by_all(estimator: Any) -> None:
    cases: list[tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = [
        ({}, {}, ValueError, "params: expected at least one named tensor, found none"),
        (
            {"mu": torch.zeros(1, 2, dtype=torch.int32)},
            {},
            TypeError,
            "params['mu']: expected a floating-point tensor, found torch.int32",
        ),
        ({"mu": [1.0]}, {}, TypeError, "params['mu']: expected a floating-point tensor, found list"),
        (NORMAL, {"num_estimates": 0}, ValueError, "num_estimates: expected a positive integer, found 0"),
        (NORMAL, {"num_samples": -1}, ValueError, "num_samples: expected a positive integer, found -1"),
        (NORMAL, {"num_samples": 1.0}, TypeError, "num_samples: expected a positive integer, found 1.0"),
    ]
    for params, options, kind, message in cases:
        with pytest.raises(kind) as caught:
            estimator(SQUARE, params, generator=make_generator(0), **options)
        assert str(caught.value) == message


@pytest.mark.parametrize("estimator", [ScoreFunction(), Pathwise(), OptimalBaseline(5)])
@pytest.mark.parametrize("vectorised", [True, False])
def test_an_integrand_of_a_wrong_shape(estimator: Any, vectorised: bool) -> None:
    """Summed too far, or not far enough: an error, not a broadcast."""
    for f, found in ((lambda z: z.sum(), "()"), (lambda z: z, "(2, 1, 2)"), (lambda z: z.sum((0, 2)), "(1,)")):
        with pytest.raises(ValueError, match=re.escape("integrand(params, q, z): expected shape (")) as caught:
            estimator(expectation(normal, f), NORMAL, num_samples=2, generator=make_generator(0), vectorised=vectorised)
        if not isinstance(estimator, OptimalBaseline):
            assert str(caught.value) == f"integrand(params, q, z): expected shape (2, 1), found {found}"


def test_values_at_construction() -> None:
    for make_it, message in (
        (lambda: GumbelSoftmax(0.0), "temperature: expected a positive number, found 0.0"),
        (lambda: GumbelSoftmax(float("nan")), "temperature: expected a positive number, found nan"),
        (lambda: MovingAverage(1.0), "decay: expected a number between 0 and 1, found 1.0"),
        (lambda: MovingAverage(0.0), "decay: expected a number between 0 and 1, found 0.0"),
        (lambda: OptimalBaseline(0), "num_pilot: expected a positive integer, found 0"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            make_it()


@pytest.mark.parametrize("vectorised", [True, False])
def test_bits_have_no_path_from_given_noise_either(vectorised: bool) -> None:
    message = "^family: expected a density with rsample and from_noise, found Bernoulli$"
    with pytest.raises(TypeError, match=message):
        Pathwise().at(
            BITS_OF,
            {"mu": tensor([0.1])},
            HALF[..., :1],
            vectorised=vectorised,
        )
    with pytest.raises(TypeError, match=r"^family: expected Bernoulli or Categorical, found DiagonalNormal$"):
        GumbelSoftmax(1.0).at(SQUARE, NORMAL, HALF, vectorised=vectorised)


def test_an_encoder_whose_weights_are_not_there() -> None:
    """A wrong prefix would leave a gradient of zero."""
    problem = encoder_network()
    objective = sgvb_b(linear_gaussian_of, amortised(LINEAR, X4, "enc."), X4)
    message = "params: expected weights named enc.weight and so on, found ['weight', 'bias', 'noise']"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Pathwise()(objective, problem.params, generator=make_generator(0))


def test_local_terms_want_independent_coordinates() -> None:
    problem = PROBLEMS["linear Gaussian, full q"]()
    with pytest.raises(TypeError, match=r"^local_terms: expected q to have log_prob_terms, found FullNormal$"):
        problem.objective.local_terms(  # type: ignore[misc]
            problem.params, problem.objective.family(problem.params), torch.zeros(1, 3, 2).double()
        )


def test_a_module_without_weights_has_none_to_look_for() -> None:
    message = "params: expected weights named like those of the module, which has none, found ['weight']"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        functional(nn.Identity(), {"weight": tensor(1.0)})


def test_given_noise_is_checked_like_drawn_noise() -> None:
    """The same refusals where the estimates are asked for at given noise."""
    with pytest.raises(ValueError, match=r"^params: expected at least one named tensor, found none$"):
        Pathwise().at(SQUARE, {}, HALF)
    problem = PROBLEMS["linear Gaussian, SGVB B"]()
    with pytest.raises(ValueError, match=r"^objective: expected one that uses q through its log-density alone"):
        Pathwise(stop_q=True).at(problem.objective, problem.params, randn(2, 1, 3, 2, seed=171))
