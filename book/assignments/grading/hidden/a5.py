"""Assignment 5, find the bug: six broken programs, and the size of each fault in nats.

The truth comes from the densities of `scipy.stats` and from quadrature. Beside the broken value each check knows what
comes of mending something that was not broken.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats
from numpy.random import Generator

from ..rubric import Ask, Code, Rubric, expect

Array = np.ndarray
rubric = Rubric("a5")


class Batch:
    """Drawn images, a drawn q for each, noise, and a drawn decoder with one hidden layer."""

    def __init__(self, draw: Generator, *, levels: int | None = 1) -> None:
        self.samples, self.batch, self.latents, self.pixels = 4, 3, 2, 5
        self.mu = draw.normal(size=(self.batch, self.latents))
        self.logvar = draw.uniform(-2.5, 0.8, (self.batch, self.latents))
        self.eps = draw.normal(size=(self.samples, self.batch, self.latents))
        self.first = draw.normal(size=(self.latents, 4))
        self.second = draw.normal(size=(4, self.pixels))
        size = self.batch, self.pixels
        self.x = draw.normal(size=size) if levels is None else draw.integers(0, levels + 1, size).astype(float)

    @property
    def decoder(self) -> Code:
        """The decoder, where the submission runs."""
        first, second = self.first.tolist(), self.second.tolist()
        kind = "dtype=torch.float64"
        return Code(f"lambda z: torch.tanh(z @ torch.tensor({first}, {kind})) @ torch.tensor({second}, {kind})")

    def decode(self, z: Array) -> Array:
        """Return what the decoder puts out."""
        return np.asarray(np.tanh(z @ self.first) @ self.second)

    @property
    def std(self) -> Array:
        """The standard deviation of q."""
        return np.asarray(np.exp(0.5 * self.logvar))

    @property
    def z(self) -> Array:
        """The draws that the noise makes."""
        return self.mu + self.std * self.eps

    def kl(self, logvar: Array | None = None) -> Array:
        """Return the KL to the standard normal of each latent."""
        logvar = self.logvar if logvar is None else logvar
        return np.asarray(0.5 * (self.mu**2 + np.exp(logvar) - 1 - logvar))

    def log_q(self) -> Array:
        """Return log q of the draws, latent by latent."""
        return np.asarray(scipy.stats.norm.logpdf(self.z, self.mu, self.std))

    def log_prior(self) -> Array:
        """Return the standard normal's log-density of the draws, latent by latent."""
        return np.asarray(scipy.stats.norm.logpdf(self.z))


def log_bernoulli(x: Array, logits: Array) -> Array:
    """Return the log-probability of each bit."""
    return np.asarray(np.where(x == 1, -np.logaddexp(0, -logits), -np.logaddexp(0, logits)))


def log_mean(log_w: Array) -> Array:
    """Return the logarithm of the mean over the draws."""
    return np.asarray(scipy.special.logsumexp(log_w, axis=0) - math.log(len(log_w)))


STILL = "this is still the value of the broken program"

# 1. Means.


@rubric.line("a5-1", points=2)
def means_mended(ask: Ask, draw: Generator) -> None:
    """`mended_1` is minus the bound, in nats an image."""
    b = Batch(draw)
    logits = draw.normal(size=b.x.shape)
    pixels, latents = -log_bernoulli(b.x, logits), b.kl()
    right = pixels.sum(-1).mean() + latents.sum(-1).mean()
    expect(
        ask("mended_1", b.x, logits, b.mu, b.logvar),
        right,
        what="mended_1",
        slips={
            f"{STILL}: with both means the KL weighs D / L times too much beside the pixels (chapter 5)": (
                pixels.mean() + latents.mean()
            ),
            "the pixels are summed now; what of the latents?": pixels.sum(-1).mean() + latents.mean(),
            "the latents are summed now; what of the pixels?": pixels.mean() + latents.sum(-1).mean(),
            "the sum over the images is no mend: the mean over the batch was right": pixels.sum() + latents.sum(),
            "a factor before the KL brings the balance back, but not nats an image: sum over pixels and latents": (
                pixels.mean() + latents.sum(-1).mean() / b.pixels
            ),
            "the loss is minus the bound; its sign was right": -right,
            "the signs within the KL were right; a KL is never negative": pixels.sum(-1).mean()
            - latents.sum(-1).mean(),
        },
    )


