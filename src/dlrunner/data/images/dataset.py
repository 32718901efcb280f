"""Anybody's pictures as pixels: which of them train, validate and test, and their classes."""

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

from dlrunner.data.core.checked import read_sealed, warn_damaged
from dlrunner.data.core.source import cache_dir, tidy, write_sealed
from dlrunner.data.core.splitting import TEST, TRAIN, UNUSED, VALID, Splitting, sampled, split_by_parts
from dlrunner.data.core.targets import Kind, Regression, Target, read_target
from dlrunner.data.images.decoding import Fit, Pixels, decode
from dlrunner.data.images.files import ImageFiles, find_pictures
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.atomic import atomic_file
from dlrunner.files.paths import user_path
from dlrunner.ranges import Count, Natural, Positive, Seed, Text
from dlrunner.system.parallel import in_order, num_cores
from dlrunner.task import Data, DataIdentity

VERSION = 2
"""Of what the cache holds."""
MOST_NAMED = 10


@dataclass(frozen=True)
class ImageTable:
    """Pictures as pixels, split: what a task batches, trains on and draws."""

    pixels: Pixels
    """[pictures, size, size, 3]; it lives in a file of the cache."""
    split: NDArray[np.int8]
    """TRAIN, VALID, TEST or UNUSED, [pictures]."""
    names: Sequence[str]
    target: Target
    values: NDArray[Any]
    """Class codes, or 0/1 by label, of all pictures."""
    key: str
    """Of the pixels: what is computed from them is kept in the cache under it."""
    fit: Fit
    notes: list[str] = field(default_factory=list)
    of_test: NDArray[np.bool_] | None = None
    """Pictures that are kept for the test, whatever their split is, [pictures]."""

    def rows(self, part: int) -> NDArray[np.int64]:
        """Return which pictures belong to a part."""
        return np.flatnonzero(self.split == part)

    @property
    def size(self) -> int:
        """Pixels of a side."""
        return int(self.pixels.shape[1])

    def digests(self) -> NDArray[np.uint64]:
        """Return digests that are equal where the pixels are, [pictures], from the cache or kept there."""
        path = cache_dir() / "pixels" / f"{self.key}.digests"
        if (kept := read_sealed(path)) is not None:
            return np.frombuffer(kept, np.uint64)
        with ThreadPoolExecutor(num_cores()) as pool:  # reading 1.5 GB is what takes the time
            content = b"".join(pool.map(_digest, self.pixels, chunksize=64))
        with contextlib.suppress(OSError):  # a cache that cannot be written is only slower
            write_sealed(path, content)
        return np.frombuffer(content, np.uint64)


class ImageSource(Data):
    """What a task of pictures works on."""

    @abstractmethod
    def read(self) -> ImageTable:
        """Read, decode and split the pictures."""


@dataclass(frozen=True)
class Reading:
    """How picture files become pixels; the names are those of the `data` section."""

    size: int = 224
    fit: Fit = "crop"
    skip_bad: bool = False

    def read(
        self, files: ImageFiles, split: NDArray[np.int8], target: Target, values: NDArray[Any], notes: Sequence[str]
    ) -> ImageTable:
        """Return decoded pictures.

        Raises:
            DataError: pictures cannot be read (unless `skip_bad`), or none is left to train or to validate on.
        """
        pixels, key, told, bad = cached_pixels(files, self.size, self.fit, np.flatnonzero(split != UNUSED))
        split = split.copy()
        if bad:
            named = "; ".join(f"{name} {reason}" for name, reason in list(bad.items())[:MOST_NAMED])
            more = f"; and {len(bad) - MOST_NAMED:,} more" if len(bad) > MOST_NAMED else ""
            said = f"{len(bad):,} of {len(files.names):,} pictures in {files.place.path} cannot be read: {named}{more}"
            if not self.skip_bad:
                raise DataError(f"{said} (data.skip_bad=true leaves them out)")
            split[np.isin(np.array(files.names, dtype=object), list(bad))] = UNUSED
            told = [f"{said}; they are left out", *told]
        for part, what in ((TRAIN, "train"), (VALID, "validate")):
            if not (split == part).any():
                raise DataError(f"{files.place.path}: no picture is left to {what} on; {len(split):,} in all")
        notes = [*files.notes, *notes, *told, *_lonely_classes(target, values, split)]
        return ImageTable(pixels, split, files.names, target, values, key, self.fit, notes)


