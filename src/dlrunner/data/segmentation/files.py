"""Images and their masks in files: two folders, or a table of two columns; zip or folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from dlrunner.data.core.folders import labels_and_parts
from dlrunner.data.core.source import ArchiveOrFolder
from dlrunner.data.core.tables import read_table
from dlrunner.data.images.files import TABLES, digest_of, is_image, unwrapped
from dlrunner.errors import ConfigError, DataError, did_you_mean

CLASS_FILES = ("codes.txt", "classes.txt")
"""Files with the names of the classes, one a line; the first one is that of the value 0."""


@dataclass(frozen=True)
class MaskedImages:
    """Images and masks that are found but not decoded yet."""

    place: ArchiveOrFolder
    digest: str
    """Of names and content."""
    images: Sequence[str]
    """Paths relative to `place`."""
    masks: Sequence[str]
    """Likewise, one for each image."""
    table: pd.DataFrame
    """A row for each image: the other columns of a table."""
    parts: Sequence[str | None] | None = None
    """train, valid, test or None, if the folders define the split."""
    classes: list[str] | None = None
    """Names of the classes, if there is a file with them."""


def find_masked_images(path: Path, images: str | None, masks: str | None, mask_suffix: str) -> MaskedImages:
    """Return the images of a folder, archive or table with their masks.

    Args:
        path: where they are.
        images, masks: the two folders (by default images and masks), which may be in train/, valid/ and test/ or
            contain these; or the table's columns (by default image and mask).
        mask_suffix: what is appended to an image's name in that of its mask: _mask for a_mask.png of a.jpg.

    Raises:
        ConfigError: there is no such file, folder or column.
        DataError: an image has no mask, or a mask no image.
    """
    if not path.exists():
        raise ConfigError(f"data.path: there is no file or folder {path}")
    if path.is_file() and any(suffix.lower() in TABLES for suffix in path.suffixes):
        return _listed(path, images or "image", masks or "mask")
    place, images, masks = unwrapped(path), images or "images", masks or "masks"
    names = sorted(name for name in place.names() if is_image(name))
    images_by_key, masks_by_key = _in_folder(names, images, ""), _in_folder(names, masks, mask_suffix)
    for setting, folder, found in (("images", images, images_by_key), ("masks", masks, masks_by_key)):
        if not found:
            existing = sorted({part for name in names for part in PurePosixPath(name).parts[:-1]})
            raise ConfigError(
                f"data.{setting}: {place.path} has no images in a folder {folder}/; "
                f"folders with images: {', '.join(existing) or 'none'}"
            )
    keys = sorted(images_by_key)
    if missing := [images_by_key[key] for key in keys if key not in masks_by_key]:
        more = f" ({len(missing):,} such images)" if len(missing) > 1 else ""
        raise DataError(
            f"{place.path}: {missing[0]} has no mask in {masks}/{more}; masks have their images' names "
            "(data.mask_suffix=_mask, if they are called a_mask.png)"
        )
    if unpaired := [name for key, name in masks_by_key.items() if key not in images_by_key]:
        more = f" ({len(unpaired):,} such masks)" if len(unpaired) > 1 else ""
        raise DataError(f"{place.path}: {unpaired[0]} has no image in {images}/{more}")
    parts = labels_and_parts(keys)[1]
    chosen, of_chosen = [images_by_key[key] for key in keys], [masks_by_key[key] for key in keys]
    classes = _classes(place)
    digest = digest_of(place, [*chosen, *of_chosen], [f"{each} {classes}" for each in [*of_chosen, *chosen]])
    return MaskedImages(place, digest, chosen, of_chosen, pd.DataFrame({"image": chosen}), parts, classes)


def _in_folder(names: Sequence[str], folder: str, suffix: str) -> Mapping[str, str]:
    """Return the images in a folder by the key of their masks: the path without the folder.

    Raises:
        DataError: two of them differ in the suffix alone.
    """
    found: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        if folder not in path.parts[:-1]:
            continue
        parts = list(path.with_suffix("").parts)
        parts.remove(folder)
        if not parts[-1].endswith(suffix):
            continue
        key = str(PurePosixPath(*parts)).removesuffix(suffix)
        if key in found:
            raise DataError(f"{found[key]} and {name} differ only in their suffix; remove one of them")
        found[key] = name
    return found


def _listed(path: Path, image: str, mask: str) -> MaskedImages:
    table = read_table(path, as_text=True)
    columns = [str(name) for name in table.columns]
    for setting, name in (("images", image), ("masks", mask)):
        if name not in columns:
            raise ConfigError(f"data.{setting}: {path} has no column {name!r}; {did_you_mean(name, columns)}")
        if (empty := table[name].isna().to_numpy()).any():
            raise DataError(f"{path}, row {int(empty.argmax()) + 2}: the column {name} names no file")
    images, masks = ([each.strip().replace("\\", "/") for each in table[name]] for name in (image, mask))
    for row, files in enumerate(zip(images, masks, strict=True), start=2):
        for file in files:
            if not (path.parent / file).is_file():
                raise DataError(f"{path}, row {row}: there is no file {path.parent / file}")
    repeated = pd.Series(images).duplicated().to_numpy()
    if repeated.any():
        raise DataError(f"{path}, row {int(repeated.argmax()) + 2}: {images[int(repeated.argmax())]} is listed twice")
    place, others = ArchiveOrFolder(path.parent), table.drop(columns=[image, mask])
    classes = _classes(place)
    lines = [f"{line} {classes}" for line in table.fillna("").astype(str).agg("\t".join, axis=1)]
    digest = digest_of(place, [*images, *masks], [*lines, *lines])
    return MaskedImages(place, digest, images, masks, others, classes=classes)


def _classes(place: ArchiveOrFolder) -> list[str] | None:
    """Return the names of the classes from a file.

    Raises:
        DataError: two are the same, or it is not text.
    """
    for file in CLASS_FILES:
        if not place.has(file):
            continue
        try:
            names = [line.strip() for line in place.read(file).decode("utf-8-sig").rstrip().splitlines()]
        except UnicodeDecodeError:
            raise DataError(f"{place.path}: {file} is not text in UTF-8") from None
        if repeated := [name for index, name in enumerate(names) if not name or name in names[:index]]:
            raise DataError(
                f"{place.path}: {file} has {repeated[0]!r} twice, or an empty line; it needs one class per line"
            )
        return names
    return None
