"""Several processes as one: who am I, which part of the batch is mine, what do the others say.

All of it is ``torch.distributed``. Started by ``torchrun``, each process holds the same weights, the same generator and
the same data; each takes its part of every minibatch, and the gradients are averaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from vae_lib.protocols import Density, Noise


@dataclass(frozen=True)
class World:
    """The processes of a training.

    Parameters
    ----------
    rank
        The number of this one. The first, 0, is the one that writes.
    size
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_writer(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """The rows of a minibatch that belong to this process; ``batch_size`` is a multiple of ``size``."""
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flags: list[bool], device: torch.device) -> list[bool]:
        """For each flag, whether it is up in any process."""
        if self.size == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32, device=device)
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised.tolist()]

    def agree(self, value: Tensor, device: torch.device) -> bool:
        """Whether a tensor is the same in all processes."""
        if self.size == 1:
            return True
        lowest, highest = value.to(device, copy=True), value.to(device, copy=True)
        dist.all_reduce(lowest, op=dist.ReduceOp.MIN)
        dist.all_reduce(highest, op=dist.ReduceOp.MAX)
        return torch.equal(lowest, highest)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over all processes."""
        return module if self.size == 1 else nn.parallel.DistributedDataParallel(module)

    def draw(self, q: Density, num_samples: int, *, generator: Generator) -> Tensor:
        """Reparameterised draws ``(S, B, L)`` from q for the part of the batch that this process holds.

        Noise is drawn for the whole batch, and its part is taken: together the processes hold the draws that one
        process would have made. Noise of a Gamma or a Beta depends on their parameters, which a process knows for its
        part alone: such a q trains in one process.

        Raises
        ------
        TypeError
            If q has no ``rsample``; with several processes, if its draws are not made of noise.
        """
        if not hasattr(q, "rsample"):
            raise TypeError(f"q: expected a density with rsample, found {type(q).__name__}; see chapter 3")
        if self.size == 1:
            draws: Tensor = q.rsample(num_samples, generator=generator)
            return draws
        if not (is_dataclass(q) and hasattr(q, "noise") and hasattr(q, "from_noise")):
            raise TypeError(f"q: expected a density with noise and from_noise, found {type(q).__name__}")
        whole = type(q)(*(torch.cat([getattr(q, field.name)] * self.size) for field in fields(q)))
        noise = whole.noise(num_samples, generator=generator)
        part = self.part(whole.batch_size)
        mine: Noise = noise[:, part] if isinstance(noise, Tensor) else tuple(each[:, part] for each in noise)
        draws = q.from_noise(mine)
        return draws


def current_world() -> World:
    """The processes that were started together, or this one alone."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that ``torchrun`` started, and leave them at the end; alone, do nothing.

    NCCL between GPUs, gloo between CPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield World()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield current_world()
    finally:
        dist.destroy_process_group()


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name; without one CUDA if there is one, else MPS, else the CPU.

    Under ``torchrun`` each process takes the GPU of its local number.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if device.type not in ("cpu", "cuda", "mps"):
            raise NotImplementedError(device.type)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device: expected cpu, cuda, cuda:N or mps as this machine has them, found {name!r}"
        ) from error
    return device
