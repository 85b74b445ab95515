"""A VAE in Pyro, as its tutorial builds one: a model and a guide of named draws, trained by `SVI.step`.

The images come through a DataLoader from a tensor in memory, which is kinder than the tutorial's conversion of each.
"""

# mypy: disable-error-code="import-not-found,import-untyped", disallow-subclassing-any=False

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from pyro.optim import Adam
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from contenders.contract import LATENTS, LEARNING_RATE, PIXELS, Task, linears_of


class PyroVAE:
    """The model and its inference.

    Parameters
    ----------
    jit
        Let Pyro trace the loss once and compile it.
    """

    def __init__(self, task: Task, *, jit: bool = False) -> None:
        # Pyro keeps all parameters in one global store, by name: two VAEs of one run must not share theirs.
        self.name = f"vae{id(self)}"
        self.hidden = nn.Sequential(nn.Linear(PIXELS, task.hidden), task.activate())
        self.mu, self.logvar = nn.Linear(task.hidden, LATENTS), nn.Linear(task.hidden, LATENTS)
        self.decoder = nn.Sequential(nn.Linear(LATENTS, task.hidden), task.activate(), nn.Linear(task.hidden, PIXELS))
        self.network = nn.ModuleList([self.hidden, self.mu, self.logvar, self.decoder])
        self.loader = DataLoader(TensorDataset(task.pixels), batch_size=task.batch_size, shuffle=True)
        loss = JitTrace_ELBO(ignore_jit_warnings=True) if jit else Trace_ELBO()
        self.svi = SVI(self.model, self.guide, Adam({"lr": LEARNING_RATE}), loss=loss)

    def model(self, x: Tensor) -> None:
        """Draw latents from the prior, and see the images."""
        pyro.module(f"{self.name}.decoder", self.decoder)
        with pyro.plate("images", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], LATENTS)
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            # Grey levels are no bits, so Pyro must not look at them.
            p_x = dist.Bernoulli(logits=self.decoder(z), validate_args=False)
            pyro.sample("x", p_x.to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Draw latents from q(z | x)."""
        pyro.module(f"{self.name}.encoder", self.network[:3])
        with pyro.plate("images", x.shape[0]):
            h = self.hidden(x)
            pyro.sample("z", dist.Normal(self.mu(h), torch.exp(0.5 * self.logvar(h))).to_event(1))

    def linears(self) -> list[nn.Linear]:
        """The layers."""
        return linears_of(self.network)

    def epoch(self) -> None:
        """One pass."""
        for (x,) in self.loader:
            self.svi.step(x)
