"""Images whose values do not say what is white, and transparent colours."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlrunner.data.images.decoding import decode, pixels_of, whole_of
from dlrunner.errors import DataError
from tests.data.test_images import content, halves, read, write


@pytest.mark.parametrize(("highest", "expected"), [(1.01, 255), (256.0, 255), (200.0, 200), (0.5, 128)])
def test_float_images_are_scaled_whatever_their_highest_value(highest: float, expected: int) -> None:
    values = np.full((32, 32), highest, np.float32)
    values[0, 0] = np.nan
    pixels, said = decode(content(Image.fromarray(values), "TIFF"), 32)
    assert abs(int(pixels[5, 5, 0]) - expected) <= 1
    assert pixels[0, 0, 0] == 0
    assert "values that are not finite numbers, taken as black" in said


def test_float_images_of_a_folder_have_one_scale(here: Path) -> None:
    values = [0.9, 250, 250, 120, 60, 60, 60, 60]
    for row, value in enumerate(values):
        image = Image.fromarray(np.full((32, 32), value, np.float32))
        write(here / "pics", {f"{'cat' if row < 4 else 'dog'}/{row}.tif": content(image, "TIFF")})
    for _ in ("decoded", "from the cache"):
        table = read(here / "pics", valid=0.5)
        assert table.white == 255
        assert np.abs(table.pixels[:, 5, 5, 0].astype(int) - values).max() <= 1
    assert "8 images: values from 0 to 255, scaled to 8 bits" in table.notes
    dark = content(Image.fromarray(np.full((32, 32), 1, np.float32)), "TIFF")
    assert decode(dark, 32, "squash", table.white)[0].max() == 1


def test_12_bits_in_files_of_16_keep_their_grey_levels(here: Path) -> None:
    ramp = np.linspace(0, 4095, 32, dtype=np.uint16)[None].repeat(32, 0)
    for row in range(8):
        image = Image.fromarray(ramp // (8 if row % 2 else 1))
        write(here / "pics", {f"{'cat' if row < 4 else 'dog'}/{row}.png": content(image)})
    table = read(here / "pics", valid=0.5)
    assert table.white == 4095
    assert table.pixels[0, 16, -1, 0] == 255
    assert len(np.unique(table.pixels[0, 16])) == 32
    assert table.pixels[1].max() == 31
    new = decode(content(Image.fromarray(ramp)), 32, "squash", table.white)[0]
    assert (new == table.pixels[0]).all()


@pytest.mark.parametrize(("values", "white"), [(np.float32, 1.0), (np.int32, 255.0), (np.uint16, 4095.0)])
def test_a_new_image_brighter_than_those_of_training_is_refused(values: Any, white: float) -> None:
    fits, bright = (Image.fromarray(np.full((32, 32), factor * white, values)) for factor in (1.05, 2))
    assert decode(content(fits, "TIFF"), 32, "squash", white)[0].min() == 255
    with pytest.raises(DataError, match=f"white is {white:g} in the training images"):
        decode(content(bright, "TIFF"), 32, "squash", white)
    with pytest.raises(DataError, match=f"white is {white:g} in the training images"):
        whole_of(bright, white)


def test_a_deep_pgm_is_read_alike_from_a_file_and_opened() -> None:
    file = b"P5 32 32 1023\n" + (512).to_bytes(2, "big") * 32 * 32
    for pixels in (decode(file, 32)[0], pixels_of(Image.open(io.BytesIO(file)), 32)):
        assert pixels[5, 5, 0] == 127


def test_of_16_bits_per_colour_a_remark_says_what_is_read() -> None:
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x0f\xff" * 96) * 32)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    png = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    pixels, said = decode(b"\x89PNG\r\n\x1a\n" + png, 32)
    assert pixels.max() == 15
    assert said == ["16 bits per colour, of which Pillow reads the upper 8"]


def test_a_transparent_colour_becomes_white() -> None:
    image = halves((255, 0, 0), (0, 0, 255))
    pixels, said = decode(content(image, transparency=(0, 0, 255)), 32, "squash")
    assert pixels[16, 4].tolist() == [255, 0, 0]
    assert pixels[16, 28].tolist() == [255, 255, 255]
    assert said == ["transparent, on white"]
