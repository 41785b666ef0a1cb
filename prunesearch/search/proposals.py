"""What searchers share: batches of proposals that give nothing out twice, what was told, random structures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import numpy as np

from prunesearch.budget import BudgetOrSet, FeasibleSet, as_array, as_structures
from prunesearch.structure import FloatArray, IntArray, Space, Structure
from prunesearch.trial import Trial, ranked

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

    def has_seen(self, structure: Structure) -> bool:
        """Whether it would not be accepted."""
        return structure in self._seen

    def mark_seen(self, structures: Iterable[Structure]) -> None:
        """Never hand these out: they were scored already."""
        marked = set(structures)
        self._seen |= marked
        self._waiting = [structure for structure in self._waiting if structure not in marked]

    def take(self, n: int) -> list[Structure]:
        """Remove and return the first `n`."""
        taken, self._waiting = self._waiting[:n], self._waiting[n:]
        return taken


class Told:
    """The trials of one space that a searcher was told; those of another space are left out.

    Args:
        space: The space.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._trials: list[Trial] = []

    def __len__(self) -> int:
        return len(self._trials)

    def add(self, trials: Iterable[Trial]) -> list[Trial]:
        """Remember those of the space, and return them."""
        known = [trial for trial in trials if self._is_of_space(trial.structure)]
        self._trials += known
        return known

    def best(self, n: int) -> IntArray:
        """(at most n, g) structures with the highest scores, best first."""
        return as_array([trial.structure for trial in ranked(self._trials)[:n]], self._space)

    def scored(self) -> tuple[IntArray, FloatArray]:
        """(p, g) structures and their (p,) scores, in the order told; a failed one has the lowest score of all."""
        found = [trial.score for trial in self._trials if trial.score is not None]
        if not found:
            return as_array([], self._space), np.zeros(0)
        lowest = min(found)
        scores = [lowest if trial.score is None else trial.score for trial in self._trials]
        return as_array([trial.structure for trial in self._trials], self._space), np.array(scores)

    def errors(self) -> FloatArray:
        """(p,) standard errors of what `scored` gives."""
        return np.array([trial.error for trial in self._trials])

    def _is_of_space(self, structure: Structure) -> bool:
        try:
            self._space.check(structure)
        except (ValueError, TypeError):
            return False
        return True


class BatchSearcher(ABC):
    """A searcher that plans a batch whenever the last one has been handed out, from every trial told by then.

    A subclass says how in `plan`; the rest of a searcher's contract is kept here.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.

    Raises:
        InfeasibleBudget: No structure meets the budget.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Constructor arguments that describe the network, of `prunesearch.evaluators.EVIDENCE`."""
    welcomes: ClassVar[tuple[str, ...]] = ()
    """Further ones that it can do without: they are gathered where that costs little."""
    settings_type: ClassVar[type | None] = None
    """Dataclass of the constructor's `settings`, so that they can be given one by one by name."""
    spreads: ClassVar[bool] = False
    """Whether it looks for the best at every cost, not only for the best of all; a race has a leader at each then."""

    def __init__(self, space: Space, budget: BudgetOrSet, *, seed: int = 0) -> None:
        self.space = space
        self.feasible = budget.check(space)
        self.queue = Queue()
        self.told = Told(space)
        self._seed = seed
        self._batch = 0

    @abstractmethod
    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put the next structures into `self.queue`; putting none means finished.

        Args:
            rng: Made for this batch from the seed.
            batch: Number of the batch, from 0.
        """

    def ask(self, n: int) -> list[Structure]:
        """Return the next structures of this batch; plan another one when it is used up."""
        if not self.queue:
            self.plan(np.random.default_rng([self._seed, 1, self._batch]), self._batch)
            self._batch += 1
        return self.queue.take(n)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember the trials whose structures are of this space."""
        self.queue.mark_seen(trial.structure for trial in self.told.add(trials))


def put_new(queue: Queue, make: Callable[[int], IntArray], wanted: int, rounds: int) -> int:
    """Put up to `wanted` new structures into the queue; return how many are missing after so many rounds.

    Args:
        queue: Where they go.
        make: Called with the number still wanted, gives (p, g) structures, new or not.
        wanted: How many.
        rounds: How often more are made for those that were not new.
    """
    for _ in range(rounds):
        if wanted <= 0:
            break
        wanted -= queue.put(as_structures(make(wanted)), at_most=wanted)
    return wanted


def put_random(queue: Queue, feasible: FeasibleSet, rng: np.random.Generator, wanted: int) -> None:
    """Put up to `wanted` new random structures into the queue.

    Each width is drawn uniformly from its allowed ones, then the structure is scaled until it uses the budget up. Only
    when those run out, as in a small space, come structures that leave some of it unused.
    """
    space = feasible.space
    wanted = put_new(queue, lambda n: feasible.fit(space.sample(rng, n)), wanted, _ROUNDS)
    put_new(queue, lambda n: feasible.repair(space.sample(rng, n)), wanted, _ROUNDS)
