"""From an ordinary `nn.Module` to a `Network`: what is coupled, what is frozen and why, what everything costs."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from prunesearch.errors import TraceError
from prunesearch.models.count import count_layers
from prunesearch.models.coupling import Count, Cut, Read, Units
from prunesearch.models.network import Network
from prunesearch.models.walk import Found, walk
from prunesearch.structure import Group, IntArray, Space, Term, Width

_ONE = Width(1)


def trace(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    *,
    round_to: int = 1,
    min_channels: int | float = 0.1,
    ignored_layers: Sequence[str] = (),
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
            allowed.
        min_channels: Narrowest width of any group: a number of channels (int), or a fraction of the group's width
            (float), rounded up to a multiple of `round_to`.
        ignored_layers: Names of modules, or globs such as `"layer4.*"`, whose outputs keep all channels; so do those of
            every module inside them.

    Returns:
        The network with its space.

    Raises:
        TraceError: torch.fx cannot follow the forward, the forward fails on the inputs, or nothing can be pruned. The
            message names the module.
        TypeError: The model is no module, or the inputs are no tensors.
        ValueError: A rule is out of range, an ignored layer does not exist, or the inputs disagree on n.
    """
    inputs = _check(model, example_inputs, round_to, min_channels, ignored_layers)
    try:
        still = copy.deepcopy(model).eval()
    except Exception as error:
        raise TraceError(f"{type(model).__name__} cannot be copied, which tracing needs: {error}") from error
    found = walk(still, inputs, ignored_layers)
    units = _units(found, round_to, min_channels)
    cuts = tuple(Cut(tensor, dim, units.ids(labels)) for (tensor, dim), labels in found.cuts.items())
    counts = tuple(Count(module, name, units.ids(labels)) for (module, name), labels in found.counts.items())
    reads = tuple(Read(module, dim, units.ids(labels)) for (module, dim), labels in found.reads.items())
    groups = _groups(units, cuts, round_to, min_channels)
    if not groups:
        reasons = "; ".join(f"{layer}: {why}" for layer, why in list(units.frozen.items())[:3])
        raise TraceError(f"Nothing can be pruned in {type(model).__name__}. {reasons or 'It has no layers we know'}.")
    return Network(
        model=model,
        example_inputs=inputs,
        space=Space(
            groups,
            _macs_terms(found, units, count_layers(still, inputs), len(inputs[0])),
            _params_terms(model, cuts, units),
        ),
        cuts=cuts,
        counts=counts,
        reads=reads,
        units=tuple(group.units for group in units.groups),
        unit_count=units.count,
        frozen=dict(units.frozen),
        outputs=_outputs(found.output),
    )


def _check(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    round_to: int,
    min_channels: int | float,
    ignored_layers: Sequence[str],
) -> tuple[Tensor, ...]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected a torch.nn.Module, got {type(model).__name__}.")
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(x, Tensor) and x.dim() > 0 for x in inputs):
        raise TypeError("Expected example_inputs as a batch of inputs, or a tuple of them, each a tensor (n, ...).")
    if len({len(x) for x in inputs}) > 1 or len(inputs[0]) == 0:
        sizes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise ValueError(f"Expected example_inputs of shape (n, ...) with one n >= 1, got {sizes}.")
    if not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"Expected round_to as an integer >= 1, got {round_to!r}.")
    upper = 1 if isinstance(min_channels, float) else math.inf
    if not isinstance(min_channels, (int, float)) or not 0 < min_channels <= upper:
        raise ValueError(f"Expected min_channels as a count >= 1 or a fraction in (0, 1], got {min_channels!r}.")
    if isinstance(ignored_layers, str):
        raise TypeError(f"Expected ignored_layers as a sequence of names, got the string {ignored_layers!r}.")
    names = [name for name, _ in model.named_modules() if name]
    for pattern in ignored_layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"ignored_layers: no module of {type(model).__name__} matches {pattern!r}.")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise TraceError(f"{type(model).__name__}: {name} has no shape yet. Run the model once, then trace it.")
    if "forward" in vars(model):
        raise TraceError(f"{type(model).__name__}: forward was replaced on the instance. Define it in the class.")
    return inputs


def _units(found: Found, round_to: int, min_channels: int | float) -> Units:
    """Form groups; those with a single allowed width are frozen and the rest formed anew."""
    units = Units(found.labels, found.producers, found.uses())
    rigid = [g for g in units.groups if len(_allowed(g.width, g.per_unit, round_to, min_channels)) == 1]
    if not rigid:
        return units
    produced = np.concatenate([labels for _, labels in found.producers])
    for group in rigid:
        members = produced[np.isin(units.ids(produced), group.units)]
        found.labels.freeze(members, f"has a single allowed width, {group.width}")
    return _units(found, round_to, min_channels)


def _groups(units: Units, cuts: Sequence[Cut], round_to: int, min_channels: int | float) -> tuple[Group, ...]:
    members: list[dict[str, None]] = [{} for _ in units.groups]
    group_of = np.full(units.count, -1)
    for index, found in enumerate(units.groups):
        group_of[found.units] = index
    for cut in cuts:
        for index in np.unique(group_of[cut.units]).tolist():
            if index >= 0:
                members[index][cut.tensor.rpartition(".")[0] or cut.tensor] = None
    return tuple(
        Group(g.name, g.width, g.per_unit, _allowed(g.width, g.per_unit, round_to, min_channels), tuple(names))
        for g, names in zip(units.groups, members, strict=True)
    )


def _allowed(width: int, unit: int, round_to: int, min_channels: int | float) -> tuple[int, ...]:
    step = math.lcm(unit, round_to)
    fraction = Fraction(str(float(min_channels))) if isinstance(min_channels, float) else None
    least = min_channels if fraction is None else math.ceil(fraction * width)  # 7% of 100 is 7; in floats it is more
    return (*range(step * max(1, math.ceil(least / step)), width, step), width)


def _macs_terms(found: Found, units: Units, counted: Mapping[str, int], n: int) -> tuple[Term, ...]:
    """Products of widths where there is a rule; a layer without one keeps what was counted on the batch of `n`."""

    def width(factor: IntArray | int) -> Width:
        return Width(factor) if isinstance(factor, int) else units.width(units.ids(factor))

    traced: Counter[str] = Counter()
    for layer, per_image, *factors in found.products:
        traced[layer] += n * per_image * math.prod(f if isinstance(f, int) else len(f) for f in factors)
    for layer, macs in traced.items():
        if macs != counted.get(layer, 0):
            raise TraceError(
                f"{layer} takes {counted.get(layer, 0)} MACs for the batch when the model runs, {macs} as torch.fx "
                "traced it. Remove hooks of the model that change its inputs, or use example_inputs with n = 1."
            )
    terms = [Term(layer, per_image, width(left), width(right)) for layer, per_image, left, right in found.products]
    rest = [Term(layer, macs // n, _ONE, _ONE) for layer, macs in counted.items() if layer not in traced]
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
