"""What the tests of the ground floors share: comparisons with stated tolerances, and the cases they run on.

A density case pairs a class of the library with the torch.distributions object that must agree with it. A model case
is an exact model, data, and an approximate posterior that is not the exact one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributions as td

from vae_lib.densities import Bernoulli, Binomial, Categorical, DiagonalNormal, FullNormal, Gamma, StudentT
from vae_lib.exact import DiscreteJoint, GammaPoisson, GaussianMixture, LinearGaussian, NonlinearDecoder
from vae_lib.rng import make_generator

# Two float64 computations of one formula differ by some hundred roundings of 2.2e-16 times the size of the terms. The
# formulas here lose at most four digits to cancellation, which leaves 1e-10. The absolute part is for results that are
# zero because terms of size up to 1e2 cancel.
RTOL, ATOL = 1e-10, 1e-12

# Sizes that are all different, so that a sum over the wrong axis changes a shape or a value.
S, B, L, K = 5, 3, 2, 4


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=make_generator(seed), dtype=torch.float64).to(dtype)


def assert_close(actual: Tensor, expected: Any, rtol: float = RTOL, atol: float = ATOL) -> None:
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=rtol, atol=atol, check_dtype=True
    )


def assert_same_value_and_gradient(
    ours: Callable[..., Tensor],
    oracle: Callable[..., Tensor],
    arguments: tuple[Tensor, ...],
    gradient_atol: float = ATOL,
) -> None:
    """Both functions agree in value and in the gradient with respect to every argument."""
    results = []
    for function in (ours, oracle):
        leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
        value = function(*leaves)
        # Unequal cotangents: a gradient that lands in the wrong place cannot cancel.
        cotangent = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
        results.append((value.detach(), torch.autograd.grad((value * cotangent).sum(), leaves)))
    (value, gradients), (expected, expected_gradients) = results
    assert_close(value, expected)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert_close(gradient, expected_gradient, atol=gradient_atol)


def assert_mean(samples: Tensor, expected: Any, ceiling: float) -> None:
    """The mean over the first axis is within 5 standard errors, and these are below a ceiling.

    Five standard errors are passed by chance once in two million; the ceiling keeps a large error bar from hiding a
    bias. Rounding is the floor for samples that do not vary.
    """
    samples = samples.detach()
    expected = torch.as_tensor(expected, dtype=samples.dtype)
    assert samples.shape[1:] == expected.shape
    error = samples.std(0) / samples.shape[0] ** 0.5
    assert float(error.max()) <= ceiling
    worst = ((samples.mean(0) - expected).abs() - 5.0 * error).max()
    assert float(worst) <= 1e-12 * (1.0 + float(expected.abs().max()))


class DensityCase(NamedTuple):
    ours: Callable[..., Any]
    oracle: Callable[..., td.Distribution]
    parameters: tuple[Tensor, ...]

    def density(self, dtype: torch.dtype = torch.float64) -> Any:
        return self.ours(*(parameter.to(dtype) for parameter in self.parameters))

    def values(self, count: int = S) -> Tensor:
        """Draws of the oracle, ``(S, B, L)``, in the library's coding."""
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return self.oracle(*self.parameters).sample((count,)).to(torch.float64)


def _independent(distribution: td.Distribution) -> td.Distribution:
    return td.Independent(distribution, 1)


_TRIL = randn(B, L, L, seed=3).tril(-1) + torch.diag_embed(randn(B, L, seed=4).exp())

DENSITIES: dict[str, DensityCase] = {
    "DiagonalNormal": DensityCase(
        DiagonalNormal,
        lambda mu, logvar: _independent(td.Normal(mu, torch.exp(logvar / 2))),
        (randn(B, L, seed=1), randn(B, L, seed=2)),
    ),
    "FullNormal": DensityCase(
        lambda mu, tril: FullNormal(mu, tril.tril()),
        lambda mu, tril: td.MultivariateNormal(mu, scale_tril=tril.tril()),
        (randn(B, L, seed=1), _TRIL),
    ),
    "StudentT": DensityCase(
        StudentT,
        lambda mu, log_scale, df: _independent(td.StudentT(df, mu, torch.exp(log_scale))),
        (randn(B, L, seed=1), randn(B, L, seed=2), 9.0 + 3.0 * randn(B, L, seed=5).exp()),
    ),
    "Gamma": DensityCase(
        Gamma,
        lambda a, b: _independent(td.Gamma(a, b)),
        (1.0 + randn(B, L, seed=1).exp(), randn(B, L, seed=2).exp()),
    ),
    "Bernoulli": DensityCase(Bernoulli, lambda a: _independent(td.Bernoulli(logits=a)), (randn(B, L, seed=1),)),
    "Binomial": DensityCase(
        lambda a: Binomial(a, 16),
        lambda a: _independent(td.Binomial(16, logits=a)),
        (randn(B, L, seed=1),),
    ),
    "Categorical": DensityCase(
        Categorical, lambda a: _independent(td.Categorical(logits=a)), (randn(B, L, K, seed=1),)
    ),
}
CONTINUOUS = ("DiagonalNormal", "FullNormal", "StudentT", "Gamma")
DISCRETE = ("Bernoulli", "Binomial", "Categorical")


