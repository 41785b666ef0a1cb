"""Weights that reproduce the original network's outputs from the pruned network's inputs, layer after layer."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunesearch.evaluators.inputs import check_recorded
from prunesearch.evaluators.patches import Patches
from prunesearch.evaluators.refitted import RefittedWeights, solved
from prunesearch.models.devices import in_float64
from prunesearch.models.linear_map import LinearMap
from prunesearch.models.linear_maps import PASSES, input_of, maps_by_node
from prunesearch.models.nested import Batch, taken
from prunesearch.models.network import Network
from prunesearch.models.operators.values import argument
from prunesearch.models.ranking import Ranking
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.sizes import of_most_frequent_size
from prunesearch.models.steps import Values
from prunesearch.structure import Structure

_IMAGES = 256
_RIDGE = 1e-2  # of the mean variance: less fits other images no better, and finetuning upsets such weights
_SMALL = 0.05  # of the largest weight of a BatchNorm: below it a target would be blown up
_TRACED = ("_forward", "_layers", "_branches")
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


@dataclass(frozen=True)
class _Branch:
    """A layer whose outputs are added to something that is computed before it.

    Attributes:
        shortcut: The node of that other addend.
        norm: Name of the BatchNorm between the layer and the addition, if there is one.
        share: How much of the shortcut is added to the whole of the branch; not 1 where one is multiplied before.
    """

    shortcut: fx.Node
    norm: str | None
    share: float = 1.0


@dataclass(frozen=True)
class _Target:
    """What the original network computes at the sampled positions.

    Attributes:
        outputs: (rows, outputs) of the layer.
        around: Sizes of its input besides the channels.
        shortcut: (rows, outputs) of what they are added to.
    """

    outputs: Tensor
    around: tuple[int, ...]
    shortcut: Tensor | None


@dataclass(frozen=True)
class _Norm:
    """A BatchNorm behind the last layer of a branch, that normalises with the images' own statistics.

    Attributes:
        name: Of the module.
        weight: (outputs,) of it.
        bias: (outputs,) of it.
        eps: What it adds to variances.
    """

    name: str
    weight: Tensor
    bias: Tensor
    eps: float

    def before(self, error: Tensor, outputs: Tensor) -> Tensor:
        """(rows, outputs) what an error behind it is in front of it; 0 where that would explode."""
        size = self.weight.abs()
        usable = size > _SMALL * size.max()
        return torch.where(usable, error * self._spread(outputs) / torch.where(usable, self.weight, 1.0), 0.0)

    def undoing(self, original: Tensor, level: Tensor, fitted: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias with which it scales and shifts the fitted outputs as it did the original ones.

        Args:
            original: (rows, outputs) of the original layer.
            level: (outputs,) mean that the fitted ones should have.
            fitted: (rows, outputs) fitted ones, centred.
        """
        scale = self.weight / self._spread(original)
        return scale * self._spread(fitted), self.bias + scale * (level - original.mean(0))

    def _spread(self, outputs: Tensor) -> Tensor:
        """(outputs,) what it divides by; of an output that is always the same no more than its `eps` is left."""
        return (outputs.var(0, correction=0) + self.eps).sqrt()


