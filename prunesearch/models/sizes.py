"""Numbers that a forward computes from the shapes of tensors, and the channels on whose number they depend."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from prunesearch.structure import IntArray

if TYPE_CHECKING:
    from prunesearch.models.operators import Walk

_SAME_AT_ANY_WIDTH = (str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
_ALL = slice(None)


@dataclass(frozen=True)
class Number:
    """A number, or several, that would change if channels went.

    Attributes:
        labels: Labels of those channels.
        proportional: Whether it is a constant times the number of kept ones among them.
    """

    labels: IntArray
    proportional: bool


def is_plain(result: Any) -> bool:
    """Whether a result consists of numbers, strings, types and the like: no tensors, nothing that may hide one."""
    if isinstance(result, (tuple, list)):
        return all(is_plain(item) for item in result)
    return isinstance(result, (bool, int, float, complex, *_SAME_AT_ANY_WIDTH))


def number(walk: Walk, node: fx.Node, result: Any) -> Number | None:
    """What the plain `result` of `node` depends on; None if on no channel that could go."""
    if isinstance(result, _SAME_AT_ANY_WIDTH) or node.target in ("dim", "ndimension"):
        return None
    if (asked := _asked(node)) is not None and (value := walk.value(asked[0])) is not None:
        tensor, index = asked
        dims = range(len(walk.shape(tensor)))[index]
        if isinstance(dims, int):
            return Number(value.labels, proportional=True) if dims == value.dim else None
        return Number(value.labels, proportional=False) if value.dim in dims else None
    if node.target is operator.mul:
        factors = [found for factor in node.args if (found := walk.number(factor)) is not None]
        if len(factors) == 1:
            return factors[0]
    sources = [walk.number(argument) or walk.value(argument) for argument in node.all_input_nodes]
    labels = [source.labels for source in sources if source is not None]
    return Number(np.concatenate(labels), proportional=False) if labels else None


def _asked(node: fx.Node) -> tuple[fx.Node, int | slice] | None:
    """The tensor whose sizes a node asks for, and which of them; None if it does something else."""
    source, *rest = node.args or (None,)
    if not isinstance(source, fx.Node):
        return None
    index: Any = None
    if node.target is getattr:
        index = {"shape": _ALL, "ndim": slice(0)}.get(str(rest[0]))
    elif node.op == "call_method" and node.target == "size":
        index = rest[0] if rest else node.kwargs.get("dim", _ALL)
    elif node.target is operator.getitem and (asked := _asked(source)) is not None and asked[1] == _ALL:
        source, index = asked[0], rest[0]
    if index is None:
        return None
    parts = (index.start, index.stop, index.step) if isinstance(index, slice) else (index,)
    return source, _ALL if any(isinstance(part, fx.Node) for part in parts) else index
