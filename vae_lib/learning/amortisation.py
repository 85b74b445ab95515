r"""From parameters for each datum to one function of the datum, and what that costs.

.. math:: \log p(x) - \mathrm{ELBO}(f_\phi(x))
          = \underbrace{\log p(x) - \max_{q \in \mathcal Q} \mathrm{ELBO}(q)}_{\text{approximation gap}}
          + \underbrace{\max_{q \in \mathcal Q} \mathrm{ELBO}(q) - \mathrm{ELBO}(f_\phi(x))}_{\text{amortisation gap}}

Cremer, Li and Duvenaud (2018). Chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.gradients.objective import Params


class InferenceGap(NamedTuple):
    """Both parts of what a bound misses, ``(B,)`` each, in nats."""

    approximation: Tensor
    amortisation: Tensor


def inference_gap(log_p_x: Tensor, best: Tensor, amortised: Tensor) -> InferenceGap:
    """Split what an amortised bound misses.

    Parameters
    ----------
    log_p_x
        The evidence of each datum, ``(B,)``, in nats.
    best
        The ELBO of the best q of the family for each datum, ``(B,)``, in nats.
    amortised
        The ELBO of the q that the encoder gives, ``(B,)``, in nats.

    Raises
    ------
    ValueError
        If a number is out of order by more than rounding: then ``best`` was not the best, or one is no ELBO.
    """
    checks.shape("log_p_x", log_p_x, ("B",))
    checks.shape("best", best, tuple(log_p_x.shape), like=log_p_x)
    checks.shape("amortised", amortised, tuple(log_p_x.shape), like=log_p_x)
    gap = InferenceGap(log_p_x - best, best - amortised)
    slack = 1e3 * torch.finfo(log_p_x.dtype).eps * float(log_p_x.detach().abs().max().clamp(min=1.0))
    for name, values in (("log_p_x - best", gap.approximation), ("best - amortised", gap.amortisation)):
        lowest = float(values.detach().min())
        if not lowest >= -slack:
            raise ValueError(f"{name}: expected no negative gap, found {lowest:.3g} nats")
    return gap


def maximise(
    bound: Callable[[Params], Tensor], start: Params, *, max_steps: int = 200, tol: float = 1e-10
) -> dict[str, Tensor]:
    """Climb to a local maximum of a deterministic bound: L-BFGS with a line search, from PyTorch.

    Parameters
    ----------
    bound
        Takes named parameters, returns values of any shape whose sum is maximised. With parameters for each datum the
        sum falls apart into one problem for each.
    start
        Where to begin.
    max_steps
        The most L-BFGS iterations.
    tol
        The largest slope, in nats per unit, at which to stop.

    Raises
    ------
    ArithmeticError
        If a slope above the root of ``tol`` is left when the steps are used up, or the bound is not a number.
    """
    checks.positive_int("max_steps", max_steps)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    optimiser = torch.optim.LBFGS(
        list(leaves.values()),
        max_iter=max_steps,
        max_eval=4 * max_steps,
        tolerance_grad=tol,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimiser.zero_grad()
        loss = -bound(leaves).sum()
        if bool(loss.isnan()):
            raise ArithmeticError("maximise: expected a bound that is a number wherever the ascent looks, found nan")
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    closure()
    slope = max(float(leaf.grad.abs().max()) for leaf in leaves.values() if leaf.grad is not None)
    if not slope <= tol**0.5:
        raise ArithmeticError(f"maximise: expected a slope of at most {tol**0.5:g}, found {slope:.3g}; take more steps")
    return {name: leaf.detach() for name, leaf in leaves.items()}
