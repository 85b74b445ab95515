"""What a hidden test is made of: lines of a rubric, each with its points, its check and its messages.

A check asks the submission for values and compares them with what it works out itself, in NumPy and from models drawn
for this grading. The answers never reach the process that runs the submission.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike


class Lost(Exception):
    """Points are lost; the message says what was expected, what came, and where to look."""


class Ask(Protocol):
    """How a check reaches a submission: ``ask("elbo", x, mu, logvar)`` calls its function ``elbo`` there.

    Arguments and results are numbers, strings, tuples, lists, dicts and arrays; arrays arrive as float64 (or integer)
    tensors and come back as NumPy arrays. `Seed` arrives as a ``torch.Generator``, `Code` as the object that its
    source evaluates to. Anything else that a function returns stays there and comes back as a `Kept` that can be passed
    to a later call; ``ask.method(kept, "encode", x)`` calls a method of it. Raises `Lost` with a message for the
    student if the function is missing or not written yet, raises, runs too long, or returns what cannot be read.
    """

    def __call__(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the submission."""

    def method(self, kept: Kept, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of an object that a function of the submission returned."""


@dataclass(frozen=True)
class Seed:
    """A ``torch.Generator`` on the CPU with this seed, made where the submission runs."""

    seed: int


@dataclass(frozen=True)
class Code:
    """An object that the submission's process makes from source, with ``torch`` and ``math`` at hand."""

    source: str


@dataclass(frozen=True)
class Kept:
    """The name of an object that stayed in the submission's process."""

    number: int


@dataclass(frozen=True)
class Line:
    """One line of the rubric."""

    part: str
    points: int
    text: str
    check: Callable[[Ask, Generator], None]


@dataclass(frozen=True)
class Result:
    """What a submission earned on one line, and why not more."""

    part: str
    text: str
    points: int
    of: int
    message: str

    def __str__(self) -> str:
        return f"{self.points} of {self.of}  {self.text}" + (f"\n        {self.message}" if self.message else "")


@dataclass
class Rubric:
    """The hidden tests of one assignment, in the order in which they run."""

    assignment: str
    lines: list[Line] = field(default_factory=list)

    def line(
        self, part: str, *, points: int
    ) -> Callable[[Callable[[Ask, Generator], None]], Callable[[Ask, Generator], None]]:
        """Enter a check; the first line of its docstring is the rubric's text. ``part`` is the id of its test cell."""

        def enter(check: Callable[[Ask, Generator], None]) -> Callable[[Ask, Generator], None]:
            text = (check.__doc__ or "").strip().splitlines()[0]
            self.lines.append(Line(part, points, text, check))
            return check

        return enter

    def grade(self, ask: Ask, *, seed: int, part: str | None = None) -> list[Result]:
        """Run the checks of one part, or of all. Each draws from a generator of its own, made of seed and place."""
        results = []
        for place, line in enumerate(self.lines):
            if part is not None and line.part != part:
                continue
            points, message = 0, ""
            try:
                with np.errstate(all="ignore"):  # what a submission returns may overflow
                    line.check(ask, np.random.default_rng([seed, place]))
                points = line.points
            except Lost as lost:
                message = str(lost)
            except Exception as error:  # a check need not foresee every answer: None, a ragged list, 10**400
                message = f"what came back could not be compared ({type(error).__name__}: {error})"
            results.append(Result(line.part, line.text, points, line.points, message))
        return results


def expect(
    answer: Any,
    truth: ArrayLike,
    *,
    what: str,
    slips: Mapping[str, ArrayLike] | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-9,
) -> None:
    """Compare an answer with the truth; `Lost` names the slip whose value it has, if it is one of ``slips``.

    ``slips`` maps a sentence that teaches ("the KL is summed over latents, not averaged") to the value which that slip
    gives here. The tolerances are those of float64 sums; a check of draws states its own, made of standard errors.
    """
    right = np.asarray(truth, dtype=float)
    try:
        found = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        raise Lost(f"{what}: expected numbers of shape {right.shape}, found {type(answer).__name__}") from None
    if found.shape != right.shape:
        raise Lost(f"{what}: expected shape {right.shape}, found {found.shape}")
    if np.allclose(found, right, rtol=rtol, atol=atol):
        return
    for sentence, value in (slips or {}).items():
        wrong = np.broadcast_to(np.asarray(value, dtype=float), right.shape)
        if np.allclose(found, wrong, rtol=rtol, atol=atol):
            raise Lost(f"{what}: {sentence}")
    if not np.isfinite(found).all():
        raise Lost(f"{what}: expected finite numbers, found {_first(found, ~np.isfinite(found))}")
    off = ~np.isclose(found, right, rtol=rtol, atol=atol)
    digits = next(n for n in (6, 9, 12, 17) if _first(right, off, n) != _first(found, off, n) or n == 17)
    raise Lost(f"{what}: expected {_first(right, off, digits)}, found {_first(found, off, digits)}")


def _first(values: np.ndarray, where: np.ndarray, digits: int = 6) -> str:
    """Return the first of the marked values, as a message shows it."""
    return f"{values[where].ravel()[0]:.{digits}g}"
