r"""A chain of linear links with normal noise: the hierarchical model that knows its log p(x) and its posterior.

.. math:: z_T \sim \mathcal N(m, C), \qquad
          z_{t-1} \mid z_t \sim \mathcal N(A_t z_t + a_t, \operatorname{diag} v_t), \qquad
          x \mid z_1 \sim \mathcal N(W z_1 + b, \operatorname{diag} \psi)

Every layer is normal, :math:`z_t \sim \mathcal N(m_t, C_t)` with :math:`m_{t-1} = A_t m_t + a_t` and
:math:`C_{t-1} = A_t C_t A_t^\top + \operatorname{diag} v_t`, and every pair of neighbours is a linear-Gaussian model.
Chapter 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.densities import DiagonalNormal, FullNormal
from vae_lib.exact import LinearGaussian
from vae_lib.models.hierarchical import HierarchicalModel, MarkovChain


@dataclass(frozen=True, eq=False)
class LinearLink:
    """A link whose mean is linear in the previous part, with a fixed variance.

    Parameters
    ----------
    weight
        ``(L, L')``.
    bias, logvar
        ``(L,)``.
    """

    weight: Tensor
    bias: Tensor
    logvar: Tensor

    def __post_init__(self) -> None:
        checks.shape("weight", self.weight, ("L", "L'"))
        checks.shape("bias", self.bias, (self.weight.shape[0],), like=self.weight)
        checks.shape("logvar", self.logvar, (self.weight.shape[0],), like=self.weight)

    def __call__(self, previous: Tensor) -> DiagonalNormal:
        """The N densities of the next part for ``previous (N, L')``."""
        mu = previous @ self.weight.mT + self.bias
        return DiagonalNormal(mu, self.logvar.expand_as(mu))

    def of_noise(self, mean: Tensor, tril: Tensor) -> LinearGaussian:
        r"""The linear-Gaussian model of this link whose latent is the standard noise of :math:`\mathcal N(m, TT^\top)`.

        Parameters
        ----------
        mean, tril
            Of the previous part, ``(L',)`` and ``(L', L')``.
        """
        return LinearGaussian(self.weight @ tril, self.weight @ mean + self.bias, self.logvar)


class LinearGaussianChain(HierarchicalModel):
    """Meets :class:`~vae_lib.protocols.ExactModel`.

    Parameters
    ----------
    links
        The T - 1 links from the top down.
    observation
        The link from :math:`z_1` to x.
    mean, covariance
        Of :math:`z_T`, ``(L_T,)`` and ``(L_T, L_T)``; N(0, I) if not given.

    Raises
    ------
    ValueError
        If sizes do not fit, or the covariance is not positive definite.
    """

    def __init__(
        self,
        links: Sequence[LinearLink],
        observation: LinearLink,
        *,
        mean: Tensor | None = None,
        covariance: Tensor | None = None,
    ) -> None:
        inputs = [link.weight.shape[1] for link in (*links, observation)]
        outputs = [link.weight.shape[0] for link in links]
        if outputs != inputs[1:]:
            raise ValueError(f"links: expected each to begin where the last one ends, found {inputs} after {outputs}")
        like = observation.weight
        mean = like.new_zeros(inputs[0]) if mean is None else mean
        covariance = torch.eye(inputs[0], dtype=like.dtype, device=like.device) if covariance is None else covariance
        top = FullNormal.from_covariance(mean.unsqueeze(0), covariance.unsqueeze(0))
        bottom = LinearGaussian(observation.weight, observation.bias, observation.logvar)
        super().__init__(
            bottom,
            lambda batch: FullNormal(top.mu.expand(batch, -1), top.scale_tril.expand(batch, -1, -1)),
            links,
            list(reversed(inputs)),
        )
        self.downward = (*links, observation)
        # Mean and triangular factor of each layer by itself, from the top down.
        self.layers = [(top.mu[0], top.scale_tril[0])]
        for link in links:
            self.layers.append(_layer(link, *self.layers[-1]))

    def log_p_x(self, x: Tensor) -> Tensor:
        """Log-density of ``x (B, D)`` with all layers integrated out, ``(B,)``, in nats."""
        return self.downward[-1].of_noise(*self.layers[-1]).log_p_x(x)

    def posterior(self, x: Tensor) -> MarkovChain:
        r"""The exact posterior, from the bottom up: :math:`p(z_1 \mid x) \prod p(z_t \mid z_{t-1})`.

        Above :math:`z_1` it does not look at x: what x has to say of the layers above, :math:`z_1` has said.
        """
        upward = reversed(list(zip(self.downward, self.layers, strict=True)))
        first, *links = [_Inverse(link, *layer) for link, layer in upward]
        return MarkovChain(first(x), links, self.dims)


@dataclass(frozen=True, eq=False)
class _Inverse:
    """A link read backwards: the previous part given the next."""

    link: LinearLink
    mean: Tensor
    tril: Tensor

    def __call__(self, after: Tensor) -> FullNormal:
        noise = self.link.of_noise(self.mean, self.tril).posterior(after)
        return FullNormal(self.mean + noise.mu @ self.tril.mT, self.tril @ noise.scale_tril)


def _layer(link: LinearLink, mean: Tensor, tril: Tensor) -> tuple[Tensor, Tensor]:
    half = link.weight @ tril
    covariance = half @ half.mT + torch.diag(torch.exp(link.logvar))
    return link.weight @ mean + link.bias, torch.linalg.cholesky(covariance)
