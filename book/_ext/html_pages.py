"""Small repairs to the pages that the theme writes."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

OPENING = re.compile(r"[(\[‘“]+$")
CLOSING = re.compile(r"^[,.;:!?)\]’”]+")


def drop_repeated_scripts(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Keep one copy of each inline script: Sphinx 7 writes some twice, and a second ``const`` is an error."""
    seen: set[str] = set()
    kept = []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if body is None or body not in seen:
            kept.append(script)
        if body is not None:
            seen.add(body)
    context["script_files"] = kept


def drop_repeated_ids(doctree: nodes.document) -> None:
    """Take the id from the bodies of theorems, exercises and solutions: each extension gives all of them the same."""
    for body in doctree.findall(nodes.section):
        if body["ids"] in (["proof-content"], ["exercise-content"], ["solution-content"]):
            body["ids"] = []


def keep_punctuation_with_maths(doctree: nodes.document) -> None:
    """Bind a formula and the punctuation at it: a browser may break a line beside any box, even before a comma."""
    for formula in list(doctree.findall(nodes.math)):
        paragraph = formula.parent
        if paragraph is None:
            continue
        place = paragraph.index(formula)
        before = paragraph[place - 1] if place > 0 else None
        after = paragraph[place + 1] if place + 1 < len(paragraph) else None
        opening = OPENING.search(before) if isinstance(before, nodes.Text) else None
        closing = CLOSING.search(after) if isinstance(after, nodes.Text) else None
        together = nodes.inline("", "", classes=["together"])
        if isinstance(before, nodes.Text) and opening:
            paragraph.replace(before, nodes.Text(before[: opening.start()]))
            together += nodes.Text(opening[0])
        together += formula.deepcopy()
        if isinstance(after, nodes.Text) and closing:
            paragraph.replace(after, nodes.Text(after[closing.end() :]))
            together += nodes.Text(closing[0])
        if len(together) > 1:
            paragraph.replace(formula, together)


def repair_doctree(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Make the repairs of a page's content."""
    drop_repeated_ids(doctree)
    keep_punctuation_with_maths(doctree)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    # After every extension that adds scripts to a page.
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    app.connect("doctree-resolved", repair_doctree)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
