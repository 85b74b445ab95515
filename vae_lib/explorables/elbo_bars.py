"""Chapter 1's figure: move q, and the bars ELBO + KL always fill log p(x).

The model is z ~ N(0, 1), x | z ~ N(a z² + b z, s²) with one scalar observation x; q(z) = N(mean, width²).
The template computes everything in the reader's browser. Here the settings are checked and the first frame is
drawn as a still picture, for places that strip scripts (an untrusted notebook, a printed page).
"""

import base64
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from numbers import Real

# The picture's frame, handed to the template so that still and live figure agree.
VIEW = 4.0  # z runs over [-VIEW, VIEW]
MEAN_MAX = 3.0  # the mean slider runs over [-MEAN_MAX, MEAN_MAX]
WIDTH_MIN, WIDTH_MAX = 0.1, 3.0
MINUS = "\N{MINUS SIGN}"  # a hyphen is too short beside digits
NATS_LEFT, NATS_RIGHT = 8.0, 0.7  # the bar's axis: log p(x) - NATS_LEFT .. log p(x) + NATS_RIGHT


@dataclass(frozen=True)
class Config:
    """Decoder f(z) = a z² + b z, noise s, observation x; q starts at N(mean, width²).

    The defaults make f(1) = f(-1.5) = x: two latents explain the observation equally well, and the prior
    prefers one.
    """

    a: float = 1.0
    b: float = 0.5
    s: float = 0.5
    x: float = 1.5
    mean: float = 0.0
    width: float = 0.7


def html(**config: float) -> str:
    """The figure as HTML. Raises ValueError (one line) for a setting it does not know or cannot show."""
    settings = _checked(config)
    still = base64.b64encode(_still_svg(settings).encode()).decode()
    frame = {"view": VIEW, "meanMax": MEAN_MAX, "widthMin": WIDTH_MIN, "widthMax": WIDTH_MAX}
    frame |= {"natsLeft": NATS_LEFT, "natsRight": NATS_RIGHT}
    page = files(__package__).joinpath("elbo_bars.html").read_text(encoding="utf-8")
    for mark, text in {
        "{{config}}": json.dumps(asdict(settings) | frame).replace('"', "&quot;"),
        "{{decoder}}": _decoder_text(settings.a, settings.b),
        "{{s}}": f"{settings.s:g}",
        "{{x}}": _number(settings.x),
        "{{still}}": still,
    }.items():
        page = page.replace(mark, text)
    return page


def log_joint(settings: Config, z: float) -> float:
    """Return log p(x, z) in nats."""
    return _log_normal(z, 0.0, 1.0) + _log_normal(settings.x, settings.a * z * z + settings.b * z, settings.s)


def _log_normal(value: float, mean: float, std: float) -> float:
    return -0.5 * math.log(2 * math.pi) - math.log(std) - 0.5 * ((value - mean) / std) ** 2


def _trapezoid(f: Callable[[float], float], low: float, high: float, intervals: int) -> float:
    # On a smooth integrand that has died out at both ends this plain rule is exact to rounding.
    step = (high - low) / intervals
    return step * math.fsum([0.5 * (f(low) + f(high)), *(f(low + i * step) for i in range(1, intervals))])


