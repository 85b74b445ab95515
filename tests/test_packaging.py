"""What pip reads agrees with what the code is: ranges, pins, version, declared imports, old syntax."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import vae_lib

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
SOURCES = sorted((ROOT / "vae_lib").rglob("*.py"))
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
HOUSE = sorted(path for folder in ("tests", "book") for path in (ROOT / folder).rglob("*.py"))
IMPORTED_AS = {"IPython": "ipython", "bs4": "beautifulsoup4", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def pins() -> dict[str, str]:
    """Return the exact version of every distribution in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("requirement", RUNTIME + EXTRAS, ids=str)
def test_each_requirement_is_pinned_inside_its_range(requirement: Requirement) -> None:
    assert requirement.specifier, f"{requirement.name}: no lower bound"
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("requirement", RUNTIME, ids=str)
def test_runtime_ranges_are_open_above(requirement: Requirement) -> None:
    assert {specifier.operator for specifier in requirement.specifier} == {">="}


def test_pins_are_plain_versions() -> None:
    odd = {name: version for name, version in pins().items() if not re.fullmatch(r"[0-9][0-9a-z.]*", version)}
    assert odd == {}


def test_pins_name_no_place() -> None:
    assert not re.search(r"://|--|\s@\s", (ROOT / "constraints.txt").read_text(encoding="utf-8"))


def test_what_is_installed_is_what_is_pinned() -> None:
    """Everything that the package, the book and the tests need is here in the pinned version."""
    odd = {}
    for name, version in pins().items():
        try:
            installed = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue  # pins may name what another platform needs
        if installed != version:
            odd[name] = f"{installed} instead of {version}"
    assert odd == {}


def test_version_is_the_installed_one() -> None:
    assert vae_lib.__version__ == importlib.metadata.version("vae-lib")


def test_python_range_is_the_one_checked_here() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [minor for minor in range(8, 15) if supported.contains(f"3.{minor}.0")] == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_syntax_is_that_of_python_3_10(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


def named_tuples_with_a_second_base(source: str) -> list[str]:
    """Return the classes that Python 3.10 refuses when the module is imported."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return [c.name for c in classes if len(c.bases) > 1 and "NamedTuple" in map(ast.unparse, c.bases)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_tuples_are_those_of_python_3_10(path: Path) -> None:
    assert named_tuples_with_a_second_base(path.read_text(encoding="utf-8")) == []


def test_a_generic_named_tuple_would_be_seen() -> None:
    assert named_tuples_with_a_second_base("class Run(NamedTuple, Generic[M]):\n    models: list[M]") == ["Run"]


def test_newer_syntax_would_be_seen() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("try:\n    pass\nexcept* ValueError:\n    pass", feature_version=(3, 10))


def imported_modules(path: Path) -> tuple[set[str], set[str]]:
    """Return the foreign modules that a file always imports, and those that only its functions import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    always: set[str] = set()
    late: set[str] = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        (late if id(node) in inner else always).update(name.split(".")[0] for name in names)
    known = sys.stdlib_module_names | {"vae_lib"}
    return always - known, late - known


def distributions(modules: set[str]) -> set[str]:
    """Return the names under which pip knows these modules."""
    return {canonicalize_name(IMPORTED_AS.get(module, module)) for module in modules}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_declared(path: Path) -> None:
    """What a module imports is a runtime dependency; what only a function needs may come with an extra."""
    runtime = {canonicalize_name(requirement.name) for requirement in RUNTIME}
    extras = {canonicalize_name(requirement.name) for requirement in EXTRAS}
    always, late = imported_modules(path)
    assert distributions(always) <= runtime
    assert distributions(late) <= runtime | extras


@pytest.mark.parametrize("path", HOUSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_of_tests_and_tools_are_declared(path: Path) -> None:
    own = {"tests"} | {file.parent.name if file.stem == "__init__" else file.stem for file in HOUSE}
    always, late = imported_modules(path)
    declared = {canonicalize_name(requirement.name) for requirement in RUNTIME + EXTRAS}
    assert distributions((always | late) - own) <= declared


def test_types_are_shipped() -> None:
    assert (ROOT / "vae_lib/py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["vae_lib"]
