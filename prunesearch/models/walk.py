"""One run of a network in which every channel of every tensor gets a label, and operators say which belong together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from prunesearch.errors import TraceError
from prunesearch.models import operators, sizes
from prunesearch.models.count import positions_of_one_image
from prunesearch.models.coupling import Labels
from prunesearch.models.deadline import Deadline
from prunesearch.models.literals import Place, has_literals, literal_at, operators_with_literals
from prunesearch.models.operators import Shape, Tracked, Value
from prunesearch.models.rules import is_inside
from prunesearch.models.sizes import Number
from prunesearch.models.symbolic import follow
from prunesearch.models.undisturbed import undisturbed
from prunesearch.structure import IntArray


@dataclass
class Found:
    """What a walk over a network finds.

    Attributes:
        labels: Of every channel.
        producers: Layers that make channels, in the order the network runs.
        cuts: Labels of each dimension of a tensor that gets narrower.
        counts: Labels of the channels that a module's attribute counts.
        literals: Labels of the channels that a number in the code of a forward counts.
        reads: Labels of the input of each module that mixes channels.
        products: Layer, MACs of one image per pair of channels, and the labels, or the number, of either side.
        output: What the network returned.
        notes: What the caller should know.
    """

    labels: Labels = field(default_factory=Labels)
    producers: list[tuple[str, IntArray]] = field(default_factory=list)
    cuts: dict[tuple[str, int], IntArray] = field(default_factory=dict)
    counts: dict[tuple[str, str], IntArray] = field(default_factory=dict)
    literals: dict[tuple[str, Place], IntArray] = field(default_factory=dict)
    reads: dict[tuple[str, int], IntArray] = field(default_factory=dict)
    products: list[tuple[str, int, IntArray | int, IntArray | int]] = field(default_factory=list)
    output: Any = None
    notes: list[str] = field(default_factory=list)

    def uses(self) -> list[IntArray]:
        """Every array of labels that costs depend on: units that run through the same ones are interchangeable."""
        factors = [factor for _, _, *pair in self.products for factor in pair if not isinstance(factor, int)]
        return [*self.cuts.values(), *factors]


def walk(model: nn.Module, inputs: tuple[Tensor, ...], ignored: Sequence[str], deadline: Deadline) -> Found:
    """Find out what is coupled in `model`, a copy of our own in eval mode.

    Args:
        model: The network.
        inputs: What to run it with.
        ignored: Names or globs of modules whose outputs keep all channels.
        deadline: When to give up.

    Raises:
        TraceError: torch.fx cannot follow the forward, it fails on the inputs, perhaps in training mode only, or time
            is up.
    """
    found = Found()
    evaluating = _Walk(model, inputs, ignored, found, deadline)
    found.output = evaluating.walk()
    try:
        training = _training(model, inputs, ignored, found, deadline)
    except TraceError as error:
        found.notes.append(f"What the forward does in training mode only was not looked at: {error}")
        return found
    if training.steps != evaluating.steps:  # auxiliary classifiers and the like
        products = list(found.products)
        training.walk()
        found.products = products  # coupled, but not part of the cost
    return found


def _training(
    model: nn.Module, inputs: tuple[Tensor, ...], ignored: Sequence[str], found: Found, deadline: Deadline
) -> _Walk:
    try:
        return _Walk(model.train(), inputs, ignored, found, deadline)
    finally:
        model.eval()


class _Walk(fx.Interpreter):
    """Runs a traced forward once and applies each operator's rule to its labels."""

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Tensor, ...],
        ignored: Sequence[str],
        found: Found,
        deadline: Deadline,
    ) -> None:
        self._forward = follow(model, inputs, deadline)
        self._deadline = deadline
        super().__init__(self._forward.graph)
        self.extra_traceback = False  # torch.fx would append its own to our messages
        self.labels = found.labels
        self._model = model
        self._inputs = inputs
        self._ignored = tuple(ignored)
        self._found = found
        self._values: dict[Any, Value] = {}
        self._numbers: dict[Any, Number] = {}
        self._shapes: dict[Any, Shape] = {}
        self._parts: dict[Any, tuple[Tracked, ...]] = {}
        self._tensors: dict[Any, Any] = {}  # what the forward takes from the model by name
        self._narrowed: set[fx.Node] = set()  # which of those the operator at hand narrows
        self._used_directly = set(self._forward.tensors)
        self._own_operators: dict[str, list[fx.Node] | None] = {}
        tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self._first_name = {id(tensor): name for name, tensor in reversed(tensors)}

    @property
    def steps(self) -> list[tuple[str, Any]]:
        """What the forward does, in order."""
        return [(node.op, node.target) for node in self._forward.graph.graph.nodes]

    # --- running

    def walk(self) -> Any:
        """Run the forward, find what is coupled, and return its output."""
        with undisturbed(self._inputs) as inputs:
            output = self.run(*inputs)
        self._freeze_what_is_used_directly()
        return output

    def run_node(self, n: fx.Node) -> Any:
        self._deadline.check(_describe(n))
        try:
            result = super().run_node(n)
        except Exception as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in self._inputs)
            raise TraceError(
                f"{type(self._model).__name__}: {_describe(n)} fails on example_inputs of shape {shapes}: {error}"
            ) from error
        if isinstance(result, Tensor):
            self._shapes[n] = tuple(result.shape)
        self._values[n] = self._apply_rule(n, result)
        return result

    def _apply_rule(self, node: fx.Node, result: Any) -> Value:
        if node.op == "placeholder":
            return None
        if node.op == "get_attr":
            self._tensors[node] = result
            return None
        rule = self._rule(node)
        if rule is not operators.elementwise:  # which narrows the parameters it can
            self._use_directly(node.all_input_nodes)
        if node.op == "output":
            self._freeze_all(node, "is an output of the network")
            return None
        if sizes.is_plain(result):
            number = sizes.number(self, node, result)
            if number is not None:
                self._numbers[node] = number
            return None
        if rule is None or not (isinstance(result, Tensor) or rule in (operators.chunk, operators.split)):
            self._do_without_rule(node)
            return None
        if rule is not operators.flatten:  # all others would compute something else with another number
            for argument in node.all_input_nodes:
                self._freeze_number(argument, f"{_describe(node)} computes with how many there are")
        value = rule(self, node)
        self._use_directly(argument for argument in node.all_input_nodes if argument not in self._narrowed)
        self._narrowed.clear()
        if (
            value is not None
            and node.op == "call_module"
            and any(is_inside(str(node.target), pattern) for pattern in self._ignored)
        ):
            self.labels.freeze(value.labels, "is one of ignored_layers")
        return value

    def _rule(self, node: fx.Node) -> operators.Rule | None:
        if node.op == "call_module":
            module = self.module_of(node)
            rule = None if _is_altered(module) else operators.rule_of(type(module))
        else:
            rule = operators.rule_of(node.target)
        takes_keywords = rule in (operators.elementwise, operators.concatenate)
        return rule if node.args or takes_keywords else None

    def _use_directly(self, arguments: Iterable[fx.Node]) -> None:
        """Note that a forward takes these parameters as they are."""
        self._used_directly.update(id(self._tensors[node]) for node in arguments if node in self._tensors)

    def _do_without_rule(self, node: fx.Node) -> None:
        module = self.module_of(node) if node.op == "call_module" else nn.Identity()
        why = "has hooks or a forward of its own" if _is_altered(module) else "has no rule"
        self.freeze_inputs(node, why)
        tensors = [*module.parameters(), *module.buffers()]
        if tensors:  # to be reported as frozen
            self._used_directly.update(id(tensor) for tensor in tensors)
            self._found.producers.append((str(node.target), self.labels.fresh(1)))
            self.labels.freeze(self._found.producers[-1][1], why)

    def _freeze_all(self, node: fx.Node, reason: str) -> None:
        for argument in node.all_input_nodes:
            for value in (self.value(argument), *(self.parts(argument) or ())):
                if value is not None:
                    self.labels.freeze(value.labels, reason)
            self._freeze_number(argument, reason)

    def _freeze_number(self, argument: fx.Node, reason: str) -> None:
        if argument in self._numbers:
            self.labels.freeze(self._numbers[argument].labels, reason)

    def _freeze_what_is_used_directly(self) -> None:
        """A tensor or a number that the forward takes from a layer would not be what it was if the layer narrowed."""
        names = {self._first_name.get(tensor) for tensor in self._used_directly}
        for (tensor, _), labels in self._found.cuts.items():
            if tensor in names:
                self.labels.freeze(labels, f"{tensor!r} is used by something else than a layer with a rule")
        for (module, attribute), labels in self._found.counts.items():
            if (module, attribute) in self._forward.attributes:
                self.labels.freeze(labels, f"'{module}.{attribute}' is read by a forward")

    # --- what rules may ask and tell: `operators.Walk`

    def value(self, argument: Any) -> Value:
        return self._values.get(argument)

    def number(self, argument: Any) -> Number | None:
        return self._numbers.get(argument)

    def parts(self, argument: Any) -> tuple[Tracked, ...] | None:
        return self._parts.get(argument)

    def split(self, node: fx.Node, parts: tuple[Tracked, ...]) -> None:
        self._parts[node] = parts

    def shape(self, node: Any) -> Shape:
        return self._shapes[node]

    def is_tensor(self, node: Any) -> bool:
        return node in self._shapes

    def module_of(self, node: fx.Node) -> nn.Module:
        return self.module.get_submodule(str(node.target))

    def freeze(self, value: Value, node: fx.Node, why: str) -> None:
        if value is not None:
            self.labels.freeze(value.labels, f"{_describe(node)} {why}")

    def freeze_inputs(self, node: fx.Node, why: str) -> None:
        self._freeze_all(node, f"{_describe(node)} {why}")

    def cut(self, node: fx.Node, tensor: str, dim: int, labels: IntArray) -> None:
        name = self._first_name.get(id(getattr(self.module_of(node), tensor)))
        if name is None:
            self.labels.freeze(labels, f"'{node.target}.{tensor}' is neither a parameter nor a buffer")
        else:
            self._record(self._found.cuts, (name, dim), labels)

    def narrow(self, argument: fx.Node, dim: int, labels: IntArray) -> bool:
        name = self._first_name.get(id(self._tensors.get(argument)))
        if name is None:
            return False
        self._record(self._found.cuts, (name, dim), labels)
        self._narrowed.add(argument)
        return True

    def count(self, node: fx.Node, attribute: str, labels: IntArray) -> None:
        self._record(self._found.counts, (str(node.target), attribute), labels)

    def literal(self, node: fx.Node, position: tuple[int | str, ...], labels: IntArray) -> bool:
        owner = _scope(node)
        if owner not in self._own_operators:
            self._own_operators[owner] = operators_with_literals(self._model.get_submodule(owner))
        own, here = self._own_operators[owner], _with_literals(self._forward.graph.graph, owner)
        if not own or len(here) % len(own):  # more often if the module is called several times
            return False
        index = here.index(node) % len(own)
        value = literal_at(node, position)
        if value is None or own[index].target != node.target or literal_at(own[index], position) != value:
            return False
        self._record(self._found.literals, (owner, (index, position)), labels)
        return True

    def read(self, node: fx.Node, dim: int, labels: IntArray) -> None:
        self._record(self._found.reads, (str(node.target), dim), labels)

    def produce(self, node: fx.Node, labels: IntArray) -> None:
        self._found.producers.append((str(node.target), labels))

    def macs(self, node: fx.Node, per_image: int, left: IntArray | int, right: IntArray | int) -> None:
        self._found.products.append((str(node.target), per_image, left, right))

    def positions(self, shape: Shape, channels: int) -> int:
        """How many vectors of channels one image has in a tensor of this shape."""
        return positions_of_one_image(math.prod(shape) // channels, len(self._inputs[0]))

    def _record(self, table: dict[Any, IntArray], key: Any, labels: IntArray) -> None:
        if key in table:  # a module called twice, or a tensor shared by two modules, sees the same channels each time
            self.labels.tie(table[key], labels)
        else:
            table[key] = labels


def nodes_with_literal(model: nn.Module, graph: fx.Graph, owner: str, index: int) -> list[fx.Node]:
    """The nodes that operator number `index` with literals of the module `owner` became, one per call of the module."""
    own = operators_with_literals(model.get_submodule(owner)) or ()
    return _with_literals(graph, owner)[index :: len(own)]


def _with_literals(graph: fx.Graph, owner: str) -> list[fx.Node]:
    return [node for node in graph.nodes if has_literals(node) and _scope(node) == owner]


def _describe(node: fx.Node) -> str:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    kind = {"call_module": "module", "call_method": "method", "call_function": "function"}.get(node.op, "node")
    if node.target is getattr:  # made where it is first used, so its scope says nothing
        return f"attribute {str(node.args[1])!r}"
    where = _scope(node) if node.op != "call_module" else ""
    return f"{kind} {name!r}" + (f" in {where!r}" if where else "")


def _scope(node: fx.Node) -> str:
    """Name of the module whose forward a node is in; empty for the model itself."""
    scope = node.meta.get("nn_module_stack")
    return str(next(reversed(scope.values()))[0]) if scope else ""


def _is_altered(module: nn.Module) -> bool:
    """Whether a module may do something else than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
