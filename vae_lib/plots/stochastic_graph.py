"""The computation graph of a sampled objective, before and after reparameterization."""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, Polygon

from vae_lib.plots.style import colour

SIZE = 0.36


class _Node(NamedTuple):
    """A node: where it stands, and whether it is random."""

    x: float
    y: float
    random: bool


BEFORE = {
    r"$f$": _Node(1.0, 2.5, False),
    r"$z$": _Node(1.0, 1.25, True),
    r"$\phi$": _Node(0.3, 0.0, False),
    r"$x$": _Node(1.7, 0.0, False),
}
AFTER = {
    r"$f$": _Node(1.0, 2.5, False),
    r"$z$": _Node(1.0, 1.25, False),
    r"$\phi$": _Node(0.0, 0.0, False),
    r"$x$": _Node(1.0, 0.0, False),
    r"$\epsilon$": _Node(2.0, 0.0, True),
}


def stochastic_graph(*, reparameterized: bool, ax: Axes | None = None) -> Axes:
    """Draw how f is computed from the parameters, and how far back its gradient can go.

    Circles are random, diamonds deterministic. Solid arrows compute, dashed ones carry the gradient of f back. A random
    z stops it; made from noise, z lets it pass.

    Parameters
    ----------
    reparameterized
        With z drawn from q (False), or computed from noise (True).
    ax
        Where to draw; new axes if it is not given.
    """
    ax = ax if ax is not None else plt.subplots(figsize=(2.8, 3.2))[1]
    nodes = AFTER if reparameterized else BEFORE
    for name, node in nodes.items():
        if name not in (r"$f$", r"$z$"):
            _arrow(ax, node, nodes["$z$"], "ink", "-", 0.0)
        _draw(ax, name, node)
    _arrow(ax, nodes["$z$"], nodes["$f$"], "ink", "-", 0.0)
    _arrow(ax, nodes["$f$"], nodes["$z$"], "q", "--", 0.35)
    ax.text(0.72, 1.9, r"$\nabla_z f$", color=colour("q"), va="center", ha="right", fontsize=11)
    if reparameterized:
        _arrow(ax, nodes["$z$"], nodes[r"$\phi$"], "q", "--", 0.35)
        ax.text(-0.3, 0.86, r"$\partial z / \partial \phi$", color=colour("q"), va="center", ha="center", fontsize=11)
    else:
        middle = (nodes["$z$"].x + nodes[r"$\phi$"].x) / 2 - 0.18, (nodes["$z$"].y + nodes[r"$\phi$"].y) / 2 + 0.12
        ax.plot(*middle, marker="x", markersize=13, markeredgewidth=3, color=colour("posterior"))
    ax.set_title("after" if reparameterized else "before", loc="center")
    ax.set_xlim(-0.85, 2.5)
    ax.set_ylim(-0.5, 3.0)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def _draw(ax: Axes, name: str, node: _Node) -> None:
    ink, paper = colour("ink"), colour("paper")
    if node.random:
        ax.add_patch(Circle((node.x, node.y), SIZE, facecolor=colour("prior"), edgecolor=ink, linewidth=1.4))
    else:
        corners = [(node.x - SIZE, node.y), (node.x, node.y + SIZE), (node.x + SIZE, node.y), (node.x, node.y - SIZE)]
        ax.add_patch(Polygon(corners, closed=True, facecolor=paper, edgecolor=ink, linewidth=1.4))
    ax.text(node.x, node.y, name, ha="center", va="center", fontsize=14, color=paper if node.random else ink)


def _arrow(ax: Axes, start: _Node, end: _Node, role: str, style: str, bend: float) -> None:
    ax.add_patch(
        FancyArrowPatch(
            (start.x, start.y),
            (end.x, end.y),
            arrowstyle="-|>",
            mutation_scale=13,
            shrinkA=24,
            shrinkB=24,
            color=colour(role),
            linestyle=style,
            linewidth=1.7,
            connectionstyle=f"arc3,rad={bend}",
        )
    )
