r"""log p(x) from below and from above by annealed importance sampling: chains between a start and the posterior.

.. math:: \pi_\beta(z) \propto r(z)^{1 - \beta}\, p(x, z)^\beta, \qquad
          \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \left[ \log p(x, z_{t-1}) - \log r(z_{t-1}) \right]

with :math:`z_0 \sim r` and z_t moved from z_(t-1) by a transition that leaves :math:`\pi_{\beta_t}` as it is. Then
E[w] = p(x) however well the chains mix (Neal, 2001): one chain is one importance weight, and T = 1 is importance
sampling with r as the proposal. Run backwards from an exact draw of the posterior, the same sum has
E[1 / w] = 1 / p(x). By Jensen's inequality the first gives a stochastic lower bound of log p(x) and the second a
stochastic upper bound: the bidirectional Monte Carlo of Grosse, Ghahramani and Adams (2015).

How near: with transitions that mix perfectly, the expected gap of one chain is
:math:`\sum_t D_{\mathrm{KL}}(\pi_{\beta_{t-1}} \,\|\, \pi_{\beta_t})`. Let :math:`\ell = \log p(x, z) - \log r(z)`; its
mean on the path has the slope :math:`\frac{d}{d\beta} \mathbb E_\beta[\ell] = \operatorname{Var}_\beta[\ell]`, and on a
linear schedule the gap is

.. math:: \frac{1}{2T} \int_0^1 \operatorname{Var}_\beta[\ell]\, d\beta + O(T^{-2}) = \frac{1}{2T}
          \left[ D_{\mathrm{KL}}(r \,\|\, p(z \mid x)) + D_{\mathrm{KL}}(p(z \mid x) \,\|\, r) \right] + O(T^{-2})

and the same above, so twice the temperatures halve the gap.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.evaluation.chains import PILOT_CHAINS, AnnealedPath, Between, pilot, walk
from vae_lib.evaluation.marginal_likelihood import MarginalLikelihood
from vae_lib.evaluation.passes import draw, evaluating
from vae_lib.protocols import ApproximatePosterior, LatentVariableModel


class Annealed(NamedTuple):
    r"""Estimates of log p(x), ``(N,)`` each, and the chains' log-weights.

    - ``value``, in nats. In expectation it is at most log p(x) for chains that run forwards, at least log p(x) for
      chains that run backwards.
    - ``standard_error``, in nats, of the S chains, by the delta method.
    - ``effective_sample_size``, from 1 to S, and ``largest_weight``, the share of the largest in the sum: of the
      weights w forwards, of 1 / w backwards. The latter have heavy tails where there are few temperatures.
    - ``acceptance``: accepted transitions, on average over chains and temperatures; 1 where there is no transition.
    - ``log_weights``, ``(S, N)``, in nats: log w, in both directions.

    What :class:`~vae_lib.evaluation.MarginalLikelihood` says of draws holds for chains too: a mode that no chain finds
    is missing from the value forwards, and from its error.
    """

    value: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    largest_weight: Tensor
    acceptance: Tensor
    log_weights: Tensor


def annealed_log_p_x(
    model: LatentVariableModel,
    x: Tensor,
    *,
    path: AnnealedPath,
    start: ApproximatePosterior | None = None,
    num_chains: int = 16,
    generator: Generator,
    rows: int = 10_000,
) -> Annealed:
    r"""Estimate log p(x) of each datum by chains that run forwards: a stochastic lower bound.

    Wu, Burda, Salakhutdinov and Grosse (2017) evaluate decoders this way. First a pilot run of a few chains tunes a
    step size for each datum and temperature; then these are fixed, and new chains make the weights. Step sizes that
    adapted to the chains that are being weighted would make a transition depend on the past of its own chain, which
    need not leave its target as it is, and E[w] = p(x) would be lost. Chapter 8.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel` with real latents and log p(x, z) differentiable in z.
        Modules are evaluated in evaluation mode, and have their own mode back afterwards. *Not* checked: that latents
        with a gradient are not codes of discrete values.
    x
        Data, ``(N, D)``, finite.
    path
        Temperatures and transitions.
    start
        Where chains begin: the prior if it is not given, or an encoder. From q they have a shorter way; a mode that q
        does not reach they will hardly find.
    num_chains
        S, at least 2.
    generator
        The source of randomness.
    rows
        About how many chains run at a time, and at least S. It bounds memory; another number makes other draws.

    Returns
    -------
    Annealed
        Values with errors, ``(N,)`` each, and log-weights.

    Raises
    ------
    ValueError, TypeError
        If the data are not finite, a shape is not the promised one, or log p(x, z) has no gradient in z.
    """
    _check_data(model, x, rows)
    _check_chains("num_chains", num_chains)

    def one_group(group: Tensor) -> tuple[Tensor, Tensor]:
        between, z, step_sizes = _prepared(model, start, group, path, num_chains, generator)
        return walk(between, z, path, step_sizes, backwards=False, generator=generator)

    with evaluating(model, start):
        log_w, acceptance = _joined([one_group(group) for group in x.split(max(1, rows // num_chains))])
    return Annealed(*MarginalLikelihood.from_log_weights(log_w), acceptance, log_w)


def reverse_annealed_log_p_x(
    model: LatentVariableModel,
    x: Tensor,
    z: Tensor,
    *,
    path: AnnealedPath,
    start: ApproximatePosterior | None = None,
    generator: Generator,
    rows: int = 10_000,
) -> Annealed:
    r"""Estimate log p(x) of each datum by chains that run backwards from the posterior: a stochastic upper bound.

    .. math:: -\log \frac1S \sum_{s=1}^S \frac{1}{w_s}

    It is one only if every z is an *exact* draw of p(z | x). There are two places to have one from: a model whose
    posterior is known, and data that the model itself made (:func:`simulate`), for then the z that made x is such a
    draw. On real data there is none. From an approximate draw, such as the end of another chain, the value is merely a
    number: it may lie on either side of log p(x), and most easily too low, because chains that never saw a mode do not
    see it backwards either. What can be said on real data is this: measure the gap between both bounds on simulated
    data, and trust the lower bound on real ones as far as these are like the simulated.

    Parameters
    ----------
    model, x, path, start, generator, rows
        As for :func:`annealed_log_p_x`; ``start`` is where these chains end.
    z
        Exact draws from the posterior of each datum, ``(S, N, L)``, one for each chain, S at least 2. Chains may have
        one draw in common (``z.expand(S, -1, -1)``): the value is an upper bound as before, but the standard error
        leaves out how it varies with the draw, which only the spread over data then shows. *Not* checked: that these
        are draws from the posterior.

    Returns
    -------
    Annealed
        Values with errors, ``(N,)`` each, and log-weights.

    Raises
    ------
    ValueError, TypeError
        As for :func:`annealed_log_p_x`.
    """
    _check_data(model, x, rows)
    checks.shape("z", z, ("S", x.shape[0], model.latent_dim), like=x)
    checks.finite("z", z)
    num_chains = z.shape[0]
    _check_chains("z", num_chains)

    def one_group(group: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        between, _, step_sizes = _prepared(model, start, group, path, num_chains, generator)
        return walk(between, first, path, step_sizes, backwards=True, generator=generator)

    size = max(1, rows // num_chains)
    with evaluating(model, start):
        groups = zip(x.split(size), z.detach().split(size, dim=1), strict=True)
        log_w, acceptance = _joined([one_group(*group) for group in groups])
    estimate = MarginalLikelihood.from_log_weights(-log_w)
    return Annealed(*estimate._replace(value=-estimate.value), acceptance, log_w)


def simulate(model: LatentVariableModel, num_data: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
    """Data ``x (N, D)`` from the model, and the latents ``z (1, N, L)`` that made them.

    Given x, such a z is an exact draw from p(z | x): both are one draw of p(x, z).

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel`.
    num_data
        N.
    generator
        The source of randomness.
    """
    checks.positive_int("num_data", num_data)
    with evaluating(model):
        z = model.prior(num_data).sample(1, generator=generator)
        checks.shape("prior(N).sample(1)", z, (1, num_data, model.latent_dim))
        x = model.sample_x_given_z(z, generator=generator)
        checks.shape("sample_x_given_z(z)", x, (1, num_data, model.data_dim))
        return x.squeeze(0), z


def _prepared(
    model: LatentVariableModel,
    start: ApproximatePosterior | None,
    x: Tensor,
    path: AnnealedPath,
    num_chains: int,
    generator: Generator,
) -> tuple[Between, Tensor, list[Tensor]]:
    """The densities, draws ``(S, B, L)`` of the first, and step sizes ``(B,)`` for each temperature between."""
    encoder = start if start is not None else lambda batch: model.prior(batch.shape[0])
    first, z = draw(model, encoder, x, num_samples=num_chains + PILOT_CHAINS, generator=generator)
    between = Between(model, first, x)
    return between, z[PILOT_CHAINS:], pilot(between, z[:PILOT_CHAINS], path, generator)


def _joined(groups: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    log_w, acceptance = zip(*groups, strict=True)
    return torch.cat(log_w, dim=1), torch.cat(acceptance)


def _check_data(model: LatentVariableModel, x: Tensor, rows: int) -> None:
    checks.shape("x", x, ("N", model.data_dim))
    checks.finite("x", x)
    checks.positive_int("rows", rows)


def _check_chains(name: str, count: int) -> None:
    checks.positive_int(name, count)
    if count < 2:
        raise ValueError(f"{name}: expected at least 2 chains, for an error bar, found {count}")
