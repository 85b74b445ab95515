r"""What is differentiated: an expectation whose distribution depends on the parameters.

.. math:: J(\phi) = \sum_{b=1}^B \mathbb E_{q_\phi(z_b)}\big[ f_\phi(z)_b \big]

An :class:`Objective` holds the two functions that make it, :math:`\phi \mapsto q_\phi` and :math:`f_\phi`. Parameters
are a dictionary of named tensors, so that they may be the mean of one density, one set for each datum, or all the
weights of an encoder network (and of a decoder). Every estimator of this package takes the same objective.

The data are summed, not averaged: where each datum has parameters of its own, its gradient then does not depend on
who else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import functional_call

from vae_lib import checks
from vae_lib.bounds import elbo_with_analytic_kl, log_weights
from vae_lib.protocols import Density, FactorisedDensity, LatentVariableModel

Params = Mapping[str, Tensor]
Family = Callable[[Params], Density]
Integrand = Callable[[Params, Density, Tensor], Tensor]
ModelFamily = Callable[[Params], LatentVariableModel]


@dataclass(frozen=True)
class Objective:
    """A sum of expectations over a family of densities.

    Parameters
    ----------
    family
        Takes the parameters, returns a density of batch size B.
    integrand
        Takes the parameters, that density and draws ``z (S, B, L)``, returns ``(S, B)``. It may depend on the
        parameters directly and on the density, as the ELBO's integrand does.
    local_terms
        For :class:`~vae_lib.gradients.RaoBlackwell`: as ``integrand``, but returns ``(S, B, L)``, in entry l the sum
        of only those terms of the integrand that depend on the coordinate :math:`z_l`.
    relaxed
        For :class:`~vae_lib.gradients.GumbelSoftmax` with categories: the integrand on points of the simplex,
        ``(S, B, L, K)``, which on its corners must be the integrand itself.
    x
        The data the objective is about, ``(B, D)``, for baselines that look at them.
    only_log_q
        Whether the integrand uses q through its log-density alone. Only then may
        :func:`~vae_lib.gradients.sticking_the_landing` hold q fixed inside: the score that it drops has mean zero.
    """

    family: Family
    integrand: Integrand
    local_terms: Integrand | None = None
    relaxed: Integrand | None = None
    x: Tensor | None = None
    only_log_q: bool = True

    def values(self, params: Params, q: Density, z: Tensor) -> Tensor:
        """Evaluate the integrand at ``z (S, B, L)`` and check its shape, ``(S, B)``."""
        values = self.integrand(params, q, z)
        checks.shape("integrand(params, q, z)", values, (z.shape[0], z.shape[1]))
        return values


def expectation(family: Family, f: Callable[[Tensor], Tensor]) -> Objective:
    """The expectation of a plain function of z, which takes ``(S, B, L)`` and returns ``(S, B)``."""
    return Objective(family, lambda _params, _q, z: f(z))


def sgvb_a(model: LatentVariableModel | ModelFamily, family: Family, x: Tensor) -> Objective:
    r"""The ELBO with integrand :math:`\log p(x, z) - \log q_\phi(z \mid x)`.

    Pathwise gradients of it are estimator A of Kingma and Welling (2014), equation 6. Where q and the prior have
    independent coordinates, the local terms for Rao-Blackwellisation are filled in.

    Parameters
    ----------
    model
        A model, or a function that takes the parameters and returns one, so that the decoder learns as well.
    family
        Takes the parameters, returns :math:`q_\phi(z \mid x)` for these data: :func:`amortised` makes one of a network.
    x
        Data, ``(B, D)``.
    """
    model_of = _model_family(model)

    def integrand(params: Params, q: Density, z: Tensor) -> Tensor:
        return log_weights(model_of(params), q, x, z)

    def local_terms(params: Params, q: Density, z: Tensor) -> Tensor:
        at = model_of(params)
        prior = at.prior(x.shape[0])
        for name, density in (("q", q), ("the prior", prior)):
            if not isinstance(density, FactorisedDensity):
                raise TypeError(f"local_terms: expected {name} to have log_prob_terms, found {type(density).__name__}")
        likelihood = at.log_p_x_given_z(x, z).unsqueeze(-1)
        q, prior = cast(FactorisedDensity, q), cast(FactorisedDensity, prior)
        return likelihood + prior.log_prob_terms(z) - q.log_prob_terms(z)

    return Objective(family, integrand, local_terms=local_terms, x=x)


def sgvb_b(model: LatentVariableModel | ModelFamily, family: Family, x: Tensor) -> Objective:
    r"""The same ELBO with integrand :math:`\log p(x \mid z) - D_{\mathrm{KL}}(q_\phi(z \mid x) \,\|\, p(z))`.

    Pathwise gradients of it are estimator B of Kingma and Welling (2014), equation 7. Parameters as for :func:`sgvb_a`;
    q and the prior must have a closed-form KL.
    """
    model_of = _model_family(model)
    return Objective(
        family, lambda params, q, z: elbo_with_analytic_kl(model_of(params), q, x, z), x=x, only_log_q=False
    )


def amortised(encoder: torch.nn.Module, x: Tensor, prefix: str = "") -> Family:
    """Make a family of an encoder network: parameters are its weights by name, the densities those of the data.

    Parameters
    ----------
    encoder
        A module that maps ``x (B, D)`` to a density.
    x
        Data, ``(B, D)``.
    prefix
        What the names of its weights begin with in the dictionary of parameters, for instance ``"encoder."``.

    Raises
    ------
    ValueError
        When none of its weights is found there; ``lambda _: encoder(x)`` is the family of an encoder held fixed.
    """

    def family(params: Params) -> Density:
        return cast(Density, functional(encoder, params, prefix)(x))

    return family


def functional(module: torch.nn.Module, params: Params, prefix: str = "") -> Callable[[Tensor], Any]:
    """Return a network as a function with weights from the dictionary instead of its own.

    Parameters
    ----------
    module
        Any module of one argument.
    params
        Its weights by name, and possibly others.
    prefix
        What the names of its weights begin with, for instance ``"decoder."``.

    Raises
    ------
    ValueError
        If none of its weights is found there: then nothing would be differentiated.
    """
    own = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
    weights = [name for name, _ in module.named_parameters()]
    if not own.keys() & set(weights):
        wanted = f"{prefix}{weights[0]} and so on" if weights else "like those of the module, which has none"
        raise ValueError(f"params: expected weights named {wanted}, found {list(params)[:3]}")
    return lambda value: functional_call(module, own, (value,))


def _model_family(model: LatentVariableModel | ModelFamily) -> ModelFamily:
    if hasattr(model, "log_p_x_given_z"):
        return lambda _params: cast(LatentVariableModel, model)
    return model
