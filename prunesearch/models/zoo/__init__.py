"""Networks for small images, a family a file; larger ones come from torchvision by name."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from prunesearch.registry import resolve

FAMILIES = {
    "resnet": "prunesearch.models.zoo.resnet:resnet",
    "vgg": "prunesearch.models.zoo.vgg:vgg",
    "mobilenet_v1": "prunesearch.models.zoo.mobilenet:mobilenet_v1",
    "mobilenet_v2": "prunesearch.models.zoo.mobilenet:mobilenet_v2",
    "densenet": "prunesearch.models.zoo.densenet:densenet",
    "mlp": "prunesearch.models.zoo.mlp:mlp",
}
