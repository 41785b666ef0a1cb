"""Copies of somebody's module."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prunesearch.models.nested import mapped, tensors_in

Module = TypeVar("Module", bound=nn.Module)
_COPIED = (torch.strided, torch.sparse_coo)
"""Layouts of tensors of which torch makes deep copies, if these were not computed."""


def copied(model: Module, memo: dict[int, Tensor] | None = None) -> Module:
    """A deep copy, also of a module that holds tensors which were computed, such as the weights of `weight_norm`.

    Args:
        model: The module.
        memo: What takes the place of some tensors, by their ids.
    """
    replaced = dict(memo or {})
    for module in model.modules():
        for value in tensors_in([*vars(module).values()]):
            if not value.is_leaf or (value.layout not in _COPIED and not isinstance(value, nn.Parameter)):
                replaced.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(model, replaced)


def copied_value(value: Any, device: torch.device | str | None = None) -> Any:
    """A copy of what a state holds under one name: a tensor, or whatever extra state a module has.

    Args:
        value: What it holds.
        device: Where the tensors of the copy are; by default where they were.
    """

    def other(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device or tensor.device, copy=True)

    return other(value) if isinstance(value, Tensor) else copy.deepcopy(mapped(value, other))


def layer_with(module: Module, tensors: Mapping[str, Tensor]) -> Module:
    """A copy of one layer with some other parameters and buffers, by name; it holds whatever else the original holds.

    Args:
        module: A module without children.
        tensors: What takes the place of its own.
    """
    layer = copy.copy(module)
    layer._parameters = {
        name: nn.Parameter(tensors[name], requires_grad=parameter.requires_grad)
        if parameter is not None and name in tensors
        else parameter
        for name, parameter in module._parameters.items()
    }
    layer._buffers = {name: tensors.get(name, buffer) for name, buffer in module._buffers.items()}
    if isinstance(layer, nn.RNNBase):  # it holds its weights a second time
        layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]
    return layer


def on_device(model: Module, device: torch.device | str) -> Module:
    """A copy on a device, with all tensors that its modules hold, also those that are no parameters or buffers."""
    other = copied(model).to(device)
    for module in other.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                setattr(module, name, value.to(device))
    return other


def without_data(model: Module) -> Module:
    """A copy on the meta device: its tensors have shapes, and no values."""
    return on_device(model, "meta")
