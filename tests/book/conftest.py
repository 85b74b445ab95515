"""The built book, opened in a real browser with the network cut."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser import chromium

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
# Reduced motion: scrolling arrives at once, so that what is measured stays where it is.
DESKTOP: dict[str, Any] = {
    "viewport": {"width": 1280, "height": 900},
    "color_scheme": "light",
    "reduced_motion": "reduce",
}
OUTSIDE = re.compile(r"^(?!http://127\.0\.0\.1[:/])(https?|wss?|ftp)://")

# Maths that was not set, or set as an error: a formula without its container, TeX that MathJax marks, TeX left as text.
MATHS_FAULTS = r"""() => {
  const faults = [];
  for (const node of document.querySelectorAll(".math")) {
    if (node.querySelectorAll("mjx-container").length !== 1) faults.push("not typeset: " + node.textContent);
  }
  const wrong = 'mjx-merror, [data-mjx-error], mjx-container [style*="color: red"]';
  for (const node of document.querySelectorAll(wrong)) {
    faults.push("TeX error: " + node.closest("mjx-container").textContent);
  }
  const walker = document.createTreeWalker(document.querySelector("main") ?? document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("script, style, pre, code, mjx-container")) continue;
    if (/\$|\\[([\])]|\\begin\{/.test(node.data)) faults.push("raw TeX: " + node.data.trim());
  }
  return faults;
}"""

# A page whose maths takes longer than this is reported by the test of its maths.
TYPESET = """() => Promise.race([
  Promise.all([window.MathJax?.startup?.promise, document.fonts.ready]).then(() => true),
  new Promise((resolve) => setTimeout(resolve, 20000)),
])"""


def pages(*, with_sources: bool = False) -> list[str]:
    """Return the built pages, listings of code only when asked for; where nothing is built, a page that should be."""
    found = sorted(path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html"))
    # index.html only sends the reader on to the first page.
    found = [page for page in found if not page.startswith("_static/") and page != "index.html"]
    if not with_sources:
        found = [page for page in found if not page.startswith("_modules/") or page == "_modules/index.html"]
    return found or ["book/intro.html"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each page, so that a failure names its page."""
    if "any_page" in metafunc.fixturenames:
        metafunc.parametrize("any_page", pages(with_sources=True))
    if "visited" in metafunc.fixturenames:
        metafunc.parametrize("visited", pages(), indirect=True, scope="module")
    elif "page_name" in metafunc.fixturenames:
        metafunc.parametrize("page_name", pages())


@pytest.fixture(scope="session")
def built_book() -> Path:
    """Return the folder of the built book, which must be newer than all it is made from."""
    # Written last, in every build.
    stamp = HTML / "objects.inv"
    if not (HTML / "index.html").exists() or not stamp.exists():
        pytest.fail("the book is not built: run make book", pytrace=False)
    sources = [ROOT / "_config.yml", ROOT / "_toc.yml"]
    # Tests are sources too, of the ledger: there a test compares the text itself.
    for folder, pattern in [("book", "*"), ("vae_lib", "*.py")]:
        sources += [path for path in (ROOT / folder).rglob(pattern) if path.is_file()]
    ignored = {"__pycache__", ".ipynb_checkpoints", "_tools"}
    newest = max((path for path in sources if not ignored & set(path.parts)), key=lambda path: path.stat().st_mtime)
    if newest.stat().st_mtime > stamp.stat().st_mtime:
        pytest.fail(f"the built book is older than {newest.relative_to(ROOT)}: run make book", pytrace=False)
    return HTML


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep the access log out of the tests' output."""


@pytest.fixture(scope="module")
def site(built_book: Path) -> Iterator[str]:
    """Serve the built book on the loopback and return its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(built_book)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser(built_book: Path) -> Iterator[Browser]:
    """Start Chromium once for a file of tests."""
    with chromium() as browser:
        yield browser


class Visitor:
    """One reader's window: opens pages and writes down everything that went wrong on the way."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.complaints: list[str] = []
        context.set_default_timeout(15_000)
        context.route(OUTSIDE, lambda route: route.abort())
        context.on("request", self._note_request)
        context.on(
            "requestfailed",
            lambda request: self.complaints.append(f"failed request: {request.url} ({request.failure})"),
        )
        context.on(
            "response",
            lambda answer: answer.status >= 400 and self.complaints.append(f"{answer.status}: {answer.url}"),
        )
        context.on("weberror", lambda error: self.complaints.append(f"uncaught error: {error.error}"))
        context.on(
            "console",
            lambda message: (
                message.type in ("error", "warning")
                and self.complaints.append(f"console {message.type}: {message.text}")
            ),
        )
        self.page: Page = context.new_page()

    def _note_request(self, request: object) -> None:
        url = getattr(request, "url", "")
        if OUTSIDE.match(url):
            self.complaints.append(f"request to the outside: {url}")

    def open(self, address: str) -> Page:
        """Open a page, wait until its maths is set, and return it."""
        self.page.goto(address, wait_until="load")
        self.page.evaluate(TYPESET)
        return self.page

    def maths_faults(self) -> list[str]:
        """Return what is wrong with the maths of the open page."""
        faults: list[str] = self.page.evaluate(MATHS_FAULTS)
        return faults


@pytest.fixture(scope="module")
def open_window(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Return what opens a window of a given kind; all are closed after the file's last test."""
    contexts = []

    def open_one(**options: Any) -> Visitor:
        contexts.append(browser.new_context(**DESKTOP | options))
        return Visitor(contexts[-1])

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Give a test a window of its own."""
    context = browser.new_context(**DESKTOP)
    yield Visitor(context)
    context.close()


@pytest.fixture(scope="module")
def visited(request: pytest.FixtureRequest, browser: Browser, site: str) -> Iterator[Visitor]:
    """Open a page once, over the loopback, for all the tests that look at it."""
    context = browser.new_context(**DESKTOP)
    visitor = Visitor(context)
    visitor.open(f"{site}/{request.param}")
    yield visitor
    context.close()
