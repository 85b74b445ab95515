"""``data``: what there is to train on, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vae_lib.cli.experiment import SPLITS, find_data
from vae_lib.cli.options import Data
from vae_lib.cli.outcome import Outcome, labelled
from vae_lib.cli.parsing import PROGRAM
from vae_lib.data import data_folder, dataset_info, dataset_names, load_dataset
from vae_lib.data.dataset import DatasetInfo

# These need no file of their own.
_HERE = {
    "digits": "none; scikit-learn brings it",
    "sprites": "none; it is drawn when asked for",
}


def run(options: Data, words: Sequence[str]) -> Outcome:
    """List them, or load one, which downloads and verifies it."""
    if not options.name:
        infos = [dataset_info(name) for name in dataset_names()]
        lines = [line for info in infos for line in (*labelled([(info.name, info.title), *_rows(info)]), "")]
        lines += [f"Downloads are kept in {data_folder()}; fetch and verify one: {PROGRAM} data mnist"]
        return Outcome({"folder": str(data_folder()), "datasets": {info.name: _facts(info) for info in infos}}, lines)
    info = find_data(options.name)
    dataset = load_dataset(options.name, progress=False if options.quiet else None)
    sizes = {split: len(getattr(dataset, split)) for split in SPLITS}
    place = None if options.name in _HERE else str(data_folder())
    facts = {"name": info.name, **_facts(info), "images": sizes, "folder": place}
    rows = [(info.name, info.title), *_rows(info)]
    rows += [("images", ", ".join(f"{size} {split}" for split, size in sizes.items()) + "; every byte is as expected")]
    rows += [("folder", place or _HERE[options.name])]
    return Outcome(facts, labelled(rows))


def _facts(info: DatasetInfo) -> dict[str, Any]:
    named = {"title": info.title, "image_shape": list(info.image_shape), "value_range": list(info.value_range)}
    return named | {name: getattr(info, name) for name in ("values", "split", "source", "licence", "citation")}


def _rows(info: DatasetInfo) -> list[tuple[str, str]]:
    height, width = info.image_shape
    rows = [("pixels", f"{height} x {width}; {info.values}")]
    return rows + [(name, getattr(info, name)) for name in ("split", "source", "licence", "citation")]
