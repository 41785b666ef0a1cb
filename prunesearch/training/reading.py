"""Where images and labels come from, in whatever form; inside it is a batch with labels, or something with items.

What a network takes of one image may be several tensors: a tuple, list or dictionary of them, nested or not. Of a task
other than classification anything is a batch, or an item, that has a tensor in it (`opaque`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler, default_collate

from prunesearch.models import nested
from prunesearch.models.nested import Batch, as_tensors, from_numpy
from prunesearch.structure import IntArray

Source: TypeAlias = "Batch | Sequence[Any] | Dataset[Any] | DataLoader[Any]"

_FORMS = "(images, labels), a Dataset of (image, label) items or a list of such, or a DataLoader"


def understood(name: str, given: Any) -> Source:
    """A source in one of the two forms that everything else here takes; what is one already comes back as it is.

    Args:
        name: What it is called, for errors.
        given: As `Data` takes it. Arrays of numpy become tensors, 64-bit floats of torch's default type, and float
            labels that are all 0 or 1 become integers. A DataLoader that draws from a subset of its dataset
            (SubsetRandomSampler) is one of that subset.

    Raises:
        TypeError: It has none of the forms.
        ValueError: It is empty, has no labels, or labels of another number than its images; or images or labels are of
            a kind that is not understood.
    """
    given = _sampled(given)
    if isinstance(given, (tuple, list)) and len(given) == 2 and _is_pair(*given):
        return _as_tensors(name, *given)
    items = items_of(given)
    if given is None or isinstance(given, (str, bytes, Mapping)):
        raise TypeError(f"Expected {name} as {_FORMS}; got {repr(given)[:40]}.")
    if not isinstance(items, Sized) or not hasattr(items, "__getitem__"):
        raise TypeError(
            f"Expected {name} as {_FORMS}; got {type(items).__name__}, which has no length or cannot be indexed."
        )
    if len(items) == 0:
        raise ValueError(f"{name} is empty.")
    item = items[0]
    if isinstance(given, (tuple, list)) and not isinstance(item, (tuple, list)):
        kind = f"{type(given).__name__} of {len(given)}, the first a {type(item).__name__}"
        raise TypeError(f"Expected {name} as {_FORMS}; got a {kind}.")
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise ValueError(
            f"The items of {name} have no labels: expected (image, label), got {_item(item)}. For items of another "
            "form give Data(task=...), whose functions read them."
        )
    as_inputs(item[0])
    as_label(item[1])
    found: Source = list(given) if isinstance(given, tuple) else given
    return found


def opaque(name: str, given: Any) -> Source:
    """A source whose batches only its task understands: a batch (a tensor, tuple or dictionary), or what has items.

    Args:
        name: What it is called, for errors.
        given: As `Data` takes it. Arrays of numpy become tensors, 64-bit floats of torch's default type. A DataLoader
            that draws from a subset of its dataset (SubsetRandomSampler) is one of that subset.

    Raises:
        TypeError: It has none of the forms.
        ValueError: It is empty, or nothing in it is a tensor.
    """
    given = _sampled(given)
    if isinstance(given, (Tensor, np.ndarray, tuple, Mapping)):
        found = as_tensors(given)
        try:
            n = nested.size_of(found)
        except ValueError as error:
            raise ValueError(f"Expected {name} as a batch of n examples: {error}") from error
        if n == 0:
            raise ValueError(f"{name} is empty.")
        return found
    items = items_of(given)
    if isinstance(given, (str, bytes)) or not isinstance(items, Sized) or not hasattr(items, "__getitem__"):
        raise TypeError(
            f"Expected {name} as a batch of tensors, a Dataset or list of examples, or a DataLoader of such; got "
            f"{repr(given)[:40]}."
        )
    if len(items) == 0:
        raise ValueError(f"{name} is empty.")
    if not any(True for _ in nested.tensors_in(as_tensors(items[0]))):
        raise ValueError(
            f"Expected examples with tensors in {name}, got {type(items[0]).__name__} without one. Convert images by "
            "transforms.ToTensor()."
        )
    return given


def _sampled(given: Any) -> Any:
    """A DataLoader that draws from a subset of its dataset as one of that subset; anything else as it is."""
    if not (isinstance(given, DataLoader) and isinstance(given.sampler, SubsetRandomSampler)):
        return given
    some: Dataset[Any] = Subset(given.dataset, list(given.sampler.indices))
    return DataLoader(some, num_workers=given.num_workers, collate_fn=given.collate_fn)


def collated(items: Sequence[Any]) -> Any:
    """Examples as one batch: tensors of one shape are stacked, numbers become tensors, the rest stays one per example.

    Dictionaries and tuples of examples become such of batches, as with torch's own; what cannot be stacked, such as
    boxes or texts, becomes a `Ragged` list.
    """
    first = items[0]
    if isinstance(first, Mapping) and all(isinstance(i, Mapping) and i.keys() == first.keys() for i in items):
        return {key: collated([item[key] for item in items]) for key in first}
    if isinstance(first, (tuple, list)) and all(type(i) is type(first) and len(i) == len(first) for i in items):
        columns = [collated(column) for column in zip(*items, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else tuple(columns)
    if all(isinstance(item, (bool, int, float)) for item in items):
        return torch.tensor(list(items))
    return nested.stacked(items)


def is_batch(source: Any) -> bool:
    """Whether a source that was understood is one batch, and not something with items."""
    return isinstance(source, (Tensor, tuple, Mapping))


def opaque_batch_of(source: Source, chosen: IntArray) -> Batch:
    """Some examples of an opaque source, as one batch: as its DataLoader puts them together, if that has its own way.

    Raises:
        ValueError: The DataLoader's way gives something else than n examples.
    """
    if is_batch(source):
        return nested.taken(source, torch.from_numpy(chosen))
    items = items_of(source)
    own = source.collate_fn if isinstance(source, DataLoader) else default_collate
    picked = [items[int(i)] for i in chosen]
    if own is default_collate:
        return collated(list(map(as_tensors, picked)))
    return as_tensors(own(picked))


def is_labelled_batch(given: Sequence[Any]) -> bool:
    """Whether a list is what a DataLoader of (image, label) items gives: a batch and its labels, and no two images."""
    if len(given) != 2 or not all(isinstance(part, (Tensor, np.ndarray)) for part in given):
        return False
    images, labels = map(torch.as_tensor, given)
    return images.dim() > 1 == labels.dim() and len(images) == len(labels) and not labels.is_floating_point()


def is_tensors(source: Any) -> TypeGuard[tuple[Batch, Tensor]]:
    """Whether it is a batch and a tensor of labels; else it has items."""
    return (
        isinstance(source, tuple)
        and len(source) == 2
        and isinstance(source[1], Tensor)
        and (isinstance(source[0], Tensor) or is_nest(source[0]))
    )


def items_of(source: Any) -> Any:
    """What has the items."""
    return source.dataset if isinstance(source, DataLoader) else source


def size_of(source: Source) -> int:
    """How many images there are."""
    if is_tensors(source):
        return nested.size_of(source[0])
    return nested.size_of(source) if is_batch(source) else len(items_of(source))


def kept_labels(source: Source) -> np.ndarray[Any, Any]:
    """The label of each image, without decoding images where the dataset keeps them as torchvision's do."""
    if is_tensors(source):
        return np.asarray(source[1].cpu())
    items = items_of(source)
    for attribute in ("targets", "labels"):
        found = getattr(items, attribute, None)
        if isinstance(found, (list, tuple, np.ndarray, Tensor)) and len(found) == len(items):
            return np.asarray(found)
    return np.asarray([as_label(_pair_at(items, i)[1]) for i in range(len(items))])


