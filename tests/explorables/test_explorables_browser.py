"""The figure of chapter 1 in a real browser: its numbers against SciPy, its bars, and every way to move q."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page
from scipy.integrate import quad

from tests.browser import chromium
from vae_lib.explorables import explorable_html

HEAD = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
DEFAULTS = {"a": 1.0, "b": 0.5, "s": 0.5, "x": 1.5}
OTHER = {"a": 0.5, "b": -1.25, "s": 0.8, "x": 0.3}

PIXEL = 1e-3  # SVG keeps lengths in single precision, about 1e-4 pixels here; a reader sees less than 1

# mean and width, at both ends of both sliders too; the last three are off the bars' scale
PLACES = [(0.0, 1.0), (0.9, 0.22), (-1.37, 0.25), (2.4, 0.1), (3.0, 0.6), (-3.0, 3.0)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page 900 pixels wide, without network and without patience for errors."""
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


def show(page: Page, tmp_path: Path, body: str) -> None:
    file = tmp_path / "page.html"
    file.write_text(f"{HEAD}<title>t</title><body>{body}</body></html>", encoding="utf-8")
    page.goto(file.as_uri())


def numbers(page: Page) -> dict[str, float]:
    names = ("elbo", "kl", "evidence")
    texts = {name: page.get_attribute(f'[data-quantity="{name}"]', "data-value") for name in names}
    assert all(text is not None and sum(c.isdigit() for c in text) >= 10 for text in texts.values())
    return {k: float(text) for k, text in texts.items() if text is not None}


def q_of(page: Page) -> tuple[float, float]:
    figure = page.locator("figure.explorable").first
    mean, width = figure.evaluate("f => [+f.dataset.mean, +f.dataset.width]")
    return mean, width


def slide(page: Page, name: str, value: float) -> None:
    page.locator(f'[data-slider="{name}"]').first.fill(repr(value))


def bars(page: Page) -> tuple[float, float, float]:
    """Left end, border and right end of the bars, in pixels."""
    elbo = page.locator('[data-bar="elbo"]').first.evaluate("n => [n.x.baseVal.value, n.width.baseVal.value]")
    kl = page.locator('[data-bar="kl"]').first.evaluate("n => [n.x.baseVal.value, n.width.baseVal.value]")
    assert elbo[0] + elbo[1] == pytest.approx(kl[0], abs=PIXEL)  # no gap, no overlap
    return elbo[0], kl[0], kl[0] + kl[1]


def oracle(model: dict[str, float], m: float, w: float) -> dict[str, float]:
    """The three quantities by adaptive Gauss-Kronrod, cut where the integrand is below 1e-30."""

    def log_normal(v: float, mean: float, std: float) -> float:
        return -0.5 * math.log(2 * math.pi) - math.log(std) - 0.5 * ((v - mean) / std) ** 2

    def log_joint(z: float) -> float:
        return log_normal(z, 0, 1) + log_normal(model["x"], model["a"] * z**2 + model["b"] * z, model["s"])

    def integral(f: object, cuts: np.ndarray) -> float:
        pieces = pairwise(cuts)
        return math.fsum(quad(f, low, high, epsabs=1e-12, epsrel=1e-12, limit=200)[0] for low, high in pieces)

    def log_q(z: float) -> float:
        return log_normal(z, m, w)

    evidence = math.log(integral(lambda z: math.exp(log_joint(z)), np.linspace(-12, 12, 25)))
    around_q = m + w * np.linspace(-12, 12, 13)
    elbo = integral(lambda z: math.exp(log_q(z)) * (log_joint(z) - log_q(z)), around_q)
    kl = integral(lambda z: math.exp(log_q(z)) * (log_q(z) - (log_joint(z) - evidence)), around_q)
    return {"elbo": elbo, "kl": kl, "evidence": evidence}


@pytest.mark.parametrize("model", [DEFAULTS, OTHER], ids=["defaults", "another model"])
def test_the_three_numbers_are_those_of_scipy(page: Page, tmp_path: Path, model: dict[str, float]) -> None:
    """To 1e-7 nats; where the numbers are large, to 1e-10 of their size."""
    show(page, tmp_path, explorable_html("elbo_bars", **model))
    for mean, width in PLACES:
        slide(page, "mean", mean)
        slide(page, "width", math.log(width))
        m, w = q_of(page)
        assert (m, w) == pytest.approx((mean, width), rel=0.01)  # the slider moves in steps of 0.01
        expected, found = oracle(model, m, w), numbers(page)
        assert found == pytest.approx(expected, abs=1e-7, rel=1e-10), (m, w)
        assert found["elbo"] + found["kl"] == pytest.approx(found["evidence"], abs=1e-8)


