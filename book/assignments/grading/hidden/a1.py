"""Assignment 1: the identity for a precision with a Gamma prior and a log-normal q. The truth comes from SciPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy import integrate, special, stats

from ..rubric import Ask, Code, Lost, Rubric, expect

rubric = Rubric("a1")

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Box:
    """A box of instruments, drawn for this grading, and a log-normal q for each of them."""

    x: np.ndarray
    scale: np.ndarray
    a: float
    b: float
    mu: np.ndarray
    logvar: np.ndarray

    @property
    def model(self) -> tuple[Any, ...]:
        """The first four arguments of the student's functions."""
        return self.x, self.scale, self.a, self.b

    @property
    def q(self) -> tuple[np.ndarray, np.ndarray]:
        """The parameters of q."""
        return self.mu, self.logvar

    @property
    def targets(self) -> int:
        """D."""
        return int(self.x.shape[1])

    @property
    def squares(self) -> np.ndarray:
        """The sum of the squared errors, in units of the targets' scales, (B,)."""
        return np.asarray(((self.x / self.scale) ** 2).sum(1))

    @property
    def shape(self) -> float:
        """The posterior's first parameter."""
        return self.a + self.targets / 2

    @property
    def rate(self) -> np.ndarray:
        """The posterior's second parameter, (B,)."""
        return np.asarray(self.b + self.squares / 2)

    @property
    def evidence(self) -> np.ndarray:
        """log p(x): a multivariate Student density, by SciPy."""
        width = np.diag(self.scale**2) * self.b / self.a
        return np.atleast_1d(stats.multivariate_t(np.zeros(self.targets), width, df=2 * self.a).logpdf(self.x))

    def log_joint(self, z: np.ndarray, log_z: np.ndarray | None = None) -> np.ndarray:
        """Log p(x, z), linear in z and in log z: so its averages are those of the two."""
        log_z = np.log(z) if log_z is None else log_z
        likelihood = self.targets / 2 * log_z - np.log(self.scale).sum() - self.targets * HALF_LOG_2PI
        prior = self.a * math.log(self.b) - special.gammaln(self.a) + (self.a - 1) * log_z - self.b * z
        return np.asarray(likelihood - 0.5 * z * self.squares + prior)


def draw_box(draw: Generator, instruments: int = 3, targets: int = 4) -> Box:
    """Draw a box, with nothing at a convenient value."""
    a, b = float(draw.uniform(1.3, 4.0)), float(draw.choice([draw.uniform(0.3, 0.7), draw.uniform(1.6, 3.0)]))
    scale = np.exp(draw.uniform(0.2, 0.9, targets) * draw.choice([-1, 1]))
    z = draw.gamma(a, 1 / b, instruments)
    x = scale * draw.standard_normal((instruments, targets)) / np.sqrt(z)[:, None]
    mu = draw.uniform(0.2, 0.9, instruments) * draw.choice([-1, 1], instruments)
    return Box(x, scale, a, b, mu, draw.uniform(-2.0, -0.5, instruments))


def two(answer: Any, function: str, names: str) -> tuple[Any, Any]:
    """Return the two parts of an answer that should be a tuple of two."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Lost(f"{function} returns a tuple of two tensors, {names}")
    return answer[0], answer[1]


# Part 1


@rubric.line("a1-exact", points=2)
def posterior(ask: Ask, draw: Generator) -> None:
    """The posterior's two parameters."""
    box = draw_box(draw, instruments=3, targets=5)
    shape, rate = two(ask("posterior", *box.model), "posterior", "shape and rate")
    raw = (box.x**2).sum(1)
    expect(
        shape,
        np.full(3, box.shape),
        what="the posterior's shape",
        slips={
            "each reading adds a half, for its density has a factor z^(1/2): the 1/2 is missing": box.a + 5,
            "a half for one reading only; there are D of them": box.a + 0.5,
            "this is the prior's shape: every reading multiplies the density by z^(1/2)": box.a,
        },
    )
    expect(
        rate,
        box.rate,
        what="the posterior's rate",
        slips={
            "the 1/2 in the exponent of the normal density is missing": box.b + box.squares,
            "the scales of the targets are missing: the variance of reading d is s_d^2 / z": box.b + raw / 2,
            "divide by the squared scale: s_d^2 / z is a variance, so s_d is a length": box.b
            + (box.x**2 / box.scale).sum(1) / 2,
            "b is a rate, and you added to its inverse, which is a scale": 1 / box.b + box.squares / 2,
            "this is the posterior's scale; asked is its rate": 1 / box.rate,
            "the mean over the readings, not their sum: each of the D readings brings its own square": box.b
            + box.squares / 10,
        },
    )


