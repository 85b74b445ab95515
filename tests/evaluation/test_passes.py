"""Both evaluations leave modules as they found them, and say which promise an encoder or a model broke."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.oracles import model_case, randn
from vae_lib.evaluation import held_out_elbo, log_p_x
from vae_lib.evaluation.passes import evaluating
from vae_lib.models import VAE, BernoulliLikelihood, NormalEncoder, mlp
from vae_lib.rng import make_generator

DOUBLE = torch.float64
Evaluation = Callable[..., Any]
each_evaluation = pytest.mark.parametrize("evaluation", [held_out_elbo, log_p_x])


def vae_with_dropout() -> tuple[VAE, Tensor]:
    """Modules that behave differently in training: dropout would draw from the global generator, too."""
    generator = make_generator(1)
    vae = VAE(
        NormalEncoder(nn.Sequential(nn.Dropout(0.5), mlp([6, 4], generator=generator, dtype=DOUBLE))),
        nn.Sequential(mlp([2, 6], generator=generator, dtype=DOUBLE), nn.Dropout(0.5)),
        BernoulliLikelihood(),
        latent_dim=2,
        data_dim=6,
    )
    return vae, (randn(4, 6, seed=2) > 0.0).to(DOUBLE)


def modes(vae: VAE) -> list[bool]:
    return [module.training for module in vae.modules()]


@each_evaluation
@pytest.mark.parametrize("halves", [False, True])
def test_modules_are_evaluated_as_such_and_get_their_modes_back(evaluation: Evaluation, halves: bool) -> None:
    vae, x = vae_with_dropout()
    # The generative half is no module itself; it holds the decoder.
    model, encoder = (vae.generative, vae.encoder) if halves else (vae, vae)
    expected = evaluation(vae.eval(), vae, x, num_samples=3, generator=make_generator(3))
    vae.train()
    next(vae.decoder.children()).eval()  # one part that its owner holds still
    before = modes(vae)
    assert len(set(before)) == 2
    result = evaluation(model, encoder, x, num_samples=3, generator=make_generator(3))
    assert modes(vae) == before
    for part, wanted in zip(result, expected, strict=True):
        assert torch.equal(part, wanted)
        assert not part.requires_grad


@pytest.mark.parametrize("halves", [False, True])
def test_modes_and_gradients_inside_and_after_an_error(halves: bool) -> None:
    vae, _ = vae_with_dropout()
    parts = (vae.generative, vae.encoder) if halves else (vae, vae)
    dropouts = [module for module in vae.modules() if isinstance(module, nn.Dropout)]
    before = modes(vae)

    def interrupted() -> None:
        with evaluating(*parts):
            assert [module.training for module in dropouts] == [False, False]
            assert not torch.is_grad_enabled()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert modes(vae) == before
    assert torch.is_grad_enabled()


def test_what_holds_no_modules_is_left_alone() -> None:
    class Slots:
        __slots__ = ()

    with evaluating(Slots(), lambda x: x, model_case("LinearGaussian").model):
        assert not torch.is_grad_enabled()


@each_evaluation
def test_an_encoder_that_gives_no_density(evaluation: Evaluation) -> None:
    model, x, _ = model_case("LinearGaussian")
    with pytest.raises(TypeError, match=r"^encoder\(x\): expected a vae_lib\.protocols\.Density, found Tensor$"):
        evaluation(model, lambda batch: batch, x, num_samples=2, generator=make_generator(4))


@each_evaluation
def test_an_encoder_for_another_model(evaluation: Evaluation) -> None:
    model, x, q = model_case("LinearGaussian")
    of_other, single = model_case("NonlinearDecoder").q, model_case("LinearGaussian", torch.float32).q
    message = r"^encoder\(x\)\.sample\(S\): expected shape \(2, 3, 2\), found \(2, 3, 1\)$"
    with pytest.raises(ValueError, match=message):
        evaluation(model, lambda _: of_other, x, num_samples=2, generator=make_generator(5))
    # The same q for one batch and the next.
    message = r"^encoder\(x\)\.sample\(S\): expected shape \(2, 1, 2\), found \(2, 3, 2\)$"
    with pytest.raises(ValueError, match=message):
        evaluation(model, lambda _: q, x[:1], num_samples=2, generator=make_generator(6))
    message = r"^encoder\(x\)\.sample\(S\): expected torch\.float64 as the tensors it meets have, found torch\.float32$"
    with pytest.raises(TypeError, match=message):
        evaluation(model, lambda _: single, x, num_samples=2, generator=make_generator(7))


@each_evaluation
def test_a_model_that_sums_too_much(evaluation: Evaluation) -> None:
    model, x, q = model_case("LinearGaussian")

    class TooMuch:
        data_dim, latent_dim, prior, sample_x_given_z = 4, 2, model.prior, model.sample_x_given_z

        def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
            return model.log_p_x_given_z(x, z).sum(0)  # type: ignore[no-any-return]

    # Three data at a time, and one sample of each: no part has more than the three rows that it may have.
    shape = r"\(1, 3\)" if evaluation is held_out_elbo else r"\(2, 3\)"
    with pytest.raises(ValueError, match=rf"^log_p_x_given_z\(x, z\): expected shape {shape}, found \(3,\)$"):
        evaluation(TooMuch(), lambda _: q, x, num_samples=2, generator=make_generator(8))
