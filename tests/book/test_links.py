"""The built pages read as files: links and anchors lead somewhere, titles, headings and alternative texts are there."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag


@cache
def _parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def _anchors(path: Path) -> frozenset[str]:
    soup = _parsed(path)
    return frozenset(str(tag["id"]) for tag in soup.find_all(id=True)) | frozenset(
        str(tag["name"]) for tag in soup.find_all("a", attrs={"name": True})
    )


def _addresses(soup: BeautifulSoup) -> list[tuple[Tag, str]]:
    return [
        (tag, str(tag[attribute])) for attribute in ("href", "src") for tag in soup.find_all(attrs={attribute: True})
    ]


def test_links_lead_somewhere(any_page: str, built_book: Path) -> None:
    path = built_book / any_page
    broken = []
    for _, address in _addresses(_parsed(path)):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        fragment = unquote(parts.fragment)
        # "#" alone is a button of the theme: the top of the page.
        if not target.is_file() or (fragment and target.suffix == ".html" and fragment not in _anchors(target)):
            broken.append(address)
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(any_page: str, built_book: Path) -> None:
    outside = [
        address
        for tag, address in _addresses(_parsed(built_book / any_page))
        if tag.name != "a" and urlsplit(address).scheme not in ("", "data")
    ]
    assert outside == []


def test_pictures_have_alternative_texts(any_page: str, built_book: Path) -> None:
    soup = _parsed(built_book / any_page)
    # Without a text of ours, the picture's file name stands in for it.
    bare = [
        str(image.get("src"))
        for image in soup.find_all("img")
        if len(str(image.get("alt") or "").strip()) < 5 or "_images/" in str(image["alt"])
    ]
    assert bare == []


def test_title_language_and_headings(any_page: str, built_book: Path) -> None:
    soup = _parsed(built_book / any_page)
    title = soup.title.get_text(strip=True) if soup.title else ""
    assert "Not an Arbitrary Loss" in title
    assert soup.html is not None
    assert soup.html.get("lang") == "en"
    # The theme repeats the title for the printer, unseen on the screen.
    headings = soup.select(":is(h1, h2, h3, h4, h5, h6):not(#jb-print-docs-body *)")
    levels = [int(heading.name[1]) for heading in headings]
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels)), levels


def test_identifiers_are_unique(any_page: str, built_book: Path) -> None:
    names = [str(tag["id"]) for tag in _parsed(built_book / any_page).find_all(id=True)]
    assert sorted({name for name in names if names.count(name) > 1}) == []
