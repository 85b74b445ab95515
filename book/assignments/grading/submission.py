"""The program of the guarded process: run the cells of a submission once, then answer questions about its functions.

It is forked from `grading.nursery` with two pipes. First comes one message with the cells and the limits; after each
cell goes a report; then each question gets one answer. What the submission does to this process it does to itself: the
right answers are elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from . import guard, wire
from .here import Neighbour
from .rubric import Lost

SHOWN = 20_000  # characters of a cell's output that are kept
SETTINGS = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "MPLBACKEND")


class Capped(io.TextIOBase):
    """A stream that keeps the beginning of what is printed."""

    def __init__(self) -> None:
        self.text, self.lost = "", False

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Keep what there is room for."""
        room = SHOWN - len(self.text)
        self.text += text[:room]
        self.lost |= len(text) > room
        return len(text)


def without_magics(source: str) -> str:
    """Return the cell as Python; lines for IPython or the shell are left out where the cell is no Python with them."""
    lines = source.splitlines()
    if lines and lines[0].startswith("%%"):
        lines[0] = ""
        if source.split()[0] not in ("%%time", "%%timeit", "%%capture"):
            return ""
    for _ in lines:
        try:
            compile("\n".join(lines), "cell", "exec")
        except SyntaxError as error:
            place = (error.lineno or 0) - 1
            if not (0 <= place < len(lines) and is_magic(lines[place])):
                break
            lines[place] = lines[place][: -len(lines[place].lstrip())] + "pass"
        else:
            break
    return "\n".join(lines)


def is_magic(line: str) -> bool:
    """Tell whether a line is for IPython or the shell."""
    return line.lstrip().startswith(("%", "!", "?")) or line.rstrip().endswith("?")


def run_cell(number: int, source: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Run a cell; return what it printed, and the error that ended it, if one did."""
    shown, name, error = Capped(), f"<cell {number}>", None
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            code = without_magics(source)
            if code.split() != source.split():
                print("(the grader left out lines that are for IPython or the shell)")
            linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
            exec(compile(code, name, "exec"), namespace)
        except BaseException as raised:  # exit() too: the next cell runs as it would after an error
            error = describe(raised)
    return {"cell": number, "output": shown.text + ("\n(…)" if shown.lost else ""), "error": error}


def describe(raised: BaseException) -> list[str]:
    """Return an error's name, its message and its lines, whatever its own methods do."""
    try:
        frames = [frame for frame in traceback.extract_tb(raised.__traceback__) if frame.filename.startswith("<cell")]
        lines = traceback.format_list(frames[-5:]) + traceback.format_exception_only(raised)
        return [type(raised).__name__, str(raised)[:2000], "".join(lines)[-4000:]]
    except BaseException:
        return ["Error", "an error that cannot be shown", ""]


def answer(neighbour: Neighbour, question: dict[str, Any]) -> dict[str, Any]:
    """Answer one question."""
    try:
        args = [wire.unpack(value) for value in question["args"]]
        kwargs = {key: wire.unpack(value) for key, value in question["kwargs"].items()}
        with contextlib.redirect_stdout(Capped()), contextlib.redirect_stderr(Capped()):
            if (kept := question["kept"]) is None:
                value = neighbour(question["name"], *args, **kwargs)
            else:
                value = neighbour.method(wire.unpack(kept), question["name"], *args, **kwargs)
            return {"answer": wire.pack(value)}
    except Lost as lost:
        return {"lost": str(lost)}
    except BaseException as raised:
        kind, text, _ = describe(raised)
        return {"lost": f"{question['name']} raised {kind}: {text}"}


def nursery(control: int) -> None:
    """Import what notebooks use; then fork a life for each pair of pipes that comes, and tell how it ended."""
    import matplotlib.pyplot
    import numpy as np
    import sklearn.datasets
    import torch

    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports what the first optimiser would
    del matplotlib, np, sklearn
    guard.die_with_parent()
    grader = socket.socket(fileno=control)
    grader.send(b"ready")
    while True:
        _, pipes, _, _ = socket.recv_fds(grader, 1, 2)
        if not pipes:
            return
        if (pid := os.fork()) == 0:
            grader.close()
            os.setsid()
            try:
                live(*pipes)
            finally:
                os._exit(0)
        for pipe in pipes:
            os.close(pipe)
        grader.send(str(pid).encode())
        grader.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def live(questions: int, answers: int) -> None:
    """Close the doors, run the cells, answer until the pipe closes."""
    inbox = os.fdopen(questions, "rb")

    def send(message: dict[str, Any]) -> None:
        rest = memoryview(wire.write(message))
        while rest:
            rest = rest[os.write(answers, rest) :]

    start = wire.read(inbox.readline())
    folder = start["folder"]
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    for key in set(os.environ) - set(SETTINGS):
        del os.environ[key]
    os.environ.update(HOME=folder, TMPDIR=folder)
    sys.dont_write_bytecode = True
    guard.die_with_parent()
    send({"held": guard.close_doors(Path(folder), **start["limits"])})

    namespace: dict[str, Any] = {"__name__": "__main__", "display": print}
    neighbour = Neighbour(namespace)
    neighbour.kept = [None] * start["first"]
    for number, source in start["cells"]:
        send(run_cell(number, source, namespace))
    send({"cell": None})
    for line in inbox:
        question = wire.read(line)
        send({"number": question["number"], **answer(neighbour, question)})
