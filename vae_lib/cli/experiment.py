"""A data set, a model and their fit: what every command needs before it begins."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_lib.cli.parsing import BadInput
from vae_lib.data import Dataset, DatasetError, dataset_info, load_dataset
from vae_lib.data.dataset import DatasetInfo, Split
from vae_lib.evaluation import HeldOut, MarginalLikelihood, Widened, held_out_elbo, log_p_x
from vae_lib.learning import Images, reading_for
from vae_lib.learning.distributed import choose_device
from vae_lib.models import VAE, VAEConfig, configuration
from vae_lib.rng import make_generator

# Epochs of a training, where none are asked for; 300 of the small digits take about ten seconds.
_EPOCHS_FOR = {"digits": 300}
_EPOCHS = 100
# Which configuration fits which data, where none is asked for.
_CONFIGURATION_FOR = {
    "digits": "digits",
    "mnist": "kingma2014-mnist",
    "binarized-mnist": "kingma2014-mnist",
    "frey": "kingma2014-frey",
    "sprites": "kingma2014-mnist",
}
SPLITS = ("train", "validation", "test")
_COUNTS = ("binomial", "categorical", "discretised-logistic")


class Splits(NamedTuple):
    """The three splits of a data set as a model reads them, and the data as published."""

    dataset: Dataset
    train: Images
    validation: Images
    test: Images


def find_data(name: str) -> DatasetInfo:
    """What is known about the data set of that name.

    Raises
    ------
    BadInput
        If there is none.
    """
    try:
        return dataset_info(name)
    except DatasetError as error:
        raise BadInput(str(error)) from None


def configuration_name(data: str) -> str:
    """The name of the configuration that fits the data, where none is asked for."""
    return _CONFIGURATION_FOR[data]


def epochs_for(data: str) -> int:
    """How many epochs a training has, where none are asked for."""
    return _EPOCHS_FOR.get(data, _EPOCHS)


class Reading(NamedTuple):
    """How a model reads the pixels of its data.

    Parameters
    ----------
    words
        What it takes them for.
    is_density
        Whether p(x | z) is a density, whose nats depend on the scale of the pixels.
    """

    words: str
    is_density: bool


def reading_of(info: DatasetInfo, config: VAEConfig) -> Reading:
    """How a model of that configuration reads these data."""
    if config.likelihood.startswith("normal"):
        return Reading("grey levels from 0 to 1", True)
    if config.likelihood == "bernoulli":
        return Reading("the bits of the data" if info.value_range[1] == 1 else "bits drawn from grey levels", False)
    return Reading(f"levels 0 to {config.max_value}", False)


def model_words(name: str | None, config: VAEConfig, reading: Reading) -> str:
    """A model in one line: its name if it has one, its likelihood, and what it takes the pixels for."""
    note = " (a density: its nats compare only with densities of the same pixels)" if reading.is_density else ""
    return f"{f'{name}: ' if name else ''}{config.likelihood}, {reading.words}{note}"


def model_facts(name: str | None, config: VAEConfig, reading: Reading) -> dict[str, Any]:
    """The same for machines."""
    facts = {"configuration": name, "likelihood": config.likelihood}
    return {**facts, "pixels": reading.words, "is_density": reading.is_density}


def configuration_for(info: DatasetInfo, name: str, **changes: Any) -> VAEConfig:
    """The configuration of that name, with images of the size of the data and pixels in their range.

    Parameters
    ----------
    info
        What is known about the data.
    name
        The name of a configuration.
    changes
        Settings that are to differ.

    Raises
    ------
    ValueError, TypeError
        If there is no such configuration, or a setting does not fit.
    """
    likelihood = changes.get("likelihood", configuration(name).likelihood)
    largest = info.value_range[1]
    if largest == 1 and str(likelihood).startswith("normal"):
        # A density grows without bound on a finite set of values, and its nats are not those of a probability.
        expected = f"bernoulli, {', '.join(_COUNTS)} for the bits of {info.name}"
        raise ValueError(f"likelihood: expected one of {expected}, found {likelihood!r}")
    max_value = largest if likelihood in _COUNTS else 1
    return configuration(name, **{"image_shape": info.image_shape, "max_value": max_value, **changes})


def check_fit(info: DatasetInfo, config: VAEConfig) -> None:
    """Check that a model was made for images like these.

    Raises
    ------
    BadInput
        If their size or their range is another one.
    """
    (height, width), (rows, columns) = config.image_shape, info.image_shape
    if (height, width) != (rows, columns):
        raise BadInput(
            f"data: expected images of {height} x {width} pixels, as the model has, found {rows} x {columns}"
        )
    if config.likelihood in _COUNTS and config.max_value != info.value_range[1]:
        expected, found = config.max_value, info.value_range[1]
        raise BadInput(f"data: expected pixels from 0 to {expected}, as the model has, found 0 to {found}")


def load_splits(data: str, config: VAEConfig, *, progress: bool | None = None) -> Splits:
    """Load a data set, read as the likelihood of a configuration wants it."""
    dataset = load_dataset(data, progress=progress)
    reading, largest = reading_for(config), dataset.info.value_range[1]

    def images(split: Split) -> Images:
        return Images(split.x, reading, largest)

    return Splits(dataset, images(dataset.train), images(dataset.validation), images(dataset.test))


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


class Measured(NamedTuple):
    """Held-out quantities of all images, those of log p(x) for some, and which these are."""

    held_out: HeldOut
    estimate: MarginalLikelihood | None
    rows: Tensor


def measure(vae: VAE, x: Tensor, *, images: int, draws: int, widen: float = 1.0) -> Measured:
    """Measure a model on data ``x (N, D)``: the ELBO with ten draws for each, and log p(x) of some.

    Parameters
    ----------
    vae, x
        On the same device.
    images
        How many log p(x) is estimated for, every so many-th of them; with 0 it is left out.
    draws
        For each of these.
    widen
        They come from q with its standard deviations multiplied by this, at least 1.
    """
    generator = make_generator(0, "evaluation", device=x.device)
    held_out = held_out_elbo(vae, vae, x, num_samples=10, generator=generator)
    rows = torch.arange(len(x), device=x.device)[:: max(1, len(x) // max(1, images))][:images]
    if not images:
        return Measured(held_out, None, rows)
    latents = 1000 if x.device.type == "cpu" else 50_000
    proposal = vae if widen == 1.0 else Widened(vae, widen)
    estimate = log_p_x(vae, proposal, x[rows], num_samples=draws, generator=generator, rows=latents)
    return Measured(held_out, estimate, rows)


def ready_device(name: str | None) -> torch.device:
    """The device of that name; on a CPU with one thread, or as many as ``OMP_NUM_THREADS`` says.

    With several threads and a small model a busy machine spends its time waiting: twenty times as much as the work.

    Raises
    ------
    BadInput
        If this machine has none of that name.
    """
    try:
        device = choose_device(name)
    except ValueError:
        raise BadInput(f"--device: expected a device of this machine ({_devices()}), found {name!r}") from None
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    return device


def _devices() -> str:
    """The devices of this machine, by name."""
    several = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] * torch.backends.mps.is_available()
    return ", ".join(["cpu", *(["cuda"] if several else []), *several, *mps])
