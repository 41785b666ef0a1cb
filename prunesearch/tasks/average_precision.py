"""Mean average precision of boxes, as COCO counts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

THRESHOLDS = torch.from_numpy(np.linspace(0.5, 0.95, 10))  # numpy's, to the last bit: a box of exactly 0.6 counts
"""Intersections over union from which on a box counts as found."""
_RECALLS = torch.from_numpy(np.linspace(0, 1, 101))
_MOST = 100
"""Boxes of one image that count: those with the highest scores."""


class BoxAveragePrecision:
    """The mean over classes that occur, and over ten thresholds, of the average precision.

    Source: Lin et al., Microsoft COCO, ECCV 2014, arXiv:1405.0312, and the rules of its evaluation: in the order of
    their scores, boxes of an image take the box of the truth that they overlap most and that none took before;
    precision is read at 101 recalls. Departs from it: no box of the truth stands for a crowd, and boxes count whatever
    their size.
    """

    higher_is_better = True

    def __init__(self) -> None:
        self._scores: dict[int, list[Tensor]] = {}
        self._right: dict[int, list[Tensor]] = {}
        self._wanted: dict[int, int] = {}

    def update(self, found: Sequence[dict[str, Tensor]], wanted: Sequence[dict[str, Tensor]]) -> None:
        """Take in some images.

        Args:
            found: Of each image `boxes`, (k, 4) left, top, right and bottom, with `labels` and `scores`, (k,).
            wanted: Of each image `boxes` and `labels`.
        """
        for own, truth in zip(found, wanted, strict=True):
            self._take(*(_on_cpu(own, "boxes", "labels", "scores")), *(_on_cpu(truth, "boxes", "labels")))

    def compute(self) -> float:
        """The mean; 0 without any box to be found."""
        each = [self._of_class(label, n) for label, n in self._wanted.items()]
        return float(torch.stack(each).mean()) if each else 0.0

    def _take(self, boxes: Tensor, labels: Tensor, scores: Tensor, wanted: Tensor, classes: Tensor) -> None:
        for label in torch.unique(torch.cat([labels, classes])).tolist():
            mine = (labels == label).nonzero()[:, 0]
            mine = mine[scores[mine].argsort(descending=True, stable=True)][:_MOST]
            truth = wanted[classes == label]
            self._scores.setdefault(label, []).append(scores[mine])
            self._right.setdefault(label, []).append(_matched(_overlaps(boxes[mine], truth)))
            if len(truth):
                self._wanted[label] = self._wanted.get(label, 0) + len(truth)

    def _of_class(self, label: int, wanted: int) -> Tensor:
        order = torch.cat(self._scores[label]).argsort(descending=True, stable=True)
        right = torch.cat(self._right[label])[order].double()  # (k, thresholds)
        if not len(right):
            return torch.zeros((), dtype=torch.float64)
        recall = right.cumsum(0) / wanted
        precision = right.cumsum(0) / torch.arange(1, len(right) + 1, dtype=torch.float64)[:, None]
        precision = precision.flip(0).cummax(0).values.flip(0)  # the best at this recall or a higher one
        at = torch.searchsorted(recall.T.contiguous(), _RECALLS.expand(recall.shape[1], -1).contiguous())
        padded = torch.cat([precision, torch.zeros(1, precision.shape[1], dtype=torch.float64)])
        return padded.T.gather(1, at).mean()


def _on_cpu(said: dict[str, Any], *names: str) -> list[Tensor]:
    return [said[name].detach().cpu() for name in names]


def _overlaps(a: Tensor, b: Tensor) -> Tensor:
    """(len(a), len(b)) intersections over union of boxes."""
    a, b = a.double(), b.double()
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clamp(min=0).prod(2)
    sizes = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    return both / (sizes[0][:, None] + sizes[1][None] - both).clamp(min=1e-12)


def _matched(overlaps: Tensor) -> Tensor:
    """(boxes, thresholds) which of some boxes, best first, find one of the truth that is not yet found."""
    n, truth = overlaps.shape
    right = torch.zeros(n, len(THRESHOLDS), dtype=torch.bool)
    for index, threshold in enumerate(THRESHOLDS.tolist()):
        free = torch.ones(truth, dtype=torch.bool)
        for box in range(n):
            best = torch.where(free, overlaps[box], -1.0)
            if truth and float(best.max()) >= min(threshold, 1 - 1e-10):
                right[box, index] = True
                free[int(best.argmax())] = False
    return right
