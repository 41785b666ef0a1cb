"""What a network is for. Batches are opaque to everything else: only a task looks inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prunesearch.models.nested import Batch, Ragged
from prunesearch.tasks.outputs import output_agreement, output_distance

Loss = Callable[[Any, Batch], Tensor]


def first_of(batch: Batch) -> Batch:
    """The first of a tuple or list, such as the images of (images, labels); anything else as it is."""
    return batch[0] if _is_several(batch) and len(batch) > 1 else _alone(batch)


def first_of_pair(batch: Batch) -> Batch:
    """The first of two, such as the images of (images, labels); of three or more all, as each may be an input."""
    return batch if _is_several(batch) and len(batch) > 2 else first_of(batch)


def second_of(batch: Batch) -> Any:
    """The second of a tuple or list, such as the labels of (images, labels)."""
    return batch[1]


def targets_of(batch: Batch, wanted: str, advice: str) -> Tensor:
    """The second of a pair, which is a tensor.

    Args:
        batch: Of (inputs, targets).
        wanted: What the target of an example is to be, for the message.
        advice: What to do, for the message.

    Raises:
        ValueError: It is none, or there is none.
    """
    if not _is_several(batch) or len(batch) < 2:
        got = "inputs without targets" if isinstance(batch, (Tensor, tuple, list)) else f"a {type(batch).__name__}"
        raise ValueError(f"Expected pairs of inputs and targets, {wanted} for each example; got {got}. {advice}")
    found = second_of(batch)
    if not isinstance(found, Tensor):
        raise ValueError(f"Expected {wanted} as the target of each example, got {_kind_of(found)}. {advice}")
    return found


def _kind_of(targets: Any) -> str:
    """What targets are that could not be put together, for messages."""
    if not isinstance(targets, Ragged):
        return "none" if targets is None else f"a {type(targets).__name__}"
    if all(isinstance(item, Tensor) for item in targets):
        return "tensors of " + " and ".join(map(str, {tuple(item.shape): None for item in targets}))
    return " and ".join({f"a {type(item).__name__}": None for item in targets})


def _alone(batch: Batch) -> Batch:
    """What a tuple of one holds, as `TensorDataset(images)` gives it."""
    return batch[0] if _is_several(batch) and len(batch) == 1 else batch


def _is_several(batch: Batch) -> bool:
    """Whether it is a tuple or list of things (n, ...), and not images of several sizes, one item each."""
    return isinstance(batch, (tuple, list)) and not isinstance(batch, Ragged)


@dataclass(frozen=True)
class Task:
    """What a network is for: how it is called on a batch, what its loss is, how it is judged.

    A batch is whatever the data give of n examples at once. What the functions are given of it is on the device of the
    network. Where inputs are of several sizes, a batch has a list of them, one item per example; only `inputs` and
    `strata` are given such a batch, all other functions one size at a time. Functions that are to go to worker
    processes must be such that cloudpickle can copy them.

    Attributes:
        inputs: What the network is called with: a tensor (n, ...), a tuple or list (positional arguments) or a
            dictionary (by name), nested or not. By default the first of a pair.
        loss: `loss(outputs, batch)`: (n,) losses, one per example, or their mean as one number; less is better. None:
            there are no labels, so structures are scored, and trained, by how well they follow the unpruned network.
        metric: What is reported, and may be scored by, in one of three forms: a function `metric(outputs, batch)` that
            returns (n,) values or their mean; an object with `update(outputs, batch)` and `compute()`; or what makes
            such an object without arguments. Of torchmetrics, `update` is given `predictions(outputs)` and
            `targets(batch)`. None: the loss is all there is.
        metric_name: What it is called; by default the name of the function or class.
        higher_is_better: Of the metric; None asks torchmetrics' own attribute, and else means True.
        predictions: What torchmetrics compare: by default the main output (`tasks.outputs.main_output`).
        targets: What they compare it with: by default the second of a pair.
        distil: `distil(outputs, teacher's outputs, temperature)`: (n,) distances, one per example, or their mean.
            By default the squared distance of every tensor, relative to its variance.
        agreement: `agreement(outputs, reference outputs)`: (n,) shares in [0, 1] of how far they say the same.
        strata: `strata(batch)`: (n,) integers; subsets are taken with equal shares of each. None: at random.
        training_loss: `training_loss(returned, batch, label_smoothing)`: one number, where training needs another loss
            than scoring, as of networks with auxiliary heads.
        check: `check(outputs, batch)` raises ValueError, with a sentence, where data do not fit the network.
        targets_have_positions: Whether targets belong to places of the images, as masks and boxes do, so that images
            must not be shifted without them.
        name: What messages, and studies, call it.
    """

    inputs: Callable[[Batch], Batch] = first_of
    loss: Loss | None = None
    metric: Any = None
    metric_name: str | None = None
    higher_is_better: bool | None = None
    predictions: Callable[[Any], Any] | None = None
    targets: Callable[[Batch], Any] = second_of
    distil: Callable[[Any, Any, float], Tensor] = output_distance
    agreement: Callable[[Any, Any], Tensor] = output_agreement
    strata: Callable[[Batch], Tensor] | None = None
    training_loss: Callable[[Any, Batch, float], Tensor] | None = None
    check: Callable[[Any, Batch], None] | None = None
    targets_have_positions: bool = True
    name: str = "task"

    def __post_init__(self) -> None:
        for name in ("inputs", "loss", "distil", "agreement", "strata", "training_loss", "check", "predictions"):
            given = getattr(self, name)
            if not (callable(given) or (given is None and name not in ("inputs", "distil", "agreement"))):
                raise TypeError(f"Expected {name} of a Task as a function, got {given!r}.")

    def __repr__(self) -> str:
        return f"Task({self.name})"
