"""What a forward consists of, and how each piece of it is computed for a structure.

A `Step` is a node of the traced forward with all that its value depends on; `Layers` computes steps with the weights of
one structure.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunesearch.models.aliasing import Aliasing, viewed
from prunesearch.models.batch_norm import Moments, batch_norm, joint_statistics
from prunesearch.models.copying import layer_with
from prunesearch.models.corrections import Correction, Corrections
from prunesearch.models.coupling import Count, Followed
from prunesearch.models.devices import draw_from
from prunesearch.models.literals import replaced
from prunesearch.models.network import Network
from prunesearch.models.normalised import MethodOf, is_torchs
from prunesearch.models.operators.kind import kind_of
from prunesearch.models.operators.values import argument
from prunesearch.models.recorded import Recording
from prunesearch.models.replay import autocast_of, plain
from prunesearch.models.slim import set_width
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.structure import Structure

Values: TypeAlias = Mapping[fx.Node, Any]
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.CELU)
_FUNCTIONS = (F.relu, F.relu6, F.hardtanh, F.hardsigmoid, F.hardswish, F.silu, F.leaky_relu, F.elu, F.celu)
_RELU = (torch.relu, "relu")


@dataclass(frozen=True)
class Step:
    """A node, and what its value depends on.

    Attributes:
        node: The node.
        model: The network that it is in.
        module: The module that it calls, if it does.
        sources: What has to be computed before: its arguments, and what changed them in place.
        upstream: Indices of all groups on which its value depends.
        tensors: Names of the module's own parameters and buffers, or of the parameter itself, in the model.
        counts: Numbers of channels that the module holds.
        numbers: Numbers in the node's arguments that follow channels.
        constant: The tensor that the node gives, if it is neither the inputs' nor the model's.
        over: Computes the value in the memory of the only argument, if the node is an activation for which torch can.
        running_mean: Name of the running mean in the model, if it is a BatchNorm that has one.
        call: How many steps before have the same.
        seed: Of what it draws at random, its own, so that the value does not depend on what was drawn before; None if
            it draws nothing.
    """

    node: fx.Node
    model: nn.Module
    module: nn.Module | None
    sources: tuple[fx.Node, ...]
    upstream: tuple[int, ...]
    tensors: Mapping[str, str]
    counts: tuple[Count, ...]
    numbers: tuple[Followed, ...]
    constant: Tensor | None
    over: Callable[[Tensor], Tensor] | None
    running_mean: str
    call: int
    seed: int | None

    @property
    def is_batch_norm(self) -> bool:
        """Whether its module is torch's BatchNorm itself, not something derived from it."""
        kind = kind_of(self.node)
        is_norm = self.module is not None and kind is not None and kind.statistics == "batch"
        return is_norm and is_torchs(type(self.module))

    @property
    def normalised(self) -> fx.Node | None:
        """What it normalises with statistics of the images, by torch's BatchNorm as a module or function."""
        if not self.is_batch_norm and self.node.target is not F.batch_norm:
            return None
        found: fx.Node = argument(self.node, 0, "input")
        return found


