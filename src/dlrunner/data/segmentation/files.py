"""Images and their masks in files: two folders, or a table of two columns; zip or folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from dlrunner.data.core.folders import check_parts, counted, labels_and_parts
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.source import ArchiveOrFolder
from dlrunner.data.images.files import (
    digest_of,
    folder_of_query,
    is_table,
    read_labels,
    selected_labels,
    table_folder,
    unwrapped,
)
from dlrunner.data.images.listing import find_image_files
from dlrunner.data.tables.rows import only, without_missing
from dlrunner.data.tables.table import Reading, Table
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import not_found

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
    rows: RowLocations
    """Where its rows stand, for messages."""
    parts: Sequence[str | None] | None = None
    """train, valid, test or None, if the folders define the split."""
    classes: list[str] | None = None
    """Names of the classes, if there is a file with them."""
    notes: tuple[str, ...] = ()
    column: str | None = None
    """Of the table, with the images."""


def find_masked_images(
    path: Path,
    images: str | None,
    masks: str | None,
    mask_suffix: str,
    reading: Reading | None = None,
    query: str | None = None,
) -> MaskedImages:
    """Return the images of a folder, archive or table with their masks.

    Args:
        path: where they are.
        images, masks: the two folders (by default images and masks), which may be in train/, valid/ and test/ or
            contain these; or the table's columns (by default image and mask).
        mask_suffix: what is appended to an image's name in that of its mask: _mask for a_mask.png of a.jpg.
        reading: how the table is read; its `skip_bad` leaves images without a mask out, and masks without an image.
        query: SQL that selects the table; the path is then the folder of its files.

    Raises:
        ConfigError: there is no such file, folder or column.
        DataError: an image has no mask, or a mask no image.
    """
    reading = reading or Reading()
    columns = (images or "image", masks or "mask")
    if query is not None:
        return _listed(selected_labels(query, reading, columns), folder_of_query(path), *columns, reading)
    if is_table(path):
        return _listed(read_labels(path, reading), table_folder(path), *columns, reading)
    if not path.exists():
        raise ConfigError(f"data.path: {not_found(path, 'file or folder')}")
    place, images, masks = unwrapped(path), images or "images", masks or "masks"
    found = find_image_files(place, used=CLASS_FILES)
    names = found.names
    images_by_key, masks_by_key = _in_folder(names, images, ""), _in_folder(names, masks, mask_suffix)
    for setting, folder, files in (("images", images, images_by_key), ("masks", masks, masks_by_key)):
        if not files:
            existing = sorted({part for name in names for part in PurePosixPath(name).parts[:-1]})
            raise ConfigError(
                f"data.{setting}: {place.path} has no images in a folder {folder}/; "
                f"folders with images: {', '.join(existing) or 'none'}"
            )
    keys = sorted(images_by_key)
    check_parts(keys, found.skipped, place.path)
    notes = [*place.damage_notes(reading.skip_bad), *found.notes]
    if alone := [images_by_key[key] for key in keys if key not in masks_by_key]:
        problem = f"{place.path}: {alone[0]} has no mask in {masks}/" + _such(alone, "images")
        if not reading.skip_bad or len(alone) == len(keys):
            raise DataError(
                f"{problem}; masks have their images' names (data.mask_suffix=_mask, if they are called a_mask.png; "
                "data.skip_bad=true leaves such images out)"
            )
        notes.append(f"left out: {problem}")
        keys = [key for key in keys if key in masks_by_key]
    if alone := [name for key, name in masks_by_key.items() if key not in images_by_key]:
        problem = f"{place.path}: {alone[0]} has no image in {images}/" + _such(alone, "masks")
        if not reading.skip_bad:
            raise DataError(f"{problem} (data.skip_bad=true leaves them out)")
        notes.append(f"left out: {problem}")
    used = {*images_by_key.values(), *masks_by_key.values()}
    if others := [name for name in names if name not in used]:
        notes.append(f"not used, neither in {images}/ nor a mask in {masks}/: {counted(others, 'image')}")
    parts = labels_and_parts(keys).parts
    chosen, of_chosen = [images_by_key[key] for key in keys], [masks_by_key[key] for key in keys]
    classes = _classes(place)
    digest = digest_of(place, [*chosen, *of_chosen], [f"{each} {classes}" for each in [*of_chosen, *chosen]])
    frame = pd.DataFrame({"image": chosen})
    return MaskedImages(place, digest, chosen, of_chosen, frame, RowLocations(place.path), parts, classes, tuple(notes))


def _such(names: Sequence[str], what: str) -> str:
    return f" ({len(names):,} such {what})" if len(names) > 1 else ""


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


def _listed(table: Table, place: ArchiveOrFolder, image: str, mask: str, reading: Reading) -> MaskedImages:
    columns = list(table.frame.columns)
    for setting, name in (("images", image), ("masks", mask)):
        if name not in columns:
            raise ConfigError(f"data.{setting}: {table.place} has no column {name!r}; {did_you_mean(name, columns)}")
    table = without_missing(table, {image: "image", mask: "mask"}, reading.skip_bad)
    files = {name: [_existing(place.path, each) for each in table.frame[name]] for name in (image, mask)}
    absent = np.array([None in pair for pair in zip(files[image], files[mask], strict=True)])
    notes = list(table.notes)
    if absent.any():
        row = int(absent.argmax())
        name = image if files[image][row] is None else mask
        given = table.frame[name][row].strip()
        problem = f"{table.rows.at(row)}: there is no file {place.path / given}"
        if not reading.skip_bad or absent.all():
            raise DataError(f"{problem}; {int(absent.sum()):,} such row(s) in all (data.skip_bad=true leaves them out)")
        notes.append(f"{int(absent.sum()):,} of {len(absent):,} rows are left out (data.skip_bad): {problem}")
        table = only(table, ~absent)
    pairs = [(one, other) for one, other in zip(files[image], files[mask], strict=True) if one and other]
    images, masks = [one for one, _ in pairs], [other for _, other in pairs]
    repeated = pd.Series(images).duplicated().to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        raise DataError(f"{table.rows.at(row)}: {images[row]} is listed twice")
    classes = _classes(place)
    lines = [f"{line} {classes}" for line in table.frame.fillna("").astype(str).agg("\t".join, axis=1)]
    digest = digest_of(place, [*images, *masks], [*lines, *lines])
    others = table.frame.drop(columns=[image, mask])
    return MaskedImages(place, digest, images, masks, others, table.rows, None, classes, tuple(notes), image)


def _existing(folder: Path, given: str) -> str | None:
    """Return the file that a table names, as it is written or without blanks and backslashes; None: there is none."""
    plain = given.strip().replace("\\", "/")
    return next((name for name in (given, plain) if (folder / name).is_file()), None)


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
