"""Residual networks for small images: the CIFAR ResNets of depth 6n + 2.

Source: He et al., CVPR 2016, arXiv:1512.03385, section 4.2. Parameter names are those of the common public
implementations (`conv1`, `bn1`, `layer1.0.conv1`, ..., `linear`), so that their checkpoints load as they are.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.zoo.layers import PadShortcut

Shortcut = Literal["A", "B"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Args:
        in_planes: Channels that come in.
        planes: Channels that go out.
        stride: Of the first convolution.
        shortcut: Where shapes differ: "A" pads with zeros (no parameters), "B" projects with a 1x1 convolution.
    """

    def __init__(self, in_planes: int, planes: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = (
                PadShortcut(in_planes, planes, stride)
                if shortcut == "A"
                else nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes))
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_planes, h, w) -> (n, planes, h / stride, w / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    """Three stages of basic blocks with 16, 32 and 64 channels.

    Args:
        blocks: Blocks per stage; the depth is 6 * blocks + 2.
        shortcut: "A" (as in the paper) or "B".
        num_classes: Outputs.
        in_channels: Channels of the images.
    """

    def __init__(self, blocks: int, shortcut: Shortcut = "A", num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        if shortcut not in ("A", "B"):
            raise ValueError(f'Expected shortcut "A" or "B", got {shortcut!r}.')
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1, shortcut)
        self.layer2 = _stage(16, 32, blocks, 2, shortcut)
        self.layer3 = _stage(32, 64, blocks, 2, shortcut)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, num_classes) logits."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(out.mean(dim=(2, 3)))


def _stage(in_planes: int, planes: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(in_planes, planes, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(planes, planes, 1, shortcut) for _ in range(blocks - 1)))


def resnet(
    depth: int, *, shortcut: Shortcut = "A", num_classes: int = 10, in_channels: int = 3, image_size: int = 32
) -> ResNet:
    """A CIFAR ResNet of any depth 6n + 2; the paper has 20, 32, 44, 56 and 110. Any image size will do.

    Raises:
        ValueError: The depth is not 6n + 2.
    """
    del image_size
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"Expected a depth of 6n + 2, such as 20, 32, 44, 56 or 110, got {depth}.")
    return ResNet((depth - 2) // 6, shortcut, num_classes, in_channels)
