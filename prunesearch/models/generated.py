"""Weights that a trained PruningNet generates, as a source of weights like any other."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.hypernet import PruningNet
from prunesearch.models.hypernet_file import load_pruningnet
from prunesearch.models.nested import Batch
from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking
from prunesearch.models.slim import named_tensors, slim
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure


class GeneratedWeights:
    """What a PruningNet gives to each structure; which channels stay is what it was trained with.

    Args:
        net: A trained PruningNet; it is only read.
    """

    sliced = False

    def __init__(self, net: PruningNet) -> None:
        self._net = net
        self._inherited = InheritedWeights(net.network, net.ranking)

    @property
    def network(self) -> Network:
        """The traced network; its own weights take no part, but its buffers do."""
        return self._net.network

    @property
    def ranking(self) -> Ranking:
        """Which channels stay."""
        return self._net.ranking

    @cached_property
    def description(self) -> str:
        """The form and a hash of the PruningNet's values."""
        return f"generated({self._net.settings['form']}, {fingerprint(*self._net.state_dict().values())})"

    def build(self, structure: Structure) -> nn.Module:
        """The network of a structure with generated weights."""
        model = slim(self.network, structure, self.ranking)
        mine = named_tensors(model)
        with torch.no_grad():
            for name, values in self._net.tensors(structure).items():
                mine[name].copy_(values)
        return model

    def kept(self, structure: Structure) -> npt.NDArray[np.bool_]:
        """The channels that the PruningNet was trained to take."""
        return self._inherited.kept(structure)

    def influences(self, tensor: str) -> frozenset[int]:
        """The groups that narrow the tensor, and of a generated one those that its generator sees."""
        return self._net.influences(tensor)

    def values(self, tensor: str, structure: Structure) -> Tensor:
        """Generated values, or a buffer of the traced network's."""
        if tensor not in self._parameters:
            return self._inherited.values(tensor, structure)
        with torch.no_grad():
            return self._net.values(tensor, structure)

    @cached_property
    def _parameters(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.network.model.named_parameters())


def generated_weights(network: Network, images: Batch, file: str = "") -> GeneratedWeights:
    """The weights of a PruningNet's file, as weight sources are made by name; it brings a ranking of its own.

    Raises:
        ValueError: No file is given.
        CheckpointError: It is not a PruningNet of this network.
    """
    del images
    if not file:
        raise ValueError('Expected the file of a trained PruningNet, as "generated:FILE"; got no file.')
    return GeneratedWeights(load_pruningnet(file, network))
