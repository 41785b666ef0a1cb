"""Writing a slimmed network to a file, and reading it into a fresh instance of its class. No pickle anywhere.

The file is safetensors: every tensor of the network's state, and in the metadata, as JSON, the widths of its layers and
the numbers of channels in the code of its forwards that slimming changed (`models.literals`). Any safetensors reader
can open it; only the widths need this module, or the few lines that `load` takes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from prunesearch.errors import CheckpointError
from prunesearch.models.literals import Place, literal_at, operators_with_literals, rewrite, rewritten
from prunesearch.models.slim import set_width
from prunesearch.models.tensor_file import FileKind
from prunesearch.models.zoo.layers import PadShortcut

FORMAT = "prunesearch-1"


_SLIMMED = FileKind(FORMAT, "widths", "was not written by prunesearch.save", " Read plain weights with load_weights.")

WIDTHS: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.Conv1d: ("in_channels", "out_channels", "groups"),
    nn.Conv2d: ("in_channels", "out_channels", "groups"),
    nn.Conv3d: ("in_channels", "out_channels", "groups"),
    nn.ConvTranspose1d: ("in_channels", "out_channels", "groups"),
    nn.ConvTranspose2d: ("in_channels", "out_channels", "groups"),
    nn.ConvTranspose3d: ("in_channels", "out_channels", "groups"),
    nn.Linear: ("in_features", "out_features"),
    nn.LayerNorm: ("normalized_shape",),
    nn.GroupNorm: ("num_groups", "num_channels"),
    nn.PReLU: ("num_parameters",),
    nn.BatchNorm1d: ("num_features",),
    nn.BatchNorm2d: ("num_features",),
    nn.BatchNorm3d: ("num_features",),
    nn.SyncBatchNorm: ("num_features",),
    nn.InstanceNorm1d: ("num_features",),
    nn.InstanceNorm2d: ("num_features",),
    nn.InstanceNorm3d: ("num_features",),
    PadShortcut: ("before", "after"),
}
"""The attributes of each kind of layer, and of those derived from it, that are numbers of channels."""


def save(model: nn.Module, path: str | Path) -> None:
    """Write a network, slimmed or not, to a safetensors file that `load` reads; whole or not at all.

    Args:
        model: The network; its tensors are copied to the CPU.
        path: The file, by custom `.safetensors`. An existing one is replaced.

    Raises:
        CheckpointError: The folder does not exist, or the file cannot be written.
    """
    path = Path(path)
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    widths = json.dumps({"layers": _widths(model), "literals": _literals(model)})
    _SLIMMED.write(tensors, widths, path)


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """Read a network that `save` wrote into a copy of `model`, a fresh instance of the original class.

    Args:
        path: The file.
        model: The unpruned network, made as it was when the search began; its weights do not matter. It stays as it is.

    Returns:
        The slimmed network with the weights of the file, on the device and in the mode of `model`.

    Raises:
        CheckpointError: No such file, damaged, not written by `save`, or of another network. Nothing of a file can run.
    """
    path = Path(path)
    widths, literals, tensors = _read(path)
    mine = _widths(model)
    problems = [*_differences("layer", widths, mine), *_differences("tensor", tensors, model.state_dict())]
    problems += [*_impossible_widths(widths, mine), *_impossible_shapes(tensors, model.state_dict())]
    problems += _impossible_literals(literals, model)
    if problems:
        more = f", and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise CheckpointError(f"{path} is not of {type(model).__name__}: {'; '.join(problems[:4])}{more}.")
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    memo = {id(tensor): _like(tensor, tensors[name]) for name, tensor in state.items() if name in tensors}
    slimmed = copy.deepcopy(model, memo)
    for layer, attributes in widths.items():
        for attribute, width in attributes.items():
            set_width(slimmed.get_submodule(layer), attribute, width)
    for name, numbers in literals.items():
        rewrite(slimmed.get_submodule(name), numbers)
    return slimmed


def _widths(model: nn.Module) -> dict[str, dict[str, int]]:
    found = {}
    for name, module in model.named_modules():
        for kind, attributes in WIDTHS.items():
            if isinstance(module, kind):
                found[name] = {attribute: _as_number(getattr(module, attribute)) for attribute in attributes}
    return found


def _literals(model: nn.Module) -> dict[str, list[tuple[Any, ...]]]:
    """(operator, position, number) of each literal that slimming changed, by module."""
    found = {name: rewritten(module) for name, module in model.named_modules()}
    return {name: [(*place, number) for place, number in numbers.items()] for name, numbers in found.items() if numbers}


def _as_number(width: int | tuple[int, ...]) -> int:
    """LayerNorm's shape as one number; of several dimensions the last, which slimming leaves alone."""
    return width[-1] if isinstance(width, tuple) else width


def _read(path: Path) -> tuple[dict[str, dict[str, int]], dict[str, dict[Place, int]], dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    stored, tensors = _SLIMMED.read(path)
    try:
        widths = {layer: dict(attributes) for layer, attributes in stored["layers"].items()}
        literals = {
            module: {(index, tuple(position)): number for index, position, number in places}
            for module, places in stored["literals"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} is damaged: its widths are no table.") from None
    return widths, literals, tensors


def _differences(kind: str, stored: Mapping[str, Any], mine: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"missing {kind} {name}" for name in mine if name not in stored)
    yield from (f"unexpected {kind} {name}" for name in stored if name not in mine)


def _impossible_widths(stored: Mapping[str, Mapping[str, Any]], mine: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Widths that slimming could not have made of mine."""
    for layer in mine.keys() & stored.keys():
        yield from _differences("width", stored[layer], mine[layer])
        for attribute, full in mine[layer].items():
            width = stored[layer].get(attribute)
            if type(width) is not int or not 0 <= width <= full:
                yield f"{layer}.{attribute} is {width!r}, the unpruned network has {full}"


def _impossible_literals(stored: Mapping[str, Mapping[Place, Any]], model: nn.Module) -> Iterator[str]:
    """Literals that are not in the model's forwards, or that slimming could not have made of those."""
    modules = dict(copy.deepcopy(model).named_modules())
    for name, numbers in stored.items():
        nodes = (operators_with_literals(modules[name]) if name in modules else None) or []
        for (index, position), number in numbers.items():
            full = literal_at(nodes[index], position) if type(index) is int and 0 <= index < len(nodes) else None
            if full is None or type(number) is not int or not 0 <= number <= full:
                yield f"{name or 'forward'} cannot have the number {number!r} at {(index, position)}"


def _impossible_shapes(stored: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> Iterator[str]:
    """Tensors that slimming could not have made of mine."""
    for name in mine.keys() & stored.keys():
        narrow, full = tuple(stored[name].shape), tuple(mine[name].shape)
        if len(narrow) != len(full) or any(a > b for a, b in zip(narrow, full, strict=True)):
            yield f"{name} has shape {narrow}, the unpruned network {full}"


def _like(mine: Tensor, stored: Tensor) -> Tensor:
    values = stored.to(device=mine.device)
    return nn.Parameter(values, requires_grad=mine.requires_grad) if isinstance(mine, nn.Parameter) else values
