"""The real files, through the real loading code: from the folder, and from a server by way of the cache."""

from __future__ import annotations

import hashlib
import io
import shutil

import numpy as np
import pytest
import scipy.io
import torch

from vae_lib.data import DatasetError, load_dataset
from vae_lib.data.binarized_mnist import load_binarized_mnist
from vae_lib.data.folder import DataFolder
from vae_lib.data.frey import load_frey
from vae_lib.data.mnist import load_mnist

MD5 = {
    "train": "db28b1a6ae0fe70cbd3da91acf46e477",
    "valid": "bf37822a04e94123630de6a7dfd9c9ef",
    "test": "14e41ae11040adba6ab8cb291eda0dd8",
}
PACKED = "binarized_mnist/binarized_mnist_packbits.npz"
FREY = "frey/frey_rawface.mat"


def text(bits: torch.Tensor) -> bytes:
    """The published form: digits with a space between two, one line per image."""
    lines = np.full((len(bits), 2 * 784), ord(" "), np.uint8)
    lines[:, ::2] = bits.numpy() + ord("0")
    lines[:, -1] = ord("\n")
    return lines.tobytes()


def equal(one, other) -> bool:
    splits = ("train", "validation", "test")
    return all(torch.equal(getattr(one, s).x, getattr(other, s).x) for s in splits)


def test_mnist_has_the_known_labels(real_data):
    data = load_dataset("mnist", root=real_data("mnist"), download=False)
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    both = torch.cat([data.train.labels, data.validation.labels]).bincount()
    assert both.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    # The mean grey level that the literature quotes for the 60,000 training images: 0.1307.
    mean = torch.cat([data.train.x, data.validation.x]).double().mean() / 255
    assert round(float(mean), 4) == 0.1307


def test_the_variable_points_at_the_folder(real_data, monkeypatch):
    monkeypatch.setenv("VAE_LIB_DATA", str(real_data("frey")))
    assert len(load_dataset("frey", download=False).train) == 1565


def test_frey_frames_are_the_columns_of_the_file(real_data):
    folder = real_data("frey")
    data = load_dataset("frey", root=folder, download=False)
    frames = torch.cat([data.train.x, data.validation.x, data.test.x])
    columns = scipy.io.loadmat(folder / FREY)["ff"]
    assert torch.equal(frames, torch.from_numpy(columns.T.copy()))


def test_frey_stretches_keep_test_frames_away_from_training_frames(real_data):
    """The reason for the split: the distances quoted in its docstring."""
    data = load_dataset("frey", root=real_data("frey"), download=False)
    frames = torch.cat([data.train.x, data.validation.x, data.test.x]).double()

    def median_distance(test: torch.Tensor, train: torch.Tensor) -> float:
        return float(torch.cdist(test, train).amin(1).median())

    order = torch.randperm(1965, generator=torch.Generator().manual_seed(0))
    assert median_distance(frames[order[-200:]], frames[order[:1565]]) < 300
    assert round(median_distance(data.test.x.double(), data.train.x.double())) == 502


def test_binarized_mnist_written_as_text_has_the_published_hashes(real_data):
    data = load_dataset("binarized-mnist", root=real_data("binarized-mnist"), download=False)
    for split, md5 in zip((data.train, data.validation, data.test), MD5.values(), strict=True):
        assert hashlib.md5(text(split.x), usedforsecurity=False).hexdigest() == md5


def test_mnist_by_way_of_a_server(real_data, server, refused, tmp_path):
    source = real_data("mnist")
    for file in (source / "mnist").glob("*.gz"):
        server.replies[f"/{file.name}"] = file.read_bytes()
    data = load_mnist(DataFolder(tmp_path), (refused, server.url("/")))
    assert equal(data, load_dataset("mnist", root=source, download=False))
    assert equal(data, load_dataset("mnist", root=tmp_path, download=False))
    assert len(server.asked) == 4
    kept = {p.name: p.read_bytes() for p in (tmp_path / "mnist").iterdir()}
    assert kept == {path.removeprefix("/"): reply for path, reply in server.replies.items()}


