"""The user's data, in whatever form it comes: tensors, a dataset, or a data loader."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from prunesearch.structure import IntArray

Source: TypeAlias = "tuple[Tensor, Tensor] | Dataset[Any] | DataLoader[Any]"


@dataclass(frozen=True)
class Data:
    """What a search and a finetune work with. Nothing of it is changed.

    Each source is a pair of tensors (images, labels), a map-style `Dataset` of (image, label) items, or a `DataLoader`
    (its dataset is used; batching and shuffling are ours).

    Attributes:
        train: Images to calibrate, score and finetune with, normalised as the network expects.
        test: Images kept out of all that, for reporting; optional.
        calibration: How many training images score structures and re-estimate BatchNorm statistics: a fixed subset,
            balanced by class.
        calibrate_on: Where to take those from instead of `train`, which may then be augmented at random.
        seed: Decides the subset.

    Raises:
        TypeError: A source is none of the three forms.
        ValueError: A source is empty, has no labels, or labels of another number than its images.
    """

    train: Source
    test: Source | None = None
    calibration: int = 1024
    calibrate_on: Source | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.calibration < 1:
            raise ValueError(f"Expected calibration >= 1 images, got {self.calibration}.")
        for name, source in (("train", self.train), ("test", self.test), ("calibrate_on", self.calibrate_on)):
            if source is not None:
                _check(name, source)

    def sub_training(self) -> Data:
        """The same data without the images of the calibration set in `train`, so that it stays unseen in training.

        Raises:
            ValueError: No image would be left.
        """
        if self.calibrate_on is not None:
            return self
        size = _size(self.train)
        rest = np.setdiff1d(np.arange(size), _shuffled_subset(_classes(self.train), self.calibration, self.seed))
        if len(rest) == 0:
            raise ValueError(
                f"All {size} training images are calibration images, so none is left to train on. Give a smaller "
                "Data(calibration=...), or other images as Data(calibrate_on=...)."
            )
        chosen: Source = (
            _batch(self.train, rest)
            if isinstance(self.train, (tuple, list))
            else Subset(_items(self.train), rest.tolist())
        )
        return replace(self, train=chosen, calibrate_on=self.train)

    def calibration_set(self) -> tuple[Tensor, Tensor]:
        """(n, ...) images and (n,) labels to score with: a subset with equal shares of every class.

        Raises:
            ValueError: The images change from one reading to the next.
        """
        source = self.train if self.calibrate_on is None else self.calibrate_on
        classes = _classes(source)
        chosen = _shuffled_subset(classes, self.calibration, self.seed)
        images, labels = _batch(source, chosen)
        if not torch.equal(_batch(source, chosen[:4])[0], images[:4]):
            raise ValueError(
                "The training data give another image each time they are read (augmentation), so scores could not be "
                "compared. Give the same images without it as Data(calibrate_on=...)."
            )
        return images, labels

    def steps_per_epoch(self, batch_size: int) -> int:
        """How many batches `train_batches` gives."""
        return max(1, _size(self.train) // batch_size)

    def train_batches(
        self, batch_size: int, rng: np.random.Generator, *, first: int = 0, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled epoch of `train`; the last incomplete batch is left out unless it is the only one.

        Args:
            batch_size: Images per batch.
            rng: Decides the order.
            first: Index of the batch to begin with.
            share: (i, n): of every batch only each n-th image, from the i-th on.
        """
        order = rng.permutation(_size(self.train))
        part, parts = share
        for step in range(first, self.steps_per_epoch(batch_size)):
            yield _batch(self.train, order[step * batch_size : (step + 1) * batch_size][part::parts])

    def test_set(self) -> tuple[Tensor, Tensor]:
        """All of `test` in memory.

        Raises:
            ValueError: There is no test source.
        """
        if self.test is None:
            raise ValueError("There is no test data. Give Data(test=...) to report accuracy on images not trained on.")
        return _batch(self.test, np.arange(_size(self.test)))


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


def _check(name: str, source: Source) -> None:
    expected = f"Expected {name} as (images, labels), a Dataset of (image, label) items, or a DataLoader"
    if isinstance(source, (tuple, list)):
        if len(source) != 2 or not all(isinstance(tensor, Tensor) for tensor in source):
            raise TypeError(f"{expected}; got a {type(source).__name__} of {len(source)}.")
        images, labels = source
        if labels.dim() != 1 or labels.is_floating_point():
            raise ValueError(
                f"Expected the labels of {name} as (n,) class indices, got {tuple(labels.shape)} {labels.dtype}."
            )
        if len(images) != len(labels):
            raise ValueError(f"{name} has {len(images)} images and {len(labels)} labels; expected one label per image.")
        size = len(images)
    else:
        items = source.dataset if isinstance(source, DataLoader) else source
        if not isinstance(items, Sized) or not hasattr(items, "__getitem__"):
            raise TypeError(f"{expected}; got {type(source).__name__}, which has no length or cannot be indexed.")
        size = len(items)
        item = items[0] if size else (None, None)
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise ValueError(f"The items of {name} have no labels: expected (image, label), got {type(item).__name__}.")
    if size == 0:
        raise ValueError(f"{name} is empty.")


def _items(source: Source) -> Any:
    return source.dataset if isinstance(source, DataLoader) else source


def _size(source: Source) -> int:
    return len(source[0]) if isinstance(source, (tuple, list)) else len(_items(source))


def _classes(source: Source) -> IntArray:
    """Something that tells classes apart, without decoding images where the dataset keeps it as torchvision's do.

    For balance only: what a dataset keeps is not always what its items say.
    """
    items = source if isinstance(source, (tuple, list)) else _items(source)
    kept: Any = source[1] if isinstance(source, (tuple, list)) else None
    for attribute in ("targets", "labels"):
        found = getattr(items, attribute, None)
        if kept is None and isinstance(found, (list, tuple, np.ndarray, Tensor)) and len(found) == len(items):
            kept = found
    if kept is None:
        kept = [_label(items[i][1]) for i in range(len(items))]
    classes: IntArray = np.unique(np.asarray(kept), return_inverse=True)[1].reshape(-1).astype(np.int64)
    return classes


def _label(value: Any) -> int:
    """A class index, whatever it came as."""
    label = np.asarray(value)
    if label.ndim > 0 and label.size != 1:
        raise ValueError(
            f"Expected labels as class indices, got one of shape {label.shape}. Take the argmax of one-hot."
        )
    if not np.issubdtype(label.dtype, np.integer) and not np.issubdtype(label.dtype, np.bool_):
        raise ValueError(f"Expected labels as integer class indices, got {value!r}.")
    return int(label.item())


def _batch(source: Source, chosen: IntArray) -> tuple[Tensor, Tensor]:
    if isinstance(source, (tuple, list)):
        index = torch.from_numpy(chosen)
        return source[0][index], source[1][index].long()
    items = _items(source)
    pairs = [items[int(i)][:2] for i in chosen]
    images = torch.stack([torch.as_tensor(image) for image, _ in pairs])
    return images, torch.tensor([_label(label) for _, label in pairs])


def _shuffled_subset(classes: IntArray, n: int, seed: int) -> IntArray:
    """`n` indices, or all, as evenly over the classes as their sizes allow, in random order."""
    n = min(n, len(classes))
    rng = np.random.default_rng([seed, n])
    chosen = balanced(classes, n, rng.permutation(len(classes)))
    return chosen[rng.permutation(n)]
