"""The coupling rule of each operator, as a table: what it ties, what it mixes, what it costs.

A rule gets the walk and an FX node whose output is a tensor, and returns the labels of that output, or None if nothing
is known of it. **An operator without a rule freezes the channels that reach it**: it can cost opportunity, never
correctness.

Only operators that treat channels independently keep labels. Those that mix them (convolutions, linear layers) read
the old labels and write new ones.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from prunesearch.models.coupling import Labels
from prunesearch.models.sizes import Number
from prunesearch.models.zoo.layers import PadShortcut
from prunesearch.structure import IntArray


@dataclass(frozen=True)
class Tracked:
    """The channels of one tensor.

    Attributes:
        dim: The dimension that holds them.
        labels: (size of the dimension,) their labels.
    """

    dim: int
    labels: IntArray


Value: TypeAlias = Tracked | None
Shape: TypeAlias = tuple[int, ...]


class Walk(Protocol):
    """What a rule may ask of, and tell to, the walk over the network (`models.walk`)."""

    labels: Labels

    def value(self, argument: Any) -> Value:
        """Labels of an argument; None for constants and for tensors of which nothing is known."""

    def number(self, argument: Any) -> Number | None:
        """What an argument that is no tensor depends on; None for constants."""

    def parts(self, argument: Any) -> tuple[Tracked, ...] | None:
        """Labels of the tensors that an operator such as `chunk` gave; None for other operators."""

    def split(self, node: fx.Node, parts: tuple[Tracked, ...]) -> None:
        """Record what `parts` gives for a node."""

    def shape(self, node: Any) -> Shape:
        """Shape of a tensor node in the traced run."""

    def is_tensor(self, node: Any) -> bool:
        """Whether a node gave a tensor in the traced run."""

    def module_of(self, node: fx.Node) -> nn.Module:
        """The module that a `call_module` node calls."""

    def freeze(self, value: Value, node: fx.Node, why: str) -> None:
        """Freeze whatever channels `value` holds, saying which operator made it necessary."""

    def freeze_inputs(self, node: fx.Node, why: str) -> None:
        """Freeze every channel that reaches an operator, or that a number that reaches it depends on."""

    def cut(self, node: fx.Node, tensor: str, dim: int, labels: IntArray) -> None:
        """Record that the module's tensor is narrowed along `dim`."""

    def narrow(self, argument: fx.Node, dim: int, labels: IntArray) -> bool:
        """Record that a parameter which the forward uses itself is narrowed along `dim`; False if it is none."""

    def count(self, node: fx.Node, attribute: str, labels: IntArray) -> None:
        """Record that the module's attribute is the number of kept channels among `labels`."""

    def literal(self, node: fx.Node, position: tuple[int | str, ...], labels: IntArray) -> bool:
        """Record that a number in the arguments is the number of kept channels; False if it cannot be changed."""

    def read(self, node: fx.Node, dim: int, labels: IntArray) -> None:
        """Record that the module mixes these channels."""

    def produce(self, node: fx.Node, labels: IntArray) -> None:
        """Record that the module produces these channels."""

    def macs(self, node: fx.Node, per_image: int, left: IntArray | int, right: IntArray | int) -> None:
        """Record `per_image * left * right` multiply-accumulates."""

    def positions(self, shape: Shape, channels: int) -> int:
        """How many vectors of channels one image has in a tensor of this shape."""


Rule: TypeAlias = Callable[[Walk, fx.Node], Value]


# --- layers that mix channels -----------------------------------------------------------------------------------------


