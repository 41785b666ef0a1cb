"""Running the forwards of many structures over one batch, computing what they have in common once.

The value of a node of the forward depends on the widths of the groups upstream of it and on nothing else. Structures in
lexicographic order of the groups, as the forward meets them, form a trie: each value is computed for the first
structure that needs it and kept until the last that does.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunesearch.models.aliasing import Aliasing, aliasing, alike, is_plain
from prunesearch.models.batch_norm import batch_norm
from prunesearch.models.coupling import Count
from prunesearch.models.deadline import Deadline
from prunesearch.models.literals import replaced
from prunesearch.models.nested import bytes_of, tensors_in
from prunesearch.models.network import Network
from prunesearch.models.slim import set_width
from prunesearch.models.symbolic import follow
from prunesearch.models.undisturbed import undisturbed
from prunesearch.models.walk import nodes_with_literal
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure

Key: TypeAlias = tuple[fx.Node, tuple[int, ...]]
Values: TypeAlias = Mapping[fx.Node, Any]
_DATA = 1 << 30
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.CELU)
_FUNCTIONS = (F.relu, F.relu6, F.hardtanh, F.hardsigmoid, F.hardswish, F.silu, F.leaky_relu, F.elu, F.celu)
_RELU = (torch.relu, "relu")


@dataclass(frozen=True)
class _Step:
    """A node, and what its value depends on.

    Attributes:
        node: The node.
        module: The module that it calls, if it does.
        sources: What has to be computed before: its arguments, and what changed them in place.
        upstream: Indices of all groups on which its value depends.
        tensors: Names of the module's own parameters and buffers, or of the parameter itself, in the model.
        counts: Numbers of channels that the module holds.
        literals: Numbers of channels in the node's arguments.
        over: Computes the value in the memory of the only argument, if the node is an activation for which torch can.
    """

    node: fx.Node
    module: nn.Module | None
    sources: tuple[fx.Node, ...]
    upstream: tuple[int, ...]
    tensors: Mapping[str, str]
    counts: tuple[Count, ...]
    literals: tuple[tuple[tuple[int | str, ...], Any], ...]
    over: Callable[[Tensor], Tensor] | None


class SharedForward:
    """Forwards of structures of one network, each that of the network that `weights` builds for it, to about 1e-5.

    A structure's result does not depend, to the last bit, on the structures that it is run with.

    In eval mode, except that every BatchNorm normalises with the statistics of the batch, or of its first images.

    Args:
        weights: Where the weights come from.
        max_bytes: Limit on what is kept for later structures; what does not fit is computed again.
    """

    def __init__(self, weights: WeightSource, *, max_bytes: int = _DATA) -> None:
        self._weights = weights
        self._network = weights.network
        self._max_bytes = max_bytes
        still = copy.deepcopy(self._network.model).eval()
        graph = follow(still, self._network.example_inputs, Deadline(600.0)).graph.graph
        self._format = torch.channels_last
        try:
            self._memory = self._watch(_steps(still, graph, self._network, weights, Aliasing()))
        except RuntimeError:  # the forward wants its memory in the usual order
            self._memory = Aliasing(unsteady=frozenset(graph.nodes))
        if self._memory.writers or len(self._memory.unsteady) == len(graph.nodes):
            self._format = torch.contiguous_format
            self._memory = self._watch(_steps(still, graph, self._network, weights, Aliasing()))
        self._steps = _steps(still, graph, self._network, weights, self._memory)
        self._order = list(dict.fromkeys(group for step in self._steps for group in step.upstream))

    def run(self, structures: Sequence[Structure], inputs: Tensor, statistics: int | None = None) -> list[Any]:
        """Return what the network returns for each structure, in order.

        Args:
            structures: (p, g) structures; equal ones are computed once.
            inputs: (n, ...) one batch.
            statistics: How many of the first images BatchNorm takes its statistics from; None for all.
        """
        ordered = sorted(set(structures), key=lambda structure: [structure[group] for group in self._order])
        outputs: dict[Structure, Any] = {}
        with torch.inference_mode():
            for structure, output in self._outputs(ordered, self._laid_out(inputs), statistics):
                outputs[structure] = output
        return [outputs[structure] for structure in structures]

    def observe(self, structure: Structure, inputs: Tensor, look: Callable[[fx.Node, Values], None]) -> Any:
        """Return what the network returns for one structure, with a look at each node before it is computed.

        Args:
            structure: The structure.
            inputs: (n, ...) one batch, from all of which BatchNorm takes its statistics.
            look: Called with a node of `graph` and the values of nodes that are still needed. The weights of a layer
                are asked for after the look at it.
        """
        layers = _Layers(self._weights, structure, None)
        uses = Counter(source for step in self._steps for source in step.sources)
        values: dict[fx.Node, Any] = {}
        with torch.inference_mode():
            images = self._laid_out(inputs)
            for step in self._steps:
                look(step.node, values)
                values[step.node] = layers.run(step, values, (images,))
                for source in step.sources:
                    uses[source] -= 1
                    if not uses[source]:
                        del values[source]
            return values[self._steps[-1].node]

    @property
    def graph(self) -> fx.Graph:
        """What the forward computes; its modules are named as in the network."""
        return self._steps[0].node.graph

    def _outputs(
        self, ordered: Sequence[Structure], inputs: Tensor, statistics: int | None
    ) -> Iterator[tuple[Structure, Any]]:
        until = self._kept_until([[self._key(step, s) for step in self._steps] for s in ordered])
        kept: dict[Key, Any] = {}
        for index, structure in enumerate(ordered):
            run = _Run(self, structure, inputs, statistics, kept, until, index)
            yield structure, run.output()
            for key in [key for key in kept if until[key] <= index]:
                del kept[key]
            self._forget(kept, until)

    def _laid_out(self, inputs: Tensor) -> Tensor:
        """A copy, as a forward may write to it; images with their channels last in memory, much faster so on CPUs.

        `contiguous` would leave images of one channel, and all that is computed from them, in the usual order.
        """
        layout = self._format if inputs.dim() == 4 else torch.preserve_format
        return torch.empty_like(inputs, memory_format=layout).copy_(inputs)

    def _kept_until(self, keys: Sequence[Sequence[Key]]) -> dict[Key, int]:
        """Per value, the index of the last structure for which something is computed from it."""
        first: dict[Key, int] = {}
        until: dict[Key, int] = {}
        for index, of_structure in enumerate(keys):
            by_node = {key[0]: key for key in of_structure}
            for step, key in zip(self._steps, of_structure, strict=True):
                if key not in first:
                    first[key] = index
                    for source in step.sources:
                        until[by_node[source]] = index
        for key in first.keys() - until.keys():
            until[key] = first[key]
        return {key: first[key] if key[0] in self._memory.unsteady else last for key, last in until.items()}

    def _forget(self, kept: dict[Key, Any], until: Mapping[Key, int]) -> None:
        """Drop what is needed latest until the rest fits."""
        size = sum(bytes_of(value) for value in kept.values())
        for key in sorted(kept, key=lambda key: -until[key]):
            if size <= self._max_bytes:
                break
            size -= bytes_of(kept.pop(key))

    def _key(self, step: _Step, structure: Structure) -> Key:
        return step.node, tuple([structure[group] for group in step.upstream])

    def _watch(self, steps: Sequence[_Step]) -> Aliasing:
        """Run once and note which values live in the same memory, and which nodes write to it."""
        values: dict[fx.Node, Any] = {}
        writers: list[fx.Node] = []
        twice = [torch.cat([x, x]) for x in self._network.example_inputs]  # BatchNorm needs more than one
        with torch.inference_mode(False), undisturbed(twice) as inputs:
            layers = _Layers(self._weights, self._network.space.full, None)
            for step in steps:
                given = list(tensors_in([values[node] for node in step.node.all_input_nodes]))
                versions = [tensor._version for tensor in given]
                values[step.node] = layers.run(step, values, [self._laid_out(x) for x in inputs])
                if [tensor._version for tensor in given] != versions:
                    writers.append(step.node)
        return aliasing(values, writers)


class _Run:
    """The forward of one structure, from the values kept of others."""

    def __init__(
        self,
        shared: SharedForward,
        structure: Structure,
        inputs: Tensor,
        statistics: int | None,
        kept: dict[Key, Any],
        until: Mapping[Key, int],
        index: int,
    ) -> None:
        self._shared = shared
        self._inputs = (inputs,)
        self._kept = kept
        self._until = until
        self._index = index
        self._keys = {step.node: shared._key(step, structure) for step in shared._steps}
        self._layers = _Layers(shared._weights, structure, statistics)

    def output(self) -> Any:
        needed = self._needed()
        uses = Counter(source for step in needed for source in step.sources)
        values: dict[fx.Node, Any] = {}
        for step in needed:
            for source in step.sources:
                uses[source] -= 1
                if source not in values:
                    values[source] = self._kept[self._keys[source]]
            values[step.node] = self._compute(step, values, uses)
            if self._until[self._keys[step.node]] > self._index:
                self._kept[self._keys[step.node]] = values[step.node]
            for source in step.sources:
                if not uses[source]:
                    values.pop(source, None)
        last = self._shared._steps[-1].node
        return values[last] if last in values else self._kept[self._keys[last]]

    def _needed(self) -> list[_Step]:
        """What has to be computed, in order."""
        needed = {self._shared._steps[-1].node}
        for step in reversed(self._shared._steps):
            if step.node in needed:
                needed.update(source for source in step.sources if self._keys[source] not in self._kept)
        return [step for step in self._shared._steps if step.node in needed]

    def _compute(self, step: _Step, values: dict[fx.Node, Any], uses: Counter[fx.Node]) -> Any:
        sources = [node for node in step.node.all_input_nodes if isinstance(values[node], Tensor)]
        if step.node in self._shared._memory.copied:
            return self._layers.run(step, values, self._inputs).clone()
        if step.over is not None and self._is_ours(sources[0], values, uses):
            return step.over(values[sources[0]])
        if type(step.module) in _BATCH_NORMS:
            ours = self._is_ours(sources[0], values, uses)
            return self._layers.batch_norm(step, values[sources[0]], in_place=ours)
        if step.node.target is operator.add and len(sources) == 2 and alike(*[values[node] for node in sources]):
            for mine, other in (sources, sources[::-1]):
                if self._is_ours(mine, values, uses):
                    return values[mine].add_(values[other])
        return self._layers.run(step, values, self._inputs)

    def _is_ours(self, node: fx.Node, values: Mapping[fx.Node, Any], uses: Mapping[fx.Node, int]) -> bool:
        """Whether nobody needs the value any more, nor anything else that lives in the same memory."""
        if uses[node] or node.op in ("placeholder", "get_attr"):
            return False
        if not is_plain(values[node]):
            return False
        place = values[node].untyped_storage().data_ptr()
        others = [value for other, value in values.items() if other is not node]
        return place != self._inputs[0].untyped_storage().data_ptr() and all(
            value.untyped_storage().data_ptr() != place for value in tensors_in([others, list(self._kept.values())])
        )


class _Layers:
    """Computes single nodes of one structure's forward."""

    def __init__(self, weights: WeightSource, structure: Structure, statistics: int | None) -> None:
        self._weights = weights
        self._structure = structure
        self._statistics = statistics
        self._kept_units: npt.NDArray[np.bool_] | None = None

    def run(self, step: _Step, values: Mapping[fx.Node, Any], inputs: Sequence[Tensor]) -> Any:
        node = step.node
        if node.op == "placeholder":
            nth = [other for other in node.graph.nodes if other.op == "placeholder"].index(node)
            return inputs[nth] if nth < len(inputs) else node.args[0]
        if node.op == "get_attr":
            (name,) = step.tensors.values()
            return self._weights.values(name, self._structure).clone()  # the forward may change it
        arguments: Any = node.args
        keywords: Any = node.kwargs
        for position, units in step.literals:
            number = self._count(units)
            if isinstance(position[0], str):
                keywords = replaced(keywords, position, number)
            else:
                arguments = replaced(arguments, position, number)
        arguments = fx.node.map_arg(arguments, values.__getitem__)
        keywords = fx.node.map_arg(keywords, values.__getitem__)
        if node.op == "output":
            return arguments[0]
        if node.op == "call_function":
            return node.target(*arguments, **keywords)  # type: ignore[operator]
        if node.op == "call_method":
            receiver, *rest = arguments
            if node.target == "view" and not receiver.is_contiguous():
                receiver = receiver.contiguous()  # its channels are last in memory
            return getattr(receiver, str(node.target))(*rest, **keywords)
        return self._call(step, arguments, keywords)

    def _call(self, step: _Step, arguments: Any, keywords: Any) -> Any:
        assert step.module is not None
        if type(step.module) in _BATCH_NORMS:
            return self.batch_norm(step, _input(arguments, keywords))
        # torch multiplies in another way, with other roundings, by what requires no gradient or was made in this mode
        with torch.inference_mode(False), torch.no_grad():
            tensors = {name: self._weights.values(source, self._structure) for name, source in step.tensors.items()}
            layer = narrowed_layer(step.module, tensors) if tensors or step.counts else step.module
        for count in step.counts:
            set_width(layer, count.attribute, self._count(count.units))
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            _estimate(layer, _input(arguments, keywords)[: self._statistics])
        return layer(*arguments, **keywords)

    def batch_norm(self, step: _Step, x: Tensor, *, in_place: bool = False) -> Tensor:
        """BatchNorm with the statistics of the batch."""
        weight, bias = (
            self._weights.values(step.tensors[name], self._structure) if name in step.tensors else None
            for name in ("weight", "bias")
        )
        eps = float(step.module.eps)  # type: ignore[union-attr, arg-type]
        return batch_norm(x, weight, bias, eps, statistics=self._statistics, in_place=in_place)

    def _count(self, units: Any) -> int:
        if self._kept_units is None:
            self._kept_units = self._weights.kept(self._structure)
        return int(self._kept_units[units].sum())


