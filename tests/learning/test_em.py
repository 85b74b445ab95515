"""EM: it rises, it says so when it does not, and it ends where scikit-learn ends."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

from tests.oracles import assert_close, randn
from vae_lib.densities import Bernoulli, Categorical, DiagonalNormal, FullNormal
from vae_lib.exact import GaussianMixture, LinearGaussian
from vae_lib.learning import BoundFellError, exact, linear_gaussian_em, mixture_em, run_em
from vae_lib.protocols import Density

N, D, L = 60, 4, 2
DOUBLE = torch.float64
X = (
    randn(N, D, seed=1)
    @ torch.diag(torch.tensor([2.0, 1.2, 0.5, 0.3]).double())
    @ torch.linalg.qr(randn(D, D, seed=2)).Q
)
START = LinearGaussian(randn(D, L, seed=3), randn(D, seed=4), 0.3 * randn(D, seed=5))


def three_clouds() -> Tensor:
    centres = torch.tensor([[-3.0, 0.0], [3.0, 0.5], [0.0, 4.0]]).double()
    return torch.cat([centre + randn(40, 2, seed=10 + i) * (0.5 + 0.3 * i) for i, centre in enumerate(centres)])


CLOUDS = three_clouds()
MIXTURE = GaussianMixture(
    torch.zeros(3).double(), torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).double(), torch.ones(3, 2).double()
)


@pytest.mark.parametrize("e_step", [exact, linear_gaussian_em.mean_field, linear_gaussian_em.isotropic])
def test_no_half_step_lowers_the_bound(e_step: object) -> None:
    run = run_em(START, X, e_step=e_step, m_step=linear_gaussian_em.factor_analysis_m_step, num_steps=30)  # type: ignore[arg-type]
    heights = [h for pair in zip(run.elbo_after_e, run.elbo_after_m, strict=True) for h in pair]
    assert np.diff(heights).min() > -1e-12
    assert heights[-1] > heights[0] + 0.1
    assert len(run.models) == 31
    assert run.models[0] is START
    for model, evidence, bound in zip(run.models, run.log_p_x, run.elbo_after_e, strict=False):
        assert evidence == float(model.log_p_x(X).mean())
        if e_step is exact:
            assert bound == pytest.approx(evidence, abs=1e-12)
        else:
            assert bound < evidence


def test_the_recorded_bounds_are_those_of_the_half_steps() -> None:
    run = run_em(START, X, e_step=linear_gaussian_em.mean_field, m_step=linear_gaussian_em.m_step, num_steps=2)
    for step in (0, 1):
        q = linear_gaussian_em.mean_field(run.models[step], X)
        assert run.elbo_after_e[step] == float(run.models[step].elbo(X, q).mean())
        assert run.elbo_after_m[step] == float(run.models[step + 1].elbo(X, q).mean())


def plug_in(x: Tensor, q: Density) -> LinearGaussian:
    """The slip: the mean of q as if it were the latent."""
    assert isinstance(q, FullNormal)
    return linear_gaussian_em.m_step(x, DiagonalNormal(q.mu, torch.full_like(q.mu, -80.0)))


def test_a_wrong_m_step_is_refused() -> None:
    top = LinearGaussian.maximum_likelihood(X, L)
    with pytest.raises(BoundFellError, match=r"^M-step 1: expected an ELBO of at least -?[\d.]+ nats per datum, found"):
        run_em(top, X, e_step=exact, m_step=plug_in, num_steps=5)


def test_a_wrong_e_step_is_refused() -> None:
    def tired(model: LinearGaussian, x: Tensor) -> Density:
        q = model.posterior(x)
        return FullNormal(q.mu, q.scale_tril * (1.0 if model is START else 3.0))

    with pytest.raises(BoundFellError, match=r"^E-step 2: expected"):
        run_em(START, X, e_step=tired, m_step=linear_gaussian_em.m_step, num_steps=5)


def test_a_small_slip_is_seen_and_rounding_is_not() -> None:
    top = run_em(START, X, e_step=exact, m_step=linear_gaussian_em.m_step, num_steps=400).models[-1]
    run_em(top, X, e_step=exact, m_step=linear_gaussian_em.m_step, num_steps=50)

    def off(x: Tensor, q: Density) -> LinearGaussian:
        best = linear_gaussian_em.m_step(x, q)
        return LinearGaussian(best.weight * 1.001, best.bias, best.logvar)

    with pytest.raises(BoundFellError):
        run_em(top, X, e_step=exact, m_step=off, num_steps=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, r"num_steps: expected a positive integer, found 0"),
        ({"x": X[0]}, r"x: expected shape \(N, D\), found \(4,\)"),
        ({"x": X.clone().index_fill_(0, torch.tensor([3]), math.nan)}, r"x: expected finite numbers, found 4 that"),
    ],
)
def test_bad_input_is_one_line(changes: dict[str, object], message: str) -> None:
    arguments = {"x": X, "num_steps": 3} | changes
    with pytest.raises(ValueError, match=message) as caught:
        run_em(START, e_step=exact, m_step=linear_gaussian_em.m_step, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_em_ends_at_the_maximum_likelihood_of_probabilistic_pca() -> None:
    """scikit-learn's PCA scores data under the same model, with the covariance divided by N - 1."""
    run = run_em(START, X, e_step=exact, m_step=linear_gaussian_em.m_step, num_steps=500)
    end = run.models[-1]
    assert_close(end.log_p_x(X), LinearGaussian.maximum_likelihood(X, L).log_p_x(X), rtol=1e-8)
    # Rescaled by the root of N / (N - 1) the model is scikit-learn's.
    factor = N / (N - 1)
    rescaled = LinearGaussian(end.weight * factor**0.5, end.bias, end.logvar + math.log(factor))
    theirs = PCA(L).fit(X.numpy())
    assert_close(rescaled.log_p_x(X), theirs.score_samples(X.numpy()), rtol=1e-8)
    components = torch.linalg.svd(end.weight).U[:, :L]
    cosines = torch.linalg.svdvals(torch.tensor(theirs.components_).double() @ components)
    assert_close(cosines, torch.ones(L).double(), rtol=1e-8)


