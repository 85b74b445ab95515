"""Pythae's VAE, by its trainer. It gets the layers, as its documentation asks for, and the images in memory."""

# mypy: disable-error-code="import-not-found,import-untyped", disallow-subclassing-any=False

from __future__ import annotations

import tempfile

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn

from contenders.contract import LATENTS, LEARNING_RATE, PIXELS, Task, linears_of


class _Encoder(BaseEncoder):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(PIXELS, task.hidden), task.activate())
        self.mu, self.logvar = nn.Linear(task.hidden, LATENTS), nn.Linear(task.hidden, LATENTS)

    def forward(self, x: Tensor) -> ModelOutput:
        h = self.hidden(x)
        return ModelOutput(embedding=self.mu(h), log_covariance=self.logvar(h))


class _Decoder(BaseDecoder):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(LATENTS, task.hidden), task.activate(), nn.Linear(task.hidden, PIXELS), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


class PythaeVAE:
    """Its model and its trainer's pass over the training images, without what the trainer does between two passes."""

    def __init__(self, task: Task) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.encoder, self.decoder = _Encoder(task), _Decoder(task)
        config = VAEConfig(input_dim=(PIXELS,), latent_dim=LATENTS, reconstruction_loss="bce")
        self.trainer = BaseTrainer(
            VAE(config, encoder=self.encoder, decoder=self.decoder),
            BaseDataset(task.pixels, torch.zeros(len(task.pixels))),
            training_config=BaseTrainerConfig(
                output_dir=self.folder.name,
                per_device_train_batch_size=task.batch_size,
                learning_rate=LEARNING_RATE,
                no_cuda=True,
            ),
        )
        self.trainer.prepare_training()
        self.done = 0

    def linears(self) -> list[nn.Linear]:
        """The layers."""
        return linears_of(self.encoder) + linears_of(self.decoder)

    def epoch(self) -> None:
        """One pass."""
        self.done += 1
        self.trainer.train_step(self.done)
