"""The figure of chapter 7: pixels are those of PyTorch, by mouse, finger and keyboard, and it says what it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

from tests.explorables.latents import (
    ASSET,
    CONFIGS,
    NAME,
    SMALL,
    WALK,
    Decode,
    Show,
    by_layers,
    by_torch,
    digits,
    levels,
    made_up,
    place,
    same_pixels,
    stored,
)
from vae_lib.data import load_dataset
from vae_lib.explorables import explorable_html, latent_explorer

MINUS = "\N{MINUS SIGN}"


# ---- the same pixels as PyTorch ------------------------------------------------------------------------------------


def wander(page: Page) -> Iterator[None]:
    """Go to ten draws of the prior, an image's code, two steps by keys, and the origin."""
    for _ in range(10):
        page.click('[data-do="draw"]')
        yield
    page.locator("[data-go]").nth(3).click()
    yield
    page.locator("[data-handle]").focus()
    for key in ("ArrowLeft", "Shift+ArrowUp", "Home"):
        page.keyboard.press(key)
        yield


def walk_through(page: Page, decode: Decode) -> None:
    seen = {tuple(same_pixels(page, decode).tolist()) for _ in wander(page)}
    assert len(seen) == 14
    assert float(torch.tensor(sorted(seen)).double().std()) > 20  # pictures, not one flat grey


def test_the_small_digits_in_eight_latents_are_those_of_pytorch(page: Page, show: Show) -> None:
    vae, asset = digits()
    show(page, explorable_html(NAME, asset=asset))
    walk_through(page, by_torch(vae, 16))


def test_mnist_in_two_latents_is_that_of_pytorch(page: Page, show: Show) -> None:
    asset = stored("explorer-mnist-2")["asset"]
    assert asset["decoders"][0]["sizes"] == [2, 256, 784]
    show(page, explorable_html(NAME, asset=asset))
    walk_through(page, by_layers(asset))


def test_every_beta_is_that_of_pytorch(page: Page, show: Show) -> None:
    asset = stored("explorer-betas")["asset"]
    show(page, explorable_html(NAME, asset=asset))
    for step, decoder in enumerate(asset["decoders"]):
        page.locator('[data-slider="step"]').fill(str(step))
        assert float(page.get_attribute("figure", "data-beta") or "nan") == decoder["beta"]
        for _ in wander(page):
            same_pixels(page, by_layers(asset, step))


@pytest.mark.parametrize("name", CONFIGS)
def test_any_vae_it_takes_is_that_of_pytorch(page: Page, show: Show, name: str) -> None:
    config, (vae, x, labels) = CONFIGS[name], made_up(CONFIGS[name])
    dtype = (torch.float64, torch.float32, torch.float16)[list(CONFIGS).index(name) % 3]
    vae = vae.to(dtype).double()
    asset = latent_explorer.asset(vae, x, labels, image_shape=config.image_shape)
    assert asset["decoders"][0]["dtype"] == str(dtype).removeprefix("torch.")
    show(page, explorable_html(NAME, asset=asset))
    decode = by_torch(vae, config.max_value)
    for _, draw in zip(range(4), wander(page), strict=False):
        exact = 255.0 * decode(place(page)) + 0.5
        inside = (exact > 0.5 + 1e-9) & (exact < 255.5 - 1e-9)  # a normal's mean is cut, and lies on an edge there
        assert float((exact - exact.round()).abs()[inside].min()) > 1e-9
        assert torch.equal(levels(page), exact.floor().long()), draw
    z = place(page)
    mine = latent_explorer.decode(asset, z[None].numpy())
    assert torch.from_numpy(mine[0]) == pytest.approx(decode(z), abs=1e-13)
    assert latent_explorer.grey_levels(mine)[0].tolist() == levels(page).tolist()


def test_the_vae_is_left_as_it_was() -> None:
    vae, x, labels = made_up(SMALL)
    vae.train().float()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    latent_explorer.asset(vae, x, labels, image_shape=SMALL.image_shape)
    assert vae.training
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())


