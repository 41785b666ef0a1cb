"""The graph of a forward while it is followed: which node gives which object."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunesearch.models.held import held_tensors
from prunesearch.models.nested import Nest, mapped, tensors_in
from prunesearch.models.normalised import part_of
from prunesearch.models.numbers import Origin, Size, plain
from prunesearch.models.ragged import SizesByData


@dataclass(frozen=True)
class _Part:
    """A tensor, or an object that holds some, inside of what a node gave."""

    parent: fx.Node | _Part
    function: Callable[..., Any]
    key: Any


class RecordedGraph:
    """Nodes in the order in which they ran, and the objects that they gave.

    Attributes:
        graph: The nodes, with what `recorded.Recording` says of their `meta`.
        constants: Tensors that neither the inputs nor parameters and buffers gave, by name of their node.
        held: Those of them that are attributes of modules, by name of their node.
        scopes: Names of the modules whose code runs, outermost first.
        by_data: Which sizes data decide.
    """

    def __init__(self, model: nn.Module) -> None:
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self.held: dict[str, str] = {}
        self.scopes = [""]
        self.by_data = SizesByData()
        tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
        self._names = {id(tensor): name for name, tensor in reversed(tensors)}
        self._attributes = {id(tensor): name for name, tensor in held_tensors(model).items()}
        # by id; the object itself is kept, or ids would be reused
        self._known: dict[int, tuple[Any, fx.Node | _Part]] = {}
        self._sizes: dict[Size, fx.Node] = {}
        self._fed: set[fx.Node] = set()  # nodes that depend on the inputs

    # --- what is added

    def begin(self, inputs: Sequence[Tensor]) -> None:
        """Add the tensors of the inputs."""
        for index, tensor in enumerate(inputs):
            node = self.graph.placeholder(f"x{index}")
            _describe(node, tensor)
            self._fed.add(node)
            self._known[id(tensor)] = tensor, node

    def add(self, op: str, target: Any, args: Any, kwargs: Any, result: Any) -> fx.Node:
        """Add what was called with arguments as the graph has them, and gave a result."""
        node = self.graph.create_node(op, target, tuple(args), dict(kwargs))
        node.meta["scope"] = self.scopes[-1]
        self._feed(node)
        _describe(node, result)
        self.by_data.inherit(node)
        self._remember(result, node)
        return node

    def add_number(self, op: str, target: Any, args: Any, result: Any, numbers: Mapping[Any, Any]) -> fx.Node:
        """Add a number that is computed of others, or of a tensor."""
        node = self.graph.create_node(op, target, tuple(args))
        node.meta.update(number=True, scope=self.scopes[-1], value=result, numbers=numbers)
        node.meta["fed"] = any(source.meta.get("fed") for source in node.all_input_nodes)
        self.by_data.inherit(node)
        return node

    def add_number_by_data(self, source: fx.Node, value: Any) -> fx.Node:
        """Add a number that a node gave as a plain one, because data decide it."""
        node = self.graph.call_function(operator.pos, (source,))
        node.meta.update(number=True, scope=self.scopes[-1], value=value, fed=True)
        self.by_data.begin_number(node)
        return node

    def add_part(self, source: fx.Node, key: Any) -> fx.Node:
        """Add a part of what a node gave, in which such a number is."""
        node = self.graph.call_function(part_of, (source, key))
        node.meta.update(scope=self.scopes[-1], fed=True)
        return node

    def end(self, output: Any) -> None:
        """Add what the forward returned, as the graph has it; objects are not known any more."""
        self.graph.output(output).meta["scope"] = ""
        self._known.clear()

    # --- what is known

    def is_known(self, value: Any) -> bool:
        """Whether a node gave this object, or the tensor that it is another object for."""
        if id(value) not in self._known and isinstance(value, Tensor) and value.grad_fn is not None:
            self._know_again(value)
        return id(value) in self._known

    def _know_again(self, tensor: Tensor) -> None:
        """A `torch.autograd.Function` that returns its input gives another object for the same tensor."""
        with torch._C.DisableTorchFunction():
            for known, node in reversed(self._known.values()):
                if isinstance(known, Tensor) and _is_same_memory(known, tensor):
                    self._known[id(tensor)] = tensor, node
                    return

    def name_of(self, tensor: Tensor) -> str | None:
        """Of a parameter or buffer."""
        return self._names.get(id(tensor))

    def node_of(self, value: Any) -> fx.Node:
        """The node that gave a tensor, or an object that holds some; one that no node gave becomes a constant."""
        if self.is_known(value):
            known, node = self._known[id(value)]
            if isinstance(node, _Part):
                node = self._node_of_part(node)
                self._known[id(value)] = known, node
            return node
        name = self._names.get(id(value))
        if name is None:
            name = f"_constant{len(self.constants)}"
            self.constants[name] = value.detach().clone()
            if id(value) in self._attributes:
                self.held[name] = self._attributes[id(value)]
        node = self.graph.create_node("get_attr", name)
        node.meta.update(scope=self.scopes[-1], parameter=isinstance(value, nn.Parameter))
        _describe(node, value)
        self._known[id(value)] = value, node
        return node

    def node_of_object(self, value: Any) -> fx.Node:
        """Of an object that holds tensors: what a leaf returned, or one to be made anew of what is in it."""
        if self.is_known(value):
            return self.node_of(value)
        example = Nest(mapped(value, Tensor.detach))
        return self.graph.call_function(example, tuple(self.node_of(tensor) for tensor in tensors_in(value)))

    def node_of_number(self, origin: Origin) -> fx.Node:
        """Of a number that is no attribute of a module."""
        if isinstance(origin, fx.Node):
            return origin
        assert isinstance(origin, Size)
        if origin not in self._sizes:
            node = self.graph.create_node("call_method", "size", (origin.tensor, origin.dim))
            node.meta["number"] = True
            node.meta["fed"] = origin.tensor in self._fed
            node.meta["value"] = origin.tensor.meta["shape"][origin.dim] if "shape" in origin.tensor.meta else None
            if self.by_data.hold(origin):
                self.by_data.inherit(node)
            self._sizes[origin] = node
        return self._sizes[origin]

    def depends_on_inputs(self, arguments: Any) -> bool:
        """Whether a tensor among some arguments does."""
        for tensor in tensors_in(arguments):
            node: Any = self._known[id(tensor)][1] if self.is_known(tensor) else None
            while isinstance(node, _Part):
                node = node.parent
            if node in self._fed:
                return True
        return False

    def _feed(self, node: fx.Node) -> None:
        if not self._fed.isdisjoint(node.all_input_nodes):
            self._fed.add(node)
        node.meta["fed"] = node in self._fed

    def _remember(self, value: Any, node: fx.Node | _Part) -> None:
        """Know a result again, and what is in it, when it is used."""
        if isinstance(value, Tensor):
            self._known[id(value)] = value, node
        elif isinstance(value, (tuple, list)):
            for index, item in enumerate(value):
                self._remember(item, _Part(node, part_of, index))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self._remember(item, _Part(node, part_of, key))
        elif hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module)) and not callable(value):
            self._known[id(value)] = value, node
            for key, item in vars(value).items():
                self._remember(item, _Part(node, getattr, key))

    def _node_of_part(self, part: _Part) -> fx.Node:
        parent = self._node_of_part(part.parent) if isinstance(part.parent, _Part) else part.parent
        node = self.graph.call_function(part.function, (parent, part.key))
        node.meta["scope"] = parent.meta.get("scope", "")
        self._feed(node)
        for value, known in self._known.values():
            if known is part:
                _describe(node, value)
        self.by_data.inherit(node)
        return node

    # --- what goes

    def drop_unused(self, tested: Iterable[fx.Node], decisive: Iterable[Origin | float]) -> None:
        """Numbers and parameters that were asked for and went nowhere, and what assertions alone looked at.

        Args:
            tested: What assertions look at, and what gradients alone need.
            decisive: Numbers that decided what the forward does: they stay.
        """
        left = list(dict.fromkeys(tested))
        while left:
            node = left.pop()
            is_operator = node.op in ("call_function", "call_method")
            if is_operator and not node.users and not (node.meta.get("writes") or node.meta.get("flops")):
                left += [source for source in node.all_input_nodes if source not in left]
                self.graph.erase_node(node)
        kept = set(decisive)
        kept |= {origin.tensor for origin in kept if isinstance(origin, Size)}
        for node in reversed(list(self.graph.nodes)):
            if (node.meta.get("number") or node.op == "get_attr") and not node.users and node not in kept:
                self.graph.erase_node(node)


def plain_shape(tensor: Tensor) -> tuple[int, ...]:
    """Its sizes as plain numbers, which nobody is told of."""
    with torch._C.DisableTorchFunction():
        return tuple(map(plain, tensor.shape))


def _is_same_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same numbers in the same places of one memory."""
    if one.layout != torch.strided or other.layout != torch.strided or one.shape != other.shape:
        return False
    places = [(x.untyped_storage()._cdata, x.storage_offset(), x.stride(), x.dtype) for x in (one, other)]
    return places[0] == places[1]


def _describe(node: fx.Node, result: Any) -> None:
    if isinstance(result, Tensor):
        node.meta["shape"] = plain_shape(result)
    else:
        node.meta["shapes"] = [plain_shape(x) for x in tensors_in(result)]
