"""Several labels per image, or none: networks return one logit per label."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesearch.models.nested import Batch
from prunesearch.tasks.outputs import described, main_output
from prunesearch.tasks.task import Task, targets_of


def multilabel() -> Task:
    """Batches are (images, targets), with (n, labels) zeros and ones; networks return (n, labels) logits.

    Scored by the binary cross-entropy, judged by the mean average precision over labels.
    """
    return Task(
        loss=binary_cross_entropy,
        metric=MeanAveragePrecision,
        metric_name="mAP",
        distil=soft_targets_loss,
        agreement=same_labels,
        check=check,
        targets_have_positions=False,
        name="multilabel",
    )


def binary_cross_entropy(outputs: Any, batch: Batch) -> Tensor:
    """(n,) means over labels."""
    return F.binary_cross_entropy_with_logits(main_output(outputs), batch[1].float(), reduction="none").mean(1)


def soft_targets_loss(outputs: Any, teacher: Any, temperature: float) -> Tensor:
    """(n,) divergences of every label's probability from the teacher's, softened; mean over labels, times T^2."""
    own, wanted = main_output(outputs) / temperature, main_output(teacher) / temperature
    p = wanted.sigmoid()
    least = F.binary_cross_entropy_with_logits(wanted, p, reduction="none")
    return temperature**2 * (F.binary_cross_entropy_with_logits(own, p, reduction="none") - least).mean(1)


def same_labels(outputs: Any, reference: Any) -> Tensor:
    """(n,) shares of the labels about which two networks say the same."""
    return ((main_output(outputs) > 0) == (main_output(reference) > 0)).float().mean(1)


def check(outputs: Any, batch: Batch) -> None:
    """Make sure that there is a logit for each target, and that targets are zeros and ones.

    Raises:
        ValueError: They are not.
    """
    advice = "Make each a tensor with a one for each label that the example has, such as torch.tensor([0.0, 1.0, 0.0])."
    main, targets = main_output(outputs), targets_of(batch, "zeros and ones (labels,), and no list of labels,", advice)
    if main.shape[1:] != targets.shape[1:] or main.dim() != 2:
        raise ValueError(
            f"Expected (n, labels) targets and as many logits; targets are {tuple(targets.shape)}, and the network "
            f"returned {described(outputs)}."
        )
    if not bool(((targets == 0) | (targets == 1)).all()):
        raise ValueError("Expected targets of zeros and ones, one per label; got other numbers.")


class MeanAveragePrecision:
    """Mean over labels of the area under the curve of precision against recall; labels without a positive left out.

    Images with the same score are found together: their order says nothing.
    """

    higher_is_better = True

    def __init__(self) -> None:
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, outputs: Any, batch: Batch) -> None:
        """Take in logits and targets of a batch."""
        self._scores.append(main_output(outputs).detach().float().cpu())
        self._targets.append(batch[1].bool().cpu())

    def compute(self) -> float:
        """The mean over labels; 0 without any positive."""
        scores, targets = torch.cat(self._scores), torch.cat(self._targets)
        found = [_average_precision(s, t) for s, t in zip(scores.T, targets.T, strict=True) if t.any()]
        return sum(found) / len(found) if found else 0.0


def _average_precision(scores: Tensor, truth: Tensor) -> float:
    ranked, order = scores.sort(descending=True)
    last = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)])  # of those with the same score
    right = truth[order].double().cumsum(0)[last]
    precision = right / torch.arange(1, len(order) + 1, dtype=torch.float64)[last]
    return float((precision * right.diff(prepend=torch.zeros(1, dtype=torch.float64))).sum() / right[-1])
