"""The protocol of the papers: re-estimate BatchNorm statistics on many training images, then validate. Slow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from prunesearch.evaluators.accuracy import top1
from prunesearch.evaluators.batchnorm import adaptive_bn, precise_bn
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure


class ClassicEvaluator:
    """Accuracy of a structure's network after its BatchNorm statistics were re-estimated in a pass of their own.

    Source: Li et al., EagleEye, ECCV 2020, arXiv:2007.02491: 100 batches of 128 training images, then the accuracy on
    images held out from them. For comparison; `AccuracyEvaluator` costs a small fraction.

    Args:
        weights: Where the weights of a structure come from.
        images: (n, ...) images to score with.
        labels: (n,) class indices.
        estimate: How statistics are re-estimated, in place.
        calibration: (m, ...) images to re-estimate from, for the papers' protocol 12,800 others than `images`; None
            takes those.
        batch_size: Images per forward of the re-estimation.

    Raises:
        ValueError: No images or labels, or not one label per image.
    """

    def __init__(
        self,
        weights: WeightSource,
        images: Tensor,
        labels: Tensor | None,
        *,
        estimate: Callable[..., None] = adaptive_bn,
        calibration: Tensor | None = None,
        batch_size: int = 128,
    ) -> None:
        if labels is None or len(images) == 0 or len(labels) != len(images):
            got = "no labels" if labels is None else f"{len(labels)} labels"
            raise ValueError(f"Expected images and one label per image, got {len(images)} images and {got}.")
        self.measures = "accuracy"
        self._weights = weights
        self._images, self._labels = images, labels
        self._estimate = estimate
        self._calibration = images if calibration is None else calibration
        self._batch_size = batch_size
        self.description = (
            f"{estimate.__name__}(images={len(images)}, calibration={len(self._calibration)}, batch_size={batch_size})"
        )

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score each structure; see `Evaluator`."""
        return [self._score(self._weights.build(structure)) for structure in structures]

    def _score(self, model: nn.Module) -> float:
        self._estimate(model, self._calibration, batch_size=self._batch_size)
        return top1(model, self._images, self._labels)


def adaptive_bn_evaluator(
    weights: WeightSource, images: Tensor, labels: Tensor | None, **options: Any
) -> ClassicEvaluator:
    """EagleEye's: exponential averages, from the momentum of the layers."""
    return ClassicEvaluator(weights, images, labels, estimate=adaptive_bn, **options)


def precise_bn_evaluator(
    weights: WeightSource, images: Tensor, labels: Tensor | None, **options: Any
) -> ClassicEvaluator:
    """fvcore's: statistics of all images together."""
    return ClassicEvaluator(weights, images, labels, estimate=precise_bn, **options)
