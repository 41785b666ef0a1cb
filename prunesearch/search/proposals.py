"""Making new structures: a queue that gives none out twice, and random ones to fill it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from prunesearch.budget import FeasibleSet, as_structures
from prunesearch.structure import Structure

_ROUNDS = 8


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


def put_random(queue: Queue, feasible: FeasibleSet, rng: np.random.Generator, wanted: int) -> None:
    """Put up to `wanted` new random structures into the queue.

    Each width is drawn uniformly from its allowed ones, then the structure is scaled until it uses the budget up. Only
    when those run out, as in a small space, come structures that leave some of it unused.
    """
    for move in (feasible.fit, feasible.repair):
        for _ in range(_ROUNDS):
            if wanted <= 0:
                return
            drawn = feasible.space.sample(rng, wanted)
            wanted -= queue.put(as_structures(move(drawn)), at_most=wanted)
