"""Users' images: Kaggle's labels.csv next to train/, folders by class, a table of paths and labels."""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from dlrunner.data.core.folders import check_parts, common_folders, counted, labels_and_parts
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.source import ARCHIVES, ArchiveOrFolder, place_of
from dlrunner.data.images.listing import FoundImages, find_image_files, is_readable
from dlrunner.data.tables.files import STANDARD_INPUT, files_of, suffix_of
from dlrunner.data.tables.rows import without_missing
from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Reading, Table, read_open_table
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import not_found

LABELS = "labels.csv"


@dataclass(frozen=True)
class ImageFiles:
    """Images that are found but not decoded yet."""

    place: ArchiveOrFolder
    digest: str
    """Of names, content and labels."""
    names: Sequence[str]
    """Paths below the place."""
    table: pd.DataFrame
    """A row for each image: the columns of a table, or `folder`, where the image stands."""
    rows: RowLocations
    """Where its rows stand, for messages."""
    parts: Sequence[str | None] | None = None
    """train, valid, test or None, where the folders tell what validates."""
    notes: tuple[str, ...] = ()
    column: str | None = None
    """Of the table, with the paths."""


def find_images(
    path: Path,
    file: str | None = None,
    target: str | list[str] | None = None,
    reading: Reading | None = None,
    needs_label: bool = True,
    query: str | None = None,
) -> ImageFiles:
    """Return the labelled images of a folder, archive or table.

    Args:
        path: where they are.
        file: the table's column with the paths.
        target: the table's column or columns with the classes.
        reading: how the table is read.
        needs_label: a row without a label is bad.
        query: SQL that selects the table; the path is then the folder of its images.

    Raises:
        ConfigError: there is no such file or column.
        DataError: it holds no images, or the archive is damaged.
    """
    reading = reading or Reading()
    if query is not None:
        named = [name for name in (file, *([target] if isinstance(target, str) else target or [])) if name]
        table = selected_labels(query, reading, named if file and target else [0, 1, *named])
        return _match(folder_of_query(path), _Listed(table, file, target, needs_label), [""], reading)
    if is_table(path):
        listed = _Listed(read_labels(path, reading), file, target, needs_label)
        return _match(table_folder(path), listed, [""], reading)
    if not path.exists():
        raise ConfigError(f"data.path: {not_found(path, 'file or folder')}")
    if path.is_file() and is_readable(path.suffix.lower()):
        raise ConfigError(f"data.path: {path} is one image; give the folder, archive or table of many")
    place = place_of(path, LABELS, may_be_damaged=True)
    notes = (place or ArchiveOrFolder(path)).damage_notes(reading.skip_bad)
    if place is not None:
        listed = _Listed(_labels_in(place, reading), file, target, needs_label)
        found = _match(place, listed, ["train/", "", "images/"], reading)
    elif file or target:
        raise ConfigError(f"data.{'file' if file else 'target'}: {path} is not a table and has no {LABELS}")
    else:
        found = _by_folder(unwrapped(path))
    return replace(found, notes=(*notes, *found.notes))


def is_table(path: Path) -> bool:
    """Tell whether a path means a table: a file of that format, a glob of part files, or standard input."""
    if str(path) == STANDARD_INPUT:
        return True
    if path.is_file():  # pets.zip is an archive, labels.csv.zip a table
        return suffix_of(path.with_suffix("") if path.name.lower().endswith(ARCHIVES) else path) is not None
    return not path.exists() and glob.has_magic(str(path))


def table_folder(path: Path) -> ArchiveOrFolder:
    """Return the folder that the paths in a table are relative to."""
    return ArchiveOrFolder(Path() if str(path) == STANDARD_INPUT else files_of(path)[0].parent)


def read_labels(path: Path, reading: Reading) -> Table:
    """Return a table of files and labels: strings as they are written."""
    with TableFile(str(path), None, reading).open() as raw:
        return read_open_table(raw, reading, text=raw.names)


