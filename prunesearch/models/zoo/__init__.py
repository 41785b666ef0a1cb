"""Networks for small images, a family a file; larger ones come from torchvision by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunesearch.ranges import whole_number
from prunesearch.registry import resolve

if TYPE_CHECKING:
    from torch import nn

FAMILIES: Mapping[str, str] = {
    "resnet": "prunesearch.models.zoo.resnet:resnet",
    "vgg": "prunesearch.models.zoo.vgg:vgg",
    "mobilenet_v1": "prunesearch.models.zoo.mobilenet:mobilenet_v1",
    "mobilenet_v2": "prunesearch.models.zoo.mobilenet:mobilenet_v2",
    "densenet": "prunesearch.models.zoo.densenet:densenet",
    "mlp": "prunesearch.models.zoo.mlp:mlp",
}

_VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{f"resnet{depth}": ("resnet", {"depth": depth}) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}b": ("resnet", {"depth": depth, "shortcut": "B"}) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"vgg{depth}": ("vgg", {"depth": depth}) for depth in (11, 13, 16, 19)},
    "mobilenet_v1": ("mobilenet_v1", {}),
    "mobilenet_v2": ("mobilenet_v2", {}),
    "densenet40": ("densenet", {"depth": 40}),
    "densenet100": ("densenet", {"depth": 100}),
    "mlp": ("mlp", {}),
}

ZOO: Mapping[str, str] = {name: FAMILIES[family] for name, (family, _) in _VARIANTS.items()}
"""Every named network of the zoo; `resnet20` has the parameter-free shortcut "A", `resnet20b` the projection "B"."""


def make_model(name: str, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """Build a zoo network with fresh random weights (torch's global generator).

    Args:
        name: One of `ZOO`.
        num_classes: Outputs.
        in_channels: Channels of the images.
        image_size: Height and width of the images.

    Raises:
        ValueError: No network has this name, or a number is below 1.
        TypeError: A number is no whole one.
    """
    for what, value in (("num_classes", num_classes), ("in_channels", in_channels), ("image_size", image_size)):
        whole_number(what, value, at_least=1)
    family = resolve(ZOO, name, "zoo network")
    model: nn.Module = family(
        **_VARIANTS[name][1], num_classes=num_classes, in_channels=in_channels, image_size=image_size
    )
    return model
