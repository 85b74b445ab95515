"""Estimators of the gradient of an expectation whose distribution depends on the parameters (chapters 3, 4 and 8).

Make an :class:`Objective`, pick an estimator, call it: every estimator takes the same arguments and returns one
gradient for each independent estimate. :func:`measure` tells their spread.
"""

from vae_lib.gradients.baselines import Baseline, Constant, Learned, LeaveOneOut, MovingAverage
from vae_lib.gradients.contract import GradientEstimator
from vae_lib.gradients.importance import ImportanceWeighted, doubly_reparameterized
from vae_lib.gradients.meter import Measurement, measure
from vae_lib.gradients.objective import Objective, Params, amortised, expectation, functional, sgvb_a, sgvb_b
from vae_lib.gradients.pathwise import Pathwise, sticking_the_landing
from vae_lib.gradients.relaxation import GumbelSoftmax
from vae_lib.gradients.score_function import OptimalBaseline, RaoBlackwell, ScoreFunction, score

__all__ = [
    "Baseline",
    "Constant",
    "GradientEstimator",
    "GumbelSoftmax",
    "ImportanceWeighted",
    "Learned",
    "LeaveOneOut",
    "Measurement",
    "MovingAverage",
    "Objective",
    "OptimalBaseline",
    "Params",
    "Pathwise",
    "RaoBlackwell",
    "ScoreFunction",
    "amortised",
    "doubly_reparameterized",
    "expectation",
    "functional",
    "measure",
    "score",
    "sgvb_a",
    "sgvb_b",
    "sticking_the_landing",
]
