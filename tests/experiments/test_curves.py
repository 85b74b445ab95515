"""Learning curves: the same rows however often they are interrupted, and the step that a loop by hand would choose."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.experiments.small import CPU, without_times
from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.evaluation import held_out_elbo
from vae_lib.experiments import curves
from vae_lib.experiments.curves import (
    RATES,
    Training,
    curves_of_best_rates,
    learning_curve,
    look_at_bound,
    round_numbers,
    stored_rows,
    try_rates,
)
from vae_lib.learning import Images, NonFiniteError, TrainingConfig, TrainingInterrupted, WakeSleep, train
from vae_lib.learning.checkpoints import CHECKPOINT, read_checkpoint
from vae_lib.models import VAE, VAEConfig, build
from vae_lib.rng import make_generator

# 23 images make four minibatches of 5 and leave three behind.
MODEL = VAEConfig((3, 4), 2, (5,))
CONFIG = TrainingConfig(batch_size=5, learning_rate=0.05, optimiser="adagrad", weight_prior=1.0, seed=7)
IMAGES = Images(torch.randint(0, 256, (23, 12), generator=make_generator(2)).to(torch.uint8), "bits", 255)
MARKS = [10, 20, 50, 100]
X = (torch.rand(9, 12, generator=make_generator(3)) < 0.5).float()

LOOK = look_at_bound({"test": X})


def training(bound: Any = elbo_with_analytic_kl, **changes: Any) -> Training:
    return Training(MODEL, IMAGES, replace(CONFIG, **changes), bound, CPU)


def nothing(part: float) -> None:
    """Of progress."""


def curve(folder: Path, *, marks: list[int] = MARKS, bound: Any = elbo_with_analytic_kl, look: Any = None) -> Any:
    return learning_curve(training(bound), marks, look or look_at_bound({"test": X}), folder=folder, advance=nothing)


def at_call(number: int, action: Callable[[], object], inside: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which does something before its number-th call."""
    asked = itertools.count(1)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(asked) == number:
            action()
        return inside(*arguments, **options)

    wrapped.__name__ = inside.__name__
    return wrapped


class Killed(BaseException):
    """Nobody is there to catch it."""


def kill() -> None:
    raise Killed


def interrupt() -> None:
    import signal

    signal.raise_signal(signal.SIGINT)


def weights(vae: VAE) -> list[bytes]:
    return [value.numpy().tobytes() for value in vae.state_dict().values()]


def test_round_numbers() -> None:
    assert round_numbers(1_000, 10_000) == [1_000, 2_000, 5_000, 10_000]
    assert round_numbers(1_000, 100_000_000)[-4:] == [10**7, 2 * 10**7, 5 * 10**7, 10**8]
    assert round_numbers(3, 40) == [5, 10, 20, 40]
    assert round_numbers(1_000, 2_400) == [1_000, 2_000, 2_400]
    assert round_numbers(1_000, 500) == [500]


def test_a_curve_has_a_row_for_each_mark(tmp_path: Path) -> None:
    parts: list[float] = []
    vae, rows = learning_curve(
        training(), MARKS, look_at_bound({"a": X, "b": X[:4]}), folder=tmp_path, advance=parts.append
    )
    assert [row["samples"] for row in rows] == MARKS
    assert [list(row) for row in rows] == [
        ["samples", "seconds", "a_elbo", "a_error", "a_kl", "b_elbo", "b_error", "b_kl"]
    ] * 4
    assert parts == [0.1, 0.2, 0.5, 1.0]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    # The weights are those of twenty steps of the trainer, from the weights of the seed.
    start = build(MODEL, generator=make_generator(7, "weights"), dtype=torch.float32)
    train(start, IMAGES, None, replace(CONFIG, epochs=5), device="cpu", progress=False)
    assert weights(vae) == weights(start)
    assert rows[-1] | {"seconds": 0} == {"samples": 100, "seconds": 0} | look_at_bound({"a": X, "b": X[:4]})(vae)
    assert stored_rows(tmp_path) == rows
    assert stored_rows(tmp_path / "nowhere") == []


def test_a_longer_curve_begins_with_the_shorter_one_and_looks_change_nothing(tmp_path: Path) -> None:
    _, short = curve(tmp_path / "short", marks=[20])
    _, long = curve(tmp_path / "long")
    assert without_times(long)[1:2] == without_times(short)