def test_mnist_has_thirty_frames_a_second(page: Page, show: Show) -> None:
    """Sixty key presses, and all that the figure does after each; the quicker half of them, in a browser that waits."""
    show(page, explorable_html(NAME, asset=stored("explorer-mnist-2")["asset"]))
    milliseconds = page.evaluate(
        """() => {
            const figure = document.querySelector("figure"), grip = document.querySelector("[data-handle]");
            return Array.from({ length: 60 }, (_, i) => {
              const begun = performance.now(), before = figure.dataset.z, key = i % 2 ? "ArrowUp" : "ArrowRight";
              grip.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
              document.querySelector("canvas[role=img]").getContext("2d").getImageData(14, 14, 1, 1);
              return figure.dataset.z === before ? NaN : performance.now() - begun;
            });
        }"""
    )
    # Thirty frames in less than a second; on a busy machine the others have waited for their turn.
    assert sum(sorted(milliseconds)[:30]) < 1000


# ---- where the training images lie ---------------------------------------------------------------------------------


def frame(page: Page) -> tuple[float, float, float, float]:
    """Left, top and side of the plane in its own pixels, and how far its axes go."""
    names = "['x', 'y', 'width'].map(k => n[k].baseVal.value)"
    x, y, side = page.locator('[data-part="scaffold"] > rect').evaluate(f"n => {names}")
    return x, y, side, float(page.get_attribute("figure", "data-far") or "nan")


def pixels_of(page: Page, codes: np.ndarray, across: int = 0, up: int = 1) -> np.ndarray:
    x, y, side, far = frame(page)
    place = np.stack([codes[:, across] + far, far - codes[:, up]], axis=1)
    result: np.ndarray = np.array([x, y]) + place * side / (2 * far)
    return result


def check_marks(page: Page, asset: dict[str, Any], step: int = 0, across: int = 0, up: int = 1) -> None:
    expected = pixels_of(page, np.array(asset["decoders"][step]["means"]) / 1000, across, up)
    for which in range(len(asset["classes"])):
        own = expected[np.array(asset["labels"]) == which]
        drawn = page.locator(f'[data-class="{which}"]').get_attribute("d") or ""
        found = np.array(re.findall(r"M(-?[\d.]+) (-?[\d.]+)m", drawn), dtype=float)
        assert np.abs(found - own).max() < 0.0501


def check_nearest(page: Page, asset: dict[str, Any], step: int = 0) -> None:
    codes = np.array(asset["decoders"][step]["means"]) / 1000
    apart = np.linalg.norm(codes - place(page).numpy(), axis=1)
    order = np.argsort(apart, kind="stable")[:5]
    assert page.get_attribute("figure", "data-near") == " ".join(map(str, order))
    for i, n in enumerate(order):
        node = page.locator("[data-go]").nth(i)
        assert float(node.get_attribute("data-value") or "nan") == pytest.approx(apart[n], rel=1e-12, abs=1e-12)
        name = asset["classes"][asset["labels"][n]]
        assert node.get_attribute("aria-label") == (
            f"Training image {n + 1}, class {name}, distance {apart[n]:.2f}: go to its code"
        )
        assert node.inner_text().split() == [name, f"{apart[n]:.2f}"]


def test_marks_and_nearest_images_are_those_of_the_encoder(page: Page, show: Show) -> None:
    vae, asset = digits()
    train = load_dataset("digits").train
    with torch.no_grad():
        mu = vae.double()(train.x[:300].double()).mu
    assert np.array(asset["decoders"][0]["means"]) / 1000 == pytest.approx(mu.numpy(), abs=0.5001e-3)
    show(page, explorable_html(NAME, asset=asset, across=2, up=5, image=7))
    check_marks(page, asset, across=1, up=4)
    check_nearest(page, asset)
    assert place(page).tolist() == [v / 1000 for v in asset["decoders"][0]["means"][6]]
    page.click('[data-do="draw"]')
    check_nearest(page, asset)
    for i, n in enumerate((page.get_attribute("figure", "data-near") or "").split()):
        picture = levels(page, f"[data-go] >> nth={i} >> canvas")
        assert picture.tolist() == np.floor(255 * train.x[int(n)].double().numpy() / 16 + 0.5).tolist()


