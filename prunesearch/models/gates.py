"""Gates that decide for each image which channels of a convolution it needs: dynamic pruning.

Source: ManiDP, Tang et al., "Manifold Regularized Dynamic Network Pruning", CVPR 2021, from the authors' released code.
Departures: the gates' second layer starts at zero, so that a trained network starts as it was; saliencies end at 10
where theirs end at 1000, which users saw explode; a gate sits right behind the BatchNorm, which for ReLU is the same as
behind the ReLU, saliencies being positive; gates of convolutions with 80 to 158 outputs are a little wider, so that a
narrower network never has wider ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunesearch.errors import TraceError
from prunesearch.models.copying import copied
from prunesearch.models.count import count_layers
from prunesearch.models.devices import placed
from prunesearch.models.following import Way, inputs_of, recorded
from prunesearch.models.isolation import as_found, isolated

_HIGHEST = 10.0
_SMALL = 80

_RECTIFIERS = (F.relu, torch.relu, "relu", nn.ReLU, nn.ReLU6)
_KEEP_ZEROS = (*_RECTIFIERS, nn.Dropout, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, F.max_pool2d, F.avg_pool2d)
_SUMS = ("add", "iadd")


class SaliencyGate(nn.Module):
    """How much an image needs each output channel, from the means of the input channels.

    Args:
        inputs: Channels that the convolution reads.
        outputs: Channels that it gives.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = outputs if outputs < _SMALL else max(_SMALL - 1, outputs // 2)
        self.squeeze = nn.Linear(inputs, hidden, bias=False)
        self.excite = nn.Linear(hidden, outputs)
        nn.init.kaiming_normal_(self.squeeze.weight)
        nn.init.zeros_(self.excite.weight)
        nn.init.ones_(self.excite.bias)

    def forward(self, means: Tensor) -> Tensor:
        """(n, inputs) means over positions -> (n, outputs) saliencies, from 0 to 10."""
        return self.saliency(self.squeeze(means))

    def saliency(self, squeezed: Tensor) -> Tensor:
        """The rest of `forward` after the first layer."""
        return F.relu(self.excite(F.relu(squeezed))).clamp(max=_HIGHEST)


class GatedConv(nn.Module):
    """A convolution and its BatchNorm; each image gets those of its channels that it needs, by how much it needs them.

    Computes everything and multiplies, as training wants; `models.skipping` computes only what is needed.

    Args:
        conv: The convolution.
        norm: Its BatchNorm.
        is_rectified: Whether a ReLU follows.
        source: The gated convolution that alone it reads, through operators that keep zeros, if there is one.
    """

    threshold: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, is_rectified: bool, source: GatedConv | None) -> None:
        super().__init__()
        self.conv, self.norm, self.is_rectified = conv, norm, is_rectified
        self.gate = SaliencyGate(conv.in_channels, conv.out_channels)
        self.register_buffer("threshold", torch.tensor(float("-inf")))
        self.sources: tuple[GatedConv, ...] = (
            () if source is None else (source,)
        )  # torch does not register what is in a tuple

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, channels, h', w')."""
        saliency = self.gate(x.mean((2, 3)))
        return self.norm(self.conv(x)) * (saliency * self.is_active(saliency))[:, :, None, None]

    def is_active(self, saliency: Tensor) -> Tensor:
        """(n, channels) which channels each image gets."""
        return (saliency >= self.threshold) & (saliency > 0)


def gated(model: nn.Module, example_inputs: Tensor | Sequence[Tensor]) -> nn.Module:
    """A copy of a network with a gate behind each convolution and BatchNorm, through which at first everything passes.

    As in the paper, what reads the images and projecting shortcuts have none; nor do grouped convolutions. It has more
    parameters than the network: dynamic pruning saves computing only. `save` writes it, and
    `load(path, gated(make_model(...), inputs))` reads it.

    Args:
        model: A network that can be traced; not changed.
        example_inputs: A batch, or the tuple of positional inputs.

    Raises:
        TraceError: The forward cannot be followed, or there is no place for a gate.
    """
    gated_copy = copied(model)
    graph = recorded(copied(model).eval(), inputs_of(example_inputs), {}, way=Way()).graph
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gates: dict[fx.Node, GatedConv] = {}
        for place in _places(gated_copy, graph):
            conv, norm = gated_copy.get_submodule(place.conv), gated_copy.get_submodule(place.norm)
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            source = None if place.source is None else gates.get(place.source)
            gates[place.node] = GatedConv(conv, norm, place.is_rectified, source).to(conv.weight)
            gated_copy.set_submodule(place.conv, gates[place.node])
            gated_copy.set_submodule(place.norm, nn.Identity())
    if not gates:
        raise TraceError(
            f"{type(model).__name__} has no place for a gate: no convolution with a BatchNorm right behind it."
        )
    return gated_copy.train(model.training)


def gated_layers(model: nn.Module) -> dict[str, GatedConv]:
    """Gated convolutions by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, GatedConv)}


