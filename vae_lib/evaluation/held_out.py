r"""The ELBO of data that were not trained on, and its two parts.

.. math:: \mathrm{ELBO}(x) = \mathbb E_{q(z \mid x)}[\log p(x \mid z)] - D_{\mathrm{KL}}(q(z \mid x) \,\|\, p(z))
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.divergences import has_closed_form, kl
from vae_lib.evaluation.passes import draw, evaluating, in_parts
from vae_lib.protocols import ApproximatePosterior, LatentVariableModel


class HeldOut(NamedTuple):
    """Estimates for each datum, ``(N,)`` each, in nats: ``elbo`` is ``log_likelihood`` minus ``kl``."""

    elbo: Tensor
    log_likelihood: Tensor
    kl: Tensor


def held_out_elbo(
    model: LatentVariableModel,
    encoder: ApproximatePosterior,
    x: Tensor,
    *,
    num_samples: int = 1,
    generator: Generator,
    batch_size: int = 1000,
) -> HeldOut:
    r"""The ELBO of each datum, with z drawn from q. Put in the mean of q instead, and what comes out is no bound.

    One draw for each datum is enough for a mean over many data: ``mean_with_error(result.elbo)`` has an error that
    counts both the draws and the choice of the data. Chapter 5.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel`. Modules are evaluated in evaluation mode and without
        gradients, and have their own mode back afterwards.
    encoder
        Any :class:`~vae_lib.protocols.ApproximatePosterior`; a VAE is both model and encoder.
    x
        Data, ``(N, D)``, finite.
    num_samples
        S, draws of z for each datum.
    generator
        The source of randomness.
    batch_size
        Data in a pass. A pass decodes one draw for each, whatever S is. Another size makes other draws.

    Returns
    -------
    HeldOut
        The KL to the prior is in closed form where :func:`~vae_lib.divergences.kl` knows the pair. Else it is the
        average of log q(z | x) - log p(z) over the draws, which may be negative.

    Raises
    ------
    ValueError, TypeError
        If the data are not finite, or a shape is not the promised one.
    """
    checks.shape("x", x, ("N", model.data_dim))
    checks.finite("x", x)
    checks.positive_int("num_samples", num_samples)
    checks.positive_int("batch_size", batch_size)

    def one_pass(batch: Tensor) -> HeldOut:
        size = batch.shape[0]
        q, z = draw(model, encoder, batch, num_samples=num_samples, generator=generator)
        log_likelihood = in_parts(lambda part: model.log_p_x_given_z(batch, part), z, size).mean(0)
        prior = model.prior(size)
        if has_closed_form(q, prior):
            divergence = kl(q, prior)
        else:
            log_q, log_prior = q.log_prob(z), prior.log_prob(z)
            checks.shape("q.log_prob(z)", log_q, (num_samples, size))
            checks.shape("prior(B).log_prob(z)", log_prior, (num_samples, size))
            divergence = (log_q - log_prior).mean(0)
        return HeldOut(log_likelihood - divergence, log_likelihood, divergence)

    with evaluating(model, encoder):
        passes = [one_pass(batch) for batch in x.split(batch_size)]
    return HeldOut(*(torch.cat(values) for values in zip(*passes, strict=True)))
