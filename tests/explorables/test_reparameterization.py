"""The figure of chapter 4: closed forms against quadrature, samples against autograd, and every way to move it."""

from __future__ import annotations

import base64
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from scipy.integrate import quad
from scipy.stats import norm

from vae_lib.explorables import explorable_html
from vae_lib.explorables import reparameterization as figure

FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run"
).split()
HEAD = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
SVG = "http://www.w3.org/2000/svg"
NAME = "reparameterization"
CURVES, WRT = ("square", "cosine", "step"), ("mu", "sigma")
# mu, sigma, lift: the opening, both ends of every range, and places between
PLACES = [(0.0, 1.0, 0.0), (0.45, 0.2, -0.5), (-2.5, 1.4, 10.0), (2.5, 0.7, -10.0), (1.3, 0.55, 2.37)]
PIXEL = 0.11  # the figure rounds to a tenth of a pixel


def curve_and_slope(c: figure.Config) -> tuple[Callable[[float], float], Callable[[float], float]]:
    if c.curve == "square":
        return lambda z: (z - c.k) ** 2 + c.lift, lambda z: 2 * (z - c.k)
    if c.curve == "cosine":
        return lambda z: np.cos(c.c * z) + c.lift, lambda z: -c.c * np.sin(c.c * z)
    return lambda z: norm.cdf(z, 0.5, c.w) + c.lift, lambda z: norm.pdf(z, 0.5, c.w)


def oracle(c: figure.Config) -> dict[str, float]:
    """Both estimators' mean and variance by adaptive Gauss-Kronrod over z, straight from their definitions."""
    f, slope = curve_and_slope(c)

    def log_q_gradient(z: float) -> float:
        return (z - c.mu) / c.sigma**2 if c.wrt == "mu" else ((z - c.mu) ** 2 - c.sigma**2) / c.sigma**3

    estimators = {
        "pathwise": lambda z: slope(z) * (1 if c.wrt == "mu" else (z - c.mu) / c.sigma),
        "score": lambda z: f(z) * log_q_gradient(z),
    }
    cuts = np.union1d(c.mu + c.sigma * np.linspace(-12, 12, 25), 0.5 + c.w * np.array([-6, -3, 0, 3, 6]))

    def average(g: Callable[[float], float]) -> float:
        def weighted(z: float) -> float:
            return g(z) * math.exp(-0.5 * ((z - c.mu) / c.sigma) ** 2) / (c.sigma * math.sqrt(2 * math.pi))

        pieces = pairwise(cuts)
        return math.fsum(quad(weighted, a, b, epsabs=1e-12, epsrel=1e-12, limit=200)[0] for a, b in pieces)

    found = {}
    for name, g in estimators.items():
        found[f"{name} mean"] = mean = average(g)
        found[name] = average(lambda z, g=g, mean=mean: (g(z) - mean) ** 2)  # type: ignore[misc]
    return found


def torch_samples(c: figure.Config) -> dict[str, np.ndarray]:
    """Each sample's gradient by autograd: of f(mu + sigma ε), and of log q at a detached z, times f."""
    eps = torch.tensor(figure.EPS, dtype=torch.float64)
    phi = {name: torch.full_like(eps, getattr(c, name)).requires_grad_() for name in WRT}
    z = phi["mu"] + phi["sigma"] * eps
    f = {
        "square": lambda z: (z - c.k) ** 2,
        "cosine": lambda z: torch.cos(c.c * z),
        "step": lambda z: torch.special.ndtr((z - 0.5) / c.w),
    }[c.curve]
    (path,) = torch.autograd.grad((f(z) + c.lift).sum(), phi[c.wrt], retain_graph=True)
    log_q = torch.distributions.Normal(phi["mu"], phi["sigma"]).log_prob(z.detach())
    (score,) = torch.autograd.grad(log_q.sum(), phi[c.wrt])
    return {"pathwise": path.numpy(), "score": ((f(z) + c.lift).detach() * score).numpy()}


