"""One style for every figure: colours that the colour-blind can tell apart, readable in print and on a phone.

Colours have a meaning that holds through the book: q and what it gives (the ELBO) are blue, the posterior and the
distance to it (the KL) vermilion, the prior grey, the evidence and the data ink. They follow Okabe and Ito (2008),
darkened or lightened until each stands 3 to 1 against its background and text 4.5 to 1; a test computes both.
"""

from __future__ import annotations

import matplotlib as mpl
from cycler import cycler

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "q": "#0072b2",
    "posterior": "#c44e00",
    "third": "#00795a",
    "fourth": "#9b4f96",
    "prior": "#6b6b6b",
}
DARK = {
    "paper": "#14181e",
    "ink": "#e6e6e6",
    "q": "#56b4e9",
    "posterior": "#ff9e4a",
    "third": "#3ccb9f",
    "fourth": "#d9a0d6",
    "prior": "#a8a8a8",
}

_current = dict(LIGHT)


def colour(role: str) -> str:
    """Return the colour of a role in the style in use, one of the keys of ``LIGHT``.

    Raises
    ------
    ValueError
        If there is no such role.
    """
    if role not in _current:
        raise ValueError(f"role: expected one of {', '.join(_current)}, found {role!r}")
    return _current[role]


def use_style(*, dark: bool = False) -> None:
    """Set the book's style for all figures that follow.

    Parameters
    ----------
    dark
        Light ink on dark paper, for a dark notebook. The built book makes its dark figures from the light ones.
    """
    _current.update(DARK if dark else LIGHT)
    lines = [_current[role] for role in ("q", "posterior", "third", "fourth", "prior")]
    ink, paper = _current["ink"], _current["paper"]
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.4),
            "figure.dpi": 100,
            "savefig.dpi": 160,
            "figure.facecolor": paper,
            "savefig.facecolor": paper,
            "figure.constrained_layout.use": True,
            "axes.facecolor": paper,
            "axes.edgecolor": ink,
            "axes.labelcolor": ink,
            "axes.titlecolor": ink,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.labelsize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.8,
            "axes.prop_cycle": cycler(color=lines) + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1))]),
            "text.color": ink,
            "xtick.color": ink,
            "ytick.color": ink,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "font.family": "DejaVu Sans",
            "font.size": 11,
            "lines.linewidth": 2.0,
            "legend.frameon": False,
            "legend.fontsize": 10,
            "image.cmap": "gray_r",
            "image.interpolation": "nearest",
        }
    )
