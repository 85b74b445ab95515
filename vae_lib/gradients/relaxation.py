r"""Gumbel-softmax gradients: a smooth stand-in for a discrete draw. Biased, and usable where f accepts the stand-in.

With Gumbel noise :math:`g_k`, the argmax of :math:`a_k + g_k` is a draw from the categories with logits a. At a
temperature :math:`\tau` the argmax is replaced by

.. math:: y = \operatorname{softmax}\big( (a + g) / \tau \big)

through which gradients pass. Jang, Gu and Poole (2017); Maddison, Mnih and Teh (2017). The estimate has the gradient of
another objective, the one with y in place of z: its bias goes to zero with :math:`\tau`, and its variance to infinity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.densities import Bernoulli, Categorical
from vae_lib.gradients.contract import Gradients, check_counts, check_params, differentiate, regroup
from vae_lib.gradients.objective import Objective, Params


@dataclass(frozen=True)
class GumbelSoftmax:
    r"""The relaxed pathwise estimator for bits and categories.

    Meets :class:`~vae_lib.gradients.GradientEstimator`. For :class:`~vae_lib.densities.Bernoulli` the integrand is
    evaluated at numbers between 0 and 1; for :class:`~vae_lib.densities.Categorical` the objective's ``relaxed`` is
    evaluated on the simplex.

    Parameters
    ----------
    temperature
        :math:`\tau`, positive.
    straight_through
        Evaluate the integrand at the discrete draw and differentiate as if it were the relaxed one.
    """

    temperature: float
    straight_through: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ValueError(f"temperature: expected a positive number, found {self.temperature}")

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
        """Return independent, biased estimates: see :class:`~vae_lib.gradients.GradientEstimator`."""
        check_counts(num_estimates, num_samples)
        check_params(params)
        with torch.no_grad():
            q = objective.family(params)
        if not isinstance(q, Bernoulli | Categorical):
            raise TypeError(f"family: expected Bernoulli or Categorical, found {type(q).__name__}")
        logits = q.logits.detach()
        count = num_estimates * num_samples
        uniform = torch.rand(
            count, *logits.shape, generator=generator, dtype=logits.dtype, device=logits.device
        ).clamp_(min=torch.finfo(logits.dtype).tiny)
        return self.at(objective, params, regroup(uniform, num_estimates), vectorised=vectorised)

    def at(self, objective: Objective, params: Params, noise: Tensor, *, vectorised: bool = True) -> Gradients:
        """Return the estimates that given uniform noise makes, ``(R, S, B, L)`` or ``(R, S, B, L, K)``, above 0."""
        check_params(params)

        def surrogate(at: Params, noise_one: Tensor) -> tuple[Tensor, Tensor]:
            q = objective.family(at)
            if isinstance(q, Bernoulli):
                f = objective.values(at, q, self._bits(q.logits, noise_one))
            elif isinstance(q, Categorical):
                if objective.relaxed is None:
                    raise ValueError("objective: expected one with relaxed for categories, found none")
                f = objective.relaxed(at, q, self._corners(q.logits, noise_one))
                checks.shape("relaxed(params, q, y)", f, tuple(noise_one.shape[:2]))
            else:
                raise TypeError(f"family: expected Bernoulli or Categorical, found {type(q).__name__}")
            return f.mean(0).sum(), f.detach()

        return differentiate(surrogate, params, noise, vectorised=vectorised)[0]

    def _bits(self, logits: Tensor, uniform: Tensor) -> Tensor:
        # The difference of two Gumbel numbers is logistic.
        smooth = torch.sigmoid((logits + torch.log(uniform) - torch.log1p(-uniform)) / self.temperature)
        if not self.straight_through:
            return smooth
        return smooth + ((smooth > 0.5).to(smooth.dtype) - smooth).detach()

    def _corners(self, logits: Tensor, uniform: Tensor) -> Tensor:
        smooth = torch.softmax((logits - torch.log(-torch.log(uniform))) / self.temperature, dim=-1)
        if not self.straight_through:
            return smooth
        categories = torch.arange(smooth.shape[-1], device=smooth.device)
        corner = (smooth.argmax(-1, keepdim=True) == categories).to(smooth.dtype)
        return smooth + (corner - smooth).detach()
