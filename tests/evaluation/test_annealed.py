"""Annealed chains where log p(x) is known: the sandwich, its rate in temperatures, and a posterior with two modes.

There are more temperatures than the errors need, so that weights have a finite variance in both directions: of 1 / w
with few temperatures, where the start is wider than the posterior, only the mean is finite.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.evaluation.strangers import Clusters, TwoClusters
from tests.oracles import assert_close, assert_mean, model_case, randn
from vae_lib.bounds import log_joint
from vae_lib.densities import DiagonalNormal
from vae_lib.divergences import kl
from vae_lib.estimate import mean_with_error
from vae_lib.evaluation import (
    AnnealedPath,
    MarginalLikelihood,
    Widened,
    annealed_log_p_x,
    chains,
    log_p_x,
    reverse_annealed_log_p_x,
    simulate,
)
from vae_lib.exact import LinearGaussian
from vae_lib.mcmc import Transition
from vae_lib.models import VAE, BernoulliLikelihood, NormalEncoder, mlp
from vae_lib.protocols import Density, ExactModel
from vae_lib.rng import make_generator

DOUBLE = torch.float64
SHORT = AnnealedPath(30, num_leapfrog=5)
# With both starts: the prior, and an approximate posterior.
CASES = [(name, start) for name in ("LinearGaussian", "NonlinearDecoder", "GammaPoisson") for start in ("prior", "q")]


def bits_vae(*, dropout: float = 0.0) -> tuple[VAE, Tensor]:
    generator = make_generator(1)
    vae = VAE(
        NormalEncoder(torch.nn.Sequential(torch.nn.Dropout(dropout), mlp([6, 4], generator=generator, dtype=DOUBLE))),
        mlp([2, 7, 6], generator=generator, dtype=DOUBLE),
        BernoulliLikelihood(),
        latent_dim=2,
        data_dim=6,
    )
    return vae, (randn(5, 6, seed=2) > 0.0).to(DOUBLE)


def both(model: Any, x: Tensor, *, path: AnnealedPath, start: Any, count: int, seed: int) -> tuple[Any, Any]:
    forward = annealed_log_p_x(model, x, path=path, start=start, num_chains=count, generator=make_generator(seed))
    z = model.posterior(x).sample(count, generator=make_generator(seed, "posterior"))
    return forward, reverse_annealed_log_p_x(model, x, z, path=path, start=start, generator=make_generator(seed, "up"))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_both_directions_are_unbiased_on_the_scale_of_weights(name: str, kind: str) -> None:
    """E[w] = p(x) and E[1 / w] = 1 / p(x), and in between lies log p(x)."""
    model, x, q = model_case(name)
    start = None if kind == "prior" else lambda _: q
    path = AnnealedPath(80, num_leapfrog=3)
    forward, reverse = both(model, x, path=path, start=start, count=500, seed=3)
    exact = model.log_p_x(x)
    assert_mean((forward.log_weights - exact).exp(), torch.ones(3), ceiling=0.1)
    assert_mean((exact - reverse.log_weights).exp(), torch.ones(3), ceiling=0.1)
    # Single chains lie below and above, on average.
    assert bool((forward.log_weights.mean(0) < exact).all())
    assert bool((reverse.log_weights.mean(0) > exact).all())
    for result in (forward, reverse):
        assert bool(((result.value - exact).abs() <= 5.0 * result.standard_error).all())
        assert float(result.standard_error.max()) < 0.1


def test_a_model_of_a_stranger() -> None:
    model = TwoClusters()
    assert isinstance(model, ExactModel)
    assert isinstance(model.prior(2), Density)
    x, z = simulate(model, 4, generator=make_generator(4))
    assert_close(model.posterior(x).log_prob(z), log_joint(model, x, z) - model.log_p_x(x))
    forward, reverse = both(model, x, path=SHORT, start=None, count=500, seed=4)
    exact = model.log_p_x(x)
    assert_mean((forward.log_weights - exact).exp(), torch.ones(4), ceiling=0.05)
    assert_mean((exact - reverse.log_weights).exp(), torch.ones(4), ceiling=0.05)


def test_two_modes_and_a_q_that_knows_one() -> None:
    """The other mode is 8 standard deviations away and has half of the mass: importance sampling is log 2 short.

    Its error bar says nothing of it. Chains from the prior are in both modes from the start; chains from such a q stay
    in one, as their error bar does not say either.
    """
    model = TwoClusters()
    x = torch.zeros(3, 3, dtype=DOUBLE)  # the likelihood of a datum at zero does not tell the modes apart
    exact = model.log_p_x(x)
    posterior = model.posterior(x)
    assert_close(posterior.log_share, torch.full((3, 2), math.log(0.5), dtype=DOUBLE))

    def one_mode(x: Tensor) -> DiagonalNormal:
        posterior = model.posterior(x)
        variance = posterior.covariance.diagonal().expand(x.shape[0], 2)
        return DiagonalNormal(posterior.means[:, 0], variance.log())

    sampled = log_p_x(model, Widened(one_mode, 1.2), x, num_samples=2000, generator=make_generator(5))
    assert float(sampled.standard_error.max()) < 0.03
    assert_close(sampled.value, exact - math.log(2.0), rtol=0.0, atol=0.1)
    annealed = annealed_log_p_x(model, x, path=SHORT, num_chains=300, generator=make_generator(5))
    assert float(annealed.standard_error.max()) < 0.05
    assert bool(((annealed.value - exact).abs() <= 5.0 * annealed.standard_error).all())
    from_q = annealed_log_p_x(model, x, path=SHORT, start=one_mode, num_chains=300, generator=make_generator(5))
    assert_close(from_q.value, exact - math.log(2.0), rtol=0.0, atol=0.1)
    # Backwards from draws that know one mode alone: below log p(x), so no upper bound at all.
    z = one_mode(x).sample(300, generator=make_generator(5))
    blind = reverse_annealed_log_p_x(model, x, z, path=SHORT, start=one_mode, generator=make_generator(5))
    assert float((blind.value - exact).max()) < -0.5


@pytest.mark.parametrize("backwards", [False, True])
def test_twice_the_temperatures_halve_the_gap(backwards: bool) -> None:
    """Slope -1, and the constant (KL(r || posterior) + KL(posterior || r)) / 2, for transitions that mix well.

    z ~ N(0, 1), x | z ~ N(z, 1 / 3): the posterior is N(3x / 4, 1 / 4). Exactly, by the sum of KLs between the normal
    densities of neighbouring temperatures: the next order in 1 / T is in it. One leapfrog step of a
    standard deviation leaves half of where a chain began, and six leave next to nothing.
    """
    one = torch.ones(1, dtype=DOUBLE)
    model = LinearGaussian(one[:, None], 0.0 * one, -math.log(3.0) * one)
    x = torch.full((40, 1), 1.5, dtype=DOUBLE)
    counts, gaps = (4, 8, 16, 32), []
    for count in counts:
        path = AnnealedPath(count, "linear", num_leapfrog=1, num_transitions=6, target_acceptance=0.9)
        z = model.posterior(x).sample(400, generator=make_generator(count))
        result = (
            reverse_annealed_log_p_x(model, x, z, path=path, generator=make_generator(6))
            if backwards
            else annealed_log_p_x(model, x, path=path, num_chains=400, generator=make_generator(6))
        )
        gap = mean_with_error((result.log_weights - model.log_p_x(x[:1])).flatten() * (1.0 if backwards else -1.0))
        neighbours = [
            DiagonalNormal(3.0 * beta / (1.0 + 3.0 * beta) * x[:1], -torch.log1p(3.0 * beta * torch.ones_like(x[:1])))
            for beta in path.temperatures()
        ]
        pairs = itertools.pairwise(neighbours)
        perfect = sum(float(kl(*(reversed(pair) if backwards else pair))) for pair in pairs)
        # What is left of the last state makes the gap a few per cent larger.
        assert float(gap.value) == pytest.approx(perfect, rel=0.05, abs=5.0 * float(gap.standard_error))
        assert float(gap.standard_error) < 0.05 * perfect
        gaps.append(float(gap.value))
    slope = np.polyfit(np.log(counts), np.log(gaps), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.15)
    constant = float(kl(neighbours[0], neighbours[-1]) + kl(neighbours[-1], neighbours[0])) / 2.0
    assert gaps[-1] * counts[-1] == pytest.approx(constant, rel=0.15)


@pytest.mark.parametrize("name", ["LinearGaussian", "NonlinearDecoder", "GammaPoisson"])
def test_a_start_that_is_the_posterior_leaves_nothing_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "PILOT_ROUNDS", 2)
    model, x, _ = model_case(name)
    for result in both(model, x, path=AnnealedPath(5, num_leapfrog=1), start=model.posterior, count=4, seed=7):
        assert_close(result.log_weights, model.log_p_x(x).expand(4, 3))
        assert_close(result.effective_sample_size, torch.full((3,), 4.0))


@pytest.mark.parametrize("kind", ["prior", "q"])
@pytest.mark.parametrize("name", ["GaussianMixture", "LinearGaussian"])
def test_one_temperature_is_importance_sampling(name: str, kind: str) -> None:
    """No transition, so that even discrete latents will do; the pilot's eight draws come first."""
    model, x, q = model_case(name)
    encoder: Any = (lambda _: q) if kind == "q" else (lambda batch: model.prior(batch.shape[0]))
    result = annealed_log_p_x(
        model,
        x,
        path=AnnealedPath(1),
        start=encoder if kind == "q" else None,
        num_chains=20,
        generator=make_generator(8),
    )
    density = encoder(x)
    z = density.sample(28, generator=make_generator(8))[8:]
    log_w = log_joint(model, x, z) - density.log_prob(z)
    assert_close(result.log_weights, log_w)
    for part, expected in zip(result, MarginalLikelihood.from_log_weights(log_w), strict=False):
        assert_close(part, expected)
    assert_close(result.acceptance, torch.ones(3))
    back = reverse_annealed_log_p_x(model, x, z, path=AnnealedPath(1), start=encoder, generator=make_generator(8))
    assert_close(back.log_weights, log_w)
    assert_close(back.value, -torch.logsumexp(-log_w, 0) + math.log(20.0))
    assert_close(back.standard_error, MarginalLikelihood.from_log_weights(-log_w).standard_error)


