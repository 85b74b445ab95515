"""What a command answers: facts for machines, lines for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The answer of a command.

    Parameters
    ----------
    facts
        What ``--json`` prints.
    lines
        What is printed otherwise.
    """

    facts: dict[str, Any]
    lines: list[str]

    def text(self, *, as_json: bool) -> str:
        """One JSON object in one line, or the lines."""
        return json.dumps(_finite(self.facts), allow_nan=False) if as_json else "\n".join(self.lines)


def labelled(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of a label and its words, the words below one another."""
    rows = list(rows)
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {words}".rstrip() for label, words in rows]


def with_error(value: float, error: float) -> str:
    """A value and its standard error, to the error's second digit."""
    if not (math.isfinite(error) and error > 0.0):
        return f"{value:.2f} ± {error:.2g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _finite(value: Any) -> Any:
    """JSON has no word for infinity; null stands for what is not finite."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
