"""From an ordinary `nn.Module` to a `Network`: what is coupled, what is frozen and why, what everything costs."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from prunesearch.errors import TraceError
from prunesearch.models.amounts import channels_of, counted_by
from prunesearch.models.conditions import Conditions
from prunesearch.models.copying import copied
from prunesearch.models.coupling import Count, Cut, Followed, Literal, Read, Units
from prunesearch.models.deadline import Deadline
from prunesearch.models.following import Forwards, follow, inputs_of, outside_of, recorded, with_images
from prunesearch.models.forms import Share
from prunesearch.models.linear_maps import linear_maps, roles_in_weights
from prunesearch.models.memory import is_out_of_memory
from prunesearch.models.misfit import told_as
from prunesearch.models.network import Network
from prunesearch.models.normalised import is_torchs
from prunesearch.models.operators import KINDS, Kinds
from prunesearch.models.operators.kind import Known
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.recorded import Inputs, Recording
from prunesearch.models.slim import kept_units, layer_widths, slim
from prunesearch.models.unseen import is_explained, may_have
from prunesearch.models.unseen import unseen as unseen_nodes
from prunesearch.models.verify import verify_these
from prunesearch.models.walk import Fork, Found, made_plain, place, walk
from prunesearch.models.width_rules import WidthRules, check_globs, width_rules
from prunesearch.models.wrappers import check_network
from prunesearch.structure import Group, IntArray, Space, Structure, Term, Width

_ONE = Width(1)
_ROUNDS = 6
"""How often numbers of channels are looked for that reach operators unseen; each makes more channels stay."""
_AGREEING = 6
"""How many random structures must agree with what was guessed, beside the narrowest one and another."""
_TOLERANCE = 1e-3  # of the largest output; larger differences than of rounding are looked at again with 53 bits


def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    part: str | None = None,
    round_to: int | Mapping[str, int] = 1,
    min_channels: int | float | Mapping[str, int | float] = 0.1,
    ignored_layers: Sequence[str] = (),
    tied_layers: Sequence[Sequence[str]] = (),
    time_limit: float = 60.0,
    rules: Mapping[Any, Known] | None = None,
) -> Network:
    """Find out what can be pruned in a network. The model is only read; it keeps its mode, gradients and hooks.

    The forward runs on a copy, in eval and in training mode, with `example_inputs`, and every operator that it calls is
    recorded (`models.recording`). Every channel of every tensor gets a label and each operator's rule says which labels
    belong together (`models.operators`). What was recorded is then computed for another number of images and compared
    with what the model returns. The network's own inputs and outputs, hence a classifier's classes, are never pruned. A
    method or module that decides by the values of its data is kept whole, the rest is pruned.

    Args:
        model: Any module whose forward runs in Python.
        example_inputs: What the forward takes: a batch (n, ...), a tuple of positional inputs, or a dictionary of those
            by name; nested as the forward takes them. Optional arguments that they do not cover take their defaults.
        part: Name of the only submodule to prune; everything outside of it stays as it is.
        round_to: What a layer keeps of a group's channels is a multiple of this many (hardware likes 8 or 16); the full
            width is always allowed. Or such numbers by name: `{"layer4.*": 16, "*": 8}`; of the globs that match a
            layer, or a module it is in, the first counts; a layer that none matches has 1. What several layers of a
            group want, all holds, also where they make different numbers of channels of it.
        min_channels: The fewest that a layer keeps of a group's channels: a number of channels (int), or a fraction of
            them (float), rounded up to a multiple of `round_to`. By name likewise.
        ignored_layers: Names of modules, or globs such as `"layer4.*"`, whose outputs keep all channels; so do those of
            every module inside them.
        tied_layers: Sequences of names of layers that make as many channels as each other, and always shall: they get
            one width.
        time_limit: Seconds after which it gives up.
        rules: Your own kinds of layers and operators, by class of modules, function or name of a method: what is known
            of each (`models.operators.kind.Kind`), or its coupling rule alone. They come before ours.

    Returns:
        The network with its space.

    Raises:
        TraceError: The forward fails on the inputs, decides by the values of its data outside of any submodule, or is
            something else than what was recorded of it; nothing can be pruned; or time is up. The message names the
            module, or the line of the code.
        TypeError: The model is no module, the inputs are no tensors, or names of layers are of another form.
        ValueError: A rule is out of range, a glob matches no module, layers cannot be tied, or the inputs disagree on
            n.
    """
    inputs = _check(model, example_inputs, ignored_layers, tied_layers)
    widths_allowed = width_rules(model, round_to, min_channels)
    with told_as(
        lambda error: (
            f"{type(model).__name__} cannot be copied, which tracing needs: {error}. Take what cannot be "
            "copied out of the network, or give its class a __deepcopy__."
        ),
        TraceError,
    ):
        still = copied(model).eval()
    followed = follow(still, inputs, Deadline(time_limit), outside_of(model, part), Kinds.with_own(rules))
    wishes = _Wishes(ignored_layers, tied_layers, widths_allowed)
    coupling, network = _without_unseen(model, inputs, followed, wishes)
    found = _by_value(model, inputs, followed, wishes, coupling)
    if found is None:
        if network is None:
            raise _nothing(model, coupling)
        if _needs_proof(network, followed, coupling):
            _prove(network, followed)
        found = network
    told = {"part": part, "round_to": round_to, "min_channels": min_channels, "time_limit": time_limit}
    return replace(found, wishes={**told, "ignored_layers": ignored_layers, "tied_layers": tied_layers})


@dataclass(frozen=True)
class _Wishes:
    """What the caller wants of layers: see `trace`."""

    ignored_layers: Sequence[str]
    tied_layers: Sequence[Sequence[str]]
    widths: WidthRules


def _without_unseen(
    model: nn.Module, inputs: Inputs, followed: Forwards, wishes: _Wishes
) -> tuple[_Coupling, Network | None]:
    """What is coupled, with the network, in which no operator is given a number of channels unseen."""
    unseen, is_enough = frozenset[str](), True
    for _ in range(_ROUNDS):
        coupling = _coupled(followed.recordings, wishes, unseen, all_stay=not is_enough)
        network = _made(model, inputs, followed, coupling)
        found = _unseen(network, followed, coupling)
        if not found:
            break
        is_enough = not found <= unseen
        unseen |= found
    return coupling, network


def _by_value(
    model: nn.Module, inputs: Inputs, followed: Forwards, wishes: _Wishes, strict: _Coupling
) -> Network | None:
    """The network, if numbers that code made plain, as by `int(c / 2)`, can be told by their values; else None.

    Where they go is then not read in the source but guessed, and believed if several narrower networks agree.
    """
    if not any(map(made_plain, followed.recordings)):
        return None
    coupling = _coupled(followed.recordings, wishes, by_value=True)
    network = _made(model, inputs, followed, coupling)
    if network is None or coupling.removable <= strict.removable:
        return None
    rng = np.random.default_rng(0)
    sampled = [network.space.check(row.tolist()) for row in network.space.sample(rng, _AGREEING)]
    try:
        for structure in (network.space.minimum, _narrower(network), *sampled):
            ranking = NestedRanking.by_importance([rng.random(len(units)) for units in network.units])
            narrow = recorded(slim(network, structure, ranking).eval(), network.inputs, network.leaves, way=network.way)
            kept = kept_units(network, structure, ranking)
            counts = {(number.node, number.position): number.number(kept) for number in network.numbers}
            if not is_explained(followed.evaluating, narrow, counts):
                return None
        _prove(network, followed)
    except Exception:  # whatever a forward raises at another width
        return None
    return network


def _needs_proof(network: Network, followed: Forwards, coupling: _Coupling) -> bool:
    """Whether something could depend on widths that nothing shows."""
    decides = any(recording.decisions for recording in followed.recordings)
    return bool(network.leaves) or decides or _has_numbers(network, coupling)


def _nothing(model: nn.Module, coupling: _Coupling) -> TraceError:
    """The error that says why nothing can be pruned."""
    reasons = "; ".join(f"{layer}: {why}" for layer, why in list(coupling.units.frozen.items())[:3])
    advice = "".join(f" {note}" for note in _parametrised(model))
    return TraceError(
        f"Nothing can be pruned in {type(model).__name__}. {reasons or 'It has no layers we know'}.{advice}"
    )


def _made(model: nn.Module, inputs: Inputs, followed: Forwards, coupling: _Coupling) -> Network | None:
    """The network of what was found; None if nothing can be pruned."""
    found, units, widths = coupling.found, coupling.units, coupling.widths
    groups = _groups(units, found, widths)
    if not groups:
        return None
    cuts, reads = _cuts(found, units), _reads(found, units, followed.evaluating)
    return Network(
        model=model,
        example_inputs=inputs.args,
        example_keywords=dict(inputs.kwargs),
        space=Space(groups, _macs_terms(found, units), _params_terms(model, cuts, units)),
        cuts=cuts,
        counts=tuple(
            Count(module, name, units.ids(labels))
            for (module, name), labels in found.counts.items()
            if units.groups_of(labels)  # else it never changes
        ),
        literals=tuple(
            Literal(module, at, units.ids(labels))
            for (module, at), labels in found.literals.items()
            if units.groups_of(labels)
        ),
        numbers=_numbers(found, units, model),
        reads=reads,
        units=tuple(group.units for group in units.groups),
        unit_count=units.count,
        frozen=dict(units.frozen),
        leaves=dict(followed.recordings[0].leaves),
        way=followed.way,
        notes=(*followed.notes, *_parametrised(model)),
        outputs=_outputs(followed.recordings[0].output),
        linear_maps=linear_maps(followed.evaluating, reads),
        weight_roles={
            name: roles
            for recording in followed.recordings
            for name, roles in roles_in_weights(recording, followed.way.kinds).items()
        },
    )


def _numbers(found: Found, units: Units, model: nn.Module) -> tuple[Followed, ...]:
    """Numbers in the arguments of operators that follow channels which vary."""
    sums = {at: ([(labels, Share())], 0) for at, labels in found.numbers.items()}
    sums |= {at: made_of for at, form in found.held.items() if (made_of := counted_by(form, found.counts, model))}
    return tuple(
        Followed(node, position, tuple((units.ids(labels), share) for labels, share in terms), constant)
        for (node, position), (terms, constant) in sums.items()
        if any(units.groups_of(labels) for labels, _ in terms)
    )


def _freeze_what_is_no_sum(found: Found, model: nn.Module) -> None:
    """Numbers that forwards compute with, and that attributes decide in another way than as a sum, stay."""
    for form in found.held.values():
        if counted_by(form, found.counts, model) is None:
            for labels in channels_of(form, found.counts, model):
                found.labels.freeze(labels, "is part of a number that cannot be followed")


@dataclass(frozen=True)
class _Coupling:
    """What is coupled, where forks of the walk were taken one way.

    Attributes:
        found: What the walks found.
        units: Labels, in groups.
        widths: Allowed widths of each group.
        removable: Multiply-accumulates that the narrowest structure does without.
    """

    found: Found
    units: Units
    widths: Sequence[tuple[int, ...]]
    removable: int


_TRIALS = 10
"""How many ways to take forks are tried."""


def _coupled(
    recordings: Sequence[Recording],
    wishes: _Wishes,
    unseen: Set[str] = frozenset(),
    *,
    all_stay: bool = False,
    by_value: bool = False,
) -> _Coupling:
    """Walk the recorded forwards, and walk them again otherwise where a fork led to channels that must stay.

    Args:
        recordings: The forwards.
        wishes: The caller's.
        unseen: Nodes that are given numbers of channels unseen; what reaches them stays.
        all_stay: Whether that was not enough, so that all channels stay whose number the code has had in hand.
        by_value: Whether numbers that code made plain are told by their values.
    """
    model = recordings[0].model

    def taken(choices: Mapping[Fork, int]) -> _Coupling:
        found = Found()
        for recording in recordings:
            walk(recording, wishes.ignored_layers, found, choices, unseen, by_value=by_value)
        for labels in [*found.asked, *_own_counts(found, model)] if all_stay else ():
            found.labels.freeze(labels, f"the forward computes with how many there are, unseen, for {min(unseen)!r}")
        _freeze_what_is_no_sum(found, model)
        for layers in wishes.tied_layers:
            _tie(found, layers)
        units, widths = _units(found, wishes.widths, model)
        space = Space(_groups(units, found, widths), _macs_terms(found, units), ())
        removable = space.cost(space.full).macs - space.cost(space.minimum).macs if space.groups else 0
        return _Coupling(found, units, widths, removable)

    best, choices = taken({}), dict[Fork, int]()
    stuck = {
        fork: options
        for fork, (options, labels) in best.found.forks.items()
        if not all(best.units.are_free(some) for some in labels)
    }
    all_forks = {fork: options for fork, (options, _) in best.found.forks.items()} if stuck else {}
    together = [{fork: min(way, n - 1) for fork, n in forks.items()} for forks in (stuck, all_forks) for way in (1, 2)]
    alone = [{fork: other} for fork, options in stuck.items() for other in range(options)]
    for trial in [*together, *alone][:_TRIALS]:
        if not trial or all(choices.get(fork, 0) == way for fork, way in trial.items()):
            continue
        coupling = taken({**choices, **trial})
        if coupling.removable > best.removable:
            best, choices = coupling, {**choices, **trial}
    return best


def _reads(found: Found, units: Units, recording: Recording) -> tuple[Read, ...]:
    """What mixes channels that vary, and what that costs for one image."""
    flops: Counter[str] = Counter()
    for node in recording.graph.nodes:
        flops[place(node)] += node.meta.get("flops", 0)
    return tuple(
        Read(name, dim, units.ids(labels), flops[name] // (2 * recording.images))
        for (name, dim), labels in found.reads.items()
        if units.groups_of(labels)
    )


def _has_numbers(network: Network, coupling: _Coupling) -> bool:
    """Whether the caller's code has had numbers of channels in hand that vary."""
    found, units = coupling.found, coupling.units
    in_hand = [*found.asked, *_own_counts(found, network.model)]
    return bool(network.literals) or any(map(units.groups_of, in_hand)) or _reads_widths(network.model)


