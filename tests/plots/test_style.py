"""The palette keeps its promises of contrast, and each kind of figure draws what it was given."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vae_lib import plots
from vae_lib.plots import style

mpl.use("agg")


@pytest.fixture(autouse=True)
def _book_style():
    with mpl.rc_context():
        plots.use_style()
        yield
        plots.use_style()
        plt.close("all")


def linear(hex_colour: str) -> np.ndarray:
    channels = np.array([int(hex_colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(rgb_linear: np.ndarray) -> float:
    return float(rgb_linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    """WCAG 2.1 contrast ratio."""
    high, low = sorted((luminance(linear(a)), luminance(linear(b))), reverse=True)
    return (high + 0.05) / (low + 0.05)


def inverted(hex_colour: str) -> str:
    """What the built page's dark mode makes of a colour: CSS invert(1), then hue-rotate(180deg), on sRGB values."""
    rgb = 1.0 - np.array([int(hex_colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    weights = np.array([0.213, 0.715, 0.072])
    rotated = 2.0 * (weights @ rgb) - rgb  # the matrix of the Filter Effects specification at 180 degrees
    return "#" + "".join(f"{round(255 * float(np.clip(c, 0, 1))):02x}" for c in rotated)


@pytest.mark.parametrize("palette", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_every_colour_stands_out_from_its_paper(palette):
    for role, value in palette.items():
        if role != "paper":
            assert contrast(value, palette["paper"]) >= (4.5 if role in ("ink", "prior") else 3.0), role


def test_light_figures_keep_their_contrast_when_the_page_inverts_them():
    for role, value in style.LIGHT.items():
        if role != "paper":
            assert contrast(inverted(value), "#14181e") >= (4.5 if role in ("ink", "prior") else 3.0), role


def machado(rgb: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    return np.clip(np.array(matrix) @ rgb, 0.0, 1.0)


# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
DEFICIENCIES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(rgb_linear: np.ndarray) -> np.ndarray:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb_linear
    scaled = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("palette", [style.LIGHT, style.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_q_posterior_and_prior_can_be_told_apart_by_the_colour_blind(palette, deficiency):
    # 10 units of CIELAB are about four just-noticeable differences; line styles separate them a second time.
    seen = {role: lab(machado(linear(palette[role]), DEFICIENCIES[deficiency])) for role in ("q", "posterior", "prior")}
    for a, b in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 10.0, (a, b)


def test_unknown_role_is_one_line():
    with pytest.raises(ValueError, match=r"role: expected one of paper, ink, q, .* found 'evidence'"):
        plots.colour("evidence")


def test_dark_style_changes_colours_and_paper():
    plots.use_style(dark=True)
    assert plots.colour("q") == style.DARK["q"]
    assert mpl.rcParams["figure.facecolor"] == style.DARK["paper"]


def test_density_curves_draw_the_given_values_and_fill_the_posterior():
    z = torch.linspace(-1, 1, 5)
    ax = plots.density_curves(z, {"p": ("posterior", z**2), "q": ("q", z.abs())})
    assert [line.get_label() for line in ax.lines] == ["p", "q"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), (z**2).numpy())
    assert len(ax.collections) == 1
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()


def test_curves_draw_on_given_axes():
    ax = plt.subplots()[1]
    assert plots.curves([1, 2], {"a": ("third", torch.tensor([3.0, 4.0]))}, xlabel="x", ylabel="nats", ax=ax) is ax
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 3], [2, 4]])
    assert ax.get_ylabel() == "nats"


def test_bound_bars_fill_the_evidence():
    ax = plots.bound_bars(["a", "b"], elbo=[-3.0, -2.0], kl=[2.0, 1.0], left=-5.0)
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert ends == [-3.0, -2.0, -1.0, -1.0]
    with pytest.raises(ValueError, match="left: expected a number below the smallest ELBO"):
        plots.bound_bars(["a"], elbo=[-3.0], kl=[1.0], left=-3.0)


def test_image_row_draws_each_image_and_checks_the_shape():
    images = torch.rand(3, 6, generator=torch.Generator().manual_seed(0))
    ax = plots.image_row(images, (2, 3), captions=["a", "b", "c"])
    assert len(ax.images) == 3
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c"]
    np.testing.assert_allclose(ax.images[1].get_array(), images[1].reshape(2, 3).numpy())
    with pytest.raises(ValueError, match=r"expected 4 pixels each for shape \(2, 2\), found 6"):
        plots.image_row(images, (2, 2))


def test_joint_table_writes_percentages():
    ax = plots.joint_table(torch.tensor([[0.1, 0.2], [0.3, 0.4]]), xlabel="x", ylabel="z", title="t", vmax=0.4)
    assert [text.get_text() for text in ax.texts] == ["10.0", "20.0", "30.0", "40.0"]


def test_plate_diagram_names_its_nodes():
    texts = {text.get_text() for text in plots.plate_diagram().texts}
    assert {"N", "$z$", "$x$", r"$\theta$", r"$\phi$"} <= texts
