"""Searchers of anybody's, whose proposals are checked before a score is spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

from prunesearch.budget import BudgetOrSet, as_array
from prunesearch.search import SEARCHER
from prunesearch.search.searcher import Searcher
from prunesearch.structure import Space, Structure
from prunesearch.trial import Trial


class CheckedSearcher:
    """A searcher that raises as soon as another one proposes what it must not.

    Args:
        searcher: The other one.
        space: Where structures live.
        budget: What every proposal must meet.
        given: What the caller gave, for sentences.

    Raises:
        InfeasibleBudget: No structure meets the budget.
    """

    def __init__(self, searcher: Searcher, space: Space, budget: BudgetOrSet, given: object = None) -> None:
        self._searcher = searcher
        self._space = space
        self._budget = budget
        self._feasible = budget.check(space)
        self._given = searcher if given is None else given
        self._seen: set[Structure] = set()

    def ask(self, n: int) -> list[Structure]:
        """What the searcher proposes, as tuples of Python's integers.

        Raises:
            ContractBroken: It proposed more than `n`, something outside of the space or over the budget, or a structure
                that it proposed, or was told, before.
        """
        proposed: Any = self._searcher.ask(n)
        if not isinstance(proposed, Sequence):
            raise self._broken(f"ask({n}) gave {type(proposed).__name__}; expected a list of structures")
        if len(proposed) > n:
            raise self._broken(f"ask({n}) gave {len(proposed)} structures; expected at most {n}")
        structures = [self._of_space(structure) for structure in proposed]
        inside = self._feasible.contains(as_array(structures, self._space))
        for structure, is_inside in zip(structures, inside, strict=True):
            if not is_inside:
                cost = self._feasible.shown(self._feasible.cost(structure))
                raise self._broken(f"it proposed {structure}, with {cost}, which is over the budget {self._budget}")
            if structure in self._seen:
                raise self._broken(f"it proposed {structure}, which was proposed before; expected each only once")
            self._seen.add(structure)
        return structures

    def tell(self, trials: Sequence[Trial]) -> None:
        """Tell the searcher."""
        self._seen.update(trial.structure for trial in trials)
        self._searcher.tell(trials)

    def _of_space(self, structure: Any) -> Structure:
        try:
            return self._space.check([index(width) for width in structure])
        except (TypeError, ValueError) as error:
            raise self._broken(
                f"it proposed {structure!r}, which is not of the space: {str(error).rstrip('.')}"
            ) from None

    def _broken(self, what: str) -> Exception:
        return SEARCHER.broken(self._given, what)
