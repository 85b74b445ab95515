"""Ctrl-C, twice, and a request to terminate."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.learning.runs import at_step, contents, interrupt, small_run
from vae_lib.learning import TrainingInterrupted
from vae_lib.learning.interrupts import Interruption


@pytest.fixture(autouse=True)
def survivor() -> Iterator[None]:
    """A request to terminate that nobody takes fails the test, and does not end the tests."""

    def fail(*_: object) -> None:
        raise AssertionError("nobody took the signal")

    previous = signal.signal(signal.SIGTERM, fail)
    yield
    signal.signal(signal.SIGTERM, previous)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_asks(number: signal.Signals) -> None:
    before = handlers()
    with Interruption() as interruption:
        assert not interruption.requested
        signal.raise_signal(number)
        assert interruption.requested
        signal.raise_signal(signal.SIGTERM)  # a cluster may ask again
    assert handlers() == before


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    before = handlers()
    with Interruption():
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert handlers() == before


def test_handlers_are_those_of_the_caller_after_an_error() -> None:
    before = handlers()
    with pytest.raises(ZeroDivisionError), Interruption():
        raise ZeroDivisionError
    assert handlers() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_saves_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt, match="resume=True goes on from there") as caught:
        small_run(tmp_path, bound=at_step(2, lambda: signal.raise_signal(number)), checkpoint_seconds=1e9)
    assert type(caught.value) is TrainingInterrupted
    assert contents(tmp_path)["step"] == 2
    assert handlers() == before


def test_a_second_ctrl_c_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt) as caught:
        small_run(tmp_path / "part", bound=at_step(4, twice))
    assert type(caught.value) is KeyboardInterrupt
    assert contents(tmp_path / "part")["step"] == 3
    small_run(tmp_path / "part", resume=True)
    small_run(tmp_path / "whole")
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


def test_a_signal_in_the_last_step_changes_nothing(tmp_path: Path) -> None:
    small_run(tmp_path / "part", bound=at_step(6, interrupt))
    small_run(tmp_path / "whole")
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")
