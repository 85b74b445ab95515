r"""VAEs by name: the sizes of the papers that this book reproduces, and two of its own.

A configuration is data: plain numbers and words that a checkpoint can hold as JSON. :func:`build` makes the model.

- ``kingma2014-mnist``: Kingma and Welling (2014), section 5: 500 tanh units, bits. The paper has 3, 5, 10, 20 and 200
  latents.
- ``kingma2014-frey``: the same with 200 units and normal pixels from 0 to 1, whose mean (by a sigmoid) and variance are
  predicted. The paper has 2, 5, 10 and 20 latents.
- ``burda2016-1``: Burda, Grosse and Salakhutdinov (2016): one layer of 50 latents, twice 200 tanh units, bits.
- ``digits``: the small digits of this book: 64 tanh units, levels 0 to 16 in order.
- ``conv-mnist``: bits by two convolutions each way.

Two things differ from the published code of Burda and others: there the encoder puts out log-standard-deviations, here
log-variances, and there the decoder's last biases start at the log-odds of the mean image, here at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Generator, nn

from vae_lib import checks
from vae_lib.models.convolutional import check_image_shape, conv_decoder, conv_encoder
from vae_lib.models.encoders import NormalEncoder
from vae_lib.models.likelihoods import (
    BernoulliLikelihood,
    BinomialLikelihood,
    CategoricalLikelihood,
    DiscretisedLogisticLikelihood,
    Likelihood,
)
from vae_lib.models.networks import Divide, Initialiser, NormalInit, fan_in_uniform, glorot_uniform, mlp
from vae_lib.models.normal_likelihoods import LearnedNormalLikelihood, NormalLikelihood, PredictedNormalLikelihood
from vae_lib.models.vae import VAE

Network = Literal["mlp", "conv"]
Activation = Literal["tanh", "relu"]
Init = Literal["fan-in", "glorot", "normal"]
Head = Literal[
    "bernoulli",
    "binomial",
    "categorical",
    "discretised-logistic",
    "normal",
    "normal-learned",
    "normal-per-pixel",
    "normal-predicted",
    "normal-predicted-unit",
]


@dataclass(frozen=True)
class VAEConfig:
    """What a VAE is made of.

    Parameters
    ----------
    image_shape
        Height and width; D is their product.
    latent_dim
        L.
    hidden
        Units of the hidden layers of the encoder; those of the decoder are the same in reverse. With convolutions one
        number, the linear layer between them and the latents.
    likelihood
        Which head. The normal ones: fixed, one learned, one learned for each pixel, predicted by the network, and
        that with the mean through a sigmoid.
    max_value
        The largest pixel value: 1 for bits and for grey levels from 0 to 1, 16 for the small digits, 255 for 8 bits.
        It fixes the head's levels, and the encoder divides by it.
    logvar
        Fixed or first log-variance of a normal head.
    network, activation
        Which networks, and what stands between their layers.
    channels
        Of the convolutions.
    init
        How weights are drawn: :func:`~vae_lib.models.fan_in_uniform`, :func:`~vae_lib.models.glorot_uniform` or
        :class:`~vae_lib.models.NormalInit` with ``init_std``.
    init_std
        For the normal one. The 2014 paper's N(0, 0.01) is read as a variance: 0.1. The other reading is 0.01.

    Raises
    ------
    ValueError, TypeError
        If a setting is not one of those above.
    """

    image_shape: tuple[int, int]
    latent_dim: int
    hidden: tuple[int, ...]
    likelihood: Head = "bernoulli"
    max_value: int = 1
    logvar: float = 0.0
    network: Network = "mlp"
    activation: Activation = "tanh"
    channels: tuple[int, int] = (32, 64)
    init: Init = "fan-in"
    init_std: float = 0.1

    def __post_init__(self) -> None:
        for name in ("image_shape", "hidden", "channels"):  # from JSON they come as lists
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise TypeError(f"{name}: expected a tuple of integers, found {value!r}")
            object.__setattr__(self, name, tuple(value))
            for number in value:
                checks.positive_int(name, number)
        checks.positive_int("latent_dim", self.latent_dim)
        checks.positive_int("max_value", self.max_value)
        for name in ("image_shape", "channels"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"{name}: expected two numbers, found {getattr(self, name)}")
        for name, choices in (("likelihood", Head), ("network", Network), ("activation", Activation), ("init", Init)):
            if getattr(self, name) not in get_args(choices):
                listed = ", ".join(get_args(choices))
                raise ValueError(f"{name}: expected one of {listed}, found {getattr(self, name)!r}")
        if not self.init_std > 0.0:
            raise ValueError(f"init_std: expected a positive number, found {self.init_std}")
        if not math.isfinite(self.logvar):
            raise ValueError(f"logvar: expected a finite number, found {self.logvar}")
        if self.likelihood == "bernoulli" and self.max_value != 1:
            raise ValueError(f"max_value: expected 1 for bits, found {self.max_value}")
        if self.network == "conv" and len(self.hidden) != 1:
            raise ValueError(f"hidden: expected one number beside convolutions, found {self.hidden}")
        if self.network == "conv":
            check_image_shape(self.image_shape)

    @property
    def data_dim(self) -> int:
        """D, the pixels of an image."""
        return self.image_shape[0] * self.image_shape[1]


_CONFIGURATIONS = {
    "kingma2014-mnist": VAEConfig((28, 28), 20, (500,), init="normal"),
    "kingma2014-frey": VAEConfig((28, 20), 10, (200,), likelihood="normal-predicted-unit", init="normal"),
    "burda2016-1": VAEConfig((28, 28), 50, (200, 200), init="glorot"),
    "digits": VAEConfig((8, 8), 8, (64,), likelihood="discretised-logistic", max_value=16),
    "conv-mnist": VAEConfig((28, 28), 20, (256,), network="conv", activation="relu"),
}


def configuration_names() -> list[str]:
    """The names of all configurations."""
    return list(_CONFIGURATIONS)


def configuration(name: str, **changes: Any) -> VAEConfig:
    """Look a configuration up by name.

    Parameters
    ----------
    name
        One of :func:`configuration_names`.
    changes
        Settings that are to differ, for instance ``latent_dim=3``.

    Raises
    ------
    ValueError
        If there is none of that name, or a change is no setting.
    """
    if name not in _CONFIGURATIONS:
        raise ValueError(f"configuration: expected one of {', '.join(_CONFIGURATIONS)}, found {name!r}")
    settings = VAEConfig.__dataclass_fields__
    if unknown := [change for change in changes if change not in settings]:
        raise ValueError(f"configuration: expected settings among {', '.join(settings)}, found {unknown[0]!r}")
    return replace(_CONFIGURATIONS[name], **changes)


def build(config: VAEConfig, *, generator: Generator, dtype: torch.dtype | None = None) -> VAE:
    """Make the VAE of a configuration.

    Parameters
    ----------
    config
        From :func:`configuration`, or one's own.
    generator
        The source of the weights: the encoder's first, then the decoder's, layer by layer. They lie on its device.
    dtype
        Of the weights; the default dtype if not given.

    Returns
    -------
    VAE
        Its data are images ``(B, D)`` with pixels from 0 to ``max_value``.
    """
    likelihood = _head(config, dtype, generator.device)
    activation: type[nn.Module] = {"tanh": nn.Tanh, "relu": nn.ReLU}[config.activation]
    rules: dict[Init, Initialiser] = {
        "fan-in": fan_in_uniform,
        "glorot": glorot_uniform,
        "normal": NormalInit(config.init_std),
    }
    init = rules[config.init]
    options: dict[str, Any] = {"generator": generator, "activation": activation, "dtype": dtype, "init": init}
    inputs, latents = config.data_dim, config.latent_dim
    outputs = likelihood.outputs_per_number
    encoder: nn.Module
    decoder: nn.Module
    if config.network == "conv":
        options |= {"channels": config.channels, "hidden": config.hidden[0]}
        encoder = conv_encoder(config.image_shape, 2 * latents, **options)
        decoder = conv_decoder(latents, config.image_shape, outputs_per_number=outputs, **options)
    else:
        encoder = mlp([inputs, *config.hidden, 2 * latents], **options)
        decoder = mlp([latents, *reversed(config.hidden), outputs * inputs], **options)
    if config.max_value != 1:
        encoder = nn.Sequential(Divide(config.max_value), encoder)
    return VAE(NormalEncoder(encoder), decoder, likelihood, latent_dim=latents, data_dim=inputs)


def _head(config: VAEConfig, dtype: torch.dtype | None, device: torch.device) -> Likelihood:
    learned: dict[str, Any] = {"logvar": config.logvar, "dtype": dtype, "device": device}
    heads: dict[Head, Callable[[], Likelihood]] = {
        "bernoulli": BernoulliLikelihood,
        "binomial": lambda: BinomialLikelihood(config.max_value),
        "categorical": lambda: CategoricalLikelihood(config.max_value + 1),
        "discretised-logistic": lambda: DiscretisedLogisticLikelihood(config.max_value + 1),
        "normal": lambda: NormalLikelihood(config.logvar),
        "normal-learned": lambda: LearnedNormalLikelihood(**learned),
        "normal-per-pixel": lambda: LearnedNormalLikelihood(config.data_dim, **learned),
        "normal-predicted": PredictedNormalLikelihood,
        "normal-predicted-unit": lambda: PredictedNormalLikelihood(unit_mean=True),
    }
    return heads[config.likelihood]()
