"""The trainer on diffusion models: both objectives are the model's own values, and both learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracles import assert_close, randn
from vae_lib import bounds
from vae_lib.exact import LinearGaussian
from vae_lib.learning import DiffusionELBO, Images, SimpleLoss, TrainingConfig, load_trained, train
from vae_lib.learning.average_bound import SurrogateObjective
from vae_lib.models import GaussianDiffusion, MLPDenoiser, NormalDataDiffusion, linear_log_snr_schedule
from vae_lib.rng import make_generator

DOUBLE = torch.float64
COVARIANCE = torch.tensor([[1.0, 0.7], [0.7, 1.0]], dtype=DOUBLE)
SCHEDULE = linear_log_snr_schedule(20, log_snr_max=5.0, log_snr_min=-5.0, dtype=DOUBLE)
CONFIG = TrainingConfig(epochs=15, batch_size=100, learning_rate=0.01, schedule="cosine", evaluate_every=15)


def model_of(seed: int = 1) -> GaussianDiffusion:
    network = MLPDenoiser(2, hidden=16, blocks=1, generator=make_generator(seed), dtype=DOUBLE)
    return GaussianDiffusion(network, SCHEDULE, data_dim=2, predicts="v")


def data(count: int, seed: int) -> Tensor:
    factor: Tensor = torch.linalg.cholesky(COVARIANCE)
    return randn(count, 2, seed=seed) @ factor.mT


@pytest.mark.parametrize("stratified", [False, True])
def test_they_hand_over_the_values_of_the_model(stratified: bool) -> None:
    model, x = model_of(), data(5, 1)
    options: dict[str, Any] = {"num_samples": 3}
    found = DiffusionELBO(stratified).climb(model, model, x, generator=make_generator(1), **options)
    expected = model.one_step_elbo(x, generator=make_generator(1), stratified=stratified, **options)
    assert_close(found.detach(), expected.detach())
    found = SimpleLoss(stratified).climb(model, model, x, generator=make_generator(1), **options)
    expected = -model.simple_loss(x, generator=make_generator(1), stratified=stratified, **options)
    assert_close(found.detach(), expected.detach())


def test_they_are_objectives_with_even_steps() -> None:
    for objective in (DiffusionELBO(), SimpleLoss()):
        assert isinstance(objective, SurrogateObjective)
        assert objective.stratified


@pytest.mark.parametrize("objective", [DiffusionELBO(), SimpleLoss()])
def test_they_learn_what_the_best_denoiser_knows(objective: Any, tmp_path: Any) -> None:
    """On a schedule that is linear in log-SNR both climb the same function, and end near the best linear denoiser."""
    model, held_out = model_of(), data(1000, 2)
    best = NormalDataDiffusion(torch.zeros(2, dtype=DOUBLE), COVARIANCE, SCHEDULE)
    run = train(
        model, Images(data(2000, 1)), Images(held_out[:200]), CONFIG,
        bound=objective, device="cpu", folder=tmp_path, progress=False,
    )  # fmt: skip
    # What there is to gain is 0.45 nats; a fifth of it may be left.
    untrained, trained, ideal = (
        float(which.terms(held_out, num_samples=2, generator=make_generator(3)).elbo.mean().detach())
        for which in (model_of(), model, best)
    )
    assert ideal - trained < 0.2 * (ideal - untrained)
    # Held-out numbers come from the chain, by the trainer's own look.
    last = run.history[-1]
    assert abs(last["validation_elbo"] - ideal) < 1.0
    again = model_of(seed=2)
    assert run.checkpoint is not None
    load_trained(run.checkpoint, again, best=False)
    x = data(5, 3)
    z = model(x).sample(2, generator=make_generator(1))
    assert_close(bounds.log_joint(again, x, z).detach(), bounds.log_joint(model, x, z).detach())


def test_another_model_is_refused() -> None:
    model = LinearGaussian(randn(2, 1), randn(2), randn(2))
    for objective in (DiffusionELBO(), SimpleLoss()):
        with pytest.raises(TypeError, match="model: expected a GaussianDiffusion, found LinearGaussian"):
            objective.climb(model, model.posterior, data(3, 1), num_samples=1, generator=make_generator(1))
