"""Wake-sleep where both of its gradients are known: draw by draw, in expectation by enumeration, and at its end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.distributions import Bernoulli as Bits
from torch.distributions import Independent, Normal

from tests.learning.runs import contents, grey_images, interrupt, metrics, same_bits, small_run, small_vae, weights
from tests.learning.test_training import draws_of, exact_model, linear
from tests.oracles import assert_close, assert_mean, randn
from vae_lib.bounds import log_weights
from vae_lib.densities import Bernoulli
from vae_lib.exact import LinearGaussian
from vae_lib.learning import Images, TrainingConfig, TrainingInterrupted, WakeSleep, train
from vae_lib.learning.average_bound import AverageBound, SurrogateObjective
from vae_lib.learning.distributed import World
from vae_lib.learning.wake_sleep import dream
from vae_lib.models import (
    VAE,
    BernoulliEncoder,
    BernoulliLikelihood,
    DecoderModel,
    LearnedNormalLikelihood,
    NormalEncoder,
    fair_bits,
)
from vae_lib.rng import make_generator

SAMPLES, BATCH = 3, 4


def every(count: int) -> Tensor:
    """All vectors of so many bits."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=count)), dtype=torch.float64)


class Net(nn.Module):
    """Two bits that explain three, with odds of its own for the two: eight data, four latents."""

    data_dim, latent_dim = 3, 2

    def __init__(self) -> None:
        super().__init__()
        self.odds, self.layer = nn.Parameter(randn(2, seed=1)), linear(2, 3, seed=2)
        with torch.no_grad():
            self.layer.weight.mul_(5.0)

    def prior(self, batch_size: int) -> Bernoulli:
        return Bernoulli(self.odds.expand(batch_size, 2))

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        return Bits(logits=self.layer(z)).log_prob(x.expand(len(z), *x.shape)).sum(-1)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        return torch.bernoulli(torch.sigmoid(self.layer(z)), generator=generator)


def net_and_encoder() -> tuple[Net, BernoulliEncoder]:
    return Net(), BernoulliEncoder(linear(3, 2, seed=3))


def log_joint_of_net(net: nn.Module, x: Tensor, z: Tensor) -> Tensor:
    """By torch.distributions, for x and z with the same leading axes."""
    assert isinstance(net, Net)
    log_prior: Tensor = Bits(logits=net.odds).log_prob(z).sum(-1)
    return log_prior + Bits(logits=net.layer(z)).log_prob(x).sum(-1)


def log_q_of_bits(encoder: nn.Module, x: Tensor, z: Tensor) -> Tensor:
    assert isinstance(encoder, BernoulliEncoder)
    return Bits(logits=encoder.network(x)).log_prob(z).sum(-1)


def log_joint_of_vae(vae: nn.Module, x: Tensor, z: Tensor) -> Tensor:
    assert isinstance(vae, VAE)
    standard = Independent(Normal(torch.zeros_like(z), 1.0), 1)
    return standard.log_prob(z) + Bits(logits=vae.decoder(z)).log_prob(x).sum(-1)


def log_q_of_normals(encoder: nn.Module, x: Tensor, z: Tensor) -> Tensor:
    assert isinstance(encoder, NormalEncoder)
    mu, logvar = encoder.network(x).chunk(2, dim=-1)
    return Independent(Normal(mu, torch.exp(0.5 * logvar)), 1).log_prob(z)


def discrete() -> tuple[Any, Any, nn.Module, nn.Module, Callable[..., Tensor], Callable[..., Tensor], Tensor]:
    net, encoder = net_and_encoder()
    return net, encoder, net, encoder, log_joint_of_net, log_q_of_bits, every(3)[[0, 3, 5, 6]]


def normal() -> tuple[Any, Any, nn.Module, nn.Module, Callable[..., Tensor], Callable[..., Tensor], Tensor]:
    """A VAE is its own encoder; the weights of its decoder are the model's."""
    vae = small_vae()
    assert isinstance(vae.encoder, NormalEncoder)
    x = grey_images().read_all(dtype=torch.float64, generator=make_generator(1))[:BATCH]
    return vae, vae, vae.decoder, vae.encoder, lambda _, *rest: log_joint_of_vae(vae, *rest), log_q_of_normals, x


