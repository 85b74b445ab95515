"""What the latent explorer promises like every figure of the book, what it refuses, and what its runs say."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.explorables.latents import (
    ASSET,
    CONFIGS,
    NAME,
    REDRAWN,
    SMALL,
    WALK,
    Show,
    asset_of,
    by_torch,
    digits,
    made_up,
    same_pixels,
    stored,
)
from tests.explorables.test_promises import SVG, still_picture
from vae_lib import chapter
from vae_lib.data import load_dataset
from vae_lib.explorables import explorable_html, latent_explorer
from vae_lib.models import VAEConfig, build, configuration
from vae_lib.plots.latent_plane import CLASSES_DARK, CLASSES_LIGHT
from vae_lib.rng import make_generator

TEMPLATE = Path(latent_explorer.__file__).with_suffix(".html")

# ---- what every figure of the book promises ------------------------------------------------------------------------

SHOWN: dict[str, dict[str, Any]] = {
    "two": {"asset": ASSET},
    "walk": {"asset": WALK, "beta": 0.5},
    "redrawn": {"asset": REDRAWN, "beta": 4, "image": 3},
    "four": {"asset": asset_of(CONFIGS["levels"]), "up": 4},
}
each = pytest.mark.parametrize("config", SHOWN.values(), ids=SHOWN.keys())


def test_equal_assets_give_equal_text_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from tests.explorables.latents import *; from vae_lib.explorables import explorable_html; "
        "sys.stdout.write(explorable_html(NAME, asset=asset_of(CONFIGS['levels']), up=4))"
    )
    fresh = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code], capture_output=True, check=True, encoding="utf-8"
    )
    assert fresh.stdout == explorable_html(NAME, **SHOWN["four"])
    through_json = json.loads(json.dumps(SHOWN["four"]["asset"]))
    assert explorable_html(NAME, asset=through_json, up=4) == fresh.stdout
    figure: Any = chapter.explorable(NAME, asset=through_json, up=4)
    assert figure._repr_html_() == fresh.stdout


def test_it_is_small() -> None:
    assert len(TEMPLATE.read_bytes()) < 30_000
    assert len(explorable_html(NAME, asset=digits()[1]).encode()) < 120_000
    for name, most in (("explorer-mnist-2", 610_000), ("explorer-betas", 400_000)):
        assert len(explorable_html(NAME, asset=stored(name)["asset"]).encode()) < most


@each
def test_it_asks_nothing_of_the_network(config: dict[str, Any]) -> None:
    html = explorable_html(NAME, **config)
    assert set(re.findall(r"""https?://[^\s"'<>)]+""", html + still_picture(html))) == {SVG}
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|\burl\(|\bfetch\(|XMLHttpRequest""", html)
    assert not re.search(r"\{\{\w+\}\}", html)
    ElementTree.fromstring(still_picture(html))


def test_colours_of_the_classes_are_those_of_the_plots(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=ASSET))
    for theme, colours in (("light", CLASSES_LIGHT), ("dark", CLASSES_DARK)):
        page.evaluate("theme => document.documentElement.setAttribute('data-theme', theme)", theme)
        for which in range(3):
            fill = page.locator(f'[data-class="{which}"]').evaluate("n => getComputedStyle(n).fill")
            assert "#" + "".join(f"{int(v):02x}" for v in re.findall(r"\d+", fill)) == colours[which]


def test_names_of_classes_are_text_and_nothing_else(page: Page, show: Show) -> None:
    vae, x, labels = made_up(SMALL)
    names = ["<b>bold</b>", "a & b", 'it\'s "so"']
    asset = latent_explorer.asset(vae, x, labels, image_shape=(5, 4), class_names=names, title="<i>1 < 2</i>")
    show(page, explorable_html(NAME, asset=asset))
    assert page.locator(".legend span").all_inner_texts() == names
    assert (page.locator("figcaption b").first.text_content() or "").startswith("<i>1 < 2</i>")
    page.locator("[data-go]").nth(1).click()
    assert (page.locator("[data-go] b").first.text_content() or "") in names


@each
def test_without_scripts_the_still_picture_is_seen(browser: Browser, show: Show, config: dict[str, Any]) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    show(page, explorable_html(NAME, **config))
    image = page.locator("figure > img")
    box, alt = image.bounding_box(), image.get_attribute("alt")
    context.close()
    assert box is not None
    assert box["height"] > 200
    assert alt
    assert "nearest" in alt


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", ["marks", "map"])
@each
def test_axe_finds_nothing(page: Page, show: Show, config: dict[str, Any], view: str, theme: str) -> None:
    show(page, f"<main><h1>t</h1>{explorable_html(NAME, **config)}</main>")
    page.evaluate("theme => document.documentElement.setAttribute('data-theme', theme)", theme)
    page.check(f'[data-choice="{view}"]')
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


@pytest.mark.parametrize("width", [390, 700])
@each
def test_it_fits_its_column(page: Page, show: Show, config: dict[str, Any], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    show(page, explorable_html(NAME, **config))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = "all => all.filter(n => !n.closest('svg svg *') && n.getBoundingClientRect().right > innerWidth - 8)"
    assert page.locator("figure *:not(.aloud)").evaluate_all(f"{outside.replace('all =>', 'all => (')}.length)") == 0
    names = ('[data-part="plane"]', '[data-part="decoded"]')
    tops = [page.locator(name).evaluate("n => n.getBoundingClientRect().top") for name in names]
    assert (tops[1] - tops[0] < 100) == (width == 700)
    for box in (node.bounding_box() for node in page.locator("figure :is(button, select, .grip)").all()):
        assert box is not None
        assert min(box["width"], box["height"]) >= 24


def test_copies_on_a_page_live_side_by_side_and_leak_nothing(page: Page, show: Show) -> None:
    outside = """() => [Object.getOwnPropertyNames(window).sort(),
        [...document.querySelectorAll(".probe")].map(n => [...getComputedStyle(n)].map(k => getComputedStyle(n)[k]))]"""
    probes = '<div style="width:100px"><input class="probe" type="range"><button class="probe">b</button></div>'
    show(page, probes)
    before = page.evaluate(outside)
    show(page, probes + explorable_html(NAME, asset=ASSET) * 2 + explorable_html(NAME, asset=WALK, image=3))
    assert page.evaluate(outside) == before
    assert page.locator("figure .panels").count() == 3
    assert page.locator("figure > img").count() == 0
    where = "all => all.map(f => f.dataset.z)"
    first, _, third = page.locator("figure").evaluate_all(where)
    page.locator("[data-handle]").nth(1).focus()
    page.keyboard.press("ArrowUp")
    assert page.locator("figure").evaluate_all(where) == [first, "0 0.1", third]
    assert first != third
    page.locator('[data-choice="map"]').nth(1).check()
    assert page.locator('[data-part="map"]').evaluate_all("all => all.map(n => n.hidden)") == [True, False, True]
    assert page.evaluate("document.querySelectorAll('[id]').length") == 0  # no ids that could collide


def test_it_starts_in_a_sandboxed_frame_and_when_inserted_later(page: Page, show: Show) -> None:
    """As Colab shows an output, and as JupyterLab does: markup first, then its scripts made anew."""
    html = explorable_html(NAME, asset=ASSET)
    quoted = html.replace("&", "&amp;").replace('"', "&quot;")
    show(page, f'<iframe sandbox="allow-scripts" srcdoc="{quoted}"></iframe><div></div>')
    frame = page.frame_locator("iframe")
    frame.locator('[data-do="draw"]').click()
    assert frame.locator("figure").get_attribute("data-z") != "0 0"
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
    assert page.get_attribute("figure", "data-near")
    same_pixels(page, by_torch(made_up(SMALL)[0], 1))


def test_it_is_drawn_once_it_has_a_width(page: Page, show: Show) -> None:
    show(page, f"<details>{explorable_html(NAME, asset=WALK)}</details>")
    page.locator("details").evaluate("n => { n.open = true; }")
    page.wait_for_selector("[data-class]", state="attached")
    assert page.locator("[data-class]").count() == 3
    assert page.locator(".bead").count() == 3


# ---- what it cannot show -------------------------------------------------------------------------------------------

SETTINGS = "latent_explorer: expected settings among asset, across, up, image, beta, found 'sigma'"
APART = "asset: expected a whole one, found parts that do not fit together"
HEADS = "vae: expected a Bernoulli, binomial, discretised logistic or normal likelihood, found CategoricalLikelihood"
OTHERS = "assets: expected the same images for each beta, found others for 1"
SHAPE = "labels: expected shape (40,), one for each image, found (39,)"
CONV = VAEConfig((8, 8), 2, (6,), network="conv", channels=(2, 2))


def broken(**changes: Any) -> dict[str, Any]:
    return {**ASSET, **changes}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"asset": ASSET, "sigma": 1}, SETTINGS),
        ({}, "asset: expected what latent_explorer.asset returns, found 'None'"),
        ({"asset": {"format": "other"}}, "asset: expected what latent_explorer.asset returns, found 'other'"),
        ({"asset": broken(labels=ASSET["labels"][1:])}, APART),
        ({"asset": broken(decoders=[{}])}, "asset: expected a whole one, found it damaged ('sizes')"),
        (
            {"asset": broken(decoders=[ASSET["decoders"][0] | {"sizes": [2, 6, 21]}])},
            "asset: expected a whole one, found it damaged (158 weights for layers of [2, 6, 21])",
        ),
        ({"asset": ASSET, "across": 3}, "across: expected an integer from 1 to 2, found 3"),
        ({"asset": ASSET, "up": 0}, "up: expected an integer from 1 to 2, found 0"),
        ({"asset": ASSET, "up": True}, "up: expected an integer from 1 to 2, found True"),
        ({"asset": ASSET, "across": 2}, "across, up: expected two latents, found 2 twice"),
        ({"asset": ASSET, "image": 41}, "image: expected an integer from 0 to 40, found 41"),
        ({"asset": ASSET, "beta": 1}, "beta: expected one of none, found 1"),
        ({"asset": WALK, "beta": 1}, "beta: expected one of 0, 0.5, 4, found 1"),
    ],
)  # fmt: skip
def test_what_it_cannot_show_gets_one_clear_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        explorable_html(NAME, **config)


def test_a_figure_of_a_megabyte_is_refused() -> None:
    vae, x, labels = made_up(VAEConfig((28, 28), 2, (256,)))
    asset = latent_explorer.asset(vae, x, labels, image_shape=(28, 28))
    advice = "round the weights to float16, with vae.half(), or take fewer images"
    with pytest.raises(
        ValueError, match=r"^asset: expected a figure below 1,000,000 bytes, found 2,2\d\d,\d{3}; " + re.escape(advice)
    ):
        explorable_html(NAME, asset=asset)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vae": "VAE"}, "vae: expected a vae_lib.models.VAE, found str"),
        ({"image_shape": (4, 4)}, "image_shape: expected 20 pixels, as the VAE has, found 4 x 4"),
        ({"vae": VAEConfig((5, 4), 1, (6,))}, "vae: expected 2 to 32 latents, found 1"),
        (
            {"vae": VAEConfig((5, 4), 2, (6,), likelihood="categorical", max_value=3)},
            HEADS,
        ),
        (
            {"vae": CONV, "image_shape": (8, 8), "x": torch.zeros(9, 64), "labels": torch.zeros(9, dtype=torch.int64)},
            "vae: expected a decoder of Linear layers with Tanh or ReLU between them, found OverLeadingAxes-Linear-",
        ),
        ({"x": torch.zeros(40, 21)}, "x: expected shape (N, 20)"),
        ({"x": torch.zeros(4, 20)}, "x: expected 5 to 1000 images, found 4"),
        ({"x": torch.full((40, 20), 1.5)}, "x: expected pixels from 0 to 1, found 1.5 to 1.5"),
        ({"x": torch.full((40, 20), torch.nan)}, "x: expected"),
        ({"labels": torch.zeros(40)}, "labels: expected a tensor of integers, found torch.float32"),
        ({"labels": torch.zeros(39, dtype=torch.int64)}, SHAPE),
        ({"labels": -torch.ones(40, dtype=torch.int64)}, "labels: expected 0 to 0, found -1 to -1"),
        ({"class_names": ["a", "b"]}, "labels: expected 0 to 1, found 0 to 2"),
        ({"class_names": "abcdefghijk"}, "class_names: expected 1 to 10, found 11"),
    ],
)  # fmt: skip
def test_a_vae_it_cannot_show_gets_one_clear_line(changes: dict[str, Any], message: str) -> None:
    vae, x, labels = made_up(SMALL)
    if isinstance(changes.get("vae"), VAEConfig):
        changes = changes | {"vae": build(changes["vae"], generator=make_generator(0))}
    settings: dict[str, Any] = {"vae": vae, "x": x, "labels": labels, "image_shape": (5, 4)} | changes
    with pytest.raises((TypeError, ValueError), match="^" + re.escape(message)) as caught:
        latent_explorer.asset(**settings)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_refused() -> None:
    vae, x, labels = made_up(SMALL)
    with torch.no_grad():
        next(vae.decoder.parameters()).fill_(torch.inf)
    with pytest.raises(ValueError, match="vae: the decoder's weights: expected"):
        latent_explorer.asset(vae, x, labels, image_shape=(5, 4))


MEASURED = {beta: {"rate": 1.0, "distortion": 2.0} for beta in (0.0, 1.0)}


@pytest.mark.parametrize(
    ("assets", "measured", "message"),
    [
        ({0.0: ASSET}, MEASURED, "assets: expected at least two, found 1"),
        ({0.0: ASSET, 1.0: broken(labels=[0] * 40)}, MEASURED, OTHERS),
        ({0.0: WALK, 1.0: ASSET}, MEASURED, "assets: expected one decoder of 2 latents for 0, found others"),
        ({0.0: ASSET, 1.0: ASSET}, {0.0: MEASURED[0.0]}, "measured: expected a rate and a distortion for 1, found {}"),
        ({0.0: ASSET, 1.0: {}}, MEASURED, "asset: expected what latent_explorer.asset returns, found 'None'"),
    ],
)  # fmt: skip
def test_a_walk_it_cannot_show_gets_one_clear_line(assets: Any, measured: Any, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        latent_explorer.walk(assets, measured)


# ---- the stored runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["explorer-mnist-2", "explorer-betas"])
def test_a_record_agrees_with_itself(name: str) -> None:
    record = stored(name)
    for row, decoder in zip(record["results"], record["asset"]["decoders"], strict=True):
        for part in ("train", "test"):
            means = {key: row[part][key]["mean"] for key in ("elbo", "rate", "distortion")}
            assert means["elbo"] == pytest.approx(-means["rate"] - means["distortion"], abs=2e-4)
        assert decoder["dtype"] == "float16"
        if "beta" in decoder:
            assert [decoder[key] for key in ("beta", "rate", "distortion")] == [
                row["beta"], row["test"]["rate"]["mean"], row["test"]["distortion"]["mean"]
            ]  # fmt: skip
    rates = [row["test"]["rate"]["mean"] for row in record["results"]]
    assert rates == sorted(rates, reverse=True)


def test_codes_of_the_stored_digits_are_of_real_images() -> None:
    asset, train = stored("explorer-betas")["asset"], load_dataset("digits").train
    assert train.labels is not None
    assert asset["labels"] == train.labels[: len(asset["labels"])].tolist()
    kept = np.frombuffer(base64.b64decode(asset["pictures"]), np.uint8)
    assert kept.tolist() == np.floor(255 * train.x[:300].double().numpy() / 16 + 0.5).ravel().tolist()
    assert configuration("digits", latent_dim=2).hidden == (64,)
