"""The figure of chapter 8: expected bounds against double integrals and draws, weights against SciPy, every line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from playwright.sync_api import Page
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from tests.explorables.test_promises import SVG, still_picture
from vae_lib.explorables import explorable_html, importance_bound
from vae_lib.explorables.importance_bound import COUNTS, Config

Show = Callable[[Page, str], None]
X, S = 1.5, 1.0
# shift and width of q, at the ends of both sliders too
PLACES = [(0.0, 1.0), (1.2, 1.0), (1.2, 0.6), (-3.0, 2.0), (3.0, 0.4), (0.0, 2.0), (0.0, 0.4), (-1.0, 0.75)]


def posterior(x: float = X, s: float = S) -> tuple[float, float]:
    """Mean and standard deviation, by completing the square."""
    return x / (1 + s**2), s / math.sqrt(1 + s**2)


def log_weights(z: np.ndarray, shift: float, width: float, x: float = X, s: float = S) -> np.ndarray:
    """From the definition: log p(x | z) + log p(z) - log q(z)."""
    mean, std = posterior(x, s)
    q = norm(mean + shift * std, width * std)
    result: np.ndarray = norm(z, s).logpdf(x) + norm.logpdf(z) - q.logpdf(z)
    return result


def log_evidence(x: float = X, s: float = S) -> float:
    return float(norm(0, math.sqrt(1 + s**2)).logpdf(x))


def bound_of_two(shift: float, width: float) -> float:
    """A double integral over z, on a grid."""
    mean, std = posterior()
    u = np.linspace(min(-9.0, shift - 9 * width), max(9.0, shift + 9 * width), 3001)
    z = mean + std * u
    mass = norm(mean + shift * std, width * std).pdf(z) * std * (u[1] - u[0])
    log_w = log_weights(z, shift, width)
    return float(mass @ np.logaddexp(log_w[:, None], log_w) @ mass) - math.log(2)


def double(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def setup(page: Page, count: int, shift: float, width: float) -> None:
    page.locator('[data-slider="draws"]').fill(str(COUNTS.index(count)))
    page.locator('[data-slider="shift"]').fill(repr(shift))
    page.locator('[data-slider="width"]').fill(repr(width))
    found = page.locator("figure").evaluate("f => [+f.dataset.draws, +f.dataset.shift, +f.dataset.width]")
    assert found == [count, shift, width]


def shown(page: Page, name: str) -> float:
    return float(page.get_attribute(f'[data-quantity="{name}"]', "data-value") or "nan")


def points(page: Page, selector: str) -> np.ndarray:
    d = page.locator(selector).get_attribute("d") or ""
    return np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", d), dtype=float)


def test_one_and_two_draws_are_exact(page: Page, show: Show) -> None:
    """One draw: the KL in closed form. Two: a double integral."""
    show(page, explorable_html("importance_bound"))
    mean, std = posterior()
    for shift, width in PLACES:
        setup(page, 1, shift, width)
        kl = kl_divergence(
            Normal(double(mean + shift * std), double(width * std)),
            Normal(double(mean), double(std)),
        )
        assert shown(page, "gap") == pytest.approx(float(kl), rel=1e-9, abs=1e-10)
        setup(page, 2, shift, width)
        assert shown(page, "bound") == pytest.approx(bound_of_two(shift, width), rel=1e-9)


def test_many_draws_agree_with_draws(page: Page, show: Show) -> None:
    show(page, explorable_html("importance_bound"))
    mean, std = posterior()
    noise = np.random.default_rng(8).standard_normal((4000, 300))
    for shift, width in PLACES[1:]:
        log_w = log_weights(mean + std * (shift + width * noise), shift, width)
        for count in (10, 300):
            setup(page, count, shift, width)
            values = logsumexp(log_w.reshape(-1, count), axis=1) - math.log(count)
            error = values.std() / math.sqrt(values.size)
            assert error < 0.02
            assert abs(shown(page, "bound") - values.mean()) < 5 * error


def test_the_numbers_add_up_and_python_has_the_same(page: Page, show: Show) -> None:
    for x, s in [(X, S), (-2.0, 0.3)]:
        show(page, explorable_html("importance_bound", x=x, s=s))
        for shift, width in PLACES:
            for count in (1, 7, 1000):
                setup(page, count, shift, width)
                gap = float(importance_bound.gaps(shift, width, [count])[0])
                assert shown(page, "gap") == pytest.approx(max(0.0, gap), rel=1e-9, abs=1e-12)
                assert shown(page, "evidence") == pytest.approx(log_evidence(x, s), rel=1e-12)
                assert shown(page, "bound") + shown(page, "gap") == pytest.approx(log_evidence(x, s), rel=1e-12)
                assert shown(page, "bits") == pytest.approx(shown(page, "gap") / math.log(2), rel=1e-12)


def test_the_gap_follows_its_law_where_there_is_one(page: Page, show: Show) -> None:
    """By quadrature the variance; at K = 1000 the next term of the gap is of the relative size 1 / K."""
    show(page, explorable_html("importance_bound"))
    for shift, width in PLACES:
        setup(page, 1000, shift, width)
        law = page.locator('[data-part="law"]')
        if width <= math.sqrt(0.5):
            assert importance_bound.variance(shift, width) == math.inf
            assert law.text_content() == "Var[w] is infinite: no 1/K law"
            assert page.locator("path.law:not(.legend *)").count() == 0
            continue
        excess = quad(
            lambda u, d=shift, r=width: math.exp(2 * norm.logpdf(u) - norm.logpdf(u, d, r)), -40, 40, limit=500
        )[0]
        assert importance_bound.variance(shift, width) == pytest.approx(excess - 1, rel=1e-7, abs=1e-7)
        value = float(law.get_attribute("data-value") or "nan")
        assert value == pytest.approx((excess - 1) / 2000, rel=1e-7, abs=1e-10)
        if excess < 100:
            assert shown(page, "gap") == pytest.approx(value, rel=0.02, abs=1e-12)


def test_the_bound_rises_with_k_and_stays_below_the_evidence(page: Page, show: Show) -> None:
    show(page, explorable_html("importance_bound", width=0.5))
    page.focus('[data-slider="draws"]')
    page.keyboard.press("Home")
    bounds = [shown(page, "bound")]
    for _ in COUNTS[1:]:
        page.keyboard.press("ArrowRight")
        bounds.append(shown(page, "bound"))
    assert page.get_attribute("figure", "data-draws") == "1000"
    assert bounds == sorted(bounds)
    assert len(set(bounds)) == len(COUNTS)
    assert bounds[-1] < log_evidence()


def test_at_the_posterior_nothing_is_missing(page: Page, show: Show) -> None:
    show(page, explorable_html("importance_bound", shift=0, draws=20))
    assert shown(page, "gap") < 1e-12
    assert shown(page, "effective") == pytest.approx(20, rel=1e-12)
    assert shown(page, "largest") == pytest.approx(1 / 20, rel=1e-12)


def test_the_draws_and_their_weights_are_those_of_scipy(page: Page, show: Show) -> None:
    show(page, explorable_html("importance_bound"))
    mean, std = posterior()
    for count, shift, width in [(1, 1.2, 1.0), (10, 1.2, 1.0), (50, -3.0, 2.0), (1000, 1.0, 0.5)]:
        setup(page, count, shift, width)
        u = importance_bound.draws(Config(shift=shift, width=width), count)
        log_w = log_weights(mean + std * u, shift, width)
        share = np.exp(log_w - logsumexp(log_w))
        assert importance_bound.shares(Config(shift=shift, width=width), count) == pytest.approx(share, rel=1e-9)
        assert shown(page, "effective") == pytest.approx(1 / (share**2).sum(), rel=1e-9)
        assert shown(page, "largest") == pytest.approx(share.max(), rel=1e-9)
        # A bar for each share of two pixels or more, the largest first, and one haze for the rest.
        bars = page.locator("rect.share").evaluate_all(
            "all => all.map(n => [n.x.baseVal.value, n.width.baseVal.value])"
        )
        width_of_all = page.locator('[data-part="weights"]').evaluate("n => n.viewBox.baseVal.width")
        seen = np.sort(share)[::-1] * width_of_all
        seen = seen[seen >= 2]
        assert [bar[1] for bar in bars] == pytest.approx(list(seen), rel=1e-4)
        ends = np.concatenate([[0], np.cumsum(seen)])
        assert [bar[0] for bar in bars] == pytest.approx(list(ends[:-1]), abs=0.01)
        rest = page.locator("rect.rest").evaluate("n => n.width.baseVal.value")
        assert rest == pytest.approx(width_of_all - ends[-1], abs=0.01)


@pytest.mark.parametrize("width", [900, 390])
def test_every_line_stands_where_its_numbers_say(page: Page, show: Show, width: int) -> None:
    """To the tenth of a pixel that a path keeps; the curve, the law, the running bound of the draws, the mark."""
    page.set_viewport_size({"width": width, "height": 900})
    show(page, explorable_html("importance_bound"))
    mean, std = posterior()
    ks = 10 ** (np.arange(37) / 12)
    for count, shift, r in [(10, 1.2, 1.0), (200, -2.0, 1.5)]:
        setup(page, count, shift, r)
        w, h = page.locator('[data-part="bound"]').evaluate("n => [n.viewBox.baseVal.width, n.viewBox.baseVal.height]")
        right, floor = w - 34, h - 38
        gaps = importance_bound.gaps(shift, r, ks)
        deep = max(1.15 * gaps[0], 0.25)

        def down(g: np.ndarray, deep: float = deep, floor: float = floor) -> np.ndarray:
            return 24 + (0.2 * deep + g) / (1.2 * deep) * (floor - 24)

        across = 34 + np.log10(ks) / 3 * (right - 34)
        curve = points(page, '[data-part="bound"] path.q')
        assert curve == pytest.approx(np.column_stack([across, down(gaps)]), abs=0.051)
        law = points(page, '[data-part="bound"] path.law')
        straight = down(importance_bound.variance(shift, r) / (2 * ks))
        assert law == pytest.approx(np.column_stack([across, straight]), abs=0.051)
        u = importance_bound.draws(Config(shift=shift, width=r), 1000)
        log_w = log_weights(mean + std * u, shift, r)
        own = log_evidence() - (np.logaddexp.accumulate(log_w) - np.log(np.arange(1, 1001)))
        run = points(page, '[data-part="bound"] path.one')
        assert run[:, 1] == pytest.approx(np.clip(down(own), -1e3, 1e4), abs=0.051)
        dot = page.locator(".here").evaluate("n => [n.cx.baseVal.value, n.cy.baseVal.value]")
        here = float(importance_bound.gaps(shift, r, [count])[0])
        assert dot == pytest.approx([34 + math.log10(count) / 3 * (right - 34), float(down(np.array(here)))], abs=0.01)


def test_on_logarithmic_axes_the_law_is_a_straight_line(page: Page, show: Show) -> None:
    show(page, explorable_html("importance_bound"))
    page.check('[data-choice="gap"]')
    assert page.get_attribute("figure", "data-view") == "gap"
    law, curve = points(page, '[data-part="bound"] path.law'), points(page, '[data-part="bound"] path.q')
    height = page.locator('[data-part="bound"]').evaluate("n => n.viewBox.baseVal.height") - 38 - 24
    decade = (law[-1, 0] - law[0, 0]) / 3
    slope = np.diff(law[:, 1]) / np.diff(law[:, 0]) * decade / (height / 6)
    assert slope == pytest.approx(1, abs=0.03)  # downwards on a screen
    assert abs(curve[-1, 1] - law[-1, 1]) < 1 < abs(curve[0, 1] - law[0, 1])
    gaps = importance_bound.gaps(1.2, 1.0, 10 ** (np.arange(37) / 12))
    assert curve[:, 1] == pytest.approx(24 + (1 - (np.log10(gaps) + 5) / 6) * height, abs=0.051)
    assert page.locator("path.one:not(.legend *)").count() == 0
    assert page.locator(".legend .plain").first.is_hidden()
    assert "gap against K" in (page.get_attribute('[data-part="bound"]', "aria-label") or "")
    # Without a gap there is nothing to draw, and the mark waits at the floor.
    setup(page, 10, 0.0, 1.0)
    assert page.locator(".here").evaluate("n => n.cy.baseVal.value") == pytest.approx(24 + height, abs=0.01)


def test_a_width_that_is_too_small_is_told(page: Page, show: Show) -> None:
    show(page, explorable_html("importance_bound", width=0.7))
    assert page.locator("text=no 1/K law").count() == 2
    page.locator('[data-slider="width"]').fill("0.75")
    assert page.locator("text=no 1/K law").count() == 0


def test_new_draws_and_reset(page: Page, show: Show) -> None:
    show(page, explorable_html("importance_bound"))
    effective, gap = shown(page, "effective"), shown(page, "gap")
    page.click('[data-do="draw"]')
    share = importance_bound.shares(Config(seed=5), 10)
    assert shown(page, "effective") == pytest.approx(1 / (share**2).sum(), rel=1e-9)
    assert shown(page, "gap") == gap  # an expectation: no draw moves it
    setup(page, 100, -1.0, 0.5)
    page.check('[data-choice="gap"]')
    page.click('[data-do="reset"]')
    assert (shown(page, "effective"), shown(page, "gap")) == (effective, gap)
    found = page.locator("figure").evaluate("f => [f.dataset.draws, f.dataset.shift, f.dataset.seed, f.dataset.view]")
    assert found == ["10", "1.2", "4", "bound"]


def test_the_keyboard_moves_every_control_and_the_result_is_spoken(page: Page, show: Show) -> None:
    show(page, explorable_html("importance_bound"))
    for name, key in (("draws", "ArrowRight"), ("shift", "ArrowLeft"), ("width", "ArrowRight")):
        page.focus(f'[data-slider="{name}"]')
        page.keyboard.press(key)
    page.focus('[data-choice="bound"]')
    page.keyboard.press("ArrowDown")
    found = page.locator("figure").evaluate("f => [f.dataset.draws, f.dataset.shift, f.dataset.width, f.dataset.view]")
    assert found == ["15", "1.15", "1.05", "gap"]
    assert page.get_attribute('[data-slider="draws"]', "aria-valuetext") == "15"
    page.wait_for_function(
        "document.querySelector('[aria-live]').textContent.startsWith('K 15, shift 1.15, width 1.05. bound')"
    )


def test_copies_keep_their_own_view(page: Page, show: Show) -> None:
    show(page, explorable_html("importance_bound") * 2)
    page.locator('[data-choice="gap"]').nth(1).check()
    assert page.locator("figure").evaluate_all("all => all.map(f => f.dataset.view)") == ["bound", "gap"]
    assert page.locator('[data-choice="bound"]').first.is_checked()


@pytest.mark.parametrize("config", [{}, {"width": 0.5, "draws": 100}, {"shift": 0.0}])
def test_the_picture_before_the_script_says_what_the_script_says(
    page: Page, show: Show, config: dict[str, float]
) -> None:
    html = explorable_html("importance_bound", **config)
    show(page, html)
    picture = ElementTree.fromstring(still_picture(html))
    words = "".join("".join(node.itertext()) for node in picture.iter(f"{{{SVG}}}text"))
    minus = "\N{MINUS SIGN}"
    assert f"bound {minus}{-shown(page, 'bound'):.3f} + gap {shown(page, 'gap'):.3f} = log p(x)" in words
    assert f"effective draws {shown(page, 'effective'):.1f}" in words
    curves = [node.attrib["d"] for node in picture.iter(f"{{{SVG}}}path") if node.get("stroke") == "#0072b2"]
    numbers = np.array(re.findall(r"-?\d+", curves[1].replace("l", " ").replace("M", "")), dtype=float).reshape(-1, 2)
    live = points(page, '[data-part="bound"] path.q')
    w, h = page.locator('[data-part="bound"]').evaluate("n => [n.viewBox.baseVal.width, n.viewBox.baseVal.height]")
    still = numbers.cumsum(0) / 3 / 300
    as_drawn = (live - [34, 24]) / [w - 68, h - 62]
    # The same curve: the still picture keeps a fifth above log p(x) at the top of its 300 pixels, the live one a sixth.
    assert still[:, 0] == pytest.approx(as_drawn[:, 0], abs=0.002)
    assert (still[:, 1] - 0.2) / 0.8 == pytest.approx((as_drawn[:, 1] * 1.2 - 0.2), abs=0.003)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"d": 1.0}, "importance_bound: expected settings among x, s, shift, width, draws, seed, found 'd'"),
        ({"x": float("nan")}, "x: expected a finite number of size below 2**32, found nan"),
        ({"x": "1"}, "x: expected a finite number of size below 2**32, found '1'"),
        ({"seed": True}, "seed: expected a finite number of size below 2**32, found True"),
        ({"x": 30}, "x: expected a number in [-20, 20], found 30"),
        ({"s": 0.0}, "s: expected a standard deviation in [0.05, 20], found 0"),
        ({"shift": 3.5}, "shift: expected a number in [-3, 3], found 3.5"),
        ({"width": 0.3}, "width: expected a number in [0.4, 2], found 0.3"),
        ({"draws": 6}, f"draws: expected one of {', '.join(map(str, COUNTS))}, found 6"),
        ({"seed": 1.5}, "seed: expected an integer from 0 to 2**32 - 1, found 1.5"),
        ({"seed": -1}, "seed: expected an integer from 0 to 2**32 - 1, found -1"),
    ],
)
def test_a_setting_it_cannot_show_gets_one_clear_line(config: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        explorable_html("importance_bound", **config)


def test_the_caption_states_the_model() -> None:
    html = explorable_html("importance_bound", x=-0.5, s=0.25)
    caption = html[html.index("<figcaption>") : html.index("</figcaption>")]
    assert "x | z ~ N(z, 0.25²), and x = \N{MINUS SIGN}0.5 was observed" in caption
