"""One suite for every exact model: protocol, shapes, types, generators, draws that follow the joint, refusals."""

from __future__ import annotations

import re

import pytest
import torch

from tests.oracles import MODELS, assert_close, assert_mean, model_case
from vae_lib.bounds import elbo, log_joint, log_weights
from vae_lib.exact.quadrature import Interval
from vae_lib.protocols import ApproximatePosterior, Density, EnumerableModel, ExactModel, LatentVariableModel
from vae_lib.rng import make_generator

each_model = pytest.mark.parametrize("name", MODELS)
each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


@each_model
def test_it_meets_the_protocols(name: str) -> None:
    case = model_case(name)
    assert isinstance(case.model, LatentVariableModel)
    assert isinstance(case.model, ExactModel)
    assert isinstance(case.model, EnumerableModel) == (name in ("GaussianMixture", "DiscreteJoint"))
    assert isinstance(case.model.posterior, ApproximatePosterior)
    assert isinstance(case.model.posterior(case.x), Density)
    assert isinstance(case.model.prior(2), Density)


@each_model
@each_dtype
def test_shapes_and_types(name: str, dtype: torch.dtype) -> None:
    model, x, q = model_case(name, dtype)
    batch, data_dim, latent_dim = x.shape[0], model.data_dim, model.latent_dim
    assert x.shape == (batch, data_dim)
    prior, posterior = model.prior(batch), model.posterior(x)
    for density in (prior, posterior, q):
        assert (density.batch_size, density.event_dim) == (batch, latent_dim)
        z = density.sample(5, generator=make_generator(0))
        assert (z.shape, z.dtype, z.requires_grad) == ((5, batch, latent_dim), dtype, False)
        assert (density.log_prob(z).shape, density.log_prob(z).dtype) == ((5, batch), dtype)
        for found in (model.log_p_x_given_z(x, z), log_joint(model, x, z), log_weights(model, q, x, z)):
            assert (found.shape, found.dtype) == ((5, batch), dtype)
        draw = model.sample_x_given_z(z, generator=make_generator(0))
        assert (draw.shape, draw.dtype) == ((5, batch, data_dim), dtype)
    for found in (model.log_p_x(x), model.elbo(x, q)):
        assert (found.shape, found.dtype) == ((batch,), dtype)
    assert elbo(model, q, x, num_samples=5, generator=make_generator(0)).dtype == dtype


