"""Likelihood heads with several outputs for each pixel, or parameters of their own, against independent oracles."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as td

from tests.oracles import assert_close, assert_mean, assert_same_value_and_gradient, randn
from vae_lib.densities import log_bernoulli
from vae_lib.models import (
    BernoulliLikelihood,
    BinomialLikelihood,
    CategoricalLikelihood,
    DiscretisedLogisticLikelihood,
    LearnedNormalLikelihood,
    NormalLikelihood,
    PredictedNormalLikelihood,
)
from vae_lib.rng import make_generator

S, B, D, K = 5, 3, 4, 6
DOUBLE = torch.float64
LEVELS = torch.tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 4.0, 0.0, 5.0], [3.0, 3.0, 2.0, 1.0]], dtype=DOUBLE)
REALS = randn(B, D, seed=1)


def learned(data_dim: int | None = None, dtype: torch.dtype = DOUBLE) -> LearnedNormalLikelihood:
    head = LearnedNormalLikelihood(data_dim, dtype=dtype)
    with torch.no_grad():
        head.logvar.copy_(0.5 * randn(*head.logvar.shape, seed=2))
    return head


class Logistic(td.TransformedDistribution):
    """A logistic curve with a distribution function, whose differences are the discretised one."""

    def __init__(self, centre: Tensor, scale: Tensor) -> None:
        base = td.Uniform(torch.zeros_like(centre), torch.ones_like(centre), validate_args=False)
        super().__init__(base, [td.SigmoidTransform().inv, td.AffineTransform(centre, scale)], validate_args=False)


def logistic_log_probs(output: Tensor, levels: int) -> Tensor:
    """Log-probabilities ``(S, B, D, K)`` as differences of the distribution function of torch.distributions."""
    centre, log_scale = output.unflatten(-1, (2, -1)).unbind(-2)
    logistic = Logistic(centre.unsqueeze(-1), log_scale.exp().unsqueeze(-1))
    edges = torch.linspace(-1.0, 1.0, levels, dtype=DOUBLE)[:-1] + 1.0 / (levels - 1)
    below = logistic.cdf(edges.expand(*centre.shape, -1))
    below = torch.cat([torch.zeros_like(below[..., :1]), below, torch.ones_like(below[..., :1])], -1)
    return (below[..., 1:] - below[..., :-1]).log()


def pick(log_probs: Tensor, x: Tensor) -> Tensor:
    index = x.long().expand(log_probs.shape[:-1]).unsqueeze(-1)
    return log_probs.gather(-1, index).squeeze(-1).sum(-1)


def predicted(output: Tensor, unit: bool) -> td.Normal:
    mu, logvar = output[..., :D], output[..., D:]
    return td.Normal(mu.sigmoid() if unit else mu, (logvar / 2.0).exp())


# Head, data, outputs for each pixel, log-likelihood of an oracle from the output.
GLOBAL, PER_PIXEL = learned(), learned(D)
HEADS: dict[str, tuple[Any, Tensor, int, Callable[[Tensor], Tensor]]] = {
    "Categorical": (
        CategoricalLikelihood(K),
        LEVELS,
        K,
        lambda o: td.Categorical(logits=o.unflatten(-1, (K, D)).movedim(-2, -1)).log_prob(LEVELS).sum(-1),
    ),
    "DiscretisedLogistic": (
        DiscretisedLogisticLikelihood(K),
        LEVELS,
        2,
        lambda o: pick(logistic_log_probs(o, K), LEVELS),
    ),
    "LearnedNormal, one": (
        GLOBAL,
        REALS,
        1,
        lambda o: td.Normal(o, (GLOBAL.logvar.detach() / 2.0).exp()).log_prob(REALS).sum(-1),
    ),
    "LearnedNormal, each": (
        PER_PIXEL,
        REALS,
        1,
        lambda o: td.Normal(o, (PER_PIXEL.logvar.detach() / 2.0).exp()).log_prob(REALS).sum(-1),
    ),
    "PredictedNormal": (
        PredictedNormalLikelihood(),
        REALS,
        2,
        lambda o: predicted(o, False).log_prob(REALS).sum(-1),
    ),
    "PredictedNormal, unit": (
        PredictedNormalLikelihood(unit_mean=True),
        REALS,
        2,
        lambda o: predicted(o, True).log_prob(REALS).sum(-1),
    ),
}
each_head = pytest.mark.parametrize("name", HEADS)


def output_of(name: str, dtype: torch.dtype = DOUBLE) -> Tensor:
    return randn(S, B, HEADS[name][2] * D, seed=3).to(dtype)


@each_head
def test_a_head_is_the_density_of_the_oracle(name: str) -> None:
    head, x, count, oracle = HEADS[name]
    assert head.outputs_per_number == count
    assert_same_value_and_gradient(lambda output: head.log_prob(x, output), oracle, (output_of(name),))
    assert head.log_prob(x, output_of(name)).shape == (S, B)


@pytest.mark.parametrize("data_dim", [None, D])
def test_learned_variances_have_the_gradient_of_the_oracle(data_dim: int | None) -> None:
    head, output = learned(data_dim), randn(S, B, D, seed=4)
    assert head.logvar.shape == (() if data_dim is None else (D,))

    def ours(logvar: Tensor) -> Tensor:
        value = torch.func.functional_call(_LogProb(head), {"head.logvar": logvar}, (REALS, output))
        assert isinstance(value, Tensor)
        return value

    assert_same_value_and_gradient(
        ours,
        lambda logvar: td.Normal(output, (logvar / 2.0).exp()).log_prob(REALS).sum(-1),
        (0.5 * randn(*head.logvar.shape, seed=5),),
    )


class _LogProb(torch.nn.Module):
    def __init__(self, head: LearnedNormalLikelihood) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        return self.head.log_prob(x, output)


def test_learned_variances_start_where_they_are_told() -> None:
    head = LearnedNormalLikelihood(D, logvar=-1.5, dtype=torch.float32)
    assert torch.equal(head.logvar.detach(), torch.full((D,), -1.5))
    assert head.logvar.requires_grad
    assert list(head.state_dict()) == ["logvar"]
    assert float(LearnedNormalLikelihood().logvar.detach()) == 0.0


MEANS: dict[str, tuple[Any, int, Callable[[Tensor], Tensor]]] = {
    "Bernoulli": (BernoulliLikelihood(), 1, lambda o: td.Bernoulli(logits=o).mean),
    "Binomial": (BinomialLikelihood(16), 1, lambda o: td.Binomial(16, logits=o).mean),
    "Normal": (NormalLikelihood(-0.7), 1, lambda o: o),
    "Categorical": (
        CategoricalLikelihood(K),
        K,
        lambda o: (o.unflatten(-1, (K, D)).softmax(-2) * torch.arange(K, dtype=DOUBLE)[:, None]).sum(-2),
    ),
    "DiscretisedLogistic": (
        DiscretisedLogisticLikelihood(K),
        2,
        lambda o: (logistic_log_probs(o, K).exp() * torch.arange(K, dtype=DOUBLE)).sum(-1),
    ),
    "LearnedNormal, one": (GLOBAL, 1, lambda o: o),
    "LearnedNormal, each": (PER_PIXEL, 1, lambda o: o),
    "PredictedNormal": (PredictedNormalLikelihood(), 2, lambda o: o[..., :D]),
    "PredictedNormal, unit": (PredictedNormalLikelihood(unit_mean=True), 2, lambda o: o[..., :D].sigmoid()),
}
each_mean = pytest.mark.parametrize("name", MEANS)


@each_mean
def test_the_mean_is_that_of_the_oracle(name: str) -> None:
    head, count, oracle = MEANS[name]
    assert_same_value_and_gradient(head.mean, oracle, (randn(S, B, count * D, seed=6),))
    assert head.mean(randn(S, B, count * D, seed=6)).shape == (S, B, D)


@each_mean
def test_draws_have_the_mean_of_their_head(name: str) -> None:
    head, count, _ = MEANS[name]
    output = randn(1, B, count * D, seed=7)
    draws = head.sample(output.expand(20_000, B, -1), generator=make_generator(8))
    # The widest, a predicted normal, has a standard deviation below exp(1.5) = 4.5: 4.5 / sqrt(20 000) = 0.03.
    assert_mean(draws, head.mean(output)[0].detach(), ceiling=0.04)


@pytest.mark.parametrize("name", ["Categorical", "DiscretisedLogistic"])
def test_draws_of_levels_have_their_frequencies(name: str) -> None:
    head, _, count, _ = HEADS[name]
    output = randn(1, 1, count * D, seed=9)
    draws = head.sample(output.expand(20_000, 1, -1), generator=make_generator(10))
    for level in range(K):
        at = torch.full((1, D), float(level), dtype=DOUBLE)
        # One pixel at a time, by a head of one pixel.
        each = [head.log_prob(at[:, d : d + 1], output[..., d::D]) for d in range(D)]
        # A frequency has a standard deviation of at most 0.5 / sqrt(20 000) = 0.0036.
        assert_mean((draws == level).double(), torch.stack(each, -1)[0].exp(), ceiling=0.004)


@pytest.mark.parametrize("name", ["LearnedNormal, one", "LearnedNormal, each", "PredictedNormal"])
def test_draws_of_normals_have_their_variance(name: str) -> None:
    head, _, count, _ = HEADS[name]
    output = 0.5 * randn(1, B, count * D, seed=11)
    draws = head.sample(output.expand(20_000, B, -1), generator=make_generator(12))
    logvar = output[0, :, D:] if count == 2 else head.logvar.detach().expand(B, D)
    # Variances are below e^1.3 = 3.7, squares spread by 1.4 times that: 5.2 / sqrt(20 000) = 0.037.
    assert_mean((draws - head.mean(output)) ** 2, logvar.exp(), ceiling=0.04)


@each_head
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_come_from_the_generator_alone(name: str, dtype: torch.dtype) -> None:
    head = HEADS[name][0]
    if isinstance(head, LearnedNormalLikelihood):
        head = learned(None if head.logvar.ndim == 0 else D, dtype)
    output = output_of(name, dtype)
    first, again, other = (head.sample(output, generator=make_generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (S, B, D)
    assert first.dtype == dtype


@pytest.mark.parametrize("name", ["Bernoulli", "Binomial", "Categorical", "DiscretisedLogistic"])
def test_draws_of_levels_carry_no_gradient(name: str) -> None:
    head, count, _ = MEANS[name]
    output = randn(S, B, count * D, seed=17).requires_grad_()
    assert not head.sample(output, generator=make_generator(1)).requires_grad


@each_head
def test_single_precision_gives_the_same_numbers(name: str) -> None:
    head, x, *_ = HEADS[name]
    if isinstance(head, LearnedNormalLikelihood):
        head = learned(None if head.logvar.ndim == 0 else D, torch.float32)
    value = head.log_prob(x.float(), output_of(name, torch.float32))
    assert value.dtype == torch.float32
    # Terms of size up to 100, each rounded some ten times at 6e-8.
    assert_close(value.double().detach(), HEADS[name][0].log_prob(x, output_of(name)).detach(), rtol=1e-5, atol=1e-5)


@each_mean
def test_one_sample_of_one_datum_and_no_sample_at_all(name: str) -> None:
    head, count, _ = MEANS[name]
    for samples in (0, 1):
        output = randn(samples, 1, count * D, seed=13)
        assert head.log_prob(torch.zeros(1, D, dtype=DOUBLE), output).shape == (samples, 1)
        assert head.mean(output).shape == (samples, 1, D)
        if samples:  # PyTorch draws no categories where there are none
            assert head.sample(output, generator=make_generator(1)).shape == (samples, 1, D)


@each_mean
def test_a_head_runs_on_the_device_of_its_output(name: str) -> None:
    """The meta device has shapes and no numbers: a tensor made elsewhere would not mix with it."""
    head, count, _ = MEANS[name]
    if isinstance(head, LearnedNormalLikelihood):
        head = LearnedNormalLikelihood(None if head.logvar.ndim == 0 else D, device="meta", dtype=DOUBLE)
    output = randn(S, B, count * D).to("meta")
    assert head.log_prob(REALS.to("meta"), output).device.type == "meta"
    assert head.mean(output).device.type == "meta"


def test_data_and_outputs_broadcast() -> None:
    """A decoder's output for each latent alone, ``(S, 1, K D)``, serves all data."""
    for name, (head, x, *_) in HEADS.items():
        output = output_of(name)[:, :1]
        assert_close(head.log_prob(x, output).detach(), head.log_prob(x, output.expand(S, B, -1)).detach())
    bits, logits = (REALS > 0.0).double(), randn(S, 1, D)
    assert_close(BernoulliLikelihood().log_prob(bits, logits), log_bernoulli(bits, logits).sum(-1))


