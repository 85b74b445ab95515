"""Wrong answers to assignment 5: the fault left in, mended by half, mended elsewhere, or measured wrongly."""

from __future__ import annotations

from tests.assignments.slips import Slip

SLIPS = [
    Slip(
        name="the broken program again",
        part="a5-1",
        code="""
def mended_1(x, logits, mu, logvar):
    return broken_1(x, logits, mu, logvar)
""",
        lost=2,
        says="still the value of the broken program",
    ),
    Slip(
        name="half a mend",
        part="a5-1",
        code="""
def mended_1(x, logits, mu, logvar):
    reconstruction = F.binary_cross_entropy_with_logits(logits, x)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar)
    return reconstruction + kl.sum(-1).mean()
""",
        lost=2,
        says="the latents are summed now; what of the pixels?",
    ),
    Slip(
        name="a weight for a mend",
        part="a5-1",
        code="""
def mended_1(x, logits, mu, logvar):
    reconstruction = F.binary_cross_entropy_with_logits(logits, x)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar)
    return reconstruction + kl.sum(-1).mean() / x.shape[1]
""",
        lost=2,
        says="but not nats an image",
    ),
    Slip(
        name="the sum over the batch",
        part="a5-1",
        code="""
def mended_1(x, logits, mu, logvar):
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar)
    return reconstruction + kl.sum()
""",
        lost=2,
        says="the mean over the batch was right",
    ),
    Slip(
        name="the size of the wrong sign",
        part="a5-1",
        code="""
def size_1(kl, num_pixels, num_latents):
    return (num_pixels / num_latents - 1) * kl.mean()
""",
        lost=1,
        says="this report is too low",
    ),
    Slip(
        name="both terms read the logarithm wrongly",
        part="a5-2",
        code="""
def mended_2(x, mu, logvar, eps, decode):
    return broken_2(x, mu, logvar, eps, decode) - size_2(logvar)
""",
        lost=2,
        says="now both terms agree, but on another q",
    ),
    Slip(
        name="the KL is mended instead",
        part="a5-2",
        code="""
def mended_2(x, mu, logvar, eps, decode):
    logits = decode(mu + torch.exp(0.5 * logvar) * eps)
    choose = math.lgamma(17) - torch.lgamma(x + 1) - torch.lgamma(17 - x)
    log_p = choose + x * logits - 16 * F.softplus(logits)
    kl = 0.5 * (mu**2 + torch.exp(2 * logvar) - 1 - 2 * logvar)
    return log_p.sum(-1) - kl.sum(-1)
""",
        lost=2,
        says="the KL was not broken, and it is now",
    ),
    Slip(
        name="the binomial coefficient is thrown out",
        part="a5-2",
        code="""
def mended_2(x, mu, logvar, eps, decode):
    logits = decode(mu + torch.exp(0.5 * logvar) * eps)
    log_p = x * logits - 16 * F.softplus(logits)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar)
    return log_p.sum(-1) - kl.sum(-1)
""",
        lost=2,
        says="the binomial coefficient was right",
    ),
    Slip(
        name="the size of the logarithm alone",
        part="a5-2",
        code="""
def size_2(logvar):
    return -0.5 * logvar.sum(-1)
""",
        lost=1,
        says="the variance as well as its logarithm",
    ),
    Slip(
        name="no noise, as before",
        part="a5-3",
        code="""
def mended_3(x, mu, logvar, eps, decode, noise_std, training):
    return broken_3(x, mu, logvar, eps, decode, noise_std, training)
""",
        lost=2,
        says="no average over q, and no bound",
    ),
    Slip(
        name="logvar for log std in the mend",
        part="a5-3",
        code="""
def mended_3(x, mu, logvar, eps, decode, noise_std, training):
    error = (x - decode(mu + torch.exp(logvar) * eps)) / noise_std
    log_p = -0.5 * error**2 - math.log(noise_std) - 0.5 * math.log(2 * math.pi)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar)
    return log_p.sum(-1).mean(0) - kl.sum(-1)
""",
        lost=2,
        says="std = exp(logvar / 2) was right",
    ),
    Slip(
        name="half of log 2 pi is thrown out",
        part="a5-3",
        code="""
def mended_3(x, mu, logvar, eps, decode, noise_std, training):
    error = (x - decode(mu + torch.exp(0.5 * logvar) * eps)) / noise_std
    log_p = -0.5 * error**2 - math.log(noise_std)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar)
    return log_p.sum(-1).mean(0) - kl.sum(-1)
""",
        lost=2,
        says="one half of log 2 pi for each pixel was right",
    ),
    Slip(
        name="the standard deviation for the variance of the pixels",
        part="a5-3",
        code="""
def size_3(weight, std, noise_std):
    return std**2 @ (weight**2).sum(-1) / (2 * noise_std)
""",
        lost=1,
        says="divided by the variance of the noise",
    ),
    Slip(
        name="the bound becomes an ELBO",
        part="a5-4",
        code="""
def mended_4(x, mu, logvar, eps, decode):
    z = mu + torch.exp(0.5 * logvar) * eps
    logits = decode(z)
    log_p = (x * logits - F.softplus(logits)).sum(-1)
    return (log_p + 0.5 * (eps**2 - z**2 + logvar).sum(-1)).mean(0)
""",
        lost=2,
        says="the logarithm of the average was not broken",
    ),
    Slip(
        name="log K is thrown out",
        part="a5-4",
        code="""
right_bound = mended_4


def mended_4(x, mu, logvar, eps, decode):
    return right_bound(x, mu, logvar, eps, decode) + math.log(len(eps))
""",
        lost=2,
        says="the logarithm of K was right",
    ),
    Slip(
        name="a density without its width",
        part="a5-4",
        code="""
def mended_4(x, mu, logvar, eps, decode):
    z = mu + torch.exp(0.5 * logvar) * eps
    logits = decode(z)
    log_p = (x * logits - F.softplus(logits)).sum(-1)
    log_weights = log_p + 0.5 * (eps**2 - z**2).sum(-1)
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
""",
        lost=2,
        says="minus log sigma for each latent, which is missing",
    ),
    Slip(
        name="zero, because one draw gives log p(x)",
        part="a5-4",
        code="""
def size_4(x, noise_variance):
    return torch.zeros_like(x)
""",
        lost=1,
        says="With many draws it is not",
    ),
    Slip(
        name="the detach is thrown out",
        part="a5-5",
        code="""
def mended_5(log_p, log_prior, log_q):
    losses = log_q - log_prior - log_p
    return (torch.softmax(-losses, dim=0) * losses).sum(0).mean()
""",
        lost=2,
        says="the detach was right",
    ),
    Slip(
        name="the sign of the loss is turned",
        part="a5-5",
        code="""
def mended_5(log_p, log_prior, log_q):
    log_w = log_p + log_prior - log_q
    return (torch.softmax(log_w, dim=0).detach() * log_w).sum(0).mean()
""",
        lost=3,
        says="this one makes all weights smaller",
    ),
    Slip(
        name="the bound in place of the sum",
        part="a5-5",
        code="""
def mended_5(log_p, log_prior, log_q):
    log_w = log_p + log_prior - log_q
    return (math.log(len(log_w)) - torch.logsumexp(log_w, dim=0)).mean()
""",
        lost=1,
        says="the same gradient, but another number",
    ),
    Slip(
        name="mean of logarithms, weighed",
        part="a5-6",
        code="""
def mended_6(log_weights, num_samples, block):
    total = 0
    for start in range(0, num_samples, block):
        log_w = log_weights(start, min(start + block, num_samples))
        total = total + len(log_w) * (torch.logsumexp(log_w, dim=0) - math.log(len(log_w)))
    return -total / num_samples
""",
        # The size is made of the same function.
        lost=4,
        says="it is still a mean of logarithms",
    ),
    Slip(
        name="the short block is left out",
        part="a5-6",
        code="""
def mended_6(log_weights, num_samples, block):
    blocks = range(num_samples // block)
    log_w = torch.cat([log_weights(block * i, block * (i + 1)) for i in blocks])
    return math.log(len(log_w)) - torch.logsumexp(log_w, dim=0)
""",
        lost=4,
        says="the last, short block was right",
    ),
    Slip(
        name="all samples at once",
        part="a5-6",
        code="""
def mended_6(log_weights, num_samples, block):
    log_w = log_weights(0, num_samples)
    return math.log(num_samples) - torch.logsumexp(log_w, dim=0)
""",
        lost=1,
        says="fit into the memory",
    ),
    Slip(
        name="blocks weighed alike",
        part="a5-6",
        code="""
def mended_6(log_weights, num_samples, block):
    means = []
    for start in range(0, num_samples, block):
        log_w = log_weights(start, min(start + block, num_samples))
        means.append(torch.logsumexp(log_w, dim=0) - math.log(len(log_w)))
    return math.log(len(means)) - torch.logsumexp(torch.stack(means), dim=0)
""",
        lost=4,
        says="its samples weigh too much",
    ),
]
