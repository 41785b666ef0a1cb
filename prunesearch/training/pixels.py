"""Random changes of whole batches of images: one gather instead of a call per image, so that nothing waits for them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesearch.models.devices import placed


def moved(images: Tensor, flip: bool, crop: int, generator: torch.Generator) -> Tensor:
    """(n, c, h, w) images shifted by up to `crop` pixels, and mirrored if `flip` and the coin says so."""
    n, _, height, width = images.shape
    padded = F.pad(images, (crop,) * 4, mode="reflect") if crop else images
    down, right = torch.randint(0, 2 * crop + 1, (2, n, 1), generator=generator)
    rows = torch.arange(height) + down
    columns = torch.arange(width).expand(n, width)
    if flip:
        mirrored = torch.randint(0, 2, (n, 1), generator=generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = placed(rows, images.device), placed(columns + right, images.device)
    which = torch.arange(n, device=images.device)
    found = padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (n, h, w, c)
    return found.permute(0, 3, 1, 2)


def erased(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """(n, c, h, w) images with a square of this side set to 0, anywhere."""
    n, _, height, width = images.shape
    inside = []
    for size in (height, width):
        first = torch.randint(0, size, (n, 1), generator=generator) - side // 2
        offset = torch.arange(size) - first
        inside.append(placed((offset >= 0) & (offset < side), images.device))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(square, 0)
