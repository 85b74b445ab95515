"""The figure of chapter 3: estimates against autograd, exact spreads against quadrature, and what is out of view."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from playwright.sync_api import Page
from scipy import stats
from torch.distributions import Normal

from tests.explorables.test_promises import SVG, still_picture
from vae_lib.explorables import explorable_html, gradient_cloud

Show = Callable[[Page, str], None]
K = -1.3  # f(z) = (z - K)²: only the distance d = mu - K may matter
CLOUDS = ("score", "path")
BASELINES = ("none", "mean", "best")


def by_autograd(eps: np.ndarray, d: float, baseline: str = "none") -> dict[str, np.ndarray]:
    """One gradient (∂mu, ∂sigma) per draw and estimator, shape (2, *eps.shape), by torch from the definitions."""
    mu = torch.full(eps.shape, d + K, dtype=torch.float64, requires_grad=True)
    sigma = torch.ones(eps.shape, dtype=torch.float64, requires_grad=True)
    z = mu + sigma * torch.from_numpy(eps)
    path = torch.autograd.grad(((z - K) ** 2).sum(), (mu, sigma))
    z = z.detach()
    score = torch.autograd.grad(Normal(mu, sigma).log_prob(z).sum(), (mu, sigma))
    f = (z - K) ** 2
    if baseline == "none":
        constants = (0.0, 0.0)
    else:
        nodes, weights = np.polynomial.hermite_e.hermegauss(16)
        fs, total = (d + nodes) ** 2, math.sqrt(2 * math.pi)
        squares = (nodes**2, (nodes**2 - 1) ** 2)
        mean = fs @ weights / total
        best = tuple((fs * s) @ weights / (s @ weights) for s in squares)
        constants = (mean, mean) if baseline == "mean" else best
    weighted = [(f - c) * s for c, s in zip(constants, score, strict=True)]
    return {"score": torch.stack(weighted).numpy(), "path": torch.stack(path).numpy()}


def exact_std(d: float, baseline: str) -> dict[str, np.ndarray]:
    """Of one sample, by Gauss-Hermite, which is exact for these polynomials."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    weights = weights / math.sqrt(2 * math.pi)
    result = {}
    for who, g in by_autograd(nodes, d, baseline).items():
        assert g @ weights == pytest.approx([2 * d, 2], abs=1e-9)  # each estimator is unbiased
        result[who] = np.sqrt(g**2 @ weights - (g @ weights) ** 2)
    return result


def shown(page: Page, name: str) -> float:
    return float(page.get_attribute(f'[data-quantity="{name}"]', "data-value") or "nan")


def setup(page: Page, samples: int, d: float, baseline: str) -> None:
    page.locator('[data-slider="samples"]').fill(str(samples.bit_length() - 1))
    page.locator('[data-slider="d"]').fill(repr(d))
    page.check(f'[data-choice="{baseline}"]')
    found = page.locator("figure").evaluate("f => [+f.dataset.samples, +f.dataset.d, f.dataset.baseline]")
    assert found == [samples, d, baseline]


def pixels(page: Page, panel: str, who: str) -> np.ndarray:
    d = page.locator(f'[data-part="{panel}"] .marks.{who}').get_attribute("d") or ""
    return np.array(re.findall(r"M(-?[\d.]+) (-?[\d.]+)h0", d), dtype=float)


