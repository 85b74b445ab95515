"""What a training leaves, and how a model takes its weights up again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_lib.bounds import log_weights
from vae_lib.learning.average_bound import AverageBound
from vae_lib.learning.checkpoints import CheckpointError, load_weights, read_checkpoint, weights_in
from vae_lib.learning.distributed import World
from vae_lib.protocols import ApproximatePosterior


@dataclass(frozen=True)
class Run:
    """What a training leaves.

    Parameters
    ----------
    model
        The model, trained, with the weights of the last step. Those with the highest held-out ELBO are in the
        checkpoint; :func:`load_trained` and :func:`~vae_lib.learning.load_vae` take them out.
    history
        One row for each look at the held-out images: ``epoch``, ``step``, ``samples`` (images seen), ``train_elbo``
        (the average of the bound over the steps of the epoch, while the weights moved; it is an ELBO if the bound is
        one), ``validation_elbo`` and ``validation_kl`` in nats an image, ``seconds`` of training and
        ``images_per_second``.
    checkpoint
        Where the last state lies, if a folder was given.
    """

    model: Any
    history: list[dict[str, Any]]
    checkpoint: Path | None


def load_trained(
    path: str | os.PathLike[str], model: Any, encoder: ApproximatePosterior | None = None, *, best: bool = True
) -> None:
    """Put the weights of a training into a model of your own, and into its encoder.

    Parameters
    ----------
    path
        A checkpoint of :func:`~vae_lib.learning.train`.
    model, encoder
        Built as they were for the training.
    best
        Take the weights with the highest held-out ELBO, if the file has them, and not those of the last step.

    Raises
    ------
    CheckpointError
        If the file cannot be used, or holds the weights of another model; then nothing is changed.
    """
    tensors, header = read_checkpoint(path)
    if "step" not in header:
        raise CheckpointError(f"{path}: expected the state of a training, found weights alone; load_vae reads them")
    module = AverageBound(model, encoder, log_weights, 1, World())
    load_weights(path, module, weights_in(tensors, best=best))
