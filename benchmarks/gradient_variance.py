"""Time the variance of a small digits VAE's gradients: 1,000 samples in one vectorised call against Python loops.

    python benchmarks/gradient_variance.py [--samples 1000] [--repeats 5]

Three ways measure the same thing on one thread: `measure` as it comes, `measure` with `vectorised=False`, and the loop
that one would write by hand (`backward`, then copy every `.grad`). First, in float64 and on the same draws, all three
must give the same variances to rounding. Then they run in turn, in float32, several times over; printed are the medians
of each and the ratios, which mean more on another machine than the times do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from vae_lib.bounds import log_weights
from vae_lib.data import load_dataset
from vae_lib.densities import DiagonalNormal
from vae_lib.gradients import (
    GradientEstimator,
    Objective,
    Pathwise,
    ScoreFunction,
    amortised,
    functional,
    measure,
    sgvb_a,
)
from vae_lib.models import BinomialLikelihood, DecoderModel, NormalEncoder, mlp, standard_normal
from vae_lib.rng import make_generator

BATCH, PIXELS, HIDDEN, LATENTS = 10, 64, 32, 2
ESTIMATORS: dict[str, GradientEstimator] = {"pathwise": Pathwise(), "score function": ScoreFunction()}


class Problem:
    """Ten digits, an encoder of 64-32-2x2 and a decoder of 2-32-64 units with a binomial head."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.x = load_dataset("digits").train.x[:BATCH].to(dtype)
        self.encoder = NormalEncoder(mlp([PIXELS, HIDDEN, 2 * LATENTS], generator=make_generator(1), dtype=dtype))
        self.decoder = mlp([LATENTS, HIDDEN, PIXELS], generator=make_generator(2), dtype=dtype)
        self.prior = standard_normal(LATENTS, dtype=dtype)
        modules = {"encoder.": self.encoder, "decoder.": self.decoder}
        self.weights = {prefix + k: v for prefix, module in modules.items() for k, v in module.named_parameters()}
        self.params = {name: weight.detach() for name, weight in self.weights.items()}
        self.objective: Objective = sgvb_a(
            lambda params: self.model(functional(self.decoder, params, "decoder.")),
            amortised(self.encoder, self.x, "encoder."),
            self.x,
        )

    def model(self, decoder: Callable[[Tensor], Tensor]) -> DecoderModel:
        """The generative model with a decoder."""
        return DecoderModel(decoder, BinomialLikelihood(16), LATENTS, PIXELS, self.prior)

    def by_measure(self, name: str, samples: int, *, vectorised: bool) -> dict[str, Tensor]:
        """Variances by the library."""
        found = measure(
            ESTIMATORS[name],
            self.objective,
            self.params,
            num_estimates=samples,
            generator=make_generator(3),
            vectorised=vectorised,
        )
        return found.variance

    def by_hand(self, name: str, samples: int) -> dict[str, Tensor]:
        """Variances by the plainest loop: draw, backward, add up the gradients and their squares."""
        # Drawn at once, as the library does: draws one by one would be other numbers.
        noise = self.encoder(self.x).noise(samples, generator=make_generator(3))
        model = self.model(self.decoder)
        total = {key: torch.zeros(value.shape, dtype=torch.float64) for key, value in self.weights.items()}
        square = {key: torch.zeros(value.shape, dtype=torch.float64) for key, value in self.weights.items()}
        for one in noise.split(1):
            q: DiagonalNormal = self.encoder(self.x)
            z = q.from_noise(one)
            if name == "pathwise":
                surrogate = log_weights(model, q, self.x, z)
            else:
                f = log_weights(model, q, self.x, z.detach())
                surrogate = f.detach() * q.log_prob(z.detach()) + f
            surrogate.sum().backward()
            for key, weight in self.weights.items():
                assert weight.grad is not None
                gradient = weight.grad.double()
                total[key] += gradient
                square[key] += gradient**2
                weight.grad = None
        return {key: (square[key] - total[key] ** 2 / samples) / (samples - 1) for key in total}


def check(samples: int) -> None:
    """Stop unless the three ways agree to rounding on the same draws.

    By hand, a sum of squares minus the square of a sum loses digits where a variance is small beside its mean, hence
    1e-8 and not 1e-12.
    """
    problem = Problem(torch.float64)
    for name in ESTIMATORS:
        one_call = problem.by_measure(name, samples, vectorised=True)
        for other in (problem.by_measure(name, samples, vectorised=False), problem.by_hand(name, samples)):
            for key, value in one_call.items():
                torch.testing.assert_close(other[key], value, rtol=1e-8, atol=1e-10 * float(value.max()))
    weights = sum(value.numel() for value in problem.params.values())
    print(f"{samples} samples, {BATCH} digits, {weights} weights, one thread: all ways give the same variances")


def main() -> None:
    """Check, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000, help="independent gradients (1000)")
    parser.add_argument("--repeats", type=int, default=5, help="how many times each way is timed (5)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    check(min(options.samples, 100))

    problem, samples = Problem(torch.float32), options.samples
    ways: dict[str, Callable[[str], object]] = {
        "one call": lambda name: problem.by_measure(name, samples, vectorised=True),
        "vectorised=False": lambda name: problem.by_measure(name, samples, vectorised=False),
        "loop by hand": lambda name: problem.by_hand(name, samples),
    }
    columns = "".join(f"{way:>18}" for way in ways)
    print(f"\n{'microseconds a sample (median)':32}{columns}{'by hand / one call':>22}")
    for name in ESTIMATORS:
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(options.repeats + 1):
            for way, run in ways.items():  # in turn, so that a busy minute does not hit one way alone
                start = time.perf_counter()
                run(name)
                if repeat:  # the first round warms up
                    seconds[way].append(time.perf_counter() - start)
        median = {way: 1e6 * statistics.median(times) / samples for way, times in seconds.items()}
        ratios = [b / a for a, b in zip(seconds["one call"], seconds["loop by hand"], strict=True)]
        print(
            f"{name:32}"
            + "".join(f"{median[way]:18.1f}" for way in ways)
            + f"{statistics.median(ratios):10.1f} ({min(ratios):.1f}-{max(ratios):.1f})"
        )


if __name__ == "__main__":
    main()
