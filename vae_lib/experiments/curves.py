"""Learning curves: a training that is looked at after chosen numbers of images, and the choice of its step size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.estimate import mean_with_error
from vae_lib.evaluation import held_out_elbo
from vae_lib.experiments.experiment import Advance
from vae_lib.learning import Images, NonFiniteError, TrainingConfig, TrainingInterrupted
from vae_lib.learning.average_bound import Bound, SurrogateObjective
from vae_lib.learning.checkpoints import CHECKPOINT, read_checkpoint
from vae_lib.learning.interrupts import Interruption
from vae_lib.learning.monte_carlo_em import ChainConfig, MonteCarloEM
from vae_lib.learning.training import Trainer
from vae_lib.models import VAE, VAEConfig, build
from vae_lib.rng import make_generator

# Kingma and Welling (2014), section 5: the global step of Adagrad is one of these.
RATES = (0.01, 0.02, 0.1)
_CHECKPOINT_SECONDS = 30.0
_HOW_TO_GO_ON = "interrupted; the same command goes on from here"


@dataclass(frozen=True)
class Training:
    """What is trained, and how.

    Parameters
    ----------
    model
        Sizes; the weights are drawn with the seed of ``config``.
    images
        To learn from.
    config
        Settings; ``epochs`` is set by the number of images that a curve asks for.
    bound
        What is climbed; with a :class:`~vae_lib.learning.monte_carlo_em.ChainConfig` Monte Carlo EM takes the steps.
    device
        Where.
    """

    model: VAEConfig
    images: Images
    config: TrainingConfig
    bound: Bound | SurrogateObjective | ChainConfig
    device: torch.device

    @property
    def images_a_step(self) -> int:
        """Images times updates of the weights."""
        updates = self.bound.num_updates if isinstance(self.bound, ChainConfig) else 1
        return self.config.batch_size * updates

    def trainer(self, samples: int, folder: Path | None = None) -> Trainer | MonteCarloEM:
        """A trainer that can take as many images."""
        vae = build(self.model, generator=make_generator(self.config.seed, "weights"), dtype=torch.float32)
        per_epoch = len(self.images) // self.config.batch_size * self.images_a_step
        config = replace(self.config, epochs=max(1, math.ceil(samples / per_epoch)))
        if isinstance(self.bound, ChainConfig):
            return MonteCarloEM(vae, self.images, config, self.bound, device=self.device, folder=folder)
        return Trainer(vae, self.images, None, config, bound=self.bound, device=self.device, folder=folder)


def round_numbers(first: int, last: int) -> list[int]:
    """1, 2 and 5 times the powers of ten from ``first`` on, and ``last``: even steps of a logarithmic axis."""
    steps = [digit * 10**power for power in range(12) for digit in (1, 2, 5)]
    return [step for step in steps if first <= step < last] + [last]


def try_rates(
    training: Training,
    *,
    steps: int,
    rates: Sequence[float] = RATES,
    judge: Callable[[VAE], float] | None = None,
) -> dict[str, float]:
    """Try learning rates as the 2014 paper does, by the performance on the training set in the first iterations.

    Each rate trains the same first weights on the same minibatches; a rate under which a number stops being finite is
    out.

    Parameters
    ----------
    training
        Its learning rate is not looked at.
    steps
        How many first iterations.
    rates
        To choose from.
    judge
        Says how good the model is after them. If not given, the average bound of the last quarter of the steps counts.

    Returns
    -------
    dict
        For each rate (as a word) how good it is, the best first.
    """
    checks.positive_int("steps", steps)
    found: dict[str, float] = {}
    for rate in rates:
        trial = replace(training, config=replace(training.config, learning_rate=rate))
        trainer = trial.trainer(steps * training.images_a_step)
        try:
            bounds = [float(trainer.take_step()) for _ in range(steps)]
        except NonFiniteError:
            continue
        last = bounds[-max(1, steps // 4) :]
        value = sum(last) / len(last) if judge is None else judge(_vae_of(trainer))
        if math.isfinite(value):
            found[f"{rate:g}"] = round(value, 3)
    if not found:
        raise NonFiniteError(f"rates: expected one of {', '.join(map(str, rates))} to stay finite, found none")
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def curves_of_best_rates(
    training: Training,
    marks: Sequence[int],
    look: Callable[[VAE], Mapping[str, Any]],
    *,
    steps: int,
    judge: Callable[[VAE], float] | None = None,
    count: int = 2,
    folder: Path,
    advance: Advance,
) -> dict[str, Any]:
    """Try the rates, and train with the best ones to the end: the rule's choice, and what it left behind.

    The first iterations are a poor judge, and how many of them are asked decides some comparisons. With the runner-up's
    curve in the record, a comparison can be held to both.

    Parameters
    ----------
    training, steps, judge
        As for :func:`try_rates`.
    marks, look, folder, advance
        As for :func:`learning_curve`.
    count
        Of so many rates there is a curve.

    Returns
    -------
    dict
        ``pilot``, what the trial found; ``rate`` and ``rows`` of the best; and ``others``, each with its ``rate`` and
        ``rows``. Should a number stop being finite, a curve ends there, and ``stopped`` says so.
    """
    pilot = try_rates(training, steps=steps, judge=judge)
    curves: list[dict[str, Any]] = []
    chosen = list(pilot)[:count]
    for number, name in enumerate(chosen):

        def told(part: float, done: int = number) -> None:
            advance((done + part) / len(chosen))

        own = replace(training, config=replace(training.config, learning_rate=float(name)))
        place = folder / f"rate-{name}"
        curve: dict[str, Any] = {"rate": float(name)}
        try:
            _, curve["rows"] = learning_curve(own, marks, look, folder=place, advance=told)
        except NonFiniteError as error:
            curve["stopped"], curve["rows"] = str(error).partition(";")[0], stored_rows(place)
        curves.append(curve)
    return {"pilot": pilot, **curves[0], "others": curves[1:]}


def _is_finite(value: Any) -> bool:
    return all(map(math.isfinite, value if isinstance(value, list) else [value]))


def _vae_of(trainer: Trainer | MonteCarloEM) -> VAE:
    model = trainer.state.module.model
    assert isinstance(model, VAE)
    return model


def learning_curve(
    training: Training,
    marks: Sequence[int],
    look: Callable[[VAE], Mapping[str, Any]],
    *,
    folder: Path,
    advance: Advance,
) -> tuple[VAE, list[dict[str, Any]]]:
    """Train, and look at the model after so many images each.

    Parameters
    ----------
    training
        What and how.
    marks
        Numbers of images, rising multiples of ``training.images_a_step``. The last ends the training.
    look
        Measures the model: numbers and lists of numbers by name.
    folder
        Holds the checkpoint; one that is there already is taken up.
    advance
        Is told of progress.

    Returns
    -------
    tuple
        The model, and a row for each mark: ``samples``, ``seconds`` of training so far, and what ``look`` found.

    Raises
    ------
    NonFiniteError
        If the bound, a weight or what ``look`` found stops being a number. :func:`stored_rows` are those before.
    TrainingInterrupted
        After Ctrl-C, with the state saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trainer, size = training.trainer(marks[-1], folder), training.images_a_step
    state, path = trainer.state, trainer.checkpoint
    vae = _vae_of(trainer)
    assert path is not None
    if path.exists():
        state.read(path)
    with Interruption() as interruption:
        saved = clock = time.perf_counter()
        for mark in marks:
            while state.step * size < mark:
                trainer.take_step()
                now = time.perf_counter()
                state.seconds, clock = state.seconds + now - clock, now
                if interruption.requested or now - saved > _CHECKPOINT_SECONDS:
                    trainer.save()
                    advance(state.step * size / marks[-1])
                    saved = clock = time.perf_counter()
                if interruption.requested:
                    raise TrainingInterrupted(_HOW_TO_GO_ON)
            if all(row["samples"] != mark for row in state.history):
                found = look(vae)
                if bad := [name for name, value in found.items() if not _is_finite(value)]:
                    raise NonFiniteError(
                        f"{bad[0]}: expected a finite number after {mark:,} images, found {found[bad[0]]}"
                    )
                state.history.append({"samples": mark, "seconds": round(state.seconds, 2), **found})
                trainer.save()
                advance(mark / marks[-1])
                saved = time.perf_counter()
            clock = time.perf_counter()
        if interruption.requested:  # during the last look
            raise TrainingInterrupted(_HOW_TO_GO_ON)
    return vae, state.history


