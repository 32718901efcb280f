"""Images that a trained model is given: files, opened images, folders and archives."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from dlrunner.data.core.source import ARCHIVES, ArchiveOrFolder, Unreadable
from dlrunner.data.images.listing import FoundImages, find_image_files
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import user_path
from dlrunner.predictor_inputs import listed

BATCH_SIZE = 64

Given = str | Path | Image.Image


def folder_of(given: Any) -> Path | None:
    """Return the folder or archive that is given, if it is one."""
    if not isinstance(given, str | Path):
        return None
    path = user_path(given)
    return path if path.is_dir() or (path.is_file() and path.name.lower().endswith(ARCHIVES)) else None


def images_in(folder: Path) -> FoundImages:
    """Return the paths of the images in a folder or archive, and notes on what else is in it.

    Raises:
        DataError: there are none.
    """
    place = ArchiveOrFolder(folder)
    found = find_image_files(place)
    notes = (*place.damage_notes(skip_bad=True), *found.notes)
    if not found.names:
        raise DataError(". ".join([f"{folder} holds no images", *notes]))
    return replace(found, notes=notes)


def in_folder(folder: Path, names: Sequence[str]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield names and contents of images in a folder or archive, in batches."""
    place = ArchiveOrFolder(folder)
    for start in range(0, len(names), BATCH_SIZE):
        some = names[start : start + BATCH_SIZE]
        yield list(zip(some, place.contents(some), strict=True))


def named(given: Given | Sequence[Given]) -> list[tuple[str, Given]]:
    """Return images with their names: of an opened one its number.

    Raises:
        ConfigError: one is something else, or a file does not exist.
    """
    images = listed(given, "files or PIL images", (str, Path, Image.Image))
    for each in images:
        if isinstance(each, str | Path) and not user_path(each).is_file():
            raise ConfigError(f"there is no file {user_path(each)}")
    return [(f"image {i}" if isinstance(each, Image.Image) else str(each), each) for i, each in enumerate(images, 1)]


def in_batches(given: Given | Sequence[Given]) -> Iterator[list[tuple[str, Given]]]:
    """Yield names and images, in batches, where all files exist."""
    images = named(given)
    for start in range(0, len(images), BATCH_SIZE):
        yield images[start : start + BATCH_SIZE]


def of_request(encoded: Sequence[str]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield numbers, from 1, and contents of base64-encoded images, in batches."""
    for start in range(0, len(encoded), BATCH_SIZE):
        some = encoded[start : start + BATCH_SIZE]
        yield [(f"image {number}", _decoded(each)) for number, each in enumerate(some, start=start + 1)]


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return Unreadable.because(ValueError("not base64"))
