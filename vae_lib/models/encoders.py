"""Encoders: networks that map a datum to the density q(z | x)."""

from __future__ import annotations

from torch import Tensor, nn

from vae_lib import checks
from vae_lib.densities import Bernoulli, DiagonalNormal


class NormalEncoder(nn.Module):
    """A normal q with independent coordinates. Meets :class:`~vae_lib.protocols.ApproximatePosterior`.

    Parameters
    ----------
    network
        Maps ``x (B, D)`` to means and log-variances side by side, ``(B, 2 L)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> DiagonalNormal:
        """The density for each of the B data in ``x (B, D)``."""
        output = self.network(x)
        checks.shape("network(x)", output, (x.shape[0], "2 L"), like=x)
        if output.shape[1] % 2:
            raise ValueError(f"network(x): expected means and log-variances, an even number, found {output.shape[1]}")
        mu, logvar = output.chunk(2, dim=1)
        return DiagonalNormal(mu, logvar)


class BernoulliEncoder(nn.Module):
    """A q over independent bits. Meets :class:`~vae_lib.protocols.ApproximatePosterior`.

    Parameters
    ----------
    network
        Maps ``x (B, D)`` to log-odds, ``(B, L)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Bernoulli:
        """The density for each of the B data in ``x (B, D)``."""
        return Bernoulli(self.network(x))
