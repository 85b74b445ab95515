"""Measure log p(x) of the stored digits model from both sides by annealed importance sampling (chapter 8).

Run ``python book/runs/annealed_digits.py`` from the root; it writes ``annealed_digits.json`` beside itself. A few
minutes on one core. Images that the model made come with an exact draw of their posterior, so chains can start at
either end; for test images there are only the chains that run forwards. Importance sampling stands beside both.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lib.data import load_dataset
from vae_lib.evaluation import log_p_x
from vae_lib.evaluation.annealed import annealed_log_p_x, reverse_annealed_log_p_x, simulate
from vae_lib.evaluation.chains import AnnealedPath
from vae_lib.evaluation.proposals import Widened
from vae_lib.learning import load_vae
from vae_lib.models import VAE
from vae_lib.rng import make_generator

TEMPERATURES = (10, 30, 100, 300)
IMAGES, CHAINS, LEAPFROG, SEED = 40, 8, 5, 0
DRAWS, WIDTHS = 5000, (1.0, 1.5)


def rounded(values: Tensor) -> list[float]:
    """Nats of each image, to a ten-thousandth."""
    return [round(float(value), 4) for value in values]


def sandwich(vae: VAE, x: Tensor, z: Tensor | None, temperatures: int, start: str) -> dict[str, Any]:
    """Chains forwards, and backwards where there is an exact draw z, for each image."""
    path = AnnealedPath(num_temperatures=temperatures, num_leapfrog=LEAPFROG)
    encoder = vae if start == "q" else None
    generator = make_generator(SEED, f"{start} {temperatures} {'test' if z is None else 'made'}")
    low = annealed_log_p_x(vae, x, path=path, start=encoder, num_chains=CHAINS, generator=generator)
    found: dict[str, Any] = {
        "temperatures": temperatures,
        "start": start,
        "forwards": rounded(low.value),
        "forwards, one chain": rounded(low.log_weights.mean(0)),
        "acceptance": round(float(low.acceptance.mean()), 3),
    }
    if z is not None:
        every = z.expand(CHAINS, -1, -1)
        high = reverse_annealed_log_p_x(vae, x, every, path=path, start=encoder, generator=generator)
        found |= {"backwards": rounded(high.value), "backwards, one chain": rounded(high.log_weights.mean(0))}
    print({key: value for key, value in found.items() if not isinstance(value, list)}, flush=True)
    return found


def by_importance(vae: VAE, x: Tensor, name: str) -> list[dict[str, Any]]:
    """Importance sampling with q and with a wider q."""
    found = []
    for width in WIDTHS:
        generator = make_generator(SEED, f"importance {width:g} {name}")
        sampled = log_p_x(vae, Widened(vae, width), x, num_samples=DRAWS, generator=generator)
        found.append({"width": width, "value": rounded(sampled.value), "error": rounded(sampled.standard_error)})
    return found


def main() -> None:
    """Run all and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    vae = load_vae(Path(__file__).with_name("digits.safetensors"), dtype=torch.float32)
    made, made_from = simulate(vae, IMAGES, generator=make_generator(SEED, "made"))
    test = load_dataset("digits").test.x[:IMAGES].float()
    starts = ("prior", "q")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    record = {
        "command": "python book/runs/annealed_digits.py",
        "commit": commit,
        "device": "CPU, one thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seeds": [SEED],
        "settings": {
            "model": "digits.safetensors", "images": IMAGES, "chains": CHAINS, "leapfrog steps": LEAPFROG,
            "schedule": AnnealedPath().schedule, "precision": "float32", "importance samples": DRAWS,
        },
        "unit": "nats an image; log p(x) of images that the model made, and of the first test images",
        "made": [sandwich(vae, made, made_from, T, start) for T in TEMPERATURES for start in starts],
        "made, importance": by_importance(vae, made, "made"),
        "test": [sandwich(vae, test, None, TEMPERATURES[-1], start) for start in starts],
        "test, importance": by_importance(vae, test, "test"),
    }  # fmt: skip
    partial = options.out.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(options.out)


if __name__ == "__main__":
    main()