def test_a_bernoulli_head_is_its_equation_for_grey_levels_too() -> None:
    grey, logits = torch.sigmoid(REALS), 3.0 * randn(S, B, D, seed=14)
    assert_same_value_and_gradient(
        lambda o: BernoulliLikelihood().log_prob(grey, o), lambda o: log_bernoulli(grey, o).sum(-1), (logits,)
    )


# The discretised logistic: its probabilities sum to one wherever its numbers can be held.


def every_level(levels: int, centre: float, log_scale: float, dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all levels for one pixel, ``(K,)``, and the output with a gradient to it."""
    output = torch.tensor([[[centre, log_scale]]], dtype=dtype, requires_grad=True)
    x = torch.arange(levels, dtype=dtype).unsqueeze(-1)
    return DiscretisedLogisticLikelihood(levels).log_prob(x, output).squeeze(0), output


@given(
    levels=st.sampled_from([2, 3, 16, 256]),
    centre=st.floats(-1e4, 1e4),
    log_scale=st.floats(-80.0, 800.0),
)
def test_probabilities_sum_to_one(levels: int, centre: float, log_scale: float) -> None:
    log_p, output = every_level(levels, centre, log_scale)
    total = torch.logsumexp(log_p, 0)
    # Neighbours share an edge to the last bit. What is left is the rounding of the distance to the centre against the
    # width of a level, 2.2e-16 · |centre| · 128, on the part of the mass between the ends, which falls as the centre
    # moves out: at most 1e-13. Sums of 256 logarithms add as much.
    assert abs(float(total.detach())) <= 1e-12
    assert bool(torch.isfinite(log_p).all())
    assert float(log_p.detach().max()) <= 0.0
    (slope,) = torch.autograd.grad(log_p.sum(), output)
    assert bool(torch.isfinite(slope).all())


@given(centre=st.floats(-1e3, 1e3), log_scale=st.floats(-30.0, 200.0))
def test_single_precision_stays_finite(centre: float, log_scale: float) -> None:
    log_p, output = every_level(256, centre, log_scale, torch.float32)
    (slope,) = torch.autograd.grad(log_p.sum(), output)
    assert bool(torch.isfinite(log_p).all())
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize("centre", [-30.0, -1.0, 0.0031, 0.7, 25.0])
@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 5.0, 20.0, 40.0])
def test_probabilities_are_those_of_many_digits(centre: float, log_scale: float) -> None:
    """Far in the tails and for wide curves too, where a difference of two numbers near one would be lost."""
    log_p, _ = every_level(256, centre, log_scale)
    with localcontext() as context:
        context.prec = (
            60  # each tail is formed from its own end, so that differences lose the width over the scale only
        )
        m, s = Decimal(centre), Decimal(log_scale).exp()

        def below(edge: int) -> Decimal:
            return 1 / (1 + ((m - (Decimal(2 * edge + 1) / 255 - 1)) / s).exp())

        def above(edge: int) -> Decimal:
            return 1 / (1 + (((Decimal(2 * edge + 1) / 255 - 1) - m) / s).exp())

        for level in (0, 1, 127, 128, 200, 254, 255):
            if level == 0:
                p = below(0)
            elif level == 255:
                p = above(254)
            elif 2 * level / 255 - 1 < centre:
                p = below(level) - below(level - 1)
            else:
                p = above(level - 1) - above(level)
            expected = float(p.ln())
            # The distance, 31 at most, is rounded, and the scale divides what was lost.
            blur = 31.0 * 2.3e-16 * math.exp(-log_scale)
            assert abs(float(log_p[level].detach()) - expected) <= 1e-13 * abs(expected) + 4.0 * blur + 1e-14


def test_two_levels_are_a_bit() -> None:
    bits = (REALS > 0.0).double()
    centre, log_scale = randn(S, B, D, seed=15), randn(S, B, D, seed=16)
    value = DiscretisedLogisticLikelihood(2).log_prob(bits, torch.cat([centre, log_scale], -1))
    assert_close(value, td.Bernoulli(logits=centre * (-log_scale).exp()).log_prob(bits).sum(-1))


def test_a_wide_curve_has_the_gradient_of_its_tail() -> None:
    """Between the edges the density is flat: log p falls by one for each unit of the log-scale."""
    output = torch.tensor([[[0.0, 60.0]]], dtype=DOUBLE, requires_grad=True)
    value = DiscretisedLogisticLikelihood().log_prob(torch.tensor([[100.0]], dtype=DOUBLE), output)
    (slope,) = torch.autograd.grad(value.sum(), output)
    assert_close(slope[0, 0, 1], -1.0)
    # F'(0) = 1/4, times the width of a level over the scale.
    assert_close(value.detach()[0, 0], math.log(2.0 / 255.0 / 4.0) - 60.0)


def test_draws_at_both_ends_stay_on_the_levels() -> None:
    output = torch.tensor([[[-9.0, 9.0, 0.0, -3.0, -3.0, 20.0]]], dtype=DOUBLE)
    draws = DiscretisedLogisticLikelihood(8).sample(output.expand(200, 1, 6), generator=make_generator(1))
    assert torch.equal(draws[..., 0], torch.zeros(200, 1, dtype=DOUBLE))
    assert torch.equal(draws[..., 1], torch.full((200, 1), 7.0, dtype=DOUBLE))
    assert set(draws[..., 2].flatten().tolist()) == {0.0, 7.0}


@given(size=st.floats(-1e4, 1e4), level=st.integers(0, K - 1))
def test_categories_keep_their_numbers(size: float, level: int) -> None:
    output = torch.zeros(1, 1, K, dtype=DOUBLE)
    output[..., 2] = size
    output.requires_grad_()
    value = CategoricalLikelihood(K).log_prob(torch.tensor([[float(level)]], dtype=DOUBLE), output)
    (slope,) = torch.autograd.grad(value.sum(), output)
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(slope).all())


@given(logvar=st.floats(-80.0, 80.0))
def test_predicted_normals_keep_their_numbers(logvar: float) -> None:
    output = torch.tensor([[[1.0, logvar]]], dtype=DOUBLE, requires_grad=True)
    value = PredictedNormalLikelihood().log_prob(torch.tensor([[3.0]], dtype=DOUBLE), output)
    (slope,) = torch.autograd.grad(value.sum(), output)
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CategoricalLikelihood(1), ValueError, "levels: expected at least 2, found 1"),
        (lambda: DiscretisedLogisticLikelihood(0), ValueError, "levels: expected a positive integer, found 0"),
        (lambda: CategoricalLikelihood(2.0), TypeError, "levels: expected a positive integer, found 2.0"),  # type: ignore[arg-type]
        (lambda: LearnedNormalLikelihood(0), ValueError, "data_dim: expected a positive integer, found 0"),
        (
            lambda: PredictedNormalLikelihood().log_prob(REALS, randn(S, B, 7)),
            ValueError,
            "output: expected 2 numbers for each pixel, found 7 in all",
        ),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
