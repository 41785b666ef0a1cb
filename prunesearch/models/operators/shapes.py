"""Operators that give a tensor another shape: which dimensions its channels are in then, and as how many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from prunesearch.models.operators.kind import Kind
from prunesearch.models.operators.values import (
    Number,
    Shape,
    Tracked,
    Value,
    Walk,
    argument,
    dims_of,
    give_up,
    listed,
    tracked,
)
from prunesearch.models.recorded import Position
from prunesearch.structure import IntArray


@dataclass(frozen=True)
class _Piece:
    """Dimensions that become others: as many elements on either side."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def _pieces(before: Shape, after: Shape) -> list[_Piece]:
    """Cut a change of shape into the smallest changes; dimensions of size 1 belong to none."""
    left = [dim for dim, size in enumerate(before) if size != 1]
    right = [dim for dim, size in enumerate(after) if size != 1]
    pieces = []
    while left and right:
        ins, outs = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(before[d] for d in ins)) != (b := math.prod(after[d] for d in outs)):
            if a < b:
                ins.append(left.pop(0))
            else:
                outs.append(right.pop(0))
        pieces.append(_Piece(tuple(ins), tuple(outs)))
    return pieces


def reshape(walk: Walk, node: fx.Node) -> Value:
    """`view`, `reshape`: each size that follows channels must be a number that does, or -1."""
    source = node.args[0]
    value, before, after = walk.value(source), walk.shape(source), walk.shape(node)
    names = ("shape", "size")
    sizes = listed(node, 1, *names)
    if value is None:
        return _without_channels(walk, node, sizes)
    if len(sizes) != len(after):  # another type of the elements, or a shape computed as a whole
        return give_up(walk, node)
    axes: dict[int, IntArray | None] = {}
    for dim, labels in value.axes.items():
        if before[dim] == 1:
            walk.freeze(labels, node, "moves a single channel")
    for piece in _pieces(before, after):
        axes.update(_moved(walk, node, value, piece, dict(enumerate(sizes))))
    for dim, (_, size) in enumerate(sizes):
        if axes.get(dim) is None:
            walk.keep(size, node, "takes their number for a size that stays")
    return tracked(axes)


def _without_channels(walk: Walk, node: fx.Node, sizes: list[tuple[Position, Any]]) -> Value:
    """A tensor of which nothing is known gets a shape: numbers in it that depend on channels stay."""
    for _, size in sizes:
        walk.keep(size, node, "gives it to something whose size stays")
    return None


def _moved(
    walk: Walk, node: fx.Node, value: Tracked, piece: _Piece, sizes: dict[int, tuple[Position, Any]]
) -> dict[int, IntArray | None]:
    """Channels along the dimensions after a change, where they can be followed."""
    before, after = walk.shape(node.args[0]), walk.shape(node)
    held = {dim: value.axes[dim] for dim in piece.before if dim in value.axes}
    if not held:
        return {}
    if len(piece.before) == len(piece.after) == 2 and [*held] == [piece.before[1]] and _has_images(walk, node, piece):
        return _beside_images(walk, node, held[piece.before[1]], piece, sizes)
    merged = _merged(walk, node, held, piece.before, before)
    if merged is None:
        return {}
    if len(piece.after) == 1:
        (dim,) = piece.after
        if _adapts(walk, node, sizes[dim], merged):
            return {dim: merged}
        walk.freeze(merged, node, "has a size that cannot be changed")
        return {}
    return _split(walk, node, merged, piece.after, after, sizes)


def _has_images(walk: Walk, node: fx.Node, piece: _Piece) -> bool:
    """Whether the first of two dimensions, and it alone, is larger for more images, before and after."""
    before, after = walk.of_images(node.args[0]) & {*piece.before}, walk.of_images(node) & {*piece.after}
    return before == {piece.before[0]} and after == {piece.after[0]}


