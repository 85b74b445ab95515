"""Chains of latents: a density, a model and a q that every bound takes; with linear links everything is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from tests.oracles import assert_close, assert_mean, assert_same_value_and_gradient, randn
from vae_lib import bounds
from vae_lib.densities import Bernoulli, DiagonalNormal, FullNormal, Gamma
from vae_lib.evaluation import held_out_elbo, log_p_x
from vae_lib.exact import LinearGaussian
from vae_lib.learning import Images, TrainingConfig, train
from vae_lib.models import (
    ChainEncoder,
    DecoderModel,
    HierarchicalModel,
    LinearGaussianChain,
    LinearLink,
    MarkovChain,
    NormalEncoder,
    NormalLikelihood,
    NormalLink,
    SampledMarkovChain,
    mlp,
    standard_normal,
)
from vae_lib.protocols import (
    ApproximatePosterior,
    Density,
    ExactModel,
    LatentVariableModel,
    NoiseDensity,
    ReparameterizedDensity,
)
from vae_lib.rng import make_generator

S, B, D = 5, 3, 4
DIMS = (2, 3, 1)  # all different, z_1 first
DOUBLE = torch.float64


def linear(outputs: int, inputs: int, seed: int) -> LinearLink:
    return LinearLink(
        randn(outputs, inputs, seed=seed), randn(outputs, seed=seed + 1), 0.5 * randn(outputs, seed=seed + 2)
    )


TOP_MEAN, TOP_COVARIANCE = randn(1, seed=8), randn(1, 1, seed=9) ** 2 + 0.5


def exact_chain() -> LinearGaussianChain:
    return LinearGaussianChain(
        [linear(3, 1, 10), linear(2, 3, 20)], linear(D, 2, 30), mean=TOP_MEAN, covariance=TOP_COVARIANCE
    )


def bottom_up(given: Tensor | None = None) -> tuple[MarkovChain, list[Any]]:
    """A chain with links that see what is given, or not, and the same conditionals for the oracle."""
    extra = 0 if given is None else given.shape[1]
    up, top = linear(3, 2 + extra, 40), linear(1, 3 + extra, 50)

    def link(of: LinearLink) -> Callable[..., DiagonalNormal]:
        return lambda previous, *rest: of(torch.cat([previous, *rest], dim=-1))

    first = DiagonalNormal(randn(B, 2, seed=60), 0.5 * randn(B, 2, seed=61))
    return MarkovChain(first, [link(up), link(top)], DIMS, given=given), [up, top]


def oracle_terms(chain: MarkovChain, links: list[LinearLink], value: Tensor) -> Tensor:
    """The terms one sample and one datum at a time, with torch.distributions."""
    terms = torch.empty(3, *value.shape[:2], dtype=value.dtype)
    first: Any = chain.first
    for s in range(value.shape[0]):
        for b in range(value.shape[1]):
            parts = value[s, b].split(DIMS)
            terms[0, s, b] = td.Normal(first.mu[b], first.std[b]).log_prob(parts[0]).sum()
            for t, link in enumerate(links, 1):
                before = parts[t - 1] if chain.given is None else torch.cat([parts[t - 1], chain.given[b]])
                normal = td.Normal(link.weight @ before + link.bias, torch.exp(0.5 * link.logvar))
                terms[t, s, b] = normal.log_prob(parts[t]).sum()
    return terms


@pytest.mark.parametrize("given", [None, randn(B, 2, seed=3)])
def test_log_density_against_a_loop(given: Tensor | None) -> None:
    chain, links = bottom_up(given)
    value = randn(S, B, sum(DIMS), seed=1)
    assert (chain.batch_size, chain.event_dim) == (B, 6)
    expected = oracle_terms(chain, links, value)
    assert_close(chain.log_prob_of_parts(value), expected)
    assert_close(chain.log_prob(value), expected.sum(0))


def test_a_chain_from_the_top_down_has_the_same_layout() -> None:
    down = [linear(3, 1, 10), linear(2, 3, 20)]
    top = DiagonalNormal(randn(B, 1, seed=60), randn(B, 1, seed=61))
    chain, value = MarkovChain(top, down, DIMS, top_down=True), randn(S, B, 6, seed=1)
    z_1, z_2, z_3 = value.split(DIMS, dim=-1)
    expected = [
        td.Normal(z_2 @ down[1].weight.mT + down[1].bias, torch.exp(0.5 * down[1].logvar)).log_prob(z_1).sum(-1),
        td.Normal(z_3 @ down[0].weight.mT + down[0].bias, torch.exp(0.5 * down[0].logvar)).log_prob(z_2).sum(-1),
        td.Normal(top.mu, top.std).log_prob(z_3).sum(-1),
    ]
    assert_close(chain.log_prob_of_parts(value), torch.stack(expected))
    assert [tuple(part.shape) for part in chain.parts(value)] == [(S, B, 2), (S, B, 3), (S, B, 1)]


@pytest.mark.parametrize("top_down", [False, True])
def test_draws_follow_the_density(top_down: bool) -> None:
    """Moments of the draws are those of the joint normal, part by part and across parts."""
    down = [linear(3, 1, 10), linear(2, 3, 20)]
    if top_down:
        chain = MarkovChain(DiagonalNormal(randn(B, 1, seed=60), randn(B, 1, seed=61)), down, DIMS, top_down=True)
    else:
        chain, down = bottom_up()
    first: Any = chain.first
    # The draws are mean + M ε with independent ε of the parts in the order of drawing.
    blocks, mean = [torch.diag_embed(first.std)], first.mu
    means, half = [mean], [torch.cat([blocks[0], torch.zeros(B, mean.shape[1], 6 - mean.shape[1], dtype=DOUBLE)], 2)]
    at = mean.shape[1]
    for link in down:
        means.append(means[-1] @ link.weight.mT + link.bias)
        row = torch.einsum("ij,bjk->bik", link.weight, half[-1])
        size = link.weight.shape[0]
        row[:, :, at : at + size] += torch.diag(torch.exp(0.5 * link.logvar))
        half.append(row)
        at += size
    mean, scale = torch.cat(means, 1), torch.cat(half, 1)
    where = torch.tensor([4, 5, 1, 2, 3, 0] if top_down else range(6))
    mean, covariance = mean[:, where], (scale @ scale.mT)[:, where][:, :, where]
    z = chain.sample(40_000, generator=make_generator(2))
    assert not z.requires_grad
    assert_mean(z, mean, ceiling=0.2)
    centred = z - mean
    assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), covariance, ceiling=5.0)
    # And the density is that of this joint normal.
    value = randn(S, B, 6, seed=1)
    assert_close(chain.log_prob(value), FullNormal.from_covariance(mean, covariance).log_prob(value), rtol=1e-9)


def test_sample_rsample_and_noise_are_one_draw() -> None:
    chain, _ = bottom_up(randn(B, 2, seed=3))
    drawn = chain.sample(S, generator=make_generator(1))
    assert_close(chain.rsample(S, generator=make_generator(1)), drawn)
    noise = chain.noise(S, generator=make_generator(1))
    assert [tuple(part.shape) for part in noise] == [(S, B, 2), (S, B, 3), (S, B, 1)]
    assert_close(chain.from_noise(noise), drawn)
    assert_close(chain.from_noise(tuple(part[2:3] for part in noise)), drawn[2:3])


def test_draws_carry_gradients_to_every_link() -> None:
    noise = (randn(S, B, 2, seed=5), randn(S, B, 1, seed=6))
    given = randn(B, 1, seed=7)

    def ours(mu: Tensor, logvar: Tensor, weight: Tensor, given: Tensor) -> Tensor:
        link = LinearLink(weight, weight[:, 0], weight[:, 1])
        chain = MarkovChain(DiagonalNormal(mu, logvar), [lambda z, x: link(torch.cat([z, x], 1))], (2, 1), given=given)
        return chain.from_noise(noise)

    def oracle(mu: Tensor, logvar: Tensor, weight: Tensor, given: Tensor) -> Tensor:
        z_1 = mu + torch.exp(0.5 * logvar) * noise[0]
        joined = torch.cat([z_1, given.expand(S, B, 1)], dim=-1)
        z_2 = joined @ weight.mT + weight[:, 0] + torch.exp(0.5 * weight[:, 1]) * noise[1]
        return torch.cat([z_1, z_2], dim=-1)

    arguments = (randn(B, 2, seed=1), randn(B, 2, seed=2), randn(1, 3, seed=3), given)
    assert_same_value_and_gradient(ours, oracle, arguments)


def test_draws_carry_a_gradient_where_they_say_so() -> None:
    weight = randn(1, 2, seed=3).requires_grad_()
    link = LinearLink(weight, weight[:, 0], weight[:, 1])
    chain = MarkovChain(DiagonalNormal(randn(B, 2, seed=1), randn(B, 2, seed=2)), [link], (2, 1))
    assert not chain.sample(S, generator=make_generator(1)).requires_grad
    (gradient,) = torch.autograd.grad(chain.rsample(S, generator=make_generator(1)).sum(), weight)
    assert bool((gradient != 0.0).all())


def test_noise_of_several_tensors() -> None:
    """A Gamma's noise is a pair; it goes through the chain as one."""
    first = Gamma(torch.full((B, 2), 2.0, dtype=DOUBLE), torch.ones(B, 2, dtype=DOUBLE))
    chain = MarkovChain(first, [lambda z: Gamma(1.0 + z, 2.0 * torch.ones_like(z))], (2, 2))
    noise = chain.noise(S, generator=make_generator(1))
    assert [tuple(part.shape) for pair in noise for part in pair] == [(S, B, 2)] * 4
    assert_close(chain.from_noise(noise), chain.rsample(S, generator=make_generator(1)))


