"""From a structure to a smaller network: the caller's own class, with narrower tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunesearch.models.copying import copied
from prunesearch.models.coupling import Cut
from prunesearch.models.devices import placed
from prunesearch.models.held import held_tensors, make_buffers
from prunesearch.models.literals import Place, rewrite
from prunesearch.models.operators import BUILT_IN
from prunesearch.models.ranking import Ranking
from prunesearch.models.traced import TracedModel, check_traced
from prunesearch.structure import Structure


def kept_units(network: TracedModel, structure: Structure, ranking: Ranking) -> npt.NDArray[np.bool_]:
    """(units,) which units of the network stay; those of no group always do.

    Raises:
        ValueError: The ranking is of another network, or does not keep as many units as it is asked to.
    """
    kept = np.ones(network.unit_count, dtype=np.bool_)
    for index, (width, ids) in enumerate(zip(structure, network.units, strict=True)):
        kept[ids] = kept_of_group(network, index, width, ranking)
    return kept


def kept_of_group(network: TracedModel, index: int, width: int, ranking: Ranking) -> npt.NDArray[np.bool_]:
    """(units of the group,) which of them stay at a width, whatever the other groups' widths are.

    Raises:
        ValueError: As `kept_units`.
    """
    group, kept = network.space.groups[index], np.zeros(len(network.units[index]), dtype=np.bool_)
    asked = width // group.unit
    stay = np.asarray(ranking.keep(index, asked))
    if len(stay) and stay.min() >= 0 and stay.max() < len(kept):
        kept[stay] = True
    if np.count_nonzero(kept) != asked:
        raise ValueError(
            f"Expected a ranking that keeps {asked} of the {len(kept)} units of group {group.name!r}, got "
            f"{np.unique(stay)}."
        )
    return kept


def slim(network: TracedModel, structure: Structure, ranking: Ranking) -> nn.Module:
    """Build the network that `structure` describes, with the weights of the channels that `ranking` keeps.

    The result shares no tensor with the original and is of the same class, so whatever works with the original
    (training, `state_dict`, pickle, export) works with it. A module with a number of channels in the code of a method
    is of a class derived from its own, in which that number is another one (`models.literals`). Exactly equal to the
    original with the removed channels masked at every operator that mixes them.

    Args:
        network: A traced network.
        structure: (g,) kept channels per group.
        ranking: Which channels stay.

    Raises:
        TypeError: The network is not a traced one, or the ranking is none.
        ValueError: The structure is not one of the network's space, or the ranking is not one of its units.
    """
    check_traced(network)
    if not callable(getattr(ranking, "keep", None)):
        raise TypeError(f"Expected a ranking, as a criterion's rank(network) gives it; got {type(ranking).__name__}.")
    kept = kept_units(network, network.space.check(structure), ranking)
    with torch.inference_mode(False):  # or the result could never be trained
        return _narrowed(network, kept)


def _narrowed(network: TracedModel, kept: npt.NDArray[np.bool_]) -> nn.Module:
    tensors = named_tensors(network.model, network.cuts_of)
    slices = {name: tensor.detach() for name, tensor in tensors.items()}
    for cut in network.cuts:
        slices[cut.tensor] = narrow(slices[cut.tensor], cut, kept)
    replaced = {cut.tensor for cut in network.cuts}
    # deepcopy asks the memo first, so every reference to a cut tensor becomes one to its narrow copy: ties survive
    memo = {id(tensors[name]): _like(tensors[name], slices[name]) for name in replaced}
    slimmed = copied(network.model, memo)
    make_buffers(slimmed, replaced)
    set_numbers(network, slimmed, kept)
    return slimmed


def set_numbers(network: TracedModel, slimmed: nn.Module, kept: npt.NDArray[np.bool_]) -> None:
    """Set the numbers of channels that a copy of the network holds, beside tensors that are narrow already."""
    for count in network.counts:
        set_attribute(slimmed.get_submodule(count.module), count.attribute, int(kept[count.units].sum()))
    for name, module in network.model.named_modules():
        if not fits(module, slimmed.get_submodule(name)):
            _take_widths_of_tensors(slimmed.get_submodule(name))
    numbers: dict[str, dict[Place, int]] = {}
    for literal in network.literals:
        numbers.setdefault(literal.module, {})[literal.place] = int(kept[literal.units].sum())
    for name, changed in numbers.items():
        rewrite(slimmed.get_submodule(name), changed)


def narrow(tensor: Tensor, cut: Cut, kept: npt.NDArray[np.bool_]) -> Tensor:
    """The slices of a tensor that stay, copied."""
    return tensor.index_select(cut.dim, placed(positions(cut, kept), tensor.device))


def positions(cut: Cut, kept: npt.NDArray[np.bool_]) -> Tensor:
    """Where along the cut's dimension the slices are that stay."""
    return torch.from_numpy(np.flatnonzero(kept[cut.units]))


