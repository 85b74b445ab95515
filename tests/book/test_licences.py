"""The built book says whose work it carries: every file has a row in THIRD_PARTY.md, and every licence its text."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import licences
import pytest

ROOT = Path(__file__).parents[2]
LIST = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
# The book's own, what says so, and what Sphinx writes for this book.
OURS = ("book.*", "licences/*", "documentation_options.js")


def rows() -> list[str]:
    """Return the patterns in the second column of the table of the pages."""
    table = LIST.split("## In the pages of the built book")[1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| what ")]
    return [pattern for line in lines for pattern in re.findall(r"`([^`]+)`", line.split("|")[2])]


def is_listed(name: str, patterns: list[str]) -> bool:
    """Tell whether a file, or a folder that it lies in, has a row."""
    return any(name.startswith(p) if p.endswith("/") else fnmatch(name, p) for p in patterns)


def test_every_file_in_the_pages_has_a_row(built_book: Path) -> None:
    static = built_book / "_static"
    names = [str(path.relative_to(static)) for path in static.rglob("*") if path.is_file()]
    assert len(names) > 50
    assert [name for name in names if not is_listed(name, [*rows(), *OURS])] == []


def test_a_file_without_a_row_would_be_seen() -> None:
    assert not is_listed("jquery.js", rows())


def test_every_row_covers_a_file(built_book: Path) -> None:
    static = built_book / "_static"
    names = [str(path.relative_to(static)) for path in static.rglob("*") if path.is_file()]
    assert [pattern for pattern in rows() if not any(is_listed(name, [pattern]) for name in names)] == []


@pytest.mark.parametrize("package", [*licences.PACKAGES, "Apache-2.0"])
def test_every_licence_has_its_text(package: str, built_book: Path) -> None:
    text = (built_book / "_static/licences" / f"{package}.txt").read_text(encoding="utf-8")
    assert re.search("copyright|licen[cs]e", text, re.IGNORECASE)


@pytest.mark.parametrize("package", licences.PACKAGES)
def test_every_package_is_named(package: str) -> None:
    names = {"accessible-pygments": "a11y-pygments"}
    assert names.get(package, package).lower().replace("-", " ") in LIST.lower().replace("-", " ")