def test_a_chain_of_bits_has_no_differentiable_draws() -> None:
    link = linear(2, 2, 1)
    chain = SampledMarkovChain(Bernoulli(randn(B, 2)), [lambda z: Bernoulli(z @ link.weight.mT + link.bias)], (2, 2))
    assert isinstance(chain, Density)
    assert not isinstance(chain, ReparameterizedDensity)
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=DOUBLE)] * 4).unsqueeze(1).expand(-1, B, -1)
    assert_close(chain.log_prob(bits).exp().sum(0), torch.ones(B))
    drawn = chain.sample(20_000, generator=make_generator(1))
    is_ones = (drawn == 1.0).all(-1).double()
    assert_mean(is_ones, chain.log_prob(bits[-1:]).exp()[0], ceiling=0.01)


def test_no_samples_have_no_density() -> None:
    chain, _ = bottom_up()
    assert chain.log_prob(torch.zeros(0, B, 6, dtype=DOUBLE)).shape == (0, B)


@pytest.mark.parametrize("index", range(3))
def test_protocols(index: int) -> None:
    model, encoder = networks()
    chain = exact_chain()
    assert isinstance(model, LatentVariableModel)
    assert isinstance(chain, ExactModel)
    assert isinstance(encoder, ApproximatePosterior)
    x = randn(B, D)
    density: Any = [model.prior(B), encoder(x), chain.posterior(x)][index]
    assert isinstance(density, NoiseDensity)


