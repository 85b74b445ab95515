"""The drawing of the reparameterization trick says which node is random and how far the gradient goes."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, Polygon

from vae_lib import plots

mpl.use("agg")


@pytest.fixture(autouse=True)
def _book_style():
    with mpl.rc_context():
        plots.use_style()
        yield
        plt.close("all")


def random_nodes(ax: Axes) -> set[str]:
    """Names that stand in the middle of a circle."""
    centres = {patch.center for patch in ax.patches if isinstance(patch, Circle)}
    return {text.get_text() for text in ax.texts if tuple(text.get_position()) in centres}


def backward_arrows(ax: Axes) -> int:
    return sum(isinstance(patch, FancyArrowPatch) and patch.get_linestyle() == "--" for patch in ax.patches)


def test_before_the_latent_is_random_and_stops_the_gradient() -> None:
    ax = plots.stochastic_graph(reparameterized=False)
    assert random_nodes(ax) == {"$z$"}
    assert backward_arrows(ax) == 1
    assert len(ax.lines) == 1  # the cross


def test_after_only_the_noise_is_random_and_the_gradient_reaches_the_parameters() -> None:
    ax = plt.subplots()[1]
    assert plots.stochastic_graph(reparameterized=True, ax=ax) is ax
    assert random_nodes(ax) == {r"$\epsilon$"}
    assert sum(isinstance(patch, Polygon) for patch in ax.patches) == 4
    assert backward_arrows(ax) == 2
    assert not ax.lines
