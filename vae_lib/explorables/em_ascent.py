"""Chapter 2's figure: EM as ascent on one function of two numbers, one axis at a time.

The model is pPCA with one number per datum and one latent: z ~ N(0, 1), x | z ~ N(w z, s2), s2 known. The data enter
only through their mean square m2, so the figure needs none of them; its maximum of the likelihood is w² = m2 - s2.

A normal q(z | x) = N(λ x, v) has two numbers, and a map has room for one. The figure keeps those q that are the
posterior of some weight u: λ = u / (s2 + u²), v = s2 / (s2 + u²). Nothing is lost by it. The best q of all for a given
w is in the family, at u = w, so the E-step on the map is the E-step; and q is held as a whole in the M-step, so that
too is the M-step of EM, in closed form: w = λ m2 / (λ² m2 + v). Were v tied to the current w instead, the vertical
step would move q along with w, have no simple solution, and not be EM. The gradient step follows the gradient in the
coordinates (u, w), and depends on that choice; the E-step and the M-step do not.

All values are averages per datum, in nats.
"""

import base64
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from itertools import pairwise
from numbers import Real

VIEW = 1.4  # u and w run over [-VIEW, VIEW] times the root of the mean square
NOISE_MIN, NOISE_MAX = 0.1, 1.2  # the noise slider, as a share of the mean square
LEVEL = 0.02  # nats from the top down to the first contour; each later one lies twice as deep
MINUS = "\N{MINUS SIGN}"  # a hyphen is too short beside digits


@dataclass(frozen=True)
class Config:
    """Mean square m2 of the data, noise variance s2; the point starts at (u, w); step size of the gradient.

    The defaults put the two tops at w = ±2, where q(z | x) = N(0.4 x, 0.2).
    """

    m2: float = 5.0
    s2: float = 1.0
    u: float = 2.4
    w: float = 0.5
    rate: float = 0.2


def html(**config: float) -> str:
    """The figure as HTML. Raises ValueError (one line) for a setting it does not know or cannot show."""
    c = _checked(config)
    still = base64.b64encode(_still_svg(c).encode()).decode()
    frame = {"view": _view(c), "s2Min": NOISE_MIN * c.m2, "s2Max": NOISE_MAX * c.m2}
    page = files(__package__).joinpath("em_ascent.html").read_text(encoding="utf-8")
    for mark, text in {
        "{{config}}": json.dumps(asdict(c) | frame).replace('"', "&quot;"),
        "{{m2}}": f"{c.m2:g}",
        "{{still}}": still,
    }.items():
        page = page.replace(mark, text)
    return page


def posterior(c: Config, u: float) -> tuple[float, float]:
    """Return slope and variance of the posterior N(slope x, variance) that belongs to the weight u."""
    return u / (c.s2 + u * u), c.s2 / (c.s2 + u * u)


def evidence(c: Config, w: float) -> float:
    """Return log p(x; w)."""
    return -0.5 * math.log(2 * math.pi * (c.s2 + w * w)) - c.m2 / (2 * (c.s2 + w * w))


def parabola(c: Config, u: float) -> tuple[float, float, float]:
    """Return (foot, rise, bend): for the q of u, the ELBO is foot + rise w - bend w² / 2."""
    slope, variance = posterior(c, u)
    kl_to_prior = 0.5 * (slope**2 * c.m2 + variance - 1 - math.log(variance))
    foot = -0.5 * math.log(2 * math.pi * c.s2) - c.m2 / (2 * c.s2) - kl_to_prior
    return foot, slope * c.m2 / c.s2, (slope**2 * c.m2 + variance) / c.s2


def elbo(c: Config, u: float, w: float) -> float:
    """Return the ELBO at weight w of the q that is the posterior of the weight u."""
    foot, rise, bend = parabola(c, u)
    return foot + rise * w - 0.5 * bend * w * w


def m_step(c: Config, u: float) -> float:
    """Return the weight with the largest ELBO for the q of u; the E-step is u = w."""
    _, rise, bend = parabola(c, u)
    return rise / bend


def _view(c: Config) -> float:
    return VIEW * math.sqrt(c.m2)


def _checked(config: dict[str, float]) -> Config:
    names = [field.name for field in fields(Config)]
    for name, value in config.items():
        if name not in names:
            raise ValueError(f"em_ascent: expected settings among {', '.join(names)}, found {name!r}")
        if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) <= 1e6:
            raise ValueError(f"{name}: expected a finite number of size at most 1e6, found {value!r}")
    c = Config(**{name: float(value) for name, value in config.items()})
    if not 0.01 <= c.m2 <= 100:
        raise ValueError(f"m2: expected a mean square in [0.01, 100], found {c.m2:g}")
    if not NOISE_MIN * c.m2 <= c.s2 <= NOISE_MAX * c.m2:
        low, high = NOISE_MIN * c.m2, NOISE_MAX * c.m2
        raise ValueError(f"s2: expected a noise variance in [{low:g}, {high:g}] for m2={c.m2:g}, found {c.s2:g}")
    for name, value in {"u": c.u, "w": c.w}.items():
        if abs(value) > _view(c):
            raise ValueError(f"{name}: expected a weight in [{-_view(c):g}, {_view(c):g}], found {value:g}")
    if not 1e-3 <= c.rate <= 10:
        raise ValueError(f"rate: expected a step size in [0.001, 10], found {c.rate:g}")
    return c


