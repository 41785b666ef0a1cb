"""Linear layers and tables of vectors, as modules and as functions."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import fx, nn

from prunesearch.models.operators.kind import Call, Geometry, Kind, adopts_last, last_agrees
from prunesearch.models.operators.layers import axis, carried, positions, sizes_of, unknown, weights_of, writes
from prunesearch.models.operators.values import Tracked, Value, Walk, argument, labels_at


def linear(walk: Walk, node: fx.Node) -> Value:
    """Fully connected layers, on the last dimension."""
    weights, sizes, shape = weights_of(walk, node), sizes_of(walk, node), walk.shape(node)
    last = len(shape) - 1
    if weights.weight is None or not weights.is_known or len(sizes) != 2:
        return unknown(walk, node, last)
    read = labels_at(walk, node, weights.source, last)
    written = axis(walk, weights.weight, 0, sizes[0])
    walk.labels.tie(axis(walk, weights.weight, 1, sizes[1]), read)
    walk.read(node, last, read)
    if node.op == "call_module":
        walk.count(node, "in_features", read)
        walk.count(node, "out_features", written)
    writes(walk, node, weights, written)
    along = carried(walk, weights.source, range(last))
    walk.macs(node, positions(shape, [last, *along]), [read, written, *along.values()])
    return Tracked({**along, last: written})


def embedding(walk: Walk, node: fx.Node) -> Value:
    """A table of vectors: the dimension of the vectors is made by it, the number of rows stays."""
    is_module = node.op == "call_module"
    weight = walk.parameter(node, "weight") if is_module else walk.value(argument(node, 1, "weight"))
    last = len(walk.shape(node)) - 1
    if weight is None:
        return unknown(walk, node, last)
    walk.freeze(weight.at(0), node, "looks rows up by number")
    written = axis(walk, weight, 1, walk.shape(node)[last])
    if node.op == "call_module":
        walk.count(node, "embedding_dim", written)
    walk.produce(node, written)
    return Tracked({last: written})


def _agrees(module: Any) -> bool:
    weight = module._parameters["weight"]
    return weight is not None and tuple(weight.shape) == (module.out_features, module.in_features)


def _adopt(module: Any) -> None:
    module.out_features, module.in_features = module._parameters["weight"].shape


def _nowhere(call: Call) -> Geometry:
    """A linear layer has no positions to move over."""
    return Geometry()


LINEAR = Kind(
    linear,
    widths=("in_features", "out_features"),
    roles={"weight": ("produces", "reads")},
    agrees=_agrees,
    adopt=_adopt,
    geometry=_nowhere,
    multiplies=True,
)
EMBEDDING = Kind(
    embedding, widths=("embedding_dim",), agrees=last_agrees("embedding_dim"), adopt=adopts_last("embedding_dim")
)
KINDS: dict[Any, Kind] = {
    **dict.fromkeys((nn.Linear, F.linear, "timm.layers.linear.Linear"), LINEAR),
    **dict.fromkeys((nn.Embedding, F.embedding), EMBEDDING),
}
