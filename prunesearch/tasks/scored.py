"""What a score is of: the loss or the metric of a task, or how near outputs are to the unpruned network's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from prunesearch.models.misfit import answer
from prunesearch.models.nested import tensors_in
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


def check_answer(outputs: Any, examples: Examples) -> None:
    """Make sure that what a network returned can be judged.

    Raises:
        ValueError: The task does not understand it, or the examples do not fit it, or it is NaN.
    """
    task = examples.task
    if task.check is not None:
        task.check(outputs, examples.batch)
    if any(bool(x.isnan().any()) for x in tensors_in(outputs) if x.is_floating_point()):
        of_inputs = any(bool(x.isnan().any()) for x in tensors_in(examples.inputs) if x.is_floating_point())
        cause = "Some images hold NaN: leave them out." if of_inputs else "The images hold none; look at its weights."
        raise ValueError(f"The network returns NaN, which cannot be judged. {cause}")


def measure(
    model: nn.Module,
    parts: Iterable[Examples],
    *measured: Measured,
    look: Callable[[Any, Examples], None] = lambda outputs, examples: None,
) -> int:
    """Tell metrics what a network returns for some examples, and say how many these were.

    In whatever mode the network is, and with gradients if they are on; that is the caller's matter.

    Args:
        model: The network.
        parts: The examples, of one size in each part.
        *measured: The metrics.
        look: Given what was returned for each part; may refuse it.

    Raises:
        ValueError: The network does not run on these inputs.
    """
    n = 0
    for part in parts:
        outputs = answer(model, part.inputs)
        look(outputs, part)
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
