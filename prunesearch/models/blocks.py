"""Cutting a network into blocks that can be built and timed on their own, at any width.

A block is a layer with weights and everything that runs until the next one: a convolution with its BatchNorm, its
activation, the addition of a shortcut. That is the piece that compilers fuse, and what a block computes depends on few
widths. Blocks that compute the same at the same widths are the same work, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from prunesearch.errors import TraceError
from prunesearch.models.copying import copied, without_data
from prunesearch.models.coupling import Followed
from prunesearch.models.following import recorded, that_has_run, with_images
from prunesearch.models.isolation import isolated
from prunesearch.models.literals import replaced
from prunesearch.models.nested import Nest
from prunesearch.models.network import Network
from prunesearch.models.operators.kind import kind_of
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.recorded import Recording
from prunesearch.models.replay import Replay
from prunesearch.models.slim import kept_units, slim
from prunesearch.structure import IntArray, Structure, Width

_WIDTHS_PER_BLOCK = 2


@dataclass(frozen=True)
class Block:
    """A piece of a network's forward.

    Attributes:
        place: The layer it begins with.
        computes: Its operators and the shapes of what goes in, all at full width; equal for equal work.
        axes: The at most two widths that its time depends on, as functions of a structure: first that of what its layer
            produces, then that of everything else. Widths that can only be counted together are added up.
        nodes: Names of its operators in the traced forward.
    """

    place: str
    computes: str
    axes: tuple[Width, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class _Run:
    """A slimmed network, its operators, and what every one of them returned, on the meta device."""

    model: nn.Module
    graph: fx.Graph
    values: Mapping[str, Any]


class BlockedNetwork:
    """A network cut into blocks.

    Args:
        network: A traced network; its model is only read.
        batch_size: Images per forward.

    Raises:
        TraceError: The forward is another one at another width, or cannot run without its weights.
    """

    def __init__(self, network: Network, batch_size: int = 1) -> None:
        self.space = network.space
        inputs = with_images(network.inputs, batch_size)
        self._inputs = inputs.without_data()
        self._network = replace(network, model=without_data(that_has_run(network.model, network.inputs, network.way)))
        self._ranking = NestedRanking.by_importance([np.zeros(len(units)) for units in network.units])
        self._layers = {term.layer for term in network.space.macs_terms}
        self._runs: dict[Structure, _Run] = {}
        with self._without_data():
            self._recording = recorded(copied(self._network.model), self._inputs, network.leaves, way=network.way)
        self._full = self._run(self.space.full)
        self._slopes = self._probe()
        self.blocks = tuple(self._block(nodes) for nodes in self._cut())

    def build(self, block: Block, structure: Structure) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Build one block as it is in the network of `structure`, with made-up weights and inputs.

        Returns:
            A module in eval mode, on the CPU, and what to call it with.
        """
        run = self._run(structure)
        graph, taken = _extracted(run, block.nodes)
        generator = torch.Generator().manual_seed(0)
        module = copied(fx.GraphModule(run.model, graph)).to_empty(device="cpu").eval()
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                _fill(tensor, generator)
        return module, tuple(_made_up(value, generator) for value in taken)

    def _run(self, structure: Structure) -> _Run:
        """Let shapes run through the slimmed network; kept, as many blocks ask for the same."""
        if structure not in self._runs:
            kept = kept_units(self._network, structure, self._ranking)
            model = slim(self._network, structure, self._ranking).eval()
            graph = self._with_numbers(kept)
            recorder = _Recorder(replace(self._recording, graph=graph), model)
            with self._without_data(), isolated(()):
                recorder.run(*self._inputs.tensors)
            self._runs[structure] = _Run(model, graph, recorder.values)
        return self._runs[structure]

    @contextmanager
    def _without_data(self) -> Iterator[None]:
        """Tensors have shapes only, also those that a forward makes."""
        try:
            with torch.device("meta"):
                yield
        except TraceError:
            raise
        except Exception as error:  # whatever an operator raises that wants to see data
            raise TraceError(
                f"The forward of {type(self._network.model).__name__} cannot run on tensors without data (device "
                f"'meta'), which cutting it into blocks needs: {error}"
            ) from error

    def _with_numbers(self, kept: npt.NDArray[np.bool_]) -> fx.Graph:
        """The recorded operators, with the numbers of channels among their arguments that a structure has."""
        numbers: dict[str, list[Followed]] = {}
        for followed in self._network.numbers:
            numbers.setdefault(followed.node, []).append(followed)
        graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
        for node in self._recording.graph.nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            for followed in numbers.get(node.name, ()):
                width = followed.number(kept)
                if isinstance(followed.position[0], str):
                    copies[node].kwargs = replaced(copies[node].kwargs, followed.position, width)
                else:
                    copies[node].args = replaced(copies[node].args, followed.position, width)
        return graph

    def _probe(self) -> dict[str, dict[int, IntArray]]:
        """Per operator and group: how much each dimension of what it returns loses per unit, where any does."""
        slopes: dict[str, dict[int, IntArray]] = {}
        for index, group in enumerate(self.space.groups):
            narrowest = tuple(group.widths[0] if i == index else width for i, width in enumerate(self.space.full))
            run = self._run(narrowest)
            if list(run.values) != list(self._full.values):
                raise TraceError(f"The forward takes another way when {group.name} is narrowed, so it has no blocks.")
            lost = (group.width - group.widths[0]) // group.unit
            for name, value in run.values.items():
                change = (_sizes(self._full.values[name]) - _sizes(value)) // lost
                if change.any():
                    slopes.setdefault(name, {})[index] = change
            del self._runs[narrowest]
        return slopes

    def _cut(self) -> Iterator[tuple[fx.Node, ...]]:
        """Cut before every layer with weights, and wherever a block would depend on a third width."""
        nodes: list[fx.Node] = []
        widths: set[tuple[tuple[int, int], ...]] = set()
        for node in self._full.graph.nodes:
            if node.op in ("placeholder", "output", "get_attr") or isinstance(node.target, Nest):
                continue
            own = set(self._widths(node))
            if nodes and (self._is_heavy(node) or (len(widths | own) > _WIDTHS_PER_BLOCK and not own <= widths)):
                yield tuple(nodes)
                nodes, widths = [], set()
            nodes.append(node)
            widths |= own
        if nodes:
            yield tuple(nodes)

    def _is_heavy(self, node: fx.Node) -> bool:
        kind = kind_of(node)
        multiplies = kind is not None and kind.multiplies
        return multiplies or (node.op == "call_module" and str(node.target) in self._layers)

    def _widths(self, node: fx.Node) -> Iterator[tuple[tuple[int, int], ...]]:
        """Every width in what an operator takes and returns that varies: pairs (group, channels per unit)."""
        for name in (node.name, *(source.name for source in node.all_input_nodes)):
            changes = self._slopes.get(name, {})
            if changes:
                table = np.array(list(changes.values()))
                for column in np.flatnonzero(table.any(axis=0)):
                    yield tuple((g, int(n)) for g, n in zip(changes, table[:, column], strict=True) if n)

    def _block(self, nodes: Sequence[fx.Node]) -> Block:
        widths = sorted({width for node in nodes for width in self._widths(node)}, key=self._at_full, reverse=True)
        made = {g for change in [self._slopes.get(nodes[0].name, {})] for g in change}
        clusters = [made, {g for width in widths for g, _ in width} - made]
        axes = []
        for cluster in clusters:
            shares = [tuple((g, n) for g, n in width if g in cluster) for width in widths]
            widest = max(shares, key=self._at_full, default=())
            if widest:
                missing = cluster - {g for g, _ in widest}
                others = [next(pair for share in shares for pair in share if pair[0] == g) for g in sorted(missing)]
                axes.append(Width(0, (*widest, *others)))
        first = nodes[0]
        place = str(first.target) if first.op == "call_module" else first.name
        return Block(place, self._described(nodes), tuple(axes), tuple(node.name for node in nodes))

    def _at_full(self, width: Iterable[tuple[int, int]]) -> int:
        return sum(n * self.space.groups[g].units for g, n in width)

    def _described(self, nodes: Sequence[fx.Node]) -> str:
        """The operators in words; `#1` is what the first one returned, `x1` the first input."""
        names: dict[fx.Node, str] = {}
        shapes: list[str] = []
        parts = []

        def named(source: fx.Node) -> str:
            if source not in names:
                value = self._full.values.get(source.name)
                names[source] = f"x{len(shapes) + 1}"
                shapes.append(f"{names[source]} {_shape_text(value)}")
            return names[source]

        for index, node in enumerate(nodes):
            sources = ", ".join(named(source) for source in node.all_input_nodes)
            parts.append(f"{self._operator(node)} of {sources}")
            names[node] = f"#{index + 1}"
        return f"{'; '.join(parts)}; {', '.join(shapes)}"

    def _operator(self, node: fx.Node) -> str:
        if node.op == "call_module":
            module = self._full.model.get_submodule(str(node.target))
            return f"{type(module).__name__}({module.extra_repr()})"
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        plain = [repr(arg) for arg in (*node.args, *node.kwargs.values()) if isinstance(arg, (int, float, str))]
        return f"{name}({', '.join(plain)})"


