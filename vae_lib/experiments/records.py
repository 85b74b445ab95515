"""Records: what a stored run says of itself, beside its results; and how the results of several seeds are told."""

from __future__ import annotations

import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

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