@pytest.mark.parametrize("action", [interrupt, kill])
@pytest.mark.parametrize("where", ["step", "look"])
def test_interrupted_and_called_again_is_never_interrupted(
    tmp_path: Path, action: Callable[[], None], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three seeded moments, each in what the moment before left; a kill also where every step is stored."""
    whole, rows = curve(tmp_path / "whole")
    draws, folder = random.Random(1), tmp_path / "part"
    for _ in range(3):
        monkeypatch.setattr(curves, "_CHECKPOINT_SECONDS", draws.choice([0.0, 1e9]))
        bound, look = elbo_with_analytic_kl, look_at_bound({"test": X})
        if where == "step":
            bound = at_call(draws.randint(1, 6), action, bound)
        else:
            look = at_call(1, action, look)
        with pytest.raises((TrainingInterrupted, Killed)):
            curve(folder, bound=bound, look=look)
        assert without_times(stored_rows(folder)) == without_times(rows)[: len(stored_rows(folder))]
    again, rows_again = curve(folder)
    assert without_times(rows_again) == without_times(rows)
    assert weights(again) == weights(whole)
    state, other = (read_checkpoint(tmp_path / name / CHECKPOINT) for name in ("whole", "part"))
    assert all(torch.equal(value, other.tensors[name]) for name, value in state.tensors.items())


def test_an_interruption_says_how_to_go_on_and_keeps_the_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted, match=r"^interrupted; the same command goes on from here$"):
        curve(tmp_path, bound=at_call(7, interrupt, elbo_with_analytic_kl))
    assert read_checkpoint(tmp_path / CHECKPOINT).header["step"] == 7


def test_an_interruption_in_the_last_look_is_heard(tmp_path: Path) -> None:
    """The curve is whole then; but what runs curve after curve has to stop."""
    with pytest.raises(TrainingInterrupted):
        curve(tmp_path, look=at_call(4, interrupt, look_at_bound({"test": X})))
    _, rows = curve(tmp_path, bound=at_call(1, kill, elbo_with_analytic_kl), look=kill)
    assert [row["samples"] for row in rows] == MARKS


def test_a_step_that_is_no_number_leaves_the_rows_before(tmp_path: Path) -> None:
    def lost(*arguments: Any) -> Tensor:
        return elbo_with_analytic_kl(*arguments) / 0.0

    asked = itertools.count(1)

    def bound(*arguments: Any) -> Tensor:
        return (lost if next(asked) > 6 else elbo_with_analytic_kl)(*arguments)

    with pytest.raises(NonFiniteError, match=r"^training stopped at step 7: "):
        curve(tmp_path, bound=bound)
    assert [row["samples"] for row in stored_rows(tmp_path)] == [10, 20]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_look_that_is_no_number_leaves_the_rows_before(tmp_path: Path, value: float) -> None:
    looks = iter([1.0, 2.0, value])
    message = rf"^elbo: expected a finite number after 50 images, found {value}$"
    with pytest.raises(NonFiniteError, match=message):
        curve(tmp_path, look=lambda vae: {"elbo": next(looks)})
    assert [row["elbo"] for row in stored_rows(tmp_path)] == [1.0, 2.0]


def test_a_look_is_the_held_out_bound_with_the_same_noise_each_time() -> None:
    vae = build(MODEL, generator=make_generator(1), dtype=torch.float32)
    look = look_at_bound({"test": X, "train": X})
    row = look(vae)
    assert look(vae) == row
    assert row["test_elbo"] != row["train_elbo"]  # other noise
    held_out = held_out_elbo(vae, vae, X, generator=make_generator(0, "look", "test"))
    assert row["test_elbo"] == pytest.approx(float(held_out.elbo.mean()), abs=1e-4)
    assert row["test_error"] == pytest.approx(float(held_out.elbo.std()) / 3, abs=1e-4)
    assert row["test_kl"] == pytest.approx(float(held_out.kl.mean()), abs=1e-4)


# -- the choice of the step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [elbo_with_analytic_kl, WakeSleep()])
def test_the_rate_is_that_of_the_highest_bound(bound: Any) -> None:
    """Sixteen steps are four epochs, whose last one is the last quarter: its average is in the trainer's history."""
    found = {}
    for rate in RATES:
        vae = build(MODEL, generator=make_generator(7, "weights"), dtype=torch.float32)
        config = replace(CONFIG, epochs=4, learning_rate=rate)
        run = train(vae, IMAGES, None, config, bound=bound, device="cpu", progress=False)
        found[f"{rate:g}"] = run.history[-1]["train_elbo"]
    pilot = try_rates(training(bound, learning_rate=123.0), steps=16)
    assert pilot == pytest.approx(found, abs=6e-4)
    assert list(pilot) == sorted(found, key=lambda name: -found[name])
    assert len(set(pilot.values())) == 3


def test_ties_and_order_do_not_matter_to_the_winner() -> None:
    one, other = (try_rates(training(), steps=8, rates=rates) for rates in (RATES, RATES[::-1]))
    assert list(one.items()) == list(other.items())


def test_a_rate_that_ends_in_no_number_is_out() -> None:
    """Plain gradients with such a step leave the numbers by themselves."""
    assert list(try_rates(training(optimiser="sgd"), steps=12, rates=(1e-3, 1e6))) == ["0.001"]
    message = r"^rates: expected one of 1000000.0, 10000000.0 to stay finite, found none$"
    with pytest.raises(NonFiniteError, match=message):
        try_rates(training(optimiser="sgd"), steps=12, rates=(1e6, 1e7))


def test_another_judge_sees_the_model_after_the_steps() -> None:
    seen = []

    def judge(vae: VAE) -> float:
        seen.append(torch.cat([weight.detach().flatten() for weight in vae.parameters()]))
        return float("nan") if len(seen) == 2 else float(len(seen))

    pilot = try_rates(training(), steps=3, judge=judge)
    # The first was called 1, the second no number, the third 3.
    assert list(pilot.items()) == [(f"{RATES[2]:g}", 3.0), (f"{RATES[0]:g}", 1.0)]
    for rate, weights in zip(RATES, seen, strict=True):
        trainer = training(learning_rate=rate).trainer(3 * CONFIG.batch_size)
        for _ in range(3):
            trainer.take_step()
        assert torch.equal(
            weights, torch.cat([weight.detach().flatten() for weight in trainer.state.module.parameters()])
        )


def test_the_two_best_rates_have_curves(tmp_path: Path) -> None:
    told: list[float] = []
    pilot = try_rates(training(), steps=8)
    first, second, third = pilot
    marks = [CONFIG.batch_size * steps for steps in (1, 3, 5)]
    found = curves_of_best_rates(training(), marks, LOOK, steps=8, folder=tmp_path, advance=told.append)
    assert found["pilot"] == pilot
    assert (f"{found['rate']:g}", [f"{curve['rate']:g}" for curve in found["others"]]) == (first, [second])
    for rate, rows in ((first, found["rows"]), (second, found["others"][0]["rows"])):
        _, alone = learning_curve(
            training(learning_rate=float(rate)), marks, LOOK, folder=tmp_path / f"alone-{rate}", advance=told.append
        )
        assert without_times(rows) == without_times(alone)
    assert not (tmp_path / f"rate-{third}").exists()
    one = curves_of_best_rates(training(), marks, LOOK, steps=8, count=1, folder=tmp_path, advance=told.append)
    assert one["others"] == []
    assert without_times(one["rows"]) == without_times(found["rows"])


def test_a_curve_that_ends_in_no_number_keeps_its_rows(tmp_path: Path) -> None:
    marks = [CONFIG.batch_size * steps for steps in (1, 2, 4)]
    calls: list[int] = []

    def lost(vae: VAE) -> dict[str, float]:
        calls.append(1)
        return {"elbo": float("nan") if len(calls) == 2 else 1.0}

    found = curves_of_best_rates(training(), marks, lost, steps=4, folder=tmp_path, advance=lambda part: None)
    assert [row["samples"] for row in found["rows"]] == marks[:1]
    assert found["stopped"].startswith("elbo: expected a finite number after")
    assert "stopped" not in found["others"][0]
    assert [row["samples"] for row in found["others"][0]["rows"]] == marks


def test_one_step_is_enough_to_choose_and_none_is_not() -> None:
    pilot = try_rates(training(), steps=1)
    # Before the first step all are alike, and keep their order.
    assert len(set(pilot.values())) == 1
    assert list(pilot) == [f"{rate:g}" for rate in RATES]
    with pytest.raises(ValueError, match=r"^steps: expected a positive integer, found 0$"):
        try_rates(training(), steps=0)
