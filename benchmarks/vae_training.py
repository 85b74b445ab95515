"""Train one VAE on MNIST in several ways, in turn, on one thread: CPU seconds an epoch, ratios, and the bound reached.

    python benchmarks/vae_training.py [--rounds 5] [--images 60000] [--pytorch-examples FILE]

The contenders are the library's trainer, plain and compiled, its step written by hand, and the VAEs of
pytorch/examples, Pythae and Pyro: 784-500-20-500-784 units, tanh, batches of 100, Adam at 0.001, the same first
weights, grey levels as they are. Then pytorch/examples as published, 400 units with relu and batches of 128, against
the trainer at those sizes. A contender whose package is missing is skipped. For all of them, pip install pythae
pyro-ppl torchvision, in an environment of their own beside this library and the torch to measure with.

A round is one epoch of each, in turn, so that a busy minute hits all alike; the first warms up. Ratios are taken within
a round. The limit is the time of the step's matrix products alone: three for each layer, two for the first, 4.1 million
operations an image. The bound is the library's, on the test images, after the same number of epochs for all.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contenders.contract import LATENTS, PIXELS, Contender, SkippedError, Task, copy_weights
from contenders.ours import ByHand, ByTrainer
from torch import Tensor

from vae_lib.data import DatasetError, load_dataset
from vae_lib.evaluation.held_out import held_out_elbo
from vae_lib.rng import make_generator

LIMIT, OURS = "matrix products alone", "vae_lib, trainer"


class Products:
    """The matrix products of an epoch's steps, into memory that is there already, on one batch of random numbers."""

    def __init__(self, task: Task) -> None:
        batch, g = task.batch_size, make_generator(3)
        layers = [(PIXELS, task.hidden), (task.hidden, 2 * LATENTS), (LATENTS, task.hidden), (task.hidden, PIXELS)]
        self.steps = len(task.images) // batch
        self.products: list[tuple[Tensor, Tensor, Tensor]] = []
        for number, (inputs, outputs) in enumerate(layers):
            x, delta = torch.randn(batch, inputs, generator=g), torch.randn(batch, outputs, generator=g)
            weight = torch.randn(outputs, inputs, generator=g)
            self.products.append((x, weight.mT, torch.empty(batch, outputs)))
            self.products.append((delta.mT, x, torch.empty(outputs, inputs)))
            if number:  # nobody asks for the gradient of the images
                self.products.append((delta, weight, torch.empty(batch, inputs)))

    def epoch(self) -> None:
        """All of them, as often as there are steps."""
        for _ in range(self.steps):
            for a, b, out in self.products:
                torch.mm(a, b, out=out)


def mnist(count: int) -> tuple[Tensor, Tensor | None]:
    """The first training images, of 60,000, and all test images; or random bytes, where MNIST cannot be had."""
    try:
        data = load_dataset("mnist")
    except DatasetError as error:
        print(f"no MNIST, so speed alone is measured, on random images: {error}")
        return torch.randint(0, 256, (count, PIXELS), generator=make_generator(4), dtype=torch.uint8), None
    return torch.cat([data.train.x, data.validation.x])[:count], data.test.pixels(torch.float32)


def peer(module: str, name: str, package: str) -> Callable[..., Contender]:
    """A contender of another library, which is imported when it is made."""

    def make(task: Task, **options: Any) -> Contender:
        try:
            made: Contender = getattr(importlib.import_module(f"contenders.{module}"), name)(task, **options)
        except ImportError as error:
            raise SkippedError(f"pip install {package}; {error}") from error
        return made

    return make


@contextlib.contextmanager
def quiet() -> Any:
    """Keep what others print off the table; a bar that is drawn is still drawn."""
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
    logging.disable(logging.NOTSET)


def compare(task: Task, makers: dict[str, Callable[[Task], Contender]], rounds: int, test: Tensor | None) -> None:
    """Train all in turn and print a table."""
    contenders: dict[str, Contender] = {}
    for name, make in makers.items():
        try:
            with quiet():
                contenders[name] = make(task)
        except SkippedError as reason:
            print(f"{name}: skipped. {reason}")
        else:
            copy_weights(task.vae(), contenders[name].linears(), into_vae=False)
    if len(contenders) == 1:
        return  # nobody to compare with

    epochs: dict[str, Callable[[], None]] = {LIMIT: Products(task).epoch}
    epochs |= {name: contender.epoch for name, contender in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            with quiet():
                start = time.process_time()
                epoch()
                used = time.process_time() - start
            if number:
                seconds[name].append(used * 60_000 / len(task.images))

    units = f"784-{task.hidden}-20-{task.hidden}-784 {task.activation}, batches of {task.batch_size}"
    print(f"\n{units}; rounds: {rounds}, then bounds, after {rounds + 1} epochs of {len(task.images):,} images")
    print(
        f"{'one thread, medians (range)':28}{'s / 60,000':>12}{'of the limit':>14}{'ratio':>8}{'':14}{'test bound':>12}"
    )
    products = seconds[LIMIT]
    for name, times in seconds.items():
        share = statistics.median(a / b for a, b in zip(products, times, strict=True))
        ratios = [a / b for a, b in zip(times, seconds[OURS], strict=True)]
        spread = f"({min(ratios):.2f}-{max(ratios):.2f})"
        line = f"{name:28}{statistics.median(times):12.2f}{share:14.0%}{statistics.median(ratios):8.2f} {spread:13}"
        if name in contenders and test is not None:
            line += f"{bound(task, contenders[name], test):12.2f}"
        print(line, flush=True)


def bound(task: Task, contender: Contender, test: Tensor) -> float:
    """The ELBO of the test images under the weights of a contender, by the library, with the same noise for all."""
    vae = task.vae()
    copy_weights(vae, contender.linears(), into_vae=True)
    return float(held_out_elbo(vae, vae, test, generator=make_generator(5)).elbo.mean())


def main() -> None:
    """Train, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed epochs of each, after one to warm up (5)")
    parser.add_argument("--images", type=int, default=60_000, help="training images in an epoch (60000)")
    parser.add_argument("--pytorch-examples", type=Path, metavar="FILE", help="a copy of its vae/main.py")
    options = parser.parse_args()
    if options.rounds < 1 or not 128 <= options.images <= 60_000:
        parser.error("expected at least 1 round and from 128 to 60000 images")
    if options.pytorch_examples is not None and not options.pytorch_examples.is_file():
        parser.error(f"--pytorch-examples: expected a file, found none at {options.pytorch_examples}")
    torch.set_num_threads(1)
    print("Other work on this machine changes the seconds; ratios and shares are taken within a round.")

    images, test = mnist(options.images)
    examples = partial(peer("pytorch_examples", "PytorchExamples", "torchvision"), path=options.pytorch_examples)
    pyro = peer("pyro_vae", "PyroVAE", "pyro-ppl")
    same: dict[str, Callable[[Task], Contender]] = {
        OURS: ByTrainer,
        "vae_lib, trainer compiled": partial(ByTrainer, compiled=True),
        "by hand": ByHand,
        "by hand, compiled": partial(ByHand, compiled=True),
        "pytorch/examples": examples,
        "Pythae": peer("pythae_vae", "PythaeVAE", "pythae"),
        "Pyro": pyro,
        "Pyro, JIT": partial(pyro, jit=True),
    }
    compare(Task(images), same, options.rounds, test)
    published: dict[str, Callable[[Task], Contender]] = {OURS: ByTrainer, "pytorch/examples, published": examples}
    compare(Task(images, hidden=400, activation="relu", batch_size=128), published, options.rounds, test)


if __name__ == "__main__":
    main()
