"""The built book without any server or network: pages opened as files, search, and the way in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.book.conftest import Visitor


def test_opens_as_a_file(page_name: str, visitor: Visitor, built_book: Path) -> None:
    visitor.open((built_book / page_name).as_uri())
    assert visitor.maths_faults() == []
    assert visitor.complaints == []


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_search_works_without_a_network(scheme: str, visitor: Visitor, built_book: Path, site: str) -> None:
    start = f"{site}/book/intro.html" if scheme == "http" else (built_book / "book/intro.html").as_uri()
    page = visitor.open(start)
    page.keyboard.press("Control+k")
    page.keyboard.type("evidence")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    page.wait_for_load_state("networkidle")
    targets = page.eval_on_selector_all("#search-results li a", "(links) => links.map((link) => link.href)")
    assert any("book/01_elbo_kl_identity.html" in target for target in targets)
    assert visitor.complaints == []
    page.locator("#search-results li a").first.click()
    page.wait_for_selector("article h1")
    assert visitor.complaints == []


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_front_door_leads_to_the_first_page(scheme: str, visitor: Visitor, built_book: Path, site: str) -> None:
    visitor.page.goto(f"{site}/index.html" if scheme == "http" else (built_book / "index.html").as_uri())
    visitor.page.wait_for_url("**/book/intro.html")
    assert visitor.complaints == []
