"""MobileNet V1 and V2, with the strides that suit small images.

Sources: Howard et al. 2017, arXiv:1704.04861, table 1; Sandler et al., CVPR 2018, arXiv:1801.04381, table 2. For
images below 64 pixels the first strides are 1, the common adaptation to CIFAR.
"""

from __future__ import annotations

from torch import Tensor, nn

_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def conv_bn(cin: int, cout: int, kernel: int, stride: int, groups: int = 1, *, act: bool = True) -> list[nn.Module]:
    """A convolution without bias, its BatchNorm, and ReLU6 unless `act` is false."""
    conv = nn.Conv2d(cin, cout, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(cout), *([nn.ReLU6(True)] if act else [])]


def _scaled(channels: int, width: float) -> int:
    """The V2 authors' rule: a multiple of 8, never more than 10% below the exact product."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


class DepthwiseSeparable(nn.Module):
    """Filter depthwise, then mix channels."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*conv_bn(cin, cin, 3, stride, groups=cin), *conv_bn(cin, cout, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, cin, h, w) -> (n, cout, h / stride, w / stride)."""
        return self.conv(x)


class MobileNetV1(nn.Module):
    """A stem and 13 depthwise-separable blocks.

    Args:
        width: Multiplier of every channel count.
        num_classes: Outputs.
        in_channels: Channels of the images.
        image_size: Height of the images; below 64 pixels the stem and the first strided block keep the size.
    """

    def __init__(self, width: float, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        small_images = image_size < 64
        channels = max(8, int(32 * width))
        layers = conv_bn(in_channels, channels, 3, 1 if small_images else 2)
        strided = 0
        for base, stride in _V1:
            strided += stride == 2
            step = 1 if small_images and strided <= 1 else stride
            out = max(8, int(base * width))
            layers.append(DepthwiseSeparable(channels, out, step))
            channels = out
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, num_classes) logits."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; a shortcut where the shape allows it.

    Args:
        cin: Channels that come in.
        hidden: Channels that are filtered.
        cout: Channels that go out.
        stride: Of the depthwise convolution.
        expands: Whether there is a 1x1 convolution before it.
    """

    def __init__(self, cin: int, hidden: int, cout: int, stride: int, *, expands: bool) -> None:
        super().__init__()
        self.has_shortcut = stride == 1 and cin == cout
        self.conv = nn.Sequential(
            *(conv_bn(cin, hidden, 1, 1) if expands else []),
            *conv_bn(hidden, hidden, 3, stride, groups=hidden),
            *conv_bn(hidden, cout, 1, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, cin, h, w) -> (n, cout, h / stride, w / stride)."""
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """A stem, seven stages of inverted residuals and a 1x1 convolution.

    Args:
        width: Multiplier of every channel count.
        num_classes: Outputs.
        in_channels: Channels of the images.
        image_size: Height of the images; below 64 pixels the stem and the first strided stage keep the size.
    """

    def __init__(self, width: float, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        small_images = image_size < 64
        channels = _scaled(32, width)
        layers = conv_bn(in_channels, channels, 3, 1 if small_images else 2)
        for stage, (expand, base, repeats, stride) in enumerate(_V2):
            out = _scaled(base, width)
            for block in range(repeats):
                step = stride if block == 0 and not (small_images and stage <= 1) else 1
                layers.append(InvertedResidual(channels, channels * expand, out, step, expands=expand != 1))
                channels = out
        last = _scaled(1280, max(1.0, width))
        self.features = nn.Sequential(*layers, *conv_bn(channels, last, 1, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, num_classes) logits."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


def mobilenet_v1(
    *, width: float = 1.0, num_classes: int = 10, in_channels: int = 3, image_size: int = 32
) -> MobileNetV1:
    """MobileNet V1."""
    return MobileNetV1(width, num_classes, in_channels, image_size)


def mobilenet_v2(
    *, width: float = 1.0, num_classes: int = 10, in_channels: int = 3, image_size: int = 32
) -> MobileNetV2:
    """MobileNet V2."""
    return MobileNetV2(width, num_classes, in_channels, image_size)
