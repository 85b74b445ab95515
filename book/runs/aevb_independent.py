"""Figure 2 of Kingma & Welling (2014) once more, by somebody who has only PyTorch and NumPy: the check of our own runs.

Run ``python book/runs/aevb_independent.py`` from the root, with ``VAE_LIB_DATA`` naming the folder of the data; it
writes ``aevb_independent.json`` beside itself, curve by curve, and keeps the curves that are finished. Nothing is
the library's: files, bits, layers and Adagrad are done here, and all gradients are written out by hand. ``--check``
compares those with finite differences, quadrature and enumeration, in seconds and without data.

A curve is named ``mnist-3-aevb``; ``mnist-3-aevb=0.01`` gives it a learning rate of its own.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
import scipy.io
import torch
from torch import Tensor

BATCH, STD, EPSILON, PRECISION = 100, 0.1, 1e-10, 1.0
POINTS = [10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000]
CURVES = [
    f"{name}-{latents}-{method}"
    for name, sizes in (("mnist", (3, 10, 200)), ("frey", (2, 10)))
    for latents in sizes
    for method in ("aevb", "wake-sleep")
]
SETTINGS = {
    "mnist": "first 50,000 training images, bits drawn anew at each reading; bound on the first 10,000 of them and on "
    "the 10,000 test images, bits drawn once, one z an image",
    "frey": "grey / 255, film order: first 1565 to learn from, last 200 to test; bound on all of both, 20 z an image",
    "hidden": {"mnist": 500, "frey": 200},
    "noise_of_the_bound": "the same for every point, curve and seed",
    "batch": BATCH,
    "samples_of_z": 1,
    "initial_standard_deviation": STD,
    "adagrad_epsilon": EPSILON,
    "prior_precision": "1, on all weights and biases of both networks, divided by the number of training images",
    "wake_sleep": "both gradients at the same weights, then one step; as many dreams as images",
}


class Data(NamedTuple):
    """What is learnt from, and what the bound is measured on; ``draws`` of z an image."""

    learn: Tensor
    train: Tensor
    test: Tensor
    draws: int


def load(name: str) -> Data:
    """Read the files by ourselves."""
    folder = Path(os.environ["VAE_LIB_DATA"])
    if name == "frey":
        faces = torch.from_numpy(scipy.io.loadmat(folder / "frey/frey_rawface.mat")["ff"].T.astype(np.float32) / 255)
        assert faces.shape == (1965, 560)
        return Data(faces[:1565], faces[:1565], faces[-200:], 20)
    grey = []
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        content = gzip.decompress((folder / f"mnist/{part}-images-idx3-ubyte.gz").read_bytes())
        assert np.frombuffer(content, ">i4", 4).tolist() == [2051, count, 28, 28]
        pixels = np.frombuffer(content, np.uint8, offset=16).reshape(count, 784)
        grey.append(torch.from_numpy(pixels.astype(np.float32) / 255))
    generator = torch.Generator().manual_seed(2014)
    train, test = (bits(part[:10_000], generator) for part in grey)
    return Data(grey[0][:50_000], train, test, 1)


def bits(grey: Tensor, generator: torch.Generator) -> Tensor:
    """Each pixel is on with probability grey."""
    return (torch.rand(grey.shape, generator=generator, dtype=grey.dtype) < grey).to(grey.dtype)


class Networks:
    """Both networks of one hidden tanh layer: all weights in one vector, all slopes in another.

    Slopes are those of a mean over the images, to be climbed. ``normal`` is Frey Face's decoder: means through a
    sigmoid, and a log-variance for each pixel; else the pixels are bits.
    """

    def __init__(self, pixels: int, hidden: int, latents: int, normal: bool, generator: torch.Generator) -> None:
        self.latents, self.normal, self.generator = latents, normal, generator
        outputs = pixels * (1 + normal)
        shapes = [(pixels, hidden), (hidden,), (hidden, 2 * latents), (2 * latents,)]
        shapes += [(latents, hidden), (hidden,), (hidden, outputs), (outputs,)]
        sizes = [math.prod(shape) for shape in shapes]
        self.weights = torch.randn(sum(sizes), generator=generator) * STD
        self.slopes = torch.zeros_like(self.weights)
        self.squares = torch.zeros_like(self.weights)
        self._split = sizes, shapes

    def parts(self, vector: Tensor) -> list[Tensor]:
        """Views into a vector: four for the recognition model, four for the model."""
        return [piece.view(shape) for piece, shape in zip(vector.split(self._split[0]), self._split[1], strict=True)]

    def normals(self, like: Tensor, width: int) -> Tensor:
        """Standard normal noise, a row for each row."""
        return torch.randn(len(like), width, generator=self.generator, dtype=like.dtype)

    def forward(self, inputs: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Hidden layer and outputs of the network whose four parts begin at ``first``."""
        one, bias_one, two, bias_two = self.parts(self.weights)[first : first + 4]
        hidden = torch.addmm(bias_one, inputs, one).tanh_()
        return hidden, torch.addmm(bias_two, hidden, two)

    def backward(self, inputs: Tensor, hidden: Tensor, delta: Tensor, first: int) -> Tensor:
        """Write the slopes of one network, given those of its outputs; return those of the hidden layer's sums."""
        slopes, delta = self.parts(self.slopes)[first : first + 4], delta / len(inputs)
        torch.mm(hidden.T, delta, out=slopes[2])
        torch.sum(delta, 0, out=slopes[3])
        sums = (delta @ self.parts(self.weights)[first + 2].T).mul_(1 - hidden * hidden)
        torch.mm(inputs.T, sums, out=slopes[0])
        torch.sum(sums, 0, out=slopes[1])
        return sums

    def recognise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden layer, mean and log-variance of q(z | x)."""
        hidden, outputs = self.forward(x, 0)
        return hidden, outputs[:, : self.latents], outputs[:, self.latents :]

    def log_likelihood(self, x: Tensor, outputs: Tensor) -> Tensor:
        """Log p(x | z), in nats, one value for each row."""
        if not self.normal:
            return (x * outputs - torch.nn.functional.softplus(outputs)).sum(1)
        raw, logvar = outputs.chunk(2, 1)
        return -0.5 * (math.log(2 * math.pi) + logvar + (x - raw.sigmoid()) ** 2 / logvar.exp()).sum(1)

    def likelihood_slope(self, x: Tensor, outputs: Tensor) -> Tensor:
        """Its derivative in the outputs of the decoder."""
        if not self.normal:
            return x - outputs.sigmoid()
        raw, logvar = outputs.chunk(2, 1)
        mean, precision = raw.sigmoid(), (-logvar).exp()
        miss = x - mean
        return torch.cat([miss * precision * mean * (1 - mean), 0.5 * (miss * miss * precision - 1)], 1)

    def bound(self, x: Tensor, noise: Tensor) -> Tensor:
        """The lower bound for each row: one z, and the divergence from the prior in closed form."""
        _, mean, logvar = self.recognise(x)
        _, outputs = self.forward(mean + noise * (0.5 * logvar).exp(), 4)
        return self.log_likelihood(x, outputs) - 0.5 * (mean * mean + logvar.exp() - logvar - 1).sum(1)

    def wake(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Slopes of log p(x, z) for the model, with z from q(z | x); and what AEVB goes on with."""
        hidden, mean, logvar = self.recognise(x)
        spread = noise * (0.5 * logvar).exp()
        z = mean + spread
        inner, outputs = self.forward(z, 4)
        sums = self.backward(z, inner, self.likelihood_slope(x, outputs), 4)
        return hidden, mean, logvar, spread, (sums @ self.parts(self.weights)[4].T) * len(x)

    def aevb(self, x: Tensor, noise: Tensor) -> None:
        """Slopes of the bound for both networks."""
        hidden, mean, logvar, spread, slope_z = self.wake(x, noise)
        slope_logvar = 0.5 * (slope_z * spread + 1 - logvar.exp())
        self.backward(x, hidden, torch.cat([slope_z - mean, slope_logvar], 1), 0)

    def dream(self, z: Tensor) -> Tensor:
        """Draw x from p(x | z)."""
        _, outputs = self.forward(z, 4)
        if not self.normal:
            return bits(outputs.sigmoid(), self.generator)
        raw, logvar = outputs.chunk(2, 1)
        return raw.sigmoid() + (0.5 * logvar).exp() * self.normals(z, raw.shape[1])

    def sleep(self, z: Tensor, x: Tensor) -> None:
        """Slopes of log q(z | x) for the recognition model."""
        hidden, mean, logvar = self.recognise(x)
        precision, miss = (-logvar).exp(), z - mean
        self.backward(x, hidden, torch.cat([miss * precision, 0.5 * (miss * miss * precision - 1)], 1), 0)

    def learn(self, x: Tensor, method: str, rate: float, images: int) -> None:
        """One step of Adagrad from one minibatch."""
        if method == "aevb":
            self.aevb(x, self.normals(x, self.latents))
        else:
            self.wake(x, self.normals(x, self.latents))
            z = self.normals(x, self.latents)
            self.sleep(z, self.dream(z))
        self.slopes.sub_(self.weights, alpha=PRECISION / images)
        self.squares.addcmul_(self.slopes, self.slopes)
        self.weights.addcdiv_(self.slopes, self.squares.sqrt().add_(EPSILON), value=rate)


