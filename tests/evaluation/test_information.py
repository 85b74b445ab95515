"""Mutual information of codes and factors: by adaptive quadrature, by counting, by draws, and what must hold of it."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from tests.evaluation.codes import FACTORS, MISTAKES, MU, STD, by_adaptive_quadrature, mixture, pieces
from tests.oracles import assert_close, assert_mean, randn
from vae_lib.evaluation import factor_entropies, information, mutual_information
from vae_lib.rng import make_generator

DOUBLE = torch.float64


def integers(high: int, *shape: int, seed: int) -> Tensor:
    return torch.randint(high, shape, generator=make_generator(seed))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE).unsqueeze(1)


def entropy_of(values: Iterable[Any]) -> float:
    counts = Counter(values)
    return math.fsum(n / counts.total() * math.log(counts.total() / n) for n in counts.values())


def random_case(seed: int, least: float, largest: float) -> tuple[Tensor, Tensor, Tensor]:
    """Ten codes of two latents, with standard deviations spread evenly in their logarithm, and factors of 2 and 3."""
    uniform = torch.rand(10, 2, generator=make_generator(seed, "std"), dtype=DOUBLE)
    std = least * (largest / least) ** uniform
    factors = torch.stack([integers(2, 10, seed=seed), integers(3, 10, seed=seed + 1)], 1)
    return randn(10, 2, seed=seed), std, factors


@pytest.mark.parametrize(("least", "largest"), [(0.02, 0.1), (0.3, 1.0), (1e-3, 2.0), (1.0, 1.0), (3.0, 5.0)])
def test_it_is_that_of_adaptive_quadrature(least: float, largest: float) -> None:
    mu, std, factors = random_case(3, least, largest)
    found = mutual_information(mu, std, factors)
    expected = [[by_adaptive_quadrature(mu[:, n], std[:, n], factors[:, k]) for k in range(2)] for n in range(2)]
    assert found.dtype == DOUBLE
    assert_close(found, expected, rtol=0.0, atol=1e-10)
    assert float(found.max() - found.min()) > 1e-3  # not all alike


@pytest.mark.parametrize("distance", [0.1, 1.0, 3.0, 5.0, 6.0, 9.0, 10.0, 14.0, 40.0])
def test_one_bit_through_a_normal_channel(distance: float) -> None:
    """Log 2 less the mean of log(1 + exp(-d (d / 2 + e))) over standard noise e; d is in standard deviations."""

    def lost(e: float) -> float:
        gain = distance * (0.5 * distance + e)  # log q(z | v) - log q(z | other v)
        return float(np.logaddexp(0.0, -gain)) * math.exp(-0.5 * e * e) / math.sqrt(2.0 * math.pi)

    edges = np.linspace(-12.0, 12.0, 49)
    loss = sum(integrate.quad(lost, a, b, epsabs=1e-14)[0] for a, b in itertools.pairwise(edges))
    found = mutual_information(
        column(0.0, 0.3 * distance), torch.full((2, 1), 0.3, dtype=DOUBLE), torch.tensor([[0], [7]])
    )
    assert_close(found, [[math.log(2.0) - loss]], rtol=0.0, atol=1e-10)


def test_narrow_codes_are_counted() -> None:
    """Codes at integers with hardly any noise: what is left is the information of two columns of a table."""
    place, factors = integers(6, 40, 3, seed=5), integers(4, 40, 2, seed=6)
    found = mutual_information(place.double(), torch.full((40, 3), 1e-6, dtype=DOUBLE), factors)
    for code, row in zip(place.T.tolist(), found.tolist(), strict=True):
        for values, known in zip(factors.T.tolist(), row, strict=True):
            pairs = entropy_of(zip(code, values, strict=True))
            assert known == pytest.approx(entropy_of(code) + entropy_of(values) - pairs, abs=1e-9)


def test_a_draw_that_is_classified_by_torch_distributions() -> None:
    mu, std, factors = random_case(7, 0.2, 0.8)
    values = factors[:, 1]
    given = [
        MixtureSameFamily(Categorical(torch.ones(len(rows), dtype=DOUBLE)), Normal(mu[rows, 0], std[rows, 0]))
        for rows in ((values == v).nonzero()[:, 0] for v in range(3))
    ]
    frequency = values.bincount().double() / 10.0
    generator = make_generator(8)
    rows = torch.randint(10, (40_000,), generator=generator)
    z = mu[rows, 0] + std[rows, 0] * torch.randn(40_000, generator=generator, dtype=DOUBLE)
    log_given = torch.stack([density.log_prob(z) for density in given])
    log_ratio = log_given[values[rows], torch.arange(40_000)] - (log_given + frequency.log().unsqueeze(1)).logsumexp(0)
    assert_mean(log_ratio, mutual_information(mu, std, factors)[0, 1], 0.01)


def test_the_rate_is_more_by_the_distance_of_the_aggregate_from_the_prior() -> None:
    """With the row as factor: the mean KL to N(0, 1) is I(z; n) + KL(q(z) || N(0, 1))."""
    mu, std, _ = random_case(9, 0.1, 0.7)
    information = mutual_information(mu, std, torch.arange(10).unsqueeze(1))[:, 0]
    rate = (0.5 * (mu**2 + std**2 - 1.0) - std.log()).mean(0)
    for latent in range(2):
        m, s = mu[:, latent].numpy(), std[:, latent].numpy()

        def distance(z: float, m: Any = m, s: Any = s) -> float:
            p = mixture(z, m, s)
            return p * (math.log(p) + 0.5 * z * z + 0.5 * math.log(2.0 * math.pi)) if p > 0.0 else 0.0

        gap = sum(integrate.quad(distance, *ends, epsabs=1e-12)[0] for ends in pieces(m, s))
        assert gap > 0.01
        assert float(rate[latent] - information[latent]) == pytest.approx(gap, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 5), st.floats(-3.0, 1.5), st.floats(0.0, 3.0))
def test_it_lies_between_zero_and_the_entropy(seed: int, rows: int, values: int, log_std: float, spread: float) -> None:
    uniform = torch.rand(rows, 2, generator=make_generator(seed), dtype=DOUBLE)
    factors = integers(values, rows, 3, seed=seed)
    found = mutual_information(randn(rows, 2, seed=seed), 10.0 ** (log_std - spread * uniform), factors)
    assert float(found.min()) > -1e-10
    assert float((found - factor_entropies(factors)).max()) < 1e-10


def test_a_latent_that_is_the_same_for_all_data_knows_nothing() -> None:
    mu, std, factors = random_case(11, 0.1, 0.5)
    mu[:, 0], std[:, 0] = 3.0, 0.25
    found = mutual_information(mu, std, factors)
    assert_close(found[0], [0.0, 0.0], atol=1e-14)
    assert float(found[1].min()) > 0.01


def test_the_noise_itself_can_tell() -> None:
    """Equal means, unequal standard deviations: that is information too."""
    std = column(0.3, 1.0)
    found = mutual_information(torch.zeros(2, 1, dtype=DOUBLE), std, torch.tensor([[0], [1]]))
    assert 0.1 < float(found) < math.log(2.0)
    assert_close(
        found, [[by_adaptive_quadrature(torch.zeros(2, dtype=DOUBLE), std[:, 0], torch.tensor([0, 1]))]], 0.0, 1e-10
    )


def test_names_of_values_order_of_rows_unit_and_sign_do_not_matter() -> None:
    mu, std, factors = random_case(12, 0.05, 1.0)
    found = mutual_information(mu, std, factors)
    names = torch.tensor([[40, -7], [3, 9**17], [0, 12]])
    renamed = torch.stack([names[factors[:, k], k] for k in range(2)], 1)
    assert_close(mutual_information(mu, std, renamed), found, 0.0, 1e-12)
    assert_close(mutual_information(mu.flip(0), std.flip(0), factors.flip(0)), found, 0.0, 1e-12)
    assert_close(mutual_information(mu.flip(1), std.flip(1), factors.flip(1)), found.flip(0, 1), 0.0, 1e-12)
    assert_close(mutual_information(5.0 - 300.0 * mu, 300.0 * std, factors), found, 0.0, 1e-10)
    assert_close(mutual_information(1000.0 + 1e-3 * mu, 1e-3 * std, factors), found, 0.0, 1e-9)
    # Every row twice is the same distribution.
    assert_close(mutual_information(mu.repeat(2, 1), std.repeat(2, 1), factors.repeat(2, 1)), found, 0.0, 1e-12)


def test_a_needle_beside_a_haystack() -> None:
    """Components of very different width, and far apart: no density is zero where it is asked for."""
    mu, std = column(0.0, 0.0, 50.0, 50.0), column(1e-4, 1.0, 1e-4, 2.0)
    factors = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    found = mutual_information(mu, std, factors)
    assert_close(found[0, 0], math.log(2.0), 0.0, 1e-10)
    assert_close(found[0, 1], by_adaptive_quadrature(mu[:, 0], std[:, 0], factors[:, 1]), 0.0, 1e-10)


def test_many_rows_are_taken_a_few_nodes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    mu, std, factors = random_case(13, 0.1, 0.5)
    found = mutual_information(mu, std, factors)
    for entries in (1, 77):
        monkeypatch.setattr(information, "_ENTRIES", entries)
        assert_close(mutual_information(mu, std, factors), found, 0.0, 1e-12)


def test_single_precision_and_gradients() -> None:
    mu, std, factors = random_case(14, 0.1, 0.5)
    mu, std = mu.float(), std.float()
    found = mutual_information(mu.requires_grad_(), std.requires_grad_(), factors)
    assert found.dtype == DOUBLE
    assert not found.requires_grad
    assert_close(found, mutual_information(mu.double(), std.double(), factors), 0.0, 1e-14)


def test_entropies() -> None:
    factors = torch.tensor([[0, 5, 1], [0, -5, 1], [9, 5, 1], [8, -5, 1]])
    found = factor_entropies(factors)
    assert found.dtype == DOUBLE
    assert_close(found, [1.5 * math.log(2.0), math.log(2.0), 0.0])
    many = integers(7, 50, 2, seed=15)
    assert_close(factor_entropies(many), [entropy_of(values) for values in many.T.tolist()])


@pytest.mark.parametrize(("change", "error", "message"), MISTAKES)
def test_mistakes(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        mutual_information(**({"mu": MU, "std": STD, "factors": FACTORS} | change))


def test_codes_without_noise_have_no_density() -> None:
    std = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"^std: expected positive numbers, found 0 at \(2, 0\)$"):
        mutual_information(MU, std, FACTORS)


def test_noise_that_cannot_be_resolved_is_told() -> None:
    mu = torch.tensor([[0.0, 50.0]] * 3, dtype=DOUBLE)
    std = torch.tensor([[1e-12, 4e-8]] * 3, dtype=DOUBLE)
    message = r"^std: expected at least 1e-09 of the latent's largest mean, found 4e-08 at \(0, 1\)$"
    with pytest.raises(ValueError, match=message):
        mutual_information(mu, std, FACTORS)
    assert_close(mutual_information(mu, 1.5 * std, FACTORS), torch.zeros(2, 1), 0.0, 1e-6)


@pytest.mark.parametrize(("factors", "error"), [(FACTORS.int(), TypeError), (FACTORS[:, 0], ValueError)])
def test_mistakes_with_entropies(factors: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^factors: expected "):
        factor_entropies(factors)
