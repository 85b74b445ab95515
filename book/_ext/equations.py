"""Which equations the book labels, and which tests carry a label: read from the files, nothing imported.

A labelled equation is a block ``$$ … $$ (eq-name)`` in a chapter. A test names the equations it proves by
``@pytest.mark.equation("eq-name", …)``, on the function, on its class, or in a ``pytestmark`` of the module or class.
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

PREFIX = "eq-"
CODE = re.compile(r"^(```+|~~~+).*?^\1\s*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LABELLED = re.compile(r"\$\$(?:(?!\$\$).)+\$\$[ \t]*\((?P<label>[^)\n]+)\)", re.DOTALL)


class EquationTest(NamedTuple):
    """A test that carries equation labels."""

    node_id: str
    source: str


def labels_in_text(markdown: str) -> list[str]:
    """Return the labels of the display equations in Markdown text, in order; code is not read."""
    return [match["label"].strip() for match in LABELLED.finditer(CODE.sub("", markdown))]


def labels_in_file(path: Path) -> list[str]:
    """Return the labels in a chapter: a notebook's Markdown cells, or a Markdown page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return labels_in_text(text)
    cells = json.loads(text)["cells"]
    sources = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return [label for source in sources for label in labels_in_text(source)]


def equations_in_book(pages: list[Path]) -> dict[str, list[str]]:
    """Return each label with the names of the pages that define it: more than one name is a mistake."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for page in sorted(pages):
        for label in labels_in_file(page):
            found[label].append(page.name)
    return dict(found)


def proofs_by_label(folder: Path) -> dict[str, list[EquationTest]]:
    """Return each label with the tests below ``folder`` that carry it; node ids start at ``folder``'s parent."""
    found: defaultdict[str, list[EquationTest]] = defaultdict(list)
    for path in sorted(folder.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(folder.parent).as_posix()
        tree = ast.parse(text, filename=name)
        for qualified, function, labels in _tests(tree.body, name, _module_or_class_labels(tree.body, name)):
            test = EquationTest(qualified, _source(text, function))
            for label in dict.fromkeys(labels):
                found[label].append(test)
    return dict(found)


_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _tests(body: list[ast.stmt], name: str, inherited: list[str]) -> Iterator[tuple[str, _Function, list[str]]]:
    for statement in body:
        if not isinstance(statement, _Function | ast.ClassDef):
            continue
        marked = inherited + [label for mark in statement.decorator_list for label in _labels_of_mark(mark, name)]
        qualified = f"{name}::{statement.name}"
        if isinstance(statement, ast.ClassDef):
            if statement.name.startswith("Test"):
                own = _module_or_class_labels(statement.body, name)
                yield from _tests(statement.body, qualified, marked + own)
        elif statement.name.startswith("test"):
            yield qualified, statement, marked


def _module_or_class_labels(body: list[ast.stmt], name: str) -> list[str]:
    labels = []
    for statement in body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "pytestmark" for target in statement.targets
        ):
            value = statement.value
            marks = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
            labels += [label for mark in marks for label in _labels_of_mark(mark, name)]
    return labels


def _labels_of_mark(mark: ast.expr, name: str) -> list[str]:
    """Return the labels of ``pytest.mark.equation(…)`` or ``mark.equation(…)``; none for any other mark."""
    call = mark.func if isinstance(mark, ast.Call) else mark
    if not (isinstance(call, ast.Attribute) and call.attr == "equation"):
        return []
    owner = call.value
    if not (isinstance(owner, ast.Attribute) and owner.attr == "mark") and not (
        isinstance(owner, ast.Name) and owner.id == "mark"
    ):
        return []
    values = [getattr(argument, "value", None) for argument in mark.args] if isinstance(mark, ast.Call) else []
    labels = [value for value in values if isinstance(value, str)]
    if not labels or len(labels) != len(values):
        raise ValueError(f"{name}:{mark.lineno}: an equation mark takes labels as plain strings")
    return labels


def _source(text: str, function: _Function) -> str:
    first = min([function.lineno, *(mark.lineno for mark in function.decorator_list)])
    return dedent("\n".join(text.splitlines()[first - 1 : function.end_lineno]))
