"""Images that a trained model is given: files, opened images, folders and archives, lists and tables of paths."""

from __future__ import annotations

import base64
import binascii
import contextlib
import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from dlrunner.data.core.input_columns import input_columns
from dlrunner.data.core.source import ARCHIVES, ArchiveOrFolder, Unreadable, content_of
from dlrunner.data.images.files import is_table, table_folder
from dlrunner.data.images.listing import FoundImages, find_image_files, is_readable
from dlrunner.data.tables.dialect import decoded, encodings_to_try
from dlrunner.data.tables.files import STANDARD_INPUT, suffix_of
from dlrunner.data.tables.table import new_rows_of_copy, read_new_rows
from dlrunner.data.tables.text_files import from_standard_input
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.predictor_inputs import check_table, listed, table_name, table_of_dicts
from dlrunner.system.terminal import visible

BATCH_SIZE = 64
IMAGE = "image"
"""The column of the names of images, and the usual one of their paths in a table."""

Given = str | Path | Image.Image
Named = tuple[str, Given | bytes]
"""An image and its name: its path, that below a folder, or the number of an opened image."""


@dataclass(frozen=True)
class InputImages:
    """Images that are given to a predictor."""

    names: Sequence[str]
    sources: Sequence[Path | None]
    """Their files, where each is one of its own that exists."""
    batches: Callable[[], Iterator[Sequence[Named]]]
    """Reads them in their order."""
    folder: Path | None = None
    """The folder or archive that they are in."""
    table: pd.DataFrame | None = None
    """The table that they are listed in."""
    keeps_bad: bool = True
    """One that cannot be read has a reason; else it is an error."""
    is_single: bool = False
    notes: Sequence[str] = ()

    def columns(self, only: Sequence[str] | None) -> pd.DataFrame:
        """Return what is shown next to the predictions: columns of the table, or the names of the images in `image`."""
        if self.table is not None:
            return input_columns(self.table, only, None)
        return input_columns(pd.DataFrame({IMAGE: list(map(visible, self.names))}), only, IMAGE)


def read_images(
    given: Any, column: str | None, default: str | None, files: Mapping[str, str] | None = None
) -> InputImages:
    """Return the images of files, a folder, an archive, a list of paths, or a table with a column of paths.

    Args:
        given: a file or an opened image, or several; a folder or archive; a table, or a text file with a path a line,
            or `-` for one of the two on standard input; a DataFrame, a row of a table as a dict, or several.
        column: of the table, with the paths.
        default: likewise, if the table has it; else `image`, else the first one.
        files: separator and encoding of the training table, for lists and tables that need them.

    Raises:
        ConfigError: there is no image, a file or column does not exist, or the argument has another type.
        DataError: a folder holds no images, or a table cannot be read.
    """
    if isinstance(given, str | Path):
        if str(given) == STANDARD_INPUT:
            with contextlib.ExitStack() as stack:
                return _of_list(from_standard_input(stack), None, Path(), column, default, files or {})
        if is_table(path := user_path(given)) and suffix_of(path):
            return _of_list(path, path, table_folder(path).path, column, default, files or {})
    given = table_of_dicts(given)
    if isinstance(given, pd.DataFrame):
        return _of_table(given, Path(), column, default)
    if column is not None:
        raise ConfigError(f"column: {given if isinstance(given, str | Path) else 'the argument'} is not a table")
    if folder := folder_of(given):
        found = images_in(folder)
        sources = [folder / name if folder.is_dir() else None for name in found.names]
        return InputImages(found.names, sources, lambda: in_folder(folder, found.names), folder, notes=found.notes)
    images = named(given)
    is_single = isinstance(given, str | Path | Image.Image)
    return replace(_of_images(images), keeps_bad=False, is_single=is_single)


def _of_list(
    file: Path, path: Path | None, folder: Path, column: str | None, default: str | None, files: Mapping[str, str]
) -> InputImages:
    """Return the images of a table, or of a text file whose lines are paths.

    Args:
        file: the file, a glob of tables, or a copy of standard input.
        path: the same, None for standard input.
        folder: that relative paths start from.
    """
    if column is None and (lines := _lines(file, folder, files.get("encoding"))):
        return _of_images([(line, _file_of(line, folder) or _no_file(line)) for line in lines])
    table = new_rows_of_copy(file, **files) if path is None else read_new_rows(path, **files)
    return _of_table(table, folder, column, default)


