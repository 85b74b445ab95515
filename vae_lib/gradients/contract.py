"""The one contract of all gradient estimators, and the vectorised differentiation behind it.

An estimator takes an objective, parameters, and how many independent estimates of how many draws each; it returns one
gradient for each estimate, never their average. One call so serves training (one estimate), tests of unbiasedness and
the measurement of variance (many).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from torch.func import grad, vmap

from vae_lib import checks
from vae_lib.gradients.objective import Objective, Params
from vae_lib.protocols import Noise

Gradients = dict[str, Tensor]
# (params, the draws or noise of one estimate) -> (a scalar whose gradient is the estimate, values to keep)
Surrogate = Callable[[Params, Any], tuple[Tensor, Tensor]]


class GradientEstimator(Protocol):
    """An estimator of the gradient of an :class:`~vae_lib.gradients.Objective`."""

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
        """Return independent estimates of the gradient.

        Parameters
        ----------
        objective
            The expectation.
        params
            Where to differentiate. All its tensors are differentiated.
        num_estimates
            R, how many independent estimates.
        num_samples
            S, how many draws of z, for each datum, one estimate averages.
        generator
            The source of randomness.
        vectorised
            Differentiate all estimates in one call. A model with control flow that depends on values cannot be; set
            it to False and each estimate is taken in turn, by ordinary automatic differentiation.

        Returns
        -------
        dict
            For each parameter its gradients, ``(R, *shape of the parameter)``.
        """


def check_counts(num_estimates: int, num_samples: int) -> None:
    """Check that both are positive integers."""
    checks.positive_int("num_estimates", num_estimates)
    checks.positive_int("num_samples", num_samples)


def check_params(params: Params) -> None:
    """Check that there are parameters, and that they are floating-point tensors."""
    if not params:
        raise ValueError("params: expected at least one named tensor, found none")
    for name, value in params.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"params[{name!r}]: expected a floating-point tensor, found {kind}")


def regroup(noise: Noise, num_estimates: int) -> Noise:
    """Split the first axis of each tensor, ``(R S, ...)``, into estimates and their samples, ``(R, S, ...)``."""
    if isinstance(noise, tuple):
        return tuple(regroup(part, num_estimates) for part in noise)
    return noise.reshape(num_estimates, -1, *noise.shape[1:])


def differentiate(
    surrogate: Surrogate, params: Params, draws: Noise, *, vectorised: bool = True
) -> tuple[Gradients, Tensor]:
    """Differentiate a surrogate for each estimate.

    Parameters
    ----------
    surrogate
        Takes the parameters and the draws of one estimate; returns a scalar, and a tensor to keep.
    params
        Where to differentiate.
    draws
        A tensor or tuple of tensors ``(R, S, ...)``.
    vectorised
        One call for all estimates (``torch.func.vmap``), or a loop.

    Returns
    -------
    tuple
        Gradients ``(R, ...)`` by name, and the kept tensors, ``(R, ...)``.

    Raises
    ------
    RuntimeError
        If the surrogate runs on one estimate, but not on all in one call.
    """
    if vectorised:
        start = {name: value.detach() for name, value in params.items()}
        try:
            gradients, kept = vmap(grad(surrogate, has_aux=True), in_dims=(None, 0))(start, draws)
        except RuntimeError as error:
            differentiate_one(surrogate, params, _pick(draws, 0))  # an error that is not vmap's shows itself here
            reason = textwrap.shorten(str(error), 100, placeholder=" ...")
            raise RuntimeError(
                f"vectorised: expected functions that torch.func.vmap can run, found one that it cannot ({reason}); "
                "vectorised=False takes the estimates one by one"
            ) from error
        return gradients, kept
    each = [differentiate_one(surrogate, params, _pick(draws, i)) for i in range(_length(draws))]
    stacked = {name: torch.stack([gradient[name] for gradient, _ in each]) for name in params}
    return stacked, torch.stack([kept for _, kept in each])


def differentiate_one(surrogate: Surrogate, params: Params, draws: Any) -> tuple[Gradients, Tensor]:
    """Differentiate a surrogate for one estimate, in whatever way the model computes."""
    with torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        value, kept = surrogate(leaves, draws)
        if not value.requires_grad:
            return {name: torch.zeros_like(leaf) for name, leaf in params.items()}, kept
        gradients = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    # PyTorch 2.4 lets the zeros of an unused parameter ask for a gradient of their own.
    return {name: gradient.detach() for name, gradient in zip(leaves, gradients, strict=True)}, kept


def _length(draws: Noise) -> int:
    size: int = _length(draws[0]) if isinstance(draws, tuple) else draws.shape[0]
    return size


def _pick(draws: Noise, i: int) -> Noise:
    return tuple(_pick(part, i) for part in draws) if isinstance(draws, tuple) else draws[i]