def _input(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor:
    return arguments[0] if arguments else keywords["input"]


def _estimate(layer: nn.modules.batchnorm._BatchNorm, x: Tensor) -> None:
    """Let a layer derived from BatchNorm take its statistics from `x`."""
    layer.momentum = 1.0
    layer.train()
    layer(x)
    layer.eval()
    if layer.running_var is not None:
        n = x.numel() // x.shape[1]
        layer.running_var.mul_((n - 1) / n)  # what training normalises with has no Bessel correction


def narrowed_layer(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of one layer with other tensors; it shares nothing with the original that running it would change."""
    layer = copy.copy(module)
    layer._parameters = {
        name: None if parameter is None else nn.Parameter(tensors[name], requires_grad=parameter.requires_grad)
        for name, parameter in module._parameters.items()
    }
    layer._buffers = {
        name: None if buffer is None else tensors[name].clone() for name, buffer in module._buffers.items()
    }
    return layer


def _steps(model: nn.Module, graph: fx.Graph, network: Network, weights: WeightSource, memory: Aliasing) -> list[_Step]:
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    first_name = {id(tensor): name for name, tensor in reversed(tensors)}
    counts: dict[str, list[Count]] = {}
    for count in network.counts:
        counts.setdefault(count.module, []).append(count)
    literals: dict[fx.Node, list[tuple[tuple[int | str, ...], Any]]] = {}
    for literal in network.literals:
        for node in nodes_with_literal(model, graph, literal.module, literal.place[0]):
            literals.setdefault(node, []).append((literal.place[1], literal.units))
    steps: dict[fx.Node, _Step] = {}
    for node in graph.nodes:
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        names: dict[str, str] = {}
        if module is not None:
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            names = {name: first_name[id(tensor)] for name, tensor in own}
        elif node.op == "get_attr":
            names = {"": first_name.get(id(_attribute(model, str(node.target))), str(node.target))}
        held = tuple(counts.get(str(node.target), ())) if module is not None else ()
        written = tuple(literals.get(node, ()))
        groups = set().union(*(weights.influences(name) for name in names.values()))
        for units in (*(count.units for count in held), *(units for _, units in written)):
            groups.update(group for group in np.unique(network.group_of[units]).tolist() if group >= 0)
        sources = tuple(dict.fromkeys([*node.all_input_nodes, *memory.writers.get(node, ())]))
        groups.update(*(steps[source].upstream for source in sources))
        steps[node] = _Step(node, module, sources, tuple(sorted(groups)), names, held, written, _over(node, module))
    return list(steps.values())


def _attribute(model: nn.Module, name: str) -> Any:
    value: Any = model
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _over(node: fx.Node, module: nn.Module | None) -> Callable[[Tensor], Tensor] | None:
    """What an activation computes, written over its argument."""
    if len(node.all_input_nodes) != 1 or len(node.args) != 1:
        return None
    if type(module) in _ACTIVATIONS:
        layer: Any = copy.copy(module)
        layer.inplace = True
        return layer
    if node.target in _FUNCTIONS:
        return partial(node.target, **{**node.kwargs, "inplace": True})
    return torch.relu_ if node.target in _RELU else None