def put_back(network: TracedModel, slimmed: nn.Module, kept: npt.NDArray[np.bool_]) -> None:
    """Copy the values of a slimmed network to where they were in the traced one, in place; the other slices stay.

    Args:
        network: The traced network, whose model is changed.
        slimmed: What `slim` made of it, trained since, say.
        kept: (units,) which units stayed.
    """
    theirs = named_tensors(slimmed)
    with torch.no_grad():
        for name, tensor in named_tensors(network.model).items():
            cuts = network.cuts_of.get(name, ())
            narrowed = [tensor]
            for cut in cuts:
                narrowed.append(narrow(narrowed[-1], cut, kept))
            values = theirs[name].to(tensor.device)
            for cut, wider in zip(reversed(cuts), reversed(narrowed[:-1]), strict=True):
                values = wider.index_copy(cut.dim, placed(positions(cut, kept), wider.device), values)
            tensor.copy_(values)


def layer_widths(module: nn.Module) -> tuple[str, ...]:
    """The attributes of a layer of one of our kinds that are numbers of channels; none of other modules."""
    kind = BUILT_IN.alike(module)
    return () if kind is None else kind.widths


def set_width(module: nn.Module, attribute: str, width: int) -> None:
    """Set a number of channels that a module holds, or an item of it as in `sizes.0`; of LayerNorm's shape the last."""
    name, *items = attribute.split(".")
    full = getattr(module, name)
    if not items and isinstance(full, tuple):
        items = [str(len(full) - 1)]
    setattr(module, name, _with_item(full, [int(item) for item in items], width))


def fits(original: nn.Module, slimmed: nn.Module) -> bool:
    """Whether a layer's numbers of channels are those of its tensors, as they were in the layer it was made from."""
    return not _agrees(original) or _agrees(slimmed)


def _agrees(module: nn.Module) -> bool:
    """Whether a layer's numbers of channels are those of its tensors; True of what is no such layer."""
    kind = BUILT_IN.alike(module)
    if kind is None or "weight" not in module._parameters:  # none, or computed of others
        return True
    return kind.agrees(module)


def _take_widths_of_tensors(module: nn.Module) -> None:
    """Set the numbers of channels of a layer that nobody calls: a function computes with its tensors in its place."""
    kind = BUILT_IN.alike(module)
    assert kind is not None  # else nothing says that they are others
    assert kind.adopt is not None
    kind.adopt(module)


_NARROWED = "_prunesearch_widths"


def set_attribute(module: nn.Module, attribute: str, width: int) -> None:
    """The same, and remember it where the module is no layer whose numbers are known by its class."""
    set_width(module, attribute, width)
    if attribute not in layer_widths(module):
        vars(module)[_NARROWED] = {**narrowed_attributes(module), attribute: width}


def narrowed_attributes(module: nn.Module) -> Mapping[str, int]:
    """Numbers of channels that `set_attribute` remembered."""
    return vars(module).get(_NARROWED, {})


def width_of(module: nn.Module, attribute: str) -> int:
    """What `set_width` sets."""
    name, *items = attribute.split(".")
    value = getattr(module, name)
    for item in items:
        value = value[int(item)]
    return value[-1] if isinstance(value, tuple) else value


def _with_item(value: Any, items: list[int], width: int) -> Any:
    if not items:
        return width
    first, *rest = items
    return type(value)(_with_item(item, rest, width) if i == first else item for i, item in enumerate(value))


def named_tensors(model: nn.Module, also: Iterable[str] = ()) -> dict[str, Tensor]:
    """Parameters and buffers by name, and those plain attributes that are named."""
    held = held_tensors(model)
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {**{name: held[name] for name in also if name in held}, **named}


def _like(original: Tensor, values: Tensor) -> Tensor:
    if isinstance(original, nn.Parameter):
        return nn.Parameter(values, requires_grad=original.requires_grad)
    return values