def test_em_ends_at_the_factor_analysis_of_scikit_learn() -> None:
    x = randn(200, 1, seed=20) @ randn(1, 6, seed=21) + randn(200, 6, seed=22) * torch.linspace(0.4, 1.2, 6).double()
    start = LinearGaussian(randn(6, 1, seed=23), x.mean(0), x.var(0).log())
    run = run_em(start, x, e_step=exact, m_step=linear_gaussian_em.factor_analysis_m_step, num_steps=800)
    theirs = FactorAnalysis(1, tol=1e-9, max_iter=20_000, svd_method="lapack").fit(x.numpy())
    assert float(run.models[-1].log_p_x(x).mean()) == pytest.approx(theirs.score(x.numpy()), abs=1e-7)
    covariance = run.models[-1].weight @ run.models[-1].weight.mT + run.models[-1].logvar.exp().diag()
    torch.testing.assert_close(covariance, torch.tensor(theirs.get_covariance()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("equal_noise", [True, False])
def test_no_slope_is_left_after_an_m_step(equal_noise: bool) -> None:
    q = FullNormal(randn(N, L, seed=30), 0.5 * torch.eye(L).double() + 0.1 * randn(N, L, L, seed=31).tril())
    best = linear_gaussian_em.m_step(X, q, equal_noise=equal_noise)
    noise = best.logvar[:1] if equal_noise else best.logvar
    leaves = [t.clone().requires_grad_() for t in (best.weight, best.bias, noise)]
    bound = LinearGaussian(leaves[0], leaves[1], leaves[2].expand(D)).elbo(X, q).mean()
    for slope in torch.autograd.grad(bound, leaves):
        assert_close(slope, torch.zeros_like(slope), atol=1e-11)


@pytest.mark.parametrize("family", [linear_gaussian_em.mean_field, linear_gaussian_em.isotropic])
def test_no_slope_is_left_after_a_restricted_e_step(family: object) -> None:
    q = family(START, X)  # type: ignore[operator]
    mu = q.mu.clone().requires_grad_()
    shift = torch.zeros(1 if family is linear_gaussian_em.isotropic else L, dtype=DOUBLE, requires_grad=True)
    bound = START.elbo(X, DiagonalNormal(mu, q.logvar + shift)).sum()
    for slope in torch.autograd.grad(bound, (mu, shift)):
        # 60 data, each with terms of size 10.
        assert_close(slope, torch.zeros_like(slope), atol=1e-10)


def test_mean_field_is_at_least_as_good_as_one_variance() -> None:
    free, one = (START.elbo(X, f(START, X)) for f in (linear_gaussian_em.mean_field, linear_gaussian_em.isotropic))
    assert bool((free > one + 1e-3).all())
    assert bool((START.log_p_x(X) > free + 1e-3).all())
    assert float(linear_gaussian_em.isotropic(START, X).logvar.std(1).max()) == 0.0


def test_the_m_step_knows_normals_only() -> None:
    with pytest.raises(TypeError, match=r"^q: expected DiagonalNormal or FullNormal, found Bernoulli$"):
        linear_gaussian_em.m_step(X, Bernoulli(torch.zeros(N, L, dtype=DOUBLE)))


def test_em_ends_at_the_mixture_of_scikit_learn() -> None:
    run = run_em(MIXTURE, CLOUDS, e_step=exact, m_step=mixture_em.m_step, num_steps=300)
    theirs = SklearnMixture(
        3,
        covariance_type="diag",
        tol=1e-12,
        max_iter=2000,
        reg_covar=0.0,
        weights_init=np.full(3, 1 / 3),
        means_init=MIXTURE.mu.numpy(),
        precisions_init=np.exp(-MIXTURE.logvar.numpy()),
        random_state=0,
    ).fit(CLOUDS.numpy())
    end = run.models[-1]
    assert float(end.log_p_x(CLOUDS).mean()) == pytest.approx(theirs.score(CLOUDS.numpy()), abs=1e-9)
    # scikit-learn stops where the bound moves by 1e-12, which leaves the parameters off by some 1e-6.
    torch.testing.assert_close(end.mu, torch.tensor(theirs.means_), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(end.logvar.exp(), torch.tensor(theirs.covariances_), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(end.logits.softmax(0), torch.tensor(theirs.weights_), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("equal_variance", [True, False])
def test_no_slope_is_left_after_the_m_step_of_a_mixture(equal_variance: bool) -> None:
    q = Categorical(randn(len(CLOUDS), 1, 3, seed=40))
    best = mixture_em.m_step(CLOUDS, q, equal_variance=equal_variance)
    noise = best.logvar[:1, :1] if equal_variance else best.logvar
    leaves = [t.clone().requires_grad_() for t in (best.logits, best.mu, noise)]
    bound = GaussianMixture(leaves[0], leaves[1], leaves[2].expand(3, 2)).elbo(CLOUDS, q).mean()
    slopes = torch.autograd.grad(bound, leaves)
    # The shares are a softmax of the logits, so the slope in the logits is that of a free maximum too.
    for slope in slopes:
        assert_close(slope, torch.zeros_like(slope), atol=1e-11)


def test_hard_assignments_are_the_likeliest_components() -> None:
    q = mixture_em.hard(MIXTURE, CLOUDS)
    joint = torch.stack(
        [
            torch.distributions.MultivariateNormal(mu, torch.exp(logvar).diag()).log_prob(CLOUDS)
            for mu, logvar in zip(MIXTURE.mu, MIXTURE.logvar, strict=True)
        ]
    )
    chosen = torch.nn.functional.one_hot(joint.argmax(0), 3).to(DOUBLE)
    assert_close(q.log_probs[:, 0].exp(), chosen)
    # The entropy of a q that is sure is zero: its ELBO is the largest of the three joint log-densities.
    assert_close(MIXTURE.elbo(CLOUDS, q), joint.amax(0) - math.log(3.0))
    assert bool((MIXTURE.elbo(CLOUDS, q) <= MIXTURE.log_p_x(CLOUDS)).all())


def test_hard_em_is_monotone_in_its_own_bound() -> None:
    run = run_em(MIXTURE, CLOUDS, e_step=mixture_em.hard, m_step=mixture_em.m_step, num_steps=20)
    assert np.diff(run.elbo_after_m).min() >= 0.0
    assert run.elbo_after_m[-1] < run.log_p_x[-1]


@pytest.mark.parametrize(
    ("q", "error", "message"),
    [
        (DiagonalNormal(X[:, :1], X[:, :1]), TypeError, "q: expected Categorical, found DiagonalNormal"),
        (
            Categorical(torch.tensor([[[0.0, -1e4]]], dtype=DOUBLE).expand(N, 1, 2)),
            ValueError,
            "q: expected every component to have data, found none for [1]",
        ),
        (
            Categorical(torch.where(torch.arange(N)[:, None, None] == torch.tensor([0, 1]), 800.0, 0.0).double()),
            ValueError,
            None,
        ),
    ],
)
def test_the_m_step_of_a_mixture_refuses_what_it_cannot_fit(
    q: Density, error: type[Exception], message: str | None
) -> None:
    if message is None:  # one component holds a single datum and the other everything else
        assert isinstance(q, Categorical)
        alone = torch.arange(N) == 0
        q = Categorical(torch.stack([alone, ~alone], -1).double().mul(800.0).unsqueeze(1))
        message = "q: expected every component to have some spread, found one on a single point (variance 0)"
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        mixture_em.m_step(X, q)


def test_an_e_step_must_not_give_back_what_the_m_step_won() -> None:
    """The ELBO after this second E-step is above that of the first, but below that of the M-step between them."""

    def tired(model: LinearGaussian, x: Tensor) -> Density:
        q = model.posterior(x)
        return FullNormal(q.mu, q.scale_tril * (1.0 if model is START else 2.0))

    best = linear_gaussian_em.m_step(X, START.posterior(X))
    first, between = START.elbo(X, START.posterior(X)).mean(), best.elbo(X, START.posterior(X)).mean()
    assert first + 1.0 < best.elbo(X, tired(best, X)).mean() < between - 1.0
    with pytest.raises(BoundFellError, match=r"^E-step 2: expected"):
        run_em(START, X, e_step=tired, m_step=linear_gaussian_em.m_step, num_steps=2)


class Nowhere:
    """A model that gives no number."""

    def log_p_x(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), math.nan, dtype=DOUBLE)

    def elbo(self, x: Tensor, q: Density) -> Tensor:
        return self.log_p_x(x)


def test_a_bound_that_is_not_a_number_is_refused() -> None:
    def e_step(model: Nowhere, x: Tensor) -> Density:
        return START.posterior(x)

    with pytest.raises(BoundFellError, match=r"^M-step 1: expected .* found nan$"):
        run_em(Nowhere(), X, e_step=e_step, m_step=lambda x, q: Nowhere(), num_steps=1)


@pytest.mark.parametrize("equal_noise", [True, False])
def test_the_m_step_reads_a_diagonal_q_by_its_variances(equal_noise: bool) -> None:
    logvar = randn(N, L, seed=50)
    diagonal = linear_gaussian_em.m_step(X, DiagonalNormal(X[:, :L], logvar), equal_noise=equal_noise)
    full = linear_gaussian_em.m_step(
        X, FullNormal(X[:, :L], torch.diag_embed(torch.exp(0.5 * logvar))), equal_noise=equal_noise
    )
    for name in ("weight", "bias", "logvar"):
        assert_close(getattr(diagonal, name), getattr(full, name))


def test_the_m_steps_check_the_data() -> None:
    message = r"^x: expected shape \(N, D\), found \(4,\)$"
    with pytest.raises(ValueError, match=message):
        linear_gaussian_em.m_step(X[0], START.posterior(X))
    with pytest.raises(ValueError, match=message):
        mixture_em.m_step(X[0], Categorical(randn(N, 1, 3, seed=51)))
