"""Run every notebook where a reader does: in an environment that is not ours, from an empty folder.

    python book/_tools/bare.py colab  --python python3.12    what Google Colab has, from colab.txt
    python book/_tools/bare.py oldest --python python3.10    the oldest version of everything that pyproject.toml allows
    python book/_tools/bare.py newest --python python3.13    the newest of everything

It needs git, the packages build and nbclient beside it, and a package index. It makes a fresh virtual environment
with the packages of the set and no vae_lib. There it tries the set-up cell of the chapters, with and without an address
of the repository. Then it installs the wheel and runs each notebook from top to bottom, alone in a folder, without a
network and without data of ours. Numbers may differ in their last digits from the stored ones; no cell may fail.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import address
import nbformat
import notebooks
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
SETS = ("oldest", "colab", "newest")
CELL_TIMEOUT = 900  # seconds
KERNEL = ["ipykernel", "nbclient"]
# A reader's machine has none of these from us.
OURS = ("VAE_LIB_DATA", "PYTHONPATH", "PYTHONHOME", "MPLBACKEND", "JUPYTER_PATH", "JUPYTER_CONFIG_DIR")
NOWHERE = "http://127.0.0.1:9"  # the port that discards: a download fails at once
EXAMPLE = "https://github.com/example/book"
READS_A_RUN = 'from vae_lib import chapter\n\nassert chapter.stored_run("digits")["results"]'


def requirements(name: str, root: Path = ROOT) -> list[str]:
    """Return what is in the environment before vae_lib, torch first."""
    if name == "colab":
        lines = (root / "book/_tools/colab.txt").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ranges = [line.split(">=") for line in project["dependencies"]]
    if name == "oldest":
        return [*(f"{package}=={lowest}" for package, lowest in ranges), *KERNEL]
    return [*(package for package, _ in ranges), *KERNEL]


class Bare:
    """A virtual environment with one set of packages, and a folder for what runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        kept = {key: value for key, value in os.environ.items() if key not in OURS}
        self.environment = {
            **kept,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "PYTHONNOUSERSITE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "JUPYTER_PREFER_ENV_PATH": "1",
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        }

    def pip(self, *arguments: str) -> None:
        """Run pip in the environment; its failure ends the script."""
        subprocess.run([str(self.python), "-m", "pip", *arguments], env=self.environment, cwd=self.folder, check=True)

    def installed(self) -> dict[str, str]:
        """Return name and version of every installed distribution."""
        command = [str(self.python), "-m", "pip", "list", "--format=json"]
        run = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        return {entry["name"]: entry["version"] for entry in json.loads(run.stdout)}

    def run(self, notebook: Path, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a notebook from top to bottom, in its folder, and store its outputs when it passes."""
        code = "from nbclient.cli import main; main()"
        command = [str(self.python), "-c", code, "--inplace", f"--timeout={CELL_TIMEOUT}", str(notebook)]
        environment = {**self.environment, **extra}
        return subprocess.run(
            command, cwd=notebook.parent, env=environment, capture_output=True, text=True, check=False
        )

    def run_cells(self, name: str, cells: list[str], **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a few cells as a notebook of its own."""
        notebook = emptied(self.folder / "cells" / name) / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), notebook)
        return self.run(notebook, **extra)


def plain(text: str) -> str:
    """Return the end of what a program wrote, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)[-3000:].strip()


def emptied(folder: Path) -> Path:
    """Return the folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def build(folder: Path) -> tuple[Path, Path]:
    """Return a source archive of the checkout, and the wheel that was built from that archive."""
    command = [sys.executable, "-m", "build", "--outdir", str(emptied(folder)), str(ROOT)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"the wheel could not be built\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def make_environment(bare: Bare, python: str, packages: list[str], torch_arguments: list[str]) -> None:
    """Make the environment: torch first and alone, so that its arguments touch nothing else."""
    subprocess.run([python, "-m", "venv", "--clear", str(bare.folder / "env")], check=True)
    torch = next(line for line in packages if line.startswith("torch"))
    bare.pip("install", "--quiet", *torch_arguments, torch)
    bare.pip("install", "--quiet", *packages)


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return what an installation took away from a reader or gave in another version."""
    return [
        f"{name}: {version}, then {after.get(name)}" for name, version in before.items() if after.get(name) != version
    ]


def unpack(archive: Path, folder: Path) -> Path:
    """Return the folder of the repository as the source archive has it."""
    with tarfile.open(archive) as file:
        file.extractall(emptied(folder), filter="data")
    return next(folder.iterdir())


def at_an_address(checkout: Path) -> dict[str, str]:
    """Return the environment in which git finds the checkout at the example's address."""
    git = ["git", "-C", str(checkout), "-c", "user.name=a reader", "-c", "user.email=reader@example.org"]
    for command in (["init", "--quiet"], ["add", "--all", "--force"], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *command], check=True)
    key = f"url.{checkout.as_uri()}.insteadOf"
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": EXAMPLE}


