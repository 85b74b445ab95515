"""Print the built book as one PDF: `make pdf`.

    python book/_tools/pdf.py [--html FOLDER] [--out FILE]

The built pages are bound into one HTML document, a headless Chromium prints it with a style sheet of its own, and
the PDF gets its page numbers in the table of contents, its title, author and language.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import time
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path

import matplotlib
import one_page
import print_fonts
import yaml
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import BooleanObject, DictionaryObject, Fit, IndirectObject, NameObject, TextStringObject

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
OUT = ROOT / "_build" / "pdf" / "not-an-arbitrary-loss.pdf"

OLDEST_CHROMIUM = 131  # the first that prints a style sheet's margin boxes, which carry the page numbers
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
MATH_FONTS = Path("_static", "mathjax", "output", "chtml", "fonts", "woff-v2")
PATIENCE = 300_000  # milliseconds for the maths of the whole book
# A4 less the margins of print.css, in CSS pixels: what is measured on the screen is then what is printed.
TEXT_WIDTH = round((210 - 2 * 22) / 25.4 * 96)

# Matplotlib brings fonts for text and code, the same on every machine.
FACES = [
    ("Book Text", "STIXGeneral.ttf", 400, "normal"),
    ("Book Text", "STIXGeneralItalic.ttf", 400, "italic"),
    ("Book Text", "STIXGeneralBol.ttf", 700, "normal"),
    ("Book Text", "STIXGeneralBolIta.ttf", 700, "italic"),
    ("Book Code", "DejaVuSansMono.ttf", 400, "normal"),
    ("Book Code", "DejaVuSansMono-Bold.ttf", 700, "normal"),
]


class PrintError(RuntimeError):
    """The book cannot be printed; the message says why."""


@dataclass(frozen=True)
class Edition:
    """What stands on the title page and in the properties of the PDF."""

    title: str
    subtitle: str
    author: str
    language: str
    version: str

    @classmethod
    def of(cls, root: Path) -> Edition:
        """Read it from _config.yml and from the installed package."""
        config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
        title, _, subtitle = config["title"].partition(": ")
        language = config["sphinx"]["config"]["language"]
        return cls(title, subtitle[:1].upper() + subtitle[1:], config["author"], language, version("vae-lib"))


def document(bound: one_page.Bound, edition: Edition, html: Path, math_fonts: Path) -> str:
    """Return the whole document to print, the table of contents still without page numbers."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = [
        f'@font-face {{ font-family: "{family}"; src: url("{(fonts / file).as_uri()}"); '
        f"font-weight: {weight}; font-style: {style}; }}"
        for family, file, weight, style in FACES
    ]
    quoted = {name: title.replace("\\", r"\\").replace('"', r"\"") for name, title in bound.chapters}
    heads = [
        f"section.page.in-{name} {{ page: page-{name}; }}\n"
        f'@page page-{name} {{ @top-center {{ content: "{title}"; font: italic 9pt "Book Text", serif; }} }}'
        for name, title in quoted.items()
    ]
    style = "\n".join([*faces, (HERE / "print.css").read_text(encoding="utf-8"), *heads])
    return (
        (HERE / "print.html")
        .read_text(encoding="utf-8")
        .format(
            **{name: escape(value) for name, value in vars(edition).items()},
            pygments=(html / "_static" / "pygments.css").as_uri(),
            mathjax=(html / "_static" / "mathjax" / "tex-chtml.js").as_uri(),
            math_fonts=math_fonts.as_uri(),
            style=style,
            contents=one_page.contents_html(bound.entries, {}),
            body=bound.body,
        )
    )