class TestExactChain:
    """Everything of chapter 1 holds for a chain as it does for one layer."""

    def marginal(self, chain: LinearGaussianChain) -> tuple[Tensor, Tensor]:
        """Mean and covariance of (z_1, z_2, z_3, x) from the definition, by a matrix of all noises."""
        top = torch.linalg.cholesky(TOP_COVARIANCE)
        mean, half = [TOP_MEAN], [torch.cat([top, torch.zeros(1, 9, dtype=DOUBLE)], 1)]
        at = 1
        for link in chain.downward:
            mean.append(link.weight @ mean[-1] + link.bias)
            row = link.weight @ half[-1]
            size = link.weight.shape[0]
            row[:, at : at + size] = torch.diag(torch.exp(0.5 * link.logvar))
            half.append(row)
            at += size
        z_3, z_2, z_1, x = range(4)
        order = (z_1, z_2, z_3, x)
        joined = torch.cat([half[i] for i in order])
        return torch.cat([mean[i] for i in order]), joined @ joined.mT

    def test_evidence_and_posterior(self) -> None:
        chain, x = exact_chain(), randn(B, D, seed=4)
        mean, covariance = self.marginal(chain)
        evidence = td.MultivariateNormal(mean[6:], covariance[6:, 6:])
        assert_close(chain.log_p_x(x), evidence.log_prob(x))
        gain = covariance[:6, 6:] @ torch.linalg.inv(covariance[6:, 6:])
        mu = mean[:6] + (x - mean[6:]) @ gain.mT
        posterior = td.MultivariateNormal(mu, covariance[:6, :6] - gain @ covariance[6:, :6])
        z = randn(S, B, 6, seed=5)
        assert_close(chain.posterior(x).log_prob(z), posterior.log_prob(z), rtol=1e-9)
        prior = td.MultivariateNormal(mean[:6], covariance[:6, :6])
        assert_close(chain.prior(B).log_prob(z), prior.log_prob(z))

    def test_every_weight_at_the_posterior_is_the_evidence(self) -> None:
        chain, x = exact_chain(), randn(B, D, seed=4)
        log_w = bounds.log_weights(chain, chain.posterior(x), x, 3.0 * randn(S, B, 6, seed=5))
        assert_close(log_w, chain.log_p_x(x).expand(S, B))

    def test_elbo_and_kl_fill_the_evidence(self) -> None:
        """With both averages over the same draws the identity holds draw by draw."""
        chain, x = exact_chain(), randn(B, D, seed=4)
        q, _ = bottom_up()
        z = q.sample(S, generator=make_generator(1))
        divergence = q.log_prob(z) - chain.posterior(x).log_prob(z)
        assert_close(bounds.log_weights(chain, q, x, z) + divergence, chain.log_p_x(x).expand(S, B))
        values = bounds.elbo(chain, q, x, num_samples=4000, generator=make_generator(2))
        assert bool((values.mean(0) < chain.log_p_x(x)).all())

    def test_importance_sampling_finds_it(self) -> None:
        chain, x = exact_chain(), randn(B, D, seed=4)

        def wide(x: Tensor) -> MarkovChain:
            """The posterior with the variance of its first part doubled."""
            chain_of_x = chain.posterior(x)
            first: Any = chain_of_x.first
            return MarkovChain(FullNormal(first.mu, 2.0**0.5 * first.scale_tril), chain_of_x.links, DIMS)

        found = log_p_x(chain, wide, x, num_samples=20_000, generator=make_generator(3))
        assert float(found.standard_error.max()) < 0.02
        assert bool(((found.value - chain.log_p_x(x)).abs() < 5.0 * found.standard_error).all())
        bound = bounds.importance_weighted_bound(
            bounds.elbo(chain, wide(x), x, num_samples=20_000, generator=make_generator(4)), 10
        )
        assert bool((bound.mean(0) < chain.log_p_x(x) + 5.0 * bound.std(0) / 2000**0.5).all())

    def test_data_follow_the_evidence(self) -> None:
        chain = exact_chain()
        mean, covariance = self.marginal(chain)
        z = chain.prior(1).sample(40_000, generator=make_generator(1))
        x = chain.sample_x_given_z(z, generator=make_generator(2)).squeeze(1)
        assert_mean(x, mean[6:], ceiling=0.2)
        centred = x - mean[6:]
        assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), covariance[6:, 6:], ceiling=2.0)

    def test_defaults(self) -> None:
        chain = LinearGaussianChain([linear(2, 3, 1)], linear(D, 2, 5))
        assert_close(
            chain.prior(1).log_prob_of_parts(torch.zeros(1, 1, 5, dtype=DOUBLE))[1], [[-1.5 * 1.8378770664093453]]
        )
        one = LinearGaussianChain([], linear(D, 2, 5))
        flat = LinearGaussian(linear(D, 2, 5).weight, linear(D, 2, 5).bias, linear(D, 2, 5).logvar)
        x = randn(B, D)
        assert_close(one.log_p_x(x), flat.log_p_x(x))
        z = randn(S, B, 2)
        assert_close(one.posterior(x).log_prob(z), flat.posterior(x).log_prob(z))


