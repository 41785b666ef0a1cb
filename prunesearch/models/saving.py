"""Writing a slimmed network to a file, and reading it into a fresh instance of its class. No pickle anywhere.

The file is safetensors: every tensor of the network's state, and in the metadata, as JSON, the widths of its layers,
the numbers of channels in the code of its forwards that slimming changed (`models.literals`), its buffers that are no
part of the state, and what its inputs are like. Any safetensors reader can open it and finds the state, no more and no
less; only the rest needs this module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.errors import CheckpointError
from prunesearch.files import as_path, safetensors_path
from prunesearch.models.copying import copied
from prunesearch.models.held import held_tensors, make_buffers
from prunesearch.models.literals import Place, places_in, rewrite, rewritten
from prunesearch.models.nested import Batch, without_arrays
from prunesearch.models.slim import (
    fits,
    layer_widths,
    named_tensors,
    narrowed_attributes,
    set_attribute,
    set_width,
    width_of,
)
from prunesearch.models.tensor_file import FileKind, as_text, content_of, from_text, has_plain_values, plain
from prunesearch.models.wrappers import unwrapped

FORMAT = "prunesearch-1"
_SLIMMED = FileKind(FORMAT, "widths", "was not written by prunesearch.save", " Read plain weights with load_weights.")
_DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
_SHOWN = 4  # differences, and names in each
_LARGEST_INPUT = 1 << 32  # bytes that a file may make of the shape of an input


@dataclass(frozen=True)
class _Stored:
    """What a file holds.

    Attributes:
        kind: Name of the network's class.
        layers: Widths of each layer.
        attributes: Numbers of channels that other modules than layers hold.
        literals: Numbers in the code of forwards, by module.
        buffers: Those that are no part of the state.
        inputs: Shape and type of each input, as `_described` says them.
        tensors: The state.
    """

    kind: str
    layers: Mapping[str, Mapping[str, Any]]
    attributes: Mapping[str, Mapping[str, Any]]
    literals: Mapping[str, Mapping[Place, Any]]
    buffers: Mapping[str, Tensor]
    inputs: Any
    tensors: Mapping[str, Tensor]


def save(model: nn.Module, path: str | Path, *, example_inputs: Batch = ()) -> None:
    """Write a network, slimmed or not, to a safetensors file that `load` reads; whole or not at all.

    Args:
        model: The network; its tensors are copied to the CPU. Of `DataParallel`, `DistributedDataParallel`,
            `AveragedModel` and a compiled network, the network inside is written.
        path: The file. An existing one is replaced. A name by which programs know another format, such as `net.pt`, is
            refused: `torch.load` would take such a file for a damaged one.
        example_inputs: A batch (n, ...), the tuple of positional inputs, or the dictionary of inputs by name. The file
            remembers their shapes, but for n, and types, so that `prunesearch export` need not be told.

    Raises:
        CheckpointError: The folder does not exist, the file cannot be written, or the network keeps something in its
            state that has no plain values.
        TypeError: Something else than a network, a path or tensors was given.
        ValueError: The name ends like that of another format.
    """
    path, network = safetensors_path(path), unwrapped(model)
    note = {
        "class": type(network).__name__,
        "inputs": _described(example_inputs),
        "layers": _widths(network),
        "attributes": _attributes(network),
        "literals": _literals(network),
        "buffers": as_text(plain(_outside_the_state(network))),
    }
    _SLIMMED.write(plain(network.state_dict()), json.dumps(note), path)


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """Read a network that `save` wrote into a copy of `model`, a fresh instance of the original class.

    Args:
        path: The file.
        model: The unpruned network, made as it was when the search began; its weights do not matter. It stays as it is.
            Of a wrapped network (see `save`) the one inside is taken.

    Returns:
        The slimmed network with the weights of the file, on the device and in the mode of `model`; not wrapped.

    Raises:
        CheckpointError: No such file, damaged, not written by `save`, or of another network. Nothing of a file can run.
        TypeError: Something else than a path or a network was given.
    """
    path, network = as_path(path), unwrapped(model)
    with content_of(path):
        outside = (*_outside_the_state(network).values(), *held_tensors(network).values())
        stored = _read(path, sum(tensor.nbytes for tensor in outside))
        return _loaded(path, stored, network)


def _loaded(path: Path, stored: _Stored, network: nn.Module) -> nn.Module:
    problems = _problems(stored, network)
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(
            f"{path} was saved from {stored.kind} and does not fit this {type(network).__name__}: "
            f"{'; '.join(problems[:_SHOWN])}{more}. Give the network as it was before pruning."
        )
    state = named_tensors(network, stored.buffers)
    values = {**stored.buffers, **stored.tensors}
    memo = {id(tensor): _like(tensor, values[name]) for name, tensor in state.items() if name in values}
    slimmed = copied(network, memo)
    make_buffers(slimmed, stored.buffers)
    _fill_programs(slimmed, values)
    for layer, attributes in stored.layers.items():
        for attribute, width in attributes.items():
            set_width(slimmed.get_submodule(layer), attribute, width)
    for name, attributes in stored.attributes.items():
        for attribute, width in attributes.items():
            set_attribute(slimmed.get_submodule(name), attribute, width)
    for name, numbers in stored.literals.items():
        rewrite(slimmed.get_submodule(name), {place: numbers[place] for place in _places(network, name, numbers)})
    wrong = next(
        (name for name, module in network.named_modules() if not fits(module, slimmed.get_submodule(name))), None
    )
    if wrong is not None:
        raise CheckpointError(
            f"{path} is damaged: the widths of {wrong or 'the network'} are not those of its tensors in the file."
        )
    return slimmed


def _fill_programs(slimmed: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write stored tensors into TorchScript programs, which copy their own whatever they are told."""
    for prefix, module in slimmed.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            for name, tensor in (*module.named_parameters(prefix), *module.named_buffers(prefix)):
                if name in values:
                    tensor.data.copy_(values[name])


