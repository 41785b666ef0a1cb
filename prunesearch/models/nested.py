"""The tensors inside whatever a forward takes or returns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor of nested tuples, lists, mappings and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in([getattr(value, item.name) for item in fields(value)])


def mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same nest with something else in the place of each tensor, in the order of `tensors_in`."""
    if isinstance(value, Tensor):
        return function(value)
    if not any(True for _ in tensors_in(value)):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, function) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(item, function) for item in value)
    if isinstance(value, Mapping):
        return _with_items(value, {key: mapped(item, function) for key, item in value.items()})
    other = copy.copy(value)
    for name in (item.name for item in fields(value)):
        object.__setattr__(other, name, mapped(getattr(value, name), function))  # also of a frozen one
    return other


def _with_items(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(value) is dict:
        return items
    other = copy.copy(value)  # keeps what a class derived from a dictionary knows besides its items
    for key, item in items.items():
        other[key] = item  # type: ignore[index]
    return other


@dataclass(frozen=True, eq=False)
class Nest:
    """Puts tensors into the places of those of an example: an operator of a recorded forward.

    Attributes:
        example: The nest; its tensors do not matter.
    """

    example: Any
    __name__ = "nest"

    def __call__(self, *tensors: Any) -> Any:
        """The nest with these tensors, in order."""
        given = iter(tensors)
        return mapped(self.example, lambda _: next(given))


def bytes_of(value: Any) -> int:
    """What its tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(value))
