"""Networks, heads, encoders and decoders: shapes, densities against torch.distributions, draws from the generator."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td

from tests.oracles import assert_close, assert_mean, assert_same_value_and_gradient, randn
from vae_lib import bounds
from vae_lib.densities import Bernoulli, DiagonalNormal
from vae_lib.models import (
    BernoulliEncoder,
    BernoulliLikelihood,
    BinomialLikelihood,
    DecoderModel,
    Likelihood,
    NormalEncoder,
    NormalLikelihood,
    fair_bits,
    mlp,
    standard_normal,
)
from vae_lib.protocols import ApproximatePosterior, Density, LatentVariableModel
from vae_lib.rng import make_generator

S, B, D, L = 5, 3, 4, 2
DOUBLE = torch.float64
BITS = (randn(B, D, seed=1) > 0.0).double()
COUNTS = (3.0 + 2.0 * randn(B, D, seed=2)).round().clamp(0.0, 16.0)
OUTPUT = randn(S, B, D, seed=3)

HEADS: dict[str, tuple[Likelihood, Tensor, Callable[[Tensor], td.Distribution]]] = {
    "Bernoulli": (BernoulliLikelihood(), BITS, lambda o: td.Bernoulli(logits=o)),
    "Binomial": (BinomialLikelihood(16), COUNTS, lambda o: td.Binomial(16, logits=o)),
    "Normal": (NormalLikelihood(-0.7), randn(B, D, seed=4), lambda o: td.Normal(o, math.exp(-0.35))),
}
each_head = pytest.mark.parametrize("name", HEADS)


def decoder(name: str = "Normal", dtype: torch.dtype = DOUBLE) -> DecoderModel:
    network = mlp([L, 6, D], generator=make_generator(5), dtype=dtype)
    return DecoderModel(network, HEADS[name][0], L, D, standard_normal(L, dtype=dtype))


@each_head
def test_a_head_is_the_density_of_pytorch(name: str) -> None:
    head, x, oracle = HEADS[name]
    assert_same_value_and_gradient(
        lambda output: head.log_prob(x, output), lambda output: oracle(output).log_prob(x).sum(-1), (OUTPUT,)
    )
    assert head.log_prob(x, OUTPUT).shape == (S, B)


@each_head
def test_draws_of_a_head_have_its_mean_and_variance(name: str) -> None:
    head, _, oracle = HEADS[name]
    draws = head.sample(OUTPUT[:1].expand(20_000, B, D), generator=make_generator(6))
    target = oracle(OUTPUT[0])
    # The standard deviations are at most 2: 2 / sqrt(20 000) = 0.014; of the squares, at most 6 / 141.
    assert_mean(draws, target.mean, ceiling=0.02)
    assert_mean((draws - target.mean) ** 2, target.variance, ceiling=0.06)


@each_head
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_come_from_the_generator_alone(name: str, dtype: torch.dtype) -> None:
    """(That the global state stays is checked for every test.)"""
    head = HEADS[name][0]
    output = OUTPUT.to(dtype)
    first, again, other = (head.sample(output, generator=make_generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (S, B, D)
    assert first.dtype == dtype


@each_head
def test_a_head_keeps_its_numbers_at_extreme_outputs(name: str) -> None:
    head, x, _ = HEADS[name]
    for size in (-1e4, 1e4):
        output = torch.full((S, B, D), size, dtype=DOUBLE, requires_grad=True)
        value = head.log_prob(x, output)
        (slope,) = torch.autograd.grad(value.sum(), output)
        assert bool(torch.isfinite(value).all())
        assert bool(torch.isfinite(slope).all())


@each_head
def test_a_decoder_model_is_its_head_after_its_network(name: str) -> None:
    model, (_, x, oracle) = decoder(name), HEADS[name]
    z = randn(S, B, L, seed=7)
    assert isinstance(model, LatentVariableModel)
    assert (model.latent_dim, model.data_dim) == (L, D)
    weights = [layer for layer in model.network if isinstance(layer, nn.Linear)]  # type: ignore[attr-defined]
    output = torch.tanh(z @ weights[0].weight.mT + weights[0].bias) @ weights[1].weight.mT + weights[1].bias
    assert_close(model.log_p_x_given_z(x, z), oracle(output).log_prob(x).sum(-1))
    assert model.sample_x_given_z(z, generator=make_generator(1)).shape == (S, B, D)


def test_the_bounds_run_on_a_decoder_and_an_encoder() -> None:
    model = decoder()
    encoder = NormalEncoder(mlp([D, 6, 2 * L], generator=make_generator(8), dtype=DOUBLE))
    x = randn(B, D, seed=9)
    q = encoder(x)
    assert isinstance(encoder, ApproximatePosterior)
    full, half = (
        bounds.elbo(model, q, x, num_samples=20_000, generator=make_generator(10), analytic_kl=analytic)
        for analytic in (False, True)
    )
    # Two estimators of one ELBO: their difference has mean zero, and spreads by about 1 nat.
    assert_mean((full - half).detach(), torch.zeros(B), ceiling=0.02)


def test_a_normal_encoder_gives_means_and_log_variances() -> None:
    network = nn.utils.skip_init(nn.Linear, D, 2 * L, dtype=DOUBLE)
    with torch.no_grad():
        network.weight.copy_(randn(2 * L, D, seed=11))
        network.bias.copy_(randn(2 * L, seed=12))
    x = randn(B, D, seed=13)
    q = NormalEncoder(network)(x)
    assert isinstance(q, DiagonalNormal)
    output = x @ randn(2 * L, D, seed=11).mT + randn(2 * L, seed=12)
    assert_close(q.mu.detach(), output[:, :L])
    assert_close(q.std.detach() ** 2, output[:, L:].exp())


def test_a_bernoulli_encoder_gives_log_odds() -> None:
    q = BernoulliEncoder(nn.Identity())(BITS)
    assert isinstance(q, Bernoulli)
    assert q.logits is BITS


@pytest.mark.parametrize("prior", [standard_normal(L, dtype=DOUBLE), fair_bits(L, dtype=DOUBLE)])
def test_priors(prior: Callable[[int], Density]) -> None:
    p = prior(B)
    assert isinstance(p, Density)
    assert (p.batch_size, p.event_dim) == (B, L)
    values = torch.ones(S, B, L, dtype=DOUBLE)
    each = -0.5 * math.log(2.0 * math.pi) - 0.5 if isinstance(p, DiagonalNormal) else -math.log(2.0)
    assert_close(p.log_prob(values), torch.full((S, B), L * each, dtype=DOUBLE))


def test_priors_have_the_dtype_that_was_asked_for() -> None:
    for make in (standard_normal, fair_bits):
        draws = make(L, dtype=torch.float32)(B).sample(S, generator=make_generator(1))
        assert draws.dtype == torch.float32


def test_an_mlp_is_made_as_said() -> None:
    network = mlp([3, 5, 7, 2], generator=make_generator(1), activation=nn.ReLU, dtype=DOUBLE)
    assert [type(layer) for layer in network] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert network(torch.zeros(4, 3).double()).shape == (4, 2)
    same, other = (mlp([3, 5, 7, 2], generator=make_generator(seed), dtype=DOUBLE) for seed in (1, 2))
    for layer, twin, stranger in zip(network, same, other, strict=True):
        for parameter, copy, different in zip(
            layer.parameters(), twin.parameters(), stranger.parameters(), strict=True
        ):
            assert torch.equal(parameter, copy)
            assert not torch.equal(parameter, different)
            assert parameter.requires_grad


def test_the_weights_of_an_mlp_are_uniform() -> None:
    layer = mlp([400, 300], generator=make_generator(3), dtype=DOUBLE)[0]
    assert isinstance(layer, nn.Linear)
    weights = layer.weight.detach().flatten()
    limit = 400**-0.5
    assert 0.99 * limit < float(weights.abs().max()) <= limit
    # A uniform number on [-a, a] has mean 0 and mean square a² / 3; 120 000 of them.
    assert_mean(weights / limit, torch.tensor(0.0), ceiling=0.002)
    assert_mean((weights / limit) ** 2, torch.tensor(1.0 / 3.0), ceiling=0.001)
    assert 0.9 * limit < float(layer.bias.detach().abs().max()) <= limit


def test_an_mlp_follows_the_default_dtype() -> None:
    assert next(mlp([2, 2], generator=make_generator(1)).parameters()).dtype == torch.get_default_dtype()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: mlp([3], generator=make_generator(1)),
            ValueError,
            "sizes: expected at least inputs and outputs, found [3]",
        ),
        (lambda: mlp([3, 0], generator=make_generator(1)), ValueError, "sizes: expected a positive integer, found 0"),
        (
            lambda: NormalEncoder(nn.Identity())(randn(B, 3)),
            ValueError,
            "network(x): expected means and log-variances, an even number, found 3",
        ),
        (
            lambda: NormalEncoder(nn.Flatten(0))(randn(B, 4)),
            ValueError,
            "network(x): expected shape (3, 2 L), found (12,)",
        ),
        (
            lambda: decoder().log_p_x_given_z(randn(B, D + 1), randn(S, B, L)),
            ValueError,
            "x: expected shape (B, 4), found (3, 5)",
        ),
        (
            lambda: decoder().log_p_x_given_z(randn(B, D), randn(S, 1, L)),
            ValueError,
            "z: expected shape (S, 3, 2), found (5, 1, 2)",
        ),
        (
            lambda: decoder().log_p_x_given_z(randn(B, D), randn(S, B, L).float()),
            TypeError,
            "z: expected torch.float64 as the tensors it meets have, found torch.float32",
        ),
        (
            lambda: decoder().sample_x_given_z(randn(S, L), generator=make_generator(1)),
            ValueError,
            "z: expected shape (S, B, 2), found (5, 2)",
        ),
        (
            lambda: DecoderModel(nn.Identity(), NormalLikelihood(0.0), L, D, standard_normal(L)).log_p_x_given_z(
                randn(B, D), randn(S, B, L)
            ),
            ValueError,
            "network(z): expected shape (5, 3, 4), found (5, 3, 2)",
        ),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_a_decoder_learns_from_its_likelihood() -> None:
    model, x, z = decoder(), randn(B, D, seed=14), randn(S, B, L, seed=15)
    weights = list(model.network.parameters())  # type: ignore[attr-defined]
    slopes = torch.autograd.grad(model.log_p_x_given_z(x, z).sum(), weights)
    # The slope in the last bias is that of a normal log-density in its mean, summed over draws and data.
    with torch.no_grad():
        expected = ((x - model.network(z)) / math.exp(-0.7)).sum((0, 1))
    assert_close(slopes[-1], expected)
    assert all(bool(slope.any()) for slope in slopes)


def test_draws_of_a_decoder_have_the_mean_and_variance_of_its_head() -> None:
    model, z = decoder(), randn(1, B, L, seed=16)
    draws = model.sample_x_given_z(z.expand(20_000, B, L), generator=make_generator(1)).detach()
    with torch.no_grad():
        mean = model.network(z)[0]
    # The standard deviation is exp(-0.35) = 0.70, that of the squares 0.70: / sqrt(20 000) = 0.005.
    assert_mean(draws, mean, ceiling=0.006)
    assert_mean((draws - mean) ** 2, torch.full((B, D), math.exp(-0.7)).double(), ceiling=0.006)


def test_priors_are_centred() -> None:
    normal, bits = standard_normal(L, dtype=DOUBLE)(B), fair_bits(L, dtype=DOUBLE)(B)
    values = randn(S, B, L, seed=17)
    assert_close(normal.log_prob(values), td.Normal(0.0, 1.0).log_prob(values).sum(-1))
    assert_close(bits.log_prob(torch.zeros(S, B, L).double()), bits.log_prob(torch.ones(S, B, L).double()))


@pytest.mark.parametrize("make", [NormalEncoder, BernoulliEncoder])
def test_the_weights_of_an_encoder_are_those_of_its_network(make: Callable[[nn.Module], nn.Module]) -> None:
    network = mlp([D, 2 * L], generator=make_generator(1))
    assert set(make(network).parameters()) == set(network.parameters())


def test_networks_must_keep_the_dtype() -> None:
    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float()

    message = r"^network\({}\): expected torch\.float64 as the tensors it meets have, found torch\.float32$"
    with pytest.raises(TypeError, match=message.format("x")):
        NormalEncoder(Single())(randn(B, 2 * L))
    model = DecoderModel(Single(), NormalLikelihood(0.0), D, D, standard_normal(D, dtype=DOUBLE))
    with pytest.raises(TypeError, match=message.format("z")):
        model.log_p_x_given_z(randn(B, D), randn(S, B, D))


def test_draws_of_counts_need_no_contiguous_output_and_carry_no_gradient() -> None:
    output = randn(D, B, S, seed=18).permute(2, 1, 0).requires_grad_()
    draws = BinomialLikelihood(16).sample(output, generator=make_generator(1))
    assert not draws.requires_grad
    again = BinomialLikelihood(16).sample(output.detach().contiguous(), generator=make_generator(1))
    assert torch.equal(draws, again)
