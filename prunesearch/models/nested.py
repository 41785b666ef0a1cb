"""The tensors inside whatever a forward takes or returns, and batches: what a network is given of n images at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.fx.immutable_collections import immutable_dict

from prunesearch.models.devices import placed

Batch: TypeAlias = Any
"""A tensor (n, ...), or a tuple (positional inputs), list or dictionary (inputs by name) of such, nested or not."""


class Ragged(list[Any]):
    """What cannot be stacked of n examples: boxes, of which each image has another number, or images of several sizes.

    One item per example.
    """


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


def mapped(value: Any, function: Callable[[Tensor], Any], ragged: Callable[[Ragged], Any] | None = None) -> Any:
    """The same nest with something else in the place of each tensor, in the order of `tensors_in`.

    Args:
        value: The nest.
        function: Of a tensor.
        ragged: Of what is one item per example; by default each tensor in it is changed by itself.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Ragged) and ragged is not None:
        return ragged(value)
    if not any(True for _ in tensors_in(value)) and ragged is None:
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, function, ragged) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(item, function, ragged) for item in value)
    if isinstance(value, Mapping):
        return _with_items(value, {key: mapped(item, function, ragged) for key, item in value.items()})
    if not is_dataclass(value) or isinstance(value, type):
        return value
    other = copy.copy(value)
    for name in (item.name for item in fields(value)):
        object.__setattr__(other, name, mapped(getattr(value, name), function, ragged))  # also of a frozen one
    return other