def remembered_inputs(path: str | Path) -> tuple[Any, ...] | dict[str, Any]:
    """What the inputs of a network are like that `save` wrote: zeros, (2, ...) each; empty if it was not told.

    Inputs by name are a dictionary, others a tuple.

    Raises:
        CheckpointError: No such file, damaged, or not written by `save`.
    """
    path = as_path(path)
    try:
        found = _zeros(_read(path, None).inputs)
        return found if isinstance(found, dict) else tuple(found)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, RecursionError):
        raise CheckpointError(f"{path} is damaged: it does not say what its inputs are like.") from None


def _zeros(described: Any) -> Any:
    """What `_described` said."""
    if described is None:
        return None
    if isinstance(described, (list, tuple)):
        return tuple(_zeros(item) for item in described)
    if "named" in described:
        return {name: _zeros(item) for name, item in described["named"].items()}
    shape, kind = [int(size) for size in described["shape"]], _DTYPES[described["dtype"]]
    if 2 * math.prod(shape) * kind.itemsize > _LARGEST_INPUT:
        raise ValueError(f"an input of shape {shape}")
    return torch.zeros(2, *shape, dtype=kind)


def _widths(model: nn.Module) -> dict[str, dict[str, int]]:
    found = {}
    for name, module in model.named_modules():
        attributes = layer_widths(module)
        if attributes:
            found[name] = {attribute: width_of(module, attribute) for attribute in attributes}
    return found


def _attributes(model: nn.Module) -> dict[str, dict[str, int]]:
    """Numbers of channels that slimming changed in other modules than layers."""
    found = {name: narrowed_attributes(module) for name, module in model.named_modules()}
    return {name: dict(attributes) for name, attributes in found.items() if attributes}


def _literals(model: nn.Module) -> dict[str, list[tuple[Any, ...]]]:
    """(function, line, column, number, new number) of each that slimming changed in code, by module."""
    found = {name: rewritten(module) for name, module in model.named_modules()}
    return {
        name: [(place.function, place.line, place.column, place.number, number) for place, number in numbers.items()]
        for name, numbers in found.items()
        if numbers
    }


def _places(model: nn.Module, name: str, numbers: Mapping[Place, Any]) -> list[Place]:
    """Those places of a file that are in the code of a module of ours, with its source."""
    module = dict(model.named_modules()).get(name)
    functions = {place.function for place in numbers} if module is not None else set()
    here = {place: place for function in functions for place in places_in(module, function)}  # type: ignore[arg-type]
    return [here[place] for place in numbers if place in here]


def _outside_the_state(network: nn.Module) -> dict[str, Tensor]:
    """Buffers that are not persistent. Slimming narrows them, too, and the constructor makes them wide again.

    Sparse ones and their like, which no file can hold, are left to the constructor.
    """
    inside = network.state_dict().keys()
    found = {name: buffer for name, buffer in network.named_buffers() if name not in inside}
    return {name: buffer for name, buffer in found.items() if has_plain_values(buffer)}


