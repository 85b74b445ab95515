"""Assignment 2: score-function gradients for dials with positions. The truth comes from enumeration in NumPy."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from ..rubric import Ask, Code, Lost, Rubric, expect

rubric = Rubric("a2")


@dataclass(frozen=True)
class Machine:
    """Dials with logits, and a table with a value for every setting, drawn for this grading."""

    logits: np.ndarray
    table: np.ndarray

    @property
    def pi(self) -> np.ndarray:
        """The probabilities, (L, K)."""
        odds = np.exp(self.logits)
        return np.asarray(odds / odds.sum(1, keepdims=True))

    @property
    def f(self) -> Code:
        """The machine as the student's functions get it: from (S, L) to (S,)."""
        dials, positions = self.logits.shape
        places = [positions ** (dials - 1 - dial) for dial in range(dials)]
        values = [float(v) for v in self.table.ravel()]
        return Code(
            f"lambda z, table=torch.tensor({values!r}, dtype=torch.float64), places=torch.tensor({places!r}): "
            "table[(z * places).sum(-1)]"
        )

    @property
    def settings(self) -> np.ndarray:
        """All settings, (K^L, L)."""
        dials, positions = self.logits.shape
        return np.array(list(itertools.product(range(positions), repeat=dials)))

    @property
    def mass(self) -> np.ndarray:
        """The probability of each setting, (K^L,)."""
        return np.asarray(np.exp(self.log_q(self.settings)))

    def log_q(self, z: np.ndarray) -> np.ndarray:
        """Log q(z), (S,)."""
        return np.asarray(np.log(self.pi)[np.arange(z.shape[1]), z].sum(1))

    def values(self, z: np.ndarray) -> np.ndarray:
        """f(z), (S,)."""
        return np.asarray(self.table[tuple(z.T)])

    def scores(self, z: np.ndarray) -> np.ndarray:
        """The scores, (S, L, K)."""
        return np.asarray(np.eye(self.logits.shape[1])[z] - self.pi)

    def estimates(self, z: np.ndarray, baseline: ArrayLike = 0.0) -> np.ndarray:
        """One-sample estimates, (S, L, K)."""
        return np.asarray((self.values(z)[:, None, None] - baseline) * self.scores(z))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Average over q what is given for each setting."""
        return np.asarray(np.tensordot(self.mass, values, axes=1))

    def moments(self, baseline: ArrayLike = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Exact mean and variance of one estimate."""
        estimates = self.estimates(self.settings, baseline)
        mean = self.mean(estimates)
        return mean, self.mean((estimates - mean) ** 2)

    def draw_settings(self, draw: Generator, count: int) -> np.ndarray:
        """Settings, (S, L)."""
        return np.stack([draw.choice(len(row), count, p=row) for row in self.pi], axis=1)


def draw_machine(draw: Generator, dials: int = 3, positions: int = 4, height: float = 3.0) -> Machine:
    """Draw a machine with unequal probabilities and a height of its own."""
    logits = draw.normal(0, 1.0, (dials, positions))
    return Machine(logits, draw.normal(height, 2.0, (positions,) * dials))


# Part 1


@rubric.line("a2-score", points=1)
def log_q(ask: Ask, draw: Generator) -> None:
    """log q(z) of each setting."""
    machine = draw_machine(draw)
    z = machine.draw_settings(draw, 6)
    right, each = machine.log_q(z), np.arange(3)
    odds = np.exp(machine.logits)
    across = np.log(odds / odds.sum(0, keepdims=True))
    expect(
        ask("log_q", machine.logits, z),
        right,
        what="log q(z)",
        slips={
            "the logits are not normalised: a log-softmax is the logit minus the log of the sum of their "
            "exponentials": machine.logits[each, z].sum(1),
            "this is q(z); asked is its logarithm": np.exp(right),
            "the mean over the dials, not their sum: the dials are independent, so their logs add": right / 3,
            "the softmax runs over the dials; each dial has probabilities of its own": across[each, z].sum(1),
            "the sign is turned": -right,
        },
    )


