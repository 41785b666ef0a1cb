"""Where in the batches of a task the images are that an augmentation changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunesearch.models.nested import Batch
from prunesearch.tasks.task import Task
from prunesearch.training.augment import Augmentation

Place = int | str | None
"""Of the images in a batch: an index or a key; None where the batch is the images."""


def place_of_images(augmentation: Augmentation, batch: Batch, task: Task) -> Place:
    """Where an augmentation finds the images of a batch; made sure of before the first step.

    It is the tensor that the network is called with. Where the task computes that (as it may scale or normalise), it is
    the only tensor of the batch that has as many images of the same height and width.

    Raises:
        ValueError: Something is to be done, and it cannot be done to what the network is called with.
    """
    if augmentation == Augmentation():
        return None
    images = task.inputs(batch)
    augmentation.check(images, task.targets_have_positions)
    if isinstance(batch, Tensor):
        return None
    items: list[tuple[Any, Any]] = list(batch.items() if isinstance(batch, Mapping) else enumerate(batch))
    places = [at for at, each in items if each is images] or [at for at, each in items if _are_alike(each, images)]
    if len(places) != 1:
        raise ValueError(
            f"Expected batches in which one tensor holds the images {tuple(images.shape)} that the network is called "
            f"with, to augment them; found {len(places)}. Use Augmentation(), and augment in the dataset."
        )
    kind = dict(items)[places[0]].dtype
    if augmentation.crop and not kind.is_floating_point:
        raise ValueError(f"Expected floating-point images to crop, got {kind}. Leave crop out of the augmentation.")
    return places[0]


def augmented(augmentation: Augmentation, batch: Batch, place: Place, generator: torch.Generator) -> Batch:
    """The batch with its images changed, as a new one."""
    if place is None:
        return augmentation(batch, generator)
    found: Any = batch
    changed = augmentation(found[place], generator)
    if isinstance(found, Mapping):
        return {**found, place: changed}
    return tuple(changed if at == place else each for at, each in enumerate(found))


def _are_alike(each: Any, images: Tensor) -> bool:
    if not isinstance(each, Tensor) or each.dim() != 4:
        return False
    return (len(each), *each.shape[2:]) == (len(images), *images.shape[2:])
