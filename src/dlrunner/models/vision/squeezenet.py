"""SqueezeNet 1.1 without its classifier, with the parameter names of torchvision.

Source: Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size, 2016,
https://arxiv.org/abs/1602.07360; version 1.1 is its authors' later one, with 2.4 times less to compute.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlrunner.models.vision.backbone import Backbone, pyramid_of


class SqueezeNet(Backbone):
    """Eight fire modules and no normalisation: 722,496 parameters, the smallest net here."""

    def __init__(self) -> None:
        super().__init__(num_features=512)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the last fire module's maps, height and width about a 16th of the images'."""
        maps: Tensor = self.features(images)
        return maps

    def pyramid(self, images: Tensor) -> Sequence[Tensor]:
        """Return the feature maps at each resolution."""
        return pyramid_of(list(self.features), images)

    def stages(self) -> Sequence[nn.Module]:
        """Return the first convolution, and the fire modules of each resolution."""
        return [self.features[:3], self.features[3:6], self.features[6:9], self.features[9:]]


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 ones in parallel.

    Args:
        in_channels: going in.
        squeezed: between the convolutions.
        expanded: coming out of each of the two; twice as many come out together.
    """

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of 2 * `expanded` channels."""
        squeezed = self.squeeze(maps).relu()
        return torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1).relu()
