"""Wrong answers to assignment 3: what a draw, a path, a bound and a minibatch are taken for."""

from __future__ import annotations

from tests.assignments.slips import Slip

SLIPS = [
    Slip(
        name="the draw from the upper end",
        part="a3-family",
        code="""
def weibull_draw(shape, scale, u):
    return scale * (-torch.log(u)) ** (1 / shape)
""",
        # Every check that hands over noise and compares draw by draw falls with it.
        lost=9,
        says="this is F^-1(1 - u)",
    ),
    Slip(
        name="1 - u is rounded",
        part="a3-family",
        code="""
def weibull_draw(shape, scale, u):
    return scale * (-torch.log(1 - u)) ** (1 / shape)
""",
        lost=1,
        says="torch.log1p(-u) does not round",
    ),
    Slip(
        name="the change of variables is forgotten",
        part="a3-family",
        code="""
def weibull_log_prob(z, shape, scale):
    ratio = z / scale
    return torch.log(shape) + (shape - 1) * torch.log(ratio) - ratio**shape
""",
        lost=4,
        says="the factor 1 / lambda of the change of variables is missing",
    ),
    Slip(
        name="the implicit derivative without its minus",
        part="a3-path",
        code="""
def path_slopes(z, shape, scale):
    return z / shape * torch.log(z / scale), -z / scale
""",
        lost=3,
        says="leave a minus (chapter 4, implicit reparameterization)",
    ),
    Slip(
        name="the derivative of F is not divided by the density",
        part="a3-path",
        code="""
def path_slopes(z, shape, scale):
    t = (z / scale) ** shape
    return -torch.exp(-t) * t * torch.log(z / scale), torch.exp(-t) * t * shape / scale
""",
        # The crossing, made of the same slopes, falls too.
        lost=5,
        says="it remains to divide by the density",
    ),
    Slip(
        name="the path is averaged",
        part="a3-path",
        code="""
def pathwise_gradient(slope, shape, scale, u):
    k, lam = shape.clone().requires_grad_(), scale.clone().requires_grad_()
    z = weibull_draw(k, lam, u)
    return torch.autograd.grad((slope(z.detach()) * z).mean(), (k, lam))
""",
        lost=3,
        says="expected shape (7,), found ()",
    ),
    Slip(
        name="the normaliser is left out of the score",
        part="a3-path",
        code="""
def score_gradient(f, shape, scale, u):
    z = weibull_draw(shape, scale, u)
    t = (z / scale) ** shape
    return f(z) * torch.log(z / scale) * (1 - t), f(z) * shape / scale * t
""",
        # In k the term (k - 1) log z is right: what is missing is 1 / k and k / lambda. The crossing moves, too.
        lost=3,
        says="its derivative is part of the score",
    ),
    Slip(
        name="the draw of the score function carries a derivative",
        part="a3-path",
        code="""
def score_gradient(f, shape, scale, u):
    k = shape.expand(u.shape).clone().requires_grad_()
    lam = scale.expand(u.shape).clone().requires_grad_()
    z = weibull_draw(k, lam, u)
    log_q = weibull_log_prob(z, k, lam)
    return torch.autograd.grad((f(z).detach() * log_q).sum(), (k, lam))
""",
        lost=3,
        says="it must not carry a derivative (detach it)",
    ),
    Slip(
        name="second moments for variances",
        part="a3-variance",
        code="""
def power_variances(p, shape, scale):
    r = p / shape
    unit = shape**2 * scale ** (2 * p - 2) * math.gamma(1 + 2 * r)
    return unit * r**2, unit * (1 + 2 * r + 4 * r**2)
""",
        lost=2,
        says="the square of the mean has to come off",
    ),
    Slip(
        name="the crossing of scale one",
        part="a3-variance",
        code="""
right_crossing = crossing


def crossing(shape, scale):
    return right_crossing(shape, 1.0)
""",
        lost=2,
        says="only c times lambda matters",
    ),
    Slip(
        name="the KL is averaged over the latents",
        part="a3-sgvb",
        code="""
def kl_to_gamma(shape, scale, prior_shape, prior_rate):
    alpha, beta = torch.tensor(prior_shape), torch.tensor(prior_rate)
    mean = scale * torch.exp(torch.lgamma(1 + 1 / shape))
    mean_log = torch.log(scale) - EULER / shape
    log_q = torch.log(shape / scale) - (shape - 1) / shape * EULER - 1
    log_p = alpha * torch.log(beta) - torch.lgamma(alpha) + (alpha - 1) * mean_log - beta * mean
    return (log_q - log_p).mean(-1)
""",
        lost=2,
        says="the KL is summed over the latents, not averaged",
    ),
    Slip(
        name="log x! is dropped",
        part="a3-sgvb",
        code="""
def log_likelihood(x, weight, z):
    rate = z @ weight
    return (x * torch.log(rate) - rate).sum(-1)


def log_prior(z, prior_shape, prior_rate):
    alpha, beta = torch.tensor(prior_shape), torch.tensor(prior_rate)
    height = alpha * torch.log(beta) - torch.lgamma(alpha)
    return (height + (alpha - 1) * torch.log(z) - beta * z).sum(-1)
""",
        lost=3,
        says="log x! is missing",
    ),
    Slip(
        name="A with the sign of log q",
        part="a3-sgvb",
        code="""
def sgvb_a(x, weight, shape, scale, prior_shape, prior_rate, u):
    z = weibull_draw(shape, scale, u)
    log_p = log_likelihood(x, weight, z) + log_prior(z, prior_shape, prior_rate)
    return log_p + weibull_log_prob(z, shape, scale).sum(-1)
""",
        lost=2,
        says="the sign of log q is wrong",
    ),
    Slip(
        name="B with the prior twice",
        part="a3-sgvb",
        code="""
def sgvb_b(x, weight, shape, scale, prior_shape, prior_rate, u):
    z = weibull_draw(shape, scale, u)
    log_p = log_likelihood(x, weight, z) + log_prior(z, prior_shape, prior_rate)
    return log_p - kl_to_gamma(shape, scale, prior_shape, prior_rate)
""",
        lost=1,
        says="the prior is counted twice",
    ),
    Slip(
        name="the missing detach",
        part="a3-landing",
        code="""
def landing_gradient(x, weight, shape, scale, prior_shape, prior_rate, u):
    k = shape.detach().expand(u.shape).clone().requires_grad_()
    lam = scale.detach().expand(u.shape).clone().requires_grad_()
    value = sgvb_a(x, weight, k, lam, prior_shape, prior_rate, u)
    return torch.autograd.grad(value.sum(), (k, lam))
""",
        lost=2,
        says="hold shape and scale inside log q (detach them there)",
    ),
    Slip(
        name="the detach of the draw",
        part="a3-landing",
        code="""
def landing_gradient(x, weight, shape, scale, prior_shape, prior_rate, u):
    k = shape.detach().expand(u.shape).clone().requires_grad_()
    lam = scale.detach().expand(u.shape).clone().requires_grad_()
    z = weibull_draw(k, lam, u).detach()
    value = log_likelihood(x, weight, z) + log_prior(z, prior_shape, prior_rate)
    value = value - weibull_log_prob(z, k, lam).sum(-1)
    return torch.autograd.grad(value.sum(), (k, lam))
""",
        lost=2,
        says="this is minus the score",
    ),
    Slip(
        name="zeros everywhere, because at the posterior it is zero",
        part="a3-landing",
        code="""
def landing_gradient(x, weight, shape, scale, prior_shape, prior_rate, u):
    return torch.zeros_like(u), torch.zeros_like(u)
""",
        lost=2,
        says="beside its posterior",
    ),
    Slip(
        name="the sum over the batch",
        part="a3-minibatch",
        code="""
def bound_of_batch(values, num_images):
    return values.mean(0).sum()
""",
        lost=1,
        says="N / M is missing",
    ),
    Slip(
        name="images that may repeat",
        part="a3-minibatch",
        code="""
def batch_variance(means, variances, batch_size, num_samples):
    images = means.var(correction=0) / batch_size
    draws = variances.mean() / (batch_size * num_samples)
    return len(means) ** 2 * (images + draws)
""",
        lost=1,
        says="images that may repeat",
    ),
]
