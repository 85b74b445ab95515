"""The density classes: value and gradient, shapes, and the promise that nothing is broadcast silently."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import CONTINUOUS, DENSITIES, B, K, L, S, assert_close, assert_same_value_and_gradient, randn
from vae_lib.densities import Bernoulli, Binomial, Categorical, DiagonalNormal, FullNormal, Gamma, StudentT
from vae_lib.protocols import Density, ReparameterizedDensity
from vae_lib.rng import make_generator

each_density = pytest.mark.parametrize("name", DENSITIES)


@each_density
def test_log_prob_and_its_gradient_are_torchs(name: str) -> None:
    case = DENSITIES[name]
    values = case.values()
    if name in CONTINUOUS:
        assert_same_value_and_gradient(
            lambda v, *p: case.ours(*p).log_prob(v),
            lambda v, *p: case.oracle(*p).log_prob(v),
            (values, *case.parameters),
        )
    else:
        assert_same_value_and_gradient(
            lambda *p: case.ours(*p).log_prob(values), lambda *p: case.oracle(*p).log_prob(values), case.parameters
        )


@each_density
def test_it_meets_the_protocol(name: str) -> None:
    density = DENSITIES[name].density()
    assert isinstance(density, Density)
    assert isinstance(density, ReparameterizedDensity) == (name in CONTINUOUS)
    assert (density.batch_size, density.event_dim) == (B, L)


@each_density
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_dtype_of_the_parameters_is_the_dtype_of_everything(name: str, dtype: torch.dtype) -> None:
    case = DENSITIES[name]
    density = case.density(dtype)
    values = case.values().to(dtype)
    found = density.log_prob(values)
    assert (found.dtype, found.shape) == (dtype, (S, B))
    assert density.sample(S, generator=make_generator(0)).dtype == dtype
    # float32 rounds at 6e-8, lgamma's cancellation and 16 grey levels cost two digits
    expected = case.oracle(*case.parameters).log_prob(values.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4, check_dtype=False)


@each_density
def test_no_sample_is_an_empty_answer(name: str) -> None:
    case = DENSITIES[name]
    assert case.density().log_prob(case.values()[:0]).shape == (0, B)


@each_density
def test_a_batch_or_an_event_of_one(name: str) -> None:
    case = DENSITIES[name]
    values = case.values()
    one = case.ours(*(parameter[:1] for parameter in case.parameters))
    assert_close(one.log_prob(values[:, :1]), case.density().log_prob(values)[:, :1])
    if name == "FullNormal":
        narrow = FullNormal(case.parameters[0][:, :1], case.parameters[1][:, :1, :1])
        oracle = torch.distributions.Normal(case.parameters[0][:, 0], case.parameters[1][:, 0, 0])
    else:
        narrow = case.ours(*(parameter[:, :1] for parameter in case.parameters))
        oracle = case.oracle(*case.parameters).base_dist  # type: ignore[attr-defined]
        assert_close(narrow.log_prob(values[..., :1]), oracle.log_prob(values)[..., 0])
        return
    assert_close(narrow.log_prob(values[..., :1]), oracle.log_prob(values[..., 0]))


@each_density
@pytest.mark.parametrize(
    "size",
    [(B, L), (S, 1, L), (S, B, 1), (S, B), (L,), (1, S, B, L), (S, B + 1, L), (S, B, L + 1), (S, 0, L)],
)
def test_a_value_of_another_shape_is_refused(name: str, size: tuple[int, ...]) -> None:
    message = f"value: expected shape (S, {B}, {L}), found {size}"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        DENSITIES[name].density().log_prob(torch.ones(size, dtype=torch.float64))


@each_density
def test_a_value_of_another_type_is_refused(name: str) -> None:
    density = DENSITIES[name].density()
    with pytest.raises(
        TypeError, match=r"^value: expected torch\.float64 as the tensors it meets have, found torch\.float32$"
    ):
        density.log_prob(torch.ones(S, B, L))
    with pytest.raises(TypeError, match=r"^value: expected floating-point numbers, found torch\.int64$"):
        density.log_prob(torch.ones(S, B, L, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"^value: expected a tensor on cpu, found one on meta$"):
        density.log_prob(torch.ones(S, B, L, dtype=torch.float64, device="meta"))


Z = torch.zeros


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiagonalNormal(Z(2), Z(2)), "mu: expected shape (B, L), found (2,)"),
        (lambda: DiagonalNormal(Z(0, 2), Z(0, 2)), "mu: expected shape (B, L), found (0, 2) (an empty batch)"),
        (lambda: DiagonalNormal(Z(3, 2), Z(3, 1)), "logvar: expected shape (3, 2), found (3, 1)"),
        (lambda: DiagonalNormal(Z(3, 2), Z(2)), "logvar: expected shape (3, 2), found (2,)"),
        (lambda: FullNormal(Z(2), Z(2, 2)), "mu: expected shape (B, L), found (2,)"),
        (lambda: FullNormal(Z(3, 2), Z(2, 2)), "scale_tril: expected shape (3, 2, 2), found (2, 2)"),
        (lambda: FullNormal(Z(3, 2), Z(3, 2, 1)), "scale_tril: expected shape (3, 2, 2), found (3, 2, 1)"),
        (lambda: FullNormal.from_covariance(Z(2), Z(2, 2)), "mu: expected shape (B, L), found (2,)"),
        (lambda: FullNormal.from_covariance(Z(3, 2), Z(2, 2)), "covariance: expected shape (3, 2, 2), found (2, 2)"),
        (lambda: StudentT(Z(2), Z(2), Z(2)), "mu: expected shape (B, L), found (2,)"),
        (lambda: StudentT(Z(3, 2), Z(1, 2), Z(3, 2)), "log_scale: expected shape (3, 2), found (1, 2)"),
        (lambda: StudentT(Z(3, 2), Z(3, 2), Z(3, 1)), "df: expected shape (3, 2), found (3, 1)"),
        (lambda: Gamma(Z(()), Z(())), "concentration: expected shape (B, L), found ()"),
        (lambda: Gamma(Z(3, 2), Z(3, 1)), "rate: expected shape (3, 2), found (3, 1)"),
        (lambda: Bernoulli(Z(3)), "logits: expected shape (B, L), found (3,)"),
        (lambda: Binomial(Z(3), 4), "logits: expected shape (B, L), found (3,)"),
        (lambda: Binomial(Z(3, 2), 0), "total_count: expected a positive integer, found 0"),
        (lambda: Categorical(Z(3, 4)), "logits: expected shape (B, L, K), found (3, 4)"),
    ],
)
def test_parameters_of_another_shape_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        make()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: DiagonalNormal(Z(3, 2), Z(3, 2).double()), "logvar"),
        (lambda: FullNormal(Z(3, 2), Z(3, 2, 2).double()), "scale_tril"),
        (lambda: FullNormal.from_covariance(Z(3, 2), Z(3, 2, 2).double()), "covariance"),
        (lambda: StudentT(Z(3, 2), Z(3, 2).double(), Z(3, 2)), "log_scale"),
        (lambda: StudentT(Z(3, 2), Z(3, 2), Z(3, 2).double()), "df"),
        (lambda: Gamma(Z(3, 2), Z(3, 2).double()), "rate"),
    ],
)
def test_parameters_of_two_types_are_refused(make: Any, name: str) -> None:
    with pytest.raises(
        TypeError, match=rf"^{name}: expected torch\.float32 as the tensors it meets have, found torch\.float64$"
    ):
        make()


def test_a_count_of_trials_is_an_integer() -> None:
    with pytest.raises(TypeError, match=r"^total_count: expected a positive integer, found 4\.0$"):
        Binomial(Z(3, 2), 4.0)  # type: ignore[arg-type]


def test_parameters_that_can_be_asked_for() -> None:
    mu, tril = DENSITIES["FullNormal"].parameters
    full = FullNormal(mu, tril)
    assert_close(full.covariance, tril @ tril.transpose(1, 2))
    assert_close(full.half_log_det, 0.5 * torch.logdet(tril @ tril.transpose(1, 2)))
    diagonal = DENSITIES["DiagonalNormal"].density()
    assert_close(diagonal.std**2, torch.exp(diagonal.logvar))
    categorical = DENSITIES["Categorical"].density()
    assert_close(categorical.log_probs, torch.log(torch.softmax(categorical.logits, 2)))


def test_from_covariance() -> None:
    mu, tril = DENSITIES["FullNormal"].parameters
    covariance = tril @ tril.mT
    assert_close(FullNormal.from_covariance(mu, covariance).covariance, covariance)
    message = "^covariance: expected symmetric positive definite matrices, found one that is not$"
    skew = torch.zeros(B, L, L, dtype=torch.float64)
    skew[-1, 0, 1] = 1e-3
    last = torch.zeros(B, 1, 1, dtype=torch.float64)
    last[-1] = 1.0
    indefinite = covariance - last * 2.0 * torch.linalg.eigvalsh(covariance)[-1, 0] * torch.eye(L, dtype=torch.float64)
    # The upper corner is one that the Cholesky factorisation does not read.
    for bad in (covariance + skew, indefinite, covariance * math.nan):
        with pytest.raises(ValueError, match=message):
            FullNormal.from_covariance(mu, bad)


@pytest.mark.parametrize("sign", [-80.0, 80.0])
def test_normals_at_extreme_variances(sign: float) -> None:
    # By hand, with all coordinates alike: -L/2 (log 2π + logvar + v² exp(-logvar)).
    logvar = torch.full((B, L), sign, dtype=torch.float64, requires_grad=True)
    value = 3.0 * torch.ones(S, B, L, dtype=torch.float64)
    expected = -0.5 * L * (math.log(2 * math.pi) + sign + 9.0 * math.exp(-sign))
    mu = torch.zeros(B, L, dtype=torch.float64)
    for density in (DiagonalNormal(mu, logvar), FullNormal(mu, torch.diag_embed(torch.exp(0.5 * logvar)))):
        found = density.log_prob(value)
        assert_close(found.detach(), torch.full((S, B), expected, dtype=torch.float64))
        (grad,) = torch.autograd.grad(found.sum(), logvar)
        assert_close(grad, torch.full((B, L), S * 0.5 * (9.0 * math.exp(-sign) - 1.0), dtype=torch.float64))


@given(st.integers(0, 4), st.integers(1, 4), st.integers(1, 4), st.sampled_from([torch.float32, torch.float64]))
def test_shapes_for_all_sizes(samples: int, batch: int, dim: int, dtype: torch.dtype) -> None:
    p = randn(batch, dim, seed=1, dtype=dtype)
    eye = torch.eye(dim, dtype=dtype).expand(batch, dim, dim)
    densities: list[Density] = [
        DiagonalNormal(p, p), FullNormal(p, eye), StudentT(p, p, p.exp()), Gamma(p.exp(), p.exp()),
        Bernoulli(p), Binomial(p, 3), Categorical(p.unsqueeze(-1).expand(batch, dim, K)),
    ]  # fmt: skip
    for density in densities:
        found = density.log_prob(torch.ones(samples, batch, dim, dtype=dtype))
        assert (found.shape, found.dtype) == ((samples, batch), dtype)
        assert density.sample(samples + 1, generator=make_generator(0)).shape == (samples + 1, batch, dim)
