"""Synthetic images in the layout of the dog breeds; the best achievable accuracy is known."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from dlrunner.data.core.splitting import random_rows
from dlrunner.data.core.synthetic import generated

VERSION = 2
ARCHIVE = "dog-breeds.zip"
SHAPES = ("disc", "ring", "square", "triangle")
COLOURS = {"blue": (70, 110, 210), "red": (210, 80, 60)}
COUNT, SIZE = 1200, 64
WRONG = 0.1
"""The probability that an image has the label of another class."""


def write_synthetic_images(folder: Path) -> tuple[Path, float]:
    """Write an archive with labels.csv and train/, unless it exists, and return it with the best achievable accuracy.

    An image is a shape of random size, position and shade with noise; its class is shape and colour. One label in ten
    is wrong, so a perfect classifier has the accuracy of the labels themselves, on the default validation images.
    """
    path, best = generated(folder / f"images-{VERSION}", (ARCHIVE,), _generate)
    return path / ARCHIVE, best


def _generate(path: Path) -> float:
    random = np.random.default_rng(0)
    names = [f"{colour}-{shape}" for colour in COLOURS for shape in SHAPES]
    truth = random.integers(0, len(names), COUNT)
    wrong = random.random(COUNT) < WRONG
    labelled = np.where(wrong, (truth + random.integers(1, len(names), COUNT)) % len(names), truth)
    ids = [f"{number:032x}" for number in random.permutation(COUNT)]
    with zipfile.ZipFile(path / ARCHIVE, "w") as archive:
        labels = pd.DataFrame({"id": ids, "breed": [names[code] for code in labelled]})
        _add(archive, "labels.csv", labels.to_csv(index=False).encode())
        for name, code in zip(ids, truth, strict=True):
            colour, shape = divmod(int(code), len(SHAPES))
            _add(archive, f"train/{name}.jpg", _draw(SHAPES[shape], list(COLOURS.values())[colour], random))
    return float((~wrong[random_rows(COUNT, 0.2, 42)]).mean())


def _draw(shape: str, colour: tuple[int, int, int], random: np.random.Generator) -> bytes:
    image = Image.new("RGB", (SIZE, SIZE), tuple(random.integers(90, 170, 3).tolist()))
    radius = random.uniform(0.2, 0.38) * SIZE
    x, y = random.uniform(radius, SIZE - radius, 2)
    box = (x - radius, y - radius, x + radius, y + radius)
    filled = tuple(np.clip(np.array(colour) * random.uniform(0.8, 1.2), 0, 255).astype(int).tolist())
    draw = ImageDraw.Draw(image)
    if shape == "disc":
        draw.ellipse(box, fill=filled)
    elif shape == "ring":
        draw.ellipse(box, outline=filled, width=max(3, round(radius / 3)))
    elif shape == "square":
        draw.rectangle(box, fill=filled)
    else:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=filled)
    noisy = np.asarray(image, dtype=np.float64) + random.normal(0, 10, (SIZE, SIZE, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Write with a fixed date: the bytes are the same each time."""
    archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
