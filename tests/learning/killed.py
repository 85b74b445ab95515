"""Train in processes that die by SIGKILL: `python -m tests.learning.killed FOLDER`, run by test_killed.py.

Where a process dies is counted in calls and returns of Python and C functions, so that a death inside the writing of a
checkpoint, before or after the flush or the renaming, is as likely as these are long, and the same on every machine.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from tests.learning.runs import small_run
from vae_lib.learning.checkpoints import read_checkpoint

DEATHS, EPOCHS = 10, 12


def count_calls(action: Callable[[], object], deadly: int | None = None) -> int:
    """Do something; return how many calls and returns it took. At the deadly one the process is killed."""
    count = 0

    def note(*_: object) -> None:
        nonlocal count
        count += 1
        if count == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # the fork of a process that has several may wait for one of them for ever
    small_run(folder / "whole", epochs=EPOCHS)  # what is imported late is now there
    whole = count_calls(lambda: small_run(folder / "counted", epochs=EPOCHS))
    start = count_calls(lambda: small_run(folder / "counted", epochs=EPOCHS, resume=True))
    draws = random.Random(1)
    steps = []
    for _ in range(DEATHS):
        # From the middle of the start to far into the steps; in the mean half of them are left at the end.
        deadly = int(draws.uniform(0.5 * start, start + 1.5 * (whole - start) / DEATHS))
        if (child := os.fork()) == 0:
            count_calls(lambda: small_run(folder / "killed", epochs=EPOCHS, resume=True), deadly)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"expected a process that was killed, found status {status}")
        path = folder / "killed" / "checkpoint.safetensors"
        steps.append(read_checkpoint(path).header["step"] if path.exists() else 0)
    print(json.dumps(steps))
    small_run(folder / "killed", epochs=EPOCHS, resume=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
