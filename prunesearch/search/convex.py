"""Widths in one shot from the importance of layers: ITPruner's programme, a geometric one, and a projection.

Let x be the kept fraction of each group and F(x) = [1, x] A [1, x] its cost, A non-negative (`Space.quadratic`). The
weight of a layer is `exp(-strength * (s / mean(s) - 1))`, s its summed similarity (normalised HSIC) with the others:
what is similar to the others is redundant. The weight alpha of a group is the sum over the layers that read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cvxpy as cp
import numpy as np

from prunesearch.budget import BudgetOrSet, FeasibleSet, as_structures
from prunesearch.errors import PruneSearchError
from prunesearch.ranges import number
from prunesearch.search.proposals import BatchSearcher
from prunesearch.structure import FloatArray, Space, Structure

Form = Literal["log", "linear", "gradient"]
FORMS: tuple[Form, ...] = ("log", "linear", "gradient")
_ROUNDS = 50
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Allocation:
    """What a programme answers.

    Attributes:
        keep: (g,) kept fractions, within the budget.
        objective: Its value; what it means depends on the programme.
        bound: No point within the budget has a higher objective; None where there is no objective.
    """

    keep: FloatArray
    objective: float
    bound: float | None


class ConvexSearcher(BatchSearcher):
    """Proposes the structure of a programme over kept fractions, one per strength of the importance.

    - `"log"` (ours): maximise sum(alpha log x), a geometric programme, convex in log x and solved to its optimum. It
      gives each group a share of the cost in proportion to its weight, and never closes one.
    - `"linear"`: ITPruner's published objective, sum(alpha x). Its feasible set is not convex, although the paper calls
      it so: a convex-concave procedure from three starts finds a local optimum, and a linear relaxation bounds what
      could be missed. Most widths end at a limit, which is why there must be a lower one.
    - `"gradient"`: without any importance, minimum-norm steps along the gradient of the cost until the budget is met.
      This is what the widths released with ITPruner turn out to be, because its solver stops at the first feasible
      point.

    Source: Zheng et al., An information theory-inspired strategy for automatic network pruning, arXiv:2108.08532, and
    the authors' code. Departs from it: importance is relative to its mean, so that one strength suits networks of any
    depth; a group has the sum of the weights of its readers, where theirs has one weight per width, so that even at
    strength 0 a residual stream counts as often as it is read; rounding is to allowed widths, and what is left of the
    budget used. A released beta over L compared layers is a strength of beta / L: 17 to 27 for VGG-16, MobileNetV1 and
    the ResNets for CIFAR-10, 54 for ResNet-50, and 250 for MobileNetV2, where a similarity that is lower by a hundredth
    of the mean makes a layer 12 times as important.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Not used; every searcher takes one.
        similarity: Per group, (layers that read it,) summed similarity of each with the other layers.
        form: Which programme.
        strengths: One proposal each; the first is the answer, the others are variants for the evaluator to choose from.

    Raises:
        InfeasibleBudget: No structure meets the budget.
        ValueError: Unknown form, similarities that do not belong to the space, or no strength or an infinite one.
        TypeError: A strength is no number.
    """

    needs = ("similarity",)

    def __init__(
        self,
        space: Space,
        budget: BudgetOrSet,
        *,
        seed: int = 0,
        similarity: Sequence[FloatArray],
        form: Form = "log",
        strengths: Sequence[float] = (1.0, 0.0, 2.0, 4.0, 0.5),
    ) -> None:
        super().__init__(space, budget, seed=seed)
        self._similarity = [np.asarray(values, dtype=np.float64) for values in similarity]
        if form not in FORMS:
            raise ValueError(f"Unknown form {form!r}; there are {', '.join(FORMS)}.")
        if len(self._similarity) != len(space.groups) or not all(
            (np.isfinite(values) & (values >= 0)).all() for values in self._similarity
        ):
            raise ValueError(
                f"Expected finite similarities of at least 0 for each of {len(space.groups)} groups, got "
                f"{[values.tolist() for values in self._similarity]}."
            )
        self._form = form
        self._strengths = tuple(number("a strength", strength, "(-inf, inf)") for strength in strengths)
        if not self._strengths:
            raise ValueError("Expected at least one of the strengths, got none. Say for example [1, 0].")

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put all of them into the queue, once."""
        if not self.space.groups:
            self.queue.put([self.space.full])
        elif batch == 0:
            self.queue.put(rounded(self.feasible, allocation.keep) for allocation in self.allocations())

    def allocations(self) -> list[Allocation]:
        """Solve the programme at each strength.

        Raises:
            PruneSearchError: The solver found no optimum; the message has its status.
        """
        if self._form == "gradient":
            return [project_along_gradient(self.feasible)]
        solve = maximise_log if self._form == "log" else maximise_linear
        return [solve(self.feasible, self._weights(strength)) for strength in self._strengths]

    def _weights(self, strength: float) -> FloatArray:
        """(g,) weights, as multiples of that of the layer which counts most.

        A group that nothing reads counts as one layer of mean similarity; if none is like any, all are mean.
        """
        mean = np.concatenate([np.ones(0), *self._similarity]).mean()
        relative = [
            values / mean if mean and len(values) else np.ones(max(1, len(values))) for values in self._similarity
        ]
        exponents = [-strength * (values - 1) for values in relative]
        most = max(exponent.max() for exponent in exponents)  # which would overflow
        return np.array([np.exp(exponent - most).sum() for exponent in exponents])


