"""Named configurations: the sizes, heads and weights that they promise, and the way they are stored and refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from tests.oracles import assert_close, assert_mean, randn
from vae_lib import bounds
from vae_lib.densities import DiagonalNormal
from vae_lib.models import (
    VAE,
    BernoulliLikelihood,
    BinomialLikelihood,
    CategoricalLikelihood,
    DiscretisedLogisticLikelihood,
    LearnedNormalLikelihood,
    NormalLikelihood,
    PredictedNormalLikelihood,
    VAEConfig,
    build,
    configuration,
    configuration_names,
)
from vae_lib.models.configurations import Head
from vae_lib.rng import make_generator

DOUBLE = torch.float64
each_name = pytest.mark.parametrize("name", configuration_names())


def linear_sizes(network: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]


def activations(vae: VAE) -> set[type[nn.Module]]:
    return {type(m) for m in vae.modules() if isinstance(m, nn.Tanh | nn.ReLU)}


SIZES: dict[str, tuple[Any, list[tuple[int, int]], list[tuple[int, int]]]] = {
    "kingma2014-mnist": (BernoulliLikelihood(), [(784, 500), (500, 40)], [(20, 500), (500, 784)]),
    "kingma2014-frey": (
        PredictedNormalLikelihood(unit_mean=True),
        [(560, 200), (200, 20)],
        [(10, 200), (200, 1120)],
    ),
    "burda2016-1": (
        BernoulliLikelihood(),
        [(784, 200), (200, 200), (200, 100)],
        [(50, 200), (200, 200), (200, 784)],
    ),
    "digits": (DiscretisedLogisticLikelihood(17), [(64, 64), (64, 16)], [(8, 64), (64, 128)]),
    "conv-mnist": (BernoulliLikelihood(), [(3136, 256), (256, 40)], [(20, 256), (256, 3136)]),
}


def test_every_name_has_its_sizes_here() -> None:
    assert list(SIZES) == configuration_names()


@each_name
def test_sizes_and_head(name: str) -> None:
    head, encoder, decoder = SIZES[name]
    vae = build(configuration(name), generator=make_generator(1))
    assert vae.likelihood == head
    assert linear_sizes(vae.encoder) == encoder
    assert linear_sizes(vae.decoder) == decoder
    assert activations(vae) == {nn.ReLU if name == "conv-mnist" else nn.Tanh}
    convolutions = [m for m in vae.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == (
        [(1, 32), (32, 64), (64, 32), (32, 1)] if name == "conv-mnist" else []
    )


def pixels(config: VAEConfig, batch: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    """Images of whole numbers up to the largest value."""
    return (torch.sigmoid(randn(batch, config.data_dim, seed=1)) * config.max_value).round().to(dtype)


@each_name
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_configured_vae_has_a_bound(name: str, dtype: torch.dtype) -> None:
    config = configuration(name, latent_dim=3)
    vae = build(config, generator=make_generator(1), dtype=dtype)
    x = pixels(config, 2, dtype)
    assert (vae.latent_dim, vae.data_dim) == (3, config.data_dim)
    values = bounds.elbo(vae, vae(x), x, num_samples=2, generator=make_generator(2), analytic_kl=True)
    assert values.shape == (2, 2)
    assert values.dtype == dtype
    assert bool(torch.isfinite(values).all())
    assert {weight.dtype for weight in vae.parameters()} == {dtype}


@each_name
def test_weights_come_from_the_generator(name: str) -> None:
    config = configuration(name, latent_dim=2)
    first, again, other = (build(config, generator=make_generator(seed)) for seed in (1, 1, 2))
    for mine, same in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, same)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@pytest.mark.parametrize(("changes", "std"), [({}, 0.1), ({"init_std": 0.01}, 0.01)])
@pytest.mark.parametrize("name", ["kingma2014-mnist", "kingma2014-frey"])
def test_the_2014_weights_are_normal(name: str, changes: dict[str, float], std: float) -> None:
    vae = build(configuration(name, **changes), generator=make_generator(1), dtype=DOUBLE)
    scaled = torch.cat([weight.detach().flatten() for weight in vae.parameters()]) / std
    # 340 000 numbers or more: 1 / sqrt = 0.0017, and 1.4 times that for the squares.
    assert_mean(scaled, 0.0, ceiling=0.0018)
    assert_mean(scaled**2, 1.0, ceiling=0.0026)


def test_the_2016_weights_are_those_of_glorot() -> None:
    vae = build(configuration("burda2016-1"), generator=make_generator(1), dtype=DOUBLE)
    for layer in vae.modules():
        if isinstance(layer, nn.Linear):
            bound = (6.0 / (layer.in_features + layer.out_features)) ** 0.5
            assert 0.99 * bound < float(layer.weight.detach().abs().max()) <= bound
            assert not bool(layer.bias.any())


def test_the_encoder_sees_values_up_to_one() -> None:
    """A pixel of 16 reaches the first layer as 1."""
    config = configuration("digits")
    vae = build(config, generator=make_generator(1), dtype=DOUBLE)
    x = pixels(config, 2)
    first, second = (layer for layer in vae.encoder.modules() if isinstance(layer, nn.Linear))
    output = torch.tanh((x / 16.0) @ first.weight.mT + first.bias) @ second.weight.mT + second.bias
    q = vae(x)
    assert isinstance(q, DiagonalNormal)
    assert_close(torch.cat([q.mu, q.logvar], -1).detach(), output.detach())


def test_means_of_faces_lie_between_black_and_white() -> None:
    vae = build(configuration("kingma2014-frey"), generator=make_generator(1), dtype=DOUBLE)
    means = vae.mean_x_given_z(30.0 * randn(5, 2, 10, seed=3)).detach()
    assert 0.0 <= float(means.min()) < 0.1
    assert 0.9 < float(means.max()) <= 1.0


HEADS: dict[Head, Any] = {
    "bernoulli": BernoulliLikelihood(),
    "binomial": BinomialLikelihood(16),
    "categorical": CategoricalLikelihood(17),
    "discretised-logistic": DiscretisedLogisticLikelihood(17),
    "normal": NormalLikelihood(-1.0),
    "normal-learned": (),
    "normal-per-pixel": (64,),
    "normal-predicted": PredictedNormalLikelihood(),
    "normal-predicted-unit": PredictedNormalLikelihood(unit_mean=True),
}


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("head", get_args(Head))
def test_every_head_can_be_configured(head: Head, network: str) -> None:
    value = 1 if head == "bernoulli" else 16
    config = configuration("digits", likelihood=head, max_value=value, logvar=-1.0, network=network)
    vae = build(config, generator=make_generator(1), dtype=DOUBLE)
    if isinstance(vae.likelihood, LearnedNormalLikelihood):
        assert vae.likelihood.logvar.shape == HEADS[head]
        assert bool((vae.likelihood.logvar == -1.0).all())
        assert vae.likelihood.logvar.dtype == DOUBLE
    else:
        assert vae.likelihood == HEADS[head]
    x = pixels(config, 2)
    values = bounds.elbo(vae, vae(x), x, num_samples=1, generator=make_generator(2))
    assert bool(torch.isfinite(values).all())


def test_layers_of_the_decoder_are_those_of_the_encoder_in_reverse() -> None:
    vae = build(configuration("digits", hidden=(40, 20), latent_dim=3), generator=make_generator(1))
    assert linear_sizes(vae.encoder) == [(64, 40), (40, 20), (20, 6)]
    assert linear_sizes(vae.decoder) == [(3, 20), (20, 40), (40, 128)]


def test_channels_of_the_convolutions() -> None:
    vae = build(configuration("conv-mnist", channels=(4, 6), hidden=(9,)), generator=make_generator(1))
    convolutions = [m for m in vae.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [(1, 4), (4, 6), (6, 4), (4, 1)]


@each_name
def test_a_configuration_survives_json(name: str) -> None:
    config = configuration(name)
    again = VAEConfig(**json.loads(json.dumps(asdict(config))))
    assert again == config
    assert hash(again) == hash(config)


def test_a_change_leaves_the_named_one_alone() -> None:
    assert configuration("digits", latent_dim=3).latent_dim == 3
    assert configuration("digits").latent_dim == 8


NAMES = "kingma2014-mnist, kingma2014-frey, burda2016-1, digits, conv-mnist"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: configuration("mnist"), ValueError, f"configuration: expected one of {NAMES}, found 'mnist'"),
        (
            lambda: configuration("digits", latents=3),
            ValueError,
            "configuration: expected settings among image_shape, latent_dim, hidden, likelihood, max_value, logvar, "
            "network, activation, channels, init, init_std, found 'latents'",
        ),
        (
            lambda: configuration("digits", latent_dim=0),
            ValueError,
            "latent_dim: expected a positive integer, found 0",
        ),
        (
            lambda: configuration("digits", max_value=0),
            ValueError,
            "max_value: expected a positive integer, found 0",
        ),
        (
            lambda: configuration("digits", hidden=(64, 0)),
            ValueError,
            "hidden: expected a positive integer, found 0",
        ),
        (lambda: configuration("digits", hidden=64), TypeError, "hidden: expected a tuple of integers, found 64"),
        (
            lambda: configuration("digits", image_shape=(64,)),
            ValueError,
            "image_shape: expected two numbers, found (64,)",
        ),
        (lambda: configuration("conv-mnist", channels=(1,)), ValueError, "channels: expected two numbers, found (1,)"),
        (
            lambda: configuration("digits", init="he"),
            ValueError,
            "init: expected one of fan-in, glorot, normal, found 'he'",
        ),
        (
            lambda: configuration("digits", activation="gelu"),
            ValueError,
            "activation: expected one of tanh, relu, found 'gelu'",
        ),
        (lambda: configuration("digits", network="rnn"), ValueError, "network: expected one of mlp, conv, found 'rnn'"),
        (
            lambda: configuration("digits", likelihood="poisson"),
            ValueError,
            f"likelihood: expected one of {', '.join(get_args(Head))}, found 'poisson'",
        ),
        (
            lambda: configuration("digits", likelihood="bernoulli"),
            ValueError,
            "max_value: expected 1 for bits, found 16",
        ),
        (
            lambda: configuration("conv-mnist", hidden=(20, 20)),
            ValueError,
            "hidden: expected one number beside convolutions, found (20, 20)",
        ),
        (
            lambda: configuration("kingma2014-mnist", init_std=-0.1),
            ValueError,
            "init_std: expected a positive number, found -0.1",
        ),
        (
            lambda: configuration("digits", logvar=float("inf")),
            ValueError,
            "logvar: expected a finite number, found inf",
        ),
        (
            lambda: configuration("conv-mnist", image_shape=(28, 30)),
            ValueError,
            "image_shape: expected height and width, multiples of 4, found (28, 30)",
        ),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