@rubric.line("a1-exact", points=2)
def evidence(ask: Ask, draw: Generator) -> None:
    """The log evidence, with every constant."""
    for targets in (1, 6):
        box = draw_box(draw, instruments=4, targets=targets)
        right, logs = box.evidence, np.log(box.scale).sum()

        def with_posterior(shape: ArrayLike, rate: ArrayLike, box: Box = box) -> np.ndarray:
            """The closed form, with other parameters of the posterior."""
            prior = box.a * math.log(box.b) - special.gammaln(box.a) - box.targets * HALF_LOG_2PI
            return np.asarray(
                prior - np.log(box.scale).sum() + special.gammaln(shape) - np.asarray(shape) * np.log(rate)
            )

        expect(
            ask("log_evidence", *box.model),
            right,
            what=f"log p(x), D = {targets}",
            slips={
                "log 2 pi is missing: D / 2 of them, and without them it is no density of x (chapter 1, What goes "
                "wrong)": right + targets * HALF_LOG_2PI,
                "half a log 2 pi is counted once; there is one for each of the D readings": right
                + (targets - 1) * HALF_LOG_2PI,
                "the scales are missing from the constant: a density of x_d has a factor 1 / s_d": right + logs,
                "the factor 1 / s_d is counted as 1 / s_d^2": right - logs,
                "the prior's constant b^a / Gamma(a) is missing": right
                - box.a * math.log(box.b)
                + special.gammaln(box.a),
                "the prior's b^a is missing: it vanishes only at b = 1": right - box.a * math.log(box.b),
                "the sign is turned: this is -log p(x), and chapter 1 maximises log p(x)": -right,
                "this is the sum over the instruments; asked is one number for each": right.sum(),
                "it would be right if the posterior's shape were a + D: mend `posterior` first": with_posterior(
                    box.a + targets, box.rate
                ),
                "it would be right if the posterior's rate had no 1/2: mend `posterior` first": with_posterior(
                    box.shape, box.b + box.squares
                ),
                "it has the posterior's scale in place of its rate: mend `posterior` first": with_posterior(
                    box.shape, 1 / box.rate
                ),
            },
        )


# Part 2


@rubric.line("a1-draws", points=2)
def weights(ask: Ask, draw: Generator) -> None:
    """The log-weight of every draw and instrument."""
    for targets in (1, 4):
        box = draw_box(draw, targets=targets)
        eps = draw.standard_normal((5, 3))

        def log_w(std: np.ndarray, noise: np.ndarray = eps, box: Box = box) -> np.ndarray:
            log_z = box.mu + std * noise
            log_q = stats.norm.logpdf(noise) - np.log(std) - log_z
            return np.asarray(box.log_joint(np.exp(log_z)) - log_q)

        std = np.exp(box.logvar / 2)
        log_z = box.mu + std * eps
        right, log_q = log_w(std), stats.norm.logpdf(eps) - np.log(std) - log_z
        expect(
            ask("log_weights", *box.model, *box.q, eps),
            right,
            what=f"the log-weights, D = {targets}",
            slips={
                "this is the density of log z, not of z: a change of variables brings the factor 1 / z, so log q has "
                "a term -log z. Without it E[w] is not p(x) (chapter 1, the third route)": right - log_z,
                "the Jacobian has the wrong sign: q(z) is the normal density of log z divided by z": right - 2 * log_z,
                "logvar was taken for the log of the standard deviation: sigma is exp(logvar / 2)": log_w(
                    np.exp(box.logvar)
                ),
                "z = exp(mu) for every draw, without the noise: at z = mu it is no expectation over q (chapter 1, What "
                "goes wrong)": box.log_joint(np.exp(box.mu))
                - (stats.norm.logpdf(0) - box.logvar / 2 - box.mu)
                + 0 * eps,
                "log q is added; the weight is p(x, z) over q(z), so it is subtracted": right + 2 * log_q,
                "log q is missing: this is log p(x, z)": right + log_q,
                "the prior is missing: the joint is p(x | z) p(z)": right
                - stats.gamma.logpdf(np.exp(log_z), box.a, scale=1 / box.b),
                "log 2 pi is missing from the D readings": right + targets * HALF_LOG_2PI,
                "the scales are missing from the constant: a density of x_d has a factor 1 / s_d": right
                + np.log(box.scale).sum(),
                "the mean over the readings, not their sum: the D readings are independent, so their logs add": right
                - (1 - 1 / targets)
                * (box.log_joint(np.exp(log_z)) - stats.gamma.logpdf(np.exp(log_z), box.a, scale=1 / box.b)),
            },
        )