class ImageData(ImageSource):
    """Pictures of one's own: Kaggle's layout, folders by class, or a table of paths and labels; zip or folder.

    Args:
        data_dir: not used: the pictures are where `path` says.
        path: the folder, archive or table. Of a folder with labels.csv the first column names files in train/;
            otherwise the folder that a picture stands in is its class, and `train/`, `valid/` and `test/` above all
            others tell the split.
        file: the table's column with the paths, relative to the table's folder; by default its first one.
        target: the table's column with the classes (several columns of 0 and 1 are labels); by default its second.
        kind: of the target.
        target_separator: the target is text that lists labels, separated by this.
        split: which pictures validate: `random`, `stratified`, `folds`, `last_rows`, `column` (see `TabularData`);
            `auto` is what the folders tell, else random.
        valid: the share that validates; of `last_rows` also a number.
        split_seed: of numpy's RandomState that permutes the pictures, for `sample` too.
        valid_column: the table's column that marks what validates.
        folds, fold: number of folds and the one that validates.
        sample: this many random training pictures are used; by default all.
        sample_valid, sample_test: likewise of the validation and of the test pictures.
        size: pixels of a side, once decoded.
        fit: `crop` cuts the middle out, `squash` forgets the proportions, `pad` fills up with black.
        skip_bad: pictures that cannot be read are left out and told, instead of ending the run.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
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
        sample: Count | None = None,
        sample_valid: Count | None = None,
        sample_test: Count | None = None,
        size: Annotated[int, Field(ge=32, le=1024)] = 224,
        fit: Fit = "crop",
        skip_bad: bool = False,
    ) -> None:
        if path is None:
            raise ConfigError("data.path: is missing: which folder, archive or table? dlrun task=image data.path=pics/")
        self.path, self.file, self.target = user_path(path), file, target
        self.kind, self.target_separator = kind, target_separator
        self.splitting = Splitting(split, valid, split_seed, valid_column=valid_column, folds=folds, fold=fold)
        self.splitting.check()
        self.samples = {TRAIN: sample, VALID: sample_valid, TEST: sample_test}
        self.reading = Reading(size, fit, skip_bad)

    def _files(self) -> ImageFiles:
        return find_pictures(self.path, self.file, self.target)

    def identity(self) -> DataIdentity:
        """The pictures as they are now."""
        files = self._files()
        return DataIdentity(
            name=self.path.name, release="own", source="real", sha256=files.digest, path=str(self.path),
            digest=files.digest,
        )  # fmt: skip

    def read(self) -> ImageTable:
        """Read the pictures and split them.

        Raises:
            ConfigError: a named column does not exist.
            DataError: nothing trains or validates, or a picture cannot be read.
        """
        files = self._files()
        columns = list(files.table.columns)
        named = self.target or ("folder" if "folder" in columns else str(columns[0]))
        target, values = picture_classes(files, named, self.kind, self.target_separator)
        strata = values if target.has_one_class else None
        split, of_test = split_by_parts(files.parts, self.splitting, files.table, strata, files.place.path)
        split = sampled(split, self.samples, self.splitting.split_seed, "pictures")
        return replace(self.reading.read(files, split, target, values, []), of_test=of_test)


def picture_classes(
    files: ImageFiles, target: str | list[str], kind: Literal["auto"] | Kind, separator: str | None
) -> tuple[Target, NDArray[Any]]:
    """Return the classes and the pictures' codes.

    Raises:
        ConfigError: the column does not exist, or holds numbers.
        DataError: there are not two classes, or labels are missing.
    """
    if kind == "auto" and isinstance(target, str) and separator is None and target in files.table.columns:
        kind = "binary" if files.table[target].nunique() == 2 else "multiclass"  # the names of classes may be numbers
    found, values = read_target(files.table, target, kind, separator, "auto", files.place.path)
    if isinstance(found, Regression):
        raise ConfigError(
            f"data.target: {found.names[0]} holds numbers; pictures are sorted into classes (data.kind=multiclass)"
        )
    return found, values


def cached_pixels(
    files: ImageFiles, size: int, fit: Fit, used: NDArray[np.int64]
) -> tuple[Pixels, str, list[str], dict[str, str]]:
    """Return pictures as pixels from the cache, or decode them all, on all cores, and keep them there.

    Args:
        files: the pictures.
        size, fit: see `decode`.
        used: rows whose pixels are compared with their checksums: the others are not even read.

    Returns:
        The pixels, [pictures, size, size, 3], mapped from a file; their key; what to tell about them; and the
        pictures that cannot be read with the reason (their pixels are black).
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
    """Files, and what makes an array of each."""

    names: Sequence[str]
    contents: Callable[[], Iterator[Any]]
    """Yields what `decode` takes, file by file."""
    decode: Callable[[Any], tuple[Pixels, list[str]]]
    """Returns an array and remarks; raises DataError where it cannot."""
    shape: tuple[int, ...]
    """Of each array."""


