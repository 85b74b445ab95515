"""``reproduce`` for the figures and tables of papers: a plan, the run, the record and the picture drawn from it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from vae_lib.cli.experiment import ready_device
from vae_lib.cli.options import Reproduce
from vae_lib.cli.outcome import Outcome, labelled
from vae_lib.cli.parsing import PROGRAM, BadInput
from vae_lib.experiments import EXPERIMENTS, Experiment, Scale, Unit
from vae_lib.experiments.experiment import Record
from vae_lib.experiments.runner import file_name, plan_lines, run_experiment


def run(options: Reproduce, words: Sequence[str]) -> Outcome:
    """Plan, run, store, draw: whichever of these was asked for."""
    experiment = EXPERIMENTS[options.name]
    if options.draw is not None:
        return _drawn(experiment, options.draw, options.out, options.overwrite)
    if options.scale and options.scale not in get_args(Scale):
        raise BadInput(f"--scale: expected one of {', '.join(get_args(Scale))}, found {options.scale!r}")
    scale = cast(Scale, options.scale or "smoke")
    seeds = options.seeds or experiment.seeds(scale)
    units = _chosen(experiment.units(scale, seeds, options.stand_in), options.only)
    device = ready_device(options.device)
    jobs = options.jobs or (min(len(units), _cores()) if device.type == "cpu" else 1)
    plan = plan_lines(experiment, scale, units, jobs)
    if options.plan:
        facts = [{"name": unit.name, "settings": unit.settings, "seconds": round(unit.seconds, 1)} for unit in units]
        return Outcome({"name": experiment.name, "scale": scale, "jobs": jobs, "trainings": facts}, plan)
    target = options.out / file_name(experiment, scale)
    if target.exists() and not options.overwrite:
        raise BadInput(f"--out: expected a folder without {target.name}, found {target}; --overwrite replaces it")
    if not options.quiet:
        shown = plan if len(units) <= 12 else [plan[0], plan[-1], "--plan shows each of them"]
        print("\n".join(shown), file=sys.stderr)
    try:
        path = run_experiment(
            experiment,
            scale,
            units,
            seeds=seeds,
            out=options.out,
            command=f"{PROGRAM} {shlex.join(['reproduce', *words])}",
            device=options.device,
            jobs=jobs,
            progress=False if options.quiet else None,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on from here") from None
    record = json.loads(path.read_text(encoding="utf-8"))
    return _outcome(experiment, record, path, _paint(experiment, record, path.with_suffix(".png")))


def _cores() -> int:
    """How many this process may use; where nobody says so, how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chosen(units: Sequence[Unit], only: Sequence[str]) -> list[Unit]:
    if not only:
        return list(units)
    for word in only:
        if not any(unit.name.startswith(word) for unit in units):
            names = ", ".join(unit.name for unit in units[:3])
            raise BadInput(f"--only: expected the beginning of a name as {names}, ..., found {word!r}; see --plan")
    return [unit for unit in units if unit.name.startswith(tuple(only))]


def _drawn(experiment: Experiment, path: Path, out: Path, overwrite: bool) -> Outcome:
    """Draw a stored record, and run nothing."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise BadInput(f"--draw: expected a JSON record, found {path}, which is none") from None
    found = record.get("experiment") if isinstance(record, dict) else None
    if found != experiment.name:
        raise BadInput(f"--draw: expected a record of {experiment.name}, found {path} of {found or 'something else'}")
    if missing := [key for key in ("title", "scale", "device", "results") if not record.get(key)]:
        raise BadInput(f"--draw: expected a whole record, found {path} without {missing[0]}")
    picture = out / f"{path.stem}.png"
    if picture.exists() and not overwrite:
        raise BadInput(f"--out: expected a folder without {picture.name}, found {picture}; --overwrite replaces it")
    out.mkdir(parents=True, exist_ok=True)
    return _outcome(experiment, record, path, _paint(experiment, record, picture))


def _paint(experiment: Experiment, record: Record, path: Path) -> Path:
    import matplotlib.pyplot as plt

    from vae_lib.plots import use_style

    use_style()
    figure = experiment.draw(record)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
    plt.close(figure)
    return path


def _outcome(experiment: Experiment, record: Record, path: Path, picture: Path) -> Outcome:
    draw = f"{PROGRAM} reproduce {experiment.name} --draw {shlex.quote(str(path))}"
    lines = [f"{record['title']}; {record['scale']} scale; {record['device']}", "", *experiment.lines(record), ""]
    lines += labelled([("results", str(path)), ("figure", str(picture)), ("draw it again", draw)])
    return Outcome({**record, "file": str(path), "figure": str(picture)}, lines)