def test_data_that_a_vae_made_are_sandwiched() -> None:
    """No log p(x) is known here, but z of simulated data is a draw of the posterior."""
    vae, _ = bits_vae()
    x, z = simulate(vae, 100, generator=make_generator(9))
    assert (x.shape, z.shape) == ((100, 6), (1, 100, 2))
    path = AnnealedPath(20, num_leapfrog=3)
    for start in (None, vae):
        below = annealed_log_p_x(vae, x, path=path, start=start, num_chains=8, generator=make_generator(9))
        above = reverse_annealed_log_p_x(
            vae, x, z.expand(8, -1, -1), path=path, start=start, generator=make_generator(10)
        )
        gap = mean_with_error(above.value - below.value)
        assert float(gap.value) > -5.0 * float(gap.standard_error)
        assert float(gap.value) < 0.2
        sampled = log_p_x(vae, vae, x, num_samples=2000, generator=make_generator(11))
        for result, sign in ((below, 1.0), (above, -1.0)):
            side = mean_with_error(sign * (sampled.value - result.value))
            assert float(side.value) > -5.0 * float(side.standard_error)
        assert not any(part.requires_grad for part in (*below, *above))


def test_simulated_data_follow_the_model() -> None:
    model = TwoClusters()
    x, z = simulate(model, 20_000, generator=make_generator(12))
    assert_mean(z[0, :, 0].square(), 4.0 + model.spread, ceiling=0.05)
    assert_mean(x - z[0] @ model.weight.mT, torch.zeros(3), ceiling=0.01)
    assert_mean((x[:, 0] - z[0] @ model.weight[0]).square(), model.noise, ceiling=0.01)


