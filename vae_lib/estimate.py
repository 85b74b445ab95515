"""A Monte Carlo number is a value *and* its standard error."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """A mean of independent samples, with the standard error of that mean, in the same unit."""

    value: Tensor
    standard_error: Tensor


def mean_with_error(samples: Tensor, dim: int = 0) -> Estimate:
    r"""Mean over independent samples, and its standard error.

    .. math:: \bar f = \frac1S \sum_s f_s, \qquad
              \mathrm{se} = \sqrt{\frac{1}{S (S - 1)} \sum_s (f_s - \bar f)^2}

    Parameters
    ----------
    samples
        Independent values along ``dim``, in any unit. Not checked: independence, and a finite variance, without
        which the standard error means nothing.
    dim
        The axis to reduce.

    Raises
    ------
    ValueError
        If there are fewer than two samples.
    """
    count = samples.shape[dim]
    if count < 2:
        raise ValueError(f"samples: expected at least 2 along axis {dim}, found {count}")
    return Estimate(samples.mean(dim), samples.std(dim, correction=1) / count**0.5)