def selected_labels(query: str, reading: Reading, ids: Collection[str | int]) -> Table:
    """Return a table of files and labels that a query selects; `ids`: its columns that keep every character."""
    with TableFile(None, query, reading, ids=ids).open() as raw:
        return read_open_table(raw, reading, text=raw.names)


def folder_of_query(path: Path) -> ArchiveOrFolder:
    """Return the folder that the paths in a query's result are relative to.

    Raises:
        ConfigError: it is a file, or there is none.
    """
    if not path.is_dir():
        problem = "is not a folder" if path.exists() else "does not exist"
        raise ConfigError(f"data.path: {path} {problem}; with data.query it is the folder of the files that it lists")
    return ArchiveOrFolder(path)


def _labels_in(place: ArchiveOrFolder, reading: Reading) -> Table:
    """Return the table labels.csv of a folder or archive."""
    if not place.is_archive:
        return read_labels(place.path / LABELS, reading)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / LABELS
        copy.write_bytes(place.read(LABELS))
        table, named = read_labels(copy, reading), Path(f"{place.path}: {place.prefix}{LABELS}")
        rows = replace(table.rows, place=named, parts=[each._replace(file=named) for each in table.rows.parts])
        return replace(table, rows=rows)


def unwrapped(path: Path) -> ArchiveOrFolder:
    """Return a folder or archive, without the folders that all its folders of images stand in."""
    place = ArchiveOrFolder(path)
    # An image that stands higher than the others, a cover, is of no class.
    within = common_folders(find_image_files(place).names)
    if not within:
        return place
    return (
        ArchiveOrFolder(path, "/".join([*within, ""])) if place.is_archive else ArchiveOrFolder(path.joinpath(*within))
    )


def _by_folder(place: ArchiveOrFolder) -> ImageFiles:
    found = find_image_files(place)
    names = found.names
    if not names:
        raise DataError(". ".join([f"{place.path} holds no images", *found.notes]))
    check_parts(names, found.skipped, place.path)
    labels, parts, label_notes = labels_and_parts(names)
    unlabelled = [name for name, label in zip(names, labels, strict=True) if not label]
    if len(unlabelled) == len(names) or len(set(labels)) < 2:
        raise DataError(
            f"{place.path}: classes come from folders, cats/ and dogs/ (or train/cats/ and train/dogs/), or from "
            f"{LABELS}; all {len(names):,} images are in {'none' if unlabelled else 'one folder'}"
        )
    notes = [f"skipped, not in a class folder: {counted(unlabelled, 'image')}"] if unlabelled else []
    kept = [row for row, label in enumerate(labels) if label]
    if parts is not None:
        parts = [parts[row] for row in kept]
        parts = parts if {"valid", "test"} & set(parts) else None  # Kaggle's test/ has no classes
    return ImageFiles(
        place,
        digest_of(place, [names[row] for row in kept], [labels[row] for row in kept]),
        [names[row] for row in kept],
        pd.DataFrame({"folder": [labels[row] for row in kept]}),
        RowLocations(place.path),
        parts,
        (*label_notes, *notes, *found.notes),
    )


class _Listed:
    """A table of files and their labels.

    Raises:
        ConfigError: a named column does not exist.
        DataError: there are fewer than two columns.
    """

    def __init__(self, table: Table, file: str | None, target: str | list[str] | None, needs_label: bool) -> None:
        columns = list(table.frame.columns)
        targets = [target] if isinstance(target, str) else list(target or [])
        for setting, name in [("file", file), *(("target", each) for each in targets)]:
            if name is not None and name not in columns:
                raise ConfigError(
                    f"data.{setting}: {table.place} has no column {name!r}; {did_you_mean(name, columns)}"
                )
        if len(columns) < 2:
            raise DataError(f"{table.place} needs a column of files and one of labels; it has {', '.join(columns)}")
        self.file = file or next(name for name in columns if name not in targets)
        self.targets = targets or [next(name for name in columns if name != self.file)]
        self.table, self.needs_label = table, needs_label

    def rows(self, skip_bad: bool) -> Table:
        """Return the rows that have a file, and a label where one is needed; labels without blanks at their ends."""
        labels = {name: f"label {name}" for name in self.targets if self.needs_label}
        needed = {self.file: "file", **labels}
        table = without_missing(self.table, needed, skip_bad)
        plain = {name: table.frame[name].str.strip() for name in self.targets}
        return replace(table, frame=table.frame.assign(**plain))


