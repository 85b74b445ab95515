"""Mirrors that fail in every way: the next one is tried, and only what was verified comes back."""

from __future__ import annotations

import hashlib
import io
import sys
import time

import pytest

from vae_lib.data.dataset import DatasetError
from vae_lib.data.download import RemoteFile, download

DATA = bytes(range(256)) * 800
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
TIMEOUT = 0.3

CAUSES = {
    "truncated": "IncompleteRead",
    "stalling": "timed out",
    "silent": "timed out",
    "gibberish": "this is not HTTP",
    "odd_length": "many",
    "changed": f"corrupt: expected SHA-256 {DIGEST[7:19]}…, found ",
    "cut_short": f"truncated: expected {len(DATA)} bytes, found {len(DATA) // 2}",
    "missing": "HTTP 404",
}


def remote(*urls: str) -> RemoteFile:
    return RemoteFile("set/file.bin", urls, DIGEST, len(DATA))


def test_a_good_mirror_serves_the_file(server):
    server.replies["/good"] = DATA
    file = remote(server.url("/good"))
    assert download(file, file.check) == DATA


@pytest.mark.parametrize("way", CAUSES)
def test_the_next_mirror_is_tried(server, misbehave, way):
    server.replies |= {"/bad": misbehave[way](DATA), "/good": DATA}
    file = remote(server.url("/bad"), server.url("/good"))
    start = time.monotonic()
    assert download(file, file.check, timeout=TIMEOUT) == DATA
    assert time.monotonic() - start < 10  # far from the 30 s that a mirror is given by default
    assert server.asked == ["/bad", "/good"]


def test_a_mirror_after_the_good_one_is_left_alone(server):
    server.replies |= {"/good": DATA, "/spare": DATA}
    file = remote(server.url("/good"), server.url("/spare"))
    download(file, file.check)
    assert server.asked == ["/good"]


@pytest.mark.parametrize("way", CAUSES)
def test_when_all_fail_one_line_says_why(server, misbehave, refused, way):
    server.replies["/bad"] = misbehave[way](DATA)
    file = remote(refused, server.url("/bad"))
    with pytest.raises(DatasetError) as caught:
        download(file, file.check, timeout=TIMEOUT)
    message = str(caught.value)
    assert "\n" not in message
    assert "set/file.bin could not be downloaded: expected one of 2 mirrors" in message
    assert "Connection refused; 127.0.0.1:" in message
    assert CAUSES[way] in message
    assert "VAE_LIB_DATA" in message


def test_a_verdict_of_the_reader_sends_to_the_next_mirror(server):
    """Where the file's hash is not known, what is read from it decides."""
    server.replies |= {"/bad": b"other", "/good": DATA}

    def verify(data: bytes) -> None:
        if data != DATA:
            raise DatasetError("corrupt: not what was expected")

    file = RemoteFile("file", (server.url("/bad"), server.url("/good")))
    assert download(file, verify) == DATA


def test_the_cause_is_the_mirrors_own_not_the_callers(refused):
    """Python chains a new error to one being handled; that one is no news about the mirror."""
    try:
        raise OSError("the caller's trouble")
    except OSError:
        with pytest.raises(DatasetError, match="Connection refused") as caught:
            download(remote(refused), len)
    assert "the caller's trouble" not in str(caught.value)


def test_md5_is_checked_where_that_was_published():
    file = RemoteFile("file", (), "md5:" + hashlib.md5(DATA, usedforsecurity=False).hexdigest())
    file.check(DATA)
    with pytest.raises(DatasetError, match=r"corrupt: expected MD5 \w{12}…, found \w{12}…"):
        file.check(DATA + b"!")


def test_an_interrupt_is_not_taken_for_a_broken_mirror(server):
    server.replies |= {"/first": DATA, "/second": DATA}

    def verify(data: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(remote(server.url("/first"), server.url("/second")), verify)
    assert server.asked == ["/first"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stderr", "progress", "shown"),
    [
        (io.StringIO, None, False),
        (io.StringIO, True, True),
        (_Terminal, None, True),
        (_Terminal, False, False),
    ],
)
def test_the_bar_shows_on_a_terminal_or_on_request(server, monkeypatch, capsys, stderr, progress, shown):
    server.replies["/good"] = DATA
    stream = stderr()
    monkeypatch.setattr(sys, "stderr", stream)
    file = remote(server.url("/good"))
    download(file, file.check, progress=progress)
    assert ("file.bin: 100%" in stream.getvalue()) is shown
    if not shown:
        assert stream.getvalue() == ""
    assert capsys.readouterr().out == ""
