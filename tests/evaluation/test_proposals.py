"""Wider proposals: their densities against a mixture of torch.distributions, their reach, and what width costs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from tests.oracles import assert_close, assert_mean, model_case, randn
from vae_lib.densities import DiagonalNormal, FullNormal
from vae_lib.evaluation import Defensive, Widened, log_p_x
from vae_lib.evaluation.passes import modules_of
from vae_lib.exact import LinearGaussian
from vae_lib.models import VAE, BernoulliLikelihood, NormalEncoder, mlp
from vae_lib.protocols import ApproximatePosterior, Density
from vae_lib.rng import make_generator

DOUBLE = torch.float64
Proposal = Callable[[ApproximatePosterior], ApproximatePosterior]
PROPOSALS: dict[str, Proposal] = {
    "Widened": lambda encoder: Widened(encoder, 2.0),
    "Defensive": lambda encoder: Defensive(encoder, 2.0, 0.3),
}
each_proposal = pytest.mark.parametrize("proposal", PROPOSALS.values(), ids=PROPOSALS)


def encoder(x: Tensor) -> DiagonalNormal:
    return DiagonalNormal(0.4 * x[:, :2], 0.3 * x[:, 2:4] - 0.5)


def line() -> LinearGaussian:
    """z ~ N(0, 1), x | z ~ N(z, 1): the posterior is N(x / 2, 1 / 2)."""
    one = torch.ones(1, dtype=DOUBLE)
    return LinearGaussian(one[:, None], 0.0 * one, 0.0 * one)


def half_as_wide(x: Tensor) -> DiagonalNormal:
    """The posterior of the line, with half its standard deviation."""
    return DiagonalNormal(0.5 * x, torch.full_like(x, math.log(0.5 / 4.0)))


@pytest.mark.parametrize("factor", [1, 1.0, 1.3, 10.0])
def test_standard_deviations_are_multiplied(factor: float) -> None:
    x = randn(3, 4, seed=1)
    q, wide = encoder(x), Widened(encoder, factor)(x)
    assert_close(wide.std, factor * q.std)
    assert torch.equal(wide.mu, q.mu)


def test_the_density_is_the_mixture() -> None:
    x, value = randn(3, 4, seed=1), 3.0 * randn(5, 3, 2, seed=2)
    q = encoder(x)
    narrow, wide = (td.Independent(td.Normal(q.mu, factor * q.std), 1).log_prob(value) for factor in (1.0, 2.0))
    expected = torch.log(0.7 * narrow.exp() + 0.3 * wide.exp())
    assert_close(Defensive(encoder, 2.0, 0.3)(x).log_prob(value), expected)


def test_draws_of_the_mixture_have_its_moments() -> None:
    """Mean that of q; variance (1 - a + a c²) s²; and P(|z - mu| > 3 s) as of two normals, for both latents at once.

    The last is that of a whole draw from one of the two: latents that chose by themselves would be beyond in half as
    many cases.
    """
    x = randn(3, 4, seed=1)
    q, mixture = encoder(x), Defensive(encoder, 2.0, 0.3)(x)
    standard = (mixture.sample(200_000, generator=make_generator(3)) - q.mu) / q.std
    assert_mean(standard, torch.zeros(3, 2), ceiling=0.01)
    assert_mean(standard.square(), torch.full((3, 2), 0.7 + 0.3 * 4.0), ceiling=0.02)
    normal = td.Normal(0.0, 1.0)
    beyond = [2.0 * float(normal.cdf(torch.tensor(-3.0 / factor, dtype=DOUBLE))) for factor in (1.0, 2.0)]
    both = (standard.abs() > 3.0).all(-1).double()
    assert_mean(both, torch.full((3,), 0.7 * beyond[0] ** 2 + 0.3 * beyond[1] ** 2), ceiling=0.001)


@each_proposal
def test_it_is_right_as_a_proposal(proposal: Proposal) -> None:
    model, x = line(), torch.tensor([[1.5], [-0.3]], dtype=DOUBLE)
    q = proposal(lambda x: DiagonalNormal(0.4 * x, torch.full_like(x, math.log(0.3))))
    assert isinstance(q, ApproximatePosterior)
    assert isinstance(q(x), Density)
    assert (q(x).batch_size, q(x).event_dim) == (2, 1)
    result = log_p_x(model, q, x, num_samples=20_000, generator=make_generator(4))
    assert float(result.standard_error.max()) < 0.02
    worst = (result.value - model.log_p_x(x)).abs() - 5.0 * result.standard_error
    assert float(worst.max()) <= 0.0
    assert not q(x).sample(2, generator=make_generator(4)).requires_grad


def test_a_wider_q_mends_a_narrow_one() -> None:
    """Weights of q grow as exp(1.5 d²) at d standard deviations of the posterior, and have no variance."""
    model, x = line(), torch.zeros(100, 1, dtype=DOUBLE)
    sizes = [
        float(log_p_x(model, q, x, num_samples=2000, generator=make_generator(5)).effective_sample_size.median())
        for q in (half_as_wide, Widened(half_as_wide, 2.0), Defensive(half_as_wide, 3.0, 0.5))
    ]
    assert sizes[0] < 500.0
    assert sizes[1] == pytest.approx(2000.0)  # twice as wide it is the posterior
    assert sizes[2] > 1000.0


@pytest.mark.parametrize("factor", [1.3, 2.0])
def test_width_costs_draws_as_the_formula_says(factor: float) -> None:
    """With the posterior widened in each of L latents, K / ESS tends to (c² / sqrt(2 c² - 1))^L."""
    eye = torch.eye(3, dtype=DOUBLE)
    model = LinearGaussian(eye, eye[0], 0.0 * eye[0])

    def posterior(x: Tensor) -> DiagonalNormal:
        full = model.posterior(x)
        return DiagonalNormal(full.mu, 2.0 * full.scale_tril.diagonal(dim1=1, dim2=2).log())

    x = randn(1, 3, seed=6)
    result = log_p_x(model, Widened(posterior, factor), x, num_samples=100_000, generator=make_generator(6))
    expected = (math.sqrt(2.0 * factor**2 - 1.0) / factor**2) ** 3
    # K / ESS - 1 is the variance of weights with a finite fourth moment, known here to about 1 %.
    assert float(result.effective_sample_size) / 100_000 == pytest.approx(expected, rel=0.02)
    # A defensive mixture costs at most its share.
    mixed = log_p_x(model, Defensive(posterior, factor, 0.1), x, num_samples=1000, generator=make_generator(7))
    assert float(mixed.effective_sample_size) > 900.0


@each_proposal
def test_its_modules_are_found(proposal: Proposal) -> None:
    generator = make_generator(8)
    vae = VAE(
        NormalEncoder(torch.nn.Sequential(torch.nn.Dropout(0.5), mlp([6, 4], generator=generator, dtype=DOUBLE))),
        mlp([2, 6], generator=generator, dtype=DOUBLE),
        BernoulliLikelihood(),
        latent_dim=2,
        data_dim=6,
    )
    x = (randn(4, 6, seed=9) > 0.0).to(DOUBLE)
    assert modules_of(proposal(vae)) == [vae]
    values = [log_p_x(vae.generative, proposal(vae), x, num_samples=3, generator=make_generator(9))[0] for _ in "ab"]
    assert torch.equal(*values)  # no dropout
    assert vae.training


@pytest.mark.parametrize("factor", [0.99, 0.0, -2.0, math.inf, math.nan])
def test_factors_that_do_not_widen(factor: float) -> None:
    for proposal in (Widened, Defensive):
        with pytest.raises(ValueError, match=rf"^factor: expected a number of at least 1, found {factor}$"):
            proposal(encoder, factor)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_shares_that_are_none(share: float) -> None:
    with pytest.raises(ValueError, match=rf"^share: expected a number between 0 and 1, found {share}$"):
        Defensive(encoder, 2.0, share)


@each_proposal
def test_another_density_is_refused(proposal: Proposal) -> None:
    model, x, q = model_case("LinearGaussian")
    assert isinstance(q, FullNormal)
    with pytest.raises(TypeError, match=r"^encoder\(x\): expected a DiagonalNormal, to widen it, found FullNormal$"):
        log_p_x(model, proposal(lambda _: q), x, num_samples=2, generator=make_generator(10))


def test_a_count_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"^num_samples: expected a positive integer, found 0$"):
        Defensive(encoder, 2.0)(randn(1, 4)).sample(0, generator=make_generator(11))