@rubric.line("a5-1", points=1)
def means_size(ask: Ask, draw: Generator) -> None:
    """`size_1`: what the report of the broken program is off by."""
    kl, pixels, latents = draw.uniform(2.0, 12.0, 5), int(draw.integers(50, 800)), int(draw.integers(2, 40))
    right = (1 - pixels / latents) * kl.mean()
    expect(
        ask("size_1", kl, pixels, latents),
        right,
        what="size_1",
        slips={
            "the size is right, the sign is not: the report less the right number, and this report is too low": -right,
            "the KL counts D / L times where it should count once: that is D / L - 1 too many": (
                -pixels / latents * kl.mean()
            ),
            "multiplying by D makes the pixels right, and D times the mean over latents is D / L times the sum": (
                (1 - 1 / latents) * kl.mean()
            ),
            "the right bound charges the KL once, the report D times its mean; kl is summed over latents already": (
                (1 - pixels) * kl.mean()
            ),
            "an average over the images is asked for, not their sum": right * len(kl),
        },
    )


# 2. A logarithm of what?


@rubric.line("a5-2", points=2)
def width_mended(ask: Ask, draw: Generator) -> None:
    """`mended_2` is estimator B for counts, with one and the same q in both terms."""
    b = Batch(draw, levels=16)

    def bound(std: Array, kl: Array) -> Array:
        logits = b.decode(b.mu + std * b.eps)
        return np.asarray(scipy.stats.binom.logpmf(b.x, 16, scipy.special.expit(logits)).sum(-1) - kl.sum(-1))

    right = bound(b.std, b.kl())
    choose = np.log(scipy.special.comb(16, b.x)).sum(-1)
    twice = b.kl(2 * b.logvar)
    expect(
        ask("mended_2", b.x, b.mu, b.logvar, b.eps, b.decoder),
        right,
        what="mended_2",
        slips={
            f"{STILL}: exp(logvar) is a variance, and the noise is multiplied by a standard deviation (chapter 4)": (
                bound(np.exp(b.logvar), b.kl())
            ),
            "now both terms agree, but on another q: the encoder puts out the logarithm of the variance, and the KL "
            "that read it so was not broken": bound(np.exp(b.logvar), twice),
            "the draw is mended, but the KL was not broken, and it is now": bound(b.std, twice),
            "the KL has the width of a standard deviation now; it was not broken": bound(b.std, b.kl(0.5 * b.logvar)),
            "the square root of the logarithm is not the logarithm of the root: std = exp(logvar / 2)": (
                bound(np.sqrt(np.abs(b.logvar)), b.kl())
            ),
            "the binomial coefficient was right: a count of 16 grey levels is one of many ways to ink the dots": (
                right - choose
            ),
            "16 dots a pixel: the factor before softplus was right": right
            + 15 * np.logaddexp(0, b.decode(b.z)).sum(-1),
        },
    )


@rubric.line("a5-2", points=1)
def width_size(ask: Ask, draw: Generator) -> None:
    """`size_2`: the report less the honest bound of the q that it draws from."""
    h = draw.uniform(-3.0, 1.0, (4, 3))

    def kl(logvar: Array) -> Array:
        return np.asarray(0.5 * (np.exp(logvar) - 1 - logvar))  # without mu, which is the same in both

    each = kl(2 * h) - kl(h)
    right = each.sum(-1)
    expect(
        ask("size_2", h),
        right,
        what="size_2",
        slips={
            "the size is right, the sign is not: the report less the honest bound; it charges too little where q is "
            "narrow": -right,
            "the sum over the latents is asked for": each.mean(-1),
            "the standard deviation drawn with is exp(h), so the honest logarithm of the variance is 2 h, not h / 2": (
                (kl(0.5 * h) - kl(h)).sum(-1)
            ),
            "the KL contains minus the log-variance as well as the variance": (0.5 * (np.exp(2 * h) - np.exp(h))).sum(
                -1
            ),
            "the KL contains the variance as well as its logarithm": (-0.5 * h).sum(-1),
            "the factor one half of the KL is missing": 2 * right,
        },
    )


# 3. No noise.