def _beside_images(
    walk: Walk, node: fx.Node, labels: IntArray, piece: _Piece, sizes: dict[int, tuple[Position, Any]]
) -> dict[int, IntArray | None]:
    """`(n, g c)` becomes `(n g, c)`, or the other way round: of each of g parts the same channels go."""
    before, after = walk.shape(node.args[0])[piece.before[1]], walk.shape(node)[piece.after[1]]
    if before % after == 0:
        parts = labels.reshape(-1, after)
        walk.labels.tie(labels, np.tile(parts[0], len(parts)))
        found = parts[0]
    elif after % before == 0:
        found = np.tile(labels, after // before)
    else:
        walk.freeze(labels, node, "takes them together with the images of a batch")
        return {}
    if _adapts(walk, node, sizes[piece.after[1]], found):
        return {piece.after[1]: found}
    walk.freeze(labels, node, "has a size that cannot be changed")
    return {}


def _merged(
    walk: Walk, node: fx.Node, held: dict[int, IntArray], dims: tuple[int, ...], shape: Shape
) -> IntArray | None:
    """(elements,) labels of several dimensions taken together; one that varies decides, the others stay."""
    first, *others = held
    for dim in others:
        walk.freeze(held[dim], node, "takes several kinds of channels together")
    if not walk.of_images(node.args[0]).isdisjoint(dims):
        walk.freeze(held[first], node, "takes them together with the images of a batch")
        return None
    outer = math.prod(shape[dim] for dim in dims if dim < first)
    inner = math.prod(shape[dim] for dim in dims if dim > first)
    return np.tile(np.repeat(held[first], inner), outer)


def _split(
    walk: Walk,
    node: fx.Node,
    labels: IntArray,
    dims: tuple[int, ...],
    shape: Shape,
    sizes: dict[int, tuple[Position, Any]],
) -> dict[int, IntArray | None]:
    """Channels become several dimensions: one of them follows, the same ones go along all others."""
    grid = labels.reshape([shape[dim] for dim in dims])
    order = _candidates(walk, dims, sizes)
    chosen = order.pop(walk.choose(node, len(order), labels))
    for axis in (chosen, *order):
        along = np.moveaxis(grid, axis, 0).reshape(grid.shape[axis], -1)
        if not _can_adapt(walk, sizes[dims[axis]], labels, along):
            continue
        walk.labels.tie(along.flatten(), np.repeat(along[:, 0], along.shape[1]))
        if _adapts(walk, node, sizes[dims[axis]], along[:, 0]):
            return {dims[axis]: along[:, 0]}
    walk.freeze(labels, node, "has sizes that cannot be changed")
    return {}


def _candidates(walk: Walk, dims: tuple[int, ...], sizes: dict[int, tuple[Position, Any]]) -> list[int]:
    """In which order the dimensions after a split are tried: what computes its size first, then the larger ones."""

    def rank(axis: int) -> tuple[int, int]:
        size = sizes[dims[axis]][1]
        follows = walk.number(size) is not None or walk.plain(size) == -1
        return (0 if follows else 1, -axis)

    return sorted(range(len(dims)), key=rank)


def _can_adapt(walk: Walk, size: tuple[Position, Any], labels: IntArray, along: IntArray) -> bool:
    """Whether a size may follow the channels of its dimension: a number must be of these."""
    number = walk.number(size[1])
    if number is None:
        return True
    return number.form is not None and walk.plain(size[1]) == len(along)


def _adapts(walk: Walk, node: fx.Node, size: tuple[Position, Any], labels: IntArray) -> bool:
    """Let a size be the number of kept channels among `labels`."""
    position, given = size
    return walk.plain(given) == -1 or walk.fits(node, position, labels)


def flatten(walk: Walk, node: fx.Node) -> Value:
    """`flatten`: dimensions are merged, however large they are."""
    source = argument(node, 0, "input")
    value, before, after = walk.value(source), walk.shape(source), walk.shape(node)
    if value is None:
        return None
    if node.op == "call_module":
        module: Any = walk.module_of(node)
        start, end = module.start_dim, module.end_dim
    else:
        start, end = argument(node, 1, "start_dim", default=0), argument(node, 2, "end_dim", default=-1)
    ends = dims_of(walk, (start, end), len(before))
    if ends is None:
        return give_up(walk, node)
    first, last = ends
    merged = {dim: labels for dim, labels in value.axes.items() if first <= dim <= last}
    axes: dict[int, IntArray | None] = {dim: labels for dim, labels in value.axes.items() if dim < first}
    axes |= {dim - (len(before) - len(after)): labels for dim, labels in value.axes.items() if dim > last}
    if merged:
        axes[first] = _merged(walk, node, merged, tuple(range(first, last + 1)), before)
    return tracked(axes)


def unflatten(walk: Walk, node: fx.Node) -> Value:
    """`unflatten`: a dimension becomes several."""
    source = argument(node, 0, "input")
    value, before, after = walk.value(source), walk.shape(source), walk.shape(node)
    if node.op == "call_module":
        return give_up(walk, node) if value is not None else None
    dims = dims_of(walk, argument(node, 1, "dim"), len(before))
    if value is None or dims is None:
        return give_up(walk, node)
    (dim,) = dims
    more = len(after) - len(before)
    axes: dict[int, IntArray | None] = {d + more * (d > dim): labels for d, labels in value.axes.items() if d != dim}
    if dim in value.axes:
        sizes = {dim + i: size for i, size in enumerate(listed(node, 2, "sizes"))}
        piece = tuple(d for d in range(dim, dim + more + 1) if after[d] != 1)
        axes.update(_split(walk, node, value.axes[dim], piece, after, sizes))
    return tracked(axes)


def permute(walk: Walk, node: fx.Node) -> Value:
    """`permute`: channels move with their dimensions."""
    value = walk.value(node.args[0])
    order = dims_of(walk, [item for _, item in listed(node, 1, "dims")], len(walk.shape(node)))
    if value is None or order is None:
        return give_up(walk, node)
    return tracked({new: value.at(old) for new, old in enumerate(order)})


def transpose(walk: Walk, node: fx.Node) -> Value:
    """`transpose`: two dimensions change places."""
    value, n = walk.value(node.args[0]), len(walk.shape(node))
    pair = (argument(node, 1, "dim0", "axis0", default=0), argument(node, 2, "dim1", "axis1", default=1))
    dims = dims_of(walk, pair, n)
    return give_up(walk, node) if value is None or dims is None else _swapped(value, n, *dims)


def _swapped(value: Tracked, n: int, one: int, other: int) -> Tracked | None:
    order = list(range(n))
    order[one], order[other] = other, one
    return tracked({new: value.at(old) for new, old in enumerate(order)})


def move_dims(walk: Walk, node: fx.Node) -> Value:
    """`movedim`: some dimensions go elsewhere, the others keep their order."""
    value, n = walk.value(node.args[0]), len(walk.shape(node))
    ends = [dims_of(walk, argument(node, index, name), n) for index, name in ((1, "source"), (2, "destination"))]
    if value is None or ends[0] is None or ends[1] is None:
        return give_up(walk, node)
    order = [dim for dim in range(n) if dim not in ends[0]]
    for target, origin in sorted(zip(ends[1], ends[0], strict=True)):
        order.insert(target, origin)
    return tracked({new: value.at(old) for new, old in enumerate(order)})


def attribute(walk: Walk, node: fx.Node) -> Value:
    """`data`, `T` and the like."""
    source, name = node.args
    value, n = walk.value(source), len(walk.shape(node))
    if value is None or name in ("data", "real", "imag"):
        return value
    if name in ("T", "mT", "H", "mH") and n >= 2:
        if name in ("T", "H") and n != 2:
            return tracked({n - 1 - dim: labels for dim, labels in value.axes.items()})
        return _swapped(value, n, n - 2, n - 1)
    return give_up(walk, node)


def unsqueeze(walk: Walk, node: fx.Node) -> Value:
    """`unsqueeze`: one more dimension, of size 1."""
    value = walk.value(node.args[0])
    at = dims_of(walk, argument(node, 1, "dim"), len(walk.shape(node)))
    if value is None or at is None:
        return give_up(walk, node)
    return Tracked({dim + (dim >= at[0]): labels for dim, labels in value.axes.items()})


def squeeze(walk: Walk, node: fx.Node) -> Value:
    """`squeeze`: dimensions of size 1 go, unless they are the last of some channels."""
    value, before = walk.value(node.args[0]), walk.shape(node.args[0])
    given = argument(node, 1, "dim")
    dims = range(len(before)) if given is None else dims_of(walk, given, len(before))
    if value is None or dims is None:
        return give_up(walk, node)
    for dim in dims:
        labels = value.at(dim)
        if labels is not None and before[dim] == 1:
            walk.freeze(labels, node, "takes the dimension of a single channel away")
        elif labels is not None and given is None:
            walk.freeze(labels, node, "would take a dimension away that has a single channel")
    gone = [dim for dim in dims if before[dim] == 1]
    return tracked(
        {dim - sum(other < dim for other in gone): labels for dim, labels in value.axes.items() if dim not in gone}
    )


def expand(walk: Walk, node: fx.Node) -> Value:
    """`expand`: a size of channels is -1, or a number that follows them."""
    source = node.args[0]
    value, before, after = walk.value(source), walk.shape(source), walk.shape(node)
    more = len(after) - len(before)
    axes: dict[int, IntArray | None] = {}
    sizes = listed(node, 1, "size")
    if len(sizes) != len(after):
        return give_up(walk, node)
    for dim, (position, size) in enumerate(sizes):
        labels = None if value is None or dim < more else value.at(dim - more)
        if labels is not None and before[dim - more] == after[dim]:
            axes[dim] = labels
            if walk.plain(size) != -1 and not walk.fits(node, position, labels):
                walk.freeze(labels, node, "has a size that cannot be changed")
        else:
            walk.freeze(labels, node, "broadcasts it over channels")
            axes[dim] = _copies(walk, node, position, size, after[dim])
    return tracked(axes)


def _copies(walk: Walk, node: fx.Node, position: Position, given: Any, size: int) -> IntArray | None:
    """Labels of copies of a single entry, one for each channel of something else.

    A plain number is followed if the model's tensors alone are copied, such as a kernel for each channel.
    """
    number = walk.number(given)
    if number is not None:
        return _as_many(walk, node, position, number, size)
    if type(given) is int and size > 1 and not walk.depends_on_inputs(node):
        return _fitting(walk, node, position, walk.labels.fresh(size))
    return None


def _fitting(walk: Walk, node: fx.Node, position: Position, labels: IntArray) -> IntArray | None:
    """Labels of a new dimension, if its size can be that of those which stay."""
    return labels if walk.fits(node, position, labels) else None


def _as_many(walk: Walk, node: fx.Node, position: Position, number: Number, size: int) -> IntArray | None:
    """Labels of a new dimension whose size is a number that follows channels."""
    term = None if number.form is None else number.form.only
    is_theirs = term is not None and term[1].ratio == 1 and term[0] is number.labels
    return _fitting(walk, node, position, number.labels if is_theirs else walk.labels.fresh(size))


def made(walk: Walk, node: fx.Node) -> Value:
    """`zeros`, `full`, `new_ones`: constants, of as many channels as a number says."""
    is_method = node.op == "call_method"
    sizes = listed(node, 1 if is_method else 0, "size")
    shape = walk.shape(node)
    axes: dict[int, IntArray | None] = {}
    if len(sizes) < len(shape):
        return give_up(walk, node)
    for dim, (position, size) in enumerate(sizes[: len(shape)]):
        number = walk.number(size)
        if number is not None:
            axes[dim] = _as_many(walk, node, position, number, shape[dim])
        elif shape[dim] > 1 and type(size) is int:
            axes[dim] = _fitting(walk, node, position, walk.labels.fresh(shape[dim]))
    return tracked(axes)


def series(walk: Walk, node: fx.Node) -> Value:
    """`arange`, `linspace`: of another number of channels the values would be others."""
    walk.freeze_inputs(node, "makes values of how many there are")
    return None


def repeat(walk: Walk, node: fx.Node) -> Value:
    """`repeat`: copies of channels go with them; of a single entry there are as many as channels of something else."""
    source = node.args[0]
    value, before, after = walk.value(source), walk.shape(source), walk.shape(node)
    times = listed(node, 1, "repeats", "sizes", "dims")
    if len(times) != len(after):
        return give_up(walk, node)
    more = len(after) - len(before)
    axes: dict[int, IntArray | None] = {}
    for dim, (position, given) in enumerate(times):
        labels = None if value is None or dim < more else value.at(dim - more)
        if labels is not None and (len(labels) > 1 or after[dim] == 1):
            axes[dim] = np.tile(labels, after[dim] // len(labels))
        elif dim < more or before[dim - more] == 1:
            walk.freeze(labels, node, "broadcasts it over channels")
            axes[dim] = _copies(walk, node, position, given, after[dim])
    return tracked(axes)


def repeat_interleave(walk: Walk, node: fx.Node) -> Value:
    """`repeat_interleave`, each as often as the others."""
    value, before, after = walk.value(node.args[0]), walk.shape(node.args[0]), walk.shape(node)
    times = argument(node, 1, "repeats")
    dims = dims_of(walk, argument(node, 2, "dim"), len(before))
    if value is None or dims is None or walk.is_tensor(times):
        return give_up(walk, node)
    walk.keep(times, node, "repeats by how many there are")
    (dim,) = dims
    axes: dict[int, IntArray | None] = dict(value.axes)
    if dim in value.axes:
        axes[dim] = np.repeat(value.axes[dim], after[dim] // before[dim])
    return tracked(axes)


def like(walk: Walk, node: fx.Node) -> Value:
    """`view_as`: sizes are those of another tensor, and follow its channels."""
    source, other = node.args[0], argument(node, 1, "other")
    value, theirs = walk.value(source), walk.value(other)
    before, after = walk.shape(source), walk.shape(other)
    if value is None:
        walk.freeze_inputs(node, "gives the shape of channels to something whose size stays")
        return None
    axes: dict[int, IntArray | None] = {}
    for piece in _pieces(before, after):
        held = {dim: value.axes[dim] for dim in piece.before if dim in value.axes}
        mine = _merged(walk, node, held, piece.before, before) if held else None
        wanted = [dim for dim in piece.after if theirs is not None and dim in theirs.axes]
        if mine is not None and theirs is not None:  # back in the shape that it came from
            wanted = [dim for dim in wanted if _is_along(mine, piece, after, theirs.axes[dim], dim)] or wanted
        if mine is None and not wanted:
            continue
        labels = None if mine is None or len(wanted) != 1 else _as_theirs(walk, mine, piece, after, theirs, wanted[0])
        if labels is None:
            for some in (mine, *(None if theirs is None else theirs.at(dim) for dim in wanted)):
                walk.freeze(some, node, "gives them a shape that cannot be changed")
        else:
            axes[wanted[0]] = labels
    return tracked(axes)


def _is_along(mine: IntArray, piece: _Piece, after: Shape, theirs: IntArray, dim: int) -> bool:
    """Whether channels lie along one dimension of a piece as those of another tensor do."""
    along = np.moveaxis(mine.reshape([after[d] for d in piece.after]), piece.after.index(dim), 0)
    return bool((along.reshape(len(theirs), -1) == theirs[:, None]).all())


def _as_theirs(
    walk: Walk, mine: IntArray, piece: _Piece, after: Shape, theirs: Tracked | None, dim: int
) -> IntArray | None:
    """Channels along one dimension, tied to those of the tensor whose shape is taken."""
    assert theirs is not None
    sizes = [after[d] for d in piece.after]
    along = np.moveaxis(mine.reshape(sizes), piece.after.index(dim), 0).reshape(after[dim], -1)
    walk.labels.tie(along.flatten(), np.repeat(along[:, 0], along.shape[1]))
    walk.labels.tie(along[:, 0], theirs.axes[dim])
    return along[:, 0]


_MADE = (torch.zeros, torch.ones, torch.empty, torch.full, torch.rand, torch.randn)
_MADE_METHODS = ("new_zeros", "new_ones", "new_empty", "new_full")

KINDS: dict[Any, Kind] = {
    **dict.fromkeys((torch.reshape, "reshape", "view"), Kind(reshape)),
    **dict.fromkeys((nn.Flatten, torch.flatten, "flatten"), Kind(flatten)),
    **dict.fromkeys((torch.unflatten, "unflatten"), Kind(unflatten)),
    **dict.fromkeys((torch.permute, "permute"), Kind(permute)),
    **dict.fromkeys((torch.transpose, torch.swapaxes, torch.swapdims, torch.t), Kind(transpose)),
    **dict.fromkeys(("transpose", "swapaxes", "t"), Kind(transpose)),
    **dict.fromkeys((torch.movedim, torch.moveaxis, "movedim"), Kind(move_dims)),
    **dict.fromkeys((torch.unsqueeze, "unsqueeze"), Kind(unsqueeze)),
    **dict.fromkeys((torch.squeeze, "squeeze"), Kind(squeeze)),
    **dict.fromkeys((torch.tile, "tile", "repeat"), Kind(repeat)),
    **dict.fromkeys((torch.repeat_interleave, "repeat_interleave"), Kind(repeat_interleave)),
    **dict.fromkeys((torch.broadcast_to, "broadcast_to", "expand"), Kind(expand)),
    **dict.fromkeys(("view_as", "reshape_as"), Kind(like)),
    **dict.fromkeys((*_MADE, *_MADE_METHODS), Kind(made)),
    **dict.fromkeys((torch.arange, torch.linspace, torch.logspace), Kind(series)),
    getattr: Kind(attribute),
}
