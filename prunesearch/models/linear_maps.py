"""Linear layers and convolutions of a recorded forward, however they are spelt: their tensors and their geometry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import fx, nn

from prunesearch.models.coupling import Read
from prunesearch.models.linear_map import LinearMap
from prunesearch.models.operators import Kinds
from prunesearch.models.operators.kind import Call, Geometry, Role, kind_of
from prunesearch.models.operators.values import argument
from prunesearch.models.recorded import Recording
from prunesearch.models.walk import place

PASSES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
"""Modules that give in eval mode what they are given."""
_TURNING = frozenset(
    ("t", "T", "mT", "H", "mH", "adjoint", "transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims")
)
"""Functions, methods and attributes that give a tensor with its dimensions at other places."""


def linear_maps(recording: Recording, reads: Iterable[Read]) -> tuple[LinearMap, ...]:
    """Those operators that read channels, and are linear layers or convolutions with a weight that is the same for all.

    Args:
        recording: The forward in eval mode.
        reads: The operators that read channels that get fewer.
    """
    dims = {read.place: read.dim for read in reads}
    owned = _owned(recording)
    found: dict[str, LinearMap | None] = {}
    seen: set[str] = set()  # places some of whose outputs no BatchNorm takes
    for node in recording.graph.nodes:
        if place(node) not in dims:
            continue
        made = _map_of(node, recording.model, owned)
        if made is not None and made.stride and dims[made.place] != 1:  # a single image
            made = None
        found[place(node)] = made if found.get(place(node), made) == made else None  # called with other sizes
        if made is not None and not _is_normalised(node, made, recording.model):
            seen.add(place(node))
    return tuple(replace(one, normalised=one.place not in seen) for one in found.values() if one is not None)


def roles_in_weights(recording: Recording, kinds: Kinds) -> Mapping[str, tuple[Role, ...]]:
    """What parameters do with channels along each of their dimensions, if a weight given to a function is made of them.

    Such are a parameter that `F.conv2d` or `F.linear` is given, and those that a layer's weight is computed of
    (`weight_norm`, `spectral_norm`). A dimension that is not as long as the weight's does something `other`. Where a
    parameter is among them of which its layer says what it does, what else the weight is made of is not told.
    """
    tensors, first = dict(recording.model.named_parameters(remove_duplicate=False)), _first_names(recording.model)
    found: dict[str, tuple[Role, ...]] = {}
    for node in recording.graph.nodes:
        kind = None if node.op == "call_module" else kind_of(node)
        weight = argument(node, 1, "weight")
        if kind is None or kind.geometry is None or not isinstance(weight, fx.Node) or weight.meta.get("fed"):
            continue
        names = [str(source.target) for source in _made_of(weight) if str(source.target) in tensors]
        if any(_is_told(name, recording.model, kinds) for name in names):
            continue
        roles, shape = kind.roles.get("weight", ()), tuple(weight.meta["shape"])
        for name in names:
            own = tuple(tensors[name].shape)
            if len(own) == len(shape) and all(size in (1, whole) for size, whole in zip(own, shape, strict=True)):
                told = zip(roles, own, shape, strict=False)
                found[first[name]] = tuple(role if size == whole else "other" for role, size, whole in told)
    return found


def _made_of(weight: fx.Node) -> Iterator[fx.Node]:
    """The tensors of the model that a weight is computed of, but for those whose dimensions change places."""
    left, seen = [weight], {weight}
    while left:
        node = left.pop()
        if node.op == "get_attr":
            yield node
        elif not _turns(node):
            left += [source for source in node.all_input_nodes if source not in seen]
            seen.update(node.all_input_nodes)


def _turns(node: fx.Node) -> bool:
    names = {node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")}
    return not _TURNING.isdisjoint(names | {argument for argument in node.args if isinstance(argument, str)})


def _is_told(name: str, model: nn.Module, kinds: Kinds) -> bool:
    """Whether the layer that a parameter is of says what it does with its channels."""
    owner, _, attribute = name.rpartition(".")
    kind = kinds.alike(model.get_submodule(owner))
    return kind is not None and kind.role(attribute, 0) != "other"


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


def _is_normalised(node: fx.Node, layer: LinearMap, model: nn.Module) -> bool:
    """Whether all that takes the outputs of a layer are BatchNorms, each of whose channels is an output."""
    if not layer.stride and len(node.meta["shape"]) != 2:  # the outputs come last, and a BatchNorm takes the second
        return False
    takers = list(_takers(node, model))
    return bool(takers) and all((kind := kind_of(taker)) and kind.statistics == "batch" for taker in takers)


def _takers(node: fx.Node, model: nn.Module) -> Iterator[fx.Node]:
    """What computes with the outputs of a node, behind modules that pass them on."""
    for user in node.users:
        if user.op == "call_module" and isinstance(model.get_submodule(str(user.target)), PASSES):
            yield from _takers(user, model)
        elif not user.meta.get("number"):  # which asks for their size
            yield user


def _map_of(node: fx.Node, model: nn.Module, owned: Mapping[str, Mapping[str, str]]) -> LinearMap | None:
    names = owned.get(place(node), {})
    kind = kind_of(node)
    if kind is None or kind.geometry is None:
        return None
    if node.op == "call_module":
        module: Any = model.get_submodule(str(node.target))
        weight, bias = (names.get(f"{node.target}.{part}") for part in ("weight", "bias"))
        shape, call = tuple(module.weight.shape), Call(node, module)
    else:
        given = argument(node, 1, "weight")
        if not isinstance(given, fx.Node) or given.meta.get("fed"):
            return None
        weight, bias = (
            names.get(str(other.target)) if isinstance(other, fx.Node) and other.op == "get_attr" else None
            for other in (given, argument(node, 2, "bias"))
        )
        shape, call = tuple(given.meta["shape"]), Call(node, None)
    geometry = kind.geometry(call)
    if geometry is None:
        return None
    layer = LinearMap(place(node), weight, bias, shape)
    return _placed(layer, geometry) if geometry.output_padding is None else _turned_round(layer, geometry)


def _turned_round(layer: LinearMap, geometry: Geometry) -> LinearMap | None:
    """A transposed convolution as an ordinary one; None if it has groups, or something of it is no number."""
    given = geometry.stride, geometry.padding, geometry.dilation, geometry.output_padding
    strides, padding, dilations, more = (_each(_plain(value), len(layer.kernel)) for value in given)
    if strides is None or padding is None or dilations is None or more is None or _plain(geometry.groups) != 1:
        return None
    reach = [step * (size - 1) - side for step, size, side in zip(dilations, layer.kernel, padding, strict=True)]
    sides = tuple((before, before + extra) for before, extra in zip(reach, more, strict=True))
    shape, ones = (layer.shape[1], layer.shape[0], *layer.kernel), (1,) * len(strides)
    return replace(layer, shape=shape, stride=ones, padding=sides, dilation=dilations, spread=strides)


def _placed(layer: LinearMap, geometry: Geometry) -> LinearMap | None:
    """The layer with its geometry in numbers for each dimension; None if something of it is no number."""
    dims = len(layer.shape) - 2
    strides, dilations = _each(_plain(geometry.stride), dims), _each(_plain(geometry.dilation), dims)
    padding, groups = _plain(geometry.padding), _plain(geometry.groups)
    if dims < 0 or strides is None or dilations is None or type(groups) is not int:
        return None
    sides: tuple[Any, ...] | None
    if padding == "same":
        totals = [step * (size - 1) for step, size in zip(dilations, layer.kernel, strict=True)]
        sides = tuple((total // 2, total - total // 2) for total in totals)
    elif isinstance(padding, (tuple, list)) and all(isinstance(both, tuple) for both in padding):
        sides = tuple(padding)
    else:
        equal = _each(0 if padding == "valid" else padding, dims)
        sides = None if equal is None else tuple((side, side) for side in equal)
    mode = geometry.padding_mode
    return (
        None
        if sides is None
        else replace(layer, stride=strides, padding=sides, dilation=dilations, groups=groups, padding_mode=mode)
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


def _owned(recording: Recording) -> Mapping[str, Mapping[str, str]]:
    """By place, the tensors that are used there alone: how they are spelt, and the first of their names."""
    known = _first_names(recording.model)
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


def _first_names(model: nn.Module) -> Mapping[str, str]:
    """By each name of a parameter, the first of its names."""
    tensors = [*model.named_parameters(remove_duplicate=False)]
    first = {id(tensor): name for name, tensor in reversed(tensors)}
    return {name: first[id(tensor)] for name, tensor in tensors}


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
