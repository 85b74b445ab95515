"""The data folder: verified on every read, replaced whole or not at all, one line for every trouble."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vae_lib.data import DatasetError, data_folder
from vae_lib.data.download import RemoteFile
from vae_lib.data.folder import DataFolder, replacing

DATA = b"what was published" * 1000
NAME = "set/file.bin"


def remote(*urls: str) -> RemoteFile:
    return RemoteFile(NAME, urls, "sha256:" + hashlib.sha256(DATA).hexdigest(), len(DATA))


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def put(folder: Path, data: bytes) -> Path:
    path = folder / NAME
    path.parent.mkdir()
    path.write_bytes(data)
    return path


def fails(call) -> str:
    with pytest.raises(DatasetError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_download_is_kept_and_read_again_without_the_network(server, tmp_path):
    server.replies["/good"] = DATA
    folder = DataFolder(tmp_path / "new" / "folder")
    file = remote(server.url("/good"))
    assert folder.fetch(file, len) == len(DATA)
    assert files(folder.path) == {NAME: DATA}
    assert DataFolder(folder.path, download=False).fetch(file, len) == len(DATA)
    assert server.asked == ["/good"]


def test_a_kept_file_is_readable_by_whoever_the_umask_allows(server, tmp_path):
    server.replies["/good"] = DATA
    before = os.umask(0o022)
    try:
        DataFolder(tmp_path).fetch(remote(server.url("/good")), len)
    finally:
        os.umask(before)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o644


def test_good_files_need_no_write_access(tmp_path, monkeypatch):
    put(tmp_path, DATA)

    def deny(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", deny)
    monkeypatch.setattr(Path, "mkdir", deny)
    monkeypatch.setattr(Path, "open", lambda path, mode="r", **kw: open(path, mode) if "r" in mode else deny())
    assert DataFolder(tmp_path).fetch(remote(), len) == len(DATA)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (DATA[:-1] + b"?", "corrupt: expected SHA-256 "),
        (DATA + b"more", "corrupt: expected SHA-256 "),
        (DATA[:100], f"truncated: expected {len(DATA)} bytes, found 100"),
        (b"", f"truncated: expected {len(DATA)} bytes, found 0"),
    ],
    ids=["changed", "longer", "shorter", "empty"],
)
class TestDamaged:
    def test_is_fetched_anew_and_said_so(self, server, tmp_path, caplog, found, problem):
        path = put(tmp_path, found)
        server.replies["/good"] = DATA
        with caplog.at_level(logging.WARNING):
            assert DataFolder(tmp_path).fetch(remote(server.url("/good")), len) == len(DATA)
        assert files(tmp_path) == {NAME: DATA}
        (record,) = caplog.records
        assert record.name == "vae_lib.data.folder"
        assert record.getMessage().startswith(f"{path} is {problem}")
        assert record.getMessage().endswith("; downloading it again")

    def test_stays_when_downloads_are_off(self, tmp_path, found, problem):
        path = put(tmp_path, found)
        message = fails(lambda: DataFolder(tmp_path, download=False).fetch(remote(), len))
        assert message.startswith(f"{path} is {problem}")
        assert message.endswith("load with download=True to fetch it")
        assert files(tmp_path) == {NAME: found}

    def test_stays_when_no_mirror_helps(self, refused, tmp_path, found, problem):
        put(tmp_path, found)
        message = fails(lambda: DataFolder(tmp_path).fetch(remote(refused), len))
        assert "Connection refused" in message
        assert files(tmp_path) == {NAME: found}


def test_what_the_reader_rejects_is_damaged_too(server, tmp_path):
    path = put(tmp_path, DATA)

    def reject(data: bytes) -> int:
        raise DatasetError("corrupt: expected sense, found none")

    message = fails(lambda: DataFolder(tmp_path, download=False).fetch(remote(), reject))
    assert message.startswith(f"{path} is corrupt: expected sense, found none")


def test_missing_and_offline_is_one_line(tmp_path):
    message = fails(lambda: DataFolder(tmp_path, download=False).fetch(remote(), len))
    assert message == (
        f"{tmp_path / NAME} is missing: expected a file, found none; load with download=True to fetch it"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_file_is_one_line(tmp_path):
    (tmp_path / NAME).mkdir(parents=True)
    message = fails(lambda: DataFolder(tmp_path).fetch(remote(), len))
    assert message == f"{tmp_path / NAME} cannot be read: expected a file, found Is a directory"


@pytest.mark.parametrize("way", ["truncated", "stalling", "changed", "cut_short", "missing"])
def test_a_failed_download_leaves_no_file(server, misbehave, tmp_path, way):
    server.replies["/bad"] = misbehave[way](DATA)
    fails(lambda: DataFolder(tmp_path, timeout=0.3).fetch(remote(server.url("/bad")), len))
    assert files(tmp_path) == {}


def test_a_folder_that_cannot_be_made_is_found_out_before_the_download(server, tmp_path):
    blocker = tmp_path / "a file"
    blocker.write_text("not a folder")
    server.replies["/good"] = DATA
    folder = DataFolder(blocker / "data")
    message = fails(lambda: folder.fetch(remote(server.url("/good")), len))
    assert message == (
        f"{blocker / 'data' / NAME} cannot be written: expected a folder that can be written to, "
        "found Not a directory; set root= or VAE_LIB_DATA to one"
    )
    assert server.asked == []


@pytest.mark.parametrize("before", [None, b"damaged"])
def test_a_folder_that_takes_no_file_is_one_line(server, tmp_path, monkeypatch, before):
    if before is not None:
        put(tmp_path, before)
    server.replies["/good"] = DATA

    def deny(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", deny)
    message = fails(lambda: DataFolder(tmp_path).fetch(remote(server.url("/good")), len))
    assert "cannot be written: expected a folder that can be written to, found Permission denied" in message
    assert files(tmp_path) == ({} if before is None else {NAME: before})


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = put(tmp_path, b"old")

    def fill() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    assert "found No space left on device" in fails(fill)
    assert files(tmp_path) == {NAME: b"old"}


def test_the_new_file_takes_the_place_only_at_the_end(tmp_path):
    path = put(tmp_path, b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert files(tmp_path) == {NAME: b"new"}


def test_ctrl_c_during_a_download_leaves_no_file(server, misbehave, tmp_path):
    """A second process waits for a stalling mirror; the interrupt is the real one."""
    server.replies["/stalling"] = misbehave["stalling"](DATA)
    code = (
        "import signal, sys; from pathlib import Path\n"
        # A shell's background job ignores the interrupt; so would its children.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from vae_lib.data.download import RemoteFile; from vae_lib.data.folder import DataFolder\n"
        f"file = RemoteFile({NAME!r}, (sys.argv[1],), size={len(DATA)})\n"
        "DataFolder(Path(sys.argv[2])).fetch(file, len)\n"
    )
    command = [sys.executable, "-c", code, server.url("/stalling"), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 30
            while not server.asked and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            assert [p.suffix for p in (tmp_path / "set").iterdir()] == [".part"]
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode != 0
    assert files(tmp_path) == {}


def test_root_comes_before_the_variable_before_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_LIB_DATA", str(tmp_path / "variable"))
    assert data_folder(tmp_path / "root") == tmp_path / "root"
    assert data_folder() == tmp_path / "variable"
    monkeypatch.setenv("VAE_LIB_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder().name == "vae_lib"
    if sys.platform == "linux":
        assert data_folder() == tmp_path / "cache" / "vae_lib"
    assert data_folder("~/data") == Path.home() / "data"
