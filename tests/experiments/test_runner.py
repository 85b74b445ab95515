"""The runner: results that depend neither on order nor on processes, nothing twice, and no half of a record."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure

import vae_lib
from tests.experiments.small import CPU, short_units, without_times
from vae_lib.experiments import Experiment, Unit
from vae_lib.experiments.aevb_fig2 import AEVB_FIG2
from vae_lib.experiments.records import commit, device_name, versions
from vae_lib.experiments.runner import file_name, in_words, plan_lines, run_experiment, run_unit
from vae_lib.learning import TrainingInterrupted

ROOT = Path(vae_lib.__file__).parents[1]
Run = Callable[[Unit, Path, torch.device, Callable[[float], None]], dict[str, Any]]


def units_of(scale: str, seeds: Any, stand_in: bool) -> list[Unit]:
    """Four units; the third is the longest."""
    return [Unit(f"unit-{number}", {"number": number, "pair": (1, 2)}, 10.0 + (number == 2)) for number in range(4)]


def lines_of(record: dict[str, Any]) -> list[str]:
    return [str(result["value"]) for result in record["results"]]


def draw_of(record: dict[str, Any]) -> Figure:
    return plt.figure()


class Fake:
    """An experiment of no work, which notes what was run; `before` may stop it."""

    def __init__(self, before: Run | None = None) -> None:
        self.asked: list[str] = []
        self.before = before
        self.experiment = Experiment("fake", "A fake", "nats", units_of, self.run, lines_of, draw_of)
        self.units = units_of("smoke", (0,), False)

    def run(self, unit: Unit, folder: Path, device: torch.device, advance: Callable[[float], None]) -> dict[str, Any]:
        self.asked.append(unit.name)
        advance(0.5)
        if self.before is not None:
            self.before(unit, folder, device, advance)
        return {"value": unit.settings["number"] ** 2, "rows": [{"test_elbo": -1.0, "seconds": 3.0}]}

    def go(self, out: Path, units: list[Unit] | None = None, **options: Any) -> dict[str, Any]:
        options = {"seeds": (0,), "command": "typed", "progress": False} | options
        path = run_experiment(self.experiment, "smoke", units or self.units, out=out, **options)
        assert path == out / "fake-smoke.json"
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record


def test_a_record_says_how_it_was_made(tmp_path: Path) -> None:
    record = Fake().go(tmp_path, seeds=(3, 4), command="python -m vae_lib reproduce fake")
    assert record["command"] == "python -m vae_lib reproduce fake"
    assert record["commit"] == commit()
    assert record["device"] == device_name(CPU)
    assert record["versions"] == versions()
    assert record["seeds"] == [3, 4]
    assert (record["experiment"], record["title"], record["scale"], record["unit"]) == (
        "fake",
        "A fake",
        "smoke",
        "nats",
    )
    results = record["results"]
    assert [(result["name"], result["value"]) for result in results] == [(f"unit-{n}", n * n) for n in range(4)]
    assert results[1]["settings"] == {"number": 1, "pair": [1, 2]}


def test_where_there_is_no_repository_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert commit() == "unknown"


def test_threads_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_name(CPU) == "CPU, 1 thread"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert device_name(CPU) == "CPU, 2 threads"


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    fake = Fake()
    some = fake.go(tmp_path, fake.units[:2])
    assert [result["name"] for result in some["results"]] == ["unit-0", "unit-1"]
    whole = fake.go(tmp_path)
    # The longest first, so that it is not left over; the rest in their order.
    assert fake.asked == ["unit-0", "unit-1", "unit-2", "unit-3"]
    assert whole["results"][:2] == some["results"]
    assert fake.go(tmp_path)["results"] == whole["results"]
    assert len(fake.asked) == 4
    other = Fake()
    other.go(tmp_path / "elsewhere")
    assert other.asked == ["unit-2", "unit-0", "unit-1", "unit-3"]


def changed(unit: Unit) -> Unit:
    return replace(unit, settings={**unit.settings, "number": 7})


def test_other_settings_make_it_run_again(tmp_path: Path) -> None:
    fake = Fake()
    fake.go(tmp_path)
    record = fake.go(tmp_path, [changed(fake.units[0]), *fake.units[1:]])
    assert fake.asked[4:] == ["unit-0"]
    assert [result["value"] for result in record["results"]] == [49, 1, 4, 9]


@pytest.mark.parametrize("is_other", [False, True])
def test_what_an_interrupted_unit_left_is_for_its_own_settings(tmp_path: Path, is_other: bool) -> None:
    found: list[bool] = []

    def leave(unit: Unit, folder: Path, *_: Any) -> dict[str, Any]:
        found.append((folder / "checkpoint").exists())
        (folder / "checkpoint").touch()
        if len(found) == 1:
            raise KeyboardInterrupt
        return {}

    fake = Fake(leave)
    with pytest.raises(KeyboardInterrupt):
        fake.go(tmp_path, fake.units[:1])
    fake.go(tmp_path, [changed(fake.units[0]) if is_other else fake.units[0]])
    assert found == [False, not is_other]


def test_the_checkpoint_of_other_settings_is_in_nobodys_way(tmp_path: Path) -> None:
    """Of a real training: its state would be refused. One folder holds a finished unit, the other one in the middle."""
    (unit,) = short_units("frey-2-aevb-0")
    (longer,) = short_units("frey-2-aevb-0", samples=2000)
    other = replace(unit, settings=unit.settings | {"latents": 5})
    run_unit(AEVB_FIG2, unit, tmp_path, "cpu")
    (tmp_path / "part").mkdir()

    def stop(part: float) -> None:
        raise KeyboardInterrupt

    class Stopped:
        def __init__(self) -> None:
            self.experiment = replace(AEVB_FIG2, run=lambda u, f, d, _: AEVB_FIG2.run(u, f, d, stop))

    with pytest.raises(KeyboardInterrupt):
        run_unit(Stopped().experiment, longer, tmp_path / "part", "cpu")
    expected = without_times(run_unit(AEVB_FIG2, other, tmp_path / "alone", "cpu"))
    assert without_times(run_unit(AEVB_FIG2, other, tmp_path, "cpu")) == expected
    assert without_times(run_unit(AEVB_FIG2, other, tmp_path / "part", "cpu")) == expected


def test_an_interrupted_run_leaves_no_record_and_loses_no_unit(tmp_path: Path) -> None:
    def stop(unit: Unit, *_: Any) -> dict[str, Any]:
        if unit.name == "unit-1" and fake.asked.count("unit-1") == 1:
            raise KeyboardInterrupt
        return {}

    fake = Fake(stop)
    with pytest.raises(KeyboardInterrupt):
        fake.go(tmp_path)
    assert not (tmp_path / "fake-smoke.json").exists()
    fake.go(tmp_path)
    assert fake.asked == ["unit-2", "unit-0", "unit-1", "unit-1", "unit-3"]


def test_a_record_that_was_there_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake()
    fake.go(tmp_path, fake.units[:1])
    before = (tmp_path / "fake-smoke.json").read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(ValueError, match="No space left on device"):
            fake.go(tmp_path)
    assert (tmp_path / "fake-smoke.json").read_bytes() == before


def test_progress_is_a_line_for_each_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake()
    fake.go(tmp_path, fake.units[:1], progress=None)
    fake.go(tmp_path, progress=None)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "[1/1] unit-0, test elbo -1.00"
    assert [line.split(",")[0] for line in lines[1:]] == ["[2/4] unit-2", "[3/4] unit-1", "[4/4] unit-3"]
    assert lines[1].endswith("; about 1 s left")
    assert not lines[-1].endswith("left")
    fake.go(tmp_path / "silent", progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_plan_names_every_unit_and_its_time() -> None:
    fake = Fake()
    title, *units, last = plan_lines(fake.experiment, "laptop", fake.units, 2)
    assert title == "A fake, at laptop scale: 4 trainings, 2 at a time"
    assert [line.split() for line in units] == [[u.name, "about", str(round(u.seconds)), "s"] for u in fake.units]
    assert last.startswith("about 20 s in all, by one core")  # 41 s by two
    # No number of processes makes it shorter than its longest unit.
    assert plan_lines(fake.experiment, "laptop", fake.units, 100)[-1].startswith("about 11 s in all")


def test_times_in_words() -> None:
    assert [in_words(seconds) for seconds in (0.2, 1.4, 89.4, 90, 5399, 5400, 86_400)] == [
        "1 s",
        "1 s",
        "89 s",
        "2 min",
        "90 min",
        "1.5 h",
        "24.0 h",
    ]
    assert file_name(AEVB_FIG2, "laptop") == "aevb-fig2-laptop.json"


def test_a_unit_ends_when_the_command_that_began_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Parent:
        def __init__(self, alive: bool) -> None:
            self.alive = alive

        def is_alive(self) -> bool:
            return self.alive

    fake = Fake()
    monkeypatch.setattr("vae_lib.experiments.runner.parent_process", lambda: Parent(True))
    fake.go(tmp_path, fake.units[:1])
    monkeypatch.setattr("vae_lib.experiments.runner.parent_process", lambda: Parent(False))
    with pytest.raises(TrainingInterrupted, match=r"^the command that began this was killed$"):
        fake.go(tmp_path)


# -- in other processes, which take seconds to begin ------------------------------------------------------------------


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.experiments.test_runner import Fake
from vae_lib.experiments import runner
from vae_lib.learning import checkpoints
replace, moment = os.replace, int(sys.argv[2])
def deadly(source, target):
    global moment
    moment -= 1
    if moment == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = deadly
Fake().go(Path(sys.argv[1]))
"""


