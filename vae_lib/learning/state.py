"""The state of a training: all that its remaining steps depend on, and how it is stored and taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from vae_lib.learning.checkpoints import CheckpointError, load_weights, read_checkpoint, weights_in, write_checkpoint
from vae_lib.learning.settings import TrainingConfig, make_optimiser
from vae_lib.rng import make_generator

# These may differ when a training goes on: where it ends, and when it is looked at. A rate that falls towards the end
# then falls towards another one.
_FREE = ("epochs", "evaluate_every")


class TrainingState:
    """Weights, optimiser, generator, position and history.

    The order of the images and the learning rate are functions of the step, so nothing of them is here.

    Parameters
    ----------
    module
        Holds the weights.
    config
        The settings.
    device
        Where the module lies.
    steps_per_epoch
        Minibatches in an epoch.
    num_images
        N.
    facts
        What must be the same when the training goes on, beside the settings, as JSON can say it.
    """

    def __init__(
        self,
        module: nn.Module,
        config: TrainingConfig,
        device: torch.device,
        steps_per_epoch: int,
        num_images: int,
        facts: Mapping[str, Any],
    ) -> None:
        self.module, self.config, self.device = module, config, device
        self.optimiser = make_optimiser(config, module, device, num_images)
        self.generator = make_generator(config.seed, "training", device=device)
        self.step, self.seconds = 0, 0.0
        # The bound at each step of the present epoch.
        self.bounds = torch.zeros(steps_per_epoch, dtype=next(module.parameters()).dtype, device=device)
        self.facts = {**facts, "dtype": str(self.bounds.dtype)}
        self.history: list[dict[str, Any]] = []
        # The weights with the highest held-out bound so far.
        self.best: dict[str, Tensor] = {}

    def non_finite(self) -> list[str]:
        """Name the weights, and what the optimiser keeps of them, that are not finite."""
        weights = {f"the weight {name}": value for name, value in self.module.named_parameters()}
        kept = {name: value for name, value in self.tensors().items() if name.startswith("optimiser.")}
        return [name for name, value in (weights | kept).items() if not bool(torch.isfinite(value).all())]

    def write(self, path: Path) -> None:
        """Write a checkpoint.

        Raises
        ------
        CheckpointError
            If the disk does not take it.
        """
        write_checkpoint(path, self.tensors(), self.header())

    def read(self, path: Path) -> None:
        """Take up the state of a checkpoint.

        Raises
        ------
        CheckpointError
            If it is damaged, or of another training.
        """
        tensors, header = read_checkpoint(path)
        if "step" not in header:
            raise CheckpointError(f"{path}: expected the state of a training, found weights alone")
        mine = self.header()
        # What a setting is that the file does not know yet is what it was before there was one.
        theirs = {"config": asdict(TrainingConfig()) | header["config"], "facts": header["facts"]}
        for part in ("config", "facts"):
            for name in sorted(mine[part].keys() | theirs[part].keys()):
                expected, found = theirs[part].get(name), mine[part].get(name)
                if expected != found and name not in _FREE:
                    raise CheckpointError(f"{name}: expected {expected!r} as in {path}, found {found!r}")
        load_weights(path, self.module, weights_in(tensors, best=False))
        self.restore(tensors, header)

    def tensors(self) -> dict[str, Tensor]:
        """What is stored as tensors; they are the state's own, not copies."""
        tensors = {**self.module.state_dict(), **{f"best.{name}": value for name, value in self.best.items()}}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{key}": value for key, value in state.items() if value is not None}
        return tensors | {"generator": self.generator.get_state(), "bounds": self.bounds}

    def header(self) -> dict[str, Any]:
        """What is stored as JSON."""
        header = {
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "config": asdict(self.config),
            "facts": self.facts,
            # Where load_vae looks for the configuration of the model.
            "notes": self.facts.get("notes", {}),
            "device": self.device.type,
            "torch": str(torch.__version__),
        }
        # Through JSON once, so that what is compared is what a file would hold.
        return cast(dict[str, Any], json.loads(json.dumps(header, allow_nan=False)))

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A copy, to return to with :meth:`restore`."""
        return {name: value.clone() for name, value in self.tensors().items()}, self.header()

    def restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Become what :meth:`tensors` and :meth:`header` said."""
        self.module.load_state_dict({name: tensors[name] for name in self.module.state_dict()})
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".", 2)
                states.setdefault(int(number), {})[key] = value.clone()
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": states, "param_groups": groups})
        self.best = {name.removeprefix("best."): tensors[name] for name in tensors if name.startswith("best.")}
        self.step, self.seconds, self.history = header["step"], header["seconds"], list(header["history"])
        self.bounds = tensors["bounds"].to(self.device, copy=True)
        if header["device"] == self.device.type:
            self.generator.set_state(tensors["generator"].cpu())
        else:  # the state of a generator means nothing on another kind of device
            self.generator = make_generator(self.config.seed, "training", self.step, device=self.device)
