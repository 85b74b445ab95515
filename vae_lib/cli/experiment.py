"""A data set, a model and their fit: what every command needs before it begins."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from vae_lib.data import load_dataset
from vae_lib.data.dataset import DatasetInfo, Split
from vae_lib.learning import Images, reading_for
from vae_lib.models import VAEConfig, configuration
from vae_lib.rng import make_generator

# Which configuration fits which data, where none is asked for.
_CONFIGURATION_FOR = {
    "digits": "digits",
    "mnist": "kingma2014-mnist",
    "binarized-mnist": "kingma2014-mnist",
    "frey": "kingma2014-frey",
    "sprites": "kingma2014-mnist",
}


class Splits(NamedTuple):
    """The three splits of a data set as a model reads them."""

    info: DatasetInfo
    train: Images
    validation: Images
    test: Images


def configuration_for(data: str, name: str | None, info: DatasetInfo) -> VAEConfig:
    """The configuration of that name, or the one that fits the data, with images of the size of the data.

    Parameters
    ----------
    data
        The name of a data set.
    name
        The name of a configuration.
    info
        What is known about the data.
    """
    config = configuration(name or _CONFIGURATION_FOR[data])
    config = replace(config, image_shape=info.image_shape)
    if config.likelihood in ("binomial", "categorical", "discretised-logistic"):
        config = replace(config, max_value=info.value_range[1])
    return config


def load_splits(data: str, config: VAEConfig) -> Splits:
    """Load a data set, read as the likelihood of a configuration wants it."""
    dataset = load_dataset(data)
    reading, largest = reading_for(config), dataset.info.value_range[1]

    def images(split: Split) -> Images:
        return Images(split.x, reading, largest)

    return Splits(dataset.info, images(dataset.train), images(dataset.validation), images(dataset.test))


def fixed_bits(images: Images, like: Tensor, split: str) -> Tensor:
    """A split ``(N, D)`` as every evaluation reads it: where bits are drawn, they are drawn once and for all.

    Parameters
    ----------
    images
        The split.
    like
        A weight of the model: dtype and device are its.
    split
        The name of the split, which names the stream of the bits.
    """
    generator = make_generator(0, "bits", split)
    return images.read_all(dtype=like.dtype, generator=generator).to(like.device)
