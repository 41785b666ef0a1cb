"""What networks of ultralytics are for, judged as ultralytics does: by its criterion and its validator.

Nothing here imports the package before it is used, and nothing of it is copied: it is an optional extra with a licence
of its own (AGPL-3.0).

A batch is a dictionary: `"images"`, (n, 3, h, w) as the network takes them, and `"samples"`, what the package's own
dataset says of each image besides, which its own function puts together when a loss or a metric asks.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.nested import Batch, Ragged, mapped, tensors_in
from prunesearch.tasks.classify import same_class, soft_label_loss
from prunesearch.tasks.outputs import output_distance
from prunesearch.tasks.task import Task

MEASURES: Mapping[str, tuple[str, str]] = {
    "detect": ("mAP50-95", "metrics/mAP50-95(B)"),
    "segment": ("mAP50-95", "metrics/mAP50-95(M)"),
    "pose": ("mAP50-95", "metrics/mAP50-95(P)"),
    "obb": ("mAP50-95", "metrics/mAP50-95(B)"),
    "classify": ("accuracy", "metrics/accuracy_top1"),
}
"""What each kind of network is judged by: what we call it, and the package's validators."""

Collate = Callable[[list[Any]], dict[str, Any]]
_TINY = 1e-9


def yolo_task(
    kind: str, model: nn.Module, *, settings: Any, facts: Mapping[str, Any], collate: Collate, validator: type[Any]
) -> Task:
    """The task of a network of ultralytics.

    The loss is the network's own criterion: a mean over a batch, not one number per image. The metric is what the
    package's validator computes: the mean average precision over intersections over union of 0.5 to 0.95, of boxes, of
    masks (`"segment"`) or of keypoints (`"pose"`); of classifiers the accuracy.

    Args:
        kind: One of `MEASURES`.
        model: The network. It is kept, to make criteria from.
        settings: The package's own settings, such as gains of the loss.
        facts: What the package knows of the data, such as the names of classes.
        collate: The package's function that puts samples of images together.
        validator: The package's class for this kind.
    """
    labels = _Labels(collate)
    name, key = MEASURES[kind]
    is_classifier = kind == "classify"
    return Task(
        inputs=images_of,
        loss=_Criterion(model, settings, labels, is_mean=is_classifier),
        metric=_Validation(validator, key, settings, facts, labels),
        metric_name=name,
        higher_is_better=True,
        distil=_class_distance if is_classifier else detection_distance,
        agreement=_class_agreement if is_classifier else detection_agreement,
        targets_have_positions=not is_classifier,
        name=f"ultralytics-{kind}",
    )


