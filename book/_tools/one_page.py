"""Bind the pages of the built book into one HTML document, made for paper.

What is printed is what was published: numbers, citations and cross-references are those of the built pages. Every
anchor is prefixed with the name of its page, every link between pages becomes a link inside the document, what can
be folded is unfolded, and what only a screen can use is taken out.
"""

from __future__ import annotations

import base64
import copy
import posixpath
import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

FOR_SCREENS = (
    "a.headerlink, a:has(> .viewcode-link), .toctree-wrapper, .sd-summary-state-marker, button, script, style, noscript"
)
# A folded cell with a picture or an interactive figure below: code that draws.
DRAWS = ".cell_output :is(img, figure)"
SVG = "data:image/svg+xml;base64,"
POINTERS = ("aria-labelledby", "aria-describedby", "headers", "for")


@dataclass(frozen=True)
class Place:
    """A page of the table of contents: its document name, how deep it lies, and the part that begins with it."""

    docname: str
    depth: int = 1
    part: str = ""

    @property
    def slug(self) -> str:
        """The prefix of the page's anchors."""
        return re.sub(r"[^a-z0-9]+", "-", self.docname.removeprefix("book/").lower())


@dataclass
class Entry:
    """A line of the table of contents."""

    anchor: str
    number: str
    title: str
    depth: int
    part: str = ""

    @property
    def heading(self) -> str:
        """Number and title, without markup."""
        title = BeautifulSoup(self.title, "html.parser").get_text()
        return " ".join([*self.number.split(), *title.split()])


@dataclass
class Bound:
    """The bound document: its HTML, and what its table of contents lists."""

    body: str
    entries: list[Entry] = field(default_factory=list)
    chapters: list[tuple[str, str]] = field(default_factory=list)


def reading_order(toc: Path) -> list[Place]:
    """Return the pages that _toc.yml lists, in order."""
    data = yaml.safe_load(toc.read_text(encoding="utf-8"))
    places = [Place(data["root"])]

    def walk(items: list[dict[str, object]], depth: int, part: str) -> None:
        for item in items:
            if "file" in item:
                places.append(Place(str(item["file"]), depth, part))
                part = ""
                walk(item.get("sections", []), depth + 1, "")  # type: ignore[arg-type]

    for group in data.get("parts", [data]):
        walk(group.get("chapters", []), 1, group.get("caption", ""))
    return places


def bind(html: Path, places: list[Place]) -> Bound:
    """Return the pages of the built book in ``html`` as one document; a link without a target is an error."""
    pages = {place.docname: _read(html, place) for place in places}
    for place in places:
        _prefix_anchors(pages[place.docname], place.slug)
    anchors = {str(node["id"]) for page in pages.values() for node in page.select("[id]")}
    faults: list[str] = []
    for place in places:
        _turn_links(pages[place.docname], place, pages, anchors, faults)
    if faults:
        raise ValueError(f"links without a target: {', '.join(sorted(set(faults)))}")
    bound = Bound("")
    parts = []
    for place in places:
        page = pages[place.docname]
        _unfold(page)
        _still_figures(page, place)
        entries = _contents(page, place)
        bound.entries += entries
        if place.depth <= 1:
            bound.chapters.append((place.slug, entries[0].heading))
        classes = f"page depth-{place.depth} in-{bound.chapters[-1][0]}"
        parts.append(f'<section class="{classes}" id="{place.slug}">{page.decode_contents()}</section>')
    bound.body = "\n".join(parts)
    return bound


def _read(html: Path, place: Place) -> Tag:
    path = html / f"{place.docname}.html"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such page, build the book first (make book)")
    article = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one("article.bd-article")
    if article is None:
        raise ValueError(f"{path}: expected a page with article.bd-article, found none")
    for node in article.select(FOR_SCREENS):
        node.decompose()
    for image in article.select("img"):
        source = str(image["src"])
        if not urlsplit(source).scheme:
            image["src"] = (path.parent / unquote(source)).resolve().as_uri()
    return article


def _prefix_anchors(page: Tag, slug: str) -> None:
    for node in page.select("[id]"):
        node["id"] = f"{slug}--{node['id']}"
    for name in POINTERS:
        for node in page.select(f"[{name}]"):
            node[name] = " ".join(f"{slug}--{anchor}" for anchor in str(node[name]).split())


