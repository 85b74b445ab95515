"""Every closed-form KL: value and gradient against a foreign oracle, its sign, its zero, its refusals, its extremes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as td

from tests.oracles import ATOL, DENSITIES, B, K, L, assert_close, assert_same_value_and_gradient, randn
from vae_lib.densities import Bernoulli, Binomial, Categorical, DiagonalNormal, FullNormal, Gamma, StudentT
from vae_lib.divergences import _CLOSED_FORMS, closed_form, has_closed_form, kl, kl_terms
from vae_lib.rng import make_generator


class Pair(NamedTuple):
    p: str
    q: str
    oracle: Callable[[td.Distribution, td.Distribution], Tensor]
    q_parameters: tuple[Tensor, ...]


def full(distribution: td.Distribution) -> td.MultivariateNormal:
    """A diagonal normal of torch as one with a covariance matrix."""
    if isinstance(distribution, td.MultivariateNormal):
        return distribution
    return td.MultivariateNormal(distribution.mean, torch.diag_embed(distribution.variance))


def by_matrices(p: td.Distribution, q: td.Distribution) -> Tensor:
    return td.kl_divergence(full(p), full(q))


def by_trapezoid(p: td.Distribution, q: td.Distribution) -> Tensor:
    """One-dimensional integrals of p (log p - log q), summed over the independent coordinates.

    With v = sinh(t) a density that falls off like a power of v falls off exponentially in t, and the trapezoid rule
    converges exponentially. The tail beyond t = 25 is below e^(-25 (df - 2)), and df is above 9 here.
    """
    base_p, base_q = p.base_dist, q.base_dist  # type: ignore[attr-defined]
    t = torch.linspace(-25.0, 25.0, 4001, dtype=torch.float64)[:, None, None]
    v = torch.sinh(t)
    log_p = base_p.log_prob(v)
    terms = torch.exp(log_p) * (log_p - base_q.log_prob(v)) * torch.cosh(t)
    return (terms.sum(0) * 50.0 / 4000.0).sum(-1)


def other(name: str) -> tuple[Tensor, ...]:
    """Parameters for q: those of the case, moved."""
    moved = tuple(torch.roll(parameter, 1, 0) * 0.8 for parameter in DENSITIES[name].parameters)
    return moved


PAIRS = {
    f"{pair.p}-{pair.q}": pair
    for pair in [
        *(
            Pair(name, name, td.kl_divergence, other(name))
            for name in ("DiagonalNormal", "FullNormal", "Gamma", "Bernoulli", "Binomial", "Categorical")
        ),
        Pair("DiagonalNormal", "FullNormal", by_matrices, other("FullNormal")),
        Pair("FullNormal", "DiagonalNormal", by_matrices, other("DiagonalNormal")),
        Pair("StudentT", "DiagonalNormal", by_trapezoid, other("DiagonalNormal")),
    ]
}
each_pair = pytest.mark.parametrize("name", PAIRS)


@each_pair
def test_value_and_gradient(name: str) -> None:
    pair = PAIRS[name]
    case_p, case_q = DENSITIES[pair.p], DENSITIES[pair.q]
    count = len(case_p.parameters)
    assert_same_value_and_gradient(
        lambda *a: kl(case_p.ours(*a[:count]), case_q.ours(*a[count:])),
        lambda *a: pair.oracle(case_p.oracle(*a[:count]), case_q.oracle(*a[count:])),
        (*case_p.parameters, *pair.q_parameters),
        # The derivative of digamma is torch's trigamma, right to 5e-10 relative (against scipy): times (df + 1)/2 times
        # trigamma, which is about 1. The Gamma pair has it on both sides.
        gradient_atol=1e-9 if pair.p == "StudentT" else ATOL,
    )


@each_pair
def test_it_is_positive_and_has_one_value_for_each_datum(name: str) -> None:
    pair = PAIRS[name]
    divergence = kl(DENSITIES[pair.p].density(), DENSITIES[pair.q].ours(*pair.q_parameters))
    assert divergence.shape == (B,)
    assert bool((divergence > 0.0).all())


@each_pair
def test_single_precision_stays_single(name: str) -> None:
    pair = PAIRS[name]
    p, q = DENSITIES[pair.p], DENSITIES[pair.q]
    found = kl(p.density(torch.float32), q.ours(*(parameter.float() for parameter in pair.q_parameters)))
    expected = kl(p.density(), q.ours(*pair.q_parameters))
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)  # as for the densities


@pytest.mark.parametrize("name", [name for name in DENSITIES if name != "StudentT"])
def test_the_divergence_from_itself_is_zero_and_flat(name: str) -> None:
    case = DENSITIES[name]
    leaves = [parameter.clone().requires_grad_() for parameter in case.parameters]
    divergence = kl(case.density(), case.ours(*leaves))
    assert_close(divergence.detach(), torch.zeros(B))
    for gradient in torch.autograd.grad(divergence.sum(), leaves):
        assert_close(gradient, torch.zeros_like(gradient))


@pytest.mark.equation("eq-kl")
@pytest.mark.parametrize("name", ["Bernoulli", "Binomial", "Categorical"])
def test_the_definition_by_enumeration(name: str) -> None:
    """KL = E_p[log p - log q], summed over every vector that p can give."""
    pair = PAIRS[f"{name}-{name}"]
    p, q = DENSITIES[name].density(), DENSITIES[name].ours(*pair.q_parameters)
    values = torch.arange({"Bernoulli": 2, "Binomial": 17, "Categorical": K}[name], dtype=torch.float64)
    every = torch.cartesian_prod(values, values).unsqueeze(1).expand(-1, B, L)
    log_p, log_q = p.log_prob(every), q.log_prob(every)
    assert_close(log_p.exp().sum(0), torch.ones(B))
    assert_close(kl(p, q), (log_p.exp() * (log_p - log_q)).sum(0))


@pytest.mark.equation("eq-kl-normals")
def test_two_normals_with_full_covariances() -> None:
    """KL(N(μ, Σ) || N(m, C)) = ½ (tr C⁻¹Σ + (μ - m)ᵀ C⁻¹ (μ - m) - L + log det C / det Σ), value and gradient."""

    def by_the_formula(mu: Tensor, tril: Tensor, m: Tensor, tril_c: Tensor) -> Tensor:
        sigma, c = tril.tril() @ tril.tril().mT, tril_c.tril() @ tril_c.tril().mT
        trace = torch.linalg.solve(c, sigma).diagonal(dim1=-2, dim2=-1).sum(-1)
        distance = ((mu - m) * torch.linalg.solve(c, mu - m)).sum(-1)
        return 0.5 * (trace + distance - L + torch.logdet(c) - torch.logdet(sigma))

    assert_same_value_and_gradient(
        lambda mu, tril, m, tril_c: kl(FullNormal(mu, tril.tril()), FullNormal(m, tril_c.tril())),
        by_the_formula,
        (*DENSITIES["FullNormal"].parameters, *other("FullNormal")),
    )


@pytest.mark.equation("eq-kl-gaussian")
def test_a_normal_against_the_standard_normal() -> None:
    """KL(N(μ, diag σ²) || N(0, I)) = ½ Σ (μ² + σ² - log σ² - 1), value and gradient."""
    zeros = torch.zeros(B, L, dtype=torch.float64)
    assert_same_value_and_gradient(
        lambda mu, logvar: kl(DiagonalNormal(mu, logvar), DiagonalNormal(zeros, zeros)),
        lambda mu, logvar: 0.5 * (mu**2 + torch.exp(logvar) - logvar - 1.0).sum(-1),
        DENSITIES["DiagonalNormal"].parameters,
    )


@pytest.mark.equation("eq-forward-kl")
def test_the_normal_nearest_in_forward_kl_has_the_moments_of_p() -> None:
    """KL(p || q) over normal q: flat at the mean and variance of p, and larger everywhere else that was tried."""
    p = DENSITIES["StudentT"].density()
    oracle = DENSITIES["StudentT"].oracle(*DENSITIES["StudentT"].parameters)
    mu, logvar = oracle.mean.clone().requires_grad_(), oracle.variance.log().requires_grad_()
    best = kl(p, DiagonalNormal(mu, logvar))
    for gradient in torch.autograd.grad(best.sum(), (mu, logvar)):
        assert_close(gradient, torch.zeros_like(gradient))
    for seed in range(20):
        shift = 0.3 * randn(2, B, L, seed=seed)
        assert bool((kl(p, DiagonalNormal(mu + shift[0], logvar + shift[1])) > best).all())


def test_a_tail_too_heavy_for_a_normal_costs_infinitely_much() -> None:
    mu = torch.zeros(5, 1, dtype=torch.float64)
    df = torch.tensor([[0.5], [1.5], [2.0], [2.0 + 1e-9], [3.0]], dtype=torch.float64)
    divergence = kl(StudentT(mu, mu, df), DiagonalNormal(mu, mu))
    assert divergence[:3].tolist() == [math.inf] * 3
    assert float(divergence[3]) == pytest.approx(1e9, rel=1e-6)  # ½ df/(df - 2), and 2 + 1e-9 is rounded at 4e-16
    assert float(divergence[4]) < 1.0


def test_an_infinite_divergence_has_a_finite_gradient() -> None:
    """At two degrees of freedom, where the variance that is not used is infinite, and on both sides of it."""
    mu = torch.zeros(3, 1, dtype=torch.float64)
    df = torch.tensor([[1.5], [2.0], [3.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(kl(StudentT(mu, mu, df), DiagonalNormal(mu, mu)).sum(), df)
    assert bool(torch.isfinite(gradient).all())


def test_categories_that_are_impossible() -> None:
    inf = math.inf
    p = Categorical(torch.tensor([[[0.0, 0.0, -inf]]], dtype=torch.float64).requires_grad_())
    same = kl(p, Categorical(torch.tensor([[[0.0, 0.0, -inf]]], dtype=torch.float64)))
    assert same.tolist() == [0.0]
    third = kl(p, Categorical(torch.zeros(1, 1, 3, dtype=torch.float64)))
    assert_close(third.detach(), [math.log(1.5)])
    (gradient,) = torch.autograd.grad(third.sum(), p.logits)
    assert bool(torch.isfinite(gradient).all())
    # What p does and q never does costs infinitely much.
    impossible = kl(Categorical(torch.zeros(1, 1, 3, dtype=torch.float64)), p)
    assert impossible.tolist() == [inf]


@given(st.floats(-80, 80), st.floats(-80, 80), st.floats(-50, 50))
def test_normals_at_extreme_log_variances(logvar_p: float, logvar_q: float, shift: float) -> None:
    def t(value: float) -> Tensor:
        return torch.tensor([[value]], dtype=torch.float64, requires_grad=True)

    parameters = (t(shift), t(logvar_p), t(0.0), t(logvar_q))
    p, q = DiagonalNormal(*parameters[:2]), DiagonalNormal(*parameters[2:])
    divergence = kl(p, q)
    ratio = logvar_p - logvar_q
    expected = 0.5 * (math.expm1(ratio) - ratio + shift**2 * math.exp(-logvar_q))
    assert_close(divergence.detach(), [expected], atol=1e-10)
    assert bool((divergence >= 0.0).all())
    gradients = torch.autograd.grad(divergence.sum(), parameters)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    by_factor = kl(p, FullNormal(q.mu, torch.diag_embed(q.std)))
    assert_close(by_factor.detach(), divergence.detach(), atol=1e-10)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_logits_of_any_size(logit_p: float, logit_q: float) -> None:
    a, b = (torch.tensor([[logit]], dtype=torch.float64, requires_grad=True) for logit in (logit_p, logit_q))
    zero = torch.zeros(1, 1, dtype=torch.float64)
    for p, q, trials in (
        (Bernoulli(a), Bernoulli(b), 1),
        (Binomial(a, 16), Binomial(b, 16), 16),
        (Categorical(torch.stack([zero, a], -1)), Categorical(torch.stack([zero, b], -1)), 1),
    ):
        divergence = kl(p, q)
        assert bool((divergence >= -1e-12 * trials * (abs(logit_p) + abs(logit_q))).all())
        assert bool(torch.isfinite(divergence).all())
        assert all(bool(torch.isfinite(g).all()) for g in torch.autograd.grad(divergence.sum(), (a, b)))
        # log p/q is logit_p - logit_q times the bit, up to the normaliser: at most the difference of the logits
        assert float(divergence.detach()) <= trials * abs(logit_p - logit_q) * (1.0 + 1e-12) + 1e-12


@given(st.sampled_from([name for name in DENSITIES if name != "StudentT"]), st.integers(0, 10_000))
def test_it_is_never_negative(name: str, seed: int) -> None:
    case = DENSITIES[name]
    generator = make_generator(seed)

    def draw() -> Any:
        parameters = [torch.randn(p.shape, generator=generator, dtype=torch.float64) * 2.0 for p in case.parameters]
        if name == "Gamma":
            parameters = [p.exp() for p in parameters]
        if name == "FullNormal":
            parameters[1] = parameters[1].tril(-1) + torch.diag_embed(parameters[1].diagonal(dim1=1, dim2=2).exp())
        return case.ours(*parameters)

    p, q = draw(), draw()
    assert bool((kl(p, q) >= 0.0).all())
    assert_close(kl(p, p), torch.zeros(B))


def test_which_pairs_have_a_closed_form() -> None:
    for name_p, case_p in DENSITIES.items():
        for name_q, case_q in DENSITIES.items():
            p, q = case_p.density(), case_q.density()
            assert has_closed_form(p, q) == (f"{name_p}-{name_q}" in PAIRS)
            if not has_closed_form(p, q):
                message = f"^kl: expected a pair with a closed form, found {name_p} and {name_q}; sample instead "
                with pytest.raises(NotImplementedError, match=message):
                    kl(p, q)


def test_a_density_of_your_own_enters_its_closed_form() -> None:
    """And a subclass inherits those of its parents, its own first."""

    class Spread(DiagonalNormal):
        pass

    zeros = torch.zeros(B, L)
    one, standard = Spread(zeros + 1.0, zeros), DiagonalNormal(zeros, zeros)
    assert has_closed_form(one, standard)
    assert torch.equal(kl(one, standard), kl(DiagonalNormal(zeros + 1.0, zeros), standard))

    bits = Bernoulli(zeros)
    assert not has_closed_form(one, bits)
    try:

        @closed_form(Spread, Bernoulli)
        def own(p: Spread, q: Bernoulli) -> Tensor:
            assert (p, q) == (one, bits)
            return p.mu[:, 0] + 6.0

        @closed_form(Spread, DiagonalNormal)
        def shapeless(p: Spread, q: DiagonalNormal) -> Tensor:
            return p.mu + 6.0

        assert own(one, bits).tolist() == kl(one, bits).tolist() == [7.0] * B
        assert not has_closed_form(bits, one)
        with pytest.raises(ValueError, match=rf"^kl\(p, q\): expected shape \({B},\), found \({B}, {L}\)$"):
            kl(one, standard)
    finally:
        for pair in ((Spread, Bernoulli), (Spread, DiagonalNormal)):
            _CLOSED_FORMS.pop(pair, None)


def test_the_terms_of_two_normals_stay_apart() -> None:
    def ours(mu_p: Tensor, logvar_p: Tensor, mu_q: Tensor, logvar_q: Tensor) -> Tensor:
        return kl_terms(DiagonalNormal(mu_p, logvar_p), DiagonalNormal(mu_q, logvar_q))

    def oracle(mu_p: Tensor, logvar_p: Tensor, mu_q: Tensor, logvar_q: Tensor) -> Tensor:
        return td.kl_divergence(td.Normal(mu_p, (0.5 * logvar_p).exp()), td.Normal(mu_q, (0.5 * logvar_q).exp()))

    assert_same_value_and_gradient(ours, oracle, tuple(randn(B, L, seed=seed) for seed in range(4)))


@pytest.mark.parametrize("function", [kl, kl_terms])
@pytest.mark.parametrize(("batch", "dim"), [(1, L), (B, 1), (B + 1, L)])
def test_other_sizes_are_refused(batch: int, dim: int, function: Callable[..., Tensor]) -> None:
    p, q = DiagonalNormal(torch.zeros(B, L), torch.zeros(B, L)), torch.zeros(batch, dim)
    message = f"q: expected (B, L) = ({B}, {L}) as p has, found ({batch}, {dim})"
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        function(p, DiagonalNormal(q, q))


def test_other_supports_are_refused() -> None:
    logits = torch.zeros(B, L)
    with pytest.raises(ValueError, match=r"^q: expected total_count 3 as p has, found 4$"):
        kl(Binomial(logits, 3), Binomial(logits, 4))
    with pytest.raises(ValueError, match=r"^q: expected 3 categories as p has, found 1$"):
        kl(Categorical(torch.zeros(B, L, 3)), Categorical(torch.zeros(B, L, 1)))


def test_gammas_at_extreme_shapes() -> None:
    a = torch.tensor([[1e-3, 1e4]], dtype=torch.float64)
    p, q = Gamma(a, torch.ones_like(a)), Gamma(2.0 * a, 3.0 * torch.ones_like(a))
    oracle = td.kl_divergence(td.Gamma(a, torch.ones_like(a)), td.Gamma(2.0 * a, 3.0 * torch.ones_like(a))).sum(-1)
    # lgamma of 1e4 is 8e4 and rounds at 1e-11; the result is about 6e3
    assert_close(kl(p, q), oracle, rtol=1e-10)
