"""`reproduce` for figures and tables: plan, record, picture, and drawing it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.asking import Ask
from vae_lib.experiments import EXPERIMENTS, aevb_fig2
from vae_lib.experiments.aevb_fig2 import AEVB_FIG2

PNG = b"\x89PNG\r\n\x1a\n"
ONE = ("reproduce", "aevb-fig2", "--stand-in", "--only", "frey-2-aevb", "--jobs", 1)
RECORD, PICTURE = Path("runs/aevb-fig2-smoke.json"), Path("runs/aevb-fig2-smoke.png")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest scale, made smaller."""
    monkeypatch.setitem(aevb_fig2.SAMPLES, "smoke", 1000)
    monkeypatch.setitem(aevb_fig2._LOOKED_AT, "smoke", 20)
    monkeypatch.setitem(aevb_fig2.PILOT_STEPS, "smoke", 4)


def read(path: Path = RECORD) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def test_figures_are_listed_beside_the_recipes(ask: Ask) -> None:
    answer = ask("reproduce")
    assert all(f"{name} " in answer.out and figure.title in answer.out for name, figure in EXPERIMENTS.items())
    facts = ask("reproduce", "--json").facts
    assert facts["figures"] == {name: {"title": figure.title} for name, figure in EXPERIMENTS.items()}


def test_a_figure_leaves_a_record_and_a_picture(ask: Ask) -> None:
    answer = ask(*ONE)
    assert answer.code == 0
    record = read()
    assert [result["name"] for result in record["results"]] == ["frey-2-aevb-0"]
    assert record["command"] == "python -m vae_lib reproduce aevb-fig2 --stand-in --only frey-2-aevb --jobs 1"
    assert (record["seeds"], record["scale"], record["experiment"]) == ([0], "smoke", "aevb-fig2")
    assert PICTURE.read_bytes().startswith(PNG)
    # The plan before, a line for each training, and on stdout the table and where everything lies.
    assert "1 trainings, 1 at a time" in answer.err
    assert "[1/1] frey-2-aevb-0, train elbo " in answer.err
    lines = answer.out.splitlines()
    assert lines[0] == f"{AEVB_FIG2.title}; smoke scale; CPU, 1 thread"
    assert all(line in lines for line in AEVB_FIG2.lines(record))
    assert all(text in answer.out for text in (str(RECORD), str(PICTURE), f"--draw {RECORD}"))
    assert sorted(path.name for path in Path("runs").iterdir()) == [".aevb-fig2-smoke", RECORD.name, PICTURE.name]


def test_a_second_time_it_is_refused_and_nothing_is_lost(ask: Ask) -> None:
    ask(*ONE, "--quiet")
    before = RECORD.read_bytes(), PICTURE.read_bytes()
    refused = ask(*ONE)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert f"--out: expected a folder without {RECORD.name}, found {RECORD}; --overwrite replaces it" in refused.err
    assert (RECORD.read_bytes(), PICTURE.read_bytes()) == before


def test_overwrite_runs_what_is_new_alone(ask: Ask) -> None:
    ask(*ONE, "--quiet")
    first = read()["results"]
    answer = ask(*ONE, "--seeds", 0, 3, "--overwrite")
    assert answer.code == 0
    assert "[2/2] frey-2-aevb-3" in answer.err
    assert "frey-2-aevb-0," not in answer.err
    record = read()
    assert record["seeds"] == [0, 3]
    assert record["results"][0] == first[0]
    assert record["results"][1]["name"] == "frey-2-aevb-3"


def test_quiet_and_json_keep_the_streams_clean(ask: Ask) -> None:
    answer = ask(*ONE, "--quiet", "--json")
    assert answer.err == ""
    record = read()
    assert answer.facts == record | {"file": str(RECORD), "figure": str(PICTURE)}
    # With progress on stderr there is still one object on stdout.
    assert ask(*ONE, "--json", "--overwrite").facts["results"] == record["results"]


