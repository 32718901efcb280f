"""Augmentation in batches, on the device: mirrored, turned, enlarged, lighter or darker, with more or less contrast."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrunner.system.transfer import to_device


@dataclass(frozen=True)
class Augmentation:
    """How far pictures are changed at random; the names are those of the `task` section."""

    flip: bool = True
    """Half of the pictures are mirrored."""
    rotate: float = 10.0
    """Degrees, to either side."""
    zoom: float = 1.1
    """Up to so many times as large; what no longer fits is cut off at a random place."""
    brightness: float = 0.1
    """Of the whole range, to either side."""
    contrast: float = 0.1
    """Of the contrast itself, to either side."""

    def __call__(self, pictures: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """Return changed pictures, [batch, 3, size, size], values from 0 to 1.

        What lies outside a turned picture is its mirror image.

        Args:
            pictures: [batch, 3, height, width], values from 0 to 1.
            size: pixels of a side of what is returned.
            generator: on the CPU, whatever the device of the pictures, so that all devices draw the same.
        """
        count = len(pictures)
        # All that is drawn goes to the device in one copy, which nobody waits for.
        drawn = torch.cat([torch.rand(6, count, generator=generator), torch.rand(1, count, generator=generator)])
        draws = to_device(drawn, pictures.device)
        either = draws * 2 - 1
        angle = either[0] * math.radians(self.rotate)
        zoom = self.zoom ** draws[1]
        mirror = torch.where(draws[2] < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(draws[2])
        # Where the middle of what is seen lies: anywhere that leaves the enlarged picture without an edge.
        shift_x, shift_y = either[3] * (1 - 1 / zoom), either[6] * (1 - 1 / zoom)
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        matrix = torch.stack([torch.stack([cos * mirror, -sin, shift_x]), torch.stack([sin * mirror, cos, shift_y])])
        matrix = matrix.permute(2, 0, 1)
        pictures = scaled(pictures, size)
        if self.rotate or self.zoom > 1:
            grid = F.affine_grid(matrix, list(pictures.shape), align_corners=False)
            pictures = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
        elif self.flip:
            keep = (mirror > 0)[:, None, None, None]
            pictures = torch.where(keep, pictures, pictures.flip(3))
        if self.brightness or self.contrast:
            factor = (1 + either[4] * self.contrast)[:, None, None, None]
            lighter = (either[5] * self.brightness)[:, None, None, None]
            mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
            pictures = ((pictures - mean) * factor + mean + lighter).clamp(0, 1)
        return pictures


def scaled(pictures: Tensor, size: int) -> Tensor:
    """Return pictures, [batch, 3, size, size], made smaller without jagged edges."""
    if pictures.shape[-1] == size:
        return pictures
    return F.interpolate(pictures, (size, size), mode="bilinear", antialias=True, align_corners=False)
