"""Making new structures: random ones on the budget, and a queue that gives none out twice."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from prunesearch.budget import FeasibleSet, as_structures
from prunesearch.structure import Structure


def random_structures(feasible: FeasibleSet, rng: np.random.Generator, p: int) -> list[Structure]:
    """`p` structures of random proportions, each scaled to use the budget up; may repeat."""
    return as_structures(feasible.fit(feasible.space.sample(rng, p)))


class Queue:
    """Structures waiting to be asked for. One that was ever put in, or marked as seen, is not accepted again."""

    def __init__(self) -> None:
        self._waiting: list[Structure] = []
        self._seen: set[Structure] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, structures: Iterable[Structure], at_most: int | None = None) -> int:
        """Append those not seen before, `at_most` of them; return how many were."""
        added = 0
        for structure in structures:
            if added == at_most:
                break
            if structure not in self._seen:
                self._seen.add(structure)
                self._waiting.append(structure)
                added += 1
        return added

    def mark_seen(self, structures: Iterable[Structure]) -> None:
        """Never hand these out: they were scored already."""
        marked = set(structures)
        self._seen |= marked
        self._waiting = [structure for structure in self._waiting if structure not in marked]

    def take(self, n: int) -> list[Structure]:
        """Remove and return the first `n`."""
        taken, self._waiting = self._waiting[:n], self._waiting[n:]
        return taken
