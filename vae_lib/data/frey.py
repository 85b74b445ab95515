"""Frey Face: 1965 frames of one man's face, filmed while he moved it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.io
import torch

from vae_lib.data.dataset import Dataset, DatasetError, DatasetInfo, cut
from vae_lib.data.download import RemoteFile, check_digest
from vae_lib.data.folder import DataFolder

INFO = DatasetInfo(
    name="frey",
    title="Frey Face",
    image_shape=(28, 20),
    value_range=(0, 255),
    values="grey level from 0 (black) to 255 (white); 8 to 238 occur",
    split="1565 / 200 / 200, one stretch of film each: neighbouring frames are near-duplicates",
    source="https://cs.nyu.edu/~roweis/data.html",
    licence="none stated by the authors; downloaded by the user, not shipped",
    citation=(
        "B. J. Frey, A. Colmenarez and T. S. Huang (1998). Mixtures of local linear subspaces for face "
        "recognition. IEEE Conference on Computer Vision and Pattern Recognition, 32-37. "
        "Data: B. Frey and S. Roweis."
    ),
    bib_key="frey1998mixtures",
)

SIZES = (1565, 200, 200)

MIRRORS = (
    "https://cs.nyu.edu/~roweis/data/frey_rawface.mat",
    "http://www.cs.nyu.edu/~roweis/data/frey_rawface.mat",
)

# Of the C-ordered uint8 array (1965, 560): the MATLAB file around it may differ from copy to copy.
_DIGEST = "sha256:2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"


def load_frey(folder: DataFolder, mirrors: Sequence[str] = MIRRORS) -> Dataset:
    """Load Frey Face: 1965 images of 28 x 20 grey levels, in the order of the film, without labels.

    A random split would leave the neighbours of most test frames in the training set, and the test score
    would reward memory: the median Euclidean distance from a test frame to the nearest training frame is 263
    grey levels then, and 502 with these stretches. The price is a harder test than in papers that split at
    random.

    Parameters
    ----------
    folder : DataFolder
        Where the file is, or is to be kept.
    mirrors : sequence of str
        Addresses of the file.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If the file cannot be had.
    """
    frames = folder.fetch(RemoteFile("frey/frey_rawface.mat", tuple(mirrors)), _frames)
    return cut(INFO, torch.from_numpy(frames), torch.arange(len(frames)), SIZES)


def _frames(data: bytes) -> npt.NDArray[np.uint8]:
    try:
        ff = scipy.io.loadmat(io.BytesIO(data), variable_names=["ff"])["ff"]
        frames = np.ascontiguousarray(ff.T)
    except Exception as error:  # a damaged file can fail anywhere inside the parser
        raise DatasetError(
            f"corrupt: expected a MATLAB file with the key 'ff', found {len(data)} bytes that are none"
        ) from error
    if frames.dtype != np.uint8 or frames.shape != (1965, 560):
        raise DatasetError(f"corrupt: expected uint8 (1965, 560), found {frames.dtype} {frames.shape}")
    check_digest(_DIGEST, frames.tobytes())
    return frames
