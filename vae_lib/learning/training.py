r"""The trainer: the AEVB algorithm of Kingma and Welling (2014, algorithm 1), as a reader can rely on it.

A step is four lines of :meth:`Trainer.take_step`: read a minibatch, draw z, average a bound, climb. All else is what
makes a training something to trust: held-out data, checkpoints from which it goes on as if nothing had happened, an
end with a reason when a number stops being one, and several processes that compute what one would. Chapter 5.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.divergences import kl
from vae_lib.evaluation.held_out import held_out_elbo
from vae_lib.evaluation.passes import evaluating
from vae_lib.learning.average_bound import AverageBound, Bound, ScheduledBound, SurrogateObjective, name_of
from vae_lib.learning.batches import Images, epoch_order
from vae_lib.learning.checkpoints import CHECKPOINT
from vae_lib.learning.compiled import CompiledBound
from vae_lib.learning.diagnosis import NonFiniteError, first_non_finite
from vae_lib.learning.distributed import choose_device, current_world
from vae_lib.learning.interrupts import Interruption, TrainingInterrupted
from vae_lib.learning.reports import METRICS, Report
from vae_lib.learning.run import Run
from vae_lib.learning.schedules import rate_factor
from vae_lib.learning.settings import TrainingConfig
from vae_lib.learning.state import TrainingState
from vae_lib.protocols import ApproximatePosterior
from vae_lib.rng import make_generator


def train(
    model: Any,
    images: Images,
    validation: Images | None = None,
    config: TrainingConfig | None = None,
    *,
    encoder: ApproximatePosterior | None = None,
    bound: Bound | ScheduledBound | SurrogateObjective = elbo_with_analytic_kl,
    device: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    tensorboard: bool = False,
    compiled: bool = False,
    notes: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = 30.0,
    check_every: int | None = None,
) -> Run:
    """Train a model, and its encoder, by raising a bound.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel`; a :class:`~vae_lib.models.VAE` is its own encoder. Its
        weights change, and move to the device. Its mode, for training or evaluation, stays as it is.
    images, validation
        To learn from, and to look at. Without the second no held-out bound is reported.
    config
        Settings; those of :class:`~vae_lib.learning.settings.TrainingConfig` if not given.
    encoder
        Density q(z | x), where the model is not its own. Model and encoder are modules, or hold modules as attributes:
        weights that hide elsewhere, as inside a lambda, are not found and not trained.
    bound
        Takes model, q ``(B)``, x ``(B, D)`` and draws z ``(S, B, L)``, and returns values whose average is raised. The
        default, :func:`~vae_lib.bounds.elbo_with_analytic_kl`, needs a KL in closed form;
        :func:`~vae_lib.bounds.log_weights` takes any prior and q; or write your own. One that changes from step to step
        is a :class:`~vae_lib.learning.average_bound.ScheduledBound`. What needs more than draws from q
        is a :class:`~vae_lib.learning.average_bound.SurrogateObjective`: :class:`~vae_lib.learning.WakeSleep` is one.
        Held-out numbers, and the choice of the best weights, are by the ELBO whatever the bound.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. If not given: CUDA, else MPS, else the CPU.
    folder
        Where ``checkpoint.safetensors`` and ``metrics.jsonl`` go. Without one nothing is written.
    resume
        Go on from the checkpoint in the folder, if there is one. On a CPU, with as many threads, the result is to the
        last bit that of a training which was never interrupted. A model with randomness of its own, as of dropout,
        breaks this promise.
    progress
        Whether to show a bar. If not given: where stderr is a terminal.
    tensorboard
        Whether to write TensorBoard's files to the folder too.
    compiled
        Compile the bound with ``torch.compile``; on a GPU with captured graphs. It takes a while at first, and asks for
        one process and a normal q.
    notes
        For the header of the checkpoint, as JSON can say it. With ``model`` as the dictionary of a
        :class:`~vae_lib.models.VAEConfig`, ``load_vae`` reads the checkpoint.
    checkpoint_seconds
        Time between two checkpoints. There is always one at the start and one at the end.
    check_every
        Steps between two checks that the bound is finite. If not given: every step on a CPU, where it costs nothing,
        and every 50 elsewhere, where it makes the device wait.

    Raises
    ------
    TypeError, ValueError
        If model, images and settings do not fit together, or the folder holds another training.
    NonFiniteError
        If the bound stops being a number. The message names step, layer and last checkpoint.
    TrainingInterrupted
        After Ctrl-C, with the state saved. It is a :class:`KeyboardInterrupt`.
    """
    config = config if config is not None else TrainingConfig()
    if not isinstance(config, TrainingConfig):
        raise TypeError(f"config: expected a TrainingConfig, found {type(config).__name__}")
    chosen = choose_device(device)
    if check_every is None:
        check_every = 1 if chosen.type == "cpu" else 50
    trainer = Trainer(
        model,
        images,
        validation,
        config,
        encoder=encoder,
        bound=bound,
        device=chosen,
        folder=None if folder is None else Path(folder),
        notes=notes,
        checkpoint_seconds=checkpoint_seconds,
        check_every=check_every,
    )
    path = trainer.checkpoint
    # Asked of all processes, so that none finds what another has just begun to write.
    (exists,) = trainer.world.any([path is not None and path.exists()], chosen)
    if exists and path is not None:
        if not resume:
            raise ValueError(f"folder: expected one without a training, found {path}; resume=True goes on with it")
        trainer.state.read(path)
    if compiled:
        trainer.average_bound = CompiledBound(trainer.module, chosen)
    trainer.run(progress=progress, tensorboard=tensorboard)
    return Run(model, trainer.state.history, path)


class Trainer:
    """A training in motion. :func:`train` makes one and runs it."""

    def __init__(
        self,
        model: Any,
        images: Images,
        validation: Images | None,
        config: TrainingConfig,
        *,
        encoder: ApproximatePosterior | None = None,
        bound: Bound | ScheduledBound | SurrogateObjective = elbo_with_analytic_kl,
        device: torch.device,
        folder: Path | None = None,
        notes: Mapping[str, Any] | None = None,
        checkpoint_seconds: float = 30.0,
        check_every: int = 1,
    ) -> None:
        self.world = current_world()
        for name, data in (("images", images), ("validation", validation)):
            if data is not None and not isinstance(data, Images):
                raise TypeError(f"{name}: expected vae_lib.learning.Images, found {type(data).__name__}")
            if data is not None and data.data_dim != model.data_dim:
                raise ValueError(f"{name}: expected {model.data_dim} pixels, as the model has, found {data.data_dim}")
        if encoder is None and not callable(model):
            raise TypeError(f"encoder: expected one, since {type(model).__name__} is not its own, found none")
        checks.positive_int("check_every", check_every)
        size = config.batch_size
        if size > len(images):
            raise ValueError(f"batch_size: expected at most the number of images, {len(images)}, found {size}")
        if size % self.world.size:
            raise ValueError(f"batch_size: expected a multiple of the {self.world.size} processes, found {size}")
        self.config, self.device = config, device
        self.images, self.validation = images.to(device), None if validation is None else validation.to(device)
        self.module = AverageBound(model, encoder, bound, config.num_samples, self.world).to(device)
        self.average_bound: Callable[[Tensor, Generator], Tensor] = self.world.wrap(self.module)
        self.steps_per_epoch = len(images) // size
        self.total_steps = config.epochs * self.steps_per_epoch
        facts = {**images.facts(), "bound": name_of(bound), "notes": dict(notes or {})}
        self.state = TrainingState(self.module, config, device, self.steps_per_epoch, len(images), facts)
        self.dtype = self.state.bounds.dtype
        self.checkpoint = None if folder is None else folder / CHECKPOINT
        self.checkpoint_seconds, self.check_every = checkpoint_seconds, check_every
        self._order, self._order_epoch = torch.empty(0), -1

    def take_step(self) -> Tensor:
        """Climb once; return the bound before it, in nats an image."""
        state, (rows, part) = self.state, self._minibatch()
        x = self.images.read(rows, dtype=self.dtype, generator=state.generator, part=part)
        self.module.step = state.step
        bound = self.average_bound(x, state.generator)
        if self.check_every == 1 and not math.isfinite(bound.item()):
            raise self._not_finite(x)
        for group in state.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        state.optimiser.zero_grad()
        loss = -bound
        loss.backward()
        state.optimiser.step()
        state.bounds[state.step % self.steps_per_epoch] = bound.detach()
        state.step += 1
        return bound.detach()

    def run(self, *, progress: bool | None = None, tensorboard: bool = False) -> None:
        """Take all steps that are left."""
        state, writes, size = self.state, self.world.is_writer, self.config.batch_size
        report = Report(
            self.checkpoint.parent if self.checkpoint is not None and writes else None,
            state.history,
            progress=progress if writes else False,
            tensorboard=tensorboard,
            total=self.total_steps * size,
            done=state.step * size,
        )
        with contextlib.closing(report), self._nothing_left_of_nothing(), Interruption() as interruption:
            self.save()
            good = state.snapshot() if self.check_every > 1 else None
            saved = mark = time.perf_counter()
            while state.step < self.total_steps:
                self.take_step()
                if report.advance(size):
                    report.say(**self._glance())
                ends_epoch = state.step % self.steps_per_epoch == 0
                if state.step % self.check_every and not ends_epoch:
                    continue
                if good is not None:
                    # Asked of all processes: none goes back alone.
                    (is_lost,) = self.world.any([not bool(torch.isfinite(state.bounds).all())], self.device)
                    if is_lost:
                        # Back to the last good state; step by step from there, the layer can be named.
                        state.restore(*good)
                        good, self.check_every = None, 1
                        continue
                    good = state.snapshot()
                # What follows is not training, and its time is not counted.
                state.seconds += time.perf_counter() - mark
                if ends_epoch:
                    self._look(report)
                is_due = time.perf_counter() - saved > self.checkpoint_seconds
                is_stopped, is_due = self.world.any([interruption.requested, is_due], self.device)
                is_done = state.step == self.total_steps
                if is_stopped or is_due or is_done:
                    self.save()
                    saved = time.perf_counter()
                if is_stopped and not is_done:
                    raise TrainingInterrupted(self._how_to_go_on())
                mark = time.perf_counter()

    @contextlib.contextmanager
    def _nothing_left_of_nothing(self) -> Iterator[None]:
        """If not even one step was taken, remove what was written: it would only stand in the way."""
        try:
            yield
        except BaseException:
            if self.state.step == 0 and self.checkpoint is not None and self.world.is_writer:
                for path in (self.checkpoint, self.checkpoint.with_name(METRICS)):
                    path.unlink(missing_ok=True)
            raise

    def save(self) -> None:
        """Write the state, if it is sound and there is a folder for it."""
        self.state.bounds = self.world.mean(self.state.bounds)
        if bad := self.state.non_finite():
            raise NonFiniteError(self._message(bad[0]))
        if self.checkpoint is not None and self.world.is_writer:
            self.state.write(self.checkpoint)

    def _minibatch(self) -> tuple[Tensor, slice]:
        """Which images the next step is to be taken on, and which of them are this process's."""
        epoch, position = divmod(self.state.step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            order = epoch_order(len(self.images), seed=self.config.seed, epoch=epoch)
            self._order, self._order_epoch = order.to(self.device), epoch
        size = self.config.batch_size
        return self._order[position * size : (position + 1) * size], self.world.part(size)

    def _learning_rate(self) -> float:
        config = self.config
        factor = rate_factor(config.schedule, self.state.step, self.total_steps, config.warmup_steps)
        return config.learning_rate * factor

    def _look(self, report: Report) -> None:
        """At the end of an epoch look at the held-out images, and report."""
        state, bounds = self.state, self.world.mean(self.state.bounds)
        if not self.world.agree(state.generator.get_state(), self.device):
            raise TypeError("q: expected noise that does not depend on parameters, found processes that drew apart")
        epoch, samples = state.step // self.steps_per_epoch, state.step * self.config.batch_size
        is_last = state.step == self.total_steps
        if not self.world.is_writer or (epoch % self.config.evaluate_every and not is_last):
            return
        row: dict[str, Any] = {"epoch": epoch, "step": state.step, "samples": samples}
        row["train_elbo"] = float(bounds.mean())
        if self.validation is not None:
            # The same bits and the same noise at every look: two rows differ by the weights alone.
            generator = make_generator(self.config.seed, "validation", device=self.device)
            x = self.validation.read_all(dtype=self.dtype, generator=generator)
            held_out = held_out_elbo(self.module.model, self.module.posterior, x, generator=generator)
            row["validation_elbo"], row["validation_kl"] = float(held_out.elbo.mean()), float(held_out.kl.mean())
            if not math.isfinite(row["validation_elbo"]):
                raise NonFiniteError(self._message("the held-out bound"))
            if all(row["validation_elbo"] > earlier.get("validation_elbo", -math.inf) for earlier in state.history):
                state.best = {name: value.clone() for name, value in self.module.state_dict().items()}
        row["seconds"], row["images_per_second"] = round(state.seconds, 3), round(samples / state.seconds, 1)
        state.history.append(row)
        report.write(row)

    def _glance(self) -> dict[str, float]:
        """Numbers for the bar, from the weights as they are; the generator does not move."""
        state = self.state
        position = (state.step - 1) % self.steps_per_epoch
        numbers = {"ELBO": float(state.bounds[: position + 1].mean())}
        with evaluating(self.module), contextlib.suppress(NotImplementedError):
            rows = self._order[position * self.config.batch_size :][: self.config.batch_size]
            x = self.images.read(rows, dtype=self.dtype, generator=make_generator(0, device=self.device))
            numbers["KL"] = float(kl(self.module.posterior(x), self.module.model.prior(len(x))).mean())
        if state.history and "validation_elbo" in state.history[-1]:
            numbers["held-out"] = state.history[-1]["validation_elbo"]
        return numbers

    def _not_finite(self, x: Tensor) -> NonFiniteError:
        generator = make_generator(self.config.seed, "diagnosis", device=self.device)
        return NonFiniteError(self._message(first_non_finite(self.module, lambda: self.module(x, generator))))

    def _message(self, place: str) -> str:
        step = self.state.step + 1
        kept = f"the last good state is in {self.checkpoint}"
        if self.checkpoint is None or self.state.step == 0:
            kept = "nothing was stored"
        return f"training stopped at step {step}: expected finite numbers, found others in {place}; {kept}"

    def _how_to_go_on(self) -> str:
        where = f"training stopped after step {self.state.step} of {self.total_steps}"
        if self.checkpoint is None:
            return f"{where}; nothing was stored, for want of a folder"
        return f"{where}; the state is in {self.checkpoint}, and resume=True goes on from there"
