"""A bound that changes from step to step: asked once a step, by the step's number, after a resume too."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.learning.runs import contents, grey_images, interrupt, metrics, same_bits, small_run, small_vae, weights
from vae_lib.bounds import elbo_with_analytic_kl
from vae_lib.divergences import kl
from vae_lib.learning import TrainingInterrupted
from vae_lib.learning.average_bound import AverageBound, Bound, ScheduledBound
from vae_lib.learning.compiled import CompiledBound
from vae_lib.learning.distributed import World
from vae_lib.protocols import Density, LatentVariableModel
from vae_lib.rng import make_generator


@dataclass
class Growing:
    """The KL counts as many tenths as steps were taken."""

    stop_at: int = -1
    asked: list[int] = field(default_factory=list)

    def at_step(self, step: int) -> Bound:
        self.asked.append(step)
        if step == self.stop_at:
            interrupt()

        def bound(model: LatentVariableModel, q: Density, x: Tensor, z: Tensor) -> Tensor:
            return model.log_p_x_given_z(x, z) - step / 10 * kl(q, model.prior(len(x)))

        return bound


def test_each_step_has_the_bound_of_its_number() -> None:
    bound = Growing()
    small_run(bound=bound)
    assert bound.asked == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("step", [0, 10])
def test_its_value_is_that_of_the_step(step: int) -> None:
    """After ten steps it is the ELBO; before the first the KL does not count. The same operations: the same bits."""
    vae = small_vae()
    x = grey_images().read_all(dtype=torch.float64, generator=make_generator(1))
    module = AverageBound(vae, None, Growing(), 2, World())
    if step:
        module.step = step
    q = vae(x)
    z = q.rsample(2, generator=make_generator(3))
    expected = elbo_with_analytic_kl(vae, q, x, z) if step else vae.log_p_x_given_z(x, z)
    assert torch.equal(module(x, make_generator(3)), expected.mean())


@pytest.mark.parametrize("step", [1, 4])
def test_stopped_and_resumed_is_never_stopped(tmp_path: Path, step: int) -> None:
    whole = small_run(tmp_path / "whole", bound=Growing())
    with pytest.raises(TrainingInterrupted, match=f"^training stopped after step {step} of 6; "):
        small_run(tmp_path / "part", bound=Growing(stop_at=step - 1), checkpoint_seconds=1e9)
    later = Growing(stop_at=step - 1)
    resumed = small_run(tmp_path / "part", bound=later, resume=True)
    assert later.asked == list(range(step, 6))
    assert same_bits(weights(resumed), weights(whole))
    assert metrics(tmp_path / "part") == metrics(tmp_path / "whole")
    assert contents(tmp_path / "part").keys() == contents(tmp_path / "whole").keys()


def test_it_is_no_function_of_draws_and_is_not_compiled() -> None:
    assert isinstance(Growing(), ScheduledBound)
    assert not isinstance(elbo_with_analytic_kl, ScheduledBound)
    module = AverageBound(small_vae(), None, Growing(), 1, World())
    assert not module.is_function_of_draws
    with pytest.raises(TypeError, match=r"^compiled: expected a bound that is a function of draws from q, found ano"):
        CompiledBound(module, torch.device("cpu"))
