"""Where a number stops being one, the training stops: with the step, the layer and the last good checkpoint named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.learning.runs import at_step, contents, metrics, same_bits, small_run, small_vae, weights
from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.learning import NonFiniteError
from vae_lib.learning.checkpoints import read_checkpoint
from vae_lib.learning.diagnosis import first_non_finite
from vae_lib.learning.state import TrainingState
from vae_lib.models import VAE


class Burst(nn.Module):
    """Passes numbers on, and from one call on puts out infinities."""

    def __init__(self, last_good_call: int) -> None:
        super().__init__()
        self.calls, self.last_good_call = 0, last_good_call

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x if self.calls <= self.last_good_call else x / 0.0


def bursting_vae(step: int) -> VAE:
    """One whose decoder ends in a layer that bursts at a step."""
    vae = small_vae()
    assert isinstance(vae.decoder, nn.Sequential)
    vae.decoder.append(Burst(step - 1))
    return vae


@pytest.mark.parametrize("step", [2, 3, 5])
def test_step_layer_and_checkpoint_are_named(tmp_path: Path, step: int) -> None:
    def burst(folder: Path | None) -> str:
        # Every call of the layer is a step, for there is no look at held-out images.
        with pytest.raises(NonFiniteError) as caught:
            small_run(folder, model=bursting_vae(step), validation=None)
        return str(caught.value)

    path = tmp_path / "checkpoint.safetensors"
    expected = f"training stopped at step {step}: expected finite numbers, found others in "
    layer = "the output of model.decoder.3 (Burst)"
    assert burst(tmp_path) == f"{expected}{layer}; the last good state is in {path}"
    assert burst(None) == f"{expected}{layer}; nothing was stored"
    header = read_checkpoint(path).header
    assert header["step"] == step - 1
    # And the checkpoint is that of a training in which nothing bursts.
    small_run(tmp_path, model=bursting_vae(10**6), validation=None, resume=True)
    small_run(tmp_path / "whole", model=bursting_vae(10**6), validation=None)
    assert contents(tmp_path) == contents(tmp_path / "whole")


def blows_up(folder: Path, **changes: Any) -> str:
    """At such a rate the weights leave the numbers by themselves after some steps."""
    with pytest.raises(NonFiniteError) as caught:
        small_run(folder, learning_rate=1e3, optimiser="sgd", epochs=20, validation=None, **changes)
    message = str(caught.value)
    assert "\n" not in message
    return message.partition(";")[0]


def test_a_look_at_every_seventh_step_finds_the_same(tmp_path: Path) -> None:
    every = blows_up(tmp_path / "every")
    assert blows_up(tmp_path / "seventh", check_every=7) == every
    assert blows_up(tmp_path / "end", check_every=1000, checkpoint_seconds=1e9) == every
    assert int(every.split()[4].rstrip(":")) > 2
    # And what had been said before was not said again.
    assert metrics(tmp_path / "seventh") == metrics(tmp_path / "end") == metrics(tmp_path / "every") != []
    for name in ("every", "seventh", "end"):
        tensors = read_checkpoint(tmp_path / name / "checkpoint.safetensors").tensors
        assert all(bool(torch.isfinite(value).all()) for value in tensors.values())


@pytest.mark.parametrize("check_every", [2, 3, 7, 1000])
def test_how_often_is_looked_does_not_matter_to_the_result(tmp_path: Path, check_every: int) -> None:
    run = small_run(tmp_path / "seldom", check_every=check_every)
    assert same_bits(weights(run), weights(small_run(tmp_path / "whole")))
    assert contents(tmp_path / "seldom") == contents(tmp_path / "whole")


def test_a_look_costs_a_snapshot_and_is_as_rare_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    snapshot = TrainingState.snapshot

    def noted(state: TrainingState) -> Any:
        taken.append(state.step)
        return snapshot(state)

    monkeypatch.setattr(TrainingState, "snapshot", noted)
    small_run(check_every=7, batch_size=5, epochs=2)
    assert taken == [0, 4, 7, 8]  # and at the ends of epochs


class _NanSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # type: ignore[override]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        return slope * math.nan


def nan_slope_at(step: int) -> Any:
    """The usual bound, finite always, whose gradient is not on the minibatch of one step, whenever it is asked."""
    seen: list[Tensor] = []

    def watching(model: Any, q: Any, x: Tensor, z: Tensor) -> Tensor:
        seen.append(x)
        return elbo_with_analytic_kl(model, q, x, z)

    small_run(bound=watching, validation=None)

    def elbo(model: Any, q: Any, x: Tensor, z: Tensor) -> Tensor:
        value = elbo_with_analytic_kl(model, q, x, z)
        return _NanSlope.apply(value) if torch.equal(x, seen[step - 1]) else value  # type: ignore[no-any-return, no-untyped-call]

    return elbo


@pytest.mark.parametrize("check_every", [1, 7])
def test_a_finite_bound_with_a_gradient_that_is_not(tmp_path: Path, check_every: int) -> None:
    """The step after it finds the weights; the checkpoint of the step before it stays."""
    message = (
        r"^training stopped at step 4: expected finite numbers, found others in the weight model\.encoder\.\S+; .*$"
    )
    with pytest.raises(NonFiniteError, match=message):
        small_run(tmp_path, bound=nan_slope_at(3), validation=None, check_every=check_every)
    assert contents(tmp_path)["step"] == 2


def test_a_gradient_that_is_not_finite_in_the_last_step(tmp_path: Path) -> None:
    message = (
        r"^training stopped at step 7: expected finite numbers, found others in the weight model\.encoder\.\S+; .*$"
    )
    for folder in (tmp_path, None):
        with pytest.raises(NonFiniteError, match=message):
            small_run(folder, bound=nan_slope_at(6), validation=None)
    assert contents(tmp_path)["step"] == 5


def test_squares_of_the_optimiser_that_are_not_finite_are_not_stored(tmp_path: Path) -> None:
    """In float32 the square of 1e20 is infinite: Adam's step is zero, weights and bound are finite, nothing learns."""

    def steep(*arguments: Any) -> Tensor:
        bound = elbo_with_analytic_kl(*arguments)
        return bound.detach() + 1e25 * (bound - bound.detach())

    with pytest.raises(NonFiniteError, match=r"found others in optimiser\.\d\.exp_avg_sq; the last good state is in"):
        small_run(tmp_path, model=small_vae(torch.float32), bound=steep, validation=None)
    assert contents(tmp_path)["step"] == 0