class Layers:
    """Computes single nodes of one structure's forward.

    Args:
        weights: Where the weights come from.
        structure: The structure.
        statistics: How many of the first images BatchNorm takes its statistics from; None for all.
        corrections: What the images get wrong about them in the trained network; None to leave them as they are.
        noted: Where to put what each call of a BatchNorm normalises with, by the name of its running mean, with how
            many numbers that is of.
        settled: By the same name, what all calls normalise with instead.
    """

    def __init__(
        self,
        weights: WeightSource,
        structure: Structure,
        statistics: int | None,
        corrections: Corrections | None = None,
        *,
        noted: dict[str, list[tuple[int, Moments]]] | None = None,
        settled: Mapping[str, Moments] | None = None,
    ) -> None:
        self._weights = weights
        self._structure = structure
        self._statistics = statistics
        self._corrections = corrections or {}
        self._noted = noted
        self._settled = settled or {}
        self._slices = InheritedWeights(weights.network, weights.ranking)
        self._kept_units: npt.NDArray[np.bool_] | None = None

    def run(self, step: Step, values: Values, inputs: Sequence[Tensor], moments: Moments | None = None) -> Any:
        """The value of a step, from those before it and the inputs of the forward.

        Args:
            step: The step.
            values: Of the nodes before it.
            inputs: Of the forward.
            moments: What a BatchNorm normalises with, if not with what it is given.
        """
        node = step.node
        if step.seed is not None:
            draw_from(step.seed, inputs[0].device)
        if node.op == "placeholder":
            return inputs[[other for other in node.graph.nodes if other.op == "placeholder"].index(node)]
        if step.constant is not None:
            return step.constant.clone()  # the forward may change it
        if node.op == "get_attr":
            (name,) = step.tensors.values()
            return self._weights.values(name, self._structure).clone()
        with autocast_of(node):
            return self._operate(step, values, moments)

    def _operate(self, step: Step, values: Values, moments: Moments | None) -> Any:
        node = step.node
        arguments: Any = node.args
        keywords: Any = node.kwargs
        for followed in step.numbers:
            number = followed.number(self._kept())
            if isinstance(followed.position[0], str):
                keywords = replaced(keywords, followed.position, number)
            else:
                arguments = replaced(arguments, followed.position, number)
        arguments = tuple(map(plain, fx.node.map_arg(arguments, values.__getitem__)))
        keywords = {name: plain(value) for name, value in fx.node.map_arg(keywords, values.__getitem__).items()}
        if node.op == "output":
            return arguments[0]
        if node.target is F.batch_norm:
            return self._functional_batch_norm(step, values, moments)
        if isinstance(node.target, MethodOf):
            return node.target(step.model, *arguments, **keywords)
        if node.op == "call_function":
            return node.target(*arguments, **keywords)  # type: ignore[operator]
        if node.op == "call_method":
            receiver, *rest = arguments
            if node.target == "view":
                return viewed(receiver, *rest, **keywords)
            return getattr(receiver, str(node.target))(*rest, **keywords)
        if step.is_batch_norm:
            return self.batch_norm(step, _input(arguments, keywords), moments=moments)
        return self._call(step, arguments, keywords)

    def _call(self, step: Step, arguments: Any, keywords: Any) -> Any:
        assert step.module is not None
        # torch multiplies in another way, with other roundings, by what requires no gradient or was made in this mode
        with torch.inference_mode(False), torch.no_grad():
            tensors = {name: self._weights.values(source, self._structure) for name, source in step.tensors.items()}
            layer = _narrowed_layer(step.module, tensors) if tensors or step.counts else step.module
        for count in step.counts:
            set_width(layer, count.attribute, self._count(count.units))
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            self._estimate(step, layer, _input(arguments, keywords))
        return layer(*arguments, **keywords)

    def _estimate(self, step: Step, layer: nn.modules.batchnorm._BatchNorm, x: Tensor) -> None:
        _estimate(layer, x[: self._statistics])
        if layer.running_mean is None or layer.running_var is None:
            return
        moments = self._moments(step, x, (layer.running_mean.clone(), layer.running_var.clone()))
        assert moments is not None  # as some are given
        layer.running_mean.copy_(moments[0])
        layer.running_var.copy_(moments[1])

    def _moments(self, step: Step, x: Tensor, given: Moments | None) -> Moments | None:
        """What a BatchNorm normalises with; None for the statistics of what it normalises."""
        name = step.running_mean
        if name in self._settled:
            return self._settled[name]
        correction = self._correction(step)
        if correction is None and (self._noted is None or not name):
            return given
        used = x[: self._statistics]
        found = joint_statistics([used]) if given is None else given
        if correction is not None:
            found = correction.of(found)
        if self._noted is not None:
            self._noted.setdefault(name, []).append((used.numel(), found))
        return found

    def _correction(self, step: Step) -> Correction | None:
        """Of a BatchNorm, for the channels that it has."""
        name = step.running_mean
        given = self._corrections.get(name, ())
        if step.call >= len(given):
            return None
        return given[step.call].mapped(lambda values: self._slices.narrowed(name, values, self._structure))

    def batch_norm(self, step: Step, x: Tensor, *, moments: Moments | None = None, in_place: bool = False) -> Tensor:
        """BatchNorm with the statistics of the batch, or with those that are given."""
        weight, bias = (
            self._weights.values(step.tensors[name], self._structure) if name in step.tensors else None
            for name in ("weight", "bias")
        )
        eps = float(step.module.eps)  # type: ignore[union-attr, arg-type]
        moments = self._moments(step, x, moments)
        return batch_norm(x, weight, bias, eps, statistics=self._statistics, moments=moments, in_place=in_place)

    def _functional_batch_norm(self, step: Step, values: Values, moments: Moments | None) -> Tensor:
        """The same, where the forward calls the function instead of a module."""
        node = step.node
        weight, bias = (
            None if (given := argument(node, index, name)) is None else values[given]
            for index, name in ((3, "weight"), (4, "bias"))
        )
        x, eps = values[argument(node, 0, "input")], argument(node, 7, "eps", default=1e-5)
        moments = self._moments(step, x, moments)
        return batch_norm(x, weight, bias, float(eps), statistics=self._statistics, moments=moments)

    def _count(self, units: Any) -> int:
        return int(self._kept()[units].sum())

    def _kept(self) -> npt.NDArray[np.bool_]:
        if self._kept_units is None:
            self._kept_units = self._weights.kept(self._structure)
        return self._kept_units


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