@rubric.line("a1-draws", points=1)
def averages(ask: Ask, draw: Generator) -> None:
    """The average of the logs, and the log of the average."""
    log_w = draw.normal(-3, 1.5, (7, 4))
    mean_log, log_mean = log_w.mean(0), special.logsumexp(log_w, axis=0) - math.log(7)
    bound, evidence = two(ask("two_averages", log_w), "two_averages", "ELBO and log p(x)")
    expect(
        bound,
        mean_log,
        what="the estimate of the ELBO",
        slips={
            "this is the log of the average weight, which estimates log p(x); the ELBO is the average of the "
            "log (chapter 1, the third route)": log_mean,
            "this is the sum over the draws, not the mean": log_w.sum(0),
        },
    )
    expect(
        evidence,
        log_mean,
        what="the estimate of log p(x)",
        slips={
            "this is the average of the log-weights, which estimates the ELBO; average the weights first (chapter 1, "
            "the third route)": mean_log,
            "this is the log of the sum: log S is missing": log_mean + math.log(7),
            "this is the average weight itself; asked is its logarithm": np.exp(log_mean),
        },
    )


@rubric.line("a1-draws", points=1)
def far_away(ask: Ask, draw: Generator) -> None:
    """Both averages survive log-weights of minus and plus a few thousand."""
    log_w = draw.normal(0, 2, (6, 2)) + np.array([-3000.0, 2500.0])
    bound, evidence = two(ask("two_averages", log_w), "two_averages", "ELBO and log p(x)")
    if not np.isfinite(np.asarray(evidence, dtype=float)).all():
        raise Lost(
            "log-weights near -3000 or 2500: exp of them is 0 or infinite in float64. Take out the largest first, as "
            "torch.logsumexp does"
        )
    expect(bound, log_w.mean(0), what="the estimate of the ELBO, far from zero")
    expect(evidence, special.logsumexp(log_w, axis=0) - math.log(6), what="the estimate of log p(x), far from zero")


# Part 3


def exact_elbo(box: Box) -> np.ndarray:
    """Average log p - log q over q by quadrature, so that no closed form is believed."""
    nodes, mass = special.roots_hermitenorm(120)
    log_z = box.mu + np.exp(box.logvar / 2) * nodes[:, None]
    log_q = stats.norm.logpdf(nodes)[:, None] - box.logvar / 2 - log_z
    return np.asarray((mass / mass.sum()) @ (box.log_joint(np.exp(log_z), log_z) - log_q))


def with_mean(box: Box, mean_z: np.ndarray, mean_log_z: np.ndarray) -> np.ndarray:
    """The closed form with other averages of z and log z; the entropy is the right one."""
    entropy = box.mu + HALF_LOG_2PI + 0.5 * (box.logvar + 1)
    return np.asarray(box.log_joint(mean_z, mean_log_z) + entropy)