def rounded(feasible: FeasibleSet, keep: FloatArray) -> Structure:
    """The structure of the nearest allowed widths, scaled to the budget."""
    space = feasible.space
    wanted = keep * np.array(space.full)
    nearest = [
        group.widths[int(np.abs(np.array(group.widths) - w).argmin())]
        for group, w in zip(space.groups, wanted, strict=True)
    ]
    return as_structures(feasible.fit([nearest]))[0]


def maximise_log(feasible: FeasibleSet, weights: FloatArray) -> Allocation:
    """Maximise `sum(weights * log x)`: a geometric programme; its optimum is global.

    Raises:
        PruneSearchError: The solver found no optimum.
    """
    lowest = _lowest(feasible.space)
    y = cp.Variable(len(lowest))
    constraints = [y <= 0, y >= np.log(lowest)]
    for cost, limit in _costs(feasible):
        rows, columns = np.nonzero(cost)
        exponents = np.zeros((len(rows), len(cost)))
        np.add.at(exponents, (np.arange(len(rows)), rows), 1.0)
        np.add.at(exponents, (np.arange(len(rows)), columns), 1.0)
        constraints.append(cp.log_sum_exp(exponents[:, 1:] @ y + np.log(cost[rows, columns] / limit)) <= 0)
    value = _solve(cp.Problem(cp.Maximize(weights / weights.sum() @ y), constraints))
    return Allocation(_inside(feasible, np.exp(np.array(y.value))), value, value)


def maximise_linear(feasible: FeasibleSet, weights: FloatArray) -> Allocation:
    """Maximise `sum(weights * x)` locally, from three starts; the bound says how much more there could be.

    Raises:
        PruneSearchError: The solver found no optimum.
    """
    weights = weights / weights.sum()
    starts = [
        project_along_gradient(feasible).keep,
        maximise_log(feasible, weights).keep,
        _inside(feasible, np.ones(len(weights))),
    ]
    found = [_climb(feasible, weights, start) for start in starts]
    best = max(found, key=lambda keep: float(weights @ keep))
    return Allocation(best, float(weights @ best), _relaxed(feasible, weights))


def project_along_gradient(feasible: FeasibleSet) -> Allocation:
    """From x = 1, take minimum-norm steps onto the linearised limits until they hold."""
    lowest = _lowest(feasible.space)
    keep = np.ones(len(lowest))
    for _ in range(_ROUNDS):
        broken = [(cost, limit) for cost, limit in _costs(feasible) if _cost(cost, keep) > limit * (1 + _TOLERANCE)]
        if not broken:
            break
        x = cp.Variable(len(lowest))
        linear = [_cost(cost, keep) / limit + _gradient(cost, keep) / limit @ (x - keep) <= 1 for cost, limit in broken]
        _solve(cp.Problem(cp.Minimize(cp.sum(cp.square(x - keep))), [*linear, x >= lowest, x <= 1]))
        keep = np.clip(np.array(x.value), lowest, 1.0)
    keep = _inside(feasible, keep)
    return Allocation(keep, float(keep.sum()), None)


