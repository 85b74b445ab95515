"""Sprites: independent factors, one image for each, the same bits everywhere, and fast."""

from __future__ import annotations

import hashlib
import itertools
import math
import time

import numpy as np
import pytest
import torch

from vae_lib.data import (
    SPRITE_FACTORS,
    DatasetError,
    dataset_info,
    load_dataset,
    render_sprites,
    sprite_factors,
)
from vae_lib.data import sprites as module

# SHA-256 of all images (25920, 784), uint8, in the order of `sprite_factors`.
RECORD = "b49a03d836a085c651406155d619f8a6766ef2c5faa5f494838a1a615ece8405"

SIZES = dataset_info("sprites").factor_sizes


@pytest.fixture(scope="module")
def factors():
    return sprite_factors()


@pytest.fixture(scope="module")
def images(factors):
    return render_sprites(factors).view(-1, 28, 28)


@pytest.fixture
def canvases():
    """Draw the canvases anew, with whatever the test has patched."""
    module._canvases.cache_clear()
    yield module._canvases
    module._canvases.cache_clear()


def test_every_combination_occurs_once(factors):
    assert SIZES == (3, 6, 10, 12, 12)
    assert factors.tolist() == [list(row) for row in itertools.product(*(range(n) for n in SIZES))]
    assert tuple(SPRITE_FACTORS) == dataset_info("sprites").factor_names


def test_the_split_keeps_image_and_factors_together(factors, images):
    data = load_dataset("sprites")
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.factors, factors[split.index])
        assert torch.equal(split.x, images.flatten(1)[split.index])


def test_distinct_factors_give_distinct_images(images):
    assert len(np.unique(images.flatten(1).numpy(), axis=0)) == math.prod(SIZES)


def test_the_bits_are_the_ones_on_record(images):
    assert hashlib.sha256(images.numpy().tobytes()).hexdigest() == RECORD


def test_no_value_sits_near_a_rounding_edge():
    """The noise of sines and cosines is about 1e-13 here: 255 grey levels, distances up to 12, 2^-53 each."""
    scaled = 255 * module._coverage()
    assert np.abs(scaled - np.floor(scaled) - 0.5).min() > 1e-6


@pytest.mark.parametrize("toward", [-math.inf, math.inf])
def test_another_last_bit_in_sine_and_cosine_changes_nothing(monkeypatch, canvases, toward):
    before = canvases().clone()
    canvases.cache_clear()
    sin, cos = math.sin, math.cos
    monkeypatch.setattr(math, "sin", lambda a: math.nextafter(sin(a), toward))
    monkeypatch.setattr(math, "cos", lambda a: math.nextafter(cos(a), toward))
    assert torch.equal(canvases(), before)


def test_nothing_is_cut_off_at_the_border(monkeypatch):
    narrow = module._coverage()
    monkeypatch.setattr(module, "_REACH", 11)
    wide = module._coverage()
    assert np.array_equal(wide[..., 3:-3, 3:-3], narrow)
    assert wide.sum() == pytest.approx(narrow.sum(), rel=1e-12)


def test_an_image_depends_on_its_own_row_only(factors, images):
    rows = torch.randperm(len(factors), generator=torch.Generator().manual_seed(0))[:500]
    assert torch.equal(render_sprites(factors[rows]), images.flatten(1)[rows])
    assert render_sprites(factors[:0]).shape == (0, 784)


def test_what_comes_back_is_the_callers_own(factors, images):
    render_sprites(factors[:3]).fill_(7)
    assert torch.equal(render_sprites(factors[:3]), images.flatten(1)[:3])


def test_positions_move_the_shape_by_whole_pixels(images):
    grid = images.view(*SIZES, 28, 28)
    assert torch.equal(grid[:, :, :, 1:].roll(-1, dims=-1)[..., :-1], grid[:, :, :, :-1][..., :-1])
    assert torch.equal(grid[:, :, :, :, 1:].roll(-1, dims=-2)[..., :-1, :], grid[:, :, :, :, :-1][..., :-1, :])


def test_x_and_y_name_the_pixel_under_the_centre(images):
    """Square and ellipse are symmetric about it, so their centre of mass lies there."""
    mass = images.view(*SIZES, 28, 28)[:2].double()
    pixel = torch.arange(28.0, dtype=torch.float64)
    total = mass.sum((-1, -2))
    x = (mass.sum(-2) @ pixel) / total
    y = (mass.sum(-1) @ pixel) / total
    places = torch.tensor(SPRITE_FACTORS["x"], dtype=torch.float64)
    # Each mirrored pair of pixels may round the two ways: by less than one level in a total of thousands.
    assert torch.allclose(x, places[:, None].expand_as(x), rtol=0, atol=1e-9)
    assert torch.allclose(y, places.expand_as(y), rtol=0, atol=1e-9)


def test_orientation_turns_counter_clockwise(images):
    """The triangle starts with a corner straight up, and the corner leans left after nine degrees."""
    upright, turned = images.view(*SIZES, 28, 28)[2, 5, :2, 6, 6].long()
    centre = SPRITE_FACTORS["x"][6]
    rows = upright.sum(1).nonzero().flatten().tolist()
    assert centre - rows[0] > rows[-1] - centre
    tip = slice(rows[0], rows[0] + 3)
    assert upright[tip, :centre].sum() == upright[tip, centre + 1 :].sum()
    assert turned[tip, :centre].sum() > 2 * turned[tip, centre + 1 :].sum()


@pytest.mark.parametrize("shape", SPRITE_FACTORS["shape"])
def test_the_scale_is_the_radius_of_the_disc_of_equal_area(shape):
    """Count points of a fine grid; the error is at most the cells that the edge, shorter than 9, crosses."""
    step = 0.005
    axis = np.arange(-2 + step / 2, 2, step)
    inside = getattr(module, f"_{shape}")(axis[None, :], axis[:, None], 1.0) < 0
    assert abs(inside.sum() * step**2 - math.pi) < 9 * math.sqrt(2) * step


def test_tens_of_thousands_a_second(factors):
    render_sprites(factors[:1])
    start = time.perf_counter()
    render_sprites(factors)
    assert len(factors) / (time.perf_counter() - start) > 20_000


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(5, dtype=torch.int64), r"factors: expected int64 \(N, 5\), found int64 \(5,\)"),
        (torch.zeros(2, 4, dtype=torch.int64), r"factors: expected int64 \(N, 5\), found int64 \(2, 4\)"),
        (torch.zeros(2, 5), r"factors: expected int64 \(N, 5\), found float32 \(2, 5\)"),
        (torch.tensor([[0] * 5, [0, 0, 10, 0, 0]]), "expected orientation from 0 to 9, found 10 in row 1"),
        (torch.tensor([[0, -1, 0, 0, 0]]), "expected scale from 0 to 5, found -1 in row 0"),
    ],
)
def test_bad_factors_are_one_line(bad, message):
    with pytest.raises(DatasetError, match=message) as caught:
        render_sprites(bad)
    assert "\n" not in str(caught.value)