@pytest.mark.parametrize("case", [discrete, normal])
def test_both_gradients_are_those_of_their_own_densities(case: Any) -> None:
    model, encoder, generative, recognising, log_joint_by_hand, log_q_by_hand, x = case()
    # The draws, in their order: z awake, then z and x of as many dreams.
    generator = make_generator(5)
    with torch.no_grad():
        z = encoder(x).sample(SAMPLES, generator=generator)
        z_dream = model.prior(SAMPLES * BATCH).sample(1, generator=generator)
        x_dream = model.sample_x_given_z(z_dream, generator=generator)
    values = WakeSleep().climb(model, encoder, x, num_samples=SAMPLES, generator=make_generator(5))
    assert values.shape == (SAMPLES, BATCH)
    # In value the log-weights, whose average is the ELBO.
    assert_close(values, log_weights(model, encoder(x), x, z))
    # Unequal cotangents: a gradient that lands in the wrong place cannot cancel.
    cotangent = torch.linspace(0.5, 1.5, SAMPLES * BATCH, dtype=torch.float64).reshape(SAMPLES, BATCH)
    thetas, phis = list(generative.parameters()), list(recognising.parameters())
    found = torch.autograd.grad((cotangent * values).sum(), [*thetas, *phis])
    wake = (cotangent * log_joint_by_hand(generative, x.expand(SAMPLES, BATCH, -1), z)).sum()
    asleep = log_q_by_hand(recognising, x_dream[0], z_dream[0]).reshape(SAMPLES, BATCH)
    expected = [*torch.autograd.grad(wake, thetas), *torch.autograd.grad((cotangent * asleep).sum(), phis)]
    for one, other in zip(found, expected, strict=True):
        assert float(other.abs().max()) > 1e-3
        assert_close(one, other)


@pytest.mark.parametrize("case", [discrete, normal])
def test_neither_half_reaches_the_others_weights(case: Any) -> None:
    """A half whose other half wants no gradient gets the same one, to the last bit."""
    halves = []
    for frozen in (None, "model", "encoder"):
        model, encoder, generative, recognising, _, _, x = case()
        for name, part in (("model", generative), ("encoder", recognising)):
            part.requires_grad_(name != frozen)
        values = WakeSleep().climb(model, encoder, x, num_samples=SAMPLES, generator=make_generator(5))
        values.mean().backward()
        halves.append({f"{part}": [weight.grad for weight in part.parameters()] for part in (generative, recognising)})
    (theta, phi), (no_theta, only_phi), (only_theta, no_phi) = (half.values() for half in halves)
    assert all(slope is None for slope in [*no_theta, *no_phi])
    assert all(torch.equal(*pair) for pair in zip(theta, only_theta, strict=True))
    assert all(torch.equal(*pair) for pair in zip(phi, only_phi, strict=True))


def test_in_expectation_each_phase_lowers_its_own_divergence() -> None:
    """By enumeration of the eight data and four latents of a net of bits.

    Every slope is that of a log-probability of bits in its log-odds, (bit - probability) times an input that is 0 or 1:
    its standard deviation is at most 1, and that of a mean over 50 draws of 2 data at most 0.1. Of 200 such means the
    error is at most 0.0071; the value has no such limit, and its ceiling is that of a variance of 25 nats².
    """
    (net, encoder), count = net_and_encoder(), 200
    thetas, phis, z = list(net.parameters()), list(encoder.parameters()), every(2)
    data = every(3)[[1, 6]]
    # Awake: the ELBO of the data, in theta.
    x_z = torch.cartesian_prod(torch.arange(2), torch.arange(4))
    log_q = log_q_of_bits(encoder, data[x_z[:, 0]], z[x_z[:, 1]]).detach()
    elbo = (log_q.exp() * (log_joint_of_net(net, data[x_z[:, 0]], z[x_z[:, 1]]) - log_q)).sum() / 2
    # Asleep: KL(p(z | x) || q(z | x)), on the model's own data, in phi.
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(4))
    x, z_of_x = every(3)[pairs[:, 0]], z[pairs[:, 1]]
    log_p = log_joint_of_net(net, x, z_of_x).detach().reshape(8, 4)
    log_posterior = log_p - log_p.logsumexp(1, keepdim=True)
    divergences = (log_posterior.exp() * (log_posterior - log_q_of_bits(encoder, x, z_of_x).reshape(8, 4))).sum(1)
    asleep = -(log_p.logsumexp(1).exp() * divergences).sum()
    expected = [*torch.autograd.grad(elbo, thetas), *torch.autograd.grad(asleep, phis)]
    generator, found, values = make_generator(6), [], []
    for _ in range(count):
        climbed = WakeSleep().climb(net, encoder, data, num_samples=50, generator=generator).mean()
        found.append(torch.autograd.grad(climbed, [*thetas, *phis]))
        values.append(climbed.detach())
    for slopes, one in zip(zip(*found, strict=True), expected, strict=True):
        assert float(one.abs().max()) > 0.05
        assert_mean(torch.stack(slopes), one, ceiling=0.0071)
    assert_mean(torch.stack(values), elbo.detach(), ceiling=5.0 / (50 * 2 * count) ** 0.5)


