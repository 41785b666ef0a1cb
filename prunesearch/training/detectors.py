"""Detectors of torchvision: from a detector and its data to what a search needs, and back to a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from prunesearch.contracts import kind_of
from prunesearch.models.copying import copied
from prunesearch.models.isolation import in_eval_mode
from prunesearch.ranges import whole_number
from prunesearch.tasks.detect import DenseOutputs, as_batch, torchvision_task
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
            1.
        test: The same to test with.
        calibration: How many training images score structures and re-estimate BatchNorm statistics.
        seed: Decides which.

    Raises:
        TypeError: It is no detector of torchvision.
        ValueError: There are no images, or no boxes; or the transform gives images of several sizes.
    """
    if not all(isinstance(getattr(detector, part, None), nn.Module) for part in _PARTS):
        raise TypeError(
            f"Expected a detector of torchvision, such as ssdlite320_mobilenet_v3_large, got {kind_of(detector)}."
        )
    whole_number("calibration", calibration, at_least=1)
    own: Any = copied(detector).eval()
    given = {"train": train, **({} if test is None else {"test": test})}
    sources = {name: _source(name, items, own) for name, items in given.items()}
    images = sources["train"].collate_fn([train[i] for i in range(min(2, len(train)))])["images"]
    model = DenseOutputs(own).eval()
    task = torchvision_task(own, _sizes(own, images))
    data = Data(**sources, calibration=calibration, seed=seed, task=task)
    return DetectionTask(model, images, data)


def _source(name: str, items: Any, detector: Any) -> DataLoader[Any]:
    n = len(items)
    if not n:
        raise ValueError(f"Expected images in {name}, got none.")
    first = items[0]
    if not (isinstance(first, (tuple, list)) and len(first) == 2 and isinstance(first[1], Mapping)):
        raise ValueError(f"Expected items of {name} as (image, target), got {kind_of(first)}.")
    missing = [part for part in ("boxes", "labels") if part not in first[1]]
    if missing:
        raise ValueError(f"Expected targets of {name} with boxes and labels, got {', '.join(first[1]) or 'nothing'}.")
    if not any(len(items[i][1]["boxes"]) for i in range(n)):
        raise ValueError(f"Expected targets of {name} with boxes, found none in {n} images.")
    return DataLoader(Subset(items, range(n)), collate_fn=as_batch(detector))


def _sizes(detector: Any, images: Tensor) -> list[tuple[int, int]]:
    """Height and width of each map of features."""
    with in_eval_mode(detector), torch.no_grad():
        features = detector.backbone(images)
    maps = [features] if isinstance(features, Tensor) else list(features.values())
    return [(each.shape[2], each.shape[3]) for each in maps]
