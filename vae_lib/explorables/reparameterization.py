"""Chapter 4's figure: one gradient, two estimators; the pathwise one reads slopes, the score function heights.

z ~ q = N(mu, sigma²), and the gradient of E_q f(z) is estimated from one sample z = mu + sigma ε. Twelve fixed values
of ε stand for the samples. Means and variances are exact: each is a combination of E g and of its derivatives in mu for
g = f, f² and f'², because E[ε g] = sigma dE g/dmu when z is normal (Stein's identity), and so on for higher powers.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from numbers import Real
from statistics import NormalDist
from typing import NamedTuple

# The picture's frame, handed to the template so that still and live figure agree.
VIEW = 5.0  # z and ε run over [-VIEW, VIEW]
MU_MAX = 2.5
SIGMA_MIN, SIGMA_MAX = 0.2, 1.4  # MU_MAX + 1.74 SIGMA_MAX < VIEW: no point leaves the picture
LIFT_MAX = 10.0
STEP_AT = 0.5  # where the step stands: off the middle, so that neither of its gradients vanishes by symmetry
# Midpoints of twelve slices of equal probability. Six decimals are the same on every machine.
EPS = tuple(round(NormalDist().inv_cdf((i + 0.5) / 12), 6) for i in range(12))
CHOICES = {"curve": ("square", "cosine", "step"), "mode": ("pathwise", "score"), "wrt": ("mu", "sigma")}
RANGES = {
    "mu": (-MU_MAX, MU_MAX),
    "sigma": (SIGMA_MIN, SIGMA_MAX),
    "lift": (-LIFT_MAX, LIFT_MAX),
    "k": (-4.0, 4.0),
    "c": (0.5, 8.0),
    "w": (0.05, 2.0),
}
MINUS = "\N{MINUS SIGN}"  # a hyphen is too short beside digits


@dataclass(frozen=True)
class Config:
    """What the figure opens with.

    The curve f is ``"square"``, (z - k)², or ``"cosine"``, cos cz, or ``"step"``, Φ((z - 0.5)/w) with the normal
    distribution function Φ; ``lift`` is a constant added to it. ``mode`` is ``"pathwise"`` or ``"score"``, and the
    gradient is with respect to (``wrt``) ``"mu"`` or ``"sigma"`` of q = N(mu, sigma²).
    """

    curve: str = "square"
    mode: str = "pathwise"
    wrt: str = "mu"
    mu: float = 0.0
    sigma: float = 1.0
    lift: float = 0.0
    k: float = 2.0
    c: float = 5.0
    w: float = 0.1


class Exact(NamedTuple):
    """The gradient of E f, and the variance that one sample of each estimator has."""

    mean: float
    pathwise: float
    score: float


class _Averages(NamedTuple):
    """E g under N(mu, sigma²) for three g, each with derivatives in mu."""

    f: tuple[float, float, float, float]  # g = f: orders 0, 1, 2, 4
    f2: tuple[float, float, float]  # g = f²: orders 0, 2, 4
    slope2: tuple[float, float]  # g = f'²: orders 0, 2


def html(**config: float | str) -> str:
    """The figure as HTML. Raises ValueError (one line) for a setting it does not know or cannot show."""
    settings = _checked(config)
    still = base64.b64encode(_still_svg(settings).encode()).decode()
    frame = {"view": VIEW, "stepAt": STEP_AT, "eps": EPS}
    frame |= {"ranges": {name: RANGES[name] for name in ("mu", "sigma", "lift")}}
    page = files(__package__).joinpath("reparameterization.html").read_text(encoding="utf-8")
    for mark, text in {
        "{{config}}": json.dumps(
            asdict(settings) | frame, separators=(",", ":")
        ),  # its words are ours: no quote to escape
        "{{still}}": still,
    }.items():
        page = page.replace(mark, text)
    return re.sub(r"\n +", "\n", page)  # indentation is for those who read the template


def f(settings: Config, z: float) -> float:
    """Return the curve at z, lift included."""
    if settings.curve == "square":
        return (z - settings.k) ** 2 + settings.lift
    if settings.curve == "cosine":
        return math.cos(settings.c * z) + settings.lift
    return _cdf((z - STEP_AT) / settings.w) + settings.lift


def slope(settings: Config, z: float) -> float:
    """Return f'(z)."""
    if settings.curve == "square":
        return 2 * (z - settings.k)
    if settings.curve == "cosine":
        return -settings.c * math.sin(settings.c * z)
    return _density((z - STEP_AT) / settings.w) / settings.w


