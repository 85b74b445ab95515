"""Rate and distortion against the linear VAE's closed form, and against the held-out bound that they are made of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.oracles import assert_close, randn
from vae_lib.evaluation import held_out_elbo, rate_distortion
from vae_lib.exact import LinearVAE, linear_vae_optimum, optimal_linear_vae
from vae_lib.rng import make_generator

LOGVAR, BETA, COUNT, DIM = math.log(0.4), 2.0, 4000, 5
X = randn(COUNT, DIM, seed=1) * torch.tensor([3.0, 1.5, 1.0, 0.8, 0.3], dtype=torch.float64) + 2.0
COVARIANCE: Tensor = (X - X.mean(0)).mT @ (X - X.mean(0)) / COUNT


def linear_vae(latent_dim: int) -> LinearVAE:
    return optimal_linear_vae(X.mean(0), COVARIANCE, latent_dim, logvar=LOGVAR, beta=BETA)


@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_a_linear_vae_lies_where_the_theory_says(latent_dim: int, num_samples: int) -> None:
    theory = linear_vae_optimum(torch.linalg.eigvalsh(COVARIANCE), latent_dim, logvar=LOGVAR, beta=BETA)
    model, encoder = linear_vae(latent_dim)
    found = rate_distortion(model, encoder, X, num_samples=num_samples, generator=make_generator(2))
    # The rate is in closed form, averaged over the data whose covariance the theory was given.
    assert_close(found.rate.value, theory.rate)
    # The errors of the other two count the choice of the data as well, which is the same here: they are too large.
    for estimate, expected in ((found.distortion, theory.distortion), (found.elbo, theory.elbo)):
        assert float(estimate.standard_error) < 0.1
        assert abs(float(estimate.value - expected)) < 5.0 * float(estimate.standard_error)
    assert_close(found.rate.value + found.distortion.value, -found.elbo.value)


@pytest.mark.parametrize("batch_size", [1000, 300])
def test_it_sums_up_the_held_out_bound(batch_size: int) -> None:
    model, encoder = linear_vae(3)
    options: dict[str, Any] = {"num_samples": 3, "batch_size": batch_size}
    found = rate_distortion(model, encoder, X, generator=make_generator(3), **options)
    values = held_out_elbo(model, encoder, X, generator=make_generator(3), **options)
    for estimate, part in (
        (found.rate, values.kl),
        (found.distortion, -values.log_likelihood),
        (found.elbo, values.elbo),
    ):
        assert estimate.value.shape == ()
        assert_close(estimate.value, part.sum() / COUNT)
        assert_close(
            estimate.standard_error, ((part - part.mean()) ** 2).sum().sqrt() / COUNT**0.5 / (COUNT - 1) ** 0.5
        )


def test_one_draw_is_enough_and_two_data_are_needed() -> None:
    model, encoder = linear_vae(2)
    one = rate_distortion(model, encoder, X[:2], generator=make_generator(4))
    same = rate_distortion(model, encoder, X[:2], num_samples=1, generator=make_generator(4))
    assert_close(torch.stack(one.distortion), torch.stack(same.distortion))
    with pytest.raises(ValueError, match=r"samples: expected at least 2 along axis 0, found 1"):
        rate_distortion(model, encoder, X[:1], generator=make_generator(4))
    with pytest.raises(ValueError, match=r"x: expected finite numbers"):
        rate_distortion(model, encoder, X[:2] * math.nan, generator=make_generator(4))


def test_modules_are_evaluated_without_gradients_and_keep_their_mode() -> None:
    model, exact = linear_vae(2)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.9)
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x: Tensor) -> Any:
            return exact(self.drop(x) * self.scale)

    encoder = Encoder().train()
    found = rate_distortion(model, encoder, X, generator=make_generator(5))
    assert encoder.training
    assert not any(part.requires_grad for estimate in found for part in estimate)
    assert_close(found.rate.value, rate_distortion(model, exact, X, generator=make_generator(5)).rate.value)
