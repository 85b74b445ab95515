"""The grader's end of the pipe: ask a submission that runs in a guarded process, and outlive whatever it does.

Nothing that comes back is trusted: it is JSON of limited size, read before a deadline. A process that dies or
runs too long is started again without the cell that ended it, so that the other parts keep their points.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import wire
from .nursery import PATIENCE, Life, Nursery
from .rubric import Kept, Lost

MANY = 100_000  # kept objects of one life of the process


@dataclass(frozen=True)
class Limits:
    """What one submission may use: seconds, bytes, and how often its process may die."""

    call: float = 20
    cell: float = 60
    total: float = 180
    memory: int = 3 << 30
    file_size: int = 64 << 20
    folder: int = 256 << 20
    answer: int = 8 << 20
    lives: int = 8


@dataclass
class Cell:
    """What came of a cell."""

    number: int
    output: str = ""
    error: list[str] | None = None


class Died(Exception):
    """The process ended or was ended; the message says why."""


class Guarded:
    """Asks a submission in a process of its own: see `grading.rubric.Ask`. Use it in a ``with`` statement."""

    def __init__(
        self, cells: Sequence[tuple[int, str]], limits: Limits | None = None, nursery: Nursery | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.sources = list(cells)
        self.cells = {number: Cell(number) for number, _ in cells}
        self.left_out: dict[int, str] = {}
        self.held: list[str] = []
        self.gone = ""
        self.spent = 0.0
        self._lives = 0
        self._number = 0
        self._slow: Counter[str] = Counter()
        self._owned = nursery is None
        self._nursery = nursery or Nursery()
        self._life: Life | None = None

    def __enter__(self) -> Guarded:
        try:
            self._run_cells()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._owned:
            self._nursery.close()

    def __call__(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the submission."""
        return self._ask(function, None, args, kwargs)

    def method(self, kept: Kept, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of an object that stayed in the process."""
        return self._ask(name, kept, args, kwargs)

    def _ask(self, name: str, kept: Kept | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self.gone:
            raise Lost(self.gone)
        if self._slow[name] > 1:
            raise Lost(f"{name} ended the process twice and was not called again")
        for value in (kept, *args, *kwargs.values()):
            if isinstance(value, Kept) and value.number // MANY != self._lives:
                raise Lost(f"{name} needs an object that was lost when the process ended")
        self._number += 1
        question = {
            "number": self._number,
            "name": name,
            "kept": wire.pack(kept),
            "args": [wire.pack(value) for value in args],
            "kwargs": {key: wire.pack(value) for key, value in kwargs.items()},
        }
        try:
            reply = self._exchange(wire.write(question), self.limits.call, f"{name} ran")
            if reply.get("number") != self._number:
                raise Died(f"{name} wrote to the grader's pipe")
        except Died as died:
            self._slow[name] += 1
            self._stop()
            self._run_cells()
            raise Lost(str(died)) from None
        if "answer" in reply:
            return wire.unpack(reply["answer"])
        raise Lost(self._explained(one_line(reply.get("lost", "what came back cannot be read"))))

    def _explained(self, message: str) -> str:
        """Add what the grader knows: the cell that was left out, the memory that there is."""
        if "MemoryError" in message or "can't allocate memory" in message:
            return f"{message} (the grader gives {self.limits.memory >> 20} MiB)"
        if message.startswith("there is no function") or "NameError" in message:
            why = [*self.left_out.values(), *self._broken()]
            return f"{message} ({'; '.join(why)})" if why else message
        return message

    def _broken(self) -> list[str]:
        """Say which cells are not Python, so that what they define is missing."""
        errors = [(cell.number, cell.error) for cell in self.cells.values() if cell.error]
        return [
            f"cell {number} is not Python: {one_line(error[1])}"
            for number, error in errors
            if error[0] in ("SyntaxError", "IndentationError", "TabError")
        ]

    def _run_cells(self) -> None:
        """Start the process and run the cells; again without the cell that ended it, as often as it has lives."""
        while not self.gone:
            if self._lives == self.limits.lives:
                self.gone = f"the process ended {self._lives} times and was not started again"
                return
            self._lives += 1
            running = None
            try:
                self._start()
                for running, _ in [cell for cell in self.sources if cell[0] not in self.left_out]:
                    report = self._exchange(b"", self.limits.cell, f"cell {running} ran")
                    if report.get("cell") != running:
                        raise Died(f"cell {running} wrote to the grader's pipe")
                    self.cells[running].output = readable(report.get("output", ""), 25_000)
                    if isinstance(error := report.get("error"), list):
                        self.cells[running].error = [readable(item, 5_000) for item in (*error, "", "", "")[:3]]
                running = None
                self._exchange(b"", self.limits.call, "the notebook ran")
                return
            except Died as died:
                if running is not None:
                    self.left_out[running] = f"cell {running} was left out: {died}"
                    self.cells[running].error = ["LeftOut", str(died), str(died)]
                self._stop()

    def _start(self) -> None:
        self._folder = str(Path(tempfile.mkdtemp(prefix="submission-")).resolve())
        self._life = self._nursery.fork()
        self._rest = b""
        start = {
            "folder": self._folder,
            "limits": {
                "memory": self.limits.memory,
                "file_size": self.limits.file_size,
                "seconds": int(self.limits.total) + 60,
            },
            "cells": [cell for cell in self.sources if cell[0] not in self.left_out],
            "first": self._lives * MANY,
        }
        self.held = self._exchange(wire.write(start), PATIENCE, "the start")["held"]

    def _stop(self) -> None:
        """End the process and whatever it started; remove what it wrote."""
        if self._life is None:
            return
        self._nursery.end(self._life)
        self._life = None
        # Python's own rmtree fails on folders nested a thousand deep, which a submission can make.
        subprocess.run(["rm", "-rf", self._folder], check=False, stderr=subprocess.DEVNULL)

    def _exchange(self, line: bytes, seconds: float, what: str) -> dict[str, Any]:
        """Send a line, if there is one, and return the next message; `Died` on time, size, space or silence."""
        assert self._life is not None
        begun = time.monotonic()
        left = self.limits.total - self.spent
        try:
            while b"\n" not in self._rest:
                passed = time.monotonic() - begun
                if passed > left:
                    self.gone = f"the submission used its {self.limits.total:g} seconds"
                    raise Died(self.gone)
                if passed > seconds:
                    raise Died(f"{what} longer than {seconds:g} seconds")
                if len(self._rest) > self.limits.answer:
                    raise Died(f"{what} and sent more than {self.limits.answer >> 20} MiB")
                if size(self._folder) > self.limits.folder:
                    raise Died(f"{what} and wrote more than {self.limits.folder >> 20} MiB to disk")
                readable, writable, _ = select.select([self._life.heard], [self._life.asked] if line else [], [], 0.25)
                if writable:
                    line = line[os.write(self._life.asked, line) :]
                if readable:
                    if not (piece := os.read(self._life.heard, 1 << 20)):
                        raise Died(f"{what} and {self._ending()}")
                    self._rest += piece
        except BrokenPipeError:
            raise Died(f"{what} and {self._ending()}") from None
        finally:
            self.spent += time.monotonic() - begun
        found, _, self._rest = self._rest.partition(b"\n")
        try:
            message = wire.read(found)
        except Lost:
            message = None
        if not isinstance(message, dict):
            raise Died(f"{what} and wrote to the grader's pipe")
        return message

    def _ending(self) -> str:
        """Say how the process ended."""
        code = self._nursery.ending()
        if code is None:
            return "closed the grader's pipe"
        if code < 0:
            return f"was ended by signal {-code} ({signal.Signals(-code).name}): too much memory or time, or a crash"
        return f"ended the process (exit code {code})"


def readable(text: object, room: int) -> str:
    """Return text of the submission as something that can be stored and shown."""
    kept = str(text)[:room].encode(errors="replace").decode()
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "·" for sign in kept)


def one_line(message: object) -> str:
    """Return a message of the submission on one line of limited length."""
    text = " ".join(readable(message, 2_000).split())
    return text if len(text) <= 300 else text[:300] + " …"


def size(folder: str) -> float:
    """Return what the files of a folder take, 4 KiB at least for each; infinity for what cannot be listed."""
    total, waiting = 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    total += max(4096, entry.stat(follow_symlinks=False).st_size)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:
            return float("inf")
    return total
