"""Channels go in random order: the control that every criterion must beat."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking


class RandomCriterion:
    """A random order of the channels of every group.

    Args:
        seed: Decides the order.
    """

    needs = "nothing"

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def rank(self, network: Network, images: Tensor | None = None, labels: Tensor | None = None) -> NestedRanking:
        """Order the units of every group at random."""
        rng = np.random.default_rng([self._seed, len(network.units)])
        return NestedRanking.by_importance([rng.random(len(units)) for units in network.units])