def _narrowed_layer(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of one layer with other tensors; it shares nothing with the original that running it would change."""
    buffers = {name for name, buffer in module._buffers.items() if buffer is not None}
    return layer_with(module, {name: t.clone() if name in buffers else t for name, t in tensors.items()})


def steps_of(
    recording: Recording,
    network: Network,
    weights: WeightSource,
    memory: Aliasing,
    drawing: Container[fx.Node] = (),
) -> list[Step]:
    """The steps of a recorded forward, in order.

    Args:
        recording: The forward.
        network: The network that it is of.
        weights: Where weights come from.
        memory: How it uses memory.
        drawing: Nodes that draw at random.
    """
    model, graph = recording.model, recording.graph
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    held = {name: attribute for name, attribute in recording.held.items() if attribute in network.cuts_of}
    first_name = {id(tensor): name for name, tensor in reversed(tensors)}
    counts: dict[str, list[Count]] = {}
    for count in network.counts:
        counts.setdefault(count.module, []).append(count)
    numbers: dict[str, list[Followed]] = {}
    for followed in network.numbers:
        numbers.setdefault(followed.node, []).append(followed)
    steps: dict[fx.Node, Step] = {}
    calls: Counter[str] = Counter()
    for node in graph.nodes:
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        names: dict[str, str] = {}
        if module is not None:
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            names = {name: first_name[id(tensor)] for name, tensor in own}
        constant = recording.constants.get(str(node.target)) if node.op == "get_attr" else None
        if node.op == "get_attr" and node.target in held:
            names, constant = {"": held[str(node.target)]}, None
        elif node.op == "get_attr" and constant is None:
            names = {"": first_name[id(_attribute(model, str(node.target)))]}
        counted = tuple(counts.get(str(node.target), ())) if module is not None else ()
        written = tuple(numbers.get(node.name, ()))
        groups = set().union(*(weights.influences(name) for name in names.values()))
        for units in (*(count.units for count in counted), *(followed.units for followed in written)):
            groups.update(group for group in np.unique(network.group_of[units]).tolist() if group >= 0)
        sources = tuple(dict.fromkeys([*node.all_input_nodes, *memory.writers.get(node, ())]))
        groups.update(*(steps[source].upstream for source in sources))
        upstream = tuple(sorted(groups))
        mean = _running_mean(node, names, steps)
        over, call = _over(node, module), calls[mean]
        calls[mean] += 1
        seed = len(steps) if node in drawing else None
        steps[node] = Step(
            node, model, module, sources, upstream, names, counted, written, constant, over, mean, call, seed
        )
    return list(steps.values())


def _running_mean(node: fx.Node, names: Mapping[str, str], steps: Mapping[fx.Node, Step]) -> str:
    """Name of the running mean of a BatchNorm, module or function; empty of all else."""
    if node.target is not F.batch_norm:
        return names.get("running_mean", "")
    given = argument(node, 1, "running_mean")
    return steps[given].tensors.get("", "") if isinstance(given, fx.Node) else ""


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
