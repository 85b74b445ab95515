"""The equation ledger: a mark beside each labelled equation, and a page that shows the tests behind the marks.

The mark is a link in the equation's number. The page is where the directive ``{ledger}`` stands. Both are made when a
page is written, from the equations that Sphinx numbered and the tests that ``equations`` found, so a changed test
reaches the book by an ordinary rebuild.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from equations import PREFIX, EquationTest, proofs_by_label
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors import EnvironmentCollector
from sphinx.ext.mathjax import html_visit_displaymath
from sphinx.util.docutils import SphinxDirective
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

LEDGER_PAGE = "book/ledger"


class EquationCollector(EnvironmentCollector):
    """Keep every labelled equation's page and TeX, and tell which pages a change of the tests makes stale."""

    def clear_doc(self, app: Sphinx, env: BuildEnvironment, docname: str) -> None:
        """Forget a page's equations before it is read again."""
        equations = _equations(env)
        for label in [label for label, (page, _) in equations.items() if page == docname]:
            del equations[label]

    def merge_other(self, app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
        """Take over what a parallel reader found."""
        _equations(env).update({k: v for k, v in _equations(other).items() if v[0] in docnames})

    def process_doc(self, app: Sphinx, doctree: nodes.document) -> None:
        """Note the equations of a page that was just read."""
        for node in doctree.findall(nodes.math_block):
            label = node.get("label") or ""
            if label.startswith(PREFIX):
                _equations(app.env)[label] = (app.env.docname, node.astext())

    def get_updated_docs(self, app: Sphinx, env: BuildEnvironment) -> list[str]:
        """Return the pages to write again: the ledger always, a chapter when its counts of tests changed."""
        counts = {label: len(tests) for label, tests in _tests(app).items()}
        before = getattr(env, "ledger_counts", {})
        env.ledger_counts = counts  # type: ignore[attr-defined]
        stale = {page for label, (page, _) in _equations(env).items() if counts.get(label) != before.get(label)}
        return sorted(stale | ({LEDGER_PAGE} & env.all_docs.keys()))


def _equations(env: BuildEnvironment) -> dict[str, tuple[str, str]]:
    if not hasattr(env, "ledger_equations"):
        env.ledger_equations = {}  # type: ignore[attr-defined]
    return env.ledger_equations  # type: ignore[attr-defined,no-any-return]


def _tests(app: Sphinx) -> dict[str, list[EquationTest]]:
    if not hasattr(app, "ledger_tests"):
        app.ledger_tests = proofs_by_label(Path(app.srcdir) / "tests")  # type: ignore[attr-defined]
    return app.ledger_tests  # type: ignore[attr-defined,no-any-return]


def _count(tests: list[EquationTest]) -> str:
    return "1 test" if len(tests) == 1 else f"{len(tests)} tests"


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a display equation as Sphinx does, with the mark after its number."""
    start = len(self.body)
    try:
        html_visit_displaymath(self, node)
    finally:
        label = node.get("label") or ""
        tests = _tests(self.builder.app).get(label, [])
        if node.get("number") and tests:
            number = get_node_equation_number(self, node)
            page = self.builder.get_relative_uri(node["docname"], LEDGER_PAGE)
            mark = (
                f'<a class="ledger-mark" href="{page}#{nodes.make_id(f"ledger-{label}")}"'
                f' aria-label="Equation {number} is tested by {_count(tests)}: see the ledger">tested</a>'
            )
            self.body.insert(self.body.index("</span>", start), mark)


class LedgerEntries(nodes.General, nodes.Element):
    """Where the directive stood, until the page is written."""


class Ledger(SphinxDirective):
    """The ledger of all labelled equations."""

    def run(self) -> list[nodes.Node]:
        """Leave a place to fill once every page was read."""
        return [LedgerEntries()]


def fill_ledger(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put a section for each chapter, and in it an entry for each equation, where the directive stood."""
    places = list(doctree.findall(LedgerEntries))
    if not places:
        return
    chapters: dict[str, list[str]] = {}
    for label, (page, _) in _equations(app.env).items():
        chapters.setdefault(page, []).append(label)
    # Sphinx loads MathJax only on pages whose source has an equation.
    app.env.get_domain("math").data["has_equations"][docname] = bool(chapters)
    sections = []
    for page in (page for page in _reading_order(app.env) if page in chapters):
        title = app.env.titles[page].astext()
        section = nodes.section("", nodes.title("", title), ids=[nodes.make_id(f"ledger-{page}")])
        for label in chapters[page]:
            section += _entry(app, docname, label)
        sections.append(section)
    for place in places:
        place.replace_self(sections or [nodes.paragraph("", "No equation is labelled yet.")])


def _reading_order(env: BuildEnvironment) -> list[str]:
    order: list[str] = []

    def walk(page: str) -> None:
        if page not in order:
            order.append(page)
            for child in env.toctree_includes.get(page, []):
                walk(child)

    walk(env.config.root_doc)
    return order


def _entry(app: Sphinx, docname: str, label: str) -> nodes.container:
    _, tex = _equations(app.env)[label]
    tests = _tests(app).get(label, [])
    place = addnodes.pending_xref("", refdomain="math", reftype="eq", reftarget=label, refdoc=docname)
    number = app.env.get_domain("math").resolve_xref(
        app.env, docname, app.builder, "eq", label, place, nodes.literal("", label)
    )
    entry = nodes.container(classes=["ledger-entry"], ids=[nodes.make_id(f"ledger-{label}")])
    line = nodes.paragraph("", "Equation ")
    line += [number or nodes.Text(label), nodes.Text(", "), nodes.literal("", label), nodes.Text(", ")]
    line += nodes.Text(f"tested by {_count(tests)}." if tests else "has no test yet.")
    entry += [line, nodes.math_block("", tex, nowrap=False, number=None)]
    for test in tests:
        code = nodes.literal_block(test.source, test.source, language="python", force=False, linenos=False)
        name = re.sub(r"(/|::|_)", r"\1<wbr>", test.node_id)
        summary = f"<summary><code>{name}</code></summary>"
        entry += nodes.raw("", f'<details class="ledger-test">{summary}', format="html")
        entry += [code, nodes.raw("", "</details>", format="html")]
    return entry


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_env_collector(EquationCollector)
    app.add_directive("ledger", Ledger)
    app.add_node(LedgerEntries)
    app.add_node(nodes.math_block, override=True, html=(visit_math_block, None))
    app.connect("doctree-resolved", fill_ledger)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