def _turn_links(page: Tag, place: Place, pages: dict[str, Tag], anchors: set[str], faults: list[str]) -> None:
    """Let links between bound pages lead to anchors; a link to a page that is not bound becomes plain text."""
    slugs = {docname: Place(docname).slug for docname in pages}
    for link in page.select("a[href]"):
        address = urlsplit(str(link["href"]))
        if address.scheme:
            continue
        target = place.docname
        if address.path:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(place.docname), unquote(address.path)))
            target = path.removesuffix(".html")
        if target not in slugs:
            if "ledger-mark" in link.get_attribute_list("class"):
                link.decompose()
            else:
                link.unwrap()
            continue
        anchor = f"{slugs[target]}--{unquote(address.fragment)}" if address.fragment else slugs[target]
        if address.fragment and anchor not in anchors:
            faults.append(f"{place.docname}: {link['href']}")
        link["href"] = f"#{anchor}"


def _unfold(page: Tag) -> None:
    """Open what is folded; leave out the code that draws a figure, the set-up cell, and the listings of the ledger."""
    for cell in page.select(".cell.tag_setup"):
        cell.decompose()
    for cell in page.select(".cell.tag_hide-input"):
        code = cell.select_one("details")
        if code is None:
            continue
        if cell.select_one(DRAWS):
            code.decompose()
        else:
            cell["class"] = f"{cell.get_attribute_list('class')[0]} folded"
    for fold in page.select("details.hide"):
        _drop_summary(fold)
        fold.unwrap()
    for fold in page.select("details.ledger-test"):
        name = _drop_summary(fold)
        fold.clear()
        fold.name, fold["class"] = "p", "ledger-test"
        fold.extend(name)
    for fold in page.select("details"):
        title = _drop_summary(fold)
        heading = _new("p", "aside-title")
        heading.extend(title)
        fold.name, fold["class"] = "div", "aside"
        fold.insert(0, heading)


def _drop_summary(fold: Tag) -> list[Tag]:
    """Take the line away that a reader clicks, and return what stood in it."""
    summary = fold.select_one("summary")
    if summary is None:
        return []
    summary.extract()
    return [copy.copy(child) for child in summary.children]  # type: ignore[misc]


def _still_figures(page: Tag, place: Place) -> None:
    """Keep the still picture and the caption of an interactive figure, and say where it moves."""
    for figure in page.select("figure.explorable"):
        section = figure.find_parent("section")
        number = section.select_one(".section-number") if section else None
        where = f", section {number.get_text().strip(' .')}" if number else ""
        figure["class"] = "explorable"
        for image in figure.select(f'img[src^="{SVG}"]'):
            image["src"] = SVG + _with_dots_drawn(str(image["src"]).removeprefix(SVG))
        for name in ("data-config", "data-explorable", "aria-label"):
            del figure[name]
        line = _new("p", "where")
        code = _new("code")
        code.string = f"{place.docname}.html"
        line.extend(["This figure can be moved: on the web page ", code, f"{where}, or in the chapter’s notebook."])
        caption = figure.select_one("figcaption")
        (caption or figure).append(line)


def _with_dots_drawn(still: str) -> str:
    """Give dots a length: a PDF leaves out a line of length zero, whatever its cap."""
    drawing = base64.b64decode(still).decode()
    return base64.b64encode(re.sub(r"h0(?![.\d])", "m-.1 0h.2m-.1 0", drawing).encode()).decode()


def _contents(page: Tag, place: Place) -> list[Entry]:
    """Return the page's lines for the table of contents, and put its headings at their depth in the whole book."""
    entries = []
    for heading in page.select("h1, h2, h3, h4, h5, h6"):
        level = int(heading.name[1])
        section = heading.find_parent("section")
        mark = heading.select_one(".section-number")
        number = mark.get_text().strip(" .\u00a0") if mark else ""
        if mark:
            mark.string = f"{number}\u2002"
        if section is not None and "id" in section.attrs:
            # A section may begin at the foot of a page whose heading stands on the next one.
            heading["id"] = section["id"]
            del section["id"]
        if "id" in heading.attrs and level + place.depth <= 3:
            title = heading.decode_contents().replace(str(mark), "") if mark else heading.decode_contents()
            part = place.part if level == 1 else ""
            entries.append(Entry(str(heading["id"]), number, title, level + place.depth - 1, part))
        heading.name = f"h{min(6, level + place.depth - 1)}"
    return entries


def contents_html(entries: list[Entry], pages: dict[str, int]) -> str:
    """Return the table of contents, with the page of each anchor where it is known."""
    lines = []
    for entry in entries:
        if entry.part:
            lines.append(f'<p class="part">{escape(entry.part)}</p>')
        page = pages.get(entry.anchor, "")
        lines.append(
            f'<p class="depth-{entry.depth}"><a href="#{entry.anchor}"><span class="number">{entry.number}</span>'
            f'<span class="title">{entry.title}</span></a>'
            f'<span class="leader"></span><span class="at">{page}</span></p>'
        )
    return "\n".join(lines)


def _new(name: str, classes: str = "") -> Tag:
    tag = BeautifulSoup("", "html.parser").new_tag(name)
    if classes:
        tag["class"] = classes
    return tag
