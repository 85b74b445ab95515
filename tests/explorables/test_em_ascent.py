"""The figure of chapter 2: its numbers against torch and quadrature, its steps against an optimiser, every move."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page
from scipy.optimize import minimize, minimize_scalar
from torch.distributions import Normal, kl_divergence

from tests.explorables.test_promises import SVG, still_picture
from vae_lib.explorables import em_ascent, explorable_html

Show = Callable[[Page, str], None]
DEFAULTS = {"m2": 5.0, "s2": 1.0, "u": 2.4, "w": 0.5, "rate": 0.2}
OTHER = {"m2": 2.0, "s2": 0.4, "u": -1.0, "w": 0.3, "rate": 0.05}
PLACES = [(1.4, 0.5), (0.5, 0.5), (0.0, 0.0), (0.02, 1.25), (-1.5, 1.7), (1.9, -1.9), (-0.4, -1.1)]


def data(m2: float) -> torch.Tensor:
    """Three data, none alike, whose mean square is m2: only that may matter."""
    x = torch.tensor([-2.0, 0.5, 1.0], dtype=torch.float64)
    return x * math.sqrt(m2 / float(x.square().mean()))


def bound(m2: float, s2: float, slope: float, variance: float, w: torch.Tensor | float) -> torch.Tensor:
    """The ELBO of q(z | x) = N(slope x, variance), by Gauss-Hermite over z and torch's KL, averaged over the data."""
    x = data(m2)[:, None]
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    z = slope * x + math.sqrt(variance) * torch.from_numpy(nodes)
    w = torch.as_tensor(w, dtype=torch.float64)
    fit = Normal(w * z, math.sqrt(s2)).log_prob(x) @ torch.from_numpy(weights) / math.sqrt(2 * math.pi)
    q = Normal(slope * x[:, 0], math.sqrt(variance))
    return (fit - kl_divergence(q, Normal(torch.zeros(3, dtype=torch.float64), 1.0))).mean()


def oracle(c: dict[str, float], u: float, w: float) -> dict[str, float]:
    s2, x = c["s2"], data(c["m2"])

    def posterior(weight: float) -> Normal:
        return Normal(weight * x / (s2 + weight**2), math.sqrt(s2 / (s2 + weight**2)))

    elbo = float(bound(c["m2"], s2, u / (s2 + u**2), s2 / (s2 + u**2), w))
    kl = float(kl_divergence(posterior(u), posterior(w)).mean())
    evidence = float(Normal(0 * x, math.sqrt(s2 + w**2)).log_prob(x).mean())
    return {"elbo": elbo, "kl": kl, "evidence": evidence}


def numbers(page: Page) -> dict[str, float]:
    names = ("elbo", "kl", "evidence")
    return {name: float(page.get_attribute(f'[data-quantity="{name}"]', "data-value") or "nan") for name in names}


def place(page: Page) -> tuple[float, float]:
    u, w = page.locator("figure.explorable").first.evaluate("f => [+f.dataset.u, +f.dataset.w]")
    return u, w


def slide(page: Page, **values: float) -> None:
    for name, value in values.items():
        page.locator(f'[data-slider="{name}"]').first.fill(repr(value))


@pytest.mark.parametrize("c", [DEFAULTS, OTHER], ids=["defaults", "another model"])
def test_the_three_numbers_are_those_of_torch(page: Page, show: Show, c: dict[str, float]) -> None:
    """Each to 1e-10 of its size, or to 1e-12 nats; their sum to 1e-12."""
    show(page, explorable_html("em_ascent", **c))
    for u, w in PLACES:
        slide(page, u=u, w=w)
        assert place(page) == (u, w)
        found = numbers(page)
        assert found == pytest.approx(oracle(c, u, w), rel=1e-10, abs=1e-12), (u, w)
        assert found["elbo"] + found["kl"] == pytest.approx(found["evidence"], abs=1e-12)


def test_the_library_draws_the_same_numbers() -> None:
    c = em_ascent.Config()
    for u, w in PLACES:
        expected = oracle(DEFAULTS, u, w)
        assert em_ascent.elbo(c, u, w) == pytest.approx(expected["elbo"], rel=1e-12)
        assert em_ascent.evidence(c, w) == pytest.approx(expected["evidence"], rel=1e-12)


