"""Stored runs: each record says how it was made, and stored weights give again what the record says of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal

from vae_lib.cli.experiment import fixed_bits, load_splits
from vae_lib.cli.recipes import RECIPES
from vae_lib.estimate import Estimate, mean_with_error
from vae_lib.evaluation import held_out_elbo
from vae_lib.learning import load_vae
from vae_lib.models import VAE
from vae_lib.rng import make_generator

RUNS = Path(__file__).parents[1] / "book/runs"
RECORDS = sorted(RUNS.glob("*.json"))
WEIGHTS = sorted(RUNS.glob("*.safetensors"))
needs_data = pytest.mark.skipif("VAE_LIB_DATA" not in os.environ, reason="set VAE_LIB_DATA to a folder with MNIST")


def record_of(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return record


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_says_how_it_was_made(path: Path) -> None:
    record = record_of(path)
    for key in ("command", "commit", "device", "versions", "seeds", "unit"):
        assert record.get(key), f"{path.name}: no {key}"
    assert len(record["commit"]) == 40


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_weights_are_small_and_of_their_recipe(path: Path) -> None:
    assert path.stat().st_size < 2_000_000
    recipe, settings = RECIPES[path.stem], record_of(path)["settings"]
    vae = load_vae(path)
    assert (vae.data_dim, vae.latent_dim) == (recipe.model.data_dim, recipe.model.latent_dim)
    assert settings["model"] == json.loads(json.dumps(vars(recipe.model)))


def stored(path: Path, count: int) -> tuple[VAE, Tensor]:
    """The stored weights, and every so many-th test image with the bits that the record used."""
    recipe = RECIPES[path.stem]
    vae = load_vae(path, dtype=torch.float32)
    test = fixed_bits(load_splits(recipe.data, recipe.model).test, next(vae.parameters()), "test")
    return vae, test[:: max(1, len(test) // count)]


@needs_data
@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_stored_elbo_is_that_of_the_stored_weights(path: Path) -> None:
    vae, x = stored(path, 2000)
    here = mean_with_error(held_out_elbo(vae, vae, x, generator=make_generator(1)).elbo.double())
    there = record_of(path)["results"][0]["test_elbo"]
    # The record averages over all images, of which these are some: the error here covers the difference.
    assert abs(float(here.value) - there["mean"]) < 5 * float(here.standard_error)


def plain_layers(network: torch.nn.Module, values: Tensor) -> Tensor:
    """Linear layers with tanh between them, by their weights alone."""
    layers = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    for layer in layers[:-1]:
        values = torch.tanh(values @ layer.weight.T + layer.bias)
    return values @ layers[-1].weight.T + layers[-1].bias


def independent_log_p_x(vae: VAE, x: Tensor, draws: int) -> Estimate:
    """Log p(x) by importance sampling with torch.distributions alone, and its error by the delta method."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(7)
        mean, logvar = plain_layers(vae.encoder, x).chunk(2, dim=-1)
        q = Independent(Normal(mean, torch.exp(logvar / 2)), 1)
        prior = Independent(Normal(torch.zeros_like(mean), 1.0), 1)
        log_w = []
        for _ in range(draws):
            z = q.sample()
            log_likelihood = Independent(Bernoulli(logits=plain_layers(vae.decoder, z)), 1).log_prob(x)
            log_w.append((log_likelihood + prior.log_prob(z) - q.log_prob(z)).double())
        values = torch.stack(log_w)
        log_mean = values.logsumexp(0) - torch.tensor(float(draws)).log()
        return Estimate(log_mean, mean_with_error((values - log_mean).exp()).standard_error)


@needs_data
@pytest.mark.parametrize("path", [path for path in WEIGHTS if "mnist" in path.stem], ids=lambda path: path.stem)
def test_stored_log_p_x_agrees_with_an_independent_estimate(path: Path) -> None:
    record = record_of(path)["results"][0]["log_p_x"]
    theirs = torch.tensor([[image["value"], image["standard_error"]] for image in record["first_images"]]).double()
    vae, x = stored(path, record["images"])
    mine = independent_log_p_x(vae, x[: len(theirs)], draws=3000)
    variances = mine.standard_error**2 + theirs[:, 1] ** 2
    # An estimate falls short by about half the square of its error: the two do so by different amounts.
    slack = float((mine.standard_error**2 - theirs[:, 1] ** 2).abs().mean()) / 2.0
    error = float(variances.sum().sqrt()) / len(theirs)
    # An effective sample size of a dozen is 0.3 nats an image; twice that variance, over 20 images, is 0.1.
    assert error < 0.15
    assert abs(float((mine.value - theirs[:, 0]).mean())) < 5.0 * error + slack
