"""Layers that zoo networks share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PadShortcut(nn.Module):
    """Parameter-free shortcut of the original CIFAR ResNets ("option A"): subsample, and pad channels with zeros.

    A module rather than a lambda so that its widths are attributes, which slimming can change.

    Source: He et al., CVPR 2016, arXiv:1512.03385, section 3.3. Zeros go to both sides of the old channels, as in the
    common public implementations, so that their checkpoints mean the same here.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out; the surplus is split evenly between both sides.
        stride: Spatial subsampling.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, before + c + after, h / stride, w / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """Widths, for `print(model)`."""
        return f"before={self.before}, after={self.after}, stride={self.stride}"