# Of four units two files each, settings and result; the ninth is the record.
@pytest.mark.parametrize("moment", [4, 9])
def test_killed_while_a_file_is_written_there_is_none_of_it(tmp_path: Path, moment: int) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(moment)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == -9, run.stderr
    assert not (tmp_path / "fake-smoke.json").exists()
    results = sorted(path.parent.name for path in (tmp_path / ".fake-smoke").glob("*/result.json"))
    assert results == (["unit-2"] if moment == 4 else [f"unit-{number}" for number in range(4)])
    fake = Fake()
    record = fake.go(tmp_path)
    assert fake.asked == (["unit-0", "unit-1", "unit-3"] if moment == 4 else [])
    assert [result["value"] for result in record["results"]] == [0, 1, 4, 9]
    # Nor is anything of the file that was not finished.
    assert [path.name for path in tmp_path.rglob("*.part")] == []


def test_results_depend_neither_on_processes_nor_on_order(tmp_path: Path) -> None:
    units = short_units("frey-2-aevb-0", "frey-5-wake-sleep-0", "frey-2-wake-sleep-0")
    options: dict[str, Any] = {"seeds": (0,), "command": "typed", "progress": False, "device": "cpu"}
    records = []
    for name, order, jobs in (("one", units, 1), ("two", units[::-1], 2)):
        path = run_experiment(AEVB_FIG2, "smoke", order, out=tmp_path / name, jobs=jobs, **options)
        assert path == tmp_path / name / "aevb-fig2-smoke.json"
        records.append(json.loads(path.read_text(encoding="utf-8")))
    one, two = ({result["name"]: without_times(result) for result in record["results"]} for record in records)
    assert one == two
    assert list(one) == [unit.name for unit in units] == list(two)[::-1]
    assert [record["device"] for record in records] == ["CPU, 1 thread", "CPU, 2 processes of 1 thread"]
    # Nor on whether it runs beside others at all.
    alone = run_unit(AEVB_FIG2, units[1], tmp_path / "alone", "cpu")
    assert without_times(json.loads(json.dumps(alone))) == one[units[1].name]
