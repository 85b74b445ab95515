"""Records: what a stored run says of itself, beside its results; and how the results of several seeds are told."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import vae_lib


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "vae_lib": vae_lib.__version__}


def device_name(device: torch.device) -> str:
    """What it ran on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type.upper()}, {threads} thread" + "s" * (threads > 1)


def commit() -> str:
    """The commit of the library's code, or ``unknown`` where it is no repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """The mean of the seeds and, if there are several, their standard deviation in brackets."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({statistics.stdev(values):.{digits}f})"


def read_units(path: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The finished trainings in the record of a script, none if it is not begun.

    Raises
    ------
    SystemExit
        If they were made with other settings.
    """
    if not path.exists():
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["settings"] != settings:
        raise SystemExit(f"{path}: expected units with the settings of this call, found others; choose another --out")
    units: list[dict[str, Any]] = record["results"]
    return units


def write_units(
    path: Path,
    units: Sequence[Mapping[str, Any]],
    *,
    command: str,
    settings: Mapping[str, Any],
    unit: str,
    **more: Any,
) -> None:
    """Write the record of a script on the CPU, whole or not at all; ``more`` stands before the results."""
    record = {
        "command": command,
        "commit": commit(),
        "device": device_name(torch.device("cpu")),
        "versions": versions(),
        "seeds": sorted({one["seed"] for one in units}),
        "settings": settings,
        "unit": unit,
        **more,
        "results": units,
    }
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
