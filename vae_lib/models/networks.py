"""Plain networks whose weights come from a generator."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, nn

from vae_lib import checks


def mlp(
    sizes: Sequence[int],
    *,
    generator: Generator,
    activation: type[nn.Module] = nn.Tanh,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Build linear layers with an activation between them.

    Weights and biases are uniform on plus and minus the root of one over the inputs, as PyTorch's own are, but drawn
    from the generator, on its device.

    Parameters
    ----------
    sizes
        Inputs, hidden units, outputs: at least two numbers.
    generator
        The source of randomness.
    activation
        Between layers; none after the last.
    dtype
        Of the weights; the default dtype if not given.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes: expected at least inputs and outputs, found {list(sizes)}")
    for size in sizes:
        checks.positive_int("sizes", size)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        # Made without PyTorch's own initialisation, which would move the global random state.
        linear = nn.utils.skip_init(nn.Linear, inputs, outputs, device=generator.device, dtype=dtype)
        with torch.no_grad():
            for tensor in (linear.weight, linear.bias):
                tensor.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])
