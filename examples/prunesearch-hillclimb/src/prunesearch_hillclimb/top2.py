"""A task: classification in which the right class may also be the second guess."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from prunesearch.models.nested import Batch
from prunesearch.tasks import classification
from prunesearch.tasks.task import Task


def top2() -> Task:
    """Images with class indices, judged by how often the right class is among the two most likely ones."""
    return replace(classification(), metric=is_among_two, metric_name="top2", name="top2")


def is_among_two(outputs: Any, batch: Batch) -> Tensor:
    """(n,) whether the label is one of the two classes with the largest logits, 1 or 0."""
    return (outputs.topk(2, dim=1).indices == batch[1][:, None]).any(dim=1).float()
