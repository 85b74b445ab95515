"""Chapter 7's figure: a trained decoder in the reader's browser, over the plane of two of its latents.

It shows an asset, which :func:`asset` makes of any VAE that it can show and :func:`walk` of several: the book's own are
in the records of ``book/runs/explorer.py``, and the notebook hands them over. The decoder is in the page, weights and
all, so the figure needs no file and no network, and its grey levels are those of PyTorch in float64.
"""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from html import escape
from importlib.resources import files
from numbers import Integral
from typing import Any

import numpy as np

from vae_lib.explorables.latent_asset import STEP, asset, check, decode, decoder_of, grey_levels, pictures_of, walk
from vae_lib.plots.latent_plane import CLASSES_DARK, CLASSES_LIGHT

__all__ = ["Config", "asset", "decode", "grey_levels", "walk"]

MOST_BYTES = 1_000_000
NEAREST = 5


@dataclass(frozen=True)
class Config:
    """What to show, and where to begin.

    Parameters
    ----------
    asset
        From :func:`~vae_lib.explorables.latent_explorer.asset` or ``walk``, or from the record of a stored run.
    across, up
        The latents on the axes, counted from 1.
    image
        Begin at the code of this training image, counted from 1; at the origin if it is 0.
    beta
        Begin with the decoder of this β; with the first if it is not given.
    """

    asset: Mapping[str, Any]
    across: int = 1
    up: int = 2
    image: int = 0
    beta: float | None = None


def html(**config: Any) -> str:
    """The figure as HTML. Raises ValueError (one line) for a setting it does not know or cannot show."""
    c = _checked(config)
    step = 0 if c.beta is None else c.asset["decoders"].index(decoder_of(c.asset, c.beta))
    start = {"across": c.across - 1, "up": c.up - 1, "image": c.image - 1, "step": step}
    classes = len(c.asset["classes"])
    colours = {"light": CLASSES_LIGHT[:classes], "dark": CLASSES_DARK[:classes]}
    settings = json.dumps({**c.asset, **start, **colours}, separators=(",", ":"), ensure_ascii=False)
    page = files(__package__).joinpath("latent_explorer.html").read_text(encoding="utf-8")
    for mark, text in {
        "{{alt}}": escape(_alt(c)),
        "{{caption}}": _caption(c.asset),
        "{{still}}": base64.b64encode(_still_svg(c, step).encode()).decode(),
        "{{config}}": settings.replace("&", "&amp;").replace("'", "&#39;").replace("<", "&lt;"),
    }.items():
        page = page.replace(mark, text)
    size = len(page.encode())
    if size >= MOST_BYTES:
        advice = "round the weights to float16, with vae.half(), or take fewer images"
        raise ValueError(f"asset: expected a figure below {MOST_BYTES:,} bytes, found {size:,}; {advice}")
    return page


def _checked(config: dict[str, Any]) -> Config:
    names = [field.name for field in fields(Config)]
    for name in config:
        if name not in names:
            raise ValueError(f"latent_explorer: expected settings among {', '.join(names)}, found {name!r}")
    found = config.get("asset")
    check(found)
    assert isinstance(found, Mapping)  # for the type checker
    latents, count = found["decoders"][0]["sizes"][0], len(found["labels"])
    ranges = {"across": (1, latents), "up": (1, latents), "image": (0, count)}
    for name, (low, high) in ranges.items():
        value = config.get(name, low)
        if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
            raise ValueError(f"{name}: expected an integer from {low} to {high}, found {value!r}")
    c = Config(**config)
    if c.across == c.up:
        raise ValueError(f"across, up: expected two latents, found {c.across} twice")
    if c.beta is not None:
        decoder_of(found, c.beta)
    return c


def _caption(found: Mapping[str, Any]) -> str:
    count, latents = len(found["labels"]), found["decoders"][0]["sizes"][0]
    words = (
        f"<b>{escape(found['title'])}.</b> Every point of the plane is a code z. The trained decoder, here in your "
        f"browser, turns it into an image: p(x | z)’s mean, each pixel with the grey level that PyTorch computes. Each "
        f"mark is one of {count} training images, at the mean of its q(z | x); colour and shape are its class. The "
        f"dotted circles are one and two standard deviations of the prior and hold 39&nbsp;% and 86&nbsp;% of it. "
        f"Rings mark the training images whose codes lie nearest, with their distance"
    )
    if latents > 2:
        words += f" in all {latents} latents; the plane shows two of them and the sliders move all"
    words += "."
    if not found["bits"]:
        words += (
            " They are shown as the model redraws them, each decoded from its code: the images are not on this page."
        )
    if len(found["decoders"]) > 1:
        words += (
            " For each β another VAE was trained, on log p(x | z) − β KL, from the same first weights; β = 1 is the "
            "ELBO. Its rate is the mean KL, its distortion the mean of −log p(x | z). The axes grow and shrink with β: "
            "compare the marks with the circles."
        )
    return words


