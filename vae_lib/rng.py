"""Randomness: the only place that seeds.

Every function that draws takes a keyword-only ``generator`` without a default. Nothing in the library reads
or moves the global random state of torch, NumPy or Python; a test watches it.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Generator


def make_generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> Generator:
    """Return a generator seeded by ``seed`` and, optionally, by the names of a stream.

    Two different names give two unrelated streams from one seed, so an experiment can hand one to its data, one to
    its noise and one to each repeat, and adding a stream never changes the others.

    Parameters
    ----------
    seed
        Any integer from 0 to 2**63 - 1.
    names
        Words or numbers that name the stream, for instance ``"noise", 3``.
    device
        Where the generator lives; it must be the device of the tensors that are drawn.

    Raises
    ------
    ValueError
        If ``seed`` is not an integer in range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed: expected an integer from 0 to 2**63 - 1, found {seed!r}")
    if names:
        text = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    return Generator(device=device).manual_seed(seed)
