"""Slips of Assignment 2: a score-function estimator and its baselines."""

from __future__ import annotations

from tests.assignments.slips import Slip

MOMENTS = """
def moments(f, logits, baseline=0.0):
    z = all_settings(*logits.shape)
    weights = {weights}[:, None, None]
    estimates = score_function(f, logits, z, baseline)
    mean = (weights * estimates).sum(0)
    return mean, (weights * estimates**2).sum(0) {less}
"""

CONSTANTS = """
def best_constants(f, logits):
    z = all_settings(*logits.shape)
    weights = log_q(logits, z).exp()[:, None, None]
    squares = weights * scores(logits, z){power}
    return (f(z)[:, None, None] * squares).sum(0) / {divisor}
"""

SHARED = """
def best_shared(f, logits):
    return {answer}
"""

SUM = """
def variance_of_a_sum(tables, logits, baseline=0.0):
    pi = logits.softmax(-1)
    means = (pi * tables).sum(-1, keepdim=True)
    variances = (pi * (tables - means) ** 2).sum(-1, keepdim=True)
    rest_mean, rest_variance = {rest}
    score = torch.eye(pi.shape[1]) - pi[:, None, :]
    own = (tables + rest_mean - baseline)[:, :, None]
    second = (pi[:, :, None] * score**2 * (own**2 + rest_variance[:, :, None])).sum(1)
    return second - (pi * (tables - means)) ** 2
"""

LEAVE = """
def leave_one_out(f, logits, z):
    values = f(z)
    baseline = {baseline}
    return ((values - baseline)[:, None, None] * scores(logits, z)).{reduce}(0)
"""

LEAVE_VARIANCE = """
def leave_one_out_variance(f, logits, num_samples):
    z = all_settings(*logits.shape)
    weights = log_q(logits, z).exp()
    mean_f = (weights * f(z)).sum()
    variance_f = (weights * (f(z) - mean_f) ** 2).sum()
    gradient, own = moments(f, logits, mean_f)
    pi = logits.softmax(-1)
    pairs = {pairs}
    return own / num_samples + pairs / {count}
"""

ELBO = """
def elbo_gradient(log_joint, logits, z):
    leaf = logits.clone().requires_grad_()
    log_weight = log_joint(z) - {entropy}
    others = (log_weight.sum() - log_weight) / (len(z) - 1)
    surrogate = ((log_weight - others){detach} * log_q(leaf, z)).mean()
    return torch.autograd.grad(surrogate, leaf)[0]
"""

OTHERS = "(values.sum() - values) / (len(z) - 1)"
PAIRS = "variance_f * pi * (1 - pi) + gradient**2"

