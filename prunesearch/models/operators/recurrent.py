"""Recurrent layers: what they read at each step, and the state that they keep from step to step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.utils.rnn import PackedSequence

from prunesearch.models.nested import Nest
from prunesearch.models.operators.kind import Kind, Role
from prunesearch.models.operators.values import (
    Tracked,
    Value,
    Walk,
    argument,
    freeze_others,
    give_up,
    labels_at,
    tracked,
)
from prunesearch.structure import IntArray


@dataclass(frozen=True)
class _Pass:
    """One layer of it in one direction.

    Attributes:
        suffix: Of the names of its tensors.
        is_first: Whether it reads what the whole reads, not what the layer before it made.
    """

    suffix: str
    is_first: bool


def recurrent(walk: Walk, node: fx.Node) -> Value:
    """`LSTM`, `GRU` and `RNN`. The states of all layers and directions are one group, as they have one size."""
    given = argument(node, 0, "input")
    source = given if walk.is_tensor(given) else _packed(given)
    if source is None:
        return give_up(walk, node)
    module: Any = walk.module_of(node)
    directions = 2 if module.bidirectional else 1
    last = len(walk.shape(source)) - 1
    freeze_others(walk, node, source, [last], "runs over it")
    read, (made, cells) = labels_at(walk, node, source, last), _state(walk, node)
    states = argument(node, 1, "hx")
    _tie_states(walk, node, states if isinstance(states, (tuple, list)) else (states,), (made, cells))
    steps = math.prod(walk.shape(source)[:-1])
    for one in _passes(module.num_layers, directions):
        _tie_weights(walk, node, one.suffix, read if one.is_first else np.tile(made, directions), made, cells, steps)
    walk.read(node, last, read)
    walk.count(node, "input_size", read)
    walk.count(node, "hidden_size", cells)
    if module.proj_size:
        walk.count(node, "proj_size", made)
    walk.produce(node, cells)
    state: Value = Tracked({last: made})
    if isinstance(module, nn.LSTM):
        state = (state, Tracked({last: cells}))
    outputs = Tracked({last: np.tile(made, directions)})
    return outputs if source is given else (outputs, None, None, None), state


def _packed(given: Any) -> fx.Node | None:
    """The steps of sequences of several lengths, where these are packed by torch; None of anything else."""
    is_packed = (
        isinstance(given, fx.Node)
        and isinstance(given.target, Nest)
        and isinstance(given.target.example, PackedSequence)
    )
    return given.all_input_nodes[0] if is_packed else None


def nested(walk: Walk, node: fx.Node) -> Value:
    """An object made of tensors: packed sequences are followed to the recurrent layer that they are for."""
    assert isinstance(node.target, Nest)
    if isinstance(node.target.example, PackedSequence):
        return tuple(map(walk.values, node.all_input_nodes))
    walk.freeze_inputs(node, f"is a {type(node.target.example).__name__}, which is not followed")
    return None


def pack(walk: Walk, node: fx.Node) -> Value:
    """What `pack_padded_sequence` calls: (steps, ...) of all sequences in one row, and how many there are at each."""
    source = node.args[0]
    last = len(walk.shape(source)) - 1
    freeze_others(walk, node, source, [last], "packs it")
    value = walk.value(source)
    return tracked({1: None if value is None else value.at(last)}), None


def unpack(walk: Walk, node: fx.Node) -> Value:
    """What `pad_packed_sequence` calls."""
    freeze_others(walk, node, node.args[0], [1], "unpacks it")
    value = walk.value(node.args[0])
    return tracked({2: None if value is None else value.at(1)}), None


def cell(walk: Walk, node: fx.Node) -> Value:
    """`LSTMCell`, `GRUCell` and `RNNCell`: one step."""
    source, states = argument(node, 0, "input"), argument(node, 1, "hx")
    last = len(walk.shape(source)) - 1
    freeze_others(walk, node, source, [last], "runs over it")
    read, (made, cells) = labels_at(walk, node, source, last), _state(walk, node)
    _tie_states(walk, node, states if isinstance(states, (tuple, list)) else (states,), (made, cells))
    _tie_weights(walk, node, "", read, made, cells, math.prod(walk.shape(source)[:-1]))
    walk.read(node, last, read)
    walk.count(node, "input_size", read)
    walk.count(node, "hidden_size", cells)
    walk.produce(node, cells)
    state = Tracked({last: made})
    return (state, Tracked({last: cells})) if isinstance(walk.module_of(node), nn.LSTMCell) else state


def _passes(layers: int, directions: int) -> Iterator[_Pass]:
    for layer in range(layers):
        for direction in range(directions):
            yield _Pass(f"_l{layer}" + "_reverse" * direction, is_first=layer == 0)


def _state(walk: Walk, node: fx.Node) -> tuple[IntArray, IntArray]:
    """Channels of the state that is given to the next step, and of those that are kept inside: others if projected."""
    first = "" if isinstance(walk.module_of(node), nn.RNNCellBase) else "_l0"
    made = _labels(walk, node, f"weight_hh{first}", 1)
    projected = walk.parameter(node, f"weight_hr{first}") if first else None
    return made, made if projected is None else _labels(walk, node, f"weight_hr{first}", 1)


def _labels(walk: Walk, node: fx.Node, name: str, dim: int) -> IntArray:
    value = walk.parameter(node, name)
    labels = None if value is None else value.at(dim)
    assert labels is not None
    return labels


def _tie_states(walk: Walk, node: fx.Node, states: Any, kept: tuple[IntArray, IntArray]) -> None:
    """The states that it begins with."""
    for state, labels in zip(states, kept, strict=False):
        if walk.is_tensor(state):
            last = len(walk.shape(state)) - 1
            freeze_others(walk, node, state, [last], "runs over it")
            walk.labels.tie(labels_at(walk, node, state, last), labels)


def _tie_weights(
    walk: Walk, node: fx.Node, suffix: str, read: IntArray, made: IntArray, cells: IntArray, steps: int
) -> None:
    """Each gate has a row of the weights for each cell."""
    from_input, from_state = (walk.parameter(node, f"weight_{kind}{suffix}") for kind in ("ih", "hh"))
    assert from_input is not None
    assert from_state is not None
    biases = [walk.parameter(node, f"bias_{kind}{suffix}") for kind in ("ih", "hh")]
    gates = len(_labels(walk, node, f"weight_ih{suffix}", 0)) // len(cells)
    for tensor in (from_input, from_state, *biases):
        rows = None if tensor is None else tensor.at(0)
        if rows is not None:
            walk.labels.tie(rows, np.tile(cells, gates))
    walk.labels.tie(_labels(walk, node, f"weight_ih{suffix}", 1), read)
    walk.labels.tie(_labels(walk, node, f"weight_hh{suffix}", 1), made)
    walk.macs(node, steps * gates, [read, cells])
    walk.macs(node, steps * gates, [made, cells])
    if made is not cells:
        walk.labels.tie(_labels(walk, node, f"weight_hr{suffix}", 0), made)
        walk.labels.tie(_labels(walk, node, f"weight_hr{suffix}", 1), cells)
        walk.macs(node, steps, [cells, made])


_ROLES: Mapping[str, tuple[Role, ...]] = {"weight*": ("produces", "reads")}
RECURRENT = Kind(recurrent, masking="state", widths=("input_size", "hidden_size", "proj_size"), roles=_ROLES)
CELL = Kind(cell, masking="state", widths=("input_size", "hidden_size"), roles=_ROLES)
NESTED = Kind(nested)
"""Objects made of tensors, by whose class they are no kind of their own."""
KINDS: dict[Any, Kind] = {
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN), RECURRENT),
    **dict.fromkeys((nn.LSTMCell, nn.GRUCell, nn.RNNCell), CELL),
    torch._VF._pack_padded_sequence: Kind(pack),
    torch._VF._pad_packed_sequence: Kind(unpack),
}
