"""Every explorable takes its colours from the page around it, and else from the system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.explorables import latents, test_figure_two
from vae_lib import explorables
from vae_lib.explorables import explorable_html

NAMES = sorted(path.stem for path in Path(explorables.__file__).parent.glob("*.html"))
SHOWN: dict[str, dict[str, Any]] = {
    "figure_two": {"record": test_figure_two.RECORD},
    "latent_explorer": {"asset": latents.ASSET},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("mark", "system", "dark"),
    [
        ("", "light", False),
        ("", "dark", True),
        ('data-theme="light"', "dark", False),
        ('data-theme="dark"', "light", True),
        ('data-jp-theme-light="true"', "dark", False),
        ('data-jp-theme-light="false"', "light", True),
    ],
)
def test_its_colours_follow_the_page_and_else_the_system(
    page: Page, show: Callable[[Page, str], None], name: str, mark: str, system: str, dark: bool
) -> None:
    page.emulate_media(color_scheme="dark" if system == "dark" else "light")
    show(page, explorable_html(name, **SHOWN.get(name, {})))
    if mark:
        key, value = mark.replace('"', "").split("=")
        where = "body" if "jp" in key else "documentElement"
        page.evaluate(f"document.{where}.setAttribute('{key}', '{value}')")
    paper = page.locator("figure").evaluate("f => getComputedStyle(f).backgroundColor")
    assert paper == ("rgb(18, 18, 18)" if dark else "rgb(255, 255, 255)")
    if name == "latent_explorer":
        ink = page.locator('[data-part="decoded"]').evaluate("n => getComputedStyle(n).filter")
        assert ink == f"invert({int(dark)})"  # light ink on dark paper
