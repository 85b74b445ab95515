"""What a data set is: images in three splits that share nothing, and what is known about them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch


class DatasetError(ValueError):
    """A data set cannot be had; one line says what, what was expected, what was found and what to do."""


@dataclass(frozen=True)
class DatasetInfo:
    """What a reader should know about a data set before using it.

    Attributes
    ----------
    name, title : str
        The name that `load_dataset` takes, and the name to print.
    image_shape : tuple of int
        Height and width in pixels; an image is stored as a row of height * width values.
    value_range : tuple of int
        The smallest and largest value that the format allows; `Split.pixels` divides by the largest.
    values : str
        What a value means, in words.
    split : str
        How the images were divided into train, validation and test.
    source, licence, citation, bib_key : str
        Where it comes from, what is known about its licence, the reference, and its key in the bibliography.
    classes : tuple of str
        What the labels 0, 1, ... mean; empty where there are no labels.
    factor_names : tuple of str
        Names of the generative factors; empty where they are not known.
    factor_sizes : tuple of int
        How many values each factor takes: column f of `Split.factors` holds 0 to factor_sizes[f] - 1.
    dtype : torch.dtype
        The type of `Split.x`.
    """

    name: str
    title: str
    image_shape: tuple[int, int]
    value_range: tuple[int, int]
    values: str
    split: str
    source: str
    licence: str
    citation: str
    bib_key: str
    classes: tuple[str, ...] = ()
    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()
    dtype: torch.dtype = torch.uint8


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """One part of a data set.

    Attributes
    ----------
    x : torch.Tensor
        Images (N, D), uint8, as published: grey levels, counts or bits, row by row from the top left.
    index : torch.Tensor
        Row of each image in the data set as published (N,), int64.
    max_value : int
        The value that `pixels` maps to 1.
    labels : torch.Tensor or None
        Classes (N,), int64.
    factors : torch.Tensor or None
        Values of the generative factors (N, F), int64.
    """

    x: torch.Tensor
    index: torch.Tensor
    max_value: int
    labels: torch.Tensor | None = None
    factors: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        known = [name for name in ("labels", "factors") if getattr(self, name) is not None]
        return f"Split({len(self)} images of {self.x.shape[1]} pixels, {' and '.join(known) or 'no labels'})"

    def pixels(self, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Images scaled to [0, 1]: x / max_value, with the format's largest value, not the largest seen.

        Parameters
        ----------
        dtype : torch.dtype
            A floating type.

        Returns
        -------
        torch.Tensor
            (N, D), a new tensor.

        Raises
        ------
        DatasetError
            If `dtype` is not a floating type.
        """
        if not dtype.is_floating_point:
            raise DatasetError(f"dtype: expected a floating type, found {dtype}; the integers are in .x")
        return self.x.to(dtype) / self.max_value


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set: `info`, and the splits `train`, `validation` and `test`, which share no image.

    Examples
    --------
    >>> from vae_lib.data import load_dataset
    >>> digits = load_dataset("digits")
    >>> digits
    Dataset(digits: 1257 train, 180 validation, 360 test images of 8 x 8 pixels)
    >>> digits.train.pixels().shape
    torch.Size([1257, 64])
    """

    info: DatasetInfo
    train: Split
    validation: Split
    test: Split

    def __repr__(self) -> str:
        sizes = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        height, width = self.info.image_shape
        return f"Dataset({self.info.name}: {sizes} images of {height} x {width} pixels)"


def cut(
    info: DatasetInfo,
    x: torch.Tensor,
    order: torch.Tensor,
    sizes: Sequence[int],
    *,
    labels: torch.Tensor | None = None,
    factors: torch.Tensor | None = None,
) -> Dataset:
    """Cut images into train, validation and test: the first, next and last rows of `order`.

    Parameters
    ----------
    info : DatasetInfo
        What is known about the data set.
    x : torch.Tensor
        All images as published (N, D), uint8.
    order : torch.Tensor
        A permutation of 0 .. N - 1, int64; that it is one is not checked.
    sizes : sequence of int
        Three sizes that add up to N.
    labels, factors : torch.Tensor, optional
        (N,) and (N, F), int64, in the order of `x`.

    Returns
    -------
    Dataset
    """
    train, validation, test = (
        Split(
            x[rows],
            rows,
            info.value_range[1],
            None if labels is None else labels[rows],
            None if factors is None else factors[rows],
        )
        for rows in torch.split(order, list(sizes))
    )
    return Dataset(info, train, validation, test)


def hash_order(name: str, n: int) -> torch.Tensor:
    """Return a fixed permutation of 0 .. n - 1: the numbers i sorted by the SHA-256 of "name:i".

    A random generator's permutation may change with its library's version; this one cannot.

    Returns
    -------
    torch.Tensor
        (n,), int64.
    """
    return torch.tensor(sorted(range(n), key=lambda i: hashlib.sha256(f"{name}:{i}".encode()).digest()))
