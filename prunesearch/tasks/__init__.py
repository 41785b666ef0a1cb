"""Tasks: what networks are for. Everything else treats batches as opaque, and asks a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prunesearch.contracts import Contract, kind_of
from prunesearch.registry import Registry, resolve

if TYPE_CHECKING:
    from prunesearch.tasks.classify import classification as classification
    from prunesearch.tasks.follow import fidelity as fidelity
    from prunesearch.tasks.regress import regression as regression
    from prunesearch.tasks.segment import segmentation as segmentation
    from prunesearch.tasks.tag import multilabel as multilabel
    from prunesearch.tasks.task import Task

CLASSIFICATION = "classification"
TASKS: Mapping[str, str] = {
    "classification": "prunesearch.tasks.classify:classification",
    "multilabel": "prunesearch.tasks.tag:multilabel",
    "regression": "prunesearch.tasks.regress:regression",
    "segmentation": "prunesearch.tasks.segment:segmentation",
    "fidelity": "prunesearch.tasks.follow:fidelity",
}
ADAPTERS: Mapping[str, str] = {
    "ultralytics": "prunesearch.training.yolo:ultralytics",
    "pruned_trainer": "prunesearch.training.yolo:pruned_trainer",
    "torchvision_detection": "prunesearch.training.detectors:torchvision_detection",
}
"""What takes networks, and data, of other packages; no names of tasks, as these need arguments."""


TASK = Contract(
    "Task",
    Registry("task", "prunesearch.tasks", TASKS),
    methods=(),
    attributes=("inputs", "loss", "metric", "distil"),
    made_from="()",
)


def make_task(given: str | Task | Callable[[], Task]) -> Task:
    """A task.

    Args:
        given: One of `TASKS`, with its defaults, or a name that an installed package adds (entry points,
            `prunesearch.tasks`); `"package.module:attribute"`; what makes one without arguments; or a `Task`, which is
            returned.

    Raises:
        ValueError: No task has this name; the message has the list.
        TypeError: It is none of these.
        ContractBroken: What is made is no `Task`.
    """
    from prunesearch.tasks.task import Task

    made = TASK.make(given)
    if not isinstance(made, Task):
        raise TASK.broken(given, f"expected a prunesearch.Task, got {kind_of(made)}")
    return made


def __getattr__(name: str) -> Any:
    """Tasks are imported when they are asked for."""
    for table in (TASKS, ADAPTERS):
        if name in table:
            return resolve(table, name, "task")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
