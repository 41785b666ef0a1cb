"""Channels go in random order: the control that every criterion must beat."""

from __future__ import annotations

import numpy as np

from prunesearch.evaluators.channels.criterion import ScoringCriterion
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray
from prunesearch.tasks.examples import Examples


class RandomCriterion(ScoringCriterion):
    """A random order of the channels of every group.

    Args:
        seed: Decides the order.
    """

    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """Numbers between 0 and 1."""
        rng = np.random.default_rng([self._seed, len(network.units)])
        scores = np.zeros(network.unit_count)
        for units in network.units:
            scores[units] = rng.random(len(units))
        return scores
