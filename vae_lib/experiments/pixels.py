"""Pictures inside a record: bytes of grey, squeezed and written as text that JSON can hold."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import torch
from torch import Tensor


def pack(images: Tensor, image_shape: tuple[int, int], columns: int) -> dict[str, Any]:
    """Store images of pixels in [0, 1], ``(N, D)``, as bytes: a step of grey is 1/255.

    Parameters
    ----------
    images
        In reading order.
    image_shape
        Height and width of one.
    columns
        How many stand in a row.
    """
    grey = (images.detach().cpu().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    squeezed = zlib.compress(grey.contiguous().numpy().tobytes(), 9)
    text = base64.b64encode(squeezed).decode("ascii")
    return {"image_shape": list(image_shape), "columns": columns, "count": len(grey), "pixels": text}


def unpack(picture: dict[str, Any]) -> Tensor:
    """The images of :func:`pack`, ``(N, D)`` from 0 to 1."""
    grey = torch.frombuffer(bytearray(zlib.decompress(base64.b64decode(picture["pixels"]))), dtype=torch.uint8)
    return grey.view(picture["count"], -1).float() / 255.0
