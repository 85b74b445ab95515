r"""A mixture of Gaussians as a latent-variable model: z names the component.

.. math:: z \sim \mathrm{Categorical}(\pi), \qquad x \mid z = k \sim \mathcal N(\mu_k, \operatorname{diag}\sigma_k^2)
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.densities import Categorical, log_normal
from vae_lib.exact import enumeration
from vae_lib.protocols import Density


class GaussianMixture:
    """K normal components with diagonal covariances.

    Parameters
    ----------
    logits
        Unnormalised log-probabilities of the components, ``(K,)``.
    mu, logvar
        Means and log-variances, ``(K, D)``.
    """

    def __init__(self, logits: Tensor, mu: Tensor, logvar: Tensor) -> None:
        checks.shape("logits", logits, ("K",))
        checks.shape("mu", mu, (logits.shape[0], "D"), like=logits)
        checks.shape("logvar", logvar, tuple(mu.shape), like=logits)
        for name, tensor in (("logits", logits), ("mu", mu), ("logvar", logvar)):
            checks.finite(name, tensor)
        self.logits, self.mu, self.logvar = logits, mu, logvar

    @property
    def data_dim(self) -> int:
        """D."""
        return self.mu.shape[1]

    @property
    def latent_dim(self) -> int:
        """1, the number of the component."""
        return 1

    def latent_support(self) -> Tensor:
        """0 ... K - 1, ``(K, 1)``."""
        return torch.arange(self.logits.shape[0], dtype=self.mu.dtype, device=self.mu.device).unsqueeze(-1)

    def prior(self, batch_size: int) -> Categorical:
        """The weights of the components, for each datum."""
        return Categorical(self.logits.expand(batch_size, 1, -1))

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """Log-density of x under the component that z names, ``(S, B)``, in nats."""
        checks.shape("x", x, ("B", self.data_dim), like=self.mu)
        checks.shape("z", z, ("S", x.shape[0], 1), like=self.mu)
        component = z.squeeze(-1).long()
        return log_normal(x, self.mu[component], self.logvar[component]).sum(-1)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """One draw from each named component, ``(S, B, D)``."""
        checks.shape("z", z, ("S", "B", 1), like=self.mu)
        mu, logvar = self.mu[z.squeeze(-1).long()], self.logvar[z.squeeze(-1).long()]
        noise = torch.randn(mu.shape, generator=generator, dtype=mu.dtype, device=mu.device)
        return mu + torch.exp(0.5 * logvar) * noise

    def log_p_x(self, x: Tensor) -> Tensor:
        """Log of the sum over components, ``(B,)``, in nats."""
        return enumeration.log_evidence(self, x)

    def posterior(self, x: Tensor) -> Categorical:
        """The responsibilities of the components."""
        return enumeration.categorical_posterior(self, x)

    def elbo(self, x: Tensor, q: Density) -> Tensor:
        """The ELBO of q, summed over the components, ``(B,)``, in nats."""
        return enumeration.exact_elbo(self, x, q)
