"""A Monte Carlo number is a value *and* its standard error."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.protocols import Density


class Estimate(NamedTuple):
    """A mean of independent samples, with the standard error of that mean, in the same unit."""

    value: Tensor
    standard_error: Tensor


def sample_average_terms(
    density: Density, terms: Callable[[Tensor], Tensor], *, num_samples: int, generator: Generator
) -> Tensor:
    """Draw from a density and evaluate a function whose average over the draws is wanted, ``(S, B)``.

    Draws are reparameterised where the density can (it has ``rsample``), so the terms carry gradients to its
    parameters. Where it cannot, the terms carry no gradient at all: differentiating them with fixed draws would give
    numbers that look like a gradient and are not one (chapter 3 shows what is missing).

    Parameters
    ----------
    density
        A batch of B densities.
    terms
        Takes draws ``(S, B, L)``, returns ``(S, B)``.
    num_samples
        S, at least 1.
    generator
        The source of randomness.
    """
    checks.positive_int("num_samples", num_samples)
    rsample = getattr(density, "rsample", None)
    with torch.set_grad_enabled(torch.is_grad_enabled() and rsample is not None):
        values = terms((rsample or density.sample)(num_samples, generator=generator))
    checks.shape("terms", values, (num_samples, density.batch_size))
    return values


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
