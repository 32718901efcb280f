"""Batches of pictures, made on the device: from bytes to what a backbone wants, changed at random on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from dlrunner.data.augmentation import Augmentation, scaled
from dlrunner.data.batching import generator_of
from dlrunner.task import Batch

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours, from 0 to 1: what pre-trained backbones expect."""


@dataclass(frozen=True)
class PictureLoader:
    """Batches of pictures.

    Args:
        pixels: of all pictures, [pictures, height, width, 3], 0 to 255.
        targets: of all pictures, on the device of the batches.
        rows: which pictures each batch holds.
        size: pixels of a side in the batches.
        augmentation: changes the pictures at random; None: they stay as they are.
        key: what these changes depend on, together with the number of the batch.
    """

    pixels: Tensor
    targets: Tensor
    rows: Sequence[Tensor]
    size: int
    augmentation: Augmentation | None = None
    key: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        device = self.targets.device
        for index, rows in enumerate(self.rows):
            pictures = as_floats(self.pixels[rows.to(self.pixels.device)].to(device, non_blocking=True))
            if self.augmentation is None:
                pictures = scaled(pictures, self.size)
            else:
                pictures = self.augmentation(pictures, self.size, generator_of(*self.key, index))
            yield Batch((standardised(pictures),), self.targets[rows.to(device)])


@dataclass(frozen=True)
class FeatureLoader:
    """Batches of what a frozen backbone made of the pictures, [pictures, features]."""

    features: Tensor
    targets: Tensor
    rows: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.rows:
            rows = batch.to(self.targets.device)
            yield Batch((self.features[rows],), self.targets[rows])


def normalised(pixels: Tensor, size: int) -> Tensor:
    """Return pixels, [batch, height, width, 3], 0 to 255, as a backbone wants them, [batch, 3, size, size]."""
    return standardised(scaled(as_floats(pixels), size))


def as_floats(pixels: Tensor) -> Tensor:
    """Return pixels, [batch, height, width, 3], 0 to 255, as [batch, 3, height, width], 0 to 1."""
    # Pixels lie as [height, width, 3]: seen as [3, height, width] they are what torch calls channels_last.
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def standardised(pictures: Tensor) -> Tensor:
    """Return pictures of 0 to 1 with the mean taken out and in units of the deviation."""
    mean, deviation = (pictures.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (pictures - mean) / deviation
