"""A user's images: decoding, cache, splits and classes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from pydantic import Field

from dlrunner.data.core.cache import cache_dir, tidy, write_sealed
from dlrunner.data.core.checked import read_sealed, warn_damaged
from dlrunner.data.core.once import read_once
from dlrunner.data.core.regression import Regression
from dlrunner.data.core.splitting import TEST, TRAIN, UNUSED, VALID, Splitting, sampled, split_by_parts
from dlrunner.data.core.target_columns import read_target
from dlrunner.data.core.targets import Kind, Target
from dlrunner.data.images.decoding import Fit, Pixels, decode
from dlrunner.data.images.files import ImageFiles, find_images
from dlrunner.data.tables.table import Reading
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.atomic import atomic_file
from dlrunner.files.paths import user_path
from dlrunner.ranges import Count, Natural, Positive, Seed, Text
from dlrunner.system.parallel import in_order, num_cores
from dlrunner.task import Data, DataIdentity

VERSION = 2
"""Of the format of the cache."""
MOST_NAMED = 10


@dataclass(frozen=True)
class ImageTable:
    """Decoded images with their splits and classes."""

    pixels: Pixels
    """[images, size, size, 3], mapped from a file of the cache."""
    split: NDArray[np.int8]
    """TRAIN, VALID, TEST or UNUSED, [images]."""
    names: Sequence[str]
    target: Target
    values: NDArray[Any]
    """Class codes, or 0/1 by label, of all images."""
    key: str
    """Identifies the pixels in the cache, and what is computed from them."""
    fit: Fit
    notes: list[str] = field(default_factory=list)
    of_test: NDArray[np.bool_] | None = None
    """Images of the test set, whatever their split is, [images]."""
    column: str | None = None
    """Of a table with the paths of the images."""

    def rows(self, part: int) -> NDArray[np.int64]:
        """Return the images of a split."""
        return np.flatnonzero(self.split == part)

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.pixels.shape[1])

    def digests(self) -> NDArray[np.uint64]:
        """Return a digest of the pixels of each image, [images], cached."""
        path = cache_dir() / "pixels" / f"{self.key}.digests"
        if (kept := read_sealed(path)) is not None:
            return np.frombuffer(kept, np.uint64)
        with ThreadPoolExecutor(num_cores()) as pool:  # most of the time is reading 1.5 GB
            content = b"".join(pool.map(_digest, self.pixels, chunksize=64))
        with contextlib.suppress(OSError):  # without the cache the next run is only slower
            write_sealed(path, content)
        return np.frombuffer(content, np.uint64)


class ImageSource(Data):
    """The data of an image task."""

    data_dir: Path
    """Where pre-trained weights are searched for."""

    @abstractmethod
    def read(self) -> ImageTable:
        """Read, decode and split the images."""


@dataclass(frozen=True)
class ImagePreprocessing:
    """Decoding settings of images, named as in the `data` section."""

    size: int = 224
    fit: Fit = "crop"
    skip_bad: bool = False

    def read(
        self, files: ImageFiles, split: NDArray[np.int8], target: Target, values: NDArray[Any], notes: Sequence[str]
    ) -> ImageTable:
        """Return decoded images.

        Raises:
            DataError: images cannot be read (unless `skip_bad`), or no training or validation images are left.
        """
        pixels, key, image_notes, bad = cached_pixels(files, self.size, self.fit, np.flatnonzero(split != UNUSED))
        split = split.copy()
        if bad:
            examples = "; ".join(f"{name} {reason}" for name, reason in list(bad.items())[:MOST_NAMED])
            more = f"; and {len(bad) - MOST_NAMED:,} more" if len(bad) > MOST_NAMED else ""
            message = (
                f"{len(bad):,} of {len(files.names):,} images in {files.place.path} cannot be read: {examples}{more}"
            )
            if not self.skip_bad:
                raise DataError(f"{message} (data.skip_bad=true skips them)")
            split[np.isin(np.array(files.names, dtype=object), list(bad))] = UNUSED
            image_notes = [f"{message}; they are skipped", *image_notes]
        for part, what in ((TRAIN, "training"), (VALID, "validation")):
            if not (split == part).any():
                raise DataError(f"{files.place.path}: no {what} images are left of {len(split):,}")
        notes = [*files.notes, *notes, *image_notes, *_class_notes(target, values, split)]
        return ImageTable(pixels, split, files.names, target, values, key, self.fit, notes)


class ImageData(ImageSource):
    """A user's own images: Kaggle's layout, folders by class, or a table of paths and labels; zip or folder.

    Args:
        data_dir: where pre-trained weights are searched for; the images are where `path` says.
        path: the folder, archive or table. In a folder with labels.csv, its first column names files in train/;
            else an image's folder is its class, and the top folders `train/`, `valid/` and `test/` define the split.
        query: SQL that selects the table of paths (below the folder `path`) and labels from files.
        file: the table's column with the paths, relative to the table's folder; by default its first one.
        target: the table's column with the classes (several columns of 0 and 1 are labels); by default its second.
        kind: of the target.
        target_separator: separator of the labels, if the target is a text that lists labels.
        split: how validation images are chosen: `random`, `stratified`, `folds`, `last_rows`, `column` (see
            `TabularData`); `auto` uses the folders, else `random`.
        valid: fraction of validation images; for `last_rows` also a number.
        split_seed: seed of the permutation of the images, also for `sample`.
        valid_column: the table's column that marks validation images.
        folds, fold: number of folds and the validation fold.
        test: examples that are evaluated once, after training: as `valid`; by default those that the data calls so.
        sample: number of random training images; by default all.
        sample_valid, sample_test: likewise for validation and test images.
        size: height and width of the decoded images, in pixels.
        fit: `squash` ignores the aspect ratio and `pad` pads with black: both keep the whole image; `crop` crops the
            centre.
        separator, encoding: of the table, if it is a text file.
        skip_bad: images that cannot be read, and rows without file or label, are left out with a note, instead of
            ending the run.
    """

    input_settings = frozenset({"size", "fit"})

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
        query: Text | None = None,
        file: Text | None = None,
        target: Text | Annotated[list[Text], Field(min_length=1)] | None = None,
        kind: Literal["auto"] | Kind = "auto",
        target_separator: Text | None = None,
        split: Literal["auto", "random", "stratified", "folds", "last_rows", "column"] = "auto",
        valid: Positive | Count = 0.2,
        split_seed: Seed = 42,
        valid_column: Text | None = None,
        folds: Annotated[int, Field(ge=2)] = 5,
        fold: Natural = 0,
        test: Positive | Count | None = None,
        sample: Count | None = None,
        sample_valid: Count | None = None,
        sample_test: Count | None = None,
        size: Annotated[int, Field(ge=32, le=1024)] = 224,
        fit: Fit = "squash",
        separator: Text | None = None,
        encoding: Text | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.data_dir = data_dir
        if path is None:
            raise ConfigError(
                "data.path: is missing: give a folder, an archive or a table: dlrun task=image data.path=images/"
            )
        self.path, self.query, self.file, self.target = user_path(path), query, file, target
        self.kind, self.target_separator = kind, target_separator
        self.splitting = Splitting(
            split, valid, split_seed, valid_column=valid_column, folds=folds, fold=fold, test=test
        )
        self.splitting.check()
        self.samples = {TRAIN: sample, VALID: sample_valid, TEST: sample_test}
        self.preprocessing = ImagePreprocessing(size, fit, skip_bad)
        self.reading = Reading(separator=separator, encoding=encoding, skip_bad=skip_bad)

    def _files(self) -> ImageFiles:
        return find_images(self.path, self.file, self.target, self.reading, self.target_separator is None, self.query)

    def identity(self) -> DataIdentity:
        """Return the identity of the images: a digest of names and content."""
        files = self._files()
        return DataIdentity(
            name=self.path.name, release="own", source="real", sha256=files.digest, path=str(self.path),
            digest=files.digest,
        )  # fmt: skip

    @read_once
    def read(self) -> ImageTable:
        """Read the images and split them.

        Raises:
            ConfigError: a named column does not exist.
            DataError: there are no training or validation images, or an image cannot be read.
        """
        files = self._files()
        columns = list(files.table.columns)
        examples = self.target or ("folder" if "folder" in columns else str(columns[0]))
        target, values = image_classes(files, examples, self.kind, self.target_separator)
        strata = values if target.has_one_class else None
        split, of_test = split_by_parts(files.parts, self.splitting, files.table, strata, files.rows)
        split = sampled(split, self.samples, self.splitting.split_seed, "images")
        found = self.preprocessing.read(files, split, target, values, [])
        return replace(found, of_test=of_test, column=files.column)


def image_classes(
    files: ImageFiles, target: str | list[str], kind: Literal["auto"] | Kind, separator: str | None
) -> tuple[Target, NDArray[Any]]:
    """Return the classes and the images' codes.

    Raises:
        ConfigError: the column does not exist, or contains numbers.
        DataError: there are fewer than two classes, or labels are missing.
    """
    if kind == "auto" and isinstance(target, str) and separator is None and target in files.table.columns:
        kind = "binary" if files.table[target].nunique() == 2 else "multiclass"  # class names may be numbers
    found, values = read_target(files.table, target, kind, separator, "auto", files.rows)
    if isinstance(found, Regression):
        raise ConfigError(
            f"data.target: {found.names[0]} contains numbers; an image task needs classes (data.kind=multiclass)"
        )
    return found, values


def cached_pixels(
    files: ImageFiles, size: int, fit: Fit, used: NDArray[np.int64]
) -> tuple[Pixels, str, list[str], dict[str, str]]:
    """Return decoded images from the cache; if they are missing, decode all of them on all cores.

    Args:
        files: the images.
        size, fit: see `decode`.
        used: rows whose pixels are verified by their checksums; the others are not read.

    Returns:
        The pixels, [images, size, size, 3], mapped from a file; their key; notes; and the images that cannot be read,
        with the reason (their pixels are black).
    """
    encoded = EncodedFiles(
        files.names,
        lambda: files.place.contents(files.names),
        lambda content: decode(content, size, fit),
        (size, size, 3),
    )
    return cached_arrays(encoded, f"{VERSION} {PIL.__version__} {files.digest} {size} {fit}", used)


@dataclass(frozen=True)
class EncodedFiles:
    """Files and the function that decodes them."""

    names: Sequence[str]
    contents: Callable[[], Iterator[Any]]
    """Yields the argument of `decode` for each file."""
    decode: Callable[[Any], tuple[Pixels, list[str]]]
    """Returns an array and remarks; raises DataError if the file cannot be decoded."""
    shape: tuple[int, ...]
    """Of each array."""


def cached_arrays(
    files: EncodedFiles, recipe: str, used: NDArray[np.int64]
) -> tuple[Pixels, str, list[str], dict[str, str]]:
    """Return decoded files from the cache; if they are missing, decode all of them on all cores.

    Args:
        files: the files.
        recipe: text with everything that the arrays depend on.
        used: see `cached_pixels`, also for the values returned.
    """
    key = hashlib.sha256(recipe.encode()).hexdigest()[:32]
    path = cache_dir() / "pixels" / f"{key}.npy"
    record = path.with_suffix(".record")
    if (content := read_sealed(record)) is not None and "notes" in (known := json.loads(content)):
        pixels = _mapped(path, (len(files.names), *files.shape))
        if pixels is not None and _is_sound(pixels, known["checksums"], used):
            return pixels, key, known["notes"], known["bad"]
        if path.exists():
            warn_damaged(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path.parent)
        pixels, image_notes, bad = _decoded(files, path, record)
    except OSError as error:
        raise _cache_error(path.parent, error) from None
    return pixels, key, image_notes, bad


def _mapped(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """Return the pixels of a file, read on use; None if it has another content."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        pixels: Pixels = np.load(path, mmap_mode="c")
        if pixels.shape == shape and pixels.dtype == np.uint8 and pixels.flags.c_contiguous:
            return pixels
    return None


