"""Augmentation of batches on the device: flip, rotation, zoom, brightness and contrast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrunner.system.transfer import to_device


@dataclass(frozen=True)
class Augmentation:
    """Ranges of random changes of images, named as in the `task` section."""

    flip: bool = True
    """Half of the images are flipped horizontally."""
    rotate: float = 10.0
    """Maximum degrees, in either direction."""
    zoom: float = 1.1
    """Maximum factor; the enlarged image is cropped at a random position."""
    brightness: float = 0.1
    """Maximum change, as a fraction of the value range, in either direction."""
    contrast: float = 0.1
    """Maximum relative change, in either direction."""

    def __call__(self, images: Tensor, size: int, generator: torch.Generator, alike: bool = False) -> Tensor:
        """Return augmented images, [batch, 3, size, size], values from 0 to 1.

        Outside a rotated image its reflection is used.

        Args:
            images: [batch, 3, height, width], values from 0 to 1.
            size: height and width of the result.
            generator: on the CPU for any device of the images, so that the draws are the same on all devices.
            alike: all images are changed in the same way, as the generator changes a single one.
        """
        draws = self.draw(1 if alike else len(images), generator, images.device).expand(7, len(images))
        return self.recoloured(self.moved(scaled(images, size), draws), draws)

    def draw(self, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Return seven numbers from 0 to 1 for each image, [7, count], in one asynchronous copy."""
        drawn = torch.cat([torch.rand(6, count, generator=generator), torch.rand(1, count, generator=generator)])
        return to_device(drawn, device)

    def moved(self, images: Tensor, draws: Tensor, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
        """Return images, [batch, channels, height, width], flipped, rotated and zoomed.

        With the same draws, masks are transformed as their images; `nearest` keeps the values of a mask.
        """
        signed = draws * 2 - 1
        angle = signed[0] * math.radians(self.rotate)
        zoom = self.zoom ** draws[1]
        flip = torch.where(draws[2] < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(draws[2])
        # The centre of the crop: anywhere inside the zoomed image.
        shift_x, shift_y = signed[3] * (1 - 1 / zoom), signed[6] * (1 - 1 / zoom)
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        # Coordinates range from -1 to 1 along both axes, whatever their length.
        aspect = images.shape[3] / images.shape[2]
        rows = [[cos * flip, -sin / aspect, shift_x], [sin * flip * aspect, cos, shift_y]]
        matrix = torch.stack([torch.stack(row) for row in rows]).permute(2, 0, 1)
        if self.rotate or self.zoom > 1:
            grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
            return F.grid_sample(images, grid, mode, padding_mode="reflection", align_corners=False)
        if self.flip:
            keep = (flip > 0)[:, None, None, None]
            return torch.where(keep, images, images.flip(3))
        return images

    def recoloured(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return images with changed brightness and contrast."""
        if not (self.brightness or self.contrast):
            return images
        signed = draws * 2 - 1
        factor = (1 + signed[4] * self.contrast)[:, None, None, None]
        offset = (signed[5] * self.brightness)[:, None, None, None]
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return ((images - mean) * factor + mean + offset).clamp(0, 1)


def scaled(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Return images, [batch, 3, height, width], resized with antialiasing to a height and width."""
    target = (size, size) if isinstance(size, int) else size
    if tuple(images.shape[2:]) == target:
        return images
    return F.interpolate(images, target, mode="bilinear", antialias=True, align_corners=False)
