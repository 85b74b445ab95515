"""The data folder: every byte that leaves it was verified, every file in it was written whole."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import platformdirs

from vae_lib.data.dataset import DatasetError
from vae_lib.data.download import TIMEOUT, RemoteFile, download

logger = logging.getLogger(__name__)

T = TypeVar("T")


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Where data files are kept: `root`, else the variable VAE_LIB_DATA, else the platform's cache folder.

    Returns
    -------
    pathlib.Path
        The folder; it need not exist.
    """
    chosen = root or os.environ.get("VAE_LIB_DATA") or platformdirs.user_cache_dir("vae_lib")
    return Path(chosen).expanduser()


@dataclass(frozen=True)
class DataFolder:
    """A folder of data files, and whether and how the missing ones may be downloaded.

    Attributes
    ----------
    path : pathlib.Path
        The folder. It may be read-only if it already holds what is read.
    download : bool
        Whether a missing or damaged file may be downloaded.
    progress : bool or None
        Show a progress bar on stderr; by default where stderr is a terminal.
    timeout : float
        Seconds after which a silent mirror is given up.
    """

    path: Path
    download: bool = True
    progress: bool | None = None
    timeout: float = TIMEOUT

    def fetch(self, remote: RemoteFile, parse: Callable[[bytes], T]) -> T:
        """Read a published file, from the folder or else from its mirrors.

        Parameters
        ----------
        remote : RemoteFile
            The file; its size and hash are checked on every call.
        parse : callable
            Turns the bytes into a value; raises DatasetError if they are not what was published.

        Returns
        -------
        object
            What `parse` returns.

        Raises
        ------
        DatasetError
            If the file cannot be had, in one line.
        """

        def read(data: bytes) -> T:
            remote.check(data)
            return parse(data)

        return self.obtain(remote.name, read, lambda: self.retrieve(remote, read))

    def retrieve(self, remote: RemoteFile, verify: Callable[[bytes], object]) -> bytes:
        """Download a file into memory and keep no copy; see `vae_lib.data.download.download`."""
        return download(remote, verify, progress=self.progress, timeout=self.timeout)

    def obtain(self, name: str, read: Callable[[bytes], T], make: Callable[[], bytes]) -> T:
        """Read a file of the folder; where it is missing or damaged, make it anew, if downloads are allowed.

        Parameters
        ----------
        name : str
            The file's path inside the folder, with forward slashes.
        read : callable
            Verifies the bytes and turns them into a value; raises DatasetError if they are damaged.
        make : callable
            Returns the file's bytes; called with the temporary file already open, so that a folder that
            cannot be written is found out before a download, not after it.

        Returns
        -------
        object
            What `read` returns.

        Raises
        ------
        DatasetError
            If the file cannot be read, made or written, in one line. A damaged file stays until a good one
            takes its place.
        """
        path = self.path / name
        try:
            return read(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            problem = "missing: expected a file, found none"
        except DatasetError as error:
            problem = str(error)
            if self.download:
                logger.warning("%s is %s; downloading it again", path, problem)
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: expected a file, found {error.strerror}") from error
        if not self.download:
            raise DatasetError(f"{path} is {problem}; load with download=True to fetch it")
        with replacing(path) as file:
            data = make()
            value = read(data)
            file.write(data)
        return value


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; it takes its place if the block ends well, else it vanishes.

    Raises
    ------
    DatasetError
        If the folder cannot be made or the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be written: expected a folder that can be written to, found {error.strerror}; "
            "set root= or VAE_LIB_DATA to one"
        ) from error
    finally:
        # Where the folder could not be made there is nothing to remove.
        with contextlib.suppress(OSError):
            part.unlink()