def test_frey_by_way_of_a_server(real_data, server, tmp_path):
    source = real_data("frey")
    columns = scipy.io.loadmat(source / FREY)["ff"]
    other = io.BytesIO()  # the same frames in another container, and a container with other frames
    scipy.io.savemat(other, {"ff": columns}, do_compression=False)
    wrong = io.BytesIO()
    scipy.io.savemat(wrong, {"ff": columns[:, ::-1]})
    server.replies |= {"/wrong": wrong.getvalue(), "/page": b"<html>moved</html>", "/good": other.getvalue()}
    mirrors = tuple(server.url(path) for path in ("/none", "/page", "/wrong", "/good"))
    data = load_frey(DataFolder(tmp_path), mirrors)
    assert server.asked == ["/none", "/page", "/wrong", "/good"]
    assert equal(data, load_dataset("frey", root=source, download=False))
    assert (tmp_path / FREY).read_bytes() == other.getvalue()


def test_binarized_mnist_by_way_of_a_server(real_data, server, tmp_path):
    source = real_data("binarized-mnist")
    known = load_dataset("binarized-mnist", root=source, download=False)
    for split, part in zip(MD5, (known.train, known.validation, known.test), strict=True):
        server.replies[f"/binarized_mnist_{split}.amat"] = text(part.x)
    data = load_binarized_mnist(DataFolder(tmp_path), (server.url("/"),))
    assert equal(data, known)
    assert [p.name for p in (tmp_path / "binarized_mnist").iterdir()] == [PACKED.rpartition("/")[2]]
    assert equal(load_dataset("binarized-mnist", root=tmp_path, download=False), known)


@pytest.mark.parametrize(
    ("name", "file", "problem"),
    [
        ("mnist", "mnist/t10k-images-idx3-ubyte.gz", "truncated: expected 1648877 bytes, found 1648876"),
        ("frey", FREY, "corrupt: expected a MATLAB file with the key 'ff', found"),
        ("binarized-mnist", PACKED, "corrupt: expected an npz file with the keys train, valid, test, found"),
    ],
)
def test_a_truncated_copy_is_one_line(real_data, tmp_path, name, file, problem):
    folder = file.partition("/")[0]
    shutil.copytree(real_data(name) / folder, tmp_path / folder, copy_function=shutil.copyfile)
    (tmp_path / file).write_bytes((real_data(name) / file).read_bytes()[:-1])
    with pytest.raises(DatasetError) as caught:
        load_dataset(name, root=tmp_path, download=False)
    assert str(caught.value).startswith(f"{tmp_path / file} is {problem}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        (np.zeros((560, 1965), np.uint8), "corrupt: expected SHA-256 2438ba4f0d2a…, found "),
        (
            np.zeros((560, 1964), np.uint8),
            r"corrupt: expected uint8 \(1965, 560\), found uint8 \(1964, 560\)",
        ),
        (np.zeros((560, 1965)), r"corrupt: expected uint8 \(1965, 560\), found float64 \(1965, 560\)"),
    ],
)
def test_other_frames_are_refused(tmp_path, frames, problem):
    (tmp_path / "frey").mkdir()
    scipy.io.savemat(tmp_path / FREY, {"ff": frames})
    with pytest.raises(DatasetError, match=problem):
        load_dataset("frey", root=tmp_path, download=False)


def write_packed(root, **parts) -> None:
    (root / "binarized_mnist").mkdir()
    np.savez(root / PACKED, **parts)


@pytest.mark.parametrize("split", MD5)
def test_one_flipped_bit_is_refused(real_data, tmp_path, split):
    with np.load(real_data("binarized-mnist") / PACKED) as file:
        parts = {key: file[key] for key in MD5}
    parts[split][1234, 56] ^= 4
    write_packed(tmp_path, **parts)
    with pytest.raises(DatasetError, match=r"corrupt: expected SHA-256 \w{12}…, found"):
        load_dataset("binarized-mnist", root=tmp_path, download=False)


def test_bits_in_another_shape_are_refused(tmp_path):
    parts = {key: np.zeros((10, 98), np.uint8) for key in MD5}
    write_packed(tmp_path, **parts)
    with pytest.raises(DatasetError, match=r"expected train as uint8 \(50000, 98\), found uint8 \(10, 98\)"):
        load_dataset("binarized-mnist", root=tmp_path, download=False)


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a file of the data folder was unpickled",))


def test_nothing_is_unpickled(tmp_path):
    bomb = np.array([_Bomb()], dtype=object)
    write_packed(tmp_path, train=bomb, valid=bomb, test=bomb)
    with pytest.raises(DatasetError, match="corrupt: expected an npz file"):
        load_dataset("binarized-mnist", root=tmp_path, download=False)