def _with_items(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(value) in (dict, immutable_dict):  # the latter is what a recorded forward returns
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


def as_tensors(value: Any) -> Any:
    """The same nest with tensors in the place of numpy's arrays and numbers."""
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        return from_numpy(array) if array.dtype.kind in "biufc" else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(as_tensors, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(as_tensors, value))
    if isinstance(value, Mapping):
        return {key: as_tensors(item) for key, item in value.items()}
    return value


def without_arrays(value: Any) -> Any:
    """A nest as it is, or, if there are arrays of numpy in it, with tensors in their place."""
    return as_tensors(value) if any(isinstance(x, np.ndarray) for x in parts_of(value).values()) else value


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """Numpy's own float64, which networks seldom have, becomes torch's default type, as Python's floats do."""
    native = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    tensor = torch.from_numpy(native)
    return tensor.to(torch.get_default_dtype()) if tensor.dtype == torch.float64 else tensor


def bytes_of(value: Any) -> int:
    """What its tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(value))


# --- batches ----------------------------------------------------------------------------------------------------------


def parts_of(value: Any, name: str = "") -> dict[str, Any]:
    """What nested tuples, lists and mappings hold, in order, by where it is: `"mask"`, `"0"`, `"boxes.1"`.

    Anything else, such as a tensor, is the only part, called `""`.
    """
    if isinstance(value, Mapping):
        inside = {str(key): item for key, item in value.items()}
    elif isinstance(value, (tuple, list)) and not isinstance(value, Ragged):
        inside = {str(key): item for key, item in enumerate(value)}
    elif is_dataclass(value) and not isinstance(value, type):
        inside = {item.name: getattr(value, item.name) for item in fields(value)}
    else:
        return {name: value}
    found: dict[str, Any] = {}
    for key, item in inside.items():
        found |= parts_of(item, f"{name}.{key}" if name else key)
    return found


def members(batch: Batch) -> tuple[Batch, ...]:
    """What a tuple holds, or the batch alone."""
    return batch if isinstance(batch, tuple) else (batch,)


def size_of(batch: Batch) -> int:
    """How many images there are: the first dimension of every tensor.

    Raises:
        ValueError: Tensors disagree, or there is none.
    """
    if isinstance(batch, Tensor):
        return len(batch)
    tensors = {name: x for name, x in parts_of(batch).items() if isinstance(x, (Tensor, Ragged))}
    if not tensors:
        raise ValueError(f"Expected a batch of tensors, got a {type(batch).__name__} without one.")
    sizes = {name: None if isinstance(x, Tensor) and not x.dim() else len(x) for name, x in tensors.items()}
    (first, n), *_ = sizes.items()
    for name, other in sizes.items():
        if other is None:
            raise ValueError(f"Expected every input with n images first, (n, ...); {name} is a single number.")
        if other != n:
            raise ValueError(f"Expected as many images in every input; {first} has {n} and {name} has {other}.")
    assert n is not None
    return n


def taken(batch: Batch, index: Tensor | slice) -> Batch:
    """Some images of a batch: those of an index or a slice."""
    return mapped(batch, lambda x: x[index], lambda items: _some(items, index))


def _some(items: Ragged, index: Tensor | slice) -> Ragged:
    return Ragged(items[index] if isinstance(index, slice) else [items[int(i)] for i in index])


def moved(batch: Batch, device: torch.device | str | None) -> Batch:
    """The batch on a device; None leaves it where it is."""
    return batch if device is None else mapped(batch, lambda x: placed(x, torch.device(device)))


def in_format(batch: Batch, layout: torch.memory_format) -> Batch:
    """The batch with its tensors of four dimensions laid out so in memory."""
    return mapped(batch, lambda x: x.contiguous(memory_format=layout) if x.dim() == 4 else x)


def device_of(batch: Batch) -> torch.device:
    """Where its first tensor is."""
    return next(tensors_in(batch)).device


def stacked(items: Sequence[Any]) -> Any:
    """Tensors of one shape as a tensor, several None as None, all else as one item per example."""
    if items and all(isinstance(item, Tensor) and item.shape == items[0].shape for item in items):
        return torch.stack(list(items))
    return None if all(item is None for item in items) else Ragged(items)


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches, one after the other, as one: tensors of the same place are put together.

    Where their examples have several shapes, it is one item per example.
    """
    parts = [parts_of(batch) for batch in batches]
    names = iter([name for name, x in parts[0].items() if isinstance(x, (Tensor, Ragged))])

    def column(_: Any) -> Any:
        name = next(names)
        found = [part[name] for part in parts]
        if all(isinstance(x, Tensor) and x.shape[1:] == found[0].shape[1:] for x in found):
            return torch.cat(found)
        return Ragged(chain.from_iterable(found))

    return mapped(batches[0], column, column)


def cut(batch: Batch, pieces: int) -> tuple[Batch, ...]:
    """A batch in so many pieces of nearly equal length."""
    if isinstance(batch, Tensor):
        return batch.tensor_split(pieces)
    parts = [part for part in torch.arange(size_of(batch)).tensor_split(pieces) if len(part)]
    return tuple(taken(batch, slice(int(part[0]), int(part[-1]) + 1)) for part in parts)


def repeated(batch: Batch, k: int) -> Batch:
    """A batch k times, one after the other."""
    return mapped(batch, lambda x: x.repeat(k, *[1] * (x.dim() - 1)), lambda items: Ragged([*items] * k))


def in_float32(value: Any) -> Any:
    """A nest with its floats in float32 if they are in less: sums of many numbers in 16 bits lose most digits."""
    return mapped(value, lambda x: x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x)


def arguments(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a forward is called with: a tensor alone, tuples and lists by position, dictionaries by name.

    Raises:
        ValueError: It is images of several sizes, of which a network takes one size at a time.
    """
    if isinstance(batch, Ragged):
        raise ValueError(
            f"Expected inputs of one size, got {len(batch)} of several. A network is called with one size at a time, "
            "and with a tensor (n, ...), never with a list of images."
        )
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (tuple(batch), {}) if isinstance(batch, (tuple, list)) else ((batch,), {})


def called(model: Callable[..., Any], batch: Batch) -> Any:
    """What a network returns for a batch."""
    if isinstance(batch, Tensor):
        return model(batch)
    positional, by_name = arguments(batch)
    return model(*positional, **by_name)


def batch_of(positional: Sequence[Any], by_name: Mapping[str, Any]) -> Batch:
    """What a forward is called with, as one batch: of a single tensor that alone."""
    if by_name:
        return dict(by_name)
    return positional[0] if len(positional) == 1 and isinstance(positional[0], Tensor) else tuple(positional)


def described(batch: Batch) -> str:
    """Shapes and types, for messages: of a tensor `"shape (2, 3) and type torch.int64"`."""
    if isinstance(batch, Tensor):
        return f"shape {tuple(batch.shape)} and type {batch.dtype}"
    if isinstance(batch, Ragged):
        return f"{len(batch)} examples of several shapes"
    inside = {name: x for name, x in parts_of(batch).items() if isinstance(x, Tensor)}
    return ", ".join(f"{name} {tuple(x.shape)} {x.dtype}" for name, x in inside.items())


def in_order_of(example: Batch, batch: Batch) -> tuple[Tensor, ...]:
    """The tensors of a batch in the order of those of an example, whatever the order of its dictionaries.

    Raises:
        ValueError: They do not hold tensors in the same places; the message names the first that only one of them has.
    """
    if isinstance(batch, Tensor) and isinstance(example, Tensor):
        return (batch,)
    wanted, given = (
        {name: x for name, x in parts_of(_told(each)).items() if isinstance(x, Tensor)} for each in (example, batch)
    )
    odd = next((name for name in {**wanted, **given} if (name in wanted) != (name in given)), None)
    if odd is not None:
        trouble = "is missing" if odd in wanted else "was not there"
        raise ValueError(
            f"Expected inputs as the network was traced with ({_listed(example)}), got {_listed(batch)}: the input "
            f"{odd} {trouble}."
        )
    return tuple(given[name] for name in wanted)


def _told(batch: Batch) -> Batch:
    """A tensor alone is the first positional input."""
    return (batch,) if isinstance(batch, Tensor) else batch


def _listed(batch: Batch) -> str:
    return "one tensor" if isinstance(batch, Tensor) else ", ".join(parts_of(batch)) or "none"
