"""log p(x) by importance sampling where it is known, the honesty of its error bar, and what `rows` may not change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from torch import Generator, Tensor

from tests.oracles import MODELS, RTOL, assert_close, model_case, randn
from vae_lib.bounds import importance_weighted_bound, log_weights
from vae_lib.densities import DiagonalNormal, FullNormal
from vae_lib.estimate import mean_with_error
from vae_lib.evaluation import MarginalLikelihood, log_p_x
from vae_lib.evaluation.marginal_likelihood import MOST_DATA
from vae_lib.exact import LinearGaussian
from vae_lib.models import VAE, BernoulliLikelihood, NormalEncoder, mlp
from vae_lib.rng import make_generator

DOUBLE = torch.float64


class Watched:
    """A model that notes how many latents it is asked to decode at a time."""

    def __init__(self, model: Any) -> None:
        self.model, self.decoded = model, list[tuple[int, int]]()
        self.data_dim, self.latent_dim = model.data_dim, model.latent_dim

    def prior(self, batch_size: int) -> Any:
        return self.model.prior(batch_size)

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        self.decoded.append((z.shape[0], z.shape[1]))
        return self.model.log_p_x_given_z(x, z)  # type: ignore[no-any-return]

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        return self.model.sample_x_given_z(z, generator=generator)  # type: ignore[no-any-return]


def one_dimensional() -> tuple[LinearGaussian, DiagonalNormal]:
    """z ~ N(0, 1), x | z ~ N(z, 1), and for x = 1.5 a q that is right in its mean and too wide: bounded weights."""
    one = torch.ones(1, dtype=DOUBLE)
    q = DiagonalNormal(torch.tensor([[0.75]], dtype=DOUBLE), torch.tensor([[0.6]], dtype=DOUBLE))
    return LinearGaussian(one[:, None], 0.0 * one, 0.0 * one), q


def copies_of_q(x: Tensor) -> DiagonalNormal:
    _, q = one_dimensional()
    return DiagonalNormal(q.mu.expand(x.shape[0], 1), q.logvar.expand(x.shape[0], 1))


def bits_vae() -> tuple[VAE, Tensor]:
    generator = make_generator(1)
    vae = VAE(
        NormalEncoder(mlp([6, 7, 4], generator=generator, dtype=DOUBLE)),
        mlp([2, 7, 6], generator=generator, dtype=DOUBLE),
        BernoulliLikelihood(),
        latent_dim=2,
        data_dim=6,
    )
    return vae, (randn(5, 6, seed=2) > 0.0).to(DOUBLE)


def test_all_four_numbers_by_numpy() -> None:
    log_w = 2.0 * randn(9, 4, seed=1)
    log_w[0, 2] = -math.inf  # one weight of zero among others
    weights = np.exp(log_w.numpy())
    result = MarginalLikelihood.from_log_weights(log_w)
    assert_close(result.value, scipy.special.logsumexp(log_w.numpy(), axis=0) - math.log(9))
    assert_close(result.standard_error, weights.std(0, ddof=1) / 3.0 / weights.mean(0))
    assert_close(result.effective_sample_size, weights.sum(0) ** 2 / (weights**2).sum(0))
    assert_close(result.largest_weight, weights.max(0) / weights.sum(0))


@pytest.mark.parametrize("level", [-1e4, 0.0, 1e4])
def test_equal_weights_of_any_size(level: float) -> None:
    result = MarginalLikelihood.from_log_weights(torch.full((8, 1), level, dtype=DOUBLE))
    for value, expected in zip(result, (level, 0.0, 8.0, 0.125), strict=True):
        assert_close(value, [expected])


def test_one_weight_that_carries_everything() -> None:
    log_w = torch.tensor([[-1e3], [0.0], [-1e3], [-1e3]], dtype=DOUBLE)
    for value, expected in zip(MarginalLikelihood.from_log_weights(log_w), (-math.log(4), 1.0, 1.0, 1.0), strict=True):
        assert_close(value, [expected])


def test_no_weight_at_all_is_minus_infinity() -> None:
    log_w = torch.tensor([[-math.inf, 0.0], [-math.inf, 0.0], [-math.inf, 0.0]], dtype=DOUBLE)
    result = MarginalLikelihood.from_log_weights(log_w)
    for value, expected in zip(result, (-math.inf, math.inf, 0.0, 0.0), strict=True):
        assert float(value[0]) == expected
    assert_close(result.effective_sample_size[1], 3.0)


def test_a_model_that_gives_a_datum_no_mass() -> None:
    class Impossible(Watched):
        def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
            possible = super().log_p_x_given_z(x, z)
            return possible.masked_fill(x[:, 0] > 5.0, -math.inf)

    model, _ = one_dimensional()
    x = torch.tensor([[1.5], [9.0]], dtype=DOUBLE)
    result = log_p_x(Impossible(model), model.posterior, x, num_samples=10, generator=make_generator(3))
    assert_close(result.value[0], model.log_p_x(x[:1])[0])
    assert float(result.value[1]) == -math.inf


@pytest.mark.parametrize("name", MODELS)
def test_the_posterior_as_q_is_exact(name: str) -> None:
    """Every weight is p(x) itself."""
    model, x, _ = model_case(name)
    result = log_p_x(model, model.posterior, x, num_samples=50, generator=make_generator(4))
    assert_close(result.value, model.log_p_x(x))
    # What rounding leaves: log-weights that differ by some 1e-13.
    for part, expected in zip(result[1:], (0.0, 50.0, 1.0 / 50.0), strict=True):
        assert_close(part, [expected] * 3)


@pytest.mark.parametrize("name", MODELS)
def test_another_q_within_its_own_error(name: str) -> None:
    model, x, q = model_case(name)
    result = log_p_x(model, lambda _: q, x, num_samples=30_000, generator=make_generator(5))
    assert float(result.standard_error.max()) < 0.02
    # The expectation lies half the square of the error lower, to first order.
    worst = (result.value - model.log_p_x(x)).abs() - 5.0 * result.standard_error - result.standard_error**2
    assert float(worst.max()) <= 0.0
    # Var[w] / mean² is K / ESS - 1, with K - 1 in the place of K for the unbiased variance.
    size = 30_000 / (1.0 + 29_999 * result.standard_error**2)
    assert_close(result.effective_sample_size, size)
    assert bool((result.largest_weight * result.effective_sample_size >= 1.0 - RTOL).all())


def test_it_is_the_bound_of_the_same_draws() -> None:
    vae, x = bits_vae()
    result = log_p_x(vae, vae, x, num_samples=40, generator=make_generator(6), rows=7)
    q = vae(x)
    log_w = log_weights(vae, q, x, q.sample(40, generator=make_generator(6)))
    assert_close(result.value, importance_weighted_bound(log_w)[0].detach())
    assert not any(part.requires_grad for part in result)


def test_the_error_bar_covers() -> None:
    """(value - log p(x)) / error over n = 4000 repeats: mean and variance near those of a standard normal.

    By quadrature the weights over p(x) have standard deviation s = 0.67, skewness g = -0.10 and kurtosis 1.5. To first
    order the mean of such scores is (s - g) / (2 sqrt(K)) = 0.017 and their variance 1 + O(1 / K), with K = 500. Over
    n repeats the mean is known to 1 / sqrt(n) = 0.016 and the variance to sqrt(2 / n) = 0.022.
    """
    model, _ = one_dimensional()
    x = torch.full((4000, 1), 1.5, dtype=DOUBLE)
    result = log_p_x(model, copies_of_q, x, num_samples=500, generator=make_generator(7), rows=100_000)
    scores = (result.value - model.log_p_x(x)) / result.standard_error
    assert float(result.standard_error.mean()) == pytest.approx(0.67 / 500**0.5, rel=0.01)
    assert float(scores.var()) == pytest.approx(1.0, abs=5 * 0.022 + 5 / 500)
    assert float(scores.mean()) == pytest.approx(0.017, abs=5 * 0.016)


def test_a_q_that_is_too_narrow_deceives_all_four_numbers() -> None:
    """Its variance is a hundredth of the posterior's, so the weights have infinite variance, and no draw shows it.

    The middle 99.9 % of q, all that some 1000 draws see, are 3.3 of its standard deviations to either side, a third of
    one of the posterior's: there the posterior has a quarter of its mass, and three quarters stay unseen.
    """
    model, _ = one_dimensional()
    x = torch.full((100, 1), 1.5, dtype=DOUBLE)

    def narrow(x: Tensor) -> DiagonalNormal:
        mu = torch.full_like(x, 0.75)
        return DiagonalNormal(mu, torch.full_like(mu, math.log(0.005)))

    result = log_p_x(model, narrow, x, num_samples=1000, generator=make_generator(17))
    shortfall = model.log_p_x(x) - result.value
    assert float(shortfall.median()) > 1.0
    assert float((shortfall / result.standard_error).median()) > 5.0


def test_the_expectation_is_a_lower_bound_that_rises_with_k() -> None:
    model, _ = one_dimensional()
    x = torch.full((20_000, 1), 1.5, dtype=DOUBLE)
    exact, means = float(model.log_p_x(x[:1])), []
    for k in (2, 8, 32):
        result = log_p_x(model, copies_of_q, x, num_samples=k, generator=make_generator(8), rows=100_000)
        mean = mean_with_error(result.value)
        assert float(mean.value + 5.0 * mean.standard_error) < exact
        means.append(float(mean.value))
    assert means == sorted(means)


@pytest.mark.parametrize("count", [1, MOST_DATA, 2 * MOST_DATA + 1])
def test_every_datum_gets_its_own_value(count: int) -> None:
    model = model_case("LinearGaussian").model
    x = 1.5 * randn(count, 4, seed=9)
    result = log_p_x(model, model.posterior, x, num_samples=3, generator=make_generator(9))
    assert_close(result.value, model.log_p_x(x))
    assert all(part.shape == (count,) for part in result)


@pytest.mark.parametrize("rows", [1, 7, 64, 1000, 10**9])
def test_rows_change_nothing_but_the_work(rows: int) -> None:
    """Another cut of a matrix product sums in another order: a relative 1e-12 in double, of log-weights near -5."""
    vae, x = bits_vae()
    watched = Watched(vae)
    result = log_p_x(watched, vae, x, num_samples=100, generator=make_generator(10), rows=rows)
    whole = log_p_x(vae, vae, x, num_samples=100, generator=make_generator(10), rows=500)
    for part, expected in zip(result, whole, strict=True):
        assert_close(part, expected)
    sizes = [samples * data for samples, data in watched.decoded]
    assert sum(sizes) == 500
    # No fewer than one sample of the five data, and no more passes than needed.
    assert max(sizes) <= max(rows, 5)
    assert len(sizes) == math.ceil(100 / max(1, rows // 5))


@pytest.mark.parametrize(
    ("count", "num_samples", "groups"), [(250, 10, [100, 100, 50]), (5, 60_000, [1] * 5), (3, 200_000, [1] * 3)]
)
def test_as_many_data_are_drawn_at_once_as_their_latents_allow(count: int, num_samples: int, groups: list[int]) -> None:
    model, _ = one_dimensional()
    watched = Watched(model)
    x = torch.full((count, 1), 1.5, dtype=DOUBLE)
    log_p_x(watched, copies_of_q, x, num_samples=num_samples, generator=make_generator(11), rows=10**9)
    assert watched.decoded == [(num_samples, group) for group in groups]


def test_the_generator_decides() -> None:
    vae, x = bits_vae()
    first, again = (log_p_x(vae, vae, x, num_samples=5, generator=make_generator(12)) for _ in range(2))
    other = log_p_x(vae, vae, x, num_samples=5, generator=make_generator(13))
    assert bool((first.value == again.value).all())
    assert bool((first.value != other.value).all())


def test_single_precision_stays_single() -> None:
    """In float32 a log-weight of size 10, made of terms that size, is right to some roundings of 1e-6."""
    model, x, q = model_case("LinearGaussian", torch.float32)
    assert isinstance(q, FullNormal)
    result = log_p_x(model, model.posterior, x, num_samples=100, generator=make_generator(14))
    assert all(part.dtype == torch.float32 for part in result)
    torch.testing.assert_close(
        result.value.double(), model_case("LinearGaussian").model.log_p_x(x.double()), rtol=1e-5, atol=1e-5
    )
    assert float(result.standard_error.max()) < 1e-5


def test_five_thousand_draws_unless_told_otherwise() -> None:
    model, _ = one_dimensional()
    watched = Watched(model)
    x = torch.full((1, 1), 1.5, dtype=DOUBLE)
    result = log_p_x(watched, model.posterior, x, generator=make_generator(15))
    assert watched.decoded == [(1000, 1)] * 5
    assert_close(result.effective_sample_size, [5000.0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_samples": 1}, ValueError, r"num_samples: expected at least 2, for an error bar, found 1"),
        ({"num_samples": 0}, ValueError, r"num_samples: expected a positive integer, found 0"),
        ({"num_samples": 2.0}, TypeError, r"num_samples: expected a positive integer, found 2\.0"),
        ({"rows": 0}, ValueError, r"rows: expected a positive integer, found 0"),
        ({"x": torch.ones(2, 3)}, ValueError, r"x: expected shape \(N, 1\), found \(2, 3\)"),
        ({"x": torch.ones(0, 1)}, ValueError, r"x: expected shape \(N, 1\), found \(0, 1\) \(an empty batch\)"),
        ({"x": torch.ones(2, 1).int()}, TypeError, r"x: expected floating-point numbers, found torch\.int32"),
        (
            {"x": torch.tensor([[0.0], [math.nan]], dtype=DOUBLE)},
            ValueError,
            r"x: expected finite numbers, found 1 that are not, first nan at \(1, 0\)",
        ),
    ],
)
def test_mistakes_get_one_line(change: dict[str, Any], error: type[Exception], message: str) -> None:
    model, _ = one_dimensional()
    arguments: dict[str, Any] = {"x": torch.ones(2, 1, dtype=DOUBLE), "num_samples": 4, "rows": 10} | change
    with pytest.raises(error, match=f"^{message}$"):
        log_p_x(model, model.posterior, arguments.pop("x"), generator=make_generator(16), **arguments)


def test_log_weights_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^log_w: expected shape \(K, N\), found \(3,\)$"):
        MarginalLikelihood.from_log_weights(torch.zeros(3))
    with pytest.raises(ValueError, match=r"^log_w: expected at least 2 samples, for an error bar, found 1$"):
        MarginalLikelihood.from_log_weights(torch.zeros(1, 3))
