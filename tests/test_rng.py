"""Generators: the same seed and names give the same stream, anything else gives an unrelated one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from vae_lib.rng import make_generator


def draw(generator: torch.Generator) -> list[float]:
    return torch.rand(4, generator=generator, dtype=torch.float64).tolist()


def test_the_same_seed_and_names_repeat_the_stream() -> None:
    assert draw(make_generator(3)) == draw(make_generator(3))
    assert draw(make_generator(3, "noise", 1)) == draw(make_generator(3, "noise", 1))


def test_a_plain_seed_is_torchs_own() -> None:
    assert draw(make_generator(3)) == draw(torch.Generator().manual_seed(3))


def test_different_seeds_and_names_give_different_streams() -> None:
    keys: list[tuple[Any, ...]] = [
        (0,), (1,), (2**63 - 1,), (0, "a"), (1, "a"), (0, "b"), (0, "a", "b"), (0, "b", "a"), (0, "ab"),
        (0, 1), (0, "1"), (0, 1, 2), (0, 12), (0, "a", 1), (0, "a", 2),
    ]  # fmt: skip
    streams = {tuple(draw(make_generator(*key))) for key in keys}
    assert len(streams) == len(keys)


def test_streams_are_uncorrelated() -> None:
    # 20 streams of 4000 normals: a sample correlation has standard deviation 1/sqrt(4000) = 0.0158; five of them.
    draws = torch.stack([torch.randn(4000, generator=make_generator(5, "stream", i)) for i in range(20)])
    correlations = torch.corrcoef(draws)
    worst = max(abs(float(correlations[i, j])) for i, j in itertools.combinations(range(20), 2))
    assert worst < 5 / 4000**0.5


def test_a_named_stream_does_not_change_between_releases() -> None:
    # SHA-256 of "0\x1fstr:noise", first seven bytes: stored results depend on it.
    assert make_generator(0, "noise").initial_seed() == 59191188668675295


def test_the_device_is_the_one_asked_for() -> None:
    assert make_generator(0).device == torch.device("cpu")
    with pytest.raises(RuntimeError, match="nowhere"):
        make_generator(0, device="nowhere")


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "1", None, True])
def test_a_bad_seed_is_named(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"^seed: expected an integer from 0 to 2\*\*63 - 1, found ") as error:
        make_generator(seed)
    assert str(error.value).endswith(repr(seed))
