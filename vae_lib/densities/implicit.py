r"""Draws that depend on the parameters through no formula, and their gradients by the implicit function theorem.

If z has the distribution function :math:`F_\phi`, then :math:`F_\phi(z) = u` with a uniform u that knows nothing of the
parameters. Hold u, move :math:`\phi`, and z must move so that the equation still holds:

.. math:: \frac{\partial z}{\partial \phi} = - \frac{\partial F_\phi(z) / \partial \phi}{p_\phi(z)}

No inverse of F is needed. Figurnov, Mohamed and Mnih (2018); chapter 4.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def implicit_draw(draw: Tensor, cdf: Tensor, log_density: Tensor) -> Tensor:
    r"""Give draws the gradient that the implicit function theorem says they have.

    Parameters
    ----------
    draw
        Draws, any shape, from whatever sampler.
    cdf
        :math:`F_\phi` at the draws (held fixed), same shape, with gradients to :math:`\phi`. Coordinates must be
        independent, each with its own F.
    log_density
        The log-density of each coordinate at the draws, same shape, in nats.

    Returns
    -------
    Tensor
        The same numbers, with first derivatives :math:`-\partial_\phi F / p`. Second derivatives are not right.
    """
    return draw.detach() - (cdf - cdf.detach()) * torch.exp(-log_density.detach())


def standard_gamma(concentration: Tensor, *, generator: Generator) -> tuple[Tensor, Tensor]:
    """Gamma numbers of rate 1, and their slopes in the concentration, both without gradients, of its shape.

    Below the smallest normal number draws are clamped, so a concentration far below 0.01 is not sampled faithfully.
    The slopes are torch's: each is right to about one part in a thousand, their mean to one in ten thousand.
    """
    concentration = concentration.detach()
    draw = torch._standard_gamma(concentration, generator=generator)
    # torch differentiates F for this one distribution; per-sample transforms cannot, so the slope is taken here.
    return draw, torch._standard_gamma_grad(concentration, draw)


def implicit_gamma(concentration: Tensor, draw: Tensor, slope: Tensor) -> Tensor:
    """Give the numbers of :func:`standard_gamma` their gradient to the concentration they were drawn with."""
    return draw + slope * (concentration - concentration.detach())
