"""Two processes compute what one does: the same draws, the same curve, one writer, and checkpoints that fit both."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vae_lib
from tests.learning.runs import grey_images, small_run, small_vae, without_times
from tests.learning.together import EPOCHS, Like, Odd, full, log_likelihood
from vae_lib.densities import DiagonalNormal
from vae_lib.learning.checkpoints import read_checkpoint
from vae_lib.learning.distributed import World, choose_device, current_world, joined
from vae_lib.rng import make_generator

CPU = torch.device("cpu")
Result = Callable[[str], list[dict[str, Any]]]


# -- alone ------------------------------------------------------------------------------------------------------------


def test_one_process_is_a_world() -> None:
    world = current_world()
    assert world == World(0, 1)
    assert world.is_writer
    assert not World(1, 2).is_writer
    value, module = torch.arange(3.0), small_vae()
    assert world.mean(value) is value
    assert world.any([True, False], CPU) == [True, False]
    assert world.agree(value, CPU)
    assert world.wrap(module) is module


def test_alone_nothing_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined(CPU) as world:
        assert world == World()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(CPU) as world:
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_parts_cover_a_minibatch(size: int) -> None:
    rows = list(range(20))
    assert [row for rank in range(size) for row in rows[World(rank, size).part(20)]] == rows


@pytest.mark.parametrize("make", [lambda q: q, full])
def test_parts_of_draws_are_the_draws_of_one_process(make: Any) -> None:
    x = grey_images().values[:6].double()
    q = make(small_vae()(x))
    whole = World().draw(q, 3, generator=make_generator(1))
    assert torch.equal(whole, q.rsample(3, generator=make_generator(1)))
    parts = []
    for rank in range(2):
        world = World(rank, 2)
        mine = make(small_vae()(x[world.part(6)]))
        parts.append(world.draw(mine, 3, generator=make_generator(1)))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-12, atol=1e-12)
    parts[1].sum().backward()


def test_alone_any_differentiable_draws_will_do() -> None:
    q = small_vae()(grey_images().values.double())
    draws = [World().draw(one, 3, generator=make_generator(1)) for one in (q, Odd(q))]
    assert torch.equal(*draws)


def test_noise_of_several_tensors() -> None:
    """A density whose noise is a pair."""
    import dataclasses

    @dataclasses.dataclass(frozen=True, eq=False)
    class Sum(DiagonalNormal):
        def noise(self, num_samples: int, *, generator: torch.Generator) -> Any:
            return tuple(self._standard_normal(num_samples, generator) for _ in range(2))

        def from_noise(self, noise: Any) -> torch.Tensor:
            return self.mu + self.std * (noise[0] + noise[1])

    mu, logvar = (torch.arange(8.0).reshape(4, 2) * scale for scale in (1.0, 0.1))
    whole = Sum(mu, logvar).rsample(3, generator=make_generator(1))
    parts = [
        World(rank, 2).draw(Sum(mu[rows], logvar[rows]), 3, generator=make_generator(1))
        for rank, rows in enumerate([slice(0, 2), slice(2, 4)])
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


# -- devices ----------------------------------------------------------------------------------------------------------


def test_the_device_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == CPU
    tried: list[Any] = []
    monkeypatch.setattr(torch, "zeros", lambda _, device: tried.append(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert choose_device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device() == choose_device("cuda") == torch.device("cuda", 3)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == CPU
    assert len(tried) == 6


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:99", "", "vulkan"])
def test_a_device_that_is_not_here_is_told(name: str) -> None:
    message = rf"^device: expected cpu, cuda, cuda:N or mps as this machine has them, found '{name}'$"
    with pytest.raises(ValueError, match=message):
        choose_device(name)


# -- together ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All trainings in two processes, one after the other."""
    folder = tmp_path_factory.mktemp("together")
    root = Path(vae_lib.__file__).parents[1]
    command = [sys.executable, "-m", "tests.learning.together", str(folder)]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    # One process draws the bar where stderr is a terminal, none does here.
    assert "img/s" not in run.stderr
    return folder


