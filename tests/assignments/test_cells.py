"""Whatever was handed in, what is graded is the release with the student's solutions and own cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grading import Code, Kept, Lost, Rubric, Seed, cells, expect, wire

from .conftest import DOUBLE, Graded, handed_in


def plain(notebook: cells.Cell) -> list[cells.Cell]:
    """Return a submission as it is read."""
    return [cells.plain(cell) for cell in notebook["cells"]]


def sources(notebook: cells.Cell) -> list[str]:
    """Return the sources of the code cells."""
    return [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def code(source: str, **nbgrader: Any) -> cells.Cell:
    """Return a cell as a student may add it."""
    return {"cell_type": "code", "source": source, "metadata": {"nbgrader": nbgrader} if nbgrader else {}}


def test_tampered_moved_and_copied_given_cells_change_nothing(release: cells.Cell) -> None:
    notebook = handed_in(release)
    for cell in notebook["cells"]:
        if cells.marks(cell).get("locked"):
            cell["source"] = "print('4 points')"
            cell["metadata"]["nbgrader"] |= {"points": 100, "grade": True, "solution": True}
    given = [cell for cell in notebook["cells"] if cells.marks(cell).get("locked")]
    notebook["cells"] += [*reversed(given), code("torch.allclose = None", grade_id="a0-double-try")]
    graded, notes = cells.assemble(release, plain(notebook))
    assert sources(graded) == sources(handed_in(release))
    assert [cell["metadata"] for cell in graded["cells"]] == [cell["metadata"] for cell in release["cells"]]
    assert notes == []


def test_of_two_cells_with_one_id_the_last_is_the_solution_and_both_run(release: cells.Cell) -> None:
    notebook = handed_in(release, double="first = 1")
    notebook["cells"].append(code(DOUBLE, grade_id="a0-double-code", solution=True))
    graded, _ = cells.assemble(release, plain(notebook))
    assert sources(graded) == [sources(release)[0], "first = 1", *sources(handed_in(release))[1:]]


def test_own_cells_keep_their_place_and_deleted_ones_are_named(release: cells.Cell) -> None:
    notebook = handed_in(release, total=None)
    notebook["cells"].insert(2, code("mine = 1"))
    notebook["cells"].insert(0, code("early = 1"))
    graded, notes = cells.assemble(release, plain(notebook))
    assert sources(graded)[:3] == ["early = 1", sources(release)[0], "mine = 1"]
    assert "# This cell was deleted." in sources(graded)
    assert notes == ["the cell a0-total-code was deleted"]
    assert len({cell["id"] for cell in graded["cells"]}) == len(graded["cells"])
    numbers = [number for number, _ in cells.to_run(graded)]
    assert numbers == [1, 2, 3, 4, 5, 7]  # 6 and 8 hold points alone


def test_solutions_that_lost_their_ids_are_found_by_their_functions(release: cells.Cell, graded: Graded) -> None:
    notebook = handed_in(release)
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    _, notes = cells.assemble(release, plain(notebook))
    assert len(notes) == 2
    assert graded(notebook).points == 6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("hello", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "holds no notebook"),
        ("{}", "no cells"),
        ('{"cells": []}', "no cells"),
        ('{"cells": {"a": 1}}', "no cells"),
        ('{"worksheets": [3]}', "no cells"),
        (json.dumps({"cells": [code("x" * 2_000_000)]}), "2000000 characters"),
    ],
)
def test_what_is_no_notebook_has_no_points_and_a_clear_line(text: str, says: str, graded: Graded) -> None:
    verdict = graded(text)
    assert verdict.points == 0
    assert len(verdict.results) == 3
    assert says in verdict.notes[0]
    assert {line.message for line in verdict.results} == set(verdict.notes)


ODD: list[Any] = [
    None,
    7,
    {},
    {"cell_type": "code"},
    {"cell_type": "code", "source": 7, "metadata": 7},
    {"cell_type": "code", "source": [1, "x = 1", None], "metadata": {"nbgrader": 3}},
    {"cell_type": ["code"], "source": "\ud800", "metadata": {"nbgrader": {"grade_id": ["a"]}}},
    {"cell_type": "code", "source": "x = '\ud800'", "metadata": {"nbgrader": {"grade_id": "a0-total-try"}}},
]


def test_odd_cells_harm_nobody(release: cells.Cell, graded: Graded) -> None:
    notebook = handed_in(release)
    notebook["cells"] += ODD
    assert graded(notebook).points == 6


def test_notebooks_of_format_3_are_read(tmp_path: Path) -> None:
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["a = 1\n", "b = 2"]}]}]}
    (tmp_path / "old.ipynb").write_text(json.dumps(old), encoding="utf-8")
    assert [cell["source"] for cell in cells.read(tmp_path / "old.ipynb")] == ["a = 1\nb = 2"]


VALUES = [
    None,
    True,
    3,
    2.5,
    "text",
    [1, (2, 3)],
    {"a": (1.0, None)},
    Seed(3),
    Code("lambda z: z"),
    Kept(4),
    float("inf"),
]


@pytest.mark.parametrize("value", VALUES)
def test_the_wire_keeps_values(value: Any) -> None:
    assert wire.unpack(wire.read(wire.write(wire.pack(value)))) == value


@pytest.mark.parametrize("kind", sorted(wire.KINDS))
def test_the_wire_keeps_arrays(kind: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(kind).T
    found = wire.unpack(wire.read(wire.write(wire.pack(array))))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert wire.unpack(wire.pack(np.zeros((0, 4)))).shape == (0, 4)


FORGED: list[Any] = [
    {"array": ["O", [1], "AAAAAAAAAAA="]},
    {"array": ["float64", [2], "AAAAAAAAAAA="]},
    {"array": ["float64", [-1, 10**30], ""]},
    {"array": ["float64", ["a"], ""]},
    {"array": ["float64", [1], "~"]},
    {"array": "float64"},
    {"kept": "0"},
    {"dict": [[1, 2, 3]]},
    {"dict": [1]},
    {"other": 1},
]


@pytest.mark.parametrize("value", FORGED)
def test_the_wire_refuses_what_is_forged(value: Any) -> None:
    with pytest.raises(Lost, match="cannot be read"):
        wire.unpack(value)


@pytest.mark.parametrize("line", [b"", b"\xff", b"[" * 100_000, b"1" * 5000, b"{'a': 1}"])
def test_the_wire_refuses_what_is_no_message(line: bytes) -> None:
    with pytest.raises(Lost, match="cannot be read"):
        wire.read(line)


@pytest.mark.parametrize("value", [np.array(["a"]), np.ones(1, dtype=complex), object(), np.array([object()])])
def test_the_wire_sends_numbers_alone(value: Any) -> None:
    with pytest.raises(Lost, match="cannot be"):
        wire.pack(value)


def test_a_check_that_meets_the_unforeseen_takes_the_points_and_goes_on() -> None:
    rubric = Rubric("a0")

    @rubric.line("part", points=1)
    def breaks(ask: Any, draw: np.random.Generator) -> None:
        """Breaks."""
        float(ask("f"))

    @rubric.line("part", points=2)
    def holds(ask: Any, draw: np.random.Generator) -> None:
        """Holds."""

    first, second = rubric.grade(lambda name: None, seed=1)  # type: ignore[arg-type]
    assert (first.points, second.points) == (0, 2)
    assert "could not be compared (TypeError" in first.message


def test_two_numbers_that_differ_late_are_shown_with_enough_digits() -> None:
    with pytest.raises(Lost, match=r"^it: expected 3\.72655, found 3\.72655123$"):
        expect(3.72655123, 3.72655, what="it", rtol=1e-9)
    with pytest.raises(Lost, match=r"^it: expected 2, found 1$"):
        expect(1.0, 2.0, what="it")
