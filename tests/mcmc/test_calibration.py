r"""Simulation-based calibration: among draws of the posterior, the z that made the datum has any rank equally often.

Draw :math:`z_0 \sim p(z)` and :math:`x \sim p(x \mid z_0)`; then :math:`z_0` is one more draw of :math:`p(z \mid x)`
beside those of the chains (Cook, Gelman and Rubin, 2006; Talts et al., 2018). This looks at the whole posterior, over
all data that the model makes, and needs no formula for it. Ranks of z alone are blind to chains that stay in the prior,
where they begin: their draws and :math:`z_0` are alike. Ranks of log p(x, z), which know the datum, are not.
"""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import Tensor

from tests.mcmc.targets import DOUBLE
from tests.oracles import model_case
from vae_lib.bounds import log_joint
from vae_lib.mcmc import hmc
from vae_lib.rng import make_generator

DATA, CHAINS = 4000, 19
# A chi-squared statistic of 20 equally likely ranks passes this by chance as often as a mean is 5 standard errors off.
BOUND = float(scipy.stats.chi2.isf(2.0 * scipy.stats.norm.sf(5.0), CHAINS))


def ranks(name: str, *, step_size: float, transitions: int = 30) -> Tensor:
    """Ranks of each coordinate of z_0, and of log p(x, z_0), ``(DATA, L + 1)``, from 0 to CHAINS."""
    model = model_case(name).model
    generator = make_generator(21)
    truth = model.prior(DATA).sample(1, generator=generator)
    x = model.sample_x_given_z(truth, generator=generator)[0]
    result = hmc(
        lambda z: log_joint(model, x, z),
        model.prior(DATA).sample(CHAINS, generator=generator),  # which knows nothing of z_0
        step_size=step_size,
        num_leapfrog=5,
        num_transitions=transitions,
        jitter=0.2,
        generator=generator,
    )
    drawn = torch.cat([result.z, result.log_density.unsqueeze(-1)], -1)
    expected = torch.cat([truth, log_joint(model, x, truth).unsqueeze(-1)], -1)
    return (drawn < expected).sum(0)


def statistic(rank: Tensor) -> float:
    counts = torch.bincount(rank, minlength=CHAINS + 1).to(DOUBLE)
    mean = DATA / (CHAINS + 1)
    return float(((counts - mean) ** 2 / mean).sum())


@pytest.mark.parametrize(
    ("name", "step_size"), [("LinearGaussian", 0.5), ("NonlinearDecoder", 0.3), ("GammaPoisson", 0.15)]
)
def test_the_truth_has_any_rank(name: str, step_size: float) -> None:
    for rank in ranks(name, step_size=step_size).unbind(-1):
        assert statistic(rank) < BOUND


def test_chains_that_have_not_arrived_are_seen() -> None:
    """After one short transition they still are draws of the prior, where log p(x, z) is lower than at z_0."""
    assert statistic(ranks("LinearGaussian", step_size=0.01, transitions=1)[:, -1]) > 2.0 * BOUND