def _pair_at(items: Any, index: int) -> tuple[Any, Any]:
    """An image and its label."""
    item = items[index]
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise ValueError(f"Expected each item as (image, label); item {index} is {_item(item)}.")
    return item[0], item[1]


def _item(item: Any) -> str:
    """What an item is, in a few words."""
    if isinstance(item, Mapping):
        return f"a dictionary of {', '.join(map(repr, item))}"[:80]
    return "None" if item is None else f"a {type(item).__name__}"


def classes_of(source: Source) -> IntArray:
    """Something that tells classes apart, for balance only: what a dataset keeps is not always what its items say."""
    classes: IntArray = np.unique(kept_labels(source), return_inverse=True)[1].reshape(-1).astype(np.int64)
    return classes


def batch_of(source: Source, chosen: IntArray) -> tuple[Batch, Tensor]:
    """(n, ...) images, or whatever else the network takes of n, and (n,) labels of some indices.

    Raises:
        ValueError: Images are of several sizes, or images or labels are of a kind that is not understood.
    """
    if is_tensors(source):
        index = torch.from_numpy(chosen)
        return nested.taken(source[0], index), source[1][index].long()
    items = items_of(source)
    pairs = [_pair_at(items, int(i)) for i in chosen]
    return _together([as_inputs(image) for image, _ in pairs]), torch.tensor([as_label(label) for _, label in pairs])


