"""Running a network as any of its structures, with tensors that are given to it, without building anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prunesearch.models.copying import copied
from prunesearch.models.devices import placed
from prunesearch.models.held import make_buffers
from prunesearch.models.isolation import attributes_kept
from prunesearch.models.slim import named_tensors, set_numbers
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure


class Skeleton:
    """One copy of a network's modules, without tensors of its own, that is each structure in turn.

    A forward gives what that of the slimmed network with the same tensors would, to the last bit. Afterwards the
    modules hold what they held before; buffers that it changed are gone with it.

    Args:
        slices: Which channels a structure keeps; the tensors of its network stay where they are.
    """

    def __init__(self, slices: InheritedWeights) -> None:
        self._slices = slices
        model = slices.network.model
        tensors = named_tensors(model, slices.network.cuts_of)
        self._module = copied(model, {id(tensor): tensor for tensor in tensors.values()})
        make_buffers(self._module, slices.network.cuts_of)  # as slimming does
        names = {id(tensor): name for name, tensor in tensors.items()}
        self._places: list[tuple[dict[str, Any], str, str]] = [
            (held, attribute, names[id(tensor)])
            for module in self._module.modules()
            for held in (module._parameters, module._buffers)
            for attribute, tensor in held.items()
            if tensor is not None
        ]
        learnt = dict(model.named_parameters())
        self._buffers = {name: tensor for name, tensor in tensors.items() if name not in learnt}
        self._placed: dict[torch.device, dict[str, Tensor]] = {}

    def run(
        self,
        structure: Structure,
        parameters: Mapping[str, Tensor],
        inputs: Sequence[Any],
        by_name: Mapping[str, Any],
        *,
        device: torch.device,
        training: bool,
    ) -> Any:
        """What the network of a structure returns.

        Args:
            structure: The structure.
            parameters: Its parameters, by their names in the traced model; gradients reach them.
            inputs: What the network takes.
            by_name: What it takes by name.
            device: Where all of that is.
            training: Whether it runs in training mode.
        """
        tensors = {**parameters, **self._narrow_buffers(structure, device)}
        with attributes_kept(self._module):
            for held, attribute, name in self._places:
                held[attribute] = tensors[name]
            set_numbers(self._slices.network, self._module, self._slices.kept(structure))
            return self._module.train(training)(*inputs, **by_name)

    def _narrow_buffers(self, structure: Structure, device: torch.device) -> dict[str, Tensor]:
        """Copies, as a forward may change them."""
        if device not in self._placed:
            self._placed[device] = {name: placed(buffer.detach(), device) for name, buffer in self._buffers.items()}
        found = {}
        for name, buffer in self._placed[device].items():
            values = self._slices.narrowed(name, buffer, structure)
            found[name] = values.clone() if values is buffer else values
        return found
