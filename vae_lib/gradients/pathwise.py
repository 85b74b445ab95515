r"""Pathwise gradients: move each draw with the parameters, and differentiate f along the way.

.. math:: z = g_\phi(\epsilon), \qquad
          \nabla_\phi \mathbb E_{q_\phi}[f_\phi(z)]
          = \mathbb E_{p(\epsilon)}\big[ \nabla_\phi f_\phi(g_\phi(\epsilon)) \big]

The reparameterization trick of Kingma and Welling (2014), section 2.4, and Rezende, Mohamed and Wierstra (2014). Needs
f to be differentiable in z and the draws in :math:`\phi`. Chapter 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor

from vae_lib.gradients.contract import (
    Gradients,
    check_counts,
    check_params,
    differentiate,
    differentiate_one,
    regroup,
)
from vae_lib.gradients.objective import Objective, Params
from vae_lib.protocols import Density, Noise, NoiseDensity, ReparameterizedDensity


@dataclass(frozen=True)
class Pathwise:
    """The pathwise estimator, also for densities with implicit gradients (Gamma, Beta, Student-t).

    Meets :class:`~vae_lib.gradients.GradientEstimator`. A density that has ``rsample`` but neither ``noise`` nor
    ``from_noise`` works too; its estimates are then taken one by one.

    Parameters
    ----------
    stop_q
        Hold the parameters fixed inside the q that the integrand gets, see :func:`sticking_the_landing`.
    antithetic
        Draw in pairs that mirror each other; the density needs ``mirror``, the number of samples must be even.
    """

    stop_q: bool = False
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
        self._check(objective, params)
        with torch.no_grad():
            q = objective.family(params)
        if not isinstance(q, ReparameterizedDensity):
            raise TypeError(
                f"family: expected a density with differentiable draws (rsample), found {type(q).__name__}; "
                "the score function needs none"
            )
        if isinstance(q, NoiseDensity):
            noise = self._noise(q, num_estimates, num_samples, generator)
            return self.at(objective, params, noise, vectorised=vectorised)
        if self.antithetic:
            raise TypeError(f"family: expected a density with noise to mirror, found {type(q).__name__}")
        estimates = [self._by_rsample(objective, params, num_samples, generator) for _ in range(num_estimates)]
        return {name: torch.stack([estimate[name] for estimate in estimates]) for name in params}

    def _noise(self, q: NoiseDensity, num_estimates: int, num_samples: int, generator: Generator) -> Noise:
        if not self.antithetic:
            return regroup(q.noise(num_estimates * num_samples, generator=generator), num_estimates)
        if num_samples % 2:
            raise ValueError(f"num_samples: expected an even number for antithetic pairs, found {num_samples}")
        mirror = getattr(q, "mirror", None)
        if mirror is None:
            raise TypeError(f"family: expected a density that can mirror its noise, found {type(q).__name__}")
        half = q.noise(num_estimates * num_samples // 2, generator=generator)
        return _join(regroup(half, num_estimates), regroup(mirror(half), num_estimates))

    def at(self, objective: Objective, params: Params, noise: Noise, *, vectorised: bool = True) -> Gradients:
        """Return the estimates that given noise makes: a tensor or tuple of tensors, ``(R, S, ...)``."""
        self._check(objective, params)

        def surrogate(at: Params, noise_one: Noise) -> tuple[Tensor, Tensor]:
            q = objective.family(at)
            if not isinstance(q, NoiseDensity):
                raise TypeError(f"family: expected a density with rsample and from_noise, found {type(q).__name__}")
            f = objective.values(at, self._inside(objective, at, q), q.from_noise(noise_one))
            return f.mean(0).sum(), f.detach()

        return differentiate(surrogate, params, noise, vectorised=vectorised)[0]

    def _check(self, objective: Objective, params: Params) -> None:
        check_params(params)
        if self.stop_q and not objective.only_log_q:
            raise ValueError(
                "objective: expected one that uses q through its log-density alone (sgvb_a) to stick the landing, "
                "found one that does not: its gradient would lose more than the score"
            )

    def _inside(self, objective: Objective, params: Params, q: Density) -> Density:
        if not self.stop_q:
            return q
        return objective.family({name: value.detach() for name, value in params.items()})

    def _by_rsample(self, objective: Objective, params: Params, num_samples: int, generator: Generator) -> Gradients:
        def surrogate(at: Params, source: Generator) -> tuple[Tensor, Tensor]:
            q = cast(ReparameterizedDensity, objective.family(at))
            f = objective.values(at, self._inside(objective, at, q), q.rsample(num_samples, generator=source))
            return f.mean(0).sum(), f.detach()

        return differentiate_one(surrogate, params, generator)[0]


def sticking_the_landing() -> Pathwise:
    r"""The pathwise estimator without the score term: inside :math:`\log q`, the parameters are held fixed.

    The term it leaves out has mean zero. At the exact posterior every single gradient is zero, not only their mean.
    Use it with :func:`~vae_lib.gradients.sgvb_a`. Roeder, Wu and Duvenaud (2017). Chapter 4.
    """
    return Pathwise(stop_q=True)


def _join(first: Noise, second: Noise) -> Noise:
    if isinstance(first, tuple):
        return tuple(_join(a, b) for a, b in zip(first, second, strict=True))
    return torch.cat([first, second], dim=1)