@rubric.line("a1-identity", points=2)
def elbo(ask: Ask, draw: Generator) -> None:
    """The exact ELBO."""
    for targets in (1, 5):
        box = draw_box(draw, targets=targets)
        right, mean_z = exact_elbo(box), np.exp(box.mu + np.exp(box.logvar) / 2)
        expect(
            ask("elbo", *box.model, *box.q),
            right,
            what=f"the ELBO, D = {targets}",
            slips={
                "E[z] is taken as exp(mu), which is the median: the mean of a log-normal is larger, and z = mu gives "
                "no bound (chapter 1, What goes wrong)": with_mean(box, np.exp(box.mu), box.mu),
                "logvar was taken for the variance in E[z]": with_mean(box, np.exp(box.mu + box.logvar / 2), box.mu),
                "E[z] has the whole variance in its exponent; half of it belongs there": with_mean(
                    box, np.exp(box.mu + np.exp(box.logvar)), box.mu
                ),
                "logvar was taken for the log of the standard deviation": with_mean(
                    box, np.exp(box.mu + np.exp(2 * box.logvar) / 2), box.mu
                )
                + box.logvar / 2,
                "E[log z] is taken as log E[z]; the log of an average is not the average of the log": with_mean(
                    box, mean_z, np.log(mean_z)
                ),
                "the entropy is that of log z; the density of z has the factor 1 / z, which adds E[log z]": right
                - box.mu,
                "the entropy has its E[log z] with the wrong sign": right - 2 * box.mu,
                "the entropy has lost its constant (1 + log 2 pi) / 2": right - HALF_LOG_2PI - 0.5,
                "the entropy has lost its 1/2: its other constant is there": right - 0.5,
                "the entropy is missing: this is E[log p(x, z)]": right
                - (box.mu + HALF_LOG_2PI + 0.5 * (box.logvar + 1)),
                "log 2 pi is missing from the D readings": right + targets * HALF_LOG_2PI,
                "the scales are missing from the constant: a density of x_d has a factor 1 / s_d": right
                + np.log(box.scale).sum(),
                "the prior's constant b^a / Gamma(a) is missing": right
                - box.a * math.log(box.b)
                + special.gammaln(box.a),
                "this is log p(x), whatever q is: the ELBO depends on q": box.evidence,
                "the sign is turned: this is the loss, the ELBO is maximised": -right,
            },
        )


def kl_lognormal_gamma(mu: float, logvar: float, shape: float, rate: float) -> tuple[float, float]:
    """KL(log-normal || Gamma) and KL(Gamma || log-normal), both by quadrature over log z."""
    std = math.exp(logvar / 2)

    def log_q(t: float) -> float:
        return float(stats.norm.logpdf(t, mu, std))

    def log_p(t: float) -> float:
        return float(shape * math.log(rate) - special.gammaln(shape) + shape * t - rate * math.exp(t))

    options: dict[str, Any] = {"epsabs": 0.0, "epsrel": 1e-11, "limit": 400}
    reverse, _ = integrate.quad(
        lambda t: math.exp(log_q(t)) * (log_q(t) - log_p(t)), mu - 11 * std, mu + 11 * std, **options
    )
    # The Gamma density in log z has the long tail to the left.
    centre, width = math.log(shape / rate), 1 / math.sqrt(shape)
    forward, _ = integrate.quad(
        lambda t: math.exp(log_p(t)) * (log_p(t) - log_q(t)),
        centre - 12 * width - 20 / shape,
        centre + 9 * width,
        points=[centre],
        **options,
    )
    return float(reverse), float(forward)


@rubric.line("a1-identity", points=2)
def kl(ask: Ask, draw: Generator) -> None:
    """The KL from q to a Gamma density."""
    shape, rate = draw.uniform(1.5, 6.0, 3), draw.uniform(1.4, 4.0, 3)
    mu, logvar = np.log(shape / rate) + draw.uniform(-0.8, 0.8, 3), draw.uniform(-2.0, -0.3, 3)
    both = np.array([kl_lognormal_gamma(*map(float, four)) for four in zip(mu, logvar, shape, rate, strict=True)])
    right, forward = both.T
    var = np.exp(logvar)
    log_height = shape * np.log(rate) - special.gammaln(shape)
    expect(
        ask("kl_to_posterior", mu, logvar, shape, rate),
        right,
        what="KL(q || Gamma)",
        slips={
            "this is KL(Gamma || q), the other direction: the average is over q (chapter 1, Two directions)": forward,
            "the sign is turned: a KL is never negative": -right,
            "the Gamma density's constant is missing, so this is no distance to a density": right + log_height,
            "beta is taken as a scale; here it is a rate": right
            + log_height
            - rate * np.exp(mu + var / 2)
            + (shape * np.log(rate) + special.gammaln(shape))
            + np.exp(mu + var / 2) / rate,
            "E[z] is taken as exp(mu), which is the median: the mean of a log-normal is larger": right
            - rate * (np.exp(mu + var / 2) - np.exp(mu)),
            "the entropy is that of log z; the density of z has the factor 1 / z, which adds E[log z]": right + mu,
            "this is the cross-entropy alone: the entropy of q is missing": right
            + mu
            + HALF_LOG_2PI
            + 0.5 * (logvar + 1),
        },
    )


