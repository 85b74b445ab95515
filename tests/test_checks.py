"""Each check accepts what it promises and names argument, expectation and finding in one line."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_lib import checks


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((2, 3), (2, 3)),
        ((2, 3), ("B", 3)),
        ((0, 3), ("S", 3)),
        ((), ()),
        ((1,), ("B",)),
        ((0,), (0,)),
    ],
)
def test_shape_accepts(size: tuple[int, ...], expected: tuple[int | str, ...]) -> None:
    checks.shape("x", torch.zeros(size), expected, like=torch.zeros(1))


@pytest.mark.parametrize(
    ("size", "expected", "message"),
    [
        ((2, 3), (2, 4), "x: expected shape (2, 4), found (2, 3)"),
        ((2, 3), (3, 3), "x: expected shape (3, 3), found (2, 3)"),
        ((2,), ("B", 3), "x: expected shape (B, 3), found (2,)"),
        ((1, 2, 3), (2, 3), "x: expected shape (2, 3), found (1, 2, 3)"),
        ((2, 3), (2,), "x: expected shape (2,), found (2, 3)"),
        ((3,), (), "x: expected shape (), found (3,)"),
        ((1, 3), (2, 3), "x: expected shape (2, 3), found (1, 3)"),
        ((0, 3), ("B", 3), "x: expected shape (B, 3), found (0, 3) (an empty batch)"),
        ((0, 3), ("S", 4), "x: expected shape (S, 4), found (0, 3) (an empty batch)"),
        ((0,), ("B", 3), "x: expected shape (B, 3), found (0,)"),
    ],
)
def test_shape_names_both_shapes(size: tuple[int, ...], expected: tuple[int | str, ...], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        checks.shape("x", torch.zeros(size), expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], "x: expected a tensor, found list"),
        (torch.zeros(2, dtype=torch.int64), "x: expected floating-point numbers, found torch.int64"),
        (torch.zeros(2, dtype=torch.bool), "x: expected floating-point numbers, found torch.bool"),
        (torch.zeros(2, dtype=torch.complex64), "x: expected floating-point numbers, found torch.complex64"),
    ],
)
def test_shape_names_the_type(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match="^" + re.escape(message) + "$"):
        checks.shape("x", value, ("B",))


def test_shape_compares_dtype_and_device() -> None:
    with pytest.raises(
        TypeError, match=r"^x: expected torch\.float32 as the tensors it meets have, found torch\.float64$"
    ):
        checks.shape("x", torch.zeros(2, dtype=torch.float64), (2,), like=torch.zeros(2))
    with pytest.raises(TypeError, match=r"^x: expected a tensor on cpu, found one on meta$"):
        checks.shape("x", torch.zeros(2, device="meta"), (2,), like=torch.zeros(2))


def test_finite() -> None:
    checks.finite("x", torch.tensor([[0.0, -1e38]]))
    checks.finite("x", torch.zeros(0))
    with pytest.raises(ValueError, match=r"^x: expected finite numbers, found 1 that are not, first nan at \(1, 0\)$"):
        checks.finite("x", torch.tensor([[0.0, 1.0], [math.nan, 2.0]]))
    with pytest.raises(ValueError, match=r"^x: expected finite numbers, found 2 that are not, first -inf at \(0,\)$"):
        checks.finite("x", torch.tensor([-math.inf, 1.0, math.inf]))
    with pytest.raises(ValueError, match=r"^x: expected finite numbers, found 1 that are not, first inf at \(\)$"):
        checks.finite("x", torch.tensor(math.inf))


@given(st.integers(1, 10**12))
def test_positive_int_accepts(value: int) -> None:
    checks.positive_int("n", value)


@pytest.mark.parametrize("value", [0, -1, -(10**9)])
def test_positive_int_names_the_value(value: int) -> None:
    with pytest.raises(ValueError, match=f"^n: expected a positive integer, found {value}$"):
        checks.positive_int("n", value)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, torch.tensor(1)])
def test_positive_int_names_the_type(value: Any) -> None:
    with pytest.raises(TypeError, match="^n: expected a positive integer, found " + re.escape(repr(value)) + "$"):
        checks.positive_int("n", value)