SLIPS = [
    Slip(
        "logits for log probabilities",
        "a2-score",
        "def log_q(logits, z):\n    return logits[torch.arange(len(logits)), z].sum(-1)\n",
        7,
        "the logits are not normalised",
    ),
    Slip(
        "derivative of the chosen logit only",
        "a2-score",
        "def scores(logits, z):\n    return 1.0 * torch.nn.functional.one_hot(z, logits.shape[1])\n",
        11,
        "the logarithm of the normaliser also depends on the logits",
    ),
    Slip(
        "sign of the score",
        "a2-score",
        "def scores(logits, z):\n    return logits.softmax(-1) - torch.nn.functional.one_hot(z, logits.shape[1])\n",
        8,
        "the sign is turned",
    ),
    Slip(
        "baseline ignored",
        "a2-score",
        "def score_function(f, logits, z, baseline=0.0):\n    return f(z)[:, None, None] * scores(logits, z)\n",
        5,
        "the baseline is not subtracted",
    ),
    Slip(
        "averaged too early",
        "a2-score",
        "def score_function(f, logits, z, baseline=0.0):\n"
        "    return ((f(z)[:, None, None] - baseline) * scores(logits, z)).mean(0)\n",
        5,
        "expected shape (5, 3, 4), found (3, 4)",
    ),
    Slip(
        "every setting alike",
        "a2-truth",
        "def exact_gradient(f, logits):\n"
        "    z = all_settings(*logits.shape)\n"
        "    return score_function(f, logits, z).mean(0)\n",
        2,
        "each counts with its probability q(z)",
    ),
    Slip(
        "second moment",
        "a2-truth",
        MOMENTS.format(weights="log_q(logits, z).exp()", less=""),
        4,
        "the squared mean is not subtracted",
    ),
    Slip(
        "uniform weights",
        "a2-truth",
        MOMENTS.format(weights="torch.full((len(z),), 1 / len(z))", less="- mean**2"),
        4,
        "every setting counts the same here",
    ),
    Slip(
        "the mean of f",
        "a2-constants",
        "def best_constants(f, logits):\n"
        "    z = all_settings(*logits.shape)\n"
        "    return ((log_q(logits, z).exp() * f(z)).sum()).expand(logits.shape)\n",
        4,
        "this is the mean of f for all",
    ),
    Slip(
        "score not squared",
        "a2-constants",
        CONSTANTS.format(power=".abs()", divisor="squares.sum(0)"),
        4,
        "the score is not squared",
    ),
    Slip(
        "never divided",
        "a2-constants",
        CONSTANTS.format(power="**2", divisor="1"),
        4,
        "not divided by E[s^2]",
    ),
    Slip(
        "mean of the best",
        "a2-constants",
        SHARED.format(answer="best_constants(f, logits).mean()"),
        2,
        "this is the mean of the best constants",
    ),
    Slip(
        "best weighted with probabilities",
        "a2-constants",
        SHARED.format(answer="(logits.softmax(-1) * best_constants(f, logits)).sum() / len(logits)"),
        2,
        "the sum of the parabolas says with what",
    ),
    Slip(
        "quiet neighbours",
        "a2-sum",
        SUM.format(rest="means.sum() - means, 0 * variances"),
        2,
        "they also vary",
    ),
    Slip(
        "neighbours without a height",
        "a2-sum",
        SUM.format(rest="0 * means, variances.sum() - variances"),
        2,
        "their mean is a height",
    ),
    Slip(
        "own neighbour",
        "a2-sum",
        SUM.format(rest="means.sum(), variances.sum().expand(variances.shape)"),
        2,
        "the dial itself is counted among the others",
    ),
    Slip(
        "saw its own sample",
        "a2-leave",
        LEAVE.format(baseline="values.mean()", reduce="mean"),
        3,
        "every gradient shrinks by 1 - 1/S",
    ),
    Slip("sum for mean", "a2-leave", LEAVE.format(baseline=OTHERS, reduce="sum"), 3, "S times too large"),
    Slip(
        "others over S",
        "a2-leave",
        LEAVE.format(baseline="(values.sum() - values) / len(z)", reduce="mean"),
        4,
        "they are S - 1",
    ),
    Slip(
        "as if the mean were known",
        "a2-leave",
        LEAVE_VARIANCE.format(pairs="0", count="num_samples"),
        2,
        "costs something more",
    ),
    Slip(
        "as if the draws had others of their own",
        "a2-leave",
        LEAVE_VARIANCE.format(pairs="variance_f * pi * (1 - pi)", count="(num_samples * (num_samples - 1))"),
        2,
        "leaves a squared gradient",
    ),
    Slip(
        "pairs with itself",
        "a2-leave",
        LEAVE_VARIANCE.format(pairs=PAIRS, count="num_samples**2"),
        2,
        "a draw makes no pair with itself",
    ),
    Slip(
        "missing detach",
        "a2-elbo",
        ELBO.format(entropy="log_q(leaf, z)", detach=""),
        2,
        "the entropy is counted twice",
    ),
    Slip(
        "no entropy",
        "a2-elbo",
        ELBO.format(entropy="0.0", detach=".detach()"),
        2,
        "the dials freeze at the best setting",
    ),
    Slip(
        "the -1",
        "a2-elbo",
        "def elbo_gradient(log_joint, logits, z):\n"
        "    right = leave_one_out(lambda z: log_joint(z) - log_q(logits, z), logits, z)\n"
        "    return right - scores(logits, z).mean(0)\n",
        2,
        "this is the form with the -1",
    ),
]