@rubric.line("a2-score", points=2)
def scores(ask: Ask, draw: Generator) -> None:
    """The score of each setting, in the logits."""
    machine = draw_machine(draw)
    z = machine.draw_settings(draw, 5)
    right, one_hot, pi = machine.scores(z), np.eye(4)[z], machine.pi
    odds = np.exp(machine.logits)
    expect(
        ask("scores", machine.logits, z),
        right,
        what="the scores",
        slips={
            "the logarithm of the normaliser also depends on the logits, and its derivative is missing: this has no "
            "mean of zero (chapter 3, Values, weighted by scores)": one_hot,
            "the sign is turned: raising the logit of the position that was drawn makes the draw more likely": -right,
            "this is the derivative with respect to the probabilities, 1 / pi; asked is that in the logits": one_hot
            / pi,
            "this is the gradient of q(z), not of log q(z)": right * np.exp(machine.log_q(z))[:, None, None],
            "only the logit of the position that was drawn has a derivative here; the others have one too, -pi": right
            * one_hot,
            "the softmax runs over the dials; each dial has probabilities of its own": one_hot
            - odds / odds.sum(0, keepdims=True),
            "divided by the number of dials: log q is a sum over dials (chapter 3, Sum for mean)": right / 3,
            "divided by the number of draws: asked is one score for each draw (chapter 3, Sum for mean)": right / 5,
        },
    )


@rubric.line("a2-score", points=1)
def one_sample(ask: Ask, draw: Generator) -> None:
    """One-sample estimates, with a number and with an array to subtract."""
    machine = draw_machine(draw)
    z = machine.draw_settings(draw, 5)
    array = draw.normal(0, 3, machine.logits.shape)
    for name, baseline in (("no baseline", None), ("a number", -1.7), ("an array of constants", array)):
        given = () if baseline is None else (baseline,)
        used = 0.0 if baseline is None else baseline
        right = machine.estimates(z, used)
        expect(
            ask("score_function", machine.f, machine.logits, z, *given),
            right,
            what=f"the estimates, {name}",
            slips={
                "the baseline is not subtracted": machine.estimates(z),
                "the baseline is added; it is subtracted from f": machine.estimates(z, -np.asarray(used)),
                "divided by the number of draws: asked is one estimate for each draw (chapter 3, Sum for mean)": right
                / 5,
                "multiplied by the score twice": right * machine.scores(z),
                "the score is missing": machine.values(z)[:, None, None] - np.asarray(used),
            },
        )


# Part 2


@rubric.line("a2-truth", points=2)
def exact(ask: Ask, draw: Generator) -> None:
    """The exact gradient, by enumeration."""
    for dials, positions in ((1, 5), (4, 3)):
        machine = draw_machine(draw, dials, positions)
        right, _ = machine.moments()
        expect(
            ask("exact_gradient", machine.f, machine.logits),
            right,
            what=f"the exact gradient, L = {dials}, K = {positions}",
            slips={
                "every setting counts the same here; each counts with its probability q(z)": machine.estimates(
                    machine.settings
                ).mean(0),
                "the sum over the settings lacks q(z)": machine.estimates(machine.settings).sum(0),
                "the sign is turned: the gradient points to where E[f] grows": -right,
                "this is the derivative with respect to the probabilities; asked is that in the logits": machine.mean(
                    machine.values(machine.settings)[:, None, None] * np.eye(positions)[machine.settings] / machine.pi
                ),
                "this is zero: the settings do not know phi, their probabilities do (chapter 3, The gradient that is "
                "not there)": 0 * right,
            },
        )


@rubric.line("a2-truth", points=2)
def moments(ask: Ask, draw: Generator) -> None:
    """The exact mean and variance of one estimate."""
    machine = draw_machine(draw)
    everything = machine.settings
    for baseline in (0.0, 2.5, draw.normal(0, 3, machine.logits.shape)):
        answer = ask("moments", machine.f, machine.logits, baseline)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Lost("moments returns a tuple of two tensors, mean and variance")
        mean, variance = machine.moments(baseline)
        estimates, (_, plain) = machine.estimates(everything, baseline), machine.moments()
        expect(
            answer[0],
            mean,
            what="the mean of one estimate",
            slips={
                "every setting counts the same here; each counts with its probability q(z)": estimates.mean(0),
            },
            atol=1e-8,
        )
        expect(
            answer[1],
            variance,
            what="the variance of one estimate",
            slips={
                "this is the second moment: the squared mean is not subtracted": machine.mean(estimates**2),
                "every setting counts the same here; each counts with its probability q(z)": estimates.var(0),
                "this is the standard deviation; asked is the variance": np.sqrt(variance),
                "the baseline makes no difference here; it changes the variance (chapter 3, Baselines)": plain,
                "this is the variance of f, not of the estimate": np.full(
                    mean.shape,
                    machine.mean((machine.values(everything) - machine.mean(machine.values(everything))) ** 2),
                ),
            },
        )


# Part 3


def constants(machine: Machine) -> tuple[np.ndarray, np.ndarray]:
    """E[f s^2] and E[s^2], (L, K) each."""
    squares = machine.scores(machine.settings) ** 2
    return machine.mean(machine.values(machine.settings)[:, None, None] * squares), machine.mean(squares)


