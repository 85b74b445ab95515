"""The record that a script of book/runs keeps: written whole, read again, refused if it is of other settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vae_lib.experiments.records import commit, device_name, read_units, versions, write_units

UNITS = [{"seed": 8, "value": 2.5}, {"seed": 1, "value": -1.0}]


def test_units_come_back_and_the_record_says_how_they_were_made(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert read_units(path, {"epochs": 3}) == []
    write_units(path, UNITS, command="python run.py", settings={"epochs": 3}, unit="nats", pixels=[1])
    assert read_units(path, {"epochs": 3}) == UNITS
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "command": "python run.py",
        "commit": commit(),
        "device": device_name(torch.device("cpu")),
        "versions": versions(),
        "seeds": [1, 8],
        "settings": {"epochs": 3},
        "unit": "nats",
        "pixels": [1],
        "results": UNITS,
    }
    assert list(tmp_path.iterdir()) == [path]


def test_units_of_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_units(path, UNITS, command="python run.py", settings={"epochs": 3}, unit="nats")
    with pytest.raises(SystemExit, match=r"run\.json: expected units with the settings of this call, found others"):
        read_units(path, {"epochs": 4})


def test_a_failed_write_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    write_units(path, UNITS, command="python run.py", settings={}, unit="nats")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        write_units(path, UNITS[:1], command="python run.py", settings={}, unit="nats")
    assert path.read_bytes() == before
