"""The average of a bound over draws and minibatch, as one module: what is compiled, and shared by processes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

from torch import Generator, Tensor, nn

from vae_lib.evaluation.passes import modules_of
from vae_lib.learning.distributed import World
from vae_lib.protocols import ApproximatePosterior, Density, LatentVariableModel, Noise, NoiseDensity
from vae_lib.rng import make_generator

# Takes a model, q for the batch, x (B, D) and draws z (S, B, L); returns values whose average is raised.
Bound: TypeAlias = Callable[[LatentVariableModel, Density, Tensor, Tensor], Tensor]


@runtime_checkable
class SurrogateObjective(Protocol):
    """What can stand in a bound's place where it needs more than draws from q, as wake-sleep needs dreams."""

    def climb(
        self,
        model: LatentVariableModel,
        encoder: ApproximatePosterior,
        x: Tensor,
        *,
        num_samples: int,
        generator: Generator,
    ) -> Tensor:
        """Values whose average is raised, for data ``x (B, D)``: ``(S, B)``, in nats."""


@runtime_checkable
class ScheduledBound(Protocol):
    """A bound that changes while a model learns, as one whose KL is let in by and by."""

    def at_step(self, step: int) -> Bound:
        """Return the bound that is climbed after ``step`` steps, by that number alone: so a training can be resumed."""


class AverageBound(nn.Module):
    """The average of a bound.

    Parameters
    ----------
    model, encoder
        p(x, z) and q(z | x). Their weights become this module's; without an encoder the model is its own. One that is
        no module may hold modules as attributes, as a :class:`~vae_lib.models.DecoderModel` does.
    bound
        What is averaged: a function of draws from q, a :class:`ScheduledBound`, or a :class:`SurrogateObjective`.
    num_samples
        S.
    world
        The processes that share a minibatch.

    Attributes
    ----------
    step
        Steps taken so far, which a :class:`ScheduledBound` asks for. The trainer keeps it.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        encoder: ApproximatePosterior | None,
        bound: Bound | ScheduledBound | SurrogateObjective,
        num_samples: int,
        world: World,
    ) -> None:
        super().__init__()
        self.step = 0
        if isinstance(bound, SurrogateObjective) and world.size > 1:
            raise ValueError(f"bound: expected one process for {name_of(bound)}, found {world.size}")
        self.model: LatentVariableModel = model
        self.encoder: ApproximatePosterior | None = encoder
        self.held = nn.ModuleList(part for part in modules_of(model, encoder) if part not in (model, encoder))
        self._is_opaque = encoder is not None and not modules_of(encoder)
        self._bound, self.num_samples, self.world = bound, num_samples, world

    @property
    def is_function_of_draws(self) -> bool:
        """Whether the bound is one function of model, q, data and draws, at every step."""
        return not isinstance(self._bound, SurrogateObjective | ScheduledBound)

    def posterior(self, x: Tensor) -> Density:
        """Density q(z | x), of the encoder, or of the model if it is its own."""
        return cast(ApproximatePosterior, self.model if self.encoder is None else self.encoder)(x)

    def forward(self, x: Tensor, generator: Generator) -> Tensor:
        """One number, in nats an image."""
        if isinstance(self._bound, SurrogateObjective):
            if self._is_opaque:
                q = self.posterior(x)
                self._refuse_hidden(q.log_prob(q.sample(1, generator=make_generator(0, device=x.device))))
            return self._bound.climb(
                self.model, self.posterior, x, num_samples=self.num_samples, generator=generator
            ).mean()
        q = self.posterior(x)
        z = self.world.draw(q, self.num_samples, generator=generator)
        if self._is_opaque:
            self._refuse_hidden(z)
        bound = self._bound.at_step(self.step) if isinstance(self._bound, ScheduledBound) else self._bound
        try:
            return bound(self.model, q, x, z).mean()
        except NotImplementedError as error:
            raise NotImplementedError(f"{error}; with train, pass bound=log_weights") from error

    def _refuse_hidden(self, value: Tensor) -> None:
        """Refuse what depends on weights of an encoder that were not found."""
        if value.requires_grad:
            raise TypeError(
                f"encoder: expected a module or an object that holds one, found {type(self.encoder).__name__}: "
                "its weights cannot be found, and would not be trained"
            )

    def at(self, x: Tensor, noise: Noise) -> Tensor:
        """The same for noise that was drawn before: a deterministic function."""
        q = cast(NoiseDensity, self.posterior(x))
        return cast(Bound, self._bound)(self.model, q, x, q.from_noise(noise)).mean()


def name_of(bound: object) -> str:
    """Name a bound with its settings, as far as they are numbers and words, so that another is told from it."""
    if isinstance(bound, functools.partial):
        return f"{name_of(bound.func)} {_plain(dict(enumerate(bound.args)) | bound.keywords)}"
    name = getattr(bound, "__name__", None)
    return str(name) if name else f"{type(bound).__name__} {_plain(getattr(bound, '__dict__', {}))}"


def _plain(settings: Mapping[Any, object]) -> dict[Any, object]:
    return {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}