def measure(networks: Networks, x: Tensor, draws: int) -> float:
    """The mean bound, with noise that is the same at every point of every curve."""
    state = networks.generator
    networks.generator = torch.Generator().manual_seed(2015)
    total = sum(
        float(networks.bound(part, networks.normals(part, networks.latents)).double().sum())
        for _ in range(draws)
        for part in x.split(500)
    )
    networks.generator = state
    return total / (draws * len(x))


def one_curve(curve: str, data: Data, rate: float, seed: int, samples: int) -> dict[str, Any]:
    """Learn, and measure at each of ``POINTS``; stop where a bound is no longer finite."""
    name, latents, method = curve.split("-", 2)
    generator = torch.Generator().manual_seed(seed)
    hidden = 200 if name == "frey" else 500
    networks = Networks(data.learn.shape[1], hidden, int(latents), name == "frey", generator)
    points: list[dict[str, Any]] = []
    seen, spent, order = 0, 0.0, torch.empty(0, dtype=torch.int64)
    for point in POINTS:
        if point > samples or (points and points[-1]["test"] is None):
            break
        start = time.perf_counter()
        while seen < point:
            if len(order) < BATCH:
                order = torch.randperm(len(data.learn), generator=generator)
            rows, order = order[:BATCH], order[BATCH:]
            x = data.learn.index_select(0, rows)
            networks.learn(x if name == "frey" else bits(x, generator), method, rate, len(data.learn))
            seen += BATCH
        spent += time.perf_counter() - start
        bounds = {part: measure(networks, getattr(data, part), data.draws) for part in ("train", "test")}
        points.append({"samples": seen} | {k: round(v, 4) if math.isfinite(v) else None for k, v in bounds.items()})
        print(f"{curve} rate {rate} seed {seed}: {points[-1]}, {seen / spent:.0f} images/s", flush=True)
    speed = round(seen / spent)
    return {"curve": curve, "rate": rate, "seed": seed, "images_per_second": speed, "points": points}


