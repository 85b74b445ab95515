"""Settings and schedules: closed forms of the rates, the right optimiser, one line for what is out of range."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from vae_lib.learning import TrainingConfig
from vae_lib.learning.schedules import rate_factor
from vae_lib.learning.settings import make_optimiser

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
    optimiser = make_optimiser(TrainingConfig(learning_rate=0.25, optimiser=name), layer, CPU)
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


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model: expected weights that want a gradient, found none$"):
        make_optimiser(TrainingConfig(), nn.Tanh(), CPU)


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
