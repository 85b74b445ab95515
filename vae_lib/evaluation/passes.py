"""What every evaluation does: set modules to evaluation mode, draw latents, decode them a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from vae_lib import checks
from vae_lib.protocols import ApproximatePosterior, Density, LatentVariableModel


def modules_of(*parts: object) -> list[nn.Module]:
    """The parts that are modules, and the modules that parts hold as attributes, as a ``DecoderModel`` does."""
    holders = [value for part in parts for value in (part, *getattr(part, "__dict__", {}).values())]
    return [holder for holder in holders if isinstance(holder, nn.Module)]


@contextmanager
def evaluating(*parts: object) -> Iterator[None]:
    """Switch modules to evaluation mode and gradients off; afterwards every module has its own mode back.

    Parameters
    ----------
    parts
        Models and encoders: :func:`modules_of` them. Modules that lie deeper in something that is no module are not
        found.
    """
    roots = modules_of(*parts)
    modes = [(module, module.training) for root in roots for module in root.modules()]
    try:
        for root in roots:
            root.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def draw(
    model: LatentVariableModel, encoder: ApproximatePosterior, x: Tensor, *, num_samples: int, generator: Generator
) -> tuple[Density, Tensor]:
    """Return q(z | x) for data ``x (B, D)``, and ``z (S, B, L)`` drawn from it.

    Raises
    ------
    TypeError
        If the encoder gives no density.
    ValueError
        If its draws have not the shape that the model takes.
    """
    q = encoder(x)
    if not isinstance(q, Density):
        raise TypeError(f"encoder(x): expected a vae_lib.protocols.Density, found {type(q).__name__}")
    z = q.sample(num_samples, generator=generator)
    checks.shape("encoder(x).sample(S)", z, (num_samples, x.shape[0], model.latent_dim), like=x)
    return q, z


def in_parts(function: Callable[[Tensor], Tensor], z: Tensor, rows: int) -> Tensor:
    """Evaluate a function ``(S, B, L) -> (S, B)`` on as many samples at a time as make about ``rows`` latents.

    At least one sample of all B data is taken at a time.
    """
    batch = z.shape[1]
    values = []
    for part in z.split(max(1, rows // batch)):
        values.append(function(part))
        checks.shape("log_p_x_given_z(x, z)", values[-1], (part.shape[0], batch))
    return torch.cat(values)