def _is_of_model(node: fx.Node) -> bool:
    """Whether a node gives one of the model's own tensors."""
    return node.op == "get_attr" and not str(node.target).startswith("_constant")


class _Recorder(Replay):
    """Runs a recorded forward and remembers what every operator returned."""

    def __init__(self, recording: Recording, model: nn.Module) -> None:
        super().__init__(recording, model)
        self.garbage_collect_values = False
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


def _sizes(value: Any) -> IntArray:
    """Every dimension of every tensor in a value, in one row."""
    sizes: list[int] = []

    def add(item: Any) -> Any:
        if isinstance(item, Tensor):
            sizes.extend(item.shape)
        return item

    fx.node.map_aggregate(value if isinstance(value, (tuple, list, dict)) else (value,), add)
    return np.array(sizes, dtype=np.int64)


def _shape_text(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _extracted(run: _Run, names: Sequence[str]) -> tuple[fx.Graph, list[Tensor]]:
    """The operators `names` as a graph of their own, and the tensors they take from outside."""
    inside = set(names)
    graph, copies, taken = fx.Graph(), {}, []

    def outside(source: fx.Node) -> Any:
        """A placeholder per tensor; numbers are what they were."""

        def placed(item: Any) -> Any:
            if not isinstance(item, Tensor):
                return item
            taken.append(item)
            return graph.placeholder(f"x{len(taken)}")

        value = run.values[source.name]
        return fx.node.map_aggregate(value, placed) if isinstance(value, (tuple, list)) else placed(value)

    nodes = [node for node in run.graph.nodes if node.name in inside]
    for source in dict.fromkeys(source for node in nodes for source in node.all_input_nodes):
        if source.name not in inside and not _is_of_model(source):
            copies[source] = outside(source)
    for node in nodes:
        for source in node.all_input_nodes:
            if source not in copies and _is_of_model(source):
                copies[source] = graph.node_copy(source)
        args, kwargs = (fx.node.map_arg(given, copies.__getitem__) for given in (node.args, node.kwargs))
        copies[node] = graph.create_node(node.op, node.target, args, kwargs)
    leaving = [node for node in nodes if any(user.name not in inside for user in node.users)]
    results = [copies[node] for node in leaving if isinstance(run.values[node.name], Tensor)] or [copies[nodes[-1]]]
    graph.output(tuple(results) if len(results) > 1 else results[0])
    return graph, taken


def _fill(tensor: Tensor, generator: torch.Generator) -> None:
    """Ordinary numbers: variances above 0, indices that exist; no denormal ones, which would be slow."""
    if not tensor.is_floating_point():
        tensor.zero_()
    elif tensor.dim() <= 1:
        tensor.fill_(1.0)
    else:
        tensor.normal_(0.0, 0.05, generator=generator)


def _made_up(value: Tensor, generator: torch.Generator) -> Tensor:
    if value.is_floating_point():
        return torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return torch.zeros(value.shape, dtype=value.dtype)
