"""``train``: a run is a folder that nothing overwrites and from which it can go on."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from vae_lib.cli.experiment import Splits, fixed_bits, load_splits, model_facts, model_words, reading_of, ready_device
from vae_lib.cli.options import Train
from vae_lib.cli.outcome import Outcome, labelled
from vae_lib.cli.parsing import PROGRAM, BadInput
from vae_lib.cli.plans import Plan, plan_of, plan_to_go_on, resumed_folder
from vae_lib.cli.stored import checkpoint_path
from vae_lib.learning import CheckpointError, Run, TrainingInterrupted, load_vae, train
from vae_lib.learning.distributed import World, joined
from vae_lib.models import build
from vae_lib.rng import make_generator


def run(options: Train, words: Sequence[str]) -> Outcome | None:
    """Train, write pictures, and say where all of it lies; of several processes the first one says it."""
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise BadInput("--tensorboard: expected the package tensorboard to be installed, found none")
    if options.resume is not None:
        options = replace(options, resume=resumed_folder(options.resume))
    plan = plan_of(options) if options.resume is None else plan_to_go_on(options.resume, words)
    device = ready_device(options.device)
    if options.resume is not None and plan.epochs_done == plan.training.epochs:
        return _nothing_to_do(options, plan, options.resume) if os.environ.get("RANK", "0") == "0" else None
    with joined(device) as world:
        splits = load_splits(plan.data, plan.model, progress=False if options.quiet else None)
        if (found := plan.training.batch_size) > (most := len(splits.train)):
            raise BadInput(f"--batch-size: expected at most the number of images, {most}, found {found}")
        vae = build(plan.model, generator=make_generator(plan.training.seed, "weights"), dtype=torch.float32)
        with claimed(options, plan, world) as folder:
            if world.is_writer and folder is not None:
                _announce(options, device, folder)
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
    assert result.checkpoint is not None
    pictures = _paint(plan, splits, result.checkpoint, result.history)
    return _outcome(options, plan, splits, result, folder, pictures)


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


def _announce(options: Train, device: torch.device, folder: Path) -> None:
    """Say what begins and where; in a log too, but not to a program."""
    if options.quiet or (options.json and not sys.stderr.isatty()):
        return
    places = f"the run is {folder}; numbers go to {folder / 'metrics.jsonl'}"
    print(f"training on {device}; {places}; Ctrl-C saves it and stops", file=sys.stderr, flush=True)


def _nothing_to_do(options: Train, plan: Plan, folder: Path) -> Outcome:
    """The answer for a run that has all its epochs; pictures are drawn if an interruption prevented that."""
    epoch, checkpoint = plan.training.epochs, checkpoint_path(folder)
    drawn = bool(plan.history) and not (folder / "samples.png").exists()
    if drawn:
        splits = load_splits(plan.data, plan.model, progress=False if options.quiet else None)
        _paint(plan, splits, checkpoint, plan.history)
    facts = {"folder": str(folder), "checkpoint": str(checkpoint), "epoch": epoch, "nothing_to_do": True}
    words = "; its pictures were missing and are drawn" if drawn else ""
    line = f"nothing to do: {folder} is at epoch {epoch}; --epochs may be raised{words}"
    return Outcome(facts, [str(folder) if options.quiet else line])


def _paint(plan: Plan, splits: Splits, checkpoint: Path, history: Sequence[dict[str, Any]]) -> dict[str, Path]:
    """Pictures of the best weights, and of the way there."""
    from vae_lib.cli.pictures import PER_ROW, Painter, save, training_curve

    vae = load_vae(checkpoint, dtype=torch.float32)
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
    if len(history) > 1:
        pictures["curve"] = training_curve(history)
    return {name: save(axes, checkpoint.with_name(f"{name}.png")) for name, axes in pictures.items()}


def _outcome(
    options: Train, plan: Plan, splits: Splits, result: Run, folder: Path, pictures: dict[str, Path]
) -> Outcome:
    last, best = result.history[-1], max(result.history, key=lambda row: row["validation_elbo"])
    reading, name = reading_of(splits.dataset.info, plan.model), plan.notes.get("configuration")
    facts = {
        "folder": str(folder),
        "checkpoint": str(result.checkpoint),
        "metrics": str(folder / "metrics.jsonl"),
        "pictures": {name: str(path) for name, path in pictures.items()},
        **last,
        "best": {name: best[name] for name in ("epoch", "validation_elbo", "validation_kl")},
        "unit": "nats an image",
        "data": plan.data,
        **model_facts(name, plan.model, reading),
        "model": plan.notes["model"],
        "training": asdict(plan.training),
    }
    if options.quiet:
        return Outcome(facts, [str(folder)])
    typed = shlex.quote(str(folder))
    further = ("", f"{PROGRAM} train --resume {typed} --epochs {2 * last['epoch']}")
    if best["epoch"] <= 0.9 * last["epoch"]:
        further = ("", f"the validation ELBO has not risen since epoch {best['epoch']}")
    rows = [
        (
            "trained",
            f"{plan.data}, {plan.model.latent_dim} latents, to epoch {last['epoch']} in {last['seconds']:.1f} s",
        ),
        ("model", model_words(name, plan.model, reading)),
        ("speed", f"{last['images_per_second']:,.0f} images a second"),
        ("validation ELBO", f"{last['validation_elbo']:.2f} nats an image, on {len(splits.validation)} images"),
        ("validation KL", f"{last['validation_kl']:.2f} nats an image"),
        (
            "best ELBO",
            f"{best['validation_elbo']:.2f}, after epoch {best['epoch']}; pictures and evaluate use its weights",
        ),
        ("folder", str(folder)),
        ("checkpoint", str(result.checkpoint)),
        *(("pictures" if number == 0 else "", str(path)) for number, path in enumerate(pictures.values())),
        ("next", f"{PROGRAM} evaluate {typed}"),
        further,
    ]
    return Outcome(facts, labelled(rows))
