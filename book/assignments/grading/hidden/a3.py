"""Assignment 3, reparameterization and SGVB: a Weibull q for positive latents and counts.

The truth comes from NumPy and SciPy: densities of `scipy.stats`, quadrature, and sums over all minibatches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
from numpy.random import Generator

from ..rubric import Ask, Code, Lost, Rubric, expect

Array = np.ndarray
rubric = Rubric("a3")


def pair(answer: object, what: str) -> tuple[object, object]:
    """Return the two parts of an answer."""
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise Lost(f"{what}: expected a pair, first for the shape k, then for the scale lambda")
    return answer[0], answer[1]


# The family.


def weibull(draw: Generator, *size: int) -> tuple[Array, Array]:
    """Return shapes and scales of some Weibull distributions."""
    return draw.uniform(1.2, 2.8, size), draw.uniform(0.4, 2.5, size)


def quantile(k: Array, lam: Array, u: Array) -> Array:
    """Return the draw that the noise u makes."""
    return np.asarray(lam * (-np.log1p(-u)) ** (1 / k))


def log_q(z: Array, k: Array, lam: Array) -> Array:
    """Return the log-density."""
    return np.asarray(scipy.stats.weibull_min.logpdf(z, k, scale=lam))


def path(z: Array, k: Array, lam: Array) -> tuple[Array, Array]:
    """Return the derivatives of a draw, with its noise held."""
    return -z / k * np.log(z / lam), z / lam


def score(z: Array, k: Array, lam: Array) -> tuple[Array, Array]:
    """Return the derivatives of the log-density, with z held."""
    t = (z / lam) ** k
    return 1 / k + np.log(z / lam) * (1 - t), k / lam * (t - 1)


@rubric.line("a3-family", points=1)
def draws(ask: Ask, draw: Generator) -> None:
    """`weibull_draw` is the inverse of the distribution function."""
    k, lam = weibull(draw, 3, 2)
    u = draw.uniform(0.02, 0.98, (5, 3, 2))
    t = -np.log1p(-u)
    expect(
        ask("weibull_draw", k, lam, u),
        quantile(k, lam, u),
        what="weibull_draw",
        slips={
            "the distribution is right, but this is F^-1(1 - u), not F^-1(u): check that z grows with u": (
                lam * (-np.log(u)) ** (1 / k)
            ),
            "the power is 1/k, not k: solve (z / lambda)^k = -log(1 - u) for z": lam * t**k,
            "lambda is a scale, so it multiplies; as a rate it would divide (chapter 4 has the exponential)": (
                t ** (1 / k) / lam
            ),
            "lambda stands outside of the power: (z / lambda)^k = -log(1 - u)": (lam * t) ** (1 / k),
        },
    )


@rubric.line("a3-family", points=1)
def small_noise(ask: Ask, draw: Generator) -> None:
    """`weibull_draw` is exact for very small u too."""
    k, lam = weibull(draw, 4)
    u = 10.0 ** draw.uniform(-19, -17, 4)
    expect(
        ask("weibull_draw", k, lam, u),
        quantile(k, lam, u),
        what="weibull_draw at u near 1e-18",
        slips={
            "this is 0, because 1 - u was rounded to 1 before the logarithm, and log 0 is next; "
            "torch.log1p(-u) does not round": 0.0
        },
        atol=0.0,
    )


@rubric.line("a3-family", points=2)
def density(ask: Ask, draw: Generator) -> None:
    """`weibull_log_prob` is the logarithm of the density, element by element."""
    k, lam = weibull(draw, 3, 2)
    z = draw.uniform(0.1, 3.0, (5, 3, 2))
    r = z / lam
    right = log_q(z, k, lam)
    expect(
        ask("weibull_log_prob", z, k, lam),
        right,
        what="weibull_log_prob",
        slips={
            "this is the density of z / lambda: the factor 1 / lambda of the change of variables is missing": (
                right + np.log(lam)
            ),
            "the sign of log lambda is wrong: a wide density is low": right + 2 * np.log(lam),
            "the factor k of the derivative of (z / lambda)^k is missing": right - np.log(k),
            "the power of z / lambda is k - 1, not k: differentiate F once more": right + np.log(r),
            "exp(-(z / lambda)^k) is missing": right + r**k,
            "this is the density; its logarithm is asked for": np.exp(right),
            "this is log F, and the density is the derivative of F": np.log(-np.expm1(-(r**k))),
        },
    )


# The path.


@rubric.line("a3-path", points=2)
def slopes_of_a_draw(ask: Ask, draw: Generator) -> None:
    """`path_slopes` says how a draw moves with the shape and with the scale."""
    k, lam = weibull(draw, 3)
    z = draw.uniform(0.1, 3.0, (4, 3))
    in_k, in_lam = pair(ask("path_slopes", z, k, lam), "path_slopes")
    right = path(z, k, lam)
    t = (z / lam) ** k
    slope_of_cdf = np.exp(-t) * t * np.log(z / lam), -np.exp(-t) * t * k / lam
    of_score = score(z, k, lam)
    for name, found, i in (("k", in_k, 0), ("lambda", in_lam, 1)):
        expect(
            found,
            right[i],
            what=f"path_slopes, in {name}",
            slips={
                "the sign is wrong: F(z) = u is held, so the two contributions cancel and leave a minus (chapter 4, "
                "implicit reparameterization)": -right[i],
                "this is the derivative of F at a fixed z; divide by minus the density": slope_of_cdf[i],
                "this is minus the derivative of F; it remains to divide by the density": -slope_of_cdf[i],
                "this is the score, which moves the density and holds z; the path holds the noise and moves z": (
                    of_score[i]
                ),
                "the two are the other way around: first the shape, then the scale": right[1 - i],
                "the logarithm is of z / lambda, not of z": [-z / k * np.log(z), z / lam][i],
            },
        )


FUNCTIONS: dict[str, tuple[str, Callable[[float, Array], tuple[Array, Array]]]] = {  # f, its slope, and both in NumPy
    "lambda z: torch.sin({a!r} * z)": (
        "lambda z: {a!r} * torch.cos({a!r} * z)",
        lambda a, z: (np.sin(a * z), a * np.cos(a * z)),
    ),
    "lambda z: {a!r} * z**3 - z": (
        "lambda z: 3 * {a!r} * z**2 - 1",
        lambda a, z: (a * z**3 - z, 3 * a * z**2 - 1),
    ),
    "lambda z: torch.log(1 + {a!r} * z)": (
        "lambda z: {a!r} / (1 + {a!r} * z)",
        lambda a, z: (np.log(1 + a * z), a / (1 + a * z)),
    ),
}


def some_function(draw: Generator) -> tuple[Code, Code, Array, Array, Array, Array, Array]:
    """Draw a function and a Weibull; return f, f', k, lambda, u and the values of f and f' at the draws."""
    source, (slope_source, values) = list(FUNCTIONS.items())[draw.integers(len(FUNCTIONS))]
    a = float(draw.uniform(0.5, 2.0))
    k, lam = weibull(draw)
    k, lam = np.asarray(k), np.asarray(lam)
    u = draw.uniform(0.02, 0.98, 7)
    f, slope = values(a, quantile(k, lam, u))
    return Code(source.format(a=a)), Code(slope_source.format(a=a)), k, lam, u, f, slope


@rubric.line("a3-path", points=1)
def pathwise(ask: Ask, draw: Generator) -> None:
    """`pathwise_gradient` gives one gradient for each sample."""
    _, slope_code, k, lam, u, _, slope = some_function(draw)
    found = pair(ask("pathwise_gradient", slope_code, k, lam, u), "pathwise_gradient")
    z = quantile(k, lam, u)
    moves, scores = path(z, k, lam), score(z, k, lam)
    for name, answer, move, one_score in zip(("k", "lambda"), found, moves, scores, strict=True):
        expect(
            answer,
            slope * move,
            what=f"pathwise_gradient, in {name}",
            slips={
                "the slope of f is missing, this is dz / dphi alone": move,
                "the slope of f goes with the path; this multiplies it with the score": slope * one_score,
                "the sign is wrong": -slope * move,
            },
        )


@rubric.line("a3-path", points=1)
def score_function(ask: Ask, draw: Generator) -> None:
    """`score_gradient` gives one gradient for each sample, from values of f alone."""
    f_code, _, k, lam, u, f, _ = some_function(draw)
    found = pair(ask("score_gradient", f_code, k, lam, u), "score_gradient")
    z = quantile(k, lam, u)
    moves, scores = path(z, k, lam), score(z, k, lam)
    log_density = log_q(z, k, lam)
    rest = -1 / k, k / lam  # what is left when the normaliser is forgotten
    for name, answer, move, one_score, forgotten in zip(("k", "lambda"), found, moves, scores, rest, strict=True):
        expect(
            answer,
            f * one_score,
            what=f"score_gradient, in {name}",
            slips={
                "f is missing, this is the score alone": one_score,
                "the score is multiplied with the log-density; it belongs to f": log_density * one_score,
                "f is multiplied with the path; the score-function gradient never moves z (chapter 3)": f * move,
                "log q has a term log k - k log lambda in front; its derivative is part of the score": (
                    f * (one_score + forgotten)
                ),
                "this is the derivative of f(z) log q(z) along the draw: z is a number here, it must not carry a "
                "derivative (detach it)": f * (one_score + move * _slope_of_log_q(z, k, lam)),
            },
        )


def _slope_of_log_q(z: Array, k: Array, lam: Array) -> Array:
    """Return the derivative of the log-density in z."""
    return np.asarray((k - 1) / z - k / z * (z / lam) ** k)


# Which is noisier.


def moment(k: float, power: float) -> float:
    """Return the average of (z / lambda)^power under a Weibull of shape k, by quadrature."""
    value, _ = scipy.integrate.quad(lambda t: t ** (power / k) * math.exp(-t), 0, np.inf, epsabs=1e-12, epsrel=1e-12)
    return float(value)


@rubric.line("a3-variance", points=2)
def powers(ask: Ask, draw: Generator) -> None:
    """`power_variances`: both variances for f(z) = z^p, in the scale, in closed form."""
    k, lam, p = float(draw.uniform(1.2, 2.8)), float(draw.uniform(0.5, 2.0)), float(draw.uniform(1.0, 3.0))
    answer = ask("power_variances", p, k, lam)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise Lost("power_variances: expected a pair, first the pathwise variance, then that of the score function")
    unit = lam ** (2 * p - 2)
    mean = p * moment(k, p)
    path_second = p**2 * moment(k, 2 * p)
    score_second = k**2 * (moment(k, 2 * p + 2 * k) - 2 * moment(k, 2 * p + k) + moment(k, 2 * p))
    right = unit * (path_second - mean**2), unit * (score_second - mean**2)
    second = unit * path_second, unit * score_second
    for name, found, i in (("pathwise", answer[0], 0), ("score function", answer[1], 1)):
        expect(
            found,
            right[i],
            what=f"power_variances, {name}",
            slips={
                "this is the second moment; the square of the mean has to come off": second[i],
                "this is the standard deviation": math.sqrt(right[i]),
                "the two are the other way around: first pathwise, then the score function": right[1 - i],
                "each derivative in lambda costs a power of lambda: lambda^(2p - 2), not lambda^(2p)": right[i]
                * lam**2,
                "this is right for lambda = 1 only": right[i] / unit,
            },
            rtol=1e-6,
        )


def cosine_variances(k: float, c: float, in_scale: bool = True) -> tuple[float, float]:
    """Return the variances of both gradients of E cos(cz) at scale 1, by the midpoint rule over the noise."""
    t = -np.log1p(-(np.arange(200_000) + 0.5) / 200_000)
    z = t ** (1 / k)
    i = 1 if in_scale else 0
    by_path = -c * np.sin(c * z) * path(z, np.asarray(k), np.asarray(1.0))[i]
    by_score = np.cos(c * z) * score(z, np.asarray(k), np.asarray(1.0))[i]
    return float(by_path.var()), float(by_score.var())


@rubric.line("a3-variance", points=2)
def crossing(ask: Ask, draw: Generator) -> None:
    """`crossing`: the frequency from which the score function is the quieter one, within 1 %."""
    k, lam = float(draw.uniform(1.2, 2.6)), float(draw.choice([0.4, 0.6, 1.8, 2.5]))

    def excess(c: float) -> float:
        by_path, by_score = cosine_variances(k, c)
        return by_path - by_score

    at_one = float(scipy.optimize.brentq(excess, 0.3, 6.0, xtol=1e-4))
    answer = ask("crossing", k, lam)
    if not isinstance(answer, int | float | np.ndarray) or np.size(answer) != 1:
        raise Lost(f"crossing: expected a number, found {type(answer).__name__}")
    expect(
        np.reshape(answer, ()),
        at_one / lam,
        what="crossing",
        slips={
            "this is the crossing for lambda = 1: only c times lambda matters, so a wide q needs a lower c": at_one,
            "the scale goes the other way: only c times lambda matters, so divide by it": at_one * lam,
        },
        rtol=0.01,
    )


# The bounds.


class Model:
    """Some images of counts under a drawn decoder, gamma prior, and a Weibull q for each latent of each image."""

    def __init__(self, draw: Generator, *, dark: bool = False) -> None:
        self.samples, self.batch, self.latents, self.pixels = 3, 2, 2, 5
        self.weight = draw.uniform(0.1, 1.5, (self.latents, self.pixels))
        self.prior_shape = 1.0 if dark else float(draw.uniform(1.5, 3.0))
        self.prior_rate = float(draw.uniform(0.5, 1.8))
        self.x = np.zeros((self.batch, self.pixels)) if dark else draw.poisson(2.0, (self.batch, self.pixels)) + 0.0
        self.k, self.lam = weibull(draw, self.batch, self.latents)
        self.u = draw.uniform(0.05, 0.95, (self.samples, self.batch, self.latents))

    @property
    def arguments(self) -> tuple[object, ...]:
        """The arguments of the estimators, in their order."""
        return self.x, self.weight, self.k, self.lam, self.prior_shape, self.prior_rate, self.u

    @property
    def z(self) -> Array:
        """The draws."""
        return quantile(self.k, self.lam, self.u)

    def likelihood(self) -> Array:
        """Return log p(x | z) of each pixel."""
        return np.asarray(scipy.stats.poisson.logpmf(self.x, self.z @ self.weight))

    def prior(self) -> Array:
        """Return log p(z) of each latent."""
        return np.asarray(scipy.stats.gamma.logpdf(self.z, self.prior_shape, scale=1 / self.prior_rate))

    def prior_as_scale(self) -> Array:
        """Return the same with the rate taken for a scale."""
        return np.asarray(scipy.stats.gamma.logpdf(self.z, self.prior_shape, scale=self.prior_rate))

    def kl(self, *, rate: float | None = None, reverse: bool = False) -> Array:
        """Return the KL of each latent, by quadrature."""
        q = scipy.stats.weibull_min(self.k, scale=self.lam)
        prior = scipy.stats.gamma(self.prior_shape, scale=1 / (rate or self.prior_rate))
        first, second = (prior, q) if reverse else (q, prior)

        def integrand(z: float) -> Array:
            return np.asarray(first.pdf(z) * (first.logpdf(z) - second.logpdf(z)))

        return np.asarray(scipy.integrate.quad_vec(integrand, 0, np.inf, epsabs=1e-10, epsrel=1e-10)[0])


@rubric.line("a3-sgvb", points=1)
def divergence(ask: Ask, draw: Generator) -> None:
    """`kl_to_gamma`: the KL from q to the prior, in closed form, summed over the latents."""
    m = Model(draw)
    right = m.kl()
    euler = np.euler_gamma
    spread = (m.k - 1) / m.k * euler  # where Euler's constant enters, through q and through the prior
    entering = -spread + (m.prior_shape - 1) / m.k * euler
    expect(
        ask("kl_to_gamma", m.k, m.lam, m.prior_shape, m.prior_rate),
        right.sum(-1),
        what="kl_to_gamma",
        slips={
            "the KL is summed over the latents, not averaged (chapter 5)": right.mean(-1),
            "the sign is wrong: a KL is never negative": -right.sum(-1),
            "this takes the rate of the prior for its scale": m.kl(rate=1 / m.prior_rate).sum(-1),
            "this is the KL from the prior to q; the ELBO has the other one (chapter 1)": m.kl(reverse=True).sum(-1),
            "the average of log z is log lambda minus Euler's constant over k; the sign of the constant is wrong": (
                (right - 2 * entering).sum(-1)
            ),
            "the normaliser of the prior, log Gamma(alpha), is missing": (
                (right - scipy.special.gammaln(m.prior_shape)).sum(-1)
            ),
            "the normaliser of the prior, alpha log beta, is missing": (
                (right + m.prior_shape * math.log(m.prior_rate)).sum(-1)
            ),
        },
        rtol=1e-6,
        atol=1e-7,
    )


@rubric.line("a3-sgvb", points=2)
def estimator_a(ask: Ask, draw: Generator) -> None:
    """`sgvb_a`: log p(x, z) - log q(z) of each draw and image."""
    m = Model(draw)
    pixels, prior, q = m.likelihood(), m.prior(), log_q(m.z, m.k, m.lam)
    right = pixels.sum(-1) + prior.sum(-1) - q.sum(-1)
    expect(
        ask("sgvb_a", *m.arguments),
        right,
        what="sgvb_a",
        slips={
            "log x! is missing in the Poisson distribution: constant in z, but part of log p(x, z)": (
                right + scipy.special.gammaln(m.x + 1).sum(-1)
            ),
            "the prior is missing: it is log p(x, z), not log p(x | z)": pixels.sum(-1) - q.sum(-1),
            "the sign of log q is wrong: it is subtracted": pixels.sum(-1) + prior.sum(-1) + q.sum(-1),
            "log q is missing": pixels.sum(-1) + prior.sum(-1),
            "pixels are summed, not averaged (chapter 5)": pixels.mean(-1) + prior.sum(-1) - q.sum(-1),
            "everything is averaged where it should be summed (chapter 5)": (
                pixels.mean(-1) + prior.mean(-1) - q.mean(-1)
            ),
            "latents are summed, not averaged": pixels.sum(-1) + prior.mean(-1) - q.mean(-1),
            "the prior has a rate, beta, not a scale": pixels.sum(-1) + m.prior_as_scale().sum(-1) - q.sum(-1),
            "this is estimator B: here the KL is sampled, too": pixels.sum(-1) - m.kl().sum(-1),
        },
    )


@rubric.line("a3-sgvb", points=1)
def estimator_b(ask: Ask, draw: Generator) -> None:
    """`sgvb_b`: the KL in closed form, the rest sampled."""
    m = Model(draw)
    pixels, divergences = m.likelihood(), m.kl()
    right = pixels.sum(-1) - divergences.sum(-1)
    expect(
        ask("sgvb_b", *m.arguments),
        right,
        what="sgvb_b",
        slips={
            "the sign of the KL is wrong: it is subtracted": pixels.sum(-1) + divergences.sum(-1),
            "the prior is counted twice: the KL contains it, so the rest is log p(x | z) alone": (
                right + m.prior().sum(-1)
            ),
            "this is estimator A: here the KL has its closed form": (
                pixels.sum(-1) + m.prior().sum(-1) - log_q(m.z, m.k, m.lam).sum(-1)
            ),
            "log x! is missing in the Poisson distribution": right + scipy.special.gammaln(m.x + 1).sum(-1),
            "the KL is summed over latents, not averaged": pixels.sum(-1) - divergences.mean(-1),
            "pixels are summed, not averaged": pixels.mean(-1) - divergences.sum(-1),
        },
        rtol=1e-6,
        atol=1e-7,
    )


# Sticking the landing.


def landing_truth(m: Model) -> dict[str, tuple[Array, Array]]:
    """Return the gradients of sticking the landing in shape and scale, and those of the slips."""
    z = m.z
    of_likelihood = np.einsum("ld,sbd->sbl", m.weight, m.x / (z @ m.weight) - 1)
    of_prior = (m.prior_shape - 1) / z - m.prior_rate
    bracket = of_likelihood + of_prior - _slope_of_log_q(z, m.k, m.lam)
    moves, scores = path(z, m.k, m.lam), score(z, m.k, m.lam)
    return {
        "right": (moves[0] * bracket, moves[1] * bracket),
        "total": (moves[0] * bracket - scores[0], moves[1] * bracket - scores[1]),
        "score": (-scores[0], -scores[1]),
        "joint": (moves[0] * (of_likelihood + of_prior), moves[1] * (of_likelihood + of_prior)),
        "slope": (bracket, bracket),
    }


def check_landing(ask: Ask, m: Model, what: str) -> None:
    """Ask for the gradients and compare them."""
    found = pair(ask("landing_gradient", *m.arguments), what)
    truth = landing_truth(m)
    for i, name in enumerate(("k", "lambda")):
        right = truth["right"][i]
        expect(
            found[i],
            right,
            what=f"{what}, in {name}",
            slips={
                "this is the total derivative of A, with its score: hold shape and scale inside log q (detach them "
                "there) and let only the draw move (chapter 4)": truth["total"][i],
                "this is minus the score, the very term that is to be dropped: the draw was detached, and the "
                "parameters inside log q were not": truth["score"][i],
                "log q is missing along the path: hold its parameters, not its z": truth["joint"][i],
                "this is the slope in z; it remains to multiply it by dz / dphi": truth["slope"][i],
                "the sign is wrong: this is a gradient to climb": -right,
            },
            atol=1e-8,
        )


@rubric.line("a3-landing", points=1)
def anywhere(ask: Ask, draw: Generator) -> None:
    """`landing_gradient`: the path alone, sample by sample, at some q."""
    check_landing(ask, Model(draw), "landing_gradient")


@rubric.line("a3-landing", points=1)
def at_the_posterior(ask: Ask, draw: Generator) -> None:
    """It is zero for every sample where q is the posterior, and not zero beside it."""
    m = Model(draw, dark=True)
    check_landing(ask, m, "landing_gradient of a dark image, beside its posterior")
    m.k = np.ones_like(m.k)
    m.lam = np.broadcast_to(1 / (m.prior_rate + m.weight.sum(-1)), m.k.shape).copy()
    check_landing(ask, m, "landing_gradient at the posterior of a dark image, where every sample gives zero")


# Minibatches.


@rubric.line("a3-minibatch", points=1)
def scaling(ask: Ask, draw: Generator) -> None:
    """`bound_of_batch`: an unbiased estimate of the bound of the whole data set."""
    values, n = draw.normal(-20.0, 3.0, (4, 6)), int(draw.integers(50, 500))
    mean, batch = values.mean(0).sum(), values.shape[1]
    expect(
        ask("bound_of_batch", values, n),
        n / batch * mean,
        what="bound_of_batch",
        slips={
            "this is the sum over the batch; N / M is missing": mean,
            "this is the average over the batch: the bound is a sum over all N images": mean / batch,
            "the samples are averaged, not summed": n / batch * values.sum(),
            "this is N times the sum over the batch: the M images stand for all N, so divide by M": n * mean,
            "M is the number of images, the second axis; the first holds the samples": n / len(values) * mean,
            "M / N is the wrong way around": batch / n * mean,
        },
    )


@rubric.line("a3-minibatch", points=1)
def noise_of_a_batch(ask: Ask, draw: Generator) -> None:
    """`batch_variance`: its two sources of noise, against a sum over all minibatches."""
    n, batch, samples = 7, int(draw.integers(2, 6)), int(draw.integers(2, 5))
    means, variances = draw.normal(-20.0, 3.0, n), draw.uniform(0.5, 4.0, n)
    batches = np.array(list(itertools.combinations(range(n), batch)))
    given = n / batch * means[batches].sum(1)  # the mean of the estimate, given the batch
    spread = (n / batch) ** 2 * (variances[batches] / samples).sum(1)  # its variance, given the batch
    from_images, from_draws = float(given.var()), float(spread.mean())
    correction = (n - batch) / (n - 1)
    expect(
        ask("batch_variance", means, variances, batch, samples),
        from_images + from_draws,
        what="batch_variance",
        slips={
            "this is the variance with images that may repeat: a batch holds different ones, so (N - M) / (N - 1) "
            "belongs to the part of the images": from_images / correction + from_draws,
            "the correction (N - M) / (N - 1) belongs to the images only; draws are always fresh": (
                from_images + correction * from_draws
            ),
            "the bound is a sum over N images; this is the variance of their average (N^2 is missing)": (
                (from_images + from_draws) / n**2
            ),
            "more draws do not quieten the choice of images: S divides the second part only": (
                from_images / samples + from_draws
            ),
            "S draws are averaged, so their variance is divided by S": from_images + samples * from_draws,
            "the spread of the N images is that of a whole population: divide by N, not by N - 1 (torch.var divides by "
            "N - 1 unless told otherwise)": from_images * n / (n - 1) + from_draws,
            "the part of the images is missing": from_draws,
            "the part of the draws is missing": from_images,
        },
    )