def key(result: dict[str, Any]) -> tuple[int, float, int]:
    """What a result is of, in the order of the file."""
    return CURVES.index(result["curve"]), result["rate"], result["seed"]


def stored(out: Path) -> list[dict[str, Any]]:
    """The curves that the file has already."""
    if not out.exists():
        return []
    record = json.loads(out.read_text(encoding="utf-8"))
    if record["settings"] != SETTINGS:
        raise SystemExit(f"{out}: made with other settings; remove it, or name another file with --out")
    results: list[dict[str, Any]] = record["results"]
    return results


def write(out: Path, new: dict[str, Any]) -> None:
    """Put one more curve into the file, which another process may have added to in the meantime."""
    results = sorted([old for old in stored(out) if key(old) != key(new)] + [new], key=key)
    seeds = sorted({result["seed"] for result in results})
    curves = list(dict.fromkeys(f"{result['curve']}={result['rate']}" for result in results))
    samples = max(result["points"][-1]["samples"] for result in results)
    words = ["--curves", *curves, "--seeds", *map(str, seeds), "--samples", str(samples)]
    record = {
        "command": " ".join(["python book/runs/aevb_independent.py", *words]),
        "commit": new["commit"],
        "device": "CPU, 1 thread",
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "seeds": seeds,
        "unit": "lower bound, nats an image (Frey Face: density of grey / 255), against training images read",
        "settings": SETTINGS,
        "results": results,
    }
    part = out.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(out)


