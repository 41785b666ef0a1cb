"""Numbers of channels that a forward computed with unseen, such as `1.0 / c`: found by recording a narrower network.

A whole number that remembers where it came from is an ordinary `int` to Python, so `2.0 * c` and `np.sqrt(c)` are plain
numbers without a word. Where such a number reaches an operator, the narrower network gives it another one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from prunesearch.models.recording import Recording


def may_have(recording: Recording) -> bool:
    """Whether an operator was given a number that no code says and no module holds, or a tensor that the forward made."""
    return bool(recording.constants) or any(node.meta.get("computed") for node in recording.graph.nodes)


def unseen(recording: Recording, narrower: Recording) -> frozenset[str]:
    """Names of nodes that are given another number in a narrower network, and no node that says why.

    Args:
        recording: Of the full network.
        narrower: Of the same forward of a narrower one.

    Returns:
        The names; none if the two do not consist of the same operators.
    """
    pairs = list(zip(recording.graph.nodes, narrower.graph.nodes, strict=False))
    if len(recording.graph.nodes) != len(narrower.graph.nodes) or any(_name(a) != _name(b) for a, b in pairs):
        return frozenset()
    found = [node for node, twin in pairs if _differ((node.args, node.kwargs), (twin.args, twin.kwargs))]
    for node, twin in pairs:
        mine, theirs = (r.constants.get(str(n.target)) for r, n in ((recording, node), (narrower, twin)))
        if node.op == "get_attr" and mine is not None and theirs is not None and _values_differ(mine, theirs):
            found += list(node.users)
    return frozenset(node.name for node in found)


def _name(node: fx.Node) -> tuple[str, str]:
    target: Any = node.target
    return node.op, target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)


def _differ(mine: Any, theirs: Any) -> bool:
    """Whether two arguments differ in a number that is not whole; whole ones are looked after by rules."""
    if isinstance(mine, (tuple, list)) and isinstance(theirs, (tuple, list)) and len(mine) == len(theirs):
        return any(map(_differ, mine, theirs))
    if isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys():
        return any(_differ(value, theirs[key]) for key, value in mine.items())
    return isinstance(mine, float) and isinstance(theirs, float) and mine != theirs


def _values_differ(mine: Tensor, theirs: Tensor) -> bool:
    return mine.shape == theirs.shape and not mine.is_meta and not torch.equal(mine, theirs)
