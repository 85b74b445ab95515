"""The importance-weighted bound: by hand, ordered in K, closing like 1/K; and the log-ratio of the joint KL."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import MODELS, assert_close, assert_mean, assert_same_value_and_gradient, model_case, randn
from vae_lib.bounds import importance_weighted_bound, joint_log_ratio, log_weights
from vae_lib.densities import Categorical, DiagonalNormal
from vae_lib.divergences import kl
from vae_lib.estimate import mean_with_error
from vae_lib.exact import LinearGaussian
from vae_lib.rng import make_generator


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 12, None])
def test_value_by_scipy_and_gradient_by_definition(count: int | None) -> None:
    log_w = 3.0 * randn(12, 2, seed=1)
    k = count or 12
    by_scipy = [scipy.special.logsumexp(log_w.numpy()[i : i + k], axis=0) - np.log(k) for i in range(0, 12, k)]
    assert_close(importance_weighted_bound(log_w, count), np.stack(by_scipy))
    # Consecutive samples form a group, whatever the number of groups.
    assert_same_value_and_gradient(
        lambda w: importance_weighted_bound(w, count),
        lambda w: torch.stack([w[i : i + k].exp().mean(0).log() for i in range(0, 12, k)]),
        (log_w,),
    )


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.floats(-1e4, 1e4))
def test_constant_weights_are_their_own_bound(groups: int, count: int, batch: int, level: float) -> None:
    """Also where the weights themselves under- or overflow."""
    log_w = torch.full((groups * count, batch), level, dtype=torch.float64)
    assert_close(importance_weighted_bound(log_w, count), torch.full((groups, batch), level, dtype=torch.float64))


def test_one_sample_is_its_own_bound() -> None:
    log_w = randn(6, 2, seed=2)
    assert_close(importance_weighted_bound(log_w, 1), log_w)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.equation("eq-jensen")
def test_the_bound_rises_with_k_and_stays_below_the_evidence(name: str) -> None:
    model, x, q = model_case(name)
    log_w = log_weights(model, q, x, q.sample(64 * 1000, generator=make_generator(1)))
    log_p_x = model.log_p_x(x)
    bounds = {k: importance_weighted_bound(log_w, k).reshape(1000, -1, x.shape[0]).mean(1) for k in (1, 2, 4, 16, 64)}
    assert_mean(bounds[1], model.elbo(x, q), ceiling=0.02)
    for small, large in ((1, 2), (2, 4), (4, 16), (16, 64)):
        # The same draws in both, grouped differently: the difference is known far better than either.
        step = mean_with_error(bounds[large] - bounds[small])
        assert bool((step.value > 5.0 * step.standard_error).all())
    for bound in bounds.values():
        estimate = mean_with_error(bound)
        assert bool((estimate.value <= log_p_x + 5.0 * estimate.standard_error).all())
    assert float((log_p_x - bounds[64].mean(0)).max()) < 0.2


def test_the_gap_closes_like_one_over_k() -> None:
    """log p(x) - L_K = Var[w] / (2 K p(x)²) + O(1/K²): slope -1 on log-log axes, and the constant too.

    z ~ N(0, 1), x | z ~ N(z, 1), x = 1.5, q = N(0.75, e^0.6): mean exact and variance 1.82 for 0.5, so the weights are
    bounded. Measured with the control variate 1 - mean(w)/p(x), of mean zero, which removes the first-order noise.
    """
    one = torch.ones(1, dtype=torch.float64)
    model, x = LinearGaussian(one[:, None], 0.0 * one, 0.0 * one), torch.tensor([[1.5]], dtype=torch.float64)
    q = DiagonalNormal(torch.tensor([[0.75]]).double(), torch.tensor([[0.6]]).double())
    z = q.sample(2**19, generator=make_generator(2))
    log_ratio = log_weights(model, q, x, z) - model.log_p_x(x)
    variance = float(log_ratio.exp().var())
    counts, gaps = [4, 8, 16, 32], []
    for k in counts:
        groups = importance_weighted_bound(log_ratio, k)
        gap = mean_with_error(groups.exp() - 1.0 - groups)
        gaps.append(float(gap.value))
        assert float(gap.standard_error) < 0.02 * gaps[-1]
        assert gaps[-1] == pytest.approx(variance / (2 * k), rel=2.0 / k + 0.1)
    slope = np.polyfit(np.log(counts), np.log(gaps), 1)[0]
    # 2 % errors at each end of three octaves move the slope by 0.03; the 1/K² term by up to 0.1.
    assert slope == pytest.approx(-1.0, abs=0.13)


@pytest.mark.parametrize(("samples", "count"), [(12, 5), (12, 24), (1, 2)])
def test_a_k_that_does_not_divide_is_refused(samples: int, count: int) -> None:
    message = f"^num_importance: expected a divisor of the {samples} samples, found {count}$"
    with pytest.raises(ValueError, match=message):
        importance_weighted_bound(torch.zeros(samples, 2), count)


def test_other_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^num_importance: expected a positive integer, found 0$"):
        importance_weighted_bound(torch.zeros(4, 2), 0)
    with pytest.raises(ValueError, match=r"^num_importance: expected a positive integer, found -2$"):
        importance_weighted_bound(torch.zeros(4, 2), -2)
    with pytest.raises(TypeError, match=r"^num_importance: expected a positive integer, found 2\.0$"):
        importance_weighted_bound(torch.zeros(4, 2), 2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^log_w: expected shape \(K, B\), found \(4,\)$"):
        importance_weighted_bound(torch.zeros(4))
    with pytest.raises(ValueError, match=r"^log_w: expected shape \(K, B\), found \(0, 2\) \(an empty batch\)$"):
        importance_weighted_bound(torch.zeros(0, 2))
    with pytest.raises(TypeError, match=r"^log_w: expected floating-point numbers, found torch\.int64$"):
        importance_weighted_bound(torch.zeros(4, 2, dtype=torch.int64))


def test_a_weight_of_zero_is_counted() -> None:
    log_w = torch.tensor([[0.0], [-math.inf]], dtype=torch.float64)
    assert_close(importance_weighted_bound(log_w), [[-math.log(2.0)]])


def joint_terms() -> tuple[torch.Tensor, ...]:
    """By enumeration over z (K of them) and x (M): log q(z|x) p_D(x) and log p(x, z), all with numpy."""
    model, _, _ = model_case("DiscreteJoint")
    q, p_data = Categorical(randn(5, 1, 4, seed=5)), torch.softmax(randn(5, seed=6), 0)
    log_q = np.log(scipy.special.softmax(q.logits[:, 0].numpy(), axis=1)).T  # (K, M)
    log_prior = np.log(scipy.special.softmax(model.logits_z.numpy()))
    log_table = np.log(scipy.special.softmax(model.logits_x_given_z.numpy(), axis=1))
    forward = torch.as_tensor(log_q + np.log(p_data.numpy()))
    reverse = torch.as_tensor(log_prior[:, None] + log_table)
    return forward, reverse, p_data


def test_the_joint_log_ratio_by_hand() -> None:
    forward, reverse, p_data = joint_terms()
    model, _, _ = model_case("DiscreteJoint")
    q, x = Categorical(randn(5, 1, 4, seed=5)), model.data_support()
    z = model.latent_support().unsqueeze(1).expand(-1, 5, -1)
    ratio = joint_log_ratio(log_weights(model, q, x, z), p_data.log())
    assert_close(ratio, forward - reverse)


@pytest.mark.equation("eq-joint-elbo")
def test_the_joint_kl_is_minus_the_average_elbo_less_the_entropy() -> None:
    forward, reverse, p_data = joint_terms()
    joint_kl = (forward.exp() * (forward - reverse)).sum()
    model, _, _ = model_case("DiscreteJoint")
    q, x = Categorical(randn(5, 1, 4, seed=5)), model.data_support()
    entropy = -(p_data * p_data.log()).sum()
    assert_close(joint_kl, -(p_data * model.elbo(x, q)).sum() - entropy)
    z = q.sample(20_000, generator=make_generator(7))
    ratio = joint_log_ratio(log_weights(model, q, x, z), p_data.log())
    assert_mean((ratio * p_data).sum(1), joint_kl, ceiling=0.01)


@pytest.mark.equation("eq-joint-kl")
def test_the_joint_kl_is_the_misfit_of_the_data_and_of_the_posterior() -> None:
    """KL(q(z|x) p_D(x) || p(x, z)) = KL(p_D || p_θ) + E_{p_D} KL(q || p(z|x))."""
    forward, reverse, p_data = joint_terms()
    joint_kl = (forward.exp() * (forward - reverse)).sum()
    model, _, _ = model_case("DiscreteJoint")
    q, x = Categorical(randn(5, 1, 4, seed=5)), model.data_support()
    of_data = (p_data * (p_data.log() - model.log_p_x(x))).sum()
    of_posterior = (p_data * kl(q, model.posterior(x))).sum()
    assert min(float(of_data), float(of_posterior)) > 0.05
    assert_close(joint_kl, of_data + of_posterior)


def test_the_joint_log_ratio_refuses_other_shapes() -> None:
    log_w = torch.zeros(3, 2)
    for bad in (torch.zeros(3, 2), torch.zeros(3), torch.zeros(1), torch.zeros(())):
        with pytest.raises(ValueError, match=r"^log_p_data: expected shape \(2,\), found "):
            joint_log_ratio(log_w, bad)
    with pytest.raises(ValueError, match=r"^log_w: expected shape \(S, B\), found \(2,\)$"):
        joint_log_ratio(torch.zeros(2), torch.zeros(2))
    with pytest.raises(
        TypeError, match=r"^log_p_data: expected torch\.float32 as the tensors it meets have, found torch\.float64$"
    ):
        joint_log_ratio(log_w, torch.zeros(2).double())
    assert joint_log_ratio(torch.zeros(0, 2), torch.zeros(2)).shape == (0, 2)
