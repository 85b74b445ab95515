"""A browser for the figures: offline, 900 pixels wide, and without patience for errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import chromium

HEAD = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(offline=True, reduced_motion="reduce")
    page = context.new_page()
    page.set_viewport_size({"width": 900, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("requestfailed", lambda request: errors.append(request.url))
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def show(tmp_path: Path) -> Callable[[Page, str], None]:
    """Open a body of HTML from a file."""

    def show(page: Page, body: str) -> None:
        file = tmp_path / "page.html"
        file.write_text(f"{HEAD}<title>t</title><body>{body}</body></html>", encoding="utf-8")
        page.goto(file.as_uri())

    return show
