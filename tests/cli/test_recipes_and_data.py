"""`reproduce` and `data`: tables, stored files, and sets that are verified."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.asking import Ask
from vae_lib.cli import recipes
from vae_lib.data import DatasetError, dataset_names, load_dataset
from vae_lib.learning import TrainingConfig
from vae_lib.models import configuration


@pytest.fixture
def _short_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(
        recipes.RECIPES["digits"],
        training=TrainingConfig(epochs=2),
        model=configuration("digits", hidden=(8,)),
        likelihood_images=20,
        likelihood_samples=20,
    )
    monkeypatch.setitem(recipes.RECIPES, "digits", short)


def test_recipes_are_listed(ask: Ask) -> None:
    answer = ask("reproduce")
    assert answer.code == 0
    assert all(name in answer.out and recipe.title in answer.out for name, recipe in recipes.RECIPES.items())
    assert ask("reproduce", "--json").facts["recipes"].keys() == recipes.RECIPES.keys()


@pytest.mark.usefixtures("_short_recipe")
def test_a_recipe_leaves_a_record_and_weights(ask: Ask) -> None:
    answer = ask("reproduce", "digits", "--seeds", 4, 5)
    assert (answer.code, answer.err) == (0, "")
    record = json.loads(Path("runs/digits.json").read_text())
    assert record["seeds"] == [4, 5]
    rows = [line.split()[0] for line in answer.out.splitlines() if line[:1].isdigit() or line.startswith("mean")]
    assert rows == ["4", "5", "mean"]
    first = record["results"][0]["test_elbo"]
    digits = max(0, 1 - math.floor(math.log10(first["standard_error"])))  # to the second digit of the error
    assert f"{first['mean']:.{digits}f} ± {first['standard_error']:.{digits}f} " in answer.out
    facts = ask("evaluate", "runs/digits.safetensors", "--images", 20, "--draws", 20, "--json").facts
    assert facts["elbo"]["mean"] == pytest.approx(first["mean"], abs=5e-5)
    there = record["results"][0]["log_p_x"]
    assert facts["log_p_x"]["mean"] == pytest.approx(there["mean"], abs=5e-5)
    assert facts["log_p_x"]["error_of_the_draws"] == pytest.approx(there["error_of_the_draws"], abs=5e-5)


@pytest.mark.usefixtures("_short_recipe")
def test_a_result_is_not_overwritten_unasked(ask: Ask) -> None:
    Path("runs").mkdir()
    Path("runs/digits.json").write_text("precious")
    refused = ask("reproduce", "digits")
    assert (refused.code, refused.out) == (2, "")
    assert "--overwrite" in refused.err
    assert Path("runs/digits.json").read_text() == "precious"
    facts = ask("reproduce", "digits", "--seeds", 0, "--overwrite", "--json").facts
    assert facts["seeds"] == [0]
    assert "history" not in facts["results"][0]
    assert Path("runs/digits.json").read_text() != "precious"


def test_an_interrupted_recipe_says_how_to_go_on(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vae_lib.cli.reproduce.reproduce", stop)
    assert ask("reproduce", "digits") == (130, "", "vae-lib: interrupted; the same command goes on from here\n")


def test_data_sets_are_listed_with_source_and_licence(ask: Ask) -> None:
    answer = ask("data")
    facts = ask("data", "--json").facts
    assert tuple(facts["datasets"]) == dataset_names()
    for name, about in facts["datasets"].items():
        assert name in answer.out
        assert all(about[word] in answer.out for word in ("source", "licence", "split", "citation"))
    assert facts["folder"] in answer.out


@pytest.mark.parametrize("name", ["digits", "sprites"])
def test_what_needs_no_file_says_so(ask: Ask, name: str, tmp_path: Path) -> None:
    load_dataset(name, root=tmp_path / "nothing", download=False)  # it is true
    facts = ask("data", name, "--json").facts
    assert facts["folder"] is None
    assert sum(facts["images"].values()) == sum(len(getattr(load_dataset(name), part)) for part in facts["images"])
    assert "none; " in ask("data", name).out


def test_a_set_that_cannot_be_had_is_a_failure_and_not_bad_input(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise DatasetError("mnist could not be downloaded: expected a mirror, found none")

    for module in ("data", "experiment"):
        monkeypatch.setattr(f"vae_lib.cli.{module}.load_dataset", offline)
    for words in (("data", "mnist"), ("train", "--data", "mnist")):
        answer = ask(*words)
        assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
        assert "could not be downloaded" in answer.err
    assert not Path("runs").exists()