def test_a_stored_record_is_drawn_again_and_nothing_is_run(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(*ONE, "--quiet")
    before = RECORD.read_bytes()

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("nothing is to be run")

    monkeypatch.setattr("vae_lib.cli.figure.run_experiment", fail)
    refused = ask("reproduce", "aevb-fig2", "--draw", RECORD)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert f"expected a folder without {PICTURE.name}" in refused.err
    PICTURE.write_bytes(b"old")
    assert ask("reproduce", "aevb-fig2", "--draw", RECORD, "--overwrite").code == 0
    assert PICTURE.read_bytes().startswith(PNG)
    answer = ask("reproduce", "aevb-fig2", "--draw", RECORD, "--out", "else/where", "--json")
    assert answer.facts["figure"] == "else/where/aevb-fig2-smoke.png"
    assert Path(answer.facts["figure"]).read_bytes() == PICTURE.read_bytes()
    assert RECORD.read_bytes() == before
    assert [path.name for path in Path("else/where").iterdir()] == [PICTURE.name]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_plan_runs_nothing(ask: Ask, name: str) -> None:
    experiment = EXPERIMENTS[name]
    answer = ask("reproduce", name, "--scale", "laptop", "--plan", "--jobs", 2)
    assert (answer.code, answer.err) == (0, "")
    units = experiment.units("laptop", experiment.usual_seeds, False)
    assert answer.out.startswith(f"{experiment.title}, at laptop scale: {len(units)} trainings, 2 at a time\n")
    assert all(f"  {unit.name} " in answer.out for unit in units)
    facts = ask("reproduce", name, "--scale", "laptop", "--plan", "--json").facts
    assert [training["name"] for training in facts["trainings"]] == [unit.name for unit in units]
    assert [training["settings"] for training in facts["trainings"]] == [unit.settings for unit in units]
    assert (facts["name"], facts["scale"]) == (name, "laptop")
    assert list(Path().iterdir()) == []


def test_without_a_scale_the_plan_is_that_of_smoke_with_one_seed(ask: Ask) -> None:
    facts = ask("reproduce", "aevb-fig2", "--plan", "--json").facts
    assert facts["scale"] == "smoke"
    assert {training["settings"]["seed"] for training in facts["trainings"]} == {0}
    assert len(facts["trainings"]) == 18
    facts = ask("reproduce", "aevb-fig2", "--plan", "--json", "--seeds", 4, 2, "--only", "mnist-3", "frey-20").facts
    names = [training["name"] for training in facts["trainings"]]
    assert names == [
        f"{data}-{method}-{seed}"
        for seed in (4, 2)
        for data in ("mnist-3", "frey-20")
        for method in ("aevb", "wake-sleep")
    ]
    assert facts["jobs"] >= 1


def test_as_many_at_a_time_as_there_are_cores_and_trainings(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def jobs(*words: object) -> int:
        return int(ask("reproduce", "aevb-fig2", "--plan", "--json", *words).facts["jobs"])

    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(7)), raising=False)
    assert jobs() == 7
    assert jobs("--only", "mnist-3-") == 2
    assert jobs("--jobs", 3) == 3
    # Where nobody says which cores are for this process.
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert jobs() == 5
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert jobs() == 1


def test_an_interrupted_figure_says_how_to_go_on(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vae_lib.cli.figure.run_experiment", stop)
        answer = ask(*ONE, "--quiet")
    assert answer == (130, "", "vae-lib: interrupted; the same command goes on from here\n")
    assert ask(*ONE, "--quiet").code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("aevb-fig2", "--scale", "huge"), "--scale: expected one of smoke, laptop, full, found 'huge'"),
        (("aevb-fig2", "--only", "mnits"), "--only: expected the beginning of a name as mnist-3-aevb-0, "),
        (("aevb-fig2", "--only", "mnist-3", "x"), "found 'x'; see --plan"),
        (("aevb-fig2", "--seeds", -1), "--seeds: expected different integers of at least 0, found -1"),
        (("aevb-fig2", "--seeds", 1, 1), "--seeds: expected different integers of at least 0, found 1 1"),
        (("aevb-fig2", "--jobs", 0), "--jobs: expected a positive integer, found 0"),
        (("aevb-fig2", "--device", "x"), "--device: expected a device of this machine (cpu"),
        (("aevb-fig2", "--draw", "x.json"), "x.json"),
        (("aevb-fig2", "--draw", "."), "vae-lib: "),
        (("aevb-fig9",), "NAME: expected one of aevb-fig2, "),
        (("aevb-fig",), "did you mean aevb-fig"),
        (("digits", "--scale", "smoke"), "--scale: expected a figure or table, found the recipe digits"),
        (("digits", "--only", "x"), "--only: expected a figure or table, found the recipe digits"),
        (("digits", "--plan"), "--plan: expected a figure or table, found the recipe digits"),
        (("digits", "--draw", "x"), "--draw: expected a figure or table, found the recipe digits"),
        (("digits", "--stand-in"), "--stand-in: expected a figure or table, found the recipe digits"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(ask: Ask, words: tuple[object, ...], expected: str) -> None:
    answer = ask("reproduce", *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith("vae-lib: ")
    assert expected in answer.err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("not JSON", "expected a JSON record, found file.json, which is none"),
        ("[1]", "expected a record of aevb-fig2, found file.json of something else"),
        ('{"experiment": "aevb-fig4"}', "expected a record of aevb-fig2, found file.json of aevb-fig4"),
        ('{"experiment": "aevb-fig2", "title": "x"}', "expected a whole record, found file.json without scale"),
    ],
)
def test_what_is_no_record_is_not_drawn(ask: Ask, content: str, expected: str) -> None:
    Path("file.json").write_text(content, encoding="utf-8")
    answer = ask("reproduce", "aevb-fig2", "--draw", "file.json", "--out", "there")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert f"--draw: {expected}" in answer.err
    assert [path.name for path in Path().iterdir()] == ["file.json"]


def test_a_record_in_bytes_that_are_no_text_is_not_drawn(ask: Ask) -> None:
    Path("file.json").write_bytes(b"\xff\xfe\x00")
    answer = ask("reproduce", "aevb-fig2", "--draw", "file.json")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