@pytest.mark.parametrize("w", [-2.7, -0.3, 0.0, 0.8, 2.0])
def test_the_best_q_on_the_map_is_the_best_normal_q_of_all(w: float) -> None:
    """Why a map of u loses nothing: over every slope and every variance, no q has a larger ELBO than u = w."""
    c = em_ascent.Config()
    free = minimize(lambda q: -float(bound(c.m2, c.s2, q[0], math.exp(q[1]), w)), [0.1, -0.5], method="BFGS")
    slope, variance = em_ascent.posterior(c, w)
    assert [free.x[0], math.exp(free.x[1])] == pytest.approx([slope, variance], abs=1e-5)
    assert em_ascent.elbo(c, w, w) >= -free.fun - 1e-12
    assert em_ascent.elbo(c, w, w) == pytest.approx(em_ascent.evidence(c, w), abs=1e-13)


@pytest.mark.parametrize("c", [DEFAULTS, OTHER], ids=["defaults", "another model"])
def test_the_steps_go_where_they_say(page: Page, show: Show, c: dict[str, float]) -> None:
    show(page, explorable_html("em_ascent", **c))
    for u, w in PLACES:
        slide(page, u=u, w=w)
        u, w = place(page)
        page.click('[data-do="m"]')
        slope, variance = u / (c["s2"] + u**2), c["s2"] / (c["s2"] + u**2)
        best = minimize_scalar(lambda v, q=(slope, variance): -float(bound(c["m2"], c["s2"], *q, v)), tol=1e-12).x
        assert place(page) == pytest.approx((u, best), abs=1e-6)
        page.click('[data-do="e"]')
        assert place(page)[0] == place(page)[1]
        assert numbers(page)["kl"] == 0

        slide(page, u=u, w=w)
        page.click('[data-do="g"]')
        at = torch.tensor([u, w], dtype=torch.float64, requires_grad=True)
        x2, s2, total = c["m2"], c["s2"], c["s2"] + at[0] ** 2
        slope_, variance_ = at[0] / total, c["s2"] / total
        loss = ((1 - at[1] * slope_) ** 2 * x2 + at[1] ** 2 * variance_) / (2 * s2)
        value = -loss - 0.5 * (slope_**2 * x2 + variance_ - variance_.log())
        (gradient,) = torch.autograd.grad(value, at)
        aim = (
            (at + c["rate"] * gradient).detach().clamp(-em_ascent.VIEW * math.sqrt(x2), em_ascent.VIEW * math.sqrt(x2))
        )
        assert place(page) == pytest.approx(aim.tolist(), abs=1e-10)


def test_em_climbs_and_never_lowers_the_evidence(page: Page, show: Show) -> None:
    """To the closed-form maximum w² = m2 - s2; there each round keeps 1 - 2 r + 2 r² of the error, r = s2 / m2."""
    show(page, explorable_html("em_ascent"))
    last, errors = numbers(page), []
    for _ in range(30):
        for do in ("e", "m"):
            page.click(f'[data-do="{do}"]')
            now = numbers(page)
            assert now["elbo"] >= last["elbo"] - 1e-14
            assert now["evidence"] >= last["evidence"] - 1e-14
            last = now
        errors.append(2 - place(page)[1])
    assert errors[-1] < 1e-4
    assert errors[-1] / errors[-2] == pytest.approx(0.68, abs=1e-3)


def test_from_the_saddle_no_step_leaves(page: Page, show: Show) -> None:
    show(page, explorable_html("em_ascent", u=0, w=0))
    for do in ("e", "m", "g"):
        page.click(f'[data-do="{do}"]')
        assert place(page) == (0, 0)
    assert "stays" in (page.text_content('[data-part="told"]') or "")


def test_no_m_step_leaves_the_map() -> None:
    for m2, share in itertools.product([0.01, 5.0, 100.0], np.linspace(em_ascent.NOISE_MIN, em_ascent.NOISE_MAX, 23)):
        c = em_ascent.Config(m2=m2, s2=share * m2)
        view = em_ascent.VIEW * math.sqrt(m2)
        assert max(abs(em_ascent.m_step(c, u)) for u in np.linspace(-view, view, 801)) < view


