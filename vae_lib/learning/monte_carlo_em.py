r"""Monte Carlo EM: no recognition model at all, and a Markov chain for every image. A rival of the bound, chapter 6.

.. math:: \text{E: one transition of } z_n \text{ that leaves } p_\theta(z \mid x_n) \text{ as it is}, \qquad
          \text{M: a few steps along } \nabla_\theta \frac1M \sum_{n=1}^M \log p_\theta(x_n, z_n)

As in Kingma and Welling (2014, section 5 and appendix E), a visit to a minibatch is one transition of 10 leapfrog
steps, with a step size tuned to 90 % acceptance, and then five updates of the weights with the z that came out. What
the paper does not say is decided here. Chains begin at draws of the prior, and one for each image is kept from one
visit to the next, so that it warms up while the weights move. The step size, one for all, follows
:math:`\log \varepsilon \leftarrow \log \varepsilon + \tfrac12 (\bar a - 0.9)` with :math:`\bar a` the mean probability
of acceptance of the minibatch (Robbins and Monro, 1951, with a gain that stays, since the posteriors keep moving).

At weights that stay the same the gradients are those of log p(x), as Fisher's identity has it:
:math:`\nabla_\theta \log p_\theta(x) = \mathbb E_{p_\theta(z \mid x)} \nabla_\theta \log p_\theta(x, z)`.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.bounds import log_joint, log_weights
from vae_lib.learning.average_bound import AverageBound
from vae_lib.learning.batches import Images, epoch_order
from vae_lib.learning.checkpoints import CHECKPOINT
from vae_lib.learning.diagnosis import NonFiniteError
from vae_lib.learning.distributed import World, choose_device
from vae_lib.learning.interrupts import Interruption, TrainingInterrupted
from vae_lib.learning.reports import Report
from vae_lib.learning.run import Run
from vae_lib.learning.schedules import rate_factor
from vae_lib.learning.settings import TrainingConfig
from vae_lib.learning.state import TrainingState
from vae_lib.mcmc import hmc
from vae_lib.rng import make_generator

_GAIN = 0.5
_OF_CHAINS = ("chains", "log_step", "acceptances")


@dataclass(frozen=True)
class ChainConfig:
    """The settings of Monte Carlo EM that other trainings do not have; those given here are the paper's.

    Parameters
    ----------
    num_leapfrog
        Leapfrog steps of a transition, of which a visit makes one.
    num_updates
        Updates of the weights in a visit.
    target
        The rate of acceptance to tune the step size to, between 0 and 1.
    step_size
        The first one. The paper names none.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range.
    """

    num_leapfrog: int = 10
    num_updates: int = 5
    target: float = 0.9
    step_size: float = 0.1

    def __post_init__(self) -> None:
        for name in ("num_leapfrog", "num_updates"):
            checks.positive_int(name, getattr(self, name))
        if not 0.0 < self.target < 1.0:
            raise ValueError(f"target: expected a number between 0 and 1, found {self.target!r}")
        if not 0.0 < self.step_size < math.inf:
            raise ValueError(f"step_size: expected a positive number, found {self.step_size!r}")


class ChainState(TrainingState):
    """The state of a training with a chain for every image: that of any training, and what :meth:`begin` is given.

    A step is a visit to a minibatch; ``bounds`` holds log p(x, z) at each visit of the present epoch, and
    ``acceptances`` the rates of acceptance.
    """

    chains: Tensor
    log_step: Tensor
    acceptances: Tensor

    def begin(self, chains: Tensor, step_size: float) -> None:
        """Take up chains ``(N, L)``, and a step size for all of them."""
        self.chains, self.acceptances = chains, torch.zeros_like(self.bounds)
        self.log_step = torch.tensor(math.log(step_size), dtype=chains.dtype, device=chains.device)

    def tensors(self) -> dict[str, Tensor]:
        """What is stored as tensors; they are the state's own, not copies."""
        return super().tensors() | {f"chains.{name}": getattr(self, name) for name in _OF_CHAINS}

    def restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Become what :meth:`tensors` and :meth:`header` said."""
        super().restore(tensors, header)
        for name in _OF_CHAINS:
            setattr(self, name, tensors[f"chains.{name}"].to(self.device, copy=True))


def monte_carlo_em(
    model: Any,
    images: Images,
    config: TrainingConfig | None = None,
    chains: ChainConfig | None = None,
    *,
    device: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    notes: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = 30.0,
) -> Run:
    """Train a model by Monte Carlo EM.

    Parameters
    ----------
    model
        Any :class:`~vae_lib.protocols.LatentVariableModel` with weights, and with log p(x, z) differentiable in z. Its
        weights change, and move to the device. The encoder of a VAE is not asked and stays as it is.
    images
        To learn from. The bits of a dynamic binarisation are drawn at every visit; a chain then follows a posterior
        that is another one each time.
    config
        As for :func:`~vae_lib.learning.train`; an epoch is one visit to each minibatch. ``num_samples`` must be 1.
    chains
        What is special to this method.
    device, folder, resume, progress, notes, checkpoint_seconds
        As for :func:`~vae_lib.learning.train`. The checkpoint holds the chains too.

    Returns
    -------
    Run
        Its history has a row for every ``evaluate_every`` epochs: ``epoch``; ``step``, visits to a minibatch;
        ``samples``, images times visits; ``updated_samples``, images times updates of the weights, five times as many;
        ``log_joint``, the average of log p(x, z) over the epoch, in nats an image, which is no bound on log p(x);
        ``acceptance``, its average; ``step_size``; ``seconds``. The paper's axis counts "training samples evaluated",
        which can mean either count, or that of all evaluations of the model on an image, leapfrog steps included: 16
        for each of ``samples``.

    Raises
    ------
    TypeError, ValueError
        If model, images and settings do not fit together, or the folder holds another training.
    NonFiniteError
        If log p(x, z) stops being a number. What the folder holds is the state before.
    TrainingInterrupted
        After Ctrl-C, with the state saved. It is a :class:`KeyboardInterrupt`.
    """
    trainer = MonteCarloEM(
        model,
        images,
        config if config is not None else TrainingConfig(),
        chains if chains is not None else ChainConfig(),
        device=choose_device(device),
        folder=None if folder is None else Path(folder),
        notes=notes,
        checkpoint_seconds=checkpoint_seconds,
    )
    path = trainer.checkpoint
    if path is not None and path.exists():
        if not resume:
            raise ValueError(f"folder: expected one without a training, found {path}; resume=True goes on with it")
        trainer.state.read(path)
    trainer.run(progress=progress)
    return Run(model, trainer.state.history, path)


class MonteCarloEM:
    """Monte Carlo EM in motion. :func:`monte_carlo_em` makes one and runs it."""

    def __init__(
        self,
        model: Any,
        images: Images,
        config: TrainingConfig,
        chains: ChainConfig,
        *,
        device: torch.device,
        folder: Path | None = None,
        notes: Mapping[str, Any] | None = None,
        checkpoint_seconds: float = 30.0,
    ) -> None:
        if not isinstance(images, Images):
            raise TypeError(f"images: expected vae_lib.learning.Images, found {type(images).__name__}")
        if images.data_dim != model.data_dim:
            raise ValueError(f"images: expected {model.data_dim} pixels, as the model has, found {images.data_dim}")
        if config.num_samples != 1:
            raise ValueError(f"num_samples: expected 1, a chain for each image, found {config.num_samples}")
        if config.batch_size > len(images):
            expected = f"expected at most the number of images, {len(images)}"
            raise ValueError(f"batch_size: {expected}, found {config.batch_size}")
        self.model, self.config, self.chain_config, self.device = model, config, chains, device
        self.images = images.to(device)
        self.steps_per_epoch = len(images) // config.batch_size
        self.total_steps = config.epochs * self.steps_per_epoch
        # A holder of weights, under the names by which load_trained finds them.
        module = AverageBound(model, None, log_weights, 1, World()).to(device)
        facts = {**images.facts(), "bound": "monte_carlo_em", "chains": asdict(chains), "notes": dict(notes or {})}
        self.state = ChainState(module, config, device, self.steps_per_epoch, len(images), facts)
        first = make_generator(config.seed, "chains", device=device)
        z = model.prior(len(images)).sample(1, generator=first)[0]
        checks.shape("prior(N).sample(1)[0]", z, (len(images), model.latent_dim), like=self.state.bounds)
        self.state.begin(z, chains.step_size)
        self.checkpoint = None if folder is None else folder / CHECKPOINT
        self.checkpoint_seconds = checkpoint_seconds
        self._order, self._order_epoch = torch.empty(0), -1

    def take_step(self) -> Tensor:
        """Visit one minibatch: move its chains, then climb; return log p(x, z) between the two, in nats an image."""
        state, settings, rows = self.state, self.chain_config, self._minibatch()
        x = self.images.read(rows, dtype=state.bounds.dtype, generator=state.generator)
        moved = hmc(
            lambda z: log_joint(self.model, x, z),
            state.chains[rows].unsqueeze(0),
            step_size=state.log_step.exp(),
            num_leapfrog=settings.num_leapfrog,
            generator=state.generator,
        )
        value = moved.log_density.mean()
        if not math.isfinite(value.item()):
            where = f"training stopped at step {state.step + 1}"
            raise NonFiniteError(f"{where}: expected finite log p(x, z), found {value.item()}")
        acceptance = moved.acceptance.mean()
        state.chains[rows] = moved.z[0]
        state.log_step = state.log_step + _GAIN * (acceptance - settings.target)
        factor = rate_factor(self.config.schedule, state.step, self.total_steps, self.config.warmup_steps)
        for group in state.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * factor
        for _ in range(settings.num_updates):
            state.optimiser.zero_grad()
            loss = -log_joint(self.model, x, moved.z).mean()
            loss.backward()
            state.optimiser.step()
        state.bounds[state.step % self.steps_per_epoch] = value
        state.acceptances[state.step % self.steps_per_epoch] = acceptance
        state.step += 1
        return value

    def run(self, *, progress: bool | None = None) -> None:
        """Make all visits that are left."""
        state, size = self.state, self.config.batch_size
        folder = None if self.checkpoint is None else self.checkpoint.parent
        report = Report(
            folder,
            state.history,
            progress=progress,
            tensorboard=False,
            total=self.total_steps * size,
            done=state.step * size,
        )
        with contextlib.closing(report), Interruption() as interruption:
            saved = mark = time.perf_counter()
            while state.step < self.total_steps:
                self.take_step()
                if report.advance(size):
                    report.say(log_joint=float(state.bounds[(state.step - 1) % self.steps_per_epoch]))
                state.seconds += time.perf_counter() - mark
                epoch, position = divmod(state.step, self.steps_per_epoch)
                is_done = state.step == self.total_steps
                if position == 0 and (epoch % self.config.evaluate_every == 0 or is_done):
                    state.history.append(self._row(epoch))
                    report.write(state.history[-1])
                if is_done or interruption.requested or time.perf_counter() - saved > self.checkpoint_seconds:
                    self.save()
                    saved = time.perf_counter()
                if interruption.requested and not is_done:
                    kept = f"the state is in {self.checkpoint}, and resume=True goes on from there"
                    where = f"training stopped after step {state.step} of {self.total_steps}"
                    raise TrainingInterrupted(f"{where}; {kept if self.checkpoint else 'nothing was stored'}")
                mark = time.perf_counter()

    def save(self) -> None:
        """Write the state, if it is sound and there is a folder for it.

        Raises
        ------
        NonFiniteError
            If a weight is not finite.
        CheckpointError
            If the disk does not take it.
        """
        if bad := self.state.non_finite():
            where = f"training stopped at step {self.state.step}"
            raise NonFiniteError(f"{where}: expected finite numbers, found others in {bad[0]}")
        if self.checkpoint is not None:
            self.state.write(self.checkpoint)

    def _minibatch(self) -> Tensor:
        """Which images the next visit is to."""
        epoch, position = divmod(self.state.step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            order = epoch_order(len(self.images), seed=self.config.seed, epoch=epoch)
            self._order, self._order_epoch = order.to(self.device), epoch
        size = self.config.batch_size
        return self._order[position * size : (position + 1) * size]

    def _row(self, epoch: int) -> dict[str, Any]:
        state, samples = self.state, self.state.step * self.config.batch_size
        return {
            "epoch": epoch,
            "step": state.step,
            "samples": samples,
            "updated_samples": samples * self.chain_config.num_updates,
            "log_joint": float(state.bounds.mean()),
            "acceptance": float(state.acceptances.mean()),
            "step_size": float(state.log_step.exp()),
            "seconds": round(state.seconds, 3),
        }
