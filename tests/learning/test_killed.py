"""A training whose process is killed ten times ends as if it had been left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import vae_lib
from tests.learning.runs import contents, metrics


def test_killed_at_ten_moments(tmp_path: Path) -> None:
    root = Path(vae_lib.__file__).parents[1]
    command = [sys.executable, "-m", "tests.learning.killed", str(tmp_path)]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    steps = json.loads(run.stdout)
    assert len(steps) == 10
    assert len(set(steps)) > 4, "too few deaths fell into the steps"
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["checkpoint.safetensors", "metrics.jsonl"]
