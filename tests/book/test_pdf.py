"""The printed book: a chapter and the bibliography as a PDF, and a small book that must not be printed.

The whole book takes minutes; `make pdf` prints it by the same way.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import one_page
import pdf
import pytest
from bs4 import BeautifulSoup, Tag
from pypdf import PdfReader
from pypdf.generic import ArrayObject, DictionaryObject, IndirectObject

ROOT = Path(__file__).parents[2]
PAGES = ["book/03_score_function", "book/bibliography"]
A4 = (210 / 25.4 * 72, 297 / 25.4 * 72)


class Printed:
    """A PDF and the pages of the book that it was made from."""

    def __init__(self, path: Path, html: Path) -> None:
        self.reader = PdfReader(path)
        self.pages = {
            name: BeautifulSoup((html / f"{name}.html").read_text(encoding="utf-8"), "html.parser") for name in PAGES
        }

    @cached_property
    def texts(self) -> list[str]:
        """The text of each page, ligatures taken apart and white space made single."""
        return [_plain(page.extract_text()) for page in self.reader.pages]

    @cached_property
    def bookmarks(self) -> list[tuple[int, str, int]]:
        """Depth, title and page of every bookmark."""
        return list(self._bookmarks(self.reader.outline, 1))

    def _bookmarks(self, items: list[Any], depth: int) -> Iterator[tuple[int, str, int]]:
        for item in items:
            if isinstance(item, list):
                yield from self._bookmarks(item, depth + 1)
            else:
                page = self.reader.get_destination_page_number(item)
                assert page is not None
                yield depth, item.title, page + 1

    def select(self, selector: str) -> list[Tag]:
        """Return what a selector finds in the articles of the built pages."""
        return [node for page in self.pages.values() for node in page.select(f"article.bd-article {selector}")]

    def links(self) -> Iterator[DictionaryObject]:
        """Return the action of every link."""
        for page in self.reader.pages:
            for annotation in page.annotations or []:
                link = annotation.get_object()
                if link["/Subtype"] == "/Link":
                    yield link

    def descriptions(self) -> set[str]:
        """Return what the tags say of pictures and formulas."""
        found, waiting, seen = set(), [self.reader.root_object["/StructTreeRoot"].get_object()], set()
        while waiting:
            node = waiting.pop()
            if "/Alt" in node:
                found.add(" ".join(node["/Alt"].split()))
            children = node.get("/K", [])
            for child in children if isinstance(children, ArrayObject) else [children]:
                if isinstance(child, IndirectObject) and child.idnum not in seen:
                    seen.add(child.idnum)
                    below = child.get_object()
                    if isinstance(below, DictionaryObject):
                        waiting.append(below)
        return found


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


@pytest.fixture(scope="module")
def printed(built_book: Path, tmp_path_factory: pytest.TempPathFactory) -> Printed:
    out = tmp_path_factory.mktemp("pdf") / "book.pdf"
    count = pdf.make(built_book, out, pages=PAGES)
    result = Printed(out, built_book)
    assert count == len(result.reader.pages) > 20
    return result


def _squeezed(text: str) -> str:
    """Without white space: a PDF holds places of letters, not words."""
    return "".join(_plain(text).split())


def test_paper_and_properties(printed: Printed) -> None:
    for page in printed.reader.pages:
        assert (float(page.mediabox.width), float(page.mediabox.height)) == pytest.approx(A4, abs=1)
    about = printed.reader.metadata
    assert about is not None
    assert about.title == "Not an Arbitrary Loss"
    assert about.author == "The authors of Not an Arbitrary Loss"
    assert printed.reader.root_object["/Lang"] == "en"
    assert printed.reader.root_object["/MarkInfo"]["/Marked"]


def test_every_number_is_that_of_the_page(printed: Printed) -> None:
    text = _squeezed(" ".join(printed.texts))
    numbers = [re.match(r"\([\d.]+\)", node.get_text())[0] for node in printed.select(".eqno")]  # type: ignore[index]
    captions = [node.get_text() for node in printed.select(".caption-number")]
    sections = [node.parent.get_text().rstrip("#").replace(". ", " ", 1) for node in printed.select(".section-number")]
    assert len(numbers) > 15
    assert len(captions) > 7
    assert len(sections) > 15
    missing = [name for name in numbers + captions + sections if _squeezed(name) not in text]
    assert missing == []


def test_nothing_of_the_screen_is_left(printed: Printed) -> None:
    text = " ".join(printed.texts)
    for trace in (
        "Show code cell",
        "Hide code cell",
        "Click to",
        "Toggle",
        "[source]",
        "¶",
        "\\(",
        "\\[",
        "\\begin{",
        "ModuleNotFoundError",
    ):
        assert trace not in text
    assert [at for at, words in enumerate(printed.texts, 1) if len(words) < 40] == []


def test_what_was_folded_is_there(printed: Printed) -> None:
    text = _squeezed(" ".join(printed.texts))
    solutions = printed.select("div.solution > section > p")
    derivations = printed.select("details.sd-dropdown .sd-summary-text")
    code = printed.select(".tag_hide-cell .cell_input pre")
    assert min(len(solutions), len(derivations), len(code)) > 2
    for node in derivations:
        assert _squeezed(node.get_text()) in text
    for node in code:
        assert [line for line in node.get_text().splitlines() if _squeezed(line) not in text] == []
    for node in solutions:
        # A page may end within a long piece, and hardly within its first letters.
        pieces = [_squeezed(str(string)) for string in node.strings]
        assert any(piece[:20] in text for piece in pieces if len(piece) > 12), node


def test_the_code_of_figures_is_not_there(printed: Printed) -> None:
    text = _squeezed(" ".join(printed.texts))
    drawing = [cell for cell in printed.select(".tag_hide-input") if cell.select_one(".cell_output img")]
    assert len(drawing) == 3
    for cell in drawing:
        code = cell.select_one(".cell_input pre")
        assert code is not None
        lines = [_squeezed(line) for line in code.get_text().splitlines() if len(line.strip()) > 15]
        assert sum(line in text for line in lines) < len(lines) / 2


def test_links_lead_somewhere(printed: Printed) -> None:
    known = {name.removeprefix("/") for name in printed.reader.named_destinations}
    inside, outside = set(), set()
    for link in printed.links():
        if "/A" in link:
            outside.add(str(link["/A"]["/URI"]))
        else:
            inside.add(str(link["/Dest"]).removeprefix("/"))
    assert inside <= known
    assert "03-score-function--equation-eq-score-function" in inside
    assert any(name.startswith("bibliography--") for name in inside)
    assert len(outside) > 50
    assert [address for address in outside if not re.match("https?://", address)] == []


def test_a_reference_leads_to_its_equation(printed: Printed) -> None:
    places = printed.reader.named_destinations
    checked = 0
    for equation in printed.select("div.math[id]"):
        number = equation.select_one(".eqno")
        place = places.get(f"/03-score-function--{equation['id']}")
        if number and place:
            page = printed.reader.get_destination_page_number(place)
            assert page is not None
            assert number.get_text().split("#")[0] in printed.texts[page]
            checked += 1
    assert checked > 8


def test_bookmarks_and_contents_name_the_pages(printed: Printed) -> None:
    contents = _squeezed(" ".join(printed.texts[2:4]))
    headings = printed.select(":is(h1, h2)")
    assert len(printed.bookmarks) == len(headings) > 10
    for heading, (depth, title, page) in zip(headings, printed.bookmarks, strict=True):
        assert depth == int(heading.name[1])
        assert _squeezed(heading.get_text().rstrip("#").replace(". ", " ", 1)) == _squeezed(title)
        assert _squeezed(title) in _squeezed(printed.texts[page - 1])
        assert _squeezed(f"{title}{page}") in contents


def test_fonts_are_embedded(printed: Printed) -> None:
    names = set()
    for page in printed.reader.pages:
        for font in page["/Resources"].get("/Font", {}).values():
            described = font.get_object()
            assert described["/Subtype"] == "/Type0", described
            below = described["/DescendantFonts"][0].get_object()
            assert "/FontFile2" in below["/FontDescriptor"], below["/BaseFont"]
            names.add(str(below["/BaseFont"]).partition("+")[2])
    assert {"STIXGeneral-Regular", "DejaVuSansMono", "MathJax_Math-Italic", "MathJax_Main-Regular"} <= names


def test_pictures_and_formulas_are_described(printed: Printed) -> None:
    said = printed.descriptions()
    pictures = [" ".join(str(image["alt"]).split()) for image in printed.select("img")]
    formulas = [node.get_text() for node in printed.select("span.math")]
    assert len(pictures) == 3
    assert [alt for alt in pictures if alt not in said] == []
    wanted = {" ".join(re.sub(r"^\\\(|\\\)$", "", text.strip()).split()) for text in formulas}
    assert len(wanted) > 100
    assert wanted <= said


def test_an_interactive_figure_says_where_it_moves(printed: Printed) -> None:
    text = " ".join(printed.texts)
    assert text.count("This figure can be moved") == 1
    assert re.search(r"on the web page\s+book/03_score_function\.html, section 3\.\d", text)


def _small_book(folder: Path, built_book: Path, article: str) -> Path:
    """Write a book of one page beside the scripts of the real one, and return its root."""
    (folder / "html" / "book").mkdir(parents=True)
    (folder / "html" / "_static").symlink_to(built_book / "_static")
    page = f'<article class="bd-article"><section id="top"><h1>Top</h1>{article}</section></article>'
    (folder / "html" / "book" / "intro.html").write_text(page, encoding="utf-8")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n", encoding="utf-8")
    (folder / "_config.yml").write_bytes((ROOT / "_config.yml").read_bytes())
    return folder


LONG = "+".join(f"x_{{{number}}}" for number in range(32))
WIDE = rf'<div class="math" id="long"><span class="eqno">(1.1)</span>\[{LONG}\]</div>'
FAULTY = r'<p><span class="math">\(\frac{a}\)</span></p><img alt="nothing" src="missing.png">'
FAULTY += f"<table><tr>{'<td>an-unbreakable-word-in-a-cell</td>' * 20}</tr></table>"


# The browser's driver draws from the global random state: it runs in fixtures, which are free to.
@pytest.fixture
def complaint(tmp_path: Path, built_book: Path) -> str:
    root = _small_book(tmp_path, built_book, FAULTY)
    with pytest.raises(pdf.PrintError) as caught:
        pdf.make(root / "html", tmp_path / "out.pdf", root)
    return str(caught.value)


def test_a_faulty_page_is_not_printed(complaint: str, tmp_path: Path) -> None:
    for fault in ("TeX error", "too wide", "no picture"):
        assert fault in complaint
    assert not (tmp_path / "out.pdf").exists()


@pytest.fixture
def wide_formula(tmp_path: Path, built_book: Path) -> PdfReader:
    root = _small_book(tmp_path, built_book, WIDE)
    pdf.make(root / "html", tmp_path / "out.pdf", root)
    return PdfReader(tmp_path / "out.pdf")


def test_a_wide_formula_is_made_to_fit(wide_formula: PdfReader) -> None:
    assert len(wide_formula.pages) == 4
    text = wide_formula.pages[3].extract_text()
    assert "(1.1)" in text
    assert "31" in text


def test_a_broken_link_is_not_printed(tmp_path: Path, built_book: Path) -> None:
    root = _small_book(tmp_path, built_book, '<a href="intro.html#nowhere">here</a>')
    with pytest.raises(ValueError, match=r"links without a target: book/intro: intro\.html#nowhere"):
        pdf.make(root / "html", tmp_path / "out.pdf", root)


def test_bad_input_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, built_book: Path
) -> None:
    assert pdf.main(["--html", str(tmp_path), "--out", str(tmp_path / "out.pdf")]) == 1
    assert "no such page, build the book first (make book)" in capsys.readouterr().err
    monkeypatch.setenv("CHROMIUM", "no-such-browser")
    assert pdf.main(["--html", str(built_book), "--out", str(tmp_path / "out.pdf"), "--pages", "book/licence"]) == 1
    assert "expected a Chromium, found no-such-browser" in capsys.readouterr().err


def test_dots_of_a_still_picture_have_a_length(tmp_path: Path) -> None:
    """A PDF leaves out a line of length zero, and with it the dot that its round ends make."""
    still = base64.b64encode(b'<path d="M1 2h0m3-4h0h0.5"/>').decode()
    page = tmp_path / "book" / "intro.html"
    page.parent.mkdir()
    page.write_text(
        '<article class="bd-article"><section id="top"><h1>Top</h1><figure class="explorable">'
        f'<img alt="dots" src="data:image/svg+xml;base64,{still}"></figure></section></article>',
        encoding="utf-8",
    )
    body = one_page.bind(tmp_path, [one_page.Place("book/intro")]).body
    found = re.search(r"base64,([^\"]+)", body)
    assert found is not None
    assert base64.b64decode(found[1]) == b'<path d="M1 2m-.1 0h.2m-.1 0m3-4m-.1 0h.2m-.1 0h0.5"/>'


TOC = """
root: book/intro
parts:
  - caption: One
    chapters:
      - file: book/a_b
        sections:
          - file: book/api/c
      - file: book/d
"""


def test_the_reading_order_is_that_of_the_table_of_contents(tmp_path: Path) -> None:
    toc = tmp_path / "_toc.yml"
    toc.write_text(TOC, encoding="utf-8")
    places = one_page.reading_order(toc)
    assert [(place.docname, place.depth, place.part, place.slug) for place in places] == [
        ("book/intro", 1, "", "intro"),
        ("book/a_b", 1, "One", "a-b"),
        ("book/api/c", 2, "", "api-c"),
        ("book/d", 1, "", "d"),
    ]