def test_pictures_of_many_pixels_have_sixteen_greys(page: Page, show: Show) -> None:
    config = CONFIGS["more than 256 pixels, an odd number"]
    vae, x, labels = made_up(config, count=7)
    show(page, explorable_html(NAME, asset=latent_explorer.asset(vae, x, labels, image_shape=config.image_shape)))
    for i, n in enumerate((page.get_attribute("figure", "data-near") or "").split()):
        expected = 17 * np.floor(15 * x[int(n)].numpy() + 0.5)
        assert levels(page, f"[data-go] >> nth={i} >> canvas").tolist() == expected.tolist()


def test_a_training_image_leads_to_its_code(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=ASSET))
    third = int((page.get_attribute("figure", "data-near") or "").split()[2])
    page.locator("[data-go]").nth(2).click()
    assert place(page).tolist() == [v / 1000 for v in ASSET["decoders"][0]["means"][third]]
    assert (page.get_attribute("figure", "data-near") or "").split()[0] == str(third)
    assert page.locator("[data-go]").first.inner_text().split()[1] == "0.00"
    page.click('[data-do="origin"]')
    assert place(page).tolist() == [0, 0]


def test_draws_of_the_prior_are_normal_and_the_same_for_every_reader(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=ASSET) * 2)
    draw = """() => Array.from({ length: 60 }, () => {
        document.querySelector('[data-do="draw"]').click();
        return document.querySelector("figure").dataset.z.split(" ").map(Number);
    })"""
    found = page.evaluate(draw)
    page.locator('[data-do="draw"]').nth(1).click()
    again = page.locator("figure").nth(1).get_attribute("data-z") or ""
    assert [float(v) for v in again.split()] == found[0]
    values = np.array(found).ravel()
    assert abs(values.mean()) < 5 / np.sqrt(len(values))
    assert abs((values**2).mean() - 1) < 5 * np.sqrt(2 / len(values))


def test_the_plane_of_decoded_images(page: Page, show: Show) -> None:
    vae, asset = digits()
    show(page, explorable_html(NAME, asset=asset, across=3, up=1, image=5))
    assert page.locator('[data-part="map"]').is_hidden()
    page.check('[data-choice="map"]')
    assert page.locator("[data-class]").count() == 0
    far, z = frame(page)[3], place(page)
    cells = levels(page, '[data-part="map"]').reshape(11, 9, 11, 9)[:, :8, :, :8]  # a row of paper between images
    for row, column in [(0, 0), (2, 9), (10, 4)]:
        z[2], z[0] = far * ((2 * column + 1) / 11 - 1), far * (1 - (2 * row + 1) / 11)
        expected = (255 * by_torch(vae, 16)(z) + 0.5).floor().long()
        assert torch.equal(cells[row, :, column].reshape(-1), expected)
    before = levels(page, '[data-part="map"]')
    page.locator('[data-slider="z7"]').fill("2")  # another latent: another map
    assert not torch.equal(levels(page, '[data-part="map"]'), before)


# ---- mouse, finger, keyboard ---------------------------------------------------------------------------------------


def at(page: Page, *z: float) -> tuple[float, float]:
    """Where a point of the plane is on the screen."""
    box = page.locator('[data-part="plane"]').bounding_box()
    assert box is not None
    (x, y), *_ = pixels_of(page, np.array([z]))
    return box["x"] + x, box["y"] + y


def test_the_mouse_looks_and_stays(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=ASSET))
    decode = by_torch(made_up(SMALL)[0], 1)
    resting = same_pixels(page, decode)
    page.mouse.move(*at(page, 1.0, -2.0))
    assert place(page).tolist() == pytest.approx([1.0, -2.0], abs=0.02)
    assert not torch.equal(same_pixels(page, decode), resting)
    check_nearest(page, ASSET)
    page.mouse.move(5, 5)  # outside: back to where the point is
    assert place(page).tolist() == [0, 0]
    assert torch.equal(same_pixels(page, decode), resting)
    page.mouse.move(*at(page, -1.5, 0.5))
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(5, 5)
    assert place(page).tolist() == pytest.approx([-1.5, 0.5], abs=0.02)
    page.mouse.move(*at(page, -1.5, 0.5))
    page.mouse.down()
    page.mouse.move(*at(page, 0.0, 1.0), steps=4)
    assert place(page).tolist() == pytest.approx([0.0, 1.0], abs=0.02)
    page.mouse.move(*at(page, 0.5, 99.0), steps=4)
    assert place(page).tolist() == pytest.approx([0.5, frame(page)[3]], abs=0.02)  # held at the edge
    page.mouse.up()
    page.mouse.move(*at(page, 0.0, -99.0))
    assert place(page).tolist() == pytest.approx([0.5, frame(page)[3]], abs=0.02)  # and let go


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(
        offline=True, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844}, reduced_motion="reduce"
    )
    yield context.new_page()
    context.close()


