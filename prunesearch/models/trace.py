"""From an ordinary `nn.Module` to a `Network`: what is coupled, what is frozen and why, what everything costs."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from prunesearch.errors import TraceError
from prunesearch.models.count import count_layers
from prunesearch.models.coupling import Count, Cut, Literal, Read, Units
from prunesearch.models.deadline import Deadline
from prunesearch.models.network import Network
from prunesearch.models.rules import WidthRules, check_globs, width_rules
from prunesearch.models.walk import Found, walk
from prunesearch.structure import Group, IntArray, Space, Term, Width

_ONE = Width(1)


def trace(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    *,
    round_to: int | Mapping[str, int] = 1,
    min_channels: int | float | Mapping[str, int | float] = 0.1,
    ignored_layers: Sequence[str] = (),
    tied_layers: Sequence[Sequence[str]] = (),
    time_limit: float = 60.0,
) -> Network:
    """Find out what can be pruned in a network. The model is only read; it keeps its mode, gradients and hooks.

    The forward is traced symbolically (torch.fx) and run in eval mode on a copy, with `example_inputs`; what it does in
    training mode only is looked at, too. Every channel of every tensor gets a label and each operator's rule says
    which labels belong together (`models.operators`). The network's own inputs and outputs, hence a classifier's
    classes, are never pruned; nor is what a layer with hooks of the caller's reads or writes.

    Args:
        model: Any module that torch.fx can trace.
        example_inputs: A batch, or the tuple of positional inputs; every one (n, ...) with the same n. Optional
            arguments of the forward that they do not cover take their defaults.
        round_to: Kept widths are multiples of this many channels (hardware likes 8 or 16); the full width is always
            allowed. Or such numbers by name: `{"layer4.*": 16, "*": 8}`; of the globs that match a layer, or a module
            it is in, the first counts; a layer that none matches has 1. What several layers of a group want, all
            holds.
        min_channels: Narrowest width of any group: a number of channels (int), or a fraction of the group's width
            (float), rounded up to a multiple of `round_to`. By name likewise.
        ignored_layers: Names of modules, or globs such as `"layer4.*"`, whose outputs keep all channels; so do those of
            every module inside them.
        tied_layers: Sequences of names of layers that make as many channels as each other, and always shall: they get
            one width.
        time_limit: Seconds after which it gives up.

    Returns:
        The network with its space.

    Raises:
        TraceError: torch.fx cannot follow the forward, the forward fails on the inputs, nothing can be pruned, or time
            is up. The message names the module, and the line where the forward has one.
        TypeError: The model is no module, or the inputs are no tensors.
        ValueError: A rule is out of range, a glob matches no module, layers cannot be tied, or the inputs disagree on
            n.
    """
    inputs = _check(model, example_inputs, ignored_layers)
    rules = width_rules(model, round_to, min_channels)
    try:
        still = copy.deepcopy(model).eval()
    except Exception as error:
        raise TraceError(f"{type(model).__name__} cannot be copied, which tracing needs: {error}") from error
    found = walk(still, inputs, ignored_layers, Deadline(time_limit))
    for layers in tied_layers:
        _tie(found, layers)
    units, widths = _units(found, rules)
    cuts = tuple(Cut(tensor, dim, units.ids(labels)) for (tensor, dim), labels in found.cuts.items())
    counts = tuple(Count(module, name, units.ids(labels)) for (module, name), labels in found.counts.items())
    literals = tuple(
        Literal(module, place, units.ids(labels))
        for (module, place), labels in found.literals.items()
        if units.groups_of(labels)  # else it never changes
    )
    reads = tuple(Read(module, dim, units.ids(labels)) for (module, dim), labels in found.reads.items())
    groups = _groups(units, cuts, widths)
    if not groups:
        reasons = "; ".join(f"{layer}: {why}" for layer, why in list(units.frozen.items())[:3])
        raise TraceError(f"Nothing can be pruned in {type(model).__name__}. {reasons or 'It has no layers we know'}.")
    return Network(
        model=model,
        example_inputs=inputs,
        space=Space(
            groups,
            _macs_terms(found, units, count_layers(still, inputs)),
            _params_terms(model, cuts, units),
        ),
        cuts=cuts,
        counts=counts,
        literals=literals,
        reads=reads,
        units=tuple(group.units for group in units.groups),
        unit_count=units.count,
        frozen=dict(units.frozen),
        notes=tuple(found.notes),
        outputs=_outputs(found.output),
    )


def _check(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    ignored_layers: Sequence[str],
) -> tuple[Tensor, ...]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected a torch.nn.Module, got {type(model).__name__}.")
    _refuse_wrappers(model)
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(x, Tensor) and x.dim() > 0 for x in inputs):
        raise TypeError("Expected example_inputs as a batch of inputs, or a tuple of them, each a tensor (n, ...).")
    if len({len(x) for x in inputs}) > 1 or len(inputs[0]) == 0:
        sizes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise ValueError(f"Expected example_inputs of shape (n, ...) with one n >= 1, got {sizes}.")
    if isinstance(ignored_layers, str):
        raise TypeError(f"Expected ignored_layers as a sequence of names, got the string {ignored_layers!r}.")
    check_globs(model, "ignored_layers", ignored_layers)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise TraceError(f"{type(model).__name__}: {name} has no shape yet. Run the model once, then trace it.")
    if "forward" in vars(model):
        raise TraceError(f"{type(model).__name__}: forward was replaced on the instance. Define it in the class.")
    return inputs


def _refuse_wrappers(model: nn.Module) -> None:
    """Say what to trace instead of a wrapper, whose forward is none of the network's."""
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(f"{type(model).__name__} is a TorchScript program. Trace the module that it was made from.")
    for kind, attribute in (("OptimizedModule", "_orig_mod"), ("DataParallel", "module")):
        if type(model).__name__.endswith(kind) and hasattr(model, attribute):
            raise TraceError(f"{type(model).__name__} is a wrapper around a network. Trace model.{attribute} instead.")


