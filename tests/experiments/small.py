"""What the tests of the experiments share: units of Figure 2 cut short, and results without their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from vae_lib.experiments import Unit
from vae_lib.experiments.aevb_fig2 import AEVB_FIG2

CPU = torch.device("cpu")


def short_units(*names: str, samples: int = 1000, seeds: Sequence[int] = (0,)) -> list[Unit]:
    """Units of Figure 2 on the small digits: a short pilot, few images to learn from and to look at."""
    short = {"samples": samples, "pilot steps": 4, "images looked at": 20}
    units = {unit.name: unit for unit in AEVB_FIG2.units("smoke", seeds, True)}
    return [replace(units[name], settings=units[name].settings | short) for name in names]


def without_times(result: Any) -> Any:
    """A result, or part of it, without what a clock says."""
    if isinstance(result, dict):
        return {name: without_times(value) for name, value in result.items() if name != "seconds"}
    return [without_times(value) for value in result] if isinstance(result, list) else result
