"""Augmentation in batches, on the device: mirrored, turned, enlarged, lighter or darker, with more or less contrast."""

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
    """How far images are changed at random; the names are those of the `task` section."""

    flip: bool = True
    """Half of the images are mirrored."""
    rotate: float = 10.0
    """Degrees, to either side."""
    zoom: float = 1.1
    """Up to so many times as large; what no longer fits is cut off at a random place."""
    brightness: float = 0.1
    """Of the whole range, to either side."""
    contrast: float = 0.1
    """Of the contrast itself, to either side."""

    def __call__(self, images: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """Return changed images, [batch, 3, size, size], values from 0 to 1.

        What lies outside a turned image is its mirror image.

        Args:
            images: [batch, 3, height, width], values from 0 to 1.
            size: pixels of a side of what is returned.
            generator: on the CPU, whatever the device of the images, so that all devices draw the same.
        """
        draws = self.draw(len(images), generator, images.device)
        return self.recoloured(self.moved(scaled(images, size), draws), draws)

    def draw(self, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Return seven numbers from 0 to 1 for each image, [7, count], in one copy that nobody waits for."""
        drawn = torch.cat([torch.rand(6, count, generator=generator), torch.rand(1, count, generator=generator)])
        return to_device(drawn, device)

    def moved(self, images: Tensor, draws: Tensor, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
        """Return images, [batch, channels, height, width], mirrored, turned and enlarged.

        With the same draws, masks move with their images: `nearest` gives values that a mask has.
        """
        either = draws * 2 - 1
        angle = either[0] * math.radians(self.rotate)
        zoom = self.zoom ** draws[1]
        mirror = torch.where(draws[2] < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(draws[2])
        # Where the middle of what is seen lies: anywhere that leaves the enlarged image without an edge.
        shift_x, shift_y = either[3] * (1 - 1 / zoom), either[6] * (1 - 1 / zoom)
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        # Coordinates go from -1 to 1 along either side, however long it is.
        aspect = images.shape[3] / images.shape[2]
        rows = [[cos * mirror, -sin / aspect, shift_x], [sin * mirror * aspect, cos, shift_y]]
        matrix = torch.stack([torch.stack(row) for row in rows]).permute(2, 0, 1)
        if self.rotate or self.zoom > 1:
            grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
            return F.grid_sample(images, grid, mode, padding_mode="reflection", align_corners=False)
        if self.flip:
            keep = (mirror > 0)[:, None, None, None]
            return torch.where(keep, images, images.flip(3))
        return images

    def recoloured(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return images lighter or darker, with more or less contrast."""
        if not (self.brightness or self.contrast):
            return images
        either = draws * 2 - 1
        factor = (1 + either[4] * self.contrast)[:, None, None, None]
        lighter = (either[5] * self.brightness)[:, None, None, None]
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return ((images - mean) * factor + mean + lighter).clamp(0, 1)


def scaled(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Return images, [batch, 3, height, width], of a size (of a side, or height and width), without jagged edges."""
    wanted = (size, size) if isinstance(size, int) else size
    if tuple(images.shape[2:]) == wanted:
        return images
    return F.interpolate(images, wanted, mode="bilinear", antialias=True, align_corners=False)