def test_dreams_follow_the_model_and_carry_no_gradient() -> None:
    net, _ = net_and_encoder()
    z, x = dream(net, 20_000, generator=make_generator(7))
    assert (z.shape, x.shape) == ((1, 20_000, 2), (20_000, 3))
    assert not z.requires_grad
    assert not x.requires_grad
    code = (torch.cat([z[0], x], 1) @ torch.tensor([16.0, 8.0, 4.0, 2.0, 1.0]).double()).long()
    pairs = every(5)
    expected = log_joint_of_net(net, pairs[:, 2:], pairs[:, :2]).exp().detach()
    # Shares of a count of 20,000: the standard deviation of one is at most a half.
    assert_mean((code[:, None] == torch.arange(32)).double(), expected, ceiling=0.5 / 20_000**0.5)


# -- in the trainer ---------------------------------------------------------------------------------------------------


def test_the_trainer_climbs_both_with_a_separate_encoder() -> None:
    """One step of plain gradients, S = 3: every weight moves by the rate times its own phase's slope."""
    (net, encoder), (other, other_encoder) = net_and_encoder(), net_and_encoder()
    images = Images(every(3).to(torch.uint8), "bits", 1)
    config = TrainingConfig(epochs=1, batch_size=8, learning_rate=0.5, optimiser="sgd", num_samples=3, seed=4)
    train(net, images, None, config, encoder=encoder, bound=WakeSleep(), device="cpu", progress=False)
    order = torch.randperm(8, generator=make_generator(4, "order", 0))
    generator = make_generator(4, "training")
    other_weights = [*other.parameters(), *other_encoder.parameters()]
    values = WakeSleep().climb(other, other_encoder, every(3)[order], num_samples=3, generator=generator)
    slopes = torch.autograd.grad(values.mean(), other_weights)
    moved = [*net.parameters(), *encoder.parameters()]
    for weight, start, slope in zip(moved, other_weights, slopes, strict=True):
        assert_close(weight.detach(), (start + 0.5 * slope).detach())


def test_a_linear_model_ends_at_the_largest_likelihood() -> None:
    """Probabilistic PCA with one latent: a linear encoder can be the posterior, and then both phases agree.

    Near the top what is lost is quadratic in the errors of the seven weights, in units of what a datum tells of each:
    half the sum of their squares. The last small steps leave them at some percent, and seven of 2.4 % lose 2e-3 nats.
    """
    data = draws_of(exact_model(), 1000, seed=5)
    head = LearnedNormalLikelihood(logvar=0.0, dtype=torch.float64)
    vae = VAE(NormalEncoder(linear(3, 2, seed=6)), linear(1, 3, seed=7), head, latent_dim=1, data_dim=3)
    config = TrainingConfig(epochs=80, learning_rate=0.05, schedule="cosine", seed=8)
    train(vae, data, None, config, bound=WakeSleep(), device="cpu", progress=False)
    layer, logvar = vae.decoder, next(vae.likelihood.parameters()).detach()  # type: ignore[attr-defined]
    assert isinstance(layer, nn.Linear)
    learned = LinearGaussian(layer.weight.detach(), layer.bias.detach(), logvar.reshape(1).expand(3).clone())
    x = data.values
    best = LinearGaussian.maximum_likelihood(x, 1).log_p_x(x).mean()
    assert -1e-12 <= float(best - learned.log_p_x(x).mean()) <= 2e-3
    with torch.no_grad():
        assert 0.0 <= float((learned.log_p_x(x) - learned.elbo(x, vae(x))).mean()) <= 4e-3


def test_latents_of_fair_bits_are_learnt() -> None:
    """Four kinds of data, equally often, for two fair bits: -2 log 2 = -1.39 nats, once all pixels are sure.

    Three fair coins, which the model begins with, have -3 log 2 = -2.08 nats.
    """
    kinds = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]], dtype=torch.uint8)
    model = DecoderModel(
        nn.Sequential(linear(2, 8, seed=1), nn.Tanh(), linear(8, 3, seed=2)),
        BernoulliLikelihood(),
        latent_dim=2,
        data_dim=3,
        prior=fair_bits(2, dtype=torch.float64),
    )
    encoder = BernoulliEncoder(nn.Sequential(linear(3, 8, seed=3), nn.Tanh(), linear(8, 2, seed=4)))
    images = Images(kinds.repeat(25, 1), "bits", 1)
    config = TrainingConfig(epochs=100, batch_size=50, learning_rate=0.03, num_samples=2, seed=5)
    run = train(model, images, None, config, encoder=encoder, bound=WakeSleep(), device="cpu", progress=False)
    x, z = kinds.double(), every(2)
    with torch.no_grad():
        log_joint = model.log_p_x_given_z(x, z[:, None].expand(4, 4, 2)) - torch.tensor(4.0).log()
    log_p_x = float(log_joint.logsumexp(0).mean())
    assert -math.log(4.0) >= log_p_x > -1.42
    assert run.history[-1]["train_elbo"] > -1.45
    assert run.history[0]["train_elbo"] < -2.0


