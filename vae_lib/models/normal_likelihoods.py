r"""Normal heads: real numbers around the network's output, with a variance that is fixed, learned or predicted.

.. math:: \log p(x \mid z) = \sum_{d=1}^D \log \mathcal N(x_d; \mu_d(z), \sigma_d^2)

The squared error is this with a variance that nobody chose. Chapters 5 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from vae_lib import checks
from vae_lib.densities import log_normal
from vae_lib.models.likelihoods import blocks


@dataclass(frozen=True)
class NormalLikelihood:
    """Real numbers around the output, with one fixed log-variance."""

    logvar: float

    @property
    def outputs_per_number(self) -> int:
        """One, the mean."""
        return 1

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        return log_normal(x, output, torch.as_tensor(self.logvar, dtype=output.dtype, device=output.device)).sum(-1)

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """Real numbers ``(S, B, D)``."""
        noise = torch.randn(output.shape, generator=generator, dtype=output.dtype, device=output.device)
        scale = torch.exp(torch.as_tensor(0.5 * self.logvar, dtype=output.dtype, device=output.device))
        return output + scale * noise

    def mean(self, output: Tensor) -> Tensor:
        """The output itself, ``(S, B, D)``."""
        return output


class LearnedNormalLikelihood(nn.Module):
    """Real numbers around the output, with log-variances that are parameters of the model.

    Parameters
    ----------
    data_dim
        D for a log-variance of its own for each pixel; one for all pixels if it is not given.
    logvar
        Where they start.
    dtype, device
        Of the parameter; the defaults if not given.
    """

    def __init__(
        self,
        data_dim: int | None = None,
        *,
        logvar: float = 0.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if data_dim is not None:
            checks.positive_int("data_dim", data_dim)
        shape = () if data_dim is None else (data_dim,)
        self.logvar = nn.Parameter(torch.full(shape, float(logvar), dtype=dtype, device=device))

    @property
    def outputs_per_number(self) -> int:
        """One, the mean."""
        return 1

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        return log_normal(x, output, self.logvar).sum(-1)

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """Real numbers ``(S, B, D)``."""
        noise = torch.randn(output.shape, generator=generator, dtype=output.dtype, device=output.device)
        return output + torch.exp(0.5 * self.logvar) * noise

    def mean(self, output: Tensor) -> Tensor:
        """The output itself, ``(S, B, D)``."""
        return output


@dataclass(frozen=True)
class PredictedNormalLikelihood:
    r"""Real numbers with a mean and a log-variance that the network puts out for each pixel of each image.

    Kingma and Welling (2014), appendix C.2; for the Frey faces the paper sends the means through a sigmoid.

    Parameters
    ----------
    unit_mean
        Send the first block of outputs through a sigmoid, so that means lie between 0 and 1.
    """

    unit_mean: bool = False

    @property
    def outputs_per_number(self) -> int:
        """Two, the mean and the log-variance."""
        return 2

    def _parameters(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = blocks(output, 2)
        return (torch.sigmoid(mu) if self.unit_mean else mu), logvar

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log-likelihood ``(S, B)``, in nats."""
        return log_normal(x, *self._parameters(output)).sum(-1)

    def sample(self, output: Tensor, *, generator: Generator) -> Tensor:
        """Real numbers ``(S, B, D)``."""
        mu, logvar = self._parameters(output)
        noise = torch.randn(mu.shape, generator=generator, dtype=mu.dtype, device=mu.device)
        return mu + torch.exp(0.5 * logvar) * noise

    def mean(self, output: Tensor) -> Tensor:
        """The means, ``(S, B, D)``."""
        return self._parameters(output)[0]
