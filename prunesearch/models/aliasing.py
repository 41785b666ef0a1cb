"""Which values of a forward live in the same memory, and which of its nodes write there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from prunesearch.models.nested import tensors_in


@dataclass(frozen=True)
class Aliasing:
    """How a forward uses memory.

    Attributes:
        writers: For a node, the nodes that wrote to the memory of one of its arguments since that was computed.
        unsteady: Nodes whose value is written to later, or read in an older version; they cannot be kept.
        copied: Inputs of the forward that it writes to.
    """

    writers: Mapping[fx.Node, tuple[fx.Node, ...]] = field(default_factory=dict)
    unsteady: frozenset[fx.Node] = frozenset()
    copied: frozenset[fx.Node] = frozenset()


def aliasing(values: Mapping[fx.Node, Any], writing: Iterable[fx.Node]) -> Aliasing:
    """Find out from the values of one forward, in order, and the nodes that were seen writing to an argument."""
    order = {node: i for i, node in enumerate(values)}
    written_by = frozenset(writing)
    places: dict[int, set[fx.Node]] = {}
    for node, value in values.items():
        for tensor in tensors_in(value):
            memory = tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else id(tensor)
            places.setdefault(memory, set()).add(node)
    writers: dict[fx.Node, list[fx.Node]] = {}
    unsteady: set[fx.Node] = set()
    for inhabitants in places.values():
        readers = sorted({user for node in inhabitants for user in node.users if user in order}, key=order.__getitem__)
        writes = [node for node in readers if node in written_by]
        if not writes:
            continue
        unsteady.update(node for node in inhabitants if order[node] < order[writes[-1]])
        for reader in readers:
            since = min(order[node] for node in reader.all_input_nodes if node in inhabitants)
            between = [node for node in writes if since < order[node] < order[reader]]
            if [node for node in between if node not in reader.all_input_nodes]:
                unsteady.update(inhabitants)
                unsteady.update(writes)
                writers.setdefault(reader, []).extend(between)
    copied = frozenset(node for node in unsteady if node.op == "placeholder")
    return Aliasing({node: tuple(before) for node, before in writers.items()}, frozenset(unsteady), copied)


def viewed(tensor: Tensor, *shape: Any, **keywords: Any) -> Tensor:
    """`Tensor.view`, also of a tensor whose memory is in an order in which it is none: that is copied.

    So is what has its channels last, whose views would be in an order that is slow later. A forward that writes to the
    view then does not write to the tensor; `aliasing` finds out whether it matters.
    """
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.contiguous()
    try:
        return tensor.view(*shape, **keywords)
    except RuntimeError:
        return tensor.contiguous().view(*shape, **keywords)


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether one can be written over the other with nothing but values changed."""
    return (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)


def is_plain(tensor: Tensor) -> bool:
    """Whether its memory is laid out as that of a new tensor, in whose place it can then be.

    Another layout, even if only of dimensions of size 1, could give other roundings later.
    """
    order = [0, *range(2, tensor.dim()), 1] if 1 not in tensor.shape and tensor.dim() == 4 else range(tensor.dim())
    return any(_is_dense(tensor, dims) for dims in (order, range(tensor.dim())))


def _is_dense(tensor: Tensor, order: Sequence[int]) -> bool:
    stride = 1
    for dim in reversed(order):
        if tensor.stride(dim) != stride:
            return False
        stride *= tensor.shape[dim]
    return True
