"""Gaussian diffusion: every density and KL against its definition, one ELBO by four ways, and the exact normal case."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from tests.oracles import assert_close, assert_mean, randn
from vae_lib import bounds
from vae_lib.densities import FullNormal
from vae_lib.divergences import kl, monte_carlo_kl
from vae_lib.evaluation import held_out_elbo, log_p_x
from vae_lib.models import (
    DiscretisedNormalReconstruction,
    GaussianDiffusion,
    HierarchicalModel,
    LearnedReconstruction,
    LinearDenoiser,
    MLPDenoiser,
    NoiseSchedule,
    NormalDataDiffusion,
    NormalReconstruction,
    bits_per_dim,
    cosine_schedule,
    linear_beta_schedule,
    linear_log_snr_schedule,
    mlp,
)
from vae_lib.protocols import ApproximatePosterior, LatentVariableModel, NoiseDensity
from vae_lib.rng import make_generator

S, B, D, T = 4, 3, 2, 5
DOUBLE = torch.float64
MEAN = torch.tensor([0.3, -0.5], dtype=DOUBLE)
COVARIANCE = torch.tensor([[1.0, 0.4], [0.4, 0.5]], dtype=DOUBLE)

SCHEDULES: dict[str, Callable[[int], NoiseSchedule]] = {
    "cosine": lambda steps: cosine_schedule(steps, log_snr_max=4.0, log_snr_min=-5.0, dtype=DOUBLE),
    "linear log-SNR": lambda steps: linear_log_snr_schedule(steps, log_snr_max=4.0, log_snr_min=-5.0, dtype=DOUBLE),
    "linear beta": lambda steps: linear_beta_schedule(max(steps, 40), dtype=DOUBLE),
}
each_schedule = pytest.mark.parametrize("name", SCHEDULES)


def wiggly(z_t: Tensor, log_snr: Tensor) -> Tensor:
    """A denoiser that is far from the best, differs from row to row, and depends on the noise level."""
    return torch.sin(z_t.flip(1) + log_snr.unsqueeze(1)) + 0.3 * z_t


def narrow(z_t: Tensor, log_snr: Tensor) -> Tensor:
    """A denoiser that forgets a coordinate."""
    return z_t[:, :1]


def diffusion(**changes: Any) -> GaussianDiffusion:
    options: dict[str, Any] = {"data_dim": D, "predicts": "v"} | changes
    return GaussianDiffusion(wiggly, SCHEDULES["linear log-SNR"](T), **options)


class TestSchedule:
    @each_schedule
    def test_variance_is_preserved(self, name: str) -> None:
        schedule = SCHEDULES[name](T)
        assert_close(schedule.alpha**2 + schedule.std**2, torch.ones(schedule.num_steps))
        assert_close(schedule.snr, schedule.alpha**2 / schedule.std**2)

    def test_cosine_is_a_cosine_with_its_ends(self) -> None:
        schedule = SCHEDULES["cosine"](7)
        angles = torch.acos(schedule.alpha)
        assert_close(angles.diff(), (angles[-1] - angles[0]).expand(6) / 6.0)
        assert_close(schedule.log_snr[[0, -1]], [4.0, -5.0])

    def test_linear_log_snr_is_a_line_with_its_ends(self) -> None:
        assert_close(SCHEDULES["linear log-SNR"](4).log_snr, [4.0, 1.0, -2.0, -5.0])

    def test_linear_beta_is_the_published_product(self) -> None:
        beta = torch.linspace(1e-4, 0.02, 1000, dtype=DOUBLE)
        assert_close(linear_beta_schedule(dtype=DOUBLE).alpha ** 2, torch.cumprod(1.0 - beta, 0))
        beta = 10.0 * torch.linspace(1e-4, 0.02, 100, dtype=DOUBLE)
        assert_close(linear_beta_schedule(100, dtype=DOUBLE).alpha ** 2, torch.cumprod(1.0 - beta, 0))
        other = linear_beta_schedule(500, first=2e-4, last=0.01, dtype=DOUBLE)
        beta = 2.0 * torch.linspace(2e-4, 0.01, 500, dtype=DOUBLE)
        assert_close(other.alpha**2, torch.cumprod(1.0 - beta, 0))

    @each_schedule
    def test_default_types(self, name: str) -> None:
        makers: dict[str, Any] = {
            "cosine": cosine_schedule, "linear log-SNR": linear_log_snr_schedule, "linear beta": linear_beta_schedule,
        }  # fmt: skip
        schedule = makers[name](100)
        assert schedule.log_snr.dtype == torch.get_default_dtype()
        assert makers[name](100, dtype=torch.float32).log_snr.dtype == torch.float32
        assert dict(schedule.state_dict()) == {}
        if name != "linear beta":
            assert_close(schedule.log_snr[[0, -1]], [10.0, -10.0], rtol=1e-5)

    @each_schedule
    @pytest.mark.parametrize("t", [2, 4, torch.tensor([3, 2, 5])])
    def test_steps_compose_to_the_marginal(self, name: str, t: int | Tensor) -> None:
        r"""Moments of q(z_{t-1}|x) q(z_t|z_{t-1}) are those of q(z_t|x), and Bayes' rule gives the posterior."""
        schedule, x, z_t = SCHEDULES[name](T), randn(B, D), randn(B, D, seed=1)
        before = schedule.marginal(x, t - 1)
        step = schedule.transition(before.mu, t)
        after = schedule.marginal(x, t)
        kept = schedule.alpha[torch.as_tensor(t) - 1] / schedule.alpha[torch.as_tensor(t) - 2]
        kept = kept.reshape(-1, 1)
        assert_close(step.mu, after.mu)
        assert_close(torch.exp(step.logvar) + kept**2 * torch.exp(before.logvar), torch.exp(after.logvar))
        # log q(z_s | z_t, x) = log q(z_t | z_s) + log q(z_s | x) - log q(z_t | x)
        z_s = randn(1, B, D, seed=2)
        joint = schedule.transition(z_s[0], t).log_prob(z_t.unsqueeze(0)) + before.log_prob(z_s)
        assert_close(
            schedule.posterior(x, z_t, t).log_prob(z_s), joint - after.log_prob(z_t.unsqueeze(0)), rtol=1e-9, atol=1e-9
        )

    @each_schedule
    def test_weights(self, name: str) -> None:
        schedule = SCHEDULES[name](T)
        snr = schedule.alpha**2 / schedule.std**2
        steps = torch.arange(2, schedule.num_steps + 1)
        assert_close(schedule.step_weight(steps), 0.5 * (snr[:-1] - snr[1:]))
        assert_close(schedule.simple_weight(steps), 0.5 * (snr[:-1] / snr[1:] - 1.0))
        assert_close(schedule.step_weight(3), 0.5 * (snr[1:2] - snr[2:3]))
        if name == "linear log-SNR":
            assert_close(schedule.simple_weight(steps), schedule.simple_weight(2).expand(T - 1))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: NoiseSchedule(torch.tensor([1.0, 1.0])), "log_snr: expected numbers that fall"),
            (lambda: NoiseSchedule(torch.tensor([1.0, math.nan])), "log_snr: expected finite"),
            (lambda: NoiseSchedule(torch.zeros(2, 1)), "log_snr: expected shape (T,), found (2, 1)"),
            (lambda: cosine_schedule(1), "num_steps: expected at least 2, found 1"),
            (lambda: linear_beta_schedule(1), "num_steps: expected at least 2, found 1"),
            (
                lambda: linear_beta_schedule(20),
                "beta: expected variances between 0 and 1, found 0.005 to 1 in",
            ),
            (lambda: linear_beta_schedule(100, first=0.0), "beta: expected variances between 0 and 1"),
            (
                lambda: linear_log_snr_schedule(5, log_snr_max=-11.0),
                "log_snr_max: expected more than log_snr_min, -10.0, found -11.0",
            ),
            (lambda: cosine_schedule(5, log_snr_max=math.inf), "log_snr_max: expected"),
            (lambda: SCHEDULES["cosine"](T).marginal(randn(B, D), 0), "t: expected steps from 1 to 5, found 0"),
            (lambda: SCHEDULES["cosine"](T).marginal(randn(B, D), 6), "t: expected steps from 1 to 5, found 6"),
            (lambda: SCHEDULES["cosine"](T).step_weight(1), "t: expected steps from 2 to 5, found 1"),
            (lambda: SCHEDULES["cosine"](T).simple_weight(1), "t: expected steps from 2 to 5, found 1"),
            (lambda: SCHEDULES["cosine"](T).transition(randn(B, D), 1), "t: expected steps from 2 to 5, found 1"),
            (
                lambda: SCHEDULES["cosine"](T).posterior(randn(B, D), randn(B, D), 1),
                "t: expected steps from 2 to 5, found 1",
            ),
            (lambda: SCHEDULES["cosine"](T).marginal(randn(D), 1), "x: expected shape (N, D)"),
            (lambda: SCHEDULES["cosine"](T).transition(randn(D), 2), "z_s: expected shape (N, D)"),
            (lambda: SCHEDULES["cosine"](T).posterior(randn(D), randn(B, D), 2), "x: expected shape (N, D)"),
            (lambda: SCHEDULES["cosine"](T).posterior(randn(B, D), randn(2, D), 2), "z_t: expected shape (3, 2)"),
        ],
    )
    def test_refusals(self, make: Callable[[], object], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            make()

    @pytest.mark.parametrize("t", [1.0, True, torch.tensor([1.0]), torch.tensor(1)])
    def test_a_step_is_an_integer(self, t: Any) -> None:
        with pytest.raises(TypeError, match="t: expected an integer or int64"):
            SCHEDULES["cosine"](T).marginal(randn(1, D), t)


class TestPredictions:
    def test_three_predictions_are_one_guess(self) -> None:
        """A guess of the data as noise and as v, by z = α x + σ ε and v = α ε - σ x."""
        schedule, z_t, t = SCHEDULES["linear log-SNR"](T), randn(B, D), torch.tensor([1, 3, 5])

        def alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
            alpha = (1.0 / (1.0 + torch.exp(-log_snr))).sqrt().unsqueeze(1)
            return alpha, (1.0 - alpha**2).sqrt()

        def eps(z_t: Tensor, log_snr: Tensor) -> Tensor:
            alpha, sigma = alpha_sigma(log_snr)
            return (z_t - alpha * wiggly(z_t, log_snr)) / sigma

        def v(z_t: Tensor, log_snr: Tensor) -> Tensor:
            alpha, sigma = alpha_sigma(log_snr)
            return alpha * eps(z_t, log_snr) - sigma * wiggly(z_t, log_snr)

        expected = wiggly(z_t, schedule.log_snr[t - 1])
        for predicts, network in (("x", wiggly), ("eps", eps), ("v", v)):
            model = GaussianDiffusion(network, schedule, data_dim=D, predicts=predicts)  # type: ignore[arg-type]
            assert_close(model.predict_x(z_t, t), expected)
            assert_close(model.predict_x(z_t, 3), wiggly(z_t, schedule.log_snr[2].expand(B)))

    def test_noise_is_the_default(self) -> None:
        model = GaussianDiffusion(wiggly, SCHEDULES["cosine"](T), data_dim=D)
        assert model.predicts == "eps"
        assert isinstance(model.reconstruction, NormalReconstruction)

    def test_best_linear_guess(self) -> None:
        """E[x | z_t] by the rule for normal vectors."""
        z_t, log_snr = randn(B, D), torch.tensor([2.0, 0.0, -3.0], dtype=DOUBLE)
        found = LinearDenoiser(MEAN, COVARIANCE)(z_t, log_snr)
        for b in range(B):
            alpha2 = float(torch.sigmoid(log_snr[b]))
            total = alpha2 * COVARIANCE + (1.0 - alpha2) * torch.eye(D, dtype=DOUBLE)
            step = torch.linalg.solve(total, z_t[b] - alpha2**0.5 * MEAN)
            assert_close(found[b], MEAN + alpha2**0.5 * COVARIANCE @ step)

    def test_best_linear_guess_along_axes_that_are_no_reflection(self) -> None:
        """In the plane the matrix of axes may be its own transpose; in three dimensions it is not."""
        half = randn(3, 3, seed=3)
        covariance, mean, z_t = half @ half.mT, randn(3, seed=4), randn(1, 3, seed=5)
        found = LinearDenoiser(mean, covariance)(z_t, torch.zeros(1, dtype=DOUBLE))
        total = 0.5 * covariance + 0.5 * torch.eye(3, dtype=DOUBLE)
        assert_close(found[0], mean + 0.5**0.5 * covariance @ torch.linalg.solve(total, z_t[0] - 0.5**0.5 * mean))

    def test_network(self) -> None:
        network = MLPDenoiser(D, hidden=16, blocks=3, frequencies=4, generator=make_generator(1), dtype=DOUBLE)
        z_t, log_snr = randn(B, D), torch.tensor([2.0, 0.0, -3.0], dtype=DOUBLE)
        assert_close(network(z_t, log_snr), torch.zeros(B, D))  # the last layer begins at zero
        with torch.no_grad():
            next(network.last.parameters()).normal_(generator=make_generator(2))
        whole = network(z_t, log_snr)
        assert whole.shape == (B, D)
        # Each row on its own; it sees z and the level.
        assert_close(torch.cat([network(z_t[b : b + 1], log_snr[b : b + 1]) for b in range(B)]), whole)
        assert bool(((network(z_t, log_snr + 0.1) - whole).abs() > 1e-6).all())
        assert bool(((network(z_t + 0.1, log_snr) - whole).abs() > 1e-6).all())
        assert len(network.blocks) == 3
        assert_close(network.waves[[0, -1]], [0.1, 10.0**0.5])
        for parameter in network.parameters():
            (gradient,) = torch.autograd.grad((network(z_t, log_snr) ** 2).sum(), parameter)
            assert bool((gradient != 0.0).any())
        other = MLPDenoiser(D, hidden=16, blocks=3, frequencies=4, generator=make_generator(1), dtype=DOUBLE)
        assert_close(next(other.parameters()), next(network.parameters()))


class TestReconstructions:
    def test_normal(self) -> None:
        head, log_snr = NormalReconstruction(), torch.tensor(3.0, dtype=DOUBLE)
        x, guess = randn(B, D), randn(S, B, D, seed=1)
        normal = td.Normal(guess, math.exp(-1.5))
        assert_close(head.log_prob(x, guess, log_snr), normal.log_prob(x).sum(-1))
        assert_close(head.encode(x), x)
        assert_close(head.decode(x), x)
        draws = head.sample(guess.expand(20_000, *guess.shape), log_snr, generator=make_generator(1))
        assert_mean(draws, guess, ceiling=0.01)
        assert_mean((draws - guess) ** 2, torch.full_like(guess, math.exp(-3.0)), ceiling=0.01)

    def test_levels_are_areas(self) -> None:
        head, log_snr = DiscretisedNormalReconstruction(5), torch.tensor(2.0, dtype=DOUBLE)
        guess = torch.tensor([-1.3, -0.4, 0.1, 0.9, 2.0], dtype=DOUBLE)
        levels = torch.arange(5, dtype=DOUBLE)
        found = head.log_prob(levels.reshape(5, 1, 1), guess.reshape(5, 1), log_snr)  # (levels, guesses)
        edges = torch.tensor([-math.inf, -0.75, -0.25, 0.25, 0.75, math.inf], dtype=DOUBLE)
        cdf = td.Normal(guess, math.exp(-1.0)).cdf(edges.unsqueeze(1))
        assert_close(found.exp(), cdf.diff(dim=0))
        assert_close(found.exp().sum(0), torch.ones(5))
        assert_close(head.encode(levels), [-1.0, -0.5, 0.0, 0.5, 1.0])
        assert_close(head.decode(head.encode(levels)), levels)

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_far_tails_keep_their_digits(self, sign: float) -> None:
        """Forty standard deviations out an area is its lower edge's density over the distance (Mills)."""
        head, log_snr = DiscretisedNormalReconstruction(17), torch.tensor(2.0 * math.log(400.0), dtype=DOUBLE)
        x, guess = torch.tensor([[8.0]], dtype=DOUBLE), torch.tensor([[[sign * (0.0625 + 0.1)]]], dtype=DOUBLE)
        guess.requires_grad_()
        found = head.log_prob(x, guess, log_snr)
        distance = 40.0
        mills = torch.special.log_ndtr(torch.tensor(-distance, dtype=DOUBLE))
        assert_close(found, mills.reshape(1, 1))
        (slope,) = torch.autograd.grad(found.sum(), guess)
        # d/du log Φ(-u) is minus the density over the tail
        density = -0.5 * distance**2 - 0.5 * math.log(2.0 * math.pi)
        assert_close(slope, -sign * 400.0 * torch.exp(density - mills).reshape(1, 1, 1))

    def test_level_draws(self) -> None:
        head, log_snr = DiscretisedNormalReconstruction(5), torch.tensor(1.0, dtype=DOUBLE)
        guess = torch.tensor([-0.2, 0.1, 0.3], dtype=DOUBLE)
        draws = head.sample(guess.expand(1, 20_000, 3), log_snr, generator=make_generator(1))[0]
        levels = torch.arange(5, dtype=DOUBLE)
        probabilities = head.log_prob(levels.reshape(5, 1, 1), guess.reshape(3, 1), log_snr).exp()
        assert_mean((draws == levels.reshape(5, 1, 1)).double().movedim(1, 0), probabilities, ceiling=0.01)

    def test_learned(self) -> None:
        network = mlp([D, 8, 2 * D], generator=make_generator(1), dtype=DOUBLE)
        head = LearnedReconstruction(network, 5)
        x, guess = torch.tensor([[0.0, 4.0], [1.0, 2.0], [3.0, 3.0]], dtype=DOUBLE), randn(S, B, D, seed=1)
        log_snr = torch.tensor(2.0, dtype=DOUBLE)
        shift, log_scale = network(guess)[..., :D], network(guess)[..., D:]
        logistic = torch.sigmoid
        upper = logistic(((x + 0.5) / 2.0 - 1.0 - guess - shift) / torch.exp(log_scale))
        lower = logistic(((x - 0.5) / 2.0 - 1.0 - guess - shift) / torch.exp(log_scale))
        areas = torch.where(x == 4.0, 1.0, upper) - torch.where(x == 0.0, 0.0, lower)
        assert_close(head.log_prob(x, guess, log_snr), areas.log().sum(-1))
        assert_close(head.encode(x), 0.5 * x - 1.0)
        draws = head.sample(guess.expand(5000, *guess.shape), log_snr, generator=make_generator(1))
        assert_mean(draws, head.decode(guess).detach(), ceiling=0.05)
        assert len(list(head.parameters())) == 4

    def test_bits(self) -> None:
        assert_close(bits_per_dim(torch.tensor([-64.0 * math.log(2.0), 0.0]), 64), [1.0, 0.0])
        with pytest.raises(ValueError, match="data_dim"):
            bits_per_dim(torch.zeros(1), 0)

    @pytest.mark.parametrize("levels", [0, 1])
    def test_levels_of_one_are_none(self, levels: int) -> None:
        with pytest.raises(ValueError, match="levels: expected"):
            DiscretisedNormalReconstruction(levels)


class TestStepKL:
    @each_schedule
    @pytest.mark.parametrize("t", [2, 5, torch.tensor([3, 2, 5])])
    def test_it_is_the_kl_of_the_two_normals(self, name: str, t: int | Tensor) -> None:
        model = GaussianDiffusion(wiggly, SCHEDULES[name](T), data_dim=D, predicts="v")
        x, z_t = randn(B, D), randn(B, D, seed=1)
        posterior, reverse = model.schedule.posterior(x, z_t, t), model.reverse(z_t, t)
        assert_close(model.step_kl(x, z_t, t), kl(posterior, reverse), rtol=1e-9)
        assert_close(posterior.logvar, reverse.logvar)
        sampled = monte_carlo_kl(posterior, reverse, num_samples=20_000, generator=make_generator(1))
        assert bool(((sampled.value - model.step_kl(x, z_t, t)).abs() < 5.0 * sampled.standard_error).all())

    def test_prior_kl_is_that_of_two_normals(self) -> None:
        model, x = diffusion(), randn(B, D)
        alpha2 = float(torch.sigmoid(model.schedule.log_snr[-1]))
        q = td.Normal(alpha2**0.5 * x, (1.0 - alpha2) ** 0.5)
        assert_close(model.prior_kl(x), td.kl_divergence(q, td.Normal(0.0 * x, 1.0)).sum(-1), rtol=1e-9)

    def test_levels_are_diffused_on_their_line(self) -> None:
        """Data are encoded in every term: the same numbers as of the encoded data."""
        model, plain = diffusion(reconstruction=DiscretisedNormalReconstruction(5)), diffusion()
        x, z_t = torch.tensor([[0.0, 4.0], [1.0, 2.0], [3.0, 3.0]], dtype=DOUBLE), randn(B, D)
        encoded = 0.5 * x - 1.0
        z = randn(S, B, T * D, seed=1)
        assert_close(model.step_kl(x, z_t, 3), plain.step_kl(encoded, z_t, 3))
        assert_close(model.prior_kl(x), plain.prior_kl(encoded))
        assert_close(model(x).log_prob(z), plain(encoded).log_prob(z))
        assert_close(model.posterior_chain(x).log_prob(z), plain.posterior_chain(encoded).log_prob(z))
        found, expected = (
            which.terms(data, num_samples=S, generator=make_generator(1)).step_kl
            for which, data in ((model, x), (plain, encoded))
        )
        assert_close(found, expected)
        assert_close(model.mean_x_given_z(z), 2.0 * (plain.mean_x_given_z(z) + 1.0))


class TestOneELBO:
    """Terms, one random step, the chain from below and from above: four ways to one number."""

    def test_protocols(self) -> None:
        model = diffusion()
        assert isinstance(model, LatentVariableModel)
        assert isinstance(model, ApproximatePosterior)
        assert isinstance(model.as_chain(), HierarchicalModel)
        for density in (model(randn(B, D)), model.posterior_chain(randn(B, D)), model.prior(B)):
            assert isinstance(density, NoiseDensity)
        assert (model.latent_dim, model.num_steps) == (T * D, T)

    @each_schedule
    def test_q_from_below_is_q_from_above(self, name: str) -> None:
        model = GaussianDiffusion(wiggly, SCHEDULES[name](T), data_dim=D, predicts="v")
        x = randn(B, D)
        z = model(x).sample(S, generator=make_generator(1))
        assert_close(model(x).log_prob(z), model.posterior_chain(x).log_prob(z), rtol=1e-9)

    def test_a_weight_is_a_sum_of_steps(self) -> None:
        """Draw by draw; and each step's log-ratio is of two densities whose KL is the step's."""
        model, x = diffusion(), randn(B, D)
        q, prior = model.posterior_chain(x), model.prior(B)
        z = q.sample(S, generator=make_generator(1))
        ratios = prior.log_prob_of_parts(z) - q.log_prob_of_parts(z)  # (T, S, B)
        log_w = bounds.log_weights(model, model(x), x, z)
        assert_close(log_w, model.log_p_x_given_z(x, z) + ratios.sum(0), rtol=1e-9)
        parts = q.parts(z)
        for t in range(2, T + 1):
            posterior, reverse = model.schedule.posterior(x, parts[t - 1][0], t), model.reverse(parts[t - 1][0], t)
            assert_close(
                ratios[t - 2, 0], (reverse.log_prob(parts[t - 2][:1]) - posterior.log_prob(parts[t - 2][:1]))[0]
            )
            assert_close(kl(posterior, reverse), model.step_kl(x, parts[t - 1][0], t), rtol=1e-9)

    def test_four_estimates_agree(self) -> None:
        model, x = diffusion(), randn(B, D)
        count = 8000
        terms = model.terms(x, num_samples=count, generator=make_generator(1))
        assert [tuple(part.shape) for part in terms] == [(count, B), (T - 1, count, B), (B,)]
        estimates = [
            terms.elbo,
            model.one_step_elbo(x, num_samples=count, generator=make_generator(2)),
            bounds.elbo(model, model(x), x, num_samples=count, generator=make_generator(3)),
            bounds.elbo(model.as_chain(), model.posterior_chain(x), x, num_samples=count, generator=make_generator(4)),
        ]
        errors = [estimate.std(0) / count**0.5 for estimate in estimates]
        for estimate, error in zip(estimates[1:], errors[1:], strict=True):
            assert bool(((estimate - terms.elbo).mean(0).abs() < 5.0 * (error**2 + errors[0] ** 2).sqrt()).all())
            assert float(error.max()) < 0.5
        # One random step in the place of all is the noisiest.
        assert bool((errors[0] < errors[1]).all())
        assert bool((errors[2] < errors[1]).all())

    def test_one_random_step_where_much_is_known_at_the_end(self) -> None:
        """The chain ends while the last latent still tells of x, so the KL to the prior counts."""
        schedule = linear_log_snr_schedule(3, log_snr_max=1.0, log_snr_min=0.0, dtype=DOUBLE)
        model, x = GaussianDiffusion(wiggly, schedule, data_dim=D, predicts="v"), 2.0 + randn(B, D)
        assert float(model.prior_kl(x).max()) > 2.0
        count = 20_000
        whole = model.terms(x, num_samples=count, generator=make_generator(1)).elbo
        one = model.one_step_elbo(x, num_samples=count, generator=make_generator(2))
        error = ((whole.var(0) + one.var(0)) / count).sqrt()
        assert float(error.max()) < 0.1
        assert bool(((one - whole).mean(0).abs() < 5.0 * error).all())

    def test_the_evaluators_take_it(self) -> None:
        model, x = NormalDataDiffusion(MEAN, COVARIANCE, SCHEDULES["linear log-SNR"](30)), randn(B, D)
        found = held_out_elbo(model, model, x, num_samples=4000, generator=make_generator(1)).elbo
        assert_close(found, model.exact_terms(x).elbo[0], atol=0.2, rtol=0.0)
        evidence = model.as_linear_chain().log_p_x(x)
        estimate = log_p_x(model, model, x, num_samples=4000, generator=make_generator(2))
        assert bool(((estimate.value - evidence).abs() < 5.0 * estimate.standard_error + 0.05).all())

    def test_stratified_steps_cover_evenly_and_leave_the_mean(self) -> None:
        model, x = diffusion(), randn(B, D)
        steps = model._draw_steps(4 * (T - 1), 2, True, make_generator(1))
        assert torch.bincount(steps, minlength=T + 1).tolist() == [0, 0, 4, 4, 4, 4]
        loose = model._draw_steps(40_000, 1, False, make_generator(1))
        shares = torch.bincount(loose, minlength=T + 1)[1:].double() / 40_000
        assert int(loose.min()) == 1
        assert bool(((shares - 1.0 / T).abs() < 5.0 * (0.2 * 0.8 / 40_000) ** 0.5).all())

        # A minibatch of four and eight repeats: means agree, and with strata the spread is smaller.
        def minibatch(seed: int, stratified: bool) -> Tensor:
            repeats, generator = x[:1].expand(8, -1), make_generator(seed)
            return model.one_step_elbo(repeats, num_samples=1, generator=generator, stratified=stratified).mean()

        means = {kind: torch.stack([minibatch(seed, kind) for seed in range(1000)]) for kind in (False, True)}
        exact = model.terms(x[:1], num_samples=20_000, generator=make_generator(1)).elbo
        for values in means.values():
            error = (values.var() / 1000 + exact.var() / 20_000) ** 0.5
            assert abs(float(values.mean() - exact.mean())) < 5.0 * float(error)
        assert float(means[True].std()) < 0.8 * float(means[False].std())

    def test_one_step_is_its_own_elbo(self) -> None:
        """T = 1: a VAE with a frozen encoder; no steps to sum."""
        model = GaussianDiffusion(wiggly, NoiseSchedule(torch.tensor([1.0], dtype=DOUBLE)), data_dim=D, predicts="x")
        x = randn(B, D)
        terms = model.terms(x, num_samples=S, generator=make_generator(1))
        assert terms.step_kl.shape == (0, S, B)
        z = model(x).sample(S, generator=make_generator(1))
        assert_close(terms.elbo, bounds.elbo_with_analytic_kl(_flat(model), model(x).first, x, z))
        with pytest.raises(ValueError, match="schedule: expected at least 2 steps"):
            model.one_step_elbo(x, num_samples=1, generator=make_generator(1))


def _flat(model: GaussianDiffusion) -> Any:
    return model.as_chain().bottom


class TestSimpleLoss:
    def test_it_is_the_squared_error_of_the_noise(self) -> None:
        """Rebuilt from the draws that the method makes: steps first, then noise."""
        schedule = SCHEDULES["cosine"](T)
        model, x = GaussianDiffusion(wiggly, schedule, data_dim=D), randn(B, D)
        generator = make_generator(1)
        t = 1 + (torch.rand(S * B, generator=generator, dtype=DOUBLE) * T).long()
        eps = torch.randn(1, S * B, D, generator=generator, dtype=DOUBLE)[0]
        alpha, std = schedule.alpha[t - 1].unsqueeze(1), schedule.std[t - 1].unsqueeze(1)
        z_t = alpha * x.repeat(S, 1) + std * eps
        error = ((eps - wiggly(z_t, schedule.log_snr[t - 1])) ** 2).sum(-1)
        found = model.simple_loss(x, num_samples=S, generator=make_generator(1))
        assert_close(found, error.reshape(S, B))

    def test_the_weight_that_it_drops(self) -> None:
        """KL of a step = weight x simple loss of that step, exactly, draw by draw."""
        schedule = SCHEDULES["cosine"](T)
        model, x = GaussianDiffusion(wiggly, schedule, data_dim=D), randn(B, D)
        for t in range(2, T + 1):
            eps = randn(B, D, seed=t)
            z_t = schedule.alpha[t - 1] * x + schedule.std[t - 1] * eps
            simple = ((eps - wiggly(z_t, schedule.log_snr[t - 1].expand(B))) ** 2).sum(-1)
            assert_close(model.step_kl(x, z_t, t), schedule.simple_weight(t) * simple)

    def test_stratified(self) -> None:
        model, x = diffusion(), randn(B, D)
        one = model.simple_loss(x, num_samples=S, generator=make_generator(1), stratified=True)
        assert one.shape == (S, B)
        assert not torch.equal(one, model.simple_loss(x, num_samples=S, generator=make_generator(1)))


class TestSampling:
    def test_paths_and_data(self) -> None:
        model = NormalDataDiffusion(MEAN, COVARIANCE, SCHEDULES["linear log-SNR"](20))
        path = model.sample_path(20_000, generator=make_generator(1))
        assert path.shape == (20, 20_000, D)
        assert not path.requires_grad
        chain = model.as_linear_chain()
        for t in (1, 10, 20):
            mean, tril = chain.layers[20 - t]
            assert_mean(path[t - 1], mean, ceiling=0.01)
            centred = path[t - 1] - mean
            assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), tril @ tril.mT, ceiling=0.02)
        x = model.sample(20_000, generator=make_generator(2))
        half = chain.downward[-1].weight @ chain.layers[-1][1]
        assert_mean(x, chain.downward[-1].weight @ chain.layers[-1][0] + chain.downward[-1].bias, ceiling=0.01)
        centred = x - x.mean(0)
        total = half @ half.mT + torch.diag(torch.exp(chain.downward[-1].logvar))
        assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), total, ceiling=0.02)

    def test_a_path_is_the_prior_and_its_end_the_data(self) -> None:
        model = diffusion()
        path = model.sample_path(B, generator=make_generator(1))
        z = path.transpose(0, 1).reshape(1, B, T * D)
        guess = model.predict_x(path[0], 1)
        assert_close(model.mean_x_given_z(z)[0], guess)
        drawn = model.sample_x_given_z(z.expand(20_000, -1, -1), generator=make_generator(2))
        assert_mean(drawn, guess, ceiling=0.01)
        whole, bottom = model.as_chain(), model.as_chain().bottom
        assert_close(
            whole.sample_x_given_z(z, generator=make_generator(3)),
            model.sample_x_given_z(z, generator=make_generator(3)),
        )
        assert_close(whole.log_p_x_given_z(guess, z), model.log_p_x_given_z(guess, z))
        assert (bottom.data_dim, bottom.latent_dim, bottom.prior(4).batch_size) == (D, D, 4)

    def test_samples_carry_no_gradient(self) -> None:
        network = MLPDenoiser(D, hidden=4, blocks=1, generator=make_generator(1), dtype=DOUBLE)
        model = GaussianDiffusion(network, SCHEDULES["cosine"](T), data_dim=D)
        assert not model.sample(3, generator=make_generator(1)).requires_grad
        assert len(list(model.as_chain().parameters())) == len(list(network.parameters()))