@each_model
def test_single_precision_agrees_with_double(name: str) -> None:
    single, double = model_case(name, torch.float32), model_case(name)
    # float32 rounds at 6e-8 and the terms reach 1e2: 1e-4 leaves ten for the sums
    for found, expected in (
        (single.model.log_p_x(single.x), double.model.log_p_x(double.x)),
        (single.model.elbo(single.x, single.q), double.model.elbo(double.x, double.q)),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@each_model
def test_each_datum_is_on_its_own(name: str) -> None:
    model, x, _ = model_case(name)
    one_by_one = torch.cat([model.log_p_x(x[i : i + 1]) for i in range(x.shape[0])])
    assert_close(model.log_p_x(x), one_by_one)
    assert_close(model.log_p_x(x.flip(0)), one_by_one.flip(0))


@each_model
def test_the_generator_decides_everything(name: str) -> None:
    model, x, _ = model_case(name)
    for density in (model.prior(3), model.posterior(x)):
        one, same, other = (density.sample(50, generator=make_generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        one, same, other = (model.sample_x_given_z(same, generator=make_generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


@each_model
def test_simulated_data_follow_the_evidence(name: str) -> None:
    """Draw x from the joint, then compare the average log-likelihood ratio against a rival: E_p[r(x)/p(x)] = 1.

    The rival r is the same model's p(x | z) at one fixed z, a normalised density of x. Its ratio to p(x) is bounded or
    has light tails, so an error in the sampler or in the evidence shows as a mean other than 1.
    """
    model, _, _ = model_case(name)
    count = 2000 if name == "NonlinearDecoder" else 20_000
    if name == "NonlinearDecoder":
        model.interval = Interval(-12.0, 12.0, 40)  # enough for this curve, and a sixth of the work
    z = model.prior(count).sample(1, generator=make_generator(3))
    x = model.sample_x_given_z(z, generator=make_generator(4))[0]
    fixed = model.prior(1).sample(1, generator=make_generator(5)).expand(1, count, -1)
    ratio = (model.log_p_x_given_z(x, fixed)[0] - model.log_p_x(x)).exp()
    assert_mean(ratio, torch.tensor(1.0), ceiling=3.0 / count**0.5)


@each_model
def test_simulated_latents_follow_the_posterior(name: str) -> None:
    """Simulation-based calibration in moments: E[z - E[z|x]] = 0 and E[(z - E[z|x])² - Var[z|x]] = 0 over the joint."""
    model, _, _ = model_case(name)
    count = 200 if name == "NonlinearDecoder" else 5000
    z = model.prior(count).sample(1, generator=make_generator(6))
    x = model.sample_x_given_z(z, generator=make_generator(7))[0]
    draws = model.posterior(x).sample(200, generator=make_generator(8))
    centred = z[0] - draws.mean(0)
    scale = draws.std()
    assert_mean(centred / scale, torch.zeros(model.latent_dim), ceiling=1.5 / count**0.5)
    # The mean of 200 draws adds its own variance, 1/200 of the posterior's.
    assert_mean(
        (centred**2 - draws.var(0) * (1.0 + 1.0 / 200)) / scale**2,
        torch.zeros(model.latent_dim),
        ceiling=4.0 / count**0.5,
    )


@each_model
@pytest.mark.parametrize("method", ["log_p_x", "posterior", "log_p_x_given_z"])
def test_data_of_another_shape_or_type_are_refused(name: str, method: str) -> None:
    model, x, q = model_case(name)
    z = q.sample(2, generator=make_generator(0))
    arguments = (z,) if method == "log_p_x_given_z" else ()
    call = getattr(model, method)
    dim = x.shape[1]
    for bad in (x[0], torch.ones(3, dim + 1).double(), x.unsqueeze(0), x[:0]):
        message = f"x: expected shape (B, {dim}), found {tuple(bad.shape)}"
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            call(bad, *arguments)
    with pytest.raises(
        TypeError, match=r"^x: expected torch\.float64 as the tensors it meets have, found torch\.float32$"
    ):
        call(x.float(), *arguments)


@each_model
def test_latents_of_another_shape_or_type_are_refused(name: str) -> None:
    model, x, q = model_case(name)
    z = q.sample(2, generator=make_generator(0))
    batch, dim = z.shape[1:]
    for bad in (z[0], z[:, :1], torch.ones(2, batch, dim + 1).double(), z.unsqueeze(0)):
        message = f"z: expected shape (S, {batch}, {dim}), found {tuple(bad.shape)}"
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            model.log_p_x_given_z(x, bad)
    with pytest.raises(
        TypeError, match=r"^z: expected torch\.float64 as the tensors it meets have, found torch\.float32$"
    ):
        model.log_p_x_given_z(x, z.float())


@each_model
def test_simulation_refuses_latents_of_another_shape(name: str) -> None:
    model, _, q = model_case(name)
    z = q.sample(2, generator=make_generator(0))
    for bad in (z[0], torch.ones(2, 3, model.latent_dim + 1).double()):
        message = f"z: expected shape (S, B, {model.latent_dim}), found {tuple(bad.shape)}"
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            model.sample_x_given_z(bad, generator=make_generator(0))
    with pytest.raises(
        TypeError, match=r"^z: expected torch\.float64 as the tensors it meets have, found torch\.float32$"
    ):
        model.sample_x_given_z(z.float(), generator=make_generator(0))


@each_model
def test_an_elbo_needs_a_q_for_each_datum(name: str) -> None:
    model, x, q = model_case(name)
    with pytest.raises(ValueError, match="expected"):
        model.elbo(x[:2], q)