def test_the_bars_meet_end_to_end_and_always_stop_at_the_mark(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorable_html("elbo_bars"))
    start, before, end = bars(page)
    mark = page.locator(".mark").bounding_box()
    segment = page.locator('[data-bar="kl"]').bounding_box()
    assert mark is not None
    assert segment is not None
    assert segment["x"] + segment["width"] == pytest.approx(mark["x"] + mark["width"] / 2, abs=1)
    for mean, log_width in [(0.5, 0.0), (0.9, -1.5), (-1.4, -1.5), (0.0, 0.1)]:
        slide(page, "mean", mean)
        slide(page, "width", log_width)
        left, border, right = bars(page)
        n = numbers(page)
        assert (left, right) == pytest.approx((start, end), abs=PIXEL)
        # The axis runs from log p(x) - 8 to log p(x): the border stands where the ELBO belongs.
        assert (border - left) / (right - left) == pytest.approx(1 - n["kl"] / 8, abs=PIXEL / 100)
        assert border != before


def test_an_elbo_left_of_the_scale_is_marked(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorable_html("elbo_bars"))
    start, _, end = bars(page)
    slide(page, "mean", 2.6)
    assert numbers(page)["kl"] > 8
    assert bars(page) == pytest.approx((start, start, end), abs=PIXEL)
    label = page.locator('[data-part="elbo-label"]').text_content() or ""
    assert label.startswith("\N{LEFTWARDS ARROW} ELBO")
    assert label.endswith("off the scale")


def test_the_mouse_moves_q(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorable_html("elbo_bars", mean=0.0, width=0.7))
    picture = page.locator('[data-part="picture"]').bounding_box()
    assert picture is not None
    unit = picture["width"] / 8  # pixels for one unit of z

    def drag(name: str, units: float) -> None:
        box = page.locator(f'[data-handle="{name}"] .dot').bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + units * unit / 2, y + 30)  # up and down does not matter
        page.mouse.move(x + units * unit, y)
        page.mouse.up()

    drag("mean", 1.0)
    assert q_of(page) == pytest.approx((1.0, 0.7), abs=0.01)
    drag("width", -0.4)
    assert q_of(page) == pytest.approx((1.0, 0.3), abs=0.01)
    drag("mean", 9.0)
    assert q_of(page) == pytest.approx((3.0, 0.3), abs=0.01)  # held at the end of its range
    page.mouse.move(10, 10)
    assert q_of(page)[0] == pytest.approx(3.0)  # and let go
    n = numbers(page)
    assert n["elbo"] + n["kl"] == pytest.approx(n["evidence"], abs=1e-8)


def test_a_wide_q_keeps_its_handle_inside_the_picture(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorable_html("elbo_bars", mean=2.5, width=2.8))
    picture = page.locator('[data-part="picture"]').bounding_box()
    dot = page.locator('[data-handle="width"] .dot').bounding_box()
    assert picture is not None
    assert dot is not None
    assert picture["x"] <= dot["x"] <= dot["x"] + dot["width"] <= picture["x"] + picture["width"]


@pytest.mark.parametrize("what", ["slider", "handle"])
def test_the_keyboard_moves_q(page: Page, tmp_path: Path, what: str) -> None:
    show(page, tmp_path, explorable_html("elbo_bars", mean=0.0, width=0.7))
    page.focus(f'[data-{what}="mean"]')
    page.keyboard.press("ArrowRight")
    m, w = q_of(page)
    assert m > 0
    assert w == pytest.approx(0.7)
    page.keyboard.press("Home")
    assert q_of(page)[0] == pytest.approx(-3)
    page.focus(f'[data-{what}="width"]')
    page.keyboard.press("ArrowLeft")
    assert q_of(page)[1] < 0.7
    page.keyboard.press("End")
    assert q_of(page)[1] == pytest.approx(3, rel=0.01)
    handle = page.locator('[data-handle="width"]')
    assert float(handle.get_attribute("aria-valuenow") or "nan") == pytest.approx(q_of(page)[1], abs=1e-3)
    page.wait_for_function("document.querySelector('[aria-live]').textContent.includes('ELBO')")


