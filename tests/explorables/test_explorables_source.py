"""What the interactive figures promise before any browser opens them."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from vae_lib.explorables import explorable_html
from vae_lib.explorables.elbo_bars import Config

SVG = "http://www.w3.org/2000/svg"
TEMPLATE = explorable_html("elbo_bars")


def still_picture(html: str) -> str:
    found = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert found is not None
    return base64.b64decode(found[1]).decode()


def test_equal_settings_give_equal_text_in_every_process() -> None:
    command = "import sys; from vae_lib.explorables import explorable_html as e; sys.stdout.write(e('elbo_bars'))"
    fresh = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", command], capture_output=True, check=True, encoding="utf-8"
    )
    assert fresh.stdout == explorable_html("elbo_bars")
    assert explorable_html("elbo_bars", x=2.0, s=0.7) == explorable_html("elbo_bars", s=0.7, x=2.0)
    assert explorable_html("elbo_bars", x=2.0) != explorable_html("elbo_bars")


def test_settings_may_be_integers_or_numpy_numbers() -> None:
    assert explorable_html("elbo_bars", a=1, s=np.float64(0.5)) == explorable_html("elbo_bars")


def test_unknown_name_lists_the_known_ones() -> None:
    names = "elbo_bars, em_ascent, figure_two, forward_reverse, gradient_cloud, importance_bound, latent_explorer, "
    names += "reparameterization"
    with pytest.raises(ValueError, match=rf"^name: expected one of {names}, found 'elbo'$"):
        explorable_html("elbo")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sigma": 1.0}, "elbo_bars: expected settings among a, b, s, x, mean, width, found 'sigma'"),
        ({"x": float("nan")}, "x: expected a finite number of size at most 1e6, found nan"),
        ({"a": float("-inf")}, "a: expected a finite number of size at most 1e6, found -inf"),
        ({"b": 10**400}, "b: expected a finite number"),
        ({"x": "1.5"}, "x: expected a finite number of size at most 1e6, found '1.5'"),
        ({"x": True}, "x: expected a finite number of size at most 1e6, found True"),
        ({"s": 0.0}, "s: expected a positive standard deviation in [0.01, 100], found 0"),
        ({"s": -0.5}, "s: expected a positive standard deviation in [0.01, 100], found -0.5"),
        ({"mean": 3.5}, "mean: expected a number in [-3, 3], found 3.5"),
        ({"width": 0.05}, "width: expected a number in [0.1, 3.0], found 0.05"),
        (
            {"x": 100.0},
            "a, b, s, x: expected a posterior p(z|x) within [-4, 4], wider than about 0.02",
        ),  # unseen
        ({"a": 30.0, "s": 0.01}, "a, b, s, x: expected a posterior p(z|x) within [-4, 4]"),  # too narrow
        ({"a": 1e6, "b": 1e6, "x": -1e6}, "a, b, s, x: expected a posterior p(z|x) within [-4, 4]"),
    ],
)
def test_a_setting_it_cannot_show_gets_one_clear_line(config: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)) as caught:
        explorable_html("elbo_bars", **config)
    assert "\n" not in str(caught.value)


def test_it_asks_nothing_of_the_network_and_stays_small() -> None:
    assert len(TEMPLATE.encode()) < 30_000
    assert set(re.findall(r"""https?://[^\s"'<>)]+""", TEMPLATE + still_picture(TEMPLATE))) == {SVG}
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|\burl\(|\bfetch\(|XMLHttpRequest""", TEMPLATE)


def test_no_mark_of_the_template_is_left() -> None:
    assert not re.search(r"\{\{\w+\}\}", TEMPLATE)


def test_the_caption_states_the_model() -> None:
    html = explorable_html("elbo_bars", a=2.0, b=-0.25, s=0.6, x=1.0)
    caption = html[html.index("<figcaption>") : html.index("</figcaption>")].replace("\N{NO-BREAK SPACE}", " ")
    assert "x | z ~ N(2 z² \N{MINUS SIGN} 0.25 z, 0.6²), and x = 1 was observed" in caption


def test_without_scripts_a_picture_of_the_first_frame_stands_there() -> None:
    """Its numbers are those of the defaults, computed here on a fine grid; its bars end on the mark."""
    c = Config()
    z = np.linspace(-12, 12, 200_001)
    joint = np.exp(-0.5 * z**2 - 0.5 * ((c.x - c.a * z**2 - c.b * z) / c.s) ** 2) / (2 * np.pi * c.s)
    q = np.exp(-0.5 * ((z - c.mean) / c.width) ** 2) / (np.sqrt(2 * np.pi) * c.width)
    inside = (q > 1e-200) & (joint > 1e-300)
    log_ratio = np.log(joint[inside]) - np.log(q[inside])
    evidence, elbo = np.log(joint.sum() * (z[1] - z[0])), (q[inside] * log_ratio).sum() * (z[1] - z[0])

    picture = ElementTree.fromstring(still_picture(TEMPLATE))
    words = [node.text for node in picture.iter(f"{{{SVG}}}text")]
    minus = "\N{MINUS SIGN}"
    assert words == [
        "z",
        f"ELBO {minus}{-elbo:.3f}",
        f"KL {evidence - elbo:.3f}",
        f"log p(x) = {minus}{-evidence:.3f} nats",
    ]
    _, left, right = picture.iter(f"{{{SVG}}}rect")
    assert float(left.attrib["x"]) + float(left.attrib["width"]) == pytest.approx(float(right.attrib["x"]), abs=0.11)
    axis = (8 - (evidence - elbo)) / 8.7 * 680  # the picture's axis: from log p(x) - 8 to log p(x) + 0.7
    assert float(left.attrib["width"]) == pytest.approx(axis, abs=0.06)
    assert "alt=" in TEMPLATE
    assert 'alt=""' not in TEMPLATE


def test_an_elbo_off_the_scale_is_said_in_the_still_picture() -> None:
    picture = still_picture(explorable_html("elbo_bars", mean=2.5))
    assert "\N{LEFTWARDS ARROW} off the scale: ELBO" in picture
    assert 'width="0.0"' in picture
