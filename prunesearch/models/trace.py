"""From an ordinary `nn.Module` to a `Network`: what is coupled, what is frozen and why, what everything costs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunesearch.errors import TraceError
from prunesearch.models import operators
from prunesearch.models.coupling import Count, Cut, Labels, Read, Units
from prunesearch.models.network import Network
from prunesearch.models.operators import Shape, Value
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

    The forward is traced symbolically (torch.fx) and run once, in eval mode on a copy, with `example_inputs`. Every
    channel of every tensor gets a label and each operator's rule says which labels belong together
    (`models.operators`). The network's own inputs and outputs, hence a classifier's classes, are never pruned.

    Args:
        model: Any module that torch.fx can trace.
        example_inputs: A batch, or the tuple of positional inputs; every one (n, ...) with the same n.
        round_to: Kept widths are multiples of this many channels (hardware likes 8 or 16); the full width is always
            allowed.
        min_channels: Narrowest width of any group: a number of channels (int), or a fraction of the group's width
            (float), rounded up to a multiple of `round_to`.
        ignored_layers: Names of modules, or globs such as `"layer4.*"`, whose outputs keep all channels.

    Returns:
        The network with its space.

    Raises:
        TraceError: torch.fx cannot follow the forward, the forward fails on the inputs, or nothing can be pruned. The
            message names the module.
        ValueError: A rule is out of range, or an ignored layer does not exist.
    """
    inputs = _check(model, example_inputs, round_to, min_channels, ignored_layers)
    try:
        still = copy.deepcopy(model).eval()
    except Exception as error:
        raise TraceError(f"{type(model).__name__} cannot be copied, which tracing needs: {error}") from error
    walk = _Walk(_symbolic_trace(still), inputs, ignored_layers)
    output = walk.run()
    units = _units(walk, round_to, min_channels)
    cuts = tuple(Cut(tensor, dim, units.ids(labels)) for (tensor, dim), labels in walk.cuts.items())
    counts = tuple(Count(module, name, units.ids(labels)) for (module, name), labels in walk.counts.items())
    reads = tuple(Read(module, dim, units.ids(labels)) for (module, dim), labels in walk.reads.items())
    groups = _groups(units, cuts, round_to, min_channels)
    if not groups:
        reasons = "; ".join(f"{layer}: {why}" for layer, why in list(units.frozen.items())[:3])
        raise TraceError(f"Nothing can be pruned in {type(model).__name__}. {reasons or 'It has no layers we know.'}")
    return Network(
        model=model,
        example_inputs=inputs,
        space=Space(groups, _macs_terms(walk, units), _params_terms(model, cuts, units)),
        cuts=cuts,
        counts=counts,
        reads=reads,
        units=tuple(group.units for group in units.groups),
        unit_count=units.count,
        frozen=dict(units.frozen),
        outputs=output.shape[1] if isinstance(output, Tensor) and output.dim() == 2 else None,
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
    if round_to < 1:
        raise ValueError(f"Expected round_to >= 1, got {round_to}.")
    if min_channels <= 0 or (isinstance(min_channels, float) and min_channels > 1):
        raise ValueError(f"Expected min_channels as a count >= 1 or a fraction in (0, 1], got {min_channels}.")
    names = [name for name, _ in model.named_modules()]
    for pattern in ignored_layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"ignored_layers: no module of {type(model).__name__} matches {pattern!r}.")
    return inputs


class _Tracer(fx.Tracer):
    """Keeps every module that has a rule whole, and remembers where in the model it is."""

    def __init__(self) -> None:
        super().__init__()
        self.where: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in operators.MODULES or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.where.append(f"{self.path_of_module(m)} ({type(m).__name__})")
        result = super().call_module(m, forward, args, kwargs)
        self.where.pop()  # left in place by an exception, so that the message can name the innermost module
        return result


