"""A joint distribution small enough to write down: z takes K values, x takes M."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.densities import Categorical, log_categorical
from vae_lib.exact import enumeration
from vae_lib.protocols import Density


class DiscreteJoint:
    """A prior over K values of z and a table of p(x | z) over M values of x.

    Parameters
    ----------
    logits_z
        Unnormalised log p(z), ``(K,)``.
    logits_x_given_z
        Unnormalised log p(x | z), one row for each z, ``(K, M)``.
    """

    def __init__(self, logits_z: Tensor, logits_x_given_z: Tensor) -> None:
        checks.shape("logits_z", logits_z, ("K",))
        checks.shape("logits_x_given_z", logits_x_given_z, (logits_z.shape[0], "M"), like=logits_z)
        checks.finite("logits_z", logits_z)
        checks.finite("logits_x_given_z", logits_x_given_z)
        self.logits_z, self.logits_x_given_z = logits_z, logits_x_given_z

    @property
    def data_dim(self) -> int:
        """1, the number of the value."""
        return 1

    @property
    def latent_dim(self) -> int:
        """1, the number of the value."""
        return 1

    def data_support(self) -> Tensor:
        """Every value that x can take, ``(M, 1)``: as a batch, it enumerates the data."""
        values = torch.arange(self.logits_x_given_z.shape[1], dtype=self.logits_z.dtype, device=self.logits_z.device)
        return values.unsqueeze(-1)

    def latent_support(self) -> Tensor:
        """Every value that z can take, ``(K, 1)``."""
        values = torch.arange(self.logits_z.shape[0], dtype=self.logits_z.dtype, device=self.logits_z.device)
        return values.unsqueeze(-1)

    def prior(self, batch_size: int) -> Categorical:
        """p(z), for each datum."""
        return Categorical(self.logits_z.expand(batch_size, 1, -1))

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """The entry of the table, ``(S, B)``, in nats."""
        checks.shape("x", x, ("B", 1), like=self.logits_z)
        checks.shape("z", z, ("S", x.shape[0], 1), like=self.logits_z)
        return log_categorical(x.squeeze(-1), self.logits_x_given_z[z.squeeze(-1).long()])

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """One value of x for each z, ``(S, B, 1)``."""
        checks.shape("z", z, ("S", "B", 1), like=self.logits_z)
        samples, batch = z.shape[:2]
        logits = self.logits_x_given_z[z.long().reshape(-1)]
        return Categorical(logits.unsqueeze(1)).sample(1, generator=generator).reshape(samples, batch, 1)

    def log_p_x(self, x: Tensor) -> Tensor:
        """Log of the sum over z, ``(B,)``, in nats."""
        return enumeration.log_evidence(self, x)

    def posterior(self, x: Tensor) -> Categorical:
        """p(z | x) by Bayes' rule."""
        return enumeration.categorical_posterior(self, x)

    def elbo(self, x: Tensor, q: Density) -> Tensor:
        """The ELBO of q, summed over z, ``(B,)``, in nats."""
        return enumeration.exact_elbo(self, x, q)
