"""Every page of the built book in a real browser: quiet, offline, typeset, accessible, readable on a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe

if TYPE_CHECKING:
    from tests.book.conftest import Visitor

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

# The page may not be wider than the window, what a reader operates must lie inside it, and no formula is cut off.
PHONE_FAULTS = """() => {
  const faults = [], width = window.innerWidth;
  const page = document.scrollingElement.scrollWidth;
  if (page > width + 1) {
    faults.push(`the page is ${page} px wide`);
    for (const node of document.querySelectorAll("main *")) {
      if (node.getBoundingClientRect().right > width + 1) faults.push(node.outerHTML.slice(0, 120));
    }
  }
  for (const node of document.querySelectorAll("main :is(input, button, select, textarea)")) {
    const box = node.getBoundingClientRect();
    if (box.width && (box.left < -1 || box.right > width + 1)) faults.push("outside: " + node.outerHTML.slice(0, 120));
  }
  for (const box of document.querySelectorAll("main .math")) {
    const [formula, seen] = [box.querySelector("mjx-container"), box].map((node) => node.getBoundingClientRect().right);
    if (formula > seen + 1 && getComputedStyle(box).overflowX === "hidden") faults.push("cut off: " + box.textContent);
  }
  return faults.slice(0, 10);
}"""

LUMINANCES = """() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map(Number);
    return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
  };
  const style = getComputedStyle(document.body);
  return [luminance(style.backgroundColor), luminance(style.color)];
}"""

# Changing colours settle in a fraction of a second; an endless animation is not waited for.
COLOURS_SETTLE = """() => Promise.race([
  Promise.all(document.getAnimations().map((change) => change.finished.catch(() => null))).then(() => true),
  new Promise((resolve) => setTimeout(resolve, 2000)),
])"""

# docutils gives a bibliography roles that ARIA has retired; viewcode's list of modules nests lists without an item.
UPSTREAM_DEFECTS = [["div.citation-list"], ["article > ul:has(> ul)"]]


def _axe_violations(visitor: Visitor, **options: object) -> list[str]:
    # Without preload axe does not fetch the style sheets a second time.
    options |= {"resultTypes": ["violations"], "preload": False}
    results = Axe().run(visitor.page, context={"exclude": UPSTREAM_DEFECTS}, options=options).response
    return [
        f"{rule['impact']} {rule['id']}: {node['target']} {node['html'][:160]} {node['failureSummary']}"
        for rule in results["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def _set_scheme(visitor: Visitor, scheme: Literal["light", "dark"]) -> None:
    visitor.page.emulate_media(color_scheme=scheme)
    visitor.page.wait_for_function("(scheme) => document.documentElement.dataset.theme === scheme", arg=scheme)
    visitor.page.evaluate(COLOURS_SETTLE)


@pytest.fixture
def desktop(visited: Visitor) -> Visitor:
    """Set the shared window back to a light desktop."""
    visited.page.set_viewport_size(DESKTOP)
    _set_scheme(visited, "light")
    return visited


def test_loads_quietly(visited: Visitor) -> None:
    assert visited.complaints == []


def test_maths_is_typeset(visited: Visitor) -> None:
    assert visited.maths_faults() == []


def test_pictures_are_shown(visited: Visitor) -> None:
    broken = visited.page.evaluate(
        "() => [...document.images].filter((image) => !image.naturalWidth).map((image) => image.src)"
    )
    assert broken == []


def test_light_mode_is_light_and_accessible(desktop: Visitor) -> None:
    ground, ink = desktop.page.evaluate(LUMINANCES)
    assert ground > 0.9 > 0.3 > ink
    assert _axe_violations(desktop) == []


def test_dark_mode_is_dark_and_accessible(desktop: Visitor) -> None:
    _set_scheme(desktop, "dark")
    ground, ink = desktop.page.evaluate(LUMINANCES)
    assert ground < 0.1 < 0.7 < ink
    # The rest of what axe looks at is the same in both modes.
    assert _axe_violations(desktop, runOnly=["color-contrast", "link-in-text-block"]) == []


def test_fits_a_phone(desktop: Visitor) -> None:
    desktop.page.set_viewport_size(PHONE)
    assert desktop.page.evaluate(PHONE_FAULTS) == []
    assert desktop.complaints == []
