"""Decoding of images: rotated as in EXIF, RGB, of one size."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from dlrunner.data.core.source import Unreadable
from dlrunner.errors import DataError

Fit = Literal["crop", "squash", "pad"]
Pixels = NDArray[np.uint8]

MOST_PIXELS = 150_000_000
"""Larger images are refused: their pixels alone take half a gigabyte."""
SMALL = 16
"""Images with a shorter side get a remark."""

WHITES = (1.0, 15.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0, 2.0**20 - 1, 2.0**24 - 1, 2.0**32 - 1)
"""What white may be in images of floats and of integers of 16 or 32 bits, which do not say it."""
FOUND = 0.0
"""Instead of a white: the lowest of WHITES that the values of an image do not exceed."""
WHITE_OF_16_BITS = 65535.0
MARGIN = 1.1
"""Values may exceed white by so much, from rounding or sharpening; they are clipped."""

_opening = threading.Lock()


def _open(content: bytes) -> Image.Image:
    """Open an image of any size: Pillow would only warn, here too large ones are refused before decoding.

    Its limit is one of the process, which may open images of its own, so that it is restored.
    """
    with _opening:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(content))
        finally:
            Image.MAX_IMAGE_PIXELS = before


def decode(content: bytes, size: int, fit: Fit = "crop", white: float | None = None) -> tuple[Pixels, list[str]]:
    """Return an image's pixels, [size, size, 3], and remarks on how it was converted.

    The image is rotated as in its EXIF data; transparency becomes white; of an animation the first frame is used;
    floats and integers of 16 or 32 bits are scaled to 8 bits. A JPEG much larger than `size` is decoded at a reduced
    scale, several times faster.

    Args:
        content: of the file.
        size: height and width in pixels.
        fit: `crop` scales the shorter side to `size` and crops the centre; `squash` ignores the aspect ratio; `pad`
            scales the longer side and pads with black.
        white: of floats and integers of more than 8 bits; FOUND: of each image by itself. None, of a run whose
            training images had no such values: 65,535 of 16 bits, FOUND of others.

    Raises:
        DataError: it is not an image, truncated, too large, without pixels, or brighter than white.
    """
    with opened(content) as image:
        return _decoded(image, size, fit, white)


def decode_whole(content: bytes, white: float | None = None) -> tuple[Image.Image, list[str]]:
    """Return an image converted as by `decode`, in its original size.

    Raises:
        DataError: see `decode`.
    """
    with opened(content) as image:
        remarks = _remarks(image)
        return _upright(image, remarks, white), remarks


def scaled_from(white: float) -> str:
    """Return the remark on an image whose values from 0 to white are scaled to 8 bits."""
    return f"values from 0 to {white:,.0f}, scaled to 8 bits"


@contextlib.contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """Open an image; all errors in the block become a DataError.

    Raises:
        DataError: it is not an image, empty, or truncated.
    """
    if isinstance(content, Unreadable):
        raise DataError(content.reason)
    if not content:
        raise DataError("is an empty file")
    try:
        with _open(content) as image:
            yield image
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("is not an image that Pillow can read") from None
    except Exception as error:  # on damaged files Pillow's decoders raise many kinds
        raise DataError(f"is damaged ({str(error) or type(error).__name__})") from None


def pixels_of(image: Image.Image, size: int, fit: Fit = "crop", white: float | None = None) -> Pixels:
    """Return the pixels, [size, size, 3], of an open image (see `decode`), which is not changed.

    Raises:
        DataError: it is truncated, too large, or without pixels.
    """
    try:
        return _decoded(_copy(image), size, fit, white)[0]
    except OSError as error:
        raise DataError(f"is damaged ({error})") from None


def whole_of(image: Image.Image, white: float | None = None) -> Image.Image:
    """Return an open image converted as by `decode_whole`; it is not changed.

    Raises:
        DataError: it is truncated, too large, or without pixels.
    """
    try:
        return _upright(_copy(image), _remarks(image), white)
    except OSError as error:
        raise DataError(f"is damaged ({error})") from None


def _decoded(image: Image.Image, size: int, fit: Fit, white: float | None) -> tuple[Pixels, list[str]]:
    remarks = _remarks(image)
    # A draft is at least as large as requested; 1.5 times the size keeps it as sharp as the full image.
    image.draft("RGB", (size * 3 // 2, size * 3 // 2))
    coloured = _upright(image, remarks, white)
    if fit == "squash":
        fitted = coloured.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
    elif fit == "pad":
        fitted = ImageOps.pad(coloured, (size, size), Image.Resampling.BILINEAR)
    else:
        fitted = ImageOps.fit(coloured, (size, size), Image.Resampling.BILINEAR)
    return np.array(fitted), remarks


def _remarks(image: Image.Image) -> list[str]:
    """Return remarks on an image before it is decoded.

    Raises:
        DataError: it is too large, or has no pixels.
    """
    width, height = image.size
    if not width * height:
        raise DataError(f"has no pixels (its size is {width} × {height})")
    if width * height > MOST_PIXELS:
        raise DataError(f"has {width:,} × {height:,} pixels; the limit is {MOST_PIXELS:,}")
    remarks = [f"smaller than {SMALL} pixels"] if min(width, height) < SMALL else []
    if not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        remarks.append("16 bits per colour, of which Pillow reads the upper 8")
    return [*remarks, *(["animated, first frame only"] if getattr(image, "is_animated", False) else [])]


def _copy(image: Image.Image) -> Image.Image:
    """Return a copy of an image; of a JPEG that is not decoded yet, its file, whose draft is that of `decode`."""
    if isinstance(image, JpegImageFile) and image.tile and image.fp is not None:
        position = image.fp.tell()
        image.fp.seek(0)
        content = image.fp.read()
        image.fp.seek(position)
        again = _open(content)
        if again.size == image.size:  # else it is a draft
            return again
    copy = image.copy()
    copy.format = image.format
    return copy


def _upright(image: Image.Image, remarks: list[str], white: float | None) -> Image.Image:
    """Return an image rotated as in its EXIF data, in RGB."""
    if image.getexif().get(0x0112, 1) != 1:
        remarks.append("rotated as in EXIF")
    # Pillow scales a deep PGM, which says what is white, to 16 bits, as 32-bit integers.
    is_pgm = image.mode == "I" and image.format == "PPM"
    return _as_rgb(ImageOps.exif_transpose(image), remarks, is_pgm, white)


def _as_rgb(image: Image.Image, remarks: list[str], is_pgm: bool, white: float | None) -> Image.Image:
    if is_pgm:
        remarks.append("more than 8 bits per channel, scaled to 8")
        return _scaled(np.asarray(image, dtype=np.float64), WHITE_OF_16_BITS)
    has_16_bits = image.mode.startswith("I;16")
    if has_16_bits or image.mode in ("I", "F"):
        return _from_numbers(image, remarks, WHITE_OF_16_BITS if white is None and has_16_bits else white)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        remarks.append("transparent, on white")
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(background, layer).convert("RGB")
    if image.mode == "RGB":
        return image
    remarks.append("grey" if image.mode in ("L", "1") else f"{image.mode} instead of RGB")
    return image.convert("RGB")


def _from_numbers(image: Image.Image, remarks: list[str], white: float | None) -> Image.Image:
    """Return an image whose values have no definite white, in RGB.

    Raises:
        DataError: it has values above white, or above all of WHITES.
    """
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        remarks.append("values that are not finite numbers, taken as black")
        values = np.where(np.isfinite(values), values, 0)
    if values.min() < 0:
        remarks.append("negative values, taken as black")
    highest = values.max()
    found = white or next((each for each in WHITES if highest <= MARGIN * each), None)
    if found is None:
        raise DataError(f"has values up to {highest:g}; {WHITES[-1]:g} can be read: scale them")
    if highest > MARGIN * found:
        raise DataError(f"has values up to {highest:g}; white is {found:g} in the training images: scale it like them")
    remarks.append(scaled_from(found))
    return _scaled(values, found)


def _scaled(values: NDArray[np.float64], white: float) -> Image.Image:
    return Image.fromarray(np.clip(values * (255 / white), 0, 255).astype(np.uint8)).convert("RGB")
