"""The role: look at a network, say which channels matter."""

from __future__ import annotations

from typing import Protocol

from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking


class Criterion(Protocol):
    """Ranks the channels of every group. Deterministic for its seed; leaves the network as found."""

    def rank(self, network: Network) -> Ranking:
        """Say which units of each group stay at each width."""
