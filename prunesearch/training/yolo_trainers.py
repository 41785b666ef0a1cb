"""Trainers of ultralytics for pruned networks. This module needs the package; `training.yolo` imports it when asked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer


class _AsItIs:
    """A trainer that takes the network of the file as it is.

    The package's own builds one from the yaml in the file, which cannot say the widths of a pruned one, and copies the
    weights that fit. The classes below stand in this module, not in a function, so that other processes of a training
    on several devices can import them.
    """

    data: Mapping[str, Any]
    args: Any

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """A copy of the network that the file holds; see `BaseTrainer.get_model`.

        Raises:
            ValueError: There is no network with weights, or it is for another number of classes than the data.
        """
        if not isinstance(weights, nn.Module):
            raise ValueError('Expected a network to go on with: YOLO("small.pt").train(...), without pretrained=False.')
        model: Any = copy.deepcopy(weights).float()
        model.criterion = None  # made for another training
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        own = getattr(model.model[-1], "nc", None)  # of a classifier the package itself replaces the last layer
        if own is not None and own != self.data["nc"]:
            why = (
                ", as single_cls=True makes one class of all. Leave that out, or train" if self.args.single_cls else ""
            )
            raise ValueError(
                f"Expected data of the {own} classes that the pruned network is for, got {self.data['nc']}"
                f"{why or '. Train'} the unpruned network for them first, then prune it."
            )
        return model


class PrunedDetectionTrainer(_AsItIs, DetectionTrainer):
    """Trains a pruned detector as it is."""


class PrunedSegmentationTrainer(_AsItIs, SegmentationTrainer):
    """Trains a pruned segmenter of objects as it is."""


class PrunedPoseTrainer(_AsItIs, PoseTrainer):
    """Trains a pruned pose estimator as it is."""


class PrunedOBBTrainer(_AsItIs, OBBTrainer):
    """Trains a pruned detector of turned boxes as it is."""


class PrunedClassificationTrainer(_AsItIs, ClassificationTrainer):
    """Trains a pruned classifier as it is."""


TRAINERS: Mapping[str, type[Any]] = {
    "detect": PrunedDetectionTrainer,
    "segment": PrunedSegmentationTrainer,
    "pose": PrunedPoseTrainer,
    "obb": PrunedOBBTrainer,
    "classify": PrunedClassificationTrainer,
}
