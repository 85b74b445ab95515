"""Trainings in two processes: `python -m tests.learning.together FOLDER`, run by test_distributed.py.

Both processes are forks of this one, which has imported everything, and join as `torchrun` would have them join. What
each of them ended with stands in FOLDER/NAME/RANK.json.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.learning.runs import at_step, small_run, small_vae
from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.densities import DiagonalNormal, FullNormal, Gamma
from vae_lib.learning.distributed import World, current_world, joined

EPOCHS = 4
NAMES = ("adam", "sgd", "checked seldom", "full", "gamma", "odd", "indivisible", "stopped", "lost", "lost late")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Like(nn.Module):
    """Another q from the same network."""

    def __init__(self, make: Callable[[DiagonalNormal], Any]) -> None:
        super().__init__()
        self.inside, self.make = small_vae().encoder, make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.inside(x))


def full(q: DiagonalNormal) -> FullNormal:
    """A full covariance."""
    return FullNormal(q.mu, torch.diag_embed(q.std) + torch.tensor([[0.0, 0.0], [0.5, 0.0]], dtype=q.mu.dtype))


def gamma(q: DiagonalNormal) -> Gamma:
    """Noise that depends on the parameters: how many numbers are drawn until one is accepted."""
    return Gamma(0.5 + torch.exp(q.mu), torch.exp(q.logvar))


class Odd:
    """A density that can be drawn from, but does not say of which noise."""

    def __init__(self, q: DiagonalNormal) -> None:
        self.batch_size, self.event_dim, self.log_prob = q.batch_size, q.event_dim, q.log_prob
        self.sample, self.rsample = q.sample, q.rsample


def log_likelihood(model: Any, q: Any, x: Tensor, z: Tensor) -> Tensor:
    return model.log_p_x_given_z(x, z) - z.square().sum(-1)  # type: ignore[no-any-return]


def lost_by_the_second(step: int) -> Callable[..., Tensor]:
    """The usual bound; but in the second process it is no number on the minibatch of one step."""
    seen: list[Tensor] = []

    def elbo(model: Any, q: Any, x: Tensor, z: Tensor) -> Tensor:
        if not any(torch.equal(x, earlier) for earlier in seen):
            seen.append(x)
        is_lost = len(seen) >= step and torch.equal(x, seen[step - 1]) and current_world().rank == 1
        value = elbo_with_analytic_kl(model, q, x, z)
        return value / 0.0 if is_lost else value

    return elbo


def options_of(name: str) -> dict[str, Any]:
    """What differs between the trainings, from four epochs with Adam."""
    return {
        "sgd": {"optimiser": "sgd", "num_samples": 3},
        "checked seldom": {"check_every": 3},
        "full": {"q": full, "bound": log_likelihood, "validation": None},
        "gamma": {"q": gamma, "bound": log_likelihood, "validation": None},
        "odd": {"q": Odd, "bound": log_likelihood, "validation": None},
        "indivisible": {"batch_size": 9},
        "lost": {"bound": lost_by_the_second(3)},
        # Found by the second process alone, at the last step before a look.
        "lost late": {"bound": lost_by_the_second(6), "check_every": 3, "batch_size": 2, "validation": None},
    }.get(name, {})


def one(folder: Path, rank: int, name: str, **more: Any) -> None:
    """Train as one process of two, and write down what came of it."""
    torch.set_num_threads(1)
    path = folder / name / f"{rank}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with joined(torch.device("cpu")) as world:
            assert (world.rank, world.size) == (rank, int(os.environ["WORLD_SIZE"]))
            options = {"epochs": EPOCHS, "progress": None} | options_of(name) | more
            model = small_vae()
            if "q" in options:
                model.encoder = Like(options.pop("q"))
            # Both have to begin with the weights of the first.
            if rank:
                with torch.no_grad():
                    model.decoder[2].bias += 1.0  # type: ignore[index]
            run = small_run(folder / name, model=model, **options)
            result = {"history": run.history, "weights": {n: w.tolist() for n, w in run.model.state_dict().items()}}
        assert current_world() == World()
    except BaseException as error:
        # Written while the error is held: letting it go closes connections that may still be waited for.
        path.write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        os._exit(0)
    path.write_text(json.dumps(result))


def together(folder: Path, name: str, processes: int = 2, **more: Any) -> None:
    """Train in processes of their own, and wait for them."""
    port, children = str(free_port()), []
    for rank in range(processes):
        if (child := os.fork()) == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
            os.environ |= {"MASTER_PORT": port, "LOCAL_RANK": str(rank)}
            one(folder, rank, name, **more)
            os._exit(0)
        children.append(child)
    deadline = time.monotonic() + 30.0
    while children:
        children = [child for child in children if os.waitpid(child, os.WNOHANG)[0] == 0]
        if time.monotonic() > deadline:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            sys.exit(f"{name}: the processes wait for each other")
        time.sleep(0.005)


def terminate_the_second() -> None:
    if current_world().rank == 1:
        signal.raise_signal(signal.SIGTERM)


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # the fork of a process that has several may wait for one of them for ever
    small_run()  # what is imported late is now there
    for name in NAMES:
        bound = {"bound": at_step(3, terminate_the_second)} if name == "stopped" else {}
        together(folder, name, **bound)
    # One was asked to stop, and both did. On with them: in one process, in two again.
    if not all("TrainingInterrupted" in (folder / "stopped" / f"{rank}.json").read_text() for rank in (0, 1)):
        sys.exit("stopped: expected both processes to be interrupted")
    together(folder, "stopped", processes=1, epochs=3, resume=True)
    together(folder, "stopped", resume=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
