"""Structures that searches are compared with, as several benchmarks have them."""

from __future__ import annotations

import numpy as np

from prunesearch.budget import FeasibleSet, as_structures
from prunesearch.search.uniform import UniformSearcher, uniform_structure
from prunesearch.structure import Structure


def filled_uniform(limits: FeasibleSet) -> Structure:
    """Uniform widths, and what they leave of the limits: one step for each group in turn, narrowest first.

    Uniform widths alone go in large steps, and may leave a tenth of the limit that a search uses up.
    """
    (structure,) = as_structures(limits.widen([uniform_structure(limits)]))
    return structure


class FilledUniform(UniformSearcher):
    """A search that proposes this one structure."""

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put the structure into the queue, once."""
        if batch == 0:
            self.queue.put([filled_uniform(self.feasible)])