def drag_finger(page: Page, begin: tuple[float, float], end: tuple[float, float]) -> None:
    session = page.context.new_cdp_session(page)
    for part in range(9):
        x, y = (a + (b - a) * part / 8 for a, b in zip(begin, end, strict=True))
        kind = "touchMove" if part else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_finger_taps_drags_and_may_scroll(phone: Page, show: Show) -> None:
    show(phone, explorable_html(NAME, asset=ASSET) + '<div style="height:2000px"></div>')
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    phone.touchscreen.tap(*at(phone, 1.0, 2.0))
    assert place(phone).tolist() == pytest.approx([1.0, 2.0], abs=0.03)
    drag_finger(phone, at(phone, 1.0, 2.0), at(phone, -1.0, -0.5))  # both ways, and the page stays
    assert place(phone).tolist() == pytest.approx([-1.0, -0.5], abs=0.1)
    assert phone.evaluate("scrollY") == 0
    same_pixels(phone, by_torch(made_up(SMALL)[0], 1))
    before = place(phone).tolist()
    drag_finger(phone, at(phone, 1.5, -1.0), at(phone, 1.5, 2.0))  # beside the point: the page scrolls
    phone.wait_for_function("scrollY > 30")
    assert place(phone).tolist() == before


def test_the_keyboard_moves_the_point(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=ASSET))
    page.focus("[data-handle]")
    steps = [
        ("ArrowRight", [0.1, 0]),
        ("ArrowUp", [0.1, 0.1]),
        ("Shift+ArrowLeft", [-0.4, 0.1]),
        ("ArrowDown", [-0.4, 0]),
    ]
    for key, there in steps:
        page.keyboard.press(key)
        assert place(page).tolist() == there
    handle = page.locator("[data-handle]")
    assert handle.get_attribute("aria-valuetext") == f"z₁ {MINUS}0.40, z₂ 0.00"
    assert float(handle.get_attribute("aria-valuenow") or "nan") == -0.4
    page.keyboard.press("Home")
    assert place(page).tolist() == [0, 0]
    for _ in range(40):
        page.keyboard.press("Shift+ArrowUp")
    assert place(page).tolist() == [0, frame(page)[3]]  # held at the edge
    assert page.evaluate("scrollY") == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.go") is not None
    page.keyboard.press("Enter")
    near = int((page.get_attribute("figure", "data-near") or "").split()[0])
    assert place(page).tolist() == [v / 1000 for v in ASSET["decoders"][0]["means"][near]]


def test_sliders_move_all_latents_and_the_axes_can_be_chosen(page: Page, show: Show) -> None:
    vae, asset = digits()
    show(page, explorable_html(NAME, asset=asset))
    assert page.locator('[data-slider^="z"]').count() == 8
    page.locator('[data-slider="z4"]').fill("1.25")
    page.focus('[data-slider="z6"]')
    page.keyboard.press("ArrowRight")
    assert place(page).tolist() == [0, 0, 0, 0, 1.25, 0, 0.05, 0]
    assert page.get_attribute('[data-slider="z4"]', "aria-valuetext") == "1.25"
    same_pixels(page, by_torch(vae, 16))
    check_nearest(page, asset)
    page.select_option('[data-axis="across"]', "4")
    page.focus("[data-handle]")
    page.keyboard.press("ArrowRight")
    assert place(page).tolist() == [0, 0, 0, 0, 1.35, 0, 0.05, 0]
    assert page.locator('[data-slider="z4"]').input_value() == "1.35"
    check_marks(page, asset, across=4, up=1)
    page.select_option('[data-axis="up"]', "4")  # they change places
    assert page.locator('[data-axis="across"]').input_value() == "1"
    check_marks(page, asset, across=1, up=4)


