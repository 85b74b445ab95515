"""Where a number stopped being one: the layer, found by looking at every layer in the order in which they ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class NonFiniteError(ArithmeticError):
    """The bound is not finite; the message names the step, the layer and the last good checkpoint."""


def first_non_finite(module: nn.Module, run: Callable[[], object]) -> str:
    """Name the first weight of a module, or else the first layer's output, that is not finite.

    Parameters
    ----------
    module
        Whatever computed the number.
    run
        Computes it once more; submodules are watched meanwhile.
    """
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"the weight {name}"
    seen: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if not all(bool(torch.isfinite(part).all()) for part in _tensors(output)):
                seen.append(f"the output of {name} ({type(layer).__name__})")

        return hook

    # Whatever runs inside another reports first; the whole module itself is no answer.
    handles = [layer.register_forward_hook(watch(name)) for name, layer in module.named_modules() if name]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return seen[0] if seen else "the bound, though every layer puts out finite numbers: its likelihood or KL overflows"


def _tensors(value: object) -> list[Tensor]:
    """The tensors of an output: of itself, or of what a density is made of."""
    if isinstance(value, Tensor):
        return [value]
    return [part for part in getattr(value, "__dict__", {}).values() if isinstance(part, Tensor)]