def print_pdf(source: Path, bound: one_page.Bound) -> bytes:
    """Print an HTML file twice: first to learn the pages of the headings, then with them in the table of contents."""
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None or shutil.which(executable) is None:
        raise PrintError(f"expected a Chromium, found {executable}: install chromium, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            if int(browser.version.split(".")[0]) < OLDEST_CHROMIUM:
                raise PrintError(f"expected Chromium {OLDEST_CHROMIUM} or newer, found {browser.version}")
            page = browser.new_context(viewport={"width": TEXT_WIDTH, "height": 1000}, offline=True).new_page()
            page.set_default_timeout(PATIENCE)
            page.emulate_media(media="print", color_scheme="light")
            page.goto(source.as_uri(), wait_until="load")
            page.evaluate("() => Promise.all([MathJax.startup.promise, document.fonts.ready]).then(() => true)")
            faults = page.evaluate((HERE / "print.js").read_text(encoding="utf-8"))
            if faults:
                raise PrintError("\n  ".join([f"{len(faults)} faults in {source}:", *faults[:20]]))
            pages = pages_of_anchors(_print(page, tagged=False))
            contents = one_page.contents_html(bound.entries, pages)
            page.evaluate("(html) => { document.getElementById('contents').innerHTML = html; }", contents)
            pdf = _print(page, tagged=True)
        finally:
            browser.close()
    found = pages_of_anchors(pdf)
    moved = [entry.anchor for entry in bound.entries if pages.get(entry.anchor) != found.get(entry.anchor)]
    if moved:
        raise PrintError(f"the table of contents moved the pages that it names: {', '.join(moved)}")
    return pdf


def _print(page: Page, *, tagged: bool) -> bytes:
    return page.pdf(prefer_css_page_size=True, print_background=True, tagged=tagged)


def pages_of_anchors(pdf: bytes) -> dict[str, int]:
    """Return the page, counted from 1, of every anchor that a link leads to."""
    reader = PdfReader(io.BytesIO(pdf))
    numbers = {page.indirect_reference.idnum: at for at, page in enumerate(reader.pages, 1) if page.indirect_reference}
    found = {}
    for name, place in reader.named_destinations.items():
        page = place.page
        if isinstance(page, IndirectObject) and page.idnum in numbers:
            found[name.removeprefix("/")] = numbers[page.idnum]
    return found


def finish(pdf: bytes, bound: one_page.Bound, edition: Edition) -> bytes:
    """Return the PDF with its bookmarks, title, author and language."""
    writer = PdfWriter(io.BytesIO(pdf), incremental=True)
    places = PdfReader(io.BytesIO(pdf)).named_destinations
    pages = pages_of_anchors(pdf)
    parents: list[IndirectObject] = []
    for entry in bound.entries:
        del parents[entry.depth - 1 :]
        place = places[f"/{entry.anchor}"]
        fit = Fit.xyz(left=0, top=float(place.top) if place.top else None)
        parent = parents[-1] if parents else None
        item = writer.add_outline_item(
            title=entry.heading, page_number=pages[entry.anchor] - 1, parent=parent, fit=fit, is_open=False
        )
        parents.append(item)
    writer.add_metadata(
        {"/Title": edition.title, "/Subject": edition.subtitle, "/Author": edition.author, "/Creator": "make pdf"}
    )
    root = writer.root_object
    root[NameObject("/Lang")] = TextStringObject(edition.language)
    root[NameObject("/PageMode")] = NameObject("/UseOutlines")
    root[NameObject("/ViewerPreferences")] = DictionaryObject({NameObject("/DisplayDocTitle"): BooleanObject(True)})
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def make(html: Path, out: Path, root: Path = ROOT, pages: list[str] | None = None) -> int:
    """Print the built book in ``html``, or some of its pages, to ``out``; return the number of pages of paper."""
    places = one_page.reading_order(root / "_toc.yml")
    if pages is not None:
        places = [place for place in places if place.docname in pages]
    edition = Edition.of(root)
    bound = one_page.bind(html.resolve(), places)
    out.parent.mkdir(parents=True, exist_ok=True)
    source = out.with_suffix(".html").resolve()
    math_fonts = source.parent / "fonts"
    print_fonts.convert(html.resolve() / MATH_FONTS, math_fonts)
    source.write_text(document(bound, edition, html.resolve(), math_fonts), encoding="utf-8")
    pdf = finish(print_pdf(source, bound), bound, edition)
    part = out.with_suffix(".part")
    part.write_bytes(pdf)
    part.replace(out)
    return len(PdfReader(io.BytesIO(pdf)).pages)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 1 when the book cannot be printed."""
    parser = argparse.ArgumentParser(description="Print the built book as one PDF.")
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="the built book")
    parser.add_argument("--out", type=Path, default=OUT, help="the PDF to write")
    parser.add_argument("--pages", nargs="*", help="some of the pages, for instance book/notation (default: all)")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        count = make(options.html, options.out, pages=options.pages)
    except (PrintError, FileNotFoundError, ValueError) as error:
        print(f"pdf: {error}", file=sys.stderr)
        return 1
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {count} pages, {size:.1f} MB, {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
