"""Images on a device, and the minibatches that a trainer reads from them.

The whole set lies on the device as it was published, one byte a pixel: 47 MB for MNIST. A minibatch is one
``index_select`` and, for bits, one call of ``torch.rand``: no image is handled by itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.models.configurations import VAEConfig
from vae_lib.rng import make_generator

Reading = Literal["bits", "counts", "unit"]


@dataclass(frozen=True, eq=False)
class Images:
    """Data as published, with the way a model reads them.

    Parameters
    ----------
    values
        ``(N, D)``: bytes, or floating-point numbers.
    reading
        - ``"bits"``: a pixel is one with probability ``value / max_value``, drawn anew at every reading (dynamic
          binarisation). Bytes with ``max_value`` 1 are bits already and stay as they are.
        - ``"counts"``: the values as they are.
        - ``"unit"``: the values divided by ``max_value``.
    max_value
        The largest value that the format allows.

    Raises
    ------
    TypeError, ValueError
        If the values are not of two axes, empty, not finite, or out of range for their reading.
    """

    values: Tensor
    reading: Reading = "counts"
    max_value: int = 1

    def __post_init__(self) -> None:
        values = self.values
        if not isinstance(values, Tensor) or not (values.dtype == torch.uint8 or values.is_floating_point()):
            found = values.dtype if isinstance(values, Tensor) else type(values).__name__
            raise TypeError(f"images: expected bytes or floating-point numbers, found {found}")
        if values.dim() != 2 or 0 in values.shape:
            raise ValueError(f"images: expected shape (N, D) with at least one image, found {tuple(values.shape)}")
        if self.reading not in get_args(Reading):
            raise ValueError(f"reading: expected one of {', '.join(get_args(Reading))}, found {self.reading!r}")
        checks.positive_int("max_value", self.max_value)
        if values.is_floating_point():
            checks.finite("images", values)
        low, high = values.min().item(), values.max().item()
        if self.reading != "counts" and not (low >= 0 and high <= self.max_value):
            raise ValueError(f"images: expected values from 0 to {self.max_value}, found {low:g} to {high:g}")

    def __len__(self) -> int:
        """N."""
        return self.values.shape[0]

    @property
    def data_dim(self) -> int:
        """D."""
        return self.values.shape[1]

    def facts(self) -> dict[str, Any]:
        """What tells these images from others, as JSON can say it."""
        digest = hashlib.sha256(self.values.cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()
        sizes = {"number of images": len(self), "pixels": self.data_dim}
        return {**sizes, "reading": self.reading, "max_value": self.max_value, "values, SHA-256": digest}

    def to(self, device: torch.device | str) -> Images:
        """The same images on another device."""
        return replace(self, values=self.values.to(device))

    def read(self, rows: Tensor, *, dtype: torch.dtype, generator: Generator, part: slice = slice(None)) -> Tensor:
        """One minibatch ``(B, D)`` for the B given rows.

        Parameters
        ----------
        rows
            Indices ``(B,)`` on the device of the values.
        dtype
            Of the minibatch.
        generator
            For the bits; on the device of the values.
        part
            Which of the B are wanted. Random numbers are drawn for all of them, so that several processes that each
            read a part hold together what one process would have read.
        """
        x = self.values.index_select(0, rows[part]).to(dtype)
        if self.reading == "unit":
            return x / self.max_value
        if self.reading == "counts" or (self.max_value == 1 and self.values.dtype == torch.uint8):
            return x
        shape = (len(rows), self.data_dim)
        uniform = torch.rand(shape, generator=generator, dtype=dtype, device=self.values.device)[part]
        return (uniform * self.max_value < x).to(dtype)

    def read_all(self, *, dtype: torch.dtype, generator: Generator) -> Tensor:
        """All N, ``(N, D)``: what a held-out bound is taken on."""
        rows = torch.arange(len(self), device=self.values.device)
        return self.read(rows, dtype=dtype, generator=generator)


def reading_for(config: VAEConfig) -> Reading:
    """How the likelihood of a configuration wants its pixels: bits, counts, or grey levels from 0 to 1."""
    if config.likelihood == "bernoulli":
        return "bits"
    return "unit" if config.likelihood.startswith("normal") else "counts"


def epoch_order(num_images: int, *, seed: int, epoch: int) -> Tensor:
    """The order of an epoch, ``(N,)``: a function of seed and epoch alone, so nothing of it needs to be stored.

    It is drawn on the CPU: all devices and all processes see the same one.
    """
    return torch.randperm(num_images, generator=make_generator(seed, "order", epoch))
