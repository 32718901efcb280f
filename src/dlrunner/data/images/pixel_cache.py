"""The cache of decoded images: all of a data set in one file, which is mapped, with the checksum of each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrunner.data.core.cache import cache_dir, tidy, write_sealed
from dlrunner.data.core.checked import read_sealed, warn_damaged
from dlrunner.data.core.splitting import TRAIN, UNUSED, VALID
from dlrunner.data.images.decoding import FOUND, WHITES, Pixels, scaled_from
from dlrunner.errors import DataError
from dlrunner.files.atomic import atomic_file
from dlrunner.system.parallel import in_order, num_cores

MOST_NAMED = 10
"""Images that a message names."""


@dataclass(frozen=True)
class EncodedFiles:
    """Files and the function that decodes them."""

    names: Sequence[str]
    contents: Callable[[], Iterator[Any]]
    """Yields the argument of `decode` for each file."""
    decode: Callable[[Any, float], tuple[Pixels, list[str]]]
    """Returns an array and remarks, for a white (see `decode`); raises DataError if the file cannot be decoded."""
    shape: tuple[int, ...]
    """Of each array."""


@dataclass(frozen=True)
class DecodedFiles:
    """The arrays of files."""

    pixels: Pixels
    """[files, *shape], mapped from a file."""
    key: str
    notes: list[str]
    bad: dict[str, str]
    """The files that cannot be decoded, with the reason; their arrays are 0."""
    white: float | None
    """Of images of floats or of integers of 16 or 32 bits, the same for all; None: there are none."""


def cached_arrays(files: EncodedFiles, recipe: str, used: NDArray[np.int64]) -> DecodedFiles:
    """Return decoded files from the cache; if they are missing, decode all of them on all cores.

    A dark image of floats or deep integers is not brightened: the white of all is that of the brightest.

    Args:
        files: the files.
        recipe: text with everything that the arrays depend on.
        used: rows whose arrays are verified by their checksums; the others are not read.
    """
    key = hashlib.sha256(recipe.encode()).hexdigest()[:32]
    path = cache_dir() / "pixels" / f"{key}.npy"
    record = path.with_suffix(".record")
    if (content := read_sealed(record)) is not None and "white" in (known := json.loads(content)):
        pixels = _mapped(path, (len(files.names), *files.shape))
        if pixels is not None and _is_sound(pixels, known["checksums"], used):
            return DecodedFiles(pixels, key, known["notes"], known["bad"], known["white"])
        if path.exists():
            warn_damaged(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path.parent)
        return _decoded(files, path, key)
    except OSError as error:
        raise _cache_error(path.parent, error) from None


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


def _decoded(files: EncodedFiles, path: Path, key: str) -> DecodedFiles:
    """Decode all images into a file of the cache, and record their checksums and notes."""
    with atomic_file(path, sync=False) as file:
        pixels, remarks, bad, checksums = _decode_all(files, Path(file.name), FOUND)
        whites = [white for white in WHITES if scaled_from(white) in remarks]
        if len(whites) > 1:
            pixels, remarks, bad, checksums = _decode_all(files, Path(file.name), whites[-1])
        notes, white = (
            [f"{count:,} images: {remark}" for remark, count in sorted(remarks.items())],
            max(whites, default=None),
        )
        path.with_suffix(".digests").unlink(missing_ok=True)  # they may belong to damaged pixels
        content = {"notes": notes, "bad": bad, "checksums": checksums, "white": white}
        write_sealed(path.with_suffix(".record"), json.dumps(content).encode())
    return DecodedFiles(pixels, key, notes, bad, white)


def _decode_all(
    files: EncodedFiles, path: Path, white: float
) -> tuple[Pixels, Counter[str], dict[str, str], list[int]]:
    """Write the pixels of all images to a file; return them, counts of remarks, unreadable images, and checksums."""

    def work(content: Any) -> tuple[Pixels | None, list[str] | str, int]:
        try:
            image, message = files.decode(content, white)
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


def without_bad(
    split: NDArray[np.int8], names: Sequence[str], bad: Mapping[str, str], place: str, skip_bad: bool
) -> tuple[NDArray[np.int8], list[str]]:
    """Return the split without the images that cannot be used, and a note on them.

    Args:
        split: of all images.
        names: of all images.
        bad: reasons by name.
        place: for messages.
        skip_bad: leave them out.

    Raises:
        DataError: there are some and `skip_bad` is false, or no training or validation images are left.
    """
    notes = []
    if bad:
        examples = "; ".join(f"{name} {reason}" for name, reason in list(bad.items())[:MOST_NAMED])
        more = f"; and {len(bad) - MOST_NAMED:,} more" if len(bad) > MOST_NAMED else ""
        message = f"{len(bad):,} of {len(names):,} images in {place} cannot be used: {examples}{more}"
        if not skip_bad:
            raise DataError(f"{message} (data.skip_bad=true leaves them out)")
        split = split.copy()
        split[np.isin(np.array(names, dtype=object), list(bad))] = UNUSED
        notes = [f"{message}; they are left out"]
    for part, what in ((TRAIN, "training"), (VALID, "validation")):
        if not (split == part).any():
            raise DataError(f"{place}: no {what} images are left of {len(split):,}")
    return split, notes
