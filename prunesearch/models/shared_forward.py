"""Running the forwards of many structures over one batch, computing what they have in common once.

The value of a node of the forward depends on the widths of the groups upstream of it and on nothing else. Structures in
lexicographic order of the groups, as the forward meets them, form a trie: each value is computed for the first
structure that needs it and kept until the last that does.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from prunesearch.models.aliasing import Aliasing, aliasing, alike, is_plain
from prunesearch.models.batch_norm import Moments, averaged, joint_statistics, together
from prunesearch.models.copying import copied
from prunesearch.models.corrections import Corrections
from prunesearch.models.devices import random_apart
from prunesearch.models.following import check_number, recorded, with_images
from prunesearch.models.isolation import generators, isolated
from prunesearch.models.nested import Batch, batch_of, bytes_of, device_of, in_order_of, tensors_in
from prunesearch.models.steps import Layers, Step, Values, steps_of
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure

Key: TypeAlias = tuple[fx.Node, tuple[int, ...]]
_DATA = 1 << 30


class SharedForward:
    """Forwards of structures of one network, each that of the network that `weights` builds for it, to about 1e-5.

    A structure's result does not depend, to the last bit, on the structures that it is run with. What the forward draws
    at random is the same each time.

    In eval mode, except that every BatchNorm normalises with the statistics of the batch, or of its first images. One
    that the forward calls several times has the same statistics in all calls, as in the network that is built: those
    of all its calls. What a call normalises is known only when those before it have run, so such a forward runs twice,
    and shares nothing with those of other structures.

    Args:
        weights: Where the weights come from.
        max_bytes: Limit on what is kept for later structures; what does not fit is computed again.
    """

    def __init__(self, weights: WeightSource, *, max_bytes: int = _DATA) -> None:
        self._weights = weights
        self._network = weights.network
        self._max_bytes = max_bytes
        self._example = batch_of(self._network.example_inputs, self._network.example_keywords)
        still = copied(self._network.model).eval()
        recording = recorded(still, self._network.inputs, self._network.leaves, way=self._network.way)
        self._traced_with = recording.images  # the record itself cannot be handed to a worker
        steps = steps_of(recording, self._network, weights, Aliasing())
        self._memory, drawing = self._watch(steps, torch.contiguous_format)
        may_be_last = not self._memory.writers and self._uses_memory_alike(steps, torch.channels_last)
        self._format = torch.channels_last if may_be_last else torch.contiguous_format
        self._steps = steps_of(recording, self._network, weights, self._memory, drawing)
        self._order = list(dict.fromkeys(group for step in self._steps for group in step.upstream))
        self._calls_norms_again = any(step.running_mean and step.call for step in self._steps)

    def run(
        self,
        structures: Sequence[Structure],
        inputs: Batch,
        statistics: int | None = None,
        corrections: Corrections | None = None,
    ) -> list[Any]:
        """Return what the network returns for each structure, in order.

        Args:
            structures: (p, g) structures; equal ones are computed once.
            inputs: One batch, (n, ...), in the form of what the network was traced with.
            statistics: How many of the first images BatchNorm takes its statistics from; None for all.
            corrections: What these images get wrong about them in the trained network; None to leave them as they are.
        """
        return [output for (output,) in self.run_together(structures, [inputs], statistics, corrections)]

    def run_together(
        self,
        structures: Sequence[Structure],
        batches: Sequence[Batch],
        statistics: int | None = None,
        corrections: Corrections | None = None,
    ) -> list[list[Any]]:
        """Return, for each structure, what the network returns for each of several batches that are one.

        They are of images of several sizes, which run one size at a time; each BatchNorm takes its statistics from all
        positions of all of them. A layer derived from BatchNorm takes them from each batch.

        Args:
            structures: (p, g) structures; equal ones are computed once.
            batches: At least one; each (n, ...), in the form of what the network was traced with.
            statistics: Of a single batch, how many of the first images BatchNorm takes its statistics from.
            corrections: What all of them get wrong about them in the trained network.
        """
        ordered = sorted(set(structures), key=lambda structure: [structure[group] for group in self._order])
        outputs: dict[Structure, list[Any]] = {}
        with torch.inference_mode(), random_apart(device_of(batches[0]), seed=0):
            given = [self._placed(x) for x in batches]
            for structure, output in self._outputs(ordered, given, statistics, corrections):
                outputs[structure] = output
        return [outputs[structure] for structure in structures]

    def observe(self, structure: Structure, inputs: Batch, look: Callable[[fx.Node, Values], None]) -> Any:
        """Return what the network returns for one structure, with a look at each node before it is computed.

        Args:
            structure: The structure.
            inputs: One batch, (n, ...), from all of which BatchNorm takes its statistics.
            look: Called with a node of `graph` and the values of nodes that are still needed. The weights of a layer
                are asked for after the look at it, be it a module or a function; there is no look at them.
        """
        layers = Layers(self._weights, structure, None)
        uses = Counter(source for step in self._steps for source in step.sources)
        tensors = {step.node: step for step in self._steps if step.node.op == "get_attr"}
        values: dict[fx.Node, Any] = {}
        with torch.inference_mode(), random_apart(device_of(inputs), seed=0):
            images = self._placed(inputs)
            for step in self._steps:
                if step.node in tensors:
                    continue
                look(step.node, values)
                for source in step.sources:
                    if source in tensors and source not in values:
                        values[source] = layers.run(tensors[source], values, images)
                values[step.node] = layers.run(step, values, images)
                for source in step.sources:
                    uses[source] -= 1
                    if not uses[source] or (source in tensors and step.node.meta.get("number")):  # it asked for a size
                        values.pop(source, None)
            return values[self._steps[-1].node]

    @property
    def graph(self) -> fx.Graph:
        """What the forward computes; its modules are named as in the network."""
        return self._steps[0].node.graph

    def _outputs(
        self,
        ordered: Sequence[Structure],
        inputs: Sequence[tuple[Tensor, ...]],
        statistics: int | None,
        corrections: Corrections | None,
    ) -> Iterator[tuple[Structure, list[Any]]]:
        if self._calls_norms_again:
            for structure in ordered:
                yield structure, self._run_twice(structure, inputs, statistics, corrections)
            return
        until = self._kept_until([[self._key(step, s) for step in self._steps] for s in ordered])
        kept: dict[Key, list[Any]] = {}
        for index, structure in enumerate(ordered):
            layers = Layers(self._weights, structure, statistics, corrections)
            run = _Run(self, layers, structure, inputs, kept, until, index)
            yield structure, run.output()
            for key in [key for key in kept if until[key] <= index]:
                del kept[key]
            self._forget(kept, until)

    def _run_twice(
        self,
        structure: Structure,
        inputs: Sequence[tuple[Tensor, ...]],
        statistics: int | None,
        corrections: Corrections | None,
    ) -> list[Any]:
        """Each call of a BatchNorm normalises with statistics of its own, and then with those of all calls."""
        until = self._kept_until([[self._key(step, structure) for step in self._steps]])
        noted: dict[str, list[tuple[int, Moments]]] = {}
        layers = Layers(self._weights, structure, statistics, corrections, noted=noted)
        _Run(self, layers, structure, inputs, {}, until, 0).output()
        settled = {}
        for name, calls in noted.items():
            sizes, moments = zip(*calls, strict=True)
            settled[name] = together(moments, sizes) if len(inputs) > 1 else averaged(moments)
        layers = Layers(self._weights, structure, statistics, settled=settled)
        return _Run(self, layers, structure, inputs, {}, until, 0).output()

    def _placed(self, inputs: Batch) -> tuple[Tensor, ...]:
        """What the placeholders of the forward stand for, in order."""
        tensors = in_order_of(self._example, inputs)
        check_number(self._network.way, type(self._network.model).__name__, self._traced_with, len(tensors[0]))
        return tuple(_laid_out(x, self._format) for x in tensors)

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

    def _forget(self, kept: dict[Key, list[Any]], until: Mapping[Key, int]) -> None:
        """Drop what is needed latest until the rest fits."""
        size = sum(bytes_of(value) for value in kept.values())
        for key in sorted(kept, key=lambda key: -until[key]):
            if size <= self._max_bytes:
                break
            size -= bytes_of(kept.pop(key))

    def _key(self, step: Step, structure: Structure) -> Key:
        return step.node, tuple([structure[group] for group in step.upstream])

    def _uses_memory_alike(self, steps: Sequence[Step], layout: torch.memory_format) -> bool:
        """Whether the forward writes to the same values with images laid out so."""
        try:
            return self._watch(steps, layout)[0] == self._memory
        except RuntimeError:  # the forward wants its memory in the usual order
            return False

    def _watch(self, steps: Sequence[Step], layout: torch.memory_format) -> tuple[Aliasing, set[fx.Node]]:
        """Run once and note which values live in the same memory, which nodes write to it, and which draw at random."""
        values: dict[fx.Node, Any] = {}
        writers: list[fx.Node] = []
        drawing: set[fx.Node] = set()
        inputs = self._network.inputs
        twice = with_images(inputs, 2 * len(inputs.tensors[0])).tensors  # BatchNorm needs more than one
        with torch.inference_mode(False), isolated(twice) as copies:
            layers = Layers(self._weights, self._network.space.full, None)
            device = twice[0].device
            for step in steps:
                state = generators(device)
                given = list(tensors_in([values[node] for node in step.node.all_input_nodes]))
                versions = [tensor._version for tensor in given]
                values[step.node] = layers.run(step, values, [_laid_out(x, layout) for x in copies])
                if [tensor._version for tensor in given] != versions:
                    writers.append(step.node)
                if generators(device) != state:
                    drawing.add(step.node)
        return aliasing(values, writers), drawing


def _laid_out(inputs: Tensor, layout: torch.memory_format) -> Tensor:
    """A copy, as a forward may write to it; images with their channels last in memory are much faster on CPUs.

    `contiguous` would leave images of one channel, and all that is computed from them, in the usual order.
    """
    return torch.empty_like(inputs, memory_format=layout if inputs.dim() == 4 else torch.preserve_format).copy_(inputs)


class _Run:
    """The forward of one structure over some batches, from the values kept of others."""

    def __init__(
        self,
        shared: SharedForward,
        layers: Layers,
        structure: Structure,
        inputs: Sequence[tuple[Tensor, ...]],
        kept: dict[Key, list[Any]],
        until: Mapping[Key, int],
        index: int,
    ) -> None:
        self._shared = shared
        self._inputs = inputs
        self._given = {x.untyped_storage().data_ptr() for batch in inputs for x in batch}
        self._kept = kept
        self._until = until
        self._index = index
        self._keys = {step.node: shared._key(step, structure) for step in shared._steps}
        self._layers = layers

    def output(self) -> list[Any]:
        """Of each batch."""
        needed = self._needed()
        uses = Counter(source for step in needed for source in step.sources)
        values: list[dict[fx.Node, Any]] = [{} for _ in self._inputs]
        for step in needed:
            for source in step.sources:
                uses[source] -= 1
                if source not in values[0]:
                    _put(source, self._kept[self._keys[source]], values)
            found = self._computed(step, values, uses)
            _put(step.node, found, values)
            if self._until[self._keys[step.node]] > self._index:
                self._kept[self._keys[step.node]] = found
            for source in step.sources:
                if not uses[source]:
                    for of_batch in values:
                        of_batch.pop(source, None)
        last = self._shared._steps[-1].node
        return [of_batch[last] for of_batch in values] if last in values[0] else self._kept[self._keys[last]]

    def _needed(self) -> list[Step]:
        """What has to be computed, in order."""
        needed = {self._shared._steps[-1].node}
        for step in reversed(self._shared._steps):
            if step.node in needed:
                needed.update(source for source in step.sources if self._keys[source] not in self._kept)
        return [step for step in self._shared._steps if step.node in needed]

    def _computed(self, step: Step, values: Sequence[dict[fx.Node, Any]], uses: Counter[fx.Node]) -> list[Any]:
        """The value of a step for each batch."""
        moments = None
        if len(values) > 1 and step.normalised is not None:
            moments = joint_statistics([of_batch[step.normalised] for of_batch in values])
        pairs = zip(values, self._inputs, strict=True)
        return [self._compute(step, of_batch, inputs, uses, moments) for of_batch, inputs in pairs]

    def _compute(
        self,
        step: Step,
        values: dict[fx.Node, Any],
        inputs: tuple[Tensor, ...],
        uses: Counter[fx.Node],
        moments: Moments | None,
    ) -> Any:
        sources = [node for node in step.node.all_input_nodes if isinstance(values[node], Tensor)]
        if step.node in self._shared._memory.copied:
            return self._layers.run(step, values, inputs, moments).clone()
        if step.over is not None and self._is_ours(sources[0], values, uses):
            return step.over(values[sources[0]])
        if step.is_batch_norm:
            ours = self._is_ours(sources[0], values, uses)
            return self._layers.batch_norm(step, values[sources[0]], moments=moments, in_place=ours)
        if step.node.target is operator.add and len(sources) == 2 and alike(*[values[node] for node in sources]):
            for mine, other in (sources, sources[::-1]):
                if self._is_ours(mine, values, uses):
                    return values[mine].add_(values[other])
        return self._layers.run(step, values, inputs, moments)

    def _is_ours(self, node: fx.Node, values: Mapping[fx.Node, Any], uses: Mapping[fx.Node, int]) -> bool:
        """Whether nobody needs the value any more, nor anything else that lives in the same memory."""
        if uses[node] or node.op in ("placeholder", "get_attr"):
            return False
        if not is_plain(values[node]):
            return False
        place = values[node].untyped_storage().data_ptr()
        others = [value for other, value in values.items() if other is not node]
        return place not in self._given and all(
            value.untyped_storage().data_ptr() != place for value in tensors_in([others, list(self._kept.values())])
        )


def _put(node: fx.Node, found: Sequence[Any], values: Sequence[dict[fx.Node, Any]]) -> None:
    """Note the value of a node for each batch."""
    for of_batch, value in zip(values, found, strict=True):
        of_batch[node] = value
