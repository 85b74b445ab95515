r"""EM as coordinate ascent on the ELBO, and variational EM with a q that is not allowed everything.

.. math:: \text{E-step: } q \leftarrow \operatorname*{argmax}_{q \in \mathcal Q} \mathrm{ELBO}(q, \theta), \qquad
          \text{M-step: } \theta \leftarrow \operatorname*{argmax}_\theta \mathrm{ELBO}(q, \theta)

With no restriction on q the E-step finds the posterior and the bound meets log p(x): Dempster, Laird and Rubin (1977)
in the reading of Neal and Hinton (1998). With a restricted family it is variational EM. Either way no half-step lowers
the ELBO, and :func:`run_em` checks it. Chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.protocols import Density

Q = TypeVar("Q", bound=Density)


class ModelWithElbo(Protocol):
    """An exact model that knows the ELBO of a q without sampling, as those of ``vae_lib.exact`` do."""

    def log_p_x(self, x: Tensor) -> Tensor:
        """The evidence, ``(B,)``, in nats."""

    def elbo(self, x: Tensor, q: Q) -> Tensor:
        """The ELBO of q, ``(B,)``, in nats."""


M = TypeVar("M", bound=ModelWithElbo)


class BoundFellError(ArithmeticError):
    """A half-step lowered the ELBO, which a right E- or M-step cannot do."""


@dataclass(frozen=True)
class EMRun(Generic[M]):
    """What happened: one entry for each iteration, in nats per datum.

    ``models`` has one more entry than the others: the start.
    """

    models: list[M]
    elbo_after_e: list[float]
    elbo_after_m: list[float]
    log_p_x: list[float]


def run_em(
    model: M,
    x: Tensor,
    *,
    e_step: Callable[[M, Tensor], Density],
    m_step: Callable[[Tensor, Density], M],
    num_steps: int,
) -> EMRun[M]:
    """Alternate E- and M-steps and check after each that the ELBO has not fallen.

    Parameters
    ----------
    model
        Where to start.
    x
        Data, ``(N, D)``.
    e_step
        Takes a model and the data, returns q: :func:`exact`, or one of the restricted ones.
    m_step
        Takes the data and q, returns the best model for that q.
    num_steps
        How many iterations, each an E-step and an M-step.

    Returns
    -------
    EMRun
        Models, ELBO after each half-step, and log p(x) of the models before each iteration.

    Raises
    ------
    BoundFellError
        If a half-step lowers the ELBO by more than rounding.
    """
    checks.positive_int("num_steps", num_steps)
    checks.shape("x", x, ("N", "D"))
    checks.finite("x", x)
    run: EMRun[M] = EMRun([model], [], [], [])
    for step in range(1, num_steps + 1):
        q = e_step(model, x)
        after_e = _mean(model.elbo(x, q))
        if run.elbo_after_m:
            _check_rise("E", step, run.elbo_after_m[-1], after_e, x)
        run.log_p_x.append(_mean(model.log_p_x(x)))
        model = m_step(x, q)
        after_m = _mean(model.elbo(x, q))
        _check_rise("M", step, after_e, after_m, x)
        run.models.append(model)
        run.elbo_after_e.append(after_e)
        run.elbo_after_m.append(after_m)
    return run


class WithPosterior(Protocol):
    """A model with an exact posterior."""

    def posterior(self, x: Tensor) -> Density:
        """p(z | x) for each datum."""


def exact(model: WithPosterior, x: Tensor) -> Density:
    """Do the E-step of EM proper: q is the posterior, and the ELBO is log p(x)."""
    return model.posterior(x)


def _mean(values: Tensor) -> float:
    return float(values.detach().mean())


def _check_rise(half: str, step: int, before: float, after: float, x: Tensor) -> None:
    # The ELBO is a sum over the data of D terms of about its own size; allow their rounding.
    slack = 100.0 * torch.finfo(x.dtype).eps * x.shape[1] * max(1.0, abs(before))
    if not after >= before - slack:
        raise BoundFellError(
            f"{half}-step {step}: expected an ELBO of at least {before:.12g} nats per datum, found {after:.12g}"
        )
