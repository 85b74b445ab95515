r"""Wake-sleep: two objectives that take turns (Hinton, Dayan, Frey and Neal, 1995), as a rival of the bound.

.. math:: \text{wake: } \nabla_\theta \log p_\theta(x, z), \; z \sim q_\phi(z \mid x) \qquad
          \text{sleep: } \nabla_\phi \log q_\phi(z' \mid x'), \; (z', x') \sim p_\theta

Awake, the model climbs the ELBO in :math:`\theta`. Asleep, the recognition model learns from the model's dreams: it
lowers :math:`D_{\mathrm{KL}}(p_\theta(z \mid x) \,\|\, q_\phi(z \mid x))`, averaged over dreams, which is the other
direction of the KL, and on other data, than the ELBO has. The two together are the gradient of no function, and
log p(x) may fall on the way: chapter 6 has an example that begins at its maximum and leaves it.
Neither half differentiates through a draw, so z may be discrete. Chapter 6.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.bounds import log_joint
from vae_lib.protocols import ApproximatePosterior, LatentVariableModel


class WakeSleep:
    """Both phases in one step; ``train(model, images, bound=WakeSleep())`` learns with it.

    The model's weights get the wake phase's gradient and the encoder's weights the sleep phase's, as many dreams as
    there are draws. This takes for granted that the two share no weights.
    """

    def climb(
        self,
        model: LatentVariableModel,
        encoder: ApproximatePosterior,
        x: Tensor,
        *,
        num_samples: int,
        generator: Generator,
    ) -> Tensor:
        r"""Values to average and differentiate, ``(S, B)``.

        Parameters
        ----------
        model, encoder
            p(x, z) and q(z | x).
        x
            Data, ``(B, D)``.
        num_samples
            S, draws for each datum, and dreams in its place.
        generator
            The source of randomness: z awake, then z and x asleep.

        Returns
        -------
        Tensor
            In value the log-weights of the wake phase, whose average is the ELBO, in nats. Their gradient is not the
            ELBO's: it is that of :math:`\log p(x, z)` in the model's weights and of :math:`\log q(z' \mid x')` in the
            encoder's.
        """
        checks.positive_int("num_samples", num_samples)
        batch = x.shape[0]
        with torch.no_grad():
            q = encoder(x)
            z = q.sample(num_samples, generator=generator)
            log_q = q.log_prob(z)
        checks.shape("q.log_prob(z)", log_q, (num_samples, batch))
        wake = log_joint(model, x, z)
        z_dream, x_dream = dream(model, num_samples * batch, generator=generator)
        sleep = encoder(x_dream).log_prob(z_dream).view(num_samples, batch)
        # Nothing in value, all in gradient.
        return wake - log_q + (sleep - sleep.detach())


def dream(model: LatentVariableModel, count: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw from the model: latents ``(1, count, L)`` and a datum for each, ``(count, D)``. They carry no gradient.

    Parameters
    ----------
    model
        p(x, z).
    count
        How many.
    generator
        The source of randomness.
    """
    checks.positive_int("count", count)
    with torch.no_grad():
        z = model.prior(count).sample(1, generator=generator)
        x = model.sample_x_given_z(z, generator=generator).squeeze(0)
    checks.shape("sample_x_given_z(z)", x, (count, model.data_dim))
    return z, x
