"""The mutual information gap and the majority votes on codes made by hand, whose scores are known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.evaluation.codes import FACTORS, MISTAKES, MU, STD, by_adaptive_quadrature
from tests.oracles import assert_close, randn
from vae_lib.evaluation import (
    MajorityVotes,
    factor_entropies,
    majority_vote_score,
    mutual_information,
    mutual_information_gap,
)
from vae_lib.rng import make_generator

DOUBLE = torch.float64
LOG2, LOG3 = math.log(2.0), math.log(3.0)


def every(*sizes: int) -> Tensor:
    """All combinations of factors with so many values, ``(N, K)``, int64."""
    return torch.tensor(list(itertools.product(*map(range, sizes))))


def noise(mu: Tensor, std: float) -> Tensor:
    return torch.full_like(mu, std)


def vote(mu: Tensor, std: Tensor, factors: Tensor, seed: int = 0, **options: Any) -> MajorityVotes:
    return majority_vote_score(mu, std, factors, generator=make_generator(seed), **options)


GRID = every(3, 4, 2)
NINE = every(3, 3)


def rotated(angle: float) -> Tensor:
    """Two factors of the values -1, 0 and 1, turned by an angle: all information is kept."""
    a, b = (NINE.double() - 1.0).unbind(1)
    return torch.stack([math.cos(angle) * a + math.sin(angle) * b, math.cos(angle) * b - math.sin(angle) * a], 1)


def on_a_circle(count: int) -> tuple[Tensor, Tensor]:
    """An angle of so many values as a point on the circle, and a second factor of two values as a third latent."""
    factors = every(count, 2)
    angle = 2.0 * math.pi * factors[:, 0].double() / count
    return torch.stack([angle.cos(), angle.sin(), factors[:, 1].double()], 1), factors


# --- the gap ---


def test_perfect_codes_have_gap_one() -> None:
    """Codes at integers with standard deviation 0.05: two are told apart but for a chance of exp(-50)."""
    result = mutual_information_gap(GRID.double(), noise(GRID.double(), 0.05), GRID)
    assert_close(result.gap, torch.ones(3), 0.0, 1e-12)
    assert result.mean == pytest.approx(1.0, abs=1e-12)
    assert_close(result.information, torch.diag(factor_entropies(GRID)), 0.0, 1e-12)
    assert_close(result.entropy, [LOG3, 2.0 * LOG2, LOG2])


def test_perfect_codes_with_much_noise_have_the_gap_of_their_overlap() -> None:
    mu = GRID.double()
    result = mutual_information_gap(mu, noise(mu, 0.5), GRID)
    for k, size in enumerate((3, 4, 2)):
        values = torch.arange(size)
        known = by_adaptive_quadrature(values.double(), torch.full((size,), 0.5, dtype=DOUBLE), values)
        assert float(result.gap[k]) == pytest.approx(known / math.log(size), abs=1e-9)
    assert 0.4 < result.mean < 0.8
    assert result.mean == pytest.approx(math.fsum(result.gap.tolist()) / 3.0)


@pytest.mark.parametrize("std", [0.01, 1.0])
def test_constant_codes_have_gap_zero(std: float) -> None:
    mu = torch.full((24, 4), 0.7, dtype=DOUBLE)
    assert_close(mutual_information_gap(mu, noise(mu, std), GRID).gap, torch.zeros(3), 0.0, 1e-13)


def test_a_duplicated_code_has_gap_zero_though_it_knows_all() -> None:
    mu = GRID.double()[:, [0, 1, 2, 1]]
    result = mutual_information_gap(mu, noise(mu, 0.05), GRID)
    assert_close(result.gap, [1.0, 0.0, 1.0], 0.0, 1e-12)
    assert_close(result.information[[1, 3], 1], [2.0 * LOG2] * 2, 0.0, 1e-12)
    assert result.mean == pytest.approx(2.0 / 3.0, abs=1e-12)


def test_codes_rotated_by_45_degrees_by_counting() -> None:
    """Each latent takes five values, in 1, 2, 3, 2 and 1 of nine rows; a factor leaves three of them, equally often."""
    mu = rotated(math.pi / 4.0)
    entropy = math.log(9.0) - (4.0 * LOG2 + 3.0 * LOG3) / 9.0
    result = mutual_information_gap(mu, noise(mu, 0.02), NINE)
    assert_close(result.information, torch.full((2, 2), entropy - LOG3, dtype=DOUBLE), 0.0, 1e-12)
    assert_close(result.gap, torch.zeros(2), 0.0, 1e-12)
    # Both latents together still name the row.
    assert len({tuple(row) for row in mu.tolist()}) == 9


@pytest.mark.parametrize("degrees", [0.0, 10.0, 30.0, 45.0, 80.0])
def test_rotated_codes_with_noise_by_adaptive_quadrature(degrees: float) -> None:
    mu = rotated(math.radians(degrees))
    std = noise(mu, 0.3)
    known = torch.tensor(
        [[by_adaptive_quadrature(mu[:, j], std[:, j], NINE[:, k]) for k in range(2)] for j in range(2)], dtype=DOUBLE
    )
    result = mutual_information_gap(mu, std, NINE)
    assert_close(result.gap, (known[0] - known[1]).abs() / LOG3, 0.0, 1e-9)


def test_the_gap_falls_as_codes_turn() -> None:
    scores = [mutual_information_gap(rotated(a), noise(NINE.double(), 0.3), NINE).mean for a in (0.0, 0.2, 0.4, 0.6)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.8
    assert scores[3] < 0.3


def test_without_noise_a_slightly_turned_code_knows_both_factors() -> None:
    """Nine values in each latent: either alone names the row. The gap is zero at any angle but the right ones."""
    mu = rotated(0.1)
    result = mutual_information_gap(mu, noise(mu, 1e-3), NINE)
    assert_close(result.information, torch.full((2, 2), LOG3, dtype=DOUBLE), 0.0, 1e-12)
    assert_close(result.gap, torch.zeros(2), 0.0, 1e-12)


def test_points_on_a_circle_by_counting() -> None:
    """Eight angles: cosine and sine each take five values, two of them once and three twice. All is known, no gap."""
    mu, factors = on_a_circle(8)
    result = mutual_information_gap(mu, noise(mu, 0.01), factors)
    entropy = 2.0 / 8.0 * math.log(8.0) + 3.0 / 4.0 * math.log(4.0)
    assert_close(result.information, [[entropy, 0.0], [entropy, 0.0], [0.0, LOG2]], 0.0, 1e-12)
    assert_close(result.gap, [0.0, 1.0], 0.0, 1e-12)


def test_one_latent_for_two_factors_has_gap_one() -> None:
    """The gap does not ask that a latent know of one factor alone. The votes do."""
    mu = torch.stack([3.0 * NINE[:, 0] + NINE[:, 1], torch.zeros(9)], 1).double()
    assert mutual_information_gap(mu, noise(mu, 0.02), NINE).mean == pytest.approx(1.0, abs=1e-12)
    assert vote(mu, noise(mu, 0.02), NINE).score == 0.5


def test_latents_that_are_not_used_change_nothing_and_one_latent_is_enough() -> None:
    factors = every(3)
    mu, std = torch.tensor([[0.0], [0.6], [1.0]], dtype=DOUBLE), torch.full((3, 1), 0.4, dtype=DOUBLE)
    alone = mutual_information_gap(mu, std, factors)
    assert_close(alone.gap, mutual_information(mu, std, factors)[0] / LOG3, 0.0, 1e-14)
    assert alone.information.shape == (1, 1)
    more = torch.cat([torch.zeros(3, 2, dtype=DOUBLE), mu], 1)
    spread = torch.cat([torch.ones(3, 2, dtype=DOUBLE), std], 1)
    assert_close(mutual_information_gap(more, spread, factors).gap, alone.gap, 0.0, 1e-12)


def test_the_gap_does_not_depend_on_names_order_or_units() -> None:
    mu, std = randn(24, 4, seed=1), 0.2 + 0.1 * randn(24, 4, seed=2).abs()
    gap = mutual_information_gap(mu, std, GRID).gap
    assert_close(mutual_information_gap(mu, std, 17 - 5 * GRID).gap, gap, 0.0, 1e-12)
    order = torch.tensor([2, 0, 3, 1])
    assert_close(mutual_information_gap(mu[:, order], std[:, order], GRID.flip(1)).gap, gap.flip(0), 0.0, 1e-12)
    units = torch.tensor([-3.0, 0.01, 40.0, 1.0], dtype=DOUBLE)
    assert_close(mutual_information_gap(units * mu - 2.0, units.abs() * std, GRID).gap, gap, 0.0, 1e-10)
    assert 0.01 < float(gap.max()) < 0.9


# --- the votes ---


def test_perfect_codes_win_all_votes() -> None:
    mu = GRID.double()[:, [2, 0, 1]]
    result = vote(mu, noise(mu, 0.05), GRID, votes_per_factor=50)
    assert result.score == 1.0
    assert result.votes.tolist() == [[0, 0, 50], [50, 0, 0], [0, 50, 0]]
    assert result.is_active.tolist() == [True, True, True]


@pytest.mark.parametrize("latents", [1, 5])  # a column of 0.1 alone has a variance, by rounding
@pytest.mark.parametrize("std", [0.0, 0.3])
def test_constant_codes_are_a_guess(std: float, latents: int) -> None:
    mu = torch.full((24, latents), 0.1, dtype=DOUBLE)
    result = vote(mu, noise(mu, std), GRID)
    assert result.score == 1.0 / 3.0
    assert result.votes.tolist() == [[0, 0, 0]] * latents
    assert not result.is_active.any()


def test_a_duplicated_code_wins_all_votes() -> None:
    """One of the two copies is enough: here the votes and the gap disagree. Of equals the first is taken."""
    mu = GRID.double()[:, [0, 1, 2, 1]]
    result = vote(mu, noise(mu, 0.05), GRID, votes_per_factor=20)
    assert result.score == 1.0
    assert result.votes.tolist() == [[20, 0, 0], [0, 20, 0], [0, 0, 20], [0, 0, 0]]


def test_a_circle_wins_all_votes() -> None:
    """Cosine and sine stand still when the angle does, and with nothing else. The gap of the angle is zero."""
    mu, factors = on_a_circle(8)
    assert vote(mu, noise(mu, 0.01), factors).score == 1.0


def test_rotated_codes_lose_votes() -> None:
    """At 45 degrees both latents vary alike whichever factor is fixed, and rounding must not tell them apart.

    At 10 degrees the latent nearer to the factor varies less: the votes do not see so small a turn.
    """
    result = vote(rotated(math.pi / 4.0), noise(NINE.double(), 0.05), NINE)
    assert result.score == 0.5
    assert result.votes.tolist() == [[200, 200], [0, 0]]
    assert vote(rotated(math.radians(10.0)), noise(NINE.double(), 0.05), NINE).score == 1.0


def test_a_score_by_counting() -> None:
    """Two rows are drawn for a vote. Fix the second of two bits: the first stands still too in half of the draws.

    Of equals the first latent is taken, so it gets all votes when its factor is fixed and half of them when not.
    """
    count = 2000
    factors = every(2, 2)
    result = vote(factors.double(), noise(factors.double(), 0.1), factors, num_rows=2, votes_per_factor=count)
    assert abs(result.score - 0.75) < 5.0 * math.sqrt(0.25 / count) / 2.0
    assert result.votes[:, 0].tolist() == [count, 0]
    assert abs(int(result.votes[0, 1]) - count / 2) < 5.0 * math.sqrt(0.25 * count)
    assert result.votes.sum(0).tolist() == [count, count]


def test_a_value_is_fixed_as_often_as_it_occurs() -> None:
    """A factor with the value 1 in a quarter of the rows; another latent stands still for each value."""
    factors = torch.tensor([[int(n >= 30), n % 2] for n in range(40)])
    a, swing = factors[:, 0].double(), torch.arange(40).remainder(5).double()
    mu = torch.stack([a * swing, (1.0 - a) * swing], 1)
    count = 2000
    result = vote(mu, noise(mu, 0.05), factors, votes_per_factor=count)
    error = math.sqrt(0.25 * 0.75 * count)
    assert abs(int(result.votes[1, 0]) - 0.25 * count) < 5.0 * error


def test_codes_that_know_nothing_do_not_score_by_learning_the_votes() -> None:
    """Many latents and few votes: on the votes it was learned from, pure noise would be right far too often."""
    mu, factors = randn(3000, 20, seed=3), torch.randint(2, (3000, 4), generator=make_generator(4))
    results = [vote(mu, noise(mu, 1.0), factors, seed, num_rows=5, votes_per_factor=25) for seed in range(20)]
    count = 20 * 4 * 25
    error = math.sqrt(0.25 * 0.75 / count)
    learned = sum(int(result.votes.max(1).values.sum()) for result in results) / count
    assert learned > 0.25 + 10.0 * error
    assert abs(sum(result.score for result in results) / 20 - 0.25) < 5.0 * error


def test_a_latent_that_is_not_used_gets_no_vote() -> None:
    """Its means are all alike but for one row: it would stand still almost always, and win."""
    idle = torch.zeros(24, 1, dtype=DOUBLE)
    idle[5] = 1e-3
    mu = torch.cat([idle, GRID.double()], 1)
    std = torch.cat([torch.ones(24, 1, dtype=DOUBLE), noise(GRID.double(), 0.05)], 1)
    result = vote(mu, std, GRID, num_rows=20)
    assert result.is_active.tolist() == [False, True, True, True]
    assert result.votes[0].tolist() == [0, 0, 0]
    assert result.score == 1.0
    assert vote(mu, std, GRID, num_rows=20, threshold=0.0).score < 0.9


def test_the_threshold_is_on_the_part_of_the_variance_that_the_means_have() -> None:
    """Means 0 and 2 have variance 1; with a mean variance of 3 beside it, that is a quarter."""
    factors = every(2)
    mu = torch.tensor([[0.0], [2.0]], dtype=DOUBLE)
    std = torch.tensor([[math.sqrt(2.0)], [2.0]], dtype=DOUBLE)
    for threshold, is_active in ((0.249, True), (0.251, False)):
        assert vote(mu, std, factors, threshold=threshold).is_active.tolist() == [is_active]
        assert vote(100.0 * mu, 100.0 * std, factors, threshold=threshold).is_active.tolist() == [is_active]
    for std_of_all, is_active in ((9.9, True), (10.0, False)):  # 1 / (1 + 9.9²) is just above a hundredth
        assert vote(mu, noise(mu, std_of_all), factors).is_active.tolist() == [is_active]


def test_the_votes_do_not_depend_on_names_or_units() -> None:
    mu = GRID.double() @ randn(3, 3, seed=8) + randn(24, 3, seed=7)
    std = noise(mu, 0.2)
    result = vote(mu, std, GRID)
    assert 0.34 < result.score < 0.99
    renamed = vote(mu, std, 3 * GRID - 40)
    assert (renamed.score, renamed.votes.tolist()) == (result.score, result.votes.tolist())
    units = torch.tensor([-4.0, 0.125, 32.0], dtype=DOUBLE)
    rescaled = vote(units * mu, units.abs() * std, GRID)
    assert (rescaled.score, rescaled.votes.tolist()) == (result.score, result.votes.tolist())
    turned = vote(mu.flip(1), std.flip(1), GRID)
    assert (turned.score, turned.votes.tolist()) == (result.score, result.votes.flip(0).tolist())


def test_the_generator_is_the_only_source_of_randomness() -> None:
    mu = GRID.double() @ randn(3, 3, seed=8) + randn(24, 3, seed=7)
    state = torch.get_rng_state()
    results = [vote(mu, noise(mu, 0.2), GRID, seed).votes.tolist() for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_single_precision_and_gradients() -> None:
    mu = GRID.float().requires_grad_()
    assert vote(mu, noise(mu, 0.1), GRID).score == 1.0


# --- mistakes ---


@pytest.mark.parametrize(("change", "error", "message"), MISTAKES)
def test_mistakes(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"mu": MU, "std": STD, "factors": FACTORS} | change
    with pytest.raises(error, match=f"^{message}$"):
        mutual_information_gap(**arguments)
    with pytest.raises(error, match=f"^{message}$"):
        vote(**arguments)


def test_a_factor_of_one_value_cannot_be_found() -> None:
    factors = torch.tensor([[0, 4], [1, 4], [2, 4]])
    message = "^factors: expected at least two values of each, found only 4 in column 1$"
    with pytest.raises(ValueError, match=message):
        mutual_information_gap(MU, STD, factors)
    with pytest.raises(ValueError, match=message):
        vote(MU, STD, factors)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_rows": 1}, ValueError, "num_rows: expected at least 2, for a variance, found 1"),
        ({"num_rows": 2.0}, TypeError, r"num_rows: expected a positive integer, found 2\.0"),
        ({"votes_per_factor": 0}, ValueError, "votes_per_factor: expected a positive integer, found 0"),
        ({"threshold": 1.0}, ValueError, r"threshold: expected a number from 0 to below 1, found 1\.0"),
        ({"threshold": -0.1}, ValueError, r"threshold: expected a number from 0 to below 1, found -0\.1"),
        ({"threshold": math.nan}, ValueError, "threshold: expected a number from 0 to below 1, found nan"),
    ],
)
def test_mistakes_with_votes(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        vote(MU, STD, FACTORS, **change)
