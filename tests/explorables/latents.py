"""VAEs, assets and pixels for the tests of the latent explorer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from playwright.sync_api import Page

from vae_lib.data import load_dataset
from vae_lib.explorables import latent_explorer
from vae_lib.explorables.latent_asset import Pictures
from vae_lib.learning import load_vae
from vae_lib.models import VAE, VAEConfig, build
from vae_lib.rng import make_generator

Show = Callable[[Page, str], None]
Decode = Callable[[torch.Tensor], torch.Tensor]
NAME = "latent_explorer"
RUNS = Path(__file__).parents[2] / "book" / "runs"


def made_up(config: VAEConfig, count: int = 40, seed: int = 0) -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """A VAE with wild weights, some images and their labels, each class once at least."""
    vae = build(config, generator=make_generator(seed, "weights"), dtype=torch.float64)
    generator = make_generator(seed, "images")
    x = torch.rand(count, config.data_dim, generator=generator, dtype=torch.float64)
    return vae, (config.max_value * x).round() if config.max_value > 1 else x, torch.arange(count) % 3


def asset_of(config: VAEConfig, pictures: Pictures = "data", **settings: Any) -> dict[str, Any]:
    """The asset of a made-up VAE."""
    vae, x, labels = made_up(config, **settings)
    return latent_explorer.asset(vae, x, labels, image_shape=config.image_shape, pictures=pictures)


WILD: dict[str, Any] = {"init": "normal", "init_std": 0.7}
SMALL = VAEConfig((5, 4), 2, (6,), **WILD)
ASSET = asset_of(SMALL)
MEASURED = {
    beta: {"rate": rate, "distortion": distortion}
    for beta, rate, distortion in ((0.0, 9.5, 80.25), (0.5, 4.0, 81.0), (4.0, 0.0, 99.0))
}
WALK = latent_explorer.walk(
    {beta: asset_of(SMALL, seed=seed) | {"pictures": ASSET["pictures"]} for seed, beta in enumerate(MEASURED)}, MEASURED
)
# The same walk without the images: each decoder redraws them.
REDRAWN = latent_explorer.walk(
    {beta: asset_of(SMALL, "decoded", seed=seed) for seed, beta in enumerate(MEASURED)}, MEASURED
)


def stored(name: str) -> dict[str, Any]:
    """The record of a run."""
    found: dict[str, Any] = json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8"))
    return found


@cache
def digits() -> tuple[VAE, dict[str, Any]]:
    """The stored VAE of the small digits, and its asset."""
    train = load_dataset("digits").train
    assert train.labels is not None
    vae = load_vae(RUNS / "digits.safetensors", dtype=torch.float32)
    return vae, latent_explorer.asset(vae, train.x[:300].double(), train.labels[:300], image_shape=(8, 8))


def by_torch(vae: VAE, largest: float) -> Decode:
    """The mean image, from 0 to 1, by the model itself in float64."""
    return lambda z: (vae.double().mean_x_given_z(z[None, None])[0, 0] / largest).clamp(0, 1).detach()


def by_layers(asset: dict[str, Any], step: int = 0) -> Decode:
    """A Bernoulli or discretised logistic head after layers with tanh, in PyTorch, from the stored numbers alone."""
    d = asset["decoders"][step]
    flat = torch.tensor(
        np.frombuffer(base64.b64decode(d["weights"]), f"<f{int(d['dtype'][5:]) // 8}").astype(np.float64)
    )
    layers: list[torch.nn.Module] = []
    for inputs, outputs in zip(d["sizes"][:-1], d["sizes"][1:], strict=True):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs, dtype=torch.float64)
        weight, bias, flat = flat.split([inputs * outputs, outputs, len(flat) - (inputs + 1) * outputs])
        layer.weight.data, layer.bias.data = weight.reshape(outputs, inputs), bias
        layers += [layer, torch.nn.Tanh()]
    config = {"likelihood": "discretised-logistic", "max_value": 16} if d["head"] == "logistic" else {}
    head = build(VAEConfig((1, 1), 1, (1,), **config), generator=make_generator(0)).likelihood  # type: ignore[arg-type]
    return lambda z: (head.mean(torch.nn.Sequential(*layers[:-1])(z)) / (d["levels"] - 1)).detach()


def place(page: Page) -> torch.Tensor:
    """Where the figure is, to the last bit."""
    return torch.tensor([float(v) for v in (page.get_attribute("figure", "data-z") or "").split()], dtype=torch.float64)


def levels(page: Page, selector: str = '[data-part="decoded"]') -> torch.Tensor:
    """The grey levels of a canvas: 0 for no ink, 255 for full ink."""
    read = "n => [...n.getContext('2d').getImageData(0, 0, n.width, n.height).data]"
    pixels = torch.tensor(page.locator(selector).first.evaluate(read)).reshape(-1, 4)
    assert torch.equal(pixels[:, 3], torch.full_like(pixels[:, 3], 255))
    assert torch.equal(pixels[:, 0], pixels[:, 1])
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    return 255 - pixels[:, 0]


def same_pixels(page: Page, decode: Decode) -> torch.Tensor:
    """Compare what is shown with PyTorch, to the last grey level; return the levels."""
    exact = 255.0 * decode(place(page)) + 0.5
    # JavaScript and PyTorch differ by 1e-12 at most: no level may hang on that.
    assert float((exact - exact.round()).abs().min()) > 1e-9
    found = levels(page)
    assert torch.equal(found, exact.floor().long())
    return found


CONFIGS = {
    "bits, two layers": VAEConfig((7, 3), 3, (5, 9), **WILD),
    "bits, relu": VAEConfig((7, 3), 2, (5, 9), activation="relu", **WILD),
    "counts": VAEConfig((4, 4), 2, (6,), likelihood="binomial", max_value=16, **WILD),
    "levels": VAEConfig((4, 4), 4, (6,), likelihood="discretised-logistic", max_value=7, **WILD),
    "fixed variance": VAEConfig((4, 4), 2, (6,), likelihood="normal", **WILD),
    "learned variance": VAEConfig((4, 4), 2, (6,), likelihood="normal-per-pixel", **WILD),
    "predicted variance": VAEConfig((4, 4), 2, (6,), likelihood="normal-predicted", **WILD),
    "unit mean": VAEConfig((4, 4), 2, (6,), likelihood="normal-predicted-unit", **WILD),
    "more than 256 pixels, an odd number": VAEConfig((19, 17), 2, (6,), **WILD),
}
