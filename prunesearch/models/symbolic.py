"""Following a forward with torch.fx, and noting what it reads of its layers besides calling them."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from prunesearch.errors import TraceError
from prunesearch.models.deadline import Deadline
from prunesearch.models.operators import rule_of
from prunesearch.models.undisturbed import undisturbed


@dataclass(frozen=True)
class Forward:
    """A traced forward.

    Attributes:
        graph: What it computes.
        tensors: Ids of tensors from which it computes something while it is traced, unseen by torch.fx.
        attributes: Pairs such as ("conv1", "out_channels") that it reads of layers with a rule.
    """

    graph: fx.GraphModule
    tensors: frozenset[int]
    attributes: frozenset[tuple[str, str]]


def follow(model: nn.Module, inputs: Sequence[Tensor], deadline: Deadline) -> Forward:
    """Trace the forward of `model`, a copy of our own, with its mode as it is.

    Optional arguments that the inputs do not cover take their defaults.

    Raises:
        TraceError: The forward does not take that many inputs, torch.fx cannot follow it, or time is up.
    """
    layers = {module: name for name, module in model.named_modules() if rule_of(type(module)) is not None}
    tracer = _Tracer(layers, deadline)
    try:
        with undisturbed(inputs), _watched(layers) as attributes, _Uses() as uses:
            traced = tracer.trace(model, concrete_args=_defaults(model, inputs))
        graph = fx.GraphModule(model, traced)
    except TraceError:
        raise
    except Exception as error:  # torch.fx raises whatever the user's forward raises on proxies
        place = tracer.where[-1] if tracer.where else type(model).__name__
        raise TraceError(
            f"torch.fx cannot trace module {place}{_line(error)}: {str(error).rstrip('. ')}. Move what depends on the "
            "data out of forward, or mark the function that holds it with torch.fx.wrap."
        ) from error
    return Forward(graph, frozenset(uses.tensors), frozenset(attributes))


class _Tracer(fx.Tracer):
    """Keeps every layer that has a rule whole, and remembers where in the model it is."""

    def __init__(self, layers: Container[nn.Module], deadline: Deadline) -> None:
        super().__init__()
        self.where: list[str] = []
        self._layers = layers
        self._deadline = deadline

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self._layers or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.where.append(f"{self.path_of_module(m)} ({type(m).__name__})")
        self._deadline.check(f"module {self.where[-1]}")
        result = super().call_module(m, forward, args, kwargs)
        self.where.pop()  # left in place by an exception, so that the message can name the innermost module
        return result


class _Uses(TorchFunctionMode):
    """Notes the tensors with which torch computes at once: torch.fx sees only the constant that comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        received: list[Any] = []
        fx.node.map_aggregate((args, kwargs), received.append)
        if not any(isinstance(argument, fx.Proxy) for argument in received):
            self.tensors.update(id(argument) for argument in received if isinstance(argument, Tensor))
        return func(*args, **(kwargs or {}))


@contextmanager
def _watched(layers: dict[nn.Module, str]) -> Iterator[set[tuple[str, str]]]:
    """Note which attributes of the layers are read meanwhile; torch.fx sees only the numbers they hold."""
    read: set[tuple[str, str]] = set()

    def spy(module: nn.Module, attribute: str) -> Any:
        read.add((layers[module], attribute))
        return object.__getattribute__(module, attribute)

    kinds = {module: type(module) for module in layers}
    try:
        for module, kind in kinds.items():
            module.__class__ = type(kind.__name__, (kind,), {"__getattribute__": spy, "__module__": kind.__module__})
        yield read
    finally:
        for module, kind in kinds.items():
            module.__class__ = kind


def _line(error: BaseException) -> str:
    """Where in the caller's code it was raised, if it was there."""
    own = (os.path.dirname(torch.__file__), os.path.dirname(__file__))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(own)]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _defaults(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Any] | None:
    """Optional arguments of forward that the inputs do not cover, and the plain values they have then."""
    signature = inspect.signature(model.forward)
    try:
        covered = signature.bind(*inputs).arguments
    except TypeError as error:
        raise TraceError(
            f"{type(model).__name__}.forward cannot take {len(inputs)} example_inputs: {error}."
        ) from error
    plain = (bool, int, float, str, type(None))
    defaults = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in covered and isinstance(parameter.default, plain)
    }
    return defaults or None
