"""How good a structure is before any finetuning: its network on data, with BatchNorm statistics of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.evaluators.batchnorm import at_least_float32, in_eval_mode, split
from prunesearch.evaluators.inputs import example_batch
from prunesearch.models.logits import class_logits
from prunesearch.models.nested import Batch, called, device_of, in_order_of, joined, size_of, taken, tensors_in
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure

Metric = Literal["loss", "accuracy", "agreement"]
METRICS: tuple[Metric, ...] = ("loss", "accuracy", "agreement")
Path = Literal["auto", "sliced", "stacked"]


class AccuracyEvaluator:
    """Scores a structure in one pass in which every BatchNorm normalises with the statistics of the batch itself.

    A slimmed network inherits the statistics of channels whose inputs are gone; scored as it stands, structures are
    ranked by that mismatch. Re-estimating them first is the idea of EagleEye (Li et al., ECCV 2020, arXiv:2007.02491).
    Departs from it: the statistics come from the very images that are scored, in the same pass, instead of 100
    training batches beforehand, which costs a small fraction of it (`evaluators.classic` has the original).

    Two ways to compute the same, equal to about 1e-4. *Sliced*: narrow tensors, cheap; structures of one call share
    the beginnings of their forwards that they have in common. *Stacked*: several structures in one launch, as masks of
    the full network, for devices that a single one leaves idle.

    Args:
        weights: Where the weights of a structure come from.
        images: (n, ...) images, normalised like the training set; or several inputs (`models.nested.Batch`).
        labels: (n,) class indices; None will do for `metric="agreement"`.
        metric: `"loss"`: minus the cross-entropy, the default because it tells apart structures of equal accuracy;
            `"accuracy"`: the share classified correctly; `"agreement"`: the share classified as by the unpruned
            network, which needs no labels.
        batch_size: Images per forward. Fewer than about 64 make poor statistics.
        calibration: (m, ...) images from which the statistics come instead; they precede every batch.
        path: `"sliced"`, `"stacked"`, or `"auto"`: stacked on a GPU if the weights are slices of the
            traced network's. Only run on CPUs so far.
        at_once: Structures in one launch, if stacked; halved for good when memory runs out.

    Raises:
        ValueError: Unknown metric or path, no images, labels missing or of another number than the images, or a network
            that was traced with other inputs.
    """

    def __init__(
        self,
        weights: WeightSource,
        images: Batch,
        labels: Tensor | None = None,
        *,
        metric: Metric = "loss",
        batch_size: int = 256,
        calibration: Batch | None = None,
        path: Path = "auto",
        at_once: int = 16,
    ) -> None:
        _check(images, labels, metric, path)
        in_order_of(example_batch(weights.network), images)
        self._metric = self.measures = metric
        self._images, self._batch_size = images, batch_size
        self._batches = split(images, batch_size)
        self._calibration = calibration
        self._at_once = at_once
        if metric == "agreement":
            labels = torch.cat([logits.argmax(1) for logits in _unpruned_logits(weights, self._batches)])
        assert labels is not None
        self._labels = split(labels, batch_size)
        if path == "auto":
            path = "stacked" if device_of(images).type == "cuda" and weights.sliced else "sliced"
        self._forward = SharedForward(weights) if path == "sliced" else StackedForward(weights)
        self._stacked = path == "stacked"
        self.description = f"accuracy(metric={metric}, images={size_of(images)}, batch_size={batch_size}"
        self.description += "" if calibration is None else f", calibration={size_of(calibration)}"
        self.description += ", path=stacked)" if self._stacked else ")"

    @property
    def n_images(self) -> int:
        """How many images it scores on."""
        return size_of(self._images)

    def on(self, images: Sequence[int]) -> AccuracyEvaluator:
        """The same on some of the images; see `Divisible`."""
        chosen = torch.as_tensor(images, device=self._labels[0].device)
        other = copy.copy(self)  # with the same recorded forward, which takes long to make
        other._images = taken(self._images, chosen)
        other._batches = split(other._images, self._batch_size)
        other._labels = split(torch.cat(self._labels)[chosen], self._batch_size)
        return other

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score each structure; see `Evaluator`."""
        distinct = list(dict.fromkeys(structures))
        totals = dict.fromkeys(distinct, 0.0)
        for images, labels in zip(self._batches, self._labels, strict=True):
            for structure, logits in zip(distinct, self._logits(distinct, images), strict=True):
                totals[structure] += self._measure(logits, labels)
        n = sum(map(len, self._labels))
        return [totals[structure] / n for structure in structures]

    def _logits(self, structures: Sequence[Structure], images: Batch) -> list[Tensor]:
        first = 0 if self._calibration is None else size_of(self._calibration)
        inputs = images if self._calibration is None else joined([self._calibration, images])
        logits: list[Tensor] = []
        while len(logits) < len(structures):
            some = structures[len(logits) : len(logits) + self._at_once] if self._stacked else structures
            try:
                logits += [class_logits(output[first:]) for output in self._forward.run(some, inputs, first or None)]
            except RuntimeError as error:
                if not (self._stacked and self._at_once > 1 and is_out_of_memory(error)):
                    raise
                self._at_once //= 2
        return logits

    def _measure(self, logits: Tensor, labels: Tensor) -> float:
        if self._metric == "loss":
            return -float(F.cross_entropy(at_least_float32(logits), labels, reduction="sum"))
        return float((logits.argmax(1) == labels).sum())


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that there was not enough memory; on CPUs it has no class of its own."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "can't allocate memory" in said


def top1(model: nn.Module, images: Batch, labels: Tensor, *, batch_size: int = 512) -> float:
    """Share of `images` that the model classifies correctly in eval mode; the model's modes are restored.

    Raises:
        ValueError: No images, not one label per image, or tensors of the meta device, which have no values.
    """
    _check_images(images, labels)
    without = next((name for name, tensor in model.named_parameters() if tensor.is_meta), None)
    if without is not None:
        raise ValueError(f"{without} of {type(model).__name__} is on the meta device, which keeps no values.")
    with in_eval_mode(model), torch.inference_mode():
        right = [
            (class_logits(called(model, batch)).argmax(1) == truth).sum()
            for batch, truth in zip(split(images, batch_size), split(labels, batch_size), strict=True)
        ]
    return float(sum(right)) / size_of(images)


def _check(images: Batch, labels: Tensor | None, metric: Metric, path: Path) -> None:
    if metric not in METRICS:
        raise ValueError(f"Unknown metric {metric!r}; there are {', '.join(METRICS)}.")
    if path not in ("auto", "sliced", "stacked"):
        raise ValueError(f"Unknown path {path!r}; there are auto, sliced, stacked.")
    _check_images(images, labels)
    if labels is None and metric != "agreement":
        raise ValueError(f'The metric {metric!r} needs labels, got none. Pass them, or use metric="agreement".')


def _check_images(images: Batch, labels: Tensor | None) -> None:
    n = size_of(images)
    if n == 0:
        raise ValueError("Expected images to score with, got none.")
    if labels is not None and len(labels) != n:
        raise ValueError(f"Expected one label per image ({n}), got {len(labels)}.")
    if any(x.is_meta for x in tensors_in(images)):
        raise ValueError("The images are on the meta device, which keeps no values. Load them to another device.")


def _unpruned_logits(weights: WeightSource, batches: Sequence[Batch]) -> list[Tensor]:
    model = weights.network.model
    with in_eval_mode(model), torch.inference_mode():
        return [class_logits(called(model, batch)) for batch in batches]
