"""The 8 x 8 digits that scikit-learn ships: real images that need no network."""

from __future__ import annotations

import numpy as np
import torch

from vae_lib.data.dataset import Dataset, DatasetError, DatasetInfo, cut, hash_order
from vae_lib.data.download import check_digest

INFO = DatasetInfo(
    name="digits",
    title="Optical recognition of handwritten digits (test part)",
    image_shape=(8, 8),
    value_range=(0, 16),
    values="how many of the 4 x 4 dots under a pixel are inked: a count from 0 to 16",
    split="1257 / 180 / 360 (70, 10 and 20 %), by the SHA-256 of 'digits:<row>'; writers are not told apart",
    source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    licence="CC BY 4.0, as the UCI repository states; this copy ships with scikit-learn (BSD-3-Clause)",
    citation="E. Alpaydin and C. Kaynak (1998). Cascading classifiers. Kybernetika 34(4), 369-374.",
    bib_key="alpaydin1998cascading",
    classes=tuple("0123456789"),
)

SIZES = (1257, 180, 360)

# Of the images (1797, 64) followed by the labels (1797,), both as C-ordered uint8.
_DIGEST = "sha256:87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def load_digits() -> Dataset:
    """Load the digits: 1797 images of 8 x 8 counts with labels.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If the installed scikit-learn ships other images than the ones known here.
    """
    from sklearn.datasets import load_digits as load  # a slow import, needed here only

    images, labels = (np.ascontiguousarray(a, dtype=np.uint8) for a in load(return_X_y=True))
    try:
        check_digest(_DIGEST, images.tobytes() + labels.tobytes())
    except DatasetError as error:
        raise DatasetError(f"the digits in this scikit-learn are {error}; reinstall scikit-learn") from error
    return cut(
        INFO,
        torch.from_numpy(images),
        hash_order("digits", len(images)),
        SIZES,
        labels=torch.from_numpy(labels).long(),
    )
