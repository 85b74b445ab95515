"""``reproduce``: a recipe of the book, run again; figures and tables of papers are in ``figure``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from vae_lib.cli import figure
from vae_lib.cli.experiment import ready_device
from vae_lib.cli.options import Reproduce
from vae_lib.cli.outcome import Outcome, labelled, with_error
from vae_lib.cli.parsing import PROGRAM, BadInput
from vae_lib.cli.recipes import RECIPES, Recipe, reproduce
from vae_lib.estimate import mean_with_error
from vae_lib.experiments import EXPERIMENTS


def run(options: Reproduce, words: Sequence[str]) -> Outcome:
    """Run it and show its table; without a name, list what there is."""
    if not options.name:
        return _list()
    if options.name not in RECIPES and options.name not in EXPERIMENTS:
        expected = ", ".join([*EXPERIMENTS, *RECIPES])
        raise BadInput(f"NAME: expected one of {expected}, found {options.name!r}")
    if any(seed < 0 for seed in options.seeds) or len(set(options.seeds)) < len(options.seeds):
        found = " ".join(map(str, options.seeds))
        raise BadInput(f"--seeds: expected different integers of at least 0, found {found}")
    if options.jobs is not None and options.jobs < 1:
        raise BadInput(f"--jobs: expected a positive integer, found {options.jobs}")
    if options.name in EXPERIMENTS:
        return figure.run(options, words)
    for name in ("scale", "only", "plan", "draw", "stand_in"):
        if getattr(options, name):
            raise BadInput(f"--{name.replace('_', '-')}: expected a figure or table, found the recipe {options.name}")
    return _run_recipe(options)


def _run_recipe(options: Reproduce) -> Outcome:
    target = options.out / f"{options.name}.json"
    if target.exists() and not options.overwrite:
        raise BadInput(f"--out: expected a folder without {target.name}, found {target}; --overwrite replaces it")
    ready_device(options.device)
    try:
        path = reproduce(
            options.name,
            seeds=options.seeds or (0, 1, 2),
            out=options.out,
            device=options.device,
            jobs=options.jobs or 1,
            progress=False if options.quiet else None,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on from here") from None
    record = json.loads(path.read_text(encoding="utf-8"))
    results = [{key: value for key, value in result.items() if key != "history"} for result in record["results"]]
    weights = path.with_suffix(".safetensors")
    facts = {**record, "results": results, "file": str(path), "weights": str(weights)}
    lines = [f"{RECIPES[options.name].title}; {record['device']}", "", *_table(results), ""]
    lines += labelled([("results", str(path)), ("weights", str(weights)), ("next", f"{PROGRAM} evaluate {weights}")])
    return Outcome(facts, lines)


def _list() -> Outcome:
    recipes = {name: {"title": recipe.title, "data": recipe.data} for name, recipe in RECIPES.items()}
    figures = {name: {"title": experiment.title} for name, experiment in EXPERIMENTS.items()}
    lines = [f"{name:<14}{experiment.title}" for name, experiment in EXPERIMENTS.items()]
    lines += [f"{name:<14}{_words(recipe)}" for name, recipe in RECIPES.items()]
    first = next(iter(EXPERIMENTS))
    return Outcome({"figures": figures, "recipes": recipes}, [*lines, "", f"Run one: {PROGRAM} reproduce {first}"])


def _words(recipe: Recipe) -> str:
    training = recipe.training
    return f"{recipe.title}; {training.epochs} epochs, batches of {training.batch_size}"


_COLUMNS = {"test_elbo": "test ELBO", "test_kl": "test KL", "log_p_x": "log p(x)"}


def _table(results: list[dict[str, Any]]) -> list[str]:
    """Nats an image with their errors, one row for each seed, and the mean with that of the seeds."""
    rows = [["seed", *_COLUMNS.values()]]
    for result in results:
        cells = [result[name] for name in _COLUMNS]
        rows.append([str(result["seed"]), *(with_error(cell["mean"], cell["standard_error"]) for cell in cells)])
    if len(results) > 1:
        means = [torch.tensor([result[name]["mean"] for result in results], dtype=torch.float64) for name in _COLUMNS]
        rows.append(["mean", *(with_error(*map(float, mean_with_error(values))) for values in means)])
    return ["".join(f"{cell:<18}" for cell in row).rstrip() for row in rows] + ["", _footnote(results)]


def _footnote(results: list[dict[str, Any]]) -> str:
    some = results[0]["log_p_x"]
    seeds = "; of the mean, by the choice of seeds" if len(results) > 1 else ""
    kind = f"log p(x) of {some['images']} images with {some['samples']} draws each"
    return f"nats an image; {kind}; ± by the choice of images{seeds}"
