"""Plain functions under densities of every kind, with the mean by a formula or a sum."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tests.gradients.problem import Params, Problem, diagonal, tensor
from tests.oracles import randn
from vae_lib.densities import Beta, Binomial, Categorical, FiniteDensity, FullNormal, Gamma, StudentT
from vae_lib.gradients import Objective, expectation


def quadratic() -> Problem:
    """Sum of w (z - k)² under a diagonal normal: w ((mu - k)² + var)."""
    k, w = randn(2, 3, seed=71), randn(2, 3, seed=72).exp()

    def terms(_params: Params, _q: object, z: Tensor) -> Tensor:
        return w * (z - k) ** 2

    objective = Objective(diagonal, lambda p, q, z: terms(p, q, z).sum(-1), local_terms=terms)
    params = {"mu": randn(2, 3, seed=73), "logvar": 0.5 * randn(2, 3, seed=74)}
    return Problem(
        objective,
        params,
        lambda p: (w * ((p["mu"] - k) ** 2 + p["logvar"].exp())).sum(-1),
        frozenset({"path", "mirror", "terms"}),
    )


def cosine() -> Problem:
    """The mean of cos 2z under a normal is cos(2 mu) exp(-2 var)."""
    objective = expectation(diagonal, lambda z: torch.cos(2.0 * z).sum(-1))
    return Problem(
        objective,
        {"mu": tensor([0.4], [-1.0]), "logvar": tensor([-0.5], [0.2])},
        lambda p: (torch.cos(2.0 * p["mu"]) * torch.exp(-2.0 * p["logvar"].exp())).sum(-1),
        frozenset({"path", "mirror"}),
    )


def full_quadratic() -> Problem:
    """The mean of zᵀ A z under a correlated normal is muᵀ A mu + tr(A T Tᵀ)."""
    matrix = randn(3, 3, seed=75)
    tril = 0.5 * randn(2, 3, 3, seed=76).tril(-1) + torch.diag_embed((0.3 * randn(2, 3, seed=77)).exp())

    def exact(p: Params) -> Tensor:
        t = p["tril"].tril()
        return torch.einsum("bi,ij,bj->b", p["mu"], matrix, p["mu"]) + torch.einsum("ij,bik,bjk->b", matrix, t, t)

    return Problem(
        expectation(
            lambda p: FullNormal(p["mu"], p["tril"].tril()), lambda z: torch.einsum("sbi,ij,sbj->sb", z, matrix, z)
        ),
        {"mu": randn(2, 3, seed=78), "tril": tril},
        exact,
        frozenset({"path", "mirror"}),
    )


def gamma_moments() -> Problem:
    """E z² = a (a + 1) / b² and E log z = digamma(a) - log b."""
    objective = expectation(lambda p: Gamma(p["a"], p["b"]), lambda z: (z**2 + torch.log(z)).sum(-1))

    def exact(p: Params) -> Tensor:
        a, b = p["a"], p["b"]
        return (a * (a + 1.0) / b**2 + torch.digamma(a) - torch.log(b)).sum(-1)

    params = {"a": tensor([0.8, 2.5], [6.0, 12.0]), "b": tensor([1.5, 0.9], [4.0, 5.0])}
    return Problem(objective, params, exact, frozenset({"path"}))


def beta_moments() -> Problem:
    """E z² = a (a + 1) / ((a + b)(a + b + 1)) and E log z = digamma(a) - digamma(a + b)."""
    objective = expectation(lambda p: Beta(p["a"], p["b"]), lambda z: (z**2 + torch.log(z)).sum(-1))

    def exact(p: Params) -> Tensor:
        a, total = p["a"], p["a"] + p["b"]
        return (a * (a + 1.0) / (total * (total + 1.0)) + torch.digamma(a) - torch.digamma(total)).sum(-1)

    params = {"a": tensor([0.8, 2.5], [6.0, 1.5]), "b": tensor([1.5, 0.9], [4.0, 3.0])}
    return Problem(objective, params, exact, frozenset({"path"}))


def student_moments() -> Problem:
    """E z² = mu² + s² df / (df - 2)."""
    objective = expectation(lambda p: StudentT(p["mu"], p["log_scale"], p["df"]), lambda z: (z**2).sum(-1))

    def exact(p: Params) -> Tensor:
        return (p["mu"] ** 2 + (2.0 * p["log_scale"]).exp() * p["df"] / (p["df"] - 2.0)).sum(-1)

    params = {"mu": tensor([0.5], [-1.0]), "log_scale": tensor([0.3], [-0.4]), "df": tensor([12.0], [20.0])}
    return Problem(objective, params, exact, frozenset({"path", "mirror"}))


def counts() -> Problem:
    """E z² of a binomial number is n p (1 - p) + n² p²."""

    def exact(p: Params) -> Tensor:
        ones = torch.sigmoid(p["logits"])
        return (7.0 * ones * (1.0 - ones) + 49.0 * ones**2).sum(-1)

    objective = expectation(lambda p: Binomial(p["logits"], 7), lambda z: (z**2).sum(-1))
    return Problem(objective, {"logits": randn(2, 2, seed=79)}, exact, frozenset())


def categories() -> Problem:
    """Two categories of three in a table: five of its terms feel one of them, one term feels both."""
    alone, together = randn(2, 3, seed=80), randn(3, 3, seed=81)

    def terms(_params: Params, _q: object, z: Tensor) -> Tensor:
        i = z.long()
        both = together[i[..., 0], i[..., 1]]
        return torch.stack([alone[0][i[..., 0]] + both, alone[1][i[..., 1]] + both], -1)

    def f(_params: Params, _q: object, z: Tensor) -> Tensor:
        i = z.long()
        return alone[0][i[..., 0]] + alone[1][i[..., 1]] + together[i[..., 0], i[..., 1]]

    def relaxed(_params: Params, _q: object, y: Tensor) -> Tensor:
        both = torch.einsum("sbi,ij,sbj->sb", y[:, :, 0], together, y[:, :, 1])
        return (y * alone).sum((-2, -1)) + both

    def exact(p: Params) -> Tensor:
        probs = torch.softmax(p["logits"], -1)
        return relaxed(p, None, probs.unsqueeze(0)).squeeze(0)  # f is linear in each of the two independent coordinates

    objective = Objective(lambda p: Categorical(p["logits"]), f, local_terms=terms, relaxed=relaxed)
    return Problem(objective, {"logits": randn(2, 2, 3, seed=82)}, exact, frozenset({"terms"}))


def finite() -> Problem:
    """A mass function on five vectors."""
    support, values = randn(5, 2, seed=83), randn(5, seed=84)

    def f(z: Tensor) -> Tensor:
        return torch.where((z.unsqueeze(2) == support).all(-1), values, 0.0).sum(-1)

    objective = expectation(lambda p: FiniteDensity(p["logits"], support), f)
    params = {"logits": randn(2, 5, seed=85)}
    return Problem(objective, params, lambda p: torch.softmax(p["logits"], -1) @ values, frozenset())


class Laplace:
    """A stranger's density that has rsample and no more: no noise to hold in hand."""

    def __init__(self, mu: Tensor, scale: Tensor) -> None:
        self.mu, self.scale = mu, scale
        self.batch_size, self.event_dim = mu.shape

    def log_prob(self, value: Tensor) -> Tensor:
        return (-(value - self.mu).abs() / self.scale - torch.log(2.0 * self.scale)).sum(-1)

    def rsample(self, num_samples: int, *, generator: Generator) -> Tensor:
        u = torch.rand(num_samples, *self.mu.shape, generator=generator, dtype=self.mu.dtype) - 0.5
        return self.mu - self.scale * u.sign() * torch.log1p(-2.0 * u.abs())

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        return self.rsample(num_samples, generator=generator).detach()
