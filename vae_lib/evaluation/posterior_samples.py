r"""log p(x) of each datum from draws of its posterior: the estimator of Kingma and Welling (2014), appendix D.

For any density q(z) that is zero wherever p(x, z) is,

.. math:: \mathbb E_{p(z \mid x)} \left[ \frac{q(z)}{p(x, z)} \right] = \frac1{p(x)}, \qquad
          \log \hat p(x) = -\log \frac1S \sum_{s=1}^S \frac{q(z_s)}{p(x, z_s)}, \qquad z_s \sim p(z \mid x)

The draws are made by Hamiltonian Monte Carlo, q is fitted to others of them, and no encoder is asked. Where q is the
posterior every term is 1 / p(x), and the error is zero. The paper leaves open which density is fitted, where the chains
begin, how many there are and how long they warm up. Here q is a normal with a full covariance, and every draw is the
end of a chain of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.bounds import log_joint, log_weights
from vae_lib.densities import FullNormal
from vae_lib.evaluation.marginal_likelihood import MarginalLikelihood
from vae_lib.evaluation.passes import draw, evaluating, in_parts
from vae_lib.mcmc import tuned_hmc
from vae_lib.protocols import ApproximatePosterior, Density, LatentVariableModel


class FromPosterior(NamedTuple):
    r"""Estimates of log p(x), ``(N,)`` each. The terms :math:`u = q / p(x, z)` play the part of weights.

    - ``value``, in nats. Its expectation is at least log p(x), by Jensen's inequality, by about half the square of its
      standard error: importance sampling errs to the other side.
    - ``standard_error``, in nats: by the delta method the standard error of the mean term over the mean term. As q is
      fitted to other draws, its misfit is no bias and is in this error. It leaves out that chains may not have arrived,
      and a mode where no chain is: then the value is too low. One below the ELBO of the same datum is refuted.
    - ``effective_sample_size``: :math:`(\sum u)^2 / \sum u^2`, from 1 to S.
    - ``largest_weight``: the share of the largest term in the sum, from 1/S to 1.
    - ``acceptance``: the mean probability of acceptance of the transitions after the warm-up.

    The terms have a heavy tail where q is wider than the posterior. If both are normal, the variance is infinite once
    that of q is, in some direction, twice the posterior's. A covariance fitted to S draws in L dimensions is off by a
    factor of up to :math:`(1 + \sqrt{L / S})^2`, and so reaches that at :math:`L \approx S / 6`: 8 of 50 draws. Past it
    the value is too high and its error too small: for a normal posterior and S = 50, by 0.02 nats with an error of 0.19
    in 10 dimensions, by 0.3 with 0.5 in 20, and by 14 with 0.9 in 40. Posteriors that are not normal are worse. The
    paper says that the estimator is good below 5 dimensions.
    """

    value: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    largest_weight: Tensor
    acceptance: Tensor


def log_p_x_from_posterior(
    model: LatentVariableModel,
    x: Tensor,
    *,
    start: ApproximatePosterior | None = None,
    num_candidates: int | None = None,
    num_samples: int = 50,
    num_leapfrog: int = 4,
    num_warmup: int = 50,
    num_transitions: int = 50,
    target: float = 0.9,
    jitter: float = 0.2,
    generator: Generator,
    batch_size: int = 10,
) -> FromPosterior:
    r"""Estimate log p(x) of each datum from S draws of its posterior, with q fitted to S others. Chapter 6.

    A datum costs 2 S (warm-up + transitions) leapfrog steps, each a gradient of log p(x, z): 40,000 if nothing else is
    asked for.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel` with log p(x, z) differentiable in z. Modules are evaluated
        in evaluation mode, and have their own mode back afterwards. Not checked: that the posterior is positive
        everywhere. Where it ends, q spills over, the value is too high by minus the log of what is left of q, and the
        terms have infinite variance if the posterior falls to zero there at least in proportion to the distance.
    x
        Data, ``(N, D)``, finite.
    start
        Where chains begin: draws of this encoder. Draws of the prior if not given.
    num_candidates
        Chains begin at draws from that many candidates, picked in proportion to their importance weights. If not given,
        candidates and chains are the same. Where the posterior has several modes, a chain that begins anywhere may end
        in one that holds next to nothing of p(x); the value is then too low by many nats, and its error does not show
        it. With some thousand candidates every mode has its share of the chains, if there are few latents.
    num_samples
        S, at least L + 2. The paper takes 50.
    num_leapfrog
        Leapfrog steps in a transition. The paper takes 4.
    num_warmup
        Transitions during which the step size of each datum is tuned, from 0.1 on.
    num_transitions
        Transitions with the tuned step size. They must be enough to forget what came before.
    target
        The rate of acceptance to aim at.
    jitter
        See :func:`~vae_lib.mcmc.hmc`.
    generator
        The source of randomness.
    batch_size
        Data in a pass, which decodes 2 S latents for each. Another size makes other draws.

    Raises
    ------
    TypeError, ValueError
        If the data are not finite, a shape is not the promised one, log p(x, z) is not finite where a chain begins, or
        all chains of a datum stand still.
    """
    checks.shape("x", x, ("N", model.data_dim))
    checks.finite("x", x)
    checks.positive_int("num_samples", num_samples)
    if num_samples < model.latent_dim + 2:
        raise ValueError(f"num_samples: expected at least L + 2 = {model.latent_dim + 2}, found {num_samples}")
    checks.positive_int("batch_size", batch_size)
    if num_candidates is not None:
        checks.positive_int("num_candidates", num_candidates)

    def prior(x: Tensor) -> Density:
        return model.prior(x.shape[0])

    def one_pass(batch: Tensor) -> FromPosterior:
        begin = _beginnings(model, begin_at, batch, 2 * num_samples, num_candidates, generator)
        chains, _ = tuned_hmc(
            lambda z: log_joint(model, batch, z),
            begin,
            num_warmup=num_warmup,
            num_transitions=num_transitions,
            num_leapfrog=num_leapfrog,
            target=target,
            per_datum=True,
            jitter=jitter,
            generator=generator,
        )
        fitted, fresh = chains.z.split(num_samples)
        terms = _fit_normal(fitted).log_prob(fresh) - chains.log_density[num_samples:]
        reciprocal = MarginalLikelihood.from_log_weights(terms)
        return FromPosterior(-reciprocal.value, *reciprocal[1:], chains.acceptance.mean(0))

    begin_at: ApproximatePosterior = prior if start is None else start
    with evaluating(model, start):
        passes = [one_pass(batch) for batch in x.split(batch_size)]
    return FromPosterior(*(torch.cat(values) for values in zip(*passes, strict=True)))


def _beginnings(
    model: LatentVariableModel,
    start: ApproximatePosterior,
    x: Tensor,
    count: int,
    num_candidates: int | None,
    generator: Generator,
) -> Tensor:
    """Where the chains of each datum begin, ``(count, B, L)``."""
    q, z = draw(model, start, x, num_samples=num_candidates or count, generator=generator)
    if num_candidates is None:
        return z
    log_w = in_parts(lambda part: log_weights(model, q, x, part), z, 1000)
    picked = torch.multinomial(
        torch.softmax(log_w.T, dim=1), count, replacement=True, generator=generator
    )  # (B, count)
    return z.gather(0, picked.T.unsqueeze(-1).expand(-1, -1, z.shape[-1]))


def _fit_normal(z: Tensor) -> FullNormal:
    """The normal with the mean and the covariance (divided by S - 1) of draws ``(S, B, L)``, one for each datum."""
    mu = z.mean(0)
    centred = (z - mu).transpose(0, 1)  # (B, S, L)
    return FullNormal.from_covariance(mu, centred.mT @ centred / (z.shape[0] - 1))
