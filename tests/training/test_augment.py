from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prunesearch.training.augment import Augmentation

IMAGES = torch.arange(1.0, 1 + 64 * 2 * 5 * 7).view(64, 2, 5, 7)  # every pixel another, none 0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_move(image: Tensor, crop: int, flip: bool) -> set[bytes]:
    padded = F.pad(image[None], (crop,) * 4, mode="reflect")[0] if crop else image
    height, width = image.shape[1:]
    shifts = range(2 * crop + 1)
    moved = [padded[:, down : down + height, right : right + width] for down in shifts for right in shifts]
    moved += [piece.flip(2) for piece in moved] if flip else []
    return {piece.contiguous().numpy().tobytes() for piece in moved}


@pytest.mark.parametrize(("crop", "flip"), [(0, True), (2, False), (2, True)])
def test_each_image_of_a_batch_is_moved_as_it_could_be_alone_and_each_for_itself(crop: int, flip: bool) -> None:
    found = Augmentation(flip=flip, crop=crop)(IMAGES, generator())
    moves = set()
    for image, moved in zip(IMAGES, found, strict=True):
        assert moved.contiguous().numpy().tobytes() in every_move(image, crop, flip)
        moves.add((moved - image).contiguous().numpy().tobytes())
    assert len(moves) > 1


def test_erasing_zeroes_one_square_of_each_image_and_nothing_else() -> None:
    found = Augmentation(erase=3)(IMAGES, generator())
    erased = found == 0
    assert torch.equal(erased[:, 0], erased[:, 1])
    assert torch.equal(found[~erased], IMAGES[~erased])
    for hole in erased[:, 0]:
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert 1 <= len(rows) <= 3
        assert 1 <= len(columns) <= 3
        assert int(hole.sum()) == len(rows) * len(columns)
        assert int(rows[-1] - rows[0]) == len(rows) - 1


def test_the_generator_decides_everything_and_nothing_to_do_does_nothing() -> None:
    all_of_it = Augmentation(flip=True, crop=1, erase=2)
    one, two, other = (all_of_it(IMAGES, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert Augmentation()(IMAGES, generator()) is IMAGES


def test_the_command_lines_form_is_read() -> None:
    assert Augmentation.parse("flip,crop=4,erase=8") == Augmentation(flip=True, crop=4, erase=8)
    assert Augmentation.parse("none") == Augmentation()


@pytest.mark.parametrize("text", ["", "flip=1", "crop", "crop=-1", "rotate=3", "crop=4;flip"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        Augmentation.parse(text)


def test_inputs_that_are_no_images_or_smaller_than_the_crop_are_refused() -> None:
    for inputs, augmentation in ((torch.zeros(4, 3), Augmentation(flip=True)), (IMAGES, Augmentation(crop=5))):
        with pytest.raises(ValueError, match="larger than crop"):
            augmentation(inputs, generator())
    with pytest.raises(ValueError, match="crop >= 0 pixels"):
        Augmentation(crop=-1)
