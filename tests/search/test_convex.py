"""The programmes against brute force and another solver."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from prunesearch.budget import Budget, FeasibleSet
from prunesearch.evaluators import gather
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from prunesearch.search.convex import ConvexSearcher, maximise_linear, maximise_log, project_along_gradient
from prunesearch.structure import FloatArray
from prunesearch.tasks.classify import labelled
from tests.toys import chain_space

SPACE = chain_space((16, 24, 32), 16)
FEASIBLE = Budget(macs="40%").check(SPACE)
WEIGHTS = np.array([0.5, 0.3, 0.2])


def alone(*similarities: float) -> list[FloatArray]:
    """Similarities of groups that one layer each reads."""
    return [np.array([value]) for value in similarities]


def usage(feasible: FeasibleSet, keep: FloatArray) -> float:
    u = np.array([1.0, *keep])
    return max(float(u @ feasible.space.quadratic(resource) @ u) / limit for resource, limit in feasible.limits)


def grid(feasible: FeasibleSet, steps: int = 60) -> FloatArray:
    """Every point of a grid over the fractions that is within the budget."""
    lowest = np.array(feasible.space.minimum) / np.array(feasible.space.full)
    points = np.array(list(itertools.product(*(np.linspace(low, 1, steps) for low in lowest))))
    u = np.concatenate([np.ones((len(points), 1)), points], axis=1)
    costs = [((u @ feasible.space.quadratic(resource)) * u).sum(1) / limit for resource, limit in feasible.limits]
    return points[np.max(costs, axis=0) <= 1]


def test_the_quadratic_form_is_the_cost() -> None:
    for structure in ((16, 24, 32), (4, 9, 20), (1, 1, 2)):
        u = np.array([1.0, *(np.array(structure) / np.array(SPACE.full))])
        for resource in ("macs", "params"):
            exact = getattr(SPACE, resource)([structure])[0]
            assert u @ SPACE.quadratic(resource) @ u == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    "budget", [Budget(macs="40%"), Budget(params="30%"), Budget(macs="50%", params="30%")], ids=str
)
def test_the_geometric_programme_is_solved_to_its_optimum(budget: Budget) -> None:
    feasible = budget.check(SPACE)
    found = maximise_log(feasible, WEIGHTS)
    assert usage(feasible, found.keep) <= 1
    best = float((np.log(grid(feasible)) @ WEIGHTS).max())
    assert best - 1e-6 <= found.objective <= best + 0.05  # half a step of the grid in each of three logarithms


def test_at_its_optimum_each_group_has_the_share_of_the_cost_that_its_weight_says() -> None:
    """The optimality condition of the programme: x dF/dx is proportional to the weights where no limit is reached."""
    keep = maximise_log(Budget(macs="15%").check(SPACE), np.array([0.3, 0.33, 0.37])).keep
    assert (keep < 0.999).all()
    assert (keep > np.array(SPACE.minimum) / np.array(SPACE.full) + 1e-3).all()
    cost = SPACE.quadratic("macs")
    marginal = keep * ((cost + cost.T) @ np.array([1.0, *keep]))[1:]
    assert marginal / marginal.sum() == pytest.approx([0.3, 0.33, 0.37], abs=1e-3)


def test_the_published_objective_is_solved_as_well_as_a_grid_can_and_its_bound_holds() -> None:
    for weights in (WEIGHTS, np.array([0.1, 0.1, 0.8]), np.ones(3) / 3):
        found = maximise_linear(FEASIBLE, weights)
        assert usage(FEASIBLE, found.keep) <= 1
        assert found.objective == pytest.approx(float(weights @ found.keep))
        assert found.bound is not None
        assert found.objective <= found.bound + 1e-6
        assert found.objective >= float((grid(FEASIBLE) @ weights).max()) - 1e-6


def test_the_published_objective_has_its_solution_at_limits() -> None:
    """What makes it useless without a lower bound: all widths but one are as narrow or as wide as they may be."""
    keep = maximise_linear(FEASIBLE, np.array([0.1, 0.1, 0.8])).keep
    lowest = np.array(SPACE.minimum) / np.array(SPACE.full)
    assert (np.isclose(keep, lowest, atol=1e-3) | np.isclose(keep, 1, atol=1e-3)).sum() >= 2


def test_the_projection_is_where_slsqp_ends_without_any_objective() -> None:
    """The solver that the authors use, from all ones, with the importance taken away."""
    cost = SPACE.quadratic("macs")
    limit = FEASIBLE.limits[0][1]

    def slack(keep: FloatArray) -> float:
        u = np.array([1.0, *keep])
        return 1 - float(u @ cost @ u) / limit

    solved = minimize(
        lambda keep: 0.0 * keep.sum(),
        np.ones(3),
        jac=np.zeros_like,
        bounds=[(low / full, 1) for low, full in zip(SPACE.minimum, SPACE.full, strict=True)],
        constraints={"type": "ineq", "fun": slack},
        method="SLSQP",
    )
    assert project_along_gradient(FEASIBLE).keep == pytest.approx(solved.x, abs=2e-3)


def test_similar_layers_are_kept_narrower() -> None:
    alike = maximise_log(FEASIBLE, np.ones(3)).keep
    searcher = ConvexSearcher(SPACE, Budget(macs="40%"), similarity=alone(1.0, 2.0, 1.0), strengths=(1.0,))
    assert searcher.allocations()[0].keep[1] < alike[1]


def test_a_group_counts_as_often_as_layers_read_it() -> None:
    once = ConvexSearcher(SPACE, Budget(macs="40%"), similarity=alone(1.0, 1.0, 1.0)).allocations()[0].keep
    often = [np.ones(1), np.ones(5), np.ones(1)]
    assert ConvexSearcher(SPACE, Budget(macs="40%"), similarity=often).allocations()[0].keep[1] > once[1]


@pytest.mark.parametrize("form", ["log", "linear", "gradient"])
def test_networks_of_one_group_and_those_with_a_dead_layer_are_answered(form: str) -> None:
    one = nn.Sequential(nn.Conv2d(2, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1))
    dead = nn.Sequential(nn.Conv2d(2, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1))
    with torch.no_grad():
        dead[2].weight.zero_()  # type: ignore[union-attr, operator]
    images = torch.randn(8, 2, 4, 4)
    for model in (one, dead):
        network = trace(model.eval(), images[:2])
        weights = InheritedWeights(network, L1Criterion().rank(network))
        evaluator = AccuracyEvaluator(weights, labelled(images, torch.zeros(8, dtype=torch.long)))
        similar = gather("similarity", weights, evaluator, images)
        assert 0 in np.concatenate(similar)
        budget = Budget(macs="50%")
        proposed = ConvexSearcher(network.space, budget, similarity=similar, form=form).ask(9)  # type: ignore[arg-type]
        assert budget.check(network).contains(proposed).all()


def test_where_no_layer_is_like_any_all_count_alike() -> None:
    none = ConvexSearcher(SPACE, Budget(macs="40%"), similarity=alone(0.0, 0.0, 0.0)).allocations()[0].keep
    assert none == pytest.approx(maximise_log(FEASIBLE, np.ones(3)).keep)


@pytest.mark.parametrize("strength", [1.0, 250.0, 2000.0, 1e6])
def test_the_order_of_layers_is_that_of_their_similarity_at_any_strength(strength: float) -> None:
    """At some of these the weight of the first is more than a float can say, or that of the last less."""
    space = chain_space((16, 16, 16, 16), 16)
    budget = Budget(macs="40%")
    searcher = ConvexSearcher(space, budget, similarity=alone(0.1, 0.4, 0.4, 1.5), strengths=(strength,))
    keep = searcher.allocations()[0].keep
    assert keep[0] == pytest.approx(1.0, abs=1e-3)
    assert keep[0] > keep[3]


def test_a_group_that_nothing_reads_counts_as_a_mean_layer() -> None:
    options: list[list[FloatArray]] = [[*alone(1.0, 3.0), np.zeros(0)], alone(1.0, 3.0, 2.0)]
    one, other = (ConvexSearcher(SPACE, Budget(macs="40%"), similarity=of).allocations()[0].keep for of in options)
    assert one == pytest.approx(other)


class Products:
    """A resource of somebody else's, without a formula: what each width costs grows with the one before it."""

    name, unit, is_count = "products", "units", False

    def meter(self, subject: object) -> Products:
        return self

    def costs(self, structures: npt.ArrayLike) -> FloatArray:
        widths = np.asarray(structures, dtype=np.float64)
        return (widths[:, :-1] * widths[:, 1:]).sum(axis=1)