def networks() -> tuple[HierarchicalModel, ChainEncoder]:
    """Two layers of three and two latents, with networks; z_1 has the three."""
    options: dict[str, Any] = {"generator": make_generator(1), "dtype": DOUBLE}
    bottom = DecoderModel(mlp([3, 8, D], **options), NormalLikelihood(-1.0), 3, D, standard_normal(3, dtype=DOUBLE))
    model = HierarchicalModel(
        bottom, standard_normal(2, dtype=DOUBLE), [NormalEncoder(mlp([2, 8, 6], **options))], (3, 2)
    )
    encoder = ChainEncoder(
        NormalEncoder(mlp([D, 8, 6], **options)), [NormalLink(mlp([3 + D, 8, 4], **options))], (3, 2)
    )
    return model, encoder


class TestNetworks:
    def test_a_link_hands_over_the_previous_part_first(self) -> None:
        previous, given = randn(S, 1, seed=1), randn(S, 1, seed=2)
        density = NormalLink(torch.nn.Identity())(previous, given)
        assert_close(density.mu, previous)
        assert_close(density.logvar, given)

    def test_weights_are_found(self) -> None:
        model, encoder = networks()
        # Two layers, each a weight and a bias: decoder and link; first part and link.
        assert len(list(model.parameters())) == 8
        assert len(list(encoder.parameters())) == 8
        link = NormalLink(mlp([2, 4], generator=make_generator(1), dtype=DOUBLE))
        linear_bottom = HierarchicalModel(exact_chain().bottom, standard_normal(2, dtype=DOUBLE), [link], (2, 2))
        assert len(list(linear_bottom.parameters())) == 2

    def test_it_trains_unchanged(self) -> None:
        model, encoder = networks()
        x = exact_data(400)
        before = float(held_out_elbo(model, encoder, x, generator=make_generator(1)).elbo.mean())
        run = train(
            model, Images(x), Images(x[:100]), TrainingConfig(epochs=15, batch_size=50, learning_rate=0.01),
            encoder=encoder, bound=bounds.log_weights, device="cpu", progress=False,
        )  # fmt: skip
        after = float(held_out_elbo(model, encoder, x, generator=make_generator(1)).elbo.mean())
        assert after > before + 1.0
        assert "validation_elbo" in run.history[-1]

    def test_the_likelihood_sees_the_first_part_only(self) -> None:
        model, _ = networks()
        x, z = randn(B, D), randn(S, B, 5)
        other = torch.cat([z[..., :3], z[..., 3:] + 1.0], dim=-1)
        assert_close(model.log_p_x_given_z(x, z), model.log_p_x_given_z(x, other))
        assert_close(
            model.sample_x_given_z(z, generator=make_generator(1)),
            model.bottom.sample_x_given_z(z[..., :3], generator=make_generator(1)),
        )
        assert (model.data_dim, model.latent_dim) == (D, 5)

    def test_an_encoder_from_the_top_down_that_does_not_see_x(self) -> None:
        options: dict[str, Any] = {"generator": make_generator(1), "dtype": DOUBLE}
        encoder = ChainEncoder(
            NormalEncoder(mlp([D, 4], **options)), [NormalLink(mlp([2, 6], **options))], (3, 2),
            top_down=True, sees_x=False,
        )  # fmt: skip
        x = randn(B, D)
        q = encoder(x)
        z = q.sample(S, generator=make_generator(1))
        assert_close(q.log_prob_of_parts(z)[1], encoder.first(x).log_prob(z[..., 3:]))
        assert isinstance(q.first, DiagonalNormal)
        assert q.given is None


