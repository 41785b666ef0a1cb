"""Layers with weights, as modules and as functions: which channels they read, write and scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from prunesearch.models.operators.values import (
    Rule,
    Tracked,
    Value,
    Walk,
    argument,
    freeze_others,
    give_up,
    labels_at,
    position,
    tracked,
)
from prunesearch.models.zoo.layers import PadShortcut
from prunesearch.structure import IntArray


@dataclass(frozen=True)
class Weights:
    """A layer's tensors, whether a module owns them or a function was given them.

    Attributes:
        source: What the layer reads.
        weight: Channels of the weight.
        bias: Channels of the bias; None if there is none, or nothing is known of it.
        is_known: Whether the channels of all of them are known.
    """

    source: Any
    weight: Tracked | None
    bias: Tracked | None
    is_known: bool


def _weights(walk: Walk, node: fx.Node) -> Weights:
    source = argument(node, 0, "input")
    if node.op == "call_module":
        bias = walk.parameter(node, "bias")
        weight = walk.parameter(node, "weight")
        has_bias = getattr(walk.module_of(node), "bias", None) is not None
        return Weights(source, weight, bias, weight is not None and (bias is not None or not has_bias))
    weight, given = walk.value(argument(node, 1, "weight")), argument(node, 2, "bias")
    bias = walk.value(given)
    return Weights(source, weight, bias, weight is not None and (bias is not None or given is None))


def _axis(walk: Walk, value: Tracked, dim: int, size: int) -> IntArray:
    """Labels of a weight's dimension; of one that keeps its size, new ones that stay."""
    labels = value.at(dim)
    if labels is None:
        labels = walk.labels.fresh(size)
        walk.labels.freeze(labels, "is a size of a weight that stays")
    return labels


def _sizes(walk: Walk, node: fx.Node) -> tuple[int, ...]:
    if node.op == "call_module":
        module: Any = walk.module_of(node)
        return tuple(module.weight.shape)
    return walk.shape(argument(node, 1, "weight"))


def _unknown(walk: Walk, node: fx.Node, channels: int) -> Value:
    """A layer of whose weights nothing is known: everything around it stays."""
    walk.freeze_inputs(node, "uses a weight that is computed in a way that is not followed")
    labels = walk.labels.fresh(walk.shape(node)[channels])
    walk.freeze(labels, node, "uses a weight that is computed in a way that is not followed")
    walk.produce(node, labels)
    return Tracked({channels: labels})


def _written(walk: Walk, node: fx.Node, weights: Weights, labels: IntArray) -> None:
    """The bias goes with what is written."""
    if weights.bias is not None:
        walk.labels.tie(_axis(walk, weights.bias, 0, len(labels)), labels)
    walk.produce(node, labels)


# --- convolutions -----------------------------------------------------------------------------------------------------


def _groups(walk: Walk, node: fx.Node) -> tuple[int, Callable[[IntArray], bool]]:
    """In how many groups a convolution works, and how to say that their number follows channels."""
    if node.op == "call_module":
        module: Any = walk.module_of(node)

        def count(labels: IntArray) -> bool:
            walk.count(node, "groups", labels)
            return True

        return int(module.groups), count
    at = position(node, 6, "groups")
    return int(walk.plain(argument(node, 6, "groups", default=1))), lambda labels: walk.fits(node, at, labels)