def cached_arrays(
    files: EncodedFiles, recipe: str, used: NDArray[np.int64]
) -> tuple[Pixels, str, list[str], dict[str, str]]:
    """Return what is decoded of files from the cache, or decode them all, on all cores, and keep it there.

    Args:
        files: what is decoded.
        recipe: names all that the arrays depend on.
        used: see `cached_pixels`, which tells what is returned, too.
    """
    key = hashlib.sha256(recipe.encode()).hexdigest()[:32]
    path = cache_dir() / "pixels" / f"{key}.npy"
    record = path.with_suffix(".record")
    if (content := read_sealed(record)) is not None:
        known = json.loads(content)
        pixels = _mapped(path, (len(files.names), *files.shape))
        if pixels is not None and _is_sound(pixels, known["checksums"], used):
            return pixels, key, known["told"], known["bad"]
        if path.exists():
            warn_damaged(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path.parent)
        pixels, told, bad = _decoded(files, path, record)
    except OSError as error:
        raise _not_kept(path.parent, error) from None
    return pixels, key, told, bad


def _mapped(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """Return the pixels of a file, which are read as they are used; None where it holds something else."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        pixels: Pixels = np.load(path, mmap_mode="c")
        if pixels.shape == shape and pixels.dtype == np.uint8 and pixels.flags.c_contiguous:
            return pixels
    return None


def _is_sound(pixels: Pixels, checksums: Sequence[int], rows: NDArray[np.int64]) -> bool:
    """Compare pictures with their checksums, on all cores: 0.35 s for a gigabyte in memory, on two cores."""
    parts = np.array_split(rows, 4 * num_cores())
    with ThreadPoolExecutor(num_cores()) as pool:
        return all(pool.map(lambda part: all(_checksum(pixels[row]) == checksums[row] for row in part), parts))


def _checksum(picture: Pixels) -> int:
    return zlib.crc32(picture.data)


def _not_kept(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"the pictures cannot be kept in the cache, {folder} ({error.strerror}); DLRUNNER_CACHE names another folder"
    )


def _digest(pixels: Pixels) -> bytes:
    return hashlib.blake2b(pixels.data, digest_size=8).digest()


def _decoded(files: EncodedFiles, path: Path, record: Path) -> tuple[Pixels, list[str], dict[str, str]]:
    """Decode all pictures into a file of the cache, and write down their checksums and what is told about them."""
    with atomic_file(path, sync=False) as file:
        pixels, remarks, bad, checksums = _decode_all(files, Path(file.name))
        told = [f"{count:,} pictures: {remark}" for remark, count in sorted(remarks.items())]
        path.with_suffix(".digests").unlink(missing_ok=True)  # they may be of pixels that were damaged
        write_sealed(record, json.dumps({"told": told, "bad": bad, "checksums": checksums}).encode())
    return pixels, told, bad


def _decode_all(files: EncodedFiles, path: Path) -> tuple[Pixels, Counter[str], dict[str, str], list[int]]:
    """Write the pixels of all pictures into a file; return them, remarks by number, what is bad, and checksums."""

    def work(content: Any) -> tuple[Pixels | None, list[str] | str, int]:
        try:
            picture, said = files.decode(content)
            return picture, said, _checksum(picture)
        except DataError as error:
            return None, str(error), black

    black = _checksum(np.zeros(files.shape, np.uint8))
    shape = (len(files.names), *files.shape)
    pixels: Pixels = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):  # a full disk is told now, instead of killing the process at some page
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    remarks: Counter[str] = Counter()
    bad: dict[str, str] = {}
    checksums = []
    # Pillow lets go of the interpreter while it decodes: threads share the work.
    with ThreadPoolExecutor(num_cores()) as pool:
        found = in_order(pool, work, files.contents(), 8 * num_cores())
        for row, (picture, said, checksum) in enumerate(found):
            checksums.append(checksum)
            if picture is None:
                bad[files.names[row]] = str(said)
            else:
                pixels[row] = picture
                remarks.update(said)
    pixels.flush()  # type: ignore[attr-defined]
    return np.load(path, mmap_mode="c"), remarks, bad, checksums


def _lonely_classes(target: Target, values: NDArray[Any], split: NDArray[np.int8]) -> list[str]:
    """Tell the classes with one picture, and those that only the validation has."""
    if not target.has_one_class:
        return []
    count = {part: np.bincount(values[split == part].astype(int), minlength=len(target.classes)) for part in range(3)}
    single = [str(target.classes[code]) for code in np.flatnonzero(sum(count.values()) == np.array(1))]
    unseen = np.flatnonzero((count[TRAIN] == 0) & (count[VALID] > 0))
    notes = []
    if single:
        notes.append(f"{len(single)} class(es) with one picture ({', '.join(single[:3])}): it trains or validates")
    if len(unseen):
        names = ", ".join(str(target.classes[code]) for code in unseen[:3])
        notes.append(f"{len(unseen)} class(es) validate that no picture trains ({names}): data.split=stratified")
    return notes