def test_every_contour_lies_where_the_elbo_has_its_level(page: Page, show: Show) -> None:
    """The lines of the live map, read back from their pixels; a tenth of a pixel is what the path keeps."""
    show(page, explorable_html("em_ascent"))
    c = em_ascent.Config()
    view, top = em_ascent.VIEW * math.sqrt(5), em_ascent.evidence(c, 2)
    side = page.locator('[data-part="map"]').evaluate("n => n.viewBox.baseVal.width") - 26
    paths = page.locator(".level").evaluate_all("all => all.map(n => n.getAttribute('d'))")
    assert len(paths) == 11
    for k, path in zip(range(10, -1, -1), paths, strict=True):
        points = np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", path), dtype=float)
        u, w = (points[:, 0] - 26) / side * 2 * view - view, view - (points[:, 1] - 24) / side * 2 * view
        inside = (np.abs(u) < view) & (np.abs(w) < view)
        assert inside.sum() > 40 or k > 8  # the deepest pass the corners, or lie outside
        level, unit = top - 0.02 * 2**k, 2 * view / side
        for a, b in zip(u[inside], w[inside], strict=True):
            h = 0.06 * unit  # half a tenth, and a little
            around = [em_ascent.elbo(c, a + p * h, b + q * h) for p in (-1, 0, 1) for q in (-1, 0, 1)]
            # The corners lie on both sides of the line; at a tip the slope may vanish along one axis.
            assert min(around) - 1e-4 <= level <= max(around) + 1e-4, (k, a, b)


def test_the_bound_touches_log_p_after_an_e_step(page: Page, show: Show) -> None:
    show(page, explorable_html("em_ascent"))
    centre = """n => { const b = n.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }"""
    touch, here = '[data-part="bound"] .touch', '[data-part="bound"] circle.here'
    apart = np.subtract(page.locator(touch).evaluate(centre), page.locator(here).evaluate(centre))
    assert np.hypot(*apart) > 50
    assert page.locator('[data-part="bound"] .kl').text_content() == "KL 0.443"
    page.click('[data-do="e"]')
    together = np.subtract(page.locator(touch).evaluate(centre), page.locator(here).evaluate(centre))
    assert np.hypot(*together) < 0.01


def test_an_elbo_below_the_scale_is_marked(page: Page, show: Show) -> None:
    show(page, explorable_html("em_ascent", u=2.5, w=-2.5))
    label = page.locator('[data-part="bound"] text.on', has_text="off the scale").text_content() or ""
    assert label.startswith("\N{DOWNWARDS ARROW} ELBO \N{MINUS SIGN}")
    assert page.locator('[data-part="bound"] circle.here').count() == 0


def test_the_mouse_moves_the_point_and_a_tap_places_it(page: Page, show: Show) -> None:
    show(page, explorable_html("em_ascent"))
    picture, dot = page.locator('[data-part="map"]').bounding_box(), page.locator("[data-handle] .here").bounding_box()
    assert picture is not None
    assert dot is not None
    unit = (picture["width"] - 26) / (2 * em_ascent.VIEW * math.sqrt(5))
    x, y = dot["x"] + dot["width"] / 2 + 3, dot["y"] + dot["height"] / 2 - 2  # taken off its centre: it must not jump
    page.mouse.move(x, y)
    page.mouse.down()
    assert place(page) == pytest.approx((2.4, 0.5))
    page.mouse.move(x - unit, y - unit / 2, steps=3)
    assert place(page) == pytest.approx((1.4, 1.0), abs=1e-6)
    page.mouse.move(x + 9 * unit, y + 9 * unit)
    assert place(page) == pytest.approx((3.1305, -3.1305), abs=1e-4)  # held at the corner of the map
    page.mouse.up()
    page.mouse.move(picture["x"] + 100, picture["y"] + 100)
    assert place(page)[0] == pytest.approx(3.1305, abs=1e-4)  # and let go
    page.mouse.click(picture["x"] + 26 + (picture["width"] - 26) / 2, picture["y"] + 24 + (picture["width"] - 26) / 4)
    assert place(page) == pytest.approx((0, 3.1305 / 2), abs=0.02)


