"""Checks of shape, type and value that say what was expected and what was found.

Shapes are checked at the top of every density and bound, for they cost nothing. Values (:func:`finite`) are
checked where data enters: looking at a value stops a GPU and cannot be done inside ``torch.func`` transforms.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shape(name: str, tensor: Tensor, expected: tuple[int | str, ...], like: Tensor | None = None) -> None:
    """Check that ``tensor`` is a floating-point tensor of the expected shape, with no broadcasting.

    Parameters
    ----------
    name
        What the message calls the tensor.
    tensor
        The tensor to check.
    expected
        One entry for each axis: a number that must be met, or a letter that stands for any size of at least 1.
        The letter ``"S"`` may also be 0, because a sum over no samples is still well defined.
    like
        A tensor whose dtype and device must be the same.

    Raises
    ------
    TypeError
        If ``tensor`` is not a floating-point tensor, or its dtype or device is not that of ``like``.
    ValueError
        If the shape is another one.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, found {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"{name}: expected floating-point numbers, found {tensor.dtype}")
    found = tuple(tensor.shape)
    fits = len(found) == len(expected) and all(
        size == want if isinstance(want, int) else (size > 0 or want == "S")
        for size, want in zip(found, expected, strict=True)
    )
    if not fits:
        axes = ", ".join(str(axis) for axis in expected) + ("," if len(expected) == 1 else "")
        hint = " (an empty batch)" if 0 in found and len(found) == len(expected) else ""
        raise ValueError(f"{name}: expected shape ({axes}), found {found}{hint}")
    if like is not None and tensor.dtype != like.dtype:
        raise TypeError(f"{name}: expected {like.dtype} as the tensors it meets have, found {tensor.dtype}")
    if like is not None and tensor.device != like.device:
        raise TypeError(f"{name}: expected a tensor on {like.device}, found one on {tensor.device}")


def finite(name: str, tensor: Tensor) -> None:
    """Check that no entry is NaN or infinite.

    Raises
    ------
    ValueError
        If one is; the message counts them and names the first.
    """
    bad = ~torch.isfinite(tensor)
    if bool(bad.any()):
        first = tuple(int(i) for i in bad.nonzero()[0])
        value = float(tensor[first].detach())
        raise ValueError(
            f"{name}: expected finite numbers, found {int(bad.sum())} that are not, first {value} at {first}"
        )


def positive_int(name: str, value: int) -> None:
    """Check that ``value`` is an integer of at least 1.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a positive integer, found {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected a positive integer, found {value}")
