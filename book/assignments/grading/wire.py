"""What goes over the pipe between the grader and a submission: JSON, one message a line, never anything executable."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from .rubric import Code, Kept, Lost, Seed

KINDS = {"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"}


def write(message: Any) -> bytes:
    """Return a message as the line that is sent."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def read(line: bytes) -> Any:
    """Return the message of a line; `Lost` if it is not one."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise Lost("what came back cannot be read") from None


def pack(value: Any) -> Any:
    """Return a value as plain JSON. Only numbers, strings and booleans stand for themselves."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return float(value)
        case np.ndarray() if value.dtype.name in KINDS:
            data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
            return {"array": [value.dtype.name, list(value.shape), data]}
        case np.ndarray():
            raise Lost(f"an array of {value.dtype} cannot be read, only real numbers")
        case np.generic():
            return value.item()
        case list():
            return [pack(item) for item in value]
        case tuple():
            return {"tuple": [pack(item) for item in value]}
        case dict():
            return {"dict": [[str(key), pack(item)] for key, item in value.items()]}
        case Seed():
            return {"seed": value.seed}
        case Code():
            return {"code": value.source}
        case Kept():
            return {"kept": value.number}
    raise Lost(f"{type(value).__name__} cannot be sent")


def unpack(value: Any) -> Any:
    """Return the value that `pack` made plain; `Lost` on anything else. Nothing is evaluated."""
    try:
        return _unpack(value)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise Lost("what came back cannot be read") from None


def _unpack(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_unpack(item) for item in value]
        case {"array": [str(kind), list(shape), str(data)]} if kind in KINDS:
            # frombuffer gives a read-only view; a shape that does not fit the data is a ValueError.
            return np.frombuffer(base64.b64decode(data, validate=True), dtype=kind).reshape(shape).copy()
        case {"tuple": list(items)}:
            return tuple(_unpack(item) for item in items)
        case {"dict": list(items)}:
            return {str(key): _unpack(item) for key, item in items}
        case {"seed": int(seed)}:
            return Seed(seed)
        case {"code": str(source)}:
            return Code(source)
        case {"kept": int(number)}:
            return Kept(number)
    raise ValueError
