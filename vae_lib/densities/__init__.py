r"""Log-densities in nats, and draws from them.

The functions ``log_*`` are the equations, element by element; the classes hold the parameters of a batch of B
densities over vectors of length L and meet :class:`vae_lib.protocols.Density`. Shapes are checked without
broadcasting: a value is ``(S, B, L)`` and its log-density ``(S, B)``.
"""

from vae_lib.densities.continuous import DiagonalNormal, FullNormal, StudentT
from vae_lib.densities.discrete import Bernoulli, Binomial, Categorical, FiniteDensity
from vae_lib.densities.equations import (
    LOG_2PI,
    log_bernoulli,
    log_beta,
    log_binomial,
    log_categorical,
    log_gamma,
    log_normal,
    log_poisson,
    log_student_t,
)
from vae_lib.densities.implicit import implicit_draw
from vae_lib.densities.positive import Beta, Gamma

__all__ = [
    "LOG_2PI",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "DiagonalNormal",
    "FiniteDensity",
    "FullNormal",
    "Gamma",
    "StudentT",
    "implicit_draw",
    "log_bernoulli",
    "log_beta",
    "log_binomial",
    "log_categorical",
    "log_gamma",
    "log_normal",
    "log_poisson",
    "log_student_t",
]
