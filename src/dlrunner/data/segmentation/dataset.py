"""Images whose pixels have classes: read with their masks, and split into training, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from pydantic import Field

from dlrunner.data.core.cache import cache_dir
from dlrunner.data.core.once import read_once
from dlrunner.data.core.splitting import TEST, TRAIN, UNUSED, VALID, Splitting, sampled, split_by_parts
from dlrunner.data.images.pixel_cache import EncodedFiles, cached_arrays, without_bad
from dlrunner.data.segmentation.files import MaskedImages, find_masked_images
from dlrunner.data.segmentation.masks import MaskClasses, decode_pair, read_classes
from dlrunner.data.segmentation.synthetic import ARCHIVE, SIZE, WRONG, write_synthetic_images
from dlrunner.data.tables.table import Reading
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import user_path
from dlrunner.ranges import Count, Natural, Positive, Seed, Text
from dlrunner.task import Data, DataIdentity

VERSION = 3
"""Of the format of the cache."""
Side = Annotated[int, Field(ge=32, le=4096)]


@dataclass(frozen=True)
class SegmentationTable:
    """Decoded images and masks with their splits."""

    pixels: NDArray[np.uint8]
    """[images, height, width, 4]: red, green, blue, the mask's value; mapped from a file of the cache."""
    split: NDArray[np.int8]
    """TRAIN, VALID, TEST or UNUSED, [images]."""
    names: list[str]
    classes: MaskClasses
    counts: NDArray[np.int64]
    """Pixels of each class by image, [images, classes]."""
    of_test: NDArray[np.bool_]
    """Images of the test set, whatever their split is, [images]."""
    notes: list[str] = field(default_factory=list)
    column: str | None = None
    """Of a table with the paths of the images."""
    white: float | None = None
    """See `DecodedFiles`."""

    def rows(self, part: int) -> NDArray[np.int64]:
        """Return the images of a split."""
        return np.flatnonzero(self.split == part)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[2])

    def mask(self, row: int) -> NDArray[np.int64]:
        """Return the class of each pixel, [height, width]; IGNORED where it is not labelled."""
        return self.classes.codes()[self.pixels[row, ..., 3]]

    def digests(self) -> NDArray[np.uint64]:
        """Return a digest of the pixels of each image, without its mask, [images]; 0 for unused ones."""
        found = np.zeros(len(self.split), np.uint64)
        for row in np.flatnonzero(self.split != UNUSED):
            pixels = np.ascontiguousarray(self.pixels[row, ..., :3])
            found[row] = int.from_bytes(hashlib.blake2b(pixels.data, digest_size=8).digest(), "little")
        return found


