r"""Where a model stands between saying much about a datum and paying little for it.

.. math:: R = \mathbb E_{x}\, D_{\mathrm{KL}}(q(z \mid x) \,\|\, p(z)), \qquad
          D = -\mathbb E_{x}\, \mathbb E_{q(z \mid x)} \log p(x \mid z), \qquad
          \mathbb E\,\mathrm{ELBO} = -(R + D)
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Generator, Tensor

from vae_lib.estimate import Estimate, mean_with_error
from vae_lib.evaluation.held_out import held_out_elbo
from vae_lib.protocols import ApproximatePosterior, LatentVariableModel


class RateDistortion(NamedTuple):
    """Averages over the data with their standard errors, in nats a datum.

    ``elbo`` is minus the other two. Its error is its own: their errors do not add, for a datum that costs much may be
    explained well.
    """

    rate: Estimate
    distortion: Estimate
    elbo: Estimate


def rate_distortion(
    model: LatentVariableModel,
    encoder: ApproximatePosterior,
    x: Tensor,
    *,
    num_samples: int = 1,
    generator: Generator,
    batch_size: int = 1000,
) -> RateDistortion:
    r"""Rate and distortion of a model on data, held-out ones say.

    Alemi, Poole, Fischer, Dillon, Saurous and Murphy (2018). The rate is an upper bound on the mutual information
    between x and z that the encoder makes. Models on one line of constant :math:`R + D` have the same ELBO, which hides
    whether they use their latents: one with R = 0 uses none. Chapter 7.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel`. Modules are evaluated in evaluation mode and without
        gradients, and have their own mode back afterwards.
    encoder
        Any :class:`~vae_lib.protocols.ApproximatePosterior`; a VAE is both model and encoder.
    x
        Data, ``(N, D)``, finite, at least two of them.
    num_samples
        S, draws of z for each datum.
    generator
        The source of randomness.
    batch_size
        Data in a pass, as for :func:`~vae_lib.evaluation.held_out_elbo`, which does the work.

    Returns
    -------
    RateDistortion
        The standard errors count the choice of the data, and the draws. Distortions compare between models of one
        likelihood alone: another variance is another unit.

    Raises
    ------
    ValueError, TypeError
        If there are fewer than two data, they are not finite, or a shape is not the promised one.
    """
    result = held_out_elbo(model, encoder, x, num_samples=num_samples, generator=generator, batch_size=batch_size)
    parts = result.kl, -result.log_likelihood, result.elbo
    return RateDistortion(*(mean_with_error(part) for part in parts))
