"""What is the same for all contenders, and what each must offer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from vae_lib.models import VAE, build, configuration
from vae_lib.models.configurations import Activation
from vae_lib.rng import make_generator

PIXELS, LATENTS = 784, 20
LEARNING_RATE = 1e-3


class SkippedError(Exception):
    """A contender cannot run here; the message says what to do about it."""


@dataclass(frozen=True, eq=False)
class Task:
    """Images, and the VAE to be trained on them: one hidden layer each way, bits out, Adam.

    Parameters
    ----------
    images
        Grey levels ``(N, 784)``, bytes. All contenders take them as numbers from 0 to 1, and none turns them to bits.
    hidden, activation
        Of the hidden layers.
    batch_size
        Images in a minibatch.
    """

    images: Tensor
    hidden: int = 500
    activation: Activation = "tanh"
    batch_size: int = 100

    @cached_property
    def pixels(self) -> Tensor:
        """The images from 0 to 1, ``(N, 784)``."""
        return self.images.float() / 255

    def activate(self) -> nn.Module:
        """Make the layer between two linear ones."""
        return nn.Tanh() if self.activation == "tanh" else nn.ReLU()

    def vae(self) -> VAE:
        """Make the VAE, always with the same first weights."""
        config = configuration(
            "kingma2014-mnist", hidden=(self.hidden,), activation=self.activation, latent_dim=LATENTS, init="fan-in"
        )
        return build(config, generator=make_generator(1, "weights"))


class Contender(Protocol):
    """One way of training."""

    def linears(self) -> list[nn.Linear]:
        """The layers, input to output. Means and log-variances may be two layers, or one with the means first."""

    def epoch(self) -> None:
        """Take one pass over the images."""


def linears_of(module: nn.Module) -> list[nn.Linear]:
    """The linear layers of a module, in the order in which it made them."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def copy_weights(vae: VAE, linears: list[nn.Linear], *, into_vae: bool) -> None:
    """Copy all weights from a VAE of the library to the layers of a contender, or back."""
    own = linears_of(vae)
    with torch.no_grad():
        for kind in ("weight", "bias"):
            mine, theirs = ([getattr(layer, kind) for layer in layers] for layers in (own, linears))
            if len(theirs) == len(mine) + 1:
                mine[1:2] = mine[1].chunk(2)
            for a, b in zip(mine, theirs, strict=True):
                if into_vae:
                    a.copy_(b)
                else:
                    b.copy_(a)
