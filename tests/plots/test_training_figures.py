"""What a trained model is looked at with: sheets of images, the latent plane, and the grid that maps the manifold."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Circle
from scipy.stats import norm

from tests.plots.test_style import DEFICIENCIES, contrast, inverted, lab, linear, machado
from vae_lib import plots
from vae_lib.data import load_dataset
from vae_lib.plots import style
from vae_lib.plots.image_grid import FINE, LINE, TILE, WIDTH
from vae_lib.plots.latent_plane import CLASSES_DARK, CLASSES_LIGHT

mpl.use("agg")


@pytest.fixture(autouse=True)
def _book_style():
    with mpl.rc_context():
        plots.use_style()
        yield
        plots.use_style()
        plt.close("all")


def random_images(count: int, pixels: int) -> torch.Tensor:
    return torch.rand(count, pixels, generator=torch.Generator().manual_seed(0))


def sheet(ax: Axes) -> np.ndarray:
    (image,) = ax.images
    return np.asarray(image.get_array())


# Sheets of images


@pytest.mark.parametrize("shape", [(2, 3), (28, 20), (30, 5)])
def test_every_image_lies_in_its_place_between_lines(shape: tuple[int, int]) -> None:
    height, width = shape
    images = random_images(6, height * width)
    drawn = sheet(plots.image_grid(images, shape, columns=3))
    zoom = max(1, FINE // max(shape))
    step_down, step_right = zoom * height + 1, zoom * width + 1
    assert drawn.shape == (2 * step_down + 1, 3 * step_right + 1)
    assert (drawn[::step_down] == np.float32(LINE)).all()
    assert (drawn[:, ::step_right] == np.float32(LINE)).all()
    for i, image in enumerate(images):
        top, left = 1 + i // 3 * step_down, 1 + i % 3 * step_right
        tile = drawn[top : top + zoom * height, left : left + zoom * width]
        np.testing.assert_array_equal(tile, np.kron(image.reshape(shape).numpy(), np.ones((zoom, zoom))))


def test_rows_given_as_an_axis_are_the_same_sheet_as_in_reading_order() -> None:
    images = random_images(6, 4)
    flat = sheet(plots.image_grid(images, (2, 2), columns=3))
    np.testing.assert_array_equal(sheet(plots.image_grid(images.reshape(2, 3, 4), (2, 2))), flat)


def test_large_values_are_ink_and_values_outside_are_cut_off() -> None:
    ax = plots.image_grid(torch.tensor([[-3.0, 7.0]]), (1, 2), columns=1)
    zoom = FINE // 2
    assert sheet(ax)[1, 1] == 0.0
    assert sheet(ax)[1, zoom + 1] == 1.0
    assert (ax.images[0].get_clim(), ax.images[0].cmap.name) == ((0.0, 1.0), "gray_r")


def test_captions_stand_at_the_middle_of_their_rows_inside_the_figure() -> None:
    digits = load_dataset("digits")
    images = digits.test.pixels()[:20].reshape(2, 10, 64)
    ax = plots.image_grid(images, digits.info.image_shape, captions=["data", "reconstruction"])
    figure = ax.figure
    figure.canvas.draw()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["data", "reconstruction"]
    height = len(sheet(ax))
    np.testing.assert_allclose(ax.get_yticks(), [height / 4, 3 * height / 4], atol=0.5)
    for label in ax.get_yticklabels():
        assert figure.bbox.containsx(label.get_window_extent().x0)
        assert label.get_window_extent().x1 < ax.get_window_extent().x0


@pytest.mark.parametrize(("count", "columns"), [(400, 20), (30, 10), (6, 2), (10, 1)])
def test_a_new_figure_fits_the_page_and_is_filled(count: int, columns: int) -> None:
    ax = plots.image_grid(random_images(count, 64), (8, 8), columns=columns)
    ax.figure.canvas.draw()
    assert ax.figure.get_figwidth() <= min(WIDTH, columns * TILE + 0.25)
    sides = np.array([ax.get_window_extent().width, ax.get_window_extent().height])
    free = ax.figure.get_size_inches() - sides / ax.figure.dpi
    assert (free < 0.25).all()  # inches, both margins together


def test_a_sheet_is_drawn_on_the_given_axes() -> None:
    own = plt.subplots()[1]
    assert plots.image_grid(random_images(4, 4).requires_grad_(), (2, 2), columns=2, ax=own) is own
    assert len(own.images) == 1  # one picture, not one for each image


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (torch.zeros(4, 5), {"columns": 2}, ValueError, r"^images: expected shape \(N, 4\), found \(4, 5\)$"),
        (torch.zeros(2, 2, 5), {}, ValueError, r"^images: expected shape \(R, C, 4\), found \(2, 2, 5\)$"),
        (torch.zeros(0, 4), {"columns": 2}, ValueError, r"^images: expected shape .* \(an empty batch\)$"),
        (torch.zeros(4, 4), {}, ValueError, r"^columns: expected how many images stand in a row, found None$"),
        (torch.zeros(4, 4), {"columns": 0}, ValueError, r"^columns: expected a positive integer, found 0$"),
        (torch.zeros(5, 4), {"columns": 2}, ValueError, r"^images: expected full rows of 2, found 5 images$"),
        (torch.zeros(2, 3, 4), {"columns": 2}, ValueError, r"^columns: expected 3, the second size .*, found 2$"),
        (torch.zeros(4, 4), {"columns": 2, "captions": ["a"]}, ValueError, r"^captions: expected 2, .*, found 1$"),
        (torch.full((4, 4), torch.nan), {"columns": 2}, ValueError, r"^images: expected finite numbers, found 16 "),
        (torch.zeros(4, 4, dtype=torch.uint8), {"columns": 2}, TypeError, r"^images: .*, found torch\.uint8$"),
        ([[0.0]], {"columns": 1}, TypeError, r"^images: expected a tensor, found list$"),
    ],
)
def test_a_sheet_that_cannot_be_drawn_is_one_line(images, options, error, message) -> None:
    with pytest.raises(error, match=message):
        plots.image_grid(images, (2, 2), **options)


# The grid of the manifold


def test_the_manifold_grid_takes_the_middle_of_each_cell_in_reading_order() -> None:
    side = 5
    grid = plots.latent_manifold_grid(side, dtype=torch.float64).reshape(side, side, 2).numpy()
    across, up = norm.cdf(grid[..., 0]), norm.cdf(grid[..., 1])
    # Twice the rounding of numbers near 1, once for each direction of the normal distribution function.
    np.testing.assert_allclose(across, np.tile((np.arange(side) + 0.5) / side, (side, 1)), atol=1e-15)
    np.testing.assert_allclose(up, np.tile((np.arange(side)[::-1, None] + 0.5) / side, (1, side)), atol=1e-15)


def test_the_manifold_grid_is_finite_and_of_the_asked_dtype() -> None:
    assert plots.latent_manifold_grid(1).tolist() == [[0.0, 0.0]]
    grid = plots.latent_manifold_grid(200)
    assert (grid.shape, grid.dtype) == ((40_000, 2), torch.get_default_dtype())
    assert torch.isfinite(grid).all()
    with pytest.raises(ValueError, match=r"^side: expected a positive integer, found 0$"):
        plots.latent_manifold_grid(0)


# The latent plane


def test_each_class_is_drawn_in_its_own_colour_and_marker() -> None:
    generator = torch.Generator().manual_seed(0)
    mu, labels = torch.randn(300, 2, generator=generator), torch.randint(10, (300,), generator=generator)
    ax = plots.latent_plane(mu, labels, [f"class {i}" for i in range(10)])
    assert len(ax.collections) == 10
    for which, marks in enumerate(ax.collections):
        np.testing.assert_array_equal(np.asarray(marks.get_offsets()), mu[labels == which].double().numpy())
        assert to_hex(marks.get_facecolor()[0]) == CLASSES_LIGHT[which]
    outlines = {marks.get_paths()[0].vertices.tobytes() for marks in ax.collections}
    assert len(outlines) == 10
    assert [text.get_text() for text in ax.texts] == [f"class {i}" for i in range(10)]
    assert ax.get_aspect() == 1.0


def test_a_name_stands_among_most_of_its_class_on_a_halo() -> None:
    # Seven points here, in a line that leads to six there: the fourth, not the last, which is the median of all.
    here, there = torch.tensor([0.0, 10.0]), torch.tensor([10.0, 0.0])
    mu = torch.cat([here + torch.outer(torch.arange(7.0) / 10, torch.tensor([1.0, -1.0])), there.expand(6, 2)])
    ax = plots.latent_plane(mu, torch.ones(13, dtype=torch.long), ["none", "all"])
    (text,) = ax.texts  # a class without points has no name in the plane
    assert text.get_text() == "all"
    np.testing.assert_allclose(text.get_position(), [0.3, 9.7], rtol=1e-6)
    (halo,) = text.get_path_effects()
    assert halo._gc["foreground"] == plots.colour("paper")
    assert to_hex(text.get_color()) == plots.colour("ink")


def test_the_prior_is_two_circles_that_are_in_view() -> None:
    mu, labels = torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)
    ax = plots.latent_plane(mu, labels, ["all"])
    circles = [patch for patch in ax.patches if isinstance(patch, Circle)]
    assert [(circle.center, circle.radius) for circle in circles] == [((0.0, 0.0), 1.0), ((0.0, 0.0), 2.0)]
    ax.figure.canvas.draw()
    assert ax.get_xlim()[0] <= -2.0
    assert ax.get_ylim()[1] >= 2.0
    own = plt.subplots()[1]
    assert plots.latent_plane(mu, labels, ["all"], prior=False, ax=own) is own
    assert not own.patches


def test_the_dark_style_takes_the_dark_colours() -> None:
    plots.use_style(dark=True)
    ax = plots.latent_plane(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), ["all"])
    assert to_hex(ax.collections[0].get_facecolor()[0]) == CLASSES_DARK[0]


@pytest.mark.parametrize(
    ("mu", "labels", "names", "error", "message"),
    [
        (torch.zeros(3, 3), [0, 0, 0], 1, ValueError, r"^mu: expected shape \(N, 2\), found \(3, 3\)$"),
        (torch.full((1, 2), torch.inf), [0], 1, ValueError, r"^mu: expected finite numbers, found 2 "),
        (torch.zeros(3, 2), [0, 0], 1, ValueError, r"^labels: expected shape \(3,\), .*, found \(2,\)$"),
        (torch.zeros(2, 2), [0.0, 1.0], 2, TypeError, r"^labels: expected integers, found torch\.float32$"),
        (torch.zeros(2, 2), [0, 2], 2, ValueError, r"^labels: expected 0 to 1, found 0 to 2$"),
        (torch.zeros(2, 2), [-1, 0], 2, ValueError, r"^labels: expected 0 to 1, found -1 to 0$"),
        (torch.zeros(2, 2), [0, 1], 11, ValueError, r"^class_names: expected 1 to 10, found 11$"),
        (torch.zeros(2, 2), [0, 1], 0, ValueError, r"^class_names: expected 1 to 10, found 0$"),
    ],
)
def test_a_plane_that_cannot_be_drawn_is_one_line(mu, labels, names, error, message) -> None:
    with pytest.raises(error, match=message):
        plots.latent_plane(mu, torch.tensor(labels), [str(i) for i in range(names)])


# The colours of the classes


def test_class_colours_stand_out_from_their_paper() -> None:
    for light, dark in zip(CLASSES_LIGHT, CLASSES_DARK, strict=True):
        assert contrast(light, style.LIGHT["paper"]) >= 3.0, light
        assert contrast(dark, style.DARK["paper"]) >= 3.0, dark
        assert dark == inverted(light)  # so the built page's dark mode shows the dark colours as well


@pytest.mark.parametrize("palette", [CLASSES_LIGHT, CLASSES_DARK], ids=["light", "dark"])
@pytest.mark.parametrize("deficiency", [None, *DEFICIENCIES])
def test_class_colours_can_be_told_apart_by_everyone(palette, deficiency) -> None:
    # As in the test of the roles: 10 units of CIELAB are about four just-noticeable differences.
    matrix = DEFICIENCIES[deficiency] if deficiency else np.eye(3).tolist()
    seen = {value: lab(machado(linear(value), matrix)) for value in palette}
    for a, b in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 10.0, (a, b)
