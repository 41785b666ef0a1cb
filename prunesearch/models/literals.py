"""Numbers of channels that a forward has as literals: `x.view(-1, 64)`, `F.pad(x, (0, 0, 0, 0, 8, 8))`, `x[:, :32]`.

A slimmed network needs other numbers there. The module whose forward holds them gets a class derived from its own that
differs in the forward only: the same operations in the same order as torch.fx saw them, with the new numbers. So it is
still an instance of the caller's class, and its names, parameters and children are as they were.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import fx, nn

from prunesearch.models.undisturbed import undisturbed

Place: TypeAlias = tuple[int, tuple[int | str, ...]]
"""Which of the operators with literals of a forward, and the way to the number in its arguments."""

_OPERATORS = ("view", "reshape", torch.reshape, "split", torch.split, F.pad)


def has_literals(node: fx.Node) -> bool:
    """Whether a node is an operator whose literals may be numbers of channels."""
    if node.target is operator.getitem:
        index = node.args[1]
        return any(isinstance(entry, slice) for entry in (index if isinstance(index, tuple) else (index,)))
    return node.target in _OPERATORS


def literal_at(node: fx.Node, position: Sequence[int | str]) -> int | None:
    """The number at a position of a node's arguments; None if there is none."""
    value: Any = node.kwargs if isinstance(position[0], str) else node.args
    for step in position:
        try:
            value = getattr(value, str(step)) if isinstance(value, slice) else value[step]
        except (AttributeError, IndexError, KeyError, TypeError):
            return None
    return value if type(value) is int else None


def operators_with_literals(module: nn.Module) -> list[fx.Node] | None:
    """Those in the module's own forward, in order; None if the forward cannot be rewritten.

    Its children are called as they are. It must do the same with literals in both modes.
    """
    mode = module.training
    try:
        graphs = []
        for training in (False, True):
            module.training = training
            graphs.append([node for node in _own_graph(module).nodes if has_literals(node)])
    except Exception:  # torch.fx raises whatever a forward raises on proxies
        return None
    finally:
        module.training = mode
    evaluating, other = graphs
    same = [node.format_node() for node in evaluating] == [node.format_node() for node in other]
    return evaluating if same else None


def rewrite(module: nn.Module, numbers: Mapping[Place, int]) -> None:
    """Give a module of our own a forward with other literals.

    Args:
        module: The module whose forward holds them.
        numbers: The new number at each place.
    """
    forwards: list[Callable[..., Any]] = []
    mode = module.training
    try:
        for training in (False, True):
            module.training = training
            forwards.append(_forward(module, numbers))
    finally:
        module.training = mode
    evaluating, training_forward = forwards

    @functools.wraps(evaluating)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (training_forward if self.training else evaluating)(self, *args, **kwargs)

    kind = type(module)
    own = {
        "forward": forward,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    module.__class__ = type(kind.__name__, (kind,), own)
    module.__dict__["_literals"] = {**rewritten(module), **numbers}


def rewritten(module: nn.Module) -> Mapping[Place, int]:
    """The literals in which a module's forward differs from that of its class; empty if it was never rewritten."""
    return module.__dict__.get("_literals", {})


class _Shallow(fx.Tracer):
    """Calls every child as it is."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _own_graph(module: nn.Module) -> fx.Graph:
    with undisturbed(()):
        return _Shallow().trace(module)


def _forward(module: nn.Module, numbers: Mapping[Place, int]) -> Callable[..., Any]:
    graph = _own_graph(module)
    nodes = [node for node in graph.nodes if has_literals(node)]
    for (index, position), number in numbers.items():
        node = nodes[index]
        if isinstance(position[0], str):
            node.kwargs = replaced(node.kwargs, position, number)
        else:
            node.args = replaced(node.args, position, number)
    return type(fx.GraphModule(module, graph)).forward


def replaced(value: Any, position: Sequence[int | str], number: int) -> Any:
    """Arguments with another number at a position."""
    if not position:
        return number
    step, *rest = position
    if isinstance(value, slice):
        parts = {name: getattr(value, name) for name in ("start", "stop", "step")} | {str(step): number}
        return slice(*parts.values())
    if isinstance(value, Mapping):
        return {**value, str(step): replaced(value[str(step)], rest, number)}
    return type(value)(replaced(item, rest, number) if i == step else item for i, item in enumerate(value))
