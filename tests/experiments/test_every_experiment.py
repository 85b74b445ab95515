"""One suite for every experiment: its units at each scale, a few of them run on the small digits, table and figure.

A new experiment is covered as soon as it stands in ``EXPERIMENTS``.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from matplotlib.figure import Figure
from torch import Tensor

from tests.experiments.small import CPU, short_units, without_times
from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.experiments import EXPERIMENTS, Experiment, Scale, Unit
from vae_lib.experiments import aevb_fig2 as figure_two
from vae_lib.experiments.aevb_fig2 import AEVB_FIG2
from vae_lib.experiments.runner import run_experiment, run_unit

SCALES: tuple[Scale, ...] = get_args(Scale)
each = pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)


def seconds(experiment: Experiment, scale: Scale) -> float:
    return sum(unit.seconds for unit in experiment.units(scale, experiment.seeds(scale), False))


@each
def test_units_have_names_of_their_own_and_plain_settings(experiment: Experiment) -> None:
    for scale, stand_in in itertools.product(SCALES, (False, True)):
        units = experiment.units(scale, (0, 5), stand_in)
        names = [unit.name for unit in units]
        assert len(set(names)) == len(names) > 0
        # A name is that of a folder, and what is typed after --only.
        assert [name for name in names if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name)] == []
        assert {unit.settings["seed"] for unit in units} == {0, 5}
        assert all(unit.settings["stand_in"] is stand_in for unit in units)
        for unit in units:
            assert json.loads(json.dumps(unit.settings, allow_nan=False)) == unit.settings
            assert unit.seconds > 0.0
        # All that the result depends on: no two units have the same settings.
        assert len({json.dumps(unit.settings, sort_keys=True) for unit in units}) == len(units)
        # The first seed of all first: an interrupted run has whole panels.
        assert [unit.settings["seed"] for unit in units] == [0] * (len(units) // 2) + [5] * (len(units) // 2)
        assert units == experiment.units(scale, (0, 5), stand_in)


@each
def test_scales_grow_and_keep_their_promise(experiment: Experiment) -> None:
    assert experiment.seeds("smoke") == experiment.usual_seeds[:1]
    assert experiment.seeds("laptop") == experiment.seeds("full") == experiment.usual_seeds
    smoke, laptop, full = (seconds(experiment, scale) for scale in SCALES)
    assert smoke < laptop < full
    for one, other in itertools.pairwise(SCALES):
        pairs = zip(experiment.units(one, (0,), False), experiment.units(other, (0,), False), strict=True)
        assert all(short.name == long.name and short.seconds < long.seconds for short, long in pairs)
    # On two cores about a minute, and within an hour.
    assert smoke / 2 <= 90
    assert laptop / 2 <= 3600


def few(experiment: Experiment) -> list[Unit]:
    """The first and the last unit of the smoke scale."""
    units = experiment.units("smoke", (0,), True)
    return [units[0], units[-1]]


@each
def test_a_few_units_run_and_their_record_is_shown(experiment: Experiment, tmp_path: Path) -> None:
    options: dict[str, Any] = {"seeds": (0,), "command": "typed", "progress": False, "device": "cpu"}
    units = few(experiment)
    path = run_experiment(experiment, "smoke", units, out=tmp_path, **options)
    record = json.loads(path.read_text(encoding="utf-8"))
    assert [result["name"] for result in record["results"]] == [unit.name for unit in units]
    assert [result["settings"] for result in record["results"]] == [unit.settings for unit in units]
    for key in ("command", "commit", "device", "versions", "seeds", "unit", "title", "scale", "experiment"):
        assert record[key], key
    # Plain JSON, which has no word for what is no number.
    json.dumps(record, allow_nan=False)
    for result in record["results"]:
        rows = result["rows"]
        assert [row["samples"] for row in rows] == sorted({row["samples"] for row in rows})
        assert rows[-1]["samples"] == result["settings"]["samples"]
    lines = experiment.lines(record)
    assert all(isinstance(line, str) and "\n" not in line for line in lines)
    assert any(any(sign.isdigit() for sign in line) for line in lines)
    figure = experiment.draw(record)
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png", dpi=40)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    # One unit alone is a record too, and nothing is run again for it.
    before = (tmp_path / f".{path.stem}" / units[0].name / "result.json").stat().st_mtime_ns
    path = run_experiment(experiment, "smoke", units[:1], out=tmp_path, **options)
    experiment.draw(json.loads(path.read_text(encoding="utf-8"))).savefig(tmp_path / "one.png", dpi=40)
    assert (tmp_path / f".{path.stem}" / units[0].name / "result.json").stat().st_mtime_ns == before


# -- Figure 2 ---------------------------------------------------------------------------------------------------------


def run(unit: Unit, folder: Path) -> dict[str, Any]:
    return AEVB_FIG2.run(unit, folder, CPU, lambda _: None)


@pytest.mark.parametrize("name", ["frey-2-aevb-0", "frey-2-wake-sleep-0"])
def test_a_short_curve_is_the_beginning_of_a_long_one(name: str, tmp_path: Path) -> None:
    (short,), (long,) = short_units(name, samples=2000), short_units(name, samples=5000)
    one, other = run(short, tmp_path / "short"), run(long, tmp_path / "long")
    assert [row["samples"] for row in other["rows"]] == [1000, 2000, 5000]
    assert without_times(one["rows"]) == without_times(other["rows"])[:2]
    assert (one["rate"], one["pilot"]) == (other["rate"], other["pilot"])


def test_data_method_latents_and_seed_make_other_curves(tmp_path: Path) -> None:
    names = ("mnist-3-aevb-0", "mnist-3-wake-sleep-0", "mnist-5-aevb-0", "frey-5-aevb-0", "mnist-3-aevb-1")
    units = short_units(*names, seeds=(0, 1))
    rows = [run(unit, tmp_path / unit.name)["rows"][-1]["test_elbo"] for unit in units]
    assert len(set(rows)) == len(names)


def test_a_curve_that_stops_being_a_number_ends_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = itertools.count(1)

    def bound(*arguments: Any) -> Tensor:
        value = elbo_with_analytic_kl(*arguments)
        # Three pilots of four steps come first; then 27 steps of 100 images.
        return value / 0.0 if next(asked) > 3 * 4 + 27 else value

    monkeypatch.setitem(figure_two.METHODS, "aevb", bound)
    (unit,) = short_units("frey-2-aevb-0", samples=5000)
    result = run_unit(AEVB_FIG2, unit, tmp_path, "cpu")
    assert [row["samples"] for row in result["rows"]] == [1000, 2000]
    assert result["stopped"].startswith(
        "training stopped at step 28: expected finite numbers, found others in the bound"
    )
    assert str(tmp_path) not in result["stopped"]
    # Beside a curve that never got anywhere.
    never = {**result, "name": "frey-2-wake-sleep-0", "rows": [], "settings": unit.settings | {"method": "wake-sleep"}}
    record = {"results": [result, never]}
    lines = AEVB_FIG2.lines(record)
    assert lines[-2] == f"frey-2-aevb-0: {result['stopped']}"
    assert any("after 2,000 images" in line for line in lines)
    assert len(AEVB_FIG2.draw(record).axes) == 1


def made_up(values: dict[tuple[str, int, str, int], list[float]]) -> dict[str, Any]:
    """A record of Figure 2 with bounds that are told; the training images have half a nat more."""
    return {
        "results": [
            {
                "name": f"{data}-{latents}-{method}-{seed}",
                "settings": {"data": data, "latents": latents, "method": method, "seed": seed},
                "rate": 0.02,
                "rows": [
                    {"samples": 1000 * 10**place, "train_elbo": value + 0.5, "test_elbo": value}
                    for place, value in enumerate(bounds)
                ],
            }
            for (data, latents, method, seed), bounds in values.items()
        ]
    }


def test_the_table_of_figure_two_has_mean_and_spread_of_the_seeds() -> None:
    record = made_up(
        {
            ("frey", 2, "aevb", 0): [1.0, 900.0],
            ("mnist", 10, "aevb", 0): [-150.0, -110.0],
            ("mnist", 10, "aevb", 1): [-150.0, -112.0],
            ("mnist", 3, "wake-sleep", 0): [-180.0, -140.0],
        }
    )
    table = [line.split() for line in AEVB_FIG2.lines(record)]
    assert table[1] == ["MNIST", "3", "wake-sleep", "0.02", "-139.50", "-140.00"]
    assert table[2] == ["MNIST", "10", "aevb", "0.02/0.02", "-110.50", "(1.41)", "-111.00", "(1.41)"]
    assert table[3] == ["Frey", "Face", "2", "aevb", "0.02", "900.50", "900.00"]


def test_figure_two_shows_all_curves_and_cuts_the_start_off() -> None:
    record = made_up(
        {("mnist", 3, method, seed): [-500.0, -120.0] for method in ("aevb", "wake-sleep") for seed in (0, 1)}
        | {("mnist", 5, "aevb", 0): [-400.0, -110.0]}
    )
    figure = AEVB_FIG2.draw(record)
    panels = [panel for panel in figure.axes if panel.get_title()]
    assert [panel.get_title() for panel in panels] == ["3 latents", "5 latents"]
    # Two methods, two seeds, training and test images.
    assert [len(panel.get_lines()) for panel in panels] == [8, 2]
    assert list(panels[0].get_lines()[0].get_ydata()) == [-499.5, -119.5]
    low, high = panels[0].get_ylim()
    assert low == -200.0
    assert -109.5 < high < -90.0


def test_figure_two_shows_what_lies_below_its_floor_if_that_is_all() -> None:
    """As after the first images of a smoke run."""
    figure = AEVB_FIG2.draw(made_up({("mnist", 3, "aevb", 0): [-500.0, -300.0]}))
    low, high = figure.axes[0].get_ylim()
    assert low == -500.0
    assert high > -299.5
