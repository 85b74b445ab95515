"""What a problem is: an expectation with parameters and its exact value, which has been found without sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vae_lib.densities import DiagonalNormal
from vae_lib.gradients import Objective

DOUBLE = torch.float64
Params = Mapping[str, Tensor]


class Problem(NamedTuple):
    objective: Objective
    params: dict[str, Tensor]
    # The exact values, one for each datum, (B,): their sum is differentiated.
    exact: Callable[[Params], Tensor]
    kinds: frozenset[str]

    def gradient(self) -> dict[str, Tensor]:
        """The exact gradient."""
        leaves = {name: value.detach().clone().requires_grad_() for name, value in self.params.items()}
        gradients = torch.autograd.grad(self.exact(leaves).sum(), list(leaves.values()))
        return dict(zip(leaves, gradients, strict=True))

    def mean(self) -> Tensor:
        """The exact values at the parameters, ``(B,)``."""
        return self.exact(self.params).detach()


def tensor(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=DOUBLE)


def diagonal(p: Params) -> DiagonalNormal:
    return DiagonalNormal(p["mu"], p["logvar"])
