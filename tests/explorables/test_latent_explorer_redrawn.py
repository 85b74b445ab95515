"""The latent explorer without the images: the model redraws them from their codes, and the figure says so."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Page

from tests.explorables.latents import (
    ASSET,
    NAME,
    REDRAWN,
    SMALL,
    WALK,
    Show,
    asset_of,
    by_layers,
    levels,
    made_up,
    stored,
)
from tests.explorables.test_promises import still_picture
from vae_lib.explorables import explorable_html, latent_explorer
from vae_lib.explorables.latent_asset import pictures_of

ALONE = asset_of(SMALL, "decoded")
WORDS = "as the model redraws"


def redrawn(asset: dict[str, Any], n: int, step: int = 0) -> torch.Tensor:
    """What the decoder makes of a code, by PyTorch, in grey levels."""
    code = torch.tensor(asset["decoders"][step]["means"][n], dtype=torch.float64) / 1000
    exact = 255.0 * by_layers(asset, step)(code) + 0.5
    assert float((exact - exact.round()).abs().min()) > 1e-9
    return exact.floor().long()


def check_pictures(page: Page, asset: dict[str, Any], step: int = 0) -> None:
    near = (page.get_attribute("figure", "data-near") or "").split()
    assert len(near) == 5
    for i, n in enumerate(near):
        assert levels(page, f"[data-go] >> nth={i} >> canvas").tolist() == redrawn(asset, int(n), step).tolist()


def test_nothing_of_the_images_is_kept_but_their_codes() -> None:
    assert ALONE == {**ASSET, "bits": 0, "pictures": ""}
    record = stored("explorer-mnist-2")
    assert set(record["asset"]) == set(ASSET)
    assert set(record["asset"]["decoders"][0]) == set(ASSET["decoders"][0])
    assert (record["asset"]["bits"], record["asset"]["pictures"]) == (0, "")
    assert len(record["asset"]["labels"]) == 300
    assert set(record["asset"]["labels"]) == set(range(10))


def test_the_model_redraws_each_image_from_its_code(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=ALONE))
    check_pictures(page, ALONE)
    page.click('[data-do="draw"]')
    check_pictures(page, ALONE)
    third = levels(page, "[data-go] >> nth=2 >> canvas")
    page.locator("[data-go]").nth(2).click()
    assert torch.equal(levels(page), third)  # at its code the decoded image is the redrawn one
    check_pictures(page, ALONE)


def test_every_beta_redraws_in_its_own_hand(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=REDRAWN, image=8))
    for step in (0, 1, 2, 0):
        page.locator('[data-slider="step"]').fill(str(step))
        check_pictures(page, REDRAWN, step)


def test_an_image_that_stays_the_nearest_is_redrawn_by_the_next_beta(page: Page, show: Show) -> None:
    same = {**REDRAWN, "decoders": [{**d, "means": REDRAWN["decoders"][0]["means"]} for d in REDRAWN["decoders"]]}
    show(page, explorable_html(NAME, asset=same))
    near = page.get_attribute("figure", "data-near")
    page.locator('[data-slider="step"]').fill("1")
    assert page.get_attribute("figure", "data-near") == near
    check_pictures(page, same, 1)


def test_mnist_is_redrawn(page: Page, show: Show) -> None:
    asset = stored("explorer-mnist-2")["asset"]
    show(page, explorable_html(NAME, asset=asset))
    check_pictures(page, asset)
    page.click('[data-do="draw"]')
    check_pictures(page, asset)


@pytest.mark.parametrize(("step", "beta"), [(0, 0.0), (1, 0.5), (2, 4.0)])
def test_the_still_picture_shows_the_redrawn_images(step: int, beta: float) -> None:
    pictures = torch.stack([redrawn(REDRAWN, n, step) for n in range(40)]).numpy()
    assert np.array_equal(pictures_of(REDRAWN, beta), pictures)
    as_data = {**REDRAWN, "bits": 8, "pictures": base64.b64encode(pictures.astype(np.uint8).tobytes()).decode()}
    still = still_picture(explorable_html(NAME, asset=REDRAWN, beta=beta))
    assert still == still_picture(explorable_html(NAME, asset=as_data, beta=beta))
    assert still != still_picture(explorable_html(NAME, asset=WALK, beta=beta))
    codes = torch.tensor(REDRAWN["decoders"][step]["means"], dtype=torch.float64)
    near = codes.square().sum(1).argsort(stable=True)[:5]  # of the origin, where the figure begins
    assert re.findall(r'y="372" text-anchor="middle">(\d)<', still) == [str(REDRAWN["labels"][n]) for n in near]


def spoken(page: Page, asset: dict[str, Any]) -> list[str]:
    """All that the figure says about the small images: heading, label, caption, and what is read aloud."""
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('[aria-live]').textContent !== ''")
    return [
        page.locator(".head").nth(1).inner_text(),
        page.locator("[data-go]").first.get_attribute("aria-label") or "",
        page.locator("figcaption").inner_text(),
        page.locator("[aria-live]").text_content() or "",
    ]


def test_it_says_that_the_model_redraws_them(page: Page, show: Show) -> None:
    html = explorable_html(NAME, asset=ALONE)
    alt = re.findall('alt="(.*?)"', html)[0]
    assert alt.endswith("the training images whose codes lie nearest, as the model redraws them.")
    show(page, html)
    head, label, caption, aloud = spoken(page, ALONE)
    assert head == "nearest training images, as the model redraws them"
    assert re.match(r"Training image \d+, as the model redraws it, class \d, distance", label)
    assert "They are shown as the model redraws them, each decoded from its code" in caption
    assert aloud.endswith(". Shown as the model redraws them.")


def test_it_does_not_say_so_of_the_images_themselves(page: Page, show: Show) -> None:
    html = explorable_html(NAME, asset=ASSET)
    assert WORDS not in re.findall('alt="(.*?)"', html)[0]
    show(page, html)
    assert not [words for words in spoken(page, ASSET) if WORDS in words or "Shown" in words]


def test_pictures_are_of_the_data_or_decoded() -> None:
    vae, x, labels = made_up(SMALL)
    with pytest.raises(ValueError, match=r"^pictures: expected 'data' or 'decoded', found 'none'$"):
        latent_explorer.asset(vae, x, labels, image_shape=(5, 4), pictures="none")  # type: ignore[arg-type]


def test_a_walk_has_pictures_of_one_kind() -> None:
    measured = {beta: {"rate": 1.0, "distortion": 2.0} for beta in (0.0, 1.0)}
    with pytest.raises(ValueError, match=r"^assets: expected the same images for each beta, found others for 1$"):
        latent_explorer.walk({0.0: ASSET, 1.0: ALONE}, measured)


@pytest.mark.parametrize("changes", [{"bits": 8}, {"pictures": ASSET["pictures"]}])
def test_an_asset_that_lost_its_pictures_is_not_redrawn(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^asset: expected a whole one, found parts that do not fit together$"):
        explorable_html(NAME, asset={**ALONE, **changes})
