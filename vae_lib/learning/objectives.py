r"""Objectives that practice puts in the ELBO's place: a weight on the KL, a floor under it, a variance that fits.

.. math:: \mathcal L_\beta = \mathbb E_{q(z \mid x)}[\log p(x \mid z)]
          - \beta\, D_{\mathrm{KL}}(q(z \mid x) \,\|\, p(z))

- :func:`beta_elbo`: the KL counts :math:`\beta` times. With a normal likelihood that is a choice of the variance: the
  gradient for :math:`\beta` and :math:`\sigma^2` is :math:`\beta` times that of the ELBO with variance
  :math:`\beta \sigma^2`.
- :class:`Warmup`: :math:`\beta` grows from zero while a model learns.
- :func:`free_bits`: a latent that costs less than a minimum is charged the minimum, so it gains nothing by closing.
- :func:`calibrated_elbo`: the variance of a normal likelihood is the one that fits the minibatch best.

Each is a bound for ``train``, its setting fixed by ``functools.partial``:
``train(model, images, bound=partial(beta_elbo, beta=4.0))``. Chapter 7.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from torch import Tensor

from vae_lib import checks
from vae_lib.densities import DiagonalNormal, log_normal
from vae_lib.divergences import kl, kl_terms
from vae_lib.learning.average_bound import Bound
from vae_lib.protocols import Density, LatentVariableModel


def beta_elbo(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor, *, beta: float) -> Tensor:
    r""":math:`\log p(x \mid z) - \beta\, D_{\mathrm{KL}}(q(z \mid x) \,\|\, p(z))`, ``(S, B)``, in nats.

    Higgins and others (2017), equation 4. With :math:`\beta \ge 1` its mean over z is at most the ELBO, and so a lower
    bound on log p(x); below 1 it is no bound. With :math:`\beta = 0` reconstruction alone is left: an autoencoder,
    whose q is free to shrink to a point.

    For :math:`x \in \mathbb R^D` and :math:`p(x \mid z) = \mathcal N(x; \mu(z), \sigma^2 I)`,

    .. math:: \tfrac1\beta \log \mathcal N(x; \mu, \sigma^2 I)
              = \log \mathcal N(x; \mu, \beta \sigma^2 I) + \text{a constant},

    so to climb it is to climb the ELBO of a model with variance :math:`\beta \sigma^2`, at another rate.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel`.
    q
        The density of the latents given each datum. Not checked: that z was drawn from it.
    x
        Data, ``(B, D)``.
    z
        Latents, ``(S, B, L)``.
    beta
        Weight of the KL, at least 0.

    Raises
    ------
    ValueError, TypeError
        If beta is negative or not finite, or a shape is not the promised one.
    NotImplementedError
        If q and the prior have no closed-form KL.
    """
    _check_from_zero("beta", beta)
    return _log_likelihood(model, q, x, z) - beta * kl(q, model.prior(x.shape[0]))


def free_bits(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor, *, minimum: float) -> Tensor:
    r"""Log-likelihood minus a KL that has a floor for each latent, ``(S, B)``, in nats.

    .. math:: \log p(x \mid z) - \sum_{l=1}^L \max\Bigl(\lambda,\;
              \frac1B \sum_{b=1}^B D_{\mathrm{KL}}(q(z_l \mid x_b) \,\|\, p(z_l)) \Bigr)

    Kingma and others (2016), equation 15, each latent a group of its own; :math:`\lambda` is ``minimum``. The floor is
    under the average over the minibatch, so all entries share one sum, and only their average is an objective: at most
    the ELBO's of the same draws. Where several processes share a minibatch, each averages over its part.

    Parameters
    ----------
    model
        A :class:`~vae_lib.protocols.LatentVariableModel` whose prior is a :class:`~vae_lib.densities.DiagonalNormal`.
    q
        The density of the latents given each datum, a :class:`~vae_lib.densities.DiagonalNormal` too.
    x
        Data, ``(B, D)``.
    z
        Latents, ``(S, B, L)``.
    minimum
        Nats that a latent is charged at least. With 0 the average is that of the ELBO.

    Raises
    ------
    ValueError, TypeError
        If q or the prior is another density, the minimum is negative or not finite, or a shape is not the promised
        one.
    """
    _check_from_zero("minimum", minimum)
    log_likelihood, prior = _log_likelihood(model, q, x, z), model.prior(x.shape[0])
    terms = kl_terms(_normal("q", q, z), _normal("prior(B)", prior, z))
    return log_likelihood - terms.mean(0).clamp(min=minimum).sum()


@dataclass(frozen=True)
class Warmup:
    r"""A :math:`\beta` that grows along a straight line, from 0 at the first step to its value after ``steps`` steps.

    Early, when z tells the decoder nothing, the KL is all that q hears, and latents close before they are of use; so
    the KL is let in by and by (Bowman and others, 2016; Sønderby and others, 2016). It ends at the same objective as
    without, and can change which of its maxima is found. It is a
    :class:`~vae_lib.learning.average_bound.ScheduledBound`: ``train(model, images, bound=Warmup(1000))``.

    Parameters
    ----------
    steps
        How many steps the growth takes, at least 1.
    beta
        Where it ends: 1 for the ELBO.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range.
    """

    steps: int
    beta: float = 1.0

    def __post_init__(self) -> None:
        checks.positive_int("steps", self.steps)
        _check_from_zero("beta", self.beta)

    def beta_at(self, step: int) -> float:
        """The weight of the KL after ``step`` steps."""
        if step < 0:
            raise ValueError(f"step: expected a number of at least 0, found {step}")
        return self.beta * min(1.0, step / self.steps)

    def at_step(self, step: int) -> Bound:
        """The bound that is climbed after ``step`` steps: :func:`beta_elbo` with the weight of that step."""
        return functools.partial(beta_elbo, beta=self.beta_at(step))


def optimal_logvar(x: Tensor, mean: Tensor) -> Tensor:
    r"""The log-variance under which normal data are most likely around given means: a single number, ``()``.

    .. math:: \log \sigma^2_* = \log \frac{1}{S B D} \sum_{s, b, d} (x_{b d} - \mu_{s b d})^2

    Rybkin, Daniilidis and Levine (2021). After a training with :func:`calibrated_elbo` this is the log-variance for the
    model's head, taken over the whole training set.

    Parameters
    ----------
    x
        Data, ``(B, D)``.
    mean
        What the decoder makes of S draws for each datum, ``(S, B, D)``.

    Returns
    -------
    Tensor
        A scalar; minus infinity where every mean hits its datum, for then there is no best variance.
    """
    checks.shape("x", x, ("B", "D"))
    checks.shape("mean", mean, ("S", *x.shape), like=x)
    return (x - mean).square().mean().log()


def calibrated_elbo(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor) -> Tensor:
    r"""The ELBO of a normal likelihood whose variance is the best for this minibatch, ``(S, B)``, in nats.

    .. math:: \log \mathcal N(x; \mu(z), \sigma_*^2 I) - D_{\mathrm{KL}}(q(z \mid x) \,\|\, p(z))

    The :math:`\sigma`-VAE of Rybkin, Daniilidis and Levine (2021), with :math:`\sigma_*^2` of :func:`optimal_logvar`.
    Because it is the best, the average does not change with it to first order: its gradient is that of the ELBO with
    this variance held fixed.

    The mean alone is taken from the model. A variance that its head has is not used and gets no gradient; held-out
    numbers of ``train`` are by the head as it is.

    Parameters
    ----------
    model
        A model with ``mean_x_given_z``, as a :class:`~vae_lib.models.VAE` has it.
    q
        The density of the latents given each datum. Not checked: that z was drawn from it.
    x
        Data, ``(B, D)``, real numbers.
    z
        Latents, ``(S, B, L)``.

    Raises
    ------
    TypeError
        If the model says nothing of the mean.
    ValueError
        If a shape is not the promised one.
    NotImplementedError
        If q and the prior have no closed-form KL.
    """
    if not hasattr(model, "mean_x_given_z"):
        raise TypeError(f"model: expected one with mean_x_given_z, found {type(model).__name__}")
    _check(model, q, x, z)
    mean: Tensor = model.mean_x_given_z(z)
    checks.shape("mean_x_given_z(z)", mean, (z.shape[0], *x.shape), like=x)
    log_likelihood = log_normal(x, mean, optimal_logvar(x, mean)).sum(-1)
    return log_likelihood - kl(q, model.prior(x.shape[0]))


def _check_from_zero(name: str, value: float) -> None:
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name}: expected a number of at least 0, found {value!r}")


def _check(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor) -> None:
    checks.shape("x", x, ("B", model.data_dim))
    checks.shape("z", z, ("S", x.shape[0], model.latent_dim), like=x)
    if not hasattr(q, "batch_size"):
        expected = "a vae_lib.protocols.Density, for an encoder encoder(x)"
        raise TypeError(f"q: expected {expected}, found {type(q).__name__}")
    if (q.batch_size, q.event_dim) != (x.shape[0], model.latent_dim):
        expected = f"(B, L) = {(x.shape[0], model.latent_dim)}"
        raise ValueError(f"q: expected {expected}, found {(q.batch_size, q.event_dim)}")


def _normal(name: str, density: Density, z: Tensor) -> DiagonalNormal:
    if not isinstance(density, DiagonalNormal):
        raise TypeError(f"{name}: expected a DiagonalNormal, found {type(density).__name__}")
    checks.shape(f"{name}.mu", density.mu, tuple(z.shape[1:]), like=z)
    return density


def _log_likelihood(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor) -> Tensor:
    _check(model, q, x, z)
    log_likelihood = model.log_p_x_given_z(x, z)
    checks.shape("log_p_x_given_z(x, z)", log_likelihood, tuple(z.shape[:2]))
    return log_likelihood
