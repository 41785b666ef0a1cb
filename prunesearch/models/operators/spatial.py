"""Operators on positions: pooling, resizing, padding, and those that turn channels into positions or back."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from prunesearch.models.operators.kind import Kind
from prunesearch.models.operators.values import (
    Tracked,
    Value,
    Walk,
    argument,
    combined,
    freeze_others,
    give_up,
    listed,
    takes_last_sizes,
    tracked,
)


def spatial(walk: Walk, node: fx.Node) -> Value:
    """Pooling, resizing and spatial padding: the last dimensions are theirs, channels are before those."""
    source = argument(node, 0, "input")
    value = walk.value(source)
    first = len(walk.shape(source)) - _own_dims(walk, node, len(walk.shape(source)))
    freeze_others(walk, node, source, range(first), "works on its positions")
    if value is None:
        return None
    kept = {dim: labels for dim, labels in value.axes.items() if dim < first}
    result = Tracked(kept) if kept else None
    several = "shapes" in node.meta  # with the indices of the largest
    return (result,) * len(node.meta["shapes"]) if several else result


def grid_sample(walk: Walk, node: fx.Node) -> Value:
    """`F.grid_sample`: each channel, at positions that others say, whose channels all stay."""
    source = argument(node, 0, "input")
    value = walk.value(source)
    freeze_others(walk, node, source, [1], "works on its positions")
    freeze_others(walk, node, argument(node, 1, "grid"), [], "samples at it")
    return None if value is None else tracked({1: value.at(1)})


def affine_grid(walk: Walk, node: fx.Node) -> Value:
    """`F.affine_grid`: positions of a size, of which the number of channels is not looked at."""
    freeze_others(walk, node, argument(node, 0, "theta"), [], "makes positions of it")
    for at, _ in listed(node, 1, "size")[1:2]:
        walk.stays(node, at)
    return None


def unpool(walk: Walk, node: fx.Node) -> Value:
    """`F.max_unpool2d`: values go back to the positions that the pooling of the same channels says."""
    source, indices = argument(node, 0, "input"), argument(node, 1, "indices")
    own = _own_dims(walk, node, len(walk.shape(source)))
    first = len(walk.shape(source)) - own
    takes_last_sizes(walk, node, 2 if node.op == "call_module" else 5, own)
    for operand in (source, indices):
        freeze_others(walk, node, operand, range(first), "works on its positions")
    found = combined(walk, node, (source, indices), walk.shape(source))
    return None if found is None else tracked({dim: labels for dim, labels in found.axes.items() if dim < first})


def _own_dims(walk: Walk, node: fx.Node, n: int) -> int:
    """How many dimensions are positions to the operator."""
    target = type(walk.module_of(node)) if node.op == "call_module" else node.target
    found = re.search(r"(\d)d", getattr(target, "__name__", str(target)))
    return int(found[1]) if found else n - 2


def pixel_shuffle(walk: Walk, node: fx.Node) -> Value:
    """R * r channels become the positions of one; they go together."""
    source, factor = _source_and_factor(walk, node, "upscale_factor")
    value = walk.value(source)
    if value is None or factor is None:
        return give_up(walk, node)
    channels = len(walk.shape(source)) - 3
    labels = value.at(channels)
    if labels is None:
        return value
    leaders = labels[:: factor * factor]
    walk.labels.tie(labels, np.repeat(leaders, factor * factor))
    return Tracked({**value.axes, channels: leaders})


def pixel_unshuffle(walk: Walk, node: fx.Node) -> Value:
    """The positions of a channel become r * r channels, which go with it."""
    source, factor = _source_and_factor(walk, node, "downscale_factor")
    value = walk.value(source)
    if value is None or factor is None:
        return give_up(walk, node)
    channels = len(walk.shape(source)) - 3
    labels = value.at(channels)
    return value if labels is None else Tracked({**value.axes, channels: np.repeat(labels, factor * factor)})


def channel_shuffle(walk: Walk, node: fx.Node) -> Value:
    """Channels of several groups in turn: the same ones go from each."""
    source, groups = _source_and_factor(walk, node, "groups")
    value = walk.value(source)
    labels = None if value is None else value.at(1)
    if value is None or groups is None or labels is None:
        return give_up(walk, node)
    parts = labels.reshape(groups, -1)
    walk.labels.tie(labels, np.tile(parts[0], groups))
    return Tracked({**value.axes, 1: parts.T.flatten()})


def unfold(walk: Walk, node: fx.Node) -> Value:
    """`F.unfold`: a channel becomes as many as its window has positions, which go with it."""
    source = argument(node, 0, "input")
    value = walk.value(source)
    labels = None if value is None else value.at(1)
    if value is None or labels is None or len(walk.shape(source)) != 4 or len(value.axes) > 1:
        return give_up(walk, node)
    return Tracked({1: np.repeat(labels, walk.shape(node)[1] // len(labels))})


def _source_and_factor(walk: Walk, node: fx.Node, attribute: str) -> tuple[Any, int | None]:
    source = argument(node, 0, "input")
    if node.op == "call_module":
        factor: Any = getattr(walk.module_of(node), attribute)
    else:
        factor = walk.plain(argument(node, 1, attribute))
    return source, factor if isinstance(factor, int) else None


_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool1d, nn.LPPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d,
    nn.ReplicationPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d,
)  # fmt: skip
_FUNCTIONS = (
    F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d,
    F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.lp_pool1d, F.lp_pool2d,
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
    F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
    F.max_pool2d_with_indices, F.adaptive_max_pool2d_with_indices,
    F.interpolate, F.upsample,
)  # fmt: skip
_UNPOOLING = (nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d, F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)

KINDS: dict[Any, Kind] = {
    **dict.fromkeys((*_MODULES, *_FUNCTIONS), Kind(spatial)),
    F.grid_sample: Kind(grid_sample),
    F.affine_grid: Kind(affine_grid),
    **dict.fromkeys(_UNPOOLING, Kind(unpool)),
    **dict.fromkeys((nn.PixelShuffle, F.pixel_shuffle), Kind(pixel_shuffle)),
    **dict.fromkeys((nn.PixelUnshuffle, F.pixel_unshuffle), Kind(pixel_unshuffle)),
    **dict.fromkeys((nn.ChannelShuffle, torch.channel_shuffle), Kind(channel_shuffle)),
    **dict.fromkeys((nn.Unfold, F.unfold), Kind(unfold)),
}
