"""Layers of which there is one of a kind: PReLU, and the zoo's shortcut."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from prunesearch.models.operators.kind import Kind, adopts_last, last_agrees
from prunesearch.models.operators.layers import axis
from prunesearch.models.operators.values import Tracked, Value, Walk, argument, give_up, labels_at, tracked
from prunesearch.models.zoo.layers import PadShortcut


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
    walk.labels.tie(axis(walk, weight, 0, len(labels)), labels)
    if node.op == "call_module":
        walk.count(node, "num_parameters", labels)
    value = walk.value(source)
    return tracked({**({} if value is None else value.axes), 1: labels})


def pad_shortcut(walk: Walk, node: fx.Node) -> Value:
    """The zoo's zero-padding shortcut: old channels in the middle, constant zeros around them."""
    pad = walk.module_of(node)
    assert isinstance(pad, PadShortcut)
    inside = labels_at(walk, node, node.args[0], 1)
    before, after = walk.labels.fresh(pad.before), walk.labels.fresh(pad.after)
    walk.count(node, "before", before)
    walk.count(node, "after", after)
    return Tracked({1: np.concatenate([before, inside, after])})


PRELU = Kind(
    prelu,
    widths=("num_parameters",),
    agrees=last_agrees("num_parameters"),
    adopt=adopts_last("num_parameters"),
)
KINDS: dict[Any, Kind] = {
    **dict.fromkeys((nn.PReLU, F.prelu, torch.prelu), PRELU),
    PadShortcut: Kind(pad_shortcut, widths=("before", "after")),
}
