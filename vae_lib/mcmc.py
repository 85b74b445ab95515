r"""Hamiltonian Monte Carlo: many independent Markov chains at once, whose distribution tends to a given density.

A transition draws a momentum :math:`p \sim \mathcal N(0, I)`, follows Hamilton's equations for a while, and accepts
where it arrives with probability :math:`\min(1, e^{H - H'})`, where :math:`H = -\log \pi(z) + \tfrac12 \lVert p
\rVert^2` is the energy. The equations are solved by leapfrog steps of size :math:`\varepsilon`, which can be run
backwards and keep volumes, so the test makes up for their error exactly:

.. math:: p \leftarrow p + \tfrac\varepsilon2 \nabla \log \pi(z), \qquad z \leftarrow z + \varepsilon p, \qquad
          p \leftarrow p + \tfrac\varepsilon2 \nabla \log \pi(z)

Duane et al. (1987); Neal (2011). The mass matrix is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor

from vae_lib import checks

# Takes z (S, B, L), returns the log of a density, up to a constant of each chain, (S, B).
LogDensity: TypeAlias = Callable[[Tensor], Tensor]


class Transition(NamedTuple):
    """Where S x B chains arrived; nothing here carries a gradient.

    - ``z``, ``(S, B, L)``.
    - ``log_density`` at z, ``(S, B)``, in nats.
    - ``acceptance``, ``(S, B)``: the probability of acceptance, averaged over the transitions.
    """

    z: Tensor
    log_density: Tensor
    acceptance: Tensor


class _Place(NamedTuple):
    z: Tensor
    log_density: Tensor
    gradient: Tensor


def hmc(
    log_density: LogDensity,
    z: Tensor,
    *,
    step_size: float | Tensor,
    num_leapfrog: int = 10,
    num_transitions: int = 1,
    jitter: float = 0.0,
    generator: Generator,
) -> Transition:
    r"""Move S x B independent chains by transitions that leave the density invariant.

    A transition costs ``num_leapfrog`` gradients of all chains at once, and a call one more. A proposal whose energy is
    not finite is rejected. What is not checked: that the log-density is finite where a chain starts. A chain that
    starts where it is not a number stays there, with acceptance 0.

    Parameters
    ----------
    log_density
        Takes ``(S, B, L)``, returns ``(S, B)``, in nats up to a constant; differentiable in z, each chain a function
        of its own z alone. Far out, where a step was too long, it may return infinities or NaN, but should not raise.
    z
        Where the chains are, ``(S, B, L)``.
    step_size
        :math:`\varepsilon`: a number; or a tensor ``()``, ``(B,)`` for one a datum, or ``(S, B)`` for one a chain.
    num_leapfrog
        Leapfrog steps in a transition.
    num_transitions
        Transitions.
    jitter
        From 0 to below 1. Each transition of each chain multiplies its step size by a number drawn uniformly from
        :math:`1 \pm` this. Without it a trajectory may be as long as a period of the motion, and come back to where it
        began: on a normal density of some widths such a chain hardly moves (Neal, 2011).
    generator
        The source of randomness.

    Raises
    ------
    TypeError, ValueError
        If an argument has not the promised shape, type or range.
    """
    checks.positive_int("num_transitions", num_transitions)
    step, place = _begin(log_density, z, step_size, num_leapfrog, jitter)
    total = torch.zeros_like(place.log_density)
    for _ in range(num_transitions):
        place, acceptance = _transition(log_density, place, step, num_leapfrog, jitter, generator)
        total += acceptance
    return Transition(place.z, place.log_density, total / num_transitions)


def tuned_hmc(
    log_density: LogDensity,
    z: Tensor,
    *,
    num_warmup: int,
    num_transitions: int = 1,
    num_leapfrog: int = 10,
    target: float = 0.9,
    step_size: float | Tensor = 0.1,
    per_datum: bool = False,
    jitter: float = 0.0,
    generator: Generator,
) -> tuple[Transition, Tensor]:
    r"""Tune the step size to a rate of acceptance while the chains warm up, then fix it and move on.

    By dual averaging (Nesterov, 2009) with the constants of Hoffman and Gelman (2014, section 3.2). After transition t
    of the warm-up, with :math:`\bar a_i` the mean acceptance of the chains that share a step size,

    .. math:: \log \varepsilon_{t+1} = \log(10\, \varepsilon_1) -
              \frac{\sqrt t}{0.05\,(t + 10)} \sum_{i \le t} (\text{target} - \bar a_i), \qquad
              \log \bar\varepsilon_t = t^{-0.75} \log \varepsilon_{t+1} + (1 - t^{-0.75}) \log \bar\varepsilon_{t-1}

    and what is fixed is :math:`\bar\varepsilon`. While the step size changes, the chains do not leave the density
    invariant: what counts are the transitions after the warm-up.

    Parameters
    ----------
    log_density, z, num_leapfrog, jitter, generator
        As for :func:`hmc`.
    num_warmup
        Transitions with a step size that is tuned. Some fifty find it; more may be needed to forget where chains began.
    num_transitions
        Transitions with the fixed step size.
    target
        The rate of acceptance to aim at, between 0 and 1.
    step_size
        The first one, :math:`\varepsilon_1`, as for :func:`hmc`; of one a chain the geometric mean counts.
    per_datum
        One step size for each of the B data, from its S chains, instead of one for all.

    Returns
    -------
    tuple[Transition, Tensor]
        The transitions after the warm-up, and the step size: ``(B,)`` if there is one a datum, else ``()``.

    Raises
    ------
    TypeError, ValueError
        If an argument has not the promised shape, type or range, or the log-density is not finite at z.
    """
    checks.positive_int("num_warmup", num_warmup)
    checks.positive_int("num_transitions", num_transitions)
    if not 0.0 < target < 1.0:
        raise ValueError(f"target: expected a number between 0 and 1, found {target!r}")
    step, place = _begin(log_density, z, step_size, num_leapfrog, jitter)
    checks.finite("log_density(z)", place.log_density)
    axes = (0,) if per_datum else (0, 1)
    start = step.squeeze(-1).log().expand(place.log_density.shape).mean(axes)  # (B,) or ()
    anchor, shortfall, average = start + math.log(10.0), torch.zeros_like(start), torch.zeros_like(start)
    log_step = start
    for t in range(1, num_warmup + 1):
        place, acceptance = _transition(log_density, place, log_step.exp()[..., None], num_leapfrog, jitter, generator)
        shortfall = shortfall + target - acceptance.mean(axes)
        log_step = anchor - t**0.5 / (0.05 * (t + 10)) * shortfall
        average = torch.lerp(average, log_step, t**-0.75)
    tuned = average.exp()
    moved = hmc(
        log_density,
        place.z,
        step_size=tuned,
        num_leapfrog=num_leapfrog,
        num_transitions=num_transitions,
        jitter=jitter,
        generator=generator,
    )
    return moved, tuned


def _transition(
    log_density: LogDensity, start: _Place, step: Tensor, num_leapfrog: int, jitter: float, generator: Generator
) -> tuple[_Place, Tensor]:
    """One transition, and its probability of acceptance ``(S, B)``."""
    z, like = start.z, start.log_density
    if jitter:
        uniform = torch.rand(like.shape, generator=generator, dtype=z.dtype, device=z.device)
        step = step * (1.0 - jitter + 2.0 * jitter * uniform).unsqueeze(-1)
    momentum = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
    end, end_momentum = _leapfrog(log_density, start, momentum, step, num_leapfrog)
    kinetic_loss = 0.5 * (momentum.square() - end_momentum.square()).sum(-1)
    # Where this is NaN or plus infinity, the trajectory went astray.
    log_ratio = end.log_density - start.log_density + kinetic_loss
    acceptance = log_ratio.exp().clamp(max=1.0).masked_fill(~end.log_density.isfinite() | log_ratio.isnan(), 0.0)
    accepted = torch.rand(like.shape, generator=generator, dtype=z.dtype, device=z.device) < acceptance
    wide = accepted.unsqueeze(-1)
    place = _Place(
        torch.where(wide, end.z, z),
        torch.where(accepted, end.log_density, start.log_density),
        torch.where(wide, end.gradient, start.gradient),
    )
    return place, acceptance


def _leapfrog(
    log_density: LogDensity, place: _Place, momentum: Tensor, step: Tensor, count: int
) -> tuple[_Place, Tensor]:
    """Follow Hamilton's equations; the half steps of the momentum between two places are taken as one."""
    momentum = torch.addcmul(momentum, step, place.gradient, value=0.5)
    for number in range(1, count + 1):
        place = _at(log_density, torch.addcmul(place.z, step, momentum))
        momentum = torch.addcmul(momentum, step, place.gradient, value=1.0 if number < count else 0.5)
    return place, momentum