def _climb(feasible: FeasibleSet, weights: FloatArray, start: FloatArray) -> FloatArray:
    """Convex-concave procedure: the concave part of each limit gives way to its tangent, which is never less strict.

    Source: Yuille and Rangarajan, The concave-convex procedure, 2003. Every iterate meets the limits, none is worse.
    """
    keep, lowest = start, _lowest(feasible.space)
    parts = []
    for cost, limit in _costs(feasible):
        values, vectors = np.linalg.eigh(cost[1:, 1:] / limit)
        convex = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        concave = (vectors * np.maximum(-values, 0)) @ vectors.T
        parts.append((cost[0, 0] / limit, 2 * cost[0, 1:] / limit, convex, concave))
    for _ in range(_ROUNDS):
        x = cp.Variable(len(keep))
        limits = [
            constant + linear @ x + cp.sum(cp.square(convex @ x)) - 2 * (concave @ keep) @ x + keep @ concave @ keep
            <= 1
            for constant, linear, convex, concave in parts
        ]
        _solve(cp.Problem(cp.Maximize(weights @ x), [*limits, x >= lowest, x <= 1]))
        moved = _inside(feasible, np.array(x.value))
        if weights @ moved <= weights @ keep + _TOLERANCE:
            return keep
        keep = moved
    return keep


def _relaxed(feasible: FeasibleSet, weights: FloatArray) -> float:
    """Upper bound of the linear objective: each product of two fractions is replaced by its convex envelope.

    Source: McCormick, Computability of global solutions to factorable nonconvex programs, 1976.
    """
    lowest = _lowest(feasible.space)
    x = cp.Variable(len(weights))
    constraints = [x >= lowest, x <= 1]
    for cost, limit in _costs(feasible):
        rows, columns = np.nonzero(cost[1:, 1:])
        if len(rows) == 0:  # a linear cost
            constraints.append(cost[0, 0] / limit + 2 * cost[0, 1:] / limit @ x <= 1)
            continue
        coefficients = cost[1:, 1:][rows, columns] / limit
        product = cp.Variable(len(rows))
        low_row, low_column = lowest[rows], lowest[columns]
        constraints += [
            product >= np.diag(low_column) @ x[rows] + np.diag(low_row) @ x[columns] - low_row * low_column,
            product >= x[rows] + x[columns] - 1,
            cost[0, 0] / limit + 2 * cost[0, 1:] / limit @ x + coefficients @ product <= 1,
        ]
    return _solve(cp.Problem(cp.Maximize(weights @ x), constraints))


def _solve(problem: cp.Problem) -> float:
    try:
        problem.solve(solver=cp.CLARABEL)
    except cp.SolverError as error:
        raise PruneSearchError(f"The convex programme could not be solved: {error}") from error
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise PruneSearchError(
            f"Expected the convex programme to be solved to its optimum, got status {problem.status!r}. Try another "
            'form, such as form="gradient".'
        )
    return float(problem.value)


def _inside(feasible: FeasibleSet, keep: FloatArray) -> FloatArray:
    """Move a point back along the line to the lowest one until every limit holds: solvers stop just outside."""
    lowest = _lowest(feasible.space)
    keep = np.clip(keep, lowest, 1.0)
    low, high = 0.0, 1.0
    if all(_cost(cost, keep) <= limit for cost, limit in _costs(feasible)):
        return keep
    for _ in range(_ROUNDS):  # every cost rises along the line
        middle = (low + high) / 2
        point = lowest + middle * (keep - lowest)
        holds = all(_cost(cost, point) <= limit for cost, limit in _costs(feasible))
        low, high = (middle, high) if holds else (low, middle)
    return lowest + low * (keep - lowest)


def _costs(feasible: FeasibleSet) -> list[tuple[FloatArray, float]]:
    """Pairs (symmetric matrix of the cost, limit)."""
    found = [(feasible.quadratic(resource), limit) for resource, limit in feasible.limits]
    return [((cost + cost.T) / 2, limit) for cost, limit in found]


def _cost(cost: FloatArray, keep: FloatArray) -> float:
    u = np.concatenate([[1.0], keep])
    return float(u @ cost @ u)


def _gradient(cost: FloatArray, keep: FloatArray) -> FloatArray:
    return 2 * (cost @ np.concatenate([[1.0], keep]))[1:]


def _lowest(space: Space) -> FloatArray:
    return np.array(space.minimum) / np.array(space.full)
