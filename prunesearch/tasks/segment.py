"""A class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesearch.models.nested import Batch
from prunesearch.ranges import whole_number
from prunesearch.tasks.outputs import described, main_name, main_output, named_outputs
from prunesearch.tasks.task import Task, targets_of

_AUXILIARY = 0.5


def segmentation(*, ignore_index: int = 255) -> Task:
    """Batches are (images, masks), with (n, h, w) class indices; networks return (n, classes, h', w') logits.

    They may be in a mapping as `"out"` or `"logits"`, with such of an auxiliary head as `"aux"`, which training counts
    half, as torchvision's reference does. Logits of another size than the masks are scaled to it. Scored by the
    cross-entropy of the pixels, judged by the mean intersection over union of the classes that occur.

    Args:
        ignore_index: Class of pixels that do not count.
    """
    whole_number("ignore_index", ignore_index, at_least=-(2**31))
    return Task(
        loss=_PixelLoss(ignore_index),
        metric=_MeanIoUOf(ignore_index),
        metric_name="mIoU",
        predictions=predicted_classes,
        distil=pixel_divergence,
        agreement=same_pixels,
        training_loss=_TrainingLoss(ignore_index),
        check=_Check(ignore_index),
        name="segmentation",
    )


@dataclass(frozen=True)
class _PixelLoss:
    """(n,) mean cross-entropies over the pixels of an image that count; 0 if none does."""

    ignore_index: int

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        masks = batch[1].long()
        logits = _scaled(main_output(outputs), masks)
        losses = F.cross_entropy(logits, masks, ignore_index=self.ignore_index, reduction="none")
        counts = (masks != self.ignore_index).flatten(1).sum(1).clamp(min=1)
        return losses.flatten(1).sum(1) / counts


@dataclass(frozen=True)
class _TrainingLoss:
    """The mean over all pixels that count, 0 if none does, and half of it for each auxiliary head."""

    ignore_index: int

    def __call__(self, returned: Any, batch: Batch, label_smoothing: float) -> Tensor:
        masks = batch[1].long()
        main, found = main_name(returned), named_outputs(returned)
        heads = {name: value for name, value in found.items() if isinstance(value, Tensor) and value.dim() == 4}
        counted = (masks != self.ignore_index).sum().clamp(min=1)  # no pixel may count in a whole batch
        losses = {
            name: self._summed(_scaled(logits, masks), masks, label_smoothing) / counted
            for name, logits in heads.items()
        }
        if main not in losses:
            raise ValueError(f"Expected (n, classes, h, w) logits; the network returned {described(returned)}.")
        return losses.pop(main) + _AUXILIARY * sum(losses.values())

    def _summed(self, logits: Tensor, masks: Tensor, label_smoothing: float) -> Tensor:
        return F.cross_entropy(
            logits, masks, ignore_index=self.ignore_index, label_smoothing=label_smoothing, reduction="sum"
        )


@dataclass(frozen=True)
class _Check:
    ignore_index: int

    def __call__(self, outputs: Any, batch: Batch) -> None:
        advice = "Make each a tensor; masks of images of one size must have one size, too."
        logits, masks = main_output(outputs), targets_of(batch, "a mask (h, w) of class indices", advice)
        if logits.dim() != 4:
            raise ValueError(f"Expected (n, classes, h, w) logits; the network returned {described(outputs)}.")
        if logits.shape[1] == 1:
            raise ValueError(
                f"Expected a logit for each class of a pixel, two or more; the network returned {described(outputs)}. "
                "Give it a channel for each class, also for the background, or give Data(task=ps.Task(loss=..., "
                "metric=...)) with a binary loss, such as F.binary_cross_entropy_with_logits."
            )
        if masks.dim() != 3 or masks.is_floating_point():
            raise ValueError(f"Expected masks of class indices, (n, h, w); got {tuple(masks.shape)} and {masks.dtype}.")
        known = masks[masks != self.ignore_index]
        if len(known) and not 0 <= int(known.min()) <= int(known.max()) < logits.shape[1]:
            raise ValueError(
                f"Expected classes from 0 to {logits.shape[1] - 1}, or {self.ignore_index} for pixels that do not "
                f"count; got {int(known.min())} to {int(known.max())}. Give segmentation(ignore_index=...)."
            )


def predicted_classes(outputs: Any) -> Tensor:
    """(n, h, w) class indices, in the size of the logits."""
    return main_output(outputs).argmax(1)


def pixel_divergence(outputs: Any, teacher: Any, temperature: float) -> Tensor:
    """(n,) divergences of the logits of pixels from a teacher's, softened; mean over pixels, times temperature^2."""
    soft = F.log_softmax(main_output(teacher) / temperature, dim=1)
    guess = F.log_softmax(main_output(outputs) / temperature, dim=1)
    divergence = F.kl_div(guess, soft, reduction="none", log_target=True).sum(1)
    return temperature**2 * divergence.flatten(1).mean(1)


def same_pixels(outputs: Any, reference: Any) -> Tensor:
    """(n,) shares of the pixels of which two networks say the same class."""
    return (predicted_classes(outputs) == predicted_classes(reference)).float().flatten(1).mean(1)


@dataclass(frozen=True)
class _MeanIoUOf:
    ignore_index: int

    def __call__(self) -> MeanIoU:
        return MeanIoU(self.ignore_index)


class MeanIoU:
    """Mean over the classes that occur, in masks or answers, of intersection over union; of all pixels together.

    Args:
        ignore_index: Class of pixels that do not count.
    """

    higher_is_better = True

    def __init__(self, ignore_index: int = 255) -> None:
        self._ignore_index = ignore_index
        self._confusion: Tensor | None = None

    def update(self, outputs: Any, batch: Batch) -> None:
        """Take in logits and masks of a batch."""
        masks = batch[1].long()
        logits = _scaled(main_output(outputs), masks)
        n = logits.shape[1]
        counted = masks != self._ignore_index
        pairs = masks[counted] * n + logits.argmax(1)[counted]
        found = torch.bincount(pairs.flatten(), minlength=n * n).reshape(n, n).cpu()
        self._confusion = found if self._confusion is None else self._confusion + found

    def compute(self) -> float:
        """The mean; 0 if no pixel counts."""
        assert self._confusion is not None  # computed after updates only
        both = self._confusion.diagonal().double()
        either = self._confusion.sum(0) + self._confusion.sum(1) - both
        return float((both / either)[either > 0].mean()) if bool((either > 0).any()) else 0.0


def _scaled(logits: Tensor, masks: Tensor) -> Tensor:
    """Logits in the size of the masks."""
    if logits.shape[2:] == masks.shape[1:]:
        return logits
    return F.interpolate(logits, size=masks.shape[1:], mode="bilinear", align_corners=False)
