"""MNIST with its fixed binarisation: published as text, kept as packed bits."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from vae_lib.data.dataset import Dataset, DatasetError, DatasetInfo, cut
from vae_lib.data.download import RemoteFile, check_digest
from vae_lib.data.folder import DataFolder

INFO = DatasetInfo(
    name="binarized-mnist",
    title="MNIST, fixed binarisation",
    image_shape=(28, 28),
    value_range=(0, 1),
    values="bit, 1 for ink, drawn once with the grey level as its probability",
    split="50,000 / 10,000 / 10,000 as published; not in MNIST's order",
    source="http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
    licence="none stated on the pages seen; downloaded by the user, not shipped",
    citation=(
        "H. Larochelle and I. Murray (2011). The neural autoregressive distribution estimator. AISTATS, "
        "29-37. Binarisation: R. Salakhutdinov and I. Murray (2008). On the quantitative analysis of deep "
        "belief networks. ICML, 872-879."
    ),
    bib_key="larochelle2011nade",
)

MIRRORS = (
    "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
    "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
)

# Images, MD5 of the published text, SHA-256 of the packed bits (images, 98), C-ordered uint8. The SHA-256
# were taken from bits whose text form, one line of "0 1 0 ..." per image, had the published MD5.
_SPLITS = {
    "train": (
        50_000,
        "db28b1a6ae0fe70cbd3da91acf46e477",
        "727146c35424b019f3e350e1e69faa05644a0abaf787e3f4e1a9632220a13906",
    ),
    "valid": (
        10_000,
        "bf37822a04e94123630de6a7dfd9c9ef",
        "a256ac44ae26be720fad8616a05ed6ecfd1619930d9a208379bb2a4405df5b6d",
    ),
    "test": (
        10_000,
        "14e41ae11040adba6ab8cb291eda0dd8",
        "9fcd8da6f0fdf09b2ba30fe63a0bb784042a0de82563172530229b983e294ff2",
    ),
}


def load_binarized_mnist(folder: DataFolder, mirrors: Sequence[str] = MIRRORS) -> Dataset:
    """Load binarised MNIST: 70,000 images of 28 x 28 bits, without labels.

    The download is 110 MB of text; 2 MB of packed bits are kept.

    Parameters
    ----------
    folder : DataFolder
        Where the packed file is, or is to be kept.
    mirrors : sequence of str
        Addresses, ending in a slash, that the names of the text files are appended to.

    Returns
    -------
    Dataset
        `Split.index` counts the training, the validation and the test images one after the other.

    Raises
    ------
    DatasetError
        If the file cannot be had.
    """

    def make() -> bytes:
        packed = {}
        for split, (n, md5, _) in _SPLITS.items():
            file = f"binarized_mnist_{split}.amat"
            # A line of text is 784 digits and 784 separators.
            remote = RemoteFile(file, tuple(m + file for m in mirrors), f"md5:{md5}", n * 2 * 784)
            text = np.frombuffer(folder.retrieve(remote, remote.check), np.uint8)
            packed[split] = np.packbits(text.reshape(n, 2 * 784)[:, ::2] - ord("0"), axis=1)
        file_bytes = io.BytesIO()
        np.savez_compressed(file_bytes, train=packed["train"], valid=packed["valid"], test=packed["test"])
        return file_bytes.getvalue()

    packed = folder.obtain("binarized_mnist/binarized_mnist_packbits.npz", _packed, make)
    x = torch.from_numpy(np.unpackbits(packed, axis=1))
    return cut(INFO, x, torch.arange(len(x)), [n for n, _, _ in _SPLITS.values()])


def _packed(data: bytes) -> npt.NDArray[np.uint8]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            parts = {split: file[split] for split in _SPLITS}
    except Exception as error:  # a damaged archive can fail anywhere inside the parser
        raise DatasetError(
            f"corrupt: expected an npz file with the keys {', '.join(_SPLITS)}, found {len(data)} bytes that are none"
        ) from error
    for split, (n, _, sha256) in _SPLITS.items():
        part = parts[split]
        if part.dtype != np.uint8 or part.shape != (n, 98):
            raise DatasetError(f"corrupt: expected {split} as uint8 ({n}, 98), found {part.dtype} {part.shape}")
        check_digest(f"sha256:{sha256}", part.tobytes())
    return np.concatenate(list(parts.values()))
