"""Training by importance-weighted bounds where the best that can be reached is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.learning.runs import small_run
from vae_lib.bounds import importance_weighted, log_weights
from vae_lib.exact import LinearGaussian
from vae_lib.gradients import doubly_reparameterized
from vae_lib.learning import Images, Run, TrainingConfig, train
from vae_lib.learning.average_bound import Bound
from vae_lib.models import NormalEncoder
from vae_lib.rng import make_generator

BOUNDS: list[Bound] = [importance_weighted, doubly_reparameterized]


def exact_model() -> LinearGaussian:
    """Two latents whose posterior is correlated: a factorised q cannot reach it."""
    weight = torch.tensor([[1.0, 0.6], [-0.5, 0.9], [0.8, 0.4]]).double()
    return LinearGaussian(weight, torch.tensor([0.3, -1.0, 0.0]).double(), torch.tensor([-1.0, -0.5, -1.0]).double())


def trained(bound: Bound, num_samples: int) -> tuple[Run, Images, NormalEncoder]:
    model, layer = exact_model(), nn.utils.skip_init(nn.Linear, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0.0, 0.3, generator=make_generator(1))
    generator = make_generator(2)
    z = model.prior(1000).sample(1, generator=generator)
    data = Images(model.sample_x_given_z(z, generator=generator)[0])
    config = TrainingConfig(epochs=60, learning_rate=0.05, schedule="cosine", num_samples=num_samples, seed=4)
    encoder = NormalEncoder(layer)
    return train(model, data, None, config, encoder=encoder, bound=bound, device="cpu", progress=False), data, encoder


@pytest.mark.parametrize("bound", BOUNDS)
def test_an_encoder_trained_with_many_draws_has_the_tighter_bound_of_many_and_the_looser_elbo(bound: Bound) -> None:
    model, count = exact_model(), 20
    _, data, by_elbo = trained(log_weights, 1)
    run, _, by_many = trained(bound, count)
    x = data.values
    log_p_x = model.log_p_x(x).mean()
    precision = torch.eye(2).double() + model.weight.mT @ torch.diag(torch.exp(-model.logvar)) @ model.weight
    mean_field_gap = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    with torch.no_grad():
        elbo = {name: model.elbo(x, q(x)).mean() for name, q in (("one", by_elbo), ("many", by_many))}
        of_many = {}
        for name, encoder in (("one", by_elbo), ("many", by_many)):
            q = encoder(x)
            z = q.sample(200 * count, generator=make_generator(5)).reshape(200, count, *x.shape[:1], 2)
            of_many[name] = torch.stack([importance_weighted(model, q, x, part).mean() for part in z])
    # Near the top a gap is quadratic in the error of the weights, which the last small steps leave at some percent.
    assert -1e-12 <= float(log_p_x - mean_field_gap - elbo["one"]) <= 2e-3
    assert float(elbo["many"]) < float(elbo["one"]) - 1e-2
    gain = of_many["many"] - of_many["one"]  # the same noise in both
    assert float(gain.mean()) > 5.0 * float(gain.std()) / 200**0.5 > 0.0
    error = of_many["many"].std() / 200**0.5
    assert float(of_many["many"].mean() - log_p_x) <= 5.0 * float(error)
    assert run.history[-1]["train_elbo"] == pytest.approx(float(of_many["many"].mean()), abs=0.05)


@pytest.mark.parametrize("bound", BOUNDS)
def test_one_draw_is_the_elbo(bound: Bound) -> None:
    """With one draw the bound is that of log_weights. The gradient is too, but for the score in the doubly one."""
    ours, plain = small_run(bound=bound, num_samples=1, epochs=1), small_run(bound=log_weights, epochs=1)
    if bound is importance_weighted:
        assert ours.history[-1]["train_elbo"] == plain.history[-1]["train_elbo"]
    else:
        assert ours.history[-1]["train_elbo"] == pytest.approx(plain.history[-1]["train_elbo"], rel=1e-2)


@pytest.mark.parametrize("bound", BOUNDS)
def test_many_draws_train_a_vae(bound: Bound) -> None:
    run = small_run(bound=bound, num_samples=5, epochs=20)
    assert run.history[-1]["train_elbo"] > run.history[0]["train_elbo"] + 0.05
    assert run.history[-1]["validation_elbo"] > run.history[0]["validation_elbo"]