def _is_sound(pixels: Pixels, checksums: Sequence[int], rows: NDArray[np.int64]) -> bool:
    """Return whether images match their checksums: 0.35 s for a gigabyte in memory, on two cores."""
    parts = np.array_split(rows, 4 * num_cores())
    with ThreadPoolExecutor(num_cores()) as pool:
        return all(pool.map(lambda part: all(_checksum(pixels[row]) == checksums[row] for row in part), parts))


def _checksum(image: Pixels) -> int:
    return zlib.crc32(image.data)


def _cache_error(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"the images cannot be written to the cache, {folder} ({error.strerror}); set DLRUNNER_CACHE to another folder"
    )


def _digest(pixels: Pixels) -> bytes:
    return hashlib.blake2b(pixels.data, digest_size=8).digest()


def _decoded(files: EncodedFiles, path: Path, record: Path) -> tuple[Pixels, list[str], dict[str, str]]:
    """Decode all images into a file of the cache, and record their checksums and notes."""
    with atomic_file(path, sync=False) as file:
        pixels, remarks, bad, checksums = _decode_all(files, Path(file.name))
        image_notes = [f"{count:,} images: {remark}" for remark, count in sorted(remarks.items())]
        path.with_suffix(".digests").unlink(missing_ok=True)  # they may belong to damaged pixels
        write_sealed(record, json.dumps({"notes": image_notes, "bad": bad, "checksums": checksums}).encode())
    return pixels, image_notes, bad