def samples(settings: Config) -> dict[str, list[float]]:
    """Return each estimator's gradient for each of the twelve samples."""
    c = settings
    zs = [c.mu + c.sigma * e for e in EPS]
    if c.wrt == "mu":
        moves, scores = [1.0] * len(EPS), [e / c.sigma for e in EPS]
    else:
        moves, scores = list(EPS), [(e * e - 1) / c.sigma for e in EPS]
    return {
        "pathwise": [slope(c, z) * move for z, move in zip(zs, moves, strict=True)],
        "score": [f(c, z) * score for z, score in zip(zs, scores, strict=True)],
    }


def exact(settings: Config) -> Exact:
    """Return the gradient and both variances, in closed form.

    For ε ~ N(0, 1) and z = mu + sigma ε, integration by parts gives E[ε² g] = G + sigma² G'' and
    E[(ε² - 1)² g] = 2 G + 4 sigma² G'' + sigma⁴ G'''' with G(mu) = E g(z). Here g is (f + lift)², or f'².
    """
    (f0, f1, f2, f4), square, steep = _averages(settings)
    s2, lift = settings.sigma**2, settings.lift
    a0 = square[0] + 2 * lift * f0 + lift**2
    a2 = s2 * (square[1] + 2 * lift * f2)
    a4 = s2 * s2 * (square[2] + 2 * lift * f4)
    if settings.wrt == "mu":
        mean, path, score = f1, steep[0], (a0 + a2) / s2
    else:
        mean, path, score = settings.sigma * f2, steep[0] + s2 * steep[1], (2 * a0 + 4 * a2 + a4) / s2
    return Exact(mean, max(0.0, path - mean**2), max(0.0, score - mean**2))


def _averages(settings: Config) -> _Averages:
    mu, s2 = settings.mu, settings.sigma**2
    if settings.curve == "square":
        d2 = (mu - settings.k) ** 2
        return _Averages(
            (d2 + s2, 2 * (mu - settings.k), 2.0, 0.0),
            (d2 * d2 + 6 * d2 * s2 + 3 * s2 * s2, 12 * (d2 + s2), 24.0),
            (4 * (d2 + s2), 8.0),
        )
    if settings.curve == "cosine":
        c2, shrunk = settings.c**2, math.exp(-(settings.c**2) * s2 / 2)
        first = shrunk * math.cos(settings.c * mu)
        double = 0.5 * shrunk**4 * math.cos(2 * settings.c * mu)  # f² = ½ + ½ cos 2cz
        return _Averages(
            (first, -settings.c * shrunk * math.sin(settings.c * mu), -c2 * first, c2 * c2 * first),
            (0.5 + double, -4 * c2 * double, 16 * c2 * c2 * double),
            (c2 * (0.5 - double), 4 * c2 * c2 * double),
        )
    # The step: E Φ((z - m)/w) = Φ(v/r), v = mu - m, r² = w² + sigma²; and d/dmu E Φ² = (2/r) φ(v/r) Φ(κ v).
    v, w2 = mu - STEP_AT, settings.w**2
    r = math.sqrt(w2 + s2)
    u, kappa = v / r, settings.w / (r * math.sqrt(w2 + 2 * s2))
    p, t = _density(u), kappa * v
    p1, p2, p3 = -u * p / r, (u * u - 1) * p / r**2, (3 * u - u**3) * p / r**3  # derivatives of φ(v/r)
    t0, t1 = _cdf(t), kappa * _density(t)  # Φ(κ v) and its derivatives
    t2, t3 = -kappa * t * t1, kappa**2 * (t * t - 1) * t1
    flat = w2 / 2 + s2  # f'² is a normal density with variance w²/2, times a constant
    steep = _density(v / math.sqrt(flat)) / math.sqrt(flat) / (2 * settings.w * math.sqrt(math.pi))
    return _Averages(
        (_cdf(u), p / r, p1 / r, p3 / r),
        (
            _cdf(u) - 2 * _owens_t(u, settings.w / math.sqrt(w2 + 2 * s2)),
            2 / r * (p1 * t0 + p * t1),
            2 / r * (p3 * t0 + 3 * p2 * t1 + 3 * p1 * t2 + p * t3),
        ),
        (steep, steep * (v * v / flat - 1) / flat),
    )


