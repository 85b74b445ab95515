r"""Gaussian diffusion: a chain of latents as long as the data, whose q is noise that nobody trains.

.. math:: q(z \mid x) = q(z_1 \mid x) \prod_{t=2}^T q(z_t \mid z_{t-1}), \qquad
          p(z) = p(z_T) \prod_{t=2}^T p(z_{t-1} \mid z_t), \quad
          p(z_{t-1} \mid z_t) = q(z_{t-1} \mid z_t, x = \hat x_\theta(z_t))

.. math:: \mathrm{ELBO}(x) = \mathbb E_{q(z_1 \mid x)} \log p(x \mid z_1)
          - \sum_{t=2}^T \mathbb E_{q(z_t \mid x)} D_{\mathrm{KL}}(q(z_{t-1} \mid z_t, x) \,\|\, p(z_{t-1} \mid z_t))
          - D_{\mathrm{KL}}(q(z_T \mid x) \,\|\, p(z_T))

The two normals of a step have one variance, so their KL is a squared error with a weight:

.. math:: D_{\mathrm{KL}} = \tfrac12 \left(\mathrm{SNR}(t-1) - \mathrm{SNR}(t)\right) |x - \hat x_\theta(z_t)|^2
          = \tfrac12 \left(\frac{\mathrm{SNR}(t-1)}{\mathrm{SNR}(t)} - 1\right) |\epsilon - \hat\epsilon_\theta(z_t)|^2

Sohl-Dickstein and others (2015); Ho, Jain and Abbeel (2020); Kingma, Salimans, Poole and Ho (2021). Chapter 9.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Generator, Tensor, nn

from vae_lib import checks
from vae_lib.densities import DiagonalNormal
from vae_lib.divergences import kl
from vae_lib.models.decoder_model import standard_normal
from vae_lib.models.diffusion_schedule import NoiseSchedule
from vae_lib.models.hierarchical import HierarchicalModel, MarkovChain
from vae_lib.models.reconstructions import NormalReconstruction, Reconstruction

Prediction = Literal["eps", "x", "v"]


class DiffusionTerms(NamedTuple):
    """The parts of the ELBO, in nats.

    - ``reconstruction``: log p(x | z₁), ``(S, B)``.
    - ``step_kl``: KL of the steps 2 to T, ``(T - 1, S, B)``.
    - ``prior_kl``: KL of q(z_T | x) to the prior, ``(B,)``.
    """

    reconstruction: Tensor
    step_kl: Tensor
    prior_kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """The ELBO, ``(S, B)``."""
        return self.reconstruction - self.step_kl.sum(0) - self.prior_kl


class GaussianDiffusion(nn.Module):
    r"""A diffusion model with T steps.

    It is a model and a q at once. Its latents are :math:`z_1, \dots, z_T` side by side, L = T D numbers, ``model(x)``
    is the frozen q, and every bound and evaluator of this library takes it as it is. Each evaluates the network T times
    for a draw. So does :meth:`terms`, which knows the KL of a step; :meth:`one_step_elbo` needs two evaluations.

    Parameters
    ----------
    denoiser
        Maps noisy data ``(N, D)`` and their log signal-to-noise ratios ``(N,)`` to its prediction, ``(N, D)``. It does
        not see the number of the step, so that it can be run with other steps than it was trained with.
    schedule
        The steps.
    data_dim
        D.
    predicts
        What the denoiser puts out: the noise ``"eps"``, the data ``"x"``, or
        :math:`v = \alpha \epsilon - \sigma x` (Salimans and Ho, 2022).
    reconstruction
        The last step; for real numbers if not given.
    """

    def __init__(
        self,
        denoiser: Callable[[Tensor, Tensor], Tensor],
        schedule: NoiseSchedule,
        *,
        data_dim: int,
        predicts: Prediction = "eps",
        reconstruction: Reconstruction | None = None,
    ) -> None:
        super().__init__()
        checks.positive_int("data_dim", data_dim)
        if predicts not in get_args(Prediction):
            raise ValueError(f"predicts: expected one of {', '.join(get_args(Prediction))}, found {predicts!r}")
        self.denoiser, self.schedule, self.data_dim, self.predicts = denoiser, schedule, data_dim, predicts
        self.reconstruction: Reconstruction = NormalReconstruction() if reconstruction is None else reconstruction

    @property
    def num_steps(self) -> int:
        """T."""
        return self.schedule.num_steps

    @property
    def latent_dim(self) -> int:
        """Length of all latents together, T D."""
        return self.num_steps * self.data_dim

    def predict_x(self, z_t: Tensor, t: int | Tensor) -> Tensor:
        """The denoiser's guess of the data behind ``z_t (N, D)``, in the units of the diffusion, ``(N, D)``."""
        checks.shape("z_t", z_t, ("N", self.data_dim), like=self.schedule.log_snr)
        at = functools.partial(self.schedule.at, t=t)
        output = self.denoiser(z_t, at(self.schedule.log_snr).squeeze(1).expand(z_t.shape[0]))
        checks.shape("denoiser(z_t, log_snr)", output, tuple(z_t.shape), like=z_t)
        if self.predicts == "x":
            return output
        if self.predicts == "v":
            return at(self.schedule.alpha) * z_t - at(self.schedule.std) * output
        return (z_t - at(self.schedule.std) * output) / at(self.schedule.alpha)

    def reverse(self, z_t: Tensor, t: int | Tensor) -> DiagonalNormal:
        """One step of the model, :math:`p(z_{t-1} | z_t)`, for ``z_t (N, D)`` and a step from 2 to T."""
        return self.schedule.posterior(self.predict_x(z_t, t), z_t, t)

    def step_kl(self, x: Tensor, z_t: Tensor, t: int | Tensor) -> Tensor:
        """KL from :math:`q(z_{t-1} | z_t, x)` to the model's step, ``(N,)``, in nats; x and z_t are ``(N, D)``."""
        return self.schedule.step_weight(t) * self._squared_error(x, z_t, t)

    def _squared_error(self, x: Tensor, z_t: Tensor, t: int | Tensor) -> Tensor:
        return ((self._encode(x) - self.predict_x(z_t, t)) ** 2).sum(-1)

    def prior_kl(self, x: Tensor) -> Tensor:
        """KL from :math:`q(z_T | x)` to N(0, I), ``(B,)``, in nats. No weight of the model moves it."""
        return kl(self.schedule.marginal(self._encode(x), self.num_steps), self._top(x.shape[0]))

    def terms(self, x: Tensor, *, num_samples: int, generator: Generator) -> DiffusionTerms:
        """The ELBO in parts, all T of them, each with draws of its own; unbiased.

        Parameters
        ----------
        x
            Data, ``(B, D)``.
        num_samples
            S, draws for each datum and step.
        generator
            The source of randomness.
        """
        checks.positive_int("num_samples", num_samples)
        shape, rows = (num_samples, x.shape[0]), _repeat(x, num_samples)
        z_1 = self._noisy(rows, 1, generator)
        # A sum over no steps, of T = 1, is still a sum.
        step_kl = [
            self.step_kl(rows, self._noisy(rows, t, generator), t).reshape(shape) for t in range(2, self.num_steps + 1)
        ]
        return DiffusionTerms(
            self._log_p_x_given_first(x, z_1.reshape(*shape, -1)),
            torch.stack(step_kl) if step_kl else x.new_zeros(0, *shape),
            self.prior_kl(x),
        )

    def one_step_elbo(self, x: Tensor, *, num_samples: int, generator: Generator, stratified: bool = False) -> Tensor:
        """The ELBO with one step drawn in the place of the sum, times their number; unbiased, ``(S, B)``, in nats.

        Parameters
        ----------
        x
            Data, ``(B, D)``.
        num_samples
            S, draws for each datum.
        generator
            The source of randomness.
        stratified
            Spread the steps of the S B values evenly. Each value has the same distribution as before, and their mean
            less noise; but they are no longer independent, and an error bar from their spread is too wide.

        Raises
        ------
        ValueError
            If there are fewer than two steps.
        """
        if self.num_steps < 2:
            raise ValueError(f"schedule: expected at least 2 steps to draw one from, found {self.num_steps}")
        shape, rows = (num_samples, x.shape[0]), _repeat(x, num_samples)
        t = self._draw_steps(len(rows), 2, stratified, generator)
        z_1, z_t = self._noisy(rows, 1, generator), self._noisy(rows, t, generator)
        # One evaluation of the network for both.
        guess_1, guess_t = self.predict_x(torch.cat([z_1, z_t]), torch.cat([torch.ones_like(t), t])).chunk(2)
        step_kl = self.schedule.step_weight(t) * ((self._encode(rows) - guess_t) ** 2).sum(-1)
        reconstruction = self.reconstruction.log_prob(x, guess_1.reshape(*shape, -1), self._first_log_snr())
        return reconstruction - (self.num_steps - 1) * step_kl.reshape(shape) - self.prior_kl(x)

    def simple_loss(self, x: Tensor, *, num_samples: int, generator: Generator, stratified: bool = False) -> Tensor:
        r"""The simple loss of Ho, Jain and Abbeel (2020), equation 14: :math:`|\epsilon - \hat\epsilon(z_t)|^2`.

        ``(S, B)``, for a step from 1 to T drawn evenly. It would be the KL of the step with the weight
        :meth:`~vae_lib.models.NoiseSchedule.simple_weight`. Parameters as for :meth:`one_step_elbo`.
        """
        rows = _repeat(x, num_samples)
        t = self._draw_steps(len(rows), 1, stratified, generator)
        # The noise that was guessed and the noise that was added differ by α/σ times what the data do.
        snr = self.schedule.at(self.schedule.snr, t).squeeze(1)
        return (snr * self._squared_error(rows, self._noisy(rows, t, generator), t)).reshape(num_samples, x.shape[0])

    def _draw_steps(self, count: int, first: int, stratified: bool, generator: Generator) -> Tensor:
        like, choices = self.schedule.log_snr, self.num_steps + 1 - first
        uniform = torch.rand(1 if stratified else count, generator=generator, dtype=like.dtype, device=like.device)
        if stratified:
            uniform = (uniform + torch.arange(count, device=like.device) / count) % 1.0
        # A product of number and rounding may reach the number itself.
        return first + (uniform * choices).long().clamp(max=choices - 1)

    def _noisy(self, rows: Tensor, t: int | Tensor, generator: Generator) -> Tensor:
        return self.schedule.marginal(self._encode(rows), t).sample(1, generator=generator).squeeze(0)

    def _encode(self, x: Tensor) -> Tensor:
        checks.shape("x", x, ("B", self.data_dim), like=self.schedule.log_snr)
        return self.reconstruction.encode(x)

    def _top(self, batch_size: int) -> DiagonalNormal:
        like = self.schedule.log_snr
        return standard_normal(self.data_dim, dtype=like.dtype, device=like.device)(batch_size)

    # The same model as a chain of latents.

    def forward(self, x: Tensor) -> MarkovChain:
        r"""The frozen q from the bottom up, :math:`q(z_1 \mid x) \prod q(z_t \mid z_{t-1})`, for data ``x (B, D)``."""
        links = [functools.partial(self.schedule.transition, t=t) for t in range(2, self.num_steps + 1)]
        return MarkovChain(self.schedule.marginal(self._encode(x), 1), links, [self.data_dim] * self.num_steps)

    def posterior_chain(self, x: Tensor) -> MarkovChain:
        r"""The same density from the top down, :math:`q(z_T \mid x) \prod q(z_{t-1} \mid z_t, x)`."""
        encoded = self._encode(x)
        return MarkovChain(
            self.schedule.marginal(encoded, self.num_steps),
            [_Posterior(self.schedule, t) for t in range(self.num_steps, 1, -1)],
            [self.data_dim] * self.num_steps,
            top_down=True,
            given=encoded,
        )

    def as_chain(self) -> HierarchicalModel:
        """The generative half as a hierarchical model, with the same weights."""
        links = [functools.partial(self.reverse, t=t) for t in range(self.num_steps, 1, -1)]
        return HierarchicalModel(_Bottom(self), self._top, links, [self.data_dim] * self.num_steps)

    def prior(self, batch_size: int) -> MarkovChain:
        """The reverse process, :math:`p(z_T) prod p(z_{t-1} | z_t)`, repeated for ``batch_size`` data."""
        return self.as_chain().prior(batch_size)

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """Log-likelihood of ``x (B, D)`` under the first part of ``z (S, B, T D)``, ``(S, B)``, in nats."""
        checks.shape("x", x, ("B", self.data_dim), like=self.schedule.log_snr)
        checks.shape("z", z, ("S", x.shape[0], self.latent_dim), like=x)
        return self._log_p_x_given_first(x, z[..., : self.data_dim])

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """One datum for each latent ``z (S, B, T D)``: ``(S, B, D)``."""
        checks.shape("z", z, ("S", "B", self.latent_dim))
        return self._sample_x_given_first(z[..., : self.data_dim], generator=generator)

    def mean_x_given_z(self, z: Tensor) -> Tensor:
        """The last guess of the data for each latent ``z (S, B, T D)``, ``(S, B, D)``: the picture to show."""
        checks.shape("z", z, ("S", "B", self.latent_dim))
        return self.reconstruction.decode(self._guess(z[..., : self.data_dim]))

    def sample_path(self, count: int, *, generator: Generator) -> Tensor:
        """Ancestral sampling: all latents of ``count`` draws, ``(T, count, D)``, the least noisy first. No gradient."""
        path = self.prior(count).sample(1, generator=generator)
        return path.reshape(count, self.num_steps, self.data_dim).transpose(0, 1)

    def sample(self, count: int, *, generator: Generator) -> Tensor:
        """Ancestral sampling: data ``(count, D)``, without gradient."""
        with torch.no_grad():
            first = self.sample_path(count, generator=generator)[:1]
            return self._sample_x_given_first(first, generator=generator).squeeze(0)

    def _first_log_snr(self) -> Tensor:
        return self.schedule.log_snr[0]

    def _guess(self, z_1: Tensor) -> Tensor:
        return self.predict_x(z_1.reshape(-1, self.data_dim), 1).reshape(z_1.shape)

    def _log_p_x_given_first(self, x: Tensor, z_1: Tensor) -> Tensor:
        return self.reconstruction.log_prob(x, self._guess(z_1), self._first_log_snr())

    def _sample_x_given_first(self, z_1: Tensor, *, generator: Generator) -> Tensor:
        return self.reconstruction.sample(self._guess(z_1), self._first_log_snr(), generator=generator)


@dataclass(frozen=True)
class _Bottom:
    """A diffusion's last step as a model of its own. Meets :class:`~vae_lib.protocols.LatentVariableModel`."""

    diffusion: GaussianDiffusion

    @property
    def data_dim(self) -> int:
        return self.diffusion.data_dim

    @property
    def latent_dim(self) -> int:
        return self.diffusion.data_dim

    def prior(self, batch_size: int) -> DiagonalNormal:
        return self.diffusion._top(batch_size)

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        return self.diffusion._log_p_x_given_first(x, z)

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        return self.diffusion._sample_x_given_first(z, generator=generator)


@dataclass(frozen=True)
class _Posterior:
    """One step back given the data, with its arguments in a link's order."""

    schedule: NoiseSchedule
    t: int

    def __call__(self, z_t: Tensor, x: Tensor) -> DiagonalNormal:
        return self.schedule.posterior(x, z_t, self.t)


def _repeat(x: Tensor, num_samples: int) -> Tensor:
    """Repeat data ``(B, D)`` for each of S draws, ``(S B, D)``, the draws slowest."""
    checks.positive_int("num_samples", num_samples)
    return x.expand(num_samples, *x.shape).reshape(num_samples * x.shape[0], -1)
