"""The library's trainer, plain and compiled, and the same step by hand: tensors only, nothing checked or reported."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from contenders.contract import LEARNING_RATE, Task, linears_of
from vae_lib.learning.batches import Images
from vae_lib.learning.compiled import CompiledBound
from vae_lib.learning.settings import TrainingConfig
from vae_lib.learning.training import Trainer
from vae_lib.rng import make_generator


class ByTrainer:
    """The trainer as ``vae_lib.learning.training.train`` runs it, held between epochs so that others can have a turn.

    It writes nothing, as the others write nothing.
    """

    def __init__(self, task: Task, *, compiled: bool = False) -> None:
        self.vae = task.vae()
        config = TrainingConfig(batch_size=task.batch_size, learning_rate=LEARNING_RATE)
        images = Images(task.images, "unit", 255)
        self.trainer = Trainer(self.vae, images, None, config, device=torch.device("cpu"))
        self.trainer.total_steps = 0
        if compiled:
            self.trainer.average_bound = CompiledBound(self.trainer.module, self.trainer.device)

    def linears(self) -> list[nn.Linear]:
        """The layers."""
        return linears_of(self.vae)

    def epoch(self) -> None:
        """Go on for one epoch."""
        self.trainer.total_steps += self.trainer.steps_per_epoch
        self.trainer.run(progress=False)


def loss_by_hand(encoder: nn.Module, decoder: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """Minus the ELBO, the average of an image, with one draw each made of ``noise (B, L)``."""
    mu, logvar = encoder(x).chunk(2, dim=1)
    logits = decoder(mu + torch.exp(0.5 * logvar) * noise)
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
    loss: Tensor = (binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl) / len(x)
    return loss


class ByHand:
    """The shortest loop that is fast: images in one tensor, logits, fused Adam. What the trainer is held against.

    Parameters
    ----------
    compiled
        Compile the forward pass with the loss.
    """

    def __init__(self, task: Task, *, compiled: bool = False) -> None:
        self.task, self.vae = task, task.vae()
        self.optimiser = torch.optim.Adam(self.vae.parameters(), lr=LEARNING_RATE, fused=True)
        self.generator: Generator = make_generator(2)
        self.loss: Callable[..., Tensor] = torch.compile(loss_by_hand) if compiled else loss_by_hand

    def linears(self) -> list[nn.Linear]:
        """The layers."""
        return linears_of(self.vae)

    def epoch(self) -> None:
        """One pass."""
        pixels = self.task.pixels
        for rows in torch.randperm(len(pixels), generator=self.generator).split(self.task.batch_size):
            x = pixels.index_select(0, rows)
            noise = torch.randn(len(x), self.vae.latent_dim, generator=self.generator)
            self.optimiser.zero_grad()
            self.loss(self.vae.encoder.network, self.vae.decoder, x, noise).backward()
            self.optimiser.step()
