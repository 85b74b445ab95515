"""Download one file from the first mirror that serves it whole and unchanged."""

from __future__ import annotations

import hashlib
import io
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tqdm import tqdm

from vae_lib.data.dataset import DatasetError

logger = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds without an answer, or without a further byte, after which a mirror is given up."""

_CHUNK = 1 << 16


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes
    ----------
    name : str
        Its path inside the data folder, with forward slashes.
    urls : tuple of str
        Mirrors, in the order in which they are tried.
    digest : str or None
        The published hash, as "sha256:..." or "md5:..."; None where only the content's hash is known, which
        whoever reads the file then checks.
    size : int or None
        Its size in bytes, where known: lets a message tell a truncated file from a changed one.
    """

    name: str
    urls: tuple[str, ...]
    digest: str | None = None
    size: int | None = None

    def check(self, data: bytes) -> None:
        """Compare size and hash with the published ones.

        Raises
        ------
        DatasetError
            "truncated: ..." or "corrupt: ...", with what was expected and found.
        """
        if self.size is not None and len(data) < self.size:
            raise DatasetError(f"truncated: expected {self.size} bytes, found {len(data)}")
        if self.digest is not None:
            check_digest(self.digest, data)


def check_digest(digest: str, data: bytes) -> None:
    """Raise DatasetError unless `data` has the hash `digest`, written "algorithm:hexadecimal"."""
    algorithm, expected = digest.split(":")
    found = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    if found != expected:
        label = {"sha256": "SHA-256", "md5": "MD5"}[algorithm]
        raise DatasetError(f"corrupt: expected {label} {expected[:12]}…, found {found[:12]}…")


def download(
    remote: RemoteFile,
    verify: Callable[[bytes], object],
    *,
    progress: bool | None = None,
    timeout: float = TIMEOUT,
) -> bytes:
    """Download a file into memory, trying its mirrors in order until one serves what `verify` accepts.

    Parameters
    ----------
    remote : RemoteFile
        What to download.
    verify : callable
        Takes the bytes and raises if they are not the file; called before the bytes are returned.
    progress : bool, optional
        Show a progress bar on stderr; by default where stderr is a terminal.
    timeout : float
        Seconds to wait for a connection, and for each further piece.

    Returns
    -------
    bytes
        The file's content, verified.

    Raises
    ------
    DatasetError
        If no mirror served it; names each mirror's cause.
    """
    outer = sys.exc_info()[1]
    causes = []
    for url in remote.urls:
        try:
            data = _get(url, remote.name, progress, timeout)
            verify(data)
            return data
        except Exception as error:  # whatever is wrong with one mirror, the next one may be right
            causes.append(f"{urlsplit(url).netloc}: {_cause(error, outer)}")
            logger.info("%s: %s", remote.name, causes[-1])
    raise DatasetError(
        f"{remote.name} could not be downloaded: expected one of {len(causes)} mirrors to serve it, "
        f"found {'; '.join(causes)}; check the network, or set VAE_LIB_DATA to a folder that holds the data"
    )


def _get(url: str, name: str, progress: bool | None, timeout: float) -> bytes:
    # Imported here: where nothing is downloaded, a notebook need not hear what pooch's progress bars lack.
    import pooch

    body = io.BytesIO()
    shown = sys.stderr.isatty() if progress is None else progress
    # The total becomes known with the response; pooch takes a bar for none at all if its total is 0.
    bar = tqdm(total=1, desc=name.rpartition("/")[2], unit="B", unit_scale=True, file=sys.stderr, disable=not shown)
    with bar:
        # A compressed transfer would make the announced length another one than the file's.
        fetch = pooch.HTTPDownloader(
            progressbar=bar, chunk_size=_CHUNK, timeout=timeout, headers={"Accept-Encoding": "identity"}
        )
        fetch(url, body, None)
    return body.getvalue()


def _cause(error: BaseException, outer: BaseException | None) -> str:
    """Say in a few words what was wrong: the status, or the error at the root of the chain."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    # Python chains every error to the one being handled, so the chain may end in the caller's own.
    while (inner := error.__cause__ or error.__context__) is not None and inner is not outer:
        error = inner
    text = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
    return text if len(text) <= 160 else text[:159] + "…"
