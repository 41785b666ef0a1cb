"""Random proportions, scaled to the budget: the baseline that every searcher must beat at equal evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunesearch.budget import BudgetOrSet
from prunesearch.search.proposals import Queue, put_random
from prunesearch.structure import Space, Structure
from prunesearch.trial import Trial

_BLOCK = 64


class RandomSearcher:
    """Draws each width uniformly from its allowed ones, then scales the structure until it uses the budget up.

    The scaling takes the place of rejection (EagleEye draws until the cost falls into a window): it is bounded, and
    keeps the proportions that were drawn. When a small space has no more of those, cheaper structures follow.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.

    Raises:
        InfeasibleBudget: No structure meets the budget.
    """

    def __init__(self, space: Space, budget: BudgetOrSet, *, seed: int = 0) -> None:
        self._feasible = budget.check(space)
        self._seed = seed
        self._queue = Queue()
        self._blocks = 0

    def ask(self, n: int) -> list[Structure]:
        """Return `n` new random structures, fewer once many draws in a row find nothing new."""
        while len(self._queue) < n:
            before = len(self._queue)
            rng = np.random.default_rng([self._seed, 0, self._blocks])
            put_random(self._queue, self._feasible, rng, _BLOCK)
            self._blocks += 1
            if len(self._queue) == before:
                break
        return self._queue.take(n)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember what need not be proposed again."""
        self._queue.mark_seen(trial.structure for trial in trials)
