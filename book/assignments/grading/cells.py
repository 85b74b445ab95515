"""The notebook that is graded: the cells of the release in their order, with the student's solutions and own cells.

Whatever a student did to the given cells is undone here, so tampered, moved, copied and deleted cells change nothing.
A submission is read as plain JSON, in whatever state it is.
"""

from __future__ import annotations

import ast
import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

Cell = dict[str, Any]
MOST = 50 << 20  # bytes of a notebook, pictures included
MOST_SOURCE = 1 << 20  # characters of its cells


class Unreadable(Exception):
    """The file is no notebook; the message says what it is."""


def read(path: Path) -> list[Cell]:
    """Return the cells of a submission: type, source and grade id of each."""
    if (size := path.stat().st_size) > MOST:
        raise Unreadable(f"the file has {size >> 20} MiB, more than {MOST >> 20}: clear the outputs")
    if size == 0:
        raise Unreadable("the file is empty")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        raise Unreadable("the file is not JSON, so it is no notebook") from None
    if not isinstance(content, dict):
        raise Unreadable("the file holds no notebook")
    sheets = content.get("worksheets")  # notebooks of format 3
    found = sheets[0].get("cells") if isinstance(sheets, list) and sheets and isinstance(sheets[0], dict) else None
    found = content.get("cells", found)
    if not isinstance(found, list) or not found:
        raise Unreadable("the notebook has no cells")
    cells = [plain(cell) for cell in found if isinstance(cell, dict)]
    if (size := sum(len(cell["source"]) for cell in cells)) > MOST_SOURCE:
        raise Unreadable(f"the cells hold {size} characters, more than {MOST_SOURCE}")
    return cells


def read_release(path: Path) -> Cell:
    """Return the notebook that was handed out, each source as one string."""
    notebook: Cell = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def plain(cell: Cell) -> Cell:
    """Return what matters of a cell, whatever else is in it."""
    source = cell.get("source", cell.get("input", ""))
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    metadata = cell.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = marks.get("grade_id") if isinstance(marks, dict) else None
    return {
        "cell_type": "code" if cell.get("cell_type") == "code" else "markdown",
        "source": source.encode(errors="replace").decode() if isinstance(source, str) else "",
        "grade_id": grade_id if isinstance(grade_id, str) else None,
    }


def names(source: str) -> set[str]:
    """Return the functions and classes that a cell defines."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def marks(cell: Cell) -> Cell:
    """Return nbgrader's metadata of a cell of the release."""
    found: Cell = cell["metadata"].get("nbgrader", {})
    return found


def assemble(release: Cell, submission: list[Cell]) -> tuple[Cell, list[str]]:
    """Return the notebook to grade, in the release's format, and what was mended.

    A solution is the last cell with its grade id, as in nbgrader. Where some editor lost the ids, it is the last cell
    without one that defines the same functions.
    """
    given = {marks(cell)["grade_id"]: cell for cell in release["cells"] if marks(cell)}
    solutions = [name for name, cell in given.items() if marks(cell).get("solution")]
    notes: list[str] = []
    place = {cell["grade_id"]: number for number, cell in enumerate(submission) if cell["grade_id"] in given}
    for name in solutions:
        wanted = names(given[name]["source"])
        alike = [
            number
            for number, cell in enumerate(submission)
            if cell["grade_id"] is None and wanted and wanted <= names(cell["source"]) and number not in place.values()
        ]
        if name not in place and alike:
            place[name] = alike[-1]
            notes.append(f"the cell {name} had lost its id and was found by its functions")
    own = {number: name for name, number in place.items()}

    # A cell of the student's own comes after the last given one before it.
    added: dict[str | None, list[Cell]] = {}
    unmarked = {cell["source"] for cell in release["cells"] if not marks(cell)}
    before: str | None = None
    for number, cell in enumerate(submission):
        if number in own:
            before = own[number]
        elif cell["source"] not in unmarked and (cell["grade_id"] not in given or cell["grade_id"] in solutions):
            added.setdefault(before, []).append(cell)

    cells = [new(cell) for cell in added.get(None, [])]
    for cell in deepcopy(release["cells"]):
        cells.append(cell)
        if not (name := marks(cell).get("grade_id")):
            continue
        if name in solutions:
            if name in place:
                found = submission[place[name]]["source"]
                cell["source"] = found if cell["cell_type"] == "code" else as_written(found)
            else:
                cell["source"] = "# This cell was deleted."
                notes.append(f"the cell {name} was deleted")
        cells += [new(cell) for cell in added.get(name, [])]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return {**release, "cells": cells}, notes


def new(cell: Cell) -> Cell:
    """Return a cell of the student's own in the notebook's format."""
    if cell["cell_type"] == "markdown":
        return {"cell_type": "markdown", "metadata": {}, "source": as_written(cell["source"])}
    return {"cell_type": "code", "metadata": {}, "source": cell["source"], "outputs": [], "execution_count": None}


def as_written(text: str) -> str:
    """Return a student's Markdown as a block of plain text: no script, link or picture of it works in a browser."""
    fence = "~" * (max((len(run) for run in re.findall("~+", text)), default=0) + 3)
    return f"{fence}text\n{text}\n{fence}"


def to_run(notebook: Cell) -> list[tuple[int, str]]:
    """Return the code cells with their numbers, from one; those that only hold points do not run."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [(number, cell["source"]) for number, cell in enumerate(code, 1) if not marks(cell).get("grade")]