def _density(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _owens_t(h: float, a: float) -> float:
    """Owen's T by Simpson's rule: a smooth integrand on [0, a] with a < 1; 200 intervals leave less than 1e-12."""

    def integrand(x: float) -> float:
        return math.exp(-0.5 * h * h * (1 + x * x)) / (1 + x * x)

    n, step = 200, a / 200
    inner = math.fsum((4 if i % 2 else 2) * integrand(i * step) for i in range(1, n))
    return (integrand(0) + inner + integrand(a)) * step / 3 / (2 * math.pi)


def _checked(config: dict[str, float | str]) -> Config:
    names = [field.name for field in fields(Config)]
    numbers: dict[str, float] = {}
    words: dict[str, str] = {}
    for name, value in config.items():
        if name not in names:
            raise ValueError(f"reparameterization: expected settings among {', '.join(names)}, found {name!r}")
        if name in CHOICES:
            if value not in CHOICES[name]:
                raise ValueError(f"{name}: expected one of {', '.join(CHOICES[name])}, found {value!r}")
            words[name] = str(value)
        else:
            low, high = RANGES[name]
            if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
                raise ValueError(f"{name}: expected a number in [{low:g}, {high:g}], found {value!r}")
            numbers[name] = float(value)
    return Config(**words, **numbers)  # type: ignore[arg-type]


def _number(value: float) -> str:
    return f"{value + 0.0:.3f}".replace("-", MINUS).replace(f"{MINUS}0.000", "0.000")


def _axis(values: list[float]) -> tuple[float, float]:
    """Round ends of an axis that holds zero and the values, as in the live figure."""
    low, high = min(0.0, *values), max(0.0, *values)
    span = max(high - low, 0.5)
    ten = 10.0 ** math.floor(math.log10(span))
    step = next(n * ten for n in (0.2, 0.5, 1, 2, 5) if span / (n * ten) <= 6)
    return math.floor(low / step) * step, max(math.ceil(high / step), 1) * step


def _still_svg(c: Config) -> str:
    """The first frame, 700 by 400 pixels on a white plate (an <img> cannot follow the page's dark mode)."""
    gradients, truth = samples(c), exact(c)
    spread = {"score": math.sqrt(truth.score), "pathwise": math.sqrt(truth.pathwise)}
    ends = [truth.mean + sign * sd for sd in spread.values() for sign in (-1, 1)]
    zs = [c.mu + c.sigma * e for e in EPS]
    heights = [f(c, z) for z in zs]

    def scale(axis: tuple[float, float], top: float, bottom: float) -> Callable[[float], float]:
        return lambda v: bottom - (v - axis[0]) / (axis[1] - axis[0]) * (bottom - top)

    def x(z: float) -> float:
        return 270 + 46 * z

    def bell(at: float, mean: float, std: float, tall: float) -> str:
        zs = [z for z in (mean + std * (i / 4 - 3) for i in range(25)) if abs(z) <= VIEW]
        return "M" + "L".join(f"{x(z):.1f} {at - tall * _density((z - mean) / std) / std:.1f}" for z in zs)

    values = _axis([*gradients["pathwise"], *gradients["score"], *ends])
    g, y = scale(values, 26, 146), scale(_axis(heights), 176, 246)
    curve = [(x(z), y(f(c, z))) for z in (min(zs) + (max(zs) - min(zs)) * i / 48 for i in range(49))]
    tall = 140.0 * min(1.0, c.sigma / 0.8)
    columns = words = ""
    for name, word, at in (("score", "score function", 565), ("pathwise", "pathwise", 655)):
        dots = "".join(f"M{at - 15 + 7 * (i % 3)} {g(v):.1f}h0" for i, v in enumerate(gradients[name]))
        low, high = (g(truth.mean + sign * spread[name]) for sign in (-1, 1))
        bracket = f"M{at + 14} {low:.1f}h8m-4 0V{high:.1f}m-4 0h8"
        columns += f'<path d="{dots}" stroke-width="6"/><path d="{bracket}" stroke-width="2"/>'
        words += f'<text x="{at}" y="14">{word}</text><text x="{at}" y="166">± {spread[name]:.2f}</text>'
    pairs = list(zip(zs, EPS, heights, gradients[c.mode], strict=True))
    carried = "".join(f"M{x(e):.0f} 385L{x(z):.0f} 320" for z, e, _, _ in pairs)
    points = "".join(f"M{x(z):.0f} {y(h):.1f}h0" for z, _, h, _ in pairs)
    stems = "".join(f"M{x(z):.0f} {g(0):.1f}V{g(v):.1f}" for z, _, _, v in pairs)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 400" width="700" height="400" '
        'font-family="sans-serif" font-size="13"><rect width="700" height="400" fill="#fff"/>'
        '<g fill="none" stroke="#22272e" stroke-linecap="round"><g stroke="#68707a">'
        f'<path d="M40 {g(0):.1f}H500M40 {y(0):.1f}H500M40 320H500M40 385H500{bell(385, 0, 1, 100)}{carried}"/></g>'
        f'<path d="{bell(320, c.mu, c.sigma, tall)}" stroke="#0072b2" stroke-width="3"/>'
        f'<path d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in curve)}"/><path d="{points}" stroke-width="6"/>'
        f'<path d="{stems}" stroke-width="3"/><path d="M40 {g(truth.mean):.1f}H700" stroke-width="2"/>{columns}</g>'
        f'<g text-anchor="middle">{words}</g><text x="0" y="14">gradients, mean {_number(truth.mean)}</text>'
        f'<text x="0" y="{y(0):.0f}">f(z)</text><text x="0" y="324">q(z)</text><text x="0" y="389">ε</text></svg>'
    )
