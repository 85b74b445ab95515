"""The data sets by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable

from vae_lib.data import binarized_mnist, digits, frey, mnist, sprites
from vae_lib.data.dataset import Dataset, DatasetError, DatasetInfo
from vae_lib.data.folder import DataFolder, data_folder

_SETS: dict[str, tuple[DatasetInfo, Callable[[DataFolder], Dataset]]] = {
    "digits": (digits.INFO, lambda folder: digits.load_digits()),
    "mnist": (mnist.INFO, mnist.load_mnist),
    "frey": (frey.INFO, frey.load_frey),
    "binarized-mnist": (binarized_mnist.INFO, binarized_mnist.load_binarized_mnist),
    "sprites": (sprites.INFO, lambda folder: sprites.load_sprites()),
}


def dataset_names() -> tuple[str, ...]:
    """Return the names that `load_dataset` takes."""
    return tuple(_SETS)


def dataset_info(name: str) -> DatasetInfo:
    """Return what is known about a data set, without loading it.

    Raises
    ------
    DatasetError
        If there is no data set of that name.
    """
    return _find(name)[0]


def load_dataset(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    progress: bool | None = None,
) -> Dataset:
    """Load a data set, and download it first where that is needed and allowed.

    "digits" ships with scikit-learn and "sprites" is drawn; neither touches the data folder. The other sets
    are files in it, and each file is verified by its hash on every call, also when it was there already.

    Parameters
    ----------
    name : str
        One of `dataset_names()`.
    root : path, optional
        The data folder; by default the variable VAE_LIB_DATA, else the platform's cache folder.
    download : bool
        Whether a missing or damaged file may be downloaded.
    progress : bool, optional
        Show a progress bar on stderr; by default where stderr is a terminal.

    Returns
    -------
    Dataset
        Splits and order are fixed; no random generator is involved.

    Raises
    ------
    DatasetError
        In one line: unknown name; file missing, truncated, corrupt or unreadable; folder not writable; no
        mirror served the file.
    """
    _, load = _find(name)
    return load(DataFolder(data_folder(root), download, progress))


def _find(name: str) -> tuple[DatasetInfo, Callable[[DataFolder], Dataset]]:
    if isinstance(name, str) and name in _SETS:
        return _SETS[name]
    near = difflib.get_close_matches(str(name).lower().replace("_", "-"), _SETS, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise DatasetError(f"unknown data set: expected one of {', '.join(_SETS)}, found {name!r}{hint}")
