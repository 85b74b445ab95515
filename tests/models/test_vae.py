"""The VAE: both protocols at once, every bound and estimator unchanged, and the linear one exact."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tests.oracles import assert_close, assert_mean, assert_same_value_and_gradient, randn
from vae_lib import bounds
from vae_lib.densities import Bernoulli, DiagonalNormal
from vae_lib.divergences import kl
from vae_lib.exact import LinearGaussian
from vae_lib.gradients import Pathwise, ScoreFunction, amortised, measure, sgvb_a, sgvb_b, sticking_the_landing
from vae_lib.models import (
    VAE,
    BernoulliEncoder,
    BernoulliLikelihood,
    BinomialLikelihood,
    CategoricalLikelihood,
    DecoderModel,
    DiscretisedLogisticLikelihood,
    LearnedNormalLikelihood,
    NormalEncoder,
    NormalLikelihood,
    PredictedNormalLikelihood,
    StandardNormal,
    conv_decoder,
    conv_encoder,
    fair_bits,
    mlp,
)
from vae_lib.protocols import ApproximatePosterior, Density, LatentVariableModel
from vae_lib.rng import make_generator

R, S, B, D, L = 4, 5, 3, 6, 2
DOUBLE = torch.float64

HEADS: dict[str, Callable[[], Any]] = {
    "Bernoulli": BernoulliLikelihood,
    "Binomial": lambda: BinomialLikelihood(16),
    "Categorical": lambda: CategoricalLikelihood(4),
    "DiscretisedLogistic": lambda: DiscretisedLogisticLikelihood(4),
    "Normal": lambda: NormalLikelihood(-0.5),
    "LearnedNormal": lambda: LearnedNormalLikelihood(logvar=-0.5, dtype=DOUBLE),
    "LearnedNormal of each": lambda: LearnedNormalLikelihood(D, logvar=-0.5, dtype=DOUBLE),
    "PredictedNormal": lambda: PredictedNormalLikelihood(unit_mean=True),
}
each_head = pytest.mark.parametrize("name", HEADS)


def vae_of(name: str, data_dim: int = D) -> VAE:
    head, generator = HEADS[name](), make_generator(1)
    return VAE(
        NormalEncoder(mlp([data_dim, 7, 2 * L], generator=generator, dtype=DOUBLE)),
        mlp([L, 7, head.outputs_per_number * data_dim], generator=generator, dtype=DOUBLE),
        head,
        latent_dim=L,
        data_dim=data_dim,
    )


def conv_vae() -> VAE:
    options: dict[str, Any] = {"generator": make_generator(2), "dtype": DOUBLE, "channels": (2, 3), "hidden": 4}
    return VAE(
        NormalEncoder(conv_encoder((8, 8), 2 * L, **options)),
        conv_decoder(L, (8, 8), **options),
        BernoulliLikelihood(),
        latent_dim=L,
        data_dim=64,
    )


def data(vae: VAE, batch: int = B) -> Tensor:
    """Zeros and ones, which every head can take."""
    return (randn(batch, vae.data_dim, seed=3) > 0.0).double()


def weights_of(vae: VAE) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in vae.named_parameters()}


@each_head
def test_a_vae_meets_both_protocols(name: str) -> None:
    vae = vae_of(name)
    x = data(vae)
    for at in (vae, vae.functional(weights_of(vae))):
        assert isinstance(at, LatentVariableModel)
        assert isinstance(at, ApproximatePosterior)
        q, p = at(x), at.prior(B)
        for density in (q, p):
            assert isinstance(density, Density)
            assert (density.batch_size, density.event_dim) == (B, L)
        z = q.sample(S, generator=make_generator(4))
        assert (at.latent_dim, at.data_dim) == (L, D)
        assert at.log_p_x_given_z(x, z).shape == (S, B)
        assert at.sample_x_given_z(z, generator=make_generator(5)).shape == (S, B, D)
        assert at.mean_x_given_z(z).shape == (S, B, D)


@each_head
def test_a_vae_is_its_parts(name: str) -> None:
    vae = vae_of(name)
    x, z = data(vae), randn(S, B, L, seed=6)
    output, head = vae.decoder(z), vae.likelihood
    assert_close(vae.log_p_x_given_z(x, z).detach(), head.log_prob(x, output).detach())
    assert_close(vae.mean_x_given_z(z).detach(), head.mean(output).detach())
    drawn = vae.sample_x_given_z(z, generator=make_generator(7))
    assert torch.equal(drawn, head.sample(output, generator=make_generator(7)))
    q, direct = vae(x), vae.encoder(x)
    assert_close(q.mu.detach(), direct.mu.detach())
    assert_close(q.logvar.detach(), direct.logvar.detach())
    assert isinstance(vae.generative, DecoderModel)
    assert_close(vae.prior(B).log_prob(z), torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1))


@each_head
def test_every_bound_takes_a_vae(name: str) -> None:
    vae = vae_of(name)
    x = data(vae)
    q = vae(x)
    z = q.sample(20_000, generator=make_generator(8))
    log_w = bounds.log_weights(vae, q, x, z).detach()
    analytic = bounds.elbo(vae, q, x, num_samples=20_000, generator=make_generator(8), analytic_kl=True)
    # The same draws: the two estimators differ by a mean-zero term that spreads by about a nat.
    assert_mean(log_w - analytic.detach(), torch.zeros(B), ceiling=0.02)
    ten = bounds.importance_weighted_bound(log_w, 10).mean(0)
    assert bool((ten > log_w.mean(0)).all())
    assert_close(bounds.log_joint(vae, x, z).detach() - q.log_prob(z).detach(), log_w)


@pytest.mark.parametrize("vae", [*map(vae_of, HEADS), conv_vae()], ids=[*HEADS, "conv"])
@pytest.mark.parametrize("form", [sgvb_a, sgvb_b])
def test_estimators_differentiate_all_weights_as_backward_does(vae: VAE, form: Any) -> None:
    x, params = data(vae), weights_of(vae)
    objective = form(vae.functional, amortised(vae, x), x)
    noise = randn(R, S, B, L, seed=9)
    estimates = Pathwise().at(objective, params, noise)
    assert estimates.keys() == params.keys()
    for r in range(R):
        q = vae(x)
        estimator = bounds.log_weights if form is sgvb_a else bounds.elbo_with_analytic_kl
        elbo = estimator(vae, q, x, q.from_noise(noise[r])).mean(0).sum()
        expected = torch.autograd.grad(elbo, list(vae.parameters()))
        for weight, slope in zip(params, expected, strict=True):
            # Sums over data and draws of terms up to 1e2.
            assert_close(estimates[weight][r], slope, atol=1e-11)


def test_a_family_may_be_made_of_the_functional_vae() -> None:
    vae = vae_of("LearnedNormal")
    x, params, noise = data(vae), weights_of(vae), randn(R, S, B, L, seed=9)
    first, second = (
        Pathwise().at(sgvb_a(vae.functional, family, x), params, noise)
        for family in (amortised(vae, x), lambda p: vae.functional(p)(x))
    )
    for name in params:
        assert torch.equal(first[name], second[name])


def test_other_estimators_run_and_the_meter_measures_them() -> None:
    vae = vae_of("Bernoulli")
    x, params = data(vae), weights_of(vae)
    objective = sgvb_a(vae.functional, amortised(vae, x), x)
    found = {
        kind: measure(
            estimator, objective, params, num_estimates=4000, num_samples=1, generator=make_generator(10)
        )
        for kind, estimator in (("path", Pathwise()), ("score", ScoreFunction()), ("stl", sticking_the_landing()))
    }  # fmt: skip
    for name in params:
        for other in ("score", "stl"):
            error = (found["path"].variance[name] + found[other].variance[name]).div(4000).sqrt()
            # Two unbiased estimates of one number; five errors, and rounding where nothing varies.
            assert bool(((found["path"].mean[name] - found[other].mean[name]).abs() <= 5.0 * error + 1e-10).all())


# The linear VAE is the linear-Gaussian model: its ELBO is known, and so are all slopes of it.

WEIGHT, BIAS, NOISE = randn(D, L, seed=11), randn(D, seed=12), 0.5 * randn(D, seed=13)
PHI, PHI_BIAS = 0.3 * randn(2 * L, D, seed=14), 0.3 * randn(2 * L, seed=15)
X = 1.5 * randn(B, D, seed=16)


def linear_vae() -> VAE:
    encoder, decoder = nn.utils.skip_init(nn.Linear, D, 2 * L), nn.utils.skip_init(nn.Linear, L, D)
    head = LearnedNormalLikelihood(D)
    vae = VAE(NormalEncoder(encoder), decoder, head, latent_dim=L, data_dim=D).to(DOUBLE)
    vae.load_state_dict(
        {
            "encoder.network.weight": PHI,
            "encoder.network.bias": PHI_BIAS,
            "decoder.weight": WEIGHT,
            "decoder.bias": BIAS,
            "likelihood.logvar": NOISE,
        }
    )
    return vae


NAMES = ("decoder.weight", "decoder.bias", "likelihood.logvar", "encoder.network.weight", "encoder.network.bias")


def exact_elbo(weight: Tensor, bias: Tensor, noise: Tensor, phi: Tensor, phi_bias: Tensor) -> Tensor:
    mu, logvar = (X @ phi.mT + phi_bias).chunk(2, -1)
    return LinearGaussian(weight, bias, noise).elbo(X, DiagonalNormal(mu, logvar))


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_the_linear_vae_has_the_exact_elbo_and_its_gradient(analytic_kl: bool) -> None:
    """In the noise the integrand is a quadratic: 2 L points with its mean and covariance average it without error."""
    vae = linear_vae()
    axes = math.sqrt(L) * torch.eye(L, dtype=DOUBLE)
    points = torch.cat([axes, -axes]).unsqueeze(1).expand(2 * L, B, L)

    def ours(*weights: Tensor) -> Tensor:
        at = vae.functional(dict(zip(NAMES, weights, strict=True)))
        q = at(X)
        estimator = bounds.elbo_with_analytic_kl if analytic_kl else bounds.log_weights
        return estimator(at, q, X, q.from_noise(points)).mean(0)

    assert_same_value_and_gradient(ours, exact_elbo, (WEIGHT, BIAS, NOISE, PHI, PHI_BIAS))


def test_at_the_exact_posterior_every_weight_is_the_evidence() -> None:
    """Orthogonal columns and one noise variance give a posterior of independent coordinates, which q can be."""
    columns, _ = torch.linalg.qr(randn(D, L, seed=17))
    weight, noise = columns * torch.tensor([1.5, 0.7], dtype=DOUBLE), torch.full((D,), -0.4, dtype=DOUBLE)
    precision = 1.0 + (weight**2).sum(0) * math.exp(0.4)
    projection = weight.mT * math.exp(0.4) / precision.unsqueeze(-1)
    vae = linear_vae()
    params = {
        "decoder.weight": weight,
        "decoder.bias": BIAS,
        "likelihood.logvar": noise,
        "encoder.network.weight": torch.cat([projection, torch.zeros(L, D, dtype=DOUBLE)]),
        "encoder.network.bias": torch.cat([-projection @ BIAS, -precision.log()]),
    }
    at, exact = vae.functional(params), LinearGaussian(weight, BIAS, noise)
    q = at(X)
    z = q.sample(S, generator=make_generator(18))
    log_w = bounds.log_weights(at, q, X, z)
    assert_close(log_w, exact.log_p_x(X).expand(S, B))
    assert_close(bounds.importance_weighted_bound(log_w).squeeze(0), exact.log_p_x(X))
    # And there sticking the landing has no noise left: each draw has the gradient of the evidence in the decoder.
    estimates = sticking_the_landing()(
        sgvb_a(vae.functional, amortised(vae, X), X), params, num_estimates=R, generator=make_generator(19)
    )
    for name in ("encoder.network.weight", "encoder.network.bias"):
        assert float(estimates[name].abs().max()) <= 1e-10


# Weights from a dictionary, storage, dtypes, devices.


def test_a_functional_vae_uses_the_weights_it_is_given() -> None:
    vae = vae_of("LearnedNormal")
    x, z = data(vae), randn(S, B, L, seed=20)
    before = weights_of(vae)
    other = {name: 0.5 * weight for name, weight in before.items()}
    twin = vae_of("LearnedNormal")
    twin.load_state_dict(other)
    at = vae.functional(other)
    assert_close(at.log_p_x_given_z(x, z), twin.log_p_x_given_z(x, z).detach())
    assert_close(at.mean_x_given_z(z), twin.mean_x_given_z(z).detach())
    assert_close(at(x).mu, twin(x).mu.detach())  # type: ignore[attr-defined]
    draws = [m.sample_x_given_z(z, generator=make_generator(1)).detach() for m in (at, twin)]
    assert_close(*draws)
    assert not torch.allclose(at.log_p_x_given_z(x, z), vae.log_p_x_given_z(x, z).detach())
    for name, weight in vae.named_parameters():
        assert torch.equal(weight.detach(), before[name])


def test_weights_that_are_left_out_are_the_modules_own() -> None:
    vae = vae_of("LearnedNormal")
    x, z = data(vae), randn(S, B, L, seed=21)
    noise = torch.tensor(0.3, dtype=DOUBLE)
    at = vae.functional({"likelihood.logvar": noise})
    expected = torch.distributions.Normal(vae.decoder(z), (noise / 2.0).exp()).log_prob(x).sum(-1)
    assert_close(at.log_p_x_given_z(x, z).detach(), expected.detach())


class Shifted(nn.Module):
    """A prior whose mean is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor([0.5, -1.0], dtype=DOUBLE))

    def forward(self, batch_size: int) -> DiagonalNormal:
        mu = self.mu.expand(batch_size, -1)
        return DiagonalNormal(mu, torch.zeros_like(mu))


