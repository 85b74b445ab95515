"""What a release consists of agrees with itself: versions, archives, workflows, the sets that chapters run with."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bare
import notebooks
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import vae_lib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
CHAPTERS = notebooks.find([ROOT / "book"])
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
LARGEST = 12_000_000  # bytes of an archive; what grows past this is downloaded, not shipped


def releases() -> list[tuple[str, str]]:
    """Return version and date of every release in the changelog, newest first."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return re.findall(r"^## \[(\d[^\]]*)\] - (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)


def test_versions_agree() -> None:
    assert releases()[0][0] == CITATION["version"] == CITATION["preferred-citation"]["version"] == vae_lib.__version__


def test_dates_agree() -> None:
    assert releases()[0][1] == CITATION["date-released"]
    assert str(CITATION["preferred-citation"]["year"]) == CITATION["date-released"][:4]


def test_the_citation_names_the_authors_and_licences_of_the_book() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    for work in (CITATION, CITATION["preferred-citation"]):
        assert [author["name"] for author in work["authors"]] == [config["author"]]
        assert work["title"] == config["title"]
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["license"] == PROJECT["license"]
    assert "Attribution 4.0 International" in (ROOT / "LICENSE-text").read_text(encoding="utf-8")


# --- the archives ---


def tracked() -> list[str]:
    """Return every file of the repository, also one that is not committed yet."""
    if not (ROOT / ".git").exists():
        pytest.skip("no repository here, this may be an unpacked archive")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(name for name in run.stdout.split("\0") if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path, Path]:
    """Return what was copied, and the source archive and the wheel of that copy, made without a network."""
    names = tracked()
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return names, next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def test_the_source_archive_is_the_repository(archives: tuple[list[str], Path, Path]) -> None:
    there, archive, _ = archives
    with tarfile.open(archive) as file:
        names = {member.name.split("/", 1)[1] for member in file.getmembers() if member.isfile()}
    made = {"PKG-INFO", "setup.cfg"}
    assert {name for name in names - made if not name.startswith("vae_lib.egg-info/")} == set(there)
    assert archive.stat().st_size < LARGEST


def stored_names() -> Iterator[str]:
    """Yield the stored files that the chapters name."""
    for path in CHAPTERS:
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "code":
                yield from (f"{name}.json" for name in re.findall(r'stored_run\("([^"]+)"\)', cell.source))
                yield from re.findall(r'stored_file\("([^"]+)"\)', cell.source)


def test_the_wheel_carries_the_code_the_figures_and_the_stored_runs(archives: tuple[list[str], Path, Path]) -> None:
    there, _, wheel = archives
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if not re.match(r"[^/]*\.dist-info/", name)}
        licences = {Path(name).name for name in file.namelist() if "/licenses/" in name}
    runs = {f"vae_lib/runs/{Path(name).name}" for name in there if re.match(r"book/runs/.*\.(json|safetensors)$", name)}
    assert names == {name for name in there if name.startswith("vae_lib/")} | runs
    assert {f"vae_lib/runs/{name}" for name in stored_names()} <= runs
    assert licences == {"LICENSE", "THIRD_PARTY.md"}
    assert wheel.stat().st_size < LARGEST


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_notebook_opens_no_file_of_the_repository_by_its_path(path: Path) -> None:
    """In Colab only the notebook is there: what it reads comes by chapter.stored_run and chapter.stored_file."""
    code = "\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == "code")
    assert not re.search(r"""["'](\.\./|book/|runs/)""", code)


# --- the workflows ---


