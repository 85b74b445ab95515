"""Number chapters by their files: ``08_tighter_bounds`` is chapter 8, whether or not chapter 7 stands yet.

Sphinx counts the chapters that are there. Text says "chapter 8", and so should the menu.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

CHAPTER = re.compile(r"^book/(\d\d)_")


def number_of(docname: str) -> int | None:
    """The number that begins the name of a chapter's file, if it is one."""
    match = CHAPTER.match(docname)
    return int(match[1]) if match else None


def renumber(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Put the number of its file first in every number of a chapter; return the pages that changed."""
    changed = []
    for docname, numbers in env.toc_secnumbers.items():
        chapter = number_of(docname)
        if chapter is None or all(number[0] == chapter for number in numbers.values() if number):
            continue
        for anchor, number in numbers.items():
            numbers[anchor] = _with(chapter, number)
        for attributes in _numbered(env, docname):
            attributes["secnumber"] = _with(chapter, attributes["secnumber"])
        # Figures, equations and exercises are numbered within their chapter.
        for kind in env.toc_fignumbers.get(docname, {}).values():
            for anchor, number in kind.items():
                kind[anchor] = _with(chapter, number)
        changed.append(docname)
    return changed


def _with(chapter: int, number: tuple[int, ...]) -> tuple[int, ...]:
    return (chapter, *number[1:]) if number else number


def _numbered(env: BuildEnvironment, docname: str) -> Iterator[MutableMapping[str, Any]]:
    """Where Sphinx keeps the numbers of a page beside its list: its table of contents and its title."""
    for reference in env.tocs[docname].findall(nodes.reference):
        if reference.get("secnumber"):
            yield reference.attributes
    title = env.titles[docname]
    if title.get("secnumber"):
        yield title.attributes


def setup(app: Sphinx) -> dict[str, bool]:
    """Run after Sphinx has counted."""
    app.connect("env-get-updated", renumber, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