def small(normal: bool, latents: int) -> Networks:
    """A tiny pair of networks in float64, with weights large enough to matter."""
    networks = Networks(3, 4, latents, normal, torch.Generator().manual_seed(1))
    networks.weights = 6 * networks.weights.double()
    networks.slopes = torch.zeros_like(networks.weights)
    return networks


def finite_differences(networks: Networks, value: Callable[[], Tensor], step: float = 1e-5) -> Tensor:
    """Central differences of ``value()`` in every weight."""
    slopes = []
    for i in range(len(networks.weights)):
        kept, ends = networks.weights[i].item(), []
        for sign in (1, -1):
            networks.weights[i] = kept + sign * step
            ends.append(float(value()))
        networks.weights[i] = kept
        slopes.append((ends[0] - ends[1]) / (2 * step))
    return torch.tensor(slopes, dtype=torch.float64)


def check_slopes(normal: bool) -> None:
    """Each gradient against finite differences at fixed noise; a step has an error of about 1e-9 here."""
    networks = small(normal, 2)
    recognition = sum(part.numel() for part in networks.parts(networks.weights)[:4])
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(5, 3, generator=generator).double()
    x = x if normal else x.round()
    noise = networks.normals(x, 2)
    z = networks.normals(x, 2)
    networks.aevb(x, noise)
    torch.testing.assert_close(
        networks.slopes, finite_differences(networks, lambda: networks.bound(x, noise).mean()), rtol=1e-6, atol=1e-7
    )
    model = networks.slopes[recognition:].clone()
    networks.wake(x, noise)
    assert torch.equal(networks.slopes[recognition:], model)

    def log_q() -> Tensor:
        _, mean, logvar = networks.recognise(x)
        q: Any = torch.distributions.Normal(mean, (0.5 * logvar).exp())
        value: Tensor = q.log_prob(z).sum(1).mean()
        return value

    networks.sleep(z, x)
    expected = finite_differences(networks, log_q)
    torch.testing.assert_close(networks.slopes[:recognition], expected[:recognition], rtol=1e-6, atol=1e-7)
    assert torch.equal(networks.slopes[recognition:], model)  # sleep leaves the model alone
    _, outputs = networks.forward(z, 4)
    head = outputs.chunk(2, 1)
    oracle: Any = (
        torch.distributions.Normal(head[0].sigmoid(), (0.5 * head[1]).exp())
        if normal
        else torch.distributions.Bernoulli(logits=outputs)
    )
    torch.testing.assert_close(networks.log_likelihood(x, outputs), oracle.log_prob(x).sum(1))


