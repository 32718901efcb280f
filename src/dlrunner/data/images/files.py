"""Users' images: Kaggle's labels.csv next to train/, folders by class, a table of paths and labels."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from dlrunner.data.core.folders import PARTS, labels_and_parts
from dlrunner.data.core.source import ArchiveOrFolder, place_of
from dlrunner.data.core.tables import read_table
from dlrunner.errors import ConfigError, DataError, did_you_mean

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TABLES = (".csv", ".tsv", ".tab", ".parquet")
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
    parts: Sequence[str | None] | None = None
    """train, valid, test or None, where the folders tell what validates."""
    notes: tuple[str, ...] = ()


def find_images(path: Path, file: str | None = None, target: str | list[str] | None = None) -> ImageFiles:
    """Return the labelled images of a folder, archive or table.

    Args:
        path: where they are.
        file: the table's column with the paths.
        target: the table's column or columns with the classes.

    Raises:
        ConfigError: there is no such file or column.
        DataError: it holds no images, or the archive is damaged.
    """
    if not path.exists():
        raise ConfigError(f"data.path: there is no file or folder {path}")
    if path.is_file() and any(suffix.lower() in TABLES for suffix in path.suffixes):
        return _listed(ArchiveOrFolder(path.parent), read_table(path, as_text=True), [""], file, target, str(path))
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        raise ConfigError(f"data.path: {path} is one image; give the folder, archive or table of many")
    if place := place_of(path, LABELS):
        table = read_labels(place)
        return _listed(place, table, ["train/", "", "images/"], file, target, f"{place.path}: {place.prefix}{LABELS}")
    if file or target:
        raise ConfigError(f"data.{'file' if file else 'target'}: {path} is not a table and has no {LABELS}")
    return _by_folder(unwrapped(path))


def read_labels(place: ArchiveOrFolder) -> pd.DataFrame:
    """Return the table labels.csv of a folder or archive."""
    if not place.is_archive:
        return read_table(place.path / LABELS, as_text=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / LABELS
        copy.write_bytes(place.read(LABELS))
        return read_table(copy, as_text=True)


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image; what systems leave behind (.cache/, @eaDir/, __MACOSX/) is none."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "@", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def unwrapped(path: Path) -> ArchiveOrFolder:
    """Return a folder or archive, without the folders that all its folders of images stand in."""
    place = ArchiveOrFolder(path)
    folders = [PurePosixPath(name).parent.parts for name in place.names() if is_image(name)]
    within: list[str] = []
    while True:
        depth = len(within)
        inside = [parts for parts in folders if len(parts) > depth]
        tops = {parts[depth] for parts in inside}
        below = {parts for parts in inside if len(parts) > depth + 1}
        # An image that stands higher than the others, a cover, is of no class.
        if len(tops) != 1 or len(below) < 2 or next(iter(tops)).lower() in PARTS:
            break
        within += tops
    if not within:
        return place
    return (
        ArchiveOrFolder(path, "/".join([*within, ""])) if place.is_archive else ArchiveOrFolder(path.joinpath(*within))
    )


def _by_folder(place: ArchiveOrFolder) -> ImageFiles:
    names = sorted(name for name in place.names() if is_image(name))
    if not names:
        raise DataError(f"{place.path} holds no images (files that end in {', '.join(SUFFIXES)})")
    labels, parts = labels_and_parts(names)
    unlabelled = [name for name, label in zip(names, labels, strict=True) if not label]
    if len(unlabelled) == len(names) or len(set(labels)) < 2:
        raise DataError(
            f"{place.path}: classes come from folders, cats/ and dogs/ (or train/cats/ and train/dogs/), or from "
            f"{LABELS}; all {len(names):,} images are in {'none' if unlabelled else 'one folder'}"
        )
    notes = (f"skipped, not in a class folder: {_counted(unlabelled, 'image')}",) if unlabelled else ()
    kept = [row for row, label in enumerate(labels) if label]
    if parts is not None:
        parts = [parts[row] for row in kept]
        parts = parts if {"valid", "test"} & set(parts) else None  # Kaggle's test/ has no classes
    return ImageFiles(
        place,
        digest_of(place, [names[row] for row in kept], [labels[row] for row in kept]),
        [names[row] for row in kept],
        pd.DataFrame({"folder": [labels[row] for row in kept]}),
        parts,
        notes,
    )


def _listed(
    place: ArchiveOrFolder, table: pd.DataFrame, folders: Sequence[str], file: str | None, target: Any, source: str
) -> ImageFiles:
    """Match the rows of a table with image files; a label without a file and a file without a label are reported."""
    columns = [str(name) for name in table.columns]
    targets = [target] if isinstance(target, str) else list(target or [])
    for setting, name in [("file", file), *(("target", each) for each in targets)]:
        if name is not None and name not in columns:
            raise ConfigError(f"data.{setting}: {source} has no column {name!r}; {did_you_mean(name, columns)}")
    file = file or next(name for name in columns if name not in targets)
    if len(columns) < 2:
        raise DataError(f"{source} needs a column of files and one of labels; it has {', '.join(columns)}")
    if (empty := table[file].isna().to_numpy()).any():
        raise DataError(f"{source}, row {int(empty.argmax()) + 2}: the column {file} is empty")
    given = table[file].astype(str).str.strip().str.replace("\\", "/").str.removeprefix("./").tolist()
    available = [name for name in place.names() if is_image(name)]
    by_name, by_stem = set(available), _by_stem(available)
    found = [_found(name, place, folders, by_name, by_stem) for name in given]
    duplicates = [name for name, count in Counter(name for name in found if name is not None).items() if count > 1]
    if duplicates:
        raise DataError(f"{source}: {len(duplicates):,} files are listed more than once, the first is {duplicates[0]}")
    missing = [name for name, file_ in zip(given, found, strict=True) if file_ is None]
    if len(missing) == len(given):
        raise DataError(f"{source}: none of its {len(given):,} files exists; the first is {missing[0]}")
    kept = [row for row, name in enumerate(found) if name is not None]
    names = [str(found[row]) for row in kept]
    frame = table.drop(columns=[file]).iloc[kept].reset_index(drop=True)
    notes = [f"skipped, label without an image: {_counted(missing, 'label')}"] if missing else []
    within = folders[0]
    unlabelled = sorted({n for n in available if n.startswith(within)} - set(names)) if within else []
    if unlabelled:
        notes.append(f"skipped, image without a label: {_counted(unlabelled, 'image')}")
    lines = frame.fillna("").astype(str).agg("\t".join, axis=1).tolist()
    return ImageFiles(place, digest_of(place, names, lines), names, frame, notes=tuple(notes))


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
    for folder in folders:
        if folder + given in names:
            return folder + given
    for folder in folders:
        if matches := stems.get(folder + given):
            if len(matches) > 1:
                raise DataError(f"{place.path}: {given} may be {' or '.join(matches)}; name it with its suffix")
            return matches[0]
    # A table may also name files elsewhere: /data/a.jpg, ../b.jpg.
    return given if not place.is_archive and is_image(Path(given).name) and (place.path / given).is_file() else None


def _counted(names: Sequence[str], what: str) -> str:
    """Write how many there are, and the first of them.

    >>> _counted(["a.jpg"], "image"), _counted(["a", "b", "c", "d"], "label")
    ('1 image (a.jpg)', '4 labels (a, b, c …)')
    """
    return f"{len(names):,} {what}{'s' * (len(names) > 1)} ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})"


def digest_of(place: ArchiveOrFolder, names: Sequence[str], labels: Sequence[str]) -> str:
    """Return a digest of files, by name and content, and of their labels."""
    lines = (f"{name}\t{label}" for name, label in zip(names, labels, strict=True))
    listed = hashlib.sha256(os.fsencode("\n".join(lines)))
    content = place.digest_of(names, f"pictures {listed.hexdigest()}")
    return hashlib.sha256(f"{content} {listed.hexdigest()}".encode()).hexdigest()
