"""Weights of layers that read dropped channels, fitted anew to those that stay: what its two kinds share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking
from prunesearch.models.slim import named_tensors
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure

_REMEMBERED = 4  # structures whose weights are kept; a forward asks tensor by tensor


class RefittedWeights(ABC):
    """A weight source: inherited weights, but those of some layers are fitted to each structure.

    Args:
        network: The traced network.
        ranking: Which channels stay.
        layers: Names of the `Linear` and `Conv2d` layers whose weights and biases are fitted.
    """

    sliced = False

    def __init__(self, network: Network, ranking: Ranking, layers: Iterable[str]) -> None:
        self.inherited = InheritedWeights(network, ranking)
        parameters = dict(network.model.named_parameters())
        names = [f"{layer}.{attribute}" for layer in layers for attribute in ("weight", "bias")]
        self.refitted = frozenset(name for name in names if name in parameters)
        self.fitted: dict[Structure, dict[str, Tensor]] = {}
        self._outputs = {cut.tensor: cut.units for cut in network.cuts if cut.dim == 0}

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
            found[tensor] = self.fit(tensor, structure)
        return found[tensor]

    def outputs(self, layer: str, structure: Structure) -> Tensor:
        """Indices of a layer's outputs that stay."""
        units = self._outputs.get(f"{layer}.weight")
        if units is None:
            return torch.arange(len(self.network.model.get_submodule(layer).weight))  # type: ignore[arg-type]
        return torch.from_numpy(np.flatnonzero(self.kept(structure)[units]))
