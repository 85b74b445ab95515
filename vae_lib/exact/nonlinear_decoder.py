r"""One latent number through any curve, plus normal noise: not conjugate, and still exact, by quadrature.

.. math:: z \sim \mathcal N(0, 1), \qquad x \mid z \sim \mathcal N(f(z), \sigma^2 I_D)

This is the smallest model with the difficulty of a variational autoencoder: f may be a neural network, the
posterior may have several modes, and no formula gives log p(x). But one dimension can be integrated on a grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.bounds import log_joint, log_weights
from vae_lib.densities import DiagonalNormal, log_normal
from vae_lib.exact.quadrature import Interval, expectation, log_integral
from vae_lib.protocols import Density

SAMPLING_CELLS = 2**14
DEFAULT_INTERVAL = Interval(-12.0, 12.0, 240)


class NonlinearDecoder:
    """A decoder of one latent number, with every integral over it done by self-checking quadrature.

    Parameters
    ----------
    decoder
        The curve f: takes ``(..., 1)``, returns ``(..., D)``.
    logvar
        Log-variance of the noise, a scalar tensor. Its dtype is the model's.
    data_dim
        D.
    interval
        Where to integrate over z, and how finely.
    """

    def __init__(
        self,
        decoder: Callable[[Tensor], Tensor],
        logvar: Tensor,
        data_dim: int,
        interval: Interval = DEFAULT_INTERVAL,
    ) -> None:
        checks.shape("logvar", logvar, ())
        checks.finite("logvar", logvar)
        checks.positive_int("data_dim", data_dim)
        self.decoder, self.logvar, self.interval = decoder, logvar, interval
        self._data_dim = data_dim

    @property
    def data_dim(self) -> int:
        """D."""
        return self._data_dim

    @property
    def latent_dim(self) -> int:
        """1."""
        return 1

    def prior(self, batch_size: int) -> DiagonalNormal:
        """N(0, 1) for each datum."""
        zeros = self.logvar.new_zeros(batch_size, 1)
        return DiagonalNormal(zeros, zeros)

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """log N(x; f(z), sigma² I), ``(S, B)``, in nats."""
        checks.shape("x", x, ("B", self.data_dim), like=self.logvar)
        checks.shape("z", z, ("S", x.shape[0], 1), like=self.logvar)
        mean = self.decoder(z)
        checks.shape("decoder(z)", mean, (*z.shape[:2], self.data_dim), like=self.logvar)
        return log_normal(x, mean, self.logvar).sum(-1)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """f(z) plus noise, ``(S, B, D)``."""
        checks.shape("z", z, ("S", "B", 1), like=self.logvar)
        mean = self.decoder(z)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + torch.exp(0.5 * self.logvar) * noise

    def _log_joint_at(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda nodes: log_joint(self, x, _repeat(nodes, x))

    def log_p_x(self, x: Tensor) -> Tensor:
        """The integral of p(x | z) p(z) over z, ``(B,)``, in nats.

        Raises
        ------
        QuadratureError
            If the integral did not converge on the interval.
        """
        checks.shape("x", x, ("B", self.data_dim), like=self.logvar)
        return log_integral(self._log_joint_at(x), self.interval, self.logvar)

    def posterior(self, x: Tensor) -> QuadraturePosterior:
        """p(z | x): the joint, divided by the integral."""
        return QuadraturePosterior(x, self, self.log_p_x(x))

    def elbo(self, x: Tensor, q: Density) -> Tensor:
        """The ELBO of any q over the real line, by quadrature, ``(B,)``, in nats."""
        return self._expectation(q, x, lambda z: log_weights(self, q, x, z))

    def kl_to_posterior(self, x: Tensor, q: Density) -> Tensor:
        """KL(q || p(z | x)) by quadrature, ``(B,)``, in nats."""
        posterior = self.posterior(x)
        return self._expectation(q, x, lambda z: q.log_prob(z) - posterior.log_prob(z))

    def _expectation(self, q: Density, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        if isinstance(q, DiagonalNormal):
            checks.shape("q.mu", q.mu, (x.shape[0], 1), like=x)
            # The grid travels with q, z = mu + std t, so that no q is too wide, too narrow or too far out.
            standard = self.prior(x.shape[0])
            return expectation(
                lambda t: standard.log_prob(_repeat(t, x)),
                lambda t: f(q.mu + q.std * _repeat(t, x)),
                DEFAULT_INTERVAL,
                self.logvar,
            )
        return expectation(
            lambda nodes: q.log_prob(_repeat(nodes, x)),
            lambda nodes: f(_repeat(nodes, x)),
            self.interval,
            self.logvar,
        )


@dataclass(frozen=True, eq=False)
class QuadraturePosterior:
    """The posterior of a :class:`NonlinearDecoder`: an exact log-density, and draws to within a fine grid.

    Parameters
    ----------
    x
        The data it is conditioned on, ``(B, D)``.
    model
        The model.
    log_p_x
        The evidence of the data, ``(B,)``, in nats.
    """

    x: Tensor
    model: NonlinearDecoder
    log_p_x: Tensor

    @property
    def batch_size(self) -> int:
        """B."""
        return self.x.shape[0]

    @property
    def event_dim(self) -> int:
        """1."""
        return 1

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x, z) - log p(x) at ``value (S, B, 1)``, ``(S, B)``, in nats."""
        return log_joint(self.model, self.x, value) - self.log_p_x

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, 1)``: a cell of a grid by its mass, then a uniform place in it.

        The grid has 2**14 cells on the model's interval, so a draw is right to about a thousandth.
        """
        checks.positive_int("num_samples", num_samples)
        lower, upper, _ = self.model.interval
        width = (upper - lower) / SAMPLING_CELLS
        cells = torch.arange(SAMPLING_CELLS, dtype=self.x.dtype, device=self.x.device)
        mass = self.log_prob(_repeat(lower + width * (cells + 0.5), self.x)).exp().mT  # (B, cells)
        chosen = torch.multinomial(mass, num_samples, replacement=True, generator=generator).mT
        place = torch.rand(chosen.shape, generator=generator, dtype=self.x.dtype, device=self.x.device)
        return (lower + width * (chosen + place)).unsqueeze(-1).detach()


def _repeat(nodes: Tensor, x: Tensor) -> Tensor:
    """Nodes ``(N,)`` as latents ``(N, B, 1)``."""
    return nodes[:, None, None].expand(nodes.shape[0], x.shape[0], 1)
