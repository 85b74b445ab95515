"""What a training leaves: weights for a model of one's own, bounds told apart, nothing where nothing was learned."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.learning.runs import MODEL, small_run
from vae_lib.bounds import elbo, elbo_with_analytic_kl, log_weights
from vae_lib.densities import DiagonalNormal, StudentT
from vae_lib.learning import (
    CheckpointError,
    Images,
    NonFiniteError,
    TrainingConfig,
    load_trained,
    load_vae,
    save_vae,
    train,
)
from vae_lib.learning.average_bound import name_of
from vae_lib.models import NormalEncoder, VAEConfig, build, mlp
from vae_lib.rng import make_generator

CONFIG = TrainingConfig(epochs=2, batch_size=4)
DATA = Images(torch.randn(8, 3, generator=make_generator(1), dtype=torch.float64))


class Line(nn.Module):
    """A linear model of one's own, with a prior that has no closed-form KL to a normal q."""

    data_dim, latent_dim = 3, 2

    def __init__(self, heavy: bool = False) -> None:
        super().__init__()
        self.layer = mlp([2, 3], generator=make_generator(2), dtype=torch.float64)
        self.heavy = heavy

    def prior(self, batch_size: int) -> Any:
        zeros = torch.zeros(batch_size, 2, dtype=torch.float64)
        return StudentT(zeros, zeros, zeros + 3.0) if self.heavy else DiagonalNormal(zeros, zeros)

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        return -0.5 * (x - self.layer(z)).square().sum(-1)

    def sample_x_given_z(self, z: Tensor, *, generator: torch.Generator) -> Tensor:
        raise NotImplementedError


def encoder() -> NormalEncoder:
    return NormalEncoder(mlp([3, 4], generator=make_generator(3), dtype=torch.float64))


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_model_of_ones_own_takes_its_weights_up_again(tmp_path: Path) -> None:
    model, q = Line(), encoder()
    run = train(model, DATA, DATA, CONFIG, encoder=q, folder=tmp_path, device="cpu")
    assert run.checkpoint is not None
    again, q_again = Line(), encoder()
    assert not equal(again, model)
    load_trained(run.checkpoint, again, q_again, best=False)
    assert equal(again, model)
    assert equal(q_again, q)


def test_the_best_weights_are_those_of_the_best_look(tmp_path: Path) -> None:
    """Steps of 3 make the held-out ELBO worse from the first look on, so the two sets of weights differ."""
    model, q = Line(), encoder()
    config = TrainingConfig(epochs=3, batch_size=4, learning_rate=3.0, optimiser="sgd")
    short, q_short = Line(), encoder()
    run = train(model, DATA, DATA, config, encoder=q, folder=tmp_path, device="cpu", bound=worse)
    elbos = [row["validation_elbo"] for row in run.history]
    assert elbos == sorted(elbos, reverse=True)
    first = TrainingConfig(epochs=1, batch_size=4, learning_rate=3.0, optimiser="sgd")
    train(short, DATA, DATA, first, encoder=q_short, device="cpu", bound=worse)
    best, q_best = Line(), encoder()
    load_trained(tmp_path / "checkpoint.safetensors", best, q_best)
    assert equal(best, short)
    assert not equal(best, model)
    load_trained(tmp_path / "checkpoint.safetensors", best, q_best, best=False)
    assert equal(best, model)


def worse(model: Any, q: Any, x: Tensor, z: Tensor) -> Tensor:
    """Minus the ELBO, slowly: every step takes away from it."""
    return -1e-3 * elbo_with_analytic_kl(model, q, x, z)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    train(Line(), DATA, None, CONFIG, encoder=encoder(), folder=tmp_path, device="cpu")
    with pytest.raises(
        CheckpointError, match=r"expected the weights of this model, found encoder\..* only in the file"
    ):
        load_trained(tmp_path / "checkpoint.safetensors", Line())


def test_weights_alone_are_no_training(tmp_path: Path) -> None:
    config = VAEConfig((2, 2), 1, (3,))
    vae = build(config, generator=make_generator(0))
    save_vae(tmp_path / "weights", vae, config)
    with pytest.raises(CheckpointError, match="found weights alone; load_vae reads them"):
        load_trained(tmp_path / "weights", vae)


