"""How annealed chains move: temperatures, the densities between two ends, step sizes from a pilot, and the walk.

:mod:`vae_lib.evaluation.annealed` makes estimates of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.bounds import log_joint, log_weights
from vae_lib.mcmc import Transition, hmc
from vae_lib.protocols import Density, LatentVariableModel

# The pilot: chains, adaptations at least, and how much a step size answers to a transition.
PILOT_CHAINS, PILOT_ROUNDS, PILOT_GAIN = 8, 100, 0.5
# Where the sigmoid of the schedule is cut off.
SIGMOID_REACH = 4.0
# Step sizes vary by this much between transitions: no trajectory is always one whole turn around a mode.
JITTER = 0.2


@dataclass(frozen=True)
class AnnealedPath:
    """How chains go from the start density to the posterior.

    Parameters
    ----------
    num_temperatures
        T, steps of the inverse temperature from 0 to 1, with a transition between two of them.
    schedule
        ``sigmoidal``: small steps at both ends, where the densities may change fastest. ``linear``: equal ones.
    num_leapfrog
        Leapfrog steps of a Hamiltonian Monte Carlo transition.
    num_transitions
        Transitions at each temperature.
    target_acceptance
        What step sizes are tuned to.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range or the schedule unknown.
    """

    num_temperatures: int = 1000
    schedule: str = "sigmoidal"
    num_leapfrog: int = 10
    num_transitions: int = 1
    target_acceptance: float = 0.65

    def __post_init__(self) -> None:
        for name in ("num_temperatures", "num_leapfrog", "num_transitions"):
            checks.positive_int(name, getattr(self, name))
        if self.schedule not in ("sigmoidal", "linear"):
            raise ValueError(f"schedule: expected sigmoidal or linear, found {self.schedule!r}")
        if not 0.0 < self.target_acceptance < 1.0:
            raise ValueError(f"target_acceptance: expected a number between 0 and 1, found {self.target_acceptance!r}")

    def temperatures(self) -> list[float]:
        """The T + 1 inverse temperatures, 0 first and 1 last."""
        places = [t / self.num_temperatures for t in range(self.num_temperatures + 1)]
        if self.schedule == "linear":
            return places
        heights = [1.0 / (1.0 + math.exp(-SIGMOID_REACH * (2.0 * place - 1.0))) for place in places]
        return [(height - heights[0]) / (heights[-1] - heights[0]) for height in heights]


@dataclass(frozen=True, eq=False)
class Between:
    """The densities from the start to the joint, for a group of data."""

    model: LatentVariableModel
    start: Density
    x: Tensor

    def log_ratio(self, z: Tensor) -> Tensor:
        """log p(x, z) - log r(z), ``(S, B)``."""
        return log_weights(self.model, self.start, self.x, z)

    def at(self, beta: float) -> Callable[[Tensor], Tensor]:
        """Log-density at an inverse temperature, but for its constant."""

        def log_density(z: Tensor) -> Tensor:
            return (1.0 - beta) * self.start.log_prob(z) + beta * log_joint(self.model, self.x, z)

        return log_density


def pilot(between: Between, z: Tensor, path: AnnealedPath, generator: Generator) -> list[Tensor]:
    """Step sizes ``(B,)`` for the temperatures 1 to T - 1, tuned while chains of their own go from one to the next.

    The target changes slowly and any step size is a right one, so each temperature begins with the last one's.
    """
    inner = path.temperatures()[1:-1]
    step_size = z.std(0).mean(-1) * z.shape[-1] ** -0.25
    step_sizes = []
    for beta in inner:
        for _ in range(math.ceil(PILOT_ROUNDS / len(inner))):
            move = _move(between.at(beta), z, path, step_size, generator)
            z = move.z
            step_size = step_size * torch.exp(PILOT_GAIN * (move.acceptance.mean(0) - path.target_acceptance))
        step_sizes.append(step_size)
    return step_sizes


def walk(
    between: Between,
    z: Tensor,
    path: AnnealedPath,
    step_sizes: list[Tensor],
    *,
    backwards: bool,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Log-weights ``(S, B)`` of chains from z, and their acceptance ``(B,)``, with fixed step sizes."""
    betas = path.temperatures()
    log_w, accepted = torch.zeros_like(z[..., 0]), []
    order = range(1, len(betas))
    for number, t in enumerate(reversed(order) if backwards else order):
        if number > 0:
            # Forwards z has just been weighted up to beta_(t-1); backwards it has been weighted down to beta_t.
            at = t if backwards else t - 1
            move = _move(between.at(betas[at]), z, path, step_sizes[at - 1], generator)
            z = move.z
            accepted.append(move.acceptance.mean(0))
        log_w = log_w + (betas[t] - betas[t - 1]) * between.log_ratio(z)
    return log_w, torch.stack(accepted).mean(0) if accepted else torch.ones_like(log_w[0])


def _move(
    log_density: Callable[[Tensor], Tensor], z: Tensor, path: AnnealedPath, step_size: Tensor, generator: Generator
) -> Transition:
    """Transitions of all chains."""
    return hmc(
        log_density,
        z,
        step_size=step_size,
        num_leapfrog=path.num_leapfrog,
        num_transitions=path.num_transitions,
        jitter=JITTER,
        generator=generator,
    )