def convolution(walk: Walk, node: fx.Node) -> Value:
    """Convolutions of any dimension; depthwise and grouped ones tie their input to their output."""
    weights, sizes, shape = _weights(walk, node), _sizes(walk, node), walk.shape(node)
    kernel = len(sizes) - 2
    channels = len(shape) - kernel - 1
    if weights.weight is None or not weights.is_known:
        return _unknown(walk, node, channels)
    alone = _apart(walk, node, sizes, channels)
    freeze_others(walk, node, weights.source, [*range(channels + 1), *alone], "convolves over it")
    for dim in range(2, len(sizes)):
        walk.freeze(weights.weight.at(dim), node, "convolves with it")
    read = labels_at(walk, node, weights.source, channels)
    written = _axis(walk, weights.weight, 0, sizes[0])
    inner = _axis(walk, weights.weight, 1, sizes[1])
    groups, follow = _groups(walk, node)
    walk.read(node, channels, read)
    if groups == 1:
        walk.labels.tie(inner, read)
        per_output = [read]
        size = 1
    elif groups > sizes[1]:  # whole groups go; depthwise: a channel each
        leaders = read[:: sizes[1]]
        walk.labels.tie(read, np.repeat(leaders, sizes[1]))
        walk.labels.tie(written, np.repeat(leaders, sizes[0] // groups))
        walk.labels.freeze(inner, "is the inner size of a grouped convolution")
        if not follow(leaders):
            walk.freeze(read, node, "has a number of groups that cannot be changed")
        per_output, size = [], sizes[1]
    else:  # the same channels go from every group
        walk.labels.tie(read, np.tile(inner, groups))
        walk.labels.tie(written, np.tile(written[: sizes[0] // groups], groups))
        per_output, size = [inner], 1
    _count_widths(walk, node, read, written)
    _written(walk, node, weights, written)
    carried = _carried(walk, weights.source, [*range(channels), *alone])
    walk.macs(
        node,
        size * math.prod(sizes[2:]) * _positions(shape, [channels, *carried]),
        [*per_output, written, *carried.values()],
    )
    return Tracked({**carried, channels: written})


def deformable_convolution(walk: Walk, node: fx.Node) -> Value:
    """`torchvision.ops.deform_conv2d` in one group: (input, weight, offset, mask, bias, ...); the offsets stay."""
    source, weight, given = node.args[0], walk.value(node.args[1]), node.args[4]
    groups, has_bias = walk.plain(node.args[11]), math.prod(walk.shape(given)) == walk.shape(node)[1]
    bias = walk.value(given) if has_bias else None
    if weight is None or groups != 1:
        return _unknown(walk, node, 1)
    walk.stays(node, (11,))  # inputs over inputs of the weight, which are tied
    for other in (node.args[2], node.args[3]):
        freeze_others(walk, node, other, [], "looks at places that they say")
    freeze_others(walk, node, source, [1], "convolves over it")
    for dim in (2, 3):
        walk.freeze(weight.at(dim), node, "convolves with it")
    read, sizes = labels_at(walk, node, source, 1), walk.shape(node.args[1])
    written = _axis(walk, weight, 0, sizes[0])
    walk.labels.tie(_axis(walk, weight, 1, sizes[1]), read)
    if has_bias and bias is None:
        walk.freeze(written, node, "adds something whose size stays")
    walk.read(node, 1, read)
    _written(walk, node, Weights(source, weight, bias, is_known=True), written)
    return Tracked({1: written})


def transposed_convolution(walk: Walk, node: fx.Node) -> Value:
    """Transposed convolutions; their weight is (in, out / groups, ...)."""
    weights, sizes, source = _weights(walk, node), _sizes(walk, node), walk.shape(argument(node, 0, "input"))
    channels = len(source) - len(sizes) + 1
    groups, follow = _groups(walk, node)
    if weights.weight is None or not weights.is_known:
        return _unknown(walk, node, channels)
    freeze_others(walk, node, weights.source, [*range(channels + 1)], "convolves over it")
    for dim in range(2, len(sizes)):
        walk.freeze(weights.weight.at(dim), node, "convolves with it")
    read = labels_at(walk, node, weights.source, channels)
    outer, inner = _axis(walk, weights.weight, 0, sizes[0]), _axis(walk, weights.weight, 1, sizes[1])
    walk.labels.tie(outer, read)
    walk.read(node, channels, read)
    if groups == 1:
        written, factors, size = inner, [read, inner], 1
    else:  # whole groups go
        leaders = read[:: sizes[0] // groups]
        walk.labels.tie(read, np.repeat(leaders, sizes[0] // groups))
        walk.labels.freeze(inner, "is the inner size of a grouped convolution")
        if not follow(leaders):
            walk.freeze(read, node, "has a number of groups that cannot be changed")
        written, factors, size = np.repeat(leaders, sizes[1]), [read], sizes[1]
    _count_widths(walk, node, read, written)
    _written(walk, node, weights, written)
    carried = _carried(walk, weights.source, range(channels))
    walk.macs(
        node, size * math.prod(sizes[2:]) * _positions(source, [channels, *carried]), [*factors, *carried.values()]
    )
    return Tracked({**carried, channels: written})


def _carried(walk: Walk, source: Any, dims: Iterable[int]) -> dict[int, IntArray]:
    """The channels of dimensions of which the layer treats each position alike."""
    value = walk.value(source)
    return {} if value is None else {dim: labels for dim in dims if (labels := value.at(dim)) is not None}


def _apart(walk: Walk, node: fx.Node, sizes: tuple[int, ...], channels: int) -> list[int]:
    """Dimensions over which a convolution does not mix, as its kernel is one position wide there."""
    if node.op != "call_module":
        return []
    module: Any = walk.module_of(node)
    steps = zip(sizes[2:], module.stride, module.padding, strict=True) if type(module.padding) is tuple else ()
    return [channels + 1 + dim for dim, step in enumerate(steps) if step == (1, 1, 0)]


def _positions(shape: tuple[int, ...], dims: list[int]) -> int:
    """How many positions a tensor has along all dimensions but some."""
    return math.prod(size for dim, size in enumerate(shape) if dim not in dims)


def _count_widths(walk: Walk, node: fx.Node, read: IntArray, written: IntArray) -> None:
    if node.op == "call_module":
        walk.count(node, "in_channels", read)
        walk.count(node, "out_channels", written)


# --- matrices ---------------------------------------------------------------------------------------------------------


def linear(walk: Walk, node: fx.Node) -> Value:
    """Fully connected layers, on the last dimension."""
    weights, sizes, shape = _weights(walk, node), _sizes(walk, node), walk.shape(node)
    last = len(shape) - 1
    if weights.weight is None or not weights.is_known or len(sizes) != 2:
        return _unknown(walk, node, last)
    read = labels_at(walk, node, weights.source, last)
    written = _axis(walk, weights.weight, 0, sizes[0])
    walk.labels.tie(_axis(walk, weights.weight, 1, sizes[1]), read)
    walk.read(node, last, read)
    if node.op == "call_module":
        walk.count(node, "in_features", read)
        walk.count(node, "out_features", written)
    _written(walk, node, weights, written)
    carried = _carried(walk, weights.source, range(last))
    walk.macs(node, _positions(shape, [last, *carried]), [read, written, *carried.values()])
    return Tracked({**carried, last: written})


def embedding(walk: Walk, node: fx.Node) -> Value:
    """A table of vectors: the dimension of the vectors is made by it, the number of rows stays."""
    is_module = node.op == "call_module"
    weight = walk.parameter(node, "weight") if is_module else walk.value(argument(node, 1, "weight"))
    last = len(walk.shape(node)) - 1
    if weight is None:
        return _unknown(walk, node, last)
    walk.freeze(weight.at(0), node, "looks rows up by number")
    written = _axis(walk, weight, 1, walk.shape(node)[last])
    if node.op == "call_module":
        walk.count(node, "embedding_dim", written)
    walk.produce(node, written)
    return Tracked({last: written})


# --- normalisation ----------------------------------------------------------------------------------------------------


def batch_norm(walk: Walk, node: fx.Node) -> Value:
    """BatchNorm of any dimension: one scale, shift, mean and variance per channel."""
    source = argument(node, 0, "input")
    if _standardises(walk, node):
        return _standardised(walk, node, source)
    labels = labels_at(walk, node, source, 1)
    freeze_others(walk, node, source, [1], "normalises over it")
    if node.op == "call_module":
        given = [walk.parameter(node, name) for name in ("weight", "bias", "running_mean", "running_var")]
        walk.count(node, "num_features", labels)
    else:
        names = ("running_mean", "running_var", "weight", "bias")
        given = [walk.value(argument(node, index, name)) for index, name in enumerate(names, 1)]
    for tensor in given:
        if tensor is not None:
            walk.labels.tie(_axis(walk, tensor, 0, len(labels)), labels)
    for other in () if node.op == "call_module" else _untracked_tensors(walk, node):
        walk.freeze(labels, other, "is combined with the channels of a normalisation")
    return Tracked({1: labels})


def _standardises(walk: Walk, node: fx.Node) -> bool:
    """Whether `F.batch_norm` is used on something else than images, such as a weight, with statistics of its own."""
    given = [argument(node, index, name) for index, name in enumerate(("running_mean", "running_var"), 1)]
    return node.op != "call_module" and given == [None, None] and not walk.depends_on_inputs(node)


def _standardised(walk: Walk, node: fx.Node, source: Any) -> Value:
    """A standardised weight: narrowed, its mean and variance are of the channels that it still reads."""
    value = walk.value(source)
    for dim, labels in ({} if value is None else value.axes).items():
        if dim != 1:
            walk.read(node, dim, labels)
    written = None if value is None else value.at(1)
    for index, name in ((3, "weight"), (4, "bias")):
        tensor = walk.value(argument(node, index, name))
        if tensor is not None and written is not None:
            walk.labels.tie(_axis(walk, tensor, 0, len(written)), written)
        elif tensor is not None or walk.is_tensor(argument(node, index, name)):
            walk.freeze(written, node, "is combined with the channels of a normalisation")
            freeze_others(walk, node, argument(node, index, name), [], "scales something whose size stays")
    return value


def _untracked_tensors(walk: Walk, node: fx.Node) -> list[fx.Node]:
    return [other for other in node.all_input_nodes[1:] if walk.is_tensor(other) and walk.value(other) is None]


def instance_norm(walk: Walk, node: fx.Node) -> Value:
    """InstanceNorm of any dimension: each channel of each image has a mean and a variance of its own."""
    return batch_norm(walk, node) if has_channel_dim(walk, node) else give_up(walk, node)


def layer_norm(walk: Walk, node: fx.Node) -> Value:
    """LayerNorm over the last dimension: narrowed, it normalises over the channels that stay."""
    return _layer_norm(walk, node, len(walk.shape(node)) - 1)


def layer_norm_2d(walk: Walk, node: fx.Node) -> Value:
    """LayerNorm over the channels of (n, c, h, w), as ConvNeXt has it."""
    return _layer_norm(walk, node, 1)


def _layer_norm(walk: Walk, node: fx.Node, dim: int) -> Value:
    source = argument(node, 0, "input")
    if node.op == "call_module":
        module: Any = walk.module_of(node)
        dims = len(module.normalized_shape)
        given = [walk.parameter(node, name) for name in ("weight", "bias") if getattr(module, name, None) is not None]
    else:
        shape = argument(node, 1, "normalized_shape")
        dims = len(shape) if isinstance(shape, (tuple, list)) else 0
        given = [walk.value(argument(node, index, name)) for index, name in ((2, "weight"), (3, "bias"))]
    if dims != 1:
        return give_up(walk, node)
    labels = labels_at(walk, node, source, dim)
    if node.op == "call_module":
        walk.count(node, "normalized_shape", labels)
    elif not walk.fits(node, (*position(node, 1, "normalized_shape"), 0), labels):
        walk.freeze(labels, node, "has a shape that cannot be changed")
    walk.read(node, dim, labels)
    for tensor in given:
        if tensor is not None:
            walk.labels.tie(_axis(walk, tensor, 0, len(labels)), labels)
    for other in () if node.op == "call_module" else _untracked_tensors(walk, node):
        walk.freeze(labels, other, "is combined with the channels of a normalisation")
    value = walk.value(source)
    return tracked({**({} if value is None else value.axes), dim: labels})


def group_norm(walk: Walk, node: fx.Node) -> Value:
    """GroupNorm: many small groups go whole; in few large ones, the same channels of each."""
    source = argument(node, 0, "input")
    labels = labels_at(walk, node, source, 1)
    freeze_others(walk, node, source, [0, 1], "normalises over it")
    if node.op == "call_module":
        module: Any = walk.module_of(node)
        groups = int(module.num_groups)
        given = [walk.parameter(node, name) for name in ("weight", "bias") if getattr(module, name) is not None]
        walk.count(node, "num_channels", labels)
    else:
        groups = int(walk.plain(argument(node, 1, "num_groups")))
        given = [walk.value(argument(node, index, name)) for index, name in ((2, "weight"), (3, "bias"))]
    inside = len(labels) // groups
    if groups > inside:
        leaders = labels[::inside]
        walk.labels.tie(labels, np.repeat(leaders, inside))
        if node.op == "call_module":
            walk.count(node, "num_groups", leaders)
        elif not walk.fits(node, position(node, 1, "num_groups"), leaders):
            walk.freeze(labels, node, "has a number of groups that cannot be changed")
    else:
        walk.labels.tie(labels, np.tile(labels[:inside], groups))
        walk.read(node, 1, labels)
    for tensor in given:
        if tensor is not None:
            walk.labels.tie(_axis(walk, tensor, 0, len(labels)), labels)
    for other in () if node.op == "call_module" else _untracked_tensors(walk, node):
        walk.freeze(labels, other, "is combined with the channels of a normalisation")
    return Tracked({1: labels})


def prelu(walk: Walk, node: fx.Node) -> Value:
    """PReLU with one slope for all channels, or one for each."""
    source = argument(node, 0, "input")
    if node.op == "call_module":
        if walk.module_of(node).num_parameters == 1:
            return walk.value(source)
        weight = walk.parameter(node, "weight")
    else:
        given = argument(node, 1, "weight")
        if math.prod(walk.shape(given)) == 1:
            return walk.value(source)
        weight = walk.value(given)
    if weight is None:
        return give_up(walk, node)
    labels = labels_at(walk, node, source, 1)
    walk.labels.tie(_axis(walk, weight, 0, len(labels)), labels)
    if node.op == "call_module":
        walk.count(node, "num_parameters", labels)
    value = walk.value(source)
    return tracked({**({} if value is None else value.axes), 1: labels})


def weight_norm(walk: Walk, node: fx.Node) -> Value:
    """`torch._weight_norm`: along one dimension each slice has a length of its own, taken over all that stays."""
    value, lengths = walk.value(node.args[0]), walk.value(node.args[1])
    dims = argument(node, 2, "dim", default=0)
    dim = walk.plain(dims)
    why = "divides by a length over all of them"
    if value is None or type(dim) is not int or dim < 0:
        walk.freeze_inputs(node, why)
        return None
    for other_dim, mixed in value.axes.items():
        if other_dim != dim:
            walk.read(node, other_dim, mixed)
    freeze_others(walk, node, node.args[1], [dim], why)
    labels = value.at(dim)
    if labels is not None and lengths is not None and (other := lengths.at(dim)) is not None:
        walk.labels.tie(labels, other)
    return value


def has_channel_dim(walk: Walk, node: fx.Node) -> bool:
    """Whether a tensor is (n, c, ...) to a layer such as `MaxPool2d`; if one smaller, it takes n for c."""
    if node.op != "call_module":
        return len(walk.shape(node)) > 2
    name = type(walk.module_of(node)).__name__
    digits = [character for character in name if character.isdigit()]
    return not digits or len(walk.shape(node)) == int(digits[-1]) + 2


def pad_shortcut(walk: Walk, node: fx.Node) -> Value:
    """The zoo's zero-padding shortcut: old channels in the middle, constant zeros around them."""
    pad = walk.module_of(node)
    assert isinstance(pad, PadShortcut)
    inside = labels_at(walk, node, node.args[0], 1)
    before, after = walk.labels.fresh(pad.before), walk.labels.fresh(pad.after)
    walk.count(node, "before", before)
    walk.count(node, "after", after)
    return Tracked({1: np.concatenate([before, inside, after])})


MODULES: dict[type[nn.Module], Rule] = {
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.ConvTranspose1d: transposed_convolution,
    nn.ConvTranspose2d: transposed_convolution,
    nn.ConvTranspose3d: transposed_convolution,
    nn.Linear: linear,
    nn.Embedding: embedding,
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
    PadShortcut: pad_shortcut,
}

FUNCTIONS: dict[Any, Rule] = {
    F.conv1d: convolution,
    F.conv2d: convolution,
    F.conv3d: convolution,
    F.conv_transpose1d: transposed_convolution,
    F.conv_transpose2d: transposed_convolution,
    F.conv_transpose3d: transposed_convolution,
    F.linear: linear,
    F.embedding: embedding,
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.layer_norm: layer_norm,
    F.group_norm: group_norm,
    F.prelu: prelu,
    torch.prelu: prelu,
    torch._weight_norm: weight_norm,
}

OPERATORS: dict[str, Rule] = {"torchvision::deform_conv2d": deformable_convolution}
"""Operators of libraries that we do not import, by qualified name."""

NAMED: dict[str, Rule] = {
    "timm.layers.conv2d_same.Conv2dSame": convolution,
    "timm.layers.norm_act.BatchNormAct2d": batch_norm,
    "torchvision.models.convnext.LayerNorm2d": layer_norm_2d,
    "timm.layers.linear.Linear": linear,
    "timm.layers.norm.LayerNorm": layer_norm,
    "timm.layers.norm.LayerNorm2d": layer_norm_2d,
    "timm.layers.norm.GroupNorm": group_norm,
    "timm.layers.norm.GroupNorm1": group_norm,
}
