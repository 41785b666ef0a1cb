"""Small detectors of torchvision's classes, and squares that they are to find."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

SIZE = 32


class Backbone(nn.Sequential):
    """One map of features."""

    def __init__(self, channels: int = 16) -> None:
        widths, layers = (3, 12, 24, channels), []
        for i, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, after, 3, 2 if i < 2 else 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers)
        self.out_channels = channels


class Two(nn.Module):
    """Two maps of features, as SSD takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Backbone(), nn.Conv2d(16, 20, 3, 2, 1)
        self.out_channels = [16, 20]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.first(images)
        return {"0": features, "1": self.second(features)}


def retinanet() -> nn.Module:
    return RetinaNet(Backbone(), 3, anchor_generator=_anchors(((8, 12, 16),)), min_size=SIZE, max_size=SIZE)


def fcos() -> nn.Module:
    return FCOS(Backbone(32), 3, anchor_generator=_anchors(((8,),), ((1.0,),)), min_size=SIZE, max_size=SIZE)


def ssd() -> nn.Module:
    anchors = DefaultBoxGenerator([[2], [2]], min_ratio=30, max_ratio=60)
    return SSD(Two(), anchors, (SIZE, SIZE), 3)


def faster_rcnn() -> nn.Module:
    return FasterRCNN(Backbone(), **_two_stages())


def mask_rcnn() -> nn.Module:
    heads = {"mask_head": MaskRCNNHeads(16, (8,), 1), "mask_predictor": MaskRCNNPredictor(8, 8, 3)}
    return MaskRCNN(Backbone(), mask_roi_pool=_pool(6), **heads, **_two_stages())


def keypoint_rcnn() -> nn.Module:
    heads = {"keypoint_head": KeypointRCNNHeads(16, (8,)), "keypoint_predictor": KeypointRCNNPredictor(8, 2)}
    return KeypointRCNN(Backbone(), keypoint_roi_pool=_pool(6), **heads, **_two_stages())


DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "retinanet": retinanet,
    "fcos": fcos,
    "ssd": ssd,
    "faster_rcnn": faster_rcnn,
    "mask_rcnn": mask_rcnn,
    "keypoint_rcnn": keypoint_rcnn,
}


def _two_stages() -> dict[str, Any]:
    anchors = _anchors(((8, 12, 16),))
    boxes = {"box_roi_pool": _pool(3), "box_head": TwoMLPHead(16 * 9, 32), "box_predictor": FastRCNNPredictor(32, 3)}
    return {"min_size": SIZE, "max_size": SIZE, "rpn_anchor_generator": anchors, **boxes}


def _pool(size: int) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(featmap_names=["0"], output_size=size, sampling_ratio=2)


def _anchors(sizes: Any, ratios: Any = ((0.7, 1.0, 1.4),)) -> AnchorGenerator:
    return AnchorGenerator(sizes, ratios)


def squares(n: int, seed: int = 0) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Images with one or two squares of two colours, their masks, and two corners of each as keypoints."""
    draws = torch.Generator().manual_seed(seed)
    found = []
    for i in range(n):
        image, boxes, labels = torch.rand(3, SIZE, SIZE, generator=draws) * 0.3, [], []
        for corner in (2, 17)[: 1 + i % 2]:
            width, kind = int(torch.randint(9, 14, (1,), generator=draws)), int(torch.randint(2, (1,), generator=draws))
            colour = torch.tensor([(0.9, 0.3, 0.1), (0.1, 0.4, 0.9)][kind])
            image[:, corner : corner + width, corner : corner + width] = colour[:, None, None]
            boxes.append([corner, corner, corner + width, corner + width])
            labels.append(1 + kind)
        corners = torch.tensor(boxes).float()
        masks = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top:bottom, left:right] = 1
        points = torch.cat([corners.reshape(-1, 2, 2), torch.ones(len(boxes), 2, 1)], 2)
        target = {"boxes": corners, "labels": torch.tensor(labels), "masks": masks, "keypoints": points}
        found.append((image, target))
    return found
