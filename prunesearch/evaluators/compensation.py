"""Weights of the consumers of dropped channels, changed so that the channels that stay make up for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunesearch.evaluators.consumers import Consumer, consumers
from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking
from prunesearch.models.slim import named_tensors
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure

_RIDGE = 1e-4  # of the mean variance: moments come from a few thousand positions
_REMEMBERED = 4  # structures whose solutions are kept; a forward asks tensor by tensor


class CompensatedWeights:
    """Inherited weights, but each consumer's are the least-squares refit of its outputs to the inputs that stay.

    With the covariance C of a layer's inputs and S those that stay: `W' = W C[:, S] (C[S, S] + ridge)^-1`, and the
    bias, if there is one, takes up the change of the mean.

    Source: Xie et al., Pruning with compensation, arXiv:2108.13728 and the authors' code (closed form), and He et al.,
    ICCV 2017, arXiv:1707.06168, section 3.1, step ii. Departs from both: moments are those of the unpruned network for
    all structures, so nothing is gathered per structure, and errors that accumulate are not seen; the rescaling of each
    output to its old variance is left out, and so is the bias of layers that have none, because the re-estimated
    statistics of the BatchNorm that follows absorb both. Grouped convolutions inherit their weights.

    Args:
        network: The traced network.
        ranking: Which channels stay.
        images: (n, ...) images; the first 256 count.
        seed: Decides the positions that are sampled.
        cache: Folder where moments of layers are kept (`evaluators.consumers`).
    """

    sliced = False

    def __init__(
        self,
        network: Network,
        ranking: Ranking,
        images: Tensor,
        *,
        seed: int = 0,
        cache: str | Path | None = None,
    ) -> None:
        self._inherited = InheritedWeights(network, ranking)
        self._consumers: Mapping[str, Consumer] = {
            consumer.name: consumer
            for consumer in consumers(network, images, seed=seed, cache=cache)
            if getattr(network.model.get_submodule(consumer.name), "groups", 1) == 1
        }
        self._outputs = {cut.tensor: cut.units for cut in network.cuts if cut.dim == 0}
        self._solved: dict[Structure, dict[str, Tensor]] = {}

    @property
    def network(self) -> Network:
        """The traced network."""
        return self._inherited.network

    @property
    def ranking(self) -> Ranking:
        """Which channels stay."""
        return self._inherited.ranking

    def build(self, structure: Structure) -> nn.Module:
        """Slice the trained weights, then put the refitted ones in."""
        model = self._inherited.build(structure)
        tensors = named_tensors(model)
        with torch.no_grad():
            for name in self._changed:
                tensors[name].copy_(self.values(name, structure))
        return model

    def kept(self, structure: Structure) -> npt.NDArray[np.bool_]:
        """What the ranking keeps."""
        return self._inherited.kept(structure)

    def influences(self, tensor: str) -> frozenset[int]:
        """The groups that narrow the tensor; of a consumer's bias, those that its weight reads, too."""
        found = self._inherited.influences(tensor)
        layer, _, attribute = tensor.rpartition(".")
        if layer in self._consumers and attribute == "bias":
            found |= self._inherited.influences(f"{layer}.weight")
        return found

    def values(self, tensor: str, structure: Structure) -> Tensor:
        """The refitted values of a consumer's weight or bias; the trained ones of others."""
        if tensor not in self._changed:
            return self._inherited.values(tensor, structure)
        if structure not in self._solved:
            if len(self._solved) >= _REMEMBERED:
                self._solved.pop(next(iter(self._solved)))
            self._solved[structure] = {}
        solved = self._solved[structure]
        if tensor not in solved:
            layer, _, attribute = tensor.rpartition(".")
            solve: Callable[[str, Structure], Tensor] = self._weight if attribute == "weight" else self._bias
            solved[tensor] = solve(layer, structure)
        return solved[tensor]

    @cached_property
    def _changed(self) -> frozenset[str]:
        parameters = dict(self.network.model.named_parameters())
        return frozenset(
            f"{layer}.{attribute}"
            for layer in self._consumers
            for attribute in ("weight", "bias")
            if f"{layer}.{attribute}" in parameters
        )

    def _weight(self, layer: str, structure: Structure) -> Tensor:
        """W C[:, S] C[S, S]^-1 in the shape that the slimmed layer has."""
        trained = self._inherited.values(f"{layer}.weight", structure)
        consumer = self._consumers[layer]
        stay = self._columns(consumer, structure)
        if stay.all():
            return trained
        rows = self._rows(layer, structure)
        own = consumer.covariance[stay][:, stay]
        ridge = _RIDGE * float(own.diagonal().mean()) + 1e-30
        drawn = consumer.cross[rows][:, stay] + ridge * consumer.weights[rows][:, stay]  # to the trained weights
        refitted = torch.linalg.solve(own.add_(torch.eye(len(own)).double(), alpha=ridge), drawn.T).T
        return refitted.reshape(trained.shape).to(trained)

    def _bias(self, layer: str, structure: Structure) -> Tensor:
        """The trained bias, plus what the mean of the outputs lost."""
        trained = self._inherited.values(f"{layer}.bias", structure)
        consumer = self._consumers[layer]
        stay = self._columns(consumer, structure)
        if stay.all():
            return trained
        before = consumer.weights[self._rows(layer, structure)] @ consumer.mean
        after = self.values(f"{layer}.weight", structure).detach().double().cpu().flatten(1) @ consumer.mean[stay]
        return trained + (before - after).to(trained)

    def _columns(self, consumer: Consumer, structure: Structure) -> Tensor:
        """(columns,) which inputs stay."""
        return torch.from_numpy(np.repeat(self.kept(structure)[consumer.units], consumer.taps))

    def _rows(self, layer: str, structure: Structure) -> Tensor:
        """Indices of the layer's outputs that stay."""
        units = self._outputs.get(f"{layer}.weight")
        if units is None:
            return torch.arange(len(self._consumers[layer].weights))
        return torch.from_numpy(np.flatnonzero(self.kept(structure)[units]))
