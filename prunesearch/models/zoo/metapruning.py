"""The three networks that MetaPruning prunes, with its genes, so that published vectors mean here what they mean there.

Source: Liu et al., MetaPruning, ICCV 2019, arXiv:1903.10258, and the authors' code. A gene is a number from 0 to 30 and
stands for the share `(10 + 3 gene) / 100` of a width, rounded down. A vector of genes becomes a structure, and search,
PruningNet and final network are those of any structure: there is one decoder. The authors have two, which differ:

- MobileNet V1: gene i is the output of block i, as in their search. Their final network takes it for block i + 1.
- MobileNet V2: a block has a shortcut where the unpruned one has, as in their search. Their final network also has one
  wherever pruned widths happen to be equal.

MobileNets have ReLU6 throughout, as in their papers; the authors' V1 has ReLU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.models.zoo.bottleneck import STAGES, resnet50
from prunesearch.models.zoo.mobilenet import InvertedResidual, conv_bn, mobilenet_v1
from prunesearch.registry import resolve
from prunesearch.structure import Group, Structure

GENES = 31
_V2 = (44, 22, 33, 33, 44, 44, 44, 88, 88, 88, 88, 132, 132, 132, 224, 224, 224, 448)  # the stem, then every block
_V2_STRIDED = (2, 4, 7, 14)


@dataclass(frozen=True)
class GeneNetwork:
    """A traced network whose structures may be given as genes.

    Attributes:
        network: The network; of every group just the widths are allowed that genes stand for.
        layers: Per gene, the layer whose outputs it decides.
    """

    network: Network
    layers: tuple[str, ...]

    def decode(self, genes: Sequence[int]) -> Structure:
        """The structure that a vector of genes stands for.

        Raises:
            ValueError: Another number of genes, one out of range, or different ones for layers that are coupled.
        """
        if len(genes) != len(self.layers) or not all(0 <= gene < GENES for gene in genes):
            raise ValueError(f"Expected {len(self.layers)} genes from 0 to {GENES - 1}, got {len(genes)}: {genes}.")
        chosen: dict[int, int] = {}
        for layer, gene in zip(self.layers, genes, strict=True):
            group = self._group(layer)
            if chosen.setdefault(group, gene) != gene:
                raise ValueError(f"{layer} is coupled with a layer that has the gene {chosen[group]}, got {gene}.")
        return tuple(_width(group.width, chosen[i]) for i, group in enumerate(self.network.space.groups))

    def _group(self, layer: str) -> int:
        (outputs,) = (cut for cut in self.network.cuts_of[f"{layer}.weight"] if cut.dim == 0)
        return int(self.network.group_of[outputs.units[0]])


class WideMobileNetV2(nn.Module):
    """MobileNet V2 with 1.4 times the channels, in the authors' rounding; even the first block expands.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        blocks = [
            InvertedResidual(cin, cin * (1 if i == 1 else 6), cout, 2 if i in _V2_STRIDED else 1, expands=True)
            for i, (cin, cout) in enumerate(pairwise(_V2), 1)
        ]
        self.features = nn.Sequential(*conv_bn(in_channels, _V2[0], 3, 2), *blocks, *conv_bn(_V2[-1], 1280, 1, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, num_classes) logits."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


def metapruning(name: str, *, num_classes: int = 1000, in_channels: int = 3, image_size: int = 224) -> GeneNetwork:
    """One of MetaPruning's networks with fresh random weights (torch's global generator), traced.

    Args:
        name: `"mobilenet_v1"`: 13 genes, those of the stem and of the outputs of 12 blocks; the last block keeps its
            width. `"mobilenet_v2"`, 1.4 times as wide: 18 genes of the outputs of stem and blocks, equal within a
            stage, then 17 of the expansions; the last convolution keeps its width. `"resnet50"`: the stem, the outputs
            of three stages, then one per block for both inner convolutions; the last stage keeps its width.
        num_classes: Outputs.
        in_channels: Channels of the images.
        image_size: Height and width of the images.

    Raises:
        ValueError: No network has this name.
    """
    make: Callable[..., tuple[nn.Module, tuple[str, ...], dict[str, Any]]] = resolve(NETWORKS, name, "network")
    model, layers, rules = make(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    traced = trace(model, torch.zeros(1, in_channels, image_size, image_size), **rules)
    groups = tuple(replace(group, widths=_widths(group)) for group in traced.space.groups)
    return GeneNetwork(replace(traced, space=replace(traced.space, groups=groups)), layers)


def _mobilenet_v1(**options: Any) -> tuple[nn.Module, tuple[str, ...], dict[str, Any]]:
    *outputs, last = (f"features.{i}.conv.3" for i in range(3, 16))
    return mobilenet_v1(**options), ("features.0", *outputs), {"ignored_layers": [last]}


def _mobilenet_v2(*, image_size: int, **options: Any) -> tuple[nn.Module, tuple[str, ...], dict[str, Any]]:
    del image_size
    blocks = [f"features.{i}.conv" for i in range(3, 20)]
    layers = ("features.0", *(f"{block}.6" for block in blocks), *(f"{block}.0" for block in blocks))
    return WideMobileNetV2(**options), layers, {"ignored_layers": ["features.20"]}


def _resnet50(**options: Any) -> tuple[nn.Module, tuple[str, ...], dict[str, Any]]:
    blocks = [f"layer{stage}.{i}" for stage, (_, n) in enumerate(STAGES, 1) for i in range(n)]
    layers = ("conv1", *(f"layer{stage}.0.conv3" for stage in (1, 2, 3)), *(f"{block}.conv1" for block in blocks))
    tied = [(f"{block}.conv1", f"{block}.conv2") for block in blocks]
    return resnet50(**options), layers, {"ignored_layers": ["layer4.0.conv3"], "tied_layers": tied}


NETWORKS: Mapping[str, str] = {name: f"{__name__}:_{name}" for name in ("mobilenet_v1", "mobilenet_v2", "resnet50")}


def _widths(group: Group) -> tuple[int, ...]:
    return tuple(sorted({_width(group.width, gene) for gene in range(GENES)}))


def _width(full: int, gene: int) -> int:
    return int(full * ((10 + 3 * gene) / 100))
