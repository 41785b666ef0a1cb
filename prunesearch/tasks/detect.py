"""Detectors of torchvision: trained and judged by their own code, on what a network that takes tensors returns.

A detector takes a list of images and returns boxes, as many as it finds, or in training its losses. What of it can be
pruned computes tensors: `DenseOutputs`. What is left (anchors, losses, suppression of boxes, a second stage) is the
detector's own forward, run on a copy in which those tensors stand in for the layers that made them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.models.nested import Batch, Ragged, mapped
from prunesearch.tasks.average_precision import BoxAveragePrecision
from prunesearch.tasks.task import Task


class DenseOutputs(nn.Module):
    """What a detector's layers compute of images of one size, as tensors; the detector is its only part.

    Of a detector of one stage (SSD, RetinaNet, FCOS) what its head says of each anchor, by name. Of one of two stages
    (Faster, Mask and Keypoint R-CNN) the features and what the first stage says of them; the second stays as it is.

    Args:
        detector: Of torchvision; it is not copied.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Return the outputs for (n, 3, h, w) images, normalised as the detector's own transform does."""
        detector: Any = self.detector
        features = detector.backbone(images)
        features = {"0": features} if isinstance(features, Tensor) else dict(features)
        if not hasattr(detector, "rpn"):
            return dict(detector.head(list(features.values())))
        objectness, deltas = detector.rpn.head(list(features.values()))
        return {"features": features, "objectness": list(objectness), "deltas": list(deltas)}


def torchvision_task(detector: nn.Module, size: tuple[int, int], maps: Sequence[tuple[int, int]]) -> Task:
    """The task of the `DenseOutputs` of a detector.

    Batches are dictionaries: `"images"`, (n, 3, h, w) as the detector's transform makes them, `"sizes"`, (n, 2) height
    and width of each without its padding, and `"targets"`, of each image `boxes` (k, 4) in its pixels and `labels`
    (k,). The loss is the sum of the detector's own losses; the metric
    the mean average precision that COCO counts.

    Args:
        detector: Whose losses and anchors these are.
        size: Height and width of the images, padding included.
        maps: Height and width of each map of features that its head sees.
    """
    rest = _Rest(copy.deepcopy(detector).requires_grad_(False), size, tuple(maps))  # losses train what is given alone
    return Task(
        inputs=images_of,
        loss=_Losses(rest),
        metric=_Precision(rest),
        metric_name="mAP50-95",
        name=f"torchvision-{type(detector).__name__}",
    )


def images_of(batch: Batch) -> Tensor:
    """(n, 3, h, w) what the network is called with."""
    return batch["images"]


def pixels(size: tuple[int, int]) -> str:
    """Height and width, for messages."""
    return f"{size[0]} x {size[1]} pixels"


def several_sizes(first: str, other: str) -> str:
    """The sentence about images that the transform of a detector gives two sizes."""
    return (
        f"Expected images that the detector's transform gives one size, got {first} and {other}. Give images of one "
        "shape, cropped or padded together with their boxes, to train and to test with."
    )


def learnt_besides(detector: Any) -> tuple[str, ...]:
    """What a second stage learns besides boxes and labels: `masks` (Mask R-CNN), `keypoints` (Keypoint R-CNN)."""
    heads = getattr(detector, "roi_heads", None)
    asked = {"masks": getattr(heads, "has_mask", None), "keypoints": getattr(heads, "has_keypoint", None)}
    return tuple(name for name, has in asked.items() if has is not None and has())


def as_target(target: Mapping[str, Any], besides: Sequence[str] = ()) -> dict[str, Tensor]:
    """What an image shows, as detectors take it: arrays and lists become tensors, no boxes a tensor (0, 4).

    Args:
        target: Of the user's data.
        besides: What else is learnt; see `learnt_besides`. The rest is left out.
    """
    boxes, labels = torch.as_tensor(target["boxes"]), torch.as_tensor(target["labels"])
    found = {"boxes": boxes.float().reshape(-1, 4), "labels": labels.long().reshape(-1)}
    more = {name: torch.as_tensor(target[name]) for name in besides}
    return found | {name: value if name == "masks" else value.float() for name, value in more.items()}


