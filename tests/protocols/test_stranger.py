"""Two models written against protocols.py alone, with no base class, run through every bound and divergence.

The first is a sigmoid belief net of three bits whose evidence is a sum over eight latents; the second has a
heavy-tailed likelihood and a Laplace q, neither of which the library knows.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from tests.oracles import assert_close, assert_mean, randn
from vae_lib.bounds import (
    elbo,
    elbo_with_analytic_kl,
    importance_weighted_bound,
    joint_log_ratio,
    log_joint,
    log_weights,
)
from vae_lib.densities import Bernoulli, DiagonalNormal, FiniteDensity
from vae_lib.divergences import has_closed_form, kl, monte_carlo_kl
from vae_lib.estimate import mean_with_error
from vae_lib.exact import enumeration
from vae_lib.protocols import (
    ApproximatePosterior,
    Density,
    EnumerableModel,
    ExactModel,
    LatentVariableModel,
    ReparameterizedDensity,
)
from vae_lib.rng import make_generator

DOUBLE = torch.float64
PRIOR, CONNECTIONS, OFFSETS = randn(3, seed=51), 1.5 * randn(4, 3, seed=52), randn(4, seed=53)
BITS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=DOUBLE)
X = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]], dtype=DOUBLE)


class Table:
    """A density over three bits from a table of eight log-probabilities for each datum."""

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs

    @property
    def batch_size(self) -> int:
        return self.log_probs.shape[0]

    @property
    def event_dim(self) -> int:
        return 3

    def log_prob(self, value: Tensor) -> Tensor:
        number = (value @ torch.tensor([4.0, 2.0, 1.0], dtype=DOUBLE)).long()
        return torch.stack([self.log_probs[b][number[:, b]] for b in range(self.batch_size)], dim=1)

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        number = torch.multinomial(self.log_probs.exp(), num_samples, replacement=True, generator=generator)
        return BITS[number.T]


class SigmoidBeliefNet:
    data_dim, latent_dim = 4, 3

    def prior(self, batch_size: int) -> Table:
        ones = torch.sigmoid(PRIOR)
        log_probs = torch.log(BITS * ones + (1.0 - BITS) * (1.0 - ones)).sum(1)
        return Table(log_probs.expand(batch_size, 8))

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        ones = torch.sigmoid(z @ CONNECTIONS.T + OFFSETS)
        return torch.log(x * ones + (1.0 - x) * (1.0 - ones)).sum(-1)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        return torch.bernoulli(torch.sigmoid(z @ CONNECTIONS.T + OFFSETS), generator=generator)

    def latent_support(self) -> Tensor:
        return BITS

    def table(self, x: Tensor) -> Tensor:
        """p(x, z) with plain loops, ``(B, 8)``."""
        rows = []
        for datum in x.tolist():
            row = []
            for bits in BITS.tolist():
                p = 1.0
                for bit, a in zip(bits, PRIOR.tolist(), strict=True):
                    p *= 1.0 / (1.0 + math.exp(-a if bit else a))
                for pixel, weights, offset in zip(datum, CONNECTIONS.tolist(), OFFSETS.tolist(), strict=True):
                    a = offset + sum(w * b for w, b in zip(weights, bits, strict=True))
                    p *= 1.0 / (1.0 + math.exp(-a if pixel else a))
                row.append(p)
            rows.append(row)
        return torch.tensor(rows, dtype=DOUBLE)

    def log_p_x(self, x: Tensor) -> Tensor:
        return self.table(x).sum(1).log()

    def posterior(self, x: Tensor) -> Table:
        joint = self.table(x)
        return Table((joint / joint.sum(1, keepdim=True)).log())


Q = Table(torch.log_softmax(randn(2, 8, seed=54), 1))


def test_the_net_meets_the_protocols() -> None:
    net = SigmoidBeliefNet()
    for protocol in (LatentVariableModel, ExactModel, EnumerableModel):
        assert isinstance(net, protocol)
    assert isinstance(net.posterior, ApproximatePosterior)
    assert isinstance(Q, Density)
    assert not isinstance(Q, ReparameterizedDensity)


def test_what_is_incomplete_does_not_meet_the_protocols() -> None:
    class NoPrior:
        data_dim, latent_dim = 4, 3
        log_p_x_given_z = sample_x_given_z = SigmoidBeliefNet.log_p_x_given_z

    class NoSample:
        batch_size, event_dim = 2, 3
        log_prob = Table.log_prob

    assert not isinstance(NoPrior(), LatentVariableModel)
    assert not isinstance(NoSample(), Density)
    assert not isinstance(SigmoidBeliefNet(), Density)


def test_the_library_enumerates_it() -> None:
    net, joint = SigmoidBeliefNet(), SigmoidBeliefNet().table(X)
    assert_close(enumeration.log_joint_table(net, X).T.exp(), joint)
    assert_close(enumeration.log_evidence(net, X), joint.sum(1).log())
    expected = (Q.log_probs.exp() * (joint.log() - Q.log_probs)).sum(1)
    assert_close(enumeration.exact_elbo(net, X, Q), expected)
    posterior = enumeration.posterior(net, X)
    assert_close(posterior.log_probs, (joint / joint.sum(1, keepdim=True)).log())
    z = posterior.sample(6, generator=make_generator(1))
    assert_close(log_weights(net, posterior, X, z), net.log_p_x(X).expand(6, -1))
    gap = (Q.log_probs.exp() * (Q.log_probs - posterior.log_probs)).sum(1)
    assert_close(enumeration.exact_kl_to_posterior(net, X, Q), gap)
    with pytest.raises(ValueError, match=r"^model: expected one latent number, found 3$"):
        enumeration.categorical_posterior(net, X)


def test_a_q_that_never_takes_a_value_has_a_finite_divergence() -> None:
    net = SigmoidBeliefNet()
    certain = FiniteDensity(torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]], dtype=DOUBLE), BITS[[2, 5]])
    log_posterior = enumeration.posterior(net, X).log_probs
    found = enumeration.exact_kl_to_posterior(net, X, certain)
    assert_close(found, -torch.stack([log_posterior[0, 2], log_posterior[1, 5]]))


@pytest.mark.equation("eq-elbo-kl")
def test_every_bound_and_divergence_of_the_net() -> None:
    net = SigmoidBeliefNet()
    joint, log_p_x = net.table(X), net.log_p_x(X)
    exact_elbo = (Q.log_probs.exp() * (joint.log() - Q.log_probs)).sum(1)
    gap = (Q.log_probs.exp() * (Q.log_probs - net.posterior(X).log_probs)).sum(1)
    assert_close(exact_elbo + gap, log_p_x)

    estimate = monte_carlo_kl(Q, net.posterior(X), num_samples=20_000, generator=make_generator(1))
    assert float(estimate.standard_error.max()) < 0.02
    assert bool(((estimate.value - gap).abs() <= 5.0 * estimate.standard_error).all())
    assert not has_closed_form(Q, net.posterior(X))

    samples = elbo(net, Q, X, num_samples=20_000, generator=make_generator(2))
    assert_mean(samples, exact_elbo, ceiling=0.02)
    z = Q.sample(6, generator=make_generator(3))
    assert_close(log_weights(net, Q, X, z), log_joint(net, X, z) - Q.log_prob(z))
    at_posterior = log_weights(net, net.posterior(X), X, z)
    assert_close(at_posterior, log_p_x.expand(6, -1))
    assert_close(importance_weighted_bound(at_posterior, 3), log_p_x.expand(2, -1))
    assert joint_log_ratio(at_posterior, torch.zeros(2, dtype=DOUBLE)).shape == (6, 2)
    with pytest.raises(NotImplementedError, match="found Table and Table"):
        elbo_with_analytic_kl(net, Q, X, z)


def test_a_library_density_serves_as_its_q() -> None:
    net, q = SigmoidBeliefNet(), Bernoulli(randn(2, 3, seed=55))
    exact = enumeration.exact_elbo(net, X, q)
    assert bool((exact < net.log_p_x(X)).all())
    assert_mean(elbo(net, q, X, num_samples=20_000, generator=make_generator(4)), exact, ceiling=0.03)


def test_its_draws_follow_its_evidence() -> None:
    net = SigmoidBeliefNet()
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=DOUBLE)
    z = net.prior(1).sample(20_000, generator=make_generator(5))
    x = net.sample_x_given_z(z, generator=make_generator(6))[:, 0]
    hits = (x.unsqueeze(1) == every).all(2).double()
    assert_mean(hits, net.log_p_x(every).exp(), ceiling=0.004)
    assert_close(net.log_p_x(every).exp().sum(), 1.0)


class Laplace:
    """A reparameterised density of the stranger's own."""

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


