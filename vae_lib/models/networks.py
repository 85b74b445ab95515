r"""Plain networks whose weights come from a generator.

How a layer's weights are drawn is a function of the layer and the generator: :func:`fan_in_uniform`, PyTorch's own
rule; :func:`glorot_uniform`, the rule of Glorot and Bengio, 2010; or :class:`NormalInit`, one normal for everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Generator, Tensor, nn

from vae_lib import checks

Layer: TypeAlias = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
Initialiser: TypeAlias = Callable[[Layer, Generator], None]


def fans(layer: Layer) -> tuple[int, int]:
    """How many numbers an output is a sum of, and how many outputs a number goes into, edges of images apart."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    area = layer.kernel_size[0] * layer.kernel_size[1]
    stride = layer.stride[0] * layer.stride[1]
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.in_channels * area // stride, layer.out_channels * area
    return layer.in_channels * area, layer.out_channels * area // stride


def fan_in_uniform(layer: Layer, generator: Generator) -> None:
    """Draw weights and biases uniformly on plus and minus the root of one over the inputs, as PyTorch does."""
    inputs, _ = fans(layer)
    with torch.no_grad():
        for tensor in _parameters(layer):
            tensor.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)


def glorot_uniform(layer: Layer, generator: Generator) -> None:
    """Draw weights uniformly on plus and minus the root of six over inputs plus outputs; biases are zero."""
    bound = (6.0 / sum(fans(layer))) ** 0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        if layer.bias is not None:
            layer.bias.zero_()


@dataclass(frozen=True)
class NormalInit:
    r"""Draw all weights and biases from one normal density with mean zero.

    Kingma and Welling (2014) draw all parameters from :math:`\mathcal N(0, 0.01)`. Everywhere else in that paper the
    second argument is a variance, so ``std`` is 0.1 unless said otherwise; read as a standard deviation it is 0.01.

    Parameters
    ----------
    std
        The standard deviation, positive.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        if not self.std > 0.0:
            raise ValueError(f"std: expected a positive number, found {self.std}")

    def __call__(self, layer: Layer, generator: Generator) -> None:
        """Fill a layer."""
        with torch.no_grad():
            for tensor in _parameters(layer):
                tensor.normal_(0.0, self.std, generator=generator)


def mlp(
    sizes: Sequence[int],
    *,
    generator: Generator,
    activation: type[nn.Module] = nn.Tanh,
    dtype: torch.dtype | None = None,
    init: Initialiser = fan_in_uniform,
) -> nn.Sequential:
    """Build linear layers with an activation between them.

    Parameters
    ----------
    sizes
        Inputs, hidden units, outputs: at least two numbers.
    generator
        The source of randomness; the weights lie on its device.
    activation
        Between layers; none after the last.
    dtype
        Of the weights; the default dtype if not given.
    init
        How the weights of a layer are drawn.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes: expected at least inputs and outputs, found {list(sizes)}")
    for size in sizes:
        checks.positive_int("sizes", size)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        # Made without PyTorch's own initialisation, which would move the global random state.
        linear = nn.utils.skip_init(nn.Linear, inputs, outputs, device=generator.device, dtype=dtype)
        init(linear, generator)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


class Divide(nn.Module):
    """Divide by a number: an encoder whose data are counts up to 16 or 255 begins with it.

    Parameters
    ----------
    divisor
        Any number but zero. It is a setting, not a weight.
    """

    def __init__(self, divisor: float) -> None:
        super().__init__()
        if not divisor:
            raise ValueError(f"divisor: expected a number other than zero, found {divisor}")
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        """``x`` divided, of any shape."""
        return x / self.divisor


def _parameters(layer: Layer) -> list[Tensor]:
    return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
