"""Chapters, sections, figures and equations carry the number in the name of the chapter's file."""

from __future__ import annotations

import re

import pytest

from tests.book.conftest import HTML, ROOT

CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("[0-9][0-9]_*.ipynb"))
NUMBERED = {
    "section": re.compile(r'<h\d[^>]*><span class="section-number">(\d+)\.'),
    "figure": re.compile(r'class="caption-number">\w+\.? (\d+)\.'),
    "equation": re.compile(r'class="eqno">\((\d+)\.'),
    "exercise": re.compile(r'class="caption-number">\s*Exercise (\d+)\.'),
}


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_number_of_a_chapter_begins_with_that_of_its_file(name: str) -> None:
    page = (HTML / "book" / f"{name}.html").read_text(encoding="utf-8")
    found = {kind: set(pattern.findall(page)) for kind, pattern in NUMBERED.items()}
    for kind in ("section", "figure", "equation", "exercise"):
        assert found[kind] == {str(int(name[:2]))}, kind
