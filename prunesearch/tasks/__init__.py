"""Tasks: what networks are for. Everything else treats batches as opaque, and asks a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunesearch.registry import resolve

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


def make_task(name: str) -> Task:
    """A task by name, with its defaults.

    Raises:
        ValueError: No task has this name; the message has the list.
    """
    task: Task = resolve(TASKS, name, "task")()
    return task


def __getattr__(name: str) -> Any:
    """Tasks are imported when they are asked for."""
    if name in TASKS:
        return resolve(TASKS, name, "task")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
