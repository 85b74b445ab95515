"""Chapter 9's figure: one number under the noising process, a step of it read backwards, and what the step loses.

The data are two normal humps at ±m of standard deviation w, of mean 0 and variance 1. Level t is z_t = α x + σ ε with
log signal-to-noise ratio λ_t; T levels lie evenly from 6 down to -6. The reversal q(z_s | z_t) of a step is a mixture
of two normals, the model's link one normal: q(z_s | z_t, x) with the best guess E[x | z_t] in the place of x. A step
costs ½ (e^λ_s - e^λ_t) E|x - E[x | z_t]|² nats. Of these I(x; z_s) - I(x; z_t) are news of x and the rest is lost: the
average KL from reversal to link. Averages over z_t are sums over an even grid, to about 1e-12.
"""

import base64
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVELS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
TOP = 6.0  # log SNR of the first level; that of the last is its negative
VIEW = 3.0  # the picture of the densities, and the slider of z_t: to each side of zero
NARROW, WIDE = 0.05, 0.6
GRID = (8.0, 800)  # the sums over z_t: end, intervals
FAR = 9.0  # those over z_s: so many standard deviations around both parts
MINUS = "\N{MINUS SIGN}"  # a hyphen is too short beside digits

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    """Width of a hump, number of levels T, the level t of the step t → t - 1, and the place z_t."""

    width: float = 0.2
    levels: float = 8
    t: float = 4
    z: float = 0.2


class Step(NamedTuple):
    """Nats of a step: what it costs, what it tells of x, and what is lost."""

    cost: float
    news: float
    lost: float


class Back(NamedTuple):
    """Densities of z_s given z_t: shares, means and one variance of the reversal's two parts, and the link."""

    shares: Floats
    means: Floats
    var: float
    link_mean: float
    link_var: float


def html(**config: float) -> str:
    """The figure as HTML. Raises ValueError (one line) for a setting it does not know or cannot show."""
    c = _checked(config)
    still = base64.b64encode(_still_svg(c).encode()).decode()
    frame = {"counts": LEVELS, "top": TOP, "view": VIEW, "grid": GRID, "far": FAR}
    page = files(__package__).joinpath("forward_reverse.html").read_text(encoding="utf-8")
    for mark, text in {
        "{{config}}": json.dumps(asdict(c) | frame).replace('"', "&quot;"),
        "{{width}}": f"{c.width:g}",
        "{{still}}": still,
    }.items():
        page = page.replace(mark, text)
    return page


def log_snr(count: int) -> Floats:
    """Return log signal-to-noise ratios of z_1 to z_T, ``(T,)``."""
    return np.linspace(TOP, -TOP, count)


def log_density(z: Floats, level: float, width: float) -> Floats:
    """Return log q(z_t)."""
    alpha2, mean = _sigmoid(level), math.sqrt(1 - width**2)
    var = alpha2 * width**2 + _sigmoid(-level)
    shift = math.sqrt(alpha2) * mean
    result: Floats = (
        np.logaddexp(-((z - shift) ** 2) / (2 * var), -((z + shift) ** 2) / (2 * var))
        - 0.5 * math.log(2 * math.pi * var)
        - math.log(2)
    )
    return result


def level_of(level: float, width: float) -> tuple[float, float]:
    """Return the least squared error of a guess of x, and I(x; z_t) in nats."""
    end, count = GRID
    z = np.linspace(-end, end, count + 1)
    dz, log_q = 2 * end / count, log_density(z, level, width)
    q = np.exp(log_q) * dz
    guess = _guess(z, level, width)[0]
    info = -float((q * log_q).sum()) - 0.5 * math.log(2 * math.pi * math.e * _sigmoid(-level))
    return 1 - float((q * guess**2).sum()), info


def steps(width: float, count: int) -> list[Step]:
    """Return the nats of the steps t = 2 to T."""
    at = [(level, *level_of(level, width)) for level in log_snr(count)]
    found = []
    for (above, _, more), (level, error, less) in pairwise(at):
        cost = 0.5 * (math.exp(above) - math.exp(level)) * error
        found.append(Step(cost, more - less, cost - (more - less)))
    return found


def back(z: float, above: float, level: float, width: float) -> Back:
    """Return the reversal and the link of a step from ``z`` at ``level`` to the level with log SNR ``above``."""
    alpha_s, alpha_t = math.sqrt(_sigmoid(above)), math.sqrt(_sigmoid(level))
    ratio = math.exp(level - above)
    guess, shares, parts, var = _guess(z, level, width)
    gain, keep = alpha_s * (1 - ratio), alpha_s * ratio / alpha_t * z
    link_var = _sigmoid(-above) * (1 - ratio)
    return Back(shares, keep + gain * parts, link_var + gain**2 * var, keep + gain * float(guess), link_var)


