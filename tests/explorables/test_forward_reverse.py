"""The figure of chapter 9: its numbers against SciPy's integrals and the library's diffusion, and every control."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from playwright.sync_api import Page
from scipy.stats import norm

from tests.explorables.test_promises import SVG, still_picture
from vae_lib.explorables import explorable_html, forward_reverse
from vae_lib.explorables.forward_reverse import LEVELS, Config, log_snr
from vae_lib.models import GaussianDiffusion, linear_log_snr_schedule

Show = Callable[[Page, str], None]
W = 0.2
M = math.sqrt(1 - W**2)
# levels, t and z, at the ends of the sliders too
PLACES = [(8, 4, 0.2), (8, 2, -3.0), (8, 8, 3.0), (2, 2, 0.0), (24, 11, 1.0), (128, 60, -0.4), (128, 2, 0.95)]


def scales(level: float) -> tuple[float, float]:
    return math.sqrt(1 / (1 + math.exp(-level))), math.sqrt(1 / (1 + math.exp(level)))


X = np.linspace(-5.0, 5.0, 4001)  # sums over even grids: smooth integrands that vanish at the ends
PRIOR = 0.5 * (norm(-M, W).pdf(X) + norm(M, W).pdf(X)) * (X[1] - X[0])


def best_guess(z: float | np.ndarray, level: float) -> np.ndarray:
    """By Bayes' rule, as two integrals over x."""
    alpha, sigma = scales(level)
    weight = PRIOR * np.exp(-0.5 * ((np.asarray(z)[..., None] - alpha * X) / sigma) ** 2)
    return np.asarray((weight * X).sum(-1) / weight.sum(-1))


def setup(page: Page, levels: int, t: int, z: float) -> None:
    page.locator('[data-slider="levels"]').fill(str(LEVELS.index(levels)))
    page.locator('[data-slider="t"]').fill(str(t))
    page.locator('[data-slider="z"]').fill(repr(z))
    found = page.locator("figure").evaluate("f => [+f.dataset.levels, +f.dataset.t, +f.dataset.z]")
    assert found == [levels, t, z]


def shown(page: Page, name: str) -> float:
    return float(page.get_attribute(f'[data-quantity="{name}"]', "data-value") or "nan")


def test_python_and_the_page_have_the_same_numbers(page: Page, show: Show) -> None:
    for width in (W, 0.05, 0.6):
        show(page, explorable_html("forward_reverse", width=width))
        for levels, t, z in PLACES:
            setup(page, levels, t, z)
            steps = forward_reverse.steps(width, levels)
            for name, value in zip(("cost", "news", "lost"), steps[t - 2], strict=True):
                assert shown(page, name) == pytest.approx(value, rel=1e-9, abs=1e-10)
            assert shown(page, "total") == pytest.approx(sum(step.lost for step in steps), rel=1e-9)
            above, level = log_snr(levels)[t - 2 : t]
            here = forward_reverse.kl_at(forward_reverse.back(z, above, level, width))
            assert shown(page, "here") == pytest.approx(here, rel=1e-9, abs=1e-10)
            assert shown(page, "snr") == pytest.approx(math.exp(level), rel=1e-12)


@pytest.mark.parametrize("level", [2.5, 0.3, -3.0])
def test_guess_error_and_information_by_integrals(level: float) -> None:
    alpha, sigma = scales(level)
    std = math.hypot(alpha * W, sigma)

    z = np.linspace(-7, 7, 1401)
    density = 0.5 * (norm(-alpha * M, std).pdf(z) + norm(alpha * M, std).pdf(z))
    error, info = forward_reverse.level_of(level, W)
    dz = z[1] - z[0]
    assert error == pytest.approx(1 - (density * best_guess(z, level) ** 2).sum() * dz, rel=1e-8)
    entropy = -(density * np.log(density)).sum() * dz
    assert info == pytest.approx(entropy - 0.5 * math.log(2 * math.pi * math.e * sigma**2), abs=1e-9)
    # The slope of the information is half the least squared error (Guo, Shamai and Verdú, 2005).
    h = 1e-4
    more, less = (forward_reverse.level_of(level + sign * h, W)[1] for sign in (1, -1))
    assert (more - less) / (2 * h) == pytest.approx(0.5 * math.exp(level) * error, rel=1e-6)


