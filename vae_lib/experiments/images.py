"""The data of an experiment as a model reads them, and the images that every look at a model uses."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from vae_lib.data import load_dataset
from vae_lib.learning import Images, reading_for
from vae_lib.models import VAEConfig
from vae_lib.rng import make_generator

# Of an experiment that runs on the small digits, because the data cannot be had.
STAND_IN = "digits"


class ExperimentData(NamedTuple):
    """A model's sizes, the images to learn from, and those that are held out."""

    model: VAEConfig
    train: Images
    test: Images


def load(data: str, model: VAEConfig, *, stand_in: bool = False, num_train: int | None = None) -> ExperimentData:
    """Load a data set for a model.

    Parameters
    ----------
    data
        The name of a data set.
    model
        Its sizes; for the stand-in the size of the images is changed.
    stand_in
        Take the small digits of the book, which need no download, in place of the data.
    num_train
        How many training images there are, the first ones; all if not given.

    Raises
    ------
    DatasetError
        If the data cannot be had.
    """
    dataset = load_dataset(STAND_IN if stand_in else data, progress=False)
    model = replace(model, image_shape=dataset.info.image_shape)
    reading, largest = reading_for(model), dataset.info.value_range[1]
    train = dataset.train.x if num_train is None else dataset.train.x[:num_train]
    return ExperimentData(model, Images(train, reading, largest), Images(dataset.test.x, reading, largest))


def fixed(images: Images, split: str, count: int, *, device: torch.device) -> Tensor:
    """The first images ``(count, D)`` of a split, with bits drawn once and for all: every look sees the same ones.

    Parameters
    ----------
    images
        The split.
    split
        Its name, which names the stream of the bits.
    count
        How many; fewer if there are fewer.
    device
        Where they go.
    """
    some = replace(images, values=images.values[:count].cpu())
    generator = make_generator(0, "bits", split)
    return some.read_all(dtype=torch.float32, generator=generator).to(device)
