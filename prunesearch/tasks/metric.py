"""Metrics in the forms in which people have them, as one: it is told of outputs and batches, and says a number."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from prunesearch.models.misfit import told_as
from prunesearch.models.nested import Batch, in_float32, moved
from prunesearch.shares import is_share
from prunesearch.tasks.outputs import main_output
from prunesearch.tasks.task import Task


class Metric(Protocol):
    """A number over many batches."""

    def update(self, outputs: Any, batch: Batch) -> None:
        """Take in what the network returned for a batch."""

    def compute(self) -> Any:
        """The number, of all that was taken in."""


def name_of(task: Task) -> str:
    """What the metric of a task is called; `"loss"` if it has none."""
    if task.metric is None:
        return "loss"
    if task.metric_name is not None:
        return task.metric_name
    given = task.metric
    name = getattr(given, "__name__", type(given).__name__)
    return name if name.isidentifier() else type(_made(task)).__name__


def higher_is_better(task: Task) -> bool:
    """Whether more of the metric of a task is better; of the loss less is."""
    if task.metric is None:
        return False
    if task.higher_is_better is not None:
        return task.higher_is_better
    own = None if _is_function(task.metric) else getattr(_made(task), "higher_is_better", None)
    return True if own is None else bool(own)


class Measured:
    """The metric of a task over some batches, or its loss. Sums of batches stay on their device until asked for.

    Args:
        task: With a metric, unless `what` is its loss.
        what: `"metric"` or `"loss"`.

    Raises:
        ValueError: Of the methods: a function of the task fails, or returns something else than its contract says.
    """

    def __init__(self, task: Task, what: str = "metric") -> None:
        self._task = task
        function = task.loss if what == "loss" or task.metric is None else task.metric
        self._what = "loss" if function is task.loss else "metric"
        self._function = function if _is_function(function) else None
        self._object = None if self._function is not None else _made(task)
        self._sums: list[Tensor] = []
        self._n = 0

    def update(self, outputs: Any, batch: Batch, n: int) -> None:
        """Take in the outputs of a batch of n examples."""
        outputs = in_float32(outputs)
        if self._object is not None:
            _asked(self._task, "metric", self._object.update, *_arguments(self._task, self._object, outputs, batch))
        else:
            self._sums.append(summed(values(self._task, self._what, outputs, batch, n), n).detach())
        self._n += n

    def compute(self) -> float:
        """The number, of all that was taken in."""
        if self._object is None:
            return compute_all([self])[0]
        found = _asked(self._task, "metric", self._object.compute)
        try:
            return float(found)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"Expected the metric of {self._task} to compute one number, got {type(found).__name__}: {found!r:.80}."
            ) from error


def compute_all(measured: Iterable[Measured]) -> list[float]:
    """What each of some computes; a device is waited for once."""
    several = list(measured)
    sums = [x for each in several for x in each._sums]
    together = len({(x.device, x.dtype) for x in sums}) == 1
    numbers = iter((torch.stack(sums).cpu().tolist() if together else map(float, sums)) if sums else ())
    return [
        each.compute() if each._object is not None else sum(next(numbers) for _ in each._sums) / each._n
        for each in several
    ]


def values(task: Task, what: str, outputs: Any, batch: Batch, n: int) -> Tensor:
    """(n,) losses of examples, or values of the metric, or their mean as one number.

    Args:
        task: The task.
        what: `"loss"` or `"metric"`, which must be a function.
        outputs: What the network returned.
        batch: What for.
        n: Of how many examples.

    Raises:
        ValueError: The function fails, or returns something else.
    """
    found = _asked(task, what, getattr(task, what), outputs, batch)
    if isinstance(found, (int, float)):
        found = torch.tensor(float(found))
    if not isinstance(found, Tensor) or tuple(found.shape) not in ((), (n,)):
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(
            f"Expected the {what} of {task} as one number per example, ({n},), or as their mean; got {got}. Take the "
            "mean over the other dimensions."
        )
    return found


def training_loss(task: Task, returned: Any, batch: Batch, label_smoothing: float) -> Tensor:
    """The loss of a batch in training mode: one number.

    Raises:
        ValueError: The loss fails, or returns something else; or labels are to be smoothed, and the task cannot.
    """
    if task.training_loss is not None:
        found = _asked(task, "loss", task.training_loss, returned, batch, label_smoothing)
    elif label_smoothing:
        raise ValueError(f"Expected label_smoothing=0, as the loss of {task} smooths no labels; got {label_smoothing}.")
    else:
        assert task.loss is not None  # or nothing is trained by it
        found = _asked(task, "loss", task.loss, returned, batch)
    if not isinstance(found, Tensor) or found.dim() > 1:
        raise ValueError(
            f"Expected the loss of {task} as a tensor of one number per example, or as their mean; got "
            f"{tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__}."
        )
    return found.mean()


def check_has_loss(task: Task, asker: str) -> None:
    """Make sure that there is a loss to learn from.

    Raises:
        ValueError: There is none.
    """
    if task.loss is None:
        raise ValueError(f"{asker} learns from a loss, and the task {task.name} has none. Give a Task with a loss.")


def as_text(name: str, value: float, digits: int = 2) -> str:
    """A metric as people write it: shares in per cent with so many digits after the point, else two digits more."""
    return f"{value:.{digits}%}" if is_share(name) else f"{value:.{digits + 2}g}"


def summed(found: Tensor, n: int) -> Tensor:
    """The sum over n examples of values, or of their mean."""
    return found.sum() if found.dim() else found * n


def _asked(task: Task, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    with told_as(lambda error: f"The {what} of {task} failed: {type(error).__name__}: {error}".rstrip(".") + "."):
        found = function(*arguments)
    return found


def _made(task: Task) -> Any:
    """A metric that has taken in nothing yet."""
    given = task.metric
    found = copy.deepcopy(given) if _is_object(given) else _asked(task, "metric", given)
    if not _is_object(found):
        raise ValueError(
            f"Expected the metric of {task} as a function of (outputs, batch), or as an object with update(outputs, "
            f"batch) and compute(); got {type(found).__name__}."
        )
    if hasattr(found, "reset"):
        found.reset()
    return found


def _is_object(given: Any) -> bool:
    return not isinstance(given, type) and all(callable(getattr(given, name, None)) for name in ("update", "compute"))


def _is_function(given: Any) -> bool:
    """Whether it takes outputs and batch, and is no object and nothing that makes one."""
    if _is_object(given) or isinstance(given, type) or not callable(given):
        return False
    parameters = inspect.signature(given).parameters.values()
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) >= 2


def _arguments(task: Task, metric: Any, outputs: Any, batch: Batch) -> tuple[Any, Any]:
    """What `update` is given: of torchmetrics, predictions and targets, on the CPU like the metric itself."""
    if not any(kind.__module__.partition(".")[0] == "torchmetrics" for kind in type(metric).__mro__):
        return outputs, batch
    predictions = (task.predictions or main_output)(outputs)
    return moved(predictions, "cpu"), moved(task.targets(batch), "cpu")
