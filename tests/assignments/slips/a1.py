"""Slips of Assignment 1: the identity on a model that is not in the book."""

from __future__ import annotations

from tests.assignments.slips import Slip

POSTERIOR = """
def posterior(x, scale, a, b):
    squares = ((x / scale) ** 2).sum(-1)
    return torch.full_like(squares, a + {shape}), {rate}
"""

LOG_EVIDENCE = """
def log_evidence(x, scale, a, b):
    alpha, beta = posterior(x, scale, a, b)
    a, b = torch.tensor(a), torch.tensor(b)
    constants = {constants}
    return a * b.log() - torch.lgamma(a) + torch.lgamma(alpha) - alpha * beta.log() - constants
"""

LOG_WEIGHTS = """
def log_weights(x, scale, a, b, mu, logvar, eps):
    std = {std}
    log_z = mu + std * {noise}
    z = log_z.exp()
    log_2pi = math.log(2 * math.pi)
    errors = -0.5 * (log_2pi - log_z[..., None]) - scale.log() - 0.5 * z[..., None] * (x / scale) ** 2
    log_prior = a * math.log(b) - math.lgamma(a) + (a - 1) * log_z - b * z
    log_q = -0.5 * (log_2pi + ({noise}) ** 2) - std.log() {jacobian}
    return errors.{reduce}(-1) + log_prior {minus} log_q
"""

ELBO = """
def elbo(x, scale, a, b, mu, logvar):
    mean_z, mean_log_z = {mean_z}, {mean_log_z}
    log_2pi = math.log(2 * math.pi)
    squares = ((x / scale) ** 2).sum(-1)
    likelihood = x.shape[1] / 2 * (mean_log_z - log_2pi) - scale.log().sum() - 0.5 * mean_z * squares
    prior = a * math.log(b) - math.lgamma(a) + (a - 1) * mean_log_z - b * mean_z
    return likelihood + prior + {entropy}
"""

MEAN_Z = "(mu + 0.5 * logvar.exp()).exp()"
ENTROPY = "mu + 0.5 * (log_2pi + logvar + 1)"

FORWARD_KL = """
def kl_to_posterior(mu, logvar, alpha, beta):
    mean, spread = torch.digamma(alpha) - beta.log(), torch.polygamma(1, alpha)
    entropy = alpha - beta.log() + torch.lgamma(alpha) + (1 - alpha) * torch.digamma(alpha)
    log_q = -mean - 0.5 * (math.log(2 * math.pi) + logvar) - 0.5 * (spread + (mean - mu) ** 2) / logvar.exp()
    return -entropy - log_q
"""

AUDIT_OF_THE_BOUND = """
def audit(bound, evidence, gap):
    generator = torch.Generator().manual_seed(1)
    for targets in (1, 3, 8):
        scale = (0.5 * torch.randn(targets, generator=generator)).exp()
        x = scale * torch.randn(200, targets, generator=generator)
        model = (x, scale, 1.7, 0.6)
        q = best_reverse(*posterior(*model))
        if (bound(*model, *q) > evidence(*model) + 1e-9).any():
            return False
    return True
"""

AUDIT_AT_ONE_PLACE = """
def audit(bound, evidence, gap):
    x, mu = torch.tensor([[0.7]]), torch.zeros(1)
    model = (x, torch.ones(1), 1.0, 1.0)
    total = evidence(*model) - gap(*model, mu, mu)
    return bool((bound(*model, mu, mu) - total).abs().max() < 1e-8)
"""

CONSTANTS = "x.shape[1] / 2 * math.log(2 * math.pi) + scale.log().sum()"
WEIGHTS = {"std": "(0.5 * logvar).exp()", "noise": "eps", "jacobian": "- log_z", "minus": "-", "reduce": "sum"}

