"""Batches of images and masks, augmented together on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dlrunner.data.core.batching import generator_of
from dlrunner.data.images.augmentation import Augmentation, scaled
from dlrunner.data.images.loaders import as_floats, gather, standardised
from dlrunner.task import Batch


@dataclass(frozen=True)
class SegmentationLoader:
    """Batches of images and the classes of their pixels.

    Args:
        pixels: of all images, [images, height, width, 4]: red, green, blue, the mask's value.
        codes: the class of each value of a mask, [256], on the device of the batches.
        rows: the images of each batch.
        size: height and width in the batches.
        augmentation: None for no augmentation.
        key: seed of the augmentation, together with the number of the batch.
        start: the first batch that is yielded.
    """

    pixels: Tensor
    codes: Tensor
    rows: Sequence[Tensor]
    size: tuple[int, int]
    augmentation: Augmentation | None = None
    key: tuple[int, ...] = ()
    start: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        gathered = gather(self.pixels, self.rows[self.start :], self.codes.device)
        for index, pixels in enumerate(gathered, start=self.start):
            images = scaled(as_floats(pixels[..., :3]), self.size)
            masks = pixels[..., 3:].permute(0, 3, 1, 2).float()
            if masks.shape[2:] != self.size:
                masks = F.interpolate(masks, self.size, mode="nearest-exact")
            if self.augmentation is not None:
                draws = self.augmentation.draw(len(pixels), generator_of(*self.key, index), pixels.device)
                images = self.augmentation.recoloured(self.augmentation.moved(images, draws), draws)
                masks = self.augmentation.moved(masks, draws, "nearest")
            yield Batch((standardised(images),), self.codes[masks[:, 0].long()])
