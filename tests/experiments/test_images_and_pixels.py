"""The images of an experiment, and pictures that lie in its record."""

from __future__ import annotations

import json

import pytest
import torch

from tests.experiments.small import CPU
from vae_lib.data import load_dataset
from vae_lib.experiments.images import fixed, load
from vae_lib.experiments.pixels import pack, unpack
from vae_lib.learning import Images
from vae_lib.models import configuration
from vae_lib.rng import make_generator


def test_pictures_come_back_to_half_a_step_of_grey() -> None:
    images = torch.rand(7, 12, generator=make_generator(1))
    images[0, :3] = torch.tensor([0.0, 1.0, 0.5])
    picture = json.loads(json.dumps(pack(images, (3, 4), 5)))
    assert (picture["image_shape"], picture["columns"], picture["count"]) == ([3, 4], 5, 7)
    back = unpack(picture)
    assert back.shape == (7, 12)
    # Half of 1/255, and a rounding.
    assert float((back - images).abs().max()) <= 0.5 / 255 + 1e-6
    # Bytes of grey come back as they are, and a second time nothing is lost.
    assert torch.equal(unpack(pack(back, (3, 4), 5)), back)
    assert pack(back, (3, 4), 5) == picture


def test_what_is_no_grey_is_cut_off() -> None:
    back = unpack(pack(torch.tensor([[-3.0, 0.2, 7.0, 1.0]], requires_grad=True), (2, 2), 1))
    assert torch.allclose(back, torch.tensor([[0.0, 0.2, 1.0, 1.0]]), atol=1e-6)


@pytest.mark.parametrize(("data", "reading"), [("mnist", "bits"), ("frey", "unit")])
def test_the_stand_in_is_read_as_the_data_would_be(data: str, reading: str) -> None:
    sizes = configuration(f"kingma2014-{data}", latent_dim=3)
    found, digits = load(data, sizes, stand_in=True), load_dataset("digits")
    assert found.model.image_shape == (8, 8)
    assert (found.model.latent_dim, found.model.hidden) == (3, sizes.hidden)
    for images, split in ((found.train, digits.train), (found.test, digits.test)):
        assert torch.equal(images.values, split.x)
        assert (images.reading, images.max_value) == (reading, 16)
    few = load(data, sizes, stand_in=True, num_train=50)
    assert torch.equal(few.train.values, digits.train.x[:50])
    assert len(few.test) == len(found.test)


def test_the_bits_of_a_split_are_always_the_same() -> None:
    images = load("mnist", configuration("kingma2014-mnist"), stand_in=True).test
    first = fixed(images, "test", 30, device=CPU)
    assert (first.shape, first.dtype) == ((30, 64), torch.float32)
    assert torch.equal(first, fixed(images, "test", 30, device=CPU))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    # Of the first images: white stays white, and ink is ink as often as it is dark.
    grey = images.values[:30].float() / 16
    assert not first[grey == 0].any()
    assert first[grey == 1].all()
    # Another split has other bits, and there are no more images than there are.
    assert not torch.equal(first, fixed(images, "train", 30, device=CPU))
    assert len(fixed(images, "test", 10**6, device=CPU)) == len(images)


def test_bits_of_grey_images_are_as_dark_as_they_are() -> None:
    """20,000 pixels of a grey of 5/16: the share of ones is right to five standard deviations of 0.0033."""
    images = Images(torch.full((200, 100), 5, dtype=torch.uint8), "bits", 16)
    share = float(fixed(images, "test", 200, device=CPU).mean())
    assert abs(share - 5 / 16) < 5 * (5 / 16 * 11 / 16 / 20_000) ** 0.5


def test_grey_levels_need_no_bits() -> None:
    images = load("frey", configuration("kingma2014-frey"), stand_in=True).train
    assert torch.equal(fixed(images, "train", 9, device=CPU), images.values[:9].float() / 16)
