"""The bibliography holds what is cited, completely, and every data set and docstring leads to an entry of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pybtex.database import Entry, parse_file

from vae_lib.data import dataset_info, dataset_names

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
ENTRIES: dict[str, Entry] = dict(parse_file(str(BOOK / "references.bib")).entries.items())
UNPUBLISHED = {key for key, entry in ENTRIES.items() if entry.fields.get("keywords") == "unpublished"}
PAGES = sorted([*BOOK.rglob("*.md"), *BOOK.glob("[0-9][0-9]_*.ipynb")])
CITE = re.compile(r"\{cite(?::[a-z:]+)?\}`([^`]+)`")
DOI = re.compile(r"10\.\d{4,9}/\S+")
ARXIV = re.compile(r"\d{4}\.\d{4,5}")


def cited(path: Path) -> set[str]:
    """Return the keys that a page cites."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
    return {key.strip() for keys in CITE.findall(text) for key in keys.split(",")}


def faults(entry: Entry) -> list[str]:
    """Return what a published entry lacks."""
    missing = [name for name in ("title", "year") if not entry.fields.get(name)]
    missing += [] if entry.persons.get("author") else ["author"]
    fields = entry.fields
    if "doi" in fields and not DOI.fullmatch(fields["doi"]):
        missing.append("a DOI by itself, without an address around it")
    if "eprint" in fields and not ARXIV.fullmatch(fields["eprint"]):
        missing.append("an arXiv number")
    if not fields.keys() & {"doi", "eprint", "url"}:
        missing.append("a DOI, an arXiv number or an address")
    if not re.fullmatch(r"(19|20)\d\d", fields.get("year", "")):
        missing.append("a year of four digits")
    return missing


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(BOOK).as_posix())
def test_what_is_cited_exists(path: Path) -> None:
    assert cited(path) - ENTRIES.keys() == set()


@pytest.mark.parametrize("key", sorted(ENTRIES.keys() - UNPUBLISHED))
def test_an_entry_is_complete(key: str) -> None:
    assert faults(ENTRIES[key]) == []


@pytest.mark.parametrize("key", sorted(ENTRIES.keys() - UNPUBLISHED))
def test_a_key_is_author_year_word(key: str) -> None:
    entry = ENTRIES[key]
    first = re.sub(r"\W", "", entry.persons["author"][0].last_names[-1]).lower()
    assert key.startswith(f"{first}{entry.fields['year']}")


def test_only_the_five_sources_are_incomplete() -> None:
    """Slides and notes state a title and where they are from; nothing is made up for them."""
    assert len(UNPUBLISHED) == 5
    for key in UNPUBLISHED:
        assert ENTRIES[key].fields["title"]
        assert ENTRIES[key].fields["howpublished"]
        assert ENTRIES[key].fields["year"] == "n.d."


@pytest.mark.parametrize("name", dataset_names())
def test_a_data_set_has_its_entry(name: str) -> None:
    info = dataset_info(name)
    entry = ENTRIES[info.bib_key]
    assert entry.fields["year"] in info.citation
    assert entry.persons["author"][0].last_names[-1] in info.citation


def docstring_references() -> set[tuple[str, str]]:
    """Return the papers that the library's source names as "Author and Author (year)": first author and year."""
    named = re.compile(r"([A-Z][a-z]+)(?:, (?:van )?[A-Z][a-z]+)* and [A-Z][a-z]+ \(((?:19|20)\d\d)\)")
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "vae_lib").rglob("*.py"))
    return set(named.findall(sources))


def test_a_paper_in_a_docstring_has_its_entry() -> None:
    known = {
        (entry.persons["author"][0].last_names[-1], entry.fields["year"])
        for entry in ENTRIES.values()
        if entry.persons.get("author")
    }
    assert docstring_references()
    assert docstring_references() - known == set()


def test_every_entry_is_used() -> None:
    """An entry that no page cites and no data set names is a leftover."""
    used = {key for path in PAGES for key in cited(path)} | {dataset_info(name).bib_key for name in dataset_names()}
    assert ENTRIES.keys() - used == set()


def test_a_hole_is_seen() -> None:
    entry = Entry("misc", fields={"title": "T", "doi": "https://doi.org/10.1/x", "eprint": "cs/1"})
    assert faults(entry) == [
        "year",
        "author",
        "a DOI by itself, without an address around it",
        "an arXiv number",
        "a year of four digits",
    ]
