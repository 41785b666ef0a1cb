"""Linear layers and convolutions of a recorded forward, however they are spelt: their tensors and their geometry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import fx, nn

from prunesearch.models.coupling import Read
from prunesearch.models.linear_map import LinearMap
from prunesearch.models.operators import known_kind, rule_of
from prunesearch.models.operators.layers import convolution, linear, transposed_convolution
from prunesearch.models.operators.values import argument
from prunesearch.models.recording import Recording
from prunesearch.models.walk import place

_SAME_BY_SIZE = "timm.layers.conv2d_same.Conv2dSame"  # pads by the size of its input, as TensorFlow does
_CLASSES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def linear_maps(recording: Recording, reads: Iterable[Read]) -> tuple[LinearMap, ...]:
    """Those operators that read channels, and are linear layers or convolutions with a weight that is the same for all.

    Args:
        recording: The forward in eval mode.
        reads: The operators that read channels that get fewer.
    """
    dims = {read.place: read.dim for read in reads}
    owned = _owned(recording)
    found: dict[str, LinearMap | None] = {}
    for node in recording.graph.nodes:
        if place(node) not in dims:
            continue
        made = _map_of(node, recording.model, owned)
        if made is not None and made.stride and dims[made.place] != 1:  # a single image
            made = None
        found[place(node)] = made if found.get(place(node), made) == made else None  # called with other sizes
    return tuple(one for one in found.values() if one is not None)


def maps_by_node(graph: fx.Graph, maps: Iterable[LinearMap]) -> Mapping[fx.Node, LinearMap]:
    """The nodes of a recorded forward that compute linear maps of its network.

    Raises:
        ValueError: There is none for one of them, as the model is no longer what was traced.
    """
    by_place = {one.place: one for one in maps}
    found = {node: by_place[place(node)] for node in graph.nodes if place(node) in by_place}
    lost = by_place.keys() - {one.place for one in found.values()}
    if lost:
        raise ValueError(
            f"The forward runs {min(lost)} in another way than when it was traced; hooks may have been added or "
            "removed since. Please trace it again."
        )
    return found


def input_of(node: fx.Node) -> fx.Node:
    """What a linear map is given."""
    source = argument(node, 0, "input", "x")
    assert isinstance(source, fx.Node)
    return source


def weight_of(node: fx.Node) -> fx.Node:
    """The weight that a linear map called as a function is given."""
    weight = argument(node, 1, "weight")
    assert isinstance(weight, fx.Node)
    return weight


def _map_of(node: fx.Node, model: nn.Module, owned: Mapping[str, Mapping[str, str]]) -> LinearMap | None:
    names = owned.get(place(node), {})
    if node.op == "call_module":
        module: Any = model.get_submodule(str(node.target))
        if isinstance(module, _TRANSPOSED):
            return _transposed_module(node, module, names)
        if rule_of(type(module)) not in (convolution, linear) or not isinstance(module, _CLASSES):
            return None
        weight, bias = (names.get(f"{node.target}.{part}") for part in ("weight", "bias"))
        shape = tuple(module.weight.shape)
        if isinstance(module, nn.Linear):
            return LinearMap(place(node), weight, bias, shape)
        sides = _same_by_size(node, module) if _is_same_by_size(module) else module.padding
        return _convolution(node, weight, bias, shape, (module.stride, sides, module.dilation, module.groups),
                            module.padding_mode)  # fmt: skip
    rule = rule_of(node.target) if node.op == "call_function" else None
    given = argument(node, 1, "weight")
    known = rule in (convolution, linear, transposed_convolution)
    if not known or not isinstance(given, fx.Node) or given.meta.get("fed"):
        return None
    weight, bias = (names.get(str(other.target)) if isinstance(other, fx.Node) and other.op == "get_attr" else None
                    for other in (given, argument(node, 2, "bias")))  # fmt: skip
    shape = tuple(given.meta["shape"])
    if rule is linear:
        return LinearMap(place(node), weight, bias, shape) if len(shape) == 2 else None
    if rule is transposed_convolution:
        spaced = ("stride", 1), ("padding", 0), ("output_padding", 0), ("groups", 1), ("dilation", 1)
        return _transposed(node, weight, bias, shape, _options(node, spaced))
    values = _options(node, (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)))
    return _convolution(node, weight, bias, shape, values, "zeros")


def _options(node: fx.Node, options: Iterable[tuple[str, int]]) -> tuple[Any, ...]:
    """What a function is given behind input, weight and bias."""
    return tuple(argument(node, 3 + i, name, default=usual) for i, (name, usual) in enumerate(options))


def _transposed_module(node: fx.Node, module: Any, names: Mapping[str, str]) -> LinearMap | None:
    if rule_of(type(module)) is not transposed_convolution or len(node.args) + len(node.kwargs) > 1:
        return None  # told how large its outputs are
    weight, bias = (names.get(f"{node.target}.{part}") for part in ("weight", "bias"))
    given = module.stride, module.padding, module.output_padding, module.groups, module.dilation
    return _transposed(node, weight, bias, tuple(module.weight.shape), given)


def _transposed(
    node: fx.Node, weight: str | None, bias: str | None, shape: tuple[int, ...], values: tuple[Any, ...]
) -> LinearMap | None:
    """A transposed convolution with stride, padding, output padding, groups and dilation; None if it has groups."""
    strides, padding, more, _, dilations = (_each(_plain(value), len(shape) - 2) for value in values)
    if strides is None or padding is None or more is None or dilations is None or _plain(values[3]) != 1:
        return None
    reach = [step * (size - 1) - side for step, size, side in zip(dilations, shape[2:], padding, strict=True)]
    sides = tuple((before, before + extra) for before, extra in zip(reach, more, strict=True))
    ordinary = (shape[1], shape[0], *shape[2:])
    return LinearMap(place(node), weight, bias, ordinary, (1,) * len(strides), sides, dilations, spread=strides)


def _convolution(
    node: fx.Node, weight: str | None, bias: str | None, shape: tuple[int, ...], values: tuple[Any, ...], mode: str
) -> LinearMap | None:
    """A convolution with stride, padding, dilation and groups as torch takes them; None if one is not a number."""
    stride, padding, dilation, groups = map(_plain, values)
    dims = len(shape) - 2
    strides, dilations = _each(stride, dims), _each(dilation, dims)
    if strides is None or dilations is None or type(groups) is not int:
        return None
    sides: tuple[Any, ...] | None
    if padding == "same":
        totals = [step * (size - 1) for step, size in zip(dilations, shape[2:], strict=True)]
        sides = tuple((total // 2, total - total // 2) for total in totals)
    elif isinstance(padding, (tuple, list)) and all(isinstance(both, tuple) for both in padding):
        sides = tuple(padding)
    else:
        equal = _each(0 if padding == "valid" else padding, dims)
        sides = None if equal is None else tuple((side, side) for side in equal)
    return (
        None if sides is None else LinearMap(place(node), weight, bias, shape, strides, sides, dilations, groups, mode)
    )


def _plain(value: Any) -> Any:
    """A number that a node stands for as a plain one."""
    if isinstance(value, fx.Node):
        return value.meta.get("value")
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _each(value: Any, dims: int) -> tuple[int, ...] | None:
    """A whole number for each dimension, from one for all or one for each."""
    values = tuple(map(_plain, value)) if isinstance(value, (tuple, list)) else (value,)
    if not all(type(number) is int for number in values) or len(values) not in (1, dims):
        return None
    return values * dims if len(values) == 1 else values


def _is_same_by_size(module: nn.Module) -> bool:
    kind = known_kind(type(module))
    return kind is not None and f"{kind.__module__}.{kind.__qualname__}" == _SAME_BY_SIZE


def _same_by_size(node: fx.Node, module: Any) -> tuple[tuple[int, int], ...]:
    """Padding with which there are as many outputs as strides fit into the input, the odd one behind."""
    sizes = input_of(node).meta["shape"][2:]
    found = []
    for size, kernel, stride, dilation in zip(sizes, module.kernel_size, module.stride, module.dilation, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        found.append((total // 2, total - total // 2))
    return tuple(found)


def _owned(recording: Recording) -> Mapping[str, Mapping[str, str]]:
    """By place, the tensors that are used there alone: how they are spelt, and the first of their names."""
    tensors = [*recording.model.named_parameters(remove_duplicate=False)]
    first = {id(tensor): name for name, tensor in reversed(tensors)}
    known = {name: first[id(tensor)] for name, tensor in tensors}
    uses = list(_uses(recording))
    places: dict[str, set[str]] = {}
    for name, at in uses:
        if name in known:
            places.setdefault(known[name], set()).add(at)
    owned: dict[str, dict[str, str]] = {}
    for name, at in uses:
        if name in known and len(places[known[name]]) == 1:
            owned.setdefault(at, {})[name] = known[name]
    return owned


def _uses(recording: Recording) -> Iterator[tuple[str, str]]:
    """Names of tensors and where they are used."""
    for node in recording.graph.nodes:
        if node.op == "call_module":
            module = recording.model.get_submodule(str(node.target))
            for name, _ in module.named_parameters(remove_duplicate=False):
                yield f"{node.target}.{name}", place(node)
        elif node.op == "get_attr":
            for user in node.users:
                if not user.meta.get("number"):  # which asks for its size
                    yield str(node.target), place(user)