def _number(value: float, digits: str = ".3f") -> str:
    return format(value, digits).replace("-", MINUS)


def _outline(c: Config, level: float, corners: int) -> tuple[list[tuple[float, float]], bool]:
    """Return the hill of u > 0 at a level as a polygon, and whether it reaches over to the other hill.

    For one u the level is met at two w, the roots of a quadratic.
    """

    def room(u: float) -> float:
        foot, rise, bend = parabola(c, u)
        return foot + rise * rise / (2 * bend) - level

    def root(inside: float, outside: float) -> float:
        for _ in range(50):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if room(middle) > 0 else (inside, middle)
        return inside

    best = math.sqrt(max(0.0, c.m2 - c.s2))
    end = root(best, 1.02 * _view(c))
    start = root(best, 0.0) if room(0) < 0 else -end
    upper, lower = [], []
    for i in range(corners + 1):
        t = 2 * i / corners - 1  # dense at the tips, and at the saddle where two hills are one
        if start < 0:
            u = math.copysign(end * (1 - math.cos(math.pi * t)) / 2, t)
        else:
            u = (start + end) / 2 + (end - start) / 2 * math.sin(math.pi * t / 2)
        _, rise, bend = parabola(c, u)
        half = math.sqrt(2 * bend * max(0.0, room(u)))
        upper.append((u, (rise + half) / bend))
        lower.append((u, (rise - half) / bend))
    return upper + lower[::-1], start < 0


def _path(points: Iterable[tuple[float, float]]) -> str:
    """A path in thirds of a pixel, by differences: short, and no rounding adds up."""
    thirds = [(round(3 * across), round(3 * down)) for across, down in points]
    steps = [f"{b[0] - a[0]} {b[1] - a[1]}" for a, b in pairwise(thirds)]
    return f"M{thirds[0][0]} {thirds[0][1]}l{' '.join(steps)}".replace(" -", "-")


def _still_svg(c: Config) -> str:
    """The first frame, 700 by 390 pixels on a white plate (an <img> cannot follow the page's dark mode)."""
    view, top = _view(c), evidence(c, math.sqrt(max(0.0, c.m2 - c.s2)))
    deep = max(top - min(evidence(c, 0), evidence(c, view)), 0.3)
    high, low = top + 0.25 * deep, top - 2.25 * deep

    def x(value: float) -> float:
        return 150 + 150 * value / view

    def y(value: float) -> float:
        return 150 - 150 * value / view

    def nats(value: float) -> float:  # cut off far below the floor
        return min(900.0, 300 * (high - value) / (high - low))

    outer, inner = "", ""
    for k in range(9, -1, -1):
        hill, both = _outline(c, top - LEVEL * 2**k, 18 if k > 3 else 11)
        outline = f'<path d="{_path((x(u), y(w)) for u, w in hill)}Z"/>'
        outer, inner = (outer + outline, inner) if both else (outer, inner + outline)
    inner = f'<g id="hill">{inner}</g><use href="#hill" transform="rotate(180 450 450)"/>'  # -u, -w: the same ELBO
    grid = [view * (i / 20 - 1) for i in range(41)]
    here, evidence_here = elbo(c, c.u, c.w), evidence(c, c.w)
    at, low_end = x(c.w), min(300.0, nats(here))
    word = "ELBO" if here > low else "\N{DOWNWARDS ARROW} off the scale: ELBO"
    frame = 'y="24" width="300" height="300" viewBox="0 0 900 900" stroke-width="6"'
    dots = 'stroke-dasharray="6 12"'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 390" width="700" height="390" '
        'font-family="sans-serif" font-size="14" fill="none"><rect width="700" height="390" fill="#fff"/>'
        f'<svg x="20" {frame}><g fill="#22272e" fill-opacity=".03" stroke="#a0a6ad" stroke-width="3">{outer}{inner}</g>'
        f'<path d="M0 900L900 0" stroke="#0072b2" {dots}/>'
        f'<path d="{_path((x(u), y(m_step(c, u))) for u in grid)}" stroke="#00795a" {dots}/></svg>'
        f'<svg x="380" {frame}><path d="{_path((x(w), nats(elbo(c, c.u, w))) for w in grid)}" stroke="#0072b2"/>'
        f'<path d="{_path((x(w), nats(evidence(c, w))) for w in grid)}" stroke="#22272e"/></svg>'
        '<path d="M20 24V324H320M380 324H680" stroke="#68707a"/>'
        f'<path d="M{380 + at:.1f} {24 + nats(evidence_here):.1f}V{24 + low_end:.1f}" '
        'stroke="#d55e00" stroke-width="5"/>'
        f'<g fill="#22272e"><circle r="6" cx="{20 + x(c.u):.1f}" cy="{24 + y(c.w):.1f}"/>'
        f'<circle r="6" cx="{380 + at:.1f}" cy="{24 + low_end:.1f}"/>'
        '<text x="20" y="16">w</text>'
        '<text x="320" y="342" text-anchor="end">u: q is the posterior of the weight u</text>'
        '<text x="380" y="16">log p(x; w), and below it the ELBO of this q</text>'
        '<text x="680" y="342" text-anchor="end">w</text>'
        f'<text x="350" y="376" text-anchor="middle">{word} {_number(here)} + KL {_number(evidence_here - here)}'
        f" = log p(x; w) {_number(evidence_here)} nats per datum</text></g></svg>"
    )