class ModelCase(NamedTuple):
    model: Any
    x: Tensor
    q: Any


def curve(z: Tensor) -> Tensor:
    """A bent curve in the plane whose posterior can have two modes."""
    return torch.cat([torch.sin(2.0 * z), 0.5 * z**2], -1)


def _linear_gaussian(dtype: torch.dtype) -> ModelCase:
    weight, bias, logvar = randn(4, 2, seed=1), randn(4, seed=2), 0.5 * randn(4, seed=3)
    model = LinearGaussian(weight.to(dtype), bias.to(dtype), logvar.to(dtype))
    x = 1.5 * randn(3, 4, seed=4)
    # A q near enough to the posterior for weights of finite variance: its mean moved, its factor wider and turned.
    covariance = torch.linalg.inv(torch.eye(2).double() + weight.mT @ torch.diag(torch.exp(-logvar)) @ weight)
    mean = (x - bias) @ torch.diag(torch.exp(-logvar)) @ weight @ covariance
    tril = 1.2 * torch.linalg.cholesky(covariance) + 0.1 * randn(3, 2, 2, seed=5).tril(-1)
    return ModelCase(model, x.to(dtype), FullNormal((mean + 0.2 * randn(3, 2, seed=7)).to(dtype), tril.to(dtype)))


def _gaussian_mixture(dtype: torch.dtype) -> ModelCase:
    model = GaussianMixture(
        randn(4, seed=1, dtype=dtype), 1.5 * randn(4, 2, seed=2, dtype=dtype), 0.5 * randn(4, 2, seed=3, dtype=dtype)
    )
    return ModelCase(model, randn(3, 2, seed=4, dtype=dtype), Categorical(randn(3, 1, 4, seed=5, dtype=dtype)))


def _discrete_joint(dtype: torch.dtype) -> ModelCase:
    model = DiscreteJoint(randn(4, seed=1, dtype=dtype), randn(4, 5, seed=2, dtype=dtype))
    return ModelCase(
        model, torch.tensor([[0.0], [2.0], [4.0]], dtype=dtype), Categorical(randn(3, 1, 4, seed=3, dtype=dtype))
    )


def _gamma_poisson(dtype: torch.dtype) -> ModelCase:
    model = GammaPoisson(torch.tensor(2.5, dtype=dtype), torch.tensor(0.7, dtype=dtype), 3)
    x = torch.tensor([[0.0, 0.0, 1.0], [2.0, 3.0, 5.0], [9.0, 4.0, 7.0]], dtype=dtype)
    q = Gamma(torch.tensor([[2.0], [9.0], [20.0]], dtype=dtype), torch.tensor([[3.0], [2.5], [4.0]], dtype=dtype))
    return ModelCase(model, x, q)


def _nonlinear_decoder(dtype: torch.dtype) -> ModelCase:
    model = NonlinearDecoder(curve, torch.tensor(-1.0, dtype=dtype), 2)
    x = torch.tensor([[0.3, 0.5], [-0.9, 0.6], [0.9, 0.4]], dtype=dtype)
    q = DiagonalNormal(
        torch.tensor([[0.2], [-0.8], [0.7]], dtype=dtype), torch.tensor([[-1.0], [-0.5], [-0.7]], dtype=dtype)
    )
    return ModelCase(model, x, q)


MODELS: dict[str, Callable[[torch.dtype], ModelCase]] = {
    "LinearGaussian": _linear_gaussian,
    "GaussianMixture": _gaussian_mixture,
    "DiscreteJoint": _discrete_joint,
    "GammaPoisson": _gamma_poisson,
    "NonlinearDecoder": _nonlinear_decoder,
}


def model_case(name: str, dtype: torch.dtype = torch.float64) -> ModelCase:
    return MODELS[name](dtype)