@rubric.line("a1-identity", points=1)
def identity(ask: Ask, draw: Generator) -> None:
    """ELBO + KL = log p(x) to 1e-10, with log p(x) from elsewhere."""
    for targets in (1, 2, 30):
        box = draw_box(draw, instruments=6, targets=targets)
        bound = np.asarray(ask("elbo", *box.model, *box.q), dtype=float)
        gap = np.asarray(ask("kl_to_posterior", *box.q, np.full(6, box.shape), box.rate), dtype=float)
        if bound.shape != (6,) or gap.shape != (6,):
            raise Lost(f"ELBO and KL of six instruments have the shapes {bound.shape} and {gap.shape}, expected (6,)")
        off = float(np.abs(bound + gap - box.evidence).max())
        if not off < 1e-10 * max(1.0, float(np.abs(box.evidence).max())):
            raise Lost(
                f"ELBO + KL misses log p(x) by {off:.3g} nats at D = {targets}. If this is the same for every q, "
                "a constant is wrong; if it moves with mu or sigma, an average of z or log z is (chapter 1)"
            )
        if not np.allclose(bound, exact_elbo(box), rtol=1e-8, atol=1e-8):
            raise Lost("ELBO + KL is log p(x), but the ELBO is not right, so the KL makes up for it: mend `elbo` first")


# Part 4


@rubric.line("a1-directions", points=2)
def reverse(ask: Ask, draw: Generator) -> None:
    """The log-normal with the highest ELBO."""
    shape, rate = draw.uniform(0.7, 8.0, 4), draw.uniform(0.3, 5.0, 4)
    mu, logvar = two(ask("best_reverse", shape, rate), "best_reverse", "mu and logvar")
    curvature, mean_log = -np.log(shape), special.digamma(shape) - np.log(rate)
    matched = np.log1p(1 / shape)
    expect(
        logvar,
        curvature,
        what="the best log variance, reverse KL",
        slips={
            "this matches the moments of log z, which is the optimum of the forward KL: here the average is over q "
            "(chapter 1, Two directions)": np.log(special.polygamma(1, shape)),
            "this matches the variance of z; the reverse KL matches no moments": np.log(matched),
            "this is the log of the standard deviation; asked is the log of the variance": curvature / 2,
            "this is the variance; asked is its logarithm": 1 / shape,
            "this is the log of the precision of log z: the sign is turned": -curvature,
        },
    )
    expect(
        mu,
        np.log(shape / rate) - 0.5 / shape,
        what="the best mu, reverse KL",
        slips={
            "this is where the posterior of log z is highest, as if q had no width: half the variance is missing, "
            "because it is E[z] that must be right, and E[z] is above exp(mu)": np.log(shape / rate),
            "this is the posterior's E[log z], the optimum of the forward KL (chapter 1, Two directions)": mean_log,
            "this matches the mean and the variance of z; the reverse KL matches no moments": np.log(shape / rate)
            - matched / 2,
            "half the variance is added; E[z] = exp(mu + sigma^2 / 2), so it is subtracted": np.log(shape / rate)
            + 0.5 / shape,
        },
    )


