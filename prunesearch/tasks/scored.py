"""What a score is of: the loss or the metric of a task, or how near outputs are to the unpruned network's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from prunesearch.models.nested import called
from prunesearch.tasks.examples import Examples, following
from prunesearch.tasks.metric import Measured, higher_is_better, name_of

METRICS = ("loss", "fidelity", "agreement", "metric")
"""What any task can be scored by, besides its metric under its own name."""


@dataclass(frozen=True)
class Scored:
    """What scores are made of.

    Attributes:
        name: `"loss"`, `"fidelity"`, `"agreement"` or the name of the metric.
        examples: Whose loss or metric it is.
        what: Which of both.
        is_negated: Whether less of it is better, so that scores are minus it.
    """

    name: str
    examples: Examples
    what: Literal["loss", "metric"]
    is_negated: bool

    def measured(self) -> Measured:
        """To be told of outputs."""
        return Measured(self.examples.task, self.what)

    def as_score(self, value: float) -> float:
        """More is better."""
        return -value if self.is_negated else value


def measure(model: nn.Module, parts: Iterable[Examples], *measured: Measured) -> int:
    """Tell metrics what a network returns for some examples, and say how many these were.

    In whatever mode the network is, and with gradients if they are on; that is the caller's matter.
    """
    n = 0
    for part in parts:
        outputs = called(model, part.inputs)
        for each in measured:
            each.update(outputs, part.batch, len(part))
        n += len(part)
    return n


def scored_by(examples: Examples, metric: str | None, model: nn.Module, *, batch_size: int = 256) -> Scored:
    """What a name says of a task.

    Args:
        examples: What scores.
        metric: One of `METRICS`, or the name of the task's metric; None is the loss, or fidelity where there is none.
        model: The unpruned network, which some metrics compare with; it is run on the examples then.
        batch_size: Of that.

    Raises:
        ValueError: There is no such metric.
    """
    task = examples.task
    has_metric = task.metric is not None
    if metric is None:
        metric = "fidelity" if task.loss is None else "loss"
    if metric == "loss" and task.loss is not None:
        return Scored("loss", examples, "loss", True)
    if has_metric and metric in ("metric", name_of(task)):
        return Scored(name_of(task), examples, "metric", not higher_is_better(task))
    if metric in ("fidelity", "agreement"):
        followed = following(examples, model, batch_size=batch_size)
        return Scored(metric, followed, "loss" if metric == "fidelity" else "metric", metric == "fidelity")
    known = [*(["loss"] if task.loss is not None else []), *([name_of(task)] if has_metric else [])]
    raise ValueError(
        f"Unknown metric {metric!r}; for the task {task.name} there are {', '.join([*known, 'fidelity', 'agreement'])}."
    )
