"""Copies of somebody's module."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

from prunesearch.models.nested import tensors_in

Module = TypeVar("Module", bound=nn.Module)


def copied(model: Module, memo: dict[int, Tensor] | None = None) -> Module:
    """A deep copy, also of a module that holds tensors which were computed, such as the weights of `weight_norm`.

    Args:
        model: The module.
        memo: What takes the place of some tensors, by their ids.
    """
    replaced = dict(memo or {})
    for module in model.modules():
        for value in tensors_in([*vars(module).values()]):
            if not value.is_leaf:  # which torch does not copy
                replaced.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(model, replaced)


def without_data(model: Module) -> Module:
    """A copy on the meta device, with all tensors that its modules hold: they have shapes, and no values."""
    light = copied(model).to("meta")
    for module in light.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                setattr(module, name, value.to("meta"))
    return light