def is_nest(value: Any) -> bool:
    """Whether it is several inputs, and not one in the form of a list of numbers."""
    if isinstance(value, Mapping):
        return True
    if not isinstance(value, (tuple, list)):
        return False
    arrays = isinstance(value, tuple) and any(isinstance(item, np.ndarray) and item.ndim for item in value)
    return arrays or any((isinstance(item, Tensor) and item.dim() > 0) or is_nest(item) for item in value)


def as_inputs(value: Any) -> Batch:
    """What the network takes of one image: a tensor, or a nest of tensors. None stays None.

    Raises:
        ValueError: Something in it can be no tensor.
    """
    if isinstance(value, Mapping):
        return {str(name): as_inputs(item) for name, item in value.items()}
    if is_nest(value):
        return tuple(None if item is None else as_inputs(item) for item in value)
    return as_image(value)


def as_image(image: Any) -> Tensor:
    """One image, or whatever the network takes of one.

    Raises:
        ValueError: It is nothing that can be a tensor, or a tensor without values.
    """
    if type(image).__module__.partition(".")[0] == "PIL":
        raise ValueError(
            "Expected images as tensors, got PIL images. Add torchvision.transforms.ToTensor() to the transform of the "
            "dataset."
        )
    try:
        tensor = from_numpy(image) if isinstance(image, np.ndarray) else torch.as_tensor(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"Expected images as tensors, got {type(image).__name__}.") from error
    if tensor.is_meta:
        raise ValueError("The images are on the meta device, which keeps no values. Load them to another device.")
    return tensor


def as_label(value: Any) -> int:
    """One class index, whatever it came as.

    Raises:
        ValueError: It is none.
    """
    label = np.asarray(value)
    if label.dtype.kind in "US":
        raise ValueError(_strings(value))
    if label.ndim > 0 and label.size != 1:
        raise ValueError(
            f"Expected labels as class indices, got one of shape {label.shape}. Take the argmax of one-hot, "
            "or give Data(task=...) for targets of another kind."
        )
    if label.dtype.kind not in "iub" and not (label.dtype.kind == "f" and label.item() in (0, 1)):
        raise ValueError(f"Expected labels as integer class indices, got {value!r}.")
    return int(label.item())


def _is_pair(images: Any, labels: Any) -> bool:
    """Whether two things are images and labels, and not two items (image, label)."""
    if isinstance(images, (Tensor, np.ndarray)) and isinstance(labels, (Tensor, np.ndarray)):
        return True
    if not _is_sequence(labels) or not (_is_sequence(images) or isinstance(images, Mapping)):
        return False
    return all(not isinstance(label, (tuple, list, Mapping)) and np.ndim(label) == 0 for label in labels)


def _is_batch(images: Any, labels: Any) -> bool:
    """Whether what comes with labels is a nest of inputs (n, ...), and not a list of n images."""
    if not is_nest(images) or isinstance(images, Mapping):
        return isinstance(images, Mapping)
    sizes = {len(part) for part in nested.parts_of(images).values() if np.ndim(part) > 0}
    return len(images) != len(labels) and len(labels) in sizes


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray, list, tuple)) and (not isinstance(value, Tensor) or value.dim() > 0)


