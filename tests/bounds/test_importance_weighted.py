"""The importance-weighted bound as a bound for the trainer: all draws are one group."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from tests.oracles import MODELS, assert_close, assert_same_value_and_gradient, model_case, randn
from vae_lib.bounds import importance_weighted, importance_weighted_bound, log_weights
from vae_lib.densities import DiagonalNormal
from vae_lib.exact import LinearGaussian
from vae_lib.rng import make_generator


@pytest.mark.parametrize("name", MODELS)
def test_one_draw_is_its_log_weight(name: str) -> None:
    model, x, q = model_case(name)
    z = q.sample(1, generator=make_generator(1))
    assert_close(importance_weighted(model, q, x, z), log_weights(model, q, x, z))


@pytest.mark.parametrize("name", MODELS)
def test_all_draws_are_one_group(name: str) -> None:
    model, x, q = model_case(name)
    z = q.sample(6, generator=make_generator(1))
    bound = importance_weighted(model, q, x, z)
    assert bound.shape == (1, x.shape[0])
    assert_close(bound, importance_weighted_bound(log_weights(model, q, x, z), 6))


def test_value_and_gradient_by_torch_distributions() -> None:
    """In the parameters of q, through the draws too, and in those of the model."""
    x, noise = randn(3, 4, seed=11), randn(5, 3, 2, seed=12)

    def ours(mu: Tensor, logvar: Tensor, weight: Tensor, bias: Tensor, noise_logvar: Tensor) -> Tensor:
        q = DiagonalNormal(mu, logvar)
        return importance_weighted(LinearGaussian(weight, bias, noise_logvar), q, x, q.from_noise(noise))

    def oracle(mu: Tensor, logvar: Tensor, weight: Tensor, bias: Tensor, noise_logvar: Tensor) -> Tensor:
        std = torch.exp(logvar / 2)
        z = mu + std * noise
        likelihood = td.Normal(z @ weight.mT + bias, torch.exp(noise_logvar / 2)).log_prob(x).sum(-1)
        prior = td.Normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z).sum(-1)
        log_w = likelihood + prior - td.Normal(mu, std).log_prob(z).sum(-1)
        return torch.exp(log_w).mean(0, keepdim=True).log()

    parameters = (randn(3, 2, seed=13), 0.3 * randn(3, 2, seed=14), randn(4, 2, seed=15), randn(4, seed=16))
    assert_same_value_and_gradient(ours, oracle, (*parameters, 0.5 * randn(4, seed=17)))


def test_at_the_posterior_every_number_of_draws_gives_the_evidence() -> None:
    model, x, _ = model_case("LinearGaussian")
    q = model.posterior(x)
    for count in (1, 2, 7):
        bound = importance_weighted(model, q, x, q.sample(count, generator=make_generator(2)))
        assert_close(bound, model.log_p_x(x).unsqueeze(0))


def test_without_a_draw_there_is_no_bound() -> None:
    model, x, q = model_case("LinearGaussian")
    with pytest.raises(ValueError, match=r"^log_w: expected shape \(K, B\), found \(0, 3\) \(an empty batch\)$"):
        importance_weighted(model, q, x, torch.empty(0, 3, 2, dtype=torch.float64))


def test_a_weight_of_zero_counts_among_the_draws() -> None:
    """Where the prior is zero the weight is, and K still counts it: log of (w + 0) / 2."""
    model, x, q = model_case("GammaPoisson")
    z = q.sample(1, generator=make_generator(3))

    class Halved:
        """The same model, impossible above a threshold."""

        data_dim, latent_dim, prior = model.data_dim, model.latent_dim, model.prior

        def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
            return torch.where(z.squeeze(-1) < 1e3, model.log_p_x_given_z(x, z), -math.inf)

    both = torch.cat([z, torch.full_like(z, 2e3)])
    found = importance_weighted(Halved(), q, x, both)  # type: ignore[arg-type]
    assert_close(found, log_weights(model, q, x, z) - math.log(2.0))