def macs_per_image(model: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """(n,) multiply-accumulates that each of (n, c, h, w) images needs in a gated network, measured.

    A gated convolution costs in proportion to the channels that the image gets, and to those it reads if they are
    another gated convolution's; the gates' own cost is counted. In eval mode; the model is not changed. What
    is returned is on the CPU.
    """
    layers = gated_layers(model)
    dense = count_layers(model, [images[:1]])
    static = sum(dense.values()) - sum(dense[f"{name}.conv"] for name in layers)
    total = torch.full((len(images),), static, dtype=torch.int64, device=next(model.parameters()).device)
    for start in range(0, len(images), batch_size):
        counts = _active_counts(model, layers, images[start : start + batch_size])
        for name, layer in layers.items():
            inputs, outputs = layer.conv.in_channels, layer.conv.out_channels
            read = counts[layer.sources[0]] if layer.sources else inputs
            total[start : start + batch_size] += dense[f"{name}.conv"] // (inputs * outputs) * read * counts[layer]
    return total.cpu()


def _active_counts(model: nn.Module, layers: dict[str, GatedConv], images: Tensor) -> dict[GatedConv, Tensor]:
    """(n,) channels that each image gets of each layer."""
    counts: dict[GatedConv, Tensor] = {}

    def noting(layer: GatedConv) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda gate, inputs, saliency: counts.update({layer: layer.is_active(saliency).sum(1)})

    handles = [layer.gate.register_forward_hook(noting(layer)) for layer in layers.values()]
    try:
        with as_found(model), isolated([images]) as (copied,):
            model(placed(copied, next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return counts


@dataclass(frozen=True)
class _Place:
    """Where a gate goes.

    Attributes:
        conv: Name of the convolution.
        norm: Name of its BatchNorm.
        node: Of the BatchNorm in the forward.
        is_rectified: Whether a ReLU follows.
        source: Node of the BatchNorm whose channels alone the convolution reads.
    """

    conv: str
    norm: str
    node: fx.Node
    is_rectified: bool
    source: fx.Node | None


def _places(model: nn.Module, graph: fx.Graph) -> list[_Place]:
    modules = dict(model.named_modules())
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    found = []
    for norm in graph.nodes:
        conv = norm.args[0] if norm.op == "call_module" and norm.args else None
        if not isinstance(conv, fx.Node) or conv.op != "call_module" or len(conv.users) > 1:
            continue
        layers = modules[str(conv.target)], modules[str(norm.target)]
        if not isinstance(layers[0], nn.Conv2d) or not isinstance(layers[1], nn.BatchNorm2d) or layers[0].groups > 1:
            continue
        called_once = calls.count(conv.target) == calls.count(norm.target) == 1
        if called_once and not _reads_images(conv) and not _is_shortcut(conv, norm):
            rectified = any(_kind(user, modules) in _RECTIFIERS for user in norm.users)
            found.append(_Place(str(conv.target), str(norm.target), norm, rectified, _source(conv, modules)))
    return found


def _reads_images(conv: fx.Node) -> bool:
    return any(node.op == "placeholder" for node in conv.all_input_nodes)


def _is_shortcut(conv: fx.Node, norm: fx.Node) -> bool:
    """Whether it reads what others read, too, and is added to something at once."""
    added = all(getattr(user.target, "__name__", user.target) in _SUMS for user in norm.users)
    return added and any(len(node.users) > 1 for node in conv.all_input_nodes)


def _source(conv: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The BatchNorm that a convolution reads through operators that keep zeros, if nothing else reads any of it."""
    node = conv.all_input_nodes[0]
    while len(node.users) == 1 and len(node.all_input_nodes) == 1:
        if isinstance(_module(node, modules), nn.BatchNorm2d):
            return node
        if _kind(node, modules) not in _KEEP_ZEROS:
            return None
        node = node.all_input_nodes[0]
    return None


def _kind(node: fx.Node, modules: dict[str, nn.Module]) -> object:
    module = _module(node, modules)
    return node.target if module is None else type(module)


def _module(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules[str(node.target)] if node.op == "call_module" else None