def _symbolic_trace(model: nn.Module) -> fx.GraphModule:
    tracer = _Tracer()
    try:
        return fx.GraphModule(model, tracer.trace(model))
    except Exception as error:  # torch.fx raises whatever the user's forward raises on proxies
        place = tracer.where[-1] if tracer.where else type(model).__name__
        raise TraceError(
            f"torch.fx cannot trace module {place}: {error} Move what depends on the data out of forward, or mark the "
            "function that holds it with torch.fx.wrap."
        ) from error


class _Walk(fx.Interpreter):
    """Runs the traced network once and applies each operator's rule to its labels."""

    def __init__(self, graph: fx.GraphModule, inputs: tuple[Tensor, ...], ignored: Sequence[str]) -> None:
        super().__init__(graph)
        self.labels = Labels()
        self.producers: list[tuple[str, IntArray]] = []
        self.cuts: dict[tuple[str, int], IntArray] = {}
        self.counts: dict[tuple[str, str], IntArray] = {}
        self.reads: dict[tuple[str, int], IntArray] = {}
        self.products: list[tuple[str, int, IntArray | int, IntArray | int]] = []
        self._inputs = inputs
        self._ignored = tuple(ignored)
        self._values: dict[fx.Node, Value] = {}
        self._shapes: dict[fx.Node, Shape] = {}
        self._first_name = {
            id(tensor): name for name, tensor in reversed([*graph.named_parameters(remove_duplicate=False)])
        }

    def uses(self) -> list[IntArray]:
        """Every array of labels that costs depend on: units that run through the same ones are interchangeable."""
        factors = [factor for _, _, *pair in self.products for factor in pair if not isinstance(factor, int)]
        return [*self.cuts.values(), *factors]

    # --- running

    def run(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return super().run(*self._inputs, *args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except Exception as error:
            sizes = ", ".join(str(tuple(x.shape)) for x in self._inputs)
            raise TraceError(
                f"{type(self.module).__name__}: {_describe(n)} fails on example_inputs of shape {sizes}: {error}"
            ) from error
        if isinstance(result, Tensor):
            self._shapes[n] = tuple(result.shape)
        self._values[n] = self._apply_rule(n, result)
        return result

    def _apply_rule(self, node: fx.Node, result: Any) -> Value:
        if node.op == "placeholder":
            return None
        if node.op == "get_attr":
            return None
        inputs = [self._values[argument] for argument in node.all_input_nodes]
        if node.op == "output":
            for value in inputs:
                if value is not None:
                    self.labels.freeze(value.labels, "is an output of the network")
            return None
        rule = self._rule(node) if isinstance(result, Tensor) else None
        if rule is not None:
            return rule(self, node)
        if _holds_tensor(result):
            for value in inputs:
                self.freeze(value, node, "has no rule")
        return None

    def _rule(self, node: fx.Node) -> operators.Rule | None:
        if node.op == "call_module":
            return operators.MODULES.get(type(self.module_of(node)))
        if node.op == "call_method":
            return operators.METHODS.get(str(node.target))
        return operators.FUNCTIONS.get(node.target)

    # --- what rules may ask and tell: `operators.Walk`

    def value(self, argument: Any) -> Value:
        return self._values.get(argument)

    def shape(self, node: Any) -> Shape:
        return self._shapes[node]

    def is_tensor(self, node: Any) -> bool:
        return node in self._shapes

    def module_of(self, node: fx.Node) -> nn.Module:
        return self.module.get_submodule(str(node.target))

    def freeze(self, value: Value, node: fx.Node, why: str) -> None:
        if value is not None:
            self.labels.freeze(value.labels, f"{_describe(node)} {why}")

    def cut(self, node: fx.Node, tensor: str, dim: int, labels: IntArray) -> None:
        parameter = getattr(self.module_of(node), tensor)
        self._record(self.cuts, (self._first_name.get(id(parameter), f"{node.target}.{tensor}"), dim), labels)

    def count(self, node: fx.Node, attribute: str, labels: IntArray) -> None:
        self._record(self.counts, (str(node.target), attribute), labels)

    def read(self, node: fx.Node, dim: int, labels: IntArray) -> None:
        self._record(self.reads, (str(node.target), dim), labels)

    def produce(self, node: fx.Node, labels: IntArray) -> None:
        name = str(node.target)
        self.producers.append((name, labels))
        if any(fnmatchcase(name, pattern) for pattern in self._ignored):
            self.labels.freeze(labels, "is one of ignored_layers")

    def macs(self, node: fx.Node, per_image: int, left: IntArray | int, right: IntArray | int) -> None:
        self.products.append((str(node.target), per_image, left, right))

    def per_image(self, shape: Shape) -> int:
        return math.prod(shape) // len(self._inputs[0])

    def _record(self, table: dict[Any, IntArray], key: Any, labels: IntArray) -> None:
        if key in table:  # a module called twice, or a tensor shared by two modules, sees the same channels each time
            self.labels.tie(table[key], labels)
        else:
            table[key] = labels


def _describe(node: fx.Node) -> str:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    kind = {"call_module": "module", "call_method": "method", "call_function": "function"}.get(node.op, "node")
    scope = node.meta.get("nn_module_stack")
    where = next(reversed(scope.values()))[0] if scope and node.op != "call_module" else ""
    return f"{kind} {name!r}" + (f" in {where!r}" if where else "")


def _holds_tensor(result: Any) -> bool:
    if isinstance(result, (tuple, list)):
        return any(_holds_tensor(item) for item in result)
    if isinstance(result, dict):
        return any(_holds_tensor(item) for item in result.values())
    return isinstance(result, Tensor)


def _units(walk: _Walk, round_to: int, min_channels: int | float) -> Units:
    """Form groups; those with a single allowed width are frozen and the rest formed anew."""
    units = Units(walk.labels, walk.producers, walk.uses())
    rigid = [g for g in units.groups if len(_allowed(g.width, g.per_unit, round_to, min_channels)) == 1]
    if not rigid:
        return units
    produced = np.concatenate([labels for _, labels in walk.producers])
    for group in rigid:
        members = produced[np.isin(units.ids(produced), group.units)]
        walk.labels.freeze(members, f"has a single allowed width, {group.width}")
    return _units(walk, round_to, min_channels)


def _groups(units: Units, cuts: Sequence[Cut], round_to: int, min_channels: int | float) -> tuple[Group, ...]:
    groups = []
    for found in units.groups:
        members = dict.fromkeys(cut.tensor.rpartition(".")[0] for cut in cuts if np.isin(cut.units, found.units).any())
        widths = _allowed(found.width, found.per_unit, round_to, min_channels)
        groups.append(Group(found.name, found.width, found.per_unit, widths, tuple(members)))
    return tuple(groups)


def _allowed(width: int, unit: int, round_to: int, min_channels: int | float) -> tuple[int, ...]:
    step = math.lcm(unit, round_to)
    least = math.ceil(min_channels * width) if isinstance(min_channels, float) else min_channels
    return (*range(step * max(1, math.ceil(least / step)), width, step), width)


def _macs_terms(walk: _Walk, units: Units) -> tuple[Term, ...]:
    def width(factor: IntArray | int) -> Width:
        return Width(factor) if isinstance(factor, int) else units.width(units.ids(factor))

    return tuple(Term(layer, per_image, width(left), width(right)) for layer, per_image, left, right in walk.products)


def _params_terms(model: nn.Module, cuts: Sequence[Cut], units: Units) -> tuple[Term, ...]:
    """Each parameter's size: its cut dimensions vary, the others multiply."""
    terms = []
    for name, parameter in model.named_parameters():
        widths = {cut.dim: units.width(cut.units) for cut in cuts if cut.tensor == name}
        fixed = math.prod(size for dim, size in enumerate(parameter.shape) if dim not in widths)
        left, right = (*widths.values(), _ONE, _ONE)[:2]
        terms.append(Term(name, fixed, left, right))
    return tuple(terms)
