"""The figure of chapter 6: every number and every line is that of the record, whatever is switched on."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.explorables.test_promises import SVG, still_picture
from vae_lib import chapter
from vae_lib.explorables import explorable_html, figure_two

Show = Callable[[Page, str], None]
NAME = "figure_two"
MARKS = [digit * 10**power for power in (3, 4, 5) for digit in (1, 2, 5)] + [10**6]
LATENTS = {"mnist": (3, 5, 10, 20, 200), "frey": (2, 5, 10, 20)}
METHODS = ("aevb", "wake-sleep")
SPLITS = ("train", "test")
STORED = sorted((Path(__file__).parents[2] / "book" / "runs").glob("aevb-fig2-*.json"))


def made_up(seeds: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    """A record with curves like ours, each unlike the others; seed 1 of one curve stops early."""
    results = []
    for number, (seed, (data, latents), method) in enumerate(
        itertools.product(seeds, [(name, n) for name in LATENTS for n in LATENTS[name]], METHODS)
    ):
        rows = []
        for k, mark in enumerate(MARKS):
            wake = method == "wake-sleep"
            if data == "mnist":
                value = -104.0 - 30 / math.sqrt(latents) - 6 * wake - 60 * (1e4 / mark) ** 0.6
                value -= 10 ** (6.5 - 1.5 * k) if wake and k < 3 else 0.0
                gap = 0.3 * k * (1 + (latents == 200))
            else:
                value, gap = 700 + 25 * math.log(latents) - 30 * wake - 700 / math.sqrt(mark / 1e3), 20.0 * k
            value += 0.7 * math.sin(7 * number + k)
            row = {"samples": mark, "seconds": round(mark * 1e-4 * (1 + 0.8 * wake) * (1 + 0.01 * number), 2)}
            rows.append(row | {"train_elbo": round(value + gap / 2, 4), "test_elbo": round(value - gap / 2, 4)})
        settings = {"data": data, "latents": latents, "method": method, "seed": seed, "stand_in": False}
        result: dict[str, Any] = {"settings": settings, "rows": rows}
        if (data, latents, method, seed) == ("mnist", 200, "wake-sleep", 1):
            result |= {"rows": rows[:6], "stopped": "the bound is not finite"}
        results.append(result)
    return {"experiment": "aevb-fig2", "device": "a <slow> CPU", "results": results}


RECORD = made_up()
HTML = explorable_html(NAME, record=RECORD)


def rows_of(record: dict[str, Any], data: str, latents: int, method: str) -> dict[int, dict[int, dict[str, float]]]:
    """Rows by seed and number of images."""
    key = {"data": data, "latents": latents, "method": method}
    return {
        result["settings"]["seed"]: {row["samples"]: row for row in result["rows"]}
        for result in record["results"]
        if key.items() <= result["settings"].items()
    }


def switch(page: Page, group: str, *on: object) -> None:
    """Switch on what is named, and off all else of the group."""
    for box in page.locator(f'input[data-{group}][type="checkbox"]').all():
        box.set_checked(box.get_attribute("value") in [str(name) for name in on])


def go_to(page: Page, mark: int) -> None:
    page.locator('[data-slider="mark"]').fill(str(MARKS.index(mark)))
    assert page.get_attribute("figure", "data-images") == str(mark)


def shown(page: Page) -> dict[str, float]:
    return dict(
        page.locator("[data-quantity]").evaluate_all("all => all.map(n => [n.dataset.quantity, +n.dataset.value])")
    )


def lines(page: Page) -> dict[str, np.ndarray]:
    """Pixels of each line, from its method, latents, seed and split."""
    found = page.locator("[data-line]").evaluate_all("all => all.map(n => [n.dataset.line, n.getAttribute('d')])")
    return {name: np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", d), dtype=float) for name, d in found}


def plot(page: Page) -> tuple[float, float, float, float]:
    """Left, top, width and height of the part of the picture between its axes."""
    names = "['x', 'y', 'width', 'height'].map(k => n[k].baseVal.value)"
    x, y, width, height = page.locator('[data-part="plot"]').evaluate(f"n => {names}")
    return x, y, width, height


# ---- before any browser opens it ---------------------------------------------------------------------------------


def test_equal_records_give_equal_text_and_the_record_is_not_touched() -> None:
    record = copy.deepcopy(RECORD)
    assert explorable_html(NAME, record=record) == HTML
    assert record == RECORD
    record["results"].reverse()
    assert explorable_html(NAME, record=record) == HTML
    assert explorable_html(NAME, record=RECORD, data="frey") != HTML


def test_it_asks_nothing_of_the_network_and_stays_small() -> None:
    empty = made_up((0,))
    for result in empty["results"]:
        del result["rows"][1:]
    assert len(explorable_html(NAME, record=empty).encode()) < 32_000
    assert len(HTML.encode()) < 50_000  # 54 curves of ten rows
    assert set(re.findall(r"""https?://[^\s"'<>)]+""", HTML + still_picture(HTML))) == {SVG}
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|\burl\(|\bfetch\(|XMLHttpRequest""", HTML)
    assert not re.search(r"\{\{\w+\}\}", HTML)
    assert "machine of the run (a &lt;slow&gt; CPU)" in HTML


@pytest.mark.parametrize("path", [None, *STORED], ids=lambda path: path.stem if path else "made up")
def test_the_page_holds_each_number_of_the_record_to_the_hundredth(path: Path | None) -> None:
    record = json.loads(path.read_text(encoding="utf-8")) if path else RECORD
    found = re.search(r"data-config='([^']+)'", explorable_html(NAME, record=record))
    assert found is not None
    sets, count = json.loads(found[1])["sets"], 0
    for data, part in sets.items():
        for latents, method, seed, *columns in part["curves"]:
            rows = rows_of(record, data, latents, method)[seed]
            for name, column in zip(("train_elbo", "test_elbo", "seconds"), columns, strict=True):
                assert {m: v for m, v in zip(part["marks"], column, strict=True) if v is not None} == {
                    mark: pytest.approx(row[name], abs=0.005 + 1e-9) for mark, row in rows.items()
                }
            count += 1
    assert count == sum(bool(result["rows"]) for result in record["results"])


def broken(*path: Any, value: Any) -> dict[str, Any]:
    record = made_up((0,))
    node: Any = record
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sigma": 1.0}, "figure_two: expected settings among record, data, found 'sigma'"),
        ({}, "record: expected that of the experiment aevb-fig2, found none"),
        ({"record": "aevb-fig2"}, "record: expected that of the experiment aevb-fig2, found 'aevb-fig2'"),
        ({"record": {"experiment": "other"}}, "record: expected that of the experiment aevb-fig2, found 'other'"),
        ({"record": RECORD, "data": "cifar"}, "data: expected one of mnist, frey, found 'cifar'"),
        (
            {"record": RECORD | {"results": RECORD["results"][:1]}, "data": "frey"},
            "data: expected one of mnist, found 'frey'",
        ),
        (
            {"record": RECORD | {"results": []}},
            "record: expected a list of results with at least one curve, found none",
        ),
        (
            {"record": broken("results", 2, "settings", value={})},
            "record: expected settings and rows in result 2, found none of 'data'",
        ),
        (
            {"record": broken("results", 1, "rows", 0, value={"samples": 1000})},
            "record: expected settings and rows in result 1, found none of 'train_elbo'",
        ),
        (
            {"record": broken("results", 0, "settings", "method", value="sleep")},
            "record: expected data and method that the figure knows, found mnist-3-sleep-0",
        ),
        (
            {"record": broken("results", 0, "rows", 3, "test_elbo", value=math.nan)},
            "record: expected finite numbers, found others in mnist-3-aevb-0",
        ),
        (
            {"record": broken("results", 0, "rows", 3, "samples", value=0)},
            "record: expected positive samples and seconds, found others in mnist-3-aevb-0",
        ),
        (
            {"record": broken("results", 1, value=RECORD["results"][0])},
            "record: expected each curve once, found mnist-3-aevb-0 twice",
        ),
    ],
)
def test_what_it_cannot_show_gets_one_clear_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        explorable_html(NAME, **config)


def test_a_chapter_shows_a_stored_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "some.json").write_text(json.dumps(RECORD), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    figure: Any = chapter.explorable(NAME, record=chapter.stored_run("some"))
    assert figure._repr_html_() == HTML


def test_a_stand_in_is_not_called_mnist() -> None:
    record = copy.deepcopy(RECORD)
    record["results"][0]["settings"]["stand_in"] = True
    assert figure_two.data_sets(record)["mnist"].title == "MNIST (stand-in)"
    assert figure_two.data_sets(RECORD)["mnist"].title == "MNIST"


def test_the_first_mark_is_the_last_before_a_curve_comes_into_the_paper_s_axis() -> None:
    part = figure_two.data_sets(RECORD)["mnist"]
    results = [result for result in RECORD["results"] if result["settings"]["data"] == "mnist"]
    reached = min(row["samples"] for result in results for row in result["rows"] if row["train_elbo"] > -150)
    assert part.marks[part.first + 1] == reached


# ---- the table -----------------------------------------------------------------------------------------------------


def read_numbers(cell: str) -> list[float]:
    """The numbers of a cell of the table as a reader takes them."""
    plain = cell.replace("\N{MINUS SIGN}", "-").replace(",", "").replace("·10", "e")
    plain = plain.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789"))
    return [float(word) for word in re.findall(r"-?\d+(?:\.\d+)?(?:e\d+)?", plain)]


def rounded(value: float) -> Any:
    """What may be read where this is meant: hundredths, as long as there is room for them."""
    if abs(value) < 9999:
        return pytest.approx(value, abs=0.0176)
    return pytest.approx(value, abs=0.6) if abs(value) < 99_999 else pytest.approx(value, rel=0.005)


@pytest.mark.parametrize("data", LATENTS)
@pytest.mark.parametrize("seeds", [(0, 1, 2), (0, 2), (1,)], ids=str)
def test_the_table_is_that_of_the_record(page: Page, show: Show, data: str, seeds: tuple[int, ...]) -> None:
    """Mean and standard deviation of the seeds that are on.

    The page keeps hundredths, so a value is off by 0.005, a gap by 0.01, its deviation by at most 0.0125; a word rounds
    once more.
    """
    show(page, explorable_html(NAME, record=RECORD, data=data))
    page.check('input[data-up="all"]')
    page.check('input[data-across="seconds"]')
    switch(page, "latents", *LATENTS[data])
    switch(page, "seeds", *seeds)
    for mark in (1000, 100_000, 1_000_000):
        go_to(page, mark)
        expected, spreads = {}, {}
        for latents, method in itertools.product(LATENTS[data], METHODS):
            rows = [
                rows[mark]
                for seed, rows in rows_of(RECORD, data, latents, method).items()
                if seed in seeds and mark in rows
            ]
            if not rows:
                stopped = page.locator(f'[data-row="{method}-{latents}"] td').all_text_contents()
                assert stopped == ["stopped"] * 4
                continue
            columns = {"train": [row["train_elbo"] for row in rows], "test": [row["test_elbo"] for row in rows]}
            columns["gap"] = [row["train_elbo"] - row["test_elbo"] for row in rows]
            columns["seconds"] = [row["seconds"] for row in rows]
            for name, values in columns.items():
                expected[f"{method}-{latents}-{name}"] = mean(values)
                spreads[f"{method}-{latents}-{name}"] = stdev(values) if len(values) > 1 else None
        found = shown(page)
        assert found.keys() == expected.keys()
        assert len(found) == 4 * (2 * len(LATENTS[data]) - (data == "mnist" and seeds == (1,) and mark > 50_000))
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=0.0101), name
            cell = page.locator(f'td:has([data-quantity="{name}"])').text_content() or ""
            said = read_numbers(cell)
            assert said[0] == rounded(value)
            spread = spreads[name]
            assert ("±" in cell) == (spread is not None)
            if spread is not None:
                assert said[1] == rounded(spread), name


def test_a_mean_of_fewer_seeds_says_so(page: Page, show: Show) -> None:
    show(page, HTML)
    rows = {row: page.locator(f'[data-row="{row}"]').text_content() or "" for row in ("wake-sleep-200", "wake-sleep-3")}
    assert "(2 seeds)" in rows["wake-sleep-200"]
    assert "seeds)" not in rows["wake-sleep-3"]
    assert "mean of 3 seeds" in (page.locator("caption").text_content() or "")


def test_columns_follow_the_switches(page: Page, show: Show) -> None:
    show(page, HTML)
    heads = page.locator("thead th")
    assert heads.all_text_contents() == ["latents, method", "training", "test", "training \N{MINUS SIGN} test"]
    switch(page, "splits", "test")
    assert heads.all_text_contents() == ["latents, method", "test"]
    switch(page, "splits")
    assert shown(page) == {}
    assert page.locator("svg .on").all_text_contents() == ["no run is switched on"]
    switch(page, "splits", "train")
    switch(page, "methods", "aevb")
    assert set(shown(page)) == {"aevb-3-train", "aevb-20-train", "aevb-200-train"}


def test_one_seed_has_no_switch_and_no_spread(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, record=made_up((0,))))
    assert page.locator("input[data-seeds]").count() == 0
    assert "±" not in (page.locator("table").text_content() or "")
    assert len(shown(page)) == 18


# ---- the lines -----------------------------------------------------------------------------------------------------


def upward(value: float, data: str, up: str, top: float, bottom: float) -> float:
    """Part of the height from the top down."""
    low, high = {"mnist": (-150, -100), "frey": (0, 1600)}[data]
    if up == "paper":
        return min((high - value) / (high - low), 60)
    bend = (high - low) / 10
    return 0.03 + 0.94 * math.asinh((top - value) / bend) / math.asinh((top - bottom) / bend)


@pytest.mark.parametrize(("data", "up"), [(name, up) for name in LATENTS for up in ("paper", "all")])
@pytest.mark.parametrize("width", [900, 390])
def test_each_line_runs_through_its_rows(page: Page, show: Show, data: str, up: str, width: int) -> None:
    """On both axes, to the tenth of a pixel that a path keeps and the hundredth of a nat or second of the page."""
    page.set_viewport_size({"width": width, "height": 900})
    show(page, HTML)
    page.check(f'input[data-data="{data}"]')
    page.check(f'input[data-up="{up}"]')
    latents = LATENTS[data][1:3]
    switch(page, "latents", *latents)
    switch(page, "seeds", 0, 2)
    marks = MARKS[figure_two.data_sets(RECORD)[data].first if up == "paper" else 0 :]
    curves = {(n, m, seed): rows_of(RECORD, data, n, m)[seed] for n in latents for m in METHODS for seed in (0, 2)}
    values = [row[f"{split}_elbo"] for rows in curves.values() for row in rows.values() for split in SPLITS]
    times = [r["seconds"] for n in LATENTS[data] for m in METHODS for rows in rows_of(RECORD, data, n, m).values()
             for mark, r in rows.items() if mark in marks]  # fmt: skip
    for across in ("images", "seconds"):
        page.check(f'input[data-across="{across}"]')
        low, high = (marks[0], marks[-1]) if across == "images" else (min(times), max(times))
        x, y, w, h = plot(page)
        found = lines(page)
        assert len(found) == 16
        for (n, method, seed), rows in curves.items():
            for split in SPLITS:
                side = [mark if across == "images" else rows[mark]["seconds"] for mark in marks]
                height = [upward(rows[mark][f"{split}_elbo"], data, up, max(values), min(values)) for mark in marks]
                expected = np.stack(
                    [x + 6 + (w - 12) * np.log(np.divide(side, low)) / math.log(high / low), y + h * np.array(height)],
                    1,
                )
                assert np.abs(found[f"{method}-{n}-{seed}-{split}"] - expected).max() < 0.2


def test_the_marks_of_the_axes_stand_where_they_say(page: Page, show: Show) -> None:
    show(page, HTML)
    x, y, w, h = plot(page)
    words = page.locator('[data-part="picture"] .tick').evaluate_all(
        """all => all.map(n => [n.textContent, ...["text-anchor", "x", "y"].map(name => n.getAttribute(name))])"""
    )
    words = [(word, anchor, float(across), float(down)) for word, anchor, across, down in words]
    heights = {
        float(word.replace("\N{MINUS SIGN}", "-")): down - 4 for word, anchor, at, down in words if at < x and anchor
    }
    assert heights == {-150 + 10 * i: pytest.approx(y + h * (5 - i) / 5) for i in range(6)}
    first = MARKS[figure_two.data_sets(RECORD)["mnist"].first]
    places = {word: at for word, anchor, at, _ in words if anchor == "middle"}
    for word, mark in (("10⁵", 1e5), ("10⁶", 1e6)):
        assert places[word] == pytest.approx(
            x + 6 + (w - 12) * math.log(mark / first) / math.log(1e6 / first), abs=0.01
        )


def test_what_lies_outside_is_counted(page: Page, show: Show) -> None:
    show(page, HTML)
    first = MARKS[figure_two.data_sets(RECORD)["mnist"].first]
    go_to(page, first)
    values = [
        rows[first][f"{split}_elbo"]
        for n in (3, 20, 200) for m in METHODS for rows in rows_of(RECORD, "mnist", n, m).values() for split in SPLITS
    ]  # fmt: skip
    below = sum(value < -150 for value in values)
    assert below > 0
    note = page.locator('[data-part="outside"]')
    assert note.text_content() == f"↓ {below} of {len(values)} values below"
    go_to(page, 1_000_000)
    assert note.count() == 0
    record = made_up((0,))
    record["results"][0]["rows"][-1]["test_elbo"] = -150.2
    record["results"][0]["rows"][-1]["train_elbo"] = -99.8
    show(page, explorable_html(NAME, record=record))
    assert note.text_content() == "↓ 1 of 12 values below, ↑ 1 of 12 above"


def test_each_line_carries_its_number_of_latents(page: Page, show: Show) -> None:
    """Those that reach the last mark, none on top of another and none below the axis."""
    show(page, HTML)
    switch(page, "latents", *LATENTS["mnist"])
    _, top, _, height = plot(page)
    labels = page.locator("svg .end").evaluate_all("all => all.map(n => [n.textContent, +n.getAttribute('y')])")
    assert sorted(int(word) for word, _ in labels) == sorted(2 * LATENTS["mnist"])
    places = sorted(y for _, y in labels)
    assert np.diff(places).min() > 13.9
    assert top <= places[0]
    assert places[-1] <= top + height + 4.1


def test_the_picture_before_the_script_is_the_picture_after(page: Page, show: Show) -> None:
    show(page, HTML)
    picture = ElementTree.fromstring(still_picture(HTML))
    inside = next(node for node in picture.iter(f"{{{SVG}}}svg") if node.get("x") == "60")
    still = [
        np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", node.attrib["d"]), dtype=float)
        for node in inside.iter(f"{{{SVG}}}path")
    ]
    x, y, w, h = plot(page)
    live = list(lines(page).values())
    assert len(still) == len(live) == 36
    for a, b in zip(still, live, strict=True):
        scaled = (b - [x + 6, y]) * [590 / (w - 12), 300 / h]
        seen = (a[:, 1] < 400) & (scaled[:, 1] < 400)
        assert np.abs(a - scaled)[seen].max() < 0.2
    words = [node.text for node in picture.iter(f"{{{SVG}}}text")]
    assert words.count("200") == words.count("20") == words.count("3") == 2


# ---- what the reader does ------------------------------------------------------------------------------------------


def test_the_keyboard_reaches_every_switch_and_the_values_are_spoken(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, record=made_up((0,))))
    slider = page.locator('[data-slider="mark"]')
    assert slider.get_attribute("aria-valuetext") == "1,000,000 images"
    slider.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "500,000 images"
    slider.press("Home")
    assert page.get_attribute("figure", "data-images") == str(MARKS[figure_two.data_sets(RECORD)["mnist"].first])
    slider.press("End")
    page.focus('[data-methods="wake-sleep"]')
    page.keyboard.press("Space")
    for latents in (20, 200):
        page.focus(f'[data-latents="{latents}"]')
        page.keyboard.press("Space")
    train, test = (f"{shown(page)[f'aevb-3-{split}']:.2f}".replace("-", "\N{MINUS SIGN}") for split in SPLITS)
    gap = f"{shown(page)['aevb-3-gap']:.2f}"
    said = f"After 1,000,000 images. 3 latents, AEVB: training {train}, test {test}, training minus test {gap}."
    page.wait_for_function("said => document.querySelector('[aria-live]').textContent === said", arg=said)
    page.focus('input[data-data="mnist"]')
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("figure", "data-data") == "frey"
    page.focus('input[data-up="paper"]')
    page.keyboard.press("ArrowRight")
    page.focus('input[data-across="images"]')
    page.keyboard.press("ArrowRight")
    assert page.locator("figure").evaluate("f => [f.dataset.up, f.dataset.across]") == ["all", "seconds"]


def test_the_mouse_reads_the_nearest_mark_and_shows_the_nearest_run(page: Page, show: Show) -> None:
    show(page, explorable_html(NAME, record=made_up((0,))))
    box = page.locator('[data-part="picture"]').bounding_box()
    assert box is not None
    points = lines(page)["aevb-3-0-train"]
    marks = MARKS[-len(points) :]
    for mark, (x, y) in list(zip(marks, points, strict=True))[-3:]:
        page.mouse.move(box["x"] + x + 3, box["y"] + y - 2)
        assert page.get_attribute("figure", "data-images") == str(mark)
        assert page.locator("tr.near").get_attribute("data-row") == "aevb-3"
    page.mouse.move(5, 5)
    assert page.locator(".near").count() == 0
    assert page.get_attribute("figure", "data-images") == "1000000"  # it stays
    page.check('input[data-across="seconds"]')
    page.mouse.move(5, 5)
    (before, y), (x, _) = lines(page)["wake-sleep-3-0-train"][-2], lines(page)["aevb-3-0-train"][-1]
    assert 2 < x - before < 20  # right above it the last mark of another run
    page.mouse.move(box["x"] + x, box["y"] + y)
    assert page.get_attribute("figure", "data-images") == "500000"
    assert page.locator("tr.near").get_attribute("data-row") == "wake-sleep-3"
    page.mouse.down()
    page.keyboard.press("ArrowRight")  # a click hands the arrow keys to the slider
    assert page.get_attribute("figure", "data-images") == "1000000"


def test_a_finger_reads_values_and_may_scroll_the_page(browser: Browser, show: Show) -> None:
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844}, offline=True)
    page = context.new_page()
    show(page, HTML)
    box = page.locator('[data-part="picture"]').bounding_box()
    assert box is not None
    x, y, w, _ = plot(page)
    page.touchscreen.tap(box["x"] + x + w - 60, box["y"] + y + 100)
    images = page.get_attribute("figure", "data-images")
    action = page.locator('[data-part="picture"]').evaluate("n => getComputedStyle(n).touchAction")
    context.close()
    assert images == "500000"
    assert action == "pan-y pinch-zoom"


def test_the_questions_set_the_switches_and_reset_takes_them_back(page: Page, show: Show) -> None:
    show(page, HTML)
    first = shown(page)
    assert page.locator(".buttons button").all_text_contents() == [
        "Does a model with 200 latents overfit?",
        "Who is ahead after 10⁵ images, and after 10⁶?",
        "reset",
    ]
    page.click('[data-do="overfit"]')
    assert set(shown(page)) == {f"aevb-{n}-{name}" for n in (3, 20, 200) for name in ("train", "test", "gap")}
    page.click('[data-do="ahead"]')
    assert page.get_attribute("figure", "data-images") == "100000"
    assert set(shown(page)) == {f"{m}-{n}-test" for m in METHODS for n in LATENTS["mnist"]}
    assert "10⁵" in (page.text_content('[data-part="told"]') or "")
    page.check('input[data-data="frey"]')
    assert page.locator('[data-do="overfit"]').text_content() == "Does a model with 20 latents overfit?"
    assert page.get_attribute("figure", "data-images") == "1000000"
    page.click('[data-do="reset"]')
    assert page.get_attribute("figure", "data-data") == "mnist"
    assert shown(page) == first


# ---- at home everywhere --------------------------------------------------------------------------------------------


def test_without_scripts_the_still_picture_is_seen(browser: Browser, show: Show) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    show(page, HTML)
    image = page.locator("figure > img")
    box, alt = image.bounding_box(), image.get_attribute("alt")
    context.close()
    assert box is not None
    assert box["height"] > 200
    assert alt


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, show: Show, theme: str) -> None:
    show(page, f"<main><h1>t</h1>{HTML}</main>")
    page.evaluate("theme => document.documentElement.setAttribute('data-theme', theme)", theme)
    end = lines(page)["aevb-3-0-train"][-1]
    page.locator('[data-part="picture"]').hover(position={"x": end[0], "y": end[1]})
    assert page.locator("tr.near").count() == 1
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_its_colours_stand_out_from_the_paper(page: Page, show: Show, theme: str) -> None:
    """WCAG 2.1: text 4.5 to 1 (axe does not look inside pictures), marks 3 to 1; table text on a marked row, too."""
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    show(page, HTML)

    def luminance(colour: str) -> float:
        channels = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def style(selector: str, name: str) -> float:
        found = page.locator(f"figure {selector}").first
        return luminance(str(found.evaluate("(node, name) => getComputedStyle(node)[name]", name)))

    def contrast(a: float, b: float) -> float:
        return (max(a, b) + 0.05) / (min(a, b) + 0.05)

    paper = luminance(page.locator("figure").evaluate("f => getComputedStyle(f).backgroundColor"))
    end = lines(page)["aevb-3-0-train"][-1]
    page.locator('[data-part="picture"]').hover(position={"x": end[0], "y": end[1]})
    marked = style("tr.near", "backgroundColor")
    assert marked != paper
    assert contrast(marked, style("td i", "color")) >= 4.5
    for method in METHODS:
        assert contrast(paper, style(f".end.{method}", "fill")) >= 4.5
        assert contrast(paper, style(f"g.{method} .curve", "stroke")) >= 3
        for ground in (paper, marked):
            assert contrast(ground, style(f"tr.{method} th", "color")) >= 4.5
    assert contrast(paper, style("svg .tick", "fill")) >= 4.5
    assert contrast(paper, style(".here", "stroke")) >= 3
    assert contrast(paper, style("legend", "color")) >= 4.5
    assert contrast(marked, style("td b", "color")) >= 4.5


@pytest.mark.parametrize("width", [360, 390, 700])
@pytest.mark.parametrize("data", LATENTS)
def test_it_fits_its_column(page: Page, show: Show, width: int, data: str) -> None:
    """With every curve on and the widest numbers, too."""
    page.set_viewport_size({"width": width, "height": 900})
    show(page, explorable_html(NAME, record=RECORD, data=data))
    page.check('input[data-up="all"]')
    page.check('input[data-across="seconds"]')
    switch(page, "latents", *LATENTS[data])
    for mark in (1000, 1_000_000):
        go_to(page, mark)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        outside = """all => { const box = document.querySelector("figure").getBoundingClientRect();
            return all.filter(n => !n.closest("svg svg *")).map(n => [n.getBoundingClientRect(), n.outerHTML])
              .filter(([b]) => b.width > 0 && (b.left < box.left || b.right > box.right)).map(([, html]) => html); }"""
        assert page.locator("figure *:not(.aloud)").evaluate_all(outside) == []


def test_copies_on_a_page_live_side_by_side_and_leak_nothing(page: Page, show: Show) -> None:
    outside = """() => [Object.getOwnPropertyNames(window).sort(),
        [...document.querySelectorAll(".probe")].map(n => [...getComputedStyle(n)].map(k => getComputedStyle(n)[k]))]"""
    probes = '<div style="width:100px"><input class="probe" type="checkbox"><button class="probe">b</button></div>'
    show(page, probes)
    before = page.evaluate(outside)
    show(page, probes + HTML * 2 + explorable_html(NAME, record=RECORD, data="frey"))
    assert page.evaluate(outside) == before
    assert page.locator("figure .controls").count() == 3
    page.locator('input[data-across="seconds"]').nth(1).check()
    state = "all => all.map(f => [f.dataset.data, f.dataset.across])"
    assert page.locator("figure").evaluate_all(state) == [["mnist", "images"], ["mnist", "seconds"], ["frey", "images"]]
    assert page.locator('input[data-across="images"]').first.is_checked()
    assert page.evaluate("document.querySelectorAll('[id]').length") == 0  # no ids that could collide


def test_it_starts_in_a_sandboxed_frame_and_when_inserted_later(page: Page, show: Show) -> None:
    """As Colab shows an output, and as JupyterLab does: markup first, then its scripts made anew."""
    quoted = HTML.replace("&", "&amp;").replace('"', "&quot;")
    show(page, f'<iframe sandbox="allow-scripts" srcdoc="{quoted}"></iframe><div></div>')
    assert page.frame_locator("iframe").locator("[data-quantity]").first.get_attribute("data-value")
    page.evaluate(
        """html => {
            const host = document.createElement("div");
            host.innerHTML = html;
            const old = host.querySelector("script"), made = document.createElement("script");
            made.textContent = old.textContent;
            old.replaceWith(made);
            document.querySelector("div").append(host);
        }""",
        HTML,
    )
    assert page.locator("[data-quantity]").first.get_attribute("data-value")
