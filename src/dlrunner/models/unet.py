"""A U-Net: a pre-trained or random encoder, and a decoder with skip connections from each resolution.

Source: Ronneberger et al., U-Net: Convolutional networks for biomedical image segmentation, 2015,
https://arxiv.org/abs/1505.04597; the decoder follows fast.ai's `DynamicUnet` (2019): pixel shuffle that starts as
nearest-neighbour upsampling (Aitken et al., Checkerboard artifact free sub-pixel convolution, 2017,
https://arxiv.org/abs/1707.02937), batch norm on skip connections, and the image itself at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrunner.model import Model
from dlrunner.models.image import check_weights, weights_file
from dlrunner.models.vision.backbone import freeze_batch_norm
from dlrunner.models.vision.backbones import load, make_backbone, read_weights
from dlrunner.models.vision.mobilenet import Variant
from dlrunner.ranges import Count, Text


@dataclass(frozen=True)
class SegmentationDims:
    """The sizes that a segmentation model takes from the data."""

    num_classes: int


class UNet(Model):
    """Class scores of each pixel.

    The layer groups are the lower and the upper half of the encoder's stages, and the decoder.

    Args:
        dims: the classes.
        data_dir: where `weights` are looked for too, and in its folder weights/.
        backbone: the encoder, see `ImageClassifier`.
        weights: a file of trained weights of the encoder (.pt, .pth, .safetensors); `none`: random initialisation.
        variant: of mobilenet_v2, see `ImageClassifier`.
        channels: of the decoder's deepest block; each block above has half as many, but no fewer than 32.
        score_stride: 1, each pixel has scores of its own; 2 or 4: each second or fourth in height and width, with
            bilinear interpolation between them.
        freeze_norm: the encoder's batch norm keeps its running statistics while its weights are trained.
        average_flips: evaluation and prediction average the log-probabilities of an image and its mirror image, and
            take twice as long.
        channels_last: memory format, faster on most devices.
    """

    group_names: ClassVar[tuple[str, ...]] = ("lower encoder", "upper encoder", "decoder")

    def __init__(
        self,
        dims: SegmentationDims,
        data_dir: Path,
        *,
        backbone: Text = "resnet18",
        weights: Text | None = None,
        variant: Variant = "torchvision",
        channels: Count = 256,
        score_stride: Literal[1, 2, 4] = 1,
        freeze_norm: bool = False,
        average_flips: bool = False,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.weights, self.data_dir = None if weights == "none" else weights, data_dir
        self.freeze_norm, self.average_flips = freeze_norm, average_flips
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.encoder = make_backbone(backbone, variant)
        with torch.no_grad():
            *skips, deepest = (maps.shape[1] for maps in self.encoder.eval().pyramid(torch.zeros(1, 3, 64, 64)))
        self.encoder.train()
        widths = [max(channels >> depth, 32) for depth in range(len(skips) + 1)]
        blocks, before = [], widths[0]
        used = skips[1:] if score_stride == 4 else skips  # the first one is of each second pixel
        for skip, width in zip(reversed(used), widths, strict=False):
            blocks.append(UpBlock(before, skip, width))
            before = width
        self.bridge = _convolutions(deepest, widths[0])
        self.blocks = nn.ModuleList(blocks)
        self.last = UpBlock(before, 3, widths[-1]) if score_stride == 1 else None
        self.scores = nn.Conv2d(before if self.last is None else widths[-1], dims.num_classes, 1)
        self.to(memory_format=self.format)  # type: ignore[call-overload]

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Refuse backbones that do not exist."""
        with torch.device("meta"):
            make_backbone(settings["backbone"], settings["variant"])

    @classmethod
    def files(cls, settings: Mapping[str, Any], data_dir: Path) -> Sequence[Path]:
        """Return the file of trained weights."""
        return [] if settings["weights"] in (None, "none") else [weights_file(settings["weights"], data_dir)]

    @classmethod
    def check_files(cls, settings: Mapping[str, Any], data_dir: Path) -> None:
        """Refuse weights of another architecture."""
        if settings["weights"] not in (None, "none"):
            make = partial(make_backbone, settings["backbone"], settings["variant"])
            check_weights(settings["weights"], data_dir, make)

    def load_pretrained(self) -> Sequence[str]:
        """Load the encoder's weights.

        Raises:
            ConfigError: they are those of another architecture.
        """
        if self.weights is None:
            return [
                "the encoder's weights are randomly initialised (model.weights=FILE loads trained ones; docs/images.md)"
            ]
        file = weights_file(self.weights, self.data_dir)
        return load(self.encoder, read_weights(file), file)

    def train(self, mode: bool = True) -> UNet:
        """Set training mode; frozen batch norm stays in evaluation mode."""
        super().train(mode)
        if self.freeze_norm:
            freeze_batch_norm(self.encoder)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores, [batch, classes, height, width].

        Args:
            images: normalised, [batch, 3, height, width]; height and width may be any numbers from 32.
        """
        images = images.contiguous(memory_format=self.format)
        if self.training or not self.average_flips:
            return self._scores(images)
        mirrored = self._scores(images.flip(-1)).flip(-1)
        return (self._scores(images).log_softmax(dim=1) + mirrored.log_softmax(dim=1)) / 2

    def _scores(self, images: Tensor) -> Tensor:
        *skips, deepest = self.encoder.pyramid(images)
        maps = self.bridge(deepest)
        for block, skip in zip(self.blocks, reversed(skips), strict=False):
            maps = block(maps, skip)
        if self.last is not None:
            maps = self.last(maps, images)
        scores: Tensor = self.scores(maps)
        if self.last is None:
            scores = F.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=False)
        return scores

    def layer_groups(self) -> Sequence[nn.Module]:
        """The lower half of the encoder's stages, the upper half, the decoder."""
        stages = list(self.encoder.stages())
        half = len(stages) // 2
        decoder = nn.ModuleList(part for part in (self.bridge, self.blocks, self.last, self.scores) if part is not None)
        return [nn.ModuleList(stages[:half]), nn.ModuleList(stages[half:]), decoder]


class UpBlock(nn.Module):
    """Doubles height and width by pixel shuffle, concatenates the skip connection, and convolves twice.

    Args:
        before: input channels.
        skip: channels of the skip connection from the encoder.
        after: output channels.
    """

    def __init__(self, before: int, skip: int, after: int) -> None:
        super().__init__()
        half = max(before // 2, 1)
        self.expand = nn.Conv2d(before, 4 * half, 1)
        nearest = nn.init.kaiming_normal_(torch.empty(half, before, 1, 1))
        with torch.no_grad():  # ICNR: the four pixels made from one start equal
            self.expand.weight.copy_(nearest.repeat_interleave(4, dim=0))
            self.expand.bias.zero_()  # type: ignore[union-attr]
        self.norm = nn.BatchNorm2d(skip)
        self.convolutions = _convolutions(half + skip, after)

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """Return maps of the size of the skip connection."""
        larger = F.pixel_shuffle(self.expand(maps).relu(), 2)
        if larger.shape[2:] != skip.shape[2:]:  # the encoder rounds half of an odd size down or up
            larger = F.interpolate(larger, skip.shape[2:], mode="bilinear", align_corners=False)
        joined: Tensor = self.convolutions(torch.cat([larger, self.norm(skip)], dim=1))
        return joined


def _convolutions(before: int, after: int) -> nn.Sequential:
    """Return two convolutions of 3 x 3, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        nn.init.kaiming_normal_(layers[-3].weight, nonlinearity="relu")  # type: ignore[arg-type]
    return nn.Sequential(*layers)
