"""Make what is handed out and what is kept, from each master: ``python -m grading.bundle --out FOLDER``.

- ``student/``: the notebook without solutions, hidden tests or outputs;
- ``public_tests.py``: its given cells as a program that tries a notebook;
- ``hidden_tests/``: the grader with the hidden tests of this assignment;
- ``gradescope.zip``: the same, for Gradescope;
- ``instructor/``: the executed master with its solutions, and the rubric, as a page that needs no network.
"""

from __future__ import annotations

import argparse
import json
import pprint
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter

from . import cells, maths
from .course import Course
from .verdict import HERE, rubric_of, write

ENGINE = (
    "__init__",
    "ask",
    "cells",
    "gradescope",
    "guard",
    "here",
    "nursery",
    "rubric",
    "submission",
    "verdict",
    "wire",
)
STYLE = """<style>.rubric { font: 15px/1.5 system-ui, sans-serif; margin: 2rem 4rem }
.rubric th, .rubric td { text-align: left; padding: .1rem 1rem .1rem 0 }</style>"""
PAGE = r"""{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{{ resources.maths }}{%- endblock -%}
{%- block body_header -%}{{ super() }}{{ resources.rubric }}{%- endblock -%}
"""


def student(release: Path, target: Path) -> cells.Cell:
    """Write the notebook that is handed out: nbgrader's release, without any other metadata."""
    notebook = cells.read_release(release)
    notebook["metadata"] = {key: notebook["metadata"][key] for key in ("kernelspec", "language_info")}
    for cell in notebook["cells"]:
        kept = ("nbgrader", "deletable", "editable")
        cell["metadata"] = {key: cell["metadata"][key] for key in kept if key in cell["metadata"]}
    write(target, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return notebook


def public_tests(notebook: cells.Cell, stem: str) -> str:
    """Return the program that tries a notebook: given cells as they were handed out, solutions from the file."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cells.marks(cell)]
    given = {
        cells.marks(cell)["grade_id"]: None if cells.marks(cell)["solution"] else cell["source"]
        for cell in code
        if not cells.marks(cell)["grade"]
    }
    program = Path(__file__).with_name("public.py.txt").read_text(encoding="utf-8")
    return program.format(stem=stem, given=pprint.pformat(given, width=110, sort_dicts=False))


def grader(assignment: str, target: Path) -> None:
    """Copy the part of this package that grades one submission of one assignment."""
    for name in (*ENGINE, "hidden/__init__", f"hidden/{assignment}"):
        write(target / f"{name}.py", (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))


def gradescope(assignment: str, release: Path, target: Path) -> None:
    """Pack the grader as Gradescope wants it."""
    with tempfile.TemporaryDirectory() as folder:
        grader(assignment, Path(folder) / "grading")
        shutil.copyfile(release, Path(folder) / "release.ipynb")
        (Path(folder) / "assignment.txt").write_text(assignment, encoding="utf-8")
        for name in ("setup.sh", "run_autograder"):
            shutil.copyfile(Path(__file__).parent / "gradescope_files" / name, Path(folder) / name)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
                about = zipfile.ZipInfo(str(file.relative_to(folder)))  # its fixed date makes equal zips of equal files
                about.external_attr = (0o755 if file.parent == Path(folder) else 0o644) << 16
                packed.writestr(about, file.read_bytes(), zipfile.ZIP_DEFLATED)


def instructor(assignment: str, master: Path, target: Path) -> None:
    """Write the page with the rubric, the solutions and the outputs, and the maths beside it."""
    lines = rubric_of(assignment).lines
    rows = "".join(
        f"<tr><td>{escape(line.part)}</td><td>{line.points}</td><td>{escape(line.text)}</td></tr>" for line in lines
    )
    total = sum(line.points for line in lines)
    head = "<tr><th>part</th><th>points</th><th>line</th></tr>"
    table = f"{STYLE}<section class=rubric><h2>Rubric: {total} points</h2><table>{head}{rows}</table></section>"
    exporter = HTMLExporter(extra_loaders=[DictLoader({"offline.j2": PAGE})], template_file="offline.j2")  # type: ignore[no-untyped-call]
    notebook = nbformat.read(master, as_version=4)
    page, _ = exporter.from_notebook_node(
        notebook, {"rubric": table, "maths": maths.SCRIPT, "metadata": {"name": master.stem}}
    )
    write(target / f"{master.stem}.html", page)
    maths.copy_beside(target)


def make(master: Path, out: Path) -> None:
    """Make everything for one assignment, in an empty folder."""
    assignment = master.stem.partition("_")[0]
    target = out / assignment
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        release = Course(Path(folder)).release(assignment, master)
        handed_out = target / "student" / master.name
        notebook = student(release, handed_out)
    write(target / "public_tests.py", public_tests(notebook, master.stem))
    grader(assignment, target / "hidden_tests" / "grading")
    gradescope(assignment, handed_out, target / "gradescope.zip")
    instructor(assignment, master, target / "instructor")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make all assignments, or those that are named."""
    parser = argparse.ArgumentParser(prog="grading.bundle", description=__doc__)
    parser.add_argument("assignments", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    for master in sorted(HERE.glob("a*_*.ipynb")):
        if not chosen.assignments or master.stem.partition("_")[0] in chosen.assignments:
            make(master, chosen.out)
            print(f"{master.stem}: {chosen.out / master.stem.partition('_')[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
