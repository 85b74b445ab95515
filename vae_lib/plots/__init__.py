"""One function for each kind of figure; each takes ``ax=None`` and returns the axes it drew on."""

from vae_lib.plots.bars import bound_bars
from vae_lib.plots.ellipses import normal_ellipses
from vae_lib.plots.gaps import gap_bars
from vae_lib.plots.graphs import plate_diagram
from vae_lib.plots.image_grid import image_grid
from vae_lib.plots.images import image_row, joint_table
from vae_lib.plots.latent_plane import latent_manifold_grid, latent_plane
from vae_lib.plots.lines import curves, density_curves
from vae_lib.plots.stochastic_graph import stochastic_graph
from vae_lib.plots.style import colour, use_style

__all__ = [
    "bound_bars",
    "colour",
    "curves",
    "density_curves",
    "gap_bars",
    "image_grid",
    "image_row",
    "joint_table",
    "latent_manifold_grid",
    "latent_plane",
    "normal_ellipses",
    "plate_diagram",
    "stochastic_graph",
    "use_style",
]
