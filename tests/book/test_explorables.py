"""In the built book the explorable of chapter 1 answers mouse, finger and keyboard, and its bars fill the evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from playwright.sync_api import Locator, Page

if TYPE_CHECKING:
    from tests.book.conftest import Visitor

CHAPTER = "book/01_elbo_kl_identity.html"
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}}
READERS: dict[str, dict[str, Any]] = {
    "desktop": {},
    "narrow": PHONE,
    "dark": {"color_scheme": "dark"},
    "touch": PHONE | {"has_touch": True, "is_mobile": True},
}

# All at one instant: the next animation frame may move them.
LOOK = """(root) => [
  Object.fromEntries(["elbo", "kl", "evidence"].map(
    (name) => [name, root.querySelector(`[data-quantity="${name}"]`).dataset.value])),
  [...root.querySelectorAll("[data-bar]")].map((bar) => bar.getBoundingClientRect().width),
]"""

FRAMES_PASS = """async () => {
  for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
}"""


class Reading(NamedTuple):
    """What the explorable shows: three numbers in nats, and the pixels that its two bars take together."""

    elbo: float
    kl: float
    evidence: float
    pixels: float


class Explorable:
    """The figure on the page, checked at every look."""

    def __init__(self, visitor: Visitor, address: str) -> None:
        self.visitor = visitor
        self.page: Page = visitor.open(address)
        self.root = self.page.locator('[data-explorable="elbo-bars"]')
        self.root.scroll_into_view_if_needed()
        self.first = self.read()

    def slider(self, name: str) -> Locator:
        """Return the slider whose label holds a word."""
        return self.root.get_by_label(name).and_(self.page.locator("input[type=range]"))

    def read(self) -> Reading:
        """Return the numbers; the bars must fill the evidence at every look, in nats and in pixels."""
        self.page.evaluate(FRAMES_PASS)
        shown, widths = self.root.evaluate(LOOK)
        for name, digits in shown.items():
            assert sum(sign.isdigit() for sign in digits) >= 8, f"{name} = {digits!r}: expected 8 digits or more"
        assert len(widths) == 2
        reading = Reading(**{name: float(digits) for name, digits in shown.items()}, pixels=sum(widths))
        assert abs(reading.elbo + reading.kl - reading.evidence) < 1e-6
        if hasattr(self, "first"):
            assert reading.evidence == self.first.evidence
            assert abs(reading.pixels - self.first.pixels) < 1
        return reading

    def press(self, slider: str, key: str) -> tuple[Reading, Reading]:
        """Return the reading before and after a key pressed on a slider."""
        before = self.read()
        self.slider(slider).focus()
        self.page.keyboard.press(key)
        return before, self.read()

    def drag_mouse(self, x: float, y: float, steps: list[int]) -> list[Reading]:
        """Return the readings on the way of a pressed mouse along steps, in pixels from its start."""
        readings = [self.read()]
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for step in steps:
            self.page.mouse.move(x + step, y, steps=3)
            readings.append(self.read())
        self.page.mouse.up()
        self.page.mouse.move(x + 5, y)
        assert self.read() == readings[-1], "the handle follows a mouse that was let go"
        return readings

    def drag_finger(self, x: float, y: float, steps: list[int]) -> list[Reading]:
        """Return the readings on the way of a finger along steps, in pixels from its start."""
        readings = [self.read()]
        browser = self.page.context.new_cdp_session(self.page)

        def touch(kind: str, *points: dict[str, float]) -> None:
            browser.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

        touch("touchStart", {"x": x, "y": y})
        for step in steps:
            touch("touchMove", {"x": x + step, "y": y})
            readings.append(self.read())
        touch("touchEnd")
        return readings


@pytest.fixture(scope="module", params=READERS)
def explorable(request: pytest.FixtureRequest, open_window: Callable[..., Visitor], site: str) -> Explorable:
    """Open the chapter as a reader with a wide window, a narrow one, a dark one, or a telephone."""
    return Explorable(open_window(**READERS[request.param]), f"{site}/{CHAPTER}")


@pytest.mark.parametrize("slider", ["mean", "width"])
def test_keys_move_the_bars(explorable: Explorable, slider: str) -> None:
    for key in ("ArrowRight", "ArrowLeft", "PageUp", "Home", "End"):
        before, after = explorable.press(slider, key)
        assert after.elbo != before.elbo, key
        assert after.kl != before.kl, key
    assert explorable.visitor.complaints == []


def test_dragging_the_mean_moves_the_bars(explorable: Explorable) -> None:
    for slider in ("mean", "width"):
        explorable.slider(slider).fill("0")  # in the middle, off both ends
    handle = explorable.root.locator('[data-handle="mean"]')
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    drag = explorable.drag_finger if explorable.page.evaluate("navigator.maxTouchPoints") else explorable.drag_mouse
    readings = drag(x, y, steps=[-30, -60, 20, 70])
    assert len({reading.elbo for reading in readings}) == len(readings)
    assert len({reading.kl for reading in readings}) == len(readings)
    assert explorable.visitor.complaints == []


def test_it_fits_the_window(explorable: Explorable) -> None:
    width = explorable.page.evaluate("window.innerWidth")
    assert explorable.page.evaluate("document.scrollingElement.scrollWidth") <= width + 1
    for part in explorable.root.locator("input, button, [data-bar], [data-handle]").all():
        box = part.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    for slider in ("mean", "width"):
        assert explorable.slider(slider).count() == 1