def _as_tensors(name: str, images: Any, labels: Any) -> tuple[Batch, Tensor]:
    if _is_batch(images, labels):
        inputs = as_inputs(images)
        n = nested.size_of(inputs)
        if n != len(labels):
            raise ValueError(f"{name} has {n} images and {len(labels)} labels; expected one label per image.")
        if n == 0:
            raise ValueError(f"{name} is empty.")
        return inputs, _class_indices(name, images, labels)
    if len(images) == len(labels) == 0:
        raise ValueError(f"{name} is empty.")
    if len(images) != len(labels):
        raise ValueError(f"{name} has {len(images)} images and {len(labels)} labels; expected one label per image.")
    found = _together([as_inputs(image) for image in images]) if isinstance(images, (list, tuple)) else as_image(images)
    return found, _class_indices(name, images, labels)


def _class_indices(name: str, images: Any, labels: Any) -> Tensor:
    if not isinstance(labels, Tensor):
        array = np.asarray(labels)
        if array.dtype.kind in "US" and array.size:
            raise ValueError(_strings(array.flat[0]))
        if array.dtype.kind not in "iubf":
            raise ValueError(f"Expected the labels of {name} as (n,) class indices, got {array.shape} {array.dtype}.")
        labels = torch.from_numpy(array.astype(np.float64 if array.dtype.kind == "f" else np.int64))
    indices = labels[:, 0] if labels.dim() == 2 and labels.shape[1] == 1 else labels
    if indices.is_floating_point() and bool(((indices == 0) | (indices == 1)).all()):
        indices = indices.long()  # as a binary cross-entropy wants them
    if indices.dim() != 1 or indices.is_floating_point() or indices.is_complex():
        got = f"{tuple(labels.shape)} {labels.dtype}"
        if indices.dim() == 1 and bool(indices.isnan().any()):
            raise ValueError(f"Expected the labels of {name} as (n,) class indices, got {got} with NaN in it.")
        advice = "Give"
        if indices.dim() == 1 and not indices.is_complex() and bool((indices == indices.round()).all()):
            advice = "Make them integers, as by labels.astype(int) or labels.long(), or give"
        elif labels.dim() == 2:
            advice = "Take the argmax of one-hot, or give"
        elif labels.dim() == 4 and np.ndim(images) == 1:
            advice = "Images come first, then labels. Or give"
        hint = f" {advice} Data(task=...) for targets of another kind, such as task='regression'."
        raise ValueError(f"Expected the labels of {name} as (n,) class indices, got {got}.{hint}")
    return indices


def _strings(label: Any) -> str:
    return (
        f"The labels are strings, such as {str(label)!r}; expected class indices. Number them, for example by "
        "{name: index for index, name in enumerate(sorted(set(labels)))}."
    )


def _together(images: Sequence[Batch]) -> Batch:
    """The inputs of several images as a batch.

    Raises:
        ValueError: One image has an input that another has not, or of another size.
    """
    if isinstance(images[0], Tensor) and all(isinstance(image, Tensor) for image in images):
        return _stacked(images)
    parts = [nested.parts_of(image) for image in images]
    for other in parts:
        odd = {name for name, _ in {*_kinds(parts[0])} ^ {*_kinds(other)}}
        if odd:
            raise ValueError(f"Expected the same inputs of every image; some have {min(odd)} and some do not.")
    stacked = [
        _stacked([part[name] for part in parts], f"the input {name}")
        for name, x in parts[0].items()
        if isinstance(x, Tensor)
    ]
    return nested.Nest(images[0])(*stacked)


def _kinds(parts: Mapping[str, Any]) -> list[tuple[str, bool]]:
    return [(name, isinstance(part, Tensor)) for name, part in parts.items()]


def _stacked(images: Sequence[Tensor], what: str = "images") -> Tensor:
    odd = next((image for image in images if image.shape != images[0].shape), None)
    if odd is None:
        return torch.stack(list(images))
    if odd.dim() < 2:
        advice = "Pad or cut them to one length."
    elif odd.shape[1:] == images[0].shape[1:]:
        advice = "Give all of them the same channels, for example by transforms.Grayscale(3)."
    else:
        advice = (
            "Add transforms.Resize(256) and transforms.CenterCrop(224), or other sizes, to the dataset's transform."
        )
    raise ValueError(f"Expected {what} of one size, got {tuple(images[0].shape)} and {tuple(odd.shape)}. {advice}")
