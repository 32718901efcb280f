"""A user's images: decoding, cache, splits and classes."""

from __future__ import annotations

import contextlib
import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from pydantic import Field

from dlrunner.data.core.cache import cache_dir, write_sealed
from dlrunner.data.core.checked import read_sealed
from dlrunner.data.core.once import read_once
from dlrunner.data.core.regression import Regression
from dlrunner.data.core.splitting import TEST, TRAIN, UNUSED, VALID, Splitting, sampled, split_by_parts
from dlrunner.data.core.target_columns import read_target
from dlrunner.data.core.targets import Kind, Target
from dlrunner.data.images.decoding import Fit, Pixels, decode
from dlrunner.data.images.files import ImageFiles, find_images
from dlrunner.data.images.pixel_cache import DecodedFiles, EncodedFiles, cached_arrays, without_bad
from dlrunner.data.tables.table import Reading
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.ranges import Count, Natural, Positive, Seed, Text
from dlrunner.system.parallel import num_cores
from dlrunner.task import Data, DataIdentity

VERSION = 4
"""Of the format of the cache."""


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
    white: float | None
    """See `DecodedFiles`."""
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
        decoded = cached_pixels(files, self.size, self.fit, np.flatnonzero(split != UNUSED))
        split, bad_notes = without_bad(split, files.names, decoded.bad, str(files.place.path), self.skip_bad)
        notes = [*files.notes, *notes, *bad_notes, *decoded.notes, *_class_notes(target, values, split)]
        key, white = decoded.key, decoded.white
        return ImageTable(decoded.pixels, split, files.names, target, values, key, self.fit, white, notes)


class ImageData(ImageSource):
    """A user's own images: Kaggle's layout, folders by class, or a table of paths and labels; zip or folder.

    Args:
        data_dir: where pre-trained weights are searched for; the images are where `path` says.
        path: the folder, archive or table. In a folder with labels.csv, its first column names files in train/;
            else the first level of folders are the classes; `train/`, `valid/` and `test/` above or directly in them
            define the split.
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

    def file_settings(self) -> Mapping[str, str]:
        """The separator and the encoding that are set."""
        return self.reading.file_settings()

    def _files(self) -> ImageFiles:
        return find_images(self.path, self.file, self.target, self.reading, self.target_separator is None, self.query)

    def identity(self) -> DataIdentity:
        """Return the identity of the images: a digest of names and content."""
        return self._identity(self._files().digest)

    def identity_as_read(self) -> DataIdentity:
        """Return the identity of the images as they were read."""
        self.read()
        return self._identity(self._digest_as_read)

    def _identity(self, digest: str) -> DataIdentity:
        return DataIdentity(
            name=self.path.name, release="own", source="real", sha256=digest, path=str(self.path), digest=digest
        )

    @read_once
    def read(self) -> ImageTable:
        """Read the images and split them.

        Raises:
            ConfigError: a named column does not exist.
            DataError: there are no training or validation images, or an image cannot be read.
        """
        files = self._files()
        self._digest_as_read = files.digest
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


def cached_pixels(files: ImageFiles, size: int, fit: Fit, used: NDArray[np.int64]) -> DecodedFiles:
    """Return decoded images from the cache; if they are missing, decode all of them on all cores.

    Args:
        files: the images.
        size, fit: see `decode`.
        used: see `cached_arrays`.
    """
    encoded = EncodedFiles(
        files.names,
        lambda: files.place.contents(files.names),
        lambda content, white: decode(content, size, fit, white),
        (size, size, 3),
    )
    return cached_arrays(encoded, f"{VERSION} {PIL.__version__} {files.digest} {size} {fit}", used)


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


def _digest(pixels: Pixels) -> bytes:
    return hashlib.blake2b(pixels.data, digest_size=8).digest()
