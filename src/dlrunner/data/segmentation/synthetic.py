"""Synthetic images of shapes with masks, in the layout of users' files; the best achievable score is known."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dlrunner.data.core.splitting import random_rows
from dlrunner.data.core.synthetic import generated

VERSION = 1
ARCHIVE = "shapes.zip"
CLASSES = ("background", "disc", "rectangle", "triangle")
COLOURS = ((60, 100, 200), (200, 80, 60), (70, 170, 80))
"""Of the shapes, before shade and noise."""
COUNT, SIZE = 200, 64
WRONG = 0.05
"""The probability that a pixel of a mask is relabelled with one of the other classes."""
MOST_SHAPES = 3
NOISE = 35
"""Standard deviation of a pixel's colours, of 255."""


def write_synthetic_images(folder: Path) -> tuple[Path, float]:
    """Write an archive with images/, masks/ and codes.txt, unless it exists, and return it with the best mean IoU.

    An image has one to three shapes, one in front of the other, on a grey background, and noise that hides the colour
    of a single pixel. One in twenty of the masks' pixels is relabelled: a perfect model has a pixel accuracy of
    1 - `WRONG` on average, and the mean IoU that is returned on the default validation images.
    """
    path, best = generated(folder / f"segmentation-{VERSION}", (ARCHIVE,), _generate)
    return path / ARCHIVE, best


def _generate(path: Path) -> float:
    random = np.random.default_rng(0)
    truth = np.empty((COUNT, SIZE, SIZE), np.uint8)
    masks = np.empty_like(truth)
    with zipfile.ZipFile(path / ARCHIVE, "w") as archive:
        _add(archive, "codes.txt", "\n".join(CLASSES).encode())
        for number in range(COUNT):
            image, truth[number] = _draw(random)
            wrong = random.random((SIZE, SIZE)) < WRONG
            other = (truth[number] + random.integers(1, len(CLASSES), (SIZE, SIZE))) % len(CLASSES)
            masks[number] = np.where(wrong, other, truth[number])
            mask = Image.fromarray(masks[number])
            mask.putpalette([0, 0, 0, 220, 60, 60, 60, 160, 60, 60, 90, 220])
            _add(archive, f"images/{number:04}.png", _png(image))
            _add(archive, f"masks/{number:04}.png", _png(mask))
    valid = random_rows(COUNT, 0.2, 42)
    return best_mean_iou(truth[valid], masks[valid])


def best_mean_iou(truth: NDArray[np.uint8], masks: NDArray[np.uint8]) -> float:
    """Return the mean IoU of a model that knows the shapes, but not which pixels were relabelled."""
    overlaps = [
        ((truth == code) & (masks == code)).sum() / ((truth == code) | (masks == code)).sum()
        for code in range(len(CLASSES))
    ]
    return float(np.mean(overlaps))


def _draw(random: np.random.Generator) -> tuple[Image.Image, NDArray[np.uint8]]:
    """Return an image and its classes."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(random.integers(90, 170, 3).tolist()))
    mask = Image.new("L", (SIZE, SIZE))
    for code in random.integers(1, len(CLASSES), random.integers(1, MOST_SHAPES + 1)).tolist():
        colour = (np.array(COLOURS[code - 1]) * random.uniform(0.8, 1.2)).astype(int).tolist()
        radius = random.uniform(0.14, 0.3) * SIZE
        x, y = random.uniform(radius, SIZE - radius, 2)
        for canvas, fill in ((image, tuple(colour)), (mask, code)):
            draw = ImageDraw.Draw(canvas)
            if code == 1:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
            elif code == 2:
                draw.rectangle((x - radius, y - 0.7 * radius, x + radius, y + 0.7 * radius), fill=fill)
            else:
                draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill)
    noisy = np.asarray(image, dtype=np.float64) + random.normal(0, NOISE, (SIZE, SIZE, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), np.asarray(mask)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Write with a fixed date: the bytes are the same each time."""
    archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
