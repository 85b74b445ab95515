"""What every model and every approximate posterior promises.

Write a class with these methods and every bound, estimator and evaluator of this library works on it. No base
class is needed: the protocols are structural (:pep:`544`). Letters for sizes, used everywhere:

=====  =====================================================================================
``S``  independent samples of the latent, always the first axis
``B``  data in the batch
``D``  numbers in one datum ``x``
``L``  numbers in one latent ``z``
=====  =====================================================================================

A datum batch is ``x (B, D)``, a latent sample is ``z (S, B, L)``, a log-density is ``(S, B)``, in nats. Values
are never broadcast silently: ``(B,)`` where ``(S, B)`` was promised is an error, not a guess.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Generator, Tensor

# A tensor, or a tuple of tensors, each with the samples along its first axis.
Noise: TypeAlias = Any


@runtime_checkable
class Density(Protocol):
    """A batch of B probability densities (or mass functions) over vectors of length L.

    Draws have the dtype and device of the density's parameters. Outside the support of a continuous density
    ``log_prob`` is minus infinity; that a discrete value is one of the codes below is not checked.

    Discrete values are coded as floating-point numbers: 0.0 and 1.0 for a bit, 0.0 ... K - 1.0 for a category.
    """

    @property
    def batch_size(self) -> int:
        """B, the number of densities in the batch; there is no broadcasting from 1."""

    @property
    def event_dim(self) -> int:
        """L, the length of one value."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``value (S, B, L)`` under the batch, ``(S, B)``, in nats."""

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Independent draws ``(S, B, L)`` that carry no gradient."""


@runtime_checkable
class ReparameterizedDensity(Density, Protocol):
    """A density whose draws are differentiable functions of its parameters (chapter 4)."""

    def rsample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Independent draws ``(S, B, L)`` with gradients to the parameters."""


@runtime_checkable
class NoiseDensity(ReparameterizedDensity, Protocol):
    """A density that says which noise its draws are made of: ``rsample`` is ``from_noise`` of ``noise``.

    With the noise in hand, gradients of many draws are taken in one vectorised call (``vae_lib.gradients``).
    """

    def noise(self, num_samples: int, *, generator: Generator) -> Noise:
        """Noise for S draws that carries no gradient: a tensor or tuple of tensors with first axis S."""

    def from_noise(self, noise: Noise) -> Tensor:
        """The draws ``(S, B, L)`` that this noise makes, with gradients to the parameters."""


@runtime_checkable
class FactorisedDensity(Density, Protocol):
    """A density of independent coordinates."""

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Log-density of each coordinate of ``value (S, B, L)``, ``(S, B, L)``, in nats."""


@runtime_checkable
class LatentVariableModel(Protocol):
    r"""A generative model :math:`p_\theta(x, z) = p_\theta(x \mid z)\, p_\theta(z)`."""

    @property
    def data_dim(self) -> int:
        """D, the length of one datum."""

    @property
    def latent_dim(self) -> int:
        """L, the length of one latent."""

    def prior(self, batch_size: int) -> Density:
        """The prior p(z), repeated for ``batch_size`` data. Any density will do, a new one for each call or not.

        Only closed forms (``divergences.kl``) ask for a type that they know.
        """

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """Log-likelihood of ``x (B, D)`` under each latent ``z (S, B, L)``, ``(S, B)``, in nats."""

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """One datum for each latent ``z (S, B, L)``: ``(S, B, D)``."""


@runtime_checkable
class ExactModel(LatentVariableModel, Protocol):
    """A model whose evidence and posterior are known: the yardstick for everything else."""

    def log_p_x(self, x: Tensor) -> Tensor:
        """The evidence, log p(x), of ``x (B, D)``: ``(B,)``, in nats."""

    def posterior(self, x: Tensor) -> Density:
        """The posterior p(z | x) for each of the B data in ``x (B, D)``."""


@runtime_checkable
class EnumerableModel(ExactModel, Protocol):
    """An exact model whose latent takes finitely many values."""

    def latent_support(self) -> Tensor:
        """Every value that z can take, ``(K, L)``."""


@runtime_checkable
class ApproximatePosterior(Protocol):
    r"""A map from data to densities, :math:`x \mapsto q_\phi(z \mid x)`.

    An encoder network is one; so is the method ``posterior`` of an exact model. Bounds take the density itself,
    ``q = encoder(x)``, so that a q with its own parameters for each datum needs no wrapper.
    """

    def __call__(self, x: Tensor) -> Density:
        """The density q(z | x) for each of the B data in ``x (B, D)``."""
