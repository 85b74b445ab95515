"""What the figures of these chapters promise alike: small, alone, deterministic, readable, at home everywhere."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from vae_lib.explorables import explorable_html

Show = Callable[[Page, str], None]
SVG = "http://www.w3.org/2000/svg"
OTHER = {
    "em_ascent": {"m2": 2.0, "s2": 0.5, "u": -1.0, "w": 0.3},
    "forward_reverse": {"z": -0.5, "levels": 24, "t": 11},
    "gradient_cloud": {"d": -1.5, "samples": 1024},
    "importance_bound": {"x": -0.5, "s": 0.5, "shift": -2.0, "width": 0.75, "draws": 100},
}
SLIDER = {"em_ascent": "w", "forward_reverse": "z", "gradient_cloud": "d", "importance_bound": "width"}
pytestmark = pytest.mark.parametrize("name", list(OTHER))


def still_picture(html: str) -> str:
    found = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert found is not None
    return base64.b64decode(found[1]).decode()


def test_equal_settings_give_equal_text_in_every_process(name: str) -> None:
    code = f"import sys; from vae_lib.explorables import explorable_html as e; sys.stdout.write(e({name!r}))"
    fresh = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code], capture_output=True, check=True, encoding="utf-8"
    )
    assert fresh.stdout == explorable_html(name)
    assert explorable_html(name, **OTHER[name]) != explorable_html(name)


def test_settings_may_be_integers_or_numpy_numbers(name: str) -> None:
    settings = {key: np.float64(value) for key, value in OTHER[name].items()}
    assert explorable_html(name, **settings) == explorable_html(name, **OTHER[name])
    key = SLIDER[name]
    assert explorable_html(name, **{key: 1}) == explorable_html(name, **{key: 1.0})


def test_it_asks_nothing_of_the_network_and_stays_small(name: str) -> None:
    for config in ({}, OTHER[name]):
        html = explorable_html(name, **config)
        assert len(html.encode()) < 30_000
        assert set(re.findall(r"""https?://[^\s"'<>)]+""", html + still_picture(html))) == {SVG}
        assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|\burl\(|\bfetch\(|XMLHttpRequest""", html)
        assert not re.search(r"\{\{\w+\}\}", html)
        ElementTree.fromstring(still_picture(html))


def test_without_scripts_the_still_picture_is_seen(browser: Browser, show: Show, name: str) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    show(page, explorable_html(name))
    image = page.locator("figure > img")
    box, alt = image.bounding_box(), image.get_attribute("alt")
    context.close()
    assert box is not None
    assert box["height"] > 200
    assert alt


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, show: Show, name: str, theme: str) -> None:
    show(page, f"<main><h1>t</h1>{explorable_html(name)}</main>")
    page.evaluate("theme => document.documentElement.setAttribute('data-theme', theme)", theme)
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


@pytest.mark.parametrize("width", [390, 700])
def test_it_fits_its_column(page: Page, show: Show, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    show(page, explorable_html(name))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # What a nested svg cuts off has a box all the same: those are left out, the frame that cuts is not.
    outside = "all => all.filter(n => !n.closest('svg svg *') && n.getBoundingClientRect().right > innerWidth - 8)"
    assert page.locator("figure *:not(.aloud)").evaluate_all(f"{outside.replace('all =>', 'all => (')}.length)") == 0
    panels = page.locator(".panels svg[data-part]").evaluate_all("all => all.map(n => n.getBoundingClientRect().top)")
    assert (panels[0] == panels[1]) == (width == 700)


def test_copies_on_a_page_live_side_by_side_and_leak_nothing(page: Page, show: Show, name: str) -> None:
    outside = """() => [Object.getOwnPropertyNames(window).sort(),
        [...document.querySelectorAll(".probe")].map(n => [...getComputedStyle(n)].map(k => getComputedStyle(n)[k]))]"""
    probes = '<div style="width:100px"><input class="probe" type="range"><button class="probe">b</button></div>'
    show(page, probes)
    before = page.evaluate(outside)
    show(page, probes + explorable_html(name) * 2 + explorable_html(name, **OTHER[name]))
    assert page.evaluate(outside) == before
    assert page.locator("figure .controls").count() == 3
    assert page.locator("figure > img").count() == 0
    slider = SLIDER[name]
    where = f"all => all.map(f => +f.dataset.{slider})"
    first, _, third = page.locator("figure").evaluate_all(where)
    page.locator(f'[data-slider="{slider}"]').nth(1).fill("1.2")
    assert page.locator("figure").evaluate_all(where) == [first, 1.2, third]
    assert first != third
    assert page.evaluate("document.querySelectorAll('[id]').length") == 0  # no ids that could collide


def test_it_starts_in_a_sandboxed_frame_and_when_inserted_later(page: Page, show: Show, name: str) -> None:
    """As Colab shows an output, and as JupyterLab does: markup first, then its scripts made anew."""
    html = explorable_html(name)
    quoted = html.replace("&", "&amp;").replace('"', "&quot;")
    show(page, f'<iframe sandbox="allow-scripts" srcdoc="{quoted}"></iframe><div></div>')
    first = "[data-quantity]"
    assert page.frame_locator("iframe").locator(first).first.get_attribute("data-value")
    page.evaluate(
        """html => {
            const host = document.createElement("div");
            host.innerHTML = html;
            const old = host.querySelector("script"), made = document.createElement("script");
            made.textContent = old.textContent;
            old.replaceWith(made);
            document.querySelector("div").append(host);
        }""",
        html,
    )
    assert page.locator(first).first.get_attribute("data-value")


def test_a_finger_may_scroll_the_page_over_it(page: Page, show: Show, name: str) -> None:
    show(page, explorable_html(name))
    actions = page.locator(".panels svg[data-part]").evaluate_all(
        "all => all.map(n => getComputedStyle(n).touchAction)"
    )
    assert actions == ["pan-y pinch-zoom"] * 2