def _lines(file: Path, folder: Path, encoding: str | None) -> list[str]:
    """Return the lines of a text file whose first one is the path of an image; none of any other file."""
    if file.suffix.lower() not in (".txt", ".csv") or not file.is_file():
        return []
    content, lines = file.read_bytes(), list[str]()
    for each in encodings_to_try(encoding):
        with contextlib.suppress(UnicodeDecodeError):
            lines = [line for line in decoded(content, each or "utf-8").splitlines() if line.strip()]
            break
    is_list = lines and (is_readable(Path(lines[0].strip()).suffix.lower()) or _file_of(lines[0], folder) is not None)
    return lines if is_list else []


def _of_table(table: pd.DataFrame, folder: Path, column: str | None, default: str | None) -> InputImages:
    """Return the images whose paths are in a column of a DataFrame; in Python it may hold opened images.

    Raises:
        ConfigError: there is no such column, or none of its files exists.
    """
    table = table.rename(columns=str)
    check_table(table)
    columns = list(table.columns)
    column = column or next((name for name in (default, IMAGE) if name in columns), columns[0])
    if column not in columns:
        raise ConfigError(f"column: {table_name(table)} has no column {column!r}; {did_you_mean(column, columns)}")
    images: list[Named] = []
    for row, value in enumerate(table[column], start=1):
        path = str(value) if isinstance(value, str | Path | Integral) else ""
        image = value if isinstance(value, Image.Image) else _file_of(path, folder) or _no_file(path)
        images.append((f"image {row}" if isinstance(value, Image.Image) else path, image))
    if all(isinstance(image, Unreadable) for _, image in images):
        raise ConfigError(
            f"column: none of the {len(images):,} files in the column {column} of {table_name(table)} exists "
            f"(the first is {images[0][0]!r}); its columns are {', '.join(columns)}"
        )
    if any(isinstance(image, Image.Image) for _, image in images):
        table = table.assign(**{column: [name for name, _ in images]})
    return replace(_of_images(images), table=table, notes=table.attrs.get("notes", ()))


def _of_images(images: Sequence[Named]) -> InputImages:
    def batches() -> Iterator[Sequence[Named]]:
        for start in range(0, len(images), BATCH_SIZE):
            yield images[start : start + BATCH_SIZE]

    files = [user_path(image) if isinstance(image, str | Path) else None for _, image in images]
    return InputImages([name for name, _ in images], files, batches)


def _no_file(name: str | Path) -> Unreadable:
    return Unreadable.because(ValueError(f"there is no file {name}" if str(name) else "its path is missing"))


def _file_of(name: str, folder: Path) -> Path | None:
    """Return the file that a table means, relative to a folder: by its path, or by its path without the suffix."""
    for each in dict.fromkeys((name, name.strip().replace("\\", "/"))):
        if not each or "\0" in each:
            continue
        path = folder / each
        with contextlib.suppress(OSError, ValueError):  # too long for a file name, or no name
            if path.is_file():
                return path
            alike = path.parent.glob(f"{glob.escape(path.name)}.*")
            matches = [found for found in alike if found.stem == path.name and is_readable(found.suffix.lower())]
            if len(matches) == 1:
                return matches[0]
    return None


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


def encoded(given: str | Path | bytes) -> bytes:
    """Return the content of an image; of a file that cannot be read `Unreadable`, whose decoding gives the reason."""
    return given if isinstance(given, bytes) else content_of(user_path(given).read_bytes)


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


def of_request(contents: Sequence[str]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield numbers, from 1, and contents of base64-encoded images, in batches."""
    for start in range(0, len(contents), BATCH_SIZE):
        some = contents[start : start + BATCH_SIZE]
        yield [(f"image {number}", _decoded(each)) for number, each in enumerate(some, start=start + 1)]


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return Unreadable.because(ValueError("not base64"))
