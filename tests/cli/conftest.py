"""What every test of the command line uses: a place of its own, and one short run to look at."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
import tyro

from tests.cli.asking import Answer, Ask
from vae_lib.cli import main


@pytest.fixture(autouse=True)
def _place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with plt.rc_context():
        yield


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For trainings of a moment: threads that wait for each other would make it many times as long."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _parser_without_dice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest, and only there, tyro checks a tenth of its cache, chosen with Python's global generator."""
    parse = tyro.cli

    def parsed(*arguments: Any, **options: Any) -> Any:
        state = random.getstate()
        try:
            return parse(*arguments, **options)
        finally:
            random.setstate(state)

    monkeypatch.setattr(tyro, "cli", parsed)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    def run(*words: object) -> Answer:
        code = main([str(word) for word in words])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs with two latents and binomial pixels. Nobody writes to it."""
    folder: Path = tmp_path_factory.mktemp("runs") / "plain"
    words = ["train", "--epochs", "3", "--latents", "2", "--hidden", "16", "--likelihood", "binomial", "--quiet"]
    with plt.rc_context():
        assert main([*words, "--folder", str(folder)]) == 0
    return folder
