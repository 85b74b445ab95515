"""Every estimator without bias, by name, and the problems that it can take."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tests.gradients.problem import DOUBLE, Problem
from tests.gradients.problems import names
from vae_lib.gradients import (
    Constant,
    GradientEstimator,
    ImportanceWeighted,
    Learned,
    LeaveOneOut,
    MovingAverage,
    OptimalBaseline,
    Pathwise,
    RaoBlackwell,
    ScoreFunction,
    sticking_the_landing,
)


def learned(problem: Problem) -> Learned:
    assert problem.objective.x is not None
    network = nn.utils.skip_init(nn.Linear, problem.objective.x.shape[1], 1, dtype=DOUBLE)
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
    return Learned(network, learning_rate=0.5)


# name: the kinds of problem it needs, the ceiling, how to make it
ESTIMATORS: dict[str, tuple[tuple[str, ...], float, Callable[[Problem], GradientEstimator]]] = {
    "score": ((), 0.05, lambda _: ScoreFunction()),
    "score, constant": ((), 0.05, lambda problem: ScoreFunction(Constant(problem.mean()))),
    "score, leave one out": ((), 0.05, lambda _: ScoreFunction(LeaveOneOut())),
    "score, moving average": ((), 0.05, lambda _: ScoreFunction(MovingAverage(0.5))),
    "score, learned": (("elbo",), 0.05, lambda problem: ScoreFunction(learned(problem))),
    "score, antithetic": (("mirror",), 0.05, lambda _: ScoreFunction(antithetic=True)),
    "score, antithetic, constant": (
        ("mirror",),
        0.05,
        lambda problem: ScoreFunction(Constant(problem.mean()), antithetic=True),
    ),
    "optimal": ((), 0.05, lambda _: OptimalBaseline(500)),
    "Rao-Blackwell": (("terms",), 0.05, lambda _: RaoBlackwell()),
    "Rao-Blackwell, leave one out": (("terms",), 0.05, lambda _: RaoBlackwell(LeaveOneOut())),
    "Rao-Blackwell, moving average": (("terms",), 0.05, lambda _: RaoBlackwell(MovingAverage(0.5))),
    "pathwise": (("path",), 0.025, lambda _: Pathwise()),
    "pathwise, antithetic": (("path", "mirror"), 0.025, lambda _: Pathwise(antithetic=True)),
    "sticking the landing": (("path", "elbo"), 0.025, lambda _: sticking_the_landing()),
    "importance, K = 1": (("path", "elbo"), 0.025, lambda _: ImportanceWeighted(1)),
    "importance, K = 1, doubly": (("path", "elbo"), 0.025, lambda _: ImportanceWeighted(1, doubly=True)),
}
CASES = [(estimator, problem) for estimator, (kinds, _, _) in ESTIMATORS.items() for problem in names(*kinds)]
