"""Chapter 8's figure: the importance-weighted bound against the number of draws K, exactly.

The model is z ~ N(0, 1), x | z ~ N(z, s²), whose posterior N(m, v) and evidence are known; q = N(m + d √v, r² v) misses
it by a shift d and a factor r. With u = (z - m) / √v the weights over their mean p(x) are w = N(u; 0, 1) / N(u; d, r²).
The expected bound has no closed form for K > 1, but needs no draws. With φ(t) = E e^(-t w), Frullani's integral is

    E log (w_1 + ... + w_K)  =  ∫ (e^-t - φ(t)^K) dt / t  =  ∫ (exp(-e^τ) - φ(e^τ)^K) dτ

by the trapezoid rule in τ, and in u for φ: smooth integrands that vanish at both ends, to about 1e-13. One table of φ
serves all K. The gap to log p(x) closes like Var[w] / (2 K) if r² > 1/2; else that variance is infinite. The draws in
the picture come from the small generator of chapter 3's figure, and more of them replace none.
"""

import base64
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from itertools import pairwise
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from vae_lib.explorables.gradient_cloud import noise as noise_of_marks

COUNTS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
FAR = 3.0  # the slider of the shift runs over [-FAR, FAR]
NARROW, WIDE = 0.4, 2.0  # that of the width
VIEW = 6.0  # the picture of the densities: so many standard deviations of the posterior to each side
TAU = (-40.0, 120.0, 0.25)  # first, last and step of the outer rule
NODES = 400  # of the inner one
MINUS = "\N{MINUS SIGN}"  # a hyphen is too short beside digits

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    """Datum x and noise s of the model, shift and width of q, number of draws K, seed of the draws.

    Shift and width are in standard deviations of the posterior.
    """

    x: float = 1.5
    s: float = 1.0
    shift: float = 1.2
    width: float = 1.0
    draws: float = 10
    seed: float = 4


def html(**config: float) -> str:
    """The figure as HTML. Raises ValueError (one line) for a setting it does not know or cannot show."""
    c = _checked(config)
    still = base64.b64encode(_still_svg(c).encode()).decode()
    frame = {"counts": COUNTS, "far": FAR, "narrow": NARROW, "wide": WIDE, "view": VIEW, "tau": TAU, "nodes": NODES}
    page = files(__package__).joinpath("importance_bound.html").read_text(encoding="utf-8")
    for mark, text in {
        "{{config}}": json.dumps(asdict(c) | frame).replace('"', "&quot;"),
        "{{x}}": f"{c.x:g}".replace("-", MINUS),
        "{{s}}": f"{c.s:g}",
        "{{still}}": still,
    }.items():
        page = page.replace(mark, text)
    return page


def evidence(c: Config) -> float:
    """Return log p(x), in nats."""
    return -0.5 * (math.log(2 * math.pi * (1 + c.s**2)) + c.x**2 / (1 + c.s**2))


def draws(c: Config, count: int) -> Floats:
    """Return the first draws of q, in standard deviations of the posterior from its mean, ``(count,)``."""
    return c.shift + c.width * noise_of_marks(int(c.seed), 5).ravel()[:count]


def log_ratio(u: Floats, shift: float, width: float) -> Floats:
    """Return log p(z | x) - log q(z | x), which is log w - log p(x), in nats."""
    return math.log(width) - u**2 / 2 + ((u - shift) / width) ** 2 / 2


def gaps(shift: float, width: float, counts: Iterable[float]) -> Floats:
    """Return log p(x) minus the expected bound of K draws, for each K, in nats."""
    low, high = min(-9.0, shift - 9 * width), max(9.0, shift + 9 * width)
    u = np.linspace(low, high, NODES + 1)
    q = (high - low) / NODES * np.exp(-(((u - shift) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))
    first, last, step = TAU
    t = np.exp(np.arange(first, last + step / 2, step))[:, None]
    missing = -(q * np.expm1(-t * np.exp(log_ratio(u, shift, width)))).sum(1)  # 1 - φ, also where it is tiny
    with np.errstate(divide="ignore"):
        log_phi = np.log1p(-np.minimum(missing, 1))
    return np.array([math.log(k) - step * (np.exp(-t[:, 0]) - np.exp(k * log_phi)).sum() for k in counts])


def variance(shift: float, width: float) -> float:
    """Return the variance of w / p(x): 2 K times the gap for large K; infinite for a q that is too narrow."""
    excess = 2 * width**2 - 1
    return width**2 / math.sqrt(excess) * math.exp(shift**2 / excess) - 1 if excess > 0 else math.inf


def shares(c: Config, count: int) -> Floats:
    """Return what part of the sum of the first ``count`` weights each of them is."""
    w = np.exp(log_ratio(draws(c, count), c.shift, c.width))
    result: Floats = w / w.sum()
    return result


def _checked(config: dict[str, float]) -> Config:
    names = [field.name for field in fields(Config)]
    for name, value in config.items():
        if name not in names:
            raise ValueError(f"importance_bound: expected settings among {', '.join(names)}, found {name!r}")
        if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) < 2**32:
            raise ValueError(f"{name}: expected a finite number of size below 2**32, found {value!r}")
    c = Config(**{name: float(value) for name, value in config.items()})
    if abs(c.x) > 20:
        raise ValueError(f"x: expected a number in [-20, 20], found {c.x:g}")
    if not 0.05 <= c.s <= 20:
        raise ValueError(f"s: expected a standard deviation in [0.05, 20], found {c.s:g}")
    if abs(c.shift) > FAR:
        raise ValueError(f"shift: expected a number in [{-FAR:g}, {FAR:g}], found {c.shift:g}")
    if not NARROW <= c.width <= WIDE:
        raise ValueError(f"width: expected a number in [{NARROW:g}, {WIDE:g}], found {c.width:g}")
    if c.draws not in COUNTS:
        raise ValueError(f"draws: expected one of {', '.join(map(str, COUNTS))}, found {c.draws:g}")
    if c.seed < 0 or c.seed != int(c.seed):
        raise ValueError(f"seed: expected an integer from 0 to 2**32 - 1, found {c.seed:g}")
    return c


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", MINUS)


