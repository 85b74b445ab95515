"""Interactive figures: one self-contained piece of HTML each, for the static page and for the notebook.

A figure is a template beside this file (markup, CSS and hand-written JavaScript; no library, no network) and
a small Python module that checks its settings and draws the still picture a reader sees where scripts are
switched off. The string is a pure function of its arguments, so a notebook that shows it compares equal byte
for byte.
"""

from collections.abc import Callable, Mapping
from typing import Any

from vae_lib.explorables import (
    elbo_bars,
    em_ascent,
    figure_two,
    forward_reverse,
    gradient_cloud,
    importance_bound,
    latent_explorer,
    reparameterization,
)

__all__ = ["explorable_html"]

_FIGURES: dict[str, Callable[..., str]] = {
    "elbo_bars": elbo_bars.html,
    "em_ascent": em_ascent.html,
    "figure_two": figure_two.html,
    "forward_reverse": forward_reverse.html,
    "gradient_cloud": gradient_cloud.html,
    "importance_bound": importance_bound.html,
    "latent_explorer": latent_explorer.html,
    "reparameterization": reparameterization.html,
}


def explorable_html(name: str, **config: float | str | Mapping[str, Any]) -> str:
    """The HTML of one interactive figure, ready for ``IPython.display.HTML``.

    Parameters
    ----------
    name
        Which figure: ``"elbo_bars"`` (chapter 1; settings: :class:`vae_lib.explorables.elbo_bars.Config`),
        ``"em_ascent"`` (chapter 2; settings: :class:`vae_lib.explorables.em_ascent.Config`),
        ``"gradient_cloud"`` (chapter 3; settings: :class:`vae_lib.explorables.gradient_cloud.Config`),
        ``"reparameterization"`` (chapter 4; settings: :class:`vae_lib.explorables.reparameterization.Config`),
        ``"figure_two"`` (chapter 6; settings: :class:`vae_lib.explorables.figure_two.Config`),
        ``"latent_explorer"`` (chapter 7; settings: :class:`vae_lib.explorables.latent_explorer.Config`),
        ``"importance_bound"`` (chapter 8; settings: :class:`vae_lib.explorables.importance_bound.Config`),
        ``"forward_reverse"`` (chapter 9; settings: :class:`vae_lib.explorables.forward_reverse.Config`).
    **config
        The figure's settings by keyword; what is left out takes its default.

    Returns
    -------
    str
        A ``<figure>`` with its style and script. Equal arguments give equal strings; any number of copies may
        stand on one page.

    Raises
    ------
    ValueError
        Unknown name, unknown setting, or a setting the figure cannot show; one line.
    """
    if name not in _FIGURES:
        raise ValueError(f"name: expected one of {', '.join(sorted(_FIGURES))}, found {name!r}")
    return _FIGURES[name](**config)