def window(panel: str, samples: int, d: float) -> tuple[np.ndarray, float]:
    """Centre and half width of a panel's axes."""
    if panel == "wide":
        return np.array([0.0, gradient_cloud.LIFT]), gradient_cloud.WIDE
    return np.array([2 * d, 2.0]), gradient_cloud.NEAR * float(exact_std(d, "none")["path"][1]) / math.sqrt(samples)


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_numbers_are_those_of_quadrature_and_autograd(page: Page, show: Show, baseline: str) -> None:
    show(page, explorable_html("gradient_cloud"))
    for samples, d in [(1, 0.0), (1, 3.0), (8, 3.0), (64, -4.0), (1024, 1.5), (1024, -0.3)]:
        setup(page, samples, d, baseline)
        exact = exact_std(d, baseline)
        estimates = by_autograd(gradient_cloud.noise(2, samples), d, baseline)
        for j, name in enumerate(("mu", "sigma")):
            for who in CLOUDS:
                assert shown(page, f"{who}-{name}") == pytest.approx(exact[who][j] / math.sqrt(samples), rel=1e-10)
                measured = estimates[who][j].mean(0).std(ddof=1)
                assert shown(page, f"{who}-{name}-seen") == pytest.approx(measured, rel=1e-9)
            worth = (exact["score"][j] / exact["path"][j]) ** 2
            assert shown(page, f"worth-{name}") == pytest.approx(worth, rel=1e-10)


def test_the_table_of_the_chapter(page: Page, show: Show) -> None:
    show(page, explorable_html("gradient_cloud"))
    for d in (0.0, 1.0, 2.5):
        table = {
            "none": (d**4 + 14 * d**2 + 15, 2 * d**4 + 60 * d**2 + 74),
            "mean": (8 * d**2 + 10, 40 * d**2 + 56),
            "best": (8 * d**2 + 6, 40 * d**2 + 24),
        }
        for baseline, (mu, sigma) in table.items():
            setup(page, 1, d, baseline)
            assert (shown(page, "score-mu"), shown(page, "score-sigma")) == pytest.approx((mu**0.5, sigma**0.5))
            assert shown(page, "path-mu") == pytest.approx(2)
            assert shown(page, "path-sigma") == pytest.approx((4 * d**2 + 8) ** 0.5)