def _at(log_density: LogDensity, z: Tensor) -> _Place:
    """Evaluate log-density and gradient; only z is differentiated, whatever weights the density has."""
    leaf = z.detach().requires_grad_()
    with torch.enable_grad():
        value = log_density(leaf)
        checks.shape("log_density(z)", value, tuple(z.shape[:2]), like=z)
        if not value.requires_grad:
            raise TypeError("log_density: expected a differentiable function of z, found values without a gradient")
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return _Place(z, value.detach(), gradient)


def _begin(
    log_density: LogDensity, z: Tensor, step_size: float | Tensor, num_leapfrog: int, jitter: float
) -> tuple[Tensor, _Place]:
    """Check the arguments; return the step size, as one that multiplies ``(S, B, L)``, and the first place."""
    checks.shape("z", z, ("S", "B", "L"))
    checks.positive_int("num_leapfrog", num_leapfrog)
    if not 0.0 <= jitter < 1.0:
        raise ValueError(f"jitter: expected a number from 0 to below 1, found {jitter!r}")
    samples, batch, _ = z.shape
    if isinstance(step_size, Tensor):
        if tuple(step_size.shape) not in ((), (batch,), (samples, batch)):
            expected = f"(), (B,) = {(batch,)} or (S, B) = {(samples, batch)}"
            raise ValueError(f"step_size: expected shape {expected}, found {tuple(step_size.shape)}")
        checks.shape("step_size", step_size, tuple(step_size.shape), like=z)
        step = step_size.detach().unsqueeze(-1)
    else:
        if not (isinstance(step_size, int | float) and 0.0 < step_size < math.inf):
            raise ValueError(f"step_size: expected a positive number, found {step_size!r}")
        step = torch.tensor([step_size], dtype=z.dtype, device=z.device)
    return step, _at(log_density, z.detach())