def test_a_finger_moves_the_point_both_ways(browser: Browser, show: Show) -> None:
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 700}, offline=True)
    page = context.new_page()
    show(page, explorable_html("em_ascent") + "<p style='height: 2000px'>")
    dot = page.locator("[data-handle] .here").bounding_box()
    assert dot is not None
    x, y = dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2
    session = context.new_cdp_session(page)
    for kind, dy in [("touchStart", 0), ("touchMove", -20), ("touchMove", -40), ("touchMove", -60), ("touchEnd", None)]:
        points = [] if dy is None else [{"x": x, "y": y + dy}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    u, w = place(page)
    scrolled = page.evaluate("scrollY")
    context.close()
    assert u == pytest.approx(2.4, abs=0.01)
    assert w > 1.2
    assert scrolled == 0


def test_the_keyboard_moves_the_point(page: Page, show: Show) -> None:
    show(page, explorable_html("em_ascent"))
    page.focus("[data-handle]")
    step = em_ascent.VIEW * math.sqrt(5) / 60
    for key, du, dw in [
        ("ArrowLeft", -1, 0),
        ("ArrowRight", 1, 0),
        ("ArrowUp", 0, 1),
        ("ArrowDown", 0, -1),
        ("PageUp", 0, 5),
    ]:
        u, w = place(page)
        page.keyboard.press(key)
        assert place(page) == pytest.approx((u + du * step, w + dw * step), abs=1e-12)
    handle = page.locator("[data-handle]")
    assert "ELBO" in (handle.get_attribute("aria-valuetext") or "")
    assert float(handle.get_attribute("aria-valuenow") or "nan") == pytest.approx(place(page)[1], abs=1e-3)


def test_paths_are_kept_for_comparison_and_wiped(page: Page, show: Show) -> None:
    show(page, explorable_html("em_ascent"))
    paths = {kind: page.locator(f'[data-part="path"] .{kind}') for kind in ("e", "m", "g", "past")}
    for do in "emem":
        page.click(f'[data-do="{do}"]')
    assert [paths[kind].count() for kind in paths] == [2, 2, 0, 0]
    page.click('[data-do="reset"]')
    assert place(page) == (2.4, 0.5)
    page.click('[data-do="g"]')
    assert [paths[kind].count() for kind in paths] == [0, 0, 1, 4]
    page.click('[data-do="reset"]')
    page.click('[data-do="reset"]')
    assert [paths[kind].count() for kind in paths] == [0, 0, 0, 0]


def test_the_noise_slider_moves_the_tops(page: Page, show: Show) -> None:
    show(page, explorable_html("em_ascent"))
    slide(page, s2=4.0)
    s2 = float(page.locator("figure").get_attribute("data-s2") or "nan")
    assert s2 == pytest.approx(4, abs=0.03)
    u, w = place(page)
    assert numbers(page) == pytest.approx(oracle(DEFAULTS | {"s2": s2}, u, w), rel=1e-10)
    page.locator('[data-slider="s2"]').press("End")  # more noise than data: one top, at zero
    assert "w = 0.000" in (page.text_content('[data-part="told"]') or "")
    page.click('[data-do="reset"]')
    assert page.locator("figure").get_attribute("data-s2") == "1"


def test_motion_is_shown_unless_the_reader_asked_for_none(page: Page, show: Show) -> None:
    page.emulate_media(reduced_motion="no-preference")
    show(page, explorable_html("em_ascent"))
    # In one breath with the click, however slow the machine: still on its way.
    click = "f => { f.querySelector('[data-do=\"e\"]').click(); return +f.dataset.u }"
    assert page.locator("figure.explorable").evaluate(click) > 0.5
    page.click('[data-do="m"]')  # a second step starts where the first one ends
    page.wait_for_function("document.querySelector('figure').dataset.w === '1.25'")
    assert place(page)[0] == 0.5


def test_the_still_picture_says_the_first_numbers() -> None:
    expected = oracle(DEFAULTS, 2.4, 0.5)
    picture = ElementTree.fromstring(still_picture(explorable_html("em_ascent")))
    words = [node.text for node in picture.iter(f"{{{SVG}}}text")]
    minus = "\N{MINUS SIGN}"
    assert words[-1] == (
        f"ELBO {minus}{-expected['elbo']:.3f} + KL {expected['kl']:.3f} "
        f"= log p(x; w) {minus}{-expected['evidence']:.3f} nats per datum"
    )
    assert "off the scale" in still_picture(explorable_html("em_ascent", u=2.5, w=-2.5))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sigma": 1.0}, "em_ascent: expected settings among m2, s2, u, w, rate, found 'sigma'"),
        ({"w": float("nan")}, "w: expected a finite number of size at most 1e6, found nan"),
        ({"u": "1"}, "u: expected a finite number of size at most 1e6, found '1'"),
        ({"m2": True}, "m2: expected a finite number of size at most 1e6, found True"),
        ({"m2": -1.0}, "m2: expected a mean square in [0.01, 100], found -1"),
        ({"s2": 0.0}, "s2: expected a noise variance in [0.5, 6] for m2=5, found 0"),
        ({"m2": 1.0, "s2": 1.3}, "s2: expected a noise variance in [0.1, 1.2] for m2=1, found 1.3"),
        ({"w": 4.0}, "w: expected a weight in [-3.1305, 3.1305], found 4"),
        ({"rate": 0.0}, "rate: expected a step size in [0.001, 10], found 0"),
    ],
)
def test_a_setting_it_cannot_show_gets_one_clear_line(config: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        explorable_html("em_ascent", **config)
