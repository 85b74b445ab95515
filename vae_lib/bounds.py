r"""Log-weights and the lower bounds on log p(x) that are made of them, in nats.

.. math:: \log w(x, z) = \log p_\theta(x \mid z) + \log p_\theta(z) - \log q_\phi(z \mid x)

The average of log w over q is the ELBO; the log of the average of w is log p(x). Everything between the two is in
this file. Functions that end in samples return one value for each sample and datum, ``(S, B)``: the caller
averages, because only the caller knows whether it wants a bound, its error bar or a gradient.

``q`` is always the density for the batch at hand: ``q = encoder(x)``, or parameters of its own for each datum.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.divergences import kl
from vae_lib.estimate import sample_average_terms
from vae_lib.protocols import Density, LatentVariableModel


def log_joint(model: LatentVariableModel, x: Tensor, z: Tensor) -> Tensor:
    r""":math:`\log p(x, z) = \log p(x \mid z) + \log p(z)`, ``(S, B)``, in nats.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel`.
    x
        Data, ``(B, D)``.
    z
        Latents, ``(S, B, L)``.

    Raises
    ------
    ValueError
        If the shapes of x and z, or of what the model returns, are not the promised ones.
    """
    samples, batch = _check_x_z(model, x, z)
    log_likelihood = model.log_p_x_given_z(x, z)
    checks.shape("log_p_x_given_z(x, z)", log_likelihood, (samples, batch))
    log_prior = model.prior(batch).log_prob(z)
    checks.shape("prior(B).log_prob(z)", log_prior, (samples, batch))
    return log_likelihood + log_prior


def log_weights(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor) -> Tensor:
    r"""Log importance weights, :math:`\log p(x, z) - \log q(z \mid x)`, ``(S, B)``, in nats.

    Their mean over ``z`` drawn from q is an unbiased estimate of the ELBO: estimator A of Kingma and Welling (2014),
    equation 6. Chapter 1.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel`.
    q
        The density of the latents given each datum, of the same B and L. Not checked: that z was drawn from it.
    x
        Data, ``(B, D)``.
    z
        Latents, ``(S, B, L)``.
    """
    samples, batch = _check_x_z(model, x, z)
    _check_q(model, q, x)
    log_q = q.log_prob(z)
    checks.shape("q.log_prob(z)", log_q, (samples, batch))
    return log_joint(model, x, z) - log_q


def elbo_with_analytic_kl(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor) -> Tensor:
    r""":math:`\log p(x \mid z) - D_{\mathrm{KL}}(q(z \mid x) \,\|\, p(z))`, ``(S, B)``, in nats.

    Its mean over ``z`` drawn from q is the same ELBO as that of :func:`log_weights`, with the KL to the prior in closed
    form: estimator B of Kingma and Welling (2014), equation 7. A single value is *not* an importance weight.
    Parameters as for :func:`log_weights`.

    Raises
    ------
    NotImplementedError
        If q and the prior have no closed-form KL.
    """
    samples, batch = _check_x_z(model, x, z)
    _check_q(model, q, x)
    log_likelihood = model.log_p_x_given_z(x, z)
    checks.shape("log_p_x_given_z(x, z)", log_likelihood, (samples, batch))
    return log_likelihood - kl(q, model.prior(batch))


def elbo(
    model: LatentVariableModel,
    q: Density,
    x: Tensor,
    *,
    num_samples: int,
    generator: Generator,
    analytic_kl: bool = False,
) -> Tensor:
    r"""Draw z from q and return one unbiased value of the ELBO for each sample and datum.

    .. math:: \mathrm{ELBO}(x) = \mathbb E_{q(z \mid x)}[\log p(x, z) - \log q(z \mid x)] \le \log p(x)

    Where q can be reparameterised (it has ``rsample``), gradients reach its parameters and those of the model. Where
    it cannot, the values carry no gradient: use :func:`log_weights` on draws of your own, and chapter 3.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel`.
    q
        The density of the latents given each datum.
    x
        Data, ``(B, D)``, finite.
    num_samples
        S, draws for each datum.
    generator
        The source of randomness.
    analytic_kl
        Take the KL to the prior in closed form (:func:`elbo_with_analytic_kl`) instead of by sampling.

    Returns
    -------
    Tensor
        ``(S, B)``, in nats. ``mean_with_error`` of it is the bound with its error bar.
    """
    checks.shape("x", x, ("B", model.data_dim))
    checks.finite("x", x)
    _check_q(model, q, x)
    estimator = elbo_with_analytic_kl if analytic_kl else log_weights
    return sample_average_terms(q, lambda z: estimator(model, q, x, z), num_samples=num_samples, generator=generator)


def importance_weighted_bound(log_w: Tensor, num_importance: int | None = None) -> Tensor:
    r"""The importance-weighted bound of K samples, one value for each group of K.

    .. math:: \mathcal L_K = \log \frac1K \sum_{k=1}^K w_k, \qquad
              \mathrm{ELBO} = \mathbb E\,\mathcal L_1 \le \mathbb E\,\mathcal L_K \le \log p(x)

    Burda, Grosse and Salakhutdinov (2016), equation 8. Chapters 1 and 8. The bound tends to log p(x) as K grows if q is
    positive wherever the posterior is; else it stops at the log of the part of p(x) that q can reach.

    Parameters
    ----------
    log_w
        Log-weights ``(S, B)`` from :func:`log_weights`, in nats.
    num_importance
        K; it must divide S. All S samples form one group if it is not given.

    Returns
    -------
    Tensor
        ``(S / K, B)``, in nats.
    """
    checks.shape("log_w", log_w, ("K", "B"))
    samples, batch = log_w.shape
    count = samples if num_importance is None else num_importance
    checks.positive_int("num_importance", count)
    if samples % count:
        raise ValueError(f"num_importance: expected a divisor of the {samples} samples, found {count}")
    groups = log_w.reshape(samples // count, count, batch)
    return torch.logsumexp(groups, dim=1) - math.log(count)


def importance_weighted(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor) -> Tensor:
    r"""The importance-weighted bound with all S draws as one group, ``(1, B)``, in nats: K is S.

    A bound for ``train``: ``train(model, images, bound=importance_weighted, config=TrainingConfig(num_samples=K))`` is
    the training of Burda, Grosse and Salakhutdinov (2016). With one draw it is :func:`log_weights`. Chapter 8.
    Parameters as for :func:`log_weights`.
    """
    return importance_weighted_bound(log_weights(model, q, x, z))


def joint_log_ratio(log_w: Tensor, log_p_data: Tensor) -> Tensor:
    r"""The logarithm inside the joint KL, one value for each sample and datum.

    .. math:: \log \frac{q(z \mid x)\, p_{\mathcal D}(x)}{p(x, z)} = \log p_{\mathcal D}(x) - \log w(x, z)

    Averaged over x from the data's distribution and z from q it is
    :math:`D_{\mathrm{KL}}(q(z \mid x)\, p_{\mathcal D}(x) \,\|\, p(x, z))
    = -\mathbb E\,\mathrm{ELBO} - H(p_{\mathcal D})`. Chapter 1.

    Parameters
    ----------
    log_w
        Log-weights ``(S, B)`` of data drawn from :math:`p_{\mathcal D}`, in nats.
    log_p_data
        :math:`\log p_{\mathcal D}(x)` of the same data, ``(B,)``, in nats.
    """
    checks.shape("log_w", log_w, ("S", "B"))
    checks.shape("log_p_data", log_p_data, (log_w.shape[1],), like=log_w)
    return log_p_data - log_w


def _check_x_z(model: LatentVariableModel, x: Tensor, z: Tensor) -> tuple[int, int]:
    checks.shape("x", x, ("B", model.data_dim))
    checks.shape("z", z, ("S", x.shape[0], model.latent_dim), like=x)
    return z.shape[0], x.shape[0]


def _check_q(model: LatentVariableModel, q: Density, x: Tensor) -> None:
    missing = [name for name in ("batch_size", "event_dim", "log_prob", "sample") if not hasattr(q, name)]
    if missing:
        hint = "; for an encoder pass encoder(x)" if callable(q) else ""
        raise TypeError(
            f"q: expected a vae_lib.protocols.Density, found {type(q).__name__} without {', '.join(missing)}{hint}"
        )
    if (q.batch_size, q.event_dim) != (x.shape[0], model.latent_dim):
        raise ValueError(
            f"q: expected (B, L) = {(x.shape[0], model.latent_dim)}, one density for each datum, "
            f"found {(q.batch_size, q.event_dim)}"
        )