@pytest.mark.parametrize(("levels", "t", "z"), PLACES[:5])
def test_reversal_and_link(levels: int, t: int, z: float) -> None:
    """The reversal is q(z_t | z_s) q(z_s), normalised; the link is the library's."""
    above, level = log_snr(levels)[t - 2 : t]
    found = forward_reverse.back(z, above, level, W)
    (alpha_s, sigma_s), (alpha_t, _) = scales(above), scales(level)
    up = alpha_t * math.sqrt(math.exp(-level) - math.exp(-above))
    spread = math.hypot(alpha_s * W, sigma_s)

    def joint(v: np.ndarray) -> np.ndarray:
        humps = norm(-alpha_s * M, spread).pdf(v) + norm(alpha_s * M, spread).pdf(v)
        return np.asarray(humps * norm(alpha_t / alpha_s * v, up).pdf(z))

    grid = np.linspace(-7, 7, 20001)
    mass = joint(grid).sum() * (grid[1] - grid[0])
    at = np.linspace(-2, 2, 9)
    std = math.sqrt(found.var)
    mixture = sum(share * norm(mean, std).pdf(at) for share, mean in zip(found.shares, found.means, strict=True))
    np.testing.assert_allclose(mixture, joint(at) / mass, rtol=1e-6, atol=1e-9)
    schedule = linear_log_snr_schedule(levels, log_snr_max=6.0, log_snr_min=-6.0, dtype=torch.float64)

    def denoiser(z_t: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return torch.full_like(z_t, float(best_guess(z, level)))

    model = GaussianDiffusion(denoiser, schedule, data_dim=1, predicts="x")
    link = model.reverse(torch.tensor([[z]], dtype=torch.float64), t)
    assert found.link_mean == pytest.approx(float(link.mu), abs=1e-7)
    assert found.link_var == pytest.approx(float(link.logvar.exp()), rel=1e-10)
    inside = np.linspace(found.means.min() - 9 * std, found.means.max() + 9 * std, 20001)
    q = sum(share * norm(mean, std).pdf(inside) for share, mean in zip(found.shares, found.means, strict=True))
    log_p = norm(found.link_mean, math.sqrt(found.link_var)).logpdf(inside)
    kl = (q * (np.log(q) - log_p)).sum() * (inside[1] - inside[0])
    assert forward_reverse.kl_at(found) == pytest.approx(kl, rel=1e-9, abs=1e-12)


def test_what_is_lost_is_the_average_divergence() -> None:
    for levels, t in ((8, 4), (8, 2), (24, 11)):
        above, level = log_snr(levels)[t - 2 : t]
        z = np.linspace(-7, 7, 701)
        q = np.exp(forward_reverse.log_density(z, level, W)) * (z[1] - z[0])
        kls = [forward_reverse.kl_at(forward_reverse.back(float(v), above, level, W)) for v in z]
        assert forward_reverse.steps(W, levels)[t - 2].lost == pytest.approx(float(q @ kls), rel=1e-7)


def test_more_levels_lose_less_and_the_place_is_kept(page: Page, show: Show) -> None:
    show(page, explorable_html("forward_reverse"))
    setup(page, 16, 8, 0.0)
    before, snr = shown(page, "total"), shown(page, "snr")
    page.locator('[data-slider="levels"]').fill(str(LEVELS.index(128)))
    assert shown(page, "total") < before / 6
    assert abs(math.log(shown(page, "snr") / snr)) < 12 / 127
    assert page.locator(".bar").count() == 127
    page.locator('[data-slider="levels"]').fill("0")
    assert page.locator("figure").evaluate("f => [f.dataset.levels, f.dataset.t]") == ["2", "2"]
    assert page.locator("text=all 1 step lose").count() == 1


def test_the_bars_are_the_losses(page: Page, show: Show) -> None:
    show(page, explorable_html("forward_reverse", levels=24, t=12))
    heights = page.locator("rect.bar").evaluate_all("all => all.map(n => [n.x.baseVal.value, n.height.baseVal.value])")
    lost = [step.lost for step in forward_reverse.steps(W, 24)]
    by_place = [height for _, height in sorted(heights, reverse=True)]  # the data on the right
    assert np.array(by_place) / max(by_place) == pytest.approx(np.array(lost) / max(lost), abs=1e-3)
    this, all_ = page.locator("rect.this").evaluate("n => n.x.baseVal.value"), sorted(x for x, _ in heights)
    assert this == all_[24 - 12]
    part, rest = (page.locator(f"rect.{name}").evaluate("n => n.width.baseVal.value") for name in ("part", "rest"))
    assert part / rest == pytest.approx(shown(page, "lost") / shown(page, "cost"), rel=1e-6)


def test_the_keyboard_moves_every_control_and_the_result_is_spoken(page: Page, show: Show) -> None:
    show(page, explorable_html("forward_reverse"))
    for name, key in (("t", "ArrowRight"), ("z", "ArrowLeft")):
        page.focus(f'[data-slider="{name}"]')
        page.keyboard.press(key)
    assert page.locator("figure").evaluate("f => [f.dataset.t, f.dataset.z]") == ["5", "0.15"]
    assert page.get_attribute('[data-slider="t"]', "aria-valuetext") == "5 of 8"
    page.wait_for_function(
        "document.querySelector('[aria-live]').textContent.startsWith('Level 5 of 8, z 0.15. step t = 5')"
    )
    page.click('[data-do="reset"]')
    assert page.locator("figure").evaluate("f => [f.dataset.levels, f.dataset.t, f.dataset.z]") == ["8", "4", "0.2"]


@pytest.mark.parametrize("config", [{}, {"levels": 64, "t": 40, "z": -1.0}, {"width": 0.5}])
def test_the_picture_before_the_script_says_what_the_script_says(
    page: Page, show: Show, config: dict[str, float]
) -> None:
    html = explorable_html("forward_reverse", **config)
    show(page, html)
    picture = ElementTree.fromstring(still_picture(html))
    words = "".join("".join(node.itertext()) for node in picture.iter(f"{{{SVG}}}text"))
    c = Config(**config)
    numbers = "cost {:.4f} = news {:.4f} + lost {:.4f} nats".format(
        *(shown(page, name) for name in ("cost", "news", "lost"))
    )
    assert f"t = {c.t:g} of {c.levels:g}: {numbers}" in words
    assert f"all steps lose {shown(page, 'total'):.4f}" in words


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"s": 1.0}, "forward_reverse: expected settings among width, levels, t, z, found 's'"),
        ({"z": float("nan")}, "z: expected a finite number of size below 2**32, found nan"),
        ({"t": "4"}, "t: expected a finite number of size below 2**32, found '4'"),
        ({"levels": True}, "levels: expected a finite number of size below 2**32, found True"),
        ({"width": 0.7}, "width: expected a standard deviation in [0.05, 0.6], found 0.7"),
        ({"levels": 5}, f"levels: expected one of {', '.join(map(str, LEVELS))}, found 5"),
        ({"t": 1}, "t: expected an integer from 2 to the 8 levels, found 1"),
        ({"t": 9}, "t: expected an integer from 2 to the 8 levels, found 9"),
        ({"t": 2.5}, "t: expected an integer from 2 to the 8 levels, found 2.5"),
        ({"z": -3.1}, "z: expected a number in [-3, 3], found -3.1"),
    ],
)
def test_a_setting_it_cannot_show_gets_one_clear_line(config: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        explorable_html("forward_reverse", **config)


def test_the_caption_states_the_data() -> None:
    html = explorable_html("forward_reverse", width=0.35)
    caption = html[html.index("<figcaption>") : html.index("</figcaption>")]
    assert "two normal humps of standard deviation 0.35" in caption