@rubric.line("a1-directions", points=1)
def forward(ask: Ask, draw: Generator) -> None:
    """The log-normal with the lowest forward KL."""
    shape, rate = draw.uniform(0.7, 8.0, 4), draw.uniform(0.3, 5.0, 4)
    mu, logvar = two(ask("best_forward", shape, rate), "best_forward", "mu and logvar")
    matched = np.log1p(1 / shape)
    sentence = (
        "this matches the mean and the variance of z. Log q is a parabola in log z, so it is the moments of log z "
        "that count (chapter 1, Why the forward optimum matches moments)"
    )
    other = (
        "this is the optimum of the reverse KL; the forward one averages over the posterior (chapter 1, Two directions)"
    )
    spread = special.polygamma(1, shape)
    expect(
        mu,
        special.digamma(shape) - np.log(rate),
        what="the best mu, forward KL",
        slips={
            sentence: np.log(shape / rate) - matched / 2,
            other: np.log(shape / rate) - 0.5 / shape,
            "this is log E[z]; what is matched is E[log z]": np.log(shape / rate),
            "this is the mean of z; what is matched is that of log z": shape / rate,
        },
    )
    expect(
        logvar,
        np.log(spread),
        what="the best log variance, forward KL",
        slips={
            sentence: np.log(matched),
            other: -np.log(shape),
            "this is the variance; asked is its logarithm": spread,
            "this is the log of the standard deviation; asked is the log of the variance": np.log(spread) / 2,
            "this is the variance of z; what is matched is that of log z": np.log(shape / rate**2),
        },
    )


@rubric.line("a1-directions", points=1)
def gap(ask: Ask, draw: Generator) -> None:
    """What the best log-normal still loses."""
    shape = draw.uniform(0.6, 20.0, 5)
    right = special.gammaln(shape) - ((shape - 0.5) * np.log(shape) - shape + HALF_LOG_2PI)
    mu, rate = special.digamma(shape), np.ones(5)
    logvar = np.log(special.polygamma(1, shape))
    at_forward = [kl_lognormal_gamma(*map(float, four))[0] for four in zip(mu, logvar, shape, rate, strict=True)]
    at_plain = [kl_lognormal_gamma(math.log(s), -math.log(s), float(s), 1.0)[0] for s in shape]
    expect(
        ask("smallest_gap", shape),
        right,
        what="the smallest gap",
        slips={
            "this is the first term of a series for it; asked is the gap itself": 1 / (12 * shape),
            "the sign is turned: log p(x) is above every ELBO, so the gap is positive": -right,
            "this is the reverse KL at the optimum of the forward one": np.array(at_forward),
            "this is the gap at mu = log(alpha / beta), which is not the best mu": np.array(at_plain),
            "half a log 2 pi is missing": right + HALF_LOG_2PI,
        },
        atol=1e-8,
    )


# Part 5

AVERAGE = "(mu + torch.exp(logvar) / 2).exp()"
JOINT = """(
    x.shape[1] / 2 * (log_z - math.log(2 * math.pi)) - scale.log().sum() - z * ((x / scale) ** 2).sum(-1) / 2
    + a * math.log(b) - math.lgamma(a) + (a - 1) * log_z - b * z
)"""
ENTROPY = "(mu + (math.log(2 * math.pi) + logvar + 1) / 2)"


def variant(change: str = "0", *, z: str = AVERAGE, joint: str = JOINT, entropy: str = ENTROPY) -> Code:
    """Source of a function with the arguments of ``elbo``, right but for what is changed."""
    return Code(
        f"lambda x, scale, a, b, mu, logvar: (lambda z, log_z: {joint} + {entropy} + ({change}))({z}, mu + 0 * logvar)"
    )


TO_PRIOR = f"(math.lgamma(a) - a * math.log(b) - (a - 1) * mu + b * {AVERAGE} - {ENTROPY})"
# Handed to the audit, so that no slip of an earlier part counts twice.
EVIDENCE = Code(
    "lambda x, scale, a, b: (lambda shape, rate: math.lgamma(shape) - shape * rate.log() + a * math.log(b) "
    "- math.lgamma(a) - x.shape[1] / 2 * math.log(2 * math.pi) - scale.log().sum()"
    ")(a + x.shape[1] / 2, b + ((x / scale) ** 2).sum(-1) / 2)"
)
GAP = Code(
    "lambda x, scale, a, b, mu, logvar: (lambda shape, rate: "
    f"math.lgamma(shape) - shape * rate.log() - (shape - 1) * mu + rate * {AVERAGE} - {ENTROPY}"
    ")(a + x.shape[1] / 2, b + ((x / scale) ** 2).sum(-1) / 2)"
)