def test_a_prior_with_weights_learns_and_is_stored() -> None:
    plain = vae_of("Bernoulli")
    vae = VAE(plain.encoder, plain.decoder, plain.likelihood, latent_dim=L, data_dim=D, prior=Shifted())
    assert "p_z.mu" in vae.state_dict()
    x, params = data(vae), weights_of(vae)
    estimates = Pathwise().at(sgvb_b(vae.functional, amortised(vae, x), x), params, randn(1, S, B, L, seed=22))
    q = vae(x)
    slope = torch.autograd.grad(-kl(q, vae.prior(B)).sum(), vae.p_z.mu)[0]  # type: ignore[attr-defined, arg-type]
    assert_close(estimates["p_z.mu"][0], slope)


def test_a_vae_of_bits() -> None:
    """The latents need be neither normal nor continuous."""
    vae = VAE(
        BernoulliEncoder(mlp([D, L], generator=make_generator(23), dtype=DOUBLE)),
        mlp([L, D], generator=make_generator(24), dtype=DOUBLE),
        BernoulliLikelihood(),
        latent_dim=L,
        data_dim=D,
        prior=fair_bits(L, dtype=DOUBLE),
    )
    x = data(vae)
    assert isinstance(vae(x), Bernoulli)
    objective = sgvb_a(vae.functional, amortised(vae, x), x)
    estimates = ScoreFunction()(objective, weights_of(vae), num_estimates=R, generator=make_generator(25))
    assert all(bool(estimate.isfinite().all()) for estimate in estimates.values())
    values = bounds.elbo(vae, vae(x), x, num_samples=S, generator=make_generator(26))
    assert values.shape == (S, B)


