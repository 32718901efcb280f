"""Images with masks: read from folders, archives and tables, or refused with the file; masks move with their images."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dlrunner.data.camvid.dataset import CamVidData
from dlrunner.data.core.splitting import TEST, TRAIN, VALID
from dlrunner.data.images.augmentation import Augmentation
from dlrunner.data.segmentation.dataset import SegmentationData, SegmentationTable
from dlrunner.data.segmentation.loaders import SegmentationLoader
from dlrunner.data.segmentation.masks import IGNORED, MaskClasses
from dlrunner.data.segmentation.synthetic import CLASSES, WRONG
from dlrunner.errors import ConfigError, DataError

HEIGHT, WIDTH = 40, 60
VALUES = np.array([0, 1, 2])


def mask_of(number: int, values: Any = VALUES) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return three stripes, the edges of which differ from image to image."""
    columns = np.searchsorted([15 + number, 35 + number], np.arange(WIDTH), side="right")
    stripes: np.ndarray[Any, np.dtype[np.uint8]] = np.tile(np.asarray(values, np.uint8)[columns], (HEIGHT, 1))
    return stripes


def write(folder: Path, count: int = 6, values: Any = VALUES, names: str = "sky\nwood\nroad\n") -> Path:
    """Write images/ and masks/; the colour of a pixel tells its class."""
    for each in ("images", "masks"):
        (folder / each).mkdir(parents=True)
    for number in range(count):
        mask = mask_of(number, values)
        colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
        Image.fromarray(colours[np.searchsorted(values, mask)]).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    if names:
        (folder / "codes.txt").write_text(names)
    return folder


def read(path: Path, **settings: Any) -> SegmentationTable:
    settings = {"size": [HEIGHT, WIDTH], **settings}
    return SegmentationData(Path("data"), path=str(path), **settings).read()


def test_folders_are_read_pixel_by_pixel(here: Path) -> None:
    table = read(write(here / "cells"))
    assert table.classes.names == ["sky", "wood", "road"]
    assert [len(table.rows(part)) for part in (TRAIN, VALID)] == [5, 1]
    for row, name in enumerate(table.names):
        np.testing.assert_array_equal(table.mask(row), mask_of(int(Path(name).stem)))
    assert table.counts.sum() == 6 * HEIGHT * WIDTH
    assert any(note.startswith("images and masks are scaled to 40 x 60") for note in table.notes)


def test_a_mask_that_is_scaled_keeps_its_values(here: Path) -> None:
    table = read(write(here / "cells", values=[0, 100, 200], names=""), size=[32, 77], ignore="none")
    assert table.pixels.shape == (6, 32, 77, 4)
    assert set(np.unique(table.pixels[..., 3]).tolist()) == {0, 100, 200}
    assert len(np.unique(table.pixels[..., 0])) > 2  # the images are smoothed


def test_an_archive_and_a_folder_around_it_hold_the_same(here: Path) -> None:
    write(here / "outer" / "cells")
    shutil.make_archive(str(here / "cells"), "zip", here / "outer")
    zipped, plain = read(here / "cells.zip"), read(here / "outer")
    np.testing.assert_array_equal(zipped.pixels, plain.pixels)
    assert zipped.classes == plain.classes
    assert zipped.names == plain.names


