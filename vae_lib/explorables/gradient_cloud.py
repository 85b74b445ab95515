"""Chapter 3's figure: clouds of gradient estimates, score function against pathwise, around the exact gradient.

f(z) = (z - k)², z ~ N(μ, σ²) at σ = 1, d = μ - k; the gradient of E f with respect to (μ, σ) is (2 d, 2). Every mark is
an estimate from S samples; both estimators use the same noise ε = z - μ. With f = (d + ε)² one sample gives

    score function   (f - c) ε,    (f - c') (ε² - 1)
    pathwise         2 (d + ε),    2 (d + ε) ε

Baselines c and c': none; the exact mean E f = d² + 1; or the constants of least variance, d² + 3 and d² + 5.

The noise comes from a small generator that the template has too, so the still picture shows the marks that the live
figure shows. Sample s of mark i is number s MARKS + i of the stream: more samples lengthen an average and replace none.
"""

import base64
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from numbers import Real

import numpy as np
from numpy.typing import NDArray

MARKS = 200
MOST = 10  # the slider of S runs to 2 ** MOST
FAR = 4.0  # that of d over [-FAR, FAR]
WIDE, LIFT = 36.0, 10.0  # the axes on the left: WIDE to each side of (0, LIFT); far estimates have a large ∂σ
NEAR = 3.0  # those on the right: so many standard deviations of the pathwise ∂σ to each side of the gradient
MINUS = "\N{MINUS SIGN}"  # a hyphen is too short beside digits

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    """Distance d = μ - k, samples per mark (a power of two), seed of the noise."""

    d: float = 3.0
    samples: float = 8
    seed: float = 2


def html(**config: float) -> str:
    """The figure as HTML. Raises ValueError (one line) for a setting it does not know or cannot show."""
    c = _checked(config)
    still = base64.b64encode(_still_svg(c).encode()).decode()
    frame = {"count": MARKS, "most": MOST, "far": FAR, "wide": WIDE, "lift": LIFT, "near": NEAR}
    page = files(__package__).joinpath("gradient_cloud.html").read_text(encoding="utf-8")
    for mark, text in {
        "{{config}}": json.dumps(asdict(c) | frame).replace('"', "&quot;"),
        "{{count}}": f"{MARKS}",
        "{{still}}": still,
    }.items():
        page = page.replace(mark, text)
    return page


def noise(seed: int, samples: int) -> Floats:
    """Return standard normal draws (samples, MARKS): a counter hashed to 32 bits, then Box and Muller.

    The hash is lowbias32 of C. Wellons' "hash prospector".
    """
    begin = np.uint32(seed * 0x9E3779B9 % 2**32)  # each seed begins elsewhere; all arithmetic is modulo 2³²
    x: NDArray[np.uint32] = np.arange(2 * samples * MARKS, dtype=np.uint32) + begin
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    uniform = ((x ^ (x >> np.uint32(15))).astype(np.float64) + 0.5) / 2**32
    radius, angle = uniform[0::2], uniform[1::2]
    draws: Floats = np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)
    return draws.reshape(samples, MARKS)


def score_function(eps: Floats, d: float) -> Floats:
    """Return one estimate (∂μ, ∂σ) per column of the noise (S, MARKS), without baseline, as (2, MARKS)."""
    f = (d + eps) ** 2
    return np.stack([(f * eps).mean(0), (f * (eps**2 - 1)).mean(0)])


def pathwise(eps: Floats, d: float) -> Floats:
    """Return one estimate (∂μ, ∂σ) per column of the noise (S, MARKS), as (2, MARKS)."""
    slope = 2 * (d + eps)
    return np.stack([slope.mean(0), (slope * eps).mean(0)])


def _checked(config: dict[str, float]) -> Config:
    names = [field.name for field in fields(Config)]
    for name, value in config.items():
        if name not in names:
            raise ValueError(f"gradient_cloud: expected settings among {', '.join(names)}, found {name!r}")
        if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) < 2**32:
            raise ValueError(f"{name}: expected a finite number of size below 2**32, found {value!r}")
    c = Config(**{name: float(value) for name, value in config.items()})
    if abs(c.d) > FAR:
        raise ValueError(f"d: expected a number in [{-FAR:g}, {FAR:g}], found {c.d:g}")
    if c.samples not in [2**power for power in range(MOST + 1)]:
        raise ValueError(f"samples: expected a power of two from 1 to {2**MOST}, found {c.samples:g}")
    if c.seed < 0 or c.seed != int(c.seed):
        raise ValueError(f"seed: expected an integer from 0 to 2**32 - 1, found {c.seed:g}")
    return c


