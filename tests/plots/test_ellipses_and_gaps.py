"""Ellipses lie at two standard deviations; bars of gaps begin where the part before them ends."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vae_lib import plots

mpl.use("agg")


@pytest.fixture(autouse=True)
def _book_style():
    with mpl.rc_context():
        plots.use_style()
        yield
        plt.close("all")


def test_an_ellipse_is_two_standard_deviations_away() -> None:
    mean, covariance = torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 0.6], [0.6, 0.5]])
    ax = plots.normal_ellipses(
        {"p": ("posterior", mean, covariance), "q": ("q", mean, torch.eye(2))}, xlabel="latent 1", ylabel="latent 2"
    )
    for line, matrix in zip(ax.lines, (covariance, torch.eye(2)), strict=True):
        off = line.get_xydata() - mean.numpy()
        distance = np.einsum("ni,ij,nj->n", off, np.linalg.inv(matrix.numpy()), off)
        np.testing.assert_allclose(distance, 4.0, rtol=1e-4)
        np.testing.assert_allclose(line.get_xydata()[0], line.get_xydata()[-1], atol=1e-5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["p", "q"]
    assert len(ax.patches) == 1  # the posterior is filled
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_aspect()) == ("latent 1", "latent 2", 1.0)


def test_an_ellipse_refuses_three_coordinates() -> None:
    with pytest.raises(ValueError, match=r"^mean of q: expected shape \(2,\), found \(3,\)$"):
        plots.normal_ellipses({"q": ("q", torch.zeros(3), torch.eye(3))}, xlabel="", ylabel="")


def test_parts_stand_end_to_end() -> None:
    figure, own = plt.subplots()
    ax = plots.gap_bars(
        ["one", "two"],
        {"first": ("posterior", [1.0, 2.0]), "second": ("third", [0.5, 0.0])},
        xlabel="nats",
        ax=own,
    )
    assert ax is own
    first, second = ax.containers
    assert [bar.get_width() for bar in first] == [1.0, 2.0]
    assert [(bar.get_x(), bar.get_width()) for bar in second] == [(1.0, 0.5), (2.0, 0.0)]
    assert {bar.get_hatch() for bar in first} != {bar.get_hatch() for bar in second}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert ax.get_xlim()[1] >= 2.0
    assert ax.yaxis_inverted()
    assert figure.axes == [own]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, r"^parts: expected 1 to 3, found 0$"),
        ({"gap": ("q", [1.0])}, r"^gap: expected 2 lengths, none negative, found \[1\.0\]$"),
        ({"gap": ("q", [1.0, -0.1])}, r"^gap: expected 2 lengths, none negative, found \[1\.0, -0\.1\]$"),
    ],
)
def test_bad_parts_are_one_line(parts: dict[str, tuple[str, list[float]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.gap_bars(["one", "two"], parts, xlabel="nats")
