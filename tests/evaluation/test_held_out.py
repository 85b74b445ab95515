"""The held-out ELBO against exact ELBOs, as the difference of its parts, and in batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tests.oracles import MODELS, assert_close, assert_mean, model_case, randn
from vae_lib.bounds import elbo
from vae_lib.densities import DiagonalNormal
from vae_lib.divergences import has_closed_form, kl
from vae_lib.evaluation import held_out_elbo
from vae_lib.rng import make_generator


class Laplace:
    """A density for which no closed form of the KL is known."""

    def __init__(self, mu: Tensor, scale: Tensor) -> None:
        self.mu, self.scale = mu, scale
        self.batch_size, self.event_dim = mu.shape

    def log_prob(self, value: Tensor) -> Tensor:
        return (-(value - self.mu).abs() / self.scale - torch.log(2.0 * self.scale)).sum(-1)

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        u = torch.rand(num_samples, *self.mu.shape, generator=generator, dtype=self.mu.dtype) - 0.5
        return self.mu - self.scale * u.sign() * torch.log1p(-2.0 * u.abs())


def laplace_of(x: Tensor) -> Laplace:
    mu = 0.3 * x[:, :2]
    return Laplace(mu, torch.full_like(mu, 0.6))


@pytest.mark.parametrize("num_samples", [1, 5])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_elbo_of_the_same_draws(name: str, num_samples: int) -> None:
    model, x, q = model_case(name)
    result = held_out_elbo(model, lambda _: q, x, num_samples=num_samples, generator=make_generator(1))
    samples = elbo(model, q, x, num_samples=num_samples, generator=make_generator(1), analytic_kl=True)
    assert has_closed_form(q, model.prior(3))
    assert_close(result.elbo, samples.mean(0))
    assert_close(result.kl, kl(q, model.prior(3)))
    assert_close(result.log_likelihood - result.kl, result.elbo)
    assert not any(part.requires_grad for part in result)


def test_a_kl_without_a_closed_form_is_sampled() -> None:
    model, x, _ = model_case("LinearGaussian")
    result = held_out_elbo(model, laplace_of, x, num_samples=4, generator=make_generator(2))
    q, prior = laplace_of(x), model.prior(3)
    z = q.sample(4, generator=make_generator(2))
    assert not has_closed_form(q, prior)
    assert_close(result.kl, (q.log_prob(z) - prior.log_prob(z)).mean(0))
    assert_close(result.elbo, elbo(model, q, x, num_samples=4, generator=make_generator(2)).mean(0))
    assert_close(result.log_likelihood - result.kl, result.elbo)


def test_the_expectation_is_the_exact_elbo() -> None:
    """Not the value at the mean of q, which is larger by half a trace, here a nat and more."""
    model, x, _ = model_case("LinearGaussian")

    def encoder(x: Tensor) -> DiagonalNormal:
        mu = 0.2 * x[:, :2]
        return DiagonalNormal(mu, torch.full_like(mu, -0.5))

    exact = model.elbo(x, encoder(x))
    at_mean = model.log_p_x_given_z(x, encoder(x).mu.unsqueeze(0))[0] - kl(encoder(x), model.prior(3))
    assert float((at_mean - exact).min()) > 1.0
    result = held_out_elbo(model, encoder, x.repeat(20_000, 1), generator=make_generator(3), batch_size=4000)
    assert_mean(result.elbo.reshape(20_000, 3), exact, ceiling=0.1)
    many = held_out_elbo(model, encoder, x.repeat(2000, 1), num_samples=10, generator=make_generator(4))
    assert_mean(many.elbo.reshape(2000, 3), exact, ceiling=0.1)


@pytest.mark.parametrize("batch_size", [1, 10, 25, 1000])
def test_batches_keep_the_order_and_bound_the_work(batch_size: int) -> None:
    model = model_case("LinearGaussian").model
    x, decoded = randn(25, 4, seed=5), []

    class Watched:
        data_dim, latent_dim, prior = 4, 2, model.prior

        def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
            decoded.append(z.shape[0] * z.shape[1])
            return model.log_p_x_given_z(x, z)  # type: ignore[no-any-return]

        def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
            return model.sample_x_given_z(z, generator=generator)  # type: ignore[no-any-return]

    result = held_out_elbo(
        Watched(), model.posterior, x, num_samples=4, generator=make_generator(5), batch_size=batch_size
    )
    assert_close(result.kl, kl(model.posterior(x), model.prior(25)))
    assert all(part.shape == (25,) for part in result)
    # With the posterior as q, log p(x | z) - log q(z) + log p(z) is log p(x) whatever z is, so the mean log-likelihood
    # is known from the draws.
    generator = make_generator(5)
    for batch, mine in zip(x.split(batch_size), result.log_likelihood.split(batch_size), strict=True):
        q = model.posterior(batch)
        z = q.sample(4, generator=generator)
        log_ratio = q.log_prob(z) - model.prior(batch.shape[0]).log_prob(z)
        assert_close(mine, model.log_p_x(batch) + log_ratio.mean(0))
    assert max(decoded) <= batch_size
    assert sum(decoded) == 100


def test_single_precision_stays_single() -> None:
    model, x, q = model_case("LinearGaussian", torch.float32)
    result = held_out_elbo(model, lambda _: q, x, generator=make_generator(6))
    assert all(part.dtype == torch.float32 for part in result)


def test_the_generator_decides() -> None:
    model, x, q = model_case("LinearGaussian")
    first, again = (held_out_elbo(model, lambda _: q, x, generator=make_generator(7)).elbo for _ in range(2))
    other = held_out_elbo(model, lambda _: q, x, generator=make_generator(8)).elbo
    assert bool((first == again).all())
    assert bool((first != other).all())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_samples": 0}, ValueError, r"num_samples: expected a positive integer, found 0"),
        ({"num_samples": True}, TypeError, r"num_samples: expected a positive integer, found True"),
        ({"batch_size": -1}, ValueError, r"batch_size: expected a positive integer, found -1"),
        ({"x": torch.ones(4)}, ValueError, r"x: expected shape \(N, 4\), found \(4,\)"),
        ({"x": torch.ones(0, 4)}, ValueError, r"x: expected shape \(N, 4\), found \(0, 4\) \(an empty batch\)"),
        ({"x": [[1.0]]}, TypeError, r"x: expected a tensor, found list"),
        (
            {"x": torch.full((1, 4), math.inf).double()},
            ValueError,
            r"x: expected finite numbers, found 4 that are not, first inf at \(0, 0\)",
        ),
    ],
)
def test_mistakes_get_one_line(change: dict[str, Any], error: type[Exception], message: str) -> None:
    model, x, _ = model_case("LinearGaussian")
    arguments: dict[str, Any] = {"x": x} | change
    # An encoder whose density checks nothing itself.
    with pytest.raises(error, match=f"^{message}$"):
        held_out_elbo(model, laplace_of, arguments.pop("x"), generator=make_generator(9), **arguments)


def test_log_densities_of_a_wrong_shape_are_refused() -> None:
    model, x, _ = model_case("LinearGaussian")

    class NoSum(Laplace):
        def log_prob(self, value: Tensor) -> Tensor:
            return torch.zeros(value.shape)

    class BadPrior:
        data_dim, latent_dim, log_p_x_given_z, sample_x_given_z = 4, 2, model.log_p_x_given_z, model.sample_x_given_z

        def prior(self, batch_size: int) -> Any:
            return NoSum(torch.zeros(batch_size, 2).double(), torch.ones(batch_size, 2).double())

    with pytest.raises(ValueError, match=r"^q\.log_prob\(z\): expected shape \(2, 3\), found \(2, 3, 2\)$"):
        held_out_elbo(model, lambda b: NoSum(b[:, :2], b[:, :2].exp()), x, num_samples=2, generator=make_generator(10))
    with pytest.raises(ValueError, match=r"^prior\(B\)\.log_prob\(z\): expected shape \(2, 3\), found \(2, 3, 2\)$"):
        held_out_elbo(BadPrior(), laplace_of, x, num_samples=2, generator=make_generator(11))