@pytest.mark.parametrize("order", ["images/train/0.png", "train/images/0.png"])
def test_folders_tell_the_split_on_either_side(here: Path, order: str) -> None:
    write(here / "cells")
    for kind in ("images", "masks"):
        for number, part in enumerate(["train", "train", "train", "val", "test", "test"]):
            target = here / "sorted" / order.replace("images", kind).replace("train", part)
            target = target.with_name(f"{number}.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(here / "cells" / kind / f"{number}.png", target)
    table = read(here / "sorted")
    assert [len(table.rows(part)) for part in (TRAIN, VALID, TEST)] == [3, 1, 2]
    for row, name in enumerate(table.names):
        np.testing.assert_array_equal(table.mask(row), mask_of(int(Path(name).stem)))


def test_a_table_names_its_files_and_what_validates(here: Path) -> None:
    write(here / "cells")
    rows = [(f"images/{n}.png", f"masks/{n}.png", n > 3) for n in range(6)]
    pd.DataFrame(rows, columns=["image", "target", "held_out"]).to_csv(here / "cells" / "list.csv", index=False)
    table = read(here / "cells" / "list.csv", masks="target", split="column", valid_column="held_out")
    assert [table.names[row] for row in table.rows(VALID)] == ["images/4.png", "images/5.png"]
    assert table.classes.names == ["sky", "wood", "road"]
    with pytest.raises(ConfigError, match=r"has no column 'mask'; known: held_out, image, target"):
        read(here / "cells" / "list.csv")


def test_masks_have_a_suffix_of_their_own(here: Path) -> None:
    folder = write(here / "cells")
    for mask in (folder / "masks").iterdir():
        mask.rename(mask.with_name(f"{mask.stem}_mask.png"))
    with pytest.raises(DataError, match=r"images/0.png has no mask in masks/ \(6 such images\).*data.mask_suffix"):
        read(folder)
    np.testing.assert_array_equal(read(folder, mask_suffix="_mask").mask(3), mask_of(3))


def repainted(folder: Path, paint: Callable[[Any], Image.Image], suffix: str = ".png") -> Path:
    """Save each mask anew."""
    for file in list((folder / "masks").iterdir()):
        values = np.asarray(Image.open(file))
        file.unlink()
        paint(values).save(file.with_suffix(suffix))
    return folder


def palette(values: Any) -> Image.Image:
    return MaskClasses(["a", "b", "c"], [0, 1, 2]).image(values)


@pytest.mark.parametrize(
    ("paint", "suffix", "note"),
    [
        (palette, ".png", None),
        (palette, ".gif", None),
        (lambda values: Image.fromarray(values.astype(np.int32)), ".tif", None),
        (lambda values: Image.fromarray(np.dstack([values] * 3)), ".png", "three equal colours"),
    ],
)
def test_masks_of_every_kind_of_integer_are_the_same(here: Path, paint: Any, suffix: str, note: str | None) -> None:
    table = read(repainted(write(here / "cells"), paint, suffix))
    np.testing.assert_array_equal(table.mask(2), mask_of(2))
    assert note is None or any(note in each for each in table.notes)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_masks_of_few_bits_keep_their_values(here: Path, bits: int) -> None:
    """Pillow reads 1 of four bits as 17."""
    folder = write(here / "cells")
    for file in (folder / "masks").iterdir():
        file.write_bytes(grey_png(np.asarray(Image.open(file)), bits))
    np.testing.assert_array_equal(read(folder).mask(2), mask_of(2))


def grey_png(values: Any, bits: int) -> bytes:
    """Return a PNG of so many bits for each grey value, which Pillow does not write."""
    each = 8 // bits
    shifts = np.arange(each)[::-1] * bits
    lines = (values.reshape(len(values), -1, each) << shifts).sum(axis=2).astype(np.uint8)
    content = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("paint", "suffix", "message"),
    [
        (lambda values: Image.fromarray(np.dstack([values, values * 9, values])), ".png", r"has colours \(RGB\)"),
        (lambda values: Image.fromarray(values), ".jpg", "is a JPEG, which mixes the values"),
        (lambda values: Image.fromarray(values.astype(np.int32) * 300), ".tif", "values from 0 to 600"),
        (lambda values: Image.fromarray(values.astype(np.float32)), ".tif", "no integer values"),
        (lambda values: Image.fromarray(values[:20]), ".png", "has 60 × 40 pixels, but its mask 60 × 20"),
    ],
)
def test_masks_that_cannot_be_meant_are_refused_with_their_file(
    here: Path, paint: Any, suffix: str, message: str
) -> None:
    folder = repainted(write(here / "cells"), paint, suffix)
    with pytest.raises(DataError, match=rf"images/0.png .*{message}"):
        read(folder)