@rubric.line("a2-constants", points=2)
def best_constants(ask: Ask, draw: Generator) -> None:
    """The best constant of each parameter."""
    machine = draw_machine(draw)
    with_f, without = constants(machine)
    z = machine.settings
    mean_f = machine.mean(machine.values(z))
    one_hot, f = np.eye(4)[z], machine.values(z)[:, None, None]
    uniform, size = (machine.scores(z) ** 2).mean(0), np.abs(machine.scores(z))
    unsquared = machine.mean(f * size) / machine.mean(size)
    expect(
        ask("best_constants", machine.f, machine.logits),
        with_f / without,
        what="the best constants",
        slips={
            "this is the mean of f for all: natural, and not the best (chapter 3, Baselines)": mean_f,
            "the score is not squared: the parabola is lowest at E[f s^2] / E[s^2] (chapter 3, Baselines)": unsquared,
            "f is squared with the score; the parabola is linear in f": machine.mean(f**2 * machine.scores(z) ** 2)
            / without,
            "not divided by E[s^2]": with_f,
            "every setting counts the same here; each counts with its probability q(z)": (
                f * machine.scores(z) ** 2
            ).mean(0)
            / uniform,
            "twice the best: there the variance is what it was without a baseline": 2 * with_f / without,
            "the sign is turned: the baseline is subtracted": -with_f / without,
            "this is the mean of f given that the dial stands there; that is not yet weighted with the squared "
            "score": machine.mean(f * one_hot) / machine.mean(one_hot),
        },
    )


@rubric.line("a2-constants", points=2)
def best_shared(ask: Ask, draw: Generator) -> None:
    """The best constant that all parameters share."""
    machine = draw_machine(draw, dials=2, positions=5)
    with_f, without = constants(machine)
    best = with_f / without
    z = machine.settings
    expect(
        ask("best_shared", machine.f, machine.logits),
        with_f.sum() / without.sum(),
        what="the best shared constant",
        slips={
            "this is the mean of f": machine.mean(machine.values(z)),
            "this is the mean of the best constants; one whose score is larger should count for more": best.mean(),
            "not divided by the sum of E[s^2]": with_f.sum(),
            "the best constants are weighted with the probabilities; the sum of the parabolas says with what": (
                machine.pi * best
            ).sum()
            / machine.pi.sum(),
            "this is the median of the best constants; the sum of parabolas has another lowest point": np.median(best),
        },
    )


# Part 4


def spread_of_a_sum(
    tables: np.ndarray, pi: np.ndarray, baseline: float, *, mean: np.ndarray, variance: np.ndarray | float
) -> np.ndarray:
    """The variance, with these moments for what the other dials add."""
    positions = np.eye(tables.shape[1])
    scores = positions[None] - pi[:, None, :]  # (L, position, K)
    own = (tables + mean - baseline)[:, :, None]
    spread = np.broadcast_to(np.asarray(variance), (len(tables), 1))[:, :, None]
    second = (pi[:, :, None] * scores**2 * (own**2 + spread)).sum(1)
    first = (pi[:, :, None] * scores * tables[:, :, None]).sum(1)
    return np.asarray(second - first**2)


@rubric.line("a2-sum", points=2)
def variance_of_a_sum(ask: Ask, draw: Generator) -> None:
    """The variance for a machine that adds up, with 3 and with 40 dials."""
    for dials, positions in ((3, 4), (40, 5)):
        logits, tables = draw.normal(0, 1, (dials, positions)), draw.normal(0.5, 1.5, (dials, positions))
        baseline = float(draw.normal(2, 1))
        pi = Machine(logits, tables).pi
        means = (pi * tables).sum(1, keepdims=True)
        variances = (pi * (tables - means) ** 2).sum(1, keepdims=True)
        rest, noise = means.sum() - means, variances.sum() - variances
        right = spread_of_a_sum(tables, pi, baseline, mean=rest, variance=noise)
        gradient = pi * (tables - means)
        if dials == 3:  # what is written down above, against enumeration
            table = sum(np.expand_dims(row, [a for a in range(3) if a != axis]) for axis, row in enumerate(tables))
            assert np.allclose(right, Machine(logits, np.asarray(table)).moments(baseline)[1])
        expect(
            ask("variance_of_a_sum", tables, logits, baseline),
            right,
            what=f"the variance for a sum, L = {dials}",
            slips={
                "the other dials come in with their mean only; they also vary, and what varies is multiplied by the "
                "score": spread_of_a_sum(tables, pi, baseline, mean=rest, variance=0.0),
                "the other dials come in with their variance only; their mean is a height, and a height is "
                "noise": spread_of_a_sum(tables, pi, baseline, mean=0 * rest, variance=noise),
                "only the dial's own table is here: this is the variance of the estimator that keeps its own terms "
                "(chapter 3, Only the terms that feel it)": spread_of_a_sum(
                    tables, pi, baseline, mean=0 * rest, variance=0.0
                ),
                "the dial itself is counted among the others: its mean and variance must be taken out": spread_of_a_sum(
                    tables, pi, baseline, mean=rest + means, variance=noise + variances
                ),
                "the dial's own variance is counted among the others'": spread_of_a_sum(
                    tables, pi, baseline, mean=rest, variance=noise + variances
                ),
                "this is the second moment: the squared gradient is not subtracted": right + gradient**2,
                "the baseline is missing": spread_of_a_sum(tables, pi, 0.0, mean=rest, variance=noise),
                "f is treated as independent of the score; the dial's own term is not": (
                    variances.sum() + (means.sum() - baseline) ** 2
                )
                * pi
                * (1 - pi)
                - gradient**2,
            },
        )


