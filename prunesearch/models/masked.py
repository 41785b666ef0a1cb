"""The full network in which no operator sees the removed channels: what a slimmed network must equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.rnn import PackedSequence

from prunesearch.errors import TraceError
from prunesearch.models.copying import copied
from prunesearch.models.following import Forwards, does_the_same, recorded
from prunesearch.models.kept_whole import Calls, part_called_by, watched
from prunesearch.models.nested import mapped
from prunesearch.models.operators.kind import Call, Masking, kind_of
from prunesearch.models.operators.norm import Norm
from prunesearch.models.operators.values import argument
from prunesearch.models.recorded import Inputs, Recording
from prunesearch.models.replay import Replay
from prunesearch.models.traced import TracedModel
from prunesearch.models.walk import place

Kept = npt.NDArray[np.bool_]


class MaskedForward:
    """Makes masked networks; the forward is recorded once, in both modes.

    Args:
        network: The traced network.
        forwards: Its forward, where that has just been followed.

    Attributes:
        trains: Whether the forward was followed in training mode.
    """

    def __init__(self, network: TracedModel, forwards: Forwards | None = None) -> None:
        self._network = network
        evaluating, training = _both_modes(network) if forwards is None else (forwards.evaluating, forwards.training)
        self._evaluating = evaluating
        self._training = evaluating if training is None else training
        self.trains = training is not None

    @property
    def reads_draws(self) -> bool:
        """Whether training goes on with random numbers of torch as plain ones, which another run draws otherwise."""
        return self._training.reads_draws

    @property
    def positions(self) -> float:
        """Positions of an image, the fewest of which a layer takes statistics of a batch; infinite without such."""
        found = [
            math.prod(node.meta["shape"][2:])
            for node in self._training.graph.nodes
            if (kind := kind_of(node)) is not None and kind.statistics == "batch" and "shape" in node.meta
        ]
        return min(found, default=math.inf)

    def module(self, kept: Kept) -> Masked:
        """A full-width copy of the network in which no operator sees the removed channels.

        They are zeroed where an operator mixes them; a LayerNorm or GroupNorm, to which zeros are values like others,
        takes its mean and variance over the channels that stay. What it computes is the recorded forward.

        Args:
            kept: (units,) which units stay.
        """
        return Masked(
            masked_states(self._network, kept), self._evaluating, self._training, staying(self._network, kept)
        )


def staying(network: TracedModel, kept: Kept) -> dict[str, list[tuple[int, Tensor]]]:
    """By the place of what mixes channels: (dimension, (channels,) which stay) of each operand's that it mixes."""
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for read in network.reads:
        found.setdefault(read.place, []).append((read.dim, torch.from_numpy(kept[read.units])))
    return found


def _both_modes(network: TracedModel) -> tuple[Recording, Recording | None]:
    """The forward in eval mode, and in training mode, where that can be followed."""
    model = copied(network.model).eval()
    evaluating = recorded(model, network.inputs, network.leaves, way=network.way)
    if not network.way.trains:
        return evaluating, None
    try:
        training = recorded(model.train(), network.inputs, network.leaves, way=network.way)
    except TraceError:
        return evaluating, None
    finally:
        model.eval()
    return evaluating, evaluating if does_the_same(evaluating, training) else training


def mixes_within(network: TracedModel, module: nn.Module) -> bool:
    """Whether a layer mixes its own channels from step to step, which nobody sees from outside."""
    kind = network.kinds.alike(module)
    return kind is not None and kind.masking == "state"


def masked_states(network: TracedModel, kept: Kept) -> nn.Module:
    """A copy of the model with zero weights of removed channels in layers that mix their own.

    Those never leave zero then, as if gone.
    """
    model = copied(network.model)
    for name, module in model.named_modules():
        if not mixes_within(network, module):
            continue
        for own, parameter in module.named_parameters(recurse=False):
            reads = [(cut.dim, torch.from_numpy(kept[cut.units])) for cut in network.cuts_of.get(f"{name}.{own}", ())]
            with torch.no_grad():
                parameter.copy_(without(parameter, reads))
    return model


