"""The protocols of the papers: re-estimate BatchNorm statistics on many training images, then validate. Slow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from prunesearch.evaluators.accuracy import top1
from prunesearch.evaluators.batchnorm import adaptive_bn, precise_bn
from prunesearch.evaluators.inputs import example_batch
from prunesearch.models.nested import Batch, in_order_of, size_of
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure


class ClassicEvaluator:
    """Accuracy of a structure's network after its BatchNorm statistics were re-estimated in passes of their own.

    For comparison; `AccuracyEvaluator` costs a small fraction.

    Args:
        weights: Where the weights of a structure come from.
        images: (n, ...) images to score with.
        labels: (n,) class indices.
        estimate: Re-estimates the statistics of a network on some images, in place.
        calibration: (m, ...) images to re-estimate from; None takes those that score.
        **settings: Further arguments of `estimate`, which the description tells.

    Raises:
        ValueError: No images or labels, not one label per image, or a network that was traced with other inputs.
    """

    def __init__(
        self,
        weights: WeightSource,
        images: Batch,
        labels: Tensor | None,
        *,
        estimate: Callable[..., None],
        calibration: Batch | None,
        **settings: int,
    ) -> None:
        in_order_of(example_batch(weights.network), images)
        n = size_of(images)
        if labels is None or n == 0 or len(labels) != n:
            got = "no labels" if labels is None else f"{len(labels)} labels"
            raise ValueError(f"Expected images and one label per image, got {n} images and {got}.")
        self.measures = "accuracy"
        self._weights = weights
        self._images, self._labels = images, labels
        self._estimate = partial(estimate, **settings)
        self._calibration = images if calibration is None else calibration
        used = {"images": n, "calibration": size_of(self._calibration), **settings}
        self.description = f"{estimate.__name__}({', '.join(f'{name}={value}' for name, value in used.items())})"

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score each structure; see `Evaluator`."""
        return [self._score(self._weights.build(structure)) for structure in structures]

    def _score(self, model: nn.Module) -> float:
        self._estimate(model, self._calibration)
        return top1(model, self._images, self._labels)


def adaptive_bn_evaluator(
    weights: WeightSource,
    images: Batch,
    labels: Tensor | None,
    *,
    calibration: Batch | None = None,
    batch_size: int = 128,
    batches: int = 100,
) -> ClassicEvaluator:
    """The protocol of EagleEye: exponential averages over 100 batches of training images, then the accuracy on others.

    Source: Li et al., EagleEye, ECCV 2020, arXiv:2007.02491; `batchnorm.adaptive_bn` lists the departures.

    Args:
        weights: Where the weights of a structure come from.
        images: (n, ...) images to score with.
        labels: (n,) class indices.
        calibration: (m, ...) images to re-estimate from, in the paper 12,800 others than score; fewer are gone through
            several times, shuffled. None takes those that score.
        batch_size: Images per batch of the re-estimation.
        batches: How many batches; each keeps nine tenths of what the statistics were before it.
    """
    return ClassicEvaluator(
        weights,
        images,
        labels,
        estimate=adaptive_bn,
        calibration=calibration,
        batch_size=batch_size,
        batches=batches,
    )


def precise_bn_evaluator(
    weights: WeightSource,
    images: Batch,
    labels: Tensor | None,
    *,
    calibration: Batch | None = None,
    batch_size: int = 128,
) -> ClassicEvaluator:
    """The protocol of fvcore: statistics of all images together, then the accuracy.

    Source: Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv:2105.07576, section 3.2.

    Args:
        weights: Where the weights of a structure come from.
        images: (n, ...) images to score with.
        labels: (n,) class indices.
        calibration: (m, ...) images to re-estimate from; None takes those that score.
        batch_size: Images per batch of the re-estimation.
    """
    return ClassicEvaluator(
        weights, images, labels, estimate=precise_bn, calibration=calibration, batch_size=batch_size
    )