def convolution(walk: Walk, node: fx.Node) -> Value:
    """Convolutions of any dimension; depthwise and grouped ones tie their input to their output."""
    conv = walk.module_of(node)
    assert isinstance(conv, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    shape = walk.shape(node)
    channels = len(shape) - len(conv.kernel_size) - 1
    read = _labels(walk, node, node.args[0], dim=channels)
    walk.read(node, channels, read)
    per_output: IntArray | int = read
    if conv.groups == 1:
        written = walk.labels.fresh(conv.out_channels)
        walk.cut(node, "weight", 1, read)
    elif conv.groups > conv.in_channels // conv.groups:
        written, per_output = _whole_groups(walk, node, conv, read)
    else:
        written, per_output = _within_groups(walk, node, conv, read)
    walk.cut(node, "weight", 0, written)
    if conv.bias is not None:
        walk.cut(node, "bias", 0, written)
    walk.count(node, "in_channels", read)
    walk.count(node, "out_channels", written)
    walk.produce(node, written)
    positions = walk.positions(shape, conv.out_channels)
    walk.macs(node, math.prod(conv.kernel_size) * positions, per_output, written)
    return Tracked(channels, written)


def _whole_groups(walk: Walk, node: fx.Node, conv: Any, read: IntArray) -> tuple[IntArray, IntArray | int]:
    """Remove whole groups of the convolution (depthwise: one channel each), so the weight's inner size is constant."""
    inputs = conv.in_channels // conv.groups
    leaders = read[::inputs]
    walk.labels.tie(read, np.repeat(leaders, inputs))
    walk.count(node, "groups", leaders)
    inner = walk.labels.fresh(inputs)
    walk.labels.freeze(inner, "is the inner size of a grouped convolution")
    walk.cut(node, "weight", 1, inner)  # matters to a layer that shares the weight
    return np.repeat(leaders, conv.out_channels // conv.groups), inputs


def _within_groups(walk: Walk, node: fx.Node, conv: Any, read: IntArray) -> tuple[IntArray, IntArray | int]:
    """Remove the same channels from every group of the convolution, so the number of groups is constant."""
    first = read[: conv.in_channels // conv.groups]
    walk.labels.tie(read, np.tile(first, conv.groups))
    walk.cut(node, "weight", 1, first)
    return np.tile(walk.labels.fresh(conv.out_channels // conv.groups), conv.groups), first


def transposed_convolution(walk: Walk, node: fx.Node) -> Value:
    """Transposed convolutions without groups; their weight is (in, out, ...)."""
    conv = walk.module_of(node)
    assert isinstance(conv, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    if conv.groups != 1:
        return _give_up(walk, node)
    source = walk.shape(node.args[0])
    channels = len(source) - len(conv.kernel_size) - 1
    read, written = _labels(walk, node, node.args[0], dim=channels), walk.labels.fresh(conv.out_channels)
    walk.read(node, channels, read)
    walk.cut(node, "weight", 0, read)
    walk.cut(node, "weight", 1, written)
    if conv.bias is not None:
        walk.cut(node, "bias", 0, written)
    walk.count(node, "in_channels", read)
    walk.count(node, "out_channels", written)
    walk.produce(node, written)
    positions = walk.positions(source, conv.in_channels)
    walk.macs(node, math.prod(conv.kernel_size) * positions, read, written)
    return Tracked(channels, written)


def linear(walk: Walk, node: fx.Node) -> Value:
    """Fully connected layers, on the last dimension."""
    layer = walk.module_of(node)
    assert isinstance(layer, nn.Linear)
    shape = walk.shape(node)
    last = len(shape) - 1
    read = _labels(walk, node, node.args[0], dim=last)
    written = walk.labels.fresh(layer.out_features)
    walk.read(node, last, read)
    walk.cut(node, "weight", 0, written)
    walk.cut(node, "weight", 1, read)
    if layer.bias is not None:
        walk.cut(node, "bias", 0, written)
    walk.count(node, "in_features", read)
    walk.count(node, "out_features", written)
    walk.produce(node, written)
    walk.macs(node, walk.positions(shape, layer.out_features), read, written)
    return Tracked(last, written)


# --- layers that treat channels independently -------------------------------------------------------------------------


def batch_norm(walk: Walk, node: fx.Node) -> Value:
    """BatchNorm of any dimension: one scale, shift, mean and variance per channel."""
    norm = walk.module_of(node)
    assert isinstance(norm, nn.modules.batchnorm._NormBase)
    labels = _labels(walk, node, node.args[0], dim=1)
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        if getattr(norm, tensor) is not None:
            walk.cut(node, tensor, 0, labels)
    walk.count(node, "num_features", labels)
    return Tracked(1, labels)


def instance_norm(walk: Walk, node: fx.Node) -> Value:
    """InstanceNorm of any dimension: each channel of each image has a mean and a variance of its own."""
    return batch_norm(walk, node) if _has_channel_dim(walk, node) else _give_up(walk, node)


def layer_norm(walk: Walk, node: fx.Node) -> Value:
    """LayerNorm over the last dimension: narrowed, it normalises over the channels that stay."""
    return _layer_norm(walk, node, dim=len(walk.shape(node)) - 1)


def layer_norm_2d(walk: Walk, node: fx.Node) -> Value:
    """LayerNorm over the channels of (n, c, h, w), as ConvNeXt has it."""
    return _layer_norm(walk, node, dim=1)


def _layer_norm(walk: Walk, node: fx.Node, dim: int) -> Value:
    norm = walk.module_of(node)
    assert isinstance(norm, nn.LayerNorm)
    if len(norm.normalized_shape) != 1:
        return _give_up(walk, node)
    labels = _labels(walk, node, node.args[0], dim=dim)
    walk.read(node, dim, labels)
    for tensor in ("weight", "bias"):
        if getattr(norm, tensor) is not None:
            walk.cut(node, tensor, 0, labels)
    walk.count(node, "normalized_shape", labels)
    return Tracked(dim, labels)


def group_norm(walk: Walk, node: fx.Node) -> Value:
    """GroupNorm: many small groups go whole; in few large ones, the same channels of each."""
    norm = walk.module_of(node)
    assert isinstance(norm, nn.GroupNorm)
    labels = _labels(walk, node, node.args[0], dim=1)
    inside = norm.num_channels // norm.num_groups
    if norm.num_groups > inside:
        leaders = labels[::inside]
        walk.labels.tie(labels, np.repeat(leaders, inside))
        walk.count(node, "num_groups", leaders)
    else:
        walk.labels.tie(labels, np.tile(labels[:inside], norm.num_groups))
        walk.read(node, 1, labels)
    if norm.affine:
        walk.cut(node, "weight", 0, labels)
        walk.cut(node, "bias", 0, labels)
    walk.count(node, "num_channels", labels)
    return Tracked(1, labels)


def prelu(walk: Walk, node: fx.Node) -> Value:
    """PReLU with one slope for all channels, or one for each."""
    layer = walk.module_of(node)
    assert isinstance(layer, nn.PReLU)
    if layer.num_parameters == 1:
        return elementwise(walk, node)
    labels = _labels(walk, node, node.args[0], dim=1)
    walk.cut(node, "weight", 0, labels)
    walk.count(node, "num_parameters", labels)
    return Tracked(1, labels)


def elementwise(walk: Walk, node: fx.Node) -> Value:
    """Operators on one or several tensors of one (broadcast) shape; tensors that meet are tied."""
    shape = walk.shape(node)
    result: Tracked | None = None
    for argument in node.all_input_nodes:
        value = walk.value(argument)
        if value is None:
            continue
        dim = value.dim + len(shape) - len(walk.shape(argument))  # broadcasting aligns the last dimensions
        if dim < 0 or len(value.labels) != shape[dim]:
            walk.freeze(value, node, "broadcasts it over channels")
        elif result is None:
            result = Tracked(dim, value.labels)
        elif result.dim == dim:
            walk.labels.tie(result.labels, value.labels)
        else:
            walk.freeze(result, node, "combines different dimensions")
            walk.freeze(value, node, "combines different dimensions")
    if result is not None:
        for argument in node.all_input_nodes:
            if walk.value(argument) is None and not _joins(walk, argument, result, shape):
                walk.freeze(result, node, "combines it with something we know nothing of")
    return result


def _joins(walk: Walk, argument: fx.Node, result: Tracked, shape: Shape) -> bool:
    """Whether an untracked operand treats all channels alike, or is a parameter that can be narrowed with them."""
    if not walk.is_tensor(argument):
        return True  # a number; the walk has frozen what it depends on
    size = walk.shape(argument)
    dim = result.dim - (len(shape) - len(size))
    return dim < 0 or size[dim] == 1 or walk.narrow(argument, dim, result.labels)


def spatial(walk: Walk, node: fx.Node) -> Value:
    """Pooling, resizing and spatial padding: every dimension after the first two is theirs, channels are not."""
    value, shape = walk.value(node.args[0]), walk.shape(node)
    if value is None or value.dim != 1 or shape[1] != len(value.labels) or not _has_channel_dim(walk, node):
        return _give_up(walk, node)
    return value


def _has_channel_dim(walk: Walk, node: fx.Node) -> bool:
    """Whether the tensor is (n, c, ...) to an operator such as `max_pool2d`; if one smaller, it takes n for c."""
    target = walk.module_of(node) if node.op == "call_module" else node.target
    found = re.search(r"(\d)d$", getattr(target, "__name__", type(target).__name__))
    return found is None or len(walk.shape(node)) == int(found[1]) + 2


def pad_shortcut(walk: Walk, node: fx.Node) -> Value:
    """The zoo's zero-padding shortcut: old channels in the middle, constant zeros around them."""
    pad = walk.module_of(node)
    assert isinstance(pad, PadShortcut)
    inside = _labels(walk, node, node.args[0], dim=1)
    before, after = walk.labels.fresh(pad.before), walk.labels.fresh(pad.after)
    walk.count(node, "before", before)
    walk.count(node, "after", after)
    return Tracked(1, np.concatenate([before, inside, after]))


# --- operators that move channels -------------------------------------------------------------------------------------


def concatenate(walk: Walk, node: fx.Node) -> Value:
    """`torch.cat`: along the channels it joins labels, along another dimension it ties them."""
    tensors = node.args[0] if node.args else node.kwargs["tensors"]
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    if not isinstance(dim, int):
        return _give_up(walk, node)
    if not isinstance(tensors, (tuple, list)):  # what chunk or split gave
        parts = walk.parts(tensors)
        if parts is None or parts[0].dim != dim % len(walk.shape(node)):
            return _give_up(walk, node)
        return Tracked(parts[0].dim, np.concatenate([part.labels for part in parts]))
    known = [value for tensor in tensors if (value := walk.value(tensor)) is not None]
    dim %= len(walk.shape(node))
    if any(value.dim != dim for value in known):
        return elementwise(walk, node) if len(known) == len(tensors) else _give_up(walk, node)
    return Tracked(dim, np.concatenate([_labels(walk, node, tensor, dim=dim) for tensor in tensors]))


def flatten(walk: Walk, node: fx.Node) -> Value:
    """`flatten`, `view`, `reshape`: dimensions merge or split beside the channels, or each becomes its positions."""
    value, before, after = walk.value(node.args[0]), walk.shape(node.args[0]), walk.shape(node)
    if value is None:
        return _give_up(walk, node)
    channels, positions = before[value.dim], math.prod(before[value.dim + 1 :])
    for dim, size in enumerate(after):
        if math.prod(after[:dim]) != math.prod(before[: value.dim]) or size not in (channels, channels * positions):
            continue
        labels = np.repeat(value.labels, size // channels)
        if math.prod(after[dim:]) == channels * positions and _adapts(walk, node, dim, value, labels):
            return Tracked(dim, labels)
    return _give_up(walk, node)


def _adapts(walk: Walk, node: fx.Node, dim: int, value: Tracked, labels: IntArray) -> bool:
    """Whether the size of `dim` in a `view`/`reshape` follows the channels, however many stay, and no other does."""
    if node.target not in ("view", "reshape", torch.reshape):
        return all(walk.number(argument) is None for argument in node.all_input_nodes)
    sizes = _positions(node, "shape", "size")
    if len(sizes) != len(walk.shape(node)):
        return False
    position, size = sizes.pop(dim)
    if any(walk.number(other) is not None for _, other in sizes):
        return False
    width = walk.number(size)
    if width is not None:
        return width.proportional and np.array_equal(width.labels, value.labels)
    return size == -1 or (isinstance(size, int) and walk.literal(node, position, labels))


def _positions(node: fx.Node, *names: str) -> list[tuple[tuple[int | str, ...], Any]]:
    """Where in a node's arguments, after the first, several numbers stand, and what stands there."""
    for name in names:
        entries = node.kwargs.get(name)
        if isinstance(entries, (tuple, list)):
            return [((name, i), entry) for i, entry in enumerate(entries)]
    if len(node.args) > 1 and isinstance(node.args[1], (tuple, list)):
        return [((1, i), entry) for i, entry in enumerate(node.args[1])]
    return [((i,), entry) for i, entry in enumerate(node.args) if i]


def reduce(walk: Walk, node: fx.Node) -> Value:
    """`mean`, `sum`, `amax`: labels survive if the channel dimension does."""
    value, before, after = walk.value(node.args[0]), walk.shape(node.args[0]), walk.shape(node)
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis"))
    dims = (dims,) if isinstance(dims, int) else dims
    if value is None or not isinstance(dims, (tuple, list)) or not dims:  # no dims means all of them
        return _give_up(walk, node)
    reduced = {dim % len(before) for dim in dims if isinstance(dim, int)}
    if value.dim in reduced or len(reduced) != len(dims):
        return _give_up(walk, node)
    dropped = 0 if len(after) == len(before) else sum(dim < value.dim for dim in reduced)
    return Tracked(value.dim - dropped, value.labels)


def permute(walk: Walk, node: fx.Node) -> Value:
    """`permute`: the channels move with their dimension."""
    value = walk.value(node.args[0])
    order = node.args[1:] if len(node.args) > 2 else (*node.args[1:], *node.kwargs.values())[0]
    if value is None or not isinstance(order, (tuple, list)) or not all(isinstance(dim, int) for dim in order):
        return _give_up(walk, node)
    return Tracked([int(str(dim)) % len(order) for dim in order].index(value.dim), value.labels)


def transpose(walk: Walk, node: fx.Node) -> Value:
    """`transpose`: two dimensions change places."""
    value, pair = walk.value(node.args[0]), node.args[1:]
    if value is None or len(pair) != 2 or not all(isinstance(dim, int) for dim in pair):
        return _give_up(walk, node)
    one, other = (int(str(dim)) % len(walk.shape(node)) for dim in pair)
    return Tracked({one: other, other: one}.get(value.dim, value.dim), value.labels)


def chunk(walk: Walk, node: fx.Node) -> Value:
    """`chunk` along the channels into equal parts: what goes, goes from all of them, so that they stay equal."""
    value, before = walk.value(node.args[0]), walk.shape(node.args[0])
    names = dict(zip(("chunks", "dim"), node.args[1:], strict=False)) | node.kwargs
    n, dim = names.get("chunks"), names.get("dim", 0)
    if value is None or not isinstance(n, int) or not isinstance(dim, int) or dim % len(before) != value.dim:
        return _give_up(walk, node)
    if len(value.labels) % n:
        return _give_up(walk, node)
    parts = value.labels.reshape(n, -1)
    walk.labels.tie(parts.flatten(), np.tile(parts[0], n))
    walk.split(node, tuple(Tracked(value.dim, part) for part in parts))
    return None


def split(walk: Walk, node: fx.Node) -> Value:
    """`split` along the channels: into equal parts like `chunk`, or into parts of given sizes, each on its own."""
    value, before = walk.value(node.args[0]), walk.shape(node.args[0])
    key: int | str = 1 if len(node.args) > 1 else next(iter(node.kwargs), 1)
    sizes = _argument(node, key)
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    if value is None or not isinstance(dim, int) or dim % len(before) != value.dim:
        return _give_up(walk, node)
    if isinstance(sizes, int) and len(value.labels) % sizes == 0:
        parts = list(value.labels.reshape(-1, sizes))
        walk.labels.tie(value.labels, np.tile(parts[0], len(parts)))
        adapts = walk.literal(node, (key,), parts[0])
    elif isinstance(sizes, (tuple, list)) and all(isinstance(size, int) for size in sizes):
        parts = [*np.split(value.labels, np.cumsum(sizes)[:-1])]
        adapts = all([walk.literal(node, (key, i), part) for i, part in enumerate(parts)])
    else:
        return _give_up(walk, node)
    if not adapts:
        walk.freeze(value, node, "has sizes that cannot be changed")
    walk.split(node, tuple(Tracked(value.dim, part) for part in parts))
    return None


def pad(walk: Walk, node: fx.Node) -> Value:
    """`F.pad`: constant channels before and after the others go with what they are added to."""
    value, before = walk.value(node.args[0]), walk.shape(node.args[0])
    key: int | str = 1 if len(node.args) > 1 else "pad"
    amounts = _argument(node, key)
    if value is None or not isinstance(amounts, (tuple, list)) or not all(isinstance(n, int) for n in amounts):
        return _give_up(walk, node)
    first = 2 * (len(before) - 1 - value.dim)
    pair = [int(str(n)) for n in amounts[first : first + 2]]
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    if any(n < 0 for n in pair) or (any(pair) and mode != "constant"):
        return _give_up(walk, node)
    if not any(pair):
        return value
    sides = []
    for i, n in enumerate(pair):
        sides.append(walk.labels.fresh(n))
        if n and not walk.literal(node, (key, first + i), sides[-1]):
            walk.freeze(Tracked(value.dim, sides[-1]), node, "adds a number of channels that cannot be changed")
    return Tracked(value.dim, np.concatenate([sides[0], value.labels, sides[1]]))


def _argument(node: fx.Node, key: int | str) -> Any:
    return node.kwargs.get(key) if isinstance(key, str) else dict(enumerate(node.args)).get(key)


def unsqueeze(walk: Walk, node: fx.Node) -> Value:
    """`unsqueeze`: one more dimension, of size 1."""
    value, dims = walk.value(node.args[0]), len(walk.shape(node))
    at = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if value is None or not isinstance(at, int):
        return _give_up(walk, node)
    return Tracked(value.dim + (at % dims <= value.dim), value.labels)


def squeeze(walk: Walk, node: fx.Node) -> Value:
    """`squeeze` of one given dimension that is not that of the channels."""
    value, before = walk.value(node.args[0]), walk.shape(node.args[0])
    at = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if value is None or not isinstance(at, int) or at % len(before) == value.dim:
        return _give_up(walk, node)
    return Tracked(value.dim - (before[at] == 1 and at % len(before) < value.dim), value.labels)


def softmax(walk: Walk, node: fx.Node) -> Value:
    """`softmax` over another dimension than that of the channels."""
    value = walk.value(node.args[0])
    if node.op == "call_module":
        dim = getattr(walk.module_of(node), "dim", None)
    else:
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if isinstance(dim, int) and (value is None or dim % len(walk.shape(node)) != value.dim):
        return value
    walk.freeze_inputs(node, "mixes channels")
    return None


def unrelated(walk: Walk, node: fx.Node) -> Value:
    """`new_empty` and its like take a type and a device, not channels."""
    return None


def get_item(walk: Walk, node: fx.Node) -> Value:
    """A slice of a tensor, or one of several tensors."""
    value, index = walk.value(node.args[0]), node.args[1]
    parts = walk.parts(node.args[0])
    if parts is not None and isinstance(index, int):
        return parts[index]
    entries = index if isinstance(index, tuple) else (index,)
    if value is None or not all(isinstance(entry, slice) for entry in entries):
        return _give_up(walk, node)
    return value if value.dim >= len(entries) else _sliced(walk, node, value, entries[value.dim])


def _sliced(walk: Walk, node: fx.Node, value: Tracked, entry: Any) -> Value:
    """Consecutive channels. A slice that goes on to the end, or beyond, does so however many stay."""
    width = len(value.labels)
    start, stop = entry.start or 0, width if entry.stop is None else entry.stop
    if entry.step not in (None, 1) or not (isinstance(start, int) and isinstance(stop, int) and 0 <= start < stop):
        return _give_up(walk, node)
    for name, end in (("start", start), ("stop", stop)):
        if 0 < end < width and not walk.literal(node, (1, value.dim, name), value.labels[:end]):
            return _give_up(walk, node)
    return Tracked(value.dim, value.labels[start:stop])


# --- helpers ----------------------------------------------------------------------------------------------------------


def _labels(walk: Walk, node: fx.Node, argument: Any, *, dim: int) -> IntArray:
    """Labels of the argument's dimension `dim`; frozen new ones where nothing, or another dimension, is known."""
    value = walk.value(argument)
    if value is not None and value.dim == dim:
        return value.labels
    walk.freeze(value, node, "reads another dimension than the one that holds channels")
    labels = walk.labels.fresh(walk.shape(argument)[dim])
    walk.freeze(Tracked(dim, labels), node, "reads channels of which nothing is known")
    return labels


def _give_up(walk: Walk, node: fx.Node) -> Value:
    walk.freeze_inputs(node, "moves channels in a way we do not follow")
    return None


# --- the tables -------------------------------------------------------------------------------------------------------

_ELEMENTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Identity,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
_SPATIAL_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
    nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d,
)  # fmt: skip

MODULES: dict[type[nn.Module], Rule] = {
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.ConvTranspose1d: transposed_convolution,
    nn.ConvTranspose2d: transposed_convolution,
    nn.ConvTranspose3d: transposed_convolution,
    nn.Linear: linear,
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: group_norm,
    nn.PReLU: prelu,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.BatchNorm3d: batch_norm,
    nn.SyncBatchNorm: batch_norm,
    nn.InstanceNorm1d: instance_norm,
    nn.InstanceNorm2d: instance_norm,
    nn.InstanceNorm3d: instance_norm,
    nn.Flatten: flatten,
    nn.Softmax: softmax,
    nn.LogSoftmax: softmax,
    PadShortcut: pad_shortcut,
    **dict.fromkeys(_ELEMENTWISE_MODULES, elementwise),
    **dict.fromkeys(_SPATIAL_MODULES, spatial),
}

_ELEMENTWISE_FUNCTIONS = (
    operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul, operator.truediv,
    operator.itruediv, operator.neg, operator.pow,
    torch.add, torch.sub, torch.mul, torch.div, torch.neg, torch.abs, torch.exp, torch.sqrt, torch.clamp,
    torch.maximum, torch.minimum, torch.relu, torch.sigmoid, torch.tanh,
    F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.sigmoid, F.tanh,
    F.hardswish, F.hardsigmoid, F.hardtanh, F.softplus, F.logsigmoid,
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
)  # fmt: skip
_SPATIAL_FUNCTIONS = (
    F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d,
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
    F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d, F.interpolate,
)  # fmt: skip

FUNCTIONS: dict[Any, Rule] = {
    torch.cat: concatenate,
    torch.concat: concatenate,
    torch.flatten: flatten,
    torch.reshape: flatten,
    torch.mean: reduce,
    torch.sum: reduce,
    torch.amax: reduce,
    torch.permute: permute,
    torch.transpose: transpose,
    torch.chunk: chunk,
    torch.split: split,
    torch.unsqueeze: unsqueeze,
    torch.squeeze: squeeze,
    torch.softmax: softmax,
    torch.log_softmax: softmax,
    F.softmax: softmax,
    F.log_softmax: softmax,
    F.pad: pad,
    operator.getitem: get_item,
    **dict.fromkeys(_ELEMENTWISE_FUNCTIONS, elementwise),
    **dict.fromkeys(_SPATIAL_FUNCTIONS, spatial),
}

_ELEMENTWISE_METHODS = (
    "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "neg", "abs", "exp", "sqrt", "clamp", "clamp_",
    "relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_", "contiguous", "clone", "detach", "float", "half", "to",
    "expand_as", "type_as",
)  # fmt: skip

METHODS: dict[str, Rule] = {
    "flatten": flatten,
    "view": flatten,
    "reshape": flatten,
    "mean": reduce,
    "sum": reduce,
    "amax": reduce,
    "permute": permute,
    "transpose": transpose,
    "chunk": chunk,
    "split": split,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "softmax": softmax,
    "log_softmax": softmax,
    "new_empty": unrelated,
    "new_ones": unrelated,
    "new_zeros": unrelated,
    **dict.fromkeys(_ELEMENTWISE_METHODS, elementwise),
}

NAMED: dict[str, Rule] = {
    "torchvision.ops.stochastic_depth.stochastic_depth": elementwise,
    "torchvision.models.convnext.LayerNorm2d": layer_norm_2d,
    "timm.layers.conv2d_same.Conv2dSame": convolution,
    "timm.layers.linear.Linear": linear,
    "timm.layers.norm.LayerNorm": layer_norm,
    "timm.layers.norm.LayerNorm2d": layer_norm_2d,
    "timm.layers.norm.GroupNorm": group_norm,
    "timm.layers.norm.GroupNorm1": group_norm,
    "timm.layers.norm_act.BatchNormAct2d": batch_norm,
}
"""Classes and functions of libraries that we do not import, by qualified name."""


def rule_of(target: Any) -> Rule | None:
    """The rule of a class of modules, a function, or the name of a method; None if there is none."""
    if isinstance(target, str):
        return METHODS.get(target)
    if not isinstance(target, type):
        return FUNCTIONS.get(target) or NAMED.get(_qualified(target))
    for kind in target.__mro__:
        rule = MODULES.get(kind) or NAMED.get(_qualified(kind))
        if rule is not None or not vars(kind).keys() <= _SAME_BEHAVIOUR:
            return rule
    return None


_SAME_BEHAVIOUR = {
    "__init__", "__module__", "__qualname__", "__doc__", "__annotations__", "__annotate_func__", "__parameters__",
    "__constants__", "__firstlineno__", "__static_attributes__", "extra_repr", "reset_parameters",
}  # fmt: skip
"""What a class may define and still do in its forward what the class that it derives from does."""


def _qualified(target: Any) -> str:
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