# ---- before any browser opens it ----


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("wrt", WRT)
def test_closed_forms_are_those_of_quadrature(curve: str, wrt: str) -> None:
    """One mean for both estimators, two variances; for steep and flat shapes of the curves too."""
    shapes: list[dict[str, float]] = [{}, {"k": -1.7, "c": 0.5, "w": 0.05}, {"k": 3.1, "c": 8.0, "w": 2.0}]
    for (mu, sigma, lift), shape in itertools.product(PLACES, shapes):
        c = figure.Config(curve=curve, wrt=wrt, mu=mu, sigma=sigma, lift=lift, **shape)  # type: ignore[arg-type]
        expected, found = oracle(c), figure.exact(c)
        size = max(1.0, expected["score"], expected["pathwise"])  # a variance is a difference of numbers of this size
        assert found.mean == pytest.approx(expected["pathwise mean"], rel=1e-10, abs=1e-10), c
        assert found.mean == pytest.approx(expected["score mean"], rel=1e-10, abs=1e-10 * size), c
        assert found.pathwise == pytest.approx(expected["pathwise"], rel=1e-10, abs=1e-11 * size), c
        assert found.score == pytest.approx(expected["score"], rel=1e-10, abs=1e-11 * size), c


def test_the_published_table_is_met() -> None:
    """Chapter 3's polynomials in d = mu - k at sigma = 1, without a baseline and with the optimal constant."""
    for mu in (-1.0, 0.0, 2.0):
        d2 = (mu - 2) ** 2
        by_mu, by_sigma = (figure.exact(figure.Config(wrt=wrt, mu=mu)) for wrt in WRT)
        assert by_mu == pytest.approx((2 * (mu - 2), 4, d2**2 + 14 * d2 + 15), rel=1e-12)
        assert by_sigma == pytest.approx((2, 4 * d2 + 8, 2 * d2**2 + 60 * d2 + 74), rel=1e-12)
        assert figure.exact(figure.Config(mu=mu, lift=-(d2 + 3))).score == pytest.approx(8 * d2 + 6, rel=1e-12)
        assert figure.exact(figure.Config(wrt="sigma", mu=mu, lift=-(d2 + 5))).score == pytest.approx(
            40 * d2 + 24, rel=1e-12
        )


def test_pathwise_loses_on_the_fast_cosine() -> None:
    """Var 12.5 against 0.5: c²/2 and 1/2, less the square of a mean that is zero, and terms of order exp(-50)."""
    found = figure.exact(figure.Config(curve="cosine"))
    assert found == pytest.approx((0.0, 12.5, 0.5), abs=1e-15)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("wrt", WRT)
def test_samples_are_those_of_autograd(curve: str, wrt: str) -> None:
    for mu, sigma, lift in PLACES:
        c = figure.Config(curve=curve, wrt=wrt, mu=mu, sigma=sigma, lift=lift)
        found, expected = figure.samples(c), torch_samples(c)
        for name in found:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12)


def test_noise_stands_for_slices_of_equal_probability() -> None:
    np.testing.assert_allclose(norm.cdf(figure.EPS), (np.arange(12) + 0.5) / 12, atol=3e-7)


