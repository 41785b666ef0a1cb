"""All units of all groups in one order, the least important go until the budget is met: the classic baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunesearch.budget import BudgetOrSet, above_threshold
from prunesearch.search.proposals import BatchSearcher
from prunesearch.structure import FloatArray, Space


class GlobalSearcher(BatchSearcher):
    """Proposes one structure: every unit stays whose score is at least the lowest threshold that meets the budget.

    No group gets narrower than its minimum; what rounding to allowed widths leaves of the budget is used.

    Source: the common baseline, as in Liu et al., ICCV 2017, arXiv:1708.06519 (one threshold over all BatchNorm
    scales); with the criterion `cpmc` structures are of the kind that the abstract of Yan et al., arXiv:2011.03240,
    describes. Scores are those of the channel criterion; which units stay is its matter, here only how many.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Not used; every searcher takes one.
        unit_scores: Per group, (units,) scores that can be compared between groups, high for what should stay.

    Raises:
        InfeasibleBudget: No structure meets the budget.
        ValueError: Scores that do not belong to the space.
    """

    needs = ("unit_scores",)

    def __init__(self, space: Space, budget: BudgetOrSet, *, seed: int = 0, unit_scores: Sequence[FloatArray]) -> None:
        super().__init__(space, budget, seed=seed)
        units = [group.units for group in space.groups]
        if [len(scores) for scores in unit_scores] != units:
            raise ValueError(
                f"Expected scores of {units} units, one per unit of each group; got {list(map(len, unit_scores))}."
            )
        if not all(np.isfinite(scores).all() for scores in unit_scores):
            raise ValueError("Expected finite scores of units, got NaN or infinity.")
        self._scores = [np.sort(np.asarray(scores, dtype=np.float64)) for scores in unit_scores]

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put the structure into the queue, once."""
        if batch == 0:
            self.queue.put([above_threshold(self.feasible, self._scores)])