@rubric.line("a5-3", points=2)
def mean_mended(ask: Ask, draw: Generator) -> None:
    """`mended_3` is a bound, whether the network is in training or not."""
    b = Batch(draw, levels=None)
    noise = float(draw.uniform(0.3, 1.2))

    def report(z: Array, scale: float = 1.0) -> Array:
        pixels = scipy.stats.norm.logpdf(b.x, b.decode(z), noise).sum(-1)
        return np.asarray(pixels.mean(0) - scale * b.kl().sum(-1))

    right, plugged = report(b.z), report(b.mu[None])
    constant = 0.5 * b.pixels * math.log(2 * math.pi)
    for training in (False, True):
        expect(
            ask("mended_3", b.x, b.mu, b.logvar, b.eps, b.decoder, noise, training),
            right,
            what=f"mended_3, training={training}",
            slips={
                f"{STILL}: without noise it is no average over q, and no bound (chapters 1 and 5)": plugged,
                "the draws are averaged before they are decoded; average the log-likelihoods": report(
                    b.z.mean(0)[None]
                ),
                "the decoded images are averaged; average the log-likelihoods": np.asarray(
                    scipy.stats.norm.logpdf(b.x, b.decode(b.z).mean(0), noise).sum(-1) - b.kl().sum(-1)
                ),
                "the noise has the variance for its standard deviation: std = exp(logvar / 2) was right": (
                    report(b.mu + np.exp(b.logvar) * b.eps)
                ),
                "one half of log 2 pi for each pixel was right, and is missing now": right + constant,
                "the term log(noise_std) was right, and is missing now": right + b.pixels * math.log(noise),
                "the KL was right, and is missing now": report(b.z, 0.0),
                "only the first draw is used; the average over all of them was right": report(b.z[:1]),
                "without noise the KL is infinite, not zero: the mend is to draw": report(b.mu[None], 0.0),
            },
        )


@rubric.line("a5-3", points=1)
def mean_size(ask: Ask, draw: Generator) -> None:
    """`size_3`: the average excess with a linear decoder."""
    weight, std = draw.normal(size=(3, 6)), draw.uniform(0.1, 1.0, (4, 3))
    noise = float(draw.uniform(0.3, 1.2))
    power = (weight**2).sum(-1)
    right = (std**2 @ power) / (2 * noise**2)
    expect(
        ask("size_3", weight, std, noise),
        right,
        what="size_3",
        slips={
            "the size is right, the sign is not: the report is too high": -right,
            "the factor one half of the exponent is missing": 2 * right,
            "the squared error is divided by the variance of the noise, not by its standard deviation": right * noise,
            "the noise of the pixels does not stand in it": right * noise**2,
            "the variance of z moves the pixels, not its standard deviation": (std @ power) / (2 * noise**2),
            "the noises of the latents are independent: squares add up, not what is squared": (
                (((std @ np.abs(weight)) ** 2).sum(-1)) / (2 * noise**2)
            ),
            "sum over the pixels, do not average": right / weight.shape[1],
        },
    )


# 4. A KL where a weight should be.


@rubric.line("a5-4", points=2)
def weights_mended(ask: Ask, draw: Generator) -> None:
    """`mended_4` is the importance-weighted bound."""
    b = Batch(draw)
    pixels = log_bernoulli(b.x, b.decode(b.z)).sum(-1)
    prior, q, kl = b.log_prior().sum(-1), b.log_q().sum(-1), b.kl().sum(-1)
    log_w = pixels + prior - q
    expect(
        ask("mended_4", b.x, b.mu, b.logvar, b.eps, b.decoder),
        log_mean(log_w),
        what="mended_4",
        slips={
            f"{STILL}: the KL is the average of log q - log p, and a weight needs the value at its own draw "
            "(chapter 8)": log_mean(pixels - kl),
            "this is the average of the logarithms, an ELBO; the logarithm of the average was not broken": log_w.mean(
                0
            ),
            "this averages the logarithms, with the KL: two changes, and the one that was asked for is neither": (
                (pixels - kl).mean(0)
            ),
            "the logarithm of K was right: it is the logarithm of a mean": log_mean(log_w) + math.log(len(log_w)),
            "the weights have the ratio upside down: prior over q": log_mean(pixels - prior + q),
            "q is missing in the weights": log_mean(pixels + prior),
            "the prior is missing in the weights": log_mean(pixels - q),
            "the KL is charged again; the weights contain it": log_mean(log_w - kl),
            "constants do not cancel: log q lacks its half of log 2 pi, the prior has it (or the reverse)": (
                log_mean(log_w) - 0.5 * b.latents * math.log(2 * math.pi)
            ),
            "constants do not cancel: the prior lacks its half of log 2 pi, log q has it (or the reverse)": (
                log_mean(log_w) + 0.5 * b.latents * math.log(2 * math.pi)
            ),
            "log q has a term minus log sigma for each latent, which is missing": log_mean(
                log_w - 0.5 * b.logvar.sum(-1)
            ),
        },
    )


