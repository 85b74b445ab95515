"""The stored notebooks are executed, silent about the machine, comparable by nbval, and in the normal form.

nbval compares stored outputs with fresh ones, but it passes a cell that was never run, skips pictures, and
believes every ignore tag. These rules close those holes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import notebooks
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
CHAPTERS = notebooks.find([ROOT / "book"])

IGNORE_TAGS = {"nbval-ignore-output", "nbval-skip", "raises-exception"}
IGNORE_COMMENT = re.compile(r"^\s*#+\s*(NBVAL_\w+|PYTEST_VALIDATE_IGNORE_OUTPUT)\s*$", re.MULTILINE)
WIDGET = "application/vnd.jupyter.widget"
OF_THIS_MACHINE = {
    "a memory address": re.compile(r"\b0x[0-9a-f]{6,}\b", re.IGNORECASE),
    "an absolute path": re.compile(r"file://|\b[A-Z]:\\|(?<![\w<:/.)\]}~])/[\w.+-]+(?:/[\w.+-]+)+"),
    "a timing": re.compile(
        r"\b\d+(?:\.\d+)?\s?(?:ns|us|µs|μs|ms|s|secs?|seconds?|minutes?|it/s)\b|\bwall time\b", re.I
    ),
}


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def texts(cell: NotebookNode) -> Iterator[tuple[str, str]]:
    """Yield what a cell printed or showed as text, as nbval compares it, each with its MIME type."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield "text/plain", output.text
        for kind, content in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield kind, content


def has_text(cell: NotebookNode) -> bool:
    """Tell whether there is anything that nbval could compare."""
    return any(text.strip() for _, text in texts(cell))


