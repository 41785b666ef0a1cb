"""Which channels stay: the answer of a channel criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from prunesearch.structure import FloatArray, IntArray


class Ranking(Protocol):
    """Chooses the units of a group that stay when it is narrowed."""

    def keep(self, group: int, units: int) -> IntArray:
        """Return the indices of the `units` units of group number `group` that stay, ascending."""


@dataclass(frozen=True)
class NestedRanking:
    """One order per group, most important unit first: what a wider structure drops, a narrower one drops too.

    Attributes:
        orders: Per group, the indices of its units, most important first.
        scores: Per group, (units,) what the orders come from, where that can be compared between groups.
        notes: What should be known before the orders are believed.
    """

    orders: tuple[tuple[int, ...], ...]
    scores: tuple[FloatArray, ...] | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def by_importance(cls, importances: Sequence[FloatArray], notes: tuple[str, ...] = ()) -> NestedRanking:
        """Order each group's units by importance, highest first; of equals the one with the lower index first."""
        orders = tuple(tuple(np.argsort(-values, kind="stable").tolist()) for values in importances)
        return cls(orders, tuple(importances), notes)

    def keep(self, group: int, units: int) -> IntArray:
        """The `units` most important units, in ascending order of index."""
        places = self._places[group]
        if places is None:
            return np.sort(np.array(self.orders[group][:units], dtype=np.int64))
        return np.flatnonzero(places < units)

    @cached_property
    def _places(self) -> tuple[IntArray | None, ...]:
        """Per group, (units,) where in the order each unit is; None where not every unit is there once."""
        orders = [np.array(order, dtype=np.int64) for order in self.orders]
        inverse = [(order, np.argsort(order)) for order in orders]
        return tuple(at if np.array_equal(order[at], np.arange(len(at))) else None for order, at in inverse)