class TestNormalData:
    def test_density_and_entropy(self) -> None:
        model, x = NormalDataDiffusion(MEAN, COVARIANCE, SCHEDULES["cosine"](T)), randn(B, D)
        normal = td.MultivariateNormal(MEAN, COVARIANCE)
        assert_close(model.log_p_data(x), normal.log_prob(x))
        assert_close(model.entropy(), normal.entropy())

    @each_schedule
    def test_terms_by_quadrature(self, name: str) -> None:
        """Expectations over q(z_t | x) by Gauss-Hermite quadrature, which is exact for a square."""
        model, x = NormalDataDiffusion(MEAN, COVARIANCE, SCHEDULES[name](T)), randn(B, D)
        nodes = torch.cartesian_prod(*[torch.tensor([-(3.0**0.5), 0.0, 3.0**0.5], dtype=DOUBLE)] * 2)
        weights = torch.cartesian_prod(*[torch.tensor([1.0, 4.0, 1.0], dtype=DOUBLE) / 6.0] * 2).prod(-1)
        exact = model.exact_terms(x)
        steps = model.num_steps
        assert [tuple(part.shape) for part in exact] == [(1, B), (steps - 1, 1, B), (B,)]
        for t in range(1, steps + 1):
            q = model.schedule.marginal(x, t)
            z = q.mu + q.std * nodes.unsqueeze(1)  # (9, B, D)
            if t == 1:
                guess = torch.stack([model.predict_x(each, 1) for each in z])
                values = td.Normal(guess, torch.exp(-0.5 * model.schedule.log_snr[0])).log_prob(x).sum(-1)
                found = exact.reconstruction[0]
            else:
                values = torch.stack([model.step_kl(x, each, t) for each in z])
                found = exact.step_kl[t - 2, 0]
            assert_close(found, weights @ values, rtol=1e-9)
        assert_close(exact.prior_kl, model.prior_kl(x))

    def test_terms_averaged_over_the_data(self) -> None:
        """All parts are squares in x: three nodes in each direction of the data are exact."""
        model = NormalDataDiffusion(MEAN, COVARIANCE, SCHEDULES["cosine"](T))
        nodes = torch.cartesian_prod(*[torch.tensor([-(3.0**0.5), 0.0, 3.0**0.5], dtype=DOUBLE)] * 2)
        weights = torch.cartesian_prod(*[torch.tensor([1.0, 4.0, 1.0], dtype=DOUBLE) / 6.0] * 2).prod(-1)
        x = MEAN + nodes @ torch.linalg.cholesky(COVARIANCE).mT
        each, mean = model.exact_terms(x), model.mean_terms()
        for found, values in zip(mean, each, strict=True):
            assert_close(found.squeeze(-1), values @ weights)
        assert mean.elbo.shape == (1, 1)

    def test_the_chain_is_exact(self) -> None:
        model, x = NormalDataDiffusion(MEAN, COVARIANCE, SCHEDULES["linear log-SNR"](T)), randn(B, D)
        chain = model.as_linear_chain()
        z = randn(S, B, T * D, seed=1)
        q = model(x)
        assert_close(chain.prior(B).log_prob(z), model.prior(B).log_prob(z))
        assert_close(bounds.log_weights(chain, q, x, z), bounds.log_weights(model, q, x, z))
        assert_close(bounds.log_weights(model, chain.posterior(x), x, z), chain.log_p_x(x).expand(S, B), rtol=1e-9)

    def test_elbo_plus_kl_is_the_evidence(self) -> None:
        """The KL of q to the posterior in closed form, both written as one normal over all T D latents."""
        model, x = NormalDataDiffusion(MEAN, COVARIANCE, SCHEDULES["linear log-SNR"](T)), randn(B, D)
        chain = model.as_linear_chain()
        q, posterior = (_as_normal(which, T * D) for which in (model(x), chain.posterior(x)))
        assert_close(model.exact_terms(x).elbo[0] + kl(q, posterior), chain.log_p_x(x), rtol=1e-9)

    def test_joint_kl_of_chapter_one(self) -> None:
        """-E ELBO - H(p_D) is KL(p_D || p) plus the mean KL of q to the posterior: both sides in closed form."""
        model = NormalDataDiffusion(MEAN, COVARIANCE, SCHEDULES["linear log-SNR"](T))
        chain = model.as_linear_chain()
        joint = -model.mean_terms().elbo[0] - model.entropy()
        last, layer = chain.downward[-1], chain.layers[-1]
        half = last.weight @ layer[1]
        evidence = td.MultivariateNormal(
            last.weight @ layer[0] + last.bias, half @ half.mT + torch.diag(torch.exp(last.logvar))
        )
        marginal = td.kl_divergence(td.MultivariateNormal(MEAN, COVARIANCE), evidence)
        nodes = torch.cartesian_prod(*[torch.tensor([-(3.0**0.5), 0.0, 3.0**0.5], dtype=DOUBLE)] * 2)
        weights = torch.cartesian_prod(*[torch.tensor([1.0, 4.0, 1.0], dtype=DOUBLE) / 6.0] * 2).prod(-1)
        x = MEAN + nodes @ torch.linalg.cholesky(COVARIANCE).mT
        conditional = weights @ kl(_as_normal(model(x), T * D), _as_normal(chain.posterior(x), T * D))
        assert_close(joint, (marginal + conditional).reshape(1), rtol=1e-9)
        assert float(joint) > 0.0

    @pytest.mark.parametrize("schedule", [linear_log_snr_schedule, cosine_schedule])
    def test_the_gap_falls_like_one_over_the_steps(self, schedule: Callable[..., NoiseSchedule]) -> None:
        """Data of variance 1 and mean 0 leave no gap at the noisy end; at the other 1/SNR² is 1e-6 of it."""
        covariance = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=DOUBLE)
        steps = [256, 512, 1024, 2048, 4096]
        gaps = []
        for count in steps:
            made = schedule(count, log_snr_max=8.0, log_snr_min=-8.0, dtype=DOUBLE)
            model = NormalDataDiffusion(torch.zeros(2, dtype=DOUBLE), covariance, made)
            gaps.append(float(-model.mean_terms().elbo - model.entropy()))
        slopes = torch.tensor(gaps, dtype=DOUBLE).log2().diff()
        assert all(gap > 0.0 for gap in gaps)
        assert bool((slopes[-1] + 1.0).abs() < 0.03)
        assert bool(((slopes[1:] + 1.0).abs() <= (slopes[:-1] + 1.0).abs() + 1e-3).all())

    def test_no_denoiser_does_better(self) -> None:
        model, x = NormalDataDiffusion(MEAN, COVARIANCE, SCHEDULES["linear log-SNR"](T)), randn(2000, D)
        x = MEAN + x @ torch.linalg.cholesky(COVARIANCE).mT
        worse = NormalDataDiffusion(MEAN + 0.1, 1.2 * COVARIANCE, model.schedule)
        best, other = (which.terms(x, num_samples=1, generator=make_generator(1)).elbo for which in (model, worse))
        difference = best - other
        assert float(difference.mean()) > 3.0 * float(difference.std()) / 2000**0.5

    def test_covariance_is_checked(self) -> None:
        for covariance in (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), torch.diag(torch.tensor([1.0, -1.0]))):
            with pytest.raises(ValueError, match="covariance: expected a symmetric positive definite matrix"):
                LinearDenoiser(MEAN, covariance.double())