class ReconstructedWeights(RefittedWeights):
    """Inherited weights, but each layer's are the least-squares fit of the original outputs to the inputs it now gets.

    Layers are fitted in the order in which they run, so that each makes up for what the ones before it still miss. The
    last layer of a residual branch is fitted to `Y2 + Y1 - Y1'`, Y2 its original output, Y1 the original shortcut and
    Y1' the pruned network's: their sum is what counts. One forward of the pruned network over all images does it.

    Source: He et al., Channel pruning for accelerating very deep neural networks, ICCV 2017, arXiv:1707.06168, section
    3.1 (step ii), 3.3 (multi-branch) and the authors' code. Departs from them: 16 positions of 256 images, and a ridge
    that draws to the trained weights, in place of 10 positions of 5,000 images; BatchNorm normalises with the images'
    own statistics, as in scoring, where theirs is merged into the weights: a target behind it is mapped through its
    inverse, and its weight and bias undo that the fitted outputs are normalised; a shortcut that is computed after the
    branch counts as the original one; a layer without a bias gets none, and is fitted to values as they
    are, not to centred ones, unless a BatchNorm follows at once; every linear layer and convolution without groups,
    transposed ones among them, that reads channels of a group is fitted, also where it keeps all of them, unless its
    weight is computed or shared. A layer that is applied to each channel of another kind (a linear layer over
    positions, as in MLP-Mixer) keeps its inherited weights where some of those channels are dropped.

    Args:
        network: The traced network.
        ranking: Which channels stay.
        images: (n, ...) images; the first 256 count, all in one forward, so of several sizes the most frequent one's.
        seed: Decides the positions that are sampled.
    """

    description = "reconstructed"

    def __init__(self, network: Network, ranking: Ranking, images: Batch, *, seed: int = 0) -> None:
        check_recorded(network, images)
        super().__init__(network, ranking, [layer for layer in network.linear_maps if layer.is_refitted])
        self._images = of_most_frequent_size(taken(images, slice(_IMAGES)), "A reconstruction of layers")
        self._seed = seed
        norms = [branch.norm for branch in self._branches.values() if branch.norm is not None]
        self.refitted |= {f"{norm}.{part}" for norm in norms for part in ("weight", "bias")}
        self._targets: dict[str, _Target] = {}
        self._fitting: Structure | None = None  # meanwhile, what asks for the size of a weight is given the trained one
        self._forward.observe(network.space.full, self._images, self._look(self._note))

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what is read off the traced forward: no graph can be copied, so a copy traces anew."""
        return {name: value for name, value in vars(self).items() if name not in _TRACED}

    @cached_property
    def _forward(self) -> SharedForward:
        return SharedForward(self)

    @cached_property
    def _layers(self) -> Mapping[fx.Node, LinearMap]:
        """The nodes of the layers that are fitted, if they run once."""
        found = maps_by_node(self._forward.graph, self.layer_of.values())
        calls = Counter(layer.place for layer in found.values())
        return {node: layer for node, layer in found.items() if calls[layer.place] == 1}

    @cached_property
    def _branches(self) -> Mapping[str, _Branch]:
        return dict(_branches(self.network.model, self._forward.graph, self._layers))

    def influences(self, tensor: str) -> frozenset[int]:
        """All groups, for what is fitted: everything before it counts."""
        if tensor in self.refitted:
            return frozenset(range(len(self.network.space.groups)))
        return self.inherited.influences(tensor)

    def fit(self, tensor: str, structure: Structure) -> Tensor:
        """Fit all layers of the structure in one forward."""
        if not self.fitted[structure] and self._fitting != structure:

            def look(layer: LinearMap, patches: Patches, rows: Tensor, shortcut: Tensor | None) -> None:
                with torch.inference_mode(False), torch.no_grad():  # or the network could not be trained
                    self._fit_layer(layer, patches, rows, shortcut, structure)

            self._fitting = structure
            try:
                self._forward.observe(structure, self._images, self._look(look))
            finally:
                self._fitting = None
        return self.fitted[structure].get(tensor, self.inherited.values(tensor, structure))

    def _look(
        self, see: Callable[[LinearMap, Patches, Tensor, Tensor | None], None]
    ) -> Callable[[fx.Node, Values], None]:
        """Call `see` with each layer that runs once, what it is given and what its outputs will be added to."""

        def look(node: fx.Node, values: Values) -> None:
            layer = self._layers.get(node)
            if layer is None:
                return
            patches = Patches(layer, self._seed)
            rows = in_float64(patches.of(values[input_of(node)]))
            branch = self._branches.get(layer.place)
            see(layer, patches, rows, None if branch is None else values[branch.shortcut])

        return look

    def _note(self, layer: LinearMap, patches: Patches, rows: Tensor, shortcut: Tensor | None) -> None:
        """Remember what the original network computes."""
        full = self.network.space.full
        assert layer.weight is not None
        outputs = rows @ layer.matrix(self.inherited.values(layer.weight, full)).T
        if layer.bias is not None:
            outputs += in_float64(self.inherited.values(layer.bias, full).detach())
        added = None
        if shortcut is not None and patches.at_same(shortcut).shape == outputs.shape:  # else it is broadcast
            added = in_float64(patches.at_same(shortcut))
        self._targets[layer.place] = _Target(outputs, patches.around, added)

    def _fit_layer(
        self, layer: LinearMap, patches: Patches, rows: Tensor, shortcut: Tensor | None, structure: Structure
    ) -> None:
        """Solve for the weights of one layer, and remember them for the rest of the forward."""
        assert layer.weight is not None
        target = self._targets[layer.place]
        if patches.around != target.around:  # positions are channels, some of them gone, so others were looked at
            return
        outputs = self.outputs(layer, structure, target.outputs.device)
        original = wanted = target.outputs[:, outputs]
        norm = self._norm_behind(layer.place, structure)
        if shortcut is not None and target.shortcut is not None:
            missing = target.shortcut[:, outputs] - in_float64(patches.at_same(shortcut))
            missing *= self._branches[layer.place].share
            wanted = original + (missing if norm is None else norm.before(missing, original))
        trained = self.inherited.values(layer.weight, structure)
        start = layer.matrix(trained)
        mean, level = rows.mean(0), wanted.mean(0)
        if not layer.is_refitted_centred:  # a constant that the weights miss would be lost
            mean, level = torch.zeros_like(mean), torch.zeros_like(level)
        weights = ridge_regression(rows - mean, wanted - level, start)
        found = self.fitted[structure]
        found[layer.weight] = layer.weight_of(weights, trained)
        if layer.bias is not None:
            found[layer.bias] = (level - weights @ mean).to(trained)
        if norm is not None:
            weight, bias = norm.undoing(original, level, (rows - mean) @ weights.T)
            found[f"{norm.name}.weight"], found[f"{norm.name}.bias"] = weight.to(trained), bias.to(trained)

    def _norm_behind(self, place: str, structure: Structure) -> _Norm | None:
        branch = self._branches.get(place)
        if branch is None or branch.norm is None:
            return None
        weight, bias = (
            in_float64(self.inherited.values(f"{branch.norm}.{part}", structure).detach())
            for part in ("weight", "bias")
        )
        module: Any = self.network.model.get_submodule(branch.norm)
        return _Norm(branch.norm, weight, bias, module.eps)


def ridge_regression(inputs: Tensor, outputs: Tensor, start: Tensor) -> Tensor:
    """(outputs, columns) weights of least squared error, drawn to `start` by a ridge.

    In float64 on any device: neighbouring inputs are nearly alike, so the equations are ill conditioned, and the ridge
    that keeps them solvable is a hundredth of a variance.

    Args:
        inputs: (rows, columns), centred if something else than the weights makes up for means.
        outputs: (rows, outputs), likewise.
        start: (outputs, columns).
    """
    square = inputs.T @ inputs / len(inputs)
    ridge = _RIDGE * square.diagonal().mean() + 1e-30
    drawn = inputs.T @ outputs / len(inputs) + ridge * start.T
    return solved(square + ridge * torch.eye(len(square), dtype=square.dtype, device=square.device), drawn).T


def _branches(model: nn.Module, graph: fx.Graph, layers: Mapping[fx.Node, LinearMap]) -> Iterator[tuple[str, _Branch]]:
    """Layers whose outputs, through a BatchNorm or not, only go into an addition whose other part is there before."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node not in layers:
            continue
        end, norm = node, None
        after = _only_user(node)
        while after is not None and after.op == "call_module":
            module = model.get_submodule(str(after.target))
            if isinstance(module, _BatchNorm) and module.affine and norm is None and layers[node].normalised:
                norm = str(after.target)
            elif not isinstance(module, PASSES):
                break
            end, after = after, _only_user(after)
        if after is None or after.target not in _ADDITIONS or len(after.all_input_nodes) != 2:
            continue
        (shortcut,) = (other for other in after.all_input_nodes if other is not end)
        share = _share(after, end)
        if share is not None and order[shortcut] < order[node] and shortcut.op != "get_attr":  # a tensor lacks nothing
            yield layers[node].place, _Branch(shortcut, norm, share)


def _share(addition: fx.Node, branch: fx.Node) -> float | None:
    """How much of the other addend is added to the whole of a branch, by `alpha`; None if that cannot be said."""
    alpha = argument(addition, 2, "alpha", default=1)
    if not isinstance(alpha, (int, float)) or alpha == 0:
        return None
    return 1 / alpha if argument(addition, 1, "other") is branch else float(alpha)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
