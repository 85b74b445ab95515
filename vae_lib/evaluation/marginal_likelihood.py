r"""log p(x) of each datum by importance sampling, with q as the proposal, and how far to trust it.

.. math:: \log \hat p(x) = \log \frac1K \sum_{k=1}^K w_k, \qquad
          w_k = \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.bounds import importance_weighted_bound, log_weights
from vae_lib.evaluation.passes import draw, evaluating, in_parts
from vae_lib.protocols import ApproximatePosterior, LatentVariableModel

# Data whose latents are drawn at once, and how many latents that may be. Latents are small beside what a decoder makes
# of them: with all of them drawn before the first is decoded, `rows` cuts the work and leaves the draws alone.
MOST_DATA, MOST_LATENTS = 100, 100_000


class MarginalLikelihood(NamedTuple):
    r"""Estimates of log p(x), ``(N,)`` each.

    - ``value``, in nats. Its expectation is at most log p(x), by Jensen's inequality, and rises with K: it is the
      importance-weighted bound. It falls short by about half the square of its standard error.
    - ``standard_error``, in nats: by the delta method the standard error of the mean weight over the mean weight.
    - ``effective_sample_size``: :math:`(\sum w)^2 / \sum w^2`, from 1 to K.
    - ``largest_weight``: the share of the largest weight in the sum, from 1/K to 1.

    All four know only the draws that were made. Where the posterior has mass that q hardly reaches, the weights have a
    heavy tail: until a draw falls there the value is too low, the error too small and the effective sample size too
    large. A small error is no proof, a large share of one weight is a warning.
    """

    value: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    largest_weight: Tensor

    @classmethod
    def from_log_weights(cls, log_w: Tensor) -> MarginalLikelihood:
        """Sum up log-weights ``(K, N)``, in nats, K at least 2.

        Where every weight is zero, the value is minus infinity, the error infinite, and size and share are zero.
        """
        checks.shape("log_w", log_w, ("K", "N"))
        count = log_w.shape[0]
        if count < 2:
            raise ValueError(f"log_w: expected at least 2 samples, for an error bar, found {count}")
        value = importance_weighted_bound(log_w).squeeze(0)
        shares = torch.softmax(log_w, dim=0)  # weights over their sum, and their mean is 1 / K
        is_empty = value == -math.inf
        return cls(
            value,
            (shares.std(0) * count**0.5).masked_fill(is_empty, math.inf),
            (1.0 / (shares**2).sum(0)).masked_fill(is_empty, 0.0),
            shares.amax(0).masked_fill(is_empty, 0.0),
        )


def log_p_x(
    model: LatentVariableModel,
    encoder: ApproximatePosterior,
    x: Tensor,
    *,
    num_samples: int = 5000,
    generator: Generator,
    rows: int = 1000,
) -> MarginalLikelihood:
    r"""Estimate log p(x) of each datum from K draws of q.

    Burda, Grosse and Salakhutdinov (2016) report test sets this way, with K = 5000. Chapters 1 and 5. The error of a
    mean over N data that comes from the draws is ``standard_error.square().sum().sqrt() / N``.

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
        K, at least 2.
    generator
        The source of randomness.
    rows
        About how many latents are decoded at a time, and at least one for each of up to 100 data. It changes speed and
        memory, and the values by no more than rounding. On a CPU the arrays should fit its cache: 500 to 1000 rows
        of 784 pixels. A GPU wants many more.

    Returns
    -------
    MarginalLikelihood
        Value, standard error, effective sample size and largest weight, ``(N,)`` each.

    Raises
    ------
    ValueError, TypeError
        If the data are not finite, or a shape is not the promised one.
    """
    checks.shape("x", x, ("N", model.data_dim))
    checks.finite("x", x)
    checks.positive_int("num_samples", num_samples)
    if num_samples < 2:
        raise ValueError(f"num_samples: expected at least 2, for an error bar, found {num_samples}")
    checks.positive_int("rows", rows)

    def one_group(group: Tensor) -> MarginalLikelihood:
        q, z = draw(model, encoder, group, num_samples=num_samples, generator=generator)
        return MarginalLikelihood.from_log_weights(in_parts(lambda part: log_weights(model, q, group, part), z, rows))

    with evaluating(model, encoder):
        groups = [one_group(group) for group in x.split(max(1, min(MOST_DATA, MOST_LATENTS // num_samples)))]
    return MarginalLikelihood(*(torch.cat(values) for values in zip(*groups, strict=True)))