class Outliers:
    """z ~ N(0, 1), x | z ~ Cauchy(z, ½)."""

    data_dim = latent_dim = 1

    def prior(self, batch_size: int) -> DiagonalNormal:
        zeros = torch.zeros(batch_size, 1, dtype=DOUBLE)
        return DiagonalNormal(zeros, zeros)

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        return -torch.log(math.pi * 0.5 * (1.0 + ((x - z) / 0.5) ** 2)).sum(-1)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        return z + 0.5 * torch.tan(math.pi * (torch.rand(z.shape, generator=generator, dtype=DOUBLE) - 0.5))


X1 = torch.tensor([[0.5], [3.0]], dtype=DOUBLE)


def by_grid(mu: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """ELBO of a Laplace q and log p(x), by midpoints on a fine grid: right to 1e-6 across the kink of the Laplace."""
    z = torch.as_tensor((np.arange(-20_000, 20_000) + 0.5) * 1e-3)[:, None, None].expand(-1, 2, 1)
    joint = Outliers().log_p_x_given_z(X1, z) + Outliers().prior(2).log_prob(z)
    log_q = Laplace(mu, scale).log_prob(z)
    return (log_q.exp() * (joint - log_q)).sum(0) * 1e-3, torch.logsumexp(joint, 0) + math.log(1e-3)


def test_every_bound_of_the_heavy_tailed_model() -> None:
    model, q = Outliers(), Laplace(torch.tensor([[0.3], [1.0]], dtype=DOUBLE), torch.full((2, 1), 0.7, dtype=DOUBLE))
    assert isinstance(model, LatentVariableModel)
    assert not isinstance(model, ExactModel)
    assert isinstance(q, ReparameterizedDensity)
    exact, log_p_x = by_grid(q.mu, q.scale)
    assert bool((exact < log_p_x).all())
    samples = elbo(model, q, X1, num_samples=40_000, generator=make_generator(7))
    assert_mean(samples, exact, ceiling=0.01)
    bound = mean_with_error(importance_weighted_bound(samples, 100))
    assert bool((bound.value > exact).all())
    assert bool((bound.value <= log_p_x + 5.0 * bound.standard_error).all())
    estimate = monte_carlo_kl(q, model.prior(2), num_samples=1000, generator=make_generator(8))
    assert bool((estimate.value > -5.0 * estimate.standard_error).all())
    with pytest.raises(NotImplementedError, match="found Laplace and DiagonalNormal"):
        kl(q, model.prior(2))
    analytic = elbo(
        model, model.prior(2), X1, num_samples=10, generator=make_generator(9), analytic_kl=True
    )  # q = prior: the KL is zero
    z = model.prior(2).sample(10, generator=make_generator(9))
    assert_close(analytic, model.log_p_x_given_z(X1, z))


def test_gradients_reach_the_strangers_q() -> None:
    """The pathwise gradient against central differences of the ELBO on the grid."""
    count, step = 40_000, 1e-2
    mu, scale = torch.tensor([[0.3], [1.0]], dtype=DOUBLE), torch.full((2, 1), 0.7, dtype=DOUBLE)
    leaves = [p.repeat(count, 1).requires_grad_() for p in (mu, scale)]
    bound = elbo(Outliers(), Laplace(*leaves), X1.repeat(count, 1), num_samples=1, generator=make_generator(10))
    gradients = [g.reshape(count, 2) for g in torch.autograd.grad(bound.sum(), leaves)]
    slopes = [
        (by_grid(mu + step, scale)[0] - by_grid(mu - step, scale)[0]) / (2 * step),
        (by_grid(mu, scale + step)[0] - by_grid(mu, scale - step)[0]) / (2 * step),
    ]
    for gradient, slope in zip(gradients, slopes, strict=True):
        error = gradient.std(0) / count**0.5
        assert float(error.max()) < 0.025
        # The differences are right to step² times a third derivative of order one.
        assert bool(((gradient.mean(0) - slope).abs() <= 5.0 * error + 1e-3).all())