def _match(place: ArchiveOrFolder, listed: _Listed, folders: Sequence[str], reading: Reading) -> ImageFiles:
    """Match the rows of a table with image files; a label without a file and a file without a label are reported."""
    table, source, file = listed.rows(reading.skip_bad), listed.table.place, listed.file
    given = table.frame[file].astype(str).tolist()
    images = find_image_files(place, used=(LABELS, source.name))
    by_name, by_stem = set(images.names), _by_stem(images.names)
    found = [_found(name, place, folders, by_name, by_stem) for name in given]
    duplicates = [name for name, count in Counter(name for name in found if name is not None).items() if count > 1]
    if duplicates:
        raise DataError(f"{source}: {len(duplicates):,} files are listed more than once, the first is {duplicates[0]}")
    missing = [name for name, file_ in zip(given, found, strict=True) if file_ is None]
    if len(missing) == len(given):
        raise DataError(f"{source}: none of its {len(given):,} files exists; the first is {missing[0]}")
    kept = [row for row, name in enumerate(found) if name is not None]
    names = [str(found[row]) for row in kept]
    frame = table.frame.drop(columns=[file]).iloc[kept].reset_index(drop=True)
    notes = [*table.notes, *([f"skipped, label without an image: {counted(missing, 'label')}"] if missing else [])]
    notes += _unused(images, names, folders[0])
    lines = frame.fillna("").astype(str).agg("\t".join, axis=1).tolist()
    rows = table.rows.only(np.isin(np.arange(len(found)), kept))
    return ImageFiles(place, digest_of(place, names, lines), names, frame, rows, notes=tuple(notes), column=file)


def _unused(images: FoundImages, names: Sequence[str], within: str) -> list[str]:
    """Return notes on what is in a folder with a table besides the images that it lists.

    Of a table that may stand anywhere, only the folders of its images are looked at.
    """
    tops = {PurePosixPath(name).parts[0] for name in names}
    rest = sorted(set(images.names) - set(names))
    unlabelled = [name for name in rest if name.startswith(within) and (within or PurePosixPath(name).parts[0] in tops)]
    elsewhere = [name for name in rest if within and not name.startswith(within)]
    notes = [f"skipped, image without a label: {counted(unlabelled, 'image')}"] if unlabelled else []
    notes += [f"not used, not in {within}: {counted(elsewhere, 'image')}"] if elsewhere else []
    return [*notes, *(images.notes if within else ())]


def _by_stem(names: Sequence[str]) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    return stems


def _found(
    given: str, place: ArchiveOrFolder, folders: Sequence[str], names: set[str], stems: dict[str, list[str]]
) -> str | None:
    """Return the file that a table means: by its path, or by its path without the suffix.

    Raises:
        DataError: several files differ in their suffix alone.
    """
    for name in (given, given.strip().replace("\\", "/").removeprefix("./")):
        for folder in folders:
            if folder + name in names:
                return folder + name
        for folder in folders:
            if matches := stems.get(folder + name):
                if len(matches) > 1:
                    raise DataError(f"{place.path}: {name} may be {' or '.join(matches)}; name it with its suffix")
                return matches[0]
        # A table may also name files elsewhere: /data/a.jpg, ../b.jpg.
        if not place.is_archive and name and (place.path / name).is_file():
            return name
    return None


def digest_of(place: ArchiveOrFolder, names: Sequence[str], labels: Sequence[str]) -> str:
    """Return a digest of files, by name and content, and of their labels."""
    lines = (f"{name}\t{label}" for name, label in zip(names, labels, strict=True))
    listed = hashlib.sha256(os.fsencode("\n".join(lines)))
    content = place.digest_of(names, f"pictures {listed.hexdigest()}")
    return hashlib.sha256(f"{content} {listed.hexdigest()}".encode()).hexdigest()