def test_temperatures_by_their_formulas() -> None:
    assert AnnealedPath(4, "linear").temperatures() == [0.0, 0.25, 0.5, 0.75, 1.0]
    places = np.linspace(-4.0, 4.0, 11)
    heights = 1.0 / (1.0 + np.exp(-places))
    expected = (heights - heights[0]) / (heights[-1] - heights[0])
    assert AnnealedPath(10).temperatures() == pytest.approx(expected.tolist(), rel=1e-12)
    for schedule in ("linear", "sigmoidal"):
        found = AnnealedPath(1000, schedule).temperatures()
        assert (len(found), found[0], found[-1]) == (1001, 0.0, 1.0)
        assert found == sorted(found)
    assert AnnealedPath(1).temperatures() == [0.0, 1.0]


@pytest.mark.parametrize("target", [0.65, 0.9])
def test_step_sizes_are_tuned_to_the_target(target: float) -> None:
    """Whatever the scale of a datum's posterior. The pilot's eight chains know it to about a tenth."""
    model, x, _ = model_case("NonlinearDecoder")
    path = AnnealedPath(60, target_acceptance=target)
    result = annealed_log_p_x(model, x, path=path, num_chains=200, generator=make_generator(13))
    assert bool(((result.acceptance - target).abs() < 0.1).all())