def test_one_damaged_mask_is_left_out_where_that_is_wanted(here: Path) -> None:
    folder = write(here / "cells")
    (folder / "masks" / "2.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"1 of 6 images .*images/2.png has a mask that is no"):
        read(folder)
    table = read(folder, skip_bad=True)
    assert sum(len(table.rows(part)) for part in (TRAIN, VALID)) == 5
    assert "left out" in table.notes[0]


def test_what_has_no_partner_or_no_folder_is_named(here: Path) -> None:
    folder = write(here / "cells")
    (folder / "images" / "3.png").unlink()
    with pytest.raises(DataError, match=r"masks/3.png has no image in images/"):
        read(folder)
    (folder / "masks" / "3.png").unlink()
    (folder / "images" / "1.jpg").write_bytes((folder / "images" / "1.png").read_bytes())
    with pytest.raises(DataError, match=r"images/1.jpg and images/1.png differ only in their suffix"):
        read(folder)
    (folder / "images" / "1.jpg").unlink()
    (folder / "masks").rename(folder / "labels")
    with pytest.raises(
        ConfigError, match=r"data.masks: .*no images in a folder masks/; folders with images: images, labels"
    ):
        read(folder)
    assert len(read(folder, masks="labels").names) == 5


def test_values_without_a_name_are_refused_with_their_mask(here: Path) -> None:
    folder = write(here / "cells", names="sky\nwood\n")
    with pytest.raises(DataError, match=r"masks/0.png has the value 2, which has no name: the 2 names are of 0 to 1"):
        read(folder)
    table = read(folder, ignore=2)
    assert table.classes.names == ["sky", "wood"]
    assert (table.mask(0) == IGNORED).sum() == (mask_of(0) == 2).sum()


@pytest.mark.parametrize(
    ("values", "names", "settings", "found", "ignored"),
    [
        ([0, 128, 255], "", {}, ["0", "128", "255"], None),  # shades of grey
        ([0, 1, 255], "", {}, ["0", "1"], 255),
        ([0, 1, 255], "", {"ignore": "none"}, ["0", "1", "255"], None),
        ([0, 1, 255], "sky\nwood\n", {}, ["sky", "wood"], 255),
        ([0, 1, 2], "sky\nwood\nVoid\n", {}, ["sky", "wood"], 2),
        ([0, 1, 2], "sky\nwood\nVoid\n", {"ignore": "none"}, ["sky", "wood", "Void"], None),
        ([0, 1, 2], "", {"ignore": 1}, ["0", "2"], 1),
        ([0, 1, 2], "sky\nwood\nroad\n", {"classes": ["a", "b", "c"]}, ["a", "b", "c"], None),
    ],
)
def test_ignored_pixels_are_known_by_their_name_or_value_and_reported(
    here: Path, values: list[int], names: str, settings: dict[str, Any], found: list[str], ignored: int | None
) -> None:
    table = read(write(here / "cells", values=values, names=names), **settings)
    assert table.classes.names == found
    assert table.classes.ignored == ignored
    assert any(f"pixels of value {ignored}" in note for note in table.notes) == (ignored is not None)
    np.testing.assert_array_equal(table.mask(1) == IGNORED, mask_of(1, values) == ignored)


def test_black_and_white_masks_are_two_classes(here: Path) -> None:
    table = read(write(here / "cells", values=[0, 255, 255], names=""))
    assert (table.classes.names, table.classes.values, table.classes.ignored) == (["0", "255"], [0, 255], None)
    assert "masks contain only 0 and 255: two classes" in table.notes
    np.testing.assert_array_equal(table.mask(1), np.minimum(mask_of(1), 1))
    named = read(write(here / "named", values=[0, 255, 255], names="rest\ncell"))
    assert named.classes.names == ["rest", "cell"]
    with pytest.raises(ConfigError, match="1 class"):
        read(write(here / "black", values=[0, 0, 0], names=""))


def test_a_mask_that_is_written_has_the_values_of_the_users_own(here: Path) -> None:
    classes = MaskClasses(["0", "255"], [0, 255])
    codes = np.array([[0, 1], [1, 0]], np.uint8)
    classes.image(codes).save(here / "mask.png")
    with Image.open(here / "mask.png") as written:
        assert written.mode == "P"
        np.testing.assert_array_equal(np.asarray(written), codes * 255)
        assert len(np.unique(np.asarray(written.convert("RGB")).reshape(-1, 3), axis=0)) == 2


def test_masks_move_with_their_images_and_keep_their_values() -> None:
    random = np.random.default_rng(0)
    masks = np.repeat(np.repeat(random.integers(0, 4, (8, 5, 7)), 8, 1), 8, 2).astype(np.uint8)
    pixels = torch.from_numpy(np.stack([masks * 80] * 3 + [masks * 60], axis=3))  # a colour tells its class
    codes = torch.full((256,), IGNORED)
    codes[[0, 60, 120, 180]] = torch.arange(4)
    plain = Augmentation(brightness=0, contrast=0, rotate=25, zoom=1.5)
    (batch,) = SegmentationLoader(pixels, codes, [torch.arange(8)], (40, 56), plain, (1, 2))
    (still,) = SegmentationLoader(pixels, codes, [torch.arange(8)], (40, 56))
    seen = (batch.inputs[0][:, 0] * 0.229 + 0.485) * 255 / 80
    near = torch.stack([batch.targets.roll((dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    inside = (near == batch.targets).all(dim=0)  # at edges bilinear interpolation mixes
    inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    assert inside.float().mean() > 0.3
    torch.testing.assert_close(seen[inside], batch.targets[inside].float(), atol=1e-3, rtol=0)
    assert batch.targets.max() <= 3
    assert (batch.targets != still.targets).float().mean() > 0.2
    (bright,) = SegmentationLoader(
        pixels, codes, [torch.arange(8)], (40, 56), Augmentation(rotate=25, zoom=1.5), (1, 2)
    )
    assert torch.equal(bright.targets, batch.targets)
    assert not torch.equal(bright.inputs[0], batch.inputs[0])


def test_a_turned_image_that_is_no_square_is_not_sheared() -> None:
    """A disc stays one."""
    y, x = np.mgrid[:64, :160]
    disc = ((x - 79.5) ** 2 + (y - 31.5) ** 2 < 24**2).astype(np.float32)
    turned = Augmentation(flip=False, rotate=180, zoom=1).moved(
        torch.from_numpy(disc)[None, None].expand(16, 1, 64, 160),
        torch.rand(7, 16, generator=torch.Generator().manual_seed(0)),
        "nearest",
    )
    middle = slice(48, 112)  # on both sides are mirror images
    assert (turned - torch.from_numpy(disc))[..., middle].abs().mean() < 0.02


def test_a_loader_begins_at_any_batch_with_the_same_images() -> None:
    pixels = torch.randint(0, 256, (10, 32, 48, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows, key = list(torch.split(torch.arange(10), 4)), (3, 1)
    whole = list(SegmentationLoader(pixels, torch.arange(256), rows, (24, 32), Augmentation(), key))
    rest = list(SegmentationLoader(pixels, torch.arange(256), rows, (24, 32), Augmentation(), key, start=1))
    assert [tuple(batch.targets.shape) for batch in whole] == [(4, 24, 32), (4, 24, 32), (2, 24, 32)]
    for one, other in zip(whole[1:], rest, strict=True):
        assert torch.equal(one.inputs[0], other.inputs[0])
        assert torch.equal(one.targets, other.targets)


def test_the_generated_masks_have_the_promised_noise() -> None:
    data = SegmentationData(Path("data"), source="synthetic")
    best = data.identity().best_achievable
    table = data.read()
    assert table.size == (64, 64)
    assert table.classes.names == list(CLASSES)
    assert best is not None
    assert 0.75 < best < 0.9
    # Relabelled pixels stand alone: where all neighbours agree, a pixel in twenty differs from them.
    masks = np.stack([table.mask(row) for row in range(60)])
    around = np.stack([np.roll(masks, (dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx])
    agreed = (around == around[0]).all(axis=0)
    assert (masks != around[0])[agreed].mean() == pytest.approx(WRONG, abs=0.01)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.path: is missing"):
        SegmentationData(Path("data"))
    with pytest.raises(ConfigError, match="has no path"):
        SegmentationData(Path("data"), path="x", source="synthetic")
    with pytest.raises(ConfigError, match="two classes have one name"):
        SegmentationData(Path("data"), path="x", classes=["a", "a"])


def test_other_images_in_the_place_of_camvid_are_read_and_not_called_so(here: Path) -> None:
    with pytest.raises(DataError, match=r"no camvid.zip or camvid/ in data"):
        CamVidData(Path("data")).identity()
    for part in ("train", "val", "test"):
        write(here / "data" / "camvid" / part, count=2, names="")
    (here / "data" / "camvid" / "classes.txt").write_text("sky\nwood\nroad\n")
    data = CamVidData(Path("data"), size=[HEIGHT, WIDTH])
    assert [len(data.read().rows(part)) for part in (TRAIN, VALID, TEST)] == [2, 2, 2]
    identity = data.identity()
    assert (identity.name, identity.release, identity.terms) == ("camvid", "own", "")


@pytest.mark.data
def test_camvid_is_known_by_its_masks(real_data: Path) -> None:
    if not (real_data / "camvid.zip").exists():
        pytest.skip("needs camvid.zip in DLRUNNER_DATA")
    data = CamVidData(real_data, size=[36, 48], sample=4, sample_valid=4, sample_test=4)
    identity = data.identity()
    assert (identity.name, identity.release) == ("CamVid", "camvid")
    assert "research" in identity.terms
    table = data.read()
    assert len(table.names) == 367 + 101 + 233
    assert [len(table.rows(part)) for part in (TRAIN, VALID, TEST)] == [4, 4, 4]
    assert table.classes.names[:3] == ["sky", "building", "pole"]
    assert len(table.classes.names) == 11