def _checked(config: dict[str, float]) -> Config:
    names = [field.name for field in fields(Config)]
    for name, value in config.items():
        if name not in names:
            raise ValueError(f"elbo_bars: expected settings among {', '.join(names)}, found {name!r}")
        if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) <= 1e6:
            raise ValueError(f"{name}: expected a finite number of size at most 1e6, found {value!r}")
    settings = Config(**{name: float(value) for name, value in config.items()})
    if not 0.01 <= settings.s <= 100:
        raise ValueError(f"s: expected a positive standard deviation in [0.01, 100], found {settings.s:g}")
    if abs(settings.mean) > MEAN_MAX:
        raise ValueError(f"mean: expected a number in [{-MEAN_MAX:g}, {MEAN_MAX:g}], found {settings.mean:g}")
    if not WIDTH_MIN <= settings.width <= WIDTH_MAX:
        raise ValueError(f"width: expected a number in [{WIDTH_MIN}, {WIDTH_MAX}], found {settings.width:g}")

    def p(z: float) -> float:
        return math.exp(log_joint(settings, z))

    # The browser's grids hold only if the posterior lies in the picture and is not narrower than their step: the
    # same integral on its z-grid and on one twice as coarse must agree.
    fine, coarse = _trapezoid(p, -12, 12, 2400), _trapezoid(p, -12, 12, 1200)
    seen = _trapezoid(p, -VIEW, VIEW, 800)
    if not (fine > 0 and abs(coarse / fine - 1) < 1e-10 and seen / fine > 0.99):
        raise ValueError(
            f"a, b, s, x: expected a posterior p(z|x) within [{-VIEW:g}, {VIEW:g}], wider than about 0.02; "
            f"found otherwise at a={settings.a:g}, b={settings.b:g}, s={settings.s:g}, x={settings.x:g}"
        )
    return settings


def _number(value: float, digits: str = "g") -> str:
    return format(value, digits).replace("-", MINUS)


def _decoder_text(a: float, b: float) -> str:
    square = "" if a == 1 else f"{_number(a)} "
    return f"{square}z² {'+' if b >= 0 else MINUS} {abs(b):g} z"


def _still_svg(c: Config) -> str:
    """The first frame, 700 by 330 pixels on a white plate (an <img> cannot follow the page's dark mode)."""

    def elbo_integrand(t: float) -> float:
        z = c.mean + c.width * t
        return math.exp(_log_normal(t, 0, 1)) * (log_joint(c, z) - _log_normal(z, c.mean, c.width))

    evidence = math.log(_trapezoid(lambda z: math.exp(log_joint(c, z)), -12, 12, 2400))
    elbo = _trapezoid(elbo_integrand, -12, 12, 96)
    grid = [VIEW * (i / 70 - 1) for i in range(141)]
    posterior = [math.exp(log_joint(c, z) - evidence) for z in grid]
    prior = [math.exp(_log_normal(z, 0, 1)) for z in grid]
    q = [math.exp(_log_normal(z, c.mean, c.width)) for z in grid]
    top = max(posterior + q)

    def path(density: list[float]) -> str:
        points = zip(grid, density, strict=True)
        return "M" + "L".join(f"{350 + 340 * z / VIEW:.1f} {210 - 190 * d / top:.1f}" for z, d in points)

    def nats(value: float) -> float:  # clipped at the left end, as in the live figure
        return max(10.0, 10 + 680 * (value - evidence + NATS_LEFT) / (NATS_LEFT + NATS_RIGHT))

    left, end = nats(elbo), nats(evidence)
    word = "ELBO" if left > 10 else "\N{LEFTWARDS ARROW} off the scale: ELBO"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 330" width="700" height="330" '
        'font-family="sans-serif" font-size="14"><rect width="700" height="330" fill="#fff"/>'
        f'<path d="{path(posterior)}" fill="#ccd2d9" stroke="#68707a"/>'
        f'<path d="{path(prior)}" fill="none" stroke="#68707a" stroke-dasharray="4 4"/>'
        f'<path d="{path(q)}" fill="none" stroke="#0072b2" stroke-width="3"/>'
        f'<path d="M10 210H690" stroke="#68707a"/><text x="350" y="230" text-anchor="middle">z</text>'
        f'<text x="10" y="262">{word} {_number(elbo, ".3f")}</text>'
        f'<text x="{end - 8:.1f}" y="262" text-anchor="end">KL {_number(evidence - elbo, ".3f")}</text>'
        f'<rect x="10" y="270" width="{left - 10:.1f}" height="28" fill="#0072b2"/>'
        f'<rect x="{left:.1f}" y="270" width="{end - left:.1f}" height="28" fill="#d55e00"/>'
        f'<path d="M{end:.1f} 246V304" stroke="#22272e" stroke-width="2"/>'
        f'<text x="690" y="322" text-anchor="end">log p(x) = {_number(evidence, ".3f")} nats</text></svg>'
    )
