"""Every labelled equation of the book has a test that carries its label, and every such label is in the book."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from equations import PREFIX, equations_in_book, labels_in_file, proofs_by_label

ROOT = Path(__file__).parents[1]


def _pages() -> list[Path]:
    return [path for pattern in ("*.ipynb", "*.md") for path in (ROOT / "book").glob(pattern)]


def test_every_equation_has_a_test() -> None:
    tested = proofs_by_label(ROOT / "tests")
    untested = {label: pages for label, pages in equations_in_book(_pages()).items() if label not in tested}
    assert untested == {}, 'give each a test with @pytest.mark.equation("label")'


def test_every_mark_names_an_equation() -> None:
    labels = equations_in_book(_pages())
    stale = {
        label: [test.node_id for test in tests]
        for label, tests in proofs_by_label(ROOT / "tests").items()
        if label not in labels
    }
    assert stale == {}, "these marks name no equation of the book"


def test_labels_are_unique_and_well_formed() -> None:
    labels = equations_in_book(_pages())
    assert {label: pages for label, pages in labels.items() if len(pages) > 1} == {}
    assert [label for label in labels if not label.startswith(PREFIX)] == []


def test_labels_are_read_from_markdown_alone(tmp_path: Path) -> None:
    notebook = tmp_path / "chapter.ipynb"
    cells = [
        ("markdown", ["$$\n", "a = b\n", "$$ (eq-one)\n", "and $$c$$ (eq-two), see $$d$$ and (not-this)"]),
        ("code", ["'''$$ x $$ (eq-code)'''"]),
        ("markdown", ["```\n", "$$ x $$ (eq-fenced)\n", "```\n", "`$$ y $$ (eq-quoted)`"]),
    ]
    notebook.write_text(json.dumps({"cells": [{"cell_type": kind, "source": text} for kind, text in cells]}))
    assert labels_in_file(notebook) == ["eq-one", "eq-two"]
    assert equations_in_book([notebook, notebook]) == {
        "eq-one": ["chapter.ipynb"] * 2,
        "eq-two": ["chapter.ipynb"] * 2,
    }


MARKED = """
import pytest
from pytest import mark

pytestmark = [pytest.mark.slow, pytest.mark.equation("eq-module")]


@mark.equation("eq-one", "eq-two")
def test_function():
    pass


@pytest.mark.equation("eq-class")
class TestClass:
    @pytest.mark.parametrize("n", [1])
    @pytest.mark.equation("eq-one")
    def test_method(self, n):
        assert n

    @pytest.mark.equation("eq-untaken")
    def check(self):
        pass
"""


def test_marks_are_read_from_functions_classes_and_modules(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "test_marked.py").write_text(MARKED)
    found = {label: [test.node_id for test in tests] for label, tests in proofs_by_label(folder).items()}
    function = "tests/deep/test_marked.py::test_function"
    method = "tests/deep/test_marked.py::TestClass::test_method"
    assert found == {
        "eq-module": [function, method],
        "eq-one": [function, method],
        "eq-two": [function],
        "eq-class": [method],
    }
    source = proofs_by_label(folder)["eq-class"][0].source
    assert source.startswith('@pytest.mark.parametrize("n", [1])\n@pytest.mark.equation')
    assert source.endswith("    assert n")


@pytest.mark.parametrize("arguments", ["", "(LABEL)", "()", "(3)"])
def test_a_mark_without_plain_labels_is_refused(tmp_path: Path, arguments: str) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_bad.py").write_text(f"@pytest.mark.equation{arguments}\ndef test_it():\n    pass\n")
    with pytest.raises(ValueError, match=r"^tests/test_bad\.py:1: an equation mark takes labels as plain strings$"):
        proofs_by_label(folder)