class Recorder:
    """In the place of hmc: notes what it is asked for, and accepts nothing."""

    def __init__(self) -> None:
        self.calls = list[dict[str, Any]]()

    def __call__(self, log_density: Callable[[Tensor], Tensor], z: Tensor, **options: Any) -> Transition:
        self.calls.append({"chains": z.shape[0], "value": log_density(z), "z": z, **options})
        zeros = torch.zeros(z.shape[:2], dtype=z.dtype)
        return Transition(z + 1.0, zeros, zeros + 0.15)


@pytest.mark.parametrize("backwards", [False, True])
def test_only_the_pilot_adapts(backwards: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real chains get the pilot's step sizes, each at its own temperature, whatever they accept."""
    recorder = Recorder()
    monkeypatch.setattr(chains, "hmc", recorder)
    model, x, q = model_case("LinearGaussian")
    path = AnnealedPath(4, num_leapfrog=3, num_transitions=2)
    z = model.posterior(x).sample(5, generator=make_generator(14))
    generator, start = make_generator(15), lambda _: q
    result = (
        reverse_annealed_log_p_x(model, x, z, path=path, start=start, generator=generator)
        if backwards
        else annealed_log_p_x(model, x, path=path, start=start, num_chains=5, generator=generator)
    )
    pilot = [call for call in recorder.calls if call["chains"] == 8]
    real = [call for call in recorder.calls if call["chains"] == 5]
    assert recorder.calls == pilot + real
    assert len(pilot) == 102  # at least a hundred adaptations, as many at each of three temperatures
    sizes = torch.stack([call["step_size"] for call in pilot])
    assert sizes.shape == (102, 3)
    # The acceptance falls short by a half: each adaptation divides a step size by exp(0.25).
    assert_close(sizes[1:], sizes[:-1] * math.exp(-0.25))
    first = q.sample(13, generator=make_generator(15))
    assert_close(sizes[0], first[:8].std(0).mean(-1) / 2**0.25)
    used = torch.stack([call["step_size"] for call in (reversed(real) if backwards else real)])
    assert_close(used, sizes[33::34] * math.exp(-0.25))
    for call in real:
        assert (call["num_leapfrog"], call["num_transitions"], call["jitter"]) == (3, 2, 0.2)
        assert call["generator"] is generator
    # Transitions at beta 1, 2, 3 of 4, forwards after the first increment, backwards before the last.
    betas = path.temperatures()
    inner = betas[1:-1][::-1] if backwards else betas[1:-1]
    states = [(z if backwards else first[8:]) + number for number in range(4)]
    for call, beta, state in zip(real, inner, states, strict=False):
        assert_close(call["z"], state)
        expected = (1.0 - beta) * q.log_prob(state) + beta * log_joint(model, x, state)
        assert_close(call["value"], expected)
    steps = [after - before for before, after in itertools.pairwise(betas)]
    terms = [log_joint(model, x, state) - q.log_prob(state) for state in states]
    ordered = steps[::-1] if backwards else steps
    assert_close(result.log_weights, sum(step * term for step, term in zip(ordered, terms, strict=True)))
    assert_close(result.acceptance, torch.full((3,), 0.15, dtype=DOUBLE))


def test_rows_bound_the_work_and_keep_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "PILOT_ROUNDS", 2)
    model, x, _ = model_case("LinearGaussian")
    x, asked = x.repeat(3, 1), []

    class Watched:
        data_dim, latent_dim, prior, sample_x_given_z = 4, 2, model.prior, model.sample_x_given_z

        def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
            asked.append((z.shape[0], z.shape[1]))
            return model.log_p_x_given_z(x, z)  # type: ignore[no-any-return]

    z = model.posterior(x).sample(10, generator=make_generator(16))
    for rows, most in ((40, 4), (1, 1), (1000, 9)):
        asked.clear()
        options: dict[str, Any] = {"path": AnnealedPath(3, num_leapfrog=1), "start": model.posterior, "rows": rows}
        below = annealed_log_p_x(Watched(), x, num_chains=10, generator=make_generator(17), **options)
        above = reverse_annealed_log_p_x(Watched(), x, z, generator=make_generator(17), **options)
        assert {chains for chains, _ in asked} == {8, 10}
        assert max(data for _, data in asked) == most
        for result in (below, above):
            assert result.log_weights.shape == (10, 9)
            assert all(part.shape == (9,) for part in result[:-1])
            assert_close(result.value, model.log_p_x(x))