def _own_counts(found: Found, model: nn.Module) -> list[IntArray]:
    """Channels that attributes count which are the caller's own, not torch's."""
    return [
        labels
        for (module, attribute), labels in found.counts.items()
        if attribute not in layer_widths(model.get_submodule(module))
    ]


def _reads_widths(model: nn.Module) -> bool:
    """Whether methods of the caller's classes that a forward may call name numbers of channels of layers."""
    widths = {name for kind in KINDS.values() for name in kind.widths}
    kinds = {kind for module in model.modules() for kind in type(module).__mro__ if not is_torchs(kind)}
    methods: dict[str, list[FunctionType]] = {}
    for name, value in ((name, value) for kind in kinds for name, value in vars(kind).items()):
        function = inspect.unwrap(value) if isinstance(value, FunctionType) else getattr(value, "fget", None)
        if isinstance(function, FunctionType):
            methods.setdefault(name, []).append(function)
    named, new = set[str](), {"forward", "__call__", *_called_anyhow(methods)}
    while new:
        named |= new
        new = {other for name in new for method in methods.get(name, ()) for other in _names(method.__code__)} - named
    return not widths.isdisjoint(named)


def _called_anyhow(methods: Iterable[str]) -> set[str]:
    """Special methods but the constructor, which nobody has to name."""
    return {name for name in methods if name.startswith("__") and name != "__init__"}


