"""A process that has imported what notebooks use, and forks each life of a submission from itself.

Imports take seconds, a fork takes milliseconds: a submission that dies several times costs little more than others.
No cell ever runs in this process.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

# The package without its __init__, so that nothing of the grader but its walls and its ears is loaded there.
BOOT = (
    "import sys, types; package = types.ModuleType('grading'); package.__path__ = [sys.argv[1]]; "
    "sys.modules['grading'] = package; from grading.submission import nursery; nursery(int(sys.argv[2]))"
)
PASSED_ON = ("PATH", "LANG", "LC_ALL", "HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "LD_LIBRARY_PATH")
PATIENCE = 180  # seconds for the imports, on a busy machine


class Life(NamedTuple):
    """A forked process and the pipes to it."""

    pid: int
    asked: int
    heard: int


class Nursery:
    """Start the process, fork lives from it; close it when done."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(PATIENCE)
        environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-c", BOOT, str(Path(__file__).parent), str(theirs.fileno())],
            cwd="/",
            env=environment | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        theirs.close()
        self._hear()

    def fork(self) -> Life:
        """Begin a life; the one before must have ended."""
        ours, asked = os.pipe()
        heard, theirs = os.pipe()
        socket.send_fds(self._control, [b"f"], [ours, theirs])
        os.close(ours)
        os.close(theirs)
        os.set_blocking(asked, False)
        return Life(int(self._hear()), asked, heard)

    def end(self, life: Life) -> None:
        """End a life and whatever it started."""
        for kill in (os.killpg, os.kill):
            try:
                kill(life.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        os.close(life.asked)
        os.close(life.heard)
        self._hear()

    def ending(self) -> int | None:
        """Return the exit code of a life that ends by itself, in the next seconds; `end` must still be called."""
        ready, _, _ = select.select([self._control], [], [], 5)
        return int(self._control.recv(16, socket.MSG_PEEK)) if ready else None

    def close(self) -> None:
        """End the process."""
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _hear(self) -> bytes:
        try:
            if said := self._control.recv(16):
                return said
            problem = "it ended"
        except TimeoutError:
            problem = f"it took longer than {PATIENCE} seconds"
        self._errors.seek(0)
        said = self._errors.read()[-2000:]
        self.close()
        raise RuntimeError(f"the guarded process does not start: {problem}\n{said.decode(errors='replace')}")