def test_modules_are_evaluated_as_such_and_get_their_modes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "PILOT_ROUNDS", 2)
    vae, x = bits_vae(dropout=0.5)
    z = randn(3, 5, 2, seed=18)
    options: dict[str, Any] = {"path": AnnealedPath(3, num_leapfrog=1), "start": vae.encoder}
    results = [
        (
            annealed_log_p_x(vae.generative, x, num_chains=3, generator=make_generator(19), **options).value,
            reverse_annealed_log_p_x(vae.generative, x, z, generator=make_generator(19), **options).value,
        )
        for _ in "ab"
    ]
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert all(module.training for module in vae.modules())
    assert all(weight.grad is None for weight in vae.parameters())
    other = annealed_log_p_x(vae, x, num_chains=3, generator=make_generator(20), **options)
    assert bool((other.value != results[0][0]).all())


def test_single_precision_stays_single() -> None:
    model, x, _ = model_case("LinearGaussian", torch.float32)
    for result in both(model, x, path=AnnealedPath(5, num_leapfrog=1), start=None, count=3, seed=21):
        assert all(part.dtype == torch.float32 for part in result)


def test_a_datum_without_mass_has_none() -> None:
    model, x, q = model_case("LinearGaussian")

    class Impossible:
        data_dim, latent_dim, prior, sample_x_given_z = 4, 2, model.prior, model.sample_x_given_z

        def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
            never = torch.tensor([False, True, False]).expand(z.shape[:2])
            return model.log_p_x_given_z(x, z).masked_fill(never, -math.inf)  # type: ignore[no-any-return]

    result = annealed_log_p_x(
        Impossible(),
        x,
        path=AnnealedPath(10, num_leapfrog=1),
        start=lambda _: q,
        num_chains=50,
        generator=make_generator(22),
    )
    assert result.value.isfinite().tolist() == [True, False, True]
    assert float(result.value[1]) == -math.inf


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_chains": 1}, ValueError, r"num_chains: expected at least 2 chains, for an error bar, found 1"),
        ({"num_chains": 0}, ValueError, r"num_chains: expected a positive integer, found 0"),
        ({"num_chains": 2.0}, TypeError, r"num_chains: expected a positive integer, found 2\.0"),
        ({"rows": 0}, ValueError, r"rows: expected a positive integer, found 0"),
        ({"x": torch.ones(2, 3)}, ValueError, r"x: expected shape \(N, 4\), found \(2, 3\)"),
        (
            {"x": torch.full((1, 4), math.nan, dtype=DOUBLE)},
            ValueError,
            r"x: expected finite numbers, found 4 that are not, first nan at \(0, 0\)",
        ),
        (
            {"start": lambda batch: batch},
            TypeError,
            r"encoder\(x\): expected a vae_lib\.protocols\.Density, found Tensor",
        ),
    ],
)
def test_mistakes_forwards(change: dict[str, Any], error: type[Exception], message: str) -> None:
    model, x, _ = model_case("LinearGaussian")
    arguments: dict[str, Any] = {"x": x, "num_chains": 2} | change
    with pytest.raises(error, match=f"^{message}$"):
        annealed_log_p_x(model, arguments.pop("x"), path=SHORT, generator=make_generator(23), **arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z": torch.zeros(1, 3, 2).double()}, ValueError, r"z: expected at least 2 chains, .* found 1"),
        ({"z": torch.zeros(0, 3, 2).double()}, ValueError, r"z: expected a positive integer, found 0"),
        ({"z": torch.zeros(4, 2, 2).double()}, ValueError, r"z: expected shape \(S, 3, 2\), found \(4, 2, 2\)"),
        ({"z": torch.zeros(4, 3, 2)}, TypeError, r"z: expected torch\.float64 as .* found torch\.float32"),
        ({"z": torch.full((2, 3, 2), math.inf).double()}, ValueError, r"z: expected finite numbers, found 12 .*"),
        ({"x": torch.ones(2, 3)}, ValueError, r"x: expected shape \(N, 4\), found \(2, 3\)"),
        ({"rows": -1}, ValueError, r"rows: expected a positive integer, found -1"),
    ],
)
def test_mistakes_backwards(change: dict[str, Any], error: type[Exception], message: str) -> None:
    model, x, _ = model_case("LinearGaussian")
    arguments: dict[str, Any] = {"x": x, "z": torch.zeros(4, 3, 2).double()} | change
    with pytest.raises(error, match=f"^{message}$"):
        reverse_annealed_log_p_x(
            model, arguments.pop("x"), arguments.pop("z"), path=SHORT, generator=make_generator(24), **arguments
        )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_temperatures": 0}, ValueError, r"num_temperatures: expected a positive integer, found 0"),
        ({"num_leapfrog": 1.5}, TypeError, r"num_leapfrog: expected a positive integer, found 1\.5"),
        ({"num_transitions": -1}, ValueError, r"num_transitions: expected a positive integer, found -1"),
        ({"schedule": "cubic"}, ValueError, r"schedule: expected sigmoidal or linear, found 'cubic'"),
        ({"target_acceptance": 1.0}, ValueError, r"target_acceptance: expected a number between 0 and 1, found 1\.0"),
        ({"target_acceptance": 0.0}, ValueError, r"target_acceptance: expected a number between 0 and 1, found 0\.0"),
    ],
)
def test_paths_that_are_none(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        AnnealedPath(**change)


def test_discrete_latents_cannot_be_moved() -> None:
    model, x, _ = model_case("GaussianMixture")
    message = r"^log_density: expected a differentiable function of z, found values without a gradient$"
    with pytest.raises(TypeError, match=message):
        annealed_log_p_x(model, x, path=AnnealedPath(2), num_chains=2, generator=make_generator(25))


def test_simulate_checks_what_a_model_gives() -> None:
    model, _, _ = model_case("LinearGaussian")

    class Flat:
        data_dim, latent_dim, prior, log_p_x_given_z = 4, 2, model.prior, model.log_p_x_given_z

        def sample_x_given_z(self, z: Tensor, *, generator: torch.Generator) -> Tensor:
            return model.sample_x_given_z(z, generator=generator)[0]  # type: ignore[no-any-return]

    class Long(Flat):
        latent_dim = 3

    with pytest.raises(ValueError, match=r"^sample_x_given_z\(z\): expected shape \(1, 5, 4\), found \(5, 4\)$"):
        simulate(Flat(), 5, generator=make_generator(26))
    with pytest.raises(ValueError, match=r"^prior\(N\)\.sample\(1\): expected shape \(1, 5, 3\), found \(1, 5, 2\)$"):
        simulate(Long(), 5, generator=make_generator(26))
    with pytest.raises(ValueError, match=r"^num_data: expected a positive integer, found 0$"):
        simulate(model, 0, generator=make_generator(26))


def test_the_strangers_posterior_is_drawn_rightly() -> None:
    """The test's own tool: shares and means of its draws."""
    model = TwoClusters()
    x = randn(2, 3, seed=27)
    posterior = model.posterior(x)
    assert isinstance(posterior, Clusters)
    z = posterior.sample(20_000, generator=make_generator(27))
    mean = (posterior.log_share.exp().unsqueeze(-1) * posterior.means).sum(1)
    assert_mean(z, mean, ceiling=0.02)
