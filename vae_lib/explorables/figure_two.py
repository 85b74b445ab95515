"""Chapter 6's figure: the curves of Figure 2 of Kingma and Welling (2014) as we found them, switched on and off.

It shows the record of the experiment ``aevb-fig2``, which the notebook hands over: an installed package has no stored
runs. The record goes into the page as a table of numbers, rounded to 0.01 nat, so the figure needs no file and no
network. Nothing is interpolated: a curve has a value after those numbers of images at which the training was looked at.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from importlib.resources import files
from numbers import Real
from typing import Any

TITLES = {"mnist": "MNIST", "frey": "Frey Face"}
METHODS = {"aevb": "AEVB", "wake-sleep": "wake-sleep"}
# The paper's vertical axes in nats, and the step of their numbers.
WINDOWS = {"mnist": (-150.0, -100.0, 10.0), "frey": (0.0, 1600.0, 400.0)}
MINUS = "\N{MINUS SIGN}"  # a hyphen is too short beside digits
COLOURS = {"aevb": "#0072b2", "wake-sleep": "#b04a00"}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Config:
    """The record of the experiment, as ``chapter.stored_run`` reads it, and the data set to begin with.

    ``data`` is ``"mnist"`` or ``"frey"``; left out, it is the first that the record has curves of.
    """

    record: Mapping[str, Any]
    data: str = ""


@dataclass(frozen=True)
class Curve:
    """One training. Values stand in the order of the data set's marks; None where the training was over."""

    latents: int
    method: str
    seed: int
    train: list[float | None]
    test: list[float | None]
    seconds: list[float | None]


@dataclass(frozen=True)
class DataSet:
    """All curves of a data set, the numbers of images at which they were looked at, and the first in the picture."""

    title: str
    marks: list[int]
    first: int
    curves: list[Curve]


def html(**config: Any) -> str:
    """The figure as HTML. Raises ValueError (one line) for a setting it does not know or cannot show."""
    c = _checked(config)
    found = data_sets(c.record)
    if c.data and c.data not in found:
        raise ValueError(f"data: expected one of {', '.join(found)}, found {c.data!r}")
    chosen = c.data or next(iter(found))
    table = {
        name: {
            "title": part.title,
            "marks": part.marks,
            "first": part.first,
            "window": WINDOWS[name],
            "curves": [list(vars(curve).values()) for curve in part.curves],
        }
        for name, part in found.items()
    }
    settings = {"data": chosen, "methods": METHODS, "sets": table}
    page = files(__package__).joinpath("figure_two.html").read_text(encoding="utf-8")
    for mark, text in {
        "{{config}}": json.dumps(settings, separators=(",", ":")),
        "{{device}}": escape(str(c.record.get("device", "not recorded"))),
        "{{still}}": base64.b64encode(_still_svg(chosen, found[chosen]).encode()).decode(),
    }.items():
        page = page.replace(mark, text)
    return page


def data_sets(record: Mapping[str, Any]) -> dict[str, DataSet]:
    """Return what the figure shows of a record, by data set: bounds rounded to 0.01 nat, seconds to 0.01."""
    found: dict[str, DataSet] = {}
    for name in TITLES:
        results = [r for r in record["results"] if r["settings"]["data"] == name and r["rows"]]
        if not results:
            continue
        results.sort(key=lambda r: (r["settings"]["latents"], r["settings"]["method"], r["settings"]["seed"]))
        marks = sorted({row["samples"] for r in results for row in r["rows"]})
        curves = [_curve(r["settings"], {row["samples"]: row for row in r["rows"]}, marks) for r in results]
        low = WINDOWS[name][0]
        reached = [
            i for i in range(len(marks)) if any((v or low) > low for c in curves for v in (c.train[i], c.test[i]))
        ]
        # The paper leaves out how the curves come up from below: so does the picture, but for the last step.
        first = min(max(min(reached, default=0) - 1, 0), max(len(marks) - 2, 0))
        stand_in = any(r["settings"].get("stand_in") for r in results)
        found[name] = DataSet(TITLES[name] + " (stand-in)" * stand_in, marks, first, curves)
    return found


def _curve(settings: Mapping[str, Any], rows: Mapping[int, Mapping[str, float]], marks: Sequence[int]) -> Curve:
    def column(name: str) -> list[float | None]:
        return [round(float(rows[mark][name]), 2) if mark in rows else None for mark in marks]

    key = (settings["latents"], settings["method"], settings["seed"])
    return Curve(*key, column("train_elbo"), column("test_elbo"), column("seconds"))


