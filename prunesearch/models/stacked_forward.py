"""Running the forwards of several structures in one launch: the full network with masks, (k n, c, h, w) at a time.

Nothing gets cheaper, but a device that a single small network leaves idle has enough to do.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call

from prunesearch.models.aliasing import Aliasing, aliasing, viewed
from prunesearch.models.copying import copied
from prunesearch.models.corrections import Corrections, tensors_of, with_tensors
from prunesearch.models.coupling import Read
from prunesearch.models.devices import placed, random_apart
from prunesearch.models.following import check_number, recorded, with_images
from prunesearch.models.graphs import Graphs
from prunesearch.models.isolation import generators, isolated
from prunesearch.models.masked import in_place, masking_of, mixed_operand, mixes_within, norm_of, of_those
from prunesearch.models.nested import Batch, batch_of, in_format, in_order_of, repeated, tensors_in
from prunesearch.models.network import Network
from prunesearch.models.normalised import is_torchs
from prunesearch.models.operators import Kinds
from prunesearch.models.operators.norm import Norm
from prunesearch.models.recorded import Recording
from prunesearch.models.replay import Replay
from prunesearch.models.slim import named_tensors, positions
from prunesearch.models.walk import place
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.structure import Structure


class StackedForward:
    """Forwards of structures of one network, each nearly equal to that of the network that `weights` builds for it.

    In eval mode, except that every BatchNorm normalises each structure's images with their own statistics, or those of
    the first of them. A network whose forward mixes images of a batch is not run rightly. One whose forward draws at
    random runs for one structure at a time, and draws the same for each.

    Weights that are no slices of one network's are stacked, too: each structure's, as large as the full network's.
    Those of normalisations, and parameters that operators read (`F.conv2d(x, self.kernels)`), must then be slices of
    the full structure's.

    Args:
        weights: Where the weights come from.

    Raises:
        ValueError: Weights of normalisations depend on more than the channels they have, or those that operators read
            are no slices.
    """

    def __init__(self, weights: WeightSource) -> None:
        self._weights = weights
        self._example = batch_of(weights.network.example_inputs, weights.network.example_keywords)
        model = copied(weights.network.model).eval()
        _check_states(weights.network)
        self._full = named_tensors(model)
        self._own: dict[str, dict[str, str]] = {}  # of each layer whose weights are stacked, their names in the model
        if not weights.sliced:
            _check_norms(weights, model)
            with torch.no_grad():
                for name, tensor in self._full.items():
                    tensor.copy_(weights.values(name, weights.network.space.full))
            self._own = _own_weights(weights.network.kinds, model, self._full)
        self._forward = recorded(model, weights.network.inputs, weights.network.leaves, way=weights.network.way)
        if not weights.sliced:
            _check_read_by_operators(weights, self._full, self._forward)
        self._reads: dict[str, list[Read]] = {}
        for read in weights.network.reads:
            self._reads.setdefault(read.place, []).append(read)
        self._units: dict[torch.device, dict[bytes, Tensor]] = {}
        self._layout = torch.contiguous_format
        self.graphs = Graphs()

    def lay_out(self, layout: torch.memory_format) -> None:
        """From now on, weights and images of four dimensions lie so in memory, unless the forward then is another."""
        if layout == torch.channels_last and not self._may_be_last:
            layout = torch.contiguous_format
        if layout != self._layout:
            self.graphs.forget()  # they read the weights where these were
            self._forward.model.to(memory_format=layout)
            self._layout = layout

    def run(
        self,
        structures: Sequence[Structure],
        inputs: Batch,
        statistics: int | None = None,
        corrections: Corrections | None = None,
        *,
        graphed: bool = False,
    ) -> list[Any]:
        """Return what the network returns for each structure, in order.

        Args:
            structures: (k, g) structures.
            inputs: One batch, (n, ...), in the form of what the network was traced with.
            statistics: How many of the first images BatchNorm takes its statistics from; None for all.
            corrections: What these images get wrong about them in the trained network; None to leave them as they are.
            graphed: Whether as a CUDA graph, where it can be captured.

        Raises:
            ValueError: The weights are no slices of one network's, and a graph would not see that they change; or it
                would not draw the same each time.
        """
        if graphed and self._draws:
            raise ValueError("A forward that draws at random cannot be run as a CUDA graph. Use path='stacked'.")
        if graphed and self._own:
            raise ValueError("Weights that differ by structure cannot be run as a CUDA graph. Use path='stacked'.")
        k = len(structures)
        tensors = in_order_of(self._example, inputs)
        network = self._weights.network
        check_number(network.way, type(network.model).__name__, self._forward.images, k * len(tensors[0]))
        if self._draws and k > 1:
            several = ([structure] for structure in structures)
            return [output for one in several for output in self.run(one, inputs, statistics, corrections)]
        with torch.inference_mode(), random_apart(tensors[0].device, seed=0):
            kept = torch.from_numpy(np.stack([self._weights.kept(structure) for structure in structures]))
            known: dict[tuple[Structure, bytes], Tensor] = {}
            stacked = {
                layer: {attribute: self._stacked(name, structures, known) for attribute, name in own.items()}
                for layer, own in self._own.items()
            }

            def work(kept: Tensor, *given: Tensor) -> Any:
                images = in_format(repeated(given[: len(tensors)], k), self._layout)
                corrected = with_tensors(corrections or {}, given[len(tensors) :])
                masks = self._masks(kept)
                return _Stack(self._forward, masks, k, len(images[0]), statistics, stacked, corrected).run(*images)

            given = [placed(kept, tensors[0].device), *tensors, *tensors_of(corrections or {})]
            output = self.graphs.run((statistics, corrections is None), work, given) if graphed else work(*given)
        return [_part(output, i, k) for i in range(k)]

    @cached_property
    def _draws(self) -> bool:
        """Whether the forward draws at random, where structures that run together would draw from one another."""
        _, draws = self._watch(self._layout)
        return draws

    @cached_property
    def _may_be_last(self) -> bool:
        """Whether the forward writes to the same values if channels are last in memory as in the usual order."""
        try:
            (usual, _), (last, _) = map(self._watch, (torch.contiguous_format, torch.channels_last))
        except RuntimeError:  # the forward wants its memory in the usual order
            return False
        return usual == last

    def _watch(self, layout: torch.memory_format) -> tuple[Aliasing, bool]:
        """Run once, laid out so, and note how the forward uses memory, and whether it draws at random."""
        few = with_images(self._weights.network.inputs, self._forward.images).tensors
        recording = replace(self._forward, model=copied(self._forward.model).to(memory_format=layout))
        with torch.inference_mode(False), isolated(few) as copies:
            watch = _Watch(recording, {}, 1, len(copies[0]), None, {}, {})
            before = generators(few[0].device)
            watch.run(*in_format(copies, layout))
            draws = generators(few[0].device) != before
        return aliasing(watch.values, watch.writers), draws

    def _masks(self, kept: Tensor) -> dict[str, list[tuple[int, Tensor]]]:
        """By place, per dimension that gets narrower, which of its channels each structure has, (k, ...).

        Of (k, units), which units each has. What is read alike has one mask.
        """
        of_units = {key: kept[:, units] for key, units in self._placed(kept.device).items()}
        return {
            name: [(read.dim, of_units[read.units.tobytes()]) for read in reads] for name, reads in self._reads.items()
        }

    def _placed(self, device: torch.device) -> dict[bytes, Tensor]:
        """Distinct units that are read, as indices on a device."""
        if device not in self._units:
            units = {read.units.tobytes(): read.units for reads in self._reads.values() for read in reads}
            self._units[device] = {key: placed(torch.from_numpy(each), device) for key, each in units.items()}
        return self._units[device]

    def _stacked(
        self, name: str, structures: Sequence[Structure], known: dict[tuple[Structure, bytes], Tensor]
    ) -> Tensor:
        """(k, ...) a tensor of each structure, full size: zeros where it has no channel.

        Where channels are is `known` once it has got to the device.
        """
        cuts = self._weights.network.cuts_of.get(name, ())
        found = self._full[name].new_zeros(len(structures), *self._full[name].shape)
        for full, structure in zip(found, structures, strict=True):
            places = [torch.arange(size, device=full.device) for size in full.shape]
            for cut in cuts:
                key = structure, cut.units.tobytes()
                if key not in known:
                    known[key] = placed(positions(cut, self._weights.kept(structure)), full.device)
                places[cut.dim] = known[key]
            full[torch.meshgrid(*places, indexing="ij")] = self._weights.values(name, structure)
        return found


_OWN = (
    "This network mixes channels of its own parameters, or of tensors whose first dimension is not the images, as in "
    "torch's attention, which cannot be run stacked. Use path='sliced'."
)

_AGAIN = (
    "This network calls one BatchNorm several times, which has the statistics of all its calls; they are known only "
    "when all have run, and a stack runs once. Use path='sliced'."
)


class _Stack(Replay):
    """Masks what operators mix, and keeps the statistics of each structure's images apart."""

    def __init__(
        self,
        forward: Recording,
        masks: Mapping[str, Sequence[tuple[int, Tensor]]],
        k: int,
        n: int,
        statistics: int | None,
        stacked: Mapping[str, Mapping[str, Tensor]],
        corrections: Corrections,
    ) -> None:
        super().__init__(forward)
        self._masks = masks
        self._k = k
        self._n = n  # images of all structures together
        self._statistics = statistics
        self._stacked = stacked
        named = dict(self.module.named_buffers())
        self._corrections = {id(named[name]): iter(calls) for name, calls in corrections.items()}
        self._normalised_with: set[int] = set()

    def run_node(self, n: fx.Node) -> Any:
        masks = self._masks.get(place(n))
        if not masks:
            return super().run_node(n)
        source = mixed_operand(n)
        norm = norm_of(n, self.module, self.env)
        if norm is not None:
            ((dim, mask),) = masks
            return self._masked_norm(norm, self.env[source], dim, mask)
        whole = self.env[source]
        masking = masking_of(n)
        if masking in ("without", "in place"):
            return self._one_by_one(n, source, masks, is_whole=masking == "in place")
        for dim, mask in masks:
            self.env[source] = self._masked(self.env[source], dim, mask)
        try:
            return super().run_node(n)
        finally:
            self.env[source] = whole

    def _one_by_one(self, n: fx.Node, source: fx.Node, masks: Sequence[tuple[int, Tensor]], *, is_whole: bool) -> Any:
        """An operator on the channels that each structure has, in turn."""
        whole = self.env[source]
        if len(whole) % self._n or any(dim == 0 for dim, _ in masks):
            raise ValueError(_OWN)
        found = []
        for i, part in enumerate(self._apart(whole)):
            reads = [(dim, mask[i]) for dim, mask in masks]
            self.env[source] = of_those(part, reads)
            result = super().run_node(n)
            found.append(in_place(result, reads) if is_whole else result)
        self.env[source] = whole
        if isinstance(found[0], Tensor):
            return torch.cat(found)
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is not F.batch_norm:
            return super().call_function(target, args, kwargs)
        x = args[0]
        weight, bias = args[3:5] or (kwargs.get("weight"), kwargs.get("bias"))
        eps = args[7] if len(args) > 7 else kwargs.get("eps", 1e-5)
        running_mean = args[1] if len(args) > 1 else kwargs.get("running_mean")
        return self._normalised(x, running_mean, eps, weight, bias)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target == "view":
            return viewed(*args, **kwargs)
        return super().call_method(target, args, kwargs)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return self._batch_norm(module, args[0] if args else kwargs["input"])
        if target not in self._stacked:
            return module(*args, **kwargs)

        def one(tensors: dict[str, Tensor], x: Tensor) -> Any:
            return functional_call(module, tensors, (x, *args[1:]), kwargs)

        return torch.vmap(one)(dict(self._stacked[target]), self._apart(args[0])).flatten(0, 1)

    def _masked(self, x: Tensor, dim: int, mask: Tensor) -> Tensor:
        """Zeros where a structure has no channel."""
        if len(x) % self._n or dim == 0:
            raise ValueError(_OWN)
        return (self._apart(x) * _along(mask, dim + 1, x.dim() + 1)).flatten(0, 1)

    def _batch_norm(self, module: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
        """Each structure's images with their own statistics; whatever else the layer does, it does to all."""
        if is_torchs(type(module)):
            return self._normalised(x, module.running_mean, module.eps, module.weight, module.bias)
        layer = copy.copy(module)
        layer._buffers = dict(module._buffers)
        layer.training = False
        normal = self._normalised(x, module.running_mean, layer.eps, None, None)
        layer.running_mean = torch.zeros_like(normal[0].flatten(1)[:, 0] if normal.dim() > 2 else normal[0])
        layer.running_var = torch.full_like(layer.running_mean, 1.0 - layer.eps)  # so that it only scales and shifts
        return layer(normal)

    def _normalised(
        self, x: Tensor, running_mean: Tensor | None, eps: float, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """Each structure's images with their own mean and variance, scaled and shifted: read twice, written once."""
        if id(running_mean) in self._normalised_with:
            raise ValueError(_AGAIN)
        if running_mean is not None:
            self._normalised_with.add(id(running_mean))
        parts = self._apart(x)
        precise = parts.to(torch.promote_types(x.dtype, torch.float32))
        used = precise[:, : self._statistics]
        variance, mean = torch.var_mean(used, [1, *range(3, parts.dim())], correction=0, keepdim=True)
        along = [1, 1, -1, *[1] * (parts.dim() - 3)]
        correction = next(self._corrections.get(id(running_mean), iter(())), None)
        if correction is not None:
            mean, variance = correction.mapped(lambda values: values.view(along)).of((mean, variance))
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight.view(along)
        shift = -mean * scale if bias is None else torch.addcmul(bias.view(along), mean, scale, value=-1)
        return torch.addcmul(shift, precise, scale).to(x.dtype).flatten(0, 1)

    def _masked_norm(self, norm: Norm, x: Tensor, dim: int, mask: Tensor) -> Tensor:
        """The definition, over the channels that a structure has; GroupNorm's also over positions."""
        groups = norm.groups or 1
        parts = self._apart(x.movedim(dim, 1))  # (k, n, c, ...)
        parts = _split(parts, 2, groups)
        here = _along(_split(mask, 1, groups), 2, parts.dim()).to(x.dtype)
        over = [3] if norm.groups is None else list(range(3, parts.dim()))
        size = here.sum(3, keepdim=True) * (1 if norm.groups is None else parts[0, 0, 0, 0].numel())
        size = size.clamp(min=1)
        if norm.centres:
            parts = parts - (parts * here).sum(over, keepdim=True) / size
        variance = (parts.square() * here).sum(over, keepdim=True) / size
        normal = (parts * (variance + norm.eps).rsqrt()).flatten(2, 3).flatten(0, 1)
        return norm.scaled(normal).movedim(1, dim)

    def _apart(self, x: Tensor) -> Tensor:
        """(k n, ...) -> (k, n, ...)."""
        return _split(x, 0, self._k)


class _Watch(_Stack):
    """Runs a single network, and keeps the value of each node.

    Attributes:
        values: Of the nodes, in order.
        writers: Nodes that were seen writing to an argument, in order.
    """

    def run(self, *args: Any, **keywords: Any) -> Any:
        """Run it."""
        self.values: dict[fx.Node, Any] = {}
        self.writers: list[fx.Node] = []
        return super().run(*args, **keywords)

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node."""
        given = list(tensors_in([self.values[node] for node in n.all_input_nodes]))
        versions = [tensor._version for tensor in given]
        self.values[n] = super().run_node(n)
        if [tensor._version for tensor in given] != versions:
            self.writers.append(n)
        return self.values[n]


def _check_states(network: Network) -> None:
    """Refuse layers whose own channels are mixed where no mask reaches them."""
    for name, module in network.model.named_modules():
        if mixes_within(network, module) and any(
            f"{name}.{own}" in network.cuts_of for own, _ in module.named_parameters()
        ):
            raise ValueError(f"{name} is a recurrent layer, which cannot be run stacked. Use path='sliced'.")


def _check_norms(weights: WeightSource, model: nn.Module) -> None:
    group_of, cuts_of = weights.network.group_of, weights.network.cuts_of
    for layer, module in model.named_modules():
        if not weights.network.kinds.is_norm(module):
            continue
        for name in (f"{layer}.{parameter}" for parameter, _ in module.named_parameters(recurse=False)):
            narrowing = {int(group) for cut in cuts_of.get(name, ()) for group in group_of[cut.units]}
            if not weights.influences(name) <= narrowing:
                raise _differ(weights, name)


def _check_read_by_operators(weights: WeightSource, full: Mapping[str, Tensor], forward: Recording) -> None:
    """Refuse parameters with values of each structure that no module runs with, so that they cannot be stacked.

    Values that depend on no other groups than the parameter has channels of may be no slices, as compensated ones.
    """
    least = weights.network.space.minimum
    inherited = InheritedWeights(weights.network, weights.ranking)
    for name in dict.fromkeys(str(node.target) for node in forward.graph.nodes if node.op == "get_attr"):
        if name not in full:  # a constant
            continue
        slices = inherited.narrowed(name, full[name], least)
        if not weights.influences(name) <= inherited.influences(name) or not slices.equal(weights.values(name, least)):
            raise _differ(weights, name)


def _differ(weights: WeightSource, name: str) -> ValueError:
    return ValueError(
        f"{type(weights).__name__} gives {name} other values in other structures, so they cannot be run stacked. "
        'Use path="sliced".'
    )


def _own_weights(kinds: Kinds, model: nn.Module, named: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Of each layer but normalisations, its own parameters and their names in the model."""
    names = {id(tensor): name for name, tensor in named.items()}
    found = {
        layer: {attribute: names[id(tensor)] for attribute, tensor in module.named_parameters(recurse=False)}
        for layer, module in model.named_modules()
        if not kinds.is_norm(module)
    }
    return {layer: own for layer, own in found.items() if own}


def _split(x: Tensor, dim: int, parts: int) -> Tensor:
    return x.reshape(*x.shape[:dim], parts, x.shape[dim] // parts, *x.shape[dim + 1 :])


def _along(mask: Tensor, dim: int, dims: int) -> Tensor:
    """(k, ...) masks, shaped so that their dimensions after the first meet those from `dim` on of `dims`."""
    shape = [len(mask), *[1] * (dim - 1), *mask.shape[1:], *[1] * (dims - dim - mask.dim() + 1)]
    return mask.view(shape)


def _part(output: Any, i: int, k: int) -> Any:
    """Structure number i's part of what the network returned for k."""
    if isinstance(output, Tensor):
        return _split(output, 0, k)[i]
    if isinstance(output, Mapping):
        return {name: _part(value, i, k) for name, value in output.items()}
    return type(output)(_part(value, i, k) for value in output) if isinstance(output, (tuple, list)) else output
