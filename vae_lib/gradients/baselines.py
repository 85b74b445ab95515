r"""Baselines: numbers subtracted from f before it multiplies the score.

.. math:: \nabla_\phi \mathbb E_q[f] = \mathbb E_q\big[ (f(z) - b)\, \nabla_\phi \log q_\phi(z) \big]
          \quad\text{for every } b \text{ that does not depend on } z

because the score has mean zero. A baseline that has seen the draw it is subtracted from makes the gradient biased. So
each one here is made of other draws, of earlier steps, or of the data. Chapter 3.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from vae_lib import checks
from vae_lib.gradients.objective import Objective


class Baseline(Protocol):
    """A number for each draw that does not depend on that draw."""

    def __call__(self, f: Tensor, objective: Objective) -> Tensor:
        """Baselines for values ``f (S, B)`` of one estimate; the shape broadcasts to ``(S, B)``."""

    def update(self, f: Tensor, objective: Objective) -> None:
        """Learn from the values ``(R, S, B)`` of a call, after its gradients were taken."""


class Constant:
    """The same number always, or one for each datum; the exact mean of f, for instance.

    Parameters
    ----------
    value
        A number, or a tensor ``(B,)``.
    """

    def __init__(self, value: float | Tensor) -> None:
        self.value = value

    def __call__(self, f: Tensor, objective: Objective) -> Tensor:
        """Return the constant."""
        value = torch.as_tensor(self.value, dtype=f.dtype, device=f.device)
        if value.ndim:
            checks.shape("value", value, (f.shape[1],))
        return value

    def update(self, f: Tensor, objective: Objective) -> None:
        """Learn nothing."""


class LeaveOneOut:
    r"""The mean of f over the *other* draws of the same datum, :math:`b_s = \frac{1}{S-1} \sum_{t \ne s} f_t`.

    Needs at least two samples an estimate. Mnih and Rezende (2016); Kool, van Hoof and Welling (2019).
    """

    def __call__(self, f: Tensor, objective: Objective) -> Tensor:
        """Return ``(S, B)``."""
        if f.shape[0] < 2:
            raise ValueError(f"num_samples: expected at least 2 to leave one out, found {f.shape[0]}")
        return (f.sum(0) - f) / (f.shape[0] - 1)

    def update(self, f: Tensor, objective: Objective) -> None:
        """Learn nothing."""


class MovingAverage:
    r"""An exponential moving average of f over earlier calls, :math:`b \leftarrow \beta b + (1 - \beta) \bar f`.

    One number for all data. It starts at the mean of the first call, which itself has baseline 0.

    Parameters
    ----------
    decay
        :math:`\beta`, from 0 to 1, both excluded.
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"decay: expected a number between 0 and 1, found {decay}")
        self.decay = decay
        self.value: Tensor | None = None

    def __call__(self, f: Tensor, objective: Objective) -> Tensor:
        """Return the average so far."""
        return torch.zeros((), dtype=f.dtype, device=f.device) if self.value is None else self.value

    def update(self, f: Tensor, objective: Objective) -> None:
        """Move the average towards the mean of this call."""
        mean = f.detach().mean()
        self.value = mean if self.value is None else self.decay * self.value + (1.0 - self.decay) * mean


class Learned:
    """A network that predicts f from the data, trained by least squares after each call.

    Mnih and Gregor (2014), section 2.3.

    Parameters
    ----------
    network
        Maps ``x (B, D)`` to ``(B,)`` or ``(B, 1)``. The objective must hold its data in ``x``.
    learning_rate
        Of the Adam optimiser that trains it.
    """

    def __init__(self, network: torch.nn.Module, learning_rate: float = 1e-3) -> None:
        self.network = network
        self.optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)

    def _predict(self, objective: Objective) -> Tensor:
        if objective.x is None:
            raise ValueError("objective: expected one with data x for a learned baseline, found x=None")
        prediction: Tensor = self.network(objective.x)
        return prediction.reshape(objective.x.shape[0])

    def __call__(self, f: Tensor, objective: Objective) -> Tensor:
        """Return the predictions, ``(B,)``."""
        return self._predict(objective).detach()

    def update(self, f: Tensor, objective: Objective) -> None:
        """Take one step down the mean squared error."""
        self.optimiser.zero_grad()
        with torch.enable_grad():
            loss = ((f.detach() - self._predict(objective)) ** 2).mean()
            loss.backward()
        self.optimiser.step()
