"""MNIST, from its four original files."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from vae_lib.data.dataset import Dataset, DatasetInfo, cut
from vae_lib.data.download import RemoteFile
from vae_lib.data.folder import DataFolder

INFO = DatasetInfo(
    name="mnist",
    title="MNIST handwritten digits",
    image_shape=(28, 28),
    value_range=(0, 255),
    values="grey level from 0 (paper) to 255 (ink)",
    split="50,000 / 10,000 / 10,000: the last 10,000 training images validate, the published test set tests",
    source="http://yann.lecun.com/exdb/mnist/",
    licence="none stated on the pages seen; downloaded by the user, not shipped",
    citation=(
        "Y. LeCun, L. Bottou, Y. Bengio and P. Haffner (1998). Gradient-based learning applied to document "
        "recognition. Proceedings of the IEEE 86(11), 2278-2324."
    ),
    bib_key="lecun1998gradient",
    classes=tuple("0123456789"),
)

SIZES = (50_000, 10_000, 10_000)

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

# File name, size in bytes, SHA-256, and length of the idx header before the first value.
_FILES = {
    "train images": (
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        16,
    ),
    "train labels": (
        "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        8,
    ),
    "test images": (
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        16,
    ),
    "test labels": (
        "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        8,
    ),
}


def load_mnist(folder: DataFolder, mirrors: Sequence[str] = MIRRORS) -> Dataset:
    """Load MNIST: 70,000 images of 28 x 28 grey levels with labels.

    Parameters
    ----------
    folder : DataFolder
        Where the files are, or are to be kept.
    mirrors : sequence of str
        Addresses, ending in a slash, that the file names are appended to.

    Returns
    -------
    Dataset
        `Split.index` counts the 60,000 training images first, then the test images.

    Raises
    ------
    DatasetError
        If a file cannot be had.
    """

    def values(part: str) -> npt.NDArray[np.uint8]:
        file, size, sha256, header = _FILES[part]
        remote = RemoteFile(f"mnist/{file}", tuple(m + file for m in mirrors), f"sha256:{sha256}", size)
        # The hash has settled every byte, so the header has nothing left to tell.
        return folder.fetch(remote, lambda data: np.frombuffer(gzip.decompress(data), np.uint8, offset=header))

    images = np.concatenate([values("train images"), values("test images")]).reshape(-1, 28 * 28)
    labels = np.concatenate([values("train labels"), values("test labels")])
    return cut(
        INFO,
        torch.from_numpy(images),
        torch.arange(len(images)),
        SIZES,
        labels=torch.from_numpy(labels).long(),
    )
