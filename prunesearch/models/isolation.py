"""Running somebody's network without a trace of it left behind."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunesearch.models.devices import fetched, random_apart
from prunesearch.models.nested import tensors_in
from prunesearch.models.tensor_file import has_plain_values


@contextmanager
def isolated(inputs: Sequence[Tensor], seed: int = 0) -> Iterator[tuple[Tensor, ...]]:
    """Yield copies of `inputs`, which a forward may change in place; without gradients.

    Meanwhile the random generators of Python, numpy and torch (on the CPU and on the devices of the inputs) begin at
    `seed`, so that what a forward draws is the same each time. Afterwards they are where they were. A warning of the
    forward is shown, also to a caller who turned warnings into errors.
    """
    with torch.no_grad(), random_apart(*{x.device for x in inputs}, seed=seed), _warnings_shown():
        yield tuple(x.detach().clone() for x in inputs)


@contextmanager
def as_in_training(model: nn.Module, written: Container[str] = ()) -> Iterator[dict[str, nn.Parameter]]:
    """Where `model`, of our own, is in training mode, meanwhile gradients are on and its parameters require them.

    So a forward does what it does when it is trained, as where it asks `x.requires_grad`. Afterwards parameters require
    what they did before, and no tensor of the model remembers how it was computed.

    Args:
        model: The module. In eval mode nothing is done.
        written: Names of parameters that the forward writes to, which those that require gradients do not bear. If they
            required none before, they require none.

    Yields:
        The parameters by name that required none before. Whoever sees that one of them is written to takes that back.
    """
    if not model.training:
        yield {}
        return
    untracked = [tensor for tensor in _tensors_of(model) if tensor.grad_fn is None]
    frozen = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and (parameter.is_floating_point() or parameter.is_complex())
    }
    try:
        for name, parameter in frozen.items():
            parameter.requires_grad_(name not in written)
        with torch.enable_grad():
            yield frozen
    finally:
        for tensor in untracked:
            if tensor.grad_fn is not None:
                tensor.detach_()
        for parameter in frozen.values():
            parameter.requires_grad_(False)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Meanwhile no warning is raised as an error, by which a forward would end.

    Torch gives some of its warnings once in a process. Raised, they would make a network fail when it is run first, and
    not when it is tried again in another way.
    """
    if not any(action == "error" for action, *_ in warnings.filters):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


@contextmanager
def without_fast_paths() -> Iterator[None]:
    """Meanwhile torch's attention runs in operators that can be seen and counted, not in one kernel of its own."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[Callable[[], bool]]:
    """Afterwards the modules of `model` hold what they held before, whatever a forward stored in them.

    So do their dictionaries and lists; the values of tensors are not looked after. Yields what tells whether something
    is held that was not.
    """
    before: list[tuple[Any, Any]] = []
    empty: list[Any] = []  # most: a module has a dozen dictionaries, of hooks above all
    for held in _holders(model):
        if held:
            before.append((held, held.copy()))
        else:
            empty.append(held)

    def has_changed() -> bool:
        return any(empty) or any(_differs(held, copy) for held, copy in before)

    try:
        yield has_changed
    finally:
        for held in empty:
            if held:
                held.clear()
        for held, copy in before:
            if isinstance(held, list):
                held[:] = copy
            elif _differs(held, copy):
                held.clear()
                held.update(copy)


def _differs(held: Any, before: Any) -> bool:
    """Whether a dictionary or list holds other objects than before."""
    if isinstance(held, list):
        return len(held) != len(before) or any(one is not other for one, other in zip(held, before, strict=True))
    return held.keys() != before.keys() or any(held[key] is not value for key, value in before.items())


def _holders(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            yield from (value for value in vars(module).values() if isinstance(value, (dict, list)))
            yield vars(module)


@contextmanager
def values_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards the tensors of `model` have the values that they had before, whatever a forward wrote into them.

    What nobody wrote to is not touched. Meanwhile there is a copy of every tensor: that a forward writes, also to
    `x.data`, shows only when the old values are gone.
    """
    held = {id(tensor): tensor for tensor in _tensors_of(model) if has_plain_values(tensor)}
    before = [(tensor, tensor.detach().clone()) for tensor in held.values()]
    try:
        yield
    finally:
        for tensor, copy in _written(before):
            with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                if _form(tensor) == _form(copy):
                    tensor.copy_(copy)
                else:
                    tensor.data = copy


def _written(before: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Those of pairs of a tensor and its copy that are no longer alike. A GPU is waited for once."""
    found: list[tuple[Tensor, Tensor]] = []
    by_device: dict[torch.device, list[tuple[Tensor, Tensor]]] = {}
    for tensor, copy in before:
        alike = by_device.setdefault(copy.device, []) if _form(tensor) == _form(copy) else found
        alike.append((tensor, copy))
    for pairs in by_device.values():
        with torch.no_grad():
            same = fetched([(tensor == copy).all() for tensor, copy in pairs])
        found += [pair for pair, is_same in zip(pairs, same, strict=True) if not is_same]
    return found


def _form(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def _tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and what modules hold beside them."""
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            yield from tensors_in([*vars(module).values()])


@contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode; afterwards it is as it was, whatever its forward stored, counted or wrote.

    For somebody's own network, which is only looked at.
    """
    with attributes_kept(model), values_kept(model), in_eval_mode(model):
        yield


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and every module of it back into its own afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def generators(device: torch.device) -> Any:
    """The state of all random generators, of torch that of the CPU and of a GPU, to be compared with another."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [state.numpy().tobytes() for state in states], generators_beside_torch()


def generators_beside_torch() -> Any:
    """The state of the random generators of Python and numpy, to be compared with another."""
    state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, *places = state
    return random.getstate(), kind, keys.tobytes(), places
