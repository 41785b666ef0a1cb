"""Operators that join tensors, take them apart, pad them, take slices of them, or reduce them along dimensions."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from prunesearch.models.normalised import part_of, set_item
from prunesearch.models.operators.kind import Kind
from prunesearch.models.operators.values import (
    Tracked,
    Value,
    Walk,
    argument,
    combined,
    dims_of,
    freeze_others,
    give_up,
    position,
    tracked,
)
from prunesearch.models.recorded import Position
from prunesearch.structure import IntArray

# --- joining ----------------------------------------------------------------------------------------------------------


def _tensors(walk: Walk, node: fx.Node) -> list[tuple[Any, Tracked | None, tuple[int, ...]]] | None:
    """Tensors given as one sequence: the argument, its channels, its shape."""
    given = argument(node, 0, "tensors")
    if isinstance(given, (tuple, list)):
        return [(item, walk.value(item), walk.shape(item)) for item in given if walk.is_tensor(item)]
    values = walk.values(given)
    if not isinstance(values, tuple):
        return None
    each = [value for value in values if not isinstance(value, tuple)]
    if len(each) < len(values):
        return None
    return [(None, value, shape) for value, shape in zip(each, given.meta["shapes"], strict=True)]


def concatenate(walk: Walk, node: fx.Node) -> Value:
    """`torch.cat`: along one dimension it joins channels, along the others it ties them."""
    tensors, shape = _tensors(walk, node), walk.shape(node)
    dims = dims_of(walk, argument(node, 1, "dim", "axis", default=0), len(shape))
    if tensors is None or dims is None:
        return give_up(walk, node)
    (dim,) = dims
    tensors = [item for item in tensors if item[2] != (0,)]  # torch leaves those out
    axes: dict[int, IntArray | None] = {}
    for d in range(len(shape)):
        held = [None if value is None else value.at(d) for _, value, _ in tensors]
        if d == dim:
            axes[d] = _joined(walk, node, held, [size[d] for _, _, size in tensors])
        else:
            axes[d] = _tied(walk, node, held, shape[d])
    return tracked(axes)


def _joined(walk: Walk, node: fx.Node, held: list[IntArray | None], sizes: list[int]) -> IntArray | None:
    if all(labels is None for labels in held):
        return None
    return np.concatenate(
        [_staying(walk, node, size) if labels is None else labels for labels, size in zip(held, sizes, strict=True)]
    )


def _staying(walk: Walk, node: fx.Node, size: int) -> IntArray:
    labels = walk.labels.fresh(size)
    walk.freeze(labels, node, "joins it with something whose size stays")
    return labels


def _tied(walk: Walk, node: fx.Node, held: list[IntArray | None], size: int) -> IntArray | None:
    known = [labels for labels in held if labels is not None]
    for labels in known[1:]:
        walk.labels.tie(known[0], labels)
    if known and len(known) < len(held) and size > 1:
        walk.freeze(known[0], node, "combines it with something whose size stays")
        return None
    return known[0] if known else None


def stack(walk: Walk, node: fx.Node) -> Value:
    """`torch.stack`: tensors of one shape, along a new dimension."""
    tensors, shape = _tensors(walk, node), walk.shape(node)
    dims = dims_of(walk, argument(node, 1, "dim", default=0), len(shape))
    if tensors is None or dims is None:
        return give_up(walk, node)
    axes: dict[int, IntArray | None] = {}
    for d in range(len(shape) - 1):
        held = [None if value is None else value.at(d) for _, value, _ in tensors]
        axes[d + (d >= dims[0])] = _tied(walk, node, held, tensors[0][2][d])
    return tracked(axes)


# --- taking apart -----------------------------------------------------------------------------------------------------


def _parted(value: Tracked | None, dim: int, parts: list[IntArray] | None, n: int) -> Value:
    """Several tensors that have different channels along one dimension, and the same along the others."""
    if value is None:
        return (None,) * n
    others: dict[int, IntArray | None] = {d: labels for d, labels in value.axes.items() if d != dim}
    return tuple(tracked({**others, dim: None if parts is None else parts[i]}) for i in range(n))


def _taken_apart(walk: Walk, node: fx.Node, *names: str, at: int = 2) -> tuple[Tracked, int] | None:
    """What an operator takes apart, and along which dimension; None if that is not known.

    Args:
        walk: The walk.
        node: The operator.
        names: Of its first argument.
        at: The position of the dimension among its arguments.
    """
    source = argument(node, 0, *names)
    value, before = walk.value(source), walk.shape(source)
    dims = dims_of(walk, argument(node, at, "dim", default=0), len(before))
    if value is None or dims is None:
        return None
    (dim,) = dims
    return value, dim


def chunk(walk: Walk, node: fx.Node) -> Value:
    """`chunk` into equal parts: what goes, goes from all of them, so that they stay equal."""
    found, n = _taken_apart(walk, node, "input"), len(node.meta["shapes"])
    if found is None:
        return give_up(walk, node)
    value, dim = found
    labels = value.at(dim)
    if labels is None:
        return _parted(value, dim, None, n)
    if len(labels) % n or walk.plain(argument(node, 1, "chunks")) != n:
        return give_up(walk, node)
    return _parted(value, dim, _equal_parts(walk, labels, n), n)


def _equal_parts(walk: Walk, labels: IntArray, n: int) -> list[IntArray]:
    parts = labels.reshape(n, -1)
    walk.labels.tie(labels, np.tile(parts[0], n))
    return list(parts)


def split(walk: Walk, node: fx.Node) -> Value:
    """`split` into equal parts like `chunk`, or into parts of given sizes, each on its own."""
    found, n = _taken_apart(walk, node, "tensor", "self", "input"), len(node.meta["shapes"])
    names = ("split_size_or_sections", "split_size", "split_sizes")
    if found is None:
        return give_up(walk, node)
    value, dim = found
    labels = value.at(dim)
    if labels is None:
        return _parted(value, dim, None, n)
    given, at = argument(node, 1, *names), position(node, 1, *names)
    if isinstance(given, (tuple, list)):
        sizes = [walk.plain(item) for item in given]
        parts = np.split(labels, np.cumsum(sizes)[:-1])
        for i, some in enumerate(parts):
            if not walk.fits(node, (*at, i), some):
                walk.freeze(some, node, "has sizes that cannot be changed")
        return _parted(value, dim, parts, n)
    if len(labels) % walk.plain(given) == 0:
        parts = _equal_parts(walk, labels, n)
        if not walk.fits(node, at, parts[0]):
            walk.freeze(labels, node, "has sizes that cannot be changed")
        return _parted(value, dim, parts, n)
    return give_up(walk, node)


def tensor_split(walk: Walk, node: fx.Node) -> Value:
    """`tensor_split` into equal parts like `chunk`, or at given positions, which follow the channels before them."""
    found, n = _taken_apart(walk, node, "input", "self"), len(node.meta["shapes"])
    names = ("indices_or_sections", "indices", "sections")
    if found is None:
        return give_up(walk, node)
    value, dim = found
    labels = value.at(dim)
    if labels is None:
        return _parted(value, dim, None, n)
    given, at = argument(node, 1, *names), position(node, 1, *names)
    if isinstance(given, (tuple, list)):
        ends = [walk.plain(item) for item in given]
        if ends != sorted(ends) or any(end < 0 for end in ends):
            return give_up(walk, node)
        for i, end in enumerate(ends):
            if not walk.fits(node, (*at, i), labels[:end]):
                walk.freeze(labels, node, "has sizes that cannot be changed")
        return _parted(value, dim, np.split(labels, ends), n)
    if len(labels) % n or walk.plain(given) != n:
        return give_up(walk, node)
    return _parted(value, dim, _equal_parts(walk, labels, n), n)


def unbind(walk: Walk, node: fx.Node) -> Value:
    """`unbind`, and iterating: one tensor for each position along a dimension that keeps its size."""
    found, n = _taken_apart(walk, node, "input", at=1), len(node.meta["shapes"])
    if found is None:
        return give_up(walk, node)
    value, dim = found
    walk.freeze(value.at(dim), node, "takes single channels")
    part = tracked({d - (d > dim): labels for d, labels in value.axes.items() if d != dim})
    return (part,) * n


def part(walk: Walk, node: fx.Node) -> Value:
    """One of several tensors that an operator gave."""
    values, key = walk.values(node.args[0]), node.args[1]
    if isinstance(values, tuple) and isinstance(key, int):
        return values[key]
    return None


def glu(walk: Walk, node: fx.Node) -> Value:
    """`F.glu`: one half times the other, so that the same channels go from both."""
    source = argument(node, 0, "input")
    value, before = walk.value(source), walk.shape(source)
    given: Any = walk.module_of(node).dim if node.op == "call_module" else argument(node, 1, "dim", default=-1)
    dims = dims_of(walk, given, len(before))
    if value is None or dims is None:
        return give_up(walk, node)
    labels = value.at(dims[0])
    if labels is None:
        return value
    return Tracked({**value.axes, dims[0]: _equal_parts(walk, labels, 2)[0]})


# --- slices -----------------------------------------------------------------------------------------------------------


def get_item(walk: Walk, node: fx.Node) -> Value:
    """Slices, single positions and new dimensions; or one of several tensors."""
    source = node.args[0]
    values = walk.values(source)
    if isinstance(values, tuple):
        return part(walk, node)
    index: Any = node.args[1]
    indices = list(index) if isinstance(index, tuple) else [index]
    if all(walk.is_tensor(item) for item in indices):
        return _looked_up(walk, node, source, indices)
    if sum(walk.is_tensor(item) for item in indices) == 1 and all(
        walk.is_tensor(item) or item == slice(None) for item in indices
    ):
        return _looked_up_along(walk, node, source, indices)
    result = _indexed(walk, node, source)
    return give_up(walk, node) if result is None else tracked(result[0])


def _looked_up(walk: Walk, node: fx.Node, source: Any, indices: Sequence[Any]) -> Value:
    """`table[index]`, with numbers in tensors: of the first dimensions; the others are what they were."""
    value, n = walk.value(source), len(indices)
    rows = max(len(walk.shape(index)) for index in indices)
    more = rows - n
    if value is None or len(walk.shape(source)) + more != len(walk.shape(node)):
        return give_up(walk, node)  # such as a mask, which takes several dimensions
    for index in indices:
        freeze_others(walk, node, index, [], "looks rows up by it")
    for dim in range(n):
        walk.freeze(value.at(dim), node, "takes some of the channels")
    return tracked({dim + more: labels for dim, labels in value.axes.items() if dim >= n})


def _looked_up_along(walk: Walk, node: fx.Node, source: Any, indices: Sequence[Any]) -> Value:
    """`table[:, index]`: numbers in a tensor along one dimension, which may become several; the others are whole."""
    (dim,) = [dim for dim, item in enumerate(indices) if walk.is_tensor(item)]
    value, rows = walk.value(source), walk.shape(indices[dim])
    before, after = walk.shape(source), walk.shape(node)
    if value is None or (*before[:dim], *rows, *before[dim + 1 :]) != after:
        return give_up(walk, node)  # such as a mask
    freeze_others(walk, node, indices[dim], [], "looks rows up by it")
    walk.freeze(value.at(dim), node, "takes some of the channels")
    more = len(rows) - 1
    return tracked({d + more * (d > dim): labels for d, labels in value.axes.items() if d != dim})


def assigned(walk: Walk, node: fx.Node) -> Value:
    """`tensor[index] = value`: what is written has the channels of its place."""
    source, written = node.args[0], node.args[2]
    result = _indexed(walk, node, source)
    value = walk.value(source)
    if result is None:
        return give_up(walk, node)
    axes, shape = result
    if walk.is_tensor(written):
        own, size = walk.value(written), walk.shape(written)
        for dim in range(len(shape)):
            theirs = dim - (len(shape) - len(size))
            labels = None if own is None or theirs < 0 else own.at(theirs)
            here = axes.get(dim)
            if here is not None and labels is not None and size[theirs] == shape[dim]:
                walk.labels.tie(here, labels)
            elif here is not None and theirs >= 0 and size[theirs] > 1:
                walk.freeze(here, node, "is written to with something whose size stays")
            elif labels is not None:
                walk.freeze(labels, node, "is written where the size stays")
    return value


def _indexed(walk: Walk, node: fx.Node, source: Any) -> tuple[dict[int, IntArray | None], list[int]] | None:
    """Channels and sizes of `source[index]`; None if the index is not of slices and single positions."""
    before, value = walk.shape(source), walk.value(source)
    given: Any = node.args[1]
    alone = not isinstance(given, tuple)
    entries = [given] if alone else list(given)
    if any(walk.is_tensor(entry) or isinstance(entry, (list, bool)) for entry in entries):
        return None
    named = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if Ellipsis not in entries:
        entries.append(Ellipsis)
    axes: dict[int, IntArray | None] = {}
    shape: list[int] = []
    dim = 0
    for index, entry in enumerate(entries):
        at: Position = (1,) if alone else (1, index)
        if entry is None:
            shape.append(1)
        elif entry is Ellipsis:
            for _ in range(len(before) - named):
                axes[len(shape)] = None if value is None else value.at(dim)
                shape.append(before[dim])
                dim += 1
        else:
            labels = None if value is None else value.at(dim)
            if isinstance(entry, slice):
                size = len(range(*_plain_slice(walk, entry).indices(before[dim])))
                axes[len(shape)] = None if labels is None else _sliced(walk, node, labels, entry, at)
                shape.append(size)
            else:
                walk.freeze(labels, node, "takes a single channel")
                walk.keep(entry, node, "takes a position by how many there are")
            dim += 1
    return axes, shape


def _plain_slice(walk: Walk, entry: slice) -> slice:
    return slice(walk.plain(entry.start), walk.plain(entry.stop), walk.plain(entry.step))


def _sliced(walk: Walk, node: fx.Node, labels: IntArray, entry: slice, at: Position) -> IntArray | None:
    """Consecutive channels, or every so many. A slice to the end, or beyond, goes there however many stay."""
    width, plain = len(labels), _plain_slice(walk, entry)
    start, stop = plain.start or 0, width if plain.stop is None else plain.stop
    follows = [end for end in (entry.start, entry.stop) if walk.number(end) is not None]
    if type(plain.step) is int and plain.step > 1 and start < plain.step and stop >= width and not follows:
        step = plain.step
        if width % step == 0 and walk.number(entry.step) is None:  # the same of every so many, which go together
            walk.labels.tie(labels, np.repeat(labels[::step], step))
            return labels[start::step]
    if plain.step not in (None, 1) or start < 0 or stop <= start:
        walk.freeze(labels, node, "takes some of the channels")
        return None
    for name, end in (("start", start), ("stop", stop)):
        mine = getattr(entry, name)
        if (0 < end < width or mine in follows) and not walk.fits(node, (*at, name), labels[:end]):
            walk.freeze(labels, node, "has ends that cannot be changed")
            return None
    return labels[start:stop]


def narrow(walk: Walk, node: fx.Node) -> Value:
    """`narrow`, `select` and the like: only along dimensions that keep their size."""
    source = argument(node, 0, "input")
    value, before, after = walk.value(source), walk.shape(source), walk.shape(node)
    dims = dims_of(walk, argument(node, 1, "dim"), len(before))
    if value is None or dims is None:
        return give_up(walk, node)
    walk.freeze(value.at(dims[0]), node, "takes some of the channels")
    less = len(before) - len(after)
    return tracked({d - less * (d > dims[0]): labels for d, labels in value.axes.items() if d != dims[0]})


# --- padding ----------------------------------------------------------------------------------------------------------


def pad(walk: Walk, node: fx.Node) -> Value:
    """`F.pad`: constant channels before and after the others go with what they are added to."""
    source = argument(node, 0, "input")
    value, before = walk.value(source), walk.shape(source)
    at, amounts = position(node, 1, "pad"), argument(node, 1, "pad")
    mode = argument(node, 2, "mode", default="constant")
    if value is None:
        return None
    if not isinstance(amounts, (tuple, list)):
        return give_up(walk, node)
    axes: dict[int, IntArray | None] = {}
    for dim, labels in value.axes.items():
        first = 2 * (len(before) - 1 - dim)
        axes[dim] = _padded(walk, node, labels, (*at,), amounts, first, str(mode))
    return tracked(axes)


def _padded(
    walk: Walk, node: fx.Node, labels: IntArray, at: Position, amounts: Any, first: int, mode: str
) -> IntArray | None:
    pair = [walk.plain(amount) for amount in amounts[first : first + 2]]
    if not any(pair):
        return labels
    if any(n < 0 for n in pair) or mode != "constant":
        walk.freeze(labels, node, "takes channels away, or repeats some")
        return None
    sides = []
    for i, n in enumerate(pair):
        sides.append(walk.labels.fresh(n))
        if n and not walk.fits(node, (*at, first + i), sides[-1]):
            walk.freeze(sides[-1], node, "adds a number of channels that cannot be changed")
    return np.concatenate([sides[0], labels, sides[1]])


# --- reductions -------------------------------------------------------------------------------------------------------


def reduce(walk: Walk, node: fx.Node) -> Value:
    """`mean`, `sum`, `amax`, `std`: along a dimension that is mixed, of the channels that stay."""
    source = argument(node, 0, "input")
    value, before = walk.value(source), walk.shape(source)
    if value is None:
        return None
    other = walk.value(argument(node, 1, "other")) is not None or walk.is_tensor(argument(node, 1, "other"))
    if other:  # max and min of two tensors
        return combined(walk, node, (source, argument(node, 1, "other")), walk.shape(node))
    name = getattr(node.target, "__name__", str(node.target))
    index, names = (2, ("dim", "axis")) if name == "norm" else (1, ("dim", "axis"))
    given = argument(node, index, *names)
    if isinstance(given, bool):  # std(unbiased) of everything
        given = None
    dims = list(range(len(before))) if given is None or given == () else dims_of(walk, given, len(before))
    if dims is None:
        return give_up(walk, node)
    several = "shapes" in node.meta
    for dim in dims:
        labels = value.at(dim)
        if labels is not None and _gives_positions(node, name):
            walk.freeze(labels, node, "says which of the channels")
        elif labels is not None:
            walk.read(node, dim, labels)
    after = node.meta["shapes"][0] if several else walk.shape(node)
    gone = [] if len(after) == len(before) else dims
    kept = tracked({d - sum(dim < d for dim in gone): labels for d, labels in value.axes.items() if d not in dims})
    return (kept,) * len(node.meta["shapes"]) if several else kept


def _gives_positions(node: fx.Node, name: str) -> bool:
    """Whether the result has numbers of channels in it that something uses."""
    if name in ("argmax", "argmin"):
        return True
    is_pair = name in ("max", "min", "median") and "shapes" in node.meta
    return is_pair and any(len(user.args) < 2 or user.args[1] != 0 for user in node.users)


_REDUCTIONS = (
    torch.mean, torch.sum, torch.amax, torch.amin, torch.max, torch.min, torch.std, torch.var, torch.norm, torch.prod,
    torch.logsumexp, torch.argmax, torch.argmin, torch.std_mean, torch.var_mean, torch.functional.norm, torch.all,
    torch.any, torch.linalg.vector_norm, torch.median,
    "mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "prod", "logsumexp", "argmax", "argmin", "all",
    "any", "median",
)  # fmt: skip

KINDS: dict[Any, Kind] = {
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), Kind(concatenate)),
    torch.stack: Kind(stack),
    **dict.fromkeys((torch.chunk, "chunk"), Kind(chunk)),
    **dict.fromkeys((torch.split, torch.functional.split, "split", "split_with_sizes"), Kind(split)),
    **dict.fromkeys((torch.tensor_split, "tensor_split"), Kind(tensor_split)),
    **dict.fromkeys((torch.unbind, "unbind"), Kind(unbind)),
    part_of: Kind(part),
    **dict.fromkeys((nn.GLU, F.glu), Kind(glu)),
    F.pad: Kind(pad),
    operator.getitem: Kind(get_item),
    set_item: Kind(assigned),
    **dict.fromkeys((torch.narrow, torch.select, torch.index_select, "narrow", "select", "index_select"), Kind(narrow)),
    **dict.fromkeys(_REDUCTIONS, Kind(reduce, masking="without")),
}