@rubric.line("a5-4", points=1)
def weights_size(ask: Ask, draw: Generator) -> None:
    """`size_4`: what many draws gain the broken program over log p(x), at the exact posterior."""
    x, v = draw.normal(scale=1.5, size=4), float(draw.uniform(0.2, 1.5))
    m, var = x / (1 + v), v / (1 + v)
    average = np.array(
        [
            scipy.integrate.quad(
                lambda t, x=x[i], m=m[i]: math.exp(-0.5 * t**2 - 0.5 * (x - m - math.sqrt(var) * t) ** 2 / v),
                -12,
                12,
                epsabs=1e-13,
                epsrel=1e-12,
            )[0]
            for i in range(len(x))
        ]
    )
    log_average = np.log(average) - math.log(2 * math.pi) - 0.5 * math.log(v)
    kl = 0.5 * (m**2 + var - 1 - math.log(var))
    log_p = scipy.stats.norm.logpdf(x, 0, math.sqrt(1 + v))
    right = log_average - kl - log_p
    expect(
        ask("size_4", x, v),
        right,
        what="size_4",
        slips={
            "the size is right, the sign is not: the program ends above log p(x)": -right,
            "the KL is missing: the program charges it": right + kl,
            "this compares with the KL, not with log p(x)": log_average - kl,
            "for one draw the program is an ELBO, and here that is log p(x): zero. With many draws it is not": 0.0,
            "noise_variance is a variance already": _with_variance(x, v**2),
        },
        rtol=1e-6,
        atol=1e-8,
    )


def _with_variance(x: Array, v: float) -> Array:
    """Return the size of the fourth fault, with every average in closed form."""
    m, var = x / (1 + v), v / (1 + v)
    kl = 0.5 * (m**2 + var - 1 - math.log(var))
    log_average = scipy.stats.norm.logpdf(x, m, math.sqrt(v + var))
    return np.asarray(log_average - kl - scipy.stats.norm.logpdf(x, 0, math.sqrt(1 + v)))


# 5. Shares.


def shares(log_w: Array) -> Array:
    """Return the softmax over the draws."""
    return np.asarray(scipy.special.softmax(log_w, axis=0))


def terms(draw: Generator) -> tuple[Array, Array, Array]:
    """Draw log p(x | z), log p(z) and log q(z | x) of some draws and images."""
    size = (5, 4)
    return -20 + 2 * draw.normal(size=size), -5 + draw.normal(size=size), -3 + draw.normal(size=size)


@rubric.line("a5-5", points=2)
def shares_gradient(ask: Ask, draw: Generator) -> None:
    """The gradient of `mended_5` is that of minus the bound."""
    log_p, log_prior, log_q = terms(draw)
    log_w = log_p + log_prior - log_q
    count = log_w.shape[1]
    right = -shares(log_w) / count

    def product_rule(sign: float) -> Array:
        """The gradient with the shares differentiated too."""
        share = shares(sign * log_w)
        average = (share * log_w).sum(0)
        return np.asarray(-(share + sign * share * (log_w - average)) / count)

    expect(
        ask("gradient_of_mended_5", log_p, log_prior, log_q),
        right,
        what="the gradient of mended_5 in log p(x | z)",
        slips={
            f"{STILL}: the worst draws have the largest shares. A share grows with the weight, not with the loss "
            "(chapter 8)": -shares(-log_w) / count,
            "the detach was right: the shares are held while the weights move": product_rule(1.0),
            "the shares are still those of the losses, and they are no longer held": product_rule(-1.0),
            "equal shares climb the average of the ELBOs, not the bound of K draws": np.full_like(
                log_w, -1 / log_w.size
            ),
            "the sign is wrong: a loss is minimised, and this one makes all weights smaller": -right,
            "the mean over the images was right; this is their sum": right * count,
            "the sum over the draws was right: the shares add up to one already": right / len(log_w),
            "the softmax was over the draws, and that was right; this one is over the images": (
                -scipy.special.softmax(log_w, axis=1) / count
            ),
        },
    )


@rubric.line("a5-5", points=1)
def shares_value(ask: Ask, draw: Generator) -> None:
    """`mended_5` is still the sum of the losses by their shares."""
    log_p, log_prior, log_q = terms(draw)
    log_w = log_p + log_prior - log_q
    right = -(shares(log_w) * log_w).sum(0).mean()
    expect(
        ask("mended_5", log_p, log_prior, log_q),
        right,
        what="mended_5",
        slips={
            f"{STILL}: its shares are those of the losses": -(shares(-log_w) * log_w).sum(0).mean(),
            "this is minus the bound: the same gradient, but another number than the sum by shares that the program "
            "prints, which was not broken": -log_mean(log_w).mean(),
            "the loss has lost its minus": -right,
            "the mean over the images was right; this is their sum": right * log_w.shape[1],
            "these are equal shares": -log_w.mean(),
        },
    )


