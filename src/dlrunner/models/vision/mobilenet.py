"""MobileNetV2 without its classifier, with the parameter names of torchvision and the variant of either publisher.

Source: Sandler et al., MobileNetV2: Inverted residuals and linear bottlenecks, 2018, https://arxiv.org/abs/1801.04381.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from dlrunner.models.vision.backbone import Backbone, pyramid_of

Variant = Literal["torchvision", "gluon"]

BLOCKS = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
"""Expansion, channels and number of blocks, as published."""

STRIDES: Mapping[Variant, Sequence[int]] = {
    "torchvision": (1, 2, 2, 2, 1, 2, 1),
    "gluon": (1, 2, 2, 1, 2, 2, 1),
}
"""Of the first block of each kind in `BLOCKS`."""


class MobileNetV2(Backbone):
    """Inverted residual blocks: few channels between the blocks, many in their depthwise convolutions.

    Args:
        variant: torchvision's is the paper's: ReLU6, a first block without expansion, and height and width halved
            before the 64 channels. Gluon's (the file of the ONNX model zoo comes from there) has ReLU, a first block
            that keeps its 1x1 convolution, and halves before the 96 channels instead. But for the first block the
            weights have the same names and shapes: those of the one load into the other, whose features are worse.
    """

    def __init__(self, variant: Variant = "torchvision") -> None:
        super().__init__(num_features=1280)
        activation = nn.ReLU6 if variant == "torchvision" else nn.ReLU
        layers: list[nn.Module] = [_convolution(3, 32, 3, activation, stride=2)]
        in_channels = 32
        for (expansion, channels, depth), stride in zip(BLOCKS, STRIDES[variant], strict=True):
            for position in range(depth):
                expanded = None if expansion == 1 and variant == "torchvision" else in_channels * expansion
                block_stride = stride if position == 0 else 1
                layers.append(InvertedResidual(in_channels, expanded, channels, block_stride, activation))
                in_channels = channels
        layers.append(_convolution(in_channels, 1280, 1, activation))
        self.features = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        """Return the last convolution's maps, height and width a 32nd of the images'."""
        maps: Tensor = self.features(images)
        return maps

    def pyramid(self, images: Tensor) -> Sequence[Tensor]:
        """Return the feature maps at each resolution."""
        return pyramid_of(list(self.features), images)

    def stages(self) -> Sequence[nn.Module]:
        """Return six parts, cut where height and width are halved in either variant."""
        cuts = (0, 2, 4, 7, 11, 14, len(self.features))
        return [self.features[first:after] for first, after in pairwise(cuts)]


class InvertedResidual(nn.Module):
    """Expand with 1x1, convolve each channel with 3x3, project with 1x1; a shortcut where shapes agree.

    Args:
        in_channels, out_channels: of the whole block.
        expanded: channels of the 3x3 convolution; None: those that come in, without a 1x1 convolution before it.
        stride: of the 3x3 convolution.
        activation: after the first two convolutions; there is none after the last.
    """

    def __init__(
        self, in_channels: int, expanded: int | None, out_channels: int, stride: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        inner = expanded or in_channels
        self.shortcut = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *([] if expanded is None else [_convolution(in_channels, inner, 1, activation)]),
            _convolution(inner, inner, 3, activation, stride=stride, groups=inner),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of `out_channels` channels."""
        projected: Tensor = self.conv(maps)
        return maps + projected if self.shortcut else projected


def _convolution(
    in_channels: int, out_channels: int, size: int, activation: type[nn.Module], *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), activation(inplace=True))
