"""The meter: mean, variance, standard error, signal-to-noise ratio and cost of any gradient estimator."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vae_lib import checks
from vae_lib.estimate import Estimate
from vae_lib.gradients.contract import GradientEstimator, check_params
from vae_lib.gradients.objective import Objective, Params

# Numbers held at one time in gradients, draws and data: 8 MB in float64. Larger chunks leave the caches.
DEFAULT_NUMBERS = 2**20


@dataclass(frozen=True)
class Measurement:
    """What :func:`measure` found, for each parameter by name. Units: those of the gradient, its square for variances.

    Parameters
    ----------
    mean
        Mean of the estimates.
    variance
        Variance of one estimate (divided by R - 1).
    variance_error
        Standard error of that variance, from the fourth moment.
    num_estimates, num_samples
        R and S.
    seconds
        Time taken, for all estimates together.
    """

    mean: dict[str, Tensor]
    variance: dict[str, Tensor]
    variance_error: dict[str, Tensor]
    num_estimates: int
    num_samples: int
    seconds: float

    @property
    def standard_error(self) -> dict[str, Tensor]:
        """Standard error of the mean."""
        return {name: (value / self.num_estimates).sqrt() for name, value in self.variance.items()}

    @property
    def signal_to_noise(self) -> dict[str, Tensor]:
        """Absolute mean over standard deviation, of one estimate, element by element; NaN where both are zero."""
        return {name: self.mean[name].abs() / self.variance[name].sqrt() for name in self.mean}

    @property
    def total_variance(self) -> float:
        """Trace of the covariance of one estimate, the sum of the variances of all parameters."""
        return float(sum(value.sum() for value in self.variance.values()))

    @property
    def total_signal_to_noise(self) -> float:
        """Length of the mean gradient over the root of :attr:`total_variance`; NaN where both are zero."""
        length = torch.stack([(value**2).sum() for value in self.mean.values()]).sum().sqrt()
        return float(length / math.sqrt(self.total_variance))

    @property
    def seconds_per_sample(self) -> float:
        """Time for one draw of z for the whole batch."""
        return self.seconds / (self.num_estimates * self.num_samples)

    def estimate(self, name: str) -> Estimate:
        """Return the mean gradient of one parameter with its standard error."""
        return Estimate(self.mean[name], self.standard_error[name])


def measure(
    estimator: GradientEstimator,
    objective: Objective,
    params: Params,
    *,
    num_estimates: int,
    num_samples: int = 1,
    generator: Generator,
    chunk_size: int | None = None,
    vectorised: bool = True,
) -> Measurement:
    """Take many independent estimates of a gradient and measure their spread, in bounded memory.

    Parameters
    ----------
    estimator
        Any :class:`~vae_lib.gradients.GradientEstimator`. One that learns between calls (a moving average) learns
        between chunks here.
    objective, params
        What to differentiate, and where.
    num_estimates
        R, at least 2.
    num_samples
        S, draws in one estimate.
    generator
        The source of randomness.
    chunk_size
        Estimates taken in one vectorised call. If not given, as many as keep their gradients, draws and copies of the
        data together within 8 MB in float64 (what the integrand keeps in between comes on top).
    vectorised
        False differentiates the estimates one by one.

    Raises
    ------
    ValueError
        If there are fewer than two estimates, or an estimate is not finite.
    """
    checks.positive_int("num_estimates", num_estimates)
    if num_estimates < 2:
        raise ValueError(f"num_estimates: expected at least 2 for a variance, found {num_estimates}")
    checks.positive_int("num_samples", num_samples)
    check_params(params)
    if chunk_size is None:
        chunk_size = max(1, DEFAULT_NUMBERS // _numbers(objective, params, num_samples))
    checks.positive_int("chunk_size", chunk_size)

    moments = {name: _Moments() for name in params}
    start = time.perf_counter()
    for first in range(0, num_estimates, chunk_size):
        gradients = estimator(
            objective,
            params,
            num_estimates=min(chunk_size, num_estimates - first),
            num_samples=num_samples,
            generator=generator,
            vectorised=vectorised,
        )
        for name, values in gradients.items():
            moments[name].add(values)
            if not bool(moments[name].mean.isfinite().all()):  # one number that is not spoils the mean
                checks.finite(f"gradient of {name}", values)
    seconds = time.perf_counter() - start
    return Measurement(
        mean={name: moment.mean for name, moment in moments.items()},
        variance={name: moment.variance for name, moment in moments.items()},
        variance_error={name: moment.variance_error for name, moment in moments.items()},
        num_estimates=num_estimates,
        num_samples=num_samples,
        seconds=seconds,
    )


def _numbers(objective: Objective, params: Params, num_samples: int) -> int:
    """Count the numbers that one estimate makes: its gradient, its draws, and what it compares with the data."""
    with torch.no_grad():
        q = objective.family(params)
    data = 0 if objective.x is None else objective.x.numel()
    return sum(value.numel() for value in params.values()) + num_samples * (q.batch_size * q.event_dim + data)


class _Moments:
    """Central moments up to the fourth, merged chunk by chunk (Pébay, 2008), in float64."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, values: Tensor) -> None:
        values = values.double()
        count, mean = values.shape[0], values.mean(0)
        centred = values - mean
        square = centred * centred  # products: general powers take several times as long
        second, third, fourth = square.sum(0), (square * centred).sum(0), (square * square).sum(0)
        if self.count == 0:
            self.count, self.mean, self.second, self.third, self.fourth = count, mean, second, third, fourth
            return
        a, b, n = float(self.count), float(count), float(self.count + count)  # as integers, a b n a² would overflow
        delta = (mean - self.mean) / n
        self.fourth = (
            self.fourth
            + fourth
            + delta**4 * (a * b * n * (a * a - a * b + b * b))
            + 6.0 * delta**2 * (a * a * second + b * b * self.second)
            + 4.0 * delta * (a * third - b * self.third)
        )
        self.third = (
            self.third + third + delta**3 * (a * b * n * (a - b)) + 3.0 * delta * (a * second - b * self.second)
        )
        self.second = self.second + second + delta**2 * (a * b * n)
        self.mean = self.mean + delta * b
        self.count += count

    @property
    def variance(self) -> Tensor:
        return self.second / (self.count - 1)

    @property
    def variance_error(self) -> Tensor:
        n = self.count
        kurtosis_part = self.fourth / n - (n - 3) / (n - 1) * self.variance**2
        return (kurtosis_part.clamp(min=0.0) / n).sqrt()
