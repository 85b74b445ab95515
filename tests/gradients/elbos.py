"""ELBOs of models whose ELBO is known: by a formula, a sum over all latents, or quadrature."""

from __future__ import annotations

import itertools

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from tests.gradients.problem import DOUBLE, Params, Problem, diagonal, tensor
from tests.oracles import randn
from vae_lib.densities import Bernoulli, Categorical, DiagonalNormal, FullNormal, Gamma
from vae_lib.exact import DiscreteJoint, GammaPoisson, GaussianMixture, LinearGaussian, NonlinearDecoder
from vae_lib.gradients import amortised, sgvb_a, sgvb_b

X4 = 1.5 * randn(3, 4, seed=86)


def linear_gaussian_of(p: Params) -> LinearGaussian:
    return LinearGaussian(p["weight"], p["bias"], p["noise"])


THETA = {"weight": randn(4, 2, seed=87), "bias": randn(4, seed=88), "noise": 0.5 * randn(4, seed=89)}


def linear_gaussian_full() -> Problem:
    """The ELBO of a correlated q, in q's parameters and the model's."""

    def family(p: Params) -> FullNormal:
        return FullNormal(p["mu"], p["tril"].tril())

    params = {**THETA, "mu": randn(3, 2, seed=90), "tril": 0.5 * torch.eye(2, dtype=DOUBLE).repeat(3, 1, 1)}
    params["tril"][:, 1, 0] = tensor(0.1, -0.2, 0.3)
    return Problem(
        sgvb_a(linear_gaussian_of, family, X4),
        params,
        lambda p: linear_gaussian_of(p).elbo(X4, family(p)),
        frozenset({"path", "mirror", "elbo"}),
    )


def linear_gaussian_diagonal(analytic_kl: bool = False) -> Problem:
    """The ELBO of a diagonal q, in q's parameters and the model's."""
    params = {**THETA, "mu": 0.5 * randn(3, 2, seed=91), "logvar": -1.0 + 0.3 * randn(3, 2, seed=92)}
    kinds = {"path", "mirror"} if analytic_kl else {"path", "mirror", "elbo", "terms"}
    objective = (sgvb_b if analytic_kl else sgvb_a)(linear_gaussian_of, diagonal, X4)
    return Problem(objective, params, lambda p: linear_gaussian_of(p).elbo(X4, diagonal(p)), frozenset(kinds))


def gamma_poisson() -> Problem:
    """The ELBO of a Gamma q, in q's parameters and the prior's."""
    x = tensor([0.0, 0.0, 1.0], [2.0, 3.0, 5.0])

    def model(p: Params) -> GammaPoisson:
        return GammaPoisson(p["prior_a"], p["prior_b"], 3)

    def family(p: Params) -> Gamma:
        return Gamma(p["a"], p["b"])

    params = {
        "prior_a": torch.tensor(2.5, dtype=DOUBLE),
        "prior_b": torch.tensor(0.7, dtype=DOUBLE),
        "a": tensor([3.0], [9.0]),
        "b": tensor([3.0], [2.5]),
    }
    kinds = frozenset({"path", "elbo", "terms"})
    return Problem(sgvb_a(model, family, x), params, lambda p: model(p).elbo(x, family(p)), kinds)


def enumerated(log_joint: Tensor, log_q: Tensor) -> Tensor:
    """The ELBO as a sum over all values: tables ``(B, K)``."""
    return (log_q.exp() * (log_joint - log_q)).sum(-1)


def discrete_joint() -> Problem:
    """The ELBO of a categorical q, in q's parameters and the model's, summed over the table."""
    x = tensor([0.0], [2.0], [4.0])

    def family(p: Params) -> Categorical:
        return Categorical(p["q"].unsqueeze(1))

    def exact(p: Params) -> Tensor:
        rows = torch.log_softmax(p["table"], -1)[:, x.squeeze(-1).long()].mT
        return enumerated(torch.log_softmax(p["prior"], -1) + rows, torch.log_softmax(p["q"], -1))

    params = {"q": randn(3, 4, seed=93), "prior": randn(4, seed=94), "table": randn(4, 5, seed=95)}
    objective = sgvb_a(lambda p: DiscreteJoint(p["prior"], p["table"]), family, x)
    return Problem(objective, params, exact, frozenset({"elbo", "terms"}))


def gaussian_mixture() -> Problem:
    """The ELBO of responsibilities that are not the right ones, summed over the components."""
    x = randn(3, 2, seed=96)

    def family(p: Params) -> Categorical:
        return Categorical(p["q"].unsqueeze(1))

    def exact(p: Params) -> Tensor:
        normal = torch.distributions.Normal(p["mu"], torch.exp(0.5 * p["logvar"]))
        log_x = normal.log_prob(x.unsqueeze(1)).sum(-1)
        return enumerated(torch.log_softmax(p["prior"], -1) + log_x, torch.log_softmax(p["q"], -1))

    params = {
        "q": randn(3, 4, seed=97),
        "prior": randn(4, seed=98),
        "mu": 1.5 * randn(4, 2, seed=99),
        "logvar": 0.5 * randn(4, 2, seed=100),
    }
    objective = sgvb_a(lambda p: GaussianMixture(p["prior"], p["mu"], p["logvar"]), family, x)
    return Problem(objective, params, exact, frozenset({"elbo", "terms"}))


