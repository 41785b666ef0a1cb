"""ResNet-50 for large images, with torchvision's names of parameters, so that its checkpoints load as they are.

Source: He et al., CVPR 2016, arXiv:1512.03385, table 1; the stride is in the 3x3 convolution, as in torchvision.
"""

from __future__ import annotations

from torch import Tensor, nn

STAGES = ((256, 3), (512, 4), (1024, 6), (2048, 3))
"""Output channels and blocks of each stage; the convolutions inside a block have a quarter of the channels."""


class Bottleneck(nn.Module):
    """Reduce, filter, expand; the first block of a stage projects its shortcut.

    Args:
        cin: Channels that come in.
        cout: Channels that go out.
        stride: Of the 3x3 convolution, and of the projection.
    """

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        middle = cout // 4
        self.conv1 = nn.Conv2d(cin, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace=True)
        if cin != cout:
            self.downsample: nn.Module = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride=stride, bias=False), nn.BatchNorm2d(cout)
            )
        else:
            self.downsample = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, cin, h, w) -> (n, cout, h / stride, w / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + self.downsample(x))


class BottleneckResNet(nn.Module):
    """ResNet-50.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, *STAGES[0], stride=1)
        self.layer2 = _stage(256, *STAGES[1], stride=2)
        self.layer3 = _stage(512, *STAGES[2], stride=2)
        self.layer4 = _stage(1024, *STAGES[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, num_classes) logits."""
        out = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return self.fc(self.avgpool(out).flatten(1))


def _stage(cin: int, cout: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Bottleneck(cin, cout, stride), *(Bottleneck(cout, cout, 1) for _ in range(blocks - 1)))


def resnet50(*, num_classes: int = 1000, in_channels: int = 3, image_size: int = 224) -> BottleneckResNet:
    """ResNet-50. Any image size will do, from 32 on."""
    del image_size
    return BottleneckResNet(num_classes, in_channels)