# Another road to the same number: log p(x) minus the KL, and one with the terms in another order.
RIGHT = {
    "the same function in other words": variant(),
    "log p(x) minus the KL to the posterior": Code(
        "lambda x, scale, a, b, mu, logvar: (lambda shape, rate: "
        "a * math.log(b) - math.lgamma(a) - x.shape[1] / 2 * math.log(2 * math.pi) - scale.log().sum() + mu * shape "
        f"- rate * {AVERAGE} + (math.log(2 * math.pi) + logvar + 1) / 2"
        ")(a + x.shape[1] / 2, b + ((x / scale) ** 2).sum(-1) / 2)"
    ),
    "one with rounding errors of 1e-11": variant("1e-11 * torch.sin(1000 * mu)"),
}
TOO_LARGE = {
    "z = exp(mu) in place of an average": variant(z="torch.exp(mu)"),
    "no log 2 pi in the likelihood": variant("x.shape[1] / 2 * math.log(2 * math.pi)"),
    "the KL to the prior with a weight of one half": variant(f"{TO_PRIOR} / 2"),
}
NEVER_ABOVE = {
    "log p(x) itself, whatever q is": Code(
        f"lambda x, scale, a, b, mu, logvar: ({EVIDENCE.source})(x, scale, a, b) + 0 * mu"
    ),
    "the KL to the prior with a weight of 2": variant(f"-{TO_PRIOR}"),
    "the KL to the prior with a weight of 1.1": variant(f"-0.1 * {TO_PRIOR}"),
    "a constant of a fiftieth of a nat too low": variant("-0.02"),
}
HIDDEN = {
    "logvar taken for the log of the standard deviation (right at logvar = 0)": Code(
        f"lambda x, scale, a, b, mu, logvar: ({variant().source})(x, scale, a, b, mu, 2 * logvar)"
    ),
    "the entropy of log z for that of z (right at mu = 0)": variant("-mu"),
    "half a log 2 pi counted once (right for one target)": variant("(x.shape[1] - 1) / 2 * math.log(2 * math.pi)"),
    "the scales forgotten in the constant (right where they multiply to 1)": variant("scale.log().sum()"),
    "the prior's b^a forgotten (right at b = 1)": variant("-a * math.log(b)"),
    "the first instrument's data used for all (right for one instrument)": Code(
        f"lambda x, scale, a, b, mu, logvar: ({variant().source})(x[:1].expand(x.shape), scale, a, b, mu, logvar)"
    ),
    "the mean over the instruments (right for one instrument)": Code(
        f"lambda x, scale, a, b, mu, logvar: ({variant().source})(x, scale, a, b, mu, logvar).mean() + 0 * mu"
    ),
}


def verdicts(ask: Ask, wrong: dict[str, Code], hint: str) -> None:
    """Ask for a verdict on the right functions and on some wrong ones."""
    for name, function in RIGHT.items():
        if ask("audit", function, EVIDENCE, GAP) is not True:
            raise Lost(
                f"audit does not return True for {name}, which is right. Rounding is no fault: compare with a "
                "tolerance, of 1e-8 for instance"
            )
    for name, function in wrong.items():
        if ask("audit", function, EVIDENCE, GAP) is not False:
            raise Lost(f"audit does not return False for a wrong function: {name}. {hint}")


@rubric.line("a1-audit", points=1)
def too_large(ask: Ask, draw: Generator) -> None:
    """The audit finds functions that are too large."""
    verdicts(
        ask,
        TOO_LARGE,
        "It is larger than the ELBO, and at the best q larger than log p(x)",
    )


@rubric.line("a1-audit", points=1)
def never_above(ask: Ask, draw: Generator) -> None:
    """The audit finds functions that are never above log p(x)."""
    hint = "It never exceeds log p(x), so the bound alone cannot find it; the identity can (chapter 1, What goes wrong)"
    verdicts(ask, NEVER_ABOVE, hint)


@rubric.line("a1-audit", points=1)
def hidden(ask: Ask, draw: Generator) -> None:
    """The audit finds functions that are right at convenient places."""
    hint = "Try sizes above one, and draw every parameter: a slip hides at 0, at 1 and where things are equal"
    verdicts(ask, HIDDEN, hint)
