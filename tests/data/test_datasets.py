"""Every data set: documented ranges and shapes; splits that share nothing, cover all and never move."""

from __future__ import annotations

import hashlib

import pytest
import torch
from sklearn.datasets import load_digits

from vae_lib.data import DatasetError, dataset_info, dataset_names, load_dataset
from vae_lib.data.dataset import Split, hash_order

# Sizes of the splits, and the SHA-256 of their three index tensors one after the other, as int64.
FIXED = {
    "digits": ((1257, 180, 360), "59c5d9cd2fbe5ed30bd52f5481a496081957a66314c759a7ad24dd4f2ddca893"),
    "mnist": ((50_000, 10_000, 10_000), "816c15571a3dc476fdd19474e6c56885cf37a65b6618f815713472a68cb4a584"),
    "frey": ((1565, 200, 200), "8b049f317fbcc8bf7e22b5dfa76806ab1ae7a5e7441055d49dc6e040fb8a990a"),
    "binarized-mnist": (
        (50_000, 10_000, 10_000),
        "816c15571a3dc476fdd19474e6c56885cf37a65b6618f815713472a68cb4a584",
    ),
    "sprites": ((20_736, 2_592, 2_592), "74e8dcbee961588eb9800314ae559646a8159810e7a188e061824831dc8f4d75"),
}

# Smallest and largest value that occurs anywhere in the set.
SEEN = {
    "digits": (0, 16),
    "mnist": (0, 255),
    "frey": (8, 238),
    "binarized-mnist": (0, 1),
    "sprites": (0, 255),
}


@pytest.fixture(scope="module")
def loaded(real_data):
    cache = {}

    def load(name):
        if name not in cache:
            root = real_data(name) if name in ("mnist", "frey", "binarized-mnist") else None
            cache[name] = load_dataset(name, root=root, download=False)
        return cache[name]

    return load


def test_the_names():
    assert dataset_names() == tuple(FIXED)


@pytest.mark.parametrize("name", FIXED)
class TestEverySet:
    def test_splits_are_disjoint_complete_and_fixed(self, loaded, name):
        data = loaded(name)
        sizes, digest = FIXED[name]
        splits = (data.train, data.validation, data.test)
        assert tuple(len(s) for s in splits) == sizes
        rows = torch.cat([s.index for s in splits])
        assert torch.equal(rows.sort().values, torch.arange(sum(sizes)))
        assert hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest() == digest

    def test_values_are_in_the_documented_range_and_shape(self, loaded, name):
        data = loaded(name)
        info = data.info
        height, width = info.image_shape
        low, high = info.value_range
        for split in (data.train, data.validation, data.test):
            assert split.x.dtype == info.dtype == torch.uint8
            assert split.x.shape == (len(split), height * width)
            assert split.index.dtype == torch.int64
            assert split.max_value == high
            assert split.x.min() >= low
            assert split.x.max() <= high
        everything = torch.cat([data.train.x, data.validation.x, data.test.x])
        assert (int(everything.min()), int(everything.max())) == SEEN[name]

    def test_pixels_are_values_over_the_largest_possible(self, loaded, name):
        data = loaded(name)
        pixels = data.test.pixels()
        assert pixels.dtype == torch.float64
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert torch.equal((pixels * data.info.value_range[1]).round().to(torch.uint8), data.test.x)
        assert data.validation.pixels(torch.float32).dtype == torch.float32

    def test_labels_and_factors_are_there_where_the_info_says(self, loaded, name):
        data = loaded(name)
        for split in (data.train, data.validation, data.test):
            if data.info.classes:
                assert split.labels.dtype == torch.int64
                assert set(split.labels.tolist()) == set(range(len(data.info.classes)))
                assert split.labels.shape == (len(split),)
            else:
                assert split.labels is None
            if data.info.factor_names:
                assert split.factors.dtype == torch.int64
                assert split.factors.shape == (len(split), len(data.info.factor_names))
                assert (split.factors.amax(0) + 1).tolist() == list(data.info.factor_sizes)
            else:
                assert split.factors is None

    def test_the_info_is_complete_and_the_same_without_loading(self, loaded, name):
        info = dataset_info(name)
        assert loaded(name).info is info
        assert info.name == name
        for field in ("title", "values", "split", "source", "licence", "citation", "bib_key"):
            assert len(getattr(info, field)) > 5, field
        assert len(info.factor_names) == len(info.factor_sizes)

    def test_it_prints_in_one_line(self, loaded, name):
        data = loaded(name)
        assert repr(data).startswith(f"Dataset({name}: {FIXED[name][0][0]} train")
        assert len(repr(data.train).splitlines()) == len(repr(data).splitlines()) == 1


def test_digits_keep_image_and_label_together(loaded):
    images, labels = load_digits(return_X_y=True)
    data = loaded("digits")
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.x.double(), torch.from_numpy(images)[split.index])
        assert torch.equal(split.labels, torch.from_numpy(labels)[split.index])


def test_digits_that_changed_are_refused(monkeypatch):
    images, labels = load_digits(return_X_y=True)
    images[7, 7] += 1
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda return_X_y: (images, labels))
    with pytest.raises(DatasetError, match="the digits in this scikit-learn are corrupt: expected SHA-256"):
        load_dataset("digits")


def test_digits_and_sprites_touch_neither_network_nor_folder(tmp_path, socket_disabled):
    for name in ("digits", "sprites"):
        load_dataset(name, root=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_the_hash_order_is_a_permutation_that_its_definition_gives():
    """Six numbers in the order of what `printf 'sprites:0' | sha256sum` and so on print."""
    assert hash_order("sprites", 6).tolist() == [4, 0, 1, 5, 2, 3]
    assert hash_order("digits", 6).tolist() != [4, 0, 1, 5, 2, 3]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MNIST", '; did you mean "mnist"?'),
        ("binarized_mnist", '; did you mean "binarized-mnist"?'),
        ("sprite", '; did you mean "sprites"?'),
        ("imagenet-22k", ""),
        ("", ""),
        (None, ""),
        (["sets"], ""),
    ],
)
def test_an_unknown_name_is_one_line_with_the_known_ones(name, hint):
    expected = "unknown data set: expected one of digits, mnist, frey, binarized-mnist, sprites, found "
    for call in (load_dataset, dataset_info):
        with pytest.raises(DatasetError) as caught:
            call(name)
        assert str(caught.value) == f"{expected}{name!r}{hint}"


def test_pixels_refuses_an_integer_type():
    split = Split(torch.zeros(1, 4, dtype=torch.uint8), torch.arange(1), 255)
    with pytest.raises(DatasetError, match=r"dtype: expected a floating type, found torch\.int64"):
        split.pixels(torch.int64)