def stopping(step: int) -> WakeSleep:
    """The same objective, interrupted the number-th time it is asked for."""
    objective, asked = WakeSleep(), itertools.count(1)

    def climb(*arguments: Any, **options: Any) -> Tensor:
        if next(asked) == step:
            interrupt()
        return WakeSleep().climb(*arguments, **options)

    objective.climb = climb  # type: ignore[method-assign]
    return objective


@pytest.mark.parametrize("step", [1, 4])
def test_stopped_and_resumed_is_never_stopped(tmp_path: Path, step: int) -> None:
    whole = small_run(tmp_path / "whole", bound=WakeSleep(), num_samples=2)
    with pytest.raises(TrainingInterrupted, match=f"^training stopped after step {step} of 6; "):
        small_run(tmp_path / "part", bound=stopping(step), num_samples=2, checkpoint_seconds=1e9)
    resumed = small_run(tmp_path / "part", bound=WakeSleep(), num_samples=2, resume=True)
    assert same_bits(weights(resumed), weights(whole))
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")
    assert metrics(tmp_path / "part") == metrics(tmp_path / "whole")
    assert not same_bits(weights(whole), weights(small_run(num_samples=2)))


def test_it_is_an_objective_and_a_bound_is_none() -> None:
    assert isinstance(WakeSleep(), SurrogateObjective)
    assert not isinstance(log_weights, SurrogateObjective)
    for bound, is_function in ((WakeSleep(), False), (log_weights, True)):
        assert AverageBound(small_vae(), None, bound, 1, World()).is_function_of_draws is is_function


# -- what is refused --------------------------------------------------------------------------------------------------


def test_several_processes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^bound: expected one process for WakeSleep {}, found 2$"):
        AverageBound(small_vae(), None, WakeSleep(), 1, World(0, 2))
    AverageBound(small_vae(), None, log_weights, 1, World(0, 2))


def test_it_is_not_compiled() -> None:
    message = r"^compiled: expected a bound that is a function of draws from q, found another objective$"
    with pytest.raises(TypeError, match=message):
        small_run(bound=WakeSleep(), compiled=True)


def test_an_encoder_whose_weights_hide_is_refused() -> None:
    net, encoder = net_and_encoder()
    images = Images(every(3).to(torch.uint8), "bits", 1)
    config = TrainingConfig(epochs=1, batch_size=8)

    def go(q: Any) -> None:
        train(net, images, None, config, encoder=q, bound=WakeSleep(), device="cpu", progress=False)

    with pytest.raises(TypeError, match=r"^encoder: expected a module or an object that holds one, found function"):
        go(lambda x: encoder(x))
    # One that has no weights has none to train.
    go(lambda x: Bernoulli(x[:, :2]))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_samples": 0}, ValueError, "num_samples: expected a positive integer, found 0"),
        ({"num_samples": 1.5}, TypeError, "num_samples: expected a positive integer, found 1.5"),
        ({"encoder": "tall"}, ValueError, r"q.log_prob\(z\): expected shape \(2, 8\), found \(2, 8, 1\)"),
        ({"model": "two"}, ValueError, r"sample_x_given_z\(z\): expected shape \(16, 3\), found \(2, 16, 3\)"),
    ],
)
def test_mistakes_get_one_line(change: dict[str, Any], error: type[Exception], message: str) -> None:
    class Loose(Bernoulli):
        """It does not count its draws itself."""

        def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
            return torch.bernoulli(torch.sigmoid(self.logits).repeat(int(num_samples), 1, 1), generator=generator)

    class Tall(Bernoulli):
        def log_prob(self, value: Tensor) -> Tensor:
            return super().log_prob(value).unsqueeze(-1)

    class Two(Net):
        def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
            return super().sample_x_given_z(z, generator=generator).repeat(2, 1, 1)

    net, encoder = net_and_encoder()
    model = Two() if "model" in change else net
    q: Any = encoder
    if "model" not in change:
        q = lambda x: (Tall if "encoder" in change else Loose)(x[:, :2])  # noqa: E731
    with pytest.raises(error, match=f"^{message}$"):
        WakeSleep().climb(model, q, every(3), num_samples=change.get("num_samples", 2), generator=make_generator(1))


@pytest.mark.parametrize("count", [0, -1])
def test_dreams_are_counted_from_one(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^count: expected a positive integer, found {count}$"):
        dream(Net(), count, generator=make_generator(1))
