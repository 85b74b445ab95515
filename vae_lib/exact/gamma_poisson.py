r"""A conjugate pair that is not Gaussian: counts with an unknown rate.

.. math:: z \sim \mathrm{Gamma}(a, b), \qquad x_d \mid z \sim \mathrm{Poisson}(z), \quad d = 1 \dots D

The D counts share one rate. Their posterior is :math:`\mathrm{Gamma}(a + \sum_d x_d,\; b + D)`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.densities import Gamma, log_poisson
from vae_lib.divergences import kl


class GammaPoisson:
    """Gamma prior on a rate, D Poisson counts.

    Parameters
    ----------
    concentration, rate
        a and b of the prior, scalar tensors, positive.
    data_dim
        D, counts in one datum.
    """

    def __init__(self, concentration: Tensor, rate: Tensor, data_dim: int) -> None:
        checks.shape("concentration", concentration, ())
        checks.shape("rate", rate, (), like=concentration)
        checks.positive_int("data_dim", data_dim)
        for name, tensor in (("concentration", concentration), ("rate", rate)):
            checks.finite(name, tensor)
            if float(tensor.detach()) <= 0.0:
                raise ValueError(f"{name}: expected a positive number, found {float(tensor.detach())}")
        self.concentration, self.rate, self._data_dim = concentration, rate, data_dim

    @property
    def data_dim(self) -> int:
        """D."""
        return self._data_dim

    @property
    def latent_dim(self) -> int:
        """1, the rate."""
        return 1

    def prior(self, batch_size: int) -> Gamma:
        """Gamma(a, b), for each datum."""
        return Gamma(self.concentration.expand(batch_size, 1), self.rate.expand(batch_size, 1))

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """Log-probability of the counts under the rate z, ``(S, B)``, in nats."""
        checks.shape("x", x, ("B", self.data_dim), like=self.rate)
        checks.shape("z", z, ("S", x.shape[0], 1), like=self.rate)
        return log_poisson(x, z).sum(-1)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """D counts for each rate, ``(S, B, D)``."""
        checks.shape("z", z, ("S", "B", 1), like=self.rate)
        return torch.poisson(z.expand(*z.shape[:2], self.data_dim).contiguous(), generator=generator)

    def log_p_x(self, x: Tensor) -> Tensor:
        r"""Log-probability of the counts with the rate integrated out, ``(B,)``, in nats.

        .. math:: \log \frac{\Gamma(a + \sum x_d)}{\Gamma(a) \prod x_d!} \frac{b^a}{(b + D)^{a + \sum x_d}}
        """
        checks.shape("x", x, ("B", self.data_dim), like=self.rate)
        a, b, total = self.concentration, self.rate, x.sum(-1)
        log_factorials = torch.lgamma(x + 1.0).sum(-1)
        return (
            torch.lgamma(a + total)
            - torch.lgamma(a)
            - log_factorials
            + a * torch.log(b)
            - (a + total) * torch.log(b + self.data_dim)
        )

    def posterior(self, x: Tensor) -> Gamma:
        r""":math:`\mathrm{Gamma}(a + \sum_d x_d,\; b + D)`."""
        checks.shape("x", x, ("B", self.data_dim), like=self.rate)
        total = x.sum(-1, keepdim=True)
        return Gamma(self.concentration + total, (self.rate + self.data_dim).expand_as(total))

    def elbo(self, x: Tensor, q: Gamma) -> Tensor:
        r"""The ELBO of a Gamma q without sampling, ``(B,)``, in nats.

        Needs only :math:`\mathbb E_q z = a_q / b_q` and
        :math:`\mathbb E_q \log z = \psi(a_q) - \log b_q`.
        """
        if not isinstance(q, Gamma):
            raise TypeError(f"q: expected Gamma, found {type(q).__name__}")
        checks.shape("x", x, (q.batch_size, self.data_dim), like=self.rate)
        mean = (q.concentration / q.rate).squeeze(-1)
        mean_log = (torch.digamma(q.concentration) - torch.log(q.rate)).squeeze(-1)
        log_factorials = torch.lgamma(x + 1.0).sum(-1)
        log_likelihood = x.sum(-1) * mean_log - self.data_dim * mean - log_factorials
        return log_likelihood - kl(q, self.prior(x.shape[0]))