def _decode_all(files: EncodedFiles, path: Path) -> tuple[Pixels, Counter[str], dict[str, str], list[int]]:
    """Write the pixels of all images to a file; return them, counts of remarks, unreadable images, and checksums."""

    def work(content: Any) -> tuple[Pixels | None, list[str] | str, int]:
        try:
            image, message = files.decode(content)
            return image, message, _checksum(image)
        except DataError as error:
            return None, str(error), black

    black = _checksum(np.zeros(files.shape, np.uint8))
    shape = (len(files.names), *files.shape)
    pixels: Pixels = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):  # a full disk is reported now, instead of killing the process at some page
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    remarks: Counter[str] = Counter()
    bad: dict[str, str] = {}
    checksums = []
    # Pillow releases the GIL while it decodes, so threads run in parallel.
    with ThreadPoolExecutor(num_cores()) as pool:
        found = in_order(pool, work, files.contents(), 8 * num_cores())
        for row, (image, message, checksum) in enumerate(found):
            checksums.append(checksum)
            if image is None:
                bad[files.names[row]] = str(message)
            else:
                pixels[row] = image
                remarks.update(message)
    pixels.flush()  # type: ignore[attr-defined]
    return np.load(path, mmap_mode="c"), remarks, bad, checksums


def _class_notes(target: Target, values: NDArray[Any], split: NDArray[np.int8]) -> list[str]:
    """Return notes on classes with one image, and on those that only occur in validation."""
    if not target.has_one_class:
        return []
    count = {part: np.bincount(values[split == part].astype(int), minlength=len(target.classes)) for part in range(3)}
    single = [str(target.classes[code]) for code in np.flatnonzero(sum(count.values()) == np.array(1))]
    unseen = np.flatnonzero((count[TRAIN] == 0) & (count[VALID] > 0))
    notes = []
    if single:
        notes.append(f"{len(single)} class(es) with a single image ({', '.join(single[:3])})")
    if len(unseen):
        names = ", ".join(str(target.classes[code]) for code in unseen[:3])
        notes.append(f"{len(unseen)} class(es) occur in validation only ({names}): try data.split=stratified")
    return notes
