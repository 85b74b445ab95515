"""What an error means to whoever typed the command: one line, and an exit code."""

from __future__ import annotations

import errno
from typing import NamedTuple

from vae_lib.cli.hints import in_options
from vae_lib.cli.parsing import BadInput
from vae_lib.data import DatasetError
from vae_lib.learning import NonFiniteError

RUNNING, INPUT = 1, 2
# A disk may fill or break under a command that was right; any other trouble with a file is in what was asked for.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class Failure(NamedTuple):
    """How a command ends that cannot go on."""

    code: int
    line: str


def failure(error: Exception) -> Failure | None:
    """Judge an error; None if it is none that the library foresees, so that its traceback is worth seeing.

    ``TypeError`` and ``ValueError`` are how the library refuses what it is given, in one line.
    """
    line = " ".join(str(error).split())
    if isinstance(error, DatasetError | NonFiniteError):  # an unknown name is found out before, as BadInput
        return Failure(RUNNING, line)
    if isinstance(cause := error.__cause__ or error, OSError) and not isinstance(error, BadInput):
        where = f"{cause.filename}: " if cause is error and cause.filename else ""
        words = f"{where}expected a file that can be used, found: {cause.strerror}" if cause is error else line
        return Failure(RUNNING if cause.errno in _DISK else INPUT, words)
    if isinstance(error, ValueError | TypeError):
        return Failure(INPUT, in_options(line))
    if isinstance(error, RuntimeError) and ("out of memory" in line or "can't allocate memory" in line):
        return Failure(RUNNING, "expected enough memory, found too little; fewer images or units at a time need less")
    return None
