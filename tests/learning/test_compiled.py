"""The compiled bound is the plain one. Compiling takes half a minute once, and seconds while PyTorch remembers it."""

from __future__ import annotations

import pytest
import torch

from tests.learning.runs import small_run


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
