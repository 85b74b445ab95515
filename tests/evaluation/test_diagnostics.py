"""Active units and the KL of each latent, with encoders made by hand whose answers are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracles import assert_close, model_case, randn
from vae_lib.densities import DiagonalNormal, FullNormal
from vae_lib.divergences import kl
from vae_lib.evaluation import active_units, held_out_elbo, kl_per_dimension
from vae_lib.models import VAE, BernoulliLikelihood, NormalEncoder, mlp
from vae_lib.rng import make_generator

DOUBLE = torch.float64
# The means of the encoder by hand are these multiples of the first number of a datum, plus an offset.
SLOPES = torch.tensor([0.0, 0.05, 0.2, -1.0], dtype=DOUBLE)
OFFSETS = torch.tensor([7.0, 0.0, -2.0, 0.5], dtype=DOUBLE)


def by_hand(x: Tensor) -> DiagonalNormal:
    mu = x[:, :1] * SLOPES.to(x) + OFFSETS.to(x)
    return DiagonalNormal(mu, torch.full_like(mu, -1.0))


class Standard:
    """A model with a normal prior that is not the standard one, for what asks for the prior alone."""

    data_dim, latent_dim = 3, 4
    mu, logvar = torch.tensor([0.0, 1.0, -0.5, 0.0], dtype=DOUBLE), torch.tensor([0.0, 0.4, -1.0, 2.0], dtype=DOUBLE)

    def prior(self, batch_size: int) -> Any:
        return DiagonalNormal(self.mu.expand(batch_size, 4), self.logvar.expand(batch_size, 4))

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        raise AssertionError("nothing is decoded")

    def sample_x_given_z(self, z: Tensor, *, generator: torch.Generator) -> Tensor:
        raise AssertionError("nothing is drawn")


def vae_with_dropout() -> tuple[VAE, Tensor]:
    generator = make_generator(1)
    vae = VAE(
        NormalEncoder(torch.nn.Sequential(torch.nn.Dropout(0.5), mlp([6, 4], generator=generator, dtype=DOUBLE))),
        mlp([2, 6], generator=generator, dtype=DOUBLE),
        BernoulliLikelihood(),
        latent_dim=2,
        data_dim=6,
    )
    return vae, (randn(40, 6, seed=2) > 0.0).to(DOUBLE)


def test_the_variance_of_the_means_is_that_of_the_encoder_by_hand() -> None:
    """The spread of q, here exp(-1) for every latent, does not count, and an offset does not either."""
    x = randn(50, 3, seed=3)
    result = active_units(by_hand, x)
    first = x[:, 0].tolist()
    mean = math.fsum(first) / 50
    variance = math.fsum((value - mean) ** 2 for value in first) / 49
    assert_close(result.variance, [slope**2 * variance for slope in SLOPES.tolist()])
    assert 0.6 < variance < 1.6
    assert result.is_active.tolist() == [False, False, True, True]
    assert result.num_active == 2


def test_the_threshold_is_exceeded_or_not() -> None:
    x = torch.tensor([[-1.0], [1.0]], dtype=DOUBLE)  # variance 2, exactly

    def encoder(x: Tensor) -> DiagonalNormal:
        return DiagonalNormal(x * torch.tensor([1.0, 0.5, 0.0], dtype=DOUBLE), torch.zeros(2, 3, dtype=DOUBLE))

    assert active_units(encoder, x, threshold=0.5).is_active.tolist() == [True, False, False]
    assert active_units(encoder, x, threshold=0.49).is_active.tolist() == [True, True, False]
    assert active_units(encoder, x, threshold=0.0).is_active.tolist() == [True, True, False]


def test_the_default_threshold_is_a_hundredth() -> None:
    x = torch.tensor([[-1.0], [1.0]], dtype=DOUBLE)

    def encoder(x: Tensor) -> DiagonalNormal:
        slopes = torch.tensor([0.00499, 0.00501], dtype=DOUBLE).sqrt()  # times the variance of 2
        return DiagonalNormal(x * slopes, torch.zeros(2, 2, dtype=DOUBLE))

    assert active_units(encoder, x).is_active.tolist() == [False, True]


def test_a_full_covariance_has_means_too() -> None:
    model = model_case("LinearGaussian").model
    x = 1.5 * randn(30, 4, seed=4)
    assert isinstance(model.posterior(x), FullNormal)
    result = active_units(model.posterior, x)
    assert_close(result.variance, model.posterior(x).mu.var(0))


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_batches_change_nothing_and_modules_are_evaluated(batch_size: int) -> None:
    vae, x = vae_with_dropout()
    vae.eval()
    q = vae.encoder(x)
    vae.train()
    units = active_units(vae, x, batch_size=batch_size)
    assert_close(units.variance, q.mu.var(0).detach())
    terms = kl_per_dimension(vae, vae, x, batch_size=batch_size)
    assert terms.shape == (40, 2)
    assert_close(terms.sum(1), kl(q, vae.prior(40)).detach())
    assert not units.variance.requires_grad
    assert not terms.requires_grad
    assert all(module.training for module in vae.modules())


def test_the_kl_of_each_latent_by_its_formula() -> None:
    x = randn(5, 3, seed=5)
    found = kl_per_dimension(by_hand, Standard(), x)
    for row, datum in zip(found.tolist(), x.tolist(), strict=True):
        for latent in range(4):
            mu = datum[0] * float(SLOPES[latent]) + float(OFFSETS[latent])
            prior_mu, prior_var = float(Standard.mu[latent]), math.exp(float(Standard.logvar[latent]))
            ratio = math.exp(-1.0) / prior_var
            expected = 0.5 * (ratio - 1.0 - math.log(ratio) + (mu - prior_mu) ** 2 / prior_var)
            assert row[latent] == pytest.approx(expected, rel=1e-10)


def test_it_sums_to_the_kl_of_the_bound() -> None:
    vae, x = vae_with_dropout()
    held_out = held_out_elbo(vae, vae, x, generator=make_generator(6))
    assert_close(kl_per_dimension(vae, vae, x).sum(1), held_out.kl)


def test_a_latent_that_is_not_used_costs_nothing() -> None:
    def unused(x: Tensor) -> DiagonalNormal:
        prior = Standard().prior(x.shape[0])
        return DiagonalNormal(prior.mu, prior.logvar + torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=DOUBLE))

    found = kl_per_dimension(unused, Standard(), randn(4, 3, seed=7))
    assert_close(found[:, :3], torch.zeros(4, 3))
    assert float(found[:, 3].min()) > 0.1
    assert active_units(unused, randn(4, 3, seed=7)).num_active == 0


def test_single_precision_stays_single() -> None:
    model, x, _ = model_case("NonlinearDecoder", torch.float32)

    def encoder(x: Tensor) -> DiagonalNormal:
        return DiagonalNormal(x[:, :1], x[:, 1:])

    assert active_units(encoder, x).variance.dtype == torch.float32
    assert kl_per_dimension(encoder, model, x).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.ones(1, 3)}, ValueError, r"x: expected at least 2 data, for a variance, found 1"),
        ({"x": torch.ones(0, 3)}, ValueError, r"x: expected shape \(N, D\), found \(0, 3\) \(an empty batch\)"),
        (
            {"x": torch.tensor([[0.0], [math.nan]])},
            ValueError,
            r"x: expected finite numbers, found 1 that are not, first nan at \(1, 0\)",
        ),
        ({"threshold": -0.1}, ValueError, r"threshold: expected a number of at least 0, found -0\.1"),
        ({"threshold": math.nan}, ValueError, r"threshold: expected a number of at least 0, found nan"),
        ({"batch_size": 0}, ValueError, r"batch_size: expected a positive integer, found 0"),
        (
            {"encoder": lambda x: x},
            TypeError,
            r"encoder\(x\): expected a DiagonalNormal or FullNormal, whose mean is known, found Tensor",
        ),
        (
            {"encoder": lambda x: by_hand(x[:1])},
            ValueError,
            r"encoder\(x\)\.mu: expected shape \(5, L\), found \(1, 4\)",
        ),
    ],
)
def test_mistakes_with_active_units(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"encoder": by_hand, "x": randn(5, 3)} | change
    with pytest.raises(error, match=f"^{message}$"):
        active_units(arguments.pop("encoder"), arguments.pop("x"), **arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.ones(2, 4)}, ValueError, r"x: expected shape \(N, 3\), found \(2, 4\)"),
        (
            {"x": torch.full((1, 3), math.inf)},
            ValueError,
            r"x: expected finite numbers, found 3 that are not, first inf at \(0, 0\)",
        ),
        ({"batch_size": -1}, ValueError, r"batch_size: expected a positive integer, found -1"),
        ({"encoder": lambda x: x}, TypeError, r"encoder\(x\): expected a DiagonalNormal, found Tensor"),
        (
            {"encoder": lambda x: DiagonalNormal(x, x)},
            ValueError,
            r"encoder\(x\)\.mu: expected shape \(5, 4\), found \(5, 3\)",
        ),
    ],
)
def test_mistakes_with_the_kl(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"encoder": by_hand, "x": randn(5, 3)} | change
    with pytest.raises(error, match=f"^{message}$"):
        kl_per_dimension(arguments.pop("encoder"), Standard(), arguments.pop("x"), **arguments)


def test_a_prior_of_another_kind() -> None:
    class Full(Standard):
        def prior(self, batch_size: int) -> Any:
            return FullNormal(torch.zeros(batch_size, 4), torch.eye(4).expand(batch_size, 4, 4))

    class OfOne(Standard):
        def prior(self, batch_size: int) -> Any:
            return super().prior(1)

    with pytest.raises(TypeError, match=r"^prior\(B\): expected a DiagonalNormal, found FullNormal$"):
        kl_per_dimension(by_hand, Full(), randn(5, 3))
    with pytest.raises(ValueError, match=r"^prior\(B\)\.mu: expected shape \(5, 4\), found \(1, 4\)$"):
        kl_per_dimension(by_hand, OfOne(), randn(5, 3))
