"""log p(x) from draws of the posterior: right where it can be, and wrong where it is said to be, by as much."""

from __future__ import annotations

import math
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from tests.oracles import assert_close, model_case, randn
from vae_lib.bounds import log_joint
from vae_lib.densities import FullNormal
from vae_lib.evaluation import log_p_x_from_posterior
from vae_lib.exact import GammaPoisson, LinearGaussian
from vae_lib.mcmc import tuned_hmc
from vae_lib.models import VAE, BernoulliLikelihood, NormalEncoder, mlp
from vae_lib.rng import make_generator

DOUBLE = torch.float64
QUICK: dict[str, Any] = {"num_warmup": 20, "num_transitions": 10}


def data_of(model: Any, count: int) -> Tensor:
    generator = make_generator(1)
    z = model.prior(count).sample(1, generator=generator)
    return model.sample_x_given_z(z, generator=generator)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["LinearGaussian", "NonlinearDecoder"])
def test_known_evidence_within_its_own_error(name: str) -> None:
    """A normal posterior, and posteriors with several modes, between which trajectories cross."""
    model, x, _ = model_case(name)
    result = log_p_x_from_posterior(model, x, num_samples=4000, **QUICK, generator=make_generator(2))
    assert float(result.standard_error.max()) < 0.03
    # The expectation lies half the square of the error higher, to first order.
    worst = (result.value - model.log_p_x(x)).abs() - 5.0 * result.standard_error - result.standard_error**2
    assert float(worst.max()) <= 0.0
    size = 4000 / (1.0 + 3999 * result.standard_error**2)
    assert_close(result.effective_sample_size, size)
    assert bool((result.largest_weight * result.effective_sample_size >= 1.0 - 1e-10).all())
    assert float((result.acceptance - 0.9).abs().max()) < 0.05


def test_all_numbers_by_hand() -> None:
    """The first S of 2 S chains are fitted, the others averaged."""
    model, x, _ = model_case("LinearGaussian")
    result = log_p_x_from_posterior(model, x, num_samples=6, **QUICK, generator=make_generator(3))
    generator = make_generator(3)
    start = model.prior(3).sample(12, generator=generator)
    chains, _ = tuned_hmc(
        lambda z: log_joint(model, x, z),
        start,
        num_warmup=20,
        num_transitions=10,
        num_leapfrog=4,
        per_datum=True,
        jitter=0.2,
        generator=generator,
    )
    for b in range(3):
        fitted, fresh = chains.z[:6, b].numpy(), chains.z[6:, b]
        covariance = torch.cov(chains.z[:6, b].mT).numpy()
        q = torch.as_tensor(scipy.stats.multivariate_normal(fitted.mean(0), covariance).logpdf(fresh.numpy()))
        terms = torch.exp(q - log_joint(model, x, chains.z)[6:, b])
        assert_close(result.value[b], -terms.mean().log())
        assert_close(result.standard_error[b], terms.std() / 6**0.5 / terms.mean())
        assert_close(result.effective_sample_size[b], terms.sum() ** 2 / (terms**2).sum())
        assert_close(result.largest_weight[b], terms.max() / terms.sum())
    assert_close(result.acceptance, chains.acceptance.mean(0))


def test_the_expectation_is_an_upper_bound() -> None:
    """By Jensen's inequality, for chains that begin in the posterior: importance sampling errs to the other side."""
    model, _, _ = model_case("LinearGaussian")
    x = data_of(model, 1000)
    result = log_p_x_from_posterior(
        model,
        x,
        start=model.posterior,
        num_samples=10,
        num_warmup=1,
        num_transitions=1,
        generator=make_generator(4),
        batch_size=1000,
    )
    excess = result.value - model.log_p_x(x)
    assert float(excess.mean()) > 5.0 * float(excess.std()) / 1000**0.5


def test_in_forty_dimensions_fifty_draws_deceive() -> None:
    """There q is wider than the posterior by more than the factor 2, from which on the terms have infinite variance.

    The value is too high by many of its errors. In two dimensions nearly all data keep within three.
    """
    scores = []
    for dim in (2, 40):
        model = LinearGaussian(0.3 * randn(25, dim, seed=5), torch.zeros(25).double(), torch.zeros(25).double())
        x = data_of(model, 20)
        result = log_p_x_from_posterior(
            model, x, start=model.posterior, **QUICK, generator=make_generator(6), batch_size=20
        )
        scores.append((result.value - model.log_p_x(x)) / result.standard_error)
    assert float((scores[0].abs() < 3.0).double().mean()) > 0.85
    assert float(scores[1].median()) > 5.0


def test_where_the_posterior_ends_q_spills_over() -> None:
    """A rate is positive and q is not: the value is too high by minus the log of what q has on the positive side.

    The posterior is Gamma with shape 1.2, so mean over standard deviation is t = sqrt(1.2). Fitted to S draws, t is
    known to 1.05 / sqrt(S), from skewness and kurtosis, and log Phi(t) to phi(t) / Phi(t) = 0.25 of that.
    """
    model = GammaPoisson(torch.tensor(1.2, dtype=DOUBLE), torch.tensor(1.0, dtype=DOUBLE), 1)
    x = torch.zeros(1, 1, dtype=DOUBLE)
    result = log_p_x_from_posterior(
        model,
        x,
        start=model.posterior,
        num_samples=4000,
        num_warmup=20,
        num_transitions=10,
        generator=make_generator(7),
    )
    excess = -math.log(scipy.stats.norm.cdf(1.2**0.5))
    error = 5.0 * (float(result.standard_error) + 0.25 * 1.05 / 4000**0.5)
    assert error < 0.5 * excess
    assert float(result.value - model.log_p_x(x)) == pytest.approx(excess, abs=error)


