"""What holds for every test: one thread, repeatable examples, and the global random state left alone.

Sockets are limited to the loopback by options in pyproject.toml.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and NumPy are first imported

import random
from collections.abc import Generator

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# The same examples on every machine and day, and no verdict that depends on how busy the machine is.
settings.register_profile("book", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("book")


def _global_random_state() -> dict[str, bytes]:
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy.random": np.asarray(keys).tobytes() + repr((name, position, has_gauss, gauss)).encode(),
        "random": repr(random.getstate()).encode(),
    }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that passed but moved a global random generator."""
    before = _global_random_state()
    result = yield
    after = _global_random_state()
    moved = [name for name in before if before[name] != after[name]]
    if moved:
        pytest.fail(
            f"{item.name} changed the global random state of {', '.join(moved)}: "
            "draw from a torch.Generator, or put an oracle that takes none inside torch.random.fork_rng()",
            pytrace=False,
        )
    return result
