"""Graphical models: circles for random variables, a plate for what is repeated."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from vae_lib.plots.style import colour


def plate_diagram(ax: Axes | None = None) -> Axes:
    """Draw the latent-variable model of the book: z to x inside a plate of N data, theta and phi outside.

    The observed x is filled. The solid arrow is the generative model, the dashed one the approximate posterior.
    """
    ax = ax if ax is not None else plt.subplots(figsize=(5.6, 2.6))[1]
    ink, paper = colour("ink"), colour("paper")
    ax.add_patch(FancyBboxPatch((1.5, 0.1), 3.6, 1.8, boxstyle="round,pad=0.05,rounding_size=0.15", fill=False, ec=ink))
    ax.text(4.98, 0.2, "N", ha="right", va="bottom", fontsize=12)
    nodes = {"z": (2.3, paper), "x": (4.2, colour("prior"))}
    for name, (position, fill) in nodes.items():
        ax.add_patch(Circle((position, 1.0), 0.36, facecolor=fill, edgecolor=ink, linewidth=1.4))
        ax.text(
            position,
            1.0,
            f"${name}$",
            ha="center",
            va="center",
            fontsize=15,
            color=paper if name == "x" else ink,
        )
    ax.text(0.62, 1.0, r"$\phi$", ha="center", va="center", fontsize=15)
    ax.text(5.98, 1.0, r"$\theta$", ha="center", va="center", fontsize=15)
    arrows = [
        ((2.68, 1.12), (3.82, 1.12), "posterior", "-", 0.0),
        ((3.82, 0.84), (2.68, 0.84), "q", "--", 0.0),
        ((5.8, 1.0), (4.6, 1.0), "posterior", "-", 0.0),
        ((0.82, 1.0), (1.9, 1.0), "q", "--", 0.0),
    ]
    for start, end, role, style, bend in arrows:
        ax.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=14,
                color=colour(role),
                linestyle=style,
                linewidth=1.8,
                connectionstyle=f"arc3,rad={bend}",
            )
        )
    ax.text(3.25, 1.26, r"$p_\theta(x \mid z)$", ha="center", va="bottom", fontsize=11, color=colour("posterior"))
    ax.text(3.25, 0.70, r"$q_\phi(z \mid x)$", ha="center", va="top", fontsize=11, color=colour("q"))
    ax.set_xlim(0.2, 6.4)
    ax.set_ylim(-0.05, 2.05)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax
