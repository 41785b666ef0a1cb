"""What layers with weights have in common: their tensors, what they read and what they write."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import fx

from prunesearch.models.operators.values import Tracked, Value, Walk, argument
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


def weights_of(walk: Walk, node: fx.Node) -> Weights:
    """The tensors of a layer, or of a function that is one."""
    source = argument(node, 0, "input")
    if node.op == "call_module":
        bias = walk.parameter(node, "bias")
        weight = walk.parameter(node, "weight")
        has_bias = getattr(walk.module_of(node), "bias", None) is not None
        return Weights(source, weight, bias, weight is not None and (bias is not None or not has_bias))
    weight, given = walk.value(argument(node, 1, "weight")), argument(node, 2, "bias")
    bias = walk.value(given)
    return Weights(source, weight, bias, weight is not None and (bias is not None or given is None))


def axis(walk: Walk, value: Tracked, dim: int, size: int) -> IntArray:
    """Labels of a weight's dimension; of one that keeps its size, new ones that stay."""
    labels = value.at(dim)
    if labels is None:
        labels = walk.labels.fresh(size)
        walk.labels.freeze(labels, "is a size of a weight that stays")
    return labels


def sizes_of(walk: Walk, node: fx.Node) -> tuple[int, ...]:
    """Shape of its weight."""
    if node.op == "call_module":
        module: Any = walk.module_of(node)
        return tuple(module.weight.shape)
    return walk.shape(argument(node, 1, "weight"))


def unknown(walk: Walk, node: fx.Node, channels: int) -> Value:
    """A layer of whose weights nothing is known: everything around it stays."""
    walk.freeze_inputs(node, "uses a weight that is computed in a way that is not followed")
    labels = walk.labels.fresh(walk.shape(node)[channels])
    walk.freeze(labels, node, "uses a weight that is computed in a way that is not followed")
    walk.produce(node, labels)
    return Tracked({channels: labels})


def writes(walk: Walk, node: fx.Node, weights: Weights, labels: IntArray) -> None:
    """The bias goes with what is written."""
    if weights.bias is not None:
        walk.labels.tie(axis(walk, weights.bias, 0, len(labels)), labels)
    walk.produce(node, labels)


def carried(walk: Walk, source: Any, dims: Iterable[int]) -> dict[int, IntArray]:
    """The channels of dimensions of which the layer treats each position alike."""
    value = walk.value(source)
    return {} if value is None else {dim: labels for dim in dims if (labels := value.at(dim)) is not None}


def positions(shape: tuple[int, ...], dims: list[int]) -> int:
    """How many positions a tensor has along all dimensions but some."""
    return math.prod(size for dim, size in enumerate(shape) if dim not in dims)


def untracked_tensors(walk: Walk, node: fx.Node) -> list[fx.Node]:
    """Tensors that it is given besides the first, and of whose channels nothing is known."""
    return [other for other in node.all_input_nodes[1:] if walk.is_tensor(other) and walk.value(other) is None]