def test_the_buttons_climb_to_the_two_hills_and_to_the_best(page: Page, tmp_path: Path) -> None:
    """At each end no neighbour has a higher ELBO, by the oracle; the left hill is the lower one."""
    show(page, tmp_path, explorable_html("elbo_bars"))
    ends = {}
    for name in ("left", "right", "best"):
        page.click(f'[data-do="{name}"]')
        m, w = q_of(page)
        ends[name] = oracle(DEFAULTS, m, w)["elbo"]
        for dm, dw in [(1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)]:
            assert oracle(DEFAULTS, m + dm, w + dw)["elbo"] < ends[name]
    assert ends["left"] < ends["right"] - 0.1
    assert ends["best"] == pytest.approx(ends["right"], abs=1e-8)
    page.click('[data-do="reset"]')
    assert q_of(page) == (0.0, 0.7)


def test_motion_is_shown_unless_the_reader_asked_for_none(page: Page, tmp_path: Path) -> None:
    page.emulate_media(reduced_motion="no-preference")
    show(page, tmp_path, explorable_html("elbo_bars"))
    # In one breath with the click, however slow the machine: still on its way.
    click = "f => { f.querySelector('[data-do=\"best\"]').click(); return +f.dataset.width }"
    assert page.locator("figure.explorable").evaluate(click) > 0.3
    page.wait_for_function("+document.querySelector('figure').dataset.width < 0.217")


def test_copies_on_a_page_live_side_by_side_and_leak_nothing(page: Page, tmp_path: Path) -> None:
    outside = """() => [Object.getOwnPropertyNames(window).sort(),
        [...document.querySelectorAll(".probe")].map(n => [...getComputedStyle(n)].map(k => getComputedStyle(n)[k]))]"""
    probes = '<div style="width:100px"><input class="probe" type="range"><button class="probe">b</button></div>'
    show(page, tmp_path, probes)
    before = page.evaluate(outside)
    copies = explorable_html("elbo_bars") * 2 + explorable_html("elbo_bars", x=0.5)
    show(page, tmp_path, probes + copies)
    assert page.evaluate(outside) == before
    assert page.locator("figure .controls").count() == 3
    assert page.locator("figure > img").count() == 0
    page.locator('[data-slider="mean"]').nth(1).fill("2")
    means = page.locator("figure").evaluate_all("all => all.map(f => +f.dataset.mean)")
    assert means == [0, 2, 0]
    values = page.locator('[data-quantity="evidence"]')
    evidence = values.evaluate_all("all => all.map(n => +n.dataset.value)")
    assert evidence[0] == evidence[1] != evidence[2]
    assert page.evaluate("document.querySelectorAll('[id]').length") == 0  # no ids that could collide


def test_it_starts_in_a_sandboxed_frame_and_when_inserted_later(page: Page, tmp_path: Path) -> None:
    """As Colab shows an output, and as JupyterLab does: markup first, then its scripts made anew."""
    html = explorable_html("elbo_bars")
    quoted = html.replace("&", "&amp;").replace('"', "&quot;")
    show(
        page,
        tmp_path,
        f'<iframe sandbox="allow-scripts" srcdoc="{quoted}"></iframe><div></div>',
    )
    frame = page.frame_locator("iframe")
    assert frame.locator('[data-quantity="kl"]').get_attribute("data-value")
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
    assert page.locator('[data-quantity="kl"]').get_attribute("data-value")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, tmp_path: Path, theme: str) -> None:
    show(page, tmp_path, f"<main><h1>t</h1>{explorable_html('elbo_bars')}</main>")
    page.evaluate("theme => document.documentElement.setAttribute('data-theme', theme)", theme)
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


def test_without_scripts_the_still_picture_is_seen(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    show(page, tmp_path, explorable_html("elbo_bars"))
    box = page.locator("figure > img").bounding_box()
    context.close()
    assert box is not None
    assert box["height"] > 200


@pytest.mark.parametrize("width", [390, 700])
def test_it_fits_its_column(page: Page, tmp_path: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    show(page, tmp_path, explorable_html("elbo_bars"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = "all => all.filter(n => n.getBoundingClientRect().right > innerWidth + 0.5).length"
    assert page.locator("figure *:not(.aloud, .hatch)").evaluate_all(outside) == 0