def test_two_latents_need_no_sliders(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=ASSET))
    assert page.locator("input[type=range], select").count() == 0


# ---- the walk over beta --------------------------------------------------------------------------------------------


def test_the_slider_of_beta_shows_the_record(page: Page, show: Show) -> None:
    record = stored("explorer-betas")
    show(page, explorable_html(NAME, asset=record["asset"], beta=1))
    assert page.get_attribute("figure", "data-beta") == "1"
    for step, row in enumerate(record["results"]):
        page.locator('[data-slider="step"]').fill(str(step))
        for name in ("rate", "distortion"):
            node = page.locator(f'[data-quantity="{name}"]')
            assert float(node.get_attribute("data-value") or "nan") == row["test"][name]["mean"]
            assert float(node.text_content() or "nan") == pytest.approx(row["test"][name]["mean"], abs=0.0051)
        assert page.get_attribute('[data-slider="step"]', "aria-valuetext") == f"beta {row['beta']:g}"
        assert page.locator('[data-shows="step"]').text_content() == f"β = {row['beta']:g}"
        check_marks(page, record["asset"], step)
        check_nearest(page, record["asset"], step)


def test_marks_move_to_the_next_beta_unless_the_reader_asked_for_no_motion(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=WALK))
    page.locator('[data-slider="step"]').fill("1")
    check_marks(page, WALK, 1)
    page.emulate_media(reduced_motion="no-preference")
    marks = '[data-class="0"]'
    before = page.get_attribute(marks, "d")
    at_once = page.evaluate(
        """marks => {
            const slider = document.querySelector('[data-slider="step"]');
            slider.value = 2;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
            return [document.querySelector("figure").dataset.beta, document.querySelector(marks).getAttribute("d")];
        }""",
        marks,
    )
    assert at_once == ["4", before]  # the decoder is the next one, the marks are on their way
    same_pixels(page, by_layers(WALK, 2))
    page.wait_for_function("document.querySelectorAll('.on').length === 3")  # arrived: names of classes are back
    check_marks(page, WALK, 2)


def test_the_curve_holds_rate_and_distortion(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=WALK, beta=0.5))
    beads = page.locator(".bead").evaluate_all("all => all.map(n => ['cx', 'cy', 'r'].map(k => n[k].baseVal.value))")
    (x0, y0, _), (x1, y1, r), (x2, y2, _) = beads
    assert r == max(bead[2] for bead in beads)
    assert (x1 - x2) / (x0 - x2) == pytest.approx(4.0 / 9.5, rel=1e-5)
    assert (y1 - y0) / (y2 - y0) == pytest.approx((81.0 - 80.25) / (99.0 - 80.25), rel=1e-5)
    assert "rate is 4.00 nats and the distortion 81.00" in (
        page.get_attribute('[data-part="curve"]', "aria-label") or ""
    )


# ---- what is heard -------------------------------------------------------------------------------------------------


def test_a_screen_reader_is_told_where_it_is_and_what_the_image_resembles(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, asset=WALK, beta=0.5))
    page.focus("[data-handle]")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert "z₁ 0.50" not in (page.locator("[aria-live=polite]").text_content() or "")  # not before the hand rests
    page.wait_for_function("document.querySelector('[aria-live]').textContent.includes('z₁ 0.50')")
    order = [int(n) for n in (page.get_attribute("figure", "data-near") or "").split()]
    names = [WALK["classes"][WALK["labels"][n]] for n in order]
    apart = float(page.locator("[data-go]").first.get_attribute("data-value") or "nan")
    assert page.locator("[aria-live=polite]").text_content() == (
        f"beta 0.5; z₁ 0.50, z₂ 0.00. The nearest training image is of class {names[0]}, at distance {apart:.2f}; "
        f"the next are of class {', '.join(names[1:])}."
    )
    assert page.get_attribute('[data-part="decoded"]', "aria-label") == (
        f"Decoded image at z₁ 0.50, z₂ 0.00. The nearest training image is of class {names[0]}."
    )
    assert page.get_by_role("slider", name="arrow keys").count() == 1
    assert page.get_by_role("group", name="Plane of the latents z₁ and z₂").count() == 1