def _alt(c: Config) -> str:
    """What the still picture shows, in words."""
    redrawn = "" if c.asset["bits"] else ", as the model redraws them"
    return (
        f"Left, the plane of the latents {c.across} and {c.up} with the codes of {len(c.asset['labels'])} training "
        "images as dots, coloured by class, and two circles of the prior around the origin. Right, the image that is "
        f"decoded at the marked point, and below it the training images whose codes lie nearest{redrawn}."
    )


def _still_svg(c: Config, step: int) -> str:
    """The first frame, 700 by 400 pixels on a white plate (an <img> cannot follow the page's dark mode)."""
    decoder, labels = c.asset["decoders"][step], c.asset["labels"]
    means = np.array(decoder["means"]) / STEP
    z = means[c.image - 1] if c.image else np.zeros(means.shape[1])
    far = max(3.0, math.ceil(2.1 * float(np.abs(means).max())) / 2)
    unit = 180 / far
    axes = [c.across - 1, c.up - 1]
    spots = 200 + unit * means[:, axes] * [1, -1]
    dots = "".join(
        f'<path stroke="{colour}" d="'
        + "".join(f"M{x:.1f} {y:.1f}h0" for (x, y), label in zip(spots, labels, strict=True) if label == which)
        + '"/>'
        for which, colour in enumerate(CLASSES_LIGHT[: len(c.asset["classes"])])
    )
    circles = "".join(f'<circle cx="200" cy="200" r="{radius * unit:.1f}"/>' for radius in (1, 2))
    near = np.argsort(((means - z) ** 2).sum(1), kind="stable")[:NEAREST]
    rings = "".join(f'<circle cx="{spots[n, 0]:.1f}" cy="{spots[n, 1]:.1f}" r="6"/>' for n in near)
    here = 200 + unit * z[axes] * [1, -1]
    beta = None if len(c.asset["decoders"]) == 1 else decoder["beta"]
    decoded = grey_levels(decode(c.asset, z[None], beta=beta))[0]
    pictures = pictures_of(c.asset, beta)
    shown = _picture(decoded, c.asset["image_shape"], 440, 40, 200)
    for i, n in enumerate(near):
        shown += _picture(pictures[n], c.asset["image_shape"], 440 + 51 * i, 300, 44)
        shown += f'<text x="{462 + 51 * i}" y="372" text-anchor="middle">{escape(c.asset["classes"][labels[n]])}</text>'
    above = f"decoded at β = {beta:g}" if beta is not None else "decoded"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 400" width="700" height="400" '
        'font-family="sans-serif" font-size="14"><rect width="700" height="400" fill="#fff"/>'
        '<svg x="20" y="20" width="360" height="360" viewBox="20 20 360 360">'
        f'<g stroke-width="5" stroke-linecap="round">{dots}</g>'
        f'<g fill="none" stroke="#22272e" stroke-dasharray="2 4">{circles}</g>'
        f'<g fill="none" stroke="#22272e" stroke-width="1.5">{rings}</g>'
        f'<circle cx="{here[0]:.1f}" cy="{here[1]:.1f}" r="7" fill="#22272e" stroke="#fff" stroke-width="2.5"/></svg>'
        '<path d="M20 20V380H380V20z" fill="none" stroke="#5c646e"/>'
        f'<g fill="#22272e"><text x="440" y="30">{above}</text><text x="440" y="290">nearest training images</text>'
        f"{shown}</g></svg>"
    )


def _picture(levels: Any, shape: list[int], x: int, y: int, side: int) -> str:
    """An image in sixteen greys, ink on paper, as rows of equal pixels: short, and no encoder may change its bytes."""
    high, wide = shape
    rows: dict[int, str] = {}
    for row, line in enumerate(np.floor(levels / 255 * 15 + 0.5).astype(int).reshape(high, wide)):
        ends = np.flatnonzero(np.diff(line, append=-1)) + 1
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            if line[begin]:
                rows[line[begin]] = rows.get(line[begin], "") + f"M{begin} {row}h{end - begin}"
    inner = ""
    for level, d in sorted(rows.items()):
        grey = 3 * f"{255 - 17 * level:02x}"
        inner += f'<path d="{d}" stroke="#{grey}"/>'
    return (
        f'<svg x="{x}" y="{y}" width="{side}" height="{side * high / wide:g}" viewBox="0 -0.5 {wide} {high}" '
        f'shape-rendering="crispEdges"><rect y="-0.5" width="{wide}" height="{high}" fill="#fff"/>{inner}'
        f'<rect y="-0.5" width="{wide}" height="{high}" fill="none" stroke="#c9ced6" '
        f'stroke-width="{2 * wide / side:.3g}"/>'
        "</svg>"
    )