def _checked(config: dict[str, Any]) -> Config:
    names = [field.name for field in fields(Config)]
    for name in config:
        if name not in names:
            raise ValueError(f"figure_two: expected settings among {', '.join(names)}, found {name!r}")
    record, data = config.get("record"), config.get("data", "")
    if not isinstance(record, Mapping) or record.get("experiment") != "aevb-fig2":
        found = "none" if record is None else repr(record.get("experiment") if isinstance(record, Mapping) else record)
        raise ValueError(f"record: expected that of the experiment aevb-fig2, found {found[:60]}")
    if data not in ("", *TITLES):
        raise ValueError(f"data: expected one of {', '.join(TITLES)}, found {data!r}")
    _check_results(record.get("results"))
    return Config(record, data)


def _check_results(results: Any) -> None:
    if not isinstance(results, list) or not any(isinstance(r, Mapping) and r.get("rows") for r in results):
        raise ValueError("record: expected a list of results with at least one curve, found none")
    seen = set()
    for number, result in enumerate(results):
        try:
            settings = result["settings"]
            key = tuple(settings[name] for name in ("data", "latents", "method", "seed"))
            known = settings["data"] in TITLES and settings["method"] in METHODS
            values = [row[name] for row in result["rows"] for name in ("samples", "train_elbo", "test_elbo", "seconds")]
        except (KeyError, TypeError) as error:
            raise ValueError(f"record: expected settings and rows in result {number}, found none of {error}") from None
        name = "-".join(map(str, key))
        if not known:
            raise ValueError(f"record: expected data and method that the figure knows, found {name}")
        if not all(isinstance(v, Real) and math.isfinite(v) for v in (key[1], key[3], *values)):
            raise ValueError(f"record: expected finite numbers, found others in {name}")
        if any(row["samples"] < 1 or row["seconds"] < 0 for row in result["rows"]):
            raise ValueError(f"record: expected positive samples and seconds, found others in {name}")
        if key in seen:
            raise ValueError(f"record: expected each curve once, found {name} twice")
        seen.add(key)


def _number(value: float) -> str:
    return f"{value:,g}".replace("-", MINUS)


def _still_svg(name: str, part: DataSet) -> str:
    """The first frame, 700 by 380 pixels on a white plate (an <img> cannot follow the page's dark mode)."""
    low, high, step = WINDOWS[name]
    marks = part.marks[part.first :]
    span = math.log(marks[-1] / marks[0]) or 1.0

    def x(mark: int) -> float:
        return 590 * math.log(mark / marks[0]) / span

    def y(value: float) -> float:
        return min(20_000.0, 300 * (high - value) / (high - low))

    scaffold, lines = "", ""
    for i in range(round((high - low) / step) + 1):
        at = y(low + i * step) + 20
        scaffold += f'<path d="M60 {at:g}h590" stroke="#e3e6ea"/>'
        scaffold += f'<text x="54" y="{at + 5:g}" text-anchor="end">{_number(low + i * step)}</text>'
    for power in range(math.ceil(math.log10(marks[0])), math.floor(math.log10(marks[-1])) + 1):
        at = 60 + x(10**power)
        word = "10" + str(power).translate(SUPERSCRIPTS)
        scaffold += f'<path d="M{at:.1f} 320v5" stroke="#5c646e"/>'
        scaffold += f'<text x="{at:.1f}" y="340" text-anchor="middle">{word}</text>'
    latents = sorted({c.latents for c in part.curves})
    shown = {latents[0], *latents[-2:]}
    labels: list[tuple[float, str]] = []
    for c in part.curves:
        if c.latents not in shown:
            continue
        for values, dash in ((c.train, ""), (c.test, ' stroke-dasharray="6 4"')):
            points = [(x(m), y(v)) for m, v in zip(marks, values[part.first :], strict=True) if v is not None]
            if points:
                path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
                lines += f'<path d="{path}" stroke="{COLOURS[c.method]}"{dash}/>'
        last = c.train[-1]
        if last is not None and low <= last <= high and c.seed == part.curves[0].seed:
            words = f'fill="{COLOURS[c.method]}">{c.latents}'
            labels.append((y(last) + 25, words))
    ends, above = "", 0.0
    for at, words in sorted(labels):
        above = max(at, above + 15)
        ends += f'<text x="656" y="{above:.1f}" {words}</text>'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 380" width="700" height="380" '
        'font-family="sans-serif" font-size="14"><rect width="700" height="380" fill="#fff"/>'
        f'<g fill="#22272e">{scaffold}<text x="60" y="14">{part.title}: bound, nats an image</text>'
        f'<text x="650" y="14" text-anchor="end"><tspan fill="{COLOURS["aevb"]}">AEVB</tspan>, '
        f'<tspan fill="{COLOURS["wake-sleep"]}">wake-sleep</tspan>; train solid, test dashed</text>'
        '<text x="650" y="362" text-anchor="end">training images seen; at the curves: number of latents</text></g>'
        '<path d="M60 20V320H650" stroke="#5c646e" fill="none"/>'
        f'<svg x="60" y="20" width="590" height="300"><g fill="none" stroke-width="2">{lines}</g></svg>{ends}</svg>'
    )
