"""Computing a recorded forward anew, from other inputs or with other tensors in the model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import fx, nn
from torch.fx.immutable_collections import immutable_dict, immutable_list

from prunesearch.models.normalised import MethodOf
from prunesearch.models.recorded import Recording


class Replay(fx.Interpreter):
    """Runs a recorded forward node by node.

    Args:
        recording: What was recorded.
        model: The module whose layers, parameters and buffers it uses; the recorded one by default.
    """

    def __init__(self, recording: Recording, model: nn.Module | None = None) -> None:
        super().__init__(recording.model if model is None else model, graph=recording.graph)
        self.extra_traceback = False  # torch.fx would append its own to our messages
        buffers = {name for name, _ in self.module.named_buffers()}
        narrowed = {name for name, attribute in recording.held.items() if attribute in buffers}
        self._constants = {name: value for name, value in recording.constants.items() if name not in narrowed}
        self._held = {name: recording.held[name] for name in narrowed}

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node."""
        with autocast_of(n), _gradients_of(n):
            return super().run_node(n)

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        """The arguments of a node, in lists and dictionaries that a function may change, which torch.fx's are not."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return tuple(map(plain, args)), {name: plain(value) for name, value in kwargs.items()}

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A function, or a method of a submodule."""
        if isinstance(target, MethodOf):
            return target(self.module, *args, **kwargs)
        return super().call_function(target, args, kwargs)

    def fetch_attr(self, target: str) -> Any:
        """A module or tensor by name; the empty one is the whole module."""
        return self.module if target == "" else super().fetch_attr(target)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A parameter or buffer by name, or a constant."""
        if target in self._constants:
            return self._constants[target]
        return super().get_attr(self._held.get(target, target), args, kwargs)


def plain(value: Any) -> Any:
    """A nest of arguments of a node in ordinary lists, tuples and dictionaries."""
    if type(value) is immutable_list:
        return [plain(item) for item in value]
    if type(value) is immutable_dict:
        return {key: plain(item) for key, item in value.items()}
    return tuple(map(plain, value)) if type(value) is tuple else value


def _gradients_of(node: fx.Node) -> AbstractContextManager[Any]:
    """No gradients where the forward turned them off in training."""
    return torch.no_grad() if node.meta.get("untracked") else nullcontext()


def autocast_of(node: fx.Node) -> AbstractContextManager[Any]:
    """The state of autocast under which an operator ran."""
    if "autocast" not in node.meta:
        return nullcontext()
    device, enabled, dtype = node.meta["autocast"]
    return torch.autocast(device, dtype=dtype, enabled=enabled)