class Masked(nn.Module):
    """A masked network.

    Attributes:
        calls: What the parts that are kept whole were given in forwards so far, and what they returned.
    """

    def __init__(self, model: nn.Module, evaluating: Recording, training: Recording, reads: Mapping[str, Any]) -> None:
        super().__init__()
        self.calls = Calls()
        self.model = model
        self._recordings = (evaluating, training)
        self._reads = reads
        self.train(model.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What was recorded, of the full network."""
        recording = self._recordings[self.training]
        replay = MaskedReplay(recording, self.model, self._reads, self.calls)
        return replay.run(*Inputs(args, kwargs).tensors)


class MaskedReplay(Replay):
    """Runs a recorded forward with zeros in place of what operators that mix channels must not see."""

    def __init__(
        self, recording: Recording, model: nn.Module, reads: Mapping[str, list[tuple[int, Tensor]]], calls: Calls
    ) -> None:
        super().__init__(recording, model)
        self._reads = reads
        self._is_training = recording.training
        self._parts = watched(model, recording.leaves)
        self._calls = calls

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node, of the channels that stay."""
        part = part_called_by(n)
        if part in self._parts:
            given = mapped(fx.node.map_arg((n.args, n.kwargs), self.env.__getitem__), torch.clone)
            result = super().run_node(n)
            self._calls.note(part, given, result)
            return result
        reads = self._reads.get(place(n, training=self._is_training))
        if not reads:
            return super().run_node(n)
        source = mixed_operand(n)
        norm = norm_of(n, self.module, self.env)
        if norm is not None:
            ((dim, stays),) = reads
            return norm.over(self.env[source], dim, stays)
        whole = self.env[source]
        masking = masking_of(n)
        self.env[source] = of_those(whole, reads) if masking in ("without", "in place") else without(whole, reads)
        out = n.kwargs.get("out") if masking == "in place" else None
        written = self.env[out] if isinstance(out, fx.Node) else None
        if isinstance(out, fx.Node):
            self.env[out] = of_those(self.env[out], reads)
        try:
            result = super().run_node(n)
            result = in_place(result, reads) if masking == "in place" else result
            return result if written is None else written.copy_(result)
        finally:
            self.env[source] = whole
            if isinstance(out, fx.Node):
                self.env[out] = written


def of_those(x: Tensor, reads: Sequence[tuple[int, Tensor]]) -> Tensor:
    """Only the channels that stay."""
    for dim, stays in reads:
        x = x.index_select(dim, stays.to(x.device).nonzero().flatten())
    return x


def in_place(x: Tensor, reads: Sequence[tuple[int, Tensor]]) -> Tensor:
    """What was computed of some channels, in their places of the full width."""
    for dim, stays in reads:
        shape = [*x.shape[:dim], len(stays), *x.shape[dim + 1 :]]
        x = x.new_zeros(shape).index_copy(dim, stays.to(x.device).nonzero().flatten(), x)
    return x


def mixed_operand(node: fx.Node) -> fx.Node:
    """The operand whose channels an operator mixes; of an einsum the first after the equation."""
    source = argument(node, 0, "input")
    if isinstance(source, str):
        source = node.args[1]
        source = source[0] if isinstance(source, (tuple, list)) else source
    assert isinstance(source, fx.Node)
    return source


def without(x: Any, reads: Sequence[tuple[int, Tensor]]) -> Any:
    """Zeros where a channel is removed."""
    if isinstance(x, PackedSequence):
        return x._replace(data=without(x.data, reads))
    for dim, stays in reads:
        shape = [1] * x.dim()
        shape[dim] = len(stays)
        x = x.masked_fill(~stays.to(x.device).view(shape), 0)
    return x


def norm_of(node: fx.Node, model: nn.Module, values: Mapping[fx.Node, Any]) -> Norm | None:
    """The normalisation over channels that a node is; None if it is something else."""
    kind = kind_of(node)
    if kind is None or kind.norm is None:
        return None
    return kind.norm(Call(node, model.get_submodule(str(node.target)) if node.op == "call_module" else None, values))


def masking_of(node: fx.Node) -> Masking:
    """How a node is computed as if some of the channels that it mixes were not there."""
    kind = kind_of(node)
    return "zeros" if kind is None else kind.masking
