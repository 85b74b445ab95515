"""A mean and its standard error, against scipy and against the spread of many means."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.stats
import torch

from tests.oracles import assert_close, randn
from vae_lib.densities import Bernoulli, DiagonalNormal
from vae_lib.estimate import Estimate, mean_with_error, sample_average_terms
from vae_lib.rng import make_generator


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_mean_and_standard_error_are_scipys(dim: int) -> None:
    samples = randn(7, 5, seed=1)
    estimate = mean_with_error(samples, dim)
    assert isinstance(estimate, Estimate)
    assert_close(estimate.value, samples.numpy().mean(dim))
    assert_close(estimate.standard_error, scipy.stats.sem(samples.numpy(), axis=dim, ddof=1))


def test_the_default_axis_is_the_first() -> None:
    samples = randn(7, 5, seed=1)
    assert torch.equal(mean_with_error(samples).value, mean_with_error(samples, 0).value)


def test_the_standard_error_is_the_spread_of_the_mean() -> None:
    # 20 000 means of 10 normals: the relative error of a sample variance is sqrt(2/20000) = 1 %; five of them.
    estimate = mean_with_error(randn(10, 20_000, seed=2))
    assert float(estimate.value.var()) == pytest.approx(0.1, rel=0.05)
    assert float((estimate.standard_error**2).mean()) == pytest.approx(0.1, rel=0.05)


def test_two_samples_are_enough_and_one_is_not() -> None:
    assert float(mean_with_error(torch.tensor([1.0, 3.0])).standard_error) == pytest.approx(1.0)
    for count in (0, 1):
        with pytest.raises(ValueError, match=f"^samples: expected at least 2 along axis 0, found {count}$"):
            mean_with_error(torch.zeros(count, 4))
    with pytest.raises(ValueError, match=r"^samples: expected at least 2 along axis 1, found 1$"):
        mean_with_error(torch.zeros(4, 1), 1)


def test_terms_are_evaluated_at_draws_of_the_density() -> None:
    density = DiagonalNormal(randn(3, 2, seed=3), randn(3, 2, seed=4))
    found = sample_average_terms(density, lambda z: z.sum(-1), num_samples=5, generator=make_generator(1))
    assert torch.equal(found, density.sample(5, generator=make_generator(1)).sum(-1))


def test_terms_carry_the_gradient_of_a_path_or_none() -> None:
    mu = randn(3, 2, seed=3).requires_grad_()

    def terms(z: torch.Tensor) -> torch.Tensor:
        return (z * mu).sum(-1)

    normal, bits = DiagonalNormal(mu, torch.zeros_like(mu)), Bernoulli(mu)
    found = sample_average_terms(normal, terms, num_samples=1, generator=make_generator(1))
    z = normal.sample(1, generator=make_generator(1))[0]
    (gradient,) = torch.autograd.grad(found.sum(), mu)
    assert_close(gradient, (z + mu).detach())  # z from the explicit mu, and mu through dz/dmu = 1
    assert not sample_average_terms(bits, terms, num_samples=1, generator=make_generator(1)).requires_grad
    with torch.no_grad():
        assert not sample_average_terms(normal, terms, num_samples=1, generator=make_generator(1)).requires_grad
    assert torch.is_grad_enabled()


def test_terms_of_another_shape_are_refused() -> None:
    density = DiagonalNormal(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"^terms: expected shape \(5, 3\), found \(5, 3, 2\)$"):
        sample_average_terms(density, lambda z: z, num_samples=5, generator=make_generator(1))


class Unchecked:
    """A density of someone else's that looks at nothing."""

    batch_size, event_dim = 3, 2

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return value.sum(-1)

    def sample(self, num_samples: int, *, generator: torch.Generator) -> torch.Tensor:
        return torch.zeros(abs(int(num_samples)), 3, 2)


@pytest.mark.parametrize("count", [0, -1, 2.0])
def test_the_number_of_draws_is_checked_for_every_density(count: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^num_samples: expected a positive integer, found {count}$"):
        sample_average_terms(Unchecked(), lambda z: z.sum(-1), num_samples=count, generator=make_generator(1))
