"""The benchmarks compare like with like: the step that is written by hand computes what the library's step computes."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.densities import DiagonalNormal
from vae_lib.rng import make_generator

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def part(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """A module of the benchmarks, found as the scripts find it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(f"contenders.{name}")


def a_task(monkeypatch: pytest.MonkeyPatch, **sizes: Any) -> Any:
    images = torch.randint(0, 256, (12, 784), generator=make_generator(1), dtype=torch.uint8)
    return part(monkeypatch, "contract").Task(images, hidden=5, batch_size=4, **sizes)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_loss_by_hand_is_minus_the_elbo(monkeypatch: pytest.MonkeyPatch, activation: str) -> None:
    task = a_task(monkeypatch, activation=activation)
    vae, x = task.vae().double(), task.pixels.double()
    noise = torch.randn(1, len(x), vae.latent_dim, generator=make_generator(2), dtype=torch.float64)
    q = vae(x)
    assert isinstance(q, DiagonalNormal)
    expected = -elbo_with_analytic_kl(vae, q, x, q.from_noise(noise)).mean()
    found = part(monkeypatch, "ours").loss_by_hand(vae.encoder.network, vae.decoder, x, noise[0])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)
    for ours, by_hand in zip(
        *(torch.autograd.grad(loss, list(vae.parameters())) for loss in (expected, found)), strict=True
    ):
        torch.testing.assert_close(by_hand, ours, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["ByTrainer", "ByHand"])
def test_contender_starts_with_the_weights_of_all_and_learns(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    task = a_task(monkeypatch)
    contender = getattr(part(monkeypatch, "ours"), name)(task)
    first = [layer.weight.detach().clone() for layer in contender.linears()]
    for weight, same in zip(first, part(monkeypatch, "contract").linears_of(task.vae()), strict=True):
        assert torch.equal(weight, same.weight)
    for _ in range(2):  # it goes on where it stopped
        before = [layer.weight.detach().clone() for layer in contender.linears()]
        contender.epoch()
        after = [layer.weight.detach() for layer in contender.linears()]
        moves = [(new - old).abs().max() for new, old in zip(after, before, strict=True)]
        # A step of Adam is about its rate for a weight whose gradient keeps its sign, and there are 12 / 4 of them.
        assert 1e-3 < float(torch.stack(moves).max()) < 5e-3


def test_weights_of_separate_heads_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = part(monkeypatch, "contract")
    source, target = a_task(monkeypatch).vae(), a_task(monkeypatch).vae()
    with torch.no_grad():
        for weight in target.parameters():
            weight.zero_()
    sizes = [(784, 5), (5, 20), (5, 20), (20, 5), (5, 784)]
    with torch.random.fork_rng():  # layers of torch draw their first weights
        layers = [torch.nn.Linear(inputs, outputs) for inputs, outputs in sizes]
    contract.copy_weights(source, layers, into_vae=False)
    x = torch.rand(3, 784, generator=make_generator(3))
    h = torch.tanh(layers[0](x))
    torch.testing.assert_close(layers[1](h), source(x).mu)
    torch.testing.assert_close(layers[2](h), source(x).logvar)
    contract.copy_weights(target, layers, into_vae=True)
    for one, other in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(one, other)


def test_epochs_by_hand_are_those_of_adam_on_the_library_s_elbo(monkeypatch: pytest.MonkeyPatch) -> None:
    task = a_task(monkeypatch)
    task.__dict__["pixels"] = task.pixels.double()
    contender, vae = part(monkeypatch, "ours").ByHand(task), task.vae().double()
    contender.vae.double()
    optimiser, generator = torch.optim.Adam(vae.parameters(), lr=1e-3), make_generator(2)
    for _ in range(2):
        contender.epoch()
        for rows in torch.randperm(12, generator=generator).split(4):
            x, q = task.pixels[rows], vae(task.pixels[rows])
            assert isinstance(q, DiagonalNormal)
            z = q.from_noise(torch.randn(1, 4, vae.latent_dim, generator=generator).double())
            optimiser.zero_grad()
            (-elbo_with_analytic_kl(vae, q, x, z).mean()).backward()
            optimiser.step()
    for by_hand, ours in zip(contender.vae.parameters(), vae.parameters(), strict=True):
        torch.testing.assert_close(by_hand, ours, rtol=1e-8, atol=1e-12)
