"""How good a structure is before any finetuning: its network on data, with BatchNorm statistics of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure

Metric = Literal["loss", "accuracy", "agreement"]
_METRICS: tuple[Metric, ...] = ("loss", "accuracy", "agreement")


class AccuracyEvaluator:
    """Scores a structure in one pass in which every BatchNorm normalises with the statistics of the batch itself.

    A slimmed network inherits the statistics of channels whose inputs are gone; scored as it stands, structures are
    ranked by that mismatch. Re-estimating them first is the idea of EagleEye (Li et al., ECCV 2020, arXiv:2007.02491).
    Departs from it: the statistics come from the very images that are scored, in the same pass, instead of 100
    training batches beforehand, which costs a small fraction of it.

    Args:
        weights: Where the weights of a structure come from.
        images: (n, ...) images, normalised like the training set.
        labels: (n,) class indices; None will do for `metric="agreement"`.
        metric: `"loss"`: minus the cross-entropy, the default because it tells apart structures of equal accuracy;
            `"accuracy"`: the share classified correctly; `"agreement"`: the share classified as by the unpruned
            network, which needs no labels.
        batch_size: Images per forward. Fewer than about 64 make poor statistics.

    Raises:
        ValueError: Unknown metric, no images, labels missing or of another number than the images.
    """

    def __init__(
        self,
        weights: WeightSource,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        metric: Metric = "loss",
        batch_size: int = 256,
    ) -> None:
        if metric not in _METRICS:
            raise ValueError(f"Unknown metric {metric!r}; there are {', '.join(_METRICS)}.")
        if len(images) == 0:
            raise ValueError("Expected images to score with, got none.")
        if labels is None and metric != "agreement":
            raise ValueError(f'The metric {metric!r} needs labels, got none. Pass them, or use metric="agreement".')
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"Expected one label per image ({len(images)}), got {len(labels)}.")
        self._weights = weights
        self._metric = metric
        self._batches = split(images, batch_size)
        if metric == "agreement":
            labels = torch.cat([logits.argmax(1) for logits in _unpruned_logits(weights, self._batches)])
        assert labels is not None
        self._labels = split(labels, batch_size)
        self.description = f"accuracy(metric={metric}, images={len(images)}, batch_size={batch_size})"

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score each structure; see `Evaluator`."""
        return [self._score(structure) for structure in structures]

    def _score(self, structure: Structure) -> float:
        model = self._weights.build(structure)
        model.eval()
        for norm in batch_norms(model):
            norm.train()
        total = 0.0
        with torch.inference_mode():
            for images, labels in zip(self._batches, self._labels, strict=True):
                logits = model(images)
                if self._metric == "loss":
                    total -= float(F.cross_entropy(logits, labels, reduction="sum"))
                else:
                    total += float((logits.argmax(1) == labels).sum())
        return total / sum(map(len, self._labels))


def recalibrate_bn(model: nn.Module, images: Tensor, *, batch_size: int = 256) -> None:
    """Replace each BatchNorm's running statistics by those the model itself produces on `images`, in place.

    No weight changes; modes and momenta are restored. The mean is the average over batches of equal weight, and so is
    the variance (of per-batch unbiased variances), hence independent of the order of the batches.

    Source: Li et al., EagleEye, ECCV 2020, arXiv:2007.02491 ("adaptive BN"). Departs from the authors' code: an average
    over all batches (momentum None) instead of an exponential one over 102 of them.

    Args:
        model: Any module; without BatchNorm nothing happens.
        images: (n, ...) images, normalised like the training set.
        batch_size: Images per forward. Fewer than about 64 make poor statistics.
    """
    norms = batch_norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    try:
        with in_eval_mode(model), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            for batch in split(images, batch_size):
                model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def top1(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 512) -> float:
    """Share of `images` that the model classifies correctly in eval mode; the model's modes are restored."""
    with in_eval_mode(model), torch.inference_mode():
        right = [
            (model(batch).argmax(1) == truth).sum()
            for batch, truth in zip(split(images, batch_size), split(labels, batch_size), strict=True)
        ]
    return float(sum(right)) / len(images)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and every module of it back into its own afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every BatchNorm of a model that keeps running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]


def split(tensor: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Cut into batches of at most `batch_size` and nearly equal length, so that none is a poor sample.

    Raises:
        ValueError: There is nothing to cut.
    """
    if len(tensor) == 0:
        raise ValueError("Expected at least one image, got none.")
    return tensor.tensor_split(math.ceil(len(tensor) / batch_size))


def _unpruned_logits(weights: WeightSource, batches: Sequence[Tensor]) -> list[Tensor]:
    model = weights.network.model
    with in_eval_mode(model), torch.inference_mode():
        return [model(batch) for batch in batches]
