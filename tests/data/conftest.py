"""A loopback server that misbehaves on request, and the real data where they are at hand."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Reply = Callable[[http.server.BaseHTTPRequestHandler], None]


class LoopbackServer(http.server.ThreadingHTTPServer):
    """Answers each path as a test has set it in `replies`, and 404 elsewhere; `asked` lists the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: dict[str, bytes | Reply] = {}
        self.asked: list[str] = []
        self.over = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what half of the tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: LoopbackServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        reply = self.server.replies.get(self.path)
        if reply is None:
            self.send_error(404)
        elif isinstance(reply, bytes):
            self.begin(len(reply))
            self.wfile.write(reply)
        else:
            reply(self)

    def begin(self, length: object) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's stderr its own."""


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as loopback:
        thread = threading.Thread(target=loopback.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield loopback
        loopback.over.set()
        loopback.shutdown()
        thread.join()


@pytest.fixture
def misbehave() -> dict[str, Callable[[bytes], Reply]]:
    """Ways to answer wrongly when asked for a file."""

    def truncated(data: bytes) -> Reply:
        def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.begin(len(data))  # type: ignore[attr-defined]
            handler.wfile.write(data[: len(data) // 2])

        return reply

    def stalling(data: bytes) -> Reply:
        def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
            truncated(data)(handler)
            handler.wfile.flush()
            handler.server.over.wait(60)  # type: ignore[attr-defined]

        return reply

    def silent(data: bytes) -> Reply:
        return lambda handler: handler.server.over.wait(60)  # type: ignore[attr-defined]

    def gibberish(data: bytes) -> Reply:
        return lambda handler: handler.wfile.write(b"this is not HTTP\r\n\r\n")  # type: ignore[return-value]

    def odd_length(data: bytes) -> Reply:
        return lambda handler: handler.begin("many")  # type: ignore[attr-defined]

    def changed(data: bytes) -> Reply:
        def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.begin(len(data))  # type: ignore[attr-defined]
            handler.wfile.write(data[:-1] + bytes([data[-1] ^ 1]))

        return reply

    def cut_short(data: bytes) -> Reply:
        """Fewer bytes than published, with a header that admits it: only size and hash can tell."""

        def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.begin(len(data) // 2)  # type: ignore[attr-defined]
            handler.wfile.write(data[: len(data) // 2])

        return reply

    def missing(data: bytes) -> Reply:
        return lambda handler: handler.send_error(404)

    ways = (truncated, stalling, silent, gibberish, odd_length, changed, cut_short, missing)
    return {way.__name__: way for way in ways}


@pytest.fixture
def refused() -> str:
    """An address on which nothing listens: bound and closed again just now."""
    with LoopbackServer() as loopback:
        return loopback.url("/")


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between a test and its own server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


# Read before any test sets the variable for itself.
_CANDIDATES = [Path(p) for p in (os.environ.get("VAE_LIB_DATA"), ROOT.parent / "shared" / "data") if p]

_FILES = {
    "mnist": "mnist/t10k-labels-idx1-ubyte.gz",
    "frey": "frey/frey_rawface.mat",
    "binarized-mnist": "binarized_mnist/binarized_mnist_packbits.npz",
}


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The folder that holds the real files of a data set; skips where there is none."""

    def find(name: str) -> Path:
        for folder in _CANDIDATES:
            if name not in _FILES or (folder / _FILES[name]).is_file():
                return folder
        pytest.skip(f"{_FILES[name]} is neither in VAE_LIB_DATA nor in ../shared/data")

    return find
