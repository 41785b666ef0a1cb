"""Detectors of torchvision: from a detector and its data to what a search needs, and back to a detector."""

from __future__ import annotations

import functools
import warnings
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
from prunesearch.tasks.detect import (
    DenseOutputs,
    as_batch,
    as_target,
    learnt_besides,
    pixels,
    several_sizes,
    torchvision_task,
)
from prunesearch.training.data import Data

_PARTS = ("transform", "backbone")
_ROUNDED = 1e-3
"""How far an image may leave [0, 1] by rounding."""
_SHAPES = {"boxes": "(k, 4)", "labels": "(k,)", "masks": "(k, h, w)", "keypoints": "(k, points, 3)"}


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
    """A detector of torchvision, and its data, for a search.

    SSD, SSDlite, RetinaNet, FCOS, and Faster, Mask and Keypoint R-CNN are known.

    The loss is the sum of the detector's own losses, the metric the mean average precision of boxes as COCO counts it,
    in images as the detector's transform makes them, which must give all of them one size. Of a detector of two stages
    the second stays whole. A warning says where boxes or images look as if they had another scale.

    Args:
        detector: Trained; it is not changed.
        train: A `Dataset`, or a list, of (image, target) as torchvision's own training takes them: (3, h, w) floats in
            [0, 1], and a dictionary of `boxes` (k, 4), left, top, right and bottom in pixels, and `labels` (k,), from
            1; for Mask R-CNN also `masks` (k, h, w), for Keypoint R-CNN `keypoints` (k, points, 3). All of them are
            read once.
        test: The same to test with.
        calibration: How many training images score structures and re-estimate BatchNorm statistics.
        seed: Decides which.

    Raises:
        TypeError: It is no detector of torchvision.
        ValueError: There are no images, or no boxes, or such without a size; masks or keypoints are missing; labels are
            no classes of the detector; or the transform gives images of several sizes.
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
        for index, shape in enumerate(_shapes(name, items, detector)):
            size = fitted(shape)
            found.setdefault(size, f"{pixels(size)} (item {index} of {name})")
            if len(found) > 1:
                raise ValueError(several_sizes(*found.values()))
    return next(iter(found))


def _shapes(name: str, items: Any, detector: Any) -> Iterator[tuple[int, ...]]:
    """The shape of each image, all items looked at. Warnings say what may be another scale than is meant.

    Raises:
        ValueError: There are none, or none with boxes; or one is not as it should be.
    """
    n, seen, besides = len(items), _Seen(), learnt_besides(detector)
    if not n:
        raise ValueError(f"Expected images in {name}, got none.")
    for index in range(n):
        item = items[index]
        if not (isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[1], Mapping)):
            raise ValueError(f"Expected items of {name} as (image, target), got {kind_of(item)}.")
        image, target = item
        wanted = ("boxes", "labels", *besides)
        if any(part not in target for part in wanted):
            raise ValueError(
                f"Expected targets of {name} with {', '.join(wanted[:-1])} and {wanted[-1]}, which a "
                f"{type(detector).__name__} learns, got {', '.join(target) or 'nothing'} in item {index}."
            )
        if not (isinstance(image, Tensor) and image.dim() == 3 and image.numel() and image.is_floating_point()):
            got = f"{tuple(image.shape)} {image.dtype}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
            raise ValueError(
                f"Expected images of {name} as (3, h, w) floats in [0, 1], got {got} as item {index}. Convert images, "
                "as by torchvision.transforms.functional.to_tensor."
            )
        where = f"item {index} of {name}"
        seen.note(where, image, _checked_boxes(where, target, image, detector))
        yield tuple(image.shape)
    if not seen.boxes:
        raise ValueError(f"Expected targets of {name} with boxes, found none in {n} images.")
    for said in seen.doubts(name):
        warnings.warn(said, stacklevel=4)


class _Seen:
    """What all images of a source, and their boxes, are like.

    Attributes:
        boxes: How many there are.
    """

    def __init__(self) -> None:
        self.boxes = 0
        self._largest = 0.0  # of all coordinates
        self._outside = self._bright = ""  # the first of such images

    def note(self, where: str, image: Tensor, boxes: Tensor) -> None:
        """Take in an image (3, h, w) and its boxes (k, 4)."""
        low, high = (float(each) for each in image.aminmax())
        if not (low >= -_ROUNDED and high <= 1 + _ROUNDED):
            self._bright = self._bright or f"{low:.4g} to {high:.4g} in {where}"
        if not len(boxes):
            return
        self.boxes += len(boxes)
        self._largest = max(self._largest, float(boxes.max()))
        beyond = (boxes < -1) | (boxes > boxes.new_tensor([image.shape[2], image.shape[1]] * 2) + 1)  # one is rounding
        if bool(beyond.any()):
            box = boxes[beyond.any(1)][0].tolist()
            self._outside = self._outside or f"{box} in {where}, of {pixels((image.shape[1], image.shape[2]))}"

    def doubts(self, name: str) -> Iterator[str]:
        """A sentence for each matter that may be another scale than is meant."""
        if self._bright:
            yield f"Expected images with values in [0, 1], got {self._bright}. The detector itself normalises them."
        if self._largest <= 1:
            yield (
                f"All boxes of {name} lie within 1 pixel of the corner. If they are shares of the image, multiply them "
                "by its width and height."
            )
        if self._outside:
            yield (
                f"Expected boxes within the image, got {self._outside}. They are left, top, right, bottom in pixels "
                "of the image as it is given."
            )


def _checked_boxes(where: str, target: Mapping[str, Any], image: Tensor, detector: Any) -> Tensor:
    """(k, 4) boxes of a target.

    Raises:
        ValueError: They have no size; there is not a label, a mask or keypoints for each; or a label is no class of the
            detector.
    """
    besides = learnt_besides(detector)
    try:
        found = as_target(target, besides)
    except (TypeError, ValueError, RuntimeError) as error:
        wanted = " and ".join(f"{name} {_SHAPES[name]}" for name in ("boxes", "labels", *besides))
        raise ValueError(
            f"Expected {wanted} of numbers, got others in {where} ({error}). Make each a tensor, such as "
            "torch.tensor([[left, top, right, bottom]]) and torch.tensor([1])."
        ) from error
    boxes, classes = found["boxes"], _classes_of(detector)
    labels = found["labels"]
    if len(labels) != len(boxes):
        raise ValueError(f"Expected a label for each box, got {len(boxes)} boxes and {len(labels)} labels in {where}.")
    without = ~(boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1))
    if bool(without.any()):
        raise ValueError(
            f"Expected boxes whose right and bottom are beyond their left and top, got {boxes[without][0].tolist()} in "
            f"{where}. Boxes are left, top, right, bottom, not width and height."
        )
    for name, shape in _shapes_besides(detector, len(boxes), image).items():
        got = tuple(found[name].shape)
        if len(got) != 3 or any(size not in (None, own) for size, own in zip(shape, got, strict=True)):
            wanted = ", ".join("points" if size is None else str(size) for size in shape)
            raise ValueError(f"Expected {name} ({wanted}) for {len(boxes)} boxes, got {got} in {where}.")
    odd = (labels < 1) if classes is None else (labels < 1) | (labels >= classes)
    if bool(odd.any()):
        known = "of 1 and more" if classes is None else f"from 1 to {classes - 1}, the detector's classes"
        raise ValueError(
            f"Expected labels {known} (0 is the background), got {int(labels[odd][0])} in {where}. Number the classes "
            "from 1, or give a detector with as many classes as there are, and the background."
        )
    return boxes


def _shapes_besides(detector: Any, boxes: int, image: Tensor) -> dict[str, tuple[int | None, ...]]:
    """Of what the detector learns besides boxes; None where it does not say how many keypoints it finds."""
    heads = getattr(detector, "roi_heads", None)
    points = getattr(getattr(heads, "keypoint_predictor", None), "kps_score_lowres", None)
    shapes = {"masks": (boxes, *image.shape[1:]), "keypoints": (boxes, getattr(points, "out_channels", None), 3)}
    return {name: shapes[name] for name in learnt_besides(detector)}


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
