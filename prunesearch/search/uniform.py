"""Every group keeps the same fraction: the width multiplier, the baseline that costs one evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunesearch.budget import Budget, FeasibleSet, as_structures
from prunesearch.search.proposals import Queue
from prunesearch.structure import Space, Structure
from prunesearch.trial import Trial

_FRACTIONS = 4096


class UniformSearcher:
    """Proposes one structure: the largest fraction of every group's width, of 4,096, that meets the budget.

    Widths are rounded down to allowed ones, and never below a group's minimum.

    Args:
        space: Where structures live.
        budget: What the proposal must meet.
        seed: Not used; every searcher takes one.

    Raises:
        InfeasibleBudget: No structure meets the budget.
    """

    def __init__(self, space: Space, budget: Budget, *, seed: int = 0) -> None:
        del seed
        self._queue = Queue()
        self._queue.put([uniform_structure(budget.check(space))])

    def ask(self, n: int) -> list[Structure]:
        """Return the structure, once."""
        return self._queue.take(n)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Forget the structure if it was scored already."""
        self._queue.mark_seen(trial.structure for trial in trials)


def uniform_structure(feasible: FeasibleSet) -> Structure:
    """The widest structure of one common fraction that meets the limits."""
    space = feasible.space
    fractions = np.linspace(0.0, 1.0, _FRACTIONS + 1)[:, None]
    structures = space.from_indices(space.indices(fractions * np.array(space.full)))
    widest = int(np.flatnonzero(feasible.contains(structures))[-1])  # cost grows with the fraction
    return as_structures(structures[widest : widest + 1])[0]
