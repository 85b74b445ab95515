"""Small trainings by Monte Carlo EM that its tests share: a linear model of 3 numbers, 11 data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles import randn
from vae_lib.learning import Images, TrainingConfig
from vae_lib.learning.monte_carlo_em import ChainConfig, MonteCarloEM, monte_carlo_em
from vae_lib.models import DecoderModel, LearnedNormalLikelihood, standard_normal

DOUBLE = torch.float64
CONFIG = TrainingConfig(epochs=3, batch_size=4, learning_rate=0.1, optimiser="adagrad", seed=5)
DATA = Images(randn(11, 3, seed=1))  # two minibatches of four in an epoch; three images are left


def linear_model(data_dim: int = 3, latent_dim: int = 2, seed: int = 5) -> DecoderModel:
    network = nn.utils.skip_init(nn.Linear, latent_dim, data_dim, dtype=DOUBLE)
    with torch.no_grad():
        network.weight.copy_(0.1 * randn(data_dim, latent_dim, seed=seed))
        network.bias.zero_()
    return DecoderModel(
        network,
        LearnedNormalLikelihood(dtype=DOUBLE),
        latent_dim,
        data_dim,
        standard_normal(latent_dim, dtype=DOUBLE),
    )


def network_of(model: DecoderModel) -> nn.Linear:
    assert isinstance(model.network, nn.Linear)
    return model.network


def weights(model: DecoderModel) -> dict[str, Tensor]:
    assert isinstance(model.likelihood, LearnedNormalLikelihood)
    network = network_of(model)
    named = {"weight": network.weight, "bias": network.bias, "logvar": model.likelihood.logvar}
    return {name: value.detach().clone() for name, value in named.items()}


def run(model: DecoderModel, config: TrainingConfig = CONFIG, **options: Any) -> Any:
    return monte_carlo_em(model, DATA, config, device="cpu", **{"progress": False} | options)


def small_trainer(model: DecoderModel | None = None, folder: Path | None = None, **changes: Any) -> MonteCarloEM:
    config = TrainingConfig(**{**CONFIG.__dict__, "epochs": 200, **changes})
    return MonteCarloEM(model or linear_model(), DATA, config, ChainConfig(), device=torch.device("cpu"), folder=folder)
