"""Unbiasedness without sampling: the mean over every possible draw is the exact gradient to 1e-10."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tests.gradients.elbos import BITS, X4, linear_gaussian_diagonal, linear_gaussian_of
from tests.gradients.problem import DOUBLE, Problem, diagonal
from tests.gradients.problems import PROBLEMS
from tests.gradients.rules import hermite, mean_and_variance, tuples
from tests.oracles import assert_close, randn
from vae_lib.densities import Bernoulli, Categorical
from vae_lib.gradients import (
    Baseline,
    Constant,
    Learned,
    LeaveOneOut,
    MovingAverage,
    Objective,
    OptimalBaseline,
    Params,
    Pathwise,
    RaoBlackwell,
    ScoreFunction,
    expectation,
    sgvb_a,
    sticking_the_landing,
)

LOGITS = {"q": randn(1, 3, seed=121)}
LEVELS = randn(8, seed=122)


def any_function(z: Tensor) -> Tensor:
    """Eight unrelated values, one for each way that three bits can stand."""
    return LEVELS[(z @ torch.tensor([4.0, 2.0, 1.0], dtype=DOUBLE)).long()]


def bits() -> tuple[Objective, dict[str, Tensor], Tensor]:
    """The objective, its exact gradient and the probabilities of the eight values."""
    leaf = LOGITS["q"].clone().requires_grad_()
    probs = Bernoulli(leaf).log_prob(BITS.unsqueeze(1)).exp().squeeze(1)
    (exact,) = torch.autograd.grad((probs * LEVELS).sum(), leaf)
    objective = expectation(lambda p: Bernoulli(p["q"]), any_function)
    return objective, {"q": exact}, probs.detach()


def trained() -> MovingAverage:
    average = MovingAverage(0.9)
    average.value = torch.tensor(0.8, dtype=DOUBLE)
    return average


@pytest.mark.parametrize(
    "baseline", [None, Constant(3.0), Constant(torch.tensor([-2.0], dtype=DOUBLE)), MovingAverage(), trained()]
)
@pytest.mark.parametrize("vectorised", [True, False])
def test_every_draw_of_three_bits(baseline: Baseline | None, vectorised: bool) -> None:
    objective, exact, probs = bits()
    z = BITS.reshape(8, 1, 1, 3)
    gradients = ScoreFunction(baseline).at(objective, LOGITS, z, vectorised=vectorised)
    assert_close(mean_and_variance(gradients, probs)["q"][0], exact["q"])


@pytest.mark.parametrize("count", [2, 3])
def test_every_tuple_of_draws_that_leave_one_out(count: int) -> None:
    objective, exact, probs = bits()
    z, shares = tuples(BITS, probs, count)
    gradients = ScoreFunction(LeaveOneOut()).at(objective, LOGITS, z)
    assert_close(mean_and_variance(gradients, shares)["q"][0], exact["q"])


@pytest.mark.parametrize("count", [2, 3])
def test_a_baseline_that_saw_its_sample_shrinks_the_gradient(count: int) -> None:
    """The mean that includes the draw itself costs exactly the factor 1 - 1/S."""

    class OwnMean(LeaveOneOut):
        def __call__(self, f: Tensor, objective: Objective) -> Tensor:
            return f.mean(0)

    objective, exact, probs = bits()
    z, shares = tuples(BITS, probs, count)
    gradients = ScoreFunction(OwnMean()).at(objective, LOGITS, z)
    assert_close(mean_and_variance(gradients, shares)["q"][0], (1.0 - 1.0 / count) * exact["q"])


def additive() -> tuple[Objective, Tensor]:
    """A sum of one term for each bit and one for each pair, and its exact gradient."""
    alone, pairs = randn(3, seed=123), randn(3, 3, seed=124).triu(1)

    def f(_params: Params, _q: object, z: Tensor) -> Tensor:
        return z @ alone + torch.einsum("sbi,ij,sbj->sb", z, pairs, z)

    def terms(_params: Params, _q: object, z: Tensor) -> Tensor:
        return z * (alone + z @ (pairs + pairs.mT))

    leaf = LOGITS["q"].clone().requires_grad_()
    ones = torch.sigmoid(leaf)
    (exact,) = torch.autograd.grad((ones @ alone + torch.einsum("bi,ij,bj->b", ones, pairs, ones)).sum(), leaf)
    return Objective(lambda p: Bernoulli(p["q"]), f, local_terms=terms), exact


@pytest.mark.parametrize("baseline", [None, Constant(0.4)])
def test_every_draw_by_rao_blackwell(baseline: Baseline | None) -> None:
    objective, exact = additive()
    _, _, probs = bits()
    z = BITS.reshape(8, 1, 1, 3)
    found = mean_and_variance(RaoBlackwell(baseline).at(objective, LOGITS, z), probs)["q"]
    assert_close(found[0], exact)
    if baseline is None:
        plain = mean_and_variance(ScoreFunction().at(objective, LOGITS, z), probs)["q"]
        assert not torch.allclose(found[1], plain[1])


def test_every_pair_by_rao_blackwell_and_leave_one_out() -> None:
    objective, exact = additive()
    _, _, probs = bits()
    z, shares = tuples(BITS, probs, 2)
    gradients = RaoBlackwell(LeaveOneOut()).at(objective, LOGITS, z)
    assert_close(mean_and_variance(gradients, shares)["q"][0], exact)


def test_the_variance_that_rao_blackwell_leaves_out() -> None:
    """For a sum of one term for each bit: Var of f_l s_l alone, against that plus E f_other² Var s_l and more."""
    objective = Objective(
        lambda p: Bernoulli(p["q"]), lambda _p, _q, z: z.sum(-1), local_terms=lambda _p, _q, z: z.clone()
    )
    ones = torch.sigmoid(LOGITS["q"])
    _, _, probs = bits()
    found = mean_and_variance(RaoBlackwell().at(objective, LOGITS, BITS.reshape(8, 1, 1, 3)), probs)["q"]
    # f_l s_l = z (z - p): its mean is p (1 - p), its second moment p (1 - p)².
    assert_close(found[0], ones * (1.0 - ones))
    assert_close(found[1], ones * (1.0 - ones) ** 2 - (ones * (1.0 - ones)) ** 2)


@pytest.mark.parametrize("name", ["discrete joint", "Gaussian mixture"])
@pytest.mark.parametrize("datum", [0, 1, 2])
def test_an_elbo_by_enumeration(name: str, datum: int) -> None:
    """Parameters of q and of the model together; the data one by one, for their draws are independent."""
    whole = PROBLEMS[name]()
    assert whole.objective.x is not None
    params = {**whole.params, "q": whole.params["q"][[datum]]}
    exact = of_one_datum(whole, datum)
    objective = Objective(
        lambda p: Categorical(p["q"].unsqueeze(1)),
        lambda p, q, z: of_all_data(whole, p, z, q, datum),
    )
    z = torch.arange(4, dtype=DOUBLE).reshape(4, 1, 1, 1)
    probs = torch.softmax(params["q"], -1).squeeze(0)
    for baseline in (None, Constant(-3.0)):
        gradients = ScoreFunction(baseline).at(objective, params, z)
        for parameter, (mean, _) in mean_and_variance(gradients, probs).items():
            assert_close(mean, exact[parameter])


def of_all_data(whole: Problem, p: Params, z: Tensor, q: object, datum: int) -> Tensor:
    """The integrand of one datum, taken out of that of three."""
    logits = torch.cat([p["q"] if b == datum else whole.params["q"][[b]] for b in range(3)])
    every = {**p, "q": logits}
    values = whole.objective.integrand(every, whole.objective.family(every), z.expand(-1, 3, -1))
    return values[:, [datum]]


def of_one_datum(whole: Problem, datum: int) -> dict[str, Tensor]:
    leaves = {name: value.clone().requires_grad_() for name, value in whole.params.items()}
    gradients = torch.autograd.grad(whole.exact(leaves)[datum], list(leaves.values()))
    exact = dict(zip(leaves, gradients, strict=True))
    return {**exact, "q": exact["q"][[datum]]}


def nodes_of_pairs() -> tuple[Tensor, Tensor]:
    """Standard normal pairs for one datum, ``(N², 1, 1, 2)``, with weights."""
    nodes, weights = hermite(12)
    pairs = torch.tensor(list(itertools.product(range(12), repeat=2)))
    return nodes[pairs].reshape(-1, 1, 1, 2), weights[pairs].prod(-1)


@pytest.mark.parametrize("name", ["pathwise", "landing", "score", "Rao-Blackwell"])
def test_an_elbo_by_quadrature(name: str) -> None:
    """The linear Gaussian's integrand is a polynomial of the noise, so the rule is exact."""
    whole, x = linear_gaussian_diagonal(), X4[[0]]
    family = whole.objective.family
    params = {key: value[[0]] if key in ("mu", "logvar") else value for key, value in whole.params.items()}
    problem = Problem(
        sgvb_a(linear_gaussian_of, family, x), params, lambda p: linear_gaussian_of(p).elbo(x, diagonal(p)), whole.kinds
    )
    noise, weights = nodes_of_pairs()
    z = params["mu"] + torch.exp(0.5 * params["logvar"]) * noise
    match name:
        case "pathwise":
            gradients = Pathwise().at(problem.objective, params, noise)
        case "landing":
            gradients = sticking_the_landing().at(problem.objective, params, noise)
        case "score":
            gradients = ScoreFunction(Constant(problem.mean())).at(problem.objective, params, z)
        case _:
            gradients = RaoBlackwell(Constant(-4.0)).at(problem.objective, params, z)
    for parameter, exact in problem.gradient().items():
        assert_close(mean_and_variance(gradients, weights)[parameter][0], exact)
    constants = OptimalBaseline().constants(problem.objective, params, z, weights)
    assert all(bool(constant.any()) == (key in ("mu", "logvar")) for key, constant in constants.items())


def test_a_learned_baseline_on_every_pair() -> None:
    """It knows the data, not the draw: still exact, whatever the network says."""
    objective, exact, probs = bits()
    with_x = Objective(objective.family, objective.integrand, x=torch.ones(1, 2, dtype=DOUBLE))
    network = torch.nn.utils.skip_init(torch.nn.Linear, 2, 1, dtype=DOUBLE)
    with torch.no_grad():
        network.weight.fill_(0.7)
        network.bias.fill_(-3.0)
    gradients = ScoreFunction(Learned(network)).at(with_x, LOGITS, BITS.reshape(8, 1, 1, 3))
    assert_close(mean_and_variance(gradients, probs)["q"][0], exact["q"])