SLIPS = [
    Slip(
        "whole for half",
        "a1-exact",
        POSTERIOR.format(shape="x.shape[1]", rate="b + squares / 2"),
        4,
        "the 1/2 is missing",
    ),
    Slip(
        "scale for rate",
        "a1-exact",
        POSTERIOR.format(shape="x.shape[1] / 2", rate="1 / (b + squares / 2)"),
        4,
        "this is the posterior's scale; asked is its rate",
    ),
    Slip(
        "the constant once",
        "a1-exact",
        LOG_EVIDENCE.format(constants="0.5 * math.log(2 * math.pi) + scale.log().sum()"),
        2,
        "half a log 2 pi is counted once",
    ),
    Slip(
        "no constant",
        "a1-exact",
        LOG_EVIDENCE.format(constants="scale.log().sum()"),
        2,
        "log 2 pi is missing",
    ),
    Slip(
        "the sum of the data",
        "a1-exact",
        LOG_EVIDENCE.format(constants=CONSTANTS).rstrip() + "\n" + "log_evidence_of_each = log_evidence\n"
        "def log_evidence(x, scale, a, b):\n    return log_evidence_of_each(x, scale, a, b).sum()\n",
        2,
        "expected shape (4,), found ()",
    ),
    Slip(
        "density of log z",
        "a1-draws",
        LOG_WEIGHTS.format(**{**WEIGHTS, "jacobian": ""}),
        2,
        "this is the density of log z, not of z",
    ),
    Slip(
        "logvar for log std",
        "a1-draws",
        LOG_WEIGHTS.format(**{**WEIGHTS, "std": "logvar.exp()"}),
        2,
        "logvar was taken for the log of the standard deviation",
    ),
    Slip(
        "z = mu",
        "a1-draws",
        LOG_WEIGHTS.format(**{**WEIGHTS, "noise": "torch.zeros_like(eps)"}),
        2,
        "z = exp(mu) for every draw",
    ),
    Slip(
        "sign of log q",
        "a1-draws",
        LOG_WEIGHTS.format(**{**WEIGHTS, "minus": "+"}),
        2,
        "log q is added",
    ),
    Slip(
        "mean for sum",
        "a1-draws",
        LOG_WEIGHTS.format(**{**WEIGHTS, "reduce": "mean"}),
        2,
        "the mean over the readings, not their sum",
    ),
    Slip(
        "averages in the wrong order",
        "a1-draws",
        "def two_averages(log_w):\n    return torch.logsumexp(log_w, 0) - math.log(len(log_w)), log_w.mean(0)\n",
        2,
        "the ELBO is the average of the log",
    ),
    Slip(
        "log of the sum",
        "a1-draws",
        "def two_averages(log_w):\n    return log_w.mean(0), torch.logsumexp(log_w, 0)\n",
        2,
        "log S is missing",
    ),
    Slip(
        "exp without care",
        "a1-draws",
        "def two_averages(log_w):\n    return log_w.mean(0), log_w.exp().mean(0).log()\n",
        1,
        "exp of them is 0 or infinite",
    ),
    Slip(
        "median for mean",
        "a1-identity",
        ELBO.format(mean_z="mu.exp()", mean_log_z="mu", entropy=ENTROPY),
        3,
        "E[z] is taken as exp(mu), which is the median",
    ),
    Slip(
        "logvar for variance",
        "a1-identity",
        ELBO.format(mean_z="(mu + 0.5 * logvar).exp()", mean_log_z="mu", entropy=ENTROPY),
        3,
        "logvar was taken for the variance",
    ),
    Slip(
        "log of the mean",
        "a1-identity",
        ELBO.format(mean_z=MEAN_Z, mean_log_z="mu + 0.5 * logvar.exp()", entropy=ENTROPY),
        3,
        "the log of an average is not the average of the log",
    ),
    Slip(
        "entropy of log z",
        "a1-identity",
        ELBO.format(mean_z=MEAN_Z, mean_log_z="mu", entropy="0.5 * (log_2pi + logvar + 1)"),
        3,
        "the entropy is that of log z",
    ),
    Slip("forward KL", "a1-identity", FORWARD_KL, 3, "this is KL(Gamma || q), the other direction"),
    Slip(
        "Laplace's normal",
        "a1-directions",
        "def best_reverse(alpha, beta):\n    return (alpha / beta).log(), -alpha.log()\n",
        2,
        "half the variance is missing",
    ),
    Slip(
        "directions confused",
        "a1-directions",
        "def best_reverse(alpha, beta):\n"
        "    return torch.digamma(alpha) - beta.log(), torch.polygamma(1, alpha).log()\n",
        2,
        "the optimum of the forward KL",
    ),
    Slip(
        "moments of z",
        "a1-directions",
        "def best_forward(alpha, beta):\n"
        "    var = (1 + 1 / alpha).log()\n"
        "    return (alpha / beta).log() - var / 2, var.log()\n",
        1,
        "it is the moments of log z that count",
    ),
    Slip(
        "a series for the gap",
        "a1-directions",
        "def smallest_gap(alpha):\n    return 1 / (12 * alpha)\n",
        1,
        "the first term of a series",
    ),
    Slip("audit of the bound alone", "a1-audit", AUDIT_OF_THE_BOUND, 2, "the bound alone cannot find it"),
    Slip("audit at one place", "a1-audit", AUDIT_AT_ONE_PLACE, 1, "a slip hides at 0, at 1"),
    Slip(
        "audit that trusts",
        "a1-audit",
        "def audit(bound, evidence, gap):\n    return True\n",
        3,
        "audit does not return False",
    ),
    Slip(
        "audit that doubts",
        "a1-audit",
        "def audit(bound, evidence, gap):\n    return False\n",
        3,
        "audit does not return True",
    ),
]