def test_the_state_holds_every_weight_and_nothing_else() -> None:
    vae = linear_vae()
    assert set(vae.state_dict()) == set(NAMES)
    assert {name for name, _ in vae.named_parameters()} == set(NAMES)


def test_a_stored_vae_comes_back() -> None:
    vae, other = vae_of("LearnedNormal of each"), vae_of("LearnedNormal of each")
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(1.0)
    other.load_state_dict(vae.state_dict())
    x, z = data(vae), randn(S, B, L, seed=27)
    assert torch.equal(vae.log_p_x_given_z(x, z), other.log_p_x_given_z(x, z))


@each_head
def test_single_precision(name: str) -> None:
    double, single = vae_of(name), vae_of(name).float()
    x, z = data(double), randn(S, B, L, seed=28)
    q = single(x.float())
    assert isinstance(q, DiagonalNormal)
    assert {q.mu.dtype, single.prior(B).sample(1, generator=make_generator(1)).dtype} == {torch.float32}
    values = single.log_p_x_given_z(x.float(), z.float())
    assert_close(values.double().detach(), double.log_p_x_given_z(x, z).detach(), rtol=1e-5, atol=1e-4)
    draws = bounds.elbo(single, q, x.float(), num_samples=2, generator=make_generator(29), analytic_kl=True)
    assert draws.dtype == torch.float32


