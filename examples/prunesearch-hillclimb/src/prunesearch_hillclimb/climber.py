"""Hill climbing under a budget."""

from __future__ import annotations

import numpy as np

from prunesearch.budget import BudgetOrSet, as_structures
from prunesearch.search.proposals import BatchSearcher, put_random
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import Space


class Climber(BatchSearcher):
    """Changes one group of the best structure so far, and lets the budget scale the others.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.
        step: By how many of the allowed widths a group changes at most.
        neighbours: How many neighbours of the best structure are proposed before the next look at the scores.
    """

    def __init__(
        self, space: Space, budget: BudgetOrSet, *, seed: int = 0, step: int = 3, neighbours: int = 16
    ) -> None:
        super().__init__(space, budget, seed=seed)
        self._step, self._neighbours = step, neighbours

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put the next structures into the queue, which takes nothing twice."""
        if batch == 0:
            self.queue.put([uniform_structure(self.feasible)])
        best = self.told.best(1)
        if len(best) and best.shape[1]:
            chosen = np.repeat(self.space.indices(best), self._neighbours, axis=0)  # places among the allowed widths
            groups = rng.integers(0, best.shape[1], len(chosen))
            chosen[np.arange(len(chosen)), groups] += rng.integers(-self._step, self._step + 1, len(chosen))
            moved = self.space.from_indices(np.clip(chosen, 0, self.space.choices - 1))
            self.queue.put(as_structures(self.feasible.fit(moved)))
        put_random(self.queue, self.feasible, rng, self._neighbours // 2 - len(self.queue))