def jobs(path: Path) -> dict[str, Any]:
    """Return the jobs of a workflow."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return found


def steps(path: Path) -> list[dict[str, Any]]:
    """Return the steps of all jobs of a workflow."""
    return [step for job in jobs(path).values() for step in job["steps"]]


def test_there_are_three_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "pages", "versions"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_no_more_than_it_needs(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    given = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert given == ({"deploy": {"pages": "write", "id-token": "write"}} if path.stem == "pages" else {})
    assert all(job["timeout-minutes"] <= 120 for job in workflow["jobs"].values())
    for step in steps(path):
        assert re.fullmatch(r"actions/[a-z-]+@(v\d+|[0-9a-f]{40})", step.get("uses", "actions/none@v1"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_what_there_is(path: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = [step["run"] for step in steps(path) if "run" in step]
    for command in commands:
        assert set(re.findall(r"\bmake ([a-z-]+)", command)) <= set(targets)
        for script in re.findall(r"(?:book|tests|\.ci)/[\w./]+", command):
            assert (ROOT / script).is_file()
    assert any(re.search(r"\.ci/run|make book|bare\.py", command) for command in commands)


def test_the_pages_are_those_that_make_builds() -> None:
    upload = [step for step in steps(ROOT / ".github/workflows/pages.yml") if "upload" in step.get("uses", "")]
    assert [step["with"]["path"] for step in upload] == ["_build/html"]
    assert "test -f _build/html/index.html" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_schedule_tries_each_set_and_both_ends_of_python() -> None:
    matrix = jobs(ROOT / ".github/workflows/versions.yml")["bare"]["strategy"]["matrix"]["include"]
    assert {entry["set"] for entry in matrix} == set(bare.SETS)
    versions = [entry["python"] for entry in matrix]
    assert all(SpecifierSet(PROJECT["requires-python"]).contains(f"{version}.0") for version in versions)
    assert {"3.10", "3.13"} <= set(versions)


# --- the environments of bare.py ---


def test_the_oldest_set_is_the_lower_bound_of_every_dependency() -> None:
    lowest = {Requirement(line).name: str(Requirement(line).specifier) for line in PROJECT["dependencies"]}
    assert bare.requirements("oldest")[0].startswith("torch==")
    found = {Requirement(line).name: str(Requirement(line).specifier) for line in bare.requirements("oldest")}
    assert {name: found[name] for name in lowest} == {name: text.replace(">=", "==") for name, text in lowest.items()}


def test_the_newest_set_names_no_version() -> None:
    assert {Requirement(line).name for line in PROJECT["dependencies"]} < set(bare.requirements("newest"))


def test_colab_has_versions_that_the_package_accepts() -> None:
    """Else the set-up cell would put another torch or NumPy in their place, behind a running kernel."""
    colab = {canonicalize_name(name): version for name, version in (x.split("==") for x in bare.requirements("colab"))}
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        if (name := canonicalize_name(requirement.name)) in colab:
            assert requirement.specifier.contains(colab[name]), requirement
    assert {"torch", "numpy", "scipy", "matplotlib", "scikit-learn", "ipykernel", "nbclient"} <= set(colab)


def test_what_an_installation_changes_is_seen() -> None:
    before = {"numpy": "1", "scipy": "1", "tqdm": "1"}
    assert bare.changed(before, {"numpy": "2", "scipy": "1", "vae-lib": "1"}) == [
        "numpy: 1, then 2",
        "tqdm: 1, then None",
    ]


def test_an_assignment_runs_without_its_hidden_tests() -> None:
    hidden = "# 4 points\n### BEGIN HIDDEN TESTS\nfrom grading import here\n### END HIDDEN TESTS\nassert True"
    cells = [new_code_cell("x = 1"), new_code_cell(hidden)]
    kept = bare.as_students_have_it(new_notebook(cells=cells))
    assert [cell.source for cell in kept.cells] == ["x = 1", "# 4 points\nassert True"]


def test_notebooks_may_be_named_after_the_options() -> None:
    options = bare.parse(["colab", "--reuse", "--torch-args=--quiet -v", "a.ipynb", "b.ipynb"])
    assert (options.set, options.notebooks) == ("colab", [Path("a.ipynb"), Path("b.ipynb")])
    assert options.torch_args == "--quiet -v"
