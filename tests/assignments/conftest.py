"""A tiny assignment of two parts, so that the grader is tested apart from the assignments of the book."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from filelock import FileLock
from grading import cells
from grading.ask import Limits
from grading.nursery import Nursery
from grading.verdict import Verdict, grade
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[2]
ASSIGNMENTS = ROOT / "book" / "assignments"
QUICK = Limits(call=10, cell=10, total=120, memory=1 << 30, file_size=4 << 20, folder=8 << 20, lives=5)

HIDDEN = '''
"""Hidden tests of the tiny assignment."""
from grading import Lost, Rubric, expect

rubric = Rubric("a0")


@rubric.line("a0-double", points=2)
def values(ask, draw):
    """Twice the values."""
    x = draw.normal(size=(3, 2))
    expect(ask("double", x), 2 * x, what="double", slips={"the square is not the double": x**2})


@rubric.line("a0-double", points=1)
def shape(ask, draw):
    """Twice an empty array."""
    x = draw.normal(size=(0, 2))
    expect(ask("double", x), 2 * x, what="double")


@rubric.line("a0-total", points=3)
def total(ask, draw):
    """The sum."""
    x = draw.normal(size=5)
    expect(ask("total", x), x.sum(), what="total")
'''
DOUBLE = "def double(x):\n    return 2 * x"
TOTAL = "def total(x):\n    return x.sum()"
STUB = "    ### BEGIN SOLUTION\n{}\n    ### END SOLUTION"
TRIED = "from grading import here\nhere({!r}, globals())"


def marked(name: str, source: str, **marks: Any) -> nbformat.NotebookNode:
    """Return a code cell with nbgrader's metadata."""
    marks = {"grade": False, "solution": False, "locked": True, "task": False, "schema_version": 3} | marks
    return new_code_cell(source, id=name, metadata={"nbgrader": {"grade_id": name, **marks}, "tags": ["x"]})


def solution(name: str, code: str) -> nbformat.NotebookNode:
    """Return a solution cell with its markers."""
    head, body = code.split("\n", 1)
    return marked(name, f"{head}\n{STUB.format(body)}", solution=True, locked=False)


def hidden(name: str, points: int) -> nbformat.NotebookNode:
    """Return a graded cell."""
    source = f"# {points} points\n### BEGIN HIDDEN TESTS\n{TRIED.format(name)}\n### END HIDDEN TESTS"
    return marked(name, source, grade=True, points=points)


def tiny_master() -> nbformat.NotebookNode:
    """Return the master of the tiny assignment."""
    return new_notebook(
        cells=[
            new_markdown_cell("# Assignment 0\n\nIn the page: $x^2$.", id="title"),
            marked("a0-setup", "import torch\n\nx = torch.ones(2, dtype=torch.float64)"),
            solution("a0-double-code", DOUBLE),
            marked("a0-double-try", "assert (double(x) == 2).all(), 'double(1) is 2'"),
            hidden("a0-double", 3),
            solution("a0-total-code", TOTAL),
            hidden("a0-total", 3),
        ],
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "author": "nobody",
        },
    )


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that is made once for all workers of a run."""
    base = factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with FileLock(base / f"{name}.lock"):
        if not (base / f"{name}.made").exists():
            make(base / name)
            (base / f"{name}.made").touch()
    return base / name


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the assignments with the grader and the tiny assignment alone."""
    return once(tmp_path_factory, "tiny", make_tiny)


def make_tiny(folder: Path) -> None:
    """Copy the grader, write the tiny assignment, make what is handed out."""
    ignored = shutil.ignore_patterns("__pycache__", "a[1-9]*")
    shutil.copytree(ASSIGNMENTS, folder, ignore=ignored)
    nbformat.write(tiny_master(), folder / "a0_tiny.ipynb")
    (folder / "grading/hidden/a0.py").write_text(HIDDEN, encoding="utf-8")
    (folder / "nobody").mkdir()
    run_python(folder, "-m", "grading.bundle", "--out", folder / "made", check=True)


def run_python(folder: Path, *arguments: object, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder of an assignment: nbgrader warns of its own accord, so it stays out of this process."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=check, timeout=600)


@pytest.fixture(scope="session")
def release(tiny: Path) -> cells.Cell:
    """What nbgrader made of the tiny master for students."""
    return cells.read_release(tiny / "made/a0/student/a0_tiny.ipynb")


def handed_in(release: cells.Cell, double: str | None = DOUBLE, total: str | None = TOTAL) -> cells.Cell:
    """Return a submission with these answers; None stands for a deleted cell."""
    notebook: cells.Cell = json.loads(json.dumps(release))
    answers = {"a0-double-code": double, "a0-total-code": total}
    for cell in list(notebook["cells"]):
        if (name := cells.marks(cell).get("grade_id")) in answers:
            if (answer := answers[name]) is None:
                notebook["cells"].remove(cell)
            else:
                cell["source"] = answer
    return notebook


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """One process with the imports, for all guarded processes of these tests."""
    process = Nursery()
    yield process
    process.close()


Graded = Callable[[cells.Cell | str], Verdict]


@pytest.fixture
def graded(
    release: cells.Cell, tiny: Path, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Graded:
    """Grade a submission of the tiny assignment in a guarded process, with narrow limits."""
    spec = importlib.util.spec_from_file_location("grading.hidden.a0", tiny / "grading/hidden/a0.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "grading.hidden.a0", module)

    def run(submission: cells.Cell | str) -> Verdict:
        file = tmp_path / "submission.ipynb"
        file.write_text(submission if isinstance(submission, str) else json.dumps(submission), encoding="utf-8")
        return grade("a0", release, file, seed=7, limits=QUICK, nursery=nursery)[0]

    return run
