"""Expectations whose gradient is known without sampling: what every estimator is measured against.

The truth of each comes from a formula, a sum over all values, or quadrature; none of it draws, and none of it uses
`vae_lib.gradients`. `kinds` says what the density can do: "path" (differentiable draws), "mirror" (antithetic pairs),
"terms" (local terms for Rao-Blackwellisation), "elbo" (the integrand is that of SGVB A, with data).
"""

from __future__ import annotations

from collections.abc import Callable

from tests.gradients import elbos, functions
from tests.gradients.problem import Problem

PROBLEMS: dict[str, Callable[[], Problem]] = {
    "quadratic": functions.quadratic,
    "cosine": functions.cosine,
    "full quadratic": functions.full_quadratic,
    "Gamma moments": functions.gamma_moments,
    "Beta moments": functions.beta_moments,
    "Student moments": functions.student_moments,
    "counts": functions.counts,
    "categories": functions.categories,
    "finite": functions.finite,
    "linear Gaussian, full q": elbos.linear_gaussian_full,
    "linear Gaussian, diagonal q": elbos.linear_gaussian_diagonal,
    "linear Gaussian, SGVB B": lambda: elbos.linear_gaussian_diagonal(analytic_kl=True),
    "Gamma-Poisson": elbos.gamma_poisson,
    "discrete joint": elbos.discrete_joint,
    "Gaussian mixture": elbos.gaussian_mixture,
    "belief net": elbos.belief_net,
    "belief net, own q": lambda: elbos.belief_net(own_q=True),
    "nonlinear decoder": elbos.nonlinear_decoder,
    "encoder network": elbos.encoder_network,
}


def names(*kinds: str) -> list[str]:
    """The problems that are of all these kinds."""
    return [name for name, make in PROBLEMS.items() if set(kinds) <= make().kinds]
