"""Grade the submission that Gradescope put in its place, and write results.json in Gradescope's format."""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from . import cells
from .verdict import Verdict, grade, nothing, write


def results(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as Gradescope shows it: one test for each line of the rubric."""
    tests = [
        {
            "name": f"{line.part}: {line.text}",
            "score": line.points,
            "max_score": line.of,
            "status": "passed" if line.points == line.of else "failed",
            "output": line.message,
            "visibility": "visible",
        }
        for line in verdict.results
    ]
    return {
        "score": verdict.points,
        "output": "\n".join(verdict.notes),
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
        "extra_data": {"seed": verdict.seed, "seconds": verdict.seconds, "held": verdict.held},
    }


def main() -> int:
    """Grade the one notebook of the submission, on models drawn now."""
    home = Path(os.environ.get("AUTOGRADER", "/autograder"))
    assignment = (home / "source" / "assignment.txt").read_text(encoding="utf-8").strip()
    release = cells.read_release(home / "source" / "release.ipynb")
    handed_in = sorted((home / "submission").rglob("*.ipynb"))
    seed = secrets.randbelow(2**31)
    if len(handed_in) == 1:
        verdict, _ = grade(assignment, release, handed_in[0], seed)
    else:
        verdict = nothing(assignment, seed, f"{len(handed_in)} notebooks were handed in, expected one")
    write(home / "results" / "results.json", json.dumps(results(verdict), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
