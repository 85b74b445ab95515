"""Models whose evidence log p(x) and posterior p(z | x) are known: the yardstick for every estimate in the book."""

from vae_lib.exact.discrete_joint import DiscreteJoint
from vae_lib.exact.gamma_poisson import GammaPoisson
from vae_lib.exact.gaussian_mixture import GaussianMixture
from vae_lib.exact.linear_gaussian import LinearGaussian
from vae_lib.exact.linear_vae import (
    LinearEncoder,
    LinearVAE,
    LinearVAEOptimum,
    WaterFilling,
    linear_vae_optimum,
    maximum_likelihood_variance,
    optimal_linear_vae,
    water_filling,
)
from vae_lib.exact.nonlinear_decoder import NonlinearDecoder
from vae_lib.exact.quadrature import QuadratureError

__all__ = [
    "DiscreteJoint",
    "GammaPoisson",
    "GaussianMixture",
    "LinearEncoder",
    "LinearGaussian",
    "LinearVAE",
    "LinearVAEOptimum",
    "NonlinearDecoder",
    "QuadratureError",
    "WaterFilling",
    "linear_vae_optimum",
    "maximum_likelihood_variance",
    "optimal_linear_vae",
    "water_filling",
]
