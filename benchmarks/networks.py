"""The networks of recovery.py: on which images, how their weights come about, and which arms cannot prune them.

Another network takes part by one entry in `NETWORKS`; its title in tables stands in `tabulated/recovery.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import realdata
from torch import nn

import prunesearch as ps
from prunesearch.models.zoo.mobilenet import InvertedResidual, mobilenet_v2
from prunesearch.models.zoo.vgg import VGG

CHANGED_AT_RANDOM = ps.Augmentation(flip=True, crop=4)
"""Training images of all networks and arms."""

ADAPTED = ps.Recipe(epochs=3, lr=0.02, weight_decay=1e-4, warmup=0.0, augmentation=CHANGED_AT_RANDOM)
"""Of public weights, which were trained on the original images and lose accuracy on compressed ones."""

FROM_SCRATCH = ps.Recipe(epochs=10, lr=0.1, augmentation=CHANGED_AT_RANDOM, from_scratch=True)


@dataclass(frozen=True)
class Subject:
    """A network that is pruned.

    Attributes:
        make: The network without its weights.
        data: Its images, of the folder of data and one where decoded images are kept.
        recipe: The training that its weights come from. All arms have its size of batches.
        public: The network with public weights, which the recipe goes on from, of the folder of data; None where it
            draws random ones.
        left_out: Arms that the network does not have, and why.
    """

    make: Callable[[], nn.Module]
    data: Callable[[Path, Path], realdata.Parts] = realdata.cifar10
    recipe: ps.Recipe = FROM_SCRATCH
    public: Callable[[Path], nn.Module] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def start(self, root: Path) -> nn.Module:
        """What the recipe trains."""
        return self.make() if self.public is None else self.public(root)


def thin_mobilenet() -> nn.Module:
    """The zoo's MobileNetV2 at 0.35 of its width, whose first block halves the images.

    In the zoo small images keep their size up to the third stage. An epoch then takes three times as long.
    """
    model = mobilenet_v2(width=0.35)
    (first, *_) = (block for block in model.features if isinstance(block, InvertedResidual))
    (filters,) = (layer for layer in first.conv if isinstance(layer, nn.Conv2d) and layer.groups > 1)
    filters.stride = (2, 2)
    return model


_BROKEN = "Torch-Pruning builds networks that do not run where shortcuts have no parameters."
_LONG = "it is not known here how long the public weights were trained."
_PUBLIC = {"torch-pruning-taylor": _BROKEN, "torch-pruning-norm": _BROKEN, "sibling": _LONG}

_FAILS = "ModelOpt 0.47 fails (IndexError) on depthwise convolutions, with steps of widths as small as here."

NETWORKS: Mapping[str, Subject] = {
    "resnet20": Subject(
        partial(ps.make_model, "resnet20"),
        recipe=ADAPTED,
        public=partial(realdata.public_resnet, 20),
        left_out=_PUBLIC,
    ),
    "resnet56": Subject(
        partial(ps.make_model, "resnet56"),
        recipe=ADAPTED,
        public=partial(realdata.public_resnet, 56),
        left_out=_PUBLIC,
    ),
    "mobilenet_v2": Subject(thin_mobilenet, left_out={"fastnas": _FAILS, "fastnas-taught": _FAILS}),
    "vgg": Subject(partial(VGG, 16, width=0.25)),
    "resnet20-fashion": Subject(
        partial(ps.make_model, "resnet20b", in_channels=1, image_size=28), realdata.fashion_mnist
    ),
}
"""By name. The ResNet of Fashion-MNIST has projections as shortcuts."""