class Weighted:
    """A bound with a setting."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def __call__(self, *arguments: Any) -> Tensor:
        return elbo_with_analytic_kl(*arguments)


def test_bounds_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    names = [Weighted(1.0), Weighted(2.0), functools.partial(weighted, beta=1.0), functools.partial(weighted, beta=2.0)]
    assert len({name_of(bound) for bound in [*names, log_weights, elbo_with_analytic_kl]}) == 6
    train(Line(), DATA, None, CONFIG, encoder=encoder(), folder=tmp_path, device="cpu", bound=Weighted(1.0))
    with pytest.raises(CheckpointError, match=r"^bound: expected .*1\.0.* as in .*, found .*2\.0"):
        train(
            Line(),
            DATA,
            None,
            CONFIG,
            encoder=encoder(),
            folder=tmp_path,
            device="cpu",
            bound=Weighted(2.0),
            resume=True,
        )


def weighted(*arguments: Any, beta: float) -> Tensor:
    return beta * elbo_with_analytic_kl(*arguments)


def test_a_prior_without_a_closed_form_is_pointed_to_log_weights() -> None:
    with pytest.raises(NotImplementedError, match=r"with train, pass bound=log_weights$"):
        train(Line(heavy=True), DATA, None, CONFIG, encoder=encoder(), device="cpu")
    run = train(Line(heavy=True), DATA, DATA, CONFIG, encoder=encoder(), device="cpu", bound=log_weights)
    assert len(run.history) == 2


def test_an_encoder_whose_weights_cannot_be_found_is_refused() -> None:
    hidden = encoder()
    with pytest.raises(TypeError, match=r"^encoder: expected a module .*, found function: its weights cannot be found"):
        train(Line(), DATA, None, CONFIG, encoder=lambda x: hidden(x), device="cpu")


def test_an_encoder_without_weights_may_be_anything() -> None:
    zeros = torch.zeros(4, 2, dtype=torch.float64)
    run = train(Line(), DATA, None, CONFIG, encoder=lambda x: DiagonalNormal(zeros, zeros), device="cpu")
    assert len(run.history) == 2


def test_nothing_is_left_of_a_training_that_took_no_step(tmp_path: Path) -> None:
    """The corrected program finds an empty folder."""
    with pytest.raises(TypeError):
        train(Line(), DATA, None, CONFIG, encoder=encoder(), folder=tmp_path, device="cpu", bound=elbo)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    train(Line(), DATA, None, CONFIG, encoder=encoder(), folder=tmp_path, device="cpu")


def test_a_first_step_that_is_not_finite_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    def infinite(*arguments: Any) -> Tensor:
        return elbo_with_analytic_kl(*arguments) * torch.inf

    with pytest.raises(NonFiniteError, match=r"; nothing was stored$"):
        train(Line(), DATA, None, CONFIG, encoder=encoder(), folder=tmp_path, device="cpu", bound=infinite)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_took_a_step_stays(tmp_path: Path) -> None:
    calls = []

    def fails_at_the_second(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return elbo_with_analytic_kl(*arguments)

    with pytest.raises(ZeroDivisionError):
        train(
            Line(),
            DATA,
            None,
            CONFIG,
            encoder=encoder(),
            folder=tmp_path,
            device="cpu",
            bound=fails_at_the_second,
            checkpoint_seconds=0.0,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.safetensors", "metrics.jsonl"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"config": {"epochs": 3}}, "config: expected a TrainingConfig, found dict"),
        ({}, "encoder: expected one, since Plain is not its own, found none"),
    ],
)
def test_mistakes_get_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(TypeError, match=rf"^{re.escape(line)}$"):
        train(Plain(), DATA, **options)


class Plain:
    """A model that is no module and no encoder."""

    data_dim, latent_dim = 3, 2


def test_a_folder_is_as_good_as_its_checkpoint(tmp_path: Path) -> None:
    run = small_run(folder=tmp_path, notes={"model": dataclasses.asdict(MODEL)})
    assert equal(load_vae(tmp_path, best=False, dtype=next(run.model.parameters()).dtype), run.model)


def test_of_a_vae_that_had_another_encoder_its_own_weights_come_back(tmp_path: Path) -> None:
    """Names of the other encoder are beside those of the model, and are left to load_trained."""
    other = NormalEncoder(mlp([12, 6, 5, 4], generator=make_generator(3), dtype=torch.float64))
    run = small_run(folder=tmp_path, encoder=other, notes={"model": dataclasses.asdict(MODEL)})
    assert equal(load_vae(tmp_path, best=False, dtype=torch.float64), run.model)