def _described(example_inputs: Batch) -> Any:
    """Shape without the batch, and type, of each input."""
    example_inputs = without_arrays(example_inputs)
    return _shapes((example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs)


def _shapes(inputs: Any) -> Any:
    if isinstance(inputs, Tensor) and inputs.dim() > 0:
        return {"shape": list(inputs.shape[1:]), "dtype": str(inputs.dtype)}
    if isinstance(inputs, Mapping):
        return {"named": {str(name): _shapes(item) for name, item in inputs.items()}}
    if isinstance(inputs, (tuple, list)):
        return [None if item is None else _shapes(item) for item in inputs]
    raise TypeError(
        "Expected example_inputs as a batch of inputs, or a tuple or dictionary of them, each a tensor (n, ...)."
    )


def _read(path: Path, most_buffers: int | None) -> _Stored:
    """What a file holds; its buffers up to so many bytes, None for none of them."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a file that prunesearch.save wrote.")
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    note, tensors = _SLIMMED.read(path)
    try:
        return _Stored(
            note.get("class", "another network"),
            {layer: dict(attributes) for layer, attributes in note["layers"].items()},
            {name: dict(attributes) for name, attributes in note.get("attributes", {}).items()},
            {name: _numbers(path, places) for name, places in note["literals"].items()},
            {} if most_buffers is None else from_text(note.get("buffers", ""), most_buffers),
            note.get("inputs", ()),
            tensors,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} is damaged: its note does not say how wide its layers are.") from None


def _numbers(path: Path, places: Any) -> dict[Place, Any]:
    if any(len(entry) == 3 for entry in places):
        raise CheckpointError(
            f"{path} was saved by an earlier version of prunesearch, which kept numbers in the code of a forward in "
            "another way. Load it with that version, or prune the network again."
        )
    return {Place(function, line, column, number): new for function, line, column, number, new in places}


def _problems(stored: _Stored, network: nn.Module) -> list[str]:
    """In words, why slimming could not have made what is stored of a network; only those of the first kind."""
    mine, state = _widths(network), network.state_dict()
    different = [*_differences("layers", stored.layers, mine)] or [*_differences("tensors", stored.tensors, state)]
    return different or [
        *_impossible_widths(stored.layers, mine),
        *_impossible_shapes(stored.tensors, state),
        *_impossible_attributes(stored.attributes, network),
        *_impossible_literals(stored.literals, network),
    ]


def _differences(what: str, stored: Mapping[str, Any], mine: Mapping[str, Any]) -> Iterator[str]:
    only = {"file": [name for name in stored if name not in mine], "network": [n for n in mine if n not in stored]}
    for where, names in only.items():
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            listed = ", ".join(name or "the network itself" for name in names[:_SHOWN])
            yield f"only the {where} has the {what} {listed}{more}"


def _impossible_widths(stored: Mapping[str, Mapping[str, Any]], mine: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Widths that slimming could not have made of mine."""
    for layer in mine:
        yield from _differences(f"widths of {layer or 'the network itself'}", stored[layer], mine[layer])
        for attribute, full in mine[layer].items():
            width = stored[layer].get(attribute)
            if type(width) is not int or not 0 <= width <= full:
                yield f"{layer}.{attribute}".removeprefix(".") + f" is {width!r} in the file and {full} in the network"


def _impossible_attributes(stored: Mapping[str, Mapping[str, Any]], model: nn.Module) -> Iterator[str]:
    """Numbers of modules that are not there, or that slimming could not have made of those."""
    modules = dict(model.named_modules())
    for name, attributes in stored.items():
        for attribute, width in attributes.items():
            try:
                full = width_of(modules[name], attribute)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError):
                full = None
            if type(full) is not int or type(width) is not int or not 0 <= width <= full:
                yield f"{name}.{attribute}".removeprefix(".") + f" is {width!r} in the file and {full} in the network"


def _impossible_literals(stored: Mapping[str, Mapping[Place, Any]], model: nn.Module) -> Iterator[str]:
    """Numbers that are not in the model's code, or that slimming could not have made of those."""
    for name, numbers in stored.items():
        here = _places(model, name, numbers)
        for place, number in numbers.items():
            if place not in here or type(number) is not int or not 0 <= number <= place.number:
                what = f"the code of {name or 'the network'}.{place.function}"
                yield f"{what} cannot have {number!r} instead of {place.number!r} in line {place.line!r}"


def _impossible_shapes(stored: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> Iterator[str]:
    """Tensors that slimming could not have made of mine."""
    for name in mine:
        narrow, full = tuple(stored[name].shape), tuple(mine[name].shape)
        if _kind_of(stored[name]) != _kind_of(mine[name]):
            yield f"{name} is of type {stored[name].dtype} in the file and {mine[name].dtype} in the network"
        if len(narrow) != len(full) or any(a > b for a, b in zip(narrow, full, strict=True)):
            yield f"{name} has shape {narrow} in the file and {full} in the network"


def _kind_of(tensor: Tensor) -> tuple[bool, bool]:
    """Precisions may differ, but integers are no weights."""
    return tensor.is_floating_point(), tensor.is_complex()


def _like(mine: Tensor, stored: Tensor) -> Tensor:
    values = stored.to(
        device=mine.device, copy=True
    )  # in a file it may begin anywhere, and sums would round differently
    return nn.Parameter(values, requires_grad=mine.requires_grad) if isinstance(mine, nn.Parameter) else values