class SegmentationData(Data):
    """A user's own images and masks: two folders or a table, zip or folder; or synthetic ones.

    A mask is a grey or palette image of the size of its image, whose values are the numbers of the classes.

    Args:
        data_dir: not used: the images are where `path` says.
        path: the folder, archive or table.
        query: SQL that selects the table of images and masks (below the folder `path`) from files.
        source: `real`: the data at `path`; `synthetic`: generated shapes.
        images, masks: the two folders (images and masks by default), or the table's columns (image and mask).
        mask_suffix: what is appended to an image's name in that of its mask: _mask for a_mask.png of a.jpg.
        classes: names by value, from 0; by default those in codes.txt or classes.txt, else each value is a class.
        ignore: the value of pixels that are left out of loss and metrics, `none`, or `auto`: that of a class called
            void, ignore or unlabelled, else 255 where all others are below 100.
        split: how validation images are chosen: `random`, `folds`, `last_rows`, `column` (see `TabularData`); `auto`
            uses the folders, else `random`.
        valid: fraction of validation images; for `last_rows` also a number.
        split_seed: seed of the permutation of the images, also for `sample`.
        valid_column: the table's column that marks validation images.
        folds, fold: number of folds and the validation fold.
        test: examples that are evaluated once, after training: as `valid`; by default those that the data calls so.
        sample, sample_valid, sample_test: number of random images of each part; by default all.
        size: height and width (one number, or two) to which images and masks are scaled.
        separator, encoding: of the table, if it is a text file.
        skip_bad: images that cannot be read, and rows without a file, are left out and reported, instead of ending
            the run.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
        query: Text | None = None,
        source: Literal["real", "synthetic"] = "real",
        images: Text | None = None,
        masks: Text | None = None,
        mask_suffix: str = "",
        classes: Annotated[list[Text], Field(min_length=2, max_length=255)] | None = None,
        ignore: Literal["auto", "none"] | Annotated[int, Field(ge=0, le=255)] = "auto",
        split: Literal["auto", "random", "folds", "last_rows", "column"] = "auto",
        valid: Positive | Count = 0.2,
        split_seed: Seed = 42,
        valid_column: Text | None = None,
        folds: Annotated[int, Field(ge=2)] = 5,
        fold: Natural = 0,
        test: Positive | Count | None = None,
        sample: Count | None = None,
        sample_valid: Count | None = None,
        sample_test: Count | None = None,
        size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] = 224,
        separator: Text | None = None,
        encoding: Text | None = None,
        skip_bad: bool = False,
    ) -> None:
        if source == "real" and path is None:
            raise ConfigError(
                "data.path: is missing: give a folder with images/ and masks/, an archive or a table; or set "
                "data.source=synthetic"
            )
        if source == "synthetic" and path is not None:
            raise ConfigError("data.path: synthetic data has no path; leave data.source or data.path out")
        if source == "synthetic" and query is not None:
            raise ConfigError("data.query: synthetic data is in no table; leave data.source or data.query out")
        if classes is not None and len(set(classes)) < len(classes):
            raise ConfigError("data.classes: two classes have one name")
        self.source, self.images, self.masks, self.mask_suffix = source, images, masks, mask_suffix
        self.path, self.query = None if path is None else user_path(path), query
        self.classes, self.ignore, self.skip_bad = classes, ignore, skip_bad
        self.reading = Reading(separator=separator, encoding=encoding, skip_bad=skip_bad)
        self.splitting = Splitting(
            split, valid, split_seed, valid_column=valid_column, folds=folds, fold=fold, test=test
        )
        self.splitting.check()
        self.samples = {TRAIN: sample, VALID: sample_valid, TEST: sample_test}
        height, width = size if isinstance(size, list) else (size, size)
        self.size = (height, width) if source == "real" else (min(height, SIZE), min(width, SIZE))

    def file_settings(self) -> Mapping[str, str]:
        """The separator and the encoding that are set."""
        return self.reading.file_settings()

    @cached_property
    def _found(self) -> tuple[MaskedImages, float | None]:
        """The files, and the best possible mean IoU (synthetic data only)."""
        if self.path is not None:
            names = (self.images, self.masks, self.mask_suffix)
            return find_masked_images(self.path, *names, self.reading, self.query), None
        archive, best = write_synthetic_images(cache_dir() / "synthetic")
        return find_masked_images(archive, None, None, ""), best

    def identity(self) -> DataIdentity:
        """Return the identity of the images: a digest of names and content."""
        files, best = self._found
        return DataIdentity(
            name="shapes" if self.path is None else self.path.name,
            release="synthetic" if self.path is None else "own",
            source="real" if best is None else "synthetic",
            sha256=files.digest,
            path=ARCHIVE if self.path is None else str(self.path),
            digest=files.digest,
            best_achievable=best,
        )

    @read_once
    def read(self) -> SegmentationTable:
        """Read, decode and split the images.

        Raises:
            ConfigError: a named column does not exist, or there are fewer than two classes.
            DataError: a split is empty, an image cannot be read, or a mask has a value without a name.
        """
        files, best = self._found
        path = str(files.place.path)
        split, of_test = split_by_parts(files.parts, self.splitting, files.table, None, files.rows)
        split = sampled(split, self.samples, self.splitting.split_seed, "images")
        encoded = EncodedFiles(
            files.images,
            lambda: zip(files.place.contents(files.images), files.place.contents(files.masks), strict=True),
            lambda contents, white: decode_pair(contents, self.size, white),
            (*self.size, 4),
        )
        recipe = f"masks {VERSION} {PIL.__version__} {files.digest} {self.size}"
        decoded = cached_arrays(encoded, recipe, np.flatnonzero(split != UNUSED))
        split, bad_notes = without_bad(split, files.images, decoded.bad, path, self.skip_bad)
        used = split != UNUSED
        found = np.zeros((len(split), 256), np.int64)
        for row in np.flatnonzero(used):
            found[row] = np.bincount(decoded.pixels[row, ..., 3].ravel(), minlength=256)
        classes, class_notes = read_classes(found, files.masks, self.classes or files.classes, self.ignore, path)
        if best is not None:
            class_notes.append(
                f"{WRONG:.0%} of the pixels of the masks are relabelled: the best pixel accuracy is {1 - WRONG}"
            )
        else:
            class_notes.append(f"images and masks are scaled to {self.size[0]} x {self.size[1]} pixels (data.size)")
        counts = found[:, classes.values]
        for part, what in ((TRAIN, "training"), (VALID, "validation")):
            if not counts[split == part].any():
                raise DataError(f"{path}: all pixels of the {what} masks are ignored (data.ignore={classes.ignored})")
        class_notes += [f"no training mask has {name}" for name in _unseen(classes, counts, split)]
        return SegmentationTable(
            decoded.pixels,
            split,
            list(files.images),
            classes,
            counts,
            of_test,
            [*files.notes, *bad_notes, *decoded.notes, *class_notes],
            files.column,
            decoded.white,
        )


def _unseen(classes: MaskClasses, counts: NDArray[np.int64], split: NDArray[np.int8]) -> list[str]:
    """Return the classes that occur in validation masks only."""
    train, valid = (counts[split == part].sum(axis=0) for part in (TRAIN, VALID))
    return [name for name, seen, occurs in zip(classes.names, train, valid, strict=True) if occurs and not seen]
