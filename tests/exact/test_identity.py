"""The book's first identity on every exact model: ELBO + KL(q || p(z|x)) = log p(x), and what follows from it.

The three terms come from three places: the model's closed-form ELBO, a KL between two densities, and the evidence.
Each is held against a foreign oracle in the file of its model.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.oracles import MODELS, ModelCase, assert_close, assert_mean, model_case, randn
from vae_lib.bounds import elbo, importance_weighted_bound, log_weights
from vae_lib.densities import Categorical, DiagonalNormal, FullNormal, Gamma
from vae_lib.divergences import has_closed_form, kl
from vae_lib.exact import NonlinearDecoder
from vae_lib.rng import make_generator

each_model = pytest.mark.parametrize("name", MODELS)


def kl_to_posterior(case: ModelCase) -> Tensor:
    if isinstance(case.model, NonlinearDecoder):
        return case.model.kl_to_posterior(case.x, case.q)
    return kl(case.q, case.model.posterior(case.x))


@each_model
@pytest.mark.equation("eq-elbo-kl")
def test_elbo_plus_kl_is_the_evidence(name: str) -> None:
    case = model_case(name)
    bound, gap, log_p_x = case.model.elbo(case.x, case.q), kl_to_posterior(case), case.model.log_p_x(case.x)
    assert bool((gap > 1e-3).all())  # otherwise the test could not tell a bound from the evidence
    assert_close(bound + gap, log_p_x)


@each_model
@pytest.mark.equation("eq-elbo")
def test_the_average_log_weight_is_the_elbo(name: str) -> None:
    case = model_case(name)
    samples = elbo(case.model, case.q, case.x, num_samples=20_000, generator=make_generator(1))
    # The log-weights here spread by at most 4 nats: 4 / sqrt(20 000) = 0.03.
    assert_mean(samples, case.model.elbo(case.x, case.q), ceiling=0.03)


@each_model
@pytest.mark.equation("eq-elbo-split")
def test_the_two_forms_have_one_mean(name: str) -> None:
    """E_q log p(x|z) - KL(q || p(z)) is the same ELBO."""
    case = model_case(name)
    assert has_closed_form(case.q, case.model.prior(1))
    samples = elbo(case.model, case.q, case.x, num_samples=20_000, generator=make_generator(2), analytic_kl=True)
    assert_mean(samples, case.model.elbo(case.x, case.q), ceiling=0.04)


@each_model
@pytest.mark.equation("eq-jensen")
def test_the_log_of_the_mean_is_above_the_mean_of_the_log(name: str) -> None:
    """log E_q[w] >= E_q[log w], and the gap is the KL; with equality where the weights are constant."""
    case = model_case(name)
    q, log_p_x = case.q, case.model.log_p_x(case.x)
    assert_close(log_p_x - case.model.elbo(case.x, q), kl_to_posterior(case))
    z = q.sample(1000, generator=make_generator(3))
    log_w = log_weights(case.model, q, case.x, z)
    assert bool((importance_weighted_bound(log_w) > log_w.mean(0)).all())


@each_model
def test_at_the_posterior_every_sample_is_the_evidence(name: str) -> None:
    case = model_case(name)
    posterior = case.model.posterior(case.x)
    z = posterior.sample(50, generator=make_generator(4))
    log_w = log_weights(case.model, posterior, case.x, z)
    log_p_x = case.model.log_p_x(case.x)
    assert_close(log_w, log_p_x.expand(50, -1))
    assert_close(importance_weighted_bound(log_w, 10), log_p_x.expand(5, -1))


@each_model
@pytest.mark.equation("eq-importance")
def test_the_average_weight_is_the_evidence(name: str) -> None:
    case = model_case(name)
    z = case.q.sample(40_000, generator=make_generator(5))
    weights = log_weights(case.model, case.q, case.x, z).exp()
    p_x = case.model.log_p_x(case.x).exp()
    # These q are wide enough for weights of finite variance; the ceiling says what was reached, 6 % of p(x).
    assert_mean(weights / p_x, torch.ones(case.x.shape[0]), ceiling=0.06)


@each_model
@pytest.mark.equation("eq-naive-mc")
def test_the_average_likelihood_over_the_prior_is_the_evidence(name: str) -> None:
    case = model_case(name)
    z = case.model.prior(case.x.shape[0]).sample(40_000, generator=make_generator(6))
    likelihood = case.model.log_p_x_given_z(case.x, z).exp()
    p_x = case.model.log_p_x(case.x).exp()
    assert_mean(likelihood / p_x, torch.ones(case.x.shape[0]), ceiling=0.05)


@each_model
@pytest.mark.equation("eq-bayes")
def test_the_posterior_is_the_joint_over_the_evidence(name: str) -> None:
    case = model_case(name)
    z = case.q.sample(20, generator=make_generator(7))
    log_prior = case.model.prior(case.x.shape[0]).log_prob(z)
    by_rule = case.model.log_p_x_given_z(case.x, z) + log_prior - case.model.log_p_x(case.x)
    assert_close(case.model.posterior(case.x).log_prob(z), by_rule)


@each_model
@pytest.mark.equation("eq-reverse-kl")
def test_raising_the_elbo_lowers_the_reverse_kl(name: str) -> None:
    """As functions of q, the ELBO and minus the KL differ by a constant: same gradient, same best q."""
    case = model_case(name)
    leaves = [parameter.clone().requires_grad_() for parameter in vars(case.q).values()]
    moved = ModelCase(case.model, case.x, type(case.q)(*leaves))
    up = torch.autograd.grad(case.model.elbo(case.x, moved.q).sum(), leaves)
    down = torch.autograd.grad(kl_to_posterior(moved).sum(), leaves)
    for rise, fall in zip(up, down, strict=True):
        if isinstance(case.q, FullNormal) and rise.ndim == 3:
            rise, fall = rise.tril(), fall.tril()  # the part above the diagonal is no parameter
        assert float(rise.abs().max()) > 1e-3
        # torch's trigamma, in the gradient of the Gamma entropy, is right to 5e-10
        assert_close(rise, -fall, atol=1e-9 if name == "GammaPoisson" else 1e-11)


@pytest.mark.equation("eq-reverse-kl")
def test_the_best_q_of_a_grid_is_the_same_by_both() -> None:
    case = model_case("NonlinearDecoder")
    grid = torch.cartesian_prod(torch.linspace(-2.0, 2.0, 9), torch.linspace(-4.0, 0.0, 5)).double()
    q = DiagonalNormal(grid[:, :1], grid[:, 1:])
    x = case.x[2:].expand(len(grid), -1)
    assert int(case.model.elbo(x, q).argmax()) == int(case.model.kl_to_posterior(x, q).argmin())


@given(st.sampled_from(sorted(MODELS)), st.integers(0, 10_000))
@settings(max_examples=60)
def test_no_q_lifts_the_bound_above_the_evidence(name: str, seed: int) -> None:
    case = model_case(name)
    batch = case.x.shape[0]
    a, b = 1.5 * randn(2, batch, case.q.event_dim, seed=seed)
    if name in ("LinearGaussian", "NonlinearDecoder"):
        q: object = DiagonalNormal(2.0 * a, b)
    elif name == "GammaPoisson":
        q = Gamma(a.exp(), b.exp())
    else:
        q = Categorical(3.0 * randn(batch, 1, 4, seed=seed))
    bound, log_p_x = case.model.elbo(case.x, q), case.model.log_p_x(case.x)
    assert bool((bound <= log_p_x + 1e-10).all())
    assert_close(bound + kl_to_posterior(ModelCase(case.model, case.x, q)), log_p_x)


@each_model
def test_the_model_is_differentiable(name: str) -> None:
    """The gradients of log p(x) and of the ELBO at the exact posterior agree: the KL is flat at its minimum."""
    case = model_case(name)
    tensors = {key: value for key, value in vars(case.model).items() if isinstance(value, Tensor)}
    leaves = {key: value.clone().requires_grad_() for key, value in tensors.items()}
    for key, leaf in leaves.items():
        setattr(case.model, key, leaf)
    of_evidence = torch.autograd.grad(case.model.log_p_x(case.x).sum(), list(leaves.values()))
    posterior = case.model.posterior(case.x)
    if isinstance(case.model, NonlinearDecoder):
        z = posterior.sample(40_000, generator=make_generator(8))
        bound = case.model.log_p_x_given_z(case.x, z).mean(0).sum()
        (of_bound,) = torch.autograd.grad(bound, list(leaves.values()))
        # Fisher's identity by sampling: the derivative of a log-likelihood spreads by 2, over 40 000 draws and 3 data
        assert float((of_bound - of_evidence[0]).abs()) < 5.0 * 2.0 * (3.0 / 40_000) ** 0.5
        return
    frozen = type(posterior)(*(parameter.detach() for parameter in vars(posterior).values()))
    of_bound = torch.autograd.grad(case.model.elbo(case.x, frozen).sum(), list(leaves.values()))
    for one, two in zip(of_evidence, of_bound, strict=True):
        assert float(one.abs().max()) > 1e-3
        assert_close(one, two, atol=1e-10)
