"""Wrong answers that students give, one module for each assignment, and what the rubric says of them."""

from __future__ import annotations

from typing import NamedTuple


class Slip(NamedTuple):
    """A wrong answer: its code replaces the function that it defines; it loses points, and a message says a thing."""

    name: str
    part: str
    code: str
    lost: int
    says: str
