"""Running an experiment: units in processes of one thread each, progress, and a record that is whole or not there.

A unit that is done leaves ``result.json`` in its folder, with its settings; a unit that was interrupted leaves a
checkpoint. So the same command, given again, does what is left; what other settings left is thrown away. Units share
nothing: their results depend neither on their order nor on how many run at a time.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vae_lib.experiments.experiment import Experiment, Record, Scale, Unit
from vae_lib.experiments.records import commit, device_name, versions
from vae_lib.learning.checkpoints import write_whole
from vae_lib.learning.distributed import choose_device
from vae_lib.learning.interrupts import TrainingInterrupted

RESULT, PROGRESS, SETTINGS = "result.json", "progress", "settings.json"


def file_name(experiment: Experiment, scale: Scale) -> str:
    """The name of the record, without its folder."""
    return f"{experiment.name}-{scale}.json"


def plan_lines(experiment: Experiment, scale: Scale, units: Sequence[Unit], jobs: int) -> list[str]:
    """Say what will run, and about how long."""
    seconds = sum(unit.seconds for unit in units)
    longest = max(unit.seconds for unit in units)
    lines = [f"{experiment.title}, at {scale} scale: {len(units)} trainings, {jobs} at a time"]
    for unit in units:
        lines.append(f"  {unit.name:<32} about {in_words(unit.seconds)}")
    about = in_words(max(seconds / jobs, longest))
    return [*lines, f"about {about} in all, by one core of the machine of the book's runs; yours may differ"]


def in_words(seconds: float) -> str:
    """A time to a digit or two."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def run_experiment(
    experiment: Experiment,
    scale: Scale,
    units: Sequence[Unit],
    *,
    seeds: Sequence[int],
    out: Path,
    command: str,
    device: str | None = None,
    jobs: int = 1,
    progress: bool | None = None,
) -> Path:
    """Run what is left of the units, and write the record.

    Parameters
    ----------
    experiment, scale
        Which, and how long.
    units
        All of the experiment's at that scale, or some.
    seeds
        Of the units, for the record.
    out
        The folder of the record. What the units keep lies in a folder below it, and stays there: a later command with
        more units runs only those that are new.
    command
        What was typed, for the record.
    device
        As for :func:`~vae_lib.learning.train`.
    jobs
        Processes at a time, each with one thread.
    progress
        Whether to say how far it is. If not given: a line for each unit, and a bar where stderr is a terminal.

    Returns
    -------
    pathlib.Path
        The record.
    """
    work = out / f".{Path(file_name(experiment, scale)).stem}"
    work.mkdir(parents=True, exist_ok=True)
    _run_all(experiment, units, work, device=device, jobs=jobs, progress=progress)
    record: Record = {
        "command": command,
        "commit": commit(),
        "device": device_name(choose_device(device)) if jobs == 1 else f"{_kind(device)}, {jobs} processes of 1 thread",
        "versions": versions(),
        "seeds": list(seeds),
        "experiment": experiment.name,
        "title": experiment.title,
        "scale": scale,
        "unit": experiment.measured_in,
        "results": [_stored(unit, work) for unit in units],
    }
    path = out / file_name(experiment, scale)
    write_whole(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def _kind(device: str | None) -> str:
    return choose_device(device).type.upper()


def _stored(unit: Unit, work: Path) -> dict[str, Any] | None:
    """The result of a unit that is done with these settings, or nothing."""
    path = work / unit.name / RESULT
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result if result["settings"] == _as_stored(unit) else None


def _as_stored(unit: Unit) -> Any:
    return json.loads(json.dumps(unit.settings))


def run_unit(experiment: Experiment, unit: Unit, work: Path, device: str | None) -> dict[str, Any]:
    """Run one unit, or read what it left, and keep its result."""
    stored = _stored(unit, work)
    if stored is not None:
        return stored
    target = choose_device(device)
    folder = work / unit.name
    written = folder / SETTINGS
    is_other = written.exists() and json.loads(written.read_text(encoding="utf-8")) != _as_stored(unit)
    if is_other or (folder / RESULT).exists():
        shutil.rmtree(folder)  # a checkpoint of other settings is of no use
    write_whole(written, json.dumps(unit.settings).encode())

    def advance(part: float) -> None:
        parent = parent_process()
        if parent is not None and not parent.is_alive():
            raise TrainingInterrupted("the command that began this was killed")  # nobody waits for the result
        (folder / PROGRESS).write_text(f"{part:.4f}", encoding="ascii")

    result = {"name": unit.name, "settings": unit.settings, **experiment.run(unit, folder, target, advance)}
    write_whole(folder / RESULT, json.dumps(result).encode())
    return result


def _run_named(name: str, unit: Unit, work: Path, device: str | None) -> dict[str, Any]:
    from vae_lib.experiments import EXPERIMENTS  # a process of its own looks the experiment up by its name

    torch.set_num_threads(1)
    return run_unit(EXPERIMENTS[name], unit, work, device)


def _run_all(
    experiment: Experiment, units: Sequence[Unit], work: Path, *, device: str | None, jobs: int, progress: bool | None
) -> None:
    left = [unit for unit in units if _stored(unit, work) is None]
    # The longest first, so that none is left over at the end while the other processes wait.
    left.sort(key=lambda unit: -unit.seconds)
    report = _Progress(units, left, work, progress)
    if jobs == 1:
        for unit in left:
            report.finished(unit, run_unit(experiment, unit, work, device))
        return report.close()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting: dict[Future[dict[str, Any]], Unit] = {
            pool.submit(_run_named, experiment.name, unit, work, device): unit for unit in left
        }
        try:
            while waiting:
                done, _ = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    report.finished(waiting.pop(future), future.result())
                report.look()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    report.close()


class _Progress:
    """A line for each unit that is done, and on a terminal a bar in seconds of the plan."""

    def __init__(self, units: Sequence[Unit], left: Sequence[Unit], work: Path, progress: bool | None) -> None:
        self._left, self._work, self._count, self._done = list(left), work, len(units), len(units) - len(left)
        self._speaks = progress is not False
        self._start, self._total = time.monotonic(), sum(unit.seconds for unit in left)
        self._gone = 0.0
        shows_bar = self._speaks and sys.stderr.isatty()
        form = "{desc} {percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left"
        self._bar = tqdm(total=max(self._total, 1e-9), disable=not shows_bar, bar_format=form)

    def finished(self, unit: Unit, result: dict[str, Any]) -> None:
        self._left.remove(unit)
        self._done, self._gone = self._done + 1, self._gone + unit.seconds
        if self._speaks:
            spent = time.monotonic() - self._start
            rest = spent / self._gone * (self._total - self._gone) if self._gone else 0.0
            last = {k: v for k, v in (result.get("rows") or [{}])[-1].items() if k.endswith(("elbo", "log_p_x"))}
            words = "".join(f", {name.replace('_', ' ')} {value:.2f}" for name, value in last.items())
            time_left = f"; about {in_words(rest)} left" if self._left else ""
            tqdm.write(f"[{self._done}/{self._count}] {unit.name}{words}{time_left}", file=sys.stderr)
        self.look()

    def look(self) -> None:
        if self._bar.disable:
            return
        parts = 0.0
        for unit in self._left:
            path = self._work / unit.name / PROGRESS
            parts += unit.seconds * float((path.read_text() if path.exists() else "") or 0.0)
        self._bar.n = min(self._gone + parts, self._total)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()
