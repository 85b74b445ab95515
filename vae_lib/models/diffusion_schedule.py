r"""Noise schedules of a variance-preserving Gaussian diffusion, and the densities that they fix.

.. math:: z_t = \alpha_t x + \sigma_t \epsilon, \qquad \alpha_t^2 + \sigma_t^2 = 1, \qquad
          \lambda_t = \log \mathrm{SNR}(t) = \log \frac{\alpha_t^2}{\sigma_t^2}

A schedule is its log signal-to-noise ratios :math:`\lambda_1 > \dots > \lambda_T` and nothing else: from them come
:math:`\alpha_t^2 = 1 / (1 + e^{-\lambda_t})` and :math:`\sigma_t^2 = 1 / (1 + e^{\lambda_t})`. Steps count from 1, as
in Sohl-Dickstein and others (2015) and Ho, Jain and Abbeel (2020); the formulas are in signal-to-noise ratios, as in
Kingma, Salimans, Poole and Ho (2021). Chapter 9.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vae_lib import checks
from vae_lib.densities import DiagonalNormal


class NoiseSchedule(nn.Module):
    """T steps of noise.

    Every step ``t`` below is an integer, or one for each row, ``(N,)`` of int64; the first is 1.

    Parameters
    ----------
    log_snr
        Log signal-to-noise ratios of :math:`z_1` to :math:`z_T`, ``(T,)``, falling. They are a setting and not a
        weight: a checkpoint does not hold them, so that trained networks can be run with other steps.

    Raises
    ------
    ValueError
        If they are not finite, or do not fall.
    """

    log_snr: Tensor

    def __init__(self, log_snr: Tensor) -> None:
        super().__init__()
        checks.shape("log_snr", log_snr, ("T",))
        checks.finite("log_snr", log_snr)
        if not bool((log_snr.diff() < 0.0).all()):
            raise ValueError("log_snr: expected numbers that fall from step to step, found others")
        self.register_buffer("log_snr", log_snr, persistent=False)

    @property
    def num_steps(self) -> int:
        """T."""
        return self.log_snr.shape[0]

    @property
    def snr(self) -> Tensor:
        r"""Signal-to-noise ratios :math:`\alpha_t^2 / \sigma_t^2`, ``(T,)``."""
        return torch.exp(self.log_snr)

    @property
    def alpha(self) -> Tensor:
        r"""What is left of the data, :math:`\alpha_t`, ``(T,)``."""
        return torch.sigmoid(self.log_snr).sqrt()

    @property
    def std(self) -> Tensor:
        r"""Standard deviations of the noise, :math:`\sigma_t`, ``(T,)``."""
        return torch.sigmoid(-self.log_snr).sqrt()

    def at(self, values: Tensor, t: int | Tensor, *, first: int = 1) -> Tensor:
        """Entry of ``values (T,)`` at a step: a number ``(1, 1)``, or one for each row, ``(N, 1)``.

        Raises
        ------
        TypeError, ValueError
            If the step is no integer, or lies outside ``first`` to T.
        """
        if isinstance(t, Tensor):
            if t.dtype != torch.int64 or t.dim() != 1:
                raise TypeError(f"t: expected an integer or int64 of shape (N,), found {t.dtype}, {tuple(t.shape)}")
        elif isinstance(t, bool) or not isinstance(t, int):
            raise TypeError(f"t: expected an integer or int64 of shape (N,), found {t!r}")
        steps = torch.as_tensor(t, device=values.device).reshape(-1, 1)
        if bool(((steps < first) | (steps > self.num_steps)).any()):
            raise ValueError(f"t: expected steps from {first} to {self.num_steps}, found {t}")
        return values[steps - 1]

    def pair(self, values: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """Entries of ``values (T,)`` at t - 1 and at t, a step from 2 to T; as :meth:`at`."""
        after = self.at(values, t, first=2)
        return self.at(values, t - 1), after

    def log_snr_drop(self, t: int | Tensor) -> Tensor:
        r""":math:`\lambda_{t-1} - \lambda_t > 0` for a step from 2 to T, ``(1, 1)`` or ``(N, 1)``."""
        before, after = self.pair(self.log_snr, t)
        return before - after

    def marginal(self, x: Tensor, t: int | Tensor) -> DiagonalNormal:
        r""":math:`q(z_t \mid x) = \mathcal N(\alpha_t x, \sigma_t^2 I)` for data ``x (N, D)``."""
        checks.shape("x", x, ("N", "D"), like=self.log_snr)
        logvar = nn.functional.logsigmoid(-self.at(self.log_snr, t))
        return DiagonalNormal(self.at(self.alpha, t) * x, logvar.expand_as(x))

    def transition(self, z_s: Tensor, t: int | Tensor) -> DiagonalNormal:
        r"""One step of noise, :math:`q(z_t \mid z_{t-1})`, for ``z_s (N, D)`` and a step from 2 to T.

        .. math:: \mathcal N\!\left(\tfrac{\alpha_t}{\alpha_{t-1}} z_{t-1},\;
                  \sigma_t^2 \left(1 - e^{\lambda_t - \lambda_{t-1}}\right) I\right)
        """
        checks.shape("z_s", z_s, ("N", "D"), like=self.log_snr)
        alpha_s, alpha_t = self.pair(self.alpha, t)
        logvar = nn.functional.logsigmoid(-self.at(self.log_snr, t)) + self._log_new(t)
        return DiagonalNormal(alpha_t / alpha_s * z_s, logvar.expand_as(z_s))

    def posterior(self, x: Tensor, z_t: Tensor, t: int | Tensor) -> DiagonalNormal:
        r"""One step back if the data were known, :math:`q(z_{t-1} \mid z_t, x)`, ``(N, D)``, for a step from 2 to T.

        .. math:: \mathcal N\!\left(e^{\lambda_t - \lambda_{t-1}} \tfrac{\alpha_{t-1}}{\alpha_t} z_t
                  + \alpha_{t-1} \left(1 - e^{\lambda_t - \lambda_{t-1}}\right) x,\;
                  \sigma_{t-1}^2 \left(1 - e^{\lambda_t - \lambda_{t-1}}\right) I\right)

        With a denoiser's guess in the place of x it is the reverse step of the model.
        """
        checks.shape("x", x, ("N", "D"), like=self.log_snr)
        checks.shape("z_t", z_t, tuple(x.shape), like=x)
        (alpha_s, alpha_t), (log_snr_s, log_snr_t) = self.pair(self.alpha, t), self.pair(self.log_snr, t)
        log_ratio = log_snr_t - log_snr_s
        mu = torch.exp(log_ratio) * alpha_s / alpha_t * z_t - alpha_s * torch.expm1(log_ratio) * x
        logvar = nn.functional.logsigmoid(-log_snr_s) + self._log_new(t)
        return DiagonalNormal(mu, logvar.expand_as(x))

    def _log_new(self, t: int | Tensor) -> Tensor:
        r""":math:`\log(1 - e^{\lambda_t - \lambda_{t-1}})`: the share of the noise at t that the step has added."""
        return torch.log(-torch.expm1(-self.log_snr_drop(t)))

    def step_weight(self, t: int | Tensor) -> Tensor:
        r"""Weight :math:`\frac12 (\mathrm{SNR}(t-1) - \mathrm{SNR}(t))` of the squared error of x in the KL of a step.

        ``(1,)`` or ``(N,)``, for a step from 2 to T. Kingma, Salimans, Poole and Ho (2021), equation 13.
        """
        return (0.5 * torch.exp(self.at(self.log_snr, t, first=2)) * torch.expm1(self.log_snr_drop(t))).squeeze(1)

    def simple_weight(self, t: int | Tensor) -> Tensor:
        r"""Weight :math:`\frac12 (e^{\lambda_{t-1} - \lambda_t} - 1)` of the squared error of the noise in that KL.

        ``(1,)`` or ``(N,)``, for a step from 2 to T. The simple loss of Ho, Jain and Abbeel (2020), equation 14, leaves
        it out. On a schedule that is linear in log-SNR it is the same for all steps.
        """
        return (0.5 * torch.expm1(self.log_snr_drop(t))).squeeze(1)


def cosine_schedule(
    num_steps: int, *, log_snr_max: float = 10.0, log_snr_min: float = -10.0, dtype: torch.dtype | None = None
) -> NoiseSchedule:
    r"""Steps at equal angles: :math:`\alpha_t = \cos \varphi_t`, :math:`\sigma_t = \sin \varphi_t`.

    The cosine of Nichol and Dhariwal (2021), with the ends given as log signal-to-noise ratios, so that they stay where
    they are when the number of steps changes. In log-SNR its first and last steps are wide.

    Parameters
    ----------
    num_steps
        T, at least 2.
    log_snr_max, log_snr_min
        Of :math:`z_1` and :math:`z_T`.
    dtype
        The default dtype if not given.
    """
    _check_ends(num_steps, log_snr_max, log_snr_min)
    first, last = (math.atan(math.exp(-0.5 * end)) for end in (log_snr_max, log_snr_min))
    angle = torch.linspace(first, last, num_steps, dtype=torch.float64)
    return _schedule(-2.0 * torch.log(torch.tan(angle)), dtype)


def linear_log_snr_schedule(
    num_steps: int, *, log_snr_max: float = 10.0, log_snr_min: float = -10.0, dtype: torch.dtype | None = None
) -> NoiseSchedule:
    """Steps of equal size in log-SNR, as Kingma, Salimans, Poole and Ho (2021) have them where none is learned.

    Parameters as for :func:`cosine_schedule`.
    """
    _check_ends(num_steps, log_snr_max, log_snr_min)
    return _schedule(torch.linspace(log_snr_max, log_snr_min, num_steps, dtype=torch.float64), dtype)


def linear_beta_schedule(
    num_steps: int = 1000, *, first: float = 1e-4, last: float = 0.02, dtype: torch.dtype | None = None
) -> NoiseSchedule:
    r"""Added variances :math:`\beta_t = 1 - \alpha_t^2 / \alpha_{t-1}^2` on a line: Ho, Jain and Abbeel (2020).

    Parameters
    ----------
    num_steps
        T, at least 2. Where it is not 1000, all variances are scaled by 1000 / T, so that the last step ends near
        the same signal-to-noise ratio.
    first, last
        Of the variances at T = 1000.
    dtype
        The default dtype if not given.

    Raises
    ------
    ValueError
        If a variance is not between 0 and 1: with too few steps the last one is too large.
    """
    _check_steps(num_steps)
    beta = 1000.0 / num_steps * torch.linspace(first, last, num_steps, dtype=torch.float64)
    if not bool(((beta > 0.0) & (beta < 1.0)).all()):
        found = f"{float(beta.min()):g} to {float(beta.max()):g} in {num_steps} steps"
        raise ValueError(f"beta: expected variances between 0 and 1, found {found}")
    log_alpha2 = torch.log1p(-beta).cumsum(0)
    return _schedule(log_alpha2 - torch.log(-torch.expm1(log_alpha2)), dtype)


def _schedule(log_snr: Tensor, dtype: torch.dtype | None) -> NoiseSchedule:
    return NoiseSchedule(log_snr.to(torch.get_default_dtype() if dtype is None else dtype))


def _check_steps(num_steps: int) -> None:
    checks.positive_int("num_steps", num_steps)
    if num_steps < 2:
        raise ValueError(f"num_steps: expected at least 2, found {num_steps}")


def _check_ends(num_steps: int, log_snr_max: float, log_snr_min: float) -> None:
    _check_steps(num_steps)
    if not math.inf > log_snr_max > log_snr_min > -math.inf:
        raise ValueError(f"log_snr_max: expected more than log_snr_min, {log_snr_min}, found {log_snr_max}")
