"""Networks for flat vectors and for images, and the rules by which their weights are drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.oracles import assert_close, assert_mean, randn
from vae_lib.models import (
    Divide,
    NormalInit,
    OverLeadingAxes,
    conv_decoder,
    conv_encoder,
    fan_in_uniform,
    glorot_uniform,
    mlp,
)
from vae_lib.rng import make_generator

S, B, L = 3, 2, 5
DOUBLE = torch.float64
SHAPES = [(28, 28), (8, 8), (28, 20)]
each_shape = pytest.mark.parametrize("image_shape", SHAPES)


def layers_of(network: nn.Module) -> list[Any]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]


def encoder(image_shape: tuple[int, int], seed: int = 1, **options: Any) -> OverLeadingAxes:
    return conv_encoder(image_shape, 2 * L, generator=make_generator(seed), dtype=DOUBLE, **options)


def decoder(image_shape: tuple[int, int], seed: int = 1, **options: Any) -> OverLeadingAxes:
    return conv_decoder(L, image_shape, generator=make_generator(seed), dtype=DOUBLE, **options)


@each_shape
def test_a_convolutional_encoder_is_its_layers(image_shape: tuple[int, int]) -> None:
    network = encoder(image_shape, channels=(3, 4), hidden=6)
    x = randn(B, image_shape[0] * image_shape[1], seed=1)
    first, second, hidden, out = layers_of(network)
    value = x.reshape(B, 1, *image_shape)
    value = functional.relu(functional.conv2d(value, first.weight, first.bias, stride=2, padding=1))
    assert value.shape == (B, 3, image_shape[0] // 2, image_shape[1] // 2)
    value = functional.relu(functional.conv2d(value, second.weight, second.bias, stride=2, padding=1))
    assert value.shape == (B, 4, image_shape[0] // 4, image_shape[1] // 4)
    value = functional.relu(value.reshape(B, -1) @ hidden.weight.mT + hidden.bias)
    assert value.shape == (B, 6)
    assert_close(network(x).detach(), (value @ out.weight.mT + out.bias).detach())


@each_shape
def test_a_convolutional_decoder_is_its_layers_in_blocks(image_shape: tuple[int, int]) -> None:
    network = decoder(image_shape, channels=(3, 4), hidden=6, outputs_per_number=2)
    z = randn(S, B, L, seed=2)
    hidden, out, first, second = layers_of(network)
    value = functional.relu(z.reshape(S * B, L) @ hidden.weight.mT + hidden.bias)
    value = functional.relu(value @ out.weight.mT + out.bias).reshape(S * B, 4, image_shape[0] // 4, -1)
    value = functional.relu(functional.conv_transpose2d(value, first.weight, first.bias, stride=2, padding=1))
    value = functional.conv_transpose2d(value, second.weight, second.bias, stride=2, padding=1)
    output = network(z).detach()
    pixels = image_shape[0] * image_shape[1]
    assert output.shape == (S, B, 2 * pixels)
    assert_close(output[..., :pixels], value[:, 0].reshape(S, B, pixels).detach())
    assert_close(output[..., pixels:], value[:, 1].reshape(S, B, pixels).detach())


@pytest.mark.parametrize("leading", [(1, 1), (0, B), (B,), (2, 3, 4)])
def test_any_axes_may_stand_before_the_last(leading: tuple[int, ...]) -> None:
    z = randn(*leading, L, seed=3)
    assert decoder((8, 8))(z).shape == (*leading, 64)
    assert encoder((8, 8))(randn(*leading, 64, seed=3)).shape == (*leading, 2 * L)


@pytest.mark.parametrize("make", [encoder, decoder])
def test_weights_come_from_the_generator(make: Callable[..., nn.Module]) -> None:
    first, again, other = make((8, 8)), make((8, 8)), make((8, 8), seed=2)
    for mine, same, different in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, same)
        assert not torch.equal(mine, different)
        assert mine.dtype == DOUBLE
        assert mine.requires_grad


@pytest.mark.parametrize("make", [encoder, decoder])
def test_every_weight_of_an_image_network_learns(make: Callable[..., nn.Module]) -> None:
    network = make((8, 8), activation=nn.Tanh)
    value = network(randn(B, L if make is decoder else 64, seed=4))
    slopes = torch.autograd.grad((value**2).sum(), list(network.parameters()))
    assert all(bool(slope.any()) for slope in slopes)


def test_image_networks_follow_the_default_dtype() -> None:
    network = conv_encoder((8, 8), 2, generator=make_generator(1))
    assert {p.dtype for p in network.parameters()} == {torch.get_default_dtype()}


LAYERS: dict[str, tuple[Callable[[], Any], int, int]] = {
    # The layer, the numbers that an output away from the edge sums, the outputs that a number goes into.
    "linear": (lambda: nn.utils.skip_init(nn.Linear, 200, 300, dtype=DOUBLE), 200, 300),
    "convolution": (lambda: nn.utils.skip_init(nn.Conv2d, 30, 64, 4, stride=2, padding=1, dtype=DOUBLE), 480, 256),
    "transposed": (
        lambda: nn.utils.skip_init(nn.ConvTranspose2d, 64, 30, 4, stride=2, padding=1, dtype=DOUBLE),
        256,
        480,
    ),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


@pytest.mark.parametrize("name", ["convolution", "transposed"])
def test_the_numbers_that_meet_are_counted(name: str) -> None:
    """The counts of the table, by convolving ones with ones: away from the edges each output sums that many."""
    make, inputs, outputs = LAYERS[name]
    layer = make()
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    ones = torch.ones(1, layer.in_channels, 12, 12, dtype=DOUBLE, requires_grad=True)
    value = layer(ones)
    (reached,) = torch.autograd.grad(value.sum(), ones)
    assert float(value.detach()[0, 0, value.shape[2] // 2, value.shape[3] // 2]) == inputs
    assert float(reached[0, 0, 6, 6]) == outputs


@each_layer
def test_fan_in_uniform(name: str) -> None:
    make, inputs, _ = LAYERS[name]
    layer = make()
    fan_in_uniform(layer, make_generator(1))
    bound = inputs**-0.5
    for tensor in (layer.weight, layer.bias):
        assert float(tensor.detach().abs().max()) <= bound
    scaled = layer.weight.detach().flatten() / bound
    # Uniform on [-1, 1]: mean 0, mean square 1/3; 30 000 numbers or more.
    assert_mean(scaled, 0.0, ceiling=0.004)
    assert_mean(scaled**2, 1.0 / 3.0, ceiling=0.002)
    assert float(layer.bias.detach().abs().max()) > 0.8 * bound


@each_layer
def test_glorot_uniform(name: str) -> None:
    make, inputs, outputs = LAYERS[name]
    layer = make()
    glorot_uniform(layer, make_generator(1))
    scaled = layer.weight.detach().flatten() / (6.0 / (inputs + outputs)) ** 0.5
    assert float(scaled.abs().max()) <= 1.0
    assert_mean(scaled, 0.0, ceiling=0.004)
    assert_mean(scaled**2, 1.0 / 3.0, ceiling=0.002)
    assert not bool(layer.bias.any())


@each_layer
@pytest.mark.parametrize("std", [0.1, 0.01])
def test_normal_weights(name: str, std: float) -> None:
    layer = LAYERS[name][0]()
    NormalInit(std)(layer, make_generator(1))
    scaled = layer.weight.detach().flatten() / std
    assert_mean(scaled, 0.0, ceiling=0.006)
    assert_mean(scaled**2, 1.0, ceiling=0.009)
    biases = layer.bias.detach() / std
    assert_mean(biases, 0.0, ceiling=0.25)
    assert_mean(biases**2, 1.0, ceiling=0.35)


@pytest.mark.parametrize("init", [fan_in_uniform, glorot_uniform, NormalInit()])
def test_a_layer_without_biases_is_filled(init: Callable[..., None]) -> None:
    layer = nn.utils.skip_init(nn.Linear, 3, 2, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
    init(layer, make_generator(1))
    assert bool(layer.weight.all())
    assert layer.weight.requires_grad


def test_a_variance_of_a_hundredth_is_a_standard_deviation_of_a_tenth() -> None:
    assert NormalInit().std ** 2 == pytest.approx(0.01)


def test_every_network_takes_a_rule() -> None:
    constant = lambda layer, generator: layer.weight.data.fill_(0.5)  # noqa: E731
    for network in (
        mlp([3, 2], generator=make_generator(1), init=constant),
        encoder((8, 8), init=constant),
        decoder((8, 8), init=constant),
    ):
        assert all(bool((layer.weight == 0.5).all()) for layer in layers_of(network))


def test_an_mlp_draws_the_same_numbers_as_ever() -> None:
    """Stored runs and chapters were made with them: first the weights of a layer, then its biases."""
    network = mlp([4, 3, 2], generator=make_generator(7), dtype=DOUBLE)
    generator = make_generator(7)
    for layer, inputs in zip(layers_of(network), (4, 3), strict=True):
        for tensor in (layer.weight, layer.bias):
            expected = torch.empty_like(tensor).uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
            assert torch.equal(tensor, expected)


def test_divide() -> None:
    x = randn(B, 4, seed=5)
    assert torch.equal(Divide(16.0)(x), x / 16.0)
    assert Divide(16.0).state_dict() == {}


def wrong_encoder(*shape: int) -> Tensor:
    return conv_encoder(shape, 2, generator=make_generator(1))(torch.zeros(1))  # type: ignore[arg-type, no-any-return]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: wrong_encoder(8, 10),
            ValueError,
            "image_shape: expected height and width, multiples of 4, found (8, 10)",
        ),
        (
            lambda: wrong_encoder(8),
            ValueError,
            "image_shape: expected height and width, multiples of 4, found (8,)",
        ),
        (lambda: wrong_encoder(8, 0), ValueError, "image_shape: expected a positive integer, found 0"),
        (lambda: encoder((8, 8), channels=(3,)), ValueError, "channels: expected two numbers, found (3,)"),
        (lambda: decoder((8, 8), channels=(3, 0)), ValueError, "channels: expected a positive integer, found 0"),
        (
            lambda: decoder((8, 8), outputs_per_number=0),
            ValueError,
            "outputs_per_number: expected a positive integer, found 0",
        ),
        (lambda: NormalInit(0.0), ValueError, "std: expected a positive number, found 0.0"),
        (lambda: NormalInit(float("nan")), ValueError, "std: expected a positive number, found nan"),
        (lambda: Divide(0), ValueError, "divisor: expected a number other than zero, found 0"),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
