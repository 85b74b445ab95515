"""The compiled bound is the plain one. Compiling takes half a minute once, and seconds while PyTorch remembers it."""

from __future__ import annotations

import pytest
import torch

from tests.learning.runs import grey_images, small_run, small_vae
from tests.learning.together import Like, gamma
from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.learning.average_bound import AverageBound
from vae_lib.learning.compiled import CompiledBound
from vae_lib.learning.distributed import World
from vae_lib.rng import make_generator


def test_the_noise_is_drawn_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler: the same generator gives the same bound, and layers in training mode run once a step."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    module = AverageBound(small_vae(), None, elbo_with_analytic_kl, 3, World())
    modes: list[bool] = []
    module.model.encoder.register_forward_hook(lambda layer, *_: modes.append(layer.training))  # type: ignore[attr-defined]
    compiled = CompiledBound(module, torch.device("cpu"))
    x = grey_images().read_all(dtype=torch.float64, generator=make_generator(1))
    one, other = make_generator(2), make_generator(2)
    for _ in range(2):
        bound, plain = compiled(x, one), module(x, other)
        assert torch.equal(bound, plain)
        slopes = [torch.autograd.grad(value, list(module.parameters())) for value in (bound, plain)]
        assert all(torch.equal(*pair) for pair in zip(*slopes, strict=True))
    assert modes == [False, True, True, True, True]


def test_what_cannot_be_compiled_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    module = AverageBound(small_vae(), None, elbo_with_analytic_kl, 1, World(1, 2))
    with pytest.raises(ValueError, match=r"^compiled: expected one process, found 2$"):
        CompiledBound(module, torch.device("cpu"))
    model = small_vae()
    model.encoder = Like(gamma)
    with pytest.raises(TypeError, match=r"^compiled: expected a normal q, found Gamma$"):
        small_run(model=model, compiled=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_the_compiled_bound_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64. Sums of some ten terms in another order move a bound, and a slope, by about 1e-15 of its size.

    Adam divides a slope by its own size plus 1e-8, so that a step of 0.01 is right to 1e-9 even if a slope is zero but
    for rounding.
    """
    compiled = []
    compile_it = torch.compile

    def noted(function: object, **options: object) -> object:
        compiled.append(options)
        return compile_it(function, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "compile", noted)
    plain, fast = small_run(), small_run(compiled=True)
    assert compiled == [{"mode": "default"}]
    for row, other in zip(plain.history, fast.history, strict=True):
        assert other["train_elbo"] == pytest.approx(row["train_elbo"], rel=1e-9)
        assert other["validation_elbo"] == pytest.approx(row["validation_elbo"], rel=1e-9)
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(fast.model.state_dict()[name], value, rtol=1e-9, atol=6e-9)