@pytest.fixture
def ended(folder: Path) -> Result:
    """What both processes of a training ended with."""
    return lambda name: [json.loads((folder / name / f"{rank}.json").read_text()) for rank in (0, 1)]


def assert_same(result: dict[str, Any], alone: Any, tolerance: float) -> None:
    """History and weights agree to a relative and absolute tolerance."""
    rows, expected = without_times(result["history"]), without_times(alone.history)
    assert [row.keys() for row in rows] == [row.keys() for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=tolerance, abs=tolerance)
    for name, value in alone.model.state_dict().items():
        found = torch.tensor(result["weights"][name], dtype=value.dtype)
        torch.testing.assert_close(found, value, rtol=tolerance, atol=tolerance)


# A slope is right to some 1e-15, in whatever order the images are summed. Plain ascent carries that on. Adam divides it
# by the size of the slope plus 1e-8, so that a step of 0.01 is right to 1e-9 if a slope is zero but for rounding.
@pytest.mark.parametrize(
    ("name", "tolerance", "options"),
    [
        ("adam", 1e-9, {}),
        ("sgd", 1e-12, {"optimiser": "sgd", "num_samples": 3}),
        ("checked seldom", 1e-9, {}),
        ("stopped", 1e-9, {}),
    ],
)
def test_the_curve_is_that_of_one_process(ended: Result, name: str, tolerance: float, options: dict[str, Any]) -> None:
    """The one that was stopped did steps 1 to 3 in two processes, 4 to 6 in one, and the rest in two."""
    alone = small_run(epochs=EPOCHS, **options)
    first, second = ended(name)
    assert len(first["history"]) == EPOCHS
    assert_same(first, alone, tolerance)
    # After every step both hold the same weights, to the last bit.
    assert second["weights"] == first["weights"]


def test_a_full_covariance_is_drawn_together(ended: Result) -> None:
    model = small_vae()
    model.encoder = Like(full)
    alone = small_run(model=model, bound=log_likelihood, validation=None, epochs=EPOCHS)
    assert_same(ended("full")[0], alone, 1e-9)


@pytest.mark.parametrize("name", ["adam", "stopped"])
def test_one_process_writes(folder: Path, ended: Result, name: str) -> None:
    first, second = ended(name)
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == first["history"]
    tensors, header = read_checkpoint(folder / name / "checkpoint.safetensors")
    assert header["history"] == first["history"]
    assert header["step"] == 2 * EPOCHS
    weights = {key.removeprefix("model."): value.tolist() for key, value in tensors.items() if key.startswith("model.")}
    assert weights == first["weights"]
    # The second has not looked; what it knows of looks it read from the checkpoint that it began with.
    assert second["history"] == first["history"][: 3 if name == "stopped" else 0]
    # The bounds of the last epoch are the averages over both.
    mean = pytest.approx(first["history"][-1]["train_elbo"], rel=1e-12)
    assert float(tensors["bounds"].mean()) == mean


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("indivisible", "ValueError: batch_size: expected a multiple of the 2 processes, found 9"),
        ("odd", "TypeError: q: expected a density with noise and from_noise, found Odd"),
        (
            "gamma",
            "TypeError: q: expected noise that does not depend on parameters, found processes that drew apart",
        ),
    ],
)
def test_both_processes_say_the_same_of_a_mistake(ended: Result, name: str, message: str) -> None:
    assert ended(name) == [{"error": message}, {"error": message}]


@pytest.mark.parametrize(("name", "step"), [("lost", 3), ("lost late", 6)])
def test_a_process_that_is_lost_says_why_and_none_waits(folder: Path, ended: Result, name: str, step: int) -> None:
    """The harness itself fails if a process waits for ever."""
    first, second = ended(name)
    assert second["error"].startswith(f"NonFiniteError: training stopped at step {step}: expected finite numbers,")
    assert "error" in first
    tensors = read_checkpoint(folder / name / "checkpoint.safetensors").tensors
    assert all(bool(torch.isfinite(value).all()) for value in tensors.values())
