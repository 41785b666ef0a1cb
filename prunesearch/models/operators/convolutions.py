"""Convolutions, as modules and as functions: which channels they read and write, and where each position reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import fx, nn

from prunesearch.models.operators.kind import Call, Geometry, Kind
from prunesearch.models.operators.layers import (
    Weights,
    axis,
    carried,
    positions,
    sizes_of,
    unknown,
    weights_of,
    writes,
)
from prunesearch.models.operators.values import (
    Tracked,
    Value,
    Walk,
    argument,
    freeze_others,
    labels_at,
    position,
    takes_last_sizes,
)
from prunesearch.structure import IntArray


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
    weights, sizes, shape = weights_of(walk, node), sizes_of(walk, node), walk.shape(node)
    kernel = len(sizes) - 2
    channels = len(shape) - kernel - 1
    if weights.weight is None or not weights.is_known:
        return unknown(walk, node, channels)
    alone = _apart(walk, node, sizes, channels)
    freeze_others(walk, node, weights.source, [*range(channels + 1), *alone], "convolves over it")
    for dim in range(2, len(sizes)):
        walk.freeze(weights.weight.at(dim), node, "convolves with it")
    read = labels_at(walk, node, weights.source, channels)
    written = axis(walk, weights.weight, 0, sizes[0])
    inner = axis(walk, weights.weight, 1, sizes[1])
    groups, follow = _groups(walk, node)
    walk.read(node, channels, read)
    if groups == 1:
        walk.labels.tie(inner, read)
        per_output = [read]
        size = 1
    elif _loses_groups(walk, node, groups, sizes[1], written):  # depthwise: a channel each
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
    writes(walk, node, weights, written)
    along = carried(walk, weights.source, [*range(channels), *alone])
    walk.macs(
        node,
        size * math.prod(sizes[2:]) * positions(shape, [channels, *along]),
        [*per_output, written, *along.values()],
    )
    return Tracked({**along, channels: written})


def _loses_groups(walk: Walk, node: fx.Node, groups: int, inputs: int, written: IntArray) -> bool:
    """Whether whole groups go, or the same channels from every one: what leaves more widths, if other layers let it."""
    way = walk.choose(node, 3, written, alone=True) if inputs > 1 else 0
    return groups > inputs if way == 0 else way == 2


def _apart(walk: Walk, node: fx.Node, sizes: tuple[int, ...], channels: int) -> list[int]:
    """Dimensions over which a convolution does not mix, as its kernel is one position wide there."""
    if node.op != "call_module":
        return []
    module: Any = walk.module_of(node)
    if type(module.padding) is not tuple:
        return []
    dims = len(sizes) - 2
    each = (given * dims if len(given) == 1 else given for given in (module.stride, module.padding))  # as torch does
    steps = zip(sizes[2:], *each, strict=True)
    return [channels + 1 + dim for dim, step in enumerate(steps) if step == (1, 1, 0)]


def _count_widths(walk: Walk, node: fx.Node, read: IntArray, written: IntArray) -> None:
    if node.op == "call_module":
        walk.count(node, "in_channels", read)
        walk.count(node, "out_channels", written)


def transposed_convolution(walk: Walk, node: fx.Node) -> Value:
    """Transposed convolutions; their weight is (in, out / groups, ...)."""
    weights, sizes, source = weights_of(walk, node), sizes_of(walk, node), walk.shape(argument(node, 0, "input"))
    channels = len(source) - len(sizes) + 1
    groups, follow = _groups(walk, node)
    if node.op == "call_module":
        takes_last_sizes(walk, node, 1, len(sizes) - 2)
    if weights.weight is None or not weights.is_known:
        return unknown(walk, node, channels)
    freeze_others(walk, node, weights.source, [*range(channels + 1)], "convolves over it")
    for dim in range(2, len(sizes)):
        walk.freeze(weights.weight.at(dim), node, "convolves with it")
    read = labels_at(walk, node, weights.source, channels)
    outer, inner = axis(walk, weights.weight, 0, sizes[0]), axis(walk, weights.weight, 1, sizes[1])
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
    writes(walk, node, weights, written)
    along = carried(walk, weights.source, range(channels))
    walk.macs(node, size * math.prod(sizes[2:]) * positions(source, [channels, *along]), [*factors, *along.values()])
    return Tracked({**along, channels: written})


def deformable_convolution(walk: Walk, node: fx.Node) -> Value:
    """`torchvision.ops.deform_conv2d` in one group: (input, weight, offset, mask, bias, ...); the offsets stay."""
    source, weight, given = node.args[0], walk.value(node.args[1]), node.args[4]
    groups, has_bias = walk.plain(node.args[11]), math.prod(walk.shape(given)) == walk.shape(node)[1]
    bias = walk.value(given) if has_bias else None
    if weight is None or groups != 1:
        return unknown(walk, node, 1)
    walk.stays(node, (11,))  # inputs over inputs of the weight, which are tied
    for other in (node.args[2], node.args[3]):
        freeze_others(walk, node, other, [], "looks at places that they say")
    freeze_others(walk, node, source, [1], "convolves over it")
    for dim in (2, 3):
        walk.freeze(weight.at(dim), node, "convolves with it")
    read, sizes = labels_at(walk, node, source, 1), walk.shape(node.args[1])
    written = axis(walk, weight, 0, sizes[0])
    walk.labels.tie(axis(walk, weight, 1, sizes[1]), read)
    if has_bias and bias is None:
        walk.freeze(written, node, "adds something whose size stays")
    walk.read(node, 1, read)
    writes(walk, node, Weights(source, weight, bias, is_known=True), written)
    walk.macs(node, math.prod(sizes[2:]) * positions(walk.shape(node), [1]), [read, written])
    return Tracked({1: written})


# --- widths and geometry ----------------------------------------------------------------------------------------------


def agrees(module: Any) -> bool:
    """Whether the numbers of channels of a convolution are those of its weight."""
    weight = module._parameters["weight"]
    read, written, groups = module.in_channels, module.out_channels, module.groups
    first, second = (read, written) if module.transposed else (written, read)
    if weight is None or 0 in weight.shape or groups < 1:
        return weight is not None and 0 in weight.shape
    return not (read % groups or written % groups) and tuple(weight.shape[:2]) == (first, second // groups)


def adopt(module: Any) -> None:
    """Set the numbers of channels of a convolution by its weight."""
    first, second = module._parameters["weight"].shape[:2]
    if module.groups == module.in_channels == module.out_channels:
        module.groups, second = first, 1
    read, written = (first, second * module.groups) if module.transposed else (second * module.groups, first)
    module.in_channels, module.out_channels = read, written


def geometry(call: Call) -> Geometry:
    """As the layer or the function says."""
    usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    values = {name: call.given(index, name, default) for index, (name, default) in enumerate(usual.items(), 3)}
    return Geometry(**values, padding_mode="zeros" if call.module is None else call.module.padding_mode)


def transposed_geometry(call: Call) -> Geometry | None:
    """As the layer or the function says; None of a layer that is told how large its outputs are to be."""
    if call.module is not None and len(call.node.args) + len(call.node.kwargs) > 1:
        return None
    usual = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
    return Geometry(
        **{name: call.given(index, name, default) for index, (name, default) in enumerate(usual.items(), 3)}
    )


def same_by_size(call: Call) -> Geometry:
    """Padding with which there are as many outputs as strides fit into the input, the odd one behind."""
    source = argument(call.node, 0, "input", "x")
    conv, sides = call.module, []
    for size, kernel, stride, dilation in zip(
        source.meta["shape"][2:], conv.kernel_size, conv.stride, conv.dilation, strict=True
    ):
        total = max((math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        sides.append((total // 2, total - total // 2))
    return Geometry(conv.stride, tuple(sides), conv.dilation, conv.groups, conv.padding_mode)


CONVOLUTION = Kind(
    convolution,
    widths=("in_channels", "out_channels", "groups"),
    roles={"weight": ("produces", "reads")},
    agrees=agrees,
    adopt=adopt,
    geometry=geometry,
    multiplies=True,
)
TRANSPOSED = Kind(
    transposed_convolution,
    widths=("in_channels", "out_channels", "groups"),
    roles={"weight": ("reads", "produces")},
    agrees=agrees,
    adopt=adopt,
    geometry=transposed_geometry,
    multiplies=True,
)
KINDS: dict[Any, Kind] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d, F.conv1d, F.conv2d, F.conv3d), CONVOLUTION),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), TRANSPOSED),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), TRANSPOSED),
    "timm.layers.conv2d_same.Conv2dSame": replace(CONVOLUTION, geometry=same_by_size),  # as TensorFlow pads
    "torchvision::deform_conv2d": Kind(deformable_convolution, multiplies=True),
}
