"""Every group keeps the same fraction: the width multiplier, the baseline that costs one evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prunesearch.budget import FeasibleSet, as_structures
from prunesearch.search.proposals import BatchSearcher
from prunesearch.structure import Structure

_FRACTIONS = 4096


class UniformSearcher(BatchSearcher):
    """Proposes one structure: the largest fraction of every group's width, of 4,096, that meets the budget.

    Widths are rounded down to allowed ones, and never below a group's minimum.

    Args:
        space: Where structures live.
        budget: What the proposal must meet.
        seed: Not used; every searcher takes one.

    Raises:
        InfeasibleBudget: No structure meets the budget.
    """

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put the structure into the queue, once."""
        if batch == 0:
            self.queue.put([uniform_structure(self.feasible)])


def uniform_structure(feasible: FeasibleSet) -> Structure:
    """The widest structure of one common fraction that meets the limits."""
    found = widest(feasible, feasible.space.full, {})
    assert found is not None  # the narrowest structure meets every budget that can be met
    return found


def widest(feasible: FeasibleSet, shape: Structure, fixed: Mapping[int, int]) -> Structure | None:
    """The structure with some widths fixed, and the others in the proportions of `shape`; None if nothing fits.

    Under a limit of latency nothing may fit with a width although something fits with a wider one, if that is faster.
    """
    space = feasible.space
    most = max((full / width for full, width in zip(space.full, shape, strict=True)), default=1.0)
    stretch = np.linspace(0.0, most, _FRACTIONS + 1)
    wanted = np.minimum(stretch[:, None] * np.array(shape), np.array(space.full))
    structures = space.from_indices(space.indices(wanted))
    structures[:, list(fixed)] = list(fixed.values())
    inside = np.flatnonzero(feasible.contains(structures))  # cost grows with the stretch
    return as_structures(structures[inside[-1:]])[0] if len(inside) else None
