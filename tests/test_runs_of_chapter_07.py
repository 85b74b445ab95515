"""The controls of chapter 7: what their scripts measure where the answer is known, and their records beside others."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from vae_lib.data import load_dataset, render_sprites, sprite_factors
from vae_lib.evaluation import majority_vote_score, mutual_information_gap
from vae_lib.learning import load_vae
from vae_lib.rng import make_generator

RUNS = Path(__file__).parents[1] / "book/runs"


def script(name: str) -> ModuleType:
    """The module of a run."""
    spec = importlib.util.spec_from_file_location(f"runs_{name}", RUNS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def results(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8"))["results"]
    return found


@pytest.fixture(scope="module")
def controls() -> ModuleType:
    return script("latent_controls")


@pytest.fixture(scope="module")
def data(controls: ModuleType) -> tuple[Any, Any]:
    digits = load_dataset("digits")
    return controls.split(digits.train), controls.split(digits.test)


def picture(*inked: tuple[int, int]) -> Tensor:
    """An image with ink at some rows and columns."""
    image = torch.zeros(8, 8, dtype=torch.float64)
    for row, column in inked:
        image[row, column] = 16.0
    return image.reshape(1, 64)


def test_attributes_of_strokes(controls: ModuleType) -> None:
    ink, slant, width = (controls.ATTRIBUTES[name] for name in ("ink", "slant", "width"))
    upright = picture(*((row, 3) for row in range(8)))
    slash = picture(*((7 - step, step) for step in range(8)))
    two = picture((2, 1), (2, 5), (6, 1), (6, 5))
    assert [float(slant(x)) for x in (upright, slash, slash.flip(1))] == [0, 1, 1]  # also upside down
    assert float(slant(slash.reshape(8, 8).flip(1).reshape(1, 64))) == -1  # leans to the left
    assert float(ink(upright)) == 1 / 8
    assert float(width(upright)) == 0
    assert float(width(two)) == 2


def test_a_linear_decoder_makes_of_a_walk_a_cross_fade_and_of_ink_all_that_was_asked(
    controls: ModuleType, data: tuple[Any, Any]
) -> None:
    mixing = torch.linalg.qr(torch.randn(64, 64, generator=make_generator(1), dtype=torch.float64))[0]
    found = controls.measure_space(data[0].x @ mixing, data[1].x @ mixing, lambda z: z @ mixing.T, data)
    for walk in (found["walk"], found["walk within a class"]):
        assert walk["middle of the codes"] == pytest.approx(walk["mean of the ends"], rel=1e-12)
    assert found["arithmetic"]["ink"]["of what was asked"] == pytest.approx(1.0, rel=1e-10)
    # A rotation keeps neighbours, so the codes know as much of the classes as the images do.
    assert found["class of the neighbours"] == controls.on_pixels(data)["class of the neighbours"]


def test_walks_within_a_class_are_within_a_class(controls: ModuleType, data: tuple[Any, Any]) -> None:
    first, second = controls.same_class(data[1].labels)
    assert torch.equal(data[1].labels[first], data[1].labels[second])
    assert len(first) == len(data[1].labels) - 10
    assert bool((first != second).all())


def test_the_stored_digits_are_the_controls_at_weight_one(controls: ModuleType, data: tuple[Any, Any]) -> None:
    """The same training, but for rounding to 16 bits: a part in two thousand of each weight."""
    vae = load_vae(RUNS / "digits.safetensors", dtype=torch.float64)
    (record,) = (r for r in results("latent_controls") if (r["beta"], r["seed"]) == (1.0, 0))
    found = controls.measure(vae, 1.0, 0, data)
    for name in ("walk", "decoded draws"):
        assert found[name] == pytest.approx(record[name], abs=2e-3)
    assert found["test"] == pytest.approx(record["test"], abs=0.05)


def test_collapse_was_trained_again_and_came_out_the_same() -> None:
    first = {(r["bound"], r["seed"]): r for r in results("collapse") if r["model"] == "four layers, Glorot"}
    again = results("collapse_training")
    assert {(r["bound"], r["seed"]) for r in again} == set(first)
    for unit in again:
        assert unit["test ELBO"] == pytest.approx(first[unit["bound"], unit["seed"]]["test ELBO"], abs=1e-3)


def test_principal_components_by_another_program() -> None:
    module = script("sprites_baselines")
    x, whole = (
        module.bits(values, name).double().numpy()
        for values, name in ((load_dataset("sprites").train.x, "train"), (render_sprites(sprite_factors()), "all"))
    )
    pca = PCA(10, svd_solver="covariance_eigh").fit(x)
    size = len(x) / (len(x) - 1)  # its variances divide by one less
    variances = pca.explained_variance_ / size
    noise = (x.var(0).sum() - variances.sum()) / (x.shape[1] - 10)
    mu = torch.from_numpy(pca.transform(whole) * np.sqrt(variances - noise) / variances)
    std = torch.from_numpy(np.sqrt(noise / variances)).expand_as(mu)
    _, ours, noise_of_ours = module.components()
    torch.testing.assert_close(ours.abs(), mu.abs(), rtol=0, atol=1e-6)  # the signs of axes are free
    torch.testing.assert_close(noise_of_ours, std, rtol=1e-8, atol=0)
    (record,) = (r for r in results("sprites_baselines") if r["code"] == module.COMPONENTS)
    gap = mutual_information_gap(mu, std, sprite_factors())
    votes = majority_vote_score(mu, std, sprite_factors(), generator=make_generator(0, "votes"))
    assert gap.mean == pytest.approx(record["MIG"], abs=1e-4)
    assert votes.score == pytest.approx(record["majority votes"], abs=1e-3)
    assert torch.allclose(gap.information, torch.tensor(record["information"], dtype=torch.float64), atol=1e-3)


def test_untrained_networks_are_told_from_noise_by_their_means_alone() -> None:
    """An untrained q has a standard deviation near 1, so its latents know nothing; no latent can be voted for."""
    for unit in results("sprites_baselines"):
        largest = max(max(row) for row in unit["information"])
        if unit["code"] == "untrained network":
            assert largest < 0.01
            assert not any(unit["latents voted for"])
            assert unit["majority votes"] == 1 / 5
        else:
            assert largest > 0.05
            assert largest < math.log(12)