@rubric.line("a5-5", points=1)
def shares_size(ask: Ask, draw: Generator) -> None:
    """`size_5`: the average of log w by the wrong shares, less that by the right ones."""
    log_w = -90 + 3 * draw.normal(size=(6, 4))
    by_wrong, by_right = (shares(-log_w) * log_w).sum(0), (shares(log_w) * log_w).sum(0)
    expect(
        ask("size_5", log_w),
        by_wrong - by_right,
        what="size_5",
        slips={
            "the size is right, the sign is not: the wrong average is the lower one": by_right - by_wrong,
            "this compares with equal shares, not with the right ones": by_wrong - log_w.mean(0),
            "this compares with the bound, not with the average by the right shares": by_wrong - log_mean(log_w),
        },
    )


# 6. Blocks.


def table(draw: Generator) -> tuple[Array, int, int]:
    """Return log-weights, how many, and how many fit into the memory; the last block is a short one."""
    block = int(draw.integers(4, 7))
    count = 3 * block + int(draw.integers(1, block))
    return -80 + 2.5 * draw.normal(size=(count, 3)), count, block


def asked(log_w: Array, most: int) -> Code:
    """Return the function that gives log-weights from start to stop, at most so many at a time."""
    message = f"{{stop - start}} log-weights asked for, {most} fit into the memory"
    return Code(
        f"lambda start, stop: torch.tensor({log_w.tolist()}, dtype=torch.float64)[start:stop] "
        f"if stop - start <= {most} else (_ for _ in ()).throw(ValueError(f'{message}'))"
    )


def blocks(log_w: Array, block: int) -> list[Array]:
    """Cut the log-weights into blocks."""
    return [log_w[start : start + block] for start in range(0, len(log_w), block)]


@rubric.line("a5-6", points=2)
def blocks_mended(ask: Ask, draw: Generator) -> None:
    """`mended_6` is the NLL with as many samples as it says."""
    log_w, count, block = table(draw)
    right = -log_mean(log_w)
    pieces = blocks(log_w, block)
    each = np.array([log_mean(piece) for piece in pieces])
    sizes = np.array([len(piece) for piece in pieces])
    whole = count - count % block
    expect(
        ask("mended_6", asked(log_w, count), count, block),
        right,
        what="mended_6",
        slips={
            f"{STILL}: it averages the logarithms of blocks, which is the bound of a block, not of all samples "
            "(chapter 8)": -each.mean(0),
            "the blocks weigh as they should now, but it is still a mean of logarithms: one logarithm, at the end": (
                -(sizes[:, None] * each).sum(0) / count
            ),
            "this averages the blocks' means under the logarithm, but the last block is shorter: its samples weigh too "
            "much": -log_mean(each),
            "the samples that do not fill a block are left out; the last, short block was right": (
                -log_mean(log_w[:whole])
            ),
            "the short last block is left out, but log num_samples counts it": (
                -(scipy.special.logsumexp(log_w[:whole], axis=0) - math.log(count))
            ),
            "log num_samples is missing: it is the logarithm of a mean": -scipy.special.logsumexp(log_w, axis=0),
            "this is log p(x); a negative log-likelihood was asked for and its sign was right": -right,
            "this is the average of all log-weights: an ELBO": -log_w.mean(0),
        },
    )


@rubric.line("a5-6", points=1)
def blocks_in_memory(ask: Ask, draw: Generator) -> None:
    """And it never asks for more than a block at a time."""
    log_w, count, block = table(draw)
    each = np.array([log_mean(piece) for piece in blocks(log_w, block)])
    expect(
        ask("mended_6", asked(log_w, block), count, block),
        -log_mean(log_w),
        what="mended_6, with little memory",
        slips={STILL: -each.mean(0)},
    )


@rubric.line("a5-6", points=1)
def blocks_size(ask: Ask, draw: Generator) -> None:
    """`size_6`: the reported NLL less the right one, on given log-weights."""
    log_w, count, block = table(draw)
    each = np.array([log_mean(piece) for piece in blocks(log_w, block)])
    wrong, right = -each.mean(0), -log_mean(log_w)
    expect(
        ask("size_6", log_w, block),
        wrong - right,
        what="size_6",
        slips={
            "the size is right, the sign is not: the reported NLL is too high": right - wrong,
            "this compares with an ELBO, blocks of one": -log_w.mean(0) - right,
            "this compares the logarithms without their counts": wrong + scipy.special.logsumexp(log_w, axis=0),
            "these are whole blocks only; the last, short one counts in the report": (
                -each[: count // block].mean(0) - right
            ),
        },
    )
