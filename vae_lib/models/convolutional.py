"""Convolutional networks for images that come and go as flat vectors.

Two convolutions halve the image twice, a linear layer follows; the decoder goes the same way back. Height and width
must be multiples of 4, as 28 and 8 are. A convolution has one set of weights for all places of the image.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from vae_lib import checks
from vae_lib.models.networks import Initialiser, Layer, fan_in_uniform, mlp


class OverLeadingAxes(nn.Module):
    """Run a network that takes a batch ``(N, ...)`` on the vectors of a tensor with any axes before the last.

    Parameters
    ----------
    network
        Maps ``(N, I)`` to ``(N, O)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, value: Tensor) -> Tensor:
        """Map ``(..., I)`` to ``(..., O)``."""
        output: Tensor = self.network(value.reshape(math.prod(value.shape[:-1]), value.shape[-1]))
        return output.reshape(*value.shape[:-1], output.shape[-1])


def conv_encoder(
    image_shape: tuple[int, int],
    outputs: int,
    *,
    generator: Generator,
    channels: tuple[int, int] = (32, 64),
    hidden: int = 256,
    activation: type[nn.Module] = nn.ReLU,
    dtype: torch.dtype | None = None,
    init: Initialiser = fan_in_uniform,
) -> OverLeadingAxes:
    """Build a network from flat images to vectors.

    Parameters
    ----------
    image_shape
        Height and width, multiples of 4; D is their product.
    outputs
        Length of the vectors: 2 L for a normal encoder.
    generator
        The source of randomness; the weights lie on its device.
    channels
        Of the image at half and at a quarter of its size.
    hidden
        Units of the linear layer between.
    activation, dtype, init
        As for :func:`~vae_lib.models.mlp`.

    Returns
    -------
    OverLeadingAxes
        Maps ``(..., D)`` to ``(..., outputs)``.
    """
    height, width = check_image_shape(image_shape)
    first, second = _check_channels(channels)
    options: dict[str, Any] = {"generator": generator, "dtype": dtype, "init": init}
    return OverLeadingAxes(
        nn.Sequential(
            nn.Unflatten(-1, (1, *image_shape)),
            _halving(nn.Conv2d, 1, first, **options),
            activation(),
            _halving(nn.Conv2d, first, second, **options),
            activation(),
            nn.Flatten(),
            mlp([second * height * width, hidden, outputs], activation=activation, **options),
        )
    )


def conv_decoder(
    latent_dim: int,
    image_shape: tuple[int, int],
    *,
    generator: Generator,
    outputs_per_number: int = 1,
    channels: tuple[int, int] = (32, 64),
    hidden: int = 256,
    activation: type[nn.Module] = nn.ReLU,
    dtype: torch.dtype | None = None,
    init: Initialiser = fan_in_uniform,
) -> OverLeadingAxes:
    """Build a network from latents to flat images.

    Parameters
    ----------
    latent_dim
        L.
    image_shape
        Height and width, multiples of 4; D is their product.
    generator
        The source of randomness; the weights lie on its device.
    outputs_per_number
        K, what the likelihood needs for each pixel.
    channels, hidden
        As for :func:`conv_encoder`, in the same order: here the last comes first.
    activation, dtype, init
        As for :func:`~vae_lib.models.mlp`.

    Returns
    -------
    OverLeadingAxes
        Maps ``(..., L)`` to ``(..., K D)``, in K blocks of D.
    """
    height, width = check_image_shape(image_shape)
    first, second = _check_channels(channels)
    checks.positive_int("outputs_per_number", outputs_per_number)
    options: dict[str, Any] = {"generator": generator, "dtype": dtype, "init": init}
    return OverLeadingAxes(
        nn.Sequential(
            mlp([latent_dim, hidden, second * height * width], activation=activation, **options),
            activation(),
            nn.Unflatten(-1, (second, height, width)),
            _halving(nn.ConvTranspose2d, second, first, **options),
            activation(),
            _halving(nn.ConvTranspose2d, first, outputs_per_number, **options),
            nn.Flatten(),
        )
    )


def _halving(
    kind: type[Layer],
    inputs: int,
    outputs: int,
    *,
    generator: Generator,
    dtype: torch.dtype | None,
    init: Initialiser,
) -> Layer:
    """Return a convolution that halves height and width, or a transposed one that doubles them."""
    layer: Layer = nn.utils.skip_init(
        kind, inputs, outputs, kernel_size=4, stride=2, padding=1, device=generator.device, dtype=dtype
    )
    init(layer, generator)
    return layer


def check_image_shape(image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Check that height and width are multiples of 4, and return a quarter of each."""
    for side in image_shape:
        checks.positive_int("image_shape", side)
    if len(image_shape) != 2 or any(side % 4 for side in image_shape):
        raise ValueError(f"image_shape: expected height and width, multiples of 4, found {tuple(image_shape)}")
    return image_shape[0] // 4, image_shape[1] // 4


def _check_channels(channels: tuple[int, int]) -> tuple[int, int]:
    if len(channels) != 2:
        raise ValueError(f"channels: expected two numbers, found {tuple(channels)}")
    for count in channels:
        checks.positive_int("channels", count)
    return channels[0], channels[1]
