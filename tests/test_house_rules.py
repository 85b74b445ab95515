"""The rules that conftest.py and pyproject.toml set for every test are in force."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parents[1]


def test_a_socket_does_not_leave_the_machine() -> None:
    outside = ("192.0.2.1", 80)  # an address kept free for documentation (RFC 5737)
    with pytest.warns(UserWarning, match="connect"), pytest.raises(RuntimeError, match=r"192\.0\.2\.1"):
        socket.create_connection(outside, timeout=1)


def test_a_socket_reaches_the_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = threading.Thread(target=lambda: server.accept()[0].close())
        answer.start()
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            assert client.recv(1) == b""
        answer.join(timeout=5)


def test_threads_are_those_that_were_asked_for() -> None:
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


def test_hypothesis_repeats_itself() -> None:
    assert settings.default is not None
    assert settings.default.derandomize


DRAWS = """
import random, numpy, torch
def test_torch(): torch.rand(1)
def test_numpy(): numpy.random.rand()
def test_random(): random.random()
def test_fork():
    with torch.random.fork_rng(): torch.rand(1)
"""


def test_a_draw_from_a_global_generator_fails_its_test(tmp_path: Path) -> None:
    """Run a small suite under the real conftest.py: it must go red and say which generator moved."""
    (tmp_path / "conftest.py").write_bytes((ROOT / "tests/conftest.py").read_bytes())
    (tmp_path / "test_draws.py").write_text(DRAWS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "3 failed, 1 passed" in run.stdout
    for test, module in [("torch", "torch"), ("numpy", "numpy.random"), ("random", "random")]:
        assert f"test_{test} changed the global random state of {module}:" in run.stdout


def test_the_global_generators_may_be_read() -> None:
    torch.random.get_rng_state()
    random.getstate()
    np.random.get_state()  # noqa: NPY002
