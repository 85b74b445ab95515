"""``train``: a run is a folder that nothing overwrites and from which it can go on."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from vae_lib.cli.experiment import Splits, fixed_bits, load_splits, ready_device
from vae_lib.cli.options import Train
from vae_lib.cli.outcome import Outcome, labelled
from vae_lib.cli.parsing import PROGRAM, BadInput
from vae_lib.cli.plans import Plan, plan_of, plan_to_go_on
from vae_lib.cli.stored import checkpoint_path
from vae_lib.learning import CheckpointError, Run, TrainingInterrupted, load_vae, train
from vae_lib.learning.distributed import World, joined
from vae_lib.models import build
from vae_lib.rng import make_generator


def run(options: Train, words: Sequence[str]) -> Outcome | None:
    """Train, write pictures, and say where all of it lies; of several processes the first one says it."""
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise BadInput("--tensorboard: expected the package tensorboard to be installed, found none")
    plan = plan_of(options) if options.resume is None else plan_to_go_on(options.resume, words)
    device = ready_device(options.device)
    with joined(device) as world:
        splits = load_splits(plan.data, plan.model, progress=False if options.quiet else None)
        vae = build(plan.model, generator=make_generator(plan.training.seed, "weights"), dtype=torch.float32)
        with claimed(options, plan, world) as folder:
            if world.is_writer and not options.quiet and sys.stderr.isatty():
                print(f"training on {device}; the run is {folder}; Ctrl-C saves it and stops", file=sys.stderr)
            try:
                result = train(
                    vae,
                    splits.train,
                    splits.validation,
                    plan.training,
                    device=str(device),
                    folder=folder,
                    resume=options.resume is not None,
                    progress=False if options.quiet or not world.is_writer else None,
                    tensorboard=options.tensorboard,
                    compiled=options.compiled,
                    notes=plan.notes,
                )
            except KeyboardInterrupt as interruption:
                raise _how_to_go_on(interruption, folder) from None
    if not world.is_writer or folder is None:
        return None
    return _outcome(options, plan, splits, result, folder, _paint(plan, splits, result, folder))


@contextlib.contextmanager
def claimed(options: Train, plan: Plan, world: World) -> Iterator[Path | None]:
    """The folder of the run, for the process that writes, and for all where there is something to read.

    A new one is made here and now, so that no two runs can take the same. If nothing comes of it, it goes again.

    Raises
    ------
    BadInput
        If there is something in it.
    CheckpointError
        If it cannot be made.
    """
    if options.resume is not None or not world.is_writer:
        yield options.resume
        return
    if options.folder is None:
        name = "-".join(dict.fromkeys([plan.data, plan.notes["configuration"]]))
        places = (Path("runs") / f"{name}-{number}" for number in itertools.count(1))
        folder = next(place for place in places if _made(place))
    elif not _made(folder := options.folder):
        if not folder.is_dir():
            raise BadInput(f"--folder: expected a new folder, found a file: {folder}")
        if any(folder.iterdir()):
            hint = f"; --resume {shlex.quote(str(folder))} goes on with it" if checkpoint_path(folder).exists() else ""
            raise BadInput(f"--folder: expected a new or an empty folder, found files in {folder}{hint}")
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # which does nothing unless it is empty


def _made(folder: Path) -> bool:
    """Make a folder; False if its place is taken."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        expected = "expected a folder that can be made"
        raise CheckpointError(f"{folder.parent}: {expected}, found: {error.strerror}") from error
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise CheckpointError(f"{folder}: expected a folder that can be made, found: {error.strerror}") from error
    return True


def _how_to_go_on(interruption: KeyboardInterrupt, folder: Path | None) -> KeyboardInterrupt:
    if folder is None or not checkpoint_path(folder).exists():
        return KeyboardInterrupt("interrupted before anything was stored")
    where = str(interruption).partition(";")[0] if isinstance(interruption, TrainingInterrupted) else "interrupted"
    return KeyboardInterrupt(f"{where}; to go on: {PROGRAM} train --resume {shlex.quote(str(folder))}")


def _paint(plan: Plan, splits: Splits, result: Run, folder: Path) -> dict[str, Path]:
    """Pictures of the best weights, and of the way there."""
    from vae_lib.cli.pictures import PER_ROW, Painter, save, training_curve

    assert result.checkpoint is not None
    vae = load_vae(result.checkpoint, dtype=torch.float32)
    painter, like = Painter(vae, plan.model), next(vae.parameters())
    x = fixed_bits(splits.validation, like, "validation")
    pictures = {
        "reconstructions": painter.reconstructions(x[: 2 * PER_ROW]),
        "samples": painter.prior_samples(64, seed=plan.training.seed, draws=False),
    }
    if plan.model.latent_dim == 2:
        pictures["manifold"] = painter.manifold(20)
        if splits.dataset.info.classes:
            pictures["plane"] = painter.plane(x, splits.dataset.validation, splits.dataset.info)
    if len(result.history) > 1:
        pictures["curve"] = training_curve(result.history)
    return {name: save(axes, folder / f"{name}.png") for name, axes in pictures.items()}


def _outcome(
    options: Train, plan: Plan, splits: Splits, result: Run, folder: Path, pictures: dict[str, Path]
) -> Outcome:
    last, best = result.history[-1], max(result.history, key=lambda row: row["validation_elbo"])
    facts = {
        "folder": str(folder),
        "checkpoint": str(result.checkpoint),
        "metrics": str(folder / "metrics.jsonl"),
        "pictures": {name: str(path) for name, path in pictures.items()},
        **last,
        "best": {name: best[name] for name in ("epoch", "validation_elbo", "validation_kl")},
        "unit": "nats an image",
        "data": plan.data,
        "model": plan.notes["model"],
        "training": asdict(plan.training),
    }
    if options.quiet:
        return Outcome(facts, [str(folder)])
    folder_typed = shlex.quote(str(folder))
    rows = [
        (
            "trained",
            f"{plan.data}, {plan.model.latent_dim} latents, to epoch {last['epoch']} in {last['seconds']:.1f} s",
        ),
        ("speed", f"{last['images_per_second']:,.0f} images a second"),
        ("held-out ELBO", f"{last['validation_elbo']:.2f} nats an image, on {len(splits.validation)} images"),
        ("held-out KL", f"{last['validation_kl']:.2f} nats an image"),
        (
            "best ELBO",
            f"{best['validation_elbo']:.2f}, after epoch {best['epoch']}; pictures and evaluate use its weights",
        ),
        ("folder", str(folder)),
        ("checkpoint", str(result.checkpoint)),
        *(("pictures" if number == 0 else "", str(path)) for number, path in enumerate(pictures.values())),
        ("next", f"{PROGRAM} evaluate {folder_typed}"),
        ("", f"{PROGRAM} train --resume {folder_typed} --epochs {2 * plan.training.epochs}"),
    ]
    return Outcome(facts, labelled(rows))
