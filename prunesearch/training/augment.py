"""Random changes of whole batches of images: one gather instead of a call per image, so that nothing waits for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What is done at random to every image of a batch, each image for itself.

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
        if self.crop < 0 or self.erase < 0:
            raise ValueError(f"Expected crop and erase as numbers of pixels >= 0, got {self.crop} and {self.erase}.")

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

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change (n, c, h, w) images; what is not of four dimensions is returned as it is if nothing is to be done.

        Args:
            images: On any device.
            generator: On the CPU; decides everything.

        Raises:
            ValueError: Something is to be done to inputs that are no (n, c, h, w) images, or that are too small.
        """
        if self == Augmentation():
            return images
        if images.dim() != 4 or self.crop >= min(images.shape[2:]):
            raise ValueError(
                f"Expected (n, c, h, w) images larger than crop={self.crop} pixels to augment, got "
                f"{tuple(images.shape)}. Use Augmentation()."
            )
        if self.flip or self.crop:
            images = self._moved(images, generator)
        return self._erased(images, generator) if self.erase else images

    def _moved(self, images: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = images.shape
        padded = F.pad(images, (self.crop,) * 4, mode="reflect") if self.crop else images
        down, right = torch.randint(0, 2 * self.crop + 1, (2, n, 1), generator=generator)
        rows = torch.arange(height) + down
        columns = torch.arange(width).expand(n, width)
        if self.flip:
            mirrored = torch.randint(0, 2, (n, 1), generator=generator).bool()
            columns = torch.where(mirrored, columns.flip(1), columns)
        rows, columns = rows.to(images.device), (columns + right).to(images.device)
        which = torch.arange(n, device=images.device)
        moved = padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (n, h, w, c)
        return moved.permute(0, 3, 1, 2)

    def _erased(self, images: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = images.shape
        inside = []
        for size in (height, width):
            first = torch.randint(0, size, (n, 1), generator=generator) - self.erase // 2
            offset = torch.arange(size) - first
            inside.append(((offset >= 0) & (offset < self.erase)).to(images.device))
        square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return images.masked_fill(square, 0)