class Two:
    """A model whose posterior is two narrow normals at -1 and 1: the product of z² = 1 and noise of width 0.05."""

    data_dim, latent_dim = 1, 1

    def prior(self, batch_size: int) -> FullNormal:
        return FullNormal(torch.zeros(batch_size, 1).double(), torch.ones(batch_size, 1, 1).double())

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.distributions.Normal(z.square().squeeze(-1), 0.05).log_prob(x.squeeze(-1))


def test_chains_in_one_of_two_modes_lose_the_other() -> None:
    """Begun at 1 they never see -1 with half of the mass: the value is too low by log 2, and no error says so."""
    x, at_one = torch.ones(1, 1).double(), FullNormal(torch.ones(1, 1).double(), 0.01 * torch.ones(1, 1, 1).double())
    grid = torch.linspace(0.5, 1.5, 100_001, dtype=DOUBLE)[:, None, None]
    right = torch.trapezoid(log_joint(Two(), x, grid).exp().squeeze(), dx=1e-5).log()  # type: ignore[arg-type]
    result = log_p_x_from_posterior(
        Two(),  # type: ignore[arg-type]
        x,
        start=lambda _: at_one,
        num_samples=2000,
        generator=make_generator(8),
    )
    assert float(result.value - right) == pytest.approx(0.0, abs=5.0 * float(result.standard_error))
    assert float(result.standard_error) < 0.02


def bits_vae() -> tuple[VAE, Tensor]:
    generator = make_generator(1)
    vae = VAE(
        NormalEncoder(mlp([6, 7, 4], generator=generator, dtype=DOUBLE)),
        nn.Sequential(mlp([2, 7, 6], generator=generator, dtype=DOUBLE), nn.Dropout(0.5)),
        BernoulliLikelihood(),
        latent_dim=2,
        data_dim=6,
    )
    return vae, (randn(5, 6, seed=2) > 0.0).to(DOUBLE)


def test_a_vae_in_evaluation_mode_from_its_encoders_draws() -> None:
    vae, x = bits_vae()
    vae.train()
    first, again, other, cut = (
        log_p_x_from_posterior(
            vae, x, start=vae, num_samples=5, **QUICK, generator=make_generator(seed), batch_size=batch_size
        )
        for seed, batch_size in ((9, 10), (9, 10), (10, 10), (9, 2))
    )
    assert torch.equal(first.value, again.value)
    assert bool((first.value != other.value).all())
    assert vae.training
    assert all(parameter.grad is None for parameter in vae.parameters())
    for part in (*first, *cut):
        assert part.shape == (5,)
        assert not part.requires_grad


def test_single_precision_stays_single() -> None:
    model, x, _ = model_case("LinearGaussian", torch.float32)
    result = log_p_x_from_posterior(model, x, num_samples=50, **QUICK, generator=make_generator(11))
    assert all(part.dtype == torch.float32 for part in result)
    assert float((result.value - model.log_p_x(x)).abs().max()) < 0.5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_samples": 3}, ValueError, r"num_samples: expected at least L \+ 2 = 4, found 3"),
        ({"num_samples": 5.0}, TypeError, r"num_samples: expected a positive integer, found 5\.0"),
        ({"batch_size": 0}, ValueError, r"batch_size: expected a positive integer, found 0"),
        ({"num_warmup": 0}, ValueError, r"num_warmup: expected a positive integer, found 0"),
        ({"num_leapfrog": 0}, ValueError, r"num_leapfrog: expected a positive integer, found 0"),
        ({"target": 0.0}, ValueError, r"target: expected a number between 0 and 1, found 0\.0"),
        ({"x": torch.ones(2, 3)}, ValueError, r"x: expected shape \(N, 4\), found \(2, 3\)"),
        (
            {"x": torch.full((1, 4), math.inf)},
            ValueError,
            r"x: expected finite numbers, found 4 that are not, first inf at \(0, 0\)",
        ),
        (
            {"start": lambda x: x},
            TypeError,
            r"encoder\(x\): expected a vae_lib\.protocols\.Density, found Tensor",
        ),
        (
            {"start": lambda x: FullNormal(torch.zeros(3, 2).double(), torch.zeros(3, 2, 2).double()), "step": 0},
            ValueError,
            r"covariance: expected symmetric positive definite matrices, found one that is not",
        ),
    ],
)
def test_mistakes_get_one_line(change: dict[str, Any], error: type[Exception], message: str) -> None:
    model, x, _ = model_case("LinearGaussian")
    arguments: dict[str, Any] = {"x": x, "num_samples": 5, **QUICK} | change
    if arguments.pop("step", 1) == 0:  # all chains of a datum stand still, because every proposal is lost
        model = Lost(model)
    with pytest.raises(error, match=f"^{message}$"):
        log_p_x_from_posterior(model, arguments.pop("x"), generator=make_generator(12), **arguments)


class Lost:
    """A model that is finite at zero alone."""

    def __init__(self, model: Any) -> None:
        self.model, self.data_dim, self.latent_dim = model, model.data_dim, model.latent_dim

    def prior(self, batch_size: int) -> Any:
        return self.model.prior(batch_size)

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        value = self.model.log_p_x_given_z(x, z)
        return torch.where((z == 0.0).all(-1), value, value * math.nan)
