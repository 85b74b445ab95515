"""What a notebook calls first, and what it prints its numbers with.

The book's notebooks are compared with their stored output to the letter, on other processors and other versions.
So a chapter fixes what can be fixed (:func:`begin`), and prints a number only with digits that last-bit noise
cannot flip: the formatters raise :class:`RoundingEdgeError` rather than print a digit that may change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from vae_lib.estimate import Estimate
from vae_lib.explorables import explorable_html
from vae_lib.plots.style import use_style
from vae_lib.rng import make_generator

Number = float | int | Tensor

# Sums of a few thousand float64 terms differ by about this much, relatively, between instruction sets.
FLOAT64_NOISE = 1e-12


class RoundingEdgeError(ValueError):
    """A number that last-bit noise could print in two ways."""


def begin(seed: int = 0, *, dark: bool = False) -> Generator:
    """Set up a chapter and return its generator.

    One thread, float64 by default, the book's plot style. The chapter hands the generator to whatever draws.

    Parameters
    ----------
    seed
        The chapter's seed.
    dark
        Draw figures for a dark notebook.
    """
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    use_style(dark=dark)
    return make_generator(seed)


def fixed(value: Number, digits: int = 6, *, noise: float = FLOAT64_NOISE) -> str:
    """Format a number with so many significant digits, or refuse.

    Parameters
    ----------
    value
        A number, or a tensor that holds one.
    digits
        Significant digits: six for exact numbers, four at most for trained ones.
    noise
        How far the value may be off, relatively or absolutely (whichever is larger), on another machine.

    Raises
    ------
    RoundingEdgeError
        If a change by the noise would print another string.
    """
    number = _number(value)
    if number == 0.0:
        return "0"
    spread = noise * max(abs(number), 1.0)
    texts = {_significant(number + shift, digits) for shift in (-spread, 0.0, spread)}
    if len(texts) > 1:
        raise RoundingEdgeError(
            f"value: expected a number that prints the same with {digits} digits when it moves by {spread:.1g}, "
            f"found {number!r}; print other digits, or a verdict with agree()"
        )
    return texts.pop()


def with_error(estimate: Estimate, *, noise: float = FLOAT64_NOISE) -> str:
    """Format a Monte Carlo estimate as ``value ± standard error``, both to the error's first digit.

    Raises
    ------
    RoundingEdgeError
        If a change by the noise would print another string.
    """
    value, error = _number(estimate.value), _number(estimate.standard_error)
    if not error > 0.0:
        raise ValueError(f"standard_error: expected a positive number, found {error}")
    spread = noise * max(abs(value), 1.0)
    texts = {
        _to_first_digit(value + shift, error * (1.0 + tilt)) for shift in (-spread, spread) for tilt in (-noise, noise)
    }
    if len(texts) > 1:
        raise RoundingEdgeError(f"estimate: expected one printed form, found {sorted(texts)}; take another seed or S")
    return texts.pop()


def agree(claim: str, found: Tensor | float, expected: Tensor | float, tol: float = 1e-10) -> None:
    """Print that a claim holds, or raise with the two values.

    Parameters
    ----------
    claim
        The sentence to print.
    found, expected
        Two values or tensors of the same shape.
    tol
        The largest accepted difference, relative to the larger of 1 and the expected value.

    Raises
    ------
    AssertionError
        If they differ by more.
    """
    found_t, expected_t = torch.as_tensor(found).detach(), torch.as_tensor(expected).detach()
    if found_t.shape != expected_t.shape:
        raise ValueError(f"expected: expected shape {tuple(found_t.shape)}, found {tuple(expected_t.shape)}")
    off = ((found_t - expected_t).abs() / expected_t.abs().clamp(min=1.0)).max()
    if not float(off) <= tol:
        raise AssertionError(f"{claim}: expected agreement to {tol:g}, found a difference of {float(off):.3g}")
    print(f"{claim}: yes, to {tol:g}")


def agree_within_errors(claim: str, estimate: Estimate, expected: Tensor | float, *, ceiling: float) -> None:
    """Print that estimates agree with exact values within five standard errors, or raise.

    Parameters
    ----------
    claim
        The sentence to print.
    estimate
        Values and standard errors of any one shape.
    expected
        The exact values, of the same shape.
    ceiling
        The largest accepted standard error: an estimate that is too vague to be wrong proves nothing.

    Raises
    ------
    AssertionError
        If one value is further off, or one error above the ceiling.
    """
    value, error = estimate.value.detach(), estimate.standard_error.detach()
    expected_t = torch.as_tensor(expected).detach()
    if value.shape != expected_t.shape:
        raise ValueError(f"expected: expected shape {tuple(value.shape)}, found {tuple(expected_t.shape)}")
    if not float(error.max()) <= ceiling:
        raise AssertionError(
            f"{claim}: expected standard errors of at most {ceiling:g}, found {float(error.max()):.3g}"
        )
    off = ((value - expected_t).abs() / error).max()
    if not float(off) <= 5.0:
        raise AssertionError(f"{claim}: expected at most 5 standard errors, found {float(off):.1f}")
    print(f"{claim}: yes, within 5 standard errors, each below {ceiling:g}")


def table(header: Sequence[str], rows: Sequence[Sequence[str | Number]]) -> None:
    """Print rows as an aligned table; numbers are formatted by :func:`fixed`."""
    cells = [[cell if isinstance(cell, str) else fixed(cell) for cell in row] for row in rows]
    for row in cells:
        if len(row) != len(header):
            raise ValueError(f"rows: expected {len(header)} cells in each, found {len(row)}")
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    for line in [list(header), ["-" * width for width in widths], *cells]:
        first, rest = (
            line[0].ljust(widths[0]),
            [cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)],
        )
        print("  ".join([first, *rest]).rstrip())


def explorable(name: str, **config: float | str | Mapping[str, Any]) -> object:
    """Return an interactive figure that Jupyter, Colab and the built page show."""
    from IPython.display import HTML

    figure: object = HTML(explorable_html(name, **config))  # type: ignore[no-untyped-call]
    return figure


def stored_file(name: str) -> Path:
    """Return the path of a long run's record or weights, wherever the notebook runs.

    A folder ``runs`` beside the notebook comes first, so that a run of your own takes the place of the book's. A
    notebook that stands alone, as in Colab, reads the copy in the installed package or in the checkout it was
    installed from.

    Parameters
    ----------
    name
        The file's name, ``digits.json`` or ``digits.safetensors``.

    Raises
    ------
    FileNotFoundError
        If no such folder has it.
    """
    package = Path(__file__).resolve().parent
    for folder in (Path("runs"), Path("book/runs"), package / "runs", package.parent / "book/runs"):
        if (path := folder / name).is_file():
            return path
    raise FileNotFoundError(
        f"stored run: expected runs/{name} beside the notebook or in the installed package, found none; "
        "what the book stores is in its repository, in the folder book/runs"
    )


def stored_run(name: str) -> dict[str, Any]:
    """Return the record of a long run; :func:`stored_file` says where it is looked for.

    Parameters
    ----------
    name
        The file's name without ``.json``.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    record: dict[str, Any] = json.loads(stored_file(f"{name}.json").read_text(encoding="utf-8"))
    return record


def _number(value: Number) -> float:
    number = float(value.detach()) if isinstance(value, Tensor) else float(value)
    if not math.isfinite(number):
        raise ValueError(f"value: expected a finite number, found {number}")
    return number


def _significant(number: float, digits: int) -> str:
    """Plain notation where a reader can read it at a glance, powers of ten elsewhere."""
    exponent = int(f"{number:.{digits - 1}e}".split("e")[1])
    if -4 <= exponent < max(digits, 6):
        rounded = float(f"{number:.{digits - 1}e}")
        return f"{rounded:.{max(digits - 1 - exponent, 0)}f}"
    return f"{number:.{digits - 1}e}"


def _to_first_digit(value: float, error: float) -> str:
    exponent = int(f"{error:.0e}".split("e")[1])
    decimals = max(-exponent, 0)
    scale = 10.0 ** max(exponent, 0)
    return f"{round(value / scale) * scale if scale > 1 else value:.{decimals}f} ± {float(f'{error:.0e}'):.{decimals}f}"
