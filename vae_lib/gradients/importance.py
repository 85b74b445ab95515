r"""Gradients of the importance-weighted bound: the plain one, and the doubly reparameterised one.

.. math:: \mathcal L_K = \mathbb E_{z_1 \dots z_K \sim q_\phi}\Big[ \log \frac1K \sum_{k=1}^K w_k \Big], \qquad
          \tilde w_k = \frac{w_k}{\sum_j w_j}

The plain gradient differentiates all of it along the path, so that draw k counts with :math:`\tilde w_k`. For the
model it is a good one. For the encoder its noise outgrows its signal: with more draws the ratio of the two falls like
:math:`K^{-1/2}` (Rainforth and others, 2018), because the score inside each :math:`\log w_k` has mean zero and stays.
Turning that score into a path once more removes it (Tucker, Lawson, Gu and Maddison, 2019):

.. math:: \nabla_\phi \mathcal L_K = \mathbb E\Big[ \sum_k \tilde w_k^2\,
          \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi} \Big]

With one draw this is sticking the landing. Chapter 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.bounds import importance_weighted_bound, log_weights
from vae_lib.gradients.contract import Gradients, check_counts, check_params, differentiate, regroup
from vae_lib.gradients.objective import Objective, Params
from vae_lib.protocols import Density, LatentVariableModel, Noise, NoiseDensity


def doubly_reparameterized(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor) -> Tensor:
    """The importance-weighted bound of all S draws, ``(1, B)``, in nats, with the doubly reparameterised gradient.

    A bound for ``train``, in place of :func:`~vae_lib.bounds.importance_weighted`: the same value, the same gradient
    for the model, and for the encoder the one with less noise, at the cost of one more log-density of q.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel`.
    q
        The density of the latents given each datum.
    x
        Data, ``(B, D)``.
    z
        Draws ``q.rsample(K)``, ``(K, B, L)``, with their gradient.

    Raises
    ------
    ValueError
        If the draws carry no gradient while q does: what is left would be no gradient of the bound.
    """
    along_path = z.view_as(z)  # a node of its own, for the hook below
    log_w = log_weights(model, q, x, along_path)
    log_q = q.log_prob(z.detach())
    if log_q.requires_grad and not z.requires_grad:
        raise ValueError("z: expected draws with a gradient (q.rsample), found draws without one")
    # Its slope is the score of q, which log w has with the opposite sign: only the path through z is left.
    log_w = log_w + (log_q - log_q.detach())
    shares = torch.softmax(log_w.detach(), dim=0).unsqueeze(-1)
    if along_path.requires_grad:
        # What arrives at draw k holds one factor of its share, from the bound. The path gets the second.
        along_path.register_hook(lambda slope: shares * slope)
    return importance_weighted_bound(log_w)


@dataclass(frozen=True)
class ImportanceWeighted:
    r"""Pathwise gradients of the importance-weighted bound.

    Meets :class:`~vae_lib.gradients.GradientEstimator`, with another target: the integrand's values, which must be
    log-weights (:func:`~vae_lib.gradients.sgvb_a`), are not averaged but enter :math:`\log \frac1K \sum_k w_k`, and
    the mean of the estimates is the gradient of :math:`\sum_b \mathcal L_K(x_b)`.

    Parameters
    ----------
    num_importance
        K; it must divide the number of samples, and the groups are averaged. All samples of an estimate form one group
        if it is not given.
    doubly
        Whether the parameters of q get the doubly reparameterised gradient. Those of the model get the plain one: which
        parameter is which is told by the way it takes, through the draws or not, so that one may take both.
    """

    num_importance: int | None = None
    doubly: bool = False

    def __post_init__(self) -> None:
        if self.num_importance is not None:
            checks.positive_int("num_importance", self.num_importance)

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
        check_params(params)
        with torch.no_grad():
            q = _with_noise(objective.family(params))
        noise = regroup(q.noise(num_estimates * num_samples, generator=generator), num_estimates)
        return self.at(objective, params, noise, vectorised=vectorised)

    def at(self, objective: Objective, params: Params, noise: Noise, *, vectorised: bool = True) -> Gradients:
        """Return the estimates that given noise makes: a tensor or tuple of tensors, ``(R, S, ...)``."""
        check_params(params)
        if not objective.only_log_q:
            raise ValueError("objective: expected one whose values are log-weights (sgvb_a), found one with another q")

        def surrogate(at: Params, noise_one: Noise) -> tuple[Tensor, Tensor]:
            q = _with_noise(objective.family(at))
            z = q.from_noise(noise_one)
            return (self._doubly if self.doubly else self._plain)(objective, at, q, z)

        return differentiate(surrogate, params, noise, vectorised=vectorised)[0]

    def _plain(self, objective: Objective, params: Params, q: Density, z: Tensor) -> tuple[Tensor, Tensor]:
        bound = importance_weighted_bound(objective.values(params, q, z), self.num_importance)
        return bound.mean(0).sum(), bound.detach()

    def _doubly(self, objective: Objective, params: Params, q: Density, z: Tensor) -> tuple[Tensor, Tensor]:
        held = {name: value.detach() for name, value in params.items()}
        q = objective.family(held)
        by_path = objective.values(held, q, z)
        by_model = objective.values(params, q, z.detach())
        bound = importance_weighted_bound(by_path.detach(), self.num_importance)
        groups = (bound.shape[0], -1, bound.shape[1])
        shares = torch.softmax(by_path.detach().reshape(groups), dim=1)
        slopes = shares**2 * by_path.reshape(groups) + shares * by_model.reshape(groups)
        return slopes.sum(1).mean(0).sum(), bound


def _with_noise(q: Density) -> NoiseDensity:
    if not isinstance(q, NoiseDensity):
        raise TypeError(f"family: expected a density with rsample and from_noise, found {type(q).__name__}")
    return q
