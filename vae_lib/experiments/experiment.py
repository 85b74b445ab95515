"""What an experiment is: a list of units that can run in any order, and what is made of their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from matplotlib.figure import Figure

Scale = Literal["smoke", "laptop", "full"]

# A stored run as JSON holds it; `vae_lib.experiments.records` says what is in it.
Record: TypeAlias = dict[str, Any]
# Called with the part of a unit that is done, from 0 to 1.
Advance: TypeAlias = Callable[[float], None]


@dataclass(frozen=True)
class Unit:
    """One training, with what is measured of it.

    Parameters
    ----------
    name
        Unlike that of every other unit of the experiment; it is the name of a folder too.
    settings
        All that the result depends on, as JSON can say it.
    seconds
        About how long it takes on one core of the machine of the book's runs.
    """

    name: str
    settings: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Experiment:
    """A figure or a table of a paper, as ``python -m vae_lib reproduce NAME`` makes it again.

    Parameters
    ----------
    name
        What is typed.
    title
        What it is, in words.
    measured_in
        The unit of its numbers.
    units
        Takes a scale, seeds and whether small digits stand in for the data; returns what is to be run.
    run
        Takes a unit, its folder, a device and a function that is told of progress; returns what goes into the record.
        Called again with the same folder it goes on where it was interrupted. Its result depends on nothing but the
        settings of the unit, the device and the library.
    lines
        Takes a record; returns a table in lines of text.
    draw
        Takes a record; returns the figure.
    usual_seeds
        Which seeds are run, where none are asked for; at smoke scale the first of them.
    """

    name: str
    title: str
    measured_in: str
    units: Callable[[Scale, Sequence[int], bool], list[Unit]]
    run: Callable[[Unit, Path, torch.device, Advance], dict[str, Any]]
    lines: Callable[[Record], list[str]]
    draw: Callable[[Record], Figure]
    usual_seeds: tuple[int, ...] = (0, 1, 2)

    def seeds(self, scale: Scale) -> tuple[int, ...]:
        """Which seeds are run, where none are asked for."""
        return self.usual_seeds[:1] if scale == "smoke" else self.usual_seeds
