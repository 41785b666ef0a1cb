"""DenseNet-BC for small images: every layer reads all the earlier ones of its block.

Source: Huang et al., CVPR 2017, arXiv:1608.06993: bottleneck layers of 4k channels, compression 0.5, depth 6n + 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3; its `growth` new channels join the ones that came in."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c + growth, h, w)."""
        out = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(out)))], dim=1)


class Transition(nn.Module):
    """BN-ReLU-1x1 with half the channels, then half the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c / 2, h / 2, w / 2)."""
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(nn.Module):
    """Three dense blocks.

    Args:
        layers: Dense layers per block; the depth is 6 * layers + 4.
        growth: Channels each layer adds.
        num_classes: Outputs.
        in_channels: Channels of the images.
    """

    def __init__(self, layers: int, growth: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels = 2 * growth
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for block in range(3):
            for _ in range(layers):
                blocks.append(DenseLayer(channels, growth))
                channels += growth
            if block < 2:
                blocks.append(Transition(channels))
                channels //= 2
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, num_classes) logits."""
        out = F.relu(self.bn(self.blocks(self.conv1(x))))
        return self.linear(out.mean(dim=(2, 3)))


def densenet(
    depth: int, *, growth: int = 12, num_classes: int = 10, in_channels: int = 3, image_size: int = 32
) -> DenseNet:
    """A DenseNet-BC of any depth 6n + 4. Any image size of at least 4 will do.

    Raises:
        ValueError: The depth is not 6n + 4.
    """
    del image_size
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"Expected a depth of 6n + 4, such as 40 or 100, got {depth}.")
    return DenseNet((depth - 4) // 6, growth, num_classes, in_channels)
