"""Batches of images, augmented and normalised on the device."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.batching import generator_of
from dlrunner.data.images.augmentation import Augmentation, scaled
from dlrunner.system.transfer import pinned, prefetched, to_device
from dlrunner.task import Batch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels of ImageNet's images, values from 0 to 1, as pre-trained backbones expect."""


@dataclass(frozen=True)
class ImageLoader:
    """Batches of images.

    Pixels that are not on the device are prefetched by a thread, one batch ahead.

    Args:
        pixels: of all images, [images, height, width, 3], 0 to 255.
        targets: of all images, on the device of the batches.
        rows: the images of each batch.
        size: height and width in the batches.
        augmentation: None for no augmentation.
        key: seed of the augmentation, together with the number of the batch.
        start: the first batch that is yielded.
        alike: all images of all batches are augmented alike.
    """

    pixels: Tensor
    targets: Tensor
    rows: Sequence[Tensor]
    size: int
    augmentation: Augmentation | None = None
    key: tuple[int, ...] = ()
    start: int = 0
    alike: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        row_batches = _on_device(self.rows[self.start :], self.targets.device)
        gathered = gather(self.pixels, self.rows[self.start :], self.targets.device)
        for index, (pixels, rows) in enumerate(zip(gathered, row_batches, strict=True), start=self.start):
            images = as_floats(pixels)
            if self.augmentation is None:
                images = scaled(images, self.size)
            else:
                generator = generator_of(*self.key, 0 if self.alike else index)
                images = self.augmentation(images, self.size, generator, self.alike)
            yield Batch((standardised(images),), self.targets[rows])


def view_loader(
    pixels: Tensor, targets: Tensor, rows: Sequence[Tensor], size: int, augmentation: Augmentation, view: int
) -> ImageLoader:
    """Return batches of one TTA view, 0 for the plain images.

    A view changes all images alike: that of an image does not depend on the others, and is the same in `predict`.
    """
    return ImageLoader(pixels, targets, rows, size, augmentation if view else None, (0, view), alike=True)


@dataclass(frozen=True)
class FeatureLoader:
    """Batches of the features of a frozen backbone, [images, features]."""

    features: Tensor
    targets: Tensor
    rows: Sequence[Tensor]
    start: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        for rows in _on_device(self.rows[self.start :], self.targets.device):
            yield Batch((self.features[rows],), self.targets[rows])


def pixels_on_device(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return pixels as a tensor, on a GPU where they take less than a third of its free memory."""
    found = torch.from_numpy(pixels)
    if device.type == "cuda" and 3 * found.nbytes < torch.cuda.mem_get_info(device)[0]:
        return found.to(device)
    return found


def gather(pixels: Tensor, rows: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield each batch's pixels on the device; from another device they are prefetched, one batch ahead."""
    if pixels.device == device:
        yield from (pixels[each] for each in _on_device(rows, device))
        return
    gathered = (pixels[each] for each in rows)
    if device.type == "cuda":
        gathered = (pinned(batch) for batch in gathered)
    yield from (to_device(batch, device) for batch in prefetched(gathered))


def _on_device(rows: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Return the rows of all batches on the device, in one copy."""
    return torch.split(to_device(torch.cat(list(rows)), device), [len(each) for each in rows]) if rows else ()


def normalised(pixels: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Return pixels, [batch, height, width, 3], 0 to 255, normalised for a backbone, [batch, 3, *size]."""
    return standardised(scaled(as_floats(pixels), size))


def as_floats(pixels: Tensor) -> Tensor:
    """Return pixels, [batch, height, width, 3], 0 to 255, as [batch, 3, height, width], 0 to 1."""
    # Memory order is [height, width, 3]: as [3, height, width] this is torch's channels_last.
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def standardised(images: Tensor) -> Tensor:
    """Return images of 0 to 1, standardised by ImageNet's mean and standard deviation."""
    mean, std = _channel_statistics(images.device, images.dtype)
    if not images.is_contiguous(memory_format=torch.channels_last):
        return (images - mean) / std
    # The same by whole rows of pixels: three channels at a time are too few for vector instructions.
    width, rows = images.shape[3], images.permute(0, 2, 3, 1).flatten(2)
    mean, std = (each.flatten().repeat(width) for each in (mean, std))
    return rows.sub(mean).div_(std).view(*rows.shape[:2], width, 3).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=8)
def _channel_statistics(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, [3, 1, 1], cached on the device: creating them would wait."""
    with torch.inference_mode(False):
        statistics = (torch.tensor(each, dtype=dtype)[:, None, None] for each in (MEAN, STD))
        mean, std = (to_device(each, device) for each in statistics)
    return mean, std
