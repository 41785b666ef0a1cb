"""Where the weights of a structure come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking
from prunesearch.models.slim import slim
from prunesearch.structure import Structure


class WeightSource(Protocol):
    """Builds the network of a structure, ready to be scored after its BatchNorm statistics are re-estimated."""

    @property
    def network(self) -> Network:
        """The traced network that structures refer to."""

    def build(self, structure: Structure) -> nn.Module:
        """Return a new module; nothing of it is shared with the traced model."""


@dataclass(frozen=True)
class InheritedWeights:
    """The weights of the trained network, minus the channels that a ranking drops.

    Attributes:
        network: The traced network.
        ranking: Which channels stay.
    """

    network: Network
    ranking: Ranking

    def build(self, structure: Structure) -> nn.Module:
        """Slice the trained weights."""
        return slim(self.network, structure, self.ranking)
