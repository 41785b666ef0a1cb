"""Examples: a batch of data together with the task that understands it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.models.devices import random_apart
from prunesearch.models.isolation import as_found
from prunesearch.models.nested import Batch, called, cut, device_of, in_float32, joined, mapped, moved, size_of, taken
from prunesearch.models.sizes import by_size, has_lists, some_of_one_size
from prunesearch.tasks.metric import values
from prunesearch.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Examples:
    """Some data of a task.

    Attributes:
        batch: Of n examples, as the data give it.
        task: What reads it.
    """

    batch: Batch
    task: Task

    def __len__(self) -> int:
        return size_of(self.inputs)

    def __repr__(self) -> str:
        return f"Examples({len(self)} of {self.task})"

    @property
    def inputs(self) -> Batch:
        """What the network is called with."""
        return self.task.inputs(self.batch)

    @property
    def device(self) -> torch.device:
        """Where the inputs are."""
        return device_of(self.inputs)

    def take(self, index: Tensor | slice) -> Examples:
        """Some of them: those of an index or a slice."""
        return replace(self, batch=taken(self.batch, index))

    def by_size(self) -> list[Examples]:
        """All of them, in parts whose inputs have one size each, in the order in which sizes come.

        Each is as if it had been read alone. Examples whose inputs are tensors have one size: they are the only part.
        """
        index = by_size(self.inputs) if has_lists(self.batch) else None  # else the task need not be asked for inputs
        return [self] if index is None else [replace(self, batch=some_of_one_size(self.batch, i)) for i in index]

    def mean_by_size(self, loss: Callable[[Examples], Tensor]) -> Tensor:
        """The mean over all of them: that of each size, weighted by its examples.

        Args:
            loss: The mean over examples of one size. If all are, it is given these as they are.
        """
        parts = self.by_size()
        if len(parts) == 1:
            return loss(parts[0])
        n = sum(map(len, parts))
        return torch.stack([len(part) / n * loss(part) for part in parts]).sum()

    def split(self, size: int) -> list[Examples]:
        """All of them, at most `size` at a time, in order, in parts of nearly equal length.

        Inputs of several sizes are taken apart by size first.
        """
        return [part for some in self.by_size() for part in some.batches(size)]

    def batches(self, size: int) -> list[Examples]:
        """All of them, at most `size` at a time, in order, in parts of nearly equal length, whatever their sizes."""
        return [replace(self, batch=part) for part in cut(self.batch, -(-len(self) // size))]

    def to(self, device: torch.device | str) -> Examples:
        """The same on a device."""
        return replace(self, batch=moved(self.batch, device))

    def losses(self, outputs: Any) -> Tensor:
        """(n,) losses, or their mean, of what a network returned; in float32 at least.

        Raises:
            ValueError: The loss fails, or returns something else.
        """
        return values(self.task, "loss", in_float32(outputs), self.batch, len(self))

    def strata(self) -> Tensor:
        """(n,) integers: subsets are taken with equal shares of each."""
        if self.task.strata is None:
            return torch.zeros(len(self), dtype=torch.int64)
        return self.task.strata(self.batch)


def following(examples: Examples, model: nn.Module, *, batch_size: int = 256) -> Examples:
    """The same examples with another task: to return what `model`, in eval mode, returns now. No labels are needed.

    Its loss is `Task.distil` (at temperature 1), its metric `Task.agreement`.
    """
    task = followed(examples.task)
    numbered = Examples((examples.batch, torch.arange(len(examples))), task)  # as parts may come in another order
    parts = numbered.split(batch_size)
    with as_found(model), torch.inference_mode(), random_apart(examples.device, seed=0):
        answers: Sequence[Any] = [called(model, part.inputs) for part in parts]
    reference = mapped(joined(answers), torch.clone)
    order = torch.cat([part.batch[1] for part in parts])
    if not torch.equal(order, numbered.batch[1]):
        reference = taken(reference, order.argsort())
    return Examples((examples.batch, reference), task)


def follows(task: Task) -> bool:
    """Whether a task has nothing to judge by but the unpruned network."""
    return task.loss is None and task.metric is None


def judged_as(task: Task) -> Task:
    """What a task is judged by: itself, or, without labels, how well the unpruned network is followed."""
    return followed(task) if follows(task) else task


def followed(task: Task) -> Task:
    """A task whose batches are pairs of a batch and what the unpruned network returns for it."""
    return replace(
        task,
        inputs=_InputsOf(task),
        loss=_DistanceOf(task),
        metric=_AgreementOf(task),
        metric_name="agreement",
        higher_is_better=True,
        strata=None if task.strata is None else _StrataOf(task),
        training_loss=None,
        check=None,
    )


@dataclass(frozen=True)
class _InputsOf:
    task: Task

    def __call__(self, batch: Batch) -> Batch:
        return self.task.inputs(batch[0])


@dataclass(frozen=True)
class _StrataOf:
    task: Task

    def __call__(self, batch: Batch) -> Tensor:
        assert self.task.strata is not None
        return self.task.strata(batch[0])


@dataclass(frozen=True)
class _DistanceOf:
    task: Task

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        return self.task.distil(outputs, in_float32(batch[1]), 1.0)


@dataclass(frozen=True)
class _AgreementOf:
    task: Task

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        return self.task.agreement(outputs, batch[1])
