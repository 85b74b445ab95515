"""Settings and schedules: closed forms of the rates, the right optimiser, one line for what is out of range."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.learning.runs import CONFIG, grey_images, small_run, small_vae
from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.learning import TrainingConfig
from vae_lib.learning.schedules import rate_factor
from vae_lib.learning.settings import make_optimiser
from vae_lib.learning.training import Trainer
from vae_lib.rng import make_generator

CPU = torch.device("cpu")


@pytest.mark.parametrize("steps_per_pass", [1, 3, 500])
def test_stages_begin_where_burda_and_others_say(steps_per_pass: int) -> None:
    total = 3280 * steps_per_pass
    # 1 pass, 3 passes, 9 passes ... 2187 passes; the rate is 0.001 * 10^(-i/7).
    ends = [1, 4, 13, 40, 121, 364, 1093, 3280]
    for stage, (start, end) in enumerate(pairwise([0, *ends])):
        for step in (start * steps_per_pass, end * steps_per_pass - 1):
            assert rate_factor("stages", step, total) == pytest.approx(10 ** (-stage / 7), rel=1e-12)


def test_stages_are_laid_over_the_steps_at_hand() -> None:
    # The last of the stages is 2187 of 3280 passes; 33.3 of 100 steps come before it.
    factors = [rate_factor("stages", step, 100) for step in range(100)]
    assert factors[0] == 1.0
    assert [step for step in range(100) if factors[step] == pytest.approx(0.1)] == list(range(34, 100))


def test_cosine_and_constant() -> None:
    assert [rate_factor("constant", step, 8) for step in range(8)] == [1.0] * 8
    assert rate_factor("cosine", 0, 8) == 1.0
    assert rate_factor("cosine", 4, 8) == pytest.approx(0.5, rel=1e-12)
    assert rate_factor("cosine", 2, 8) == pytest.approx((2 + math.sqrt(2)) / 4, rel=1e-12)
    assert rate_factor("cosine", 8, 8) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "stages"])
def test_a_warm_up_is_a_straight_line_to_the_rate(schedule: Any) -> None:
    ratios = [rate_factor(schedule, step, 50, 4) / rate_factor(schedule, step, 50) for step in range(50)]
    assert ratios == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 47, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", torch.optim.Adam),
        ("adamax", torch.optim.Adamax),
        ("adagrad", torch.optim.Adagrad),
        ("sgd", torch.optim.SGD),
    ],
)
def test_the_optimiser_is_the_one_that_was_asked_for(name: Any, kind: type) -> None:
    layer = nn.Linear(2, 3, device="meta").to_empty(device="cpu")
    layer.bias.requires_grad_(False)
    optimiser = make_optimiser(TrainingConfig(learning_rate=0.25, optimiser=name), layer, CPU, 10)
    assert type(optimiser) is kind
    (group,) = optimiser.param_groups
    assert group["params"] == [layer.weight]
    assert group["lr"] == 0.25
    plain = kind([layer.weight], lr=0.25)
    assert {key: value for key, value in group.items() if key not in ("params", "fused")} == {
        key: value for key, value in plain.param_groups[0].items() if key not in ("params", "fused")
    }
    # One pass over the memory where PyTorch has it.
    assert name == "adamax" or group["fused"] is True


@pytest.mark.parametrize("name", ["adam", "adamax"])
def test_epsilon_is_that_of_the_settings(name: Any) -> None:
    """With a slope of 0.5 and an epsilon of 2, the first step of both is the rate times 0.5 / (0.5 + 2)."""
    layer = nn.Linear(1, 1, bias=False, device="meta").to_empty(device="cpu")
    nn.init.constant_(layer.weight, 3.0)
    optimiser = make_optimiser(TrainingConfig(learning_rate=0.25, optimiser=name, epsilon=2.0), layer, CPU, 10)
    layer.weight.grad = torch.full((1, 1), 0.5)
    optimiser.step()
    # Adamax divides by the larger of the slope plus epsilon and what it kept: the same at the first step.
    assert float(layer.weight.detach()) == pytest.approx(3.0 - 0.25 * 0.2, rel=1e-6)


def by_hand(precision: float) -> tuple[list[Tensor], list[Tensor]]:
    """The weights of the small VAE, and the slopes of the MAP criterion on the first minibatch of `small_run`."""
    vae, images = small_vae(), grey_images()
    generator = make_generator(CONFIG.seed, "training")
    order = torch.randperm(23, generator=make_generator(CONFIG.seed, "order", 0))
    x = images.read(order[:10], dtype=torch.float64, generator=generator)
    q = vae(x)
    bound = elbo_with_analytic_kl(vae, q, x, q.rsample(1, generator=generator)).mean()  # type: ignore[attr-defined]
    weights = list(vae.parameters())
    if precision:
        prior = torch.distributions.Normal(torch.tensor(0.0).double(), precision**-0.5)
        bound = bound + sum(prior.log_prob(weight).sum() for weight in weights) / len(images)
    slopes = torch.autograd.grad(bound, weights)
    return [weight.detach() for weight in weights], list(slopes)


# What the first step adds to a weight with this slope of the criterion, at a rate of 0.01: the definitions.
FIRST_STEPS: dict[Any, Callable[[Tensor], Tensor]] = {
    "sgd": lambda slope: 0.01 * slope,
    "adam": lambda slope: 0.01 * slope / (slope.abs() + 1e-8),
    "adamax": lambda slope: 0.01 * slope / (slope.abs() + 1e-8),
    "adagrad": lambda slope: 0.01 * slope / (slope.abs() + 1e-10),
}


@pytest.mark.parametrize("precision", [0.0, 1.0, 40.0])
@pytest.mark.parametrize("name", FIRST_STEPS)
def test_a_prior_on_the_weights_is_climbed_with_the_bound(name: Any, precision: float) -> None:
    """One step of the trainer on 23 images, against autograd of the bound plus log N(w; 0, 1 / precision) / 23.

    A slope of size g is right to some 1e-15, and so the step of Adam, which divides by g + 1e-8, to 1e-7 even where g
    is 1e-8: an absolute 1e-9 at this rate.
    """
    weights, slopes = by_hand(precision)
    config = dataclasses.replace(CONFIG, optimiser=name, weight_prior=precision)
    trainer = Trainer(small_vae(), grey_images(), None, config, device=CPU)
    trainer.take_step()
    moved = list(trainer.module.model.parameters())  # type: ignore[attr-defined]
    for weight, start, slope in zip(moved, weights, slopes, strict=True):
        torch.testing.assert_close(weight.detach(), start + FIRST_STEPS[name](slope), rtol=1e-9, atol=1e-9)


def test_a_strong_prior_draws_the_weights_to_zero() -> None:
    """What is reported is the bound alone, without the prior."""
    plain, drawn = small_run(), small_run(weight_prior=1e4)
    sizes = [float(torch.cat([w.detach().ravel() for w in run.model.parameters()]).norm()) for run in (plain, drawn)]
    assert sizes[1] < 0.9 * sizes[0]
    bounds = [small_run(epochs=1, batch_size=23, weight_prior=prior).history[0]["train_elbo"] for prior in (0.0, 1e4)]
    assert bounds[0] == bounds[1]


def test_frozen_weights_know_no_prior() -> None:
    layer = nn.Linear(2, 3, device="meta").to_empty(device="cpu")
    for weight in layer.parameters():
        nn.init.ones_(weight)
    layer.bias.requires_grad_(False)
    optimiser = make_optimiser(TrainingConfig(optimiser="sgd", learning_rate=0.1, weight_prior=5.0), layer, CPU, 10)
    layer.weight.grad = torch.zeros(3, 2)
    optimiser.step()
    assert torch.equal(layer.bias, torch.ones(3))
    assert torch.allclose(layer.weight.detach(), torch.tensor(1.0 - 0.1 * 5.0 / 10))


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model: expected weights that want a gradient, found none$"):
        make_optimiser(TrainingConfig(), nn.Tanh(), CPU, 10)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epochs": -1}, ValueError, "epochs: expected a positive integer, found -1"),
        ({"epochs": 1.5}, TypeError, "epochs: expected a positive integer, found 1.5"),
        ({"batch_size": 0}, ValueError, "batch_size: expected a positive integer, found 0"),
        ({"num_samples": 0}, ValueError, "num_samples: expected a positive integer, found 0"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every: expected a positive integer, found 0"),
        ({"warmup_steps": -1}, ValueError, "warmup_steps: expected an integer of at least 0, found -1"),
        ({"warmup_steps": True}, ValueError, "warmup_steps: expected an integer of at least 0, found True"),
        ({"seed": 0.5}, ValueError, "seed: expected an integer of at least 0, found 0.5"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate: expected a positive number, found 0.0"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate: expected a positive number, found nan"),
        ({"learning_rate": math.inf}, ValueError, "learning_rate: expected a positive number, found inf"),
        ({"weight_prior": -1.0}, ValueError, "weight_prior: expected a precision of at least 0, found -1.0"),
        ({"weight_prior": math.nan}, ValueError, "weight_prior: expected a precision of at least 0, found nan"),
        ({"weight_prior": math.inf}, ValueError, "weight_prior: expected a precision of at least 0, found inf"),
        ({"weight_prior": "1"}, ValueError, "weight_prior: expected a precision of at least 0, found '1'"),
        ({"epsilon": 0.0}, ValueError, "epsilon: expected a positive number, found 0.0"),
        ({"epsilon": math.nan}, ValueError, "epsilon: expected a positive number, found nan"),
        ({"epsilon": math.inf}, ValueError, "epsilon: expected a positive number, found inf"),
        ({"epsilon": None}, ValueError, "epsilon: expected a positive number, found None"),
        ({"learning_rate": "fast"}, ValueError, "learning_rate: expected a positive number, found 'fast'"),
        (
            {"optimiser": "lion"},
            ValueError,
            "optimiser: expected one of adam, adamax, adagrad, sgd, found 'lion'",
        ),
        ({"schedule": "zigzag"}, ValueError, "schedule: expected one of constant, cosine, stages, found 'zigzag'"),
    ],
)
def test_mistakes_get_one_line(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        TrainingConfig(**change)
