"""Numbers of channels that a forward computed with unseen, such as `1.0 / c`: found by recording a narrower network.

A whole number that remembers where it came from is an ordinary `int` to Python, so `2.0 * c` and `np.sqrt(c)` are plain
numbers without a word. Where such a number reaches an operator, the narrower network gives it another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from prunesearch.models.recorded import Position, Recording

_FEW = 4
"""Elements of tensors that a forward may have made of a number of channels; others are of data or of positions."""


def may_have(recording: Recording) -> bool:
    """Whether an operator was given a number that neither code nor a module holds, or a tensor that it made."""
    made = (tensor for name, tensor in recording.constants.items() if name not in recording.held)
    is_made = any(tensor.is_floating_point() and tensor.numel() <= _FEW for tensor in made)
    return is_made or any(node.meta.get("computed") for node in recording.graph.nodes)


def unseen(recording: Recording, narrower: Recording) -> frozenset[str]:
    """Names of nodes that are given another number in a narrower network, and no node that says why.

    Args:
        recording: Of the full network.
        narrower: Of the same forward of a narrower one.

    Returns:
        The names; none if the two do not consist of the same operators.
    """
    pairs = _pairs(recording, narrower)
    found = [node for node, twin in pairs if any(_is_fraction_that_differs(*each) for each in _given(node, twin))]
    for node, twin in pairs:
        mine, theirs = (r.constants.get(str(n.target)) for r, n in ((recording, node), (narrower, twin)))
        if node.op == "get_attr" and mine is not None and theirs is not None and _values_differ(mine, theirs):
            found += list(node.users)
    return frozenset(node.name for node in found)


def is_explained(recording: Recording, narrower: Recording, counts: Mapping[tuple[str, Position], int]) -> bool:
    """Whether all numbers that operators are given in a narrower network are those that they should be.

    Args:
        recording: Of the full network.
        narrower: Of the same forward of a narrower one.
        counts: What numbers that follow channels are in it, by the name of the node and the way to the number.
    """
    pairs = _pairs(recording, narrower)
    if not pairs or unseen(recording, narrower):
        return False
    return all(
        theirs == (mine if number is None else number)
        for node, twin in pairs
        for position, mine, theirs in _given(node, twin)
        if type(mine) is int or type(theirs) is int
        if (number := counts.get((node.name, position))) is not None or position not in node.meta.get("numbers", {})
    )


def _pairs(recording: Recording, narrower: Recording) -> list[tuple[fx.Node, fx.Node]]:
    """The nodes of two recordings beside each other; none if the two do not consist of the same operators."""
    nodes, twins = list(recording.graph.nodes), list(narrower.graph.nodes)
    return list(zip(nodes, twins, strict=True)) if [*map(_name, nodes)] == [*map(_name, twins)] else []


def _given(node: fx.Node, twin: fx.Node) -> Iterator[tuple[Position, Any, Any]]:
    """What two nodes are given, piece by piece, with the way to it; what has other parts in the twin is one piece."""
    for position, mine, theirs in _pieces((node.args, node.kwargs), (twin.args, twin.kwargs)):
        yield position[1:], mine, theirs  # without the level of (args, kwargs)


def _pieces(mine: Any, theirs: Any, position: Position = ()) -> Iterator[tuple[Position, Any, Any]]:
    if isinstance(mine, (tuple, list)) and isinstance(theirs, (tuple, list)) and len(mine) == len(theirs):
        for i, pair in enumerate(zip(mine, theirs, strict=True)):
            yield from _pieces(*pair, (*position, i))
    elif isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys():
        for key in mine:
            yield from _pieces(mine[key], theirs[key], (*position, key))
    elif isinstance(mine, slice) and isinstance(theirs, slice):
        for end in ("start", "stop", "step"):
            yield from _pieces(getattr(mine, end), getattr(theirs, end), (*position, end))
    else:
        yield position, mine, theirs


def _name(node: fx.Node) -> tuple[str, str]:
    target: Any = node.target
    return node.op, target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)


def _is_fraction_that_differs(_: Position, mine: Any, theirs: Any) -> bool:
    """Whole numbers are looked after by rules."""
    return isinstance(mine, float) and isinstance(theirs, float) and mine != theirs


def _values_differ(mine: Tensor, theirs: Tensor) -> bool:
    return mine.shape == theirs.shape and not mine.is_meta and not torch.equal(mine, theirs)
