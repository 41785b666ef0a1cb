"""Normalisation, as modules and as functions: one scale for each channel, of a mean and a variance of some of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunesearch.models.operators.kind import Call, Kind, adopts_last, last_agrees
from prunesearch.models.operators.layers import axis, untracked_tensors
from prunesearch.models.operators.norm import Norm
from prunesearch.models.operators.values import (
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
from prunesearch.structure import IntArray


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
    _tie_scales(walk, node, given, labels)
    return Tracked({1: labels})


def _tie_scales(walk: Walk, node: fx.Node, given: Iterable[Tracked | None], labels: IntArray) -> None:
    """Tie tensors that hold a number for each channel; a function may be given others, which stay as they are."""
    for tensor in given:
        if tensor is not None:
            walk.labels.tie(axis(walk, tensor, 0, len(labels)), labels)
    for other in () if node.op == "call_module" else untracked_tensors(walk, node):
        walk.freeze(labels, other, "is combined with the channels of a normalisation")


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
            walk.labels.tie(axis(walk, tensor, 0, len(written)), written)
        elif tensor is not None or walk.is_tensor(argument(node, index, name)):
            walk.freeze(written, node, "is combined with the channels of a normalisation")
            freeze_others(walk, node, argument(node, index, name), [], "scales something whose size stays")
    return value


def instance_norm(walk: Walk, node: fx.Node) -> Value:
    """InstanceNorm of any dimension: each channel of each image has a mean and a variance of its own."""
    return batch_norm(walk, node) if has_channel_dim(walk, node) else give_up(walk, node)


def has_channel_dim(walk: Walk, node: fx.Node) -> bool:
    """Whether a tensor is (n, c, ...) to a layer such as `MaxPool2d`; if one smaller, it takes n for c."""
    if node.op != "call_module":
        return len(walk.shape(node)) > 2
    name = type(walk.module_of(node)).__name__
    digits = [character for character in name if character.isdigit()]
    return not digits or len(walk.shape(node)) == int(digits[-1]) + 2


def layer_norm(walk: Walk, node: fx.Node) -> Value:
    """LayerNorm and RMSNorm over the last dimension: narrowed, it normalises over the channels that stay."""
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
    _tie_scales(walk, node, given, labels)
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
    _tie_scales(walk, node, given, labels)
    return Tracked({1: labels})


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


# --- widths and definitions -------------------------------------------------------------------------------------------


def _layer_agrees(module: Any) -> bool:
    weight = module._parameters["weight"]
    return weight is None or tuple(weight.shape) == tuple(module.normalized_shape)


def _adopt_layer(module: Any) -> None:
    *others, _ = module.normalized_shape
    module.normalized_shape = (*others, module._parameters["weight"].shape[-1])


def _group_agrees(module: Any) -> bool:
    weight = module._parameters["weight"]
    whole = module.num_groups > 0 and module.num_channels % module.num_groups == 0
    return (whole or not module.num_channels) and (weight is None or tuple(weight.shape) == (module.num_channels,))


def _layer_norm_of(call: Call) -> Norm:
    weight, bias = call.given(2, "weight"), call.given(3, "bias")
    return Norm(None, weight, bias, float(call.given(4, "eps", 1e-5)))


def _rms_norm_of(call: Call) -> Norm:
    eps = call.given(3, "eps")
    if eps is None:
        eps = torch.finfo(call.source.dtype).eps
    return Norm(None, call.given(2, "weight"), None, float(eps), centres=False)


def _group_norm_of(call: Call) -> Norm:
    return replace(_layer_norm_of(call), groups=call.given(1, "num_groups"))


BATCH_NORM = Kind(
    batch_norm,
    masking="in place",  # what it mixes are the channels that a standardised weight reads
    statistics="batch",
    widths=("num_features",),
    roles={"weight": ("scales",)},
    agrees=last_agrees("num_features"),
    adopt=adopts_last("num_features"),
)
INSTANCE_NORM = replace(BATCH_NORM, rule=instance_norm, masking="zeros", statistics="image", roles={})
LAYER_NORM = Kind(
    layer_norm,
    norm=_layer_norm_of,
    statistics="position",
    widths=("normalized_shape",),
    agrees=_layer_agrees,
    adopt=_adopt_layer,
)
RMS_NORM = replace(LAYER_NORM, norm=_rms_norm_of)
LAYER_NORM_2D = replace(LAYER_NORM, rule=layer_norm_2d)
GROUP_NORM = Kind(
    group_norm,
    norm=_group_norm_of,
    statistics="image",
    widths=("num_groups", "num_channels"),
    agrees=_group_agrees,
    adopt=adopts_last("num_channels"),
)
KINDS: dict[Any, Kind] = {
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, _BatchNorm), BATCH_NORM),
    **dict.fromkeys((F.batch_norm, "timm.layers.norm_act.BatchNormAct2d"), BATCH_NORM),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, F.instance_norm), INSTANCE_NORM),
    **dict.fromkeys((nn.LayerNorm, F.layer_norm, "timm.layers.norm.LayerNorm"), LAYER_NORM),
    **dict.fromkeys((nn.RMSNorm, F.rms_norm), RMS_NORM),
    **dict.fromkeys(("torchvision.models.convnext.LayerNorm2d", "timm.layers.norm.LayerNorm2d"), LAYER_NORM_2D),
    **dict.fromkeys((nn.GroupNorm, F.group_norm), GROUP_NORM),
    **dict.fromkeys(("timm.layers.norm.GroupNorm", "timm.layers.norm.GroupNorm1"), GROUP_NORM),
    torch._weight_norm: Kind(weight_norm),
}
