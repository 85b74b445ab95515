"""Pictures of a model, as PNG files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vae_lib.data.dataset import DatasetInfo, Split
from vae_lib.learning.checkpoints import write_whole
from vae_lib.models import VAE, VAEConfig
from vae_lib.plots import curves, image_grid, latent_manifold_grid, latent_plane, use_style
from vae_lib.rng import make_generator

PER_ROW = 10  # of reconstructions
_MANY = 40  # points of a curve

mpl.use("agg")  # there need not be a screen


def save(axes: Axes, path: Path) -> Path:
    """Write the figure of these axes whole or not at all, and close it."""
    figure, png = axes.get_figure(root=True), io.BytesIO()
    assert figure is not None
    figure.savefig(png, format="png")
    plt.close(figure)
    write_whole(path, png.getvalue())
    return path


class Painter:
    """Makes pictures of one model.

    Parameters
    ----------
    vae
        The model, on the CPU.
    config
        What it was built from.
    """

    def __init__(self, vae: VAE, config: VAEConfig) -> None:
        use_style()
        self.vae, self.config = vae.eval(), config

    @torch.no_grad()
    def prior_samples(self, count: int, *, seed: int, draws: bool) -> Axes:
        """E[x | z] for z from the prior, or with ``draws`` one x for each."""
        generator = make_generator(seed, "pictures")
        z = self.vae.prior(count).sample(1, generator=generator)
        x = self.vae.sample_x_given_z(z, generator=generator) if draws else self.vae.mean_x_given_z(z)
        columns = math.ceil(math.sqrt(count))
        return image_grid(_full_rows(self._grey(x[0]), columns), self.config.image_shape, columns=columns)

    @torch.no_grad()
    def reconstructions(self, x: Tensor) -> Axes:
        """Data ``(N, D)`` in rows, each above E[x | z] at the mean of its q(z | x)."""
        mean: Tensor = self.vae(x).mu
        columns = min(PER_ROW, len(x))
        pairs = [self._grey(x), self._grey(self.vae.mean_x_given_z(mean.unsqueeze(0))[0])]
        rows = torch.stack([_full_rows(part, columns).unflatten(0, (-1, columns)) for part in pairs], dim=1).flatten(
            0, 1
        )
        captions = ["data", "E[x | z]"] * (len(rows) // 2)
        return image_grid(rows, self.config.image_shape, captions=captions)

    @torch.no_grad()
    def manifold(self, side: int) -> Axes:
        """E[x | z] over the plane of two latents, in steps of equal probability."""
        z = latent_manifold_grid(side, dtype=torch.float32).unsqueeze(0)
        return image_grid(self._grey(self.vae.mean_x_given_z(z)[0]), self.config.image_shape, columns=side)

    @torch.no_grad()
    def plane(self, x: Tensor, split: Split, info: DatasetInfo) -> Axes:
        """The means of q(z | x) in the plane of two latents, by class."""
        assert split.labels is not None
        mean: Tensor = self.vae(x).mu
        return latent_plane(mean, split.labels, info.classes)

    def _grey(self, x: Tensor) -> Tensor:
        return x / self.config.max_value


def training_curve(history: Sequence[dict[str, Any]]) -> Axes:
    """The ELBO of training and of validation images against the epoch."""
    use_style()
    epochs = [row["epoch"] for row in history]
    lines = {
        "training images": ("prior", [row["train_elbo"] for row in history]),
        "validation images": ("q", [row["validation_elbo"] for row in history]),
    }
    axes = curves(epochs, lines, xlabel="epoch", ylabel="ELBO, nats an image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(epochs) > _MANY:  # dots and dashes would run into one another
        for line in axes.get_lines():
            line.set(linestyle="-", linewidth=1.0)
        axes.legend()
    # The fall at the very beginning would leave no height for the rest.
    late = [value for _, values in lines.values() for value in values[len(values) // 20 :]]
    axes.set_ylim(bottom=min(late) - 0.05 * (max(late) - min(late)) if max(late) > min(late) else None)
    return axes


def _full_rows(images: Tensor, columns: int) -> Tensor:
    """The images, and white ones after them until the last row is full."""
    return torch.cat([images, torch.zeros(-len(images) % columns, images.shape[1])])
