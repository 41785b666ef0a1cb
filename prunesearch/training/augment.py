"""What is done at random to images, as a plain value: the command line checks it before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunesearch.errors import expect

if TYPE_CHECKING:
    import torch

    from prunesearch.models.nested import Batch


@dataclass(frozen=True)
class Augmentation:
    """What is done at random to the images of a batch, to each image differently.

    Attributes:
        flip: Mirror left and right, half of the time.
        crop: Shift by up to this many pixels in both directions; what comes in at the border is mirrored.
        erase: Side of a square, anywhere (also partly outside), that is set to 0, the mean of normalised images
            (cutout, DeVries and Taylor 2017, arXiv:1708.04552).
    """

    flip: bool = False
    crop: int = 0
    erase: int = 0

    def __post_init__(self) -> None:
        expect(self.crop >= 0, "crop >= 0 pixels", self.crop)
        expect(self.erase >= 0, "erase >= 0 pixels", self.erase)

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Read the command line's form, `"flip,crop=4,erase=8"`; `"none"` is none.

        Raises:
            ValueError: It is not of this form.
        """
        settings: dict[str, Any] = {}
        for part in [] if text == "none" else text.split(","):
            name, _, pixels = part.partition("=")
            if (name, pixels) == ("flip", ""):
                settings[name] = True
            elif name in ("crop", "erase") and pixels.isdigit():
                settings[name] = int(pixels)
            else:
                raise ValueError(f'Expected an augmentation such as "flip,crop=4,erase=8" or "none", got {text!r}.')
        return cls(**settings)

    def check(self, images: Batch, targets_have_positions: bool = False) -> None:
        """Make sure that it can be applied to inputs of this kind.

        Args:
            images: What the network is called with.
            targets_have_positions: Whether targets would have to change with the images, as masks and boxes.

        Raises:
            ValueError: Something is to be done, and there are several inputs, the targets have positions, or the inputs
                are no (n, c, h, w) images, or too small.
        """
        if self != Augmentation() and targets_have_positions:
            raise ValueError(
                "Expected no augmentation (Augmentation()): the targets of this task, such as masks, would have to "
                "change with the images. Augment in the dataset."
            )
        if self != Augmentation() and isinstance(images, (tuple, list, dict)):
            raise ValueError(
                "Expected one tensor of images to augment, got several inputs, which would have to change together, or "
                "images of several sizes. Use Augmentation(), and augment in the dataset."
            )
        if self != Augmentation() and (images.dim() != 4 or self.crop >= min(images.shape[2:])):
            shape = ", ".join(["n", *map(str, images.shape[1:])])
            raise ValueError(
                f"Expected (n, c, h, w) images larger than crop={self.crop} pixels to augment, got ({shape}). Use "
                "Augmentation()."
            )

    def __call__(self, images: Batch, generator: torch.Generator) -> Batch:
        """Change (n, c, h, w) images; what is not of four dimensions is returned as it is if nothing is to be done.

        Args:
            images: On any device.
            generator: On the CPU; decides everything.

        Raises:
            ValueError: Something is to be done to inputs that are no (n, c, h, w) images, or that are too small.
        """
        if self == Augmentation():
            return images
        self.check(images)
        from prunesearch.training.pixels import erased, moved

        if self.flip or self.crop:
            images = moved(images, self.flip, self.crop, generator)
        return erased(images, self.erase, generator) if self.erase else images