def _number(value: float) -> str:
    return f"{value:g}".replace("-", MINUS)


def _marks(points: Iterable[tuple[float, float]]) -> str:
    """Points of no length, in halves of a pixel, by differences from one to the next."""
    path, last = "", (0, 0)
    for across, down in points:
        here = (round(2 * across), round(2 * down))
        path += f"m{here[0] - last[0]} {here[1] - last[1]}h0"
        last = here
    return "M0 0" + path.replace(" -", "-")


def _still_svg(c: Config) -> str:
    """The first frame, 700 by 390 pixels on a white plate (an <img> cannot follow the page's dark mode)."""
    eps = noise(int(c.seed), int(c.samples))
    clouds = {"#9b4f96": score_function(eps, c.d), "#00795a": pathwise(eps, c.d)}
    near = NEAR * math.sqrt((4 * c.d**2 + 8) / c.samples)
    gradient = (2 * c.d, 2.0)

    def panel(left: float, centre: tuple[float, float], half: float) -> str:
        drawn = ""
        for colour, cloud in clouds.items():
            scaled = (cloud - np.array(centre)[:, None]) / half
            seen = scaled[:, np.abs(scaled).max(0) <= 1]
            cap = "square" if colour == "#9b4f96" else "round"
            path = _marks((150 + 150 * x, 150 - 150 * y) for x, y in seen.T.tolist())
            drawn += f'<path d="{path}" stroke="{colour}" stroke-width="8" stroke-opacity=".8" stroke-linecap="{cap}"/>'
        x, y = (300 + s * 300 * (g - m) / half for g, m, s in zip(gradient, centre, (1, -1), strict=True))
        cross = f"M{x - 18:.1f} {y:.1f}h36m-18-18v36"
        for colour, width in (("#fff", 12), ("#22272e", 5)):
            drawn += f'<path d="{cross}" stroke="{colour}" stroke-width="{width}"/>'
        return (
            f'<svg x="{left}" y="24" width="300" height="300" viewBox="0 0 600 600" fill="none">{drawn}'
            '<path d="M0 0V600H600" stroke="#68707a" stroke-width="3"/></svg>'
        )

    box = 150 * near / WIDE
    score_out, path_out = (
        int((np.abs(cloud - np.array(gradient)[:, None]).max(0) > near).sum()) for cloud in clouds.values()
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 390" width="700" height="390" '
        'font-family="sans-serif" font-size="14"><rect width="700" height="390" fill="#fff"/>'
        f"{panel(20, (0.0, LIFT), WIDE)}{panel(380, gradient, near)}"
        f'<rect x="{170 + 150 * gradient[0] / WIDE - box:.1f}" y="{174 - 150 * (gradient[1] - LIFT) / WIDE - box:.1f}" '
        f'width="{2 * box:.1f}" height="{2 * box:.1f}" fill="none" stroke="#22272e"/><g fill="#22272e">'
        f'<text x="20" y="16">∂/∂σ from {_number(LIFT - WIDE)} to {_number(LIFT + WIDE)}, '
        f"∂/∂μ from {_number(-WIDE)} to {_number(WIDE)}</text>"
        f'<text x="380" y="16">the frame, enlarged; outside: <tspan fill="#9b4f96">{score_out}</tspan> and '
        f'<tspan fill="#00795a">{path_out}</tspan></text>'
        '<g text-anchor="end"><text x="320" y="342">∂/∂μ</text><text x="680" y="342">∂/∂μ</text></g>'
        f'<text x="350" y="376" text-anchor="middle">S = {c.samples:g}: <tspan fill="#9b4f96">score function</tspan>, '
        f'<tspan fill="#00795a">pathwise</tspan>, and the exact gradient ({_number(gradient[0])}, 2)</text></g></svg>'
    )