def _tie(found: Found, layers: Sequence[str]) -> None:
    """Let layers keep channels of the same indices."""
    made = dict(found.producers)
    for name in layers:
        if name not in made or len(made[name]) != len(made.get(layers[0], ())):
            widths = {layer: len(made[layer]) if layer in made else None for layer in layers}
            raise ValueError(f"tied_layers: expected layers that make equally many channels, got {widths}.")
        found.labels.tie(made[layers[0]], made[name])


def _units(found: Found, rules: WidthRules) -> tuple[Units, list[tuple[int, ...]]]:
    """Form groups, with their allowed widths; those with a single one are frozen and the rest formed anew."""
    units = Units(found.labels, found.producers, found.uses())
    widths = _widths(units, found, rules)
    rigid = [group for group, allowed in zip(units.groups, widths, strict=True) if len(allowed) == 1]
    if not rigid:
        return units, widths
    produced = np.concatenate([labels for _, labels in found.producers])
    for group in rigid:
        members = produced[np.isin(units.ids(produced), group.units)]
        found.labels.freeze(members, f"has a single allowed width, {group.width}")
    return _units(found, rules)


def _widths(units: Units, found: Found, rules: WidthRules) -> list[tuple[int, ...]]:
    """Allowed widths of each group."""
    layers: list[dict[str, None]] = [{} for _ in units.groups]
    for layer, produced in found.producers:
        for index in units.groups_of(produced):
            layers[index][layer] = None
    return [rules.widths(g.width, g.per_unit, names) for g, names in zip(units.groups, layers, strict=True)]


def _groups(units: Units, cuts: Sequence[Cut], widths: Sequence[tuple[int, ...]]) -> tuple[Group, ...]:
    members: list[dict[str, None]] = [{} for _ in units.groups]
    for cut in cuts:
        for index in units.groups_with(cut.units):
            members[index][cut.tensor.rpartition(".")[0] or cut.tensor] = None
    return tuple(
        Group(group.name, group.width, group.per_unit, allowed, tuple(names))
        for group, allowed, names in zip(units.groups, widths, members, strict=True)
    )


def _macs_terms(found: Found, units: Units, counted: Mapping[str, int]) -> tuple[Term, ...]:
    """Products of widths where there is a rule; a layer without one keeps what was counted of one image."""

    def width(factor: IntArray | int) -> Width:
        return Width(factor) if isinstance(factor, int) else units.width(units.ids(factor))

    traced: Counter[str] = Counter()
    for layer, per_image, *factors in found.products:
        traced[layer] += per_image * math.prod(f if isinstance(f, int) else len(f) for f in factors)
    for layer, macs in traced.items():
        if macs != counted.get(layer, 0):
            raise TraceError(
                f"{layer} takes {counted.get(layer, 0)} MACs per image when the model runs, {macs} as torch.fx "
                "traced it. Remove hooks of the model that change its inputs, or use example_inputs with n = 1."
            )
    terms = [Term(layer, per_image, width(left), width(right)) for layer, per_image, left, right in found.products]
    rest = [Term(layer, macs, _ONE, _ONE) for layer, macs in counted.items() if layer not in traced]
    return (*terms, *rest)


def _params_terms(model: nn.Module, cuts: Sequence[Cut], units: Units) -> tuple[Term, ...]:
    """Each parameter's size: its cut dimensions vary, the others multiply."""
    terms = []
    for name, parameter in model.named_parameters():
        widths = {cut.dim: units.width(cut.units) for cut in cuts if cut.tensor == name}
        fixed = math.prod(size for dim, size in enumerate(parameter.shape) if dim not in widths)
        left, right = (*widths.values(), _ONE, _ONE)[:2]
        terms.append(Term(name, fixed, left, right))
    return tuple(terms)


def _outputs(output: Any) -> int | None:
    return output.shape[1] if isinstance(output, Tensor) and output.dim() == 2 else None