def test_python_draws_the_same_estimates() -> None:
    eps = gradient_cloud.noise(2, 8)
    expected = by_autograd(eps, 3.0)
    assert gradient_cloud.score_function(eps, 3.0) == pytest.approx(expected["score"].mean(1), rel=1e-12, abs=1e-12)
    assert gradient_cloud.pathwise(eps, 3.0) == pytest.approx(expected["path"].mean(1), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("width", [900, 390])
def test_each_mark_stands_at_its_estimate_and_the_rest_is_counted(page: Page, show: Show, width: int) -> None:
    """To the tenth of a pixel that a path keeps; marks within one of an edge may be counted or drawn."""
    page.set_viewport_size({"width": width, "height": 900})
    show(page, explorable_html("gradient_cloud"))
    for samples, d, baseline in [(1, 4.0, "none"), (8, 3.0, "none"), (8, 3.0, "best"), (256, -2.0, "mean")]:
        setup(page, samples, d, baseline)
        estimates = by_autograd(gradient_cloud.noise(2, samples), d, baseline)
        for panel, who in itertools.product(("wide", "near"), CLOUDS):
            centre, half = window(panel, samples, d)
            side, height = page.locator(f'[data-part="{panel}"]').evaluate(
                "n => [n.viewBox.baseVal.width, n.viewBox.baseVal.height]"
            )
            side, height = side - 30, height - 24 - 38
            at = (estimates[who].mean(1).T - centre) / half
            inside = np.abs(at).max(1) <= 1
            expected = np.array([30 + side / 2, 24 + height / 2]) + at[inside] * np.array([side, -height]) / 2
            found = pixels(page, panel, who)
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() < 0.051
            node = page.locator(f'[data-part="{panel}"]')
            assert int(node.get_attribute(f"data-{who}-outside") or "-1") == (~inside).sum()
            labels = node.locator(f"tspan.{who}-text").all_text_contents()
            assert sum(int(re.sub(r"\D", "", label)) for label in labels) == (~inside).sum()


def test_the_score_cloud_leaves_the_frame_that_holds_the_pathwise_cloud(page: Page, show: Show) -> None:
    show(page, explorable_html("gradient_cloud"))
    near = page.locator('[data-part="near"]')
    assert int(near.get_attribute("data-score-outside") or "-1") > 60
    assert int(near.get_attribute("data-path-outside") or "-1") < 10
    label = near.get_attribute("aria-label") or ""
    assert f"Outside: {near.get_attribute('data-score-outside')} of 200 score-function" in label


def test_the_frame_lies_where_the_second_picture_is_and_never_leaves_the_first(page: Page, show: Show) -> None:
    show(page, explorable_html("gradient_cloud"))
    for samples, d in [(1, 4.0), (1, -4.0), (1, 0.0), (16, 1.0)]:
        setup(page, samples, d, "none")
        (a, b), near = window("near", samples, d)
        side = page.locator('[data-part="wide"]').evaluate("n => n.viewBox.baseVal.width") - 30
        unit = side / (2 * gradient_cloud.WIDE)
        x, y, w, h = page.locator(".frame").evaluate("n => ['x', 'y', 'width', 'height'].map(k => n[k].baseVal.value)")
        assert (w, h) == pytest.approx((2 * near * unit, 2 * near * unit), abs=1e-3)
        corner = (
            30 + (a - near + gradient_cloud.WIDE) * unit,
            24 + (gradient_cloud.LIFT + gradient_cloud.WIDE - b - near) * unit,
        )
        assert (x, y) == pytest.approx(corner, abs=1e-3)
        assert x > 30
        assert x + w < 30 + side
        assert y + h < 24 + side


def test_a_cloud_shrinks_with_the_root_of_the_samples(page: Page, show: Show) -> None:
    """From 1 sample to 1024 by a factor of 32; each measured spread of 200 marks is off by several per cent."""
    show(page, explorable_html("gradient_cloud"))
    setup(page, 1, 1.0, "best")
    before = [shown(page, name) for name in ("score-mu", "path-mu", "path-mu-seen")]
    page.locator('[data-slider="samples"]').press("End")
    after = [shown(page, name) for name in ("score-mu", "path-mu", "path-mu-seen")]
    ratio = np.divide(before, after)
    assert ratio[:2] == pytest.approx(32, rel=1e-12)
    assert ratio[2] == pytest.approx(32, rel=0.35)


def test_the_noise_is_standard_normal_and_streams_differ() -> None:
    eps = gradient_cloud.noise(2, 1024)
    n = eps.size
    assert stats.kstest(eps.ravel(), "norm").pvalue > 1e-3
    # Five standard errors of each moment and of the correlation of neighbours.
    assert abs(eps.mean()) < 5 / math.sqrt(n)
    assert abs(eps.var() - 1) < 5 * math.sqrt(2 / n)
    for neighbour in (eps[1:] * eps[:-1], eps[:, 1:] * eps[:, :-1], eps * gradient_cloud.noise(3, 1024)):
        assert abs(neighbour.mean()) < 5 / math.sqrt(neighbour.size)
    assert np.unique(eps).size > 0.9999 * n
    assert np.array_equal(gradient_cloud.noise(2, 8), eps[:8])  # more samples replace none


def test_new_draws_and_reset(page: Page, show: Show) -> None:
    show(page, explorable_html("gradient_cloud"))
    first = shown(page, "score-mu-seen")
    page.click('[data-do="draw"]')
    expected = by_autograd(gradient_cloud.noise(3, 8), 3.0)["score"][0].mean(0).std(ddof=1)
    assert shown(page, "score-mu-seen") == pytest.approx(expected, rel=1e-9)
    assert shown(page, "score-mu") == pytest.approx(math.sqrt(222 / 8))
    setup(page, 64, -1.0, "mean")
    page.click('[data-do="reset"]')
    assert shown(page, "score-mu-seen") == first
    assert page.is_checked('[data-choice="none"]')
    assert page.locator("figure").evaluate("f => [f.dataset.samples, f.dataset.d, f.dataset.seed]") == ["8", "3", "2"]


def test_the_keyboard_moves_every_control_and_the_result_is_spoken(page: Page, show: Show) -> None:
    show(page, explorable_html("gradient_cloud"))
    page.focus('[data-slider="samples"]')
    page.keyboard.press("ArrowRight")
    page.focus('[data-slider="d"]')
    page.keyboard.press("ArrowLeft")
    page.focus('[data-choice="none"]')
    page.keyboard.press("ArrowDown")
    found = page.locator("figure").evaluate("f => [f.dataset.samples, f.dataset.d, f.dataset.baseline]")
    assert found == ["16", "2.9", "mean"]
    assert page.get_attribute('[data-slider="samples"]', "aria-valuetext") == "16"
    page.wait_for_function("document.querySelector('[aria-live]').textContent.startsWith('S 16, d 2.9. One pathwise')")


def test_copies_keep_their_own_baseline(page: Page, show: Show) -> None:
    show(page, explorable_html("gradient_cloud") * 2)
    page.locator('[data-choice="best"]').nth(1).check()
    assert page.locator("figure").evaluate_all("all => all.map(f => f.dataset.baseline)") == ["none", "best"]
    assert page.locator('[data-choice="none"]').first.is_checked()


def still_marks(svg: ElementTree.Element) -> dict[str, np.ndarray]:
    """Pixels (x, y) of each mark in a still panel 300 pixels wide, by colour."""
    found = {}
    for node in svg.iter(f"{{{SVG}}}path"):
        steps = re.findall(r"m(-?\d+) ?(-?\d+)h0", node.attrib["d"])
        if steps:
            found[node.attrib["stroke"]] = np.array(steps, dtype=float).cumsum(0) / 2
    return found


def test_the_picture_before_the_script_is_the_picture_after(page: Page, show: Show) -> None:
    """The same marks in the same places of both panels, to the half pixel and the tenth that the two paths keep."""
    html = explorable_html("gradient_cloud")
    show(page, html)
    picture = ElementTree.fromstring(still_picture(html))
    panels = [node for node in picture.iter(f"{{{SVG}}}svg") if node.get("viewBox") == "0 0 600 600"]
    for name, still in zip(("wide", "near"), panels, strict=True):
        side = page.locator(f'[data-part="{name}"]').evaluate("n => n.viewBox.baseVal.width") - 30
        for who, marks in zip(CLOUDS, still_marks(still).values(), strict=True):
            live = (pixels(page, name, who) - np.array([30, 24])) * 300 / side
            assert live.shape == marks.shape
            assert np.abs(live - marks).max() < 0.25 + 0.06
    texts = "".join("".join(node.itertext()) for node in picture.iter(f"{{{SVG}}}text"))
    outside = [page.get_attribute('[data-part="near"]', f"data-{who}-outside") for who in CLOUDS]
    assert f"outside: {outside[0]} and {outside[1]}" in texts
    assert "exact gradient (6, 2)" in texts


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sigma": 1.0}, "gradient_cloud: expected settings among d, samples, seed, found 'sigma'"),
        ({"d": float("inf")}, "d: expected a finite number of size below 2**32, found inf"),
        ({"d": "1"}, "d: expected a finite number of size below 2**32, found '1'"),
        ({"seed": True}, "seed: expected a finite number of size below 2**32, found True"),
        ({"d": 4.5}, "d: expected a number in [-4, 4], found 4.5"),
        ({"samples": 3}, "samples: expected a power of two from 1 to 1024, found 3"),
        ({"samples": 0}, "samples: expected a power of two from 1 to 1024, found 0"),
        ({"seed": 1.5}, "seed: expected an integer from 0 to 2**32 - 1, found 1.5"),
        ({"seed": -1}, "seed: expected an integer from 0 to 2**32 - 1, found -1"),
    ],
)
def test_a_setting_it_cannot_show_gets_one_clear_line(config: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        explorable_html("gradient_cloud", **config)