# Part 5


def left_out(values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The leave-one-out estimate."""
    count = len(values)
    others = (values.sum() - values) / (count - 1)
    return np.asarray(((values - others)[:, None, None] * scores).mean(0))


@rubric.line("a2-leave", points=2)
def leave_one_out(ask: Ask, draw: Generator) -> None:
    """The leave-one-out estimate, for two draws and for seven."""
    for count in (2, 7):
        machine = draw_machine(draw)
        z = machine.draw_settings(draw, count)
        z[1] = (z[0] + 1) % 4  # never all alike
        values, each = machine.values(z), machine.scores(z)
        right = left_out(values, each)
        total = (values.sum() - values)[:, None, None]
        mean_f = machine.mean(machine.values(machine.settings))
        slips = {
            "the mean of all draws is subtracted, the draw's own among them: every gradient shrinks by 1 - 1/S "
            "(chapter 3, The baseline that saw its own sample)": right * (count - 1) / count,
            "the sum over the draws, not the mean: S times too large (chapter 3, Sum for mean)": right * count,
            "divided by S - 1 although each draw has the mean of the others already: that counts the correction "
            "twice": right * count / (count - 1),
            "nothing is subtracted": machine.estimates(z).mean(0),
            "this subtracts the exact mean of f, which nobody knows in practice": machine.estimates(z, mean_f).mean(0),
            "the others' sum is divided by S; they are S - 1": ((values[:, None, None] - total / count) * each).mean(0),
            "the sign is turned": -right,
        }
        if count > 2:
            slips["the others' values are added up, not averaged"] = ((values[:, None, None] - total) * each).mean(0)
        expect(
            ask("leave_one_out", machine.f, machine.logits, z), right, what=f"leave one out, S = {count}", slips=slips
        )


@rubric.line("a2-leave", points=2)
def leave_one_out_variance(ask: Ask, draw: Generator) -> None:
    """The variance of leave-one-out, for two, three and fifty draws."""
    for count in (2, 3, 50):
        dials, positions = (2, 3) if count < 50 else (4, 4)
        machine = draw_machine(draw, dials, positions)
        z, mass = machine.settings, machine.mass
        values = machine.values(z)
        mean_f = machine.mean(values)
        gradient, own = machine.moments(mean_f)
        spread = machine.mean((values - mean_f) ** 2) * machine.pi * (1 - machine.pi)
        pairs = count * (count - 1)
        right = own / count + (spread + gradient**2) / pairs
        if count < 4:  # the formula above, against every way to draw
            draws = list(itertools.product(range(len(z)), repeat=count))
            chance = np.array([mass[list(d)].prod() for d in draws])
            all_scores = machine.scores(z)
            every = np.array([left_out(values[list(d)], all_scores[list(d)]) for d in draws])
            truth = np.tensordot(chance, (every - gradient) ** 2, axes=1)
            assert np.allclose(right, truth, rtol=1e-8)
            right = truth
        expect(
            ask("leave_one_out_variance", machine.f, machine.logits, count),
            right,
            what=f"the variance of leave-one-out, S = {count}",
            slips={
                "this is the variance with the exact mean of f, over S: that the mean comes from the other draws costs "
                "something more": own / count,
                "this is the variance without a baseline, over S": machine.moments()[1] / count,
                "this is the variance with the best constants, over S: leave-one-out knows neither them nor the "
                "mean": machine.moments(np.divide(*constants(machine)))[1] / count,
                "the squared gradient is subtracted; in the product of two estimates it comes in once more": own / count
                + (spread - gradient**2) / pairs,
                "the pairs are divided by S^2; a draw makes no pair with itself, so there are S (S - 1)": own / count
                + (spread + gradient**2) / count**2,
                "the pairs are divided by S (S - 1)^2: each draw averages S - 1 others, and there are S draws": own
                / count
                + (spread + gradient**2) / (pairs * (count - 1)),
                "the S estimates are treated as independent, but each draw is also in the baseline of the others: the "
                "product of two estimates leaves a squared gradient": own / count + spread / pairs,
                "this is the variance of one draw's estimate, not of the mean of S": count * right,
            },
        )


# Part 6


def without_detach(machine: Machine, z: np.ndarray, held: bool) -> np.ndarray:
    """The gradient of mean((w - b) log q) if w (and b, unless ``held``) is differentiated as well."""
    count = len(z)
    weights, log_q = machine.values(z) - machine.log_q(z), machine.log_q(z)[:, None, None]
    each = machine.scores(z)
    others = 0.0 if held else -(each.sum(0) - each) / (count - 1)
    return np.asarray(left_out(weights, each) + ((-each - others) * log_q).mean(0))


@rubric.line("a2-elbo", points=1)
def elbo_anywhere(ask: Ask, draw: Generator) -> None:
    """The gradient of the ELBO, away from the posterior."""
    for count in (2, 6):
        machine = draw_machine(draw, height=-8.0)
        z = machine.draw_settings(draw, count)
        z[1] = (z[0] + 1) % 4
        weights, each = machine.values(z) - machine.log_q(z), machine.scores(z)
        right = left_out(weights, each)
        expect(
            ask("elbo_gradient", machine.f, machine.logits, z),
            right,
            what=f"the gradient of the ELBO, S = {count}",
            slips={
                "the log-weight is differentiated too, so the entropy is counted twice: hold it fixed (chapter 3, The "
                "missing detach)": without_detach(machine, z, held=True),
                "the log-weight and its baseline are differentiated too, so the entropy is counted twice: hold both "
                "fixed (chapter 3, The missing detach)": without_detach(machine, z, held=False),
                "log q is missing from the weight: without the entropy the dials freeze at the best setting": left_out(
                    machine.values(z), each
                ),
                "log q is added; the weight is p(x, z) over q(z)": left_out(machine.values(z) + machine.log_q(z), each),
                "this is the form with the -1: minus the mean score is left of it (chapter 3, an exercise)": right
                - each.mean(0),
                "the mean of all draws is subtracted, the draw's own among them (chapter 3, The baseline that saw its "
                "own sample)": right * (count - 1) / count,
                "nothing is subtracted": (weights[:, None, None] * each).mean(0),
                "the sign is turned: the ELBO is maximised": -right,
                "the sum over the draws, not the mean": right * count,
            },
        )


@rubric.line("a2-elbo", points=1)
def elbo_at_the_posterior(ask: Ask, draw: Generator) -> None:
    """Exactly zero, draw by draw, at the posterior."""
    logits = draw.normal(0, 1, (3, 4))
    shifted = logits + draw.normal(0, 2, (3, 1))  # a shift of a dial's logits changes nothing
    plain = Machine(logits, np.zeros((4, 4, 4)))
    log_evidence = float(draw.normal(-20, 3))
    model = Machine(logits, log_evidence + plain.log_q(plain.settings).reshape(4, 4, 4))
    z = model.draw_settings(draw, 5)
    z[1] = (z[0] + 1) % 4
    expect(
        ask("elbo_gradient", model.f, shifted, z),
        np.zeros((3, 4)),
        what="the gradient at the posterior",
        slips={
            "minus the mean score is left: this is the form with the -1 (chapter 3, an exercise)": -model.scores(
                z
            ).mean(0),
            "the log-weight is differentiated too (chapter 3, The missing detach)": without_detach(model, z, held=True),
            "the log-weight and its baseline are differentiated too (chapter 3, The missing detach)": without_detach(
                model, z, held=False
            ),
            "the log-weights are all log p(x) here, and without a baseline that height is noise": log_evidence
            * model.scores(z).mean(0),
            "log q is missing from the weight": left_out(model.values(z), model.scores(z)),
        },
        atol=1e-8,
    )
    off = shifted + np.outer([0, 1, 0], draw.normal(0, 1, 4))
    if np.allclose(np.asarray(ask("elbo_gradient", model.f, off, z), dtype=float), 0.0):
        raise Lost("the gradient is zero away from the posterior too, so that its zero there says nothing")