def as_batch(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples of the package's dataset as a batch: images, bytes as numbers in [0, 1], and what else is known of each.

    Labels come as they are, so that any part of a batch is a batch again.
    """
    images = torch.stack([sample["img"] for sample in samples])
    rest = [{name: value for name, value in sample.items() if name != "img"} for sample in samples]
    for sample in rest:
        if isinstance(sample.get("cls"), int):
            sample["cls"] = torch.tensor(sample["cls"])
    return {"images": images.float() / 255 if images.dtype == torch.uint8 else images, "samples": Ragged(rest)}


def images_of(batch: Batch) -> Tensor:
    """(n, 3, h, w) what the network is called with."""
    return batch["images"]


@dataclass(frozen=True)
class _Labels:
    """What criteria and validators of the package are told of a batch."""

    collate: Collate

    def __call__(self, batch: Batch) -> dict[str, Any]:
        found = self.collate([mapped(sample, torch.clone) for sample in batch["samples"]])  # it writes into samples
        return {**found, "img": batch["images"]}


class _Criterion:
    """The network's own criterion, made anew for each device that outputs come from.

    It reads sizes of the network's head only, which no structure changes, so pruned networks share it.
    """

    def __init__(self, model: nn.Module, settings: Any, labels: _Labels, *, is_mean: bool) -> None:
        self._model, self._settings, self._labels, self._is_mean = model, settings, labels, is_mean
        self._made: dict[torch.device, Any] = {}

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        device = next(tensors_in(outputs)).device
        if device not in self._made:
            here = next(self._model.parameters()).device == device
            other: Any = copy.copy(self._model) if here else copy.deepcopy(self._model).to(device)
            other.args = self._settings
            self._made[device] = other.init_criterion()
        total, _ = self._made[device](outputs, self._labels(batch))
        return total.sum() / (1 if self._is_mean else len(batch["images"]))


@dataclass(frozen=True)
class _Validation:
    """Makes the metric: one of the package's validators, that is told of outputs instead of running a network.

    Attributes:
        validator: Its class.
        key: Which of its numbers counts.
        settings: The package's own.
        facts: What the package knows of the data.
        labels: Reads batches.
    """

    validator: type[Any]
    key: str
    settings: Any
    facts: Mapping[str, Any]
    labels: _Labels

    def __call__(self) -> _Validated:
        with tempfile.TemporaryDirectory() as folder:  # it wants one for its pictures, of which there will be none
            made = self.validator(save_dir=Path(folder), args=copy.copy(self.settings))
        made.training = True  # or it would look for a loader of its own
        made.data = {**self.facts, "val": ""}
        made.init_metrics(SimpleNamespace(names=self.facts["names"], end2end=self.facts["end2end"]))
        return _Validated(made, self.key, self.labels)


class _Validated:
    """What one validator makes of the outputs that it is told of."""

    def __init__(self, validator: Any, key: str, labels: _Labels) -> None:
        self._validator, self._key, self._labels = validator, key, labels

    def update(self, outputs: Any, batch: Batch) -> None:
        """Take in what the network returned in eval mode."""
        validator = self._validator
        validator.device = batch["images"].device
        found = validator.postprocess(mapped(outputs, torch.clone))  # it writes into what it is given
        validator.update_metrics(found, self._labels(batch))

    def compute(self) -> float:
        """The number, of all that was taken in."""
        return float(self._validator.get_stats()[self._key])


# --- how far two networks say the same --------------------------------------------------------------------------------


def detection_distance(outputs: Any, teacher: Any, temperature: float) -> Tensor:
    """(n,) distances of the answers of two detectors, in eval or training mode, weighted by the teacher's confidence.

    A detector answers thousands of times for each image, nearly always that there is nothing; a plain mean would be of
    these. Each place therefore counts by the largest probability of a class that the teacher gives it. Of classes the
    Bernoulli divergences count, times temperature^2; of boxes, coefficients of masks and keypoints the squared distance
    relative to the teacher's variance; of whole pictures, such as prototypes of masks, `output_distance`. Features that
    go into the head are left out.

    Args:
        outputs: Of the network that learns.
        teacher: Of the other one.
        temperature: Softens the probabilities of classes.
    """
    pairs = list(zip(_heads(outputs), _heads(teacher), strict=True))
    return torch.stack([_head_distance(own, wanted, temperature) for own, wanted in pairs]).mean(0)


def detection_agreement(outputs: Any, reference: Any) -> Tensor:
    """(n,) shares in [0, 1] of how far two detectors are sure of the same: what both give of what either gives."""
    own, wanted = (_heads(each)[-1]["scores"].float().sigmoid() for each in (outputs, reference))
    both, either = (f(own, wanted).flatten(1).sum(1) for f in (torch.minimum, torch.maximum))
    return both / either.clamp(min=_TINY)


def _heads(outputs: Any) -> list[Mapping[str, Any]]:
    """What each head says before anything is suppressed: one, or two of networks that need no suppression."""
    raw = outputs[1] if isinstance(outputs, (tuple, list)) else outputs
    return [raw["one2many"], raw["one2one"]] if "one2many" in raw else [raw]


def _head_distance(own: Mapping[str, Any], wanted: Mapping[str, Any], temperature: float) -> Tensor:
    sure = wanted["scores"].float().sigmoid().amax(1, keepdim=True)
    weights = sure / sure.sum(2, keepdim=True).clamp(min=_TINY)  # (n, 1, places)
    found = [temperature**2 * (weights * _divergence(own["scores"], wanted["scores"], temperature)).sum((1, 2))]
    for name in (name for name in wanted if name not in ("scores", "feats")):
        given: Any = wanted[name]
        if isinstance(given, Tensor) and given.shape[2:] == weights.shape[2:]:
            found.append(_weighted_distance(own[name].float(), given.float(), weights))
        else:
            found.append(output_distance(own[name], given))
    return torch.stack(found).mean(0)


def _divergence(own: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergences of Bernoulli variables, of logits."""
    own, wanted = own.float() / temperature, wanted.float() / temperature
    yes, no = F.logsigmoid(wanted), F.logsigmoid(-wanted)
    return wanted.sigmoid() * (yes - F.logsigmoid(own)) + (-wanted).sigmoid() * (no - F.logsigmoid(-own))


def _weighted_distance(own: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """(n,) of (n, c, places), relative to the variance over the places of the batch."""
    middle = (weights * wanted).mean(0, keepdim=True).sum(2, keepdim=True)
    spread = (weights * (wanted - middle).square()).sum(2).mean().clamp(min=_TINY)
    return (weights * (own - wanted).square()).sum(2).mean(1) / spread


def _logits(outputs: Any) -> Tensor:
    """Of a classifier, which returns probabilities beside them in eval mode."""
    return outputs[1] if isinstance(outputs, (tuple, list)) else outputs


def _class_distance(outputs: Any, teacher: Any, temperature: float) -> Tensor:
    return soft_label_loss(_logits(outputs), _logits(teacher), temperature)


def _class_agreement(outputs: Any, reference: Any) -> Tensor:
    return same_class(_logits(outputs), _logits(reference))