def try_setup_cell(bare: Bare, checkout: Path) -> list[str]:
    """Run the set-up cell where vae_lib is missing, in both its states; return what went wrong."""
    faults = []
    before = bare.installed()
    unset = bare.run_cells("unset", [address.setup_source(None)])
    if unset.returncode == 0 or "run `pip install .` in the book's folder" not in unset.stderr:
        faults.append(f"set-up cell without an address: expected one line of advice, found {plain(unset.stderr)!r}")
    cells = [address.setup_source(EXAMPLE), READS_A_RUN]
    known = bare.run_cells("known", cells, **at_an_address(checkout))
    if known.returncode:
        faults.append(f"set-up cell with an address: expected an installed vae_lib, found {plain(known.stderr)!r}")
    return [*faults, *changed(before, bare.installed())]


def install(bare: Bare, wheel: Path) -> list[str]:
    """Install the wheel with what it misses; return what that changed."""
    bare.pip("uninstall", "--quiet", "--yes", "vae-lib")
    before = bare.installed()
    bare.pip("install", "--quiet", str(wheel))
    return changed(before, bare.installed())


def warnings_in(notebook: Path) -> int:
    """Return how many lines an executed notebook wrote to stderr."""
    outputs = [output for cell in notebooks.read(notebook).cells for output in cell.get("outputs", [])]
    return sum(len(output.text.splitlines()) for output in outputs if output.get("name") == "stderr")


def as_students_have_it(notebook: NotebookNode) -> NotebookNode:
    """Take the hidden tests out of an assignment: they need what only the grader has."""
    for cell in notebook.cells:
        cell.source = re.sub(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS\n?", "", cell.source, flags=re.DOTALL)
    return notebook


def run_alone(bare: Bare, path: Path) -> list[str]:
    """Run a copy of a notebook, alone in a folder and without a network; return what went wrong."""
    folder = emptied(bare.folder / "notebooks" / path.stem)
    copy = folder / path.name
    nbformat.write(as_students_have_it(notebooks.read(path)), copy)
    closed = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE)
    done = bare.run(copy, XDG_CACHE_HOME=str(folder / "cache"), **closed)
    if done.returncode:
        return [plain(done.stderr)]
    if lines := warnings_in(copy):
        print(f"{path.stem}: {lines} lines on stderr")
    return []


def tell(what: str, check: Callable[[], list[str]]) -> int:
    """Make a check, print its verdict, and return the number of faults."""
    start = time.perf_counter()
    faults = check()
    print(f"{what:<32} {'FAILED' if faults else 'passed'} in {time.perf_counter() - start:.0f} s", flush=True)
    for fault in faults:
        print(fault, file=sys.stderr, flush=True)
    return len(faults)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run every notebook in an environment that is not ours.")
    parser.add_argument("set", choices=SETS, help="which packages are there before vae_lib")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: the chapters and the assignments")
    parser.add_argument("--python", default=sys.executable, help="the Python that makes the environment")
    parser.add_argument("--torch-args", default="", help="more options for pip when it installs torch")
    parser.add_argument("--folder", type=Path, help="where everything is made (default: _build/bare/SET)")
    parser.add_argument("--reuse", action="store_true", help="keep an environment that is there")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 1 when something failed."""
    options = parse(arguments)
    folder = (options.folder or ROOT / "_build/bare" / options.set).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bare = Bare(folder)
    if not (options.reuse and bare.python.exists()):
        print(f"making an environment with the set {options.set}", flush=True)
        make_environment(bare, options.python, requirements(options.set), shlex.split(options.torch_args))
    archive, wheel = build(folder / "dist")
    bare.pip("uninstall", "--quiet", "--yes", "vae-lib")
    checkout = unpack(archive, folder / "repository")
    faults = tell("set-up cell", lambda: try_setup_cell(bare, checkout))
    faults += tell("wheel", lambda: install(bare, wheel))
    print(*(f"{name} {version}" for name, version in bare.installed().items()), sep=", ", flush=True)
    places = [checkout / "book", checkout / "book/assignments"]
    paths = options.notebooks or [path for place in places for path in sorted(place.glob("*.ipynb"))]
    faults += sum(tell(path.stem, partial(run_alone, bare, path.resolve())) for path in paths)
    print(f"{options.set}: {len(paths)} notebooks, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
