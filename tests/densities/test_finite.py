"""A mass function on any finite set of vectors: against a table written out, and against independent bits."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pytest
import scipy.stats
import torch

from tests.oracles import B, S, assert_close, assert_same_value_and_gradient, randn
from vae_lib.densities import Bernoulli, FiniteDensity
from vae_lib.protocols import Density, ReparameterizedDensity
from vae_lib.rng import make_generator

# Six vectors of length 2 with one coordinate in common, in no order.
SUPPORT = torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 1.5], [-1.0, 2.0], [3.0, 2.0], [0.5, 0.5]], dtype=torch.float64)
LOGITS = randn(B, 6, seed=1)
CHOSEN = torch.tensor([[0, 1, 2], [3, 3, 3], [5, 4, 0], [1, 0, 1], [2, 2, 4]])


def test_log_prob_is_the_entry_of_the_table() -> None:
    assert_same_value_and_gradient(
        lambda a: FiniteDensity(a, SUPPORT).log_prob(SUPPORT[CHOSEN]),
        lambda a: torch.stack([torch.log_softmax(a, 1)[b, CHOSEN[:, b]] for b in range(B)], dim=1),
        (LOGITS,),
    )
    density = FiniteDensity(LOGITS, SUPPORT)
    assert_close(density.log_probs.exp().sum(1), torch.ones(B))
    assert (density.batch_size, density.event_dim) == (B, 2)
    assert isinstance(density, Density)
    assert not isinstance(density, ReparameterizedDensity)


def test_what_is_not_in_the_support_is_impossible() -> None:
    density = FiniteDensity(LOGITS, SUPPORT)
    half_right = torch.tensor([3.0, 1.5], dtype=torch.float64).expand(
        2, B, 2
    )  # each coordinate occurs, the pair does not
    assert torch.equal(density.log_prob(half_right), torch.full((2, B), -math.inf, dtype=torch.float64))
    assert density.log_prob(half_right[:0]).shape == (0, B)


def test_independent_bits_as_a_table() -> None:
    bits = Bernoulli(randn(B, 3, seed=2))
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    log_probs = bits.log_prob(every.unsqueeze(1).expand(8, B, 3))
    table = FiniteDensity(log_probs.T + 5.0, every)
    value = bits.sample(S, generator=make_generator(1))
    assert_close(table.log_prob(value), bits.log_prob(value))


def test_draws_by_chi_square() -> None:
    logits = LOGITS.clone().requires_grad_()
    draws = FiniteDensity(logits, SUPPORT).sample(20_000, generator=make_generator(3))
    assert (draws.shape, draws.dtype, draws.requires_grad) == ((20_000, B, 2), torch.float64, False)
    counts = (draws.unsqueeze(2) == SUPPORT).all(-1).sum(0)
    assert counts.sum(1).tolist() == [20_000] * B
    for b in range(B):
        expected = 20_000 * torch.softmax(LOGITS[b], 0)
        assert scipy.stats.chisquare(counts[b].numpy(), expected.numpy()).pvalue > 1e-4  # the level of test_draws.py
    again = FiniteDensity(LOGITS, SUPPORT).sample(20_000, generator=make_generator(3))
    assert torch.equal(draws, again)
    # Draws for different data are independent: a correlation has standard deviation 1/sqrt(20 000), here five of them.
    first = draws[:, :, 0]
    correlations = torch.corrcoef(first.T) - torch.eye(B)
    assert float(correlations.abs().max()) < 5 / 20_000**0.5
    assert abs(float(torch.corrcoef(torch.stack([first[1:, 0], first[:-1, 0]]))[0, 1])) < 5 / 20_000**0.5


Z = torch.zeros


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FiniteDensity(Z(6), Z(6, 2)), ValueError, "logits: expected shape (B, K), found (6,)"),
        (lambda: FiniteDensity(Z(3, 6), Z(5, 2)), ValueError, "support: expected shape (6, L), found (5, 2)"),
        (
            lambda: FiniteDensity(Z(3, 6), Z(6, 2).double()),
            TypeError,
            "support: expected torch.float32 as the tensors it meets have, found torch.float64",
        ),
        (
            lambda: FiniteDensity(LOGITS, SUPPORT).log_prob(Z(S, B, 3).double()),
            ValueError,
            f"value: expected shape (S, {B}, 2), found ({S}, {B}, 3)",
        ),
        (
            lambda: FiniteDensity(LOGITS, SUPPORT).sample(0, generator=make_generator(0)),
            ValueError,
            "num_samples: expected a positive integer, found 0",
        ),
    ],
)
def test_what_it_cannot_use_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message) + "$"):
        call()
