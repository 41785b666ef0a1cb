"""VGG with BatchNorm, in the form used on small images: one linear layer after the convolutions.

Source: Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556 (configurations A, B, D, E); BatchNorm and the single
classifier layer are the common adaptation to CIFAR.
"""

from __future__ import annotations

from torch import Tensor, nn

_STAGES = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    19: ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, a pooling between them while the images are larger than one pixel.

    Args:
        depth: 11, 13, 16 or 19.
        num_classes: Outputs.
        in_channels: Channels of the images.
        image_size: Height of the images; decides how many of the five poolings halve it.
        width: Multiplier of all widths.
    """

    def __init__(
        self,
        depth: int = 16,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if depth not in _STAGES:
            raise ValueError(f"Expected a depth of {', '.join(map(str, _STAGES))}, got {depth}.")
        layers: list[nn.Module] = []
        channels, size = in_channels, image_size
        for stage in _STAGES[depth]:
            for full in stage:
                out = max(1, round(full * width))
                layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(True)]
                channels = out
            if size >= 2:
                layers.append(nn.MaxPool2d(2))
                size //= 2
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, num_classes) logits."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


def vgg(depth: int, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> VGG:
    """VGG-11, 13, 16 or 19 with BatchNorm."""
    return VGG(depth, num_classes, in_channels, image_size)
