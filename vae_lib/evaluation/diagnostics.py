r"""Which latents a model uses: the variance of their means over the data, and the KL that each costs.

.. math:: A_l = \operatorname{Var}_x\!\left( \mathbb E_{q(z \mid x)}[z_l] \right), \qquad
          D_l(x) = D_{\mathrm{KL}}(q(z_l \mid x) \,\|\, p(z_l))
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.densities import DiagonalNormal, FullNormal
from vae_lib.divergences import kl_terms
from vae_lib.evaluation.passes import evaluating
from vae_lib.protocols import ApproximatePosterior, LatentVariableModel


class ActiveUnits(NamedTuple):
    """The variance A of each latent's mean over the data, ``(L,)``, and whether it exceeds the threshold, ``(L,)``."""

    variance: Tensor
    is_active: Tensor

    @property
    def num_active(self) -> int:
        """How many latents are active."""
        return int(self.is_active.sum())


def active_units(
    encoder: ApproximatePosterior, x: Tensor, *, threshold: float = 0.01, batch_size: int = 1000
) -> ActiveUnits:
    r"""Which latents carry something about the data: those with :math:`A_l > 0.01`.

    Burda, Grosse and Salakhutdinov (2016), section 5. A latent whose q is the same for all data has A = 0. The
    threshold supposes a prior of variance 1 or so.

    Parameters
    ----------
    encoder
        Any :class:`~vae_lib.protocols.ApproximatePosterior` that gives normal densities, whose means are known.
    x
        Data, ``(N, D)``, at least two of them, finite. The variance is the unbiased one, with N - 1.
    threshold
        What A must exceed.
    batch_size
        Data in a pass; it changes no value by more than rounding.

    Returns
    -------
    ActiveUnits
        Variances and verdicts, ``(L,)`` each; ``.num_active`` is the number of active units.

    Raises
    ------
    TypeError
        If the encoder gives another density.
    ValueError
        If there are fewer than two data, or they are not finite, or a number is out of range.
    """
    checks.shape("x", x, ("N", "D"))
    checks.finite("x", x)
    checks.positive_int("batch_size", batch_size)
    if x.shape[0] < 2:
        raise ValueError(f"x: expected at least 2 data, for a variance, found {x.shape[0]}")
    if not threshold >= 0.0:
        raise ValueError(f"threshold: expected a number of at least 0, found {threshold!r}")

    def means(batch: Tensor) -> Tensor:
        q = encoder(batch)
        if not isinstance(q, DiagonalNormal | FullNormal):
            expected = "DiagonalNormal or FullNormal, whose mean is known"
            raise TypeError(f"encoder(x): expected a {expected}, found {type(q).__name__}")
        checks.shape("encoder(x).mu", q.mu, (batch.shape[0], "L"))
        return q.mu

    with evaluating(encoder):
        variance = torch.cat([means(batch) for batch in x.split(batch_size)]).var(0)
    return ActiveUnits(variance, variance > threshold)


def kl_per_dimension(
    encoder: ApproximatePosterior, model: LatentVariableModel, x: Tensor, *, batch_size: int = 1000
) -> Tensor:
    r"""The KL from each latent's q to its prior, for each datum, ``(N, L)``, in nats.

    Both densities factorise, so it sums over the latents to :math:`D_{\mathrm{KL}}(q(z \mid x) \,\|\, p(z))`. Its mean
    over the data is what a latent costs; one that is not used costs nothing.

    Parameters
    ----------
    encoder
        Any :class:`~vae_lib.protocols.ApproximatePosterior` that gives :class:`~vae_lib.densities.DiagonalNormal`.
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel` with such a prior.
    x
        Data, ``(N, D)``, finite.
    batch_size
        Data in a pass; it changes no value by more than rounding.

    Raises
    ------
    TypeError
        If q or the prior is another density.
    ValueError
        If the data are not finite, or q and prior have not one shape.
    """
    checks.shape("x", x, ("N", model.data_dim))
    checks.finite("x", x)
    checks.positive_int("batch_size", batch_size)

    def one_pass(batch: Tensor) -> Tensor:
        q, prior = encoder(batch), model.prior(batch.shape[0])
        for name, density in (("encoder(x)", q), ("prior(B)", prior)):
            if not isinstance(density, DiagonalNormal):
                raise TypeError(f"{name}: expected a DiagonalNormal, found {type(density).__name__}")
        assert isinstance(q, DiagonalNormal)
        assert isinstance(prior, DiagonalNormal)
        checks.shape("encoder(x).mu", q.mu, (batch.shape[0], model.latent_dim))
        checks.shape("prior(B).mu", prior.mu, tuple(q.mu.shape), like=q.mu)
        return kl_terms(q, prior)

    with evaluating(encoder, model):
        return torch.cat([one_pass(batch) for batch in x.split(batch_size)])