def test_equal_settings_give_equal_text_in_every_process() -> None:
    command = f"import sys; from vae_lib.explorables import explorable_html as e; sys.stdout.write(e('{NAME}'))"
    fresh = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", command], capture_output=True, check=True, encoding="utf-8"
    )
    assert fresh.stdout == explorable_html(NAME)
    assert explorable_html(NAME, mu=1, sigma=np.float64(0.5)) == explorable_html(NAME, sigma=0.5, mu=1.0)
    assert explorable_html(NAME, curve="step") != explorable_html(NAME)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"std": 1.0}, f"{NAME}: expected settings among curve, mode, wrt, mu, sigma, lift, k, c, w, found 'std'"),
        ({"curve": "sine"}, "curve: expected one of square, cosine, step, found 'sine'"),
        ({"curve": 1.0}, "curve: expected one of square, cosine, step, found 1.0"),
        ({"mode": "reinforce"}, "mode: expected one of pathwise, score, found 'reinforce'"),
        ({"wrt": "logvar"}, "wrt: expected one of mu, sigma, found 'logvar'"),
        ({"mu": 2.6}, "mu: expected a number in [-2.5, 2.5], found 2.6"),
        ({"mu": float("nan")}, "mu: expected a number in [-2.5, 2.5], found nan"),
        ({"mu": "0"}, "mu: expected a number in [-2.5, 2.5], found '0'"),
        ({"sigma": 0.0}, "sigma: expected a number in [0.2, 1.4], found 0.0"),
        ({"sigma": True}, "sigma: expected a number in [0.2, 1.4], found True"),
        ({"lift": -11}, "lift: expected a number in [-10, 10], found -11"),
        ({"k": 10**400}, "k: expected a number in [-4, 4], found 1000"),
        ({"c": 20.0}, "c: expected a number in [0.5, 8], found 20.0"),
        ({"w": 0.0}, "w: expected a number in [0.05, 2], found 0.0"),
    ],
)
def test_a_setting_it_cannot_show_gets_one_clear_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)) as caught:
        explorable_html(NAME, **config)
    assert "\n" not in str(caught.value)


def still_picture(html: str) -> str:
    found = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert found is not None
    return base64.b64decode(found[1]).decode()


