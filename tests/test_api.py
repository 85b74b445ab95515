"""The pages of the library name every public module, and every public name in them has a docstring to show.

The pages are made by ``automodule``, which shows what has a docstring and leaves out the rest without a word.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "book").glob("api/*.md"))}
WRITTEN = "\n".join(PAGES.values())
MODULES = re.findall(r"^\.\. automodule:: (\S+)", WRITTEN, re.MULTILINE)
DATA = {
    f"{module}.{name}" for name, module in re.findall(r"^\.\. py:data:: (\w+)\n +:module: (\S+)", WRITTEN, re.MULTILINE)
}
ROOMS = sorted(
    f"vae_lib.{path.stem}"
    for path in (ROOT / "vae_lib").iterdir()
    if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").is_file())
)


def public_names(module: ModuleType) -> list[str]:
    """Return ``__all__``, or the functions and classes that the module itself defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


def undocumented(owner: str, name: str, value: object) -> list[str]:
    """Return the names, of the value and of its public members, that a page would leave out."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return [] if f"{owner}.{name}" in DATA else [f"{owner}.{name}: data, and no page has a line for it"]
    found = [] if inspect.getdoc(value) else [f"{owner}.{name}"]
    if inspect.isclass(value):
        for member, inside in vars(value).items():
            written = inspect.isroutine(inside) or isinstance(inside, property | classmethod | staticmethod)
            if written and not member.startswith("_") and not inspect.getdoc(getattr(value, member)):
                found.append(f"{owner}.{name}.{member}")
    return found


def test_every_room_has_its_page() -> None:
    assert set(ROOMS) - set(MODULES) == set()


def test_nothing_is_shown_twice() -> None:
    assert len(MODULES) == len(set(MODULES))


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert inspect.getdoc(module)
    assert [
        line for public in public_names(module) for line in undocumented(name, public, getattr(module, public))
    ] == []


@pytest.mark.parametrize(("module", "names"), re.findall(r"automodule:: (\S+)\n +:exclude-members: (.+)", WRITTEN))
def test_what_one_place_leaves_out_another_shows(module: str, names: str) -> None:
    for name in names.split(", "):
        elsewhere = [m for m in MODULES if m != module and name in public_names(importlib.import_module(m))]
        assert elsewhere or f"{module}.{name}" in DATA, name


@pytest.mark.parametrize("name", MODULES)
def test_no_property_begins_with_a_type(name: str) -> None:
    """Napoleon takes what stands before a colon in a property's first line for its type: "1: the rate" has type 1."""
    assert [line for owner in vars(importlib.import_module(name)).values() for line in typed_properties(owner)] == []


def typed_properties(owner: object) -> list[str]:
    """Return the properties of a class whose first line has a colon outside of code and mathematics."""
    members = vars(owner).items() if inspect.isclass(owner) else []
    first_lines = {
        member: (inspect.getdoc(value) or "").partition("\n")[0]
        for member, value in members
        if isinstance(value, property)
    }
    return [f"{member}: {line}" for member, line in first_lines.items() if ": " in re.sub("`+[^`]*`+", "", line)]


def test_pages_have_no_option_that_hides_names() -> None:
    assert not re.search(r":(no-members|no-index|noindex|no-undoc-members)", WRITTEN)


def test_the_overview_leads_to_every_page() -> None:
    overview = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    assert {path.name for path in PAGES} == set(re.findall(r"\(api/([a-z_]+\.md)\)", overview))
    assert set(re.findall(r"`(\w+)`", overview)) >= {room.removeprefix("vae_lib.") for room in ROOMS}


def chapter_imports(path: Path) -> set[tuple[str, str]]:
    """Return what the code cells of a chapter import from the library, as pairs of module and name."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    trees = [ast.parse("".join(cell["source"])) for cell in cells]
    return {
        (node.module, alias.name)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vae_lib")
        for alias in node.names
    }


@pytest.mark.parametrize("path", sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb")), ids=lambda path: path.stem)
def test_what_a_chapter_imports_is_on_a_page(path: Path) -> None:
    imports = chapter_imports(path)
    assert imports
    for module, name in imports:
        shown = module in MODULES and name in public_names(importlib.import_module(module))
        assert shown or f"{module}.{name}" in MODULES, f"{module}.{name} is in no page of book/api/"


def test_a_property_with_a_type_is_seen() -> None:
    class Rate:
        @property
        def latent_dim(self) -> int:
            """1: the rate."""
            return 1

        @property
        def concentration(self) -> float:
            """Of the prior, ``a: b``."""
            return 1.0

    assert typed_properties(Rate) == ["latent_dim: 1: the rate."]


def test_a_name_without_a_docstring_is_seen() -> None:
    class Bare:
        def method(self) -> None: ...

    assert undocumented("m", "Bare", Bare) == ["m.Bare", "m.Bare.method"]
    assert undocumented("m", "LIMIT", 3) == ["m.LIMIT: data, and no page has a line for it"]