def _names(code: CodeType) -> set[str]:
    """Attributes and globals that some code names, with the functions inside of it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {*code.co_names, *(name for some in inner for name in _names(some))}


def _parametrised(model: nn.Module) -> tuple[str, ...]:
    """What to know of layers whose weights are computed, as by `weight_norm`."""
    layers = [name for name, module in model.named_modules() if is_parametrized(module)]
    old = {
        name: type(hook).__name__
        for name, module in model.named_modules()
        for hook in module._forward_pre_hooks.values()
        if type(hook).__name__ in ("WeightNorm", "SpectralNorm")
    }
    notes = []
    if layers:
        notes.append(
            f"The weight of {layers[0]} ({len(layers)} such layers) is computed from others, and computed anew from "
            "what stays of them. To keep the values that it has now, trace it without: "
            "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')."
        )
    if old:
        name, kind = next(iter(old.items()))
        remove = "remove_weight_norm" if kind == "WeightNorm" else "remove_spectral_norm"
        notes.append(
            f"The weight of {name} ({len(old)} such layers) is computed from others, and computed anew from what stays "
            f"of them. To keep the values that it has now, trace it without: torch.nn.utils.{remove}(layer)."
        )
    return tuple(notes)


def _narrower(network: Network) -> Structure:
    """A structure of which every group is narrower than in the full network.

    A third of the widths, as half of them would have much in common with all: powers of two stay such.
    """
    return tuple(group.widths[len(group.widths) // 3] for group in network.space.groups)


def _unseen(network: Network | None, followed: Forwards, coupling: _Coupling) -> Set[str]:
    """Names of nodes that are given numbers of channels unseen, in eval mode; none where the code has had none."""
    full = followed.evaluating
    if network is None or not may_have(full) or not _has_numbers(network, coupling):
        return frozenset()
    ranking = NestedRanking.by_importance([np.arange(len(units), dtype=float) for units in network.units])
    narrow = slim(network, _narrower(network), ranking).eval()
    try:
        return unseen_nodes(full, recorded(narrow, network.inputs, network.leaves, way=network.way))
    except Exception:  # whatever a forward raises at another width; the proof says so
        return frozenset()


def _prove(network: Network, followed: Forwards) -> None:
    """Build one structure and compare it, where something could depend on widths that nothing shows.

    Raises:
        TraceError: It cannot run, or is something else than the masked network.
    """
    name = type(network.model).__name__
    structure = _narrower(network)
    advice = "Keep the layers concerned whole with ignored_layers, and report it: this should not be."
    inputs = (
        network.inputs
        if network.way.as_given
        else with_images(network.inputs, min(followed.images, network.inputs.images))
    )
    try:
        found = verify_these(network, [structure], np.random.default_rng(0), followed, inputs)
    except TypeError:  # it returns nothing that could be compared
        return
    except Exception as error:  # whatever a forward raises at another width
        if is_out_of_memory(error):
            raise
        raise TraceError(f"{name} does not run with fewer channels: {error}. {advice}") from error
    if found.largest_difference > _TOLERANCE * found.scale or (found.training_difference or 0.0) > _TOLERANCE:
        raise TraceError(
            f"{name} with fewer channels is something else than {name} without them: it differs by "
            f"{found.largest_difference:.2g} of {found.scale:.2g} in eval mode and by a share of "
            f"{found.training_difference or 0.0:.2g} in training mode. {advice}"
        )
    if not found.costs_exact:
        raise TraceError(f"{name} with fewer channels has other costs than were predicted. {advice}")


def _check(
    model: nn.Module, example_inputs: Any, ignored_layers: Sequence[str], tied_layers: Sequence[Sequence[str]]
) -> Inputs:
    check_network(model)
    _refuse_wrappers(model)
    inputs = inputs_of(example_inputs)
    if inputs.tensors[0].dim() == 0:
        raise TypeError("Expected the first of example_inputs as a tensor of shape (n, ...), got a single number.")
    if len({len(x) for x in inputs.args if isinstance(x, Tensor) and x.dim() > 0}) > 1 or len(inputs.tensors[0]) == 0:
        sizes = ", ".join(str(tuple(x.shape)) for x in inputs.tensors)
        raise ValueError(f"Expected example_inputs of shape (n, ...) with one n >= 1, got {sizes}.")
    try:
        inspect.signature(model.forward).bind(*inputs.args, **inputs.kwargs)
    except TypeError as error:
        n = len(inputs.args) + len(inputs.kwargs)
        raise TraceError(f"{type(model).__name__}.forward cannot take {n} example_inputs: {error}.") from error
    if isinstance(ignored_layers, str):
        raise TypeError(f"Expected ignored_layers as a sequence of names, got the string {ignored_layers!r}.")
    for entry in ignored_layers:
        if not isinstance(entry, str):
            raise TypeError(
                f"Expected ignored_layers as names of modules or globs, got a {type(entry).__name__}. The names are "
                "those of model.named_modules()."
            )
    check_globs(model, "ignored_layers", ignored_layers)
    text = tied_layers if isinstance(tied_layers, str) else next((x for x in tied_layers if isinstance(x, str)), None)
    if text is not None:
        raise TypeError(
            f'Expected tied_layers as sequences of names, such as [("conv1", "conv2")], got the string {text!r} where '
            "a sequence belongs."
        )
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


def _units(found: Found, rules: WidthRules, model: nn.Module) -> tuple[Units, list[tuple[int, ...]]]:
    """Form groups, with their allowed widths; those with a single one are frozen and the rest formed anew."""
    units = Units(found.labels, found.producers, found.uses())
    conditions = Conditions(model, found.counts, units)
    widths = conditions.arranged(found.conditions, _widths(units, found, rules))
    if _freeze_third_factors(found, units) or _freeze_what_may_differ(found, conditions, widths):
        return _units(found, rules, model)
    rigid = [group for group, allowed in zip(units.groups, widths, strict=True) if len(allowed) == 1]
    if not rigid:
        return units, widths
    produced = np.concatenate([labels for _, labels in found.producers])
    for group in rigid:
        members = produced[np.isin(units.ids(produced), group.units)]
        found.labels.freeze(members, f"has a single allowed width, {group.width}")
    return _units(found, rules, model)


def _widths(units: Units, found: Found, rules: WidthRules) -> list[tuple[int, ...]]:
    """Allowed widths of each group."""
    layers: list[dict[tuple[str, int], None]] = [{} for _ in units.groups]
    for layer, produced in found.producers:
        for index, channels in units.width(units.ids(produced)).terms:
            layers[index][layer, channels] = None
    return [rules.widths(g.width, g.per_unit, made) for g, made in zip(units.groups, layers, strict=True)]


def _freeze_third_factors(found: Found, units: Units) -> bool:
    """Costs are products of two widths at most; where one would be of three, all but two stay. Says if one was."""
    more = False
    tensors: dict[str, list[IntArray]] = {}
    for (name, _), labels in found.cuts.items():
        tensors.setdefault(name, []).append(labels)
    for factors in (*(product.factors for product in found.products), *tensors.values()):
        varying = [labels for labels in factors if units.groups_of(labels)]
        for labels in varying[2:]:
            found.labels.freeze(labels, "is the third width that one product depends on")
            more = True
    return more


def _freeze_what_may_differ(found: Found, conditions: Conditions, widths: Sequence[tuple[int, ...]]) -> bool:
    """Where a forward compared numbers, every structure must give the same answer, or they stay. Says if some do."""
    held = conditions.freeze(found.conditions, widths, found.labels)
    more = len(held) < len(found.conditions)
    found.conditions = held
    return more


def _cuts(found: Found, units: Units) -> tuple[Cut, ...]:
    """Tensors that get narrower."""
    return tuple(
        Cut(tensor, dim, units.ids(labels)) for (tensor, dim), labels in found.cuts.items() if units.groups_of(labels)
    )


def _groups(units: Units, found: Found, widths: Sequence[tuple[int, ...]]) -> tuple[Group, ...]:
    members: list[dict[str, None]] = [{} for _ in units.groups]
    for cut in _cuts(found, units):
        for index in units.groups_with(cut.units):
            members[index][cut.tensor.rpartition(".")[0] or cut.tensor] = None
    return tuple(
        Group(group.name, group.width, group.per_unit, allowed, tuple(names))
        for group, allowed, names in zip(units.groups, widths, members, strict=True)
    )


def _macs_terms(found: Found, units: Units) -> tuple[Term, ...]:
    """Products of widths where there is a rule; an operator without one keeps what was counted of one image."""
    terms = []
    for product in found.products:
        widths = [units.width(units.ids(labels)) for labels in product.factors]
        extra = max(len(widths) - 2, 0)
        constant = [i for i, width in enumerate(widths) if not width.terms][:extra]
        left, right = (_ONE, _ONE, *(width for i, width in enumerate(widths) if i not in constant))[-2:]
        size = product.size * math.prod(widths[i].constant for i in constant)
        terms.append(Term(product.layer, size, left, right))
    return (*terms, *(Term(layer, macs, _ONE, _ONE) for layer, macs in found.uncounted))


def _params_terms(model: nn.Module, cuts: Sequence[Cut], units: Units) -> tuple[Term, ...]:
    """Each parameter's size: its cut dimensions vary, the others multiply."""
    terms = []
    cuts_of: dict[str, list[Cut]] = {}
    for cut in cuts:
        cuts_of.setdefault(cut.tensor, []).append(cut)
    for name, parameter in model.named_parameters():
        widths = {cut.dim: units.width(cut.units) for cut in cuts_of.get(name, ())}
        fixed = math.prod(size for dim, size in enumerate(parameter.shape) if dim not in widths)
        left, right = (*widths.values(), _ONE, _ONE)[:2]
        terms.append(Term(name, fixed, left, right))
    return tuple(terms)


def _outputs(output: Any) -> int | None:
    return output.shape[1] if isinstance(output, Tensor) and output.dim() == 2 else None