def as_batch(detector: Any) -> Callable[[Sequence[tuple[Tensor, Mapping[str, Any]]]], dict[str, Any]]:
    """What puts (image, target) items together: the detector's own transform fits, pads and normalises them.

    Args:
        detector: Of torchvision.
    """
    besides = learnt_besides(detector)

    def collate(items: Sequence[tuple[Tensor, Mapping[str, Any]]]) -> dict[str, Any]:
        targets = [as_target(target, besides) for _, target in items]
        images, fitted = detector.transform([image for image, _ in items], targets)
        return {"images": images.tensors, "sizes": torch.tensor(images.image_sizes), "targets": Ragged(fitted)}

    return collate


@dataclass(frozen=True)
class _Rest:
    """All of a detector but the layers whose outputs are given."""

    detector: Any
    size: tuple[int, int]
    maps: tuple[tuple[int, int], ...]

    def __call__(self, outputs: Mapping[str, Any], batch: Batch, targets: Sequence[Any] | None) -> Any:
        """The detector's losses if there are targets, else the boxes that it finds in each image."""
        images, trains = batch["images"], targets is not None
        if tuple(images.shape[2:]) != self.size:  # else anchors would be at wrong places
            raise ValueError(several_sizes(pixels(self.size), pixels(tuple(images.shape[2:]))))
        if "features" in outputs:  # of two stages
            features = dict(outputs["features"])
            stage = _with(self.detector.rpn, trains, head=_Given((outputs["objectness"], outputs["deltas"])))
            unasked = {} if trains else dict.fromkeys(("mask_roi_pool", "keypoint_roi_pool"))  # boxes alone are judged
            parts = {"rpn": stage, "roi_heads": _with(self.detector.roi_heads, trains, **unasked)}
        else:
            features = {str(i): images.new_empty(len(images), 1, *size) for i, size in enumerate(self.maps)}
            parts = {"head": _Given(dict(outputs), self.detector.head)}
        fitted = _AsGiven(batch["sizes"])
        return _with(self.detector, trains, transform=fitted, backbone=_Given(features), **parts)(images, targets)


def _with(module: Any, trains: bool, **parts: nn.Module | None) -> Any:
    """A shallow copy of a module in one mode, in which others, or none, stand for some of its parts."""
    other = copy.copy(module)
    other._modules = {**module._modules, **parts}
    other.training = trains
    return other


class _Given(nn.Module):
    """Stands for layers whose outputs are known; what else is asked of them, the layers themselves answer."""

    def __init__(self, outputs: Any, layers: Any = None) -> None:
        super().__init__()
        self._outputs, self._layers = outputs, (layers,)  # in a tuple, or it would be a part

    def forward(self, _: Any) -> Any:
        """Return what is known."""
        return self._outputs

    def compute_loss(self, *arguments: Any) -> Any:
        """Ask the head, whose matter the loss of some detectors is."""
        return self._layers[0].compute_loss(*arguments)


class _AsGiven(nn.Module):
    """Stands for a detector's transform, for images that it has been through.

    Args:
        sizes: (n, 2) heights and widths of the images. What is beyond is padding, where no box ends.
    """

    def __init__(self, sizes: Tensor) -> None:
        super().__init__()
        self._sizes = [(height, width) for height, width in sizes.tolist()]

    def forward(self, images: Tensor, targets: Any) -> tuple[Any, Any]:
        """Return both, the images as detectors take them."""
        from torchvision.models.detection.image_list import ImageList

        return ImageList(images, self._sizes), targets

    def postprocess(self, found: Any, sizes: Any, originals: Any) -> Any:
        """Return boxes as they are: what they are compared with has the same size."""
        return found


@dataclass(frozen=True)
class _Losses:
    rest: _Rest

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # a second stage draws which of its proposals it learns from
            torch.manual_seed(0)
            found = self.rest(outputs, batch, batch["targets"])
        return torch.stack([*found.values()]).sum()


@dataclass(frozen=True)
class _Precision:
    """Makes the metric."""

    rest: _Rest

    def __call__(self) -> _Measured:
        return _Measured(self.rest)


class _Measured(BoxAveragePrecision):
    """Average precision, told of outputs and batches."""

    def __init__(self, rest: _Rest) -> None:
        super().__init__()
        self._rest = rest

    def update(self, outputs: Any, batch: Any) -> None:
        """Take in what the network returned for a batch."""
        with torch.no_grad():
            found = self._rest(mapped(outputs, torch.clone), batch, None)
        super().update(found, batch["targets"])
