r"""The variational autoencoder: an encoder, a decoder's network, a likelihood head and a prior in one module.

.. math:: p(z)\, p_\theta(x \mid z), \qquad q_\phi(z \mid x)

It is a model and an approximate posterior at once. ``vae(x)`` is q(z | x), the methods are those of a model, so every
bound and every estimator of this library takes it as it is: ``bounds.elbo(vae, vae(x), x, ...)``. Chapter 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from vae_lib import checks
from vae_lib.densities import DiagonalNormal
from vae_lib.gradients import Params
from vae_lib.models.decoder_model import DecoderModel
from vae_lib.models.likelihoods import Likelihood
from vae_lib.protocols import Density


class StandardNormal(nn.Module):
    """The prior N(0, I) of L numbers, as a module that moves with the model that holds it.

    Parameters
    ----------
    latent_dim
        L.
    dtype, device
        Of the density; the defaults if not given.
    """

    zeros: Tensor

    def __init__(
        self, latent_dim: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        checks.positive_int("latent_dim", latent_dim)
        # Not persistent: there is nothing in it to store.
        self.register_buffer("zeros", torch.zeros(latent_dim, dtype=dtype, device=device), persistent=False)

    def forward(self, batch_size: int) -> DiagonalNormal:
        """The density, repeated for B data."""
        zeros = self.zeros.expand(batch_size, -1)
        return DiagonalNormal(zeros, zeros)


class VAE(nn.Module):
    """Meets :class:`~vae_lib.protocols.LatentVariableModel` and :class:`~vae_lib.protocols.ApproximatePosterior`.

    Parameters
    ----------
    encoder
        Maps ``x (B, D)`` to the density q(z | x): :class:`~vae_lib.models.NormalEncoder` of a network, for instance.
    decoder
        A network that maps latents ``(S, B, L)`` to the likelihood's input ``(S, B, K D)``.
    likelihood
        The head. One with parameters is a module, and its parameters are the model's.
    latent_dim, data_dim
        L and D.
    prior
        Takes B, returns p(z) repeated. One with parameters is a module, as here. N(0, I) if it is not given, in the
        dtype and on the device of the decoder.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        *,
        latent_dim: int,
        data_dim: int,
        prior: Callable[[int], Density] | None = None,
    ) -> None:
        super().__init__()
        checks.positive_int("latent_dim", latent_dim)
        checks.positive_int("data_dim", data_dim)
        self.encoder, self.decoder = encoder, decoder
        self.likelihood: Likelihood = likelihood
        self.latent_dim, self.data_dim = latent_dim, data_dim
        if prior is None:
            like = next(decoder.parameters(), torch.empty(0))
            prior = StandardNormal(latent_dim, dtype=like.dtype, device=like.device)
        self.p_z: Callable[[int], Density] = prior

    def forward(self, x: Tensor) -> Density:
        """The density q(z | x) for each of the B data in ``x (B, D)``."""
        checks.shape("x", x, ("B", self.data_dim))
        q = cast(Density, self.encoder(x))
        if (q.batch_size, q.event_dim) != (x.shape[0], self.latent_dim):
            expected = (x.shape[0], self.latent_dim)
            raise ValueError(f"encoder(x): expected (B, L) = {expected}, found {(q.batch_size, q.event_dim)}")
        return q

    @property
    def generative(self) -> DecoderModel:
        """The half that makes data of latents, of this module's decoder, head and prior."""
        return DecoderModel(self.decoder, self.likelihood, self.latent_dim, self.data_dim, self.p_z)

    def prior(self, batch_size: int) -> Density:
        """The prior p(z), repeated for ``batch_size`` data."""
        return self.p_z(batch_size)

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """Log-likelihood of ``x (B, D)`` under ``z (S, B, L)``, ``(S, B)``, in nats."""
        return self.generative.log_p_x_given_z(x, z)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """One datum for each latent ``z (S, B, L)``: ``(S, B, D)``."""
        return self.generative.sample_x_given_z(z, generator=generator)

    def mean_x_given_z(self, z: Tensor) -> Tensor:
        """The expected datum for each latent, ``(S, B, D)``: the picture to show, in the units of the data."""
        return self.generative.mean_x_given_z(z)

    def functional(self, params: Params) -> FunctionalVAE:
        """The same VAE with weights from a dictionary instead of its own.

        With it the estimators of ``vae_lib.gradients`` differentiate all weights at once::

            objective = sgvb_a(vae.functional, lambda params: vae.functional(params)(x), x)
            params = {name: weight.detach() for name, weight in vae.named_parameters()}

        Parameters
        ----------
        params
            Weights by the names of ``named_parameters()``. Those that are not there are the module's own.

        Raises
        ------
        ValueError
            If there are none, or one has a name that the module does not know.
        """
        return FunctionalVAE(self, params)


class FunctionalVAE:
    """A VAE with weights from a dictionary: what :meth:`VAE.functional` returns. Meets both protocols as well.

    Parameters
    ----------
    vae
        The module. It is not changed.
    params
        Weights by name.
    """

    def __init__(self, vae: VAE, params: Params) -> None:
        known = {name for name, _ in vae.named_parameters()}
        if unknown := [name for name in params if name not in known]:
            raise ValueError(f"params: expected names of weights of the VAE, found {unknown[0]!r}")
        if not params:
            raise ValueError("params: expected at least one weight of the VAE, found none")
        self.latent_dim, self.data_dim = vae.latent_dim, vae.data_dim
        self._vae, self._params = vae, {f"owner.{name}": value for name, value in params.items()}

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        return functional_call(_Method(self._vae, method), self._params, arguments, options)

    def __call__(self, x: Tensor) -> Density:
        """The density q(z | x) for each of the B data in ``x (B, D)``."""
        return cast(Density, self._call("forward", x))

    def prior(self, batch_size: int) -> Density:
        """The prior p(z), repeated for ``batch_size`` data."""
        return cast(Density, self._call("prior", batch_size))

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """Log-likelihood of ``x (B, D)`` under ``z (S, B, L)``, ``(S, B)``, in nats."""
        return cast(Tensor, self._call("log_p_x_given_z", x, z))

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """One datum for each latent ``z (S, B, L)``: ``(S, B, D)``."""
        return cast(Tensor, self._call("sample_x_given_z", z, generator=generator))

    def mean_x_given_z(self, z: Tensor) -> Tensor:
        """The expected datum for each latent, ``(S, B, D)``."""
        return cast(Tensor, self._call("mean_x_given_z", z))


class _Method(nn.Module):
    """One method of a module in the place of ``forward``, because ``functional_call`` calls nothing else."""

    def __init__(self, owner: nn.Module, method: str) -> None:
        super().__init__()
        self.owner, self.method = owner, method

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return getattr(self.owner, self.method)(*arguments, **options)
