"""Where the weights of a structure come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunesearch.models.coupling import Cut
from prunesearch.models.devices import placed
from prunesearch.models.nested import Batch
from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking
from prunesearch.models.slim import kept_units, named_tensors, positions, slim
from prunesearch.structure import Structure


class WeightSource(Protocol):
    """Gives the network of a structure, whole or tensor by tensor, before its BatchNorm statistics are re-estimated."""

    @property
    def network(self) -> Network:
        """The traced network that structures refer to."""

    @property
    def ranking(self) -> Ranking:
        """Which channels stay."""

    def build(self, structure: Structure) -> nn.Module:
        """Return a new module; nothing of it is shared with the traced model."""

    def kept(self, structure: Structure) -> npt.NDArray[np.bool_]:
        """(units,) which units of the network a structure keeps."""

    def influences(self, tensor: str) -> frozenset[int]:
        """Indices of the groups on whose widths the values of a parameter or buffer depend."""

    def values(self, tensor: str, structure: Structure) -> Tensor:
        """A parameter or buffer as `build` gives it; read only."""

    @property
    def description(self) -> str:
        """What a study records of it; equal for equal weights."""

    @property
    def sliced(self) -> bool:
        """Whether all values are those of the traced model: a structure is then the full network with masks."""


@dataclass(frozen=True)
class _Slices:
    """Which units a structure keeps, and where they are along each dimension that was asked for."""

    kept: npt.NDArray[np.bool_]
    positions: dict[tuple[bytes, torch.device], Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class InheritedWeights:
    """The weights of the trained network, minus the channels that a ranking drops.

    Attributes:
        network: The traced network.
        ranking: Which channels stay.
    """

    network: Network
    ranking: Ranking

    sliced = True
    description = "inherited"

    def build(self, structure: Structure) -> nn.Module:
        """Slice the trained weights."""
        return slim(self.network, structure, self.ranking)

    def kept(self, structure: Structure) -> npt.NDArray[np.bool_]:
        """What the ranking keeps."""
        return self._slices_of(structure).kept

    def influences(self, tensor: str) -> frozenset[int]:
        """The groups that narrow the tensor."""
        group_of = self.network.group_of
        found = [np.unique(group_of[cut.units]) for cut in self.network.cuts_of.get(tensor, ())]
        return frozenset(group for groups in found for group in groups.tolist() if group >= 0)

    def values(self, tensor: str, structure: Structure) -> Tensor:
        """The trained values of the channels that stay."""
        return self.narrowed(tensor, self._tensors[tensor].detach(), structure)

    def narrowed(self, tensor: str, values: Tensor, structure: Structure) -> Tensor:
        """The slices that stay of other values of a parameter or buffer, (...) as wide as the traced model's."""
        for cut in self.network.cuts_of.get(tensor, ()):
            values = values.index_select(cut.dim, self._positions(cut, structure, values.device))
        return values

    def _positions(self, cut: Cut, structure: Structure, device: torch.device) -> Tensor:
        found, axis = self._slices_of(structure), (self._axes[cut.tensor, cut.dim], device)
        if axis not in found.positions:
            with torch.inference_mode(False):  # or nothing could be differentiated by what they choose
                found.positions[axis] = placed(positions(cut, found.kept), device)
        return found.positions[axis]

    @cached_property
    def _axes(self) -> dict[tuple[str, int], bytes]:
        """Equal for dimensions of tensors that are narrowed alike."""
        return {(cut.tensor, cut.dim): sha256(cut.units.tobytes()).digest() for cut in self.network.cuts}

    def _slices_of(self, structure: Structure) -> _Slices:
        if structure not in self._latest:  # tensor by tensor, the same structure is asked for again and again
            self._latest.clear()
            self._latest[structure] = _Slices(kept_units(self.network, structure, self.ranking))
        return self._latest[structure]

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return named_tensors(self.network.model, self.network.cuts_of)

    @cached_property
    def _latest(self) -> dict[Structure, _Slices]:
        return {}


def inherited_weights(network: Network, ranking: Ranking, images: Batch) -> InheritedWeights:
    """`InheritedWeights`, which need no images, as weight sources are made by name."""
    del images
    return InheritedWeights(network, ranking)