@pytest.mark.parametrize("vae", [*map(vae_of, HEADS), conv_vae()], ids=[*HEADS, "conv"])
def test_a_vae_moves_as_a_whole(vae: VAE) -> None:
    """The meta device has shapes and no numbers: what stayed behind would not mix with it."""
    moved = vae.to("meta")
    x, z = torch.zeros(B, vae.data_dim, dtype=DOUBLE, device="meta"), torch.zeros(S, B, L, dtype=DOUBLE, device="meta")
    q = moved(x)
    values = bounds.log_weights(moved, q, x, q.from_noise(z)) + bounds.elbo_with_analytic_kl(moved, q, x, z)
    assert values.device.type == "meta"
    assert moved.mean_x_given_z(z).device.type == "meta"


def test_a_prior_is_made_where_the_decoder_is() -> None:
    decoder = nn.utils.skip_init(nn.Linear, L, D, dtype=DOUBLE, device="meta")
    vae = VAE(nn.Identity(), decoder, BernoulliLikelihood(), latent_dim=L, data_dim=D)
    assert vae.prior(B).mu.device.type == "meta"  # type: ignore[attr-defined]
    assert vae.prior(B).mu.dtype == DOUBLE  # type: ignore[attr-defined]
    assert StandardNormal(L)(B).mu.dtype == torch.get_default_dtype()


