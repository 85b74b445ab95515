"""Arrows point one way: a room of vae_lib imports from its own floor or from lower ones, never from above."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vae_lib"

# From the ground up. A new room needs its place here before its tests pass.
FLOORS = [
    {"protocols", "rng", "checks", "estimate"},
    {"densities"},
    {"divergences"},
    {"bounds", "exact"},
    {"mcmc"},
    {"gradients"},
    {"models"},
    {"learning", "evaluation"},
    {"data", "plots", "explorables"},
    {"experiments"},
    {"chapter", "cli"},
    {"__init__", "__main__"},
]
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def room_of(path: Path, package: Path) -> str:
    """Return the top-level module or subpackage of `package` that a file belongs to."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_rooms(path: Path, package: Path) -> set[str]:
    """Return the rooms of `package` that a file imports, wherever in the file the import stands."""
    rooms = {p.name.removesuffix(".py") for p in package.iterdir() if p.suffix == ".py" or p.is_dir()}
    here = (package.name, *path.relative_to(package).parent.parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level + 1]] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # Joined, because the room may stand on either side of the word: `from vae_lib import bounds`.
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    inside = {name.split(".")[1] for name in names if name.startswith(f"{package.name}.")}
    return {name for name in inside if name in rooms or name in FLOOR_OF}


def complaints(package: Path) -> list[str]:
    """Return one line for every import that points upwards, every circle and every room without a floor."""
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        room = room_of(path, package)
        if room not in FLOOR_OF:
            found.append(f"{room}: has no place in FLOORS")
            continue
        for target in sorted(imported_rooms(path, package) - {room}):
            graph.setdefault(room, set()).add(target)
            if FLOOR_OF.get(target, len(FLOORS)) > FLOOR_OF[room]:
                found.append(f"{path.relative_to(package)} imports {target}, which stands above {room}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"imports run in a circle: {' -> '.join(error.args[1])}")
    return found


def test_imports_point_down() -> None:
    assert complaints(PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        "from vae_lib.bounds import elbo",
        "from vae_lib import bounds",
        "import vae_lib.bounds as b",
        "from . import bounds",
        "from .bounds import elbo",
        "def late():\n    import vae_lib.bounds",
    ],
)
def test_every_way_to_import_upwards_is_seen(line: str, tmp_path: Path) -> None:
    package = build(tmp_path, {"densities.py": line, "bounds.py": ""})
    assert complaints(package) == ["densities.py imports bounds, which stands above densities"]


@pytest.mark.parametrize(("depth", "line"), [("", "from .. import chapter"), ("deep/", "from ...chapter import start")])
def test_an_arrow_up_from_a_subpackage_is_seen(depth: str, line: str, tmp_path: Path) -> None:
    package = build(tmp_path, {f"exact/{depth}model.py": line, "chapter.py": ""})
    assert complaints(package) == [f"exact/{depth}model.py imports chapter, which stands above exact"]


def test_a_room_without_a_floor_is_seen(tmp_path: Path) -> None:
    assert complaints(build(tmp_path, {"attic.py": ""})) == ["attic: has no place in FLOORS"]


def test_a_circle_on_one_floor_is_seen(tmp_path: Path) -> None:
    files = {"bounds.py": "from vae_lib import exact", "exact/a.py": "from vae_lib import bounds"}
    (line,) = complaints(build(tmp_path, files))
    assert line.startswith("imports run in a circle: ")


def test_an_arrow_down_is_read_and_allowed(tmp_path: Path) -> None:
    package = build(tmp_path, {"bounds.py": "from vae_lib.densities import normal", "densities.py": ""})
    assert imported_rooms(package / "bounds.py", package) == {"densities"}
    assert complaints(package) == []


def build(folder: Path, files: dict[str, str]) -> Path:
    """Write a small package and return its folder."""
    package = folder / "vae_lib"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    return package
