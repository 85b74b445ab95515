"""One command grades a class, whatever its students hand in, and goes on where it was interrupted."""

from __future__ import annotations

import csv
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from grading import batch, cells

from .conftest import handed_in, once, run_python

LIMITS = '{"call": 10, "cell": 10, "total": 120, "lives": 5}'
LOOP = "def double(x):\n    while True:\n        pass"


@pytest.fixture(scope="session")
def submissions(release: cells.Cell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class of all sorts."""
    return once(tmp_path_factory, "class", lambda folder: make_class(folder, release))


def make_class(folder: Path, release: cells.Cell) -> None:
    """Write the submissions."""
    folder.mkdir()
    for name, notebook in {
        "ada": handed_in(release),
        "bob": handed_in(release, double="def double(x):\n    return x**2"),
        "eve": handed_in(release, double=LOOP),
        "=1+1": handed_in(release, total=None),
        "Zoë Łuczak": release,
    }.items():
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (folder / "empty.ipynb").touch()
    (folder / "notes.txt").touch()
    (folder / "gone.ipynb").symlink_to("nowhere")
    for name in ("one", "two", "two/more", "none"):
        (folder / name).mkdir(exist_ok=True)
    for name in ("one/mine", "two/a", "two/more/b"):
        shutil.copyfile(folder / "ada.ipynb", folder / f"{name}.ipynb")
    said = "<script>alert(1)</script><b>bold</b> [click](javascript:alert(3)) ![](https://example.org/seen.png)\n~~~"
    script = {"cell_type": "markdown", "metadata": {}, "source": said}
    mallory = handed_in(release, double="def double(x):\n    raise ValueError('<script>alert(2)</script>')")
    mallory["cells"].insert(0, script)
    (folder / "mallory.ipynb").write_text(json.dumps(mallory), encoding="utf-8")


@pytest.fixture(scope="session")
def report(tiny: Path, submissions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The class, graded."""

    def make(out: Path) -> None:
        done = run_python(tiny, "grade.py", "a0", submissions, "--out", out, "--seed", 3, "--limits", LIMITS)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr

    return once(tmp_path_factory, "report", make)


def rows(report: Path) -> dict[str, dict[str, str]]:
    """Return grades.csv by student."""
    with (report / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_everybody_has_a_row_with_points_and_a_note(report: Path) -> None:
    found = rows(report)
    assert {name: (row["a0-double"], row["a0-total"], row["total"]) for name, row in found.items()} == {
        "ada": ("3", "3", "6"),
        "bob": ("1", "3", "4"),
        "eve": ("0", "3", "3"),
        "'=1+1": ("3", "0", "3"),
        "Zoë Łuczak": ("0", "0", "0"),
        "empty": ("0", "0", "0"),
        "gone": ("0", "0", "0"),
        "one": ("3", "3", "6"),
        "two": ("3", "3", "6"),
        "none": ("0", "0", "0"),
        "mallory": ("0", "3", "3"),
    }
    assert found["ada"]["note"] == ""
    assert found["empty"]["note"] == "the file is empty"
    assert found["gone"]["note"] == "the file cannot be read"
    assert all((report / "feedback" / row["feedback"]).exists() for row in found.values())
    assert "cell 3 was left out: cell 3 ran longer than 10 seconds" in found["eve"]["note"]
    assert "the cell a0-total-code was deleted" in found["'=1+1"]["note"]
    assert "2 notebooks were handed in" in found["two"]["note"]


def test_nbgrader_knows_the_same_grades(report: Path) -> None:
    done = run_python(report / "course", "-m", "nbgrader", "export", "--to", "out.csv")
    assert done.returncode == 0, done.stderr
    with (report / "course" / "out.csv").open(encoding="utf-8", newline="") as file:
        known = sorted(float(row["score"]) for row in csv.DictReader(file))
    assert known == sorted(float(row["total"]) for row in rows(report).values())


def test_nbgraders_own_command_runs_submissions_in_the_guarded_process_too(report: Path, tmp_path: Path) -> None:
    course = shutil.copytree(report / "course", tmp_path / "course")
    config = course / "nbgrader_config.py"
    lines = config.read_text(encoding="utf-8").splitlines()
    config.write_text("\n".join(line for line in lines if "verdicts" not in line), encoding="utf-8")
    done = run_python(course, "-m", "nbgrader", "autograde", "a0", "--student", "bob", "--force")
    assert done.returncode == 0, done.stderr
    made = json.loads((course / "autograded/bob/a0/a0_tiny.ipynb").read_text(encoding="utf-8"))
    shown = [output for cell in made["cells"] for output in cell.get("outputs", [])]
    points = [output["data"]["text/plain"] for output in shown if output["output_type"] == "execute_result"]
    assert points == [["1.0"], ["3.0"]]
    assert "the square is not the double" in json.dumps(shown)


def test_the_feedback_tells_and_runs_no_script_of_a_student(report: Path) -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (report / "feedback").glob("*.html")}
    assert len(pages) == len(rows(report))
    assert "<h1>4 of 6 points</h1>" in pages["bob"]
    assert pages["bob"].index("the square is not the double") < pages["bob"].index("Score:")
    assert "cell 3 ran longer than 10 seconds" in pages["eve"]
    assert "double(1) is 2" in pages["bob"]  # the public test's own message
    assert "&lt;b&gt;bold&lt;/b&gt; [click]" in pages["mallory"]  # as it was written
    assert 'href="javascript' not in pages["mallory"]
    assert "cdnjs" not in pages["mallory"]
    assert '<script src="mathjax/tex-svg.js">' in pages["mallory"]
    assert (report / "feedback/mathjax/tex-svg.js").is_file()
    assert 'src="https://example.org' not in pages["mallory"]
    assert "<script>alert" not in pages["mallory"] + (report / "report.html").read_text(encoding="utf-8")


def test_the_report_says_where_points_were_lost_and_how_to_repeat_it(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "11 submissions; mean 2.8 of 6, median 3." in page
    assert "the square is not the double" in page
    assert "--seed 3" in page
    assert page.index("Twice the values") < page.index("The sum.")  # lost more often


def test_the_same_command_goes_on_and_runs_nothing_twice(
    tiny: Path, submissions: Path, report: Path, tmp_path: Path
) -> None:
    report = shutil.copytree(report, tmp_path / "report")
    stored = {path: path.stat().st_mtime_ns for path in report.glob("verdicts/*/verdict.json")}
    grades = (report / "grades.csv").read_text(encoding="utf-8")
    os.remove(report / "verdicts/ada/verdict.json")
    os.remove(report / "grades.csv")
    again = ("grade.py", "a0", submissions, "--out", report, "--limits", LIMITS)
    done = run_python(tiny, *again)
    assert done.returncode == 0, done.stderr
    assert (report / "grades.csv").read_text(encoding="utf-8") == grades
    changed = [path.parent.name for path, time in stored.items() if path.stat().st_mtime_ns != time]
    assert changed == ["ada"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a7", ".", "--out", "new"), "assignment: expected one of a0, found a7"),
        (("a0", "nowhere", "--out", "new"), "submissions: expected a folder or a notebook, found nowhere"),
        (("a0", "nobody", "--out", "new"), "found none"),
        (("a0", ".", "--out", "grading"), "out: expected a new or empty folder"),
        (("a0", ".", "--out", "new", "--jobs", "0"), "jobs and seed: expected positive numbers"),
        (("a0", ".", "--out", "new", "--limits", '{"cells": 1}'), "limits: expected JSON with call, cell"),
    ],
)
def test_bad_input_gets_one_line(tiny: Path, arguments: tuple[str, ...], says: str) -> None:
    done = run_python(tiny, "grade.py", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tiny / "new").exists()


def test_another_seed_or_class_is_refused_for_a_report_that_is_begun(
    tiny: Path, submissions: Path, report: Path
) -> None:
    for others in ((submissions, "--seed", 4), (submissions / "two", "--seed", 3)):
        done = run_python(tiny, "grade.py", "a0", others[0], "--out", report, *others[1:])
        assert done.returncode == 2
        assert f"holds the grades of a0 from {submissions} with seed 3; choose another folder" in done.stderr


def test_who_handed_in_what(submissions: Path, tmp_path: Path) -> None:
    (one,) = batch.students(submissions / "ada.ipynb", "a0_tiny")
    assert (one.name, one.file, one.problem) == ("ada", submissions / "ada.ipynb", "")
    for name in (
        "B.IPYNB",
        "C/a0_tiny.ipynb",
        "C/old.ipynb",
        "B/x.ipynb",
        "__MACOSX/y.ipynb",
        "B b.ipynb",
        "B_b.ipynb",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "d.py").touch()
    assert batch.strangers(tmp_path) == ["d.py"]
    found = {student.safe: (student.name, student.problem) for student in batch.students(tmp_path, "a0_tiny")}
    assert found == {
        "B": ("B", ""),
        "B_": ("B", "another submission has the same name"),
        "B_b": ("B b", ""),
        "B_b_": ("B_b", ""),
        "C": ("C", "2 notebooks were handed in, a0_tiny.ipynb was graded"),
    }


@pytest.fixture
def autograder(tiny: Path, tmp_path: Path) -> Path:
    """The folders of Gradescope, with the bundle in its place."""
    with zipfile.ZipFile(tiny / "made/a0/gradescope.zip") as packed:
        packed.extractall(tmp_path / "source")
    for name in ("submission", "results"):
        (tmp_path / name).mkdir()
    return tmp_path


def gradescope(autograder: Path) -> dict[str, object]:
    """Run the bundle as Gradescope does; return its results."""
    import subprocess
    import sys

    environment = os.environ | {"AUTOGRADER": str(autograder), "PYTHON": sys.executable}
    subprocess.run(["bash", autograder / "source/run_autograder"], env=environment, check=True, timeout=300)
    found: dict[str, object] = json.loads((autograder / "results/results.json").read_text(encoding="utf-8"))
    return found


def test_the_bundle_for_gradescope_grades_by_itself(autograder: Path, submissions: Path) -> None:
    shutil.copyfile(submissions / "bob.ipynb", autograder / "submission" / "any name.ipynb")
    results = gradescope(autograder)
    assert results["score"] == 4
    tests = results["tests"]
    assert isinstance(tests, list)
    assert [(test["score"], test["max_score"]) for test in tests] == [(0, 2), (1, 1), (3, 3)]
    assert tests[0]["output"] == "double: the square is not the double"
    assert results["stdout_visibility"] == "hidden"


def test_the_bundle_for_gradescope_says_that_a_notebook_is_missing(autograder: Path) -> None:
    results = gradescope(autograder)
    assert results["score"] == 0
    assert "0 notebooks were handed in" in str(results["output"])


def test_the_public_tests_run_as_a_program(tiny: Path, submissions: Path) -> None:
    program = tiny / "made/a0/public_tests.py"
    good = run_python(tiny, program, submissions / "ada.ipynb")
    assert (good.returncode, good.stdout) == (0, "a0-setup: passed\na0-double-try: passed\n")
    bad = run_python(tiny, program, submissions / "bob.ipynb")
    assert bad.returncode == 1
    assert "a0-double-try: AssertionError: double(1) is 2" in bad.stdout


def test_the_instructors_page_needs_no_network(tiny: Path) -> None:
    page = (tiny / "made/a0/instructor/a0_tiny.html").read_text(encoding="utf-8")
    for start in ('src="http', "src='http", 'href="http', "import http", "from 'http", 'from "http', "url(http"):
        assert start not in page
    assert 'src="mathjax/tex-svg.js"' in page
    assert (tiny / "made/a0/instructor/mathjax/tex-svg.js").stat().st_size > 10**6
    assert "Rubric: 6 points" in page
    assert "Twice the values." in page
    assert "BEGIN SOLUTION" in page
