"""The user's data: what to train, score and test with, and which images of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from prunesearch.models import nested
from prunesearch.models.devices import random_apart
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.nested import Batch, tensors_in
from prunesearch.models.sizes import batches_by_size, of_first_size
from prunesearch.ranges import whole_number
from prunesearch.structure import IntArray
from prunesearch.tasks import CLASSIFICATION, make_task
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.task import Task
from prunesearch.training.reading import (
    Source,
    batch_of,
    classes_of,
    is_batch,
    is_labelled_batch,
    is_tensors,
    items_of,
    kept_labels,
    opaque,
    opaque_batch_of,
    size_of,
    understood,
)

__all__ = ["Data", "Source", "as_data", "balanced"]

_NO_TEST = "There is no test data. Give Data(test=...) to report accuracy on images not trained on."


@dataclass(frozen=True, repr=False)
class Data:
    """What a search and a finetune work with. Nothing of it is changed.

    Each source is a pair (images, labels) of tensors or arrays of numpy, a map-style `Dataset` of (image, label) items
    or a list of such items, or a `DataLoader` (its dataset and number of workers are used; batching and shuffling are
    ours). Labels are class indices from 0. Of a network with several inputs, images are what it is called with: a tuple
    of tensors, (n, ...) each, a list, or a dictionary by name, nested or not; of an item those of one image.

    With another task than classification, batches are whatever the task understands: a source is a tensor, tuple or
    dictionary of tensors (n, ...), nested or not; a `Dataset` or list of examples of any form; or a `DataLoader`, whose
    `collate_fn` is used if it is not torch's own. What cannot be stacked, such as boxes, is one item per example
    (`models.nested.Ragged`). So are inputs of several sizes, in a `Dataset`, list or `DataLoader`; the network and the
    functions of the task are given one size at a time.

    Attributes:
        train: Images to calibrate, score and finetune with, normalised as the network expects.
        test: Images kept out of all that, for reporting; optional.
        validation: Images kept out of training, by which it chooses its best epoch and stops early: a source, or the
            share of `train` to hold out, in (0, 1), balanced by class; optional.
        calibration: How many training images score structures and re-estimate BatchNorm statistics: a fixed subset,
            balanced by class.
        calibrate_on: Where to take those from instead of `train`, which may then be augmented at random.
        seed: Decides the subset.
        task: What the network is for: a `Task`, or the name of one (`prunesearch.tasks.make_task`). By default
            classification; of a source without labels, such as a tensor of images, fidelity to the unpruned network.

    Raises:
        TypeError: A source has none of these forms, or a number is no whole number.
        ValueError: A source is empty, has no labels, or labels of another number than its images; images or labels are
            of a kind that is not understood, such as PIL images or strings; or a number is out of its range.
    """

    train: Source
    test: Source | None = None
    calibration: int = 1024
    calibrate_on: Source | None = None
    seed: int = 0
    validation: Source | float | None = None
    task: Task | str | Callable[[], Task] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", _task_of(self.task, self.train))
        whole_number("calibration", self.calibration, at_least=1)
        whole_number("seed", self.seed, at_least=0)
        for name in ("train", "test", "calibrate_on", "validation"):
            given = getattr(self, name)
            if name == "train" or not (given is None or isinstance(given, (int, float))):
                object.__setattr__(self, name, understood(name, given) if self._has_classes else opaque(name, given))
        if isinstance(self.validation, (int, float)):
            held_out = round(self.validation * size_of(self.train)) if 0 < self.validation < 1 else 0
            if not 0 < held_out < size_of(self.train):
                raise ValueError(
                    f"Expected validation as a share in (0, 1) of the {size_of(self.train)} training images that "
                    f"leaves some on both sides, or as a source; got {self.validation}."
                )

    def __repr__(self) -> str:
        sources = {name: getattr(self, name) for name in ("train", "test", "validation", "calibrate_on")}
        given = [f"{name}={_brief(source)}" for name, source in sources.items() if source is not None]
        task = "" if self._has_classes else f", task={self.goal.name}"
        return f"Data({', '.join(given)}, calibration={self.calibration}, seed={self.seed}{task})"

    @property
    def goal(self) -> Task:
        """The task."""
        assert isinstance(self.task, Task)  # since it was made
        return self.task

    def examples_of(self, batch: Batch) -> Examples:
        """A batch of these data with the task that understands it."""
        return Examples(batch, self.goal)

    @property
    def _has_classes(self) -> bool:
        """Whether every source is one of images with class indices."""
        return self.goal == make_task(CLASSIFICATION)

    def sub_training(self) -> Data:
        """The same data without the images of the calibration set in `train`, so that it stays unseen in training.

        Raises:
            ValueError: No image would be left.
        """
        if self.calibrate_on is not None:
            return self
        chosen = self._calibrating(self.train, self._trained_on)
        rest = np.setdiff1d(self._trained_on, chosen)
        if len(rest) == 0:
            raise ValueError(
                f"All {len(chosen)} training images are calibration images, so none is left to train on. Give a "
                "smaller Data(calibration=...), or other images as Data(calibrate_on=...)."
            )
        train = self._subset(self.train, rest)
        if not isinstance(self.validation, (int, float)):
            return replace(self, train=train, calibrate_on=self.train)
        held_out, drawn_from = (self._subset(self.train, some) for some in (self._held_out, self._trained_on))
        return replace(self, train=train, calibrate_on=drawn_from, validation=held_out)

    def calibration_set(self) -> Batch:
        """What structures are scored with, as one batch: a subset with equal shares of every class.

        Of classification a pair of (n, ...) images and (n,) labels.

        Raises:
            ValueError: The images change from one reading to the next.
        """
        source, among = self.train, self._trained_on
        if self.calibrate_on is not None:
            source, among = self.calibrate_on, np.arange(size_of(self.calibrate_on))
        return self._steady(source, self._calibrating(source, among), "calibrate_on")

    def _calibrating(self, source: Source, among: IntArray) -> IntArray:
        """Indices of the calibration images, of those that may be."""
        return among[_shuffled_subset(self._strata(source)[among], self.calibration, self.seed)]

    def examples(self, n: int = 2) -> Batch:
        """What the network is called with for the first n of `train`, as they come: (n, ...) images.

        Where they differ in size, those that have the size of the first.
        """
        return of_first_size(self.goal.inputs(self.first(n)))

    def first(self, n: int = 2) -> Batch:
        """The first n of `train` as they come, with their targets, as one batch."""
        with random_apart(seed=0):
            return self._read(self.train, np.arange(min(n, size_of(self.train))))

    def steps_per_epoch(self, batch_size: int) -> int:
        """How many batches `train_batches` gives from the first."""
        return max(1, len(self._trained_on) // batch_size)

    def train_batches(
        self,
        batch_size: int,
        rng: np.random.Generator,
        *,
        first: int = 0,
        share: tuple[int, int] = (0, 1),
        pinned: bool = False,
    ) -> Iterator[Batch]:
        """One shuffled epoch of `train`; the last incomplete batch is left out unless it is the only one.

        Whatever a dataset draws at random of torch, numpy or Python is decided by `rng` for each batch, so that a batch
        is the same wherever the epoch is entered.

        Args:
            batch_size: Images per batch.
            rng: Decides the order.
            first: Index of the batch to begin with.
            share: (i, k) gives every k-th image of each batch, from the i-th: one of k processes' share.
            pinned: Whether batches are in pinned memory, from which the copy to a GPU keeps nobody waiting.
        """
        order = self._trained_on[rng.permutation(len(self._trained_on))]
        steps = self.steps_per_epoch(batch_size)
        chosen = [order[step * batch_size : (step + 1) * batch_size][share[0] :: share[1]] for step in range(steps)]
        batches = _Batches(self, chosen, rng.integers(2**32, size=steps).tolist())
        workers = self.train.num_workers if isinstance(self.train, DataLoader) else 0
        if workers:
            yield from DataLoader(
                batches,
                batch_size=None,
                sampler=range(first, steps),
                num_workers=workers,
                collate_fn=_as_it_is,
                pin_memory=pinned,
            )
        else:
            read = (batches[step] for step in range(first, steps))
            yield from (nested.mapped(batch, Tensor.pin_memory) if pinned else batch for batch in read)

    def validation_set(self) -> Batch | None:
        """All that is held out for validation, as one batch in memory; None if there is nothing.

        Raises:
            ValueError: A share of the training images is to be held out, and they change from one reading to the next.
        """
        if self.validation is None:
            return None
        if isinstance(self.validation, (int, float)):
            return self._steady(self.train, self._held_out, "validation")
        return self._read(self.validation, np.arange(size_of(self.validation)))

    def fingerprint(self) -> str:
        """Hash of what is trained on and validated with.

        Of tensors all of it; of a dataset its size, its classes and, if those are steady, 64 of its images.
        """
        held_out = self.validation_set()
        rest = fingerprint(*nested.members((torch.empty(0), torch.empty(0)) if held_out is None else held_out))
        if is_batch(self.train):
            return f"{fingerprint(*nested.members(self.train))}-{rest}"
        few = np.linspace(0, size_of(self.train) - 1, 64).astype(np.int64)
        inputs = self.goal.inputs(self._read(self.train, few))
        steady = inputs if _same(inputs, self.goal.inputs(self._read(self.train, few))) else torch.empty(0)
        return f"{fingerprint(steady, torch.from_numpy(self._strata(self.train)))}-{rest}"

    def test_set(self) -> Batch:
        """All of `test`, as one batch in memory; of classification a pair of images and labels.

        Raises:
            ValueError: There is no test source.
        """
        if self.test is None:
            raise ValueError(_NO_TEST)
        return self._read(self.test, np.arange(size_of(self.test)))

    def test_batches(self, batch_size: int = 256) -> Iterator[Batch]:
        """All of `test`, in order, a batch in memory at a time.

        Raises:
            ValueError: There is no test source.
        """
        if self.test is None:
            raise ValueError(_NO_TEST)
        index = np.arange(size_of(self.test))
        for start in range(0, len(index), batch_size):
            yield self._read(self.test, index[start : start + batch_size])

    def some_of_test(self, n: int = 64) -> Batch:
        """Some of `test`, spread over all of it, the last one included, as one batch.

        Raises:
            ValueError: There is no test source.
        """
        if self.test is None:
            raise ValueError(_NO_TEST)
        return self._read(self.test, np.unique(np.linspace(0, size_of(self.test) - 1, n).astype(np.int64)))

    def class_count(self) -> int:
        """How many classes there are if labels count from 0: one more than the largest label of `train`.

        Raises:
            ValueError: The task is not classification.
        """
        if not self._has_classes:
            raise ValueError(f"Expected data of images with classes to count, got data of the task {self.goal.name}.")
        _, first = np.unique(kept_labels(self.train), return_index=True)
        return 1 + int(batch_of(self.train, first)[1].max())  # one image of each: what they say is what counts

    def _read(self, source: Source, chosen: IntArray) -> Batch:
        """Some examples of a source, as one batch."""
        return batch_of(source, chosen) if self._has_classes else opaque_batch_of(source, chosen)

    def _subset(self, source: Source, chosen: IntArray) -> Source:
        """Some examples of a source, as a source."""
        if is_batch(source):
            return self._read(source, chosen)
        some: Subset[Any] = Subset(items_of(source), chosen.tolist())
        if self._has_classes or not isinstance(source, DataLoader):
            return some
        return DataLoader(some, num_workers=source.num_workers, collate_fn=source.collate_fn)

    def _strata(self, source: Source) -> IntArray:
        """(n,) integers, of each of which subsets have equal shares."""
        if self._has_classes:
            return classes_of(source)
        n = size_of(source)
        if self.goal.strata is None:
            return np.zeros(n, dtype=np.int64)
        parts = [self.goal.strata(self._read(source, part)) for part in np.array_split(np.arange(n), -(-n // 256))]
        return np.unique(torch.cat(parts).cpu().numpy(), return_inverse=True)[1].reshape(-1).astype(np.int64)

    def _steady(self, source: Source, chosen: IntArray, instead: str) -> Batch:
        """Read some examples whose inputs must be the same at each reading."""
        batch = self._read(source, chosen)
        images = self.goal.inputs(batch)
        if nested.size_of(images) != len(chosen):
            raise ValueError(
                f"Expected inputs of {len(chosen)} examples, (n, ...), got {nested.size_of(images)}. Look at the "
                "collate_fn of the DataLoader, and at the inputs of the Task."
            )
        if not all(bool(x.isfinite().all()) for x in tensors_in(images) if x.is_floating_point()):
            raise ValueError(
                "Some training images hold NaN or infinite values. Leave them out, or normalise otherwise."
            )
        if not _same(self.goal.inputs(self._read(source, chosen[:4])), nested.taken(images, slice(4))):
            raise ValueError(
                "The training data give another image each time they are read (augmentation), so scores could not be "
                f"compared. Give the same images without it as Data({instead}=...)."
            )
        return batch

    @cached_property
    def _held_out(self) -> IntArray:
        """Indices of the training images that are kept for validation."""
        if not isinstance(self.validation, (int, float)):
            return np.empty(0, dtype=np.int64)
        strata = self._strata(self.train)
        return _shuffled_subset(strata, round(self.validation * len(strata)), self.seed)

    @cached_property
    def _trained_on(self) -> IntArray:
        return np.setdiff1d(np.arange(size_of(self.train)), self._held_out)


def as_data(given: Data | Source) -> Data:
    """Data as they are; a source alone is what to train with."""
    return given if isinstance(given, Data) else Data(train=given)


def balanced(classes: IntArray, n: int, order: IntArray | None = None) -> IntArray:
    """Indices of `n` images, or all if there are fewer, with equal shares of every class as far as they go.

    Args:
        classes: (images,) class of each.
        n: How many.
        order: Permutation of all indices that says which of a class come first; as they are by default, class by class.
    """
    if order is None:
        order = np.argsort(classes, kind="stable")
    rank_in_class = np.zeros(len(classes), dtype=np.int64)
    for label in np.unique(classes):
        of_class = order[classes[order] == label]
        rank_in_class[of_class] = np.arange(len(of_class))
    return order[np.argsort(rank_in_class[order], kind="stable")][:n]


def told_of(data: Data) -> str:
    """What the training examples are, such as `60 images of 3x8x8 with labels`; for who reads of a search later."""
    if is_tensors(data.train) and isinstance(data.train[0], Tensor):
        n, *shape = data.train[0].shape
        return f"{n:,} images of {'x'.join(map(str, shape))} with labels"
    return _brief(data.train)


def _brief(source: Source | float) -> str:
    """A source without its contents."""
    if isinstance(source, (int, float)):
        return str(source)
    if is_batch(source) and not is_tensors(source):
        return nested.described(source)
    if is_tensors(source):
        images, _ = source
        shown = f"images {tuple(images.shape)}" if isinstance(images, Tensor) else f"inputs {nested.described(images)}"
        return f"{shown} and labels"
    return f"{type(items_of(source)).__name__} of {size_of(source)}"


def _same(one: Batch, other: Batch) -> bool:
    """Whether two batches of the same kind hold the same values."""
    mine, others = (list(tensors_in(batches_by_size(batch))) for batch in (one, other))
    return len(mine) == len(others) and all(map(torch.equal, mine, others))


def _task_of(given: Task | str | Callable[[], Task] | None, train: Any) -> Task:
    """The task that was given, or that a source looks like.

    Raises:
        TypeError: It is none.
        ValueError: No task has this name.
    """
    if given is not None:
        return make_task(given)
    return make_task("fidelity" if _has_no_labels(train) else CLASSIFICATION)


def _has_no_labels(train: Any) -> bool:
    """Whether it is images alone: a tensor, or items that are tensors."""
    if isinstance(train, list) and is_labelled_batch(train):
        return False
    if isinstance(train, Tensor) or (isinstance(train, np.ndarray) and train.dtype.kind in "iuf"):
        return True
    items = items_of(train)
    if isinstance(train, (tuple, str, bytes, Mapping)) or not hasattr(items, "__getitem__"):
        return False
    if not isinstance(items, Sized) or len(items) == 0:
        return False
    item: Any = items[0]  # type: ignore[index]  # it has __getitem__
    return isinstance(item[0] if isinstance(item, tuple) and len(item) == 1 else item, (Tensor, np.ndarray))


class _Batches(Dataset[Any]):
    """Whole batches as the items of a dataset, each with a seed of its own: the same from any worker, in any order."""

    def __init__(self, data: Data, chosen: Sequence[IntArray], seeds: Sequence[int]) -> None:
        self._data, self._chosen, self._seeds = data, chosen, seeds

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, step: int) -> Batch:
        source = self._data.train
        if is_batch(source):  # nothing is drawn
            return self._data._read(source, self._chosen[step])
        with random_apart(seed=self._seeds[step]):
            return self._data._read(source, self._chosen[step])


def _as_it_is(batch: Any) -> Any:
    return batch


def _shuffled_subset(classes: IntArray, n: int, seed: int) -> IntArray:
    """`n` indices, or all, as evenly over the classes as their sizes allow, in random order."""
    n = min(n, len(classes))
    rng = np.random.default_rng([seed, n])
    chosen = balanced(classes, n, rng.permutation(len(classes)))
    return chosen[rng.permutation(n)]