@pytest.mark.parametrize("form", ["log", "linear", "gradient"])
@pytest.mark.parametrize("times", [1.0, 1.5, 2.1, 10.0])
def test_what_can_be_met_of_a_resource_without_a_formula_is_answered(form: str, times: float) -> None:
    least = float(Products().costs([SPACE.minimum])[0])
    budget = Budget(products=times * least, resources=[Products()])
    proposed = ConvexSearcher(SPACE, budget, similarity=alone(1.0, 2.0, 1.5), form=form).ask(9)  # type: ignore[arg-type]
    assert proposed
    assert budget.check(SPACE).contains(proposed).all()


def test_each_form_proposes_once_and_is_finished() -> None:
    for form, n in (("log", 3), ("linear", 3), ("gradient", 1)):
        searcher = ConvexSearcher(
            SPACE,
            Budget(macs="40%"),
            similarity=alone(1.0, 2.0, 3.0),
            form=form,
            strengths=(2.0, 0.0, 8.0),  # type: ignore[arg-type]
        )
        assert 1 <= len(searcher.ask(10)) <= n
        assert searcher.ask(10) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"similarity": alone(1.0, 1.0, 1.0), "form": "quadratic"},
            "Unknown form 'quadratic'; there are log, linear, gradient",
        ),
        ({"similarity": alone(1.0, 1.0)}, "each of 3 groups"),
        ({"similarity": alone(1.0, -1.0, 1.0)}, "finite similarities of at least 0"),
        ({"similarity": alone(1.0, np.inf, 1.0)}, "finite similarities of at least 0"),
        ({"similarity": alone(1.0, np.nan, 1.0)}, "finite similarities of at least 0"),
        ({"similarity": alone(1.0, 1.0, 1.0), "strengths": (1.0, np.nan)}, "Expected a strength"),
        ({"similarity": alone(1.0, 1.0, 1.0), "strengths": ()}, "at least one of the strengths"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvexSearcher(SPACE, Budget(macs="40%"), **options)  # type: ignore[arg-type]