def check_expectations(draws: int = 400_000) -> None:
    """Three bits and one latent: all x enumerated, z on a grid; averages of draws within five standard errors.

    The sleep phase must climb minus the sum over x of p(x) KL(p(z | x) || q(z | x)), the bound must be
    log p(x) − KL(q(z | x) || p(z | x)).
    """
    networks = small(False, 1)
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    width = float(grid[1] - grid[0])
    every = torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], dtype=torch.float64)
    standard: Any = torch.distributions.Normal(torch.zeros(1, dtype=torch.float64), 1.0)

    def tables() -> tuple[Tensor, Tensor]:
        """Log p(x, z) and log q(z | x), (8, 4001)."""
        _, outputs = networks.forward(grid, 4)
        joint = torch.stack([networks.log_likelihood(x.expand(len(grid), 3), outputs) for x in every])
        _, mean, logvar = networks.recognise(every)
        return joint + standard.log_prob(grid).T, torch.distributions.Normal(mean, (0.5 * logvar).exp()).log_prob(
            grid.T
        )

    joint, log_q = tables()
    evidence = (joint.exp().sum(1) * width).log()
    torch.testing.assert_close(evidence.exp().sum(), torch.tensor(1.0).double(), rtol=1e-9, atol=1e-9)
    reverse = (log_q.exp() * (log_q - joint + evidence[:, None])).sum(1) * width
    values = networks.bound(every.repeat_interleave(draws // 8, 0), torch.randn(
        draws // 8 * 8, 1, generator=networks.generator, dtype=torch.float64)).view(8, -1)  # fmt: skip
    error = values.std(1) / values.shape[1] ** 0.5
    assert float(error.max()) < 0.02
    assert bool(((values.mean(1) - evidence + reverse).abs() < 5 * error).all())

    def forward() -> Tensor:
        posterior = joint - evidence[:, None]
        divergence: Tensor = (posterior.exp() * (posterior - tables()[1])).sum(1) * width
        return -(evidence.exp() * divergence).sum()

    expected = finite_differences(networks, forward)[:26]  # 3 x 4 + 4 + 4 x 2 + 2 weights of the recognition model
    means = []
    for _ in range(50):
        z = torch.randn(draws // 50, 1, generator=networks.generator, dtype=torch.float64)
        networks.sleep(z, networks.dream(z))
        means.append(networks.slopes[:26].clone())
    found = torch.stack(means)
    error = found.std(0) / len(means) ** 0.5
    assert float(error.max()) < 0.05 * float(expected.abs().max())
    assert bool(((found.mean(0) - expected).abs() < 5 * error + 1e-8).all())


def check() -> None:
    """Gradients, densities, expectations and dreams; and Adagrad against PyTorch's."""
    check_slopes(False)
    check_slopes(True)
    check_expectations()
    networks = small(True, 2)
    z = torch.ones(1, 2, dtype=torch.float64).expand(100_000, 2)
    dreams, head = networks.dream(z), networks.forward(z[:1], 4)[1].chunk(2, 1)
    deviation = (0.5 * head[1]).exp()[0]
    assert bool(((dreams.mean(0) - head[0].sigmoid()[0]).abs() < 5 * deviation / 100_000**0.5).all())
    assert bool(((dreams.std(0) / deviation - 1).abs() < 5 / 200_000**0.5).all())
    networks.squares = torch.zeros_like(networks.weights)
    parameter = networks.weights.clone().requires_grad_()
    adagrad = torch.optim.Adagrad([parameter], lr=0.02, eps=EPSILON)
    for _ in range(5):
        x = torch.rand(5, 3, generator=networks.generator).double()
        kept = networks.weights.clone()
        networks.learn(x, "wake-sleep", 0.02, 10)
        parameter.grad = -networks.slopes.clone()
        adagrad.step()
        torch.testing.assert_close(parameter.detach(), networks.weights)
        assert not torch.equal(kept, networks.weights)
    print("slopes, expectations, dreams and Adagrad are right")


def main() -> None:
    """Run what is not yet in the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--curves", nargs="+", default=CURVES, metavar="CURVE[=RATE]", help=", ".join(CURVES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=1_000_000, help="images to learn from, for each curve and seed")
    parser.add_argument("--rate", type=float, default=0.02, help="of Adagrad, for curves that name none")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--check", action="store_true", help="only compare the gradients with the theory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if options.check:
        return check()
    if options.samples < POINTS[0]:
        parser.error(f"--samples: expected at least {POINTS[0]}, found {options.samples}")
    wanted = []
    for text in options.curves:
        curve, _, rate = text.partition("=")
        if curve not in CURVES:
            parser.error(f"--curves: expected some of {', '.join(CURVES)}, found {curve!r}")
        wanted.append((curve, float(rate or options.rate)))
    if "VAE_LIB_DATA" not in os.environ:
        parser.error("VAE_LIB_DATA: expected the folder of the data, found nothing")
    last = max(point for point in POINTS if point <= options.samples)
    data: dict[str, Data] = {}
    for seed in options.seeds:
        for curve, rate in wanted:
            kept = {key(result): result["points"][-1] for result in stored(options.out)}
            point = kept.get((CURVES.index(curve), rate, seed))
            if point and (point["samples"] >= last or point["test"] is None):
                continue
            name = curve.partition("-")[0]
            data = data if name in data else data | {name: load(name)}
            words = ["git", "rev-parse", "HEAD"]
            commit = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
            write(options.out, one_curve(curve, data[name], rate, seed, last) | {"commit": commit or "unknown"})


if __name__ == "__main__":
    main()
