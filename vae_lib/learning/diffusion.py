"""What a diffusion model climbs in :func:`~vae_lib.learning.train`: the ELBO by one random step, or the simple loss.

Both hand the trainer values of the model's own methods. The frozen q has nothing to learn, and the trainer's encoder is
not asked. Chapter 9.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from vae_lib.models.diffusion import GaussianDiffusion
from vae_lib.protocols import ApproximatePosterior, LatentVariableModel


@dataclass(frozen=True)
class DiffusionELBO:
    """The ELBO by one random step a value: ``train(diffusion, images, bound=DiffusionELBO())`` climbs it.

    Parameters
    ----------
    stratified
        Spread the steps of a minibatch evenly (:meth:`~vae_lib.models.GaussianDiffusion.one_step_elbo`).
    """

    stratified: bool = True

    def climb(
        self,
        model: LatentVariableModel,
        encoder: ApproximatePosterior,
        x: Tensor,
        *,
        num_samples: int,
        generator: Generator,
    ) -> Tensor:
        """Unbiased values of the ELBO of data ``x (B, D)``, ``(S, B)``, in nats.

        Raises
        ------
        TypeError
            If the model is no :class:`~vae_lib.models.GaussianDiffusion`.
        """
        diffusion = _diffusion(model)
        return diffusion.one_step_elbo(x, num_samples=num_samples, generator=generator, stratified=self.stratified)


@dataclass(frozen=True)
class SimpleLoss:
    """Minus the simple loss of Ho, Jain and Abbeel (2020): the weights of the steps' KLs left out.

    It is no bound, and its unit is no nat.

    Parameters
    ----------
    stratified
        Spread the steps of a minibatch evenly.
    """

    stratified: bool = True

    def climb(
        self,
        model: LatentVariableModel,
        encoder: ApproximatePosterior,
        x: Tensor,
        *,
        num_samples: int,
        generator: Generator,
    ) -> Tensor:
        """Minus the squared error of the noise at random steps, for data ``x (B, D)``: ``(S, B)``.

        Raises
        ------
        TypeError
            If the model is no :class:`~vae_lib.models.GaussianDiffusion`.
        """
        diffusion = _diffusion(model)
        return -diffusion.simple_loss(x, num_samples=num_samples, generator=generator, stratified=self.stratified)


def _diffusion(model: LatentVariableModel) -> GaussianDiffusion:
    if not isinstance(model, GaussianDiffusion):
        raise TypeError(f"model: expected a GaussianDiffusion, found {type(model).__name__}")
    return model