@pytest.mark.parametrize(("curve", "wrt", "place"), list(itertools.product(CURVES, WRT, PLACES)))
def test_it_asks_nothing_of_the_network_and_stays_small(
    curve: str, wrt: str, place: tuple[float, float, float]
) -> None:
    mu, sigma, lift = place
    html = explorable_html(NAME, curve=curve, wrt=wrt, mode="score", mu=mu, sigma=sigma, lift=lift)
    assert len(html.encode()) < 30_000
    assert set(re.findall(r"""https?://[^\s"'<>)]+""", html + still_picture(html))) == {SVG}
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|\burl\(|\bfetch\(|XMLHttpRequest""", html)
    assert not re.search(r"\{\{\w+\}\}", html)
    ElementTree.fromstring(still_picture(html))


def test_without_scripts_a_picture_of_the_first_frame_stands_there() -> None:
    html = explorable_html(NAME)
    words = [node.text for node in ElementTree.fromstring(still_picture(html)).iter(f"{{{SVG}}}text")]
    minus = "\N{MINUS SIGN}"
    spreads = ["score function", "± 9.33", "pathwise", "± 2.00"]
    assert words == [*spreads, f"gradients, mean {minus}4.000", "f(z)", "q(z)", "ε"]
    assert "alt=" in html
    assert 'alt=""' not in html


# ---- in a real browser ----


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if shutil.which(path) is None:
        pytest.fail(f"no browser: expected Chromium at {path}; install it or set CHROMIUM", pytrace=False)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(params=["mouse"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page 900 pixels wide, or a telephone, without network and without patience for errors."""
    finger: dict[str, Any] = {"has_touch": True, "is_mobile": True, "viewport": {"width": 390, "height": 844}}
    desk: dict[str, Any] = {"viewport": {"width": 900, "height": 1000}}
    context = browser.new_context(offline=True, **(finger if request.param == "finger" else desk))
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("requestfailed", lambda request: errors.append(request.url))
    yield page
    context.close()
    assert errors == []


def show(page: Page, tmp_path: Path, body: str, *, scripts: bool = True) -> None:
    """Open a page with this body, and wait until its first figure is drawn: that takes a frame or two."""
    file = tmp_path / "page.html"
    file.write_text(f"{HEAD}<title>t</title><body>{body}</body></html>", encoding="utf-8")
    page.goto(file.as_uri())
    if scripts and f'data-explorable="{NAME}"' in body:
        page.wait_for_selector("[data-sample]", state="attached")


def state(page: Page) -> figure.Config:
    """What the first figure on the page stands at, on the curves of the defaults."""
    data = page.locator("figure.explorable").first.evaluate("f => ({ ...f.dataset })")
    words = {name: data[name] for name in ("curve", "mode", "wrt")}
    return figure.Config(**words, mu=float(data["mu"]), sigma=float(data["sigma"]), lift=float(data["lift"]))


def numbers(page: Page) -> dict[str, float]:
    return {
        name: float(page.locator(f'[data-quantity="{name}"]').first.get_attribute("data-value") or "nan")
        for name in ("mean", "pathwise", "score")
    }


def drawn(page: Page, name: str) -> list[dict[str, float]]:
    """The twelve dots of an estimator: their values, and where they stand."""
    found: list[dict[str, float]] = page.locator(f'[data-sample="{name}"]').evaluate_all(
        "all => all.map((n) => ({ value: +n.dataset.value, y: n.cy.baseVal.value }))"
    )
    return found


def choose(page: Page, name: str, value: str) -> None:
    page.click(f'[data-choose="{name}"][data-value="{value}"]')
    pressed = page.locator(f'[data-choose="{name}"][aria-pressed="true"]')
    assert pressed.evaluate_all("all => all.map((n) => n.dataset.value)") == [value]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("wrt", WRT)
def test_its_numbers_are_the_exact_ones(page: Page, tmp_path: Path, curve: str, wrt: str) -> None:
    """The three numbers against the closed forms that quadrature proved, the samples against autograd."""
    show(page, tmp_path, explorable_html(NAME))
    choose(page, "curve", curve)
    choose(page, "wrt", wrt)
    for mu, sigma, lift in PLACES:
        for name, value in (("mu", mu), ("sigma", sigma), ("lift", lift)):
            page.locator(f'[data-slider="{name}"]').fill(repr(value))
        c = state(page)
        assert (c.curve, c.wrt) == (curve, wrt)
        assert (c.mu, c.sigma, c.lift) == pytest.approx((mu, sigma, lift), abs=1e-9)  # places on the sliders' grid
        exact, found = figure.exact(c), numbers(page)
        size = max(1.0, exact.score)
        assert found["mean"] == pytest.approx(exact.mean, rel=1e-11, abs=1e-12)
        assert found["pathwise"] ** 2 == pytest.approx(exact.pathwise, rel=1e-11, abs=1e-12 * size)
        assert found["score"] ** 2 == pytest.approx(exact.score, rel=1e-11, abs=1e-12 * size)
        for name, expected in torch_samples(c).items():
            np.testing.assert_allclose([dot["value"] for dot in drawn(page, name)], expected, rtol=1e-11, atol=1e-11)


def test_both_sets_stand_on_one_axis_with_one_mean(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorable_html(NAME, mu=0.4, sigma=0.8))
    dots = drawn(page, "pathwise") + drawn(page, "score")
    assert len(dots) == 24
    values, heights = np.array([dot["value"] for dot in dots]), np.array([dot["y"] for dot in dots])
    per_unit, zero = np.polyfit(values, heights, 1)
    np.testing.assert_allclose(zero + per_unit * values, heights, atol=PIXEL)
    line = page.locator(".mean").get_attribute("d") or ""
    assert float(line.split()[1].split("H")[0]) == pytest.approx(zero + per_unit * numbers(page)["mean"], abs=PIXEL)
    for name, bracket in zip(("score", "pathwise"), page.locator(".spread").all(), strict=True):
        length = bracket.evaluate("n => n.getBBox().height")
        assert length == pytest.approx(-2 * per_unit * numbers(page)[name], abs=2 * PIXEL)


@pytest.mark.parametrize("mode", ["pathwise", "score"])
def test_arrows_and_stems_end_at_the_gradients_with_the_shape_of_their_sign(
    page: Page, tmp_path: Path, mode: str
) -> None:
    show(page, tmp_path, explorable_html(NAME, mode=mode, curve="cosine", wrt="sigma", mu=0.3))
    c = state(page)
    lines = page.locator('[data-part="scene"] path:is(.up, .down)').evaluate_all(
        "all => all.map((n) => [n.getAttribute('class'), n.getAttribute('d')])"
    )
    stem = re.compile(r"M(-?[\d.]+) (-?[\d.]+)V(-?[\d.]+)$")
    found = [(cls, *map(float, match.groups())) for cls, d in lines if (match := stem.match(d))][-12:]
    heights = [dot["y"] for dot in drawn(page, mode)]
    gradients = figure.samples(c)[mode]
    assert [cls for cls, *_ in found] == ["up" if g > 0 else "down" for g in gradients]
    assert [end for *_, end in found] == pytest.approx(heights, abs=1e-4)
    xs = np.array([x for _, x, *_ in found])
    unit = (xs[-1] - xs[0]) / (figure.EPS[-1] - figure.EPS[0])
    np.testing.assert_allclose(xs, xs[0] + unit * (np.array(figure.EPS) - figure.EPS[0]), atol=PIXEL)


@pytest.mark.parametrize("wrt", WRT)
def test_a_small_step_moves_the_points_as_the_parameter_moves_them(page: Page, tmp_path: Path, wrt: str) -> None:
    """dz is the same for all in mu, and goes with ε in sigma; the drawn step is 0.35 sigma."""
    show(page, tmp_path, explorable_html(NAME, wrt=wrt, sigma=0.8))
    unit = page.locator(".q").last.evaluate("n => n.getBBox().width / 10")
    paths = page.locator(".seen").evaluate_all("all => all.slice(0, 12).map(n => n.getAttribute('d'))")
    steps = [float(end) - float(start) for d in paths for start, end in re.findall(r"M(\S+) \S+L(\S+) ", d)]
    moves = np.ones(12) if wrt == "mu" else np.array(figure.EPS)
    np.testing.assert_allclose(steps, 0.35 * 0.8 * unit * moves, atol=PIXEL)


def test_a_constant_changes_only_the_score_function(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorable_html(NAME))
    before, numbers_before = drawn(page, "pathwise"), numbers(page)
    page.locator('[data-slider="lift"]').fill("-7")  # the optimal constant: -(d² + 3)
    after, numbers_after = drawn(page, "pathwise"), numbers(page)
    assert [dot["value"] for dot in after] == [dot["value"] for dot in before]
    assert numbers_after["pathwise"] == numbers_before["pathwise"] == 2
    assert numbers_after["mean"] == numbers_before["mean"] == -4
    assert numbers_before["score"] == pytest.approx(math.sqrt(87))
    assert numbers_after["score"] == pytest.approx(math.sqrt(38))


def test_the_graph_follows_the_mode(page: Page, tmp_path: Path) -> None:
    """Score function: z is a circle and the gradient stops there. Pathwise: z is a box, and ε is the circle."""
    show(page, tmp_path, explorable_html(NAME, mode="score"))
    graph = page.locator('[data-part="graph"]')

    def nodes() -> tuple[int, int, str]:
        words = " ".join(graph.locator("text").all_text_contents())
        return graph.locator("circle.node").count(), graph.locator("path.node").count(), words

    assert nodes()[:2] == (1, 1)
    assert "stop" in nodes()[2]
    assert "ε" not in nodes()[2]
    shaft, bar = (line.get_attribute("d") or "" for line in graph.locator(".back").all())
    assert len(set(re.findall(r"[ML]\S+ (\S+?)(?=L|$)", bar))) == 1, "expected a level bar where the gradient stops"
    assert shaft.endswith(f" {bar.split()[-1]}")
    assert "stops at z" in (graph.get_attribute("aria-label") or "")
    choose(page, "mode", "pathwise")
    assert nodes()[:2] == (1, 2)
    assert "stop" not in nodes()[2]
    assert graph.locator(".back").count() == 4  # two arrows, each with its head
    assert "ε" in nodes()[2]
    assert "through z" in (graph.get_attribute("aria-label") or "")


def test_where_an_estimator_has_no_noise_no_ratio_is_shown(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorable_html(NAME, curve="step", mu=-2.5, sigma=0.2))
    assert page.locator('[data-part="ratio"]').text_content() == "one of the estimators has no noise here"
    page.locator('[data-slider="mu"]').fill("0.5")
    assert "sample is worth" in (page.locator('[data-part="ratio"]').text_content() or "")


@pytest.mark.parametrize("page", ["mouse", "finger"], indirect=True)
def test_handles_are_dragged(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorable_html(NAME))
    scale = page.locator(".q").last.evaluate("n => n.getBBox().width / 10")  # pixels for one unit of z
    phone = page.evaluate("navigator.maxTouchPoints") > 0
    gesture = "n => getComputedStyle(n).touchAction"
    assert page.locator('[data-part="picture"]').evaluate(gesture) == "pan-y pinch-zoom"
    assert page.locator('[data-handle="mu"]').evaluate(gesture) == "none"

    def drag(name: str, units: float) -> None:
        box = page.locator(f'[data-handle="{name}"] .dot').bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        ways = [(x + units * scale / 2, y + 3), (x + units * scale, y)]
        if phone:
            wire = page.context.new_cdp_session(page)

            def touch(kind: str, *points: dict[str, float]) -> None:
                wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

            touch("touchStart", {"x": x, "y": y})
            for there in ways:
                touch("touchMove", {"x": there[0], "y": there[1]})
            touch("touchEnd")
        else:
            page.mouse.move(x, y)
            page.mouse.down()
            for there in ways:
                page.mouse.move(*there)
            page.mouse.up()

    drag("mu", 1.0)
    assert (state(page).mu, state(page).sigma) == pytest.approx((1.0, 1.0), abs=0.05)
    drag("sigma", -0.4)
    assert (state(page).mu, state(page).sigma) == pytest.approx((1.0, 0.6), abs=0.05)
    drag("mu", 9.0)
    assert state(page).mu == 2.5  # held at the end of its range
    if not phone:
        page.mouse.move(10, 10)
        assert state(page).mu == 2.5  # and let go
    page.click('[data-do="reset"]')
    assert state(page) == figure.Config()


@pytest.mark.parametrize("what", ["slider", "handle"])
def test_the_keyboard_moves_q(page: Page, tmp_path: Path, what: str) -> None:
    show(page, tmp_path, explorable_html(NAME))
    page.focus(f'[data-{what}="mu"]')
    page.keyboard.press("ArrowRight")
    assert state(page).mu > 0
    page.keyboard.press("Home")
    assert state(page).mu == -2.5
    page.focus(f'[data-{what}="sigma"]')
    page.keyboard.press("ArrowLeft")
    assert state(page).sigma < 1
    page.keyboard.press("End")
    assert state(page).sigma == pytest.approx(1.4)
    handle = page.locator('[data-handle="sigma"]')
    assert float(handle.get_attribute("aria-valuenow") or "nan") == pytest.approx(1.4)
    page.focus('[data-choose="mode"][data-value="score"]')
    page.keyboard.press("Enter")
    assert state(page).mode == "score"
    page.wait_for_function("document.querySelector('[aria-live]').textContent.includes('score function ±')")


def test_nothing_moves_by_itself(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, explorable_html(NAME))
    choose(page, "mode", "score")
    first = page.locator("figure svg").last.inner_html()
    page.wait_for_timeout(300)
    assert page.locator("figure svg").last.inner_html() == first
    assert page.evaluate("document.getAnimations().length") == 0


def test_copies_on_a_page_live_side_by_side_and_leak_nothing(page: Page, tmp_path: Path) -> None:
    outside = """() => [Object.getOwnPropertyNames(window).sort(),
        [...document.querySelectorAll(".probe")].map(n => [...getComputedStyle(n)].map(k => getComputedStyle(n)[k]))]"""
    probes = '<div style="width:100px"><input class="probe" type="range"><button class="probe">b</button></div>'
    show(page, tmp_path, probes)
    before = page.evaluate(outside)
    copies = explorable_html(NAME) * 2 + explorable_html(NAME, mu=-1.0) + explorable_html("elbo_bars")
    show(page, tmp_path, probes + copies)
    assert page.evaluate(outside) == before
    assert page.locator("figure .controls").count() == 4
    page.locator('[data-slider="mu"]').nth(1).fill("2")
    assert page.locator("figure[data-mu]").evaluate_all("all => all.map(f => +f.dataset.mu)") == [0, 2, -1]
    assert page.evaluate("document.querySelectorAll('[id]').length") == 0  # no ids that could collide


def test_it_starts_in_a_sandboxed_frame_and_when_inserted_later(page: Page, tmp_path: Path) -> None:
    """As Colab shows an output, and as JupyterLab does: markup first, then its scripts made anew."""
    html = explorable_html(NAME)
    quoted = html.replace("&", "&amp;").replace('"', "&quot;")
    show(page, tmp_path, f'<iframe sandbox="allow-scripts" srcdoc="{quoted}"></iframe><div></div>')
    assert page.frame_locator("iframe").locator('[data-quantity="mean"]').get_attribute("data-value")
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
    assert page.locator('[data-quantity="mean"]').get_attribute("data-value")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("mode", ["pathwise", "score"])
def test_axe_finds_nothing(page: Page, tmp_path: Path, theme: str, mode: str) -> None:
    show(page, tmp_path, f"<main><h1>t</h1>{explorable_html(NAME, mode=mode)}</main>")
    page.evaluate("theme => document.documentElement.setAttribute('data-theme', theme)", theme)
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_its_colours_stand_out_from_the_paper(page: Page, tmp_path: Path, theme: str) -> None:
    """WCAG 2.1: text 4.5 to 1 (axe does not look inside pictures), marks 3 to 1."""
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    show(page, tmp_path, explorable_html(NAME, mode="score"))

    def luminance(colour: str) -> float:
        channels = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def style(selector: str, name: str) -> str:
        found = page.locator(f"figure {selector}").first
        return str(found.evaluate("(node, name) => getComputedStyle(node)[name]", name))

    paper = luminance(page.locator("figure").evaluate("f => getComputedStyle(f).backgroundColor"))
    for selector, name, least in [
        ("svg .tick", "fill", 4.5),
        ("svg .name", "fill", 4.5),
        ("svg .stop", "fill", 4.5),
        (".up", "stroke", 3),
        (".down", "stroke", 3),
        (".q", "stroke", 3),
        (".back", "stroke", 3),
        (".other", "fill", 3),
        (".curve", "stroke", 3),
    ]:
        pair = sorted([paper, luminance(style(selector, name))])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, selector


def test_without_scripts_the_still_picture_is_seen(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    show(page, tmp_path, explorable_html(NAME), scripts=False)
    box = page.locator("figure > img").bounding_box()
    context.close()
    assert box is not None
    assert box["height"] > 200


@pytest.mark.parametrize("width", [360, 390, 700])
@pytest.mark.parametrize("mode", ["pathwise", "score"])
def test_it_fits_its_column(page: Page, tmp_path: Path, width: int, mode: str) -> None:
    """At the places that need most room, too."""
    page.set_viewport_size({"width": width, "height": 900})
    for curve, (mu, sigma, lift) in itertools.product(CURVES, PLACES):
        show(
            page,
            tmp_path,
            explorable_html(NAME, mode=mode, curve=curve, wrt="sigma", mu=mu, sigma=sigma, lift=lift),
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        room = """all => { const box = document.querySelector("figure").getBoundingClientRect();
            return all.map(n => [n.getBoundingClientRect(), n.outerHTML]).filter(([b]) => b.width > 0
              && (b.left < box.left || b.right > box.right || b.bottom > box.bottom)).map(([, html]) => html); }"""
        assert page.locator("figure *:not(.aloud)").evaluate_all(room) == []