def prints(cell: NotebookNode) -> bool:
    """Tell whether a cell itself calls print, outside of the functions that it defines."""
    waiting: list[ast.AST] = [ast.parse(cell.source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            return True
        waiting.extend(ast.iter_child_nodes(node))
    return False


def execution_faults(notebook: NotebookNode) -> Iterator[str]:
    """Every cell ran once, in order, without an error, a warning or a widget, and kept what it printed."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, not 1 to {len(counts)}"
    if "widgets" in notebook.metadata:
        yield "widget state is stored"
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {cell.id}: stored error {output.ename}"
            if output.get("name") == "stderr":
                yield f"cell {cell.id}: stderr is stored"
            if any(kind.startswith(WIDGET) for kind in output.get("data", {})):
                yield f"cell {cell.id}: a widget is stored"
        if prints(cell) and not has_text(cell):
            yield f"cell {cell.id}: prints, but no text is stored"
    if not any(has_text(cell) for cell in code_cells(notebook)):
        yield "no output that could be compared"


def ignore_faults(notebook: NotebookNode) -> Iterator[str]:
    """At most one cell escapes nbval, by a tag, with its reason beside it."""
    ignored = [cell for cell in notebook.cells if IGNORE_TAGS & set(cell.metadata.get("tags", []))]
    if len(ignored) > 1:
        yield f"{len(ignored)} cells escape nbval, one may"
    for cell in ignored:
        if not str(cell.metadata.get("reason", "")).strip():
            yield f"cell {cell.id}: escapes nbval without a reason in its metadata"
    for cell in code_cells(notebook):
        if IGNORE_COMMENT.search(cell.source):
            yield f"cell {cell.id}: a comment steers nbval, use a tag"


def machine_faults(notebook: NotebookNode) -> Iterator[str]:
    """No output tells where, when or how fast it was computed."""
    for cell in code_cells(notebook):
        for kind, text in texts(cell):
            if str(ROOT) in text:
                yield f"cell {cell.id}: the folder of the book is in the output"
            # In a page of HTML the patterns would take markup and script for paths.
            for name, pattern in OF_THIS_MACHINE.items() if kind == "text/plain" else ():
                if found := pattern.search(text):
                    yield f"cell {cell.id}: {name} in the output: {found.group()!r}"


def figure_faults(notebook: NotebookNode) -> Iterator[str]:
    """Each picture has alt text, a caption, a name of its own, and printed numbers that nbval can compare."""
    names: list[str] = []
    for cell in code_cells(notebook):
        shown = [output for output in cell.outputs if "data" in output]
        if not any("image/png" in output.data for output in shown):
            continue
        if len(shown) != 1:
            # MyST-NB gives the caption and the name to every shown output of the cell.
            yield f"cell {cell.id}: a picture shares its cell with another shown output, print instead"
        if not any(output.get("name") == "stdout" and output.text.strip() for output in cell.outputs):
            yield f"cell {cell.id}: a picture without printed text beside it"
        options = cell.metadata.get("mystnb", {})
        figure = options.get("figure", {})
        if not str(options.get("image", {}).get("alt", "")).strip():
            yield f"cell {cell.id}: a picture without mystnb.image.alt in the metadata"
        if not str(figure.get("caption", "")).strip():
            yield f"cell {cell.id}: a picture without mystnb.figure.caption in the metadata"
        if not str(figure.get("name", "")).startswith("fig-"):
            yield f"cell {cell.id}: a picture without mystnb.figure.name 'fig-...' in the metadata"
        names.append(str(figure.get("name")))
    if len(names) != len(set(names)):
        yield f"figure names repeat: {names}"


RULES = [execution_faults, ignore_faults, machine_faults, figure_faults]


def test_there_is_a_notebook() -> None:
    assert CHAPTERS, "no notebook below book/"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_notebook_keeps_the_rule(path: Path, rule: Callable[[NotebookNode], Iterator[str]]) -> None:
    assert list(rule(notebooks.read(path))) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_notebook_is_in_the_normal_form(path: Path) -> None:
    assert notebooks.is_normal(path), f"{path.name}: run `make notebooks`"


# The rules can fail: a notebook that keeps them all, and one step away from it for each fault.


def good_notebook() -> NotebookNode:
    """Return a notebook that keeps every rule: a set-up cell, and a picture with its printed companion."""
    setup = new_code_cell("import math", id="setup", execution_count=1, metadata={"tags": ["setup"]})
    shown = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480 with 1 Axes>"}
    figure = {"caption": "It rises.", "name": "fig-rise"}
    picture = new_code_cell(
        "axes = draw()\nprint(slope)",
        id="picture",
        execution_count=2,
        metadata={"mystnb": {"image": {"alt": "A line that rises"}, "figure": figure}},
        outputs=[
            new_output("stream", name="stdout", text="slope 1.50 nats, p/q = 3/4, log p(x)/D, 12 samples\n"),
            new_output("display_data", data=shown),
        ],
    )
    return new_notebook(cells=[setup, picture])


def faults(notebook: NotebookNode) -> list[str]:
    """Return everything that the rules say about a notebook."""
    return [fault for rule in RULES for fault in rule(notebook)]


def test_a_good_notebook_has_no_fault() -> None:
    assert faults(good_notebook()) == []


def printed(text: str) -> Callable[[NotebookNode], None]:
    """Return a change that makes the second cell print something else."""
    return lambda notebook: notebook.cells[1].outputs[0].update(text=text)


def tagged(*cells: int, **metadata: str) -> Callable[[NotebookNode], None]:
    """Return a change that takes cells out of nbval's sight."""

    def change(notebook: NotebookNode) -> None:
        for number in cells:
            notebook.cells[number].metadata.update(tags=["nbval-ignore-output"], **metadata)

    return change


def another_output(*arguments: Any, **values: Any) -> Callable[[NotebookNode], None]:
    """Return a change that adds an output to the second cell."""
    return lambda notebook: notebook.cells[1].outputs.append(new_output(*arguments, **values))


def options_without(*keys: str) -> Callable[[NotebookNode], None]:
    """Return a change that removes one of the picture's options."""

    def change(notebook: NotebookNode) -> None:
        options = notebook.cells[1].metadata.mystnb
        for key in keys[:-1]:
            options = options[key]
        del options[keys[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda notebook: notebook.cells[1].update(execution_count=None), "execution counts are [1, None]"),
        (lambda notebook: notebook.cells.reverse(), "execution counts are [2, 1]"),
        (lambda notebook: notebook.metadata.update(widgets={}), "widget state is stored"),
        (another_output("error", ename="ValueError", evalue="", traceback=[]), "stored error ValueError"),
        (another_output("stream", name="stderr", text="careful"), "stderr is stored"),
        (another_output("display_data", data={f"{WIDGET}-view+json": {}}), "a widget is stored"),
        (printed(" "), "a picture without printed text"),
        (lambda notebook: notebook.cells[1].update(outputs=[]), "prints, but no text is stored"),
        (lambda notebook: notebook.cells.pop(), "no output that could be compared"),
        (tagged(0, 1, reason="a stopwatch"), "2 cells escape nbval"),
        (tagged(1), "escapes nbval without a reason"),
        (lambda notebook: notebook.cells[1].update(source="# NBVAL_SKIP\n1"), "a comment steers nbval"),
        (printed("<object at 0x7f3a5c0de1f0>"), "a memory address in the output: '0x7f3a5c0de1f0'"),
        (printed("<b>saved in " + str(ROOT) + "/x.pt</b>"), "the folder of the book is in the output"),
        (printed("saved in /home/reader/x.pt"), "an absolute path in the output: '/home/reader/x.pt'"),
        (printed("saved in C:\\data"), "an absolute path in the output"),
        (printed("see file:x or file:///x"), "an absolute path in the output"),
        (printed("trained in 12.5 s"), "a timing in the output: '12.5 s'"),
        (printed("CPU times: 3ms"), "a timing in the output: '3ms'"),
        (printed("Wall time: short"), "a timing in the output"),
        (another_output("display_data", data={"text/html": "<b>1</b>"}), "shares its cell"),
        (options_without("image"), "without mystnb.image.alt"),
        (options_without("figure", "caption"), "without mystnb.figure.caption"),
        (options_without("figure", "name"), "without mystnb.figure.name"),
        (lambda notebook: notebook.cells.append(notebook.cells[1]), "figure names repeat"),
    ],
)
def test_a_fault_is_seen(change: Callable[[NotebookNode], None], fault: str) -> None:
    notebook = good_notebook()
    change(notebook)
    assert any(fault in line for line in faults(notebook)), faults(notebook)


def test_the_normal_form_forgets_the_day_and_keeps_the_work() -> None:
    notebook = good_notebook()
    normal = notebooks.dumps(notebook)
    notebook.metadata.update(language_info={"name": "python", "version": "3.12.1"}, widgets={}, vscode={})
    notebook.cells[0].metadata.update(execution={"iopub.execute_input": "2001-01-01"}, collapsed=True)
    text = notebook.cells[1].outputs[0].text
    notebook.cells[1].outputs[0].text = text[5:]
    notebook.cells[1].outputs.insert(0, new_output("stream", name="stdout", text=text[:5]))
    assert notebooks.dumps(notebook) == normal
    assert nbformat.reads(normal, as_version=4).cells[1].outputs == good_notebook().cells[1].outputs


def test_ids_are_kept_and_missing_or_doubled_ones_are_stable() -> None:
    def renamed() -> list[str]:
        notebook = good_notebook()
        notebook.cells += [new_markdown_cell("One", id="setup"), new_markdown_cell("Two", id="x")]
        del notebook.cells[-1]["id"]
        return [cell.id for cell in notebooks.normalise(notebook).cells]

    assert renamed()[:2] == ["setup", "picture"]
    assert len(set(renamed())) == 4
    assert renamed() == renamed()


def store(folder: Path, *sources: str) -> Path:
    """Write a notebook that was never run."""
    path = folder / "chapter.ipynb"
    cells = [new_code_cell(source) for source in sources]
    path.write_text(nbformat.writes(new_notebook(cells=cells)), encoding="utf-8")
    return path


def test_execute_stores_what_the_rules_ask_for(tmp_path: Path) -> None:
    path = store(tmp_path, "import sys", "print('one')\nsys.stdout.flush()\nprint('two')", "1 + 1")
    assert notebooks.main(["check", str(path)]) == 1
    assert notebooks.main(["execute", str(path)]) == 0
    assert notebooks.main(["check", str(path)]) == 0
    assert faults(notebooks.read(path)) == []
    first = path.read_bytes()
    assert notebooks.main(["execute", str(path)]) == 0
    assert path.read_bytes() == first


def test_a_notebook_that_fails_is_left_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = store(tmp_path, "print(1)", "raise ValueError('broken on purpose')")
    before = path.read_bytes()
    assert notebooks.main(["execute", str(path)]) == 1
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert "broken on purpose" in capsys.readouterr().err


def test_a_path_that_does_not_exist_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        notebooks.main(["check", str(tmp_path / "none.ipynb")])
    assert "error: no such notebook or folder" in capsys.readouterr().err.splitlines()[-1]
