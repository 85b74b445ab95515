"""The settings of a training: plain numbers and words, so that a checkpoint can hold them as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from vae_lib import checks
from vae_lib.learning.schedules import Schedule

Optimiser = Literal["adam", "adamax", "adagrad", "sgd"]


@dataclass(frozen=True)
class TrainingConfig:
    r"""How a model is trained.

    Parameters
    ----------
    epochs
        Passes over the training images. What is left of them after the last full minibatch waits for the next epoch,
        whose order is another one.
    batch_size
        Images in a minibatch, over all processes.
    learning_rate
        Of the first full step; ``schedule`` and ``warmup_steps`` change it (:mod:`vae_lib.learning.schedules`).
    optimiser
        From ``torch.optim``, with its defaults.
    schedule
        ``constant``, ``cosine`` or ``stages``.
    warmup_steps
        Over so many first steps the rate grows in a straight line.
    num_samples
        S, draws of z for each image.
    evaluate_every
        Epochs between two looks at the held-out images.
    seed
        Of the order of the images, their bits and the noise.
    weight_prior
        Precision of a normal prior on every weight and bias, :math:`\mathcal N(0, 1 / \text{precision})`; 0 for none.
        What is climbed is then the average bound plus the log-prior over the number of images: the MAP criterion of
        Kingma and Welling (2014), section 5, whose precision is 1.
    epsilon
        Adam's; Burda, Grosse and Salakhutdinov (2016) have 1e-4.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range.
    """

    epochs: int = 100
    batch_size: int = 100
    learning_rate: float = 1e-3
    optimiser: Optimiser = "adam"
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    num_samples: int = 1
    evaluate_every: int = 1
    seed: int = 0
    weight_prior: float = 0.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "num_samples", "evaluate_every"):
            checks.positive_int(name, getattr(self, name))
        for name in ("warmup_steps", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}: expected an integer of at least 0, found {value!r}")
        if not (isinstance(self.learning_rate, int | float) and 0.0 < self.learning_rate < math.inf):
            raise ValueError(f"learning_rate: expected a positive number, found {self.learning_rate!r}")
        if not (isinstance(self.weight_prior, int | float) and 0.0 <= self.weight_prior < math.inf):
            raise ValueError(f"weight_prior: expected a precision of at least 0, found {self.weight_prior!r}")
        if not (isinstance(self.epsilon, int | float) and 0.0 < self.epsilon < math.inf):
            raise ValueError(f"epsilon: expected a positive number, found {self.epsilon!r}")
        for name, choices in (("optimiser", Optimiser), ("schedule", Schedule)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name}: expected one of {', '.join(get_args(choices))}, found {getattr(self, name)!r}"
                )


def make_optimiser(
    config: TrainingConfig, module: nn.Module, device: torch.device, num_images: int
) -> torch.optim.Optimizer:
    """Make the optimiser of a configuration for all weights that want a gradient.

    The fused forms do one pass over the memory; on a CPU Adam alone is a fifth of a step without it. The prior on the
    weights is what PyTorch calls weight decay: it adds ``precision / num_images`` times the weights to the gradient of
    the loss, before the optimiser looks at it.

    Parameters
    ----------
    config
        Settings.
    module
        Holds the weights.
    device
        Where they lie.
    num_images
        N, over which the log-prior is divided.

    Raises
    ------
    ValueError
        If there is nothing to train.
    """
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not weights:
        raise ValueError("model: expected weights that want a gradient, found none")
    fused = device.type in ("cpu", "cuda")
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_prior / num_images}
    if config.optimiser == "adam":
        return torch.optim.Adam(weights, **options, eps=config.epsilon, fused=fused)
    if config.optimiser == "sgd":
        return torch.optim.SGD(weights, **options, fused=fused)
    if config.optimiser == "adagrad":
        return torch.optim.Adagrad(weights, **options, fused=device.type == "cpu")
    return torch.optim.Adamax(weights, **options, eps=config.epsilon)
