"""Weights of the next layers of dropped channels, changed so that the channels that stay make up for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunesearch.evaluators.layer_inputs import LayerInputs, layer_inputs
from prunesearch.evaluators.refitted import RefittedWeights, solved
from prunesearch.models.devices import in_float64, placed
from prunesearch.models.linear_map import LinearMap
from prunesearch.models.nested import Batch
from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking
from prunesearch.structure import Structure

_RIDGE = 1e-4  # of the mean variance: moments come from a few thousand positions


class CompensatedWeights(RefittedWeights):
    """Inherited weights, but each reader's are the least-squares refit of its outputs to the inputs that stay.

    With the covariance C of a layer's inputs and S those that stay:
    `W' = (W C[:, S] + ridge W[:, S]) (C[S, S] + ridge)^-1`; the ridge draws to the trained weights, not to zero. The
    bias, if there is one, takes up the change of the mean. A layer without a bias has second moments about zero in
    place of C, so that its weights do; unless a BatchNorm follows at once, which takes means away.

    Source: Xie et al., Pruning with compensation, arXiv:2108.13728 and the authors' code (closed form), and He et al.,
    ICCV 2017, arXiv:1707.06168, section 3.1, step ii. Departs from both: moments are those of the unpruned network for
    all structures, so nothing is gathered per structure, and errors that accumulate are not seen; the ridge draws to
    the trained weights; the rescaling of each output to its old variance is left out, and so is the bias of layers that
    have none in front of a BatchNorm, whose re-estimated statistics absorb both. Grouped convolutions inherit their
    weights, and so do layers whose weights are computed or shared.

    Args:
        network: The traced network.
        ranking: Which channels stay.
        images: (n, ...) images; the first 256 count.
        seed: Decides the positions that are sampled.
        cache: Folder where moments of layers are kept (`evaluators.layer_inputs`).
    """

    description = "compensated"

    def __init__(
        self,
        network: Network,
        ranking: Ranking,
        images: Batch,
        *,
        seed: int = 0,
        cache: str | Path | None = None,
    ) -> None:
        layers = {layer.place: layer for layer in network.linear_maps if layer.is_refitted}
        self._readers: Mapping[str, LayerInputs] = {
            reader.name: reader for reader in layer_inputs(network, images, seed=seed, cache=cache, of=layers.values())
        }
        super().__init__(network, ranking, layers.values())

    def influences(self, tensor: str) -> frozenset[int]:
        """The groups that narrow the tensor; of a reader's bias, those that its weight reads, too."""
        found = self.inherited.influences(tensor)
        layer = self.layer_of.get(tensor)
        return found if layer is None else found | self.inherited.influences(_weight_of(layer))

    def fit(self, tensor: str, structure: Structure) -> Tensor:
        """The closed form; where all inputs stay, the trained values."""
        layer = self.layer_of[tensor]
        reader = self._readers[layer.place]
        trained = self.inherited.values(tensor, structure)
        inputs = np.repeat(self.kept(structure)[reader.units], reader.taps)
        if inputs.all():
            return trained
        stay = placed(torch.from_numpy(np.flatnonzero(inputs)), reader.mean.device)
        if tensor == layer.weight:
            return layer.weight_of(self._weight(layer, structure, stay), trained)
        return self._bias(layer, structure, stay).to(trained)

    def _weight(self, layer: LinearMap, structure: Structure, stay: Tensor) -> Tensor:
        """(outputs, columns that stay) the closed form; `stay` has the indices S."""
        reader = self._readers[layer.place]
        rows = self.outputs(layer, structure, reader.mean.device)
        own, cross = reader.covariance[stay][:, stay], reader.cross[rows][:, stay]
        if not layer.is_refitted_centred:
            mean = reader.mean[stay]
            own, cross = own.addr(mean, mean), cross.addr(reader.weights[rows] @ reader.mean, mean)
        ridge = _RIDGE * own.diagonal().mean() + 1e-30
        drawn = cross + ridge * reader.weights[rows][:, stay]  # to the trained weights
        return solved(own + ridge * torch.eye(len(own), dtype=own.dtype, device=own.device), drawn.T).T

    def _bias(self, layer: LinearMap, structure: Structure, stay: Tensor) -> Tensor:
        """(outputs,) the trained bias, plus what the mean of the outputs lost."""
        reader = self._readers[layer.place]
        before = reader.weights[self.outputs(layer, structure, reader.mean.device)] @ reader.mean
        after = layer.matrix(self.values(_weight_of(layer), structure)) @ reader.mean[stay]
        assert layer.bias is not None
        return in_float64(self.inherited.values(layer.bias, structure)) + before - after


def _weight_of(layer: LinearMap) -> str:
    assert layer.weight is not None  # all that is fitted has one of its own
    return layer.weight
