"""A small U-Net for street scenes, trained on CamVid in minutes on one core."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import realdata
import torch
from cells import Clock
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.training.reports import EpochReport

CLASSES, VOID = 11, 11
"""Of CamVid; pixels of class `VOID` do not count."""

WIDTHS = (8, 16, 32, 64)
RECIPE = ps.Recipe(epochs=24, batch_size=8, lr=0.05, weight_decay=1e-4)


class UNet(nn.Module):
    """Halves the image at every level but the first, and comes back, each level with what it was on the way down.

    Source: Ronneberger et al., MICCAI 2015, arXiv:1505.04597; with padding and BatchNorm, and sums of bilinear pixels
    in the place of transposed convolutions.

    Args:
        widths: Channels of each level.
        classes: Of the pixels.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, classes: int = CLASSES) -> None:
        super().__init__()
        ways = list(zip([3, *widths], widths, strict=False))
        self.down = nn.ModuleList(_twice(before, width) for before, width in ways)
        self.up = nn.ModuleList(_twice(a + b, a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True))
        self.pool = nn.MaxPool2d(2)
        self.larger = nn.Upsample(scale_factor=2, mode="bilinear")
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(n, classes, h, w) logits of (n, 3, h, w) images; h and w divisible by 8 with four levels."""
        kept: list[Tensor] = []
        x = images
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            kept.append(x)
        x = kept.pop()
        for block in self.up:
            x = block(torch.cat([kept.pop(), self.larger(x)], dim=1))
        returned: Tensor = self.head(x)
        return returned


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_convolved(inputs, outputs), *_convolved(outputs, outputs))


def _convolved(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def trained(train: tuple[Tensor, Tensor], weights: Path, seed: int = 0, recipe: ps.Recipe = RECIPE) -> nn.Module:
    """The U-Net in eval mode, with the weights of a file; trained on images and masks if it is not there.

    A file beside it, which ends in `.seconds`, says what the training took in CPU-seconds.
    """
    torch.manual_seed(seed)
    model: nn.Module = UNet()
    if weights.exists():
        ps.load_weights(model, weights)
        return model.eval()
    data = ps.Data(train=train, task=ps.tasks.segmentation(ignore_index=VOID))
    clock, checkpoint = Clock(weights.with_suffix(".clock")), weights.with_suffix(".training")

    def tick(report: EpochReport) -> None:
        clock.tick()

    model = ps.finetune(model, data, recipe=recipe, checkpoint=checkpoint, seed=seed, on_epoch=tick, progress=False)
    weights.with_suffix(".seconds").write_text(json.dumps(clock.of_all(recipe.epochs)))
    ps.save(model, weights, example_inputs=train[0][:1])
    clock.done()
    return model


def street_scenes(root: Path, cache: Path, part: str) -> tuple[Tensor, Tensor]:
    """(n, 3, 144, 192) normalised images of a part of CamVid, and (n, 144, 192) masks."""
    images, masks = realdata.camvid(root, cache, part)
    return realdata.normalised(images), masks