def stored_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a curve that was left before its end.

    Parameters
    ----------
    folder
        That of :func:`learning_curve`.
    """
    path = folder / CHECKPOINT
    return list(read_checkpoint(path).header["history"]) if path.exists() else []


def look_at_bound(parts: Mapping[str, Tensor]) -> Callable[[VAE], dict[str, float]]:
    """A look at the bound of fixed images, z sampled, the KL in closed form.

    Parameters
    ----------
    parts
        Images ``(N, D)`` by the name of their split.

    Returns
    -------
    callable
        Takes a VAE, returns ``NAME_elbo``, its standard error ``NAME_error`` over images and draws, and ``NAME_kl``,
        in nats an image.
    """

    def look(vae: VAE) -> dict[str, float]:
        row: dict[str, float] = {}
        for name, x in parts.items():
            # The same noise at every look: two rows differ by the weights alone.
            generator = make_generator(0, "look", name, device=x.device)
            held_out = held_out_elbo(vae, vae, x, generator=generator)
            mean, error = mean_with_error(held_out.elbo.cpu().double())
            row[f"{name}_elbo"], row[f"{name}_error"] = round(float(mean), 4), round(float(error), 4)
            row[f"{name}_kl"] = round(float(held_out.kl.mean()), 4)
        return row

    return look
