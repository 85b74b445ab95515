"""Monte Carlo EM: it reaches the maximum of the likelihood where that is known, and goes on where it was stopped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from tests.learning.runs import contents, grey_images, interrupt, same_bits, small_vae, without_times
from tests.oracles import assert_close, randn
from vae_lib.bounds import log_joint
from vae_lib.exact import LinearGaussian
from vae_lib.learning import CheckpointError, Images, NonFiniteError, TrainingConfig, TrainingInterrupted, load_trained
from vae_lib.learning.batches import epoch_order
from vae_lib.learning.monte_carlo_em import ChainConfig, MonteCarloEM, monte_carlo_em
from vae_lib.mcmc import hmc
from vae_lib.models import DecoderModel, LearnedNormalLikelihood, NormalLikelihood, standard_normal
from vae_lib.rng import make_generator

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
    return monte_carlo_em(model, DATA, config, device="cpu", progress=False, **options)


def test_it_reaches_the_closed_form_maximum_of_the_likelihood() -> None:
    """And is no further from it than the truth is: twice the gap in log p of all data is chi-squared of 12 weights.

    Twelve are free: 8 of W less a rotation, 4 of b, 1 of the noise. With the same z for five updates the weights move
    about the maximum by a part of that.
    """
    true = LinearGaussian(randn(4, 2, seed=1), randn(4, seed=2), torch.full((4,), -1.0, dtype=DOUBLE))
    generator = make_generator(3)
    x = true.sample_x_given_z(true.prior(2000).sample(1, generator=generator), generator=generator)[0]
    best = LinearGaussian.maximum_likelihood(x, 2)
    model = linear_model(4)
    config = TrainingConfig(epochs=80, batch_size=2000, learning_rate=0.1, optimiser="adagrad", evaluate_every=40)
    result = monte_carlo_em(model, Images(x), config, device="cpu", progress=False)
    found = weights(model)
    learned = LinearGaussian(found["weight"], found["bias"], found["logvar"].expand(4))
    gap = float((best.log_p_x(x) - learned.log_p_x(x)).sum())
    assert 0.0 <= 2.0 * gap < scipy.stats.chi2.isf(2.0 * scipy.stats.norm.sf(5.0), 12)
    first, last = result.history
    assert first["log_joint"] < last["log_joint"]
    assert (last["samples"], last["updated_samples"]) == (160_000, 800_000)


def test_the_step_size_follows_the_rate_of_acceptance() -> None:
    """Every change of its logarithm is half of what the rate is beyond the target, so their sum is known."""
    trainer = small_trainer(learning_rate=1e-3)
    rates = []
    for _ in range(150):
        trainer.take_step()
        rates.append(float(trainer.state.acceptances[(trainer.state.step - 1) % 2]))
    moved = float(trainer.state.log_step) - math.log(0.1)
    assert moved == pytest.approx(0.5 * (sum(rates) - 0.9 * 150), rel=1e-9)
    # In fifty visits it changes by less than a factor of two, so their mean rate is within 2 log(2) / 50 of the target.
    assert sum(rates[100:]) / 50 == pytest.approx(0.9, abs=0.028)


def small_trainer(model: DecoderModel | None = None, folder: Path | None = None, **changes: Any) -> MonteCarloEM:
    config = TrainingConfig(**{**CONFIG.__dict__, "epochs": 200, **changes})
    return MonteCarloEM(model or linear_model(), DATA, config, ChainConfig(), device=torch.device("cpu"), folder=folder)


def test_a_visit_by_hand() -> None:
    """One transition of the chains of the minibatch, five steps of Adagrad with the prior on the weights."""
    model, precision = linear_model(), 2.0
    trainer = small_trainer(model, weight_prior=precision)
    chains = make_generator(5, "chains")
    z = model.prior(11).sample(1, generator=chains)[0]
    assert torch.equal(trainer.state.chains, z)
    rows = epoch_order(11, seed=5, epoch=0)[:4]
    x = DATA.values[rows]
    moved = hmc(
        lambda z: log_joint(model, x, z),
        z[rows][None],
        step_size=torch.tensor(math.log(0.1), dtype=DOUBLE).exp(),
        num_leapfrog=10,
        generator=make_generator(5, "training"),
    )
    parameters = [weights(model)["weight"], weights(model)["bias"], weights(model)["logvar"]]
    squares = [torch.zeros_like(value) for value in parameters]

    def loss(weight: Tensor, bias: Tensor, logvar: Tensor) -> Tensor:
        normal = torch.distributions.Normal(moved.z @ weight.mT + bias, torch.exp(0.5 * logvar))
        return -normal.log_prob(x).sum(-1).mean()

    for _ in range(5):
        leaves = [value.requires_grad_() for value in parameters]
        gradients = torch.autograd.grad(loss(*leaves), leaves)
        for number, gradient in enumerate(gradients):
            value = parameters[number].detach()
            gradient = gradient + precision / 11 * value
            squares[number] = squares[number] + gradient**2
            parameters[number] = value - 0.1 * gradient / (squares[number].sqrt() + 1e-10)
    value = trainer.take_step()
    assert_close(value, moved.log_density.mean())
    for name, expected in zip(("weight", "bias", "logvar"), parameters, strict=True):
        assert_close(weights(model)[name], expected.detach())
    z[rows] = moved.z[0]
    assert torch.equal(trainer.state.chains, z)


def test_what_a_visit_costs() -> None:
    model, sizes = linear_model(), list[int]()
    network_of(model).register_forward_hook(lambda module, given, out: sizes.append(out.shape[1]))
    result = run(model)
    # An epoch is two visits, of four images: 10 leapfrog steps and the place before them, then 5 updates.
    assert sizes == [4] * (16 * 2 * 3)
    assert [row["samples"] for row in result.history] == [8, 16, 24]
    assert [row["updated_samples"] for row in result.history] == [40, 80, 120]
    assert all(math.isfinite(value) for row in result.history for value in row.values())


@pytest.mark.parametrize("visit", [1, 2, 3, 5])
def test_stopped_and_resumed_is_never_stopped(tmp_path: Path, visit: int) -> None:
    whole, model, calls = linear_model(), linear_model(), 0
    expected = run(whole, folder=tmp_path / "whole")

    def stop(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 16 * visit - 3:
            interrupt()

    network_of(model).register_forward_hook(stop)
    part = tmp_path / "part"
    with pytest.raises(TrainingInterrupted) as caught:
        run(model, folder=part)
    assert str(caught.value) == (
        f"training stopped after step {visit} of 6; the state is in {part / 'checkpoint.safetensors'}, "
        "and resume=True goes on from there"
    )
    other = linear_model(seed=99)
    resumed = run(other, folder=part, resume=True)
    assert same_bits(weights(other), weights(whole))
    assert contents(part) == contents(tmp_path / "whole")
    assert without_times(resumed.history) == without_times(expected.history)


def test_more_epochs_are_a_longer_run_and_the_weights_can_be_taken_out(tmp_path: Path) -> None:
    whole, grown, taken = linear_model(), linear_model(), linear_model(seed=98)
    run(whole)
    run(grown, TrainingConfig(**{**CONFIG.__dict__, "epochs": 1}), folder=tmp_path)
    result = run(grown, folder=tmp_path, resume=True)
    assert same_bits(weights(grown), weights(whole))
    load_trained(tmp_path / "checkpoint.safetensors", taken)
    assert same_bits(weights(taken), weights(whole))
    assert result.checkpoint == tmp_path / "checkpoint.safetensors"


def test_the_seed_decides() -> None:
    first, again, other = linear_model(), linear_model(), linear_model()
    run(first)
    run(again)
    run(other, TrainingConfig(**{**CONFIG.__dict__, "seed": 6}))
    assert same_bits(weights(first), weights(again))
    assert not torch.equal(weights(first)["weight"], weights(other)["weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vae_is_taken_without_its_encoder(dtype: torch.dtype) -> None:
    vae = small_vae(dtype)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    config = TrainingConfig(epochs=2, batch_size=10, learning_rate=0.1, optimiser="adagrad", weight_prior=1.0)
    monte_carlo_em(vae, grey_images(), config, device="cpu", progress=False)
    for name, value in vae.state_dict().items():
        assert value.dtype == dtype
        assert torch.equal(value, before[name]) == name.startswith("encoder"), name


def test_a_training_that_breaks_leaves_the_state_before(tmp_path: Path) -> None:
    model, calls = linear_model(), 0

    def spoil(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return out * math.nan if calls > 2 * 16 else out

    network_of(model).register_forward_hook(spoil)
    with pytest.raises(NonFiniteError, match=r"^training stopped at step 3: expected finite log p\(x, z\), found nan$"):
        run(model, folder=tmp_path, checkpoint_seconds=0.0)
    whole = small_trainer(folder=tmp_path / "other", epochs=3)
    for _ in range(2):
        whole.take_step()
    whole.save()
    assert contents(tmp_path)["chains.chains"] == contents(tmp_path / "other")["chains.chains"]
    assert contents(tmp_path)["step"] == 2


def test_weights_that_break_are_not_stored(tmp_path: Path) -> None:
    model = linear_model()
    trainer = small_trainer(model, tmp_path)
    trainer.take_step()
    with torch.no_grad():
        network_of(model).bias[0] = math.inf
    with pytest.raises(
        NonFiniteError, match=r"^training stopped at step 1: expected finite numbers, found others in the"
    ):
        trainer.save()
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_folder_with_another_training_is_refused(tmp_path: Path) -> None:
    run(linear_model(), folder=tmp_path)
    with pytest.raises(ValueError, match=r"^folder: expected one without a training, found .*; resume=True goes on"):
        run(linear_model(), folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"^chains: expected .*'num_updates': 5.*, found .*'num_updates': 4"):
        run(linear_model(), folder=tmp_path, resume=True, chains=ChainConfig(num_updates=4))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.zeros(3, 3)}, TypeError, r"images: expected vae_lib\.learning\.Images, found Tensor"),
        (
            {"images": Images(torch.zeros(5, 2))},
            ValueError,
            r"images: expected 3 pixels, as the model has, found 2",
        ),
        (
            {"config": TrainingConfig(num_samples=2)},
            ValueError,
            r"num_samples: expected 1, a chain for each image, found 2",
        ),
        (
            {"config": TrainingConfig(batch_size=12)},
            ValueError,
            r"batch_size: expected at most the number of images, 11, found 12",
        ),
        (
            {"model": DecoderModel(nn.Identity(), NormalLikelihood(0.0), 3, 3, standard_normal(3))},
            ValueError,
            r"model: expected weights that want a gradient, found none",
        ),
    ],
)
def test_mistakes_get_one_line(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"model": linear_model(), "images": DATA, "config": CONFIG} | change
    with pytest.raises(error, match=f"^{message}$"):
        monte_carlo_em(**arguments, device="cpu", progress=False)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_leapfrog": 0}, ValueError, r"num_leapfrog: expected a positive integer, found 0"),
        ({"num_updates": 1.5}, TypeError, r"num_updates: expected a positive integer, found 1\.5"),
        ({"target": 1.0}, ValueError, r"target: expected a number between 0 and 1, found 1\.0"),
        ({"step_size": -0.1}, ValueError, r"step_size: expected a positive number, found -0\.1"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        ChainConfig(**change)