def test_a_held_out_bound_that_is_not_finite(tmp_path: Path) -> None:
    # Two steps, then the look: the third call of the layer.
    with pytest.raises(
        NonFiniteError, match=r"^training stopped at step 3: .* found others in the held-out bound; the"
    ):
        small_run(tmp_path, model=bursting_vae(3))
    assert contents(tmp_path)["step"] == 1
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_bound_that_is_not_finite_though_every_layer_is() -> None:
    def infinite(*arguments: Any) -> Tensor:
        return elbo_with_analytic_kl(*arguments) / 0.0

    message = (
        "the bound, though every layer puts out finite numbers: its likelihood or KL overflows; nothing was stored"
    )
    with pytest.raises(NonFiniteError, match=f"^training stopped at step 1: expected .* found others in {message}$"):
        small_run(bound=infinite)


# -- the diagnosis by itself ------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    vae = small_vae()
    assert isinstance(vae.decoder, nn.Sequential)
    return nn.Sequential(vae.decoder, nn.Tanh())


def test_the_first_of_several_is_named() -> None:
    layers = network()
    x = torch.full((3, 2), math.inf).double()
    assert first_non_finite(layers, lambda: layers(x)) == "the output of 0.0 (Linear)"
    with torch.no_grad():
        layers[0][2].bias[1] = math.nan
    assert first_non_finite(layers, lambda: layers(x)) == "the weight 0.2.bias"


def test_what_is_finite_is_left_alone() -> None:
    layers = network()
    seen: list[bool] = []
    verdict = first_non_finite(
        layers, lambda: seen.append(torch.is_grad_enabled()) or layers(torch.ones(3, 2).double())
    )
    assert verdict == "the bound, though every layer puts out finite numbers: its likelihood or KL overflows"
    assert seen == [False]
    assert all(not module._forward_hooks for module in layers.modules())


def test_parts_of_a_density_count_and_hooks_go_after_an_error() -> None:
    vae = small_vae()

    def broken() -> None:
        vae.encoder(torch.full((2, 12), math.nan).double())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        first_non_finite(vae, broken)
    assert all(not module._forward_hooks for module in vae.modules())

    class Encoder(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return vae(x)

    encoder = Encoder()
    x = torch.full((2, 12), math.nan).double()
    assert first_non_finite(nn.Sequential(encoder), lambda: encoder(x)) == "the output of 0 (Encoder)"


def test_an_interrupted_burst_keeps_what_there_was(tmp_path: Path) -> None:
    """A bound that raises something else: the checkpoint of the step before is sound."""

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        small_run(tmp_path, bound=at_step(4, fail))
    assert contents(tmp_path)["step"] == 3
