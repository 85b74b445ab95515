"""Images and minibatches: bits are drawn with the right probability, parts make a whole, mistakes get one line."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.learning.runs import grey_images
from vae_lib.learning import Images, reading_for
from vae_lib.learning.batches import epoch_order
from vae_lib.models import VAEConfig, configuration
from vae_lib.rng import make_generator

VALUES = torch.tensor([[0, 51, 102], [153, 204, 255]], dtype=torch.uint8)


def read(images: Images, rows: list[int], seed: int = 1, part: slice = slice(None)) -> torch.Tensor:
    return images.read(torch.tensor(rows), dtype=torch.float64, generator=make_generator(seed), part=part)


def test_a_bit_is_one_as_often_as_the_grey_level_says() -> None:
    count = 20_000
    x = read(Images(VALUES, "bits", 255), [0, 1] * count).reshape(count, 2, 3)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    p = VALUES.double() / 255
    error = (p * (1 - p) / count).sqrt()  # zero for the pixels that are black or white
    assert bool(((x.mean(0) - p).abs() <= 5 * error).all())
    # Pixels are drawn each for itself: 0.2, 0.4, 0.6 and 0.8 have a correlation of zero.
    correlation = torch.corrcoef(torch.cat([x[:, 0, 1:], x[:, 1, :2]], dim=1).T)
    assert float((correlation - torch.eye(4)).abs().max()) <= 5 / count**0.5


def test_to_a_device_goes_all_that_there_is() -> None:
    moved = grey_images().to("cpu")
    assert moved.facts() == grey_images().facts()


def test_bits_are_drawn_anew_at_every_reading() -> None:
    images, generator = grey_images(), make_generator(5)
    first, second = (images.read_all(dtype=torch.float32, generator=generator) for _ in range(2))
    assert first.dtype == torch.float32
    assert first.shape == (23, 12)
    assert not torch.equal(first, second)
    assert torch.equal(first, images.read_all(dtype=torch.float32, generator=make_generator(5)))


def test_grey_levels_from_0_to_1_are_drawn_and_bits_stay() -> None:
    grey = read(Images(VALUES / 255.0, "bits"), [0, 1] * 500)
    assert set(grey.unique().tolist()) == {0.0, 1.0}
    bits = (VALUES > 100).double()
    assert torch.equal(read(Images(bits, "bits"), [0, 1]), bits)
    before = make_generator(3)
    x = Images(bits.to(torch.uint8), "bits").read_all(dtype=torch.float64, generator=before)
    assert torch.equal(x, bits)
    assert torch.equal(before.get_state(), make_generator(3).get_state())  # for bytes nothing is drawn


def test_counts_and_unit() -> None:
    assert torch.equal(read(Images(VALUES, "counts", 255), [1, 0, 1]), VALUES.double()[[1, 0, 1]])
    assert torch.equal(read(Images(VALUES, "unit", 255), [1, 0]), VALUES.double()[[1, 0]] / 255)
    assert Images(-VALUES.double()).reading == "counts"


@pytest.mark.parametrize("reading", ["bits", "counts", "unit"])
def test_parts_are_what_one_reading_would_have_been(reading: Any) -> None:
    images, rows = Images(grey_images().values, reading, 255), list(range(20))
    parts = [read(images, rows, part=slice(start, start + 5)) for start in range(0, 20, 5)]
    assert torch.equal(torch.cat(parts), read(images, rows))


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    orders = [epoch_order(50, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert torch.equal(orders[3], epoch_order(50, seed=1, epoch=1))


@pytest.mark.parametrize("other", [grey_images(22), grey_images(seed=9), Images(grey_images().values, "unit", 255)])
def test_other_images_have_other_facts(other: Images) -> None:
    assert grey_images().facts() == grey_images().facts()
    assert other.facts() != grey_images().facts()
    assert len(other) == other.facts()["number of images"]


@pytest.mark.parametrize(
    ("likelihood", "reading"),
    [("bernoulli", "bits"), ("binomial", "counts"), ("categorical", "counts"), ("discretised-logistic", "counts")]
    + [(f"normal{kind}", "unit") for kind in ("", "-learned", "-per-pixel", "-predicted", "-predicted-unit")],
)
def test_a_head_has_its_reading(likelihood: Any, reading: str) -> None:
    max_value = 1 if likelihood == "bernoulli" else 16
    assert reading_for(VAEConfig((2, 2), 2, (3,), likelihood=likelihood, max_value=max_value)) == reading


def test_named_configurations_have_readings() -> None:
    names = {"kingma2014-mnist": "bits", "kingma2014-frey": "unit", "burda2016-1": "bits", "digits": "counts"}
    assert {name: reading_for(configuration(name)) for name in names} == names


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([[[1.0]]], TypeError, r"images: expected bytes or floating-point numbers, found list"),
        ([torch.ones(2, 2).long()], TypeError, r"images: expected bytes or floating-point numbers, found torch.int64"),
        ([torch.ones(4)], ValueError, r"images: expected shape \(N, D\) with at least one image, found \(4,\)"),
        ([torch.ones(0, 4)], ValueError, r"images: expected shape \(N, D\) with at least one image, found \(0, 4\)"),
        ([torch.ones(1, 4), "grey"], ValueError, r"reading: expected one of bits, counts, unit, found 'grey'"),
        ([VALUES, "bits", 0], ValueError, r"max_value: expected a positive integer, found 0"),
        (
            [torch.tensor([[1.0, math.nan]])],
            ValueError,
            r"images: expected finite numbers, found 1 that are not, first nan at \(0, 1\)",
        ),
        ([VALUES, "bits", 16], ValueError, r"images: expected values from 0 to 16, found 0 to 255"),
        ([-1.0 - VALUES, "unit", 255], ValueError, r"images: expected values from 0 to 255, found -256 to -1"),
    ],
)
def test_mistakes_get_one_line(arguments: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        Images(*arguments)
