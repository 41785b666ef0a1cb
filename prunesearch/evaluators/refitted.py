"""Weights of layers that read dropped channels, fitted anew to those that stay: what its two kinds share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunesearch.models.devices import placed
from prunesearch.models.linear_map import LinearMap
from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking
from prunesearch.models.slim import named_tensors
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure

_UNFITTED = 0.1  # of the MACs; below it is not worth a note
_REMEMBERED = 4  # structures whose weights are kept; a forward asks tensor by tensor


class RefittedWeights(ABC):
    """A weight source: inherited weights, but those of some layers are fitted to each structure.

    Args:
        network: The traced network.
        ranking: Which channels stay.
        layers: The linear layers and convolutions whose weights and biases are fitted.
    """

    sliced = False
    description: str

    def __init__(self, network: Network, ranking: Ranking, layers: Iterable[LinearMap]) -> None:
        self.inherited = InheritedWeights(network, ranking)
        self.layer_of = {name: layer for layer in layers for name in (layer.weight, layer.bias) if name is not None}
        self.refitted = frozenset(self.layer_of)
        self.fitted: dict[Structure, dict[str, Tensor]] = {}
        self._outputs = {(cut.tensor, cut.dim): cut.units for cut in network.cuts}

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know: whether much of what reads channels that may go is not fitted."""
        of_place = {layer.place: layer for layer in self.network.linear_maps}
        fitted = {layer.place for layer in self.layer_of.values()}
        macs = {
            read.place: read.macs
            for read in self.network.reads
            if read.place not in of_place or of_place[read.place].loses_inputs
        }
        share = sum(macs[place] for place in macs if place not in fitted) / (sum(macs.values()) or 1)
        if share <= _UNFITTED:
            return ()
        return (
            f"{share:.0%} of the MACs of what reads channels that may be dropped are of operators that "
            f"{self.description} weights do not fit: those keep their inherited weights. Such are convolutions "
            "with groups, attention, recurrent layers, and layers whose weights are computed or shared.",
        )

    @abstractmethod
    def fit(self, tensor: str, structure: Structure) -> Tensor:
        """The fitted values of one of `self.refitted`, in the shape that the slimmed network has."""

    @property
    def network(self) -> Network:
        """The traced network."""
        return self.inherited.network

    @property
    def ranking(self) -> Ranking:
        """Which channels stay."""
        return self.inherited.ranking

    def build(self, structure: Structure) -> nn.Module:
        """Slice the trained weights, then put the fitted ones in."""
        model = self.inherited.build(structure)
        tensors = named_tensors(model)
        with torch.no_grad():
            for name in sorted(self.refitted):
                tensors[name].copy_(self.values(name, structure))
        return model

    def kept(self, structure: Structure) -> npt.NDArray[np.bool_]:
        """What the ranking keeps."""
        return self.inherited.kept(structure)

    def values(self, tensor: str, structure: Structure) -> Tensor:
        """The fitted values of a layer's weight or bias; the trained ones of others, and of the unpruned network."""
        if tensor not in self.refitted or structure == self.network.space.full:
            return self.inherited.values(tensor, structure)
        if structure not in self.fitted:
            if len(self.fitted) >= _REMEMBERED:
                self.fitted.pop(next(iter(self.fitted)))
            self.fitted[structure] = {}
        found = self.fitted[structure]
        if tensor not in found:
            with torch.inference_mode(False), torch.no_grad():  # whoever asks first, others may make parameters of it
                found[tensor] = self.fit(tensor, structure)
        return found[tensor]

    def outputs(self, layer: LinearMap, structure: Structure, device: torch.device) -> Tensor:
        """Indices of a layer's outputs that stay, on a device."""
        assert layer.weight is not None
        units = self._outputs.get((layer.weight, layer.output_dim))
        if units is None:
            return torch.arange(layer.shape[0], device=device)
        return placed(torch.from_numpy(np.flatnonzero(self.kept(structure)[units])), device)


def solved(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution of linear equations that have one, on their device; nobody waits to hear whether there is one."""
    solution: Tensor = torch.linalg.solve_ex(matrix, right).result
    return solution
