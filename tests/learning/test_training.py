"""The trainer where the answer is known: against exact models, and step by step against the same in plain torch."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.learning.runs import CONFIG, MODEL, grey_images, same_bits, small_run, small_vae, weights
from vae_lib.bounds import elbo_with_analytic_kl, importance_weighted_bound, log_weights
from vae_lib.data import load_dataset
from vae_lib.exact import LinearGaussian
from vae_lib.learning import Images, TrainingConfig, train
from vae_lib.learning.checkpoints import read_checkpoint
from vae_lib.learning.training import Trainer
from vae_lib.models import (
    VAE,
    BernoulliLikelihood,
    DecoderModel,
    LearnedNormalLikelihood,
    NormalEncoder,
    build,
    configuration,
    standard_normal,
)
from vae_lib.rng import make_generator

CPU = torch.device("cpu")


def linear(inputs: int, outputs: int, seed: int) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=torch.float64)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0.0, 0.3, generator=make_generator(seed))
    return layer


def exact_model() -> LinearGaussian:
    weight = torch.tensor([[1.0], [-0.5], [0.8]]).double()
    return LinearGaussian(weight, torch.tensor([0.3, -1.0, 0.0]).double(), torch.tensor([-1.0, -0.5, 0.0]).double())


def draws_of(model: LinearGaussian, count: int, seed: int) -> Images:
    generator = make_generator(seed)
    z = model.prior(count).sample(1, generator=generator)
    return Images(model.sample_x_given_z(z, generator=generator)[0])


def test_an_encoder_reaches_log_p_x_of_an_exact_model() -> None:
    """With one latent the posterior is a normal whose mean is linear in x: a linear encoder can be exact."""
    model, encoder = exact_model(), NormalEncoder(linear(3, 2, seed=1))
    data, held_out = draws_of(model, 1000, seed=2), draws_of(model, 2000, seed=3)
    config = TrainingConfig(epochs=60, learning_rate=0.05, schedule="cosine", seed=4)
    run = train(model, data, held_out, config, encoder=encoder, device="cpu", progress=False)
    x = held_out.values
    log_p_x = model.log_p_x(x)
    with torch.no_grad():
        gap = (log_p_x - model.elbo(x, encoder(x))).mean()
    # Near the top a gap is quadratic in the error of the weights, which the last small steps leave at some percent.
    assert -1e-12 <= float(gap) <= 2e-3
    # The reported bound takes one draw for each image: as far from log p(x) as the gap and that draw allow. At the
    # posterior its variance is that of log p(x | z), which is at most D of about 1.
    assert abs(run.history[-1]["validation_elbo"] - float(log_p_x.mean())) <= 2e-3 + 5 * (3 / 2000) ** 0.5
    assert run.history[0]["validation_elbo"] < float(log_p_x.mean()) - 0.3


def test_a_linear_vae_reaches_the_largest_likelihood() -> None:
    """Trained decoder, noise and encoder together end at probabilistic PCA, whose likelihood is known."""
    data = draws_of(exact_model(), 1000, seed=5)
    vae = VAE(
        NormalEncoder(linear(3, 2, seed=6)),
        linear(1, 3, seed=7),
        LearnedNormalLikelihood(logvar=0.0, dtype=torch.float64),
        latent_dim=1,
        data_dim=3,
    )
    config = TrainingConfig(epochs=60, learning_rate=0.05, schedule="cosine", seed=8)
    train(vae, data, None, config, device="cpu", progress=False)
    layer, logvar = vae.decoder, next(vae.likelihood.parameters()).detach()
    assert isinstance(layer, nn.Linear)
    learned = LinearGaussian(layer.weight.detach(), layer.bias.detach(), logvar.reshape(1).expand(3).clone())
    x = data.values
    best = LinearGaussian.maximum_likelihood(x, 1).log_p_x(x).mean()
    with torch.no_grad():
        reached = learned.elbo(x, vae(x)).mean()
    assert -1e-12 <= float(best - reached) <= 2e-3


def test_digits_in_seconds() -> None:
    digits = load_dataset("digits")
    vae = build(configuration("digits", likelihood="binomial"), generator=make_generator(1), dtype=torch.float32)
    config = TrainingConfig(epochs=15, learning_rate=1e-2)
    start = time.process_time()
    run = train(vae, Images(digits.train.x), Images(digits.validation.x), config, device="cpu", progress=False)
    first, last = run.history[0], run.history[-1]
    # Without a latent, independent binomial pixels get -247 nats at best.
    assert last["validation_elbo"] > -140.0 > -247.0 > first["validation_elbo"]
    assert last["train_elbo"] > -140.0
    assert 5.0 < last["validation_kl"] < 30.0
    assert (last["epoch"], last["step"], last["samples"]) == (15, 15 * 12, 15 * 1200)
    assert time.process_time() - start < 20.0


# -- by hand ---------------------------------------------------------------------------------------------------------


def by_hand(config: TrainingConfig, steps: int, rates: list[float]) -> tuple[dict[str, Tensor], list[float], float]:
    """The same weights, order, bits and noise, in plain torch; the weights, the bounds and the smallest slope."""
    start = {name: value.detach().clone().requires_grad_() for name, value in small_vae().named_parameters()}
    w = start
    kinds = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax, "adagrad": torch.optim.Adagrad}
    options = {} if config.optimiser == "adamax" else {"fused": False}
    optimiser = (kinds | {"sgd": torch.optim.SGD})[config.optimiser](w.values(), foreach=False, **options)
    values, generator = grey_images().values.double(), make_generator(config.seed, "training")
    bounds, smallest = [], math.inf
    for step in range(steps):
        epoch, position = divmod(step, 2)
        order = torch.randperm(23, generator=make_generator(config.seed, "order", epoch))
        grey = values[order[10 * position : 10 * position + 10]]
        x = (torch.rand(10, 12, generator=generator, dtype=torch.float64) * 255 < grey).double()
        hidden = torch.tanh(x @ w["encoder.network.0.weight"].T + w["encoder.network.0.bias"])
        both = hidden @ w["encoder.network.2.weight"].T + w["encoder.network.2.bias"]
        mu, logvar = both[:, :2], both[:, 2:]
        noise = torch.randn(config.num_samples, 10, 2, generator=generator, dtype=torch.float64)
        z = mu + torch.exp(logvar / 2) * noise
        hidden = torch.tanh(z @ w["decoder.0.weight"].T + w["decoder.0.bias"])
        logits = hidden @ w["decoder.2.weight"].T + w["decoder.2.bias"]
        cross = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        divergence = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(-1)
        loss = (cross + divergence).mean()
        optimiser.zero_grad()
        loss.backward()
        for weight in w.values():
            assert weight.grad is not None
            smallest = min(smallest, float(weight.grad[weight.grad != 0].abs().min()))
        optimiser.param_groups[0]["lr"] = rates[step]
        optimiser.step()
        bounds.append(-loss.item())
    return {name: value.detach() for name, value in w.items()}, bounds, smallest


@pytest.mark.parametrize("optimiser", ["adam", "sgd", "adagrad", "adamax"])
def test_five_steps_by_hand(optimiser: Any) -> None:
    """Over two ends of an epoch, with two draws for each image, a warm-up and a rate that falls."""
    config = TrainingConfig(
        epochs=4, batch_size=10, learning_rate=0.05, optimiser=optimiser, schedule="cosine", warmup_steps=3,
        num_samples=2, seed=5,
    )  # fmt: skip
    rates = [0.05 * min(1.0, (n + 1) / 3) * (1 + math.cos(math.pi * n / 8)) / 2 for n in range(5)]
    expected, bounds, smallest = by_hand(config, 5, rates)
    model = small_vae()
    trainer = Trainer(model, grey_images(), None, config, device=CPU)
    found = [float(trainer.take_step()) for _ in range(5)]
    # A slope is a sum of some hundred terms of size 1, so it is right to 1e-13. The optimisers divide it by its own
    # size, at least `smallest` here, and each of the five steps passes the error on at most tenfold.
    tolerance = 0.05 * 1e-13 / min(smallest, 1.0) * 10**2
    assert tolerance < 1e-6
    assert found == pytest.approx(bounds, abs=12 * tolerance, rel=1e-12)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=tolerance)
    assert trainer.state.step == 5


def test_another_bound_is_raised_if_it_is_given() -> None:
    def iwae(model: Any, q: Any, x: Tensor, z: Tensor) -> Tensor:
        return importance_weighted_bound(log_weights(model, q, x, z))

    config = TrainingConfig(epochs=1, batch_size=10, num_samples=4, seed=5)
    vae = small_vae()
    bound = float(Trainer(vae, grey_images(), None, config, bound=iwae, device=CPU).take_step())
    vae, generator = small_vae(), make_generator(5, "training")
    rows = torch.randperm(23, generator=make_generator(5, "order", 0))[:10]
    x = grey_images().read(rows, dtype=torch.float64, generator=generator)
    q = vae(x)
    expected = iwae(vae, q, x, q.rsample(4, generator=generator)).mean()
    assert bound == pytest.approx(float(expected.detach()), rel=1e-12)


# -- what a run leaves ------------------------------------------------------------------------------------------------


def test_history_says_what_happened() -> None:
    run = small_run(epochs=5, evaluate_every=2)
    assert [(row["epoch"], row["step"], row["samples"]) for row in run.history] == [
        (2, 4, 40),
        (4, 8, 80),
        (5, 10, 100),
    ]
    assert all(math.isfinite(value) for row in run.history for value in row.values())
    last = run.history[-1]
    assert last["images_per_second"] == pytest.approx(100 / last["seconds"], rel=0.2, abs=1.0 / last["seconds"] ** 2)
    assert 0.0 < run.history[0]["seconds"] <= last["seconds"]
    # Looking does not move the training.
    assert same_bits(weights(run), weights(small_run(epochs=5, validation=None)))
    assert run.checkpoint is None


def test_seconds_are_those_of_the_steps() -> None:
    def slow(*arguments: Any) -> Tensor:
        time.sleep(0.01)
        return elbo_with_analytic_kl(*arguments)

    start = time.perf_counter()
    first, second = (row["seconds"] for row in small_run(epochs=2, bound=slow).history)
    assert 0.02 <= first < second - 0.019 < second <= time.perf_counter() - start + 0.001


def test_the_averages_are_those_of_the_epoch_and_of_the_held_out_images() -> None:
    config = CONFIG
    trainer = Trainer(small_vae(), grey_images(), None, config, device=CPU)
    bounds = [float(trainer.take_step()) for _ in range(4)]
    run = small_run(epochs=2, evaluate_every=2)
    assert run.history[0]["train_elbo"] == pytest.approx(sum(bounds[2:]) / 2, rel=1e-12)
    # Held-out images are read, and z is drawn, from a stream of its own that is the same at every look.
    generator = make_generator(7, "validation")
    x = grey_images(11, seed=3).read_all(dtype=torch.float64, generator=generator)
    with torch.no_grad():
        q = run.model(x)
        z = q.sample(1, generator=generator)
        elbo = run.model.log_p_x_given_z(x, z)[0] - 0.5 * (q.mu**2 + q.logvar.exp() - 1 - q.logvar).sum(-1)
    assert run.history[0]["validation_elbo"] == pytest.approx(float(elbo.mean()), rel=1e-10)
    kl = 0.5 * (q.mu**2 + q.logvar.exp() - 1 - q.logvar).sum(-1).mean()
    assert run.history[0]["validation_kl"] == pytest.approx(float(kl), rel=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_left_as_they_were(training: bool) -> None:
    model = small_vae()
    model.train(training)
    model.decoder.train(not training)
    before = [module.training for module in model.modules()]
    run = small_run(model=model)
    assert run.model is model
    assert [module.training for module in model.modules()] == before
    assert all(weight.requires_grad for weight in model.parameters())


def test_weights_that_want_no_gradient_stay() -> None:
    model = small_vae()
    model.decoder[0].requires_grad_(False)  # type: ignore[index]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = weights(small_run(model=model))
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {"decoder.0.weight", "decoder.0.bias"}


def test_a_network_inside_a_model_that_is_no_module_is_trained(tmp_path: Path) -> None:
    """A DecoderModel is a plain dataclass that holds a network."""
    network, encoder = linear(2, 12, seed=1), NormalEncoder(linear(12, 4, seed=2))
    model = DecoderModel(network, BernoulliLikelihood(), 2, 12, standard_normal(2, dtype=torch.float64))
    before = network.weight.detach().clone()
    full = small_run(tmp_path, model=model, encoder=encoder)
    assert not torch.equal(network.weight, before)
    assert full.model is model
    assert small_run(tmp_path, model=model, encoder=encoder, resume=True).history == full.history
    names = {name for name in read_checkpoint(str(full.checkpoint)).tensors if name.startswith(("encoder.", "held."))}
    assert names == {f"{part}.{kind}" for part in ("encoder.network", "held.0") for kind in ("weight", "bias")}


def test_single_precision_stays_single() -> None:
    run = small_run(model=small_vae(torch.float32))
    assert {value.dtype for value in run.model.state_dict().values()} == {torch.float32}


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.ones(20, 12)}, TypeError, r"images: expected vae_lib\.learning\.Images, found Tensor"),
        ({"validation": [1]}, TypeError, r"validation: expected vae_lib\.learning\.Images, found list"),
        ({"images": Images(torch.ones(20, 9))}, ValueError, "images: expected 12 pixels, as the model has, found 9"),
        (
            {"validation": Images(torch.ones(20, 9))},
            ValueError,
            "validation: expected 12 pixels, as the model has, found 9",
        ),
        ({"batch_size": 24}, ValueError, "batch_size: expected at most the number of images, 23, found 24"),
        ({"check_every": 0}, ValueError, "check_every: expected a positive integer, found 0"),
        ({"check_every": -3}, ValueError, "check_every: expected a positive integer, found -3"),
        ({"epochs": -1}, ValueError, "epochs: expected a positive integer, found -1"),
        (
            {"device": "gpu"},
            ValueError,
            "device: expected cpu, cuda, cuda:N or mps as this machine has them, found 'gpu'",
        ),
        ({"device": "meta"}, ValueError, "device: expected cpu, cuda, cuda:N or mps .*, found 'meta'"),
        ({"device": "cuda:99"}, ValueError, "device: expected cpu, cuda, cuda:N or mps .*, found 'cuda:99'"),
        ({"device": ""}, ValueError, "device: expected cpu, cuda, cuda:N or mps .*, found ''"),
    ],
)
def test_mistakes_get_one_line(tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        small_run(tmp_path / "new", **change)
    assert not (tmp_path / "new").exists()


def test_a_model_of_another_type_of_number_is_told() -> None:
    encoder = NormalEncoder(linear(3, 2, seed=1).float())
    model = exact_model()
    with pytest.raises(
        TypeError, match=r"^z: expected torch\.float32 .*found.*$|^x: expected torch\.float64.*found.*$"
    ):
        train(model, draws_of(model, 200, seed=1), encoder=encoder, device="cpu", progress=False)


def test_a_q_without_differentiable_draws_is_told() -> None:
    with pytest.raises(TypeError, match=r"^q: expected a density with rsample, found Tensor; see chapter 3$"):
        small_run(encoder=lambda x: x)


def test_a_configuration_is_not_needed() -> None:
    assert TrainingConfig() == TrainingConfig(100, 100, 1e-3, "adam", "constant", 0, 1, 1, 0, 0.0, 1e-8)
    with pytest.raises(ValueError, match=r"^batch_size: expected at most the number of images, 23, found 100$"):
        train(small_vae(), grey_images(), device="cpu")
    assert MODEL.data_dim == 12
