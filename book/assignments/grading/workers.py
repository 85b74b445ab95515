"""Processes that grade submissions, some at a time; one that fails or hangs takes nobody's grade with it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from .verdict import HERE

Item = TypeVar("Item")
Result = TypeVar("Result")


class Worker:
    """A process that grades one submission after the other. If it fails, the next submission gets a new one."""

    def __init__(self, *arguments: object, longest: float) -> None:
        self.arguments, self.longest = [str(part) for part in arguments], longest
        self.process: subprocess.Popen[str] | None = None

    def grade(self, submission: Path, place: Path) -> str:
        """Have a submission graded; return why that failed, or nothing."""
        if self.process is None:
            self.errors = tempfile.TemporaryFile("w+")
            self.process = subprocess.Popen(
                [sys.executable, "-m", "grading.verdict", *self.arguments],
                env=os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([str(submission), str(place)]), file=self.process.stdin, flush=True)
        if not select.select([self.process.stdout], [], [], self.longest)[0]:
            self.close()
            return f"it was stopped after {self.longest:g} seconds"
        if self.process.stdout.readline() == "done\n":
            return ""
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines() or ["it ended without a word"]
        self.close()
        return said[-1][:300]

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def run_all(
    workers: Sequence[Worker], items: Sequence[Item], run: Callable[[Worker, Item], Result]
) -> Iterator[tuple[Item, Result]]:
    """Give each item to a worker that is free; yield each when it is done."""
    free: queue.Queue[Worker] = queue.Queue()
    for worker in workers:
        free.put(worker)

    def one(item: Item) -> Result:
        worker = free.get()
        try:
            return run(worker, item)
        finally:
            free.put(worker)

    try:
        with ThreadPoolExecutor(len(workers)) as pool:
            running = {pool.submit(one, item): item for item in items}
            try:
                for done in as_completed(running):
                    yield running[done], done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in workers:
                    worker.close()
                raise
    finally:
        for worker in workers:
            worker.close()
