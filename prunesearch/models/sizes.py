"""Batches whose images differ in size: what has one size is put together, as a network takes one size at a time."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from prunesearch.models.nested import Batch, Ragged, mapped, parts_of, size_of, stacked, taken, tensors_in

Size: TypeAlias = tuple[tuple[int, ...], ...]
"""The shapes of one example's tensors, in order, without the number of examples."""
_FEWEST = 8
"""Images of one size of which something is estimated."""


def sizes_of(inputs: Batch) -> list[Size]:
    """The size of each of n examples; of a batch of one size, n times that."""
    parts = list(parts_of(inputs).values())
    fixed: Size = tuple(tuple(x.shape[1:]) for x in parts if isinstance(x, Tensor))
    ragged = [x for x in parts if isinstance(x, Ragged)]
    if not ragged:
        return [fixed] * size_of(inputs)
    shapes = [tuple(tuple(x.shape) for x in tensors_in(items)) for items in zip(*ragged, strict=True)]
    return [(*of_one, *fixed) for of_one in shapes]


def size_of_first(inputs: Batch) -> Size:
    """The size of the first example."""
    parts = list(parts_of(inputs).values())
    ragged = [tuple(x.shape) for items in parts if isinstance(items, Ragged) for x in tensors_in(items[0])]
    return (*ragged, *(tuple(x.shape[1:]) for x in parts if isinstance(x, Tensor)))


def has_lists(batch: Batch) -> bool:
    """Whether something in a batch is one item per example, as only inputs of several sizes, boxes and the like are."""
    return not isinstance(batch, Tensor) and any(isinstance(x, Ragged) for x in parts_of(batch).values())


def by_size(inputs: Batch) -> list[Tensor] | None:
    """Indices of the examples of each size, ascending, sizes in the order in which they come.

    None for inputs that are tensors only, which have one size; this is found without a look at them.
    """
    if not has_lists(inputs):
        return None
    found: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes_of(inputs)):
        found.setdefault(size, []).append(index)
    return [torch.tensor(index) for index in found.values()]


def some_of_one_size(batch: Batch, index: Tensor) -> Batch:
    """Some examples, as if they had been read alone: what has one shape is stacked, and what has not stays a list."""
    return mapped(taken(batch, index), _as_it_is, stacked)


def batches_by_size(inputs: Batch, at_most: int | None = None) -> list[Batch]:
    """Inputs as batches of one size each, of at most so many examples; tensors alone are one such, and stay whole."""
    index = by_size(inputs)
    return [inputs] if index is None else [some_of_one_size(inputs, each[:at_most]) for each in index]


def of_first_size(inputs: Batch) -> Batch:
    """Those inputs that have the size of the first."""
    return batches_by_size(inputs)[0]


def of_most_frequent_size(inputs: Batch, asker: str) -> Batch:
    """Those inputs whose size is the most frequent one; of equals the first.

    Args:
        inputs: Of n examples.
        asker: Who looks at them, for the message.

    Raises:
        ValueError: Sizes differ, and there are fewer than eight.
    """
    several = batches_by_size(inputs)
    found = max(several, key=size_of)
    if len(several) > 1 and size_of(found) < _FEWEST:
        raise ValueError(
            f"{asker} compares images of one size, and of {size_of(inputs)} images in {len(several)} sizes at most "
            f"{size_of(found)} have the same. Expected {_FEWEST}. Give more images, or bring them to fewer sizes."
        )
    return found


def _as_it_is(tensor: Tensor) -> Any:
    return tensor
