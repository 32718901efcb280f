"""ResNet and ResNeXt without their classifier, with the parameter names and the variant of torchvision.

The stride of a bottleneck sits in its 3x3 convolution ("v1.5"), not in the first 1x1 as in the paper: weights of
the one give worse features in the other, and fit it by name.

Source: He et al., Deep residual learning for image recognition, 2015, https://arxiv.org/abs/1512.03385; Xie et al.,
Aggregated residual transformations for deep neural networks, 2016, https://arxiv.org/abs/1611.05431.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from dlrunner.models.vision.backbone import Backbone


class ResNet(Backbone):
    """A stem and four layers of residual blocks; each layer but the first halves height and width.

    Args:
        block: makes a block from its input channels, its channels before the expansion, and its stride.
        depths: blocks in each layer.
    """

    def __init__(self, block: Callable[[int, int, int], ResidualBlock], depths: Sequence[int]) -> None:
        layers: list[nn.Sequential] = []
        in_channels = 64
        for index, depth in enumerate(depths):
            blocks: list[ResidualBlock] = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(in_channels, 64 * 2**index, stride))
                in_channels = blocks[-1].out_channels
            layers.append(nn.Sequential(*blocks))
        super().__init__(num_features=in_channels)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the last layer's maps, height and width a 32nd of the images'."""
        return self.pyramid(images)[-1]

    def pyramid(self, images: Tensor) -> Sequence[Tensor]:
        """Return the stem's maps before pooling, and those of the four layers."""
        maps = [self.relu(self.bn1(self.conv1(images)))]
        pooled = self.maxpool(maps[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1] if len(maps) > 1 else pooled))
        return maps

    def stages(self) -> Sequence[nn.Module]:
        """Return the stem and the four layers."""
        return [nn.ModuleList([self.conv1, self.bn1]), self.layer1, self.layer2, self.layer3, self.layer4]


class ResidualBlock(nn.Module, ABC):
    """What is added to a shortcut; a projection stands in the shortcut's way where shapes change.

    Args:
        in_channels, out_channels: of the whole block.
        stride: by which height and width shrink.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of `out_channels` channels, never negative."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        added: Tensor = self.relu(self.residual(maps) + shortcut)
        return added

    @abstractmethod
    def residual(self, maps: Tensor) -> Tensor:
        """Return what is added to the shortcut."""


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions.

    Args:
        in_channels, channels: going in and coming out.
        stride: of the first convolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def residual(self, maps: Tensor) -> Tensor:
        """Return what is added to the shortcut."""
        maps = self.relu(self.bn1(self.conv1(maps)))
        added: Tensor = self.bn2(self.conv2(maps))
        return added


class Bottleneck(ResidualBlock):
    """A 3x3 convolution between two 1x1 ones, the last of which makes four times as many channels.

    Args:
        in_channels: going in.
        channels: a quarter of what comes out.
        stride: of the 3x3 convolution.
        groups: of the 3x3 convolution (ResNeXt's cardinality).
        width: channels of a group in the first layer; further layers double it.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, groups: int = 1, width: int = 64) -> None:
        super().__init__(in_channels, 4 * channels, stride)
        inner = channels * width // 64 * groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)

    def residual(self, maps: Tensor) -> Tensor:
        """Return what is added to the shortcut."""
        maps = self.relu(self.bn1(self.conv1(maps)))
        maps = self.relu(self.bn2(self.conv2(maps)))
        added: Tensor = self.bn3(self.conv3(maps))
        return added


RESNETS: Mapping[str, Callable[[], ResNet]] = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnext50_32x4d": partial(ResNet, partial(Bottleneck, groups=32, width=4), (3, 4, 6, 3)),
    "resnext101_64x4d": partial(ResNet, partial(Bottleneck, groups=64, width=4), (3, 4, 23, 3)),
}
"""Names as torchvision has them, and what makes the nets."""
