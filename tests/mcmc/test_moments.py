"""Chains that begin in the wrong place end in the right distribution: means, variances and correlations.

Step sizes are long on purpose, so that up to a third of the proposals is rejected: without the Metropolis test the
variances would be off by tens of per cent. Draws are the last ones of independent chains, so standard errors need no
allowance for autocorrelation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.mcmc.targets import DOUBLE, log_posterior, products, settled, two_normals
from tests.oracles import assert_mean, model_case, randn
from vae_lib.exact.quadrature import Interval, expectation
from vae_lib.mcmc import hmc
from vae_lib.rng import make_generator


def of_normal(mu: Tensor, covariance: Tensor) -> Tensor:
    second = covariance + mu.unsqueeze(-1) * mu.unsqueeze(-2)
    return torch.cat([mu, second.flatten(1)], -1)


def test_correlated_normals() -> None:
    target = two_normals()
    z = settled(target.log_prob, torch.zeros(20_000, 2, 3, dtype=DOUBLE), step_size=0.55)
    assert_mean(products(z), of_normal(target.mu, target.covariance), 0.06)


def test_draws_of_the_density_stay_draws_of_it_at_any_step_size() -> None:
    """Of the density itself one transition already tells a right kernel from a wrong one."""
    target = two_normals()
    start = target.sample(20_000, generator=make_generator(1))
    for step_size in (0.1, 0.6, 0.8):
        result = hmc(target.log_prob, start, step_size=step_size, num_leapfrog=3, generator=make_generator(2))
        assert float((result.z - start).abs().mean()) > 0.1
        assert_mean(products(result.z), of_normal(target.mu, target.covariance), 0.06)
    assert 0.2 < float(result.acceptance.mean()) < 0.9  # the last one is a test of the rejections too


def test_the_posterior_of_the_linear_gaussian_model() -> None:
    model, x, _ = model_case("LinearGaussian")
    posterior = model.posterior(x)
    start = model.prior(3).sample(20_000, generator=make_generator(3))
    z = settled(log_posterior("LinearGaussian"), start, step_size=0.65)
    assert_mean(products(z), of_normal(posterior.mu, posterior.covariance), 0.03)


def test_the_posterior_of_the_nonlinear_decoder_by_quadrature() -> None:
    """Each of the three has two or three modes, with valleys between them that trajectories cross."""
    model, x, _ = model_case("NonlinearDecoder")
    posterior = model.posterior(x)

    def values(z: Tensor) -> Tensor:
        return torch.stack([z, z**2, torch.sin(3.0 * z)]).squeeze(-1)  # (3, S, B)

    start = model.prior(3).sample(20_000, generator=make_generator(4))
    z = settled(log_posterior("NonlinearDecoder"), start, step_size=0.45)
    for number in range(3):
        expected = expectation(
            lambda nodes: posterior.log_prob(nodes[:, None, None].expand(-1, 3, 1)),
            lambda nodes, number=number: values(nodes[:, None, None].expand(-1, 3, 1))[number],
            Interval(-12.0, 12.0, 240),
            x,
        )
        assert_mean(values(z)[number], expected, 0.02)


def test_a_density_that_ends_at_zero() -> None:
    """The posterior of a rate, Gamma: trajectories that leave its support are rejected."""
    model, x, _ = model_case("GammaPoisson")
    posterior = model.posterior(x)
    start = model.prior(3).sample(20_000, generator=make_generator(5))
    z = settled(log_posterior("GammaPoisson"), start, step_size=0.3)
    assert bool((z > 0.0).all())
    mean = posterior.concentration / posterior.rate
    variance = posterior.concentration / posterior.rate**2
    assert_mean(torch.cat([z, z**2], -1), torch.cat([mean, variance + mean**2], -1), 0.2)


def test_a_chain_knows_the_mode_that_it_is_in_and_no_other() -> None:
    """Two normals 20 standard deviations apart: half of the mass is never seen, and no number says so."""

    def log_density(z: Tensor) -> Tensor:
        far = torch.stack([z, z - 20.0])
        return torch.logsumexp(-0.5 * far.square().sum(-1), 0)

    z = settled(log_density, randn(20_000, 1, 1, seed=6), step_size=0.8)
    assert_mean(torch.cat([z, z**2], -1), [[0.0, 1.0]], 0.02)


def test_single_precision() -> None:
    target = two_normals()
    start = torch.zeros(20_000, 2, 3)
    z = settled(log_density_in_single, start, step_size=0.55)
    assert z.dtype == torch.float32
    assert_mean(products(z.double()), of_normal(target.mu, target.covariance), 0.06)


def log_density_in_single(z: Tensor) -> Tensor:
    target = two_normals()
    precision = torch.linalg.inv(target.covariance).float()
    away = z - target.mu.float()
    return -0.5 * torch.einsum("sbi,bij,sbj->sb", away, precision, away)


def test_a_period_of_the_motion_and_what_jitter_does_about_it() -> None:
    """On N(0, 1) a step turns the plane of z and p by arccos(1 - eps²/2): five of a fifth of a turn are none."""
    step_size = math.sqrt(2.0 - 2.0 * math.cos(2.0 * math.pi / 5.0))

    def log_density(z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(-1)

    start = torch.ones(20_000, 1, 1, dtype=DOUBLE)
    still = hmc(
        log_density, start, step_size=step_size, num_leapfrog=5, num_transitions=20, generator=make_generator(7)
    )
    assert float((still.z - start).abs().max()) < 1e-9
    assert float(still.acceptance.min()) > 1.0 - 1e-9
    z = settled(log_density, start, step_size=step_size)
    assert_mean(torch.cat([z, z**2], -1), [[0.0, 1.0]], 0.02)
