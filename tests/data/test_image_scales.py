"""Images whose values do not say what is white, and transparent colours."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlrunner.data.images.decoding import decode, pixels_of
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


def test_a_deep_pgm_is_read_alike_from_a_file_and_opened() -> None:
    file = b"P5 32 32 1023\n" + (512).to_bytes(2, "big") * 32 * 32
    for pixels in (decode(file, 32)[0], pixels_of(Image.open(io.BytesIO(file)), 32)):
        assert pixels[5, 5, 0] == 127


def test_a_transparent_colour_becomes_white() -> None:
    image = halves((255, 0, 0), (0, 0, 255))
    pixels, said = decode(content(image, transparency=(0, 0, 255)), 32, "squash")
    assert pixels[16, 4].tolist() == [255, 0, 0]
    assert pixels[16, 28].tolist() == [255, 255, 255]
    assert said == ["transparent, on white"]
