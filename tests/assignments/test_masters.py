"""Every assignment: full marks for the solution, none for the stub, and for each slip what the rubric says."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import pkgutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from grading import cells
from grading.here import MASTER_SEED, Neighbour
from grading.nursery import Nursery
from grading.verdict import grade, rubric_of
from nbformat import NotebookNode

from . import slips
from .conftest import ASSIGNMENTS, once, run_python
from .slips import Slip

MASTERS = {path.stem.partition("_")[0]: path for path in sorted(ASSIGNMENTS.glob("a[1-9]_*.ipynb"))}
SLIPS = [
    pytest.param(name, slip, id=f"{name}-{slip.name}")
    for _, name, _ in pkgutil.iter_modules(slips.__path__)
    for slip in importlib.import_module(f"{slips.__name__}.{name}").SLIPS
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make assignments` makes."""
    return once(
        tmp_path_factory,
        "made",
        lambda out: run_python(ASSIGNMENTS, "-B", "-m", "grading.bundle", "--out", out, check=True),
    )


def master(name: str) -> NotebookNode:
    """Return the master of an assignment."""
    return nbformat.read(MASTERS[name], as_version=4)


def solved(name: str) -> dict[str, str]:
    """Return the source of each solution cell of the master."""
    found = {cells.marks(cell).get("grade_id"): cell for cell in master(name).cells}
    return {mark: cell.source for mark, cell in found.items() if mark and cells.marks(cell)["solution"]}


@pytest.mark.parametrize("name", MASTERS)
def test_the_points_add_up(name: str) -> None:
    points = {}
    for line in rubric_of(name).lines:
        points[line.part] = points.get(line.part, 0) + line.points
    graded = [cells.marks(cell) for cell in master(name).cells if cells.marks(cell).get("grade")]
    assert points == {marks["grade_id"]: marks["points"] for marks in graded}
    assert sum(points.values()) == 20


@pytest.mark.parametrize("name", MASTERS)
def test_given_code_is_locked(name: str) -> None:
    for cell in master(name).cells:
        if cell.cell_type == "code":
            marks = cells.marks(cell)
            assert marks, f"{cell.id} is not marked"
            assert marks["locked"] != marks["solution"], cell.id


@pytest.mark.parametrize("name", MASTERS)
def test_the_solution_has_full_marks_in_the_guarded_process(
    name: str, made: Path, nursery: Nursery, tmp_path: Path
) -> None:
    release = cells.read_release(made / name / "student" / MASTERS[name].name)
    verdict, _ = grade(name, release, MASTERS[name], seed=1, nursery=nursery)
    assert [line.message for line in verdict.results if line.message] == []
    assert verdict.points == 20
    assert verdict.notes == []


@pytest.mark.parametrize("name", MASTERS)
def test_the_stub_has_no_points_and_is_told_what_is_missing(name: str, made: Path, nursery: Nursery) -> None:
    file = made / name / "student" / MASTERS[name].name
    verdict, _ = grade(name, cells.read_release(file), file, seed=1, nursery=nursery)
    assert verdict.points == 0
    for line in verdict.results:
        assert line.message.endswith("is not written yet"), line


@pytest.mark.parametrize("name", MASTERS)
def test_nothing_of_the_answers_is_handed_out(name: str, made: Path) -> None:
    folder = made / name
    answers = {line for source in solved(name).values() for line in region(source, "SOLUTION")}
    tests = {line for cell in master(name).cells for line in region(cell.source, "HIDDEN TESTS")}
    given = {line.strip() for cell in master(name).cells for line in outside(cell.source)}
    program = ast.parse((folder / "public_tests.py").read_text(encoding="utf-8"))
    (stored,) = [
        node.value for node in program.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CELLS"
    ]
    handed_out = [cell["source"] for cell in cells.read_release(folder / "student" / MASTERS[name].name)["cells"]]
    handed_out += [source for source in ast.literal_eval(stored).values() if source]
    lines = {line.strip() for source in handed_out for line in source.splitlines()}
    assert lines & (answers | tests) <= given
    assert len(answers) > 10
    assert [file.name for file in (folder / "student").rglob("*")] == [MASTERS[name].name]
    for file in (folder / "student" / MASTERS[name].name, folder / "public_tests.py"):
        text = file.read_text(encoding="utf-8")
        assert "BEGIN" not in text
        assert "grading" not in text
    notebook = cells.read_release(folder / "student" / MASTERS[name].name)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"nbgrader", "deletable", "editable"}
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def region(source: str, name: str) -> Iterator[str]:
    """Yield the lines between the markers that say something by themselves."""
    inside = False
    for line in source.splitlines():
        inside = (inside or f"BEGIN {name}" in line) and f"END {name}" not in line
        if inside and "BEGIN" not in line and len(line.strip()) > 12:
            yield line.strip()


def outside(source: str) -> Iterator[str]:
    """Yield the lines outside of all markers."""
    inside = False
    for line in source.splitlines():
        inside = (inside or "### BEGIN" in line) and "### END" not in line
        if not inside:
            yield line


def tried(name: str, slip: Slip) -> dict[str, Any]:
    """Return the namespace of the master in which the slip takes the place of the functions that it defines."""
    space: dict[str, Any] = {"__name__": "__main__"}
    wanted, used = cells.names(slip.code), False
    assert wanted, "a slip defines a function"
    for cell in master(name).cells:
        if cell.cell_type != "code" or cells.marks(cell).get("grade"):
            continue
        # As in the guarded process, a cell that raises does not end the notebook; public tests are meant to raise.
        with contextlib.suppress(Exception):
            exec(cell.source, space)
        if cells.marks(cell)["solution"] and wanted & cells.names(cell.source):
            exec(slip.code, space)
            used = True
    assert used, f"no solution cell defines {wanted}"
    return space


@pytest.mark.parametrize(("name", "slip"), SLIPS)
def test_a_slip_costs_what_the_rubric_says(name: str, slip: Slip) -> None:
    import matplotlib.pyplot as plt

    dtype = torch.get_default_dtype()
    plt.switch_backend("Agg")
    with torch.random.fork_rng(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            results = rubric_of(name).grade(Neighbour(tried(name, slip)), seed=MASTER_SEED + 1)
        finally:
            torch.set_default_dtype(dtype)
            plt.close("all")
    lost = [line for line in results if line.points < line.of]
    assert slip.says in " ".join(line.message for line in lost if line.part == slip.part)
    assert sum(line.of - line.points for line in lost) == slip.lost, "\n".join(map(str, results))


@pytest.mark.parametrize("name", MASTERS)
def test_there_are_slips_enough(name: str) -> None:
    assert len([slip for slip in SLIPS if slip.values[0] == name]) >= 6
