"""Layer after layer, the narrowest width that an accuracy budget still allows, found by bisection."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import numpy as np

from prunesearch.budget import BudgetOrSet
from prunesearch.ranges import number, whole_number
from prunesearch.search.proposals import Told
from prunesearch.search.uniform import uniform_structure, widest
from prunesearch.structure import Space, Structure
from prunesearch.trial import Trial


class BinarySearcher:
    """Bisects one group after the other against a threshold that falls by one step per group; one structure at a time.

    A pass starts from the widest uniform structure within the budget and its score. For each group in the order of the
    network, the threshold falls by `tolerance / groups`, and bisection finds the narrowest width at which the whole
    network, earlier groups at the widths found, still scores as much.

    Source: binary structural search with step constraint, of the authors' code of CaP (pruning by compensation).
    Departs from it where a budget binds: there the groups not yet visited are as wide as the budget allows, not
    unpruned, so every structure scored meets the budget. With `Budget(macs="100%")` they are unpruned, and the first
    pass is the published search for the cheapest network within an accuracy budget: read it off with
    `prunesearch.trial.cheapest`. CaP has no target of cost; its outer loop is ours: each further pass starts from the
    proportions of the best structure so far, in another order of the groups, with half the tolerance.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides the orders of the later passes; the second one is from back to front.
        tolerance: What the first pass may lose, in units of the score.
        passes: How many.

    Raises:
        InfeasibleBudget: No structure meets the budget.
        TypeError: The tolerance is no number, or the passes no whole one.
        ValueError: A tolerance below 0 or infinite, or no pass.
    """

    def __init__(
        self, space: Space, budget: BudgetOrSet, *, seed: int = 0, tolerance: float = 0.05, passes: int = 12
    ) -> None:
        tolerance = number("tolerance", tolerance, "[0, inf)")
        passes = whole_number("passes", passes, at_least=1)
        self._feasible = budget.check(space)
        self._seed = seed
        self._told = Told(space)
        self._scores: dict[Structure, float] = {}
        self._search = self._passes(tolerance, passes)
        self._pending: Structure | None = next(self._search)
        self._is_under_way = False

    def ask(self, n: int) -> list[Structure]:
        """Return the next structure to compare with the threshold; nothing while the one before it is not told yet."""
        while self._pending is not None and self._pending in self._scores:
            try:
                self._pending = self._search.send(self._scores[self._pending])
            except StopIteration:
                self._pending = None
            self._is_under_way = False
        if self._pending is None or self._is_under_way or n < 1:
            return []
        self._is_under_way = True
        return [self._pending]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember the scores; a failed trial is below every threshold."""
        for trial in self._told.add(trials):
            self._scores[trial.structure] = -np.inf if trial.score is None else trial.score

    def _passes(self, tolerance: float, passes: int) -> Generator[Structure, float, None]:
        best = uniform_structure(self._feasible)
        best_score = yield best
        shape = self._feasible.space.full
        for index in range(passes):
            threshold = best_score
            found: dict[int, int] = {}
            for group in self._order(index):
                threshold -= tolerance / 2**index / len(best)
                width, structure, score = yield from self._bisect(shape, found, group, threshold)
                found[group] = width
                if score > best_score:
                    best, best_score = structure, score
            shape = best

    def _order(self, index: int) -> list[int]:
        groups = list(range(len(self._feasible.space.groups)))
        if index < 2:
            return groups[:: 1 - 2 * index]
        return np.random.default_rng([self._seed, 1, index]).permutation(groups).tolist()

    def _bisect(
        self, shape: Structure, found: Mapping[int, int], group: int, threshold: float
    ) -> Generator[Structure, float, tuple[int, Structure, float]]:
        """Find the narrowest width of a group that scores at least `threshold`; also return the best structure seen.

        A width with which nothing meets the budget, as narrower can be slower, counts as below the threshold.
        """
        widths = self._feasible.space.groups[group].widths
        best = widest(self._feasible, shape, found)
        assert best is not None  # widths are found in structures within the budget
        best_score = yield best
        low, high = 0, widths.index(best[group])
        while low < high:
            middle = (low + high) // 2
            structure = widest(self._feasible, shape, {**found, group: widths[middle]})
            score = -np.inf if structure is None else (yield structure)
            if structure is not None and score > best_score:
                best, best_score = structure, score
            low, high = (low, middle) if score >= threshold else (middle + 1, high)
        return widths[high], best, best_score
