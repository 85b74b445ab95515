"""Monte Carlo EM: it reaches the maximum of the likelihood where that is known, and a visit is what it should be."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from tests.learning.chains import CONFIG, DATA, DOUBLE, linear_model, network_of, run, small_trainer, weights
from tests.learning.runs import grey_images, same_bits, small_vae
from tests.oracles import assert_close, randn
from vae_lib.bounds import log_joint
from vae_lib.exact import LinearGaussian
from vae_lib.learning import Images, TrainingConfig
from vae_lib.learning import monte_carlo_em as em
from vae_lib.learning.batches import epoch_order
from vae_lib.learning.monte_carlo_em import ChainConfig, monte_carlo_em
from vae_lib.mcmc import hmc
from vae_lib.models import VAE
from vae_lib.rng import make_generator


def test_it_reaches_the_closed_form_maximum_of_the_likelihood() -> None:
    """And is no further from it than the truth is: twice the gap in log p of all data is chi-squared of 12 weights.

    Twelve are free: 8 of W less a rotation, 4 of b, 1 of the noise. With the same z for five updates the weights move
    about the maximum by a part of that.
    """
    true = LinearGaussian(randn(4, 2, seed=1), randn(4, seed=2), torch.full((4,), -1.0, dtype=DOUBLE))
    generator = make_generator(3)
    x = true.sample_x_given_z(true.prior(2000).sample(1, generator=generator), generator=generator)[0]
    best = LinearGaussian.maximum_likelihood(x, 2)
    model = linear_model(4)
    config = TrainingConfig(epochs=80, batch_size=2000, learning_rate=0.1, optimiser="adagrad", evaluate_every=40)
    result = monte_carlo_em(model, Images(x), config, device="cpu", progress=False)
    found = weights(model)
    learned = LinearGaussian(found["weight"], found["bias"], found["logvar"].expand(4))
    gap = float((best.log_p_x(x) - learned.log_p_x(x)).sum())
    assert 0.0 <= 2.0 * gap < scipy.stats.chi2.isf(2.0 * scipy.stats.norm.sf(5.0), 12)
    first, last = result.history
    assert first["log_joint"] < last["log_joint"]
    assert (last["samples"], last["updated_samples"]) == (160_000, 800_000)


def test_the_step_size_follows_the_rate_of_acceptance() -> None:
    """Every change of its logarithm is half of what the rate is beyond the target, so their sum is known."""
    trainer = small_trainer(learning_rate=1e-3)
    rates = []
    for _ in range(150):
        trainer.take_step()
        rates.append(float(trainer.state.acceptances[(trainer.state.step - 1) % 2]))
    moved = float(trainer.state.log_step) - math.log(0.1)
    assert moved == pytest.approx(0.5 * (sum(rates) - 0.9 * 150), rel=1e-9)
    # In fifty visits it changes by less than a factor of two, so their mean rate is within 2 log(2) / 50 of the target.
    assert sum(rates[100:]) / 50 == pytest.approx(0.9, abs=0.028)


def test_a_visit_by_hand() -> None:
    """One transition of the chains of the minibatch, five steps of Adagrad with the prior on the weights."""
    model, precision = linear_model(), 2.0
    trainer = small_trainer(model, weight_prior=precision)
    chains = make_generator(5, "chains")
    z = model.prior(11).sample(1, generator=chains)[0]
    assert torch.equal(trainer.state.chains, z)
    rows = epoch_order(11, seed=5, epoch=0)[:4]
    x = DATA.values[rows]
    moved = hmc(
        lambda z: log_joint(model, x, z),
        z[rows][None],
        step_size=torch.tensor(math.log(0.1), dtype=DOUBLE).exp(),
        num_leapfrog=10,
        generator=make_generator(5, "training"),
    )
    parameters = [weights(model)["weight"], weights(model)["bias"], weights(model)["logvar"]]
    squares = [torch.zeros_like(value) for value in parameters]

    def loss(weight: Tensor, bias: Tensor, logvar: Tensor) -> Tensor:
        normal = torch.distributions.Normal(moved.z @ weight.mT + bias, torch.exp(0.5 * logvar))
        return -normal.log_prob(x).sum(-1).mean()

    for _ in range(5):
        leaves = [value.requires_grad_() for value in parameters]
        gradients = torch.autograd.grad(loss(*leaves), leaves)
        for number, gradient in enumerate(gradients):
            value = parameters[number].detach()
            gradient = gradient + precision / 11 * value
            squares[number] = squares[number] + gradient**2
            parameters[number] = value - 0.1 * gradient / (squares[number].sqrt() + 1e-10)
    value = trainer.take_step()
    assert_close(value, moved.log_density.mean())
    for name, expected in zip(("weight", "bias", "logvar"), parameters, strict=True):
        assert_close(weights(model)[name], expected.detach())
    z[rows] = moved.z[0]
    assert torch.equal(trainer.state.chains, z)
    acceptance = moved.acceptance.mean()
    assert_close(trainer.state.acceptances[0], acceptance)
    assert_close(trainer.state.log_step, math.log(0.1) + 0.5 * (acceptance - 0.9))


def test_every_visit_is_to_the_next_minibatch_and_draws_its_bits_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def recorded(model: VAE, x: Tensor, z: Tensor) -> Tensor:
        seen.append(x)
        return log_joint(model, x, z)

    monkeypatch.setattr(em, "log_joint", recorded)
    config, images, generator = TrainingConfig(epochs=2, batch_size=10), grey_images(), make_generator(0, "training")
    monte_carlo_em(small_vae(), images, config, device="cpu", progress=False)
    for visit in range(4):
        epoch, position = divmod(visit, 2)
        rows = epoch_order(23, seed=0, epoch=epoch)[10 * position : 10 * position + 10]
        x = images.read(rows, dtype=DOUBLE, generator=generator)
        assert all(torch.equal(found, x) for found in seen[16 * visit : 16 * visit + 16])
        # A transition draws the momenta and then a number for each chain.
        torch.randn(1, 10, 2, generator=generator, dtype=DOUBLE)
        torch.rand(1, 10, generator=generator, dtype=DOUBLE)
    assert len(seen) == 16 * 4


@pytest.mark.parametrize(
    "chains", [ChainConfig(), ChainConfig(num_leapfrog=3, num_updates=2, target=0.5, step_size=0.2)]
)
def test_what_a_visit_costs(chains: ChainConfig) -> None:
    model, sizes = linear_model(), list[int]()
    network_of(model).register_forward_hook(lambda module, given, out: sizes.append(out.shape[1]))
    result = run(model, chains=chains)
    # An epoch is two visits, of four images: the leapfrog steps and the place before them, then the updates.
    assert sizes == [4] * ((1 + chains.num_leapfrog + chains.num_updates) * 2 * 3)
    assert [row["samples"] for row in result.history] == [8, 16, 24]
    assert [row["updated_samples"] for row in result.history] == [n * chains.num_updates for n in (8, 16, 24)]
    beyond = sum(2 * (row["acceptance"] - chains.target) for row in result.history)
    assert math.log(result.history[-1]["step_size"] / chains.step_size) == pytest.approx(0.5 * beyond, rel=1e-9)


def test_the_rate_follows_its_schedule() -> None:
    trainer, rates = small_trainer(epochs=3, schedule="cosine", warmup_steps=3), []
    for _ in range(6):
        trainer.take_step()
        rates.append(trainer.state.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1 * min(1, (n + 1) / 3) * (1 + math.cos(math.pi * n / 6)) / 2 for n in range(6)])


def test_the_seed_decides() -> None:
    first, again, other = linear_model(), linear_model(), linear_model()
    run(first)
    run(again)
    run(other, TrainingConfig(**{**CONFIG.__dict__, "seed": 6}))
    assert same_bits(weights(first), weights(again))
    assert not torch.equal(weights(first)["weight"], weights(other)["weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vae_is_taken_without_its_encoder(dtype: torch.dtype) -> None:
    vae = small_vae(dtype)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    config = TrainingConfig(epochs=2, batch_size=10, learning_rate=0.1, optimiser="adagrad", weight_prior=1.0)
    monte_carlo_em(vae, grey_images(), config, device="cpu", progress=False)
    for name, value in vae.state_dict().items():
        assert value.dtype == dtype
        assert torch.equal(value, before[name]) == name.startswith("encoder"), name