def _path(points: Iterable[tuple[float, float]]) -> str:
    """A path in thirds of a pixel, by differences: short, and no rounding adds up."""
    thirds = [(round(3 * across), round(3 * down)) for across, down in points]
    steps = [f"{b[0] - a[0]} {b[1] - a[1]}" for a, b in pairwise(thirds)]
    return f"M{thirds[0][0]} {thirds[0][1]}l{' '.join(steps)}".replace(" -", "-")


def _still_svg(c: Config) -> str:
    """The first frame, 700 by 390 pixels on a white plate (an <img> cannot follow the page's dark mode)."""
    count = int(c.draws)
    peak = max(1.0, 1 / c.width)
    us = np.linspace(-VIEW, VIEW, 61)
    curves = {
        "#0072b2": np.exp(-(((us - c.shift) / c.width) ** 2) / 2) / c.width,
        "#c44e00": np.exp(-(us**2) / 2),
    }

    def across(u: float) -> float:
        return 150 + 150 * u / VIEW

    drawn = "".join(
        f'<path d="{_path((across(u), 190 - 180 * y / peak) for u, y in zip(us, ys, strict=True))}" stroke="{colour}"/>'
        for colour, ys in curves.items()
    )
    share = shares(c, count)
    largest = float(share.max())
    stems = "".join(
        f"M{round(3 * across(u))} 573v{round(135 * part / largest)}"
        for u, part in zip(draws(c, count), share, strict=True)
        if abs(u) <= VIEW
    )
    ends = [300 * end for end in np.cumsum(np.sort(share)[::-1])]
    cuts = "".join(f"M{3 * end:.0f} 750v105" for end in ends if end < 299)

    top, ks = evidence(c), [10 ** (i / 12) for i in range(37)]
    gap = gaps(c.shift, c.width, [*ks, c.draws])
    deep = max(1.15 * float(gap[0]), 0.25)

    def right(k: float) -> float:
        return 100 * math.log10(k)

    def down(value: float) -> float:
        return 60 + 240 * value / deep

    law, spread = "", variance(c.shift, c.width)
    if spread < math.inf:
        seen = [(right(k), down(spread / (2 * k))) for k in ks if down(spread / (2 * k)) < 300]
        law = f'<path d="{_path(seen)}" stroke="#68707a" stroke-dasharray="15 12"/>' if len(seen) > 1 else ""
    effective = 1 / float((share**2).sum())
    frame = 'y="24" width="300" height="300" viewBox="0 0 900 900" stroke-width="6"'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 390" width="700" height="390" '
        'font-family="sans-serif" font-size="14" fill="none"><rect width="700" height="390" fill="#fff"/>'
        f'<svg x="20" {frame}>{drawn}<path d="{stems}" stroke="#00795a" stroke-width="5"/>'
        '<path d="M0 750h900v105H0z" fill="#00795a" fill-opacity=".35"/>'
        f'<path d="{cuts}" stroke="#fff" stroke-width="4"/></svg>'
        f'<svg x="380" {frame}><path d="M0 180H900" stroke="#22272e"/>{law}'
        f'<path d="{_path((right(k), down(g)) for k, g in zip(ks, gap, strict=False))}" stroke="#0072b2"/></svg>'
        '<path d="M20 214H320M380 24V324H680" stroke="#68707a"/>'
        f'<g fill="#22272e"><circle r="6" cx="{380 + right(c.draws):.1f}" cy="{24 + down(gap[-1]):.1f}"/>'
        '<text x="20" y="16">q, the posterior, and the draws by their weights</text>'
        f'<text x="20" y="342">shares of the {count} weights in their sum</text>'
        '<text x="380" y="16">log p(x), and the bound below it</text>'
        '<text x="680" y="342" text-anchor="end">K, from 1 to 1000</text>'
        f'<text x="350" y="376" text-anchor="middle">K = {count}: bound {_number(top - gap[-1])} + gap '
        f"{_number(gap[-1])} = log p(x) {_number(top)} nats; effective draws {effective:.1f}</text></g></svg>"
    )