def _as_normal(chain: Any, size: int) -> FullNormal:
    """A linear chain of draws as one normal: its noise is standard, and the map from noise to draws is linear."""
    shapes = [part.shape for part in chain.noise(1, generator=make_generator(0))]
    zero = tuple(torch.zeros(size + 1, *shape[1:], dtype=DOUBLE) for shape in shapes)
    at = 1
    for part in zero:
        for j in range(part.shape[-1]):
            part[at, :, j] = 1.0
            at += 1
    draws = chain.from_noise(zero)
    half = (draws[1:] - draws[0]).permute(1, 2, 0)
    return FullNormal.from_covariance(draws[0], half @ half.mT)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: diffusion(predicts="noise"), "predicts: expected one of eps, x, v, found 'noise'"),
        (lambda: diffusion(data_dim=0), "data_dim: expected a positive integer, found 0"),
        (lambda: diffusion().predict_x(randn(B, 3), 1), "z_t: expected shape (N, 2), found (3, 3)"),
        (
            lambda: GaussianDiffusion(narrow, SCHEDULES["cosine"](T), data_dim=D).predict_x(randn(B, D), 1),
            "denoiser(z_t, log_snr): expected shape (3, 2), found (3, 1)",
        ),
        (lambda: diffusion()(randn(B, 3)), "x: expected shape (B, 2), found (3, 3)"),
        (lambda: diffusion().log_p_x_given_z(randn(B, D), randn(S, B, D)), "z: expected shape (S, 3, 10)"),
        (lambda: diffusion().log_p_x_given_z(randn(B, 3), randn(S, B, 10)), "x: expected shape (B, 2)"),
        (
            lambda: diffusion().sample_x_given_z(randn(S, B, D), generator=make_generator(1)),
            "z: expected shape (S, B, 10)",
        ),
        (lambda: diffusion().mean_x_given_z(randn(S, B, D)), "z: expected shape (S, B, 10)"),
        (lambda: diffusion().terms(randn(B, D), num_samples=0, generator=make_generator(1)), "num_samples: expected"),
        (lambda: diffusion().simple_loss(randn(B, D), num_samples=0, generator=make_generator(1)), "num_samples"),
        (lambda: MLPDenoiser(0, generator=make_generator(1)), "data_dim: expected"),
        (lambda: MLPDenoiser(2, hidden=0, generator=make_generator(1)), "hidden: expected"),
        (lambda: MLPDenoiser(2, blocks=0, generator=make_generator(1)), "blocks: expected"),
        (lambda: MLPDenoiser(2, frequencies=0, generator=make_generator(1)), "frequencies: expected"),
        (
            lambda: NormalDataDiffusion(MEAN, COVARIANCE, SCHEDULES["cosine"](T)).exact_terms(randn(B, 3)),
            "x: expected shape (B, 2)",
        ),
        (lambda: LinearDenoiser(MEAN, COVARIANCE[:1]), "covariance: expected shape (2, 2)"),
        (lambda: LinearDenoiser(COVARIANCE, COVARIANCE), "mean: expected shape (D,)"),
    ],
)  # fmt: skip
def test_refusals(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
