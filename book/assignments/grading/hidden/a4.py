"""Hidden tests of assignment 4, *build and train a VAE*.

A model that was trained stays where the submission runs. It is asked for ``encode(x)`` and ``decode(z)``; all bounds
are worked out here, with noise drawn here. The thresholds come from runs of the solution, see `KNOWN` and `DIGITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import expit, gammaln, logit
from sklearn.datasets import load_digits

from ..rubric import Ask, Kept, Lost, Rubric, Seed, expect

Array = NDArray[np.float64]
rubric = Rubric("a4")


# The truth, in NumPy.


def log_choose(x: Array, n: int) -> Array:
    """Return log (n choose x), summed over the last axis."""
    return np.asarray((gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)).sum(-1))


def log_likelihood(x: Array, logits: Array, n: int) -> Array:
    """Return log p(x | z) of independent binomial pixels, summed over the last axis."""
    return np.asarray(log_choose(x, n) + (x * logits - n * np.logaddexp(0, logits)).sum(-1))


def kl_terms(mu: Array, logvar: Array) -> Array:
    """Return the KL divergence of each latent from the standard normal distribution."""
    return 0.5 * (mu**2 + np.exp(logvar) - logvar - 1)


def log_mean_exp(values: Array) -> Array:
    """Return the logarithm of the mean over draws."""
    return np.asarray(np.logaddexp.reduce(values, 0) - np.log(len(values)))


def coins(train: Array, test: Array, n: int) -> Array:
    """Return log p of test images, each pixel a coin of its own whose odds are those of the training images."""
    share = (train.sum(0) + 0.5) / (n * len(train) + 1)
    return log_likelihood(test, logit(share), n)


class World(NamedTuple):
    """A model with two normal latents and pixels that are binomial with log-odds z W + b; its evidence is known."""

    weight: Array  # (2, D)
    bias: Array  # (D,)
    n: int

    def sample(self, count: int, draw: Generator) -> Array:
        """Draw images."""
        z = draw.standard_normal((count, 2))
        return np.asarray(draw.binomial(self.n, expit(z @ self.weight + self.bias)), dtype=float)

    def log_p(self, x: Array) -> Array:
        """Return log p(x), by the trapezoidal rule on a plane; for these smooth integrands it is exact to 1e-9."""
        line = np.linspace(-7, 7, 141)
        grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
        logits = grid @ self.weight + self.bias
        prior = -0.5 * (grid**2).sum(1) - np.log(2 * np.pi) + 2 * np.log(line[1] - line[0])
        joint = x @ logits.T - self.n * np.logaddexp(0, logits).sum(1) + prior
        return np.asarray(np.logaddexp.reduce(joint, 1)) + log_choose(x, self.n)


def a_world(draw: Generator, *, pixels: int, n: int, spread: float = 1.0) -> World:
    """Draw a world. The log-odds of each pixel have standard deviation 1.5, around a bias of the given spread."""
    weight = draw.standard_normal((2, pixels))
    return World(1.5 * weight / np.linalg.norm(weight, axis=0), draw.normal(0, spread, pixels), n)


# What a submission's model says.


def a_seed(draw: Generator) -> Seed:
    """Draw a seed."""
    return Seed(int(draw.integers(2**31)))


def a_model(answer: Any, function: str) -> Kept:
    """Return what `function` returned if it can be a model."""
    if not isinstance(answer, Kept):
        raise Lost(f"{function}: expected the model, a VAE, found {type(answer).__name__}")
    return answer


def shaped(answer: Any, shape: tuple[int, ...], what: str) -> Array:
    """Return an answer as an array of finite numbers of this shape."""
    if not isinstance(answer, np.ndarray):
        raise Lost(f"{what}: expected a tensor of shape {shape}, found {type(answer).__name__}")
    if answer.shape != shape:
        raise Lost(f"{what}: expected shape {shape}, found {answer.shape}")
    if not np.isfinite(answer).all():
        raise Lost(f"{what}: expected finite numbers, found {answer[~np.isfinite(answer)][0]}")
    return answer.astype(float)


def encode(ask: Ask, model: Kept, x: Array, latents: int) -> tuple[Array, Array]:
    """Return mu and logvar of q(z | x)."""
    answer = ask.method(model, "encode", x)
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise Lost("encode: expected a pair, mu and logvar")
    shape = (len(x), latents)
    return shaped(answer[0], shape, "mu of encode"), shaped(answer[1], shape, "logvar of encode")


def decode(ask: Ask, model: Kept, z: Array, pixels: int) -> Array:
    """Return the log-odds of the pixels."""
    return shaped(ask.method(model, "decode", z), (*z.shape[:-1], pixels), "the logits of decode")


def weights_of(ask: Ask, model: Kept) -> dict[str, Array]:
    """Return the weights of a model by name."""
    state = ask.method(model, "state_dict")
    return {name: value for name, value in state.items() if value.dtype.kind == "f"}


def load(ask: Ask, model: Kept, weights: Mapping[str, Array]) -> None:
    """Set the weights of a model."""
    ask.method(model, "load_state_dict", dict(weights), strict=False)


def with_weights(ask: Ask, draw: Generator, sizes: tuple[int, int, int], scale: float) -> Kept:
    """Return a VAE of the submission with weights drawn here."""
    model = a_model(ask("VAE", *sizes, generator=a_seed(draw)), "VAE")
    load(ask, model, {name: draw.normal(0, scale, value.shape) for name, value in weights_of(ask, model).items()})
    return model


# The ELBO of given noise, and what the usual slips make of it.

SIGN = "the KL has the wrong sign: the ELBO is the log-likelihood minus the KL (chapter 5, the loss of one datum)"
LATENTS = (
    "the KL is averaged over the latents: it is a sum, a mean is a weight of 1/L (chapter 5, 'A mean is a weight')"
)
PIXELS = "the pixels are averaged: a log-likelihood is their sum, a mean is a weight (chapter 5, 'A mean is a weight')"
MEAN = "z is the mean of q, the noise is left out: that is a plain autoencoder with a penalty, and no bound (chapter 5)"
WIDE = "exp(logvar) is taken for the standard deviation: it is the variance; std = exp(logvar / 2) (chapter 4)"
NO_KL = "there is no KL in it: that is the log-likelihood alone (chapter 5, the loss of one datum)"
CONSTANT = "log (n choose x) is left out: without it these are no nats of a probability (chapter 5, 'Which nats …')"
NO_PATH = (
    "the draw is cut off: the encoder hears of the KL only; do not draw z under no_grad, nor detach it (chapter 4)"
)


def elbos(
    ask: Ask, model: Kept, x: Array, eps: Array, n: int, frozen: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """Return the ELBO of each draw and image, and the values that slips give; ``frozen`` draws lie where they lay."""
    draws, _, latents = eps.shape
    mu, logvar = encode(ask, model, x, latents)
    z = mu + np.exp(0.5 * logvar) * eps
    at = [z, np.broadcast_to(mu, z.shape), mu + np.exp(logvar) * eps, z if frozen is None else frozen]
    logits = decode(ask, model, np.concatenate(at), x.shape[1])
    sampled, centre, wide, still = log_likelihood(x, logits, n).reshape(4, draws, len(x))
    terms = kl_terms(mu, logvar)
    kl = terms.sum(-1)
    slips = {
        SIGN: sampled + kl,
        LATENTS: sampled - terms.mean(-1),
        PIXELS: sampled / x.shape[1] - kl,
        "pixels and latents are averaged: both are sums (chapter 5, 'A mean is a weight')": sampled / x.shape[1]
        - terms.mean(-1),
        MEAN: centre - kl,
        WIDE: wide - kl,
        NO_KL: sampled,
        CONSTANT: sampled - log_choose(x, n) - kl,
    }
    if frozen is not None:
        slips[NO_PATH] = still - kl
    return sampled - kl, slips


# Part 1: the likelihood.


@rubric.line("a4-likelihood", points=2)
def likelihood_value(ask: Ask, draw: Generator) -> None:
    """The log-likelihood of images of counts, and of bits."""
    for n in (int(draw.integers(3, 20)), 1):
        x = draw.integers(0, n + 1, (4, 7)).astype(float)
        logits = draw.normal(0, 2, (3, 4, 7))
        truth = log_likelihood(x, logits, n)
        expect(
            ask("log_p_x_given_z", x, logits, n),
            truth,
            what=f"log_p_x_given_z, n = {n}",
            slips={
                PIXELS: truth / 7,
                "the sign is that of a loss: a log-probability is at most zero": -truth,
                CONSTANT: truth - log_choose(x, n),
                "the logits went through a sigmoid already; they are log-odds, take them as they are": log_likelihood(
                    x, expit(logits), n
                ),
                "log(1 + exp(logit)) must be counted n times, once for each dot": truth
                + (n - 1) * np.logaddexp(0, logits).sum(-1),
            },
        )


@rubric.line("a4-likelihood", points=1)
def likelihood_extremes(ask: Ask, draw: Generator) -> None:
    """It stays exact where the decoder is very sure, rightly or wrongly."""
    n = int(draw.integers(2, 9))
    x = n * draw.integers(0, 2, (5, 6)).astype(float)  # (n choose x) is 1, so that its absence costs points once
    logits = draw.choice([-1.0, 1.0], (2, 5, 6)) * draw.uniform(50, 900, (2, 5, 6))
    answer, truth = ask("log_p_x_given_z", x, logits, n), log_likelihood(x, logits, n)
    try:
        expect(answer, truth, what="log_p_x_given_z", slips={PIXELS: truth / 6})
    except Lost as lost:
        if PIXELS in str(lost):
            raise
        raise Lost(
            f"log-odds of several hundred: {lost}. Stay in log space: softplus of the log-odds, no sigmoid, no clamp "
            "and no epsilon in a logarithm (chapter 5, 'Not a number')"
        ) from None


# Part 2: encoder and decoder.


@rubric.line("a4-model", points=1)
def model_seed(ask: Ask, draw: Generator) -> None:
    """The first weights come from the generator: the same seed gives the same model, another seed another."""
    x = draw.integers(0, 4, (5, 11)).astype(float)
    one, other = a_seed(draw), a_seed(draw)
    first, second, third = (
        (*encode(ask, model, x, 3), decode(ask, model, np.ones((5, 3)), 11))
        for seed in (one, one, other)
        for model in [a_model(ask("VAE", 11, 9, 3, generator=seed), "VAE")]
    )
    for name, a, b, c in zip(("mu", "logvar", "logits"), first, second, third, strict=True):
        if not np.array_equal(a, b):
            raise Lost(
                f"VAE: two models of one seed have different {name}: some first weights are not from the generator; "
                "nn.Linear draws its own from the global one, `linear` of the set-up cell does not"
            )
        if np.allclose(a, c):
            raise Lost(f"VAE: two models of different seeds have the same {name}: the generator is not used")


@rubric.line("a4-model", points=1)
def model_maps(ask: Ask, draw: Generator) -> None:
    """Encoder and decoder are curved maps, image by image, and put out all real numbers."""
    model = with_weights(ask, draw, (11, 30, 8), 2.0)
    x = draw.integers(0, 4, (40, 11)).astype(float)
    z = draw.standard_normal((6, 40, 8))
    mu, logvar = encode(ask, model, x, 8)
    logits = decode(ask, model, z, 11)
    for found, alone in zip((mu, logvar), encode(ask, model, x[7:9], 8), strict=True):
        if not np.allclose(found[7:9], alone):
            raise Lost(
                "encode: an image alone gets another q than in company: each image is encoded by itself, no noise"
            )
    if not np.allclose(logits[2:3, 5:6], decode(ask, model, z[2:3, 5:6], 11)):
        raise Lost("decode: a latent alone gets other logits than in company: decode sees nothing but its z")
    if np.allclose(mu, logvar):
        raise Lost("encode: mu and logvar are the same numbers: the encoder needs 2 L outputs, split in two")
    for name, values in {"mu": mu, "logvar": logvar, "the logits": logits}.items():
        low, high = values.min(), values.max()
        if not low < -1.5 < 1.5 < high:
            raise Lost(
                f"{name}: with large weights, expected numbers on both sides of zero, found {low:.3g} to {high:.3g}: "
                "the last layer is linear, no sigmoid, ReLU or softplus after it"
            )
        if np.ptp(values.reshape(-1, values.shape[-1]), axis=0).max() < 1e-6:
            raise Lost(f"{name}: the same for all inputs")
    maps: dict[str, tuple[Array, Callable[[Array], Array]]] = {
        "encode": (x, lambda v: encode(ask, model, v, 8)[0]),
        "decode": (z[0], lambda v: decode(ask, model, v, 11)),
    }
    for name, (inputs, function) in maps.items():
        middle = function(0.5 * (inputs[:20] + inputs[20:]))
        if np.allclose(middle, 0.5 * (function(inputs[:20]) + function(inputs[20:]))):
            raise Lost(f"{name} is linear: it needs a hidden layer with a curve in it, such as tanh")


# Part 3: the ELBO.


@rubric.line("a4-elbo", points=2)
def kl_value(ask: Ask, draw: Generator) -> None:
    """The KL divergence from q to the prior, in closed form."""
    mu, logvar = draw.normal(0, 1.5, (2, 5, 4))
    terms = kl_terms(mu, logvar)
    truth = terms.sum(-1)
    expect(
        ask("kl_to_prior", mu, logvar),
        truth,
        what="kl_to_prior",
        slips={
            LATENTS: terms.mean(-1),
            "the sign: a KL divergence is never negative": -truth,
            "logvar is taken for log std: the variance is exp(logvar), not exp(2 logvar)": kl_terms(mu, 2 * logvar).sum(
                -1
            ),
            "exp(logvar) is squared, or log std taken for logvar": 0.5
            * (mu**2 + np.exp(2 * logvar) - logvar - 1).sum(-1),
            "the factor 1/2 is missing": 2 * truth,
            "the -1 of each latent is missing: at mu = 0, logvar = 0 the KL is 0": truth + 2,
        },
    )


@rubric.line("a4-elbo", points=2)
def elbo_value(ask: Ask, draw: Generator) -> None:
    """The ELBO of each draw and image, from given noise, with weights drawn now."""
    n = int(draw.integers(2, 9))
    model = with_weights(ask, draw, (10, 8, 3), 0.6)
    x, eps = draw.integers(0, n + 1, (5, 10)).astype(float), draw.standard_normal((4, 5, 3))
    truth, slips = elbos(ask, model, x, eps, n)
    expect(
        ask("elbo", model, x, eps, n),
        truth,
        what="elbo",
        slips={**slips, "this is the loss: the ELBO is maximised, the loss is minus the ELBO": -truth},
    )


# Part 4: one step.

RATE = 0.01


def a_step(draw: Generator) -> tuple[Array, Array, int]:
    """Draw images, noise and the number of dots for one step."""
    n = int(draw.integers(2, 6))
    return draw.integers(0, n + 1, (6, 10)).astype(float), draw.standard_normal((2, 6, 3)), n


@rubric.line("a4-step", points=1)
def step_loss(ask: Ask, draw: Generator) -> None:
    """A step returns the loss that it met: minus the ELBO, summed over pixels and latents, averaged over images."""
    x, eps, n = a_step(draw)
    model = with_weights(ask, draw, (10, 8, 3), 0.4)
    truth, slips = elbos(ask, model, x, eps, n)
    before = {
        "it is summed over the images: average, so that the step does not depend on their number": -truth.sum(1).mean(),
        "it is summed over draws and images: average both": -truth.sum(),
        "the sign: the optimiser goes downhill, so the loss is minus the ELBO": truth.mean(),
        **{sentence: -value.mean() for sentence, value in slips.items()},
    }
    answer = ask("step", model, ask("sgd", model, RATE), x, eps, n)
    after = -elbos(ask, model, x, eps, n)[0].mean()
    expect(
        answer,
        -truth.mean(),
        what="the loss that step returned",
        slips={**before, "it is the loss after the step: return the one whose gradient was taken": after},
    )


@rubric.line("a4-step", points=1)
def step_gradient(ask: Ask, draw: Generator) -> None:
    """It follows the gradient of that loss, in the decoder and, through the draw, in the encoder."""
    x, eps, n = a_step(draw)
    model = with_weights(ask, draw, (10, 8, 3), 0.4)
    start = weights_of(ask, model)
    mu, logvar = encode(ask, model, x, 3)
    frozen = mu + np.exp(0.5 * logvar) * eps
    ask("step", model, ask("sgd", model, RATE), x, eps, n)
    moved = {name: (start[name] - value) / RATE for name, value in weights_of(ask, model).items()}
    if not any(change.any() for change in moved.values()):
        raise Lost("step: no weight moved: are backward() and optimiser.step() both called?")
    found, truth, wrong = [], [], []
    for name in start:
        way = draw.standard_normal(start[name].shape)
        ends = []
        for sign in (1, -1):
            load(ask, model, {**start, name: start[name] + sign * 1e-5 * way})
            ends.append(elbos(ask, model, x, eps, n, frozen))
        (up, ups), (down, downs) = ends
        found.append((moved[name] * way).sum())
        truth.append((down - up).mean() / 2e-5)
        wrong.append({sentence: (downs[sentence] - ups[sentence]).mean() / 2e-5 for sentence in ups})
    slips = {sentence: np.array([row[sentence] for row in wrong]) for sentence in wrong[0]}
    true = np.array(truth)
    del slips[CONSTANT]  # it has no gradient
    slips |= {
        "it climbs the loss: the ELBO is to be maximised": -true,
        "the loss is summed over the images: average": 6 * true,
        "the loss is summed over draws and images: average": 12 * true,
    }
    expect(
        np.array(found),
        true,
        what="the gradient that step followed, along a random direction in each tensor",
        slips=slips,
        rtol=1e-4,
        atol=1e-5,
    )


@rubric.line("a4-step", points=1)
def step_twice(ask: Ask, draw: Generator) -> None:
    """A second step follows the gradient of its own images alone."""
    x, eps, n = a_step(draw)
    model = with_weights(ask, draw, (10, 8, 3), 0.4)
    optimiser = ask("sgd", model, RATE)
    w0 = weights_of(ask, model)
    ask("step", model, optimiser, x, eps, n)
    w1 = weights_of(ask, model)
    x, eps = draw.integers(0, n + 1, x.shape).astype(float), draw.standard_normal(eps.shape)
    ask("step", model, optimiser, x, eps, n)
    w2 = weights_of(ask, model)
    load(ask, model, w1)
    fresh = a_model(ask("VAE", 10, 8, 3, generator=a_seed(draw)), "VAE")
    load(ask, fresh, w1)
    ask("step", fresh, ask("sgd", fresh, RATE), x, eps, n)
    alone = weights_of(ask, fresh)
    first, both, own = (
        np.concatenate([(a[name] - b[name]).ravel() / RATE for name in w0])
        for a, b in ((w0, w1), (w1, w2), (w1, alone))
    )
    if not first.any():
        raise Lost("step: no weight moved: are backward() and optimiser.step() both called?")
    expect(
        both,
        own,
        what="the gradient of a second step",
        slips={
            "that of the first is still in it: backward() adds, so clear it with optimiser.zero_grad()": first + own
        },
    )


# Part 5: training. The pixels of real images are shuffled, worlds are drawn anew: no weights can be known beforehand.

SIZES = {"hidden": 64, "latents": 6}
# What `fit_known` asks for: this share of the way from independent pixels to the truth. The solution goes 0.969 of it
# (spread 0.005, least 0.956, 40 seeds); other honest settings pass, too (three seeds each: ReLU 0.965, batches of 50 or
# 200 0.954 and 0.964, learning rate 0.01 or 0.001 0.952 and 0.939). Wrong ones: KL weighted by 0.5 0.87, both terms
# averaged 0.79, exp(logvar) as std 0.73, KL averaged over latents 0.48, pixels averaged 0.00, the draw cut off -0.01,
# plain autoencoder -0.4, untrained -0.5, z = mu beside the KL -7.6, no zero_grad -100.
KNOWN = 0.9
# What `fit_digits` asks for, in nats an image. The solution has -138.6 (spread 2.1, least -144.5, 40 seeds), with a
# learning rate of 0.001 -155. Plain autoencoder -200, independent pixels -253, z = mu with the KL -306, untrained -534.
DIGITS = -165.0


class Scores(NamedTuple):
    """What a model says of held-out images, one value for each."""

    elbo: Array
    log_p: Array
    kl: Array
    at_mean: Array  # the ELBO's formula with z = mu


def scores(ask: Ask, model: Kept, x: Array, n: int, draw: Generator, draws: int) -> Scores:
    """Work out bounds of a trained model, with noise of our own."""
    mu, logvar = encode(ask, model, x, SIZES["latents"])
    eps = draw.standard_normal((draws, len(x), SIZES["latents"]))
    with np.errstate(over="ignore", invalid="ignore"):
        z = mu + np.exp(0.5 * logvar) * eps
        logits = decode(ask, model, np.concatenate([z, mu[None]]), x.shape[1])
        likelihood = log_likelihood(x, logits, n)
        kl = kl_terms(mu, logvar).sum(-1)
        log_weights = likelihood[:-1] + 0.5 * (eps**2 + logvar - z**2).sum(-1)
        found = Scores(likelihood[:-1].mean(0) - kl, log_mean_exp(log_weights), kl, likelihood[-1] - kl)
    if not all(np.isfinite(values).all() for values in found):
        raise Lost(
            f"the trained model has no finite ELBO: logvar is up to {logvar.max():.3g}, did the training diverge?"
        )
    return found


def fit(ask: Ask, images: Array, rows: NDArray[np.int64], n: int, epochs: int, seed: Seed) -> Kept:
    """Let the submission train."""
    return a_model(ask("fit", images, rows, n=n, epochs=epochs, generator=seed, **SIZES), "fit")


def why(found: Scores, needed: float, baseline: float) -> str:
    """Say what low scores look like."""
    if found.kl.mean() < 0.05:
        return (
            "The KL is nearly zero, so q is the prior for every image: are pixels averaged, or the encoder not trained?"
        )
    if found.at_mean.mean() > needed:
        return f"At z = mu it would be {found.at_mean.mean():.1f}: was it trained with draws of q, and with the KL?"
    if found.elbo.mean() < baseline:
        return f"Even independent pixels, without latents, have {baseline:.1f}: does the loss fall from epoch to epoch?"
    return (
        f"Independent pixels, without latents, have {baseline:.1f}; the KL is {found.kl.mean():.1f}: is its weight 1?"
    )


@rubric.line("a4-train", points=1)
def fit_seed(ask: Ask, draw: Generator) -> None:
    """The generator decides weights, order and noise: same seed, same model; another seed, another."""
    images = a_world(draw, pixels=12, n=2).sample(150, draw)
    rows = draw.permutation(150)[:120]
    one, other = a_seed(draw), a_seed(draw)
    first, second, third = (
        np.concatenate(encode(ask, fit(ask, images, rows, 2, 3, seed), images, SIZES["latents"]))
        for seed in (one, one, other)
    )
    if not np.allclose(first, second, rtol=1e-9, atol=1e-9):
        raise Lost("fit: the same seed gave two models: weights, order and noise all come from `generator`")
    if np.allclose(first, third, rtol=1e-3, atol=1e-3):
        raise Lost(
            "fit: two seeds gave one model: draw weights, order and noise from `generator`, and seed nothing inside"
        )


@rubric.line("a4-train", points=1)
def fit_rows(ask: Ask, draw: Generator) -> None:
    """It learns from the rows that it is given, and from no other image."""
    images = a_world(draw, pixels=12, n=2).sample(200, draw)
    rows, others = np.split(draw.permutation(200), [120])
    seed = a_seed(draw)
    models = []
    for replaced in (others[:0], others, rows[:60]):
        changed = images.copy()
        changed[replaced] = 2 - changed[replaced]
        models.append(np.concatenate(encode(ask, fit(ask, changed, rows, 2, 3, seed), images, SIZES["latents"])))
    if not np.allclose(models[0], models[1], rtol=1e-9, atol=1e-9):
        again = np.concatenate(encode(ask, fit(ask, images, rows, 2, 3, seed), images, SIZES["latents"]))
        if not np.allclose(models[0], again, rtol=1e-9, atol=1e-9):
            raise Lost("fit: which images it learns from cannot be seen while the same seed gives two models")
        raise Lost(
            "fit: with other images outside of `rows` the same seed gives another model: only images[rows] may be "
            "learned from, the others are there to be tested on (chapter 5, 'Looking at what one learns from')"
        )
    if np.allclose(models[0], models[2], rtol=1e-6, atol=1e-6):
        raise Lost("fit: with other images in `rows` it gives the same model: nothing is learned from them")


def known_scores(ask: Ask, draw: Generator) -> tuple[Scores, Array, Array]:
    """Return what a model trained on a known world says of fresh images, their true log p, and that of coins."""
    world = a_world(draw, pixels=20, n=3)
    images = world.sample(1000, draw)
    rows = draw.permutation(1000)[:900]
    model = fit(ask, images, rows, 3, 60, a_seed(draw))
    fresh = world.sample(400, draw)
    found = scores(ask, model, fresh, 3, draw, 20)
    return found, world.log_p(fresh), coins(images[rows], fresh, 3)


def not_above(found: Array, truth: Array, what: str) -> None:
    """No bound is above the true log p(x), on average over images that the true model made."""
    over = found - truth
    if over.mean() > 5 * over.std() / np.sqrt(len(over)):
        raise Lost(
            f"{what}: {found.mean():.2f} nats an image, above the {truth.mean():.2f} of the model that made them; "
            "no honest model is. Does decode look at more than its z?"
        )


@rubric.line("a4-train", points=2)
def fit_known(ask: Ask, draw: Generator) -> None:
    """Its ELBO comes near the true log p(x) of images from a model that was drawn now, and never above."""
    found, truth, coin = known_scores(ask, draw)
    not_above(found.elbo, truth, "held-out ELBO")
    not_above(found.log_p, truth, "held-out bound of 20 draws")
    needed = coin.mean() + KNOWN * (truth - coin).mean()
    if found.elbo.mean() < needed:
        raise Lost(
            f"fit: held-out ELBO {found.elbo.mean():.4g} nats an image, expected at least {needed:.1f}; the model that "
            f"made the images has {truth.mean():.1f}. {why(found, needed, coin.mean())}"
        )


def digit_scores(ask: Ask, draw: Generator) -> tuple[Scores, Array]:
    """Return what a model trained on digits with shuffled pixels says of held-out ones, and log p of coins."""
    images = load_digits().data[:, draw.permutation(64)]
    rows, held_out = np.split(draw.permutation(len(images)), [1300])
    model = fit(ask, images, rows, 16, 40, a_seed(draw))
    return scores(ask, model, images[held_out], 16, draw, 5), coins(images[rows], images[held_out], 16)


@rubric.line("a4-train", points=1)
def fit_digits(ask: Ask, draw: Generator) -> None:
    """On digits with shuffled pixels, split anew, it reaches the held-out ELBO that 40 epochs give."""
    found, coin = digit_scores(ask, draw)
    if found.elbo.mean() < DIGITS:
        raise Lost(
            f"fit: held-out ELBO of digits {found.elbo.mean():.4g} nats an image, expected at least {DIGITS:.0f}. "
            f"{why(found, DIGITS, coin.mean())}"
        )


# Part 6: held-out evaluation.


def an_evaluation(ask: Ask, draw: Generator, pixels: int, n: int) -> tuple[tuple[Any, ...], Any]:
    """Return what `evaluate` is asked, and its answer."""
    model = with_weights(ask, draw, (pixels, 8, 3), 0.6)
    x, eps = draw.integers(0, n + 1, (6, pixels)).astype(float), draw.standard_normal((7, 6, 3))
    answer = ask("evaluate", model, x, eps, n)
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise Lost("evaluate: expected a pair, the ELBO and the estimate of log p(x), each of shape (B,)")
    return (model, x, eps, n), answer


def weigh(ask: Ask, model: Kept, x: Array, eps: Array, n: int) -> tuple[Array, Array, Array, Array]:
    """Return log p(x | z), log p(z), log q(z | x), each of shape (S, B), and the KL."""
    mu, logvar = encode(ask, model, x, eps.shape[2])
    z = mu + np.exp(0.5 * logvar) * eps
    likelihood = log_likelihood(x, decode(ask, model, z, x.shape[1]), n)
    prior, q = (-0.5 * (v + np.log(2 * np.pi)).sum(-1) for v in (z**2, eps**2 + logvar))
    return likelihood, prior, q, kl_terms(mu, logvar).sum(-1)


@rubric.line("a4-evaluate", points=1)
def evaluate_elbo(ask: Ask, draw: Generator) -> None:
    """The held-out ELBO: an average over draws, with the noise on."""
    given, answer = an_evaluation(ask, draw, 10, int(draw.integers(2, 9)))
    truth, slips = elbos(ask, *given)
    likelihood, prior, q, _ = weigh(ask, *given)
    expect(
        answer[0],
        truth.mean(0),
        what="the ELBO of evaluate",
        slips={sentence: value.mean(0) for sentence, value in slips.items()}
        | {
            "the draws are summed: average them": truth.sum(0),
            "it is the ELBO of the first draw alone: average over draws": truth[0],
            "it is the mean of the log-weights: right on average, but the KL is known in closed form, use it": (
                likelihood + prior - q
            ).mean(0),
        },
    )


@rubric.line("a4-evaluate", points=2)
def evaluate_log_p(ask: Ask, draw: Generator) -> None:
    """The importance-weighted estimate of log p(x), also of images that are very improbable."""
    for pixels, n in ((10, int(draw.integers(2, 9))), (400, 16)):
        given, answer = an_evaluation(ask, draw, pixels, n)
        _, bounds = elbos(ask, *given)
        likelihood, prior, q, kl = weigh(ask, *given)
        weights = likelihood + prior - q
        slips = {
            CONSTANT: log_mean_exp(weights) - log_choose(given[1], given[3]),
            PIXELS: log_mean_exp(weights - likelihood * (1 - 1 / pixels)),
            "average first, then take the logarithm: this is the mean of the log-weights (chapter 8)": weights.mean(0),
            "the KL has no place in an importance weight: log w = log p(x | z) + log p(z) - log q(z | x), draw by draw "
            "(chapter 8)": log_mean_exp(likelihood) - kl,
            "the weights are summed, not averaged: log S is missing (chapter 8)": log_mean_exp(weights)
            + np.log(len(weights)),
            "log q(z | x) is missing in the weights": log_mean_exp(likelihood + prior),
            "log p(z) is missing in the weights": log_mean_exp(likelihood - q),
            "prior and q are missing in the weights; the draws are from q, not from the prior": log_mean_exp(
                likelihood
            ),
            "log q lacks the logarithms of its standard deviations, the sum of logvar / 2": log_mean_exp(
                likelihood + prior + 0.5 * (given[2] ** 2 + np.log(2 * np.pi)).sum(-1)
            ),
            MEAN: bounds[MEAN][0],
            "that is the ELBO": (likelihood - kl).mean(0),
            "exponentials of log-weights below -745 are zero: subtract the largest first, as torch.logsumexp does "
            "(chapter 8)": np.full(6, -np.inf),
        }
        expect(answer[1], log_mean_exp(weights), what="log p(x) of evaluate", slips=slips)