class Bits:
    """A stranger's independent bits, with probabilities instead of logits."""

    def __init__(self, probs: Tensor) -> None:
        self.probs = probs
        self.batch_size, self.event_dim = probs.shape

    def log_prob_terms(self, value: Tensor) -> Tensor:
        return torch.log(value * self.probs + (1.0 - value) * (1.0 - self.probs))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_prob_terms(value).sum(-1)

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        uniform = torch.rand(num_samples, *self.probs.shape, generator=generator, dtype=self.probs.dtype)
        return (uniform < self.probs.detach()).to(self.probs.dtype)


class BeliefNet:
    """A stranger's sigmoid belief net: bits above, bits below."""

    def __init__(self, prior: Tensor, weight: Tensor) -> None:
        self.prior_logits, self.weight = prior, weight
        self.data_dim, self.latent_dim = weight.shape

    def prior(self, batch_size: int) -> Bits:
        return Bits(torch.sigmoid(self.prior_logits).expand(batch_size, -1))

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        ones = torch.sigmoid((2.0 * z - 1.0) @ self.weight.mT)
        return torch.log(x * ones + (1.0 - x) * (1.0 - ones)).sum(-1)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        return Bits(torch.sigmoid((2.0 * z[0] - 1.0) @ self.weight.mT)).sample(1, generator=generator)


BITS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=DOUBLE)


def belief_net(own_q: bool = False) -> Problem:
    """The ELBO of independent bits for a stranger's model, summed over its eight latents."""
    x = tensor([1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0])

    def family(p: Params) -> Bernoulli | Bits:
        return Bits(torch.sigmoid(p["q"])) if own_q else Bernoulli(p["q"])

    def exact(p: Params) -> Tensor:
        every = BITS.unsqueeze(1).expand(-1, 2, -1)
        net = BeliefNet(p["prior"], p["weight"])
        joint = net.log_p_x_given_z(x, every) + net.prior(2).log_prob(every)
        return enumerated(joint.mT, Bits(torch.sigmoid(p["q"])).log_prob(every).mT)

    params = {"q": randn(2, 3, seed=101), "prior": randn(3, seed=102), "weight": randn(4, 3, seed=103)}
    kinds = {"elbo", "terms"} if own_q else {"elbo", "terms", "mirror"}
    return Problem(sgvb_a(lambda p: BeliefNet(p["prior"], p["weight"]), family, x), params, exact, frozenset(kinds))


def nonlinear_decoder() -> Problem:
    """The ELBO of a normal q for a bent decoder, by quadrature, in q's parameters and the decoder's."""
    x = tensor([0.3, 0.5], [-0.9, 0.6])

    def model(p: Params) -> NonlinearDecoder:
        def decoder(z: Tensor) -> Tensor:
            return torch.cat([torch.sin(p["bend"] * z), 0.5 * z**2], -1)

        return NonlinearDecoder(decoder, p["noise"], 2)

    params = {
        "mu": tensor([0.2], [-0.8]),
        "logvar": tensor([-1.0], [-0.5]),
        "bend": torch.tensor(2.0, dtype=DOUBLE),
        "noise": torch.tensor(-0.5, dtype=DOUBLE),
    }
    kinds = frozenset({"path", "mirror", "elbo", "terms"})
    return Problem(sgvb_a(model, diagonal, x), params, lambda p: model(p).elbo(x, diagonal(p)), kinds)


class Encoder(nn.Module):
    """Two layers that share their weights among all data."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.utils.skip_init(nn.Linear, 4, 3, dtype=DOUBLE)
        self.out = nn.utils.skip_init(nn.Linear, 3, 4, dtype=DOUBLE)
        with torch.no_grad():
            for seed, weights in enumerate(self.parameters()):
                weights.copy_(0.4 * randn(*weights.shape, seed=110 + seed))

    def forward(self, x: Tensor) -> DiagonalNormal:
        mu, logvar = self.out(torch.tanh(self.hidden(x))).chunk(2, -1)
        return DiagonalNormal(mu, logvar)


def encoder_network() -> Problem:
    """The ELBO of an amortised q, in all weights of encoder and decoder."""
    encoder = Encoder()

    def exact(p: Params) -> Tensor:
        own = {name.removeprefix("encoder."): value for name, value in p.items() if name.startswith("encoder.")}
        return linear_gaussian_of(p).elbo(X4, functional_call(encoder, own, (X4,)))

    params = {**THETA, **{f"encoder.{name}": value.detach() for name, value in encoder.named_parameters()}}
    objective = sgvb_a(linear_gaussian_of, amortised(encoder, X4, "encoder."), X4)
    return Problem(objective, params, exact, frozenset({"path", "mirror", "elbo", "terms"}))
