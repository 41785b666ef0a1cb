"""Detectors of torchvision: from a detector and its data to what a search needs, and back to a detector."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from prunesearch.contracts import kind_of
from prunesearch.models.copying import copied
from prunesearch.models.isolation import as_found
from prunesearch.ranges import whole_number
from prunesearch.tasks.detect import DenseOutputs, as_batch, as_target, pixels, several_sizes, torchvision_task
from prunesearch.training.data import Data

_PARTS = ("transform", "backbone")


@dataclass(frozen=True, eq=False)
class DetectionTask:
    """A detector of torchvision with its data, ready for `trace` and `search`.

    Attributes:
        model: What of the detector can be pruned (`tasks.detect.DenseOutputs`), of a copy of it. `model.detector` is
            the whole, and so is `result.best.build().detector`.
        example_inputs: (2, 3, h, w) images as the detector's transform makes them.
        data: Training images, and those to test with.
    """

    model: DenseOutputs
    example_inputs: Tensor
    data: Data


def torchvision_detection(
    detector: nn.Module, train: Any, *, test: Any = None, calibration: int = 64, seed: int = 0
) -> DetectionTask:
    """A detector of torchvision (SSD, SSDlite, RetinaNet, FCOS, Faster R-CNN), and its data, for a search.

    The loss is the sum of the detector's own losses, the metric the mean average precision as COCO counts it, in images
    as the detector's transform makes them, which must give all of them one size. Of a detector of two stages the second
    stays whole.

    Args:
        detector: Trained; it is not changed.
        train: A `Dataset`, or a list, of (image, target) as torchvision's own training takes them: (3, h, w) floats in
            [0, 1], and a dictionary of `boxes` (k, 4), left, top, right and bottom in pixels, and `labels` (k,), from
            1. All of them are read once.
        test: The same to test with.
        calibration: How many training images score structures and re-estimate BatchNorm statistics.
        seed: Decides which.

    Raises:
        TypeError: It is no detector of torchvision.
        ValueError: There are no images, or no boxes; labels are no classes of the detector; or the transform gives
            images of several sizes.
    """
    if not all(isinstance(getattr(detector, part, None), nn.Module) for part in _PARTS):
        raise TypeError(
            f"Expected a detector of torchvision, such as ssdlite320_mobilenet_v3_large, got {kind_of(detector)}."
        )
    whole_number("calibration", calibration, at_least=1)
    own: Any = copied(detector).eval()
    given = {"train": train, **({} if test is None else {"test": test})}
    size = _size_of(given, own)
    sources: dict[str, Any] = {
        name: DataLoader(Subset(items, range(len(items))), collate_fn=as_batch(own)) for name, items in given.items()
    }
    images = sources["train"].collate_fn([train[i] for i in range(min(2, len(train)))])["images"]
    model = DenseOutputs(own).eval()
    task = torchvision_task(own, size, _maps(own, images))
    data = Data(**sources, calibration=calibration, seed=seed, task=task)
    return DetectionTask(model, images, data)


def _size_of(given: Mapping[str, Any], detector: Any) -> tuple[int, int]:
    """Height and width of all images after the detector's transform, padding included.

    Raises:
        ValueError: Some items cannot be used, or the sizes differ.
    """

    @functools.cache
    def fitted(shape: tuple[int, ...]) -> tuple[int, int]:
        images, _ = detector.transform([torch.empty(shape, device="meta")])  # sizes alone, no values
        return images.tensors.shape[2], images.tensors.shape[3]

    found: dict[tuple[int, int], str] = {}
    for name, items in given.items():
        for index, shape in enumerate(_shapes(name, items, _classes_of(detector))):
            size = fitted(shape)
            found.setdefault(size, f"{pixels(size)} (item {index} of {name})")
            if len(found) > 1:
                raise ValueError(several_sizes(*found.values()))
    return next(iter(found))


def _shapes(name: str, items: Any, classes: int | None) -> Iterator[tuple[int, ...]]:
    """The shape of each image, all items looked at.

    Raises:
        ValueError: There are none, or none with boxes; or one is not as it should be.
    """
    n, boxes = len(items), 0
    if not n:
        raise ValueError(f"Expected images in {name}, got none.")
    for index in range(n):
        item = items[index]
        if not (isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[1], Mapping)):
            raise ValueError(f"Expected items of {name} as (image, target), got {kind_of(item)}.")
        image, target = item
        missing = [part for part in ("boxes", "labels") if part not in target]
        if missing:
            raise ValueError(f"Expected targets of {name} with boxes and labels, got {', '.join(target) or 'nothing'}.")
        if not (isinstance(image, Tensor) and image.dim() == 3 and image.is_floating_point()):
            got = f"{tuple(image.shape)} {image.dtype}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
            raise ValueError(
                f"Expected images of {name} as (3, h, w) floats in [0, 1], got {got} as item {index}. Convert images, "
                "as by torchvision.transforms.functional.to_tensor."
            )
        boxes += _checked_boxes(f"item {index} of {name}", target, classes)
        yield tuple(image.shape)
    if not boxes:
        raise ValueError(f"Expected targets of {name} with boxes, found none in {n} images.")


def _checked_boxes(where: str, target: Mapping[str, Any], classes: int | None) -> int:
    """How many boxes a target has.

    Raises:
        ValueError: There is not a label for each, or it is no class of the detector.
    """
    try:
        found = as_target(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected boxes (k, 4) and labels (k,) of numbers, got others in {where} ({error}). Make each a tensor, "
            "such as torch.tensor([[left, top, right, bottom]]) and torch.tensor([1])."
        ) from error
    labels = found["labels"]
    if len(labels) != len(found["boxes"]):
        raise ValueError(
            f"Expected a label for each box, got {len(found['boxes'])} boxes and {len(labels)} labels in {where}."
        )
    odd = (labels < 1) if classes is None else (labels < 1) | (labels >= classes)
    if bool(odd.any()):
        known = "of 1 and more" if classes is None else f"from 1 to {classes - 1}, the detector's classes"
        raise ValueError(
            f"Expected labels {known} (0 is the background), got {int(labels[odd][0])} in {where}. Number the classes "
            "from 1, or give a detector with as many classes as there are, and the background."
        )
    return len(labels)


def _classes_of(detector: Any) -> int | None:
    """How many classes it tells apart, with the background; None where a second stage of another kind does not say."""
    if hasattr(detector, "rpn"):
        return getattr(getattr(detector.roi_heads.box_predictor, "cls_score", None), "out_features", None)
    head = getattr(getattr(detector, "head", None), "classification_head", None)
    return getattr(head, "num_classes", getattr(head, "num_columns", None))


def _maps(detector: Any, images: Tensor) -> list[tuple[int, int]]:
    """Height and width of each map of features."""
    with as_found(detector), torch.no_grad():
        features = detector.backbone(images)
    maps = [features] if isinstance(features, Tensor) else list(features.values())
    return [(each.shape[2], each.shape[3]) for each in maps]