def exact_data(count: int) -> Tensor:
    chain = exact_chain()
    z = chain.prior(count).sample(1, generator=make_generator(7))
    return chain.sample_x_given_z(z, generator=make_generator(8)).squeeze(0)


NORMAL = DiagonalNormal(torch.zeros(B, 2), torch.zeros(B, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarkovChain(NORMAL, [], (2, 2)), "dims: expected 1 lengths for 0 links, found 2"),
        (lambda: MarkovChain(NORMAL, [], (3,)), "first: expected a density of 3 numbers, found 2"),
        (lambda: MarkovChain(NORMAL, [], (0,)), "dims: expected a positive integer, found 0"),
        (
            lambda: MarkovChain(NORMAL, [lambda z: NORMAL], (3, 2), top_down=False),
            "first: expected a density of 3 numbers, found 2",
        ),
        (lambda: MarkovChain(NORMAL, [], (2,), given=torch.zeros(2, 1)), "given: expected shape (3, G), found (2, 1)"),
        (
            lambda: MarkovChain(NORMAL, [lambda z: NORMAL], (2, 3)).log_prob(torch.zeros(1, B, 5)),
            "link: expected densities (N, L) = (3, 3), found (3, 2)",
        ),
        (
            lambda: MarkovChain(NORMAL, [], (2,)).log_prob(torch.zeros(1, B, 5)),
            "value: expected shape (S, 3, 2), found (1, 3, 5)",
        ),
        (
            lambda: HierarchicalModel(exact_chain().bottom, standard_normal(2), [], (3,)),
            "bottom: expected latents of 3 numbers, found 2",
        ),
        (lambda: HierarchicalModel(exact_chain().bottom, standard_normal(2), [], (2, 2)), "dims: expected 1 lengths"),
        (lambda: ChainEncoder(NORMAL, [], (2, 2)), "dims: expected 1 lengths"),  # type: ignore[arg-type]
        (
            lambda: LinearGaussianChain([linear(3, 2, 1)], linear(D, 2, 5)),
            "links: expected each to begin where the last one ends, found [2, 2] after [3]",
        ),
        (lambda: LinearLink(randn(2, 3), randn(3), randn(2)), "bias: expected shape (2,), found (3,)"),
        (lambda: LinearLink(randn(2, 3), randn(2), randn(3)), "logvar: expected shape (2,), found (3,)"),
        (lambda: LinearLink(randn(2), randn(2), randn(3)), "weight: expected shape (L, L'), found (2,)"),
        (
            lambda: exact_chain().log_p_x_given_z(randn(B, D), randn(S, B, 2)),
            "z: expected shape (S, 3, 6), found (5, 3, 2)",
        ),
        (
            lambda: exact_chain().sample_x_given_z(randn(S, B, 2), generator=make_generator(1)),
            "z: expected shape (S, B, 6), found (5, 3, 2)",
        ),
    ],
)
def test_refusals(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
