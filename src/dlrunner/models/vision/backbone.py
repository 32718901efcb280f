"""The base class of backbones: images in, feature maps out, divided into stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A convolutional net without its classifier: `forward` turns [N, 3, H, W] into [N, num_features, h, w].

    Args:
        num_features: channels of the last feature maps.
    """

    name: str = "the backbone"
    """Its name in messages."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    @abstractmethod
    def stages(self) -> Sequence[nn.Module]:
        """Return the parts from input to output, disjoint and together all parameters, for layer groups."""

    @abstractmethod
    def pyramid(self, images: Tensor) -> Sequence[Tensor]:
        """Return the last feature maps at each resolution, the largest first: what a U-Net connects across."""

    def net(self) -> nn.Module:
        """Return the module whose parameters have the names that they have in files."""
        return self


def pyramid_of(layers: Sequence[Callable[[Tensor], Tensor]], images: Tensor) -> list[Tensor]:
    """Return the last feature maps at each resolution of layers that follow each other."""
    maps: list[Tensor] = []
    for layer in layers:
        before, images = images, layer(images)
        if maps and images.shape[2:] == before.shape[2:]:
            maps[-1] = images
        else:
            maps.append(images)
    return maps


def freeze_batch_norm(module: nn.Module) -> None:
    """Put batch norm into evaluation mode, so that its statistics stay as they are while the rest is trained."""
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            each.eval()
