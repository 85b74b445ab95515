r"""Two scores for how far latents and known factors stand one to one: the mutual information gap and majority votes.

Neither says what the other does. The gap asks that a factor be in one latent alone: two copies of a code have gap 0.
The votes ask that a latent answer to one factor alone: two copies score 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.evaluation.information import checked_codes, factor_entropies, mutual_information

# Variances, of which a latent has 1 over all rows, that differ by no more than this are equal.
_EQUAL = 1e-9


class InformationGap(NamedTuple):
    """The gap of each factor, ``(K,)``, and what it was made of, in nats.

    The fields are ``gap``, ``information`` ``(L, K)`` and ``entropy`` ``(K,)``.
    """

    gap: Tensor
    information: Tensor
    entropy: Tensor

    @property
    def mean(self) -> float:
        """The mean over the factors, from 0 to 1, which is the mutual information gap."""
        return float(self.gap.mean())


def mutual_information_gap(mu: Tensor, std: Tensor, factors: Tensor) -> InformationGap:
    r"""How much more the best latent knows of a factor than the next: Chen, Li, Grosse and Duvenaud (2018).

    .. math:: \frac1K \sum_k \frac{1}{H(v_k)}
              \left( I(z_{j(k)}; v_k) - \max_{j \ne j(k)} I(z_j; v_k) \right), \qquad
              j(k) = \operatorname*{arg\,max}_j I(z_j; v_k)

    It is 1 if every factor can be read without error from one latent, and no other knows anything of it. It does not
    ask that a latent know of one factor alone.

    Parameters
    ----------
    mu, std
        Means and standard deviations of q(z | x) for N data, ``(N, L)``.
    factors
        Values of the K factors, ``(N, K)``, int64; see :func:`~vae_lib.evaluation.mutual_information`.

    Returns
    -------
    InformationGap
        Gaps, informations and entropies, float64; ``.mean`` is the score. With a single latent the next one knows
        nothing, as a latent that is not used would.

    Raises
    ------
    ValueError, TypeError
        If the tables do not fit together, a number is out of range, or a factor has one value only.
    """
    information = mutual_information(mu, std, factors)
    _check_varied(factors)
    entropy = factor_entropies(factors)
    two_best = torch.cat([information, torch.zeros_like(information[:1])]).topk(2, dim=0).values
    return InformationGap((two_best[0] - two_best[1]) / entropy, information, entropy)


class MajorityVotes(NamedTuple):
    """The score, the votes it was learned from, ``(L, K)``, and which latents could be voted for, ``(L,)``."""

    score: float
    votes: Tensor
    is_active: Tensor


def majority_vote_score(
    mu: Tensor,
    std: Tensor,
    factors: Tensor,
    *,
    num_rows: int = 100,
    votes_per_factor: int = 200,
    threshold: float = 0.01,
    generator: Generator,
) -> MajorityVotes:
    r"""How well the latent that varies least tells which factor was held fixed: Kim and Mnih (2018).

    For one vote a factor k and one of its values are fixed, and rows with this value are drawn. The vote is for the
    latent whose mean varies least over these rows, relative to its variance over all. Then each latent stands for the
    factor for which it got most votes, and the score is how often that is right.

    Parameters
    ----------
    mu, std
        Means and standard deviations of q(z | x) for N data, ``(N, L)``. The variances are those of the means; the
        standard deviations say which latents are in use.
    factors
        Values of the K factors, ``(N, K)``, int64. The factors should be independent in this table.
    num_rows
        Drawn for one vote, with replacement.
    votes_per_factor
        To learn from, and as many again to score on.
    threshold
        A latent is in use if the variance of its means is more than this part of its whole variance under q, that of
        the means plus the mean of the variances.
    generator
        For the rows.

    Returns
    -------
    MajorityVotes
        The score is from 0 to 1. Without a latent in use it is 1 / K: a guess.

    Raises
    ------
    ValueError, TypeError
        If the tables do not fit together, a number is out of range, or a factor has one value only.

    Notes
    -----
    Where the paper leaves a choice, or another is better: a latent that is not in use is left out, because its
    means hardly vary and any noise in them would decide; the measure for that does not change if a latent is rescaled.
    All factors are fixed equally often. The score is taken on new votes: on those that it was learned from, codes that
    know nothing would be above 1 / K. Of latents that vary alike, to rounding, the first gets the vote; of factors with
    equally many votes the first is taken.
    """
    mu, std, factors = checked_codes(mu, std, factors)
    checks.positive_int("num_rows", num_rows)
    checks.positive_int("votes_per_factor", votes_per_factor)
    if num_rows < 2:
        raise ValueError(f"num_rows: expected at least 2, for a variance, found {num_rows}")
    if not 0.0 <= threshold < 1.0:
        raise ValueError(f"threshold: expected a number from 0 to below 1, found {threshold!r}")
    _check_varied(factors)
    # Without its first row a constant is zero, and so is its variance, whatever the rounding.
    mu = mu - mu[0]
    variance = mu.var(0, correction=0)
    is_active = variance > threshold * (variance + std.square().mean(0))
    num_factors = factors.shape[1]
    if not bool(is_active.any()):
        return MajorityVotes(1.0 / num_factors, torch.zeros(mu.shape[1], num_factors, dtype=torch.int64), is_active)
    # A latent that is not in use never varies least.
    scaled = torch.where(is_active, mu / variance.sqrt(), torch.nan)

    def vote() -> Tensor:
        return torch.stack(
            [_votes(scaled, column, num_rows, votes_per_factor, generator) for column in factors.unbind(1)], 1
        )

    learned, new = vote(), vote()
    right = new.gather(1, learned.argmax(1, keepdim=True)).sum()
    return MajorityVotes(float(right) / (num_factors * votes_per_factor), learned, is_active)


def _votes(scaled: Tensor, column: Tensor, num_rows: int, count: int, generator: Generator) -> Tensor:
    """How often each latent varies least when one factor, ``column (N,)``, is fixed: ``(L,)``."""
    order = column.argsort(stable=True)
    _, place, sizes = column.unique(return_inverse=True, return_counts=True)
    # The value is that of a row drawn uniformly; rows with that value lie side by side in the order.
    group = place[torch.randint(len(column), (count, 1), generator=generator)]
    first, size = (sizes.cumsum(0) - sizes)[group], sizes[group]
    uniform = torch.rand(count, num_rows, generator=generator, dtype=torch.float64)
    rows = order[first + (uniform * size).long()]
    variances = scaled[rows].var(1).nan_to_num(torch.inf)
    # Of codes that vary alike the first is taken: rounding, which may well depend on the factor, must not choose.
    is_least = variances <= variances.amin(1, keepdim=True) + _EQUAL
    return is_least.long().argmax(1).bincount(minlength=scaled.shape[1])


def _check_varied(factors: Tensor) -> None:
    for k, column in enumerate(factors.unbind(1)):
        if bool((column == column[0]).all()):
            raise ValueError(
                f"factors: expected at least two values of each, found only {int(column[0])} in column {k}"
            )