def kl_at(step: Back) -> float:
    """Return the KL from the reversal to the link for one z_t, in nats."""
    std = math.sqrt(step.var)
    z = np.linspace(step.means.min() - FAR * std, step.means.max() + FAR * std, GRID[1] + 1)
    with np.errstate(divide="ignore"):  # a share of zero
        log_shares = np.log(step.shares)
    log_parts = log_shares - (z[:, None] - step.means) ** 2 / (2 * step.var)
    log_q = np.logaddexp(*log_parts.T) - 0.5 * math.log(2 * math.pi * step.var)
    log_p = -((z - step.link_mean) ** 2) / (2 * step.link_var) - 0.5 * math.log(2 * math.pi * step.link_var)
    return float((np.exp(log_q) * (log_q - log_p)).sum() * (z[1] - z[0]))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _guess(z: float | Floats, level: float, width: float) -> tuple[Any, Floats, Floats, float]:
    """Return E[x | z_t], and of the two humps: their shares, their own guesses and variance."""
    alpha2, mean = _sigmoid(level), math.sqrt(1 - width**2)
    alpha, spread = math.sqrt(alpha2), alpha2 * width**2 + _sigmoid(-level)
    right = 0.5 * (1 + np.tanh(alpha * mean * z / spread))  # share of the right hump
    shares = np.array([1 - right, right])
    kept = alpha * width**2 / spread
    parts = np.array([sign * mean * (1 - alpha * kept) + kept * z for sign in (-1, 1)])
    return (shares * parts).sum(0), shares, parts, width**2 * _sigmoid(-level) / spread


def _checked(config: dict[str, float]) -> Config:
    names = [field.name for field in fields(Config)]
    for name, value in config.items():
        if name not in names:
            raise ValueError(f"forward_reverse: expected settings among {', '.join(names)}, found {name!r}")
        if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) < 2**32:
            raise ValueError(f"{name}: expected a finite number of size below 2**32, found {value!r}")
    c = Config(**{name: float(value) for name, value in config.items()})
    if not NARROW <= c.width <= WIDE:
        raise ValueError(f"width: expected a standard deviation in [{NARROW:g}, {WIDE:g}], found {c.width:g}")
    if c.levels not in LEVELS:
        raise ValueError(f"levels: expected one of {', '.join(map(str, LEVELS))}, found {c.levels:g}")
    if c.t != int(c.t) or not 2 <= c.t <= c.levels:
        raise ValueError(f"t: expected an integer from 2 to the {c.levels:g} levels, found {c.t:g}")
    if abs(c.z) > VIEW:
        raise ValueError(f"z: expected a number in [{-VIEW:g}, {VIEW:g}], found {c.z:g}")
    return c


def _number(value: float) -> str:
    return f"{value:.4f}".replace("-", MINUS)


def _path(points: Iterable[tuple[float, float]]) -> str:
    """A path in thirds of a pixel, by differences: short, and no rounding adds up."""
    thirds = [(round(3 * across), round(3 * down)) for across, down in points]
    moves = [f"{b[0] - a[0]} {b[1] - a[1]}" for a, b in pairwise(thirds)]
    return f"M{thirds[0][0]} {thirds[0][1]}l{' '.join(moves)}".replace(" -", "-")


def _normal(z: Floats, mean: float, var: float) -> Floats:
    result: Floats = np.exp(-((z - mean) ** 2) / (2 * var)) / math.sqrt(2 * math.pi * var)
    return result


def _still_svg(c: Config) -> str:
    """The first frame, 700 by 390 pixels on a white plate (an <img> cannot follow the page's dark mode)."""
    count, t = int(c.levels), int(c.t)
    above, level = log_snr(count)[t - 2 : t]
    z = np.linspace(-VIEW, VIEW, 61)
    now, step = np.exp(log_density(z, level, c.width)), back(c.z, above, level, c.width)
    reversal = sum(s * _normal(z, m, step.var) for s, m in zip(step.shares, step.means, strict=True))
    link = _normal(z, step.link_mean, step.link_var)
    peak = max(float(np.max(reversal)), float(np.max(link)))

    def across(v: float) -> float:
        return 150 + 150 * v / VIEW

    curves = [
        ("#68707a", 130, 110 / float(now.max()), now),
        ("#c44e00", 300, 150 / peak, reversal),
        ("#0072b2", 300, 150 / peak, link),
    ]
    drawn = "".join(
        f'<path d="{_path((across(v), base - scale * y) for v, y in zip(z, np.asarray(ys), strict=True))}" '
        f'stroke="{colour}"/>'
        for colour, base, scale, ys in curves
    )
    found = steps(c.width, count)
    most = max(s.lost for s in found)
    bars = "".join(
        f"M{900 - round((2 * k + 1) * 450 / len(found))} 900v{-round(810 * max(s.lost, 0) / most)}"
        for k, s in enumerate(found)
    )
    here = found[t - 2]
    frame = 'y="24" width="300" height="300" viewBox="0 0 900 900" stroke-width="6"'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 390" width="700" height="390" '
        'font-family="sans-serif" font-size="14" fill="none"><rect width="700" height="390" fill="#fff"/>'
        f'<svg x="20" {frame}>{drawn}</svg>'
        f'<svg x="380" {frame}><path d="{bars}" stroke="#00795a" stroke-width="{max(3, 600 // len(found))}"/></svg>'
        '<path d="M20 154H320M20 324H320M380 324H680" stroke="#68707a"/>'
        f'<g fill="#22272e"><circle r="6" cx="{20 + across(c.z):.1f}" cy="154"/>'
        '<text x="20" y="16">q(z_t), and below it one step back</text>'
        '<text x="20" y="342">reversal: orange; the model\'s link: blue</text>'
        '<text x="380" y="16">nats lost in each step</text>'
        '<text x="680" y="342" text-anchor="end">log SNR, from noise to data</text>'
        f'<text x="350" y="376" text-anchor="middle">t = {t} of {count}: cost {_number(here.cost)} = news '
        f"{_number(here.news)} + lost {_number(here.lost)} nats; all steps lose "
        f"{_number(sum(s.lost for s in found))}</text></g></svg>"
    )
