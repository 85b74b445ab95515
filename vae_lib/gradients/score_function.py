r"""Score-function gradients: values of f, weighted by how the density of each draw would change.

.. math:: \nabla_\phi \mathbb E_{q_\phi}[f_\phi(z)]
          = \mathbb E_{q_\phi}\big[ (f_\phi(z) - b)\, \nabla_\phi \log q_\phi(z) + \nabla_\phi f_\phi(z) \big]

Needs the log-density of q and values of f, no derivative of f in z, so z may be discrete. Also called REINFORCE
(Williams, 1992) and the likelihood-ratio estimator. Chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.gradients.baselines import Baseline, LeaveOneOut
from vae_lib.gradients.contract import (
    Gradients,
    check_counts,
    check_params,
    differentiate,
    regroup,
)
from vae_lib.gradients.objective import Objective, Params
from vae_lib.protocols import Density, FactorisedDensity


@dataclass(frozen=True)
class ScoreFunction:
    """The score-function estimator, with or without a baseline, from independent or antithetic draws.

    Meets :class:`~vae_lib.gradients.GradientEstimator`.

    Parameters
    ----------
    baseline
        What to subtract from f (``vae_lib.gradients.baselines``); nothing if it is not given.
    antithetic
        Draw in pairs that mirror each other. The density needs ``noise``, ``from_noise`` and ``mirror``; the number of
        samples must be even. Not allowed with :class:`~vae_lib.gradients.LeaveOneOut`, whose other draws must be
        independent.
    """

    baseline: Baseline | None = None
    antithetic: bool = False

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
        """Return independent estimates of the gradient: see :class:`~vae_lib.gradients.GradientEstimator`."""
        check_counts(num_estimates, num_samples)
        z = draw(objective, params, num_estimates, num_samples, generator=generator, antithetic=self.antithetic)
        return self.at(objective, params, z, vectorised=vectorised)

    def at(self, objective: Objective, params: Params, z: Tensor, *, vectorised: bool = True) -> Gradients:
        """Return the estimates that given draws ``z (R, S, B, L)`` make.

        On the nodes of a quadrature rule, one node an estimate, it gives the estimator's exact mean and variance.
        """
        if self.antithetic and isinstance(self.baseline, LeaveOneOut):
            raise ValueError("baseline: expected one other than LeaveOneOut with antithetic draws, found LeaveOneOut")
        check_params(params)

        def surrogate(at: Params, z_one: Tensor) -> tuple[Tensor, Tensor]:
            q = objective.family(at)
            f = objective.values(at, q, z_one)
            weights = f.detach()
            if self.baseline is not None:
                weights = weights - self.baseline(weights, objective)
            return (weights * q.log_prob(z_one) + f).mean(0).sum(), f.detach()

        gradients, values = differentiate(surrogate, params, z, vectorised=vectorised)
        if self.baseline is not None:
            self.baseline.update(values, objective)
        return gradients


@dataclass(frozen=True)
class OptimalBaseline:
    r"""The score-function estimator with the best constant for each single parameter.

    .. math:: c^*_i = \frac{\operatorname{Cov}(g_i, s_i)}{\operatorname{Var}(s_i)}, \qquad
              s = \nabla_\phi \log q_\phi(z), \quad g = f s + \nabla_\phi f

    The covariances are measured on draws of their own, so that the estimate stays unbiased. Chapter 3.

    Parameters
    ----------
    num_pilot
        How many draws measure the constants, at every call.
    """

    num_pilot: int = 1000

    def __post_init__(self) -> None:
        checks.positive_int("num_pilot", self.num_pilot)

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
        """Return independent estimates of the gradient, given the pilot draws that they share."""
        check_counts(num_estimates, num_samples)
        pilot = draw(objective, params, self.num_pilot, 1, generator=generator)
        constants = self.constants(objective, params, pilot, vectorised=vectorised)
        z = draw(objective, params, num_estimates, num_samples, generator=generator)
        plain = ScoreFunction().at(objective, params, z, vectorised=vectorised)
        scores = score(objective, params, z, vectorised=vectorised)
        return {name: plain[name] - constants[name] * scores[name] for name in plain}

    def constants(
        self, objective: Objective, params: Params, z: Tensor, weights: Tensor | None = None, *, vectorised: bool = True
    ) -> dict[str, Tensor]:
        """Return the best constants for each parameter, measured on draws ``z (R, 1, B, L)``.

        Parameters
        ----------
        objective, params, z
            As everywhere; one draw an estimate.
        weights
            Probabilities of the draws, ``(R,)``, where they are the nodes of a quadrature rule; equal if not given.
        vectorised
            As everywhere.
        """
        checks.shape("z", z, ("R", 1, "B", "L"))
        share = torch.full_like(z[:, 0, 0, 0], 1.0 / z.shape[0]) if weights is None else weights
        plain = ScoreFunction().at(objective, params, z, vectorised=vectorised)
        scores = score(objective, params, z, vectorised=vectorised)
        constants = {}
        for name, g in plain.items():
            s = scores[name]
            covariance = torch.einsum("r,r...->...", share, g * (s - torch.einsum("r,r...->...", share, s)))
            variance = torch.einsum("r,r...->...", share, s**2) - torch.einsum("r,r...->...", share, s) ** 2
            # A parameter that q does not depend on (a decoder's) has no score: nothing to subtract.
            constants[name] = torch.where(variance > 0.0, covariance / variance, 0.0)
        return constants


@dataclass(frozen=True)
class RaoBlackwell:
    r"""The score-function estimator with, for each coordinate's score, only the terms of f that feel it.

    .. math:: \nabla_\phi \mathbb E_q[f]
              = \mathbb E_q\Big[ \sum_l f_l(z)\, \nabla_\phi \log q_\phi(z_l) + \nabla_\phi f_\phi(z) \Big]

    for a q with independent coordinates; :math:`f_l` sums the terms that depend on :math:`z_l`. What is left out is the
    product of a score with something independent of it: mean zero, variance not. Ranganath, Gerrish and Blei
    (2014), section 3.1. The objective must have ``local_terms``.

    Parameters
    ----------
    baseline
        As for :class:`ScoreFunction`; it is applied to each coordinate's terms.
    """

    baseline: Baseline | None = None

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
        """Return independent estimates of the gradient: see :class:`~vae_lib.gradients.GradientEstimator`."""
        check_counts(num_estimates, num_samples)
        z = draw(objective, params, num_estimates, num_samples, generator=generator)
        return self.at(objective, params, z, vectorised=vectorised)

    def at(self, objective: Objective, params: Params, z: Tensor, *, vectorised: bool = True) -> Gradients:
        """Return the estimates that given draws ``z (R, S, B, L)`` make."""
        check_params(params)
        local_terms = objective.local_terms
        if local_terms is None:
            raise ValueError("objective: expected one with local_terms for Rao-Blackwellisation, found none")

        def surrogate(at: Params, z_one: Tensor) -> tuple[Tensor, Tensor]:
            q = objective.family(at)
            if not isinstance(q, FactorisedDensity):
                raise TypeError(f"family: expected a density with log_prob_terms, found {type(q).__name__}")
            terms = local_terms(at, q, z_one)
            checks.shape("local_terms(params, q, z)", terms, tuple(z_one.shape))
            weights = terms.detach()
            if self.baseline is not None:
                baseline = self.baseline
                per_coordinate = [baseline(weights[..., i], objective) for i in range(weights.shape[-1])]
                weights = weights - torch.stack([b.expand(weights.shape[:2]) for b in per_coordinate], dim=-1)
            f = objective.values(at, q, z_one)
            return ((weights * q.log_prob_terms(z_one)).sum(-1) + f).mean(0).sum(), f.detach()

        gradients, values = differentiate(surrogate, params, z, vectorised=vectorised)
        if self.baseline is not None:
            self.baseline.update(values, objective)
        return gradients


def score(objective: Objective, params: Params, z: Tensor, *, vectorised: bool = True) -> Gradients:
    r"""The score, :math:`\nabla_\phi \sum_b \log q_\phi(z_b)`, averaged over the S draws of each of R estimates.

    Parameters
    ----------
    objective, params
        The objective gives the family; its integrand is not used.
    z
        Draws, ``(R, S, B, L)``.
    vectorised
        As everywhere.
    """
    check_params(params)

    def surrogate(at: Params, z_one: Tensor) -> tuple[Tensor, Tensor]:
        log_q = objective.family(at).log_prob(z_one)
        return log_q.mean(0).sum(), log_q.detach()

    return differentiate(surrogate, params, z, vectorised=vectorised)[0]


def draw(
    objective: Objective,
    params: Params,
    num_estimates: int,
    num_samples: int,
    *,
    generator: Generator,
    antithetic: bool = False,
) -> Tensor:
    """Draw from the objective's density at the parameters, ``(R, S, B, L)``, without gradients.

    With ``antithetic`` the second half of each estimate's samples mirrors the first.
    """
    check_params(params)
    with torch.no_grad():
        q = objective.family(params)
        if not antithetic:
            z: Tensor = regroup(q.sample(num_estimates * num_samples, generator=generator), num_estimates)
            return z
        return _draw_pairs(q, num_estimates, num_samples, generator=generator)


def _draw_pairs(q: Density, num_estimates: int, num_samples: int, *, generator: Generator) -> Tensor:
    """Draw antithetic pairs, ``(R, S, B, L)``."""
    if num_samples % 2:
        raise ValueError(f"num_samples: expected an even number for antithetic pairs, found {num_samples}")
    missing = [name for name in ("noise", "from_noise", "mirror") if not hasattr(q, name)]
    if missing:
        raise TypeError(
            f"family: expected a density that can mirror its noise, found {type(q).__name__} without {missing}"
        )
    maker = cast(Any, q)
    noise = maker.noise(num_estimates * num_samples // 2, generator=generator)
    halves = [regroup(maker.from_noise(part), num_estimates) for part in (noise, maker.mirror(noise))]
    return torch.cat(halves, dim=1)
