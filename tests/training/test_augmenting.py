from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunesearch.tasks.task import Task
from prunesearch.training.augment import Augmentation
from prunesearch.training.augmenting import augmented, place_of_images
from prunesearch.training.data import Data
from prunesearch.training.finetune import finetune
from prunesearch.training.recipe import Recipe

FLIP = Augmentation(flip=True)
IMAGES, TARGETS = torch.rand(6, 3, 4, 4), torch.rand(6, 5)


def mean_error(outputs: Tensor, batch: Any) -> Tensor:
    return outputs.mean(1).square()


def task(inputs: Any) -> Task:
    return Task(inputs=inputs, loss=mean_error, targets_have_positions=False)


@pytest.mark.parametrize(
    ("batch", "inputs", "place"),
    [
        (IMAGES, lambda batch: batch, None),
        (IMAGES, lambda batch: batch * 2, None),
        ((IMAGES, TARGETS), lambda batch: batch[0], 0),
        ((TARGETS, IMAGES), lambda batch: batch[1], 1),
        ((TARGETS, IMAGES), lambda batch: batch[1] / 255, 1),
        ({"of": TARGETS, "image": IMAGES}, lambda batch: batch["image"], "image"),
        ((IMAGES.clone(), IMAGES), lambda batch: batch[1], 1),
    ],
)
def test_what_the_network_is_called_with_is_changed_and_nothing_else(batch: Any, inputs: Any, place: Any) -> None:
    assert place_of_images(FLIP, batch, task(inputs)) == place
    changed = augmented(FLIP, batch, place, torch.Generator().manual_seed(0))
    flipped = FLIP(IMAGES, torch.Generator().manual_seed(0))
    assert not torch.equal(flipped, IMAGES)
    if place is None:
        assert torch.equal(changed, flipped)  # type: ignore[arg-type]
        return
    parts = changed.items() if isinstance(changed, dict) else enumerate(changed)
    for at, part in parts:
        assert torch.equal(part, flipped if at == place else batch[at])


def test_images_that_are_nowhere_in_the_batch_or_twice_are_refused() -> None:
    for batch in ((TARGETS, TARGETS), (IMAGES, IMAGES.clone())):
        with pytest.raises(ValueError, match=r"Expected batches in which one tensor holds the images \(6, 3, 4, 4\)"):
            place_of_images(FLIP, batch, task(lambda batch: IMAGES * 2))
    whole = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="Leave crop out"):
        place_of_images(Augmentation(crop=1), (whole, TARGETS), task(lambda batch: batch[0] / 255))


def test_a_training_on_dictionaries_mirrors_its_images() -> None:
    seen: list[Tensor] = []

    def loss(outputs: Tensor, batch: Any) -> Tensor:
        seen.append(batch["image"])
        return mean_error(outputs, batch)

    ramp = torch.arange(4.0).expand(6, 3, 4, 4).clone()
    data = Data(
        train={"image": ramp, "y": TARGETS},
        task=Task(inputs=lambda batch: batch["image"], loss=loss, targets_have_positions=False),
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    finetune(model, data, recipe=Recipe(epochs=2, batch_size=6, augmentation=FLIP))
    mirrored = {bool(image[0, 0, 0] > image[0, 0, -1]) for images in seen for image in images}
    assert mirrored == {False, True}