@pytest.mark.parametrize("vae", [*map(vae_of, HEADS), conv_vae()], ids=[*HEADS, "conv"])
@pytest.mark.parametrize(("samples", "batch"), [(1, 1), (1, 3), (4, 1)])
def test_small_shapes(vae: VAE, samples: int, batch: int) -> None:
    x = data(vae, batch)
    values = bounds.elbo(vae, vae(x), x, num_samples=samples, generator=make_generator(30))
    assert values.shape == (samples, batch)
    z = randn(samples, batch, L, seed=31)
    assert vae.sample_x_given_z(z, generator=make_generator(32)).shape == (samples, batch, vae.data_dim)


def test_a_vae_learns() -> None:
    """A few steps of gradient ascent on a fixed draw raise the bound on four images."""
    vae = vae_of("Bernoulli")
    x, noise = data(vae, 4), randn(8, 4, L, seed=33)
    optimiser = torch.optim.Adam(vae.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        q = vae(x)
        loss = -bounds.elbo_with_analytic_kl(vae, q, x, q.from_noise(noise)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_functional_call_of_the_module_is_its_encoder() -> None:
    vae = vae_of("Bernoulli")
    x = data(vae)
    q = functional_call(vae, weights_of(vae), (x,))
    assert_close(q.mu, vae(x).mu.detach())


def make(**changes: Any) -> VAE:
    plain = vae_of("PredictedNormal")
    settings: dict[str, Any] = {"latent_dim": L, "data_dim": D, **changes}
    decoder = settings.pop("decoder", plain.decoder)
    return VAE(plain.encoder, decoder, plain.likelihood, **settings)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: make(latent_dim=0, prior=Shifted()),
            ValueError,
            "latent_dim: expected a positive integer, found 0",
        ),
        (lambda: make(data_dim=1.5), TypeError, "data_dim: expected a positive integer, found 1.5"),
        (lambda: StandardNormal(0), ValueError, "latent_dim: expected a positive integer, found 0"),
        (lambda: make()(randn(B, D + 1)), ValueError, "x: expected shape (B, 6), found (3, 7)"),
        (lambda: make()(randn(B, D).long()), TypeError, "x: expected floating-point numbers, found torch.int64"),
        (
            lambda: make(latent_dim=3)(randn(B, D)),
            ValueError,
            "encoder(x): expected (B, L) = (3, 3), found (3, 2)",
        ),
        (
            lambda: make().log_p_x_given_z(randn(B, D), randn(S, 1, L)),
            ValueError,
            "z: expected shape (S, 3, 2), found (5, 1, 2)",
        ),
        (
            lambda: make(decoder=mlp([L, D], generator=make_generator(1), dtype=DOUBLE)).mean_x_given_z(randn(S, B, L)),
            ValueError,
            "network(z): expected shape (5, 3, 12), found (5, 3, 6)",
        ),
        (
            lambda: make().mean_x_given_z(randn(S, L)),
            ValueError,
            "z: expected shape (S, B, 2), found (5, 2)",
        ),
        (
            lambda: make().functional({"decoder.9.weight": randn(2)}),
            ValueError,
            "params: expected names of weights of the VAE, found 'decoder.9.weight'",
        ),
        (
            lambda: make().functional({}),
            ValueError,
            "params: expected at least one weight of the VAE, found none",
        ),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
