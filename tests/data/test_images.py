"""Images in all the forms people have them, good and bad."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dlrunner.data.core.splitting import TEST, TRAIN, UNUSED, VALID
from dlrunner.data.dogbreeds.dataset import DogBreedsData
from dlrunner.data.dogbreeds.synthetic import write_synthetic_images
from dlrunner.data.images.augmentation import Augmentation, scaled
from dlrunner.data.images.dataset import ImageData, ImageTable
from dlrunner.data.images.decoding import decode, pixels_of, whole_of
from dlrunner.data.images.loaders import normalised, standardised
from dlrunner.errors import ConfigError, DataError


def content(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, colour)


def halves(left: Any, right: Any, mode: str = "RGB") -> Image.Image:
    """An image of 64 × 32 whose halves differ."""
    image = Image.new(mode, (64, 32), left)
    image.paste(right, (32, 0, 64, 32))
    return image


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, each in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(each)
    return folder


def cats_and_dogs(count: int = 10) -> dict[str, bytes]:
    """Files by class: red cats, blue dogs."""
    shades = np.random.default_rng(0).integers(0, 60, (2 * count, 3))
    files = {f"cat/{i}.png": content(plain((190 + s[0], s[1], s[2]))) for i, s in enumerate(shades[:count].tolist())}
    return files | {
        f"dog/{i}.png": content(plain((s[0], s[1], 190 + s[2]))) for i, s in enumerate(shades[count:].tolist())
    }


def read(path: Path, **settings: Any) -> ImageTable:
    return ImageData(Path("data"), path=str(path), **{"size": 32, **settings}).read()


# Decoding


def test_the_shorter_side_is_scaled_and_the_middle_cut_out() -> None:
    image = Image.new("RGB", (90, 30), (0, 0, 0))
    image.paste((255, 255, 255), (30, 0, 60, 30))
    pixels, remarks = decode(content(image), 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.min() > 200, "the black ends are cut off"
    assert remarks == []
    squashed, _ = decode(content(image), 16, "squash")
    assert squashed[:, 1].max() < 50 < 200 < squashed[:, 8].min()
    padded, _ = decode(content(plain((255, 255, 255), (90, 30))), 18, "pad")
    assert padded[0].max() == 0
    assert padded[9].min() == 255


def test_exif_rotation_is_respected() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    image = halves((255, 0, 0), (0, 0, 255))
    pixels, remarks = decode(content(image, "JPEG", exif=exif, quality=95), 32, "squash")
    assert pixels[2, 16, 0] > 200, "what was left is on top"
    assert pixels[29, 16, 2] > 200
    assert remarks == ["rotated as in EXIF"]


def test_other_modes_become_three_colours_and_are_told() -> None:
    grey, said = decode(content(halves(10, 240, "L")), 32, "squash")
    assert (grey[16, 4] == 10).all()
    assert (grey[16, 28] == 240).all()
    assert said == ["grey"]
    deep = Image.fromarray(np.repeat(np.array([[0, 32896, 65535]], np.uint16), 32, 0).repeat(16, 1))
    sixteen, said = decode(content(deep), 48, "squash")
    assert sixteen[20, [2, 24, 45], 0].tolist() == [0, 128, 255]
    assert said == ["values from 0 to 65,535, scaled to 8 bits"]
    clear, said = decode(content(Image.new("RGBA", (32, 32), (255, 0, 0, 0))), 16)
    assert (clear == 255).all()
    assert said == ["transparent, on white"]
    cyan, said = decode(content(Image.new("CMYK", (32, 32), (255, 0, 0, 0)), "JPEG"), 16)
    assert cyan[8, 8, 0] < 60 < 180 < cyan[8, 8, 2]
    assert said == ["CMYK instead of RGB"]


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [plain((255, 0, 0)), plain((0, 0, 255))]
    pixels, remarks = decode(content(frames[0], "GIF", save_all=True, append_images=frames[1:]), 16)
    assert pixels[8, 8].tolist() == [255, 0, 0]
    assert "animated, first frame only" in remarks


def test_one_pixel_and_a_hundred_million_are_read() -> None:
    tiny, remarks = decode(content(plain((1, 2, 3), (1, 1))), 16)
    assert (tiny == [1, 2, 3]).all()
    assert remarks == ["smaller than 16 pixels"]
    large, _ = decode(content(Image.new("L", (10_000, 10_000), 77), "JPEG"), 32)
    assert abs(int(large[5, 5, 0]) - 77) <= 1


def test_what_claims_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = bytearray(content(plain((0, 0, 0), (4, 4))))
    bomb[16:29] = header
    bomb[29:33] = struct.pack(">I", __import__("zlib").crc32(b"IHDR" + header))
    with pytest.raises(DataError, match=r"60,000 × 60,000 pixels; the limit is 150,000,000"):
        decode(bytes(bomb), 16)
    with pytest.raises(Image.DecompressionBombError):  # the program that calls dlrunner keeps Pillow's own check
        Image.open(io.BytesIO(bytes(bomb)))


@pytest.mark.parametrize("wrong", [b"no image", b"", content(plain((5, 5, 5), (300, 300)), "JPEG")[:-600]])
def test_what_is_no_whole_image_is_refused(wrong: bytes) -> None:
    with pytest.raises(DataError, match=r"is not an image|is an empty file|is damaged"):
        decode(wrong, 16)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_opened_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    for read in (lambda: pixels_of(image, 32), lambda: whole_of(image)):
        with pytest.raises(DataError, match="no pixels"):
            read()


def test_a_draft_of_a_large_jpeg_is_as_good_as_the_whole() -> None:
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 255, (12, 12, 3), np.uint8)).resize(
        (1600, 1600), Image.Resampling.BICUBIC
    )
    fast, _ = decode(content(smooth, "JPEG", quality=95), 64)
    whole = np.asarray(smooth.resize((64, 64), Image.Resampling.BILINEAR), dtype=np.int64)
    assert np.abs(fast - whole).mean() < 2


def test_an_opened_jpeg_is_decoded_as_its_file_and_not_changed() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 400, 3), np.uint8))
    file = content(noise, "JPEG", quality=95)
    with Image.open(io.BytesIO(file)) as image:
        np.testing.assert_array_equal(pixels_of(image, 64), decode(file, 64)[0])
        assert image.size == (400, 600)
        image.draft("RGB", (100, 150))
        assert pixels_of(image, 64).shape == (64, 64, 3)
        np.testing.assert_array_equal(pixels_of(image, 64), pixels_of(image.copy(), 64))


# Where images are found


def test_folders_by_class_are_read_from_folder_and_zip_alike(here: Path) -> None:
    folder = write(here / "pets", cats_and_dogs())
    with zipfile.ZipFile(here / "pets.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, f"pets/{path.relative_to(folder)}")
        archive.writestr("__MACOSX/pets/cat/._0.png", b"rubbish")
    one, other = read(folder), read(here / "pets.zip")
    assert one.target.classes == other.target.classes == ["cat", "dog"]
    assert one.values.tolist() == other.values.tolist() == [0] * 10 + [1] * 10
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert (one.split == VALID).sum() == 4
    assert one.split.tolist() == other.split.tolist()


@pytest.mark.parametrize("flag", [False, True])
def test_names_in_a_zip_archive_are_utf_8_with_and_without_its_flag(
    here: Path, flag: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unflagged(info: zipfile.ZipInfo) -> tuple[bytes, int]:
        return info.filename.encode(), info.flag_bits

    if not flag:
        monkeypatch.setattr(zipfile.ZipInfo, "_encodeFilenameFlags", unflagged)
    with zipfile.ZipFile(here / "pets.zip", "w") as archive:
        for name, each in cats_and_dogs(3).items():
            archive.writestr(name.replace("cat", "grün"), each)
    table = read(here / "pets.zip", valid=0.4)
    assert table.target.classes == ["dog", "grün"]
    assert table.names[3] == "grün/0.png"


def test_folders_tell_the_split(here: Path) -> None:
    files = {f"{part}/{name}": each for part in ("train", "valid", "test") for name, each in cats_and_dogs(3).items()}
    table = read(write(here / "pets", files))
    parts = {"train": TRAIN, "valid": VALID, "test": TEST}
    assert [parts[name.split("/")[0]] for name in table.names] == table.split.tolist()


def test_splits_may_be_in_the_class_folders(here: Path) -> None:
    pets = cats_and_dogs(3)
    files = {name.replace("/", f"/{part}/"): each for part in ("train", "val") for name, each in pets.items()}
    table = read(write(here / "pets", files))
    assert table.target.classes == ["cat", "dog"]
    expected = {"train": TRAIN, "val": VALID}
    assert [expected[name.split("/")[1]] for name in table.names] == table.split.tolist()
    table = read(write(here / "more", {**files, "dog/late.png": pets["dog/0.png"]}))
    assert "in no folder train, valid or test, so trained on: 1 file (dog/late.png)" in table.notes
    valid = {name.replace("/", "/valid/"): each for name, each in pets.items()}
    with pytest.raises(DataError, match=r"splits such as cat/valid/, but none has a train/"):
        read(write(here / "alone", valid))


def test_folders_in_class_folders_belong_to_the_class(here: Path) -> None:
    pets = cats_and_dogs(6)
    years = {name.replace("/", f"/{2023 + row % 2}/"): each for row, (name, each) in enumerate(pets.items())}
    table = read(write(here / "pets", years))
    assert table.target.classes == ["cat", "dog"]
    assert table.values.tolist() == [0] * 6 + [1] * 6
    assert any("the 4 folders in them (cat/2023, cat/2024, dog/2023 …) belong to the class" in n for n in table.notes)


def test_only_hidden_folders_and_those_of_systems_are_not_used_and_they_are_told(here: Path) -> None:
    pets = cats_and_dogs(3)
    files = {f"@{name}": each for name, each in pets.items()}
    hidden = {"@cat/@eaDir/0.png", ".old/0.png", "@dog/._1.png", "@cat/.git/config"}
    table = read(write(here / "pets", {**files, **dict.fromkeys(hidden, pets["cat/0.png"])}))
    assert table.target.classes == ["@cat", "@dog"]
    assert len(table.names) == 6
    found = [note for note in table.notes if "hidden" in note]
    assert found == ["not used, hidden or in a folder of the system: 2 images (.old/0.png, @cat/@eaDir/0.png)"]


def test_kaggles_layout_is_read_and_what_does_not_match_is_told(here: Path) -> None:
    pets = cats_and_dogs(6)
    files = {f"train/{name.replace('/', '')}": each for name, each in pets.items()}
    labels = pd.DataFrame({"id": [Path(n).stem for n in files], "breed": [n.split("/")[0] for n in pets]})
    folder = write(here / "kaggle", {**files, "train/stray.png": files["train/cat0.png"], "test/x.png": b"later"})
    pd.concat([labels, pd.DataFrame({"id": ["gone"], "breed": ["cat"]})]).to_csv(folder / "labels.csv", index=False)
    table = read(folder)
    assert table.target.classes == ["cat", "dog"]
    assert list(table.names) == list(files)
    assert "skipped, label without an image: 1 label (gone)" in table.notes
    assert "skipped, image without a label: 1 image (train/stray.png)" in table.notes


def test_a_table_of_paths_with_several_labels_is_read(here: Path) -> None:
    pets = cats_and_dogs(8)
    write(here, {f"pics/{name}": each for name, each in pets.items()})
    tags = ["warm cat" if name.startswith("cat") else "cold dog" for name in pets]
    table = pd.DataFrame({"path": [f"pics/{name}" for name in pets], "tags": tags, "part": ["train", "valid"] * 8})
    table.to_csv(here / "pics.csv", index=False)
    found = read(
        here / "pics.csv", file="path", target="tags", target_separator=" ", split="column", valid_column="part"
    )
    assert found.target.kind == "multilabel"
    assert found.target.classes == ["cat", "cold", "dog", "warm"]
    assert found.values[0].tolist() == [1, 0, 0, 1]
    assert found.split.tolist() == [TRAIN, VALID] * 8


def test_decoded_images_are_kept_and_a_damaged_cache_is_made_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUNNER_CACHE", str(here / "cache"))
    folder = write(here / "pets", cats_and_dogs())
    first = np.array(read(folder).pixels)
    (kept,) = (here / "cache" / "pixels").glob("*.npy")
    with monkeypatch.context() as patch:
        patch.setattr("dlrunner.data.images.dataset.decode", lambda *_: pytest.fail("decoded again"))
        np.testing.assert_array_equal(read(folder).pixels, first)
    kept.write_bytes(kept.read_bytes()[:1000])
    np.testing.assert_array_equal(read(folder).pixels, first)
    (folder / "cat" / "0.png").write_bytes(content(plain((0, 255, 0))))
    assert read(folder).pixels[0, 0, 0].tolist() == [0, 255, 0], "another content is read anew"


# Bad input


def test_all_bad_images_are_named_before_anything_is_trained(here: Path) -> None:
    files = cats_and_dogs()
    files["cat/3.png"] = b"no image"
    files["dog/7.png"] = content(plain((9, 9, 9), (200, 200)), "JPEG")[:-500]
    folder = write(here / "pets", files)
    with pytest.raises(DataError, match=r"2 of 20 images in .*pets cannot be used: cat/3.png is not an image") as error:
        read(folder)
    assert "dog/7.png is damaged" in str(error.value)
    assert "data.skip_bad=true" in str(error.value)
    table = read(folder, skip_bad=True)
    assert np.flatnonzero(table.split == UNUSED).tolist() == [3, 17]
    assert any("they are left out" in note for note in table.notes)


def test_a_class_with_one_image_is_told(here: Path) -> None:
    files = cats_and_dogs() | {"emu/1.png": content(plain((0, 200, 0)))}
    assert any("1 class(es) with a single image (emu)" in note for note in read(write(here / "pets", files)).notes)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"readme.txt": b"hello"}, "holds no images"),
        ({"cat/1.png": b"x", "cat/2.png": b"x"}, "all 2 images are in one folder"),
        ({"1.png": b"x"}, "all 1 images are in none"),
        ({"labels.csv": b"id,breed\na,cat\nb,dog\n"}, "none of its 2 files exists; the first is a"),
        ({"labels.csv": b"id\na\n", "train/a.png": b"x"}, "needs a column of files and one of labels"),
        ({"labels.csv": b"id,breed\na,cat\na,dog\n", "train/a.png": b"x"}, "listed more than once"),
    ],
)
def test_folders_without_labelled_images_are_refused(here: Path, files: dict[str, bytes], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(write(here / "pets", files))


def test_requests_that_do_not_fit_are_refused(here: Path) -> None:
    folder = write(here / "pets", cats_and_dogs(3))
    with pytest.raises(ConfigError, match=r"data.path: is missing"):
        ImageData(Path("data"))
    with pytest.raises(ConfigError, match="there is no file or folder nowhere"):
        read(Path("nowhere"))
    with pytest.raises(ConfigError, match="is one image; give the folder"):
        read(folder / "cat" / "0.png")
    with pytest.raises(ConfigError, match=r"data.target: .* is not a table"):
        read(folder, target="breed")
    (here / "t.csv").write_text("file,kind\npets/cat/0.png,a\npets/dog/0.png,b\n")
    with pytest.raises(ConfigError, match=r"has no column 'kinds'; did you mean kind"):
        read(here / "t.csv", target="kinds")
    with pytest.raises(ConfigError, match="5 images requested, but there are only"):
        read(folder, sample_valid=5)


def test_an_archive_cut_short_is_refused(here: Path) -> None:
    archive, _ = write_synthetic_images(here)
    cut = here / "dog-breeds.zip"
    cut.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DataError, match="damaged"):
        DogBreedsData(here, source="real").identity()


# Dog breeds and their stand-in


def test_the_stand_in_is_the_same_for_a_seed_and_its_labels_are_right_as_often_as_it_says(here: Path) -> None:
    one, best = write_synthetic_images(here / "a")
    other, _ = write_synthetic_images(here / "b")
    assert one.read_bytes() == other.read_bytes()
    data = DogBreedsData(here, source="synthetic")
    assert data.identity().best_achievable == best
    table = data.read()
    assert table.pixels.shape == (1200, 64, 64, 3)
    valid = table.rows(VALID)
    # Blue shapes have more blue than red before any ground: colour alone can be told by hand.
    redness = table.pixels[..., 0].astype(float) - table.pixels[..., 2]
    strongest = np.abs(redness.reshape(1200, -1) - np.median(redness.reshape(1200, -1), axis=1, keepdims=True)).argmax(
        1
    )
    red = np.take_along_axis(redness.reshape(1200, -1), strongest[:, None], 1)[:, 0] > np.median(
        redness.reshape(1200, -1), axis=1
    )
    said_red = np.array([name.startswith("red") for name in table.target.classes])[table.values]
    right = (red == said_red)[valid].mean()
    assert best - 0.05 <= right <= best + 0.08, "wrong labels keep their colour now and then"


def test_without_the_archive_real_data_is_refused_with_where_to_get_it(here: Path) -> None:
    with pytest.raises(DataError, match=r"there is no dog-breeds.zip or dog-breed-identification.zip in .*kaggle"):
        DogBreedsData(here, source="real").identity()


def test_the_inner_split_leaves_the_reported_images_out(here: Path) -> None:
    reported = DogBreedsData(here, source="synthetic").read()
    inner = DogBreedsData(here, source="synthetic", split="inner").read()
    assert set(reported.rows(VALID)) == set(np.flatnonzero(inner.split == UNUSED))


@pytest.mark.data
@pytest.mark.slow  # opens an archive of 10,222 images; a few in the same layout are read above
def test_the_dog_breeds_are_those_of_kaggle(real_data: Path) -> None:
    if not (real_data / "dog-breeds.zip").exists():
        pytest.skip("needs dog-breeds.zip in DLRUNNER_DATA")
    table = DogBreedsData(real_data, source="real", size=32, sample=64, sample_valid=64).read()
    assert len(table.names) == 10_222
    assert len(table.target.classes) == 120
    assert np.bincount(table.values).min() == 66
    assert np.bincount(table.values).max() == 126
    assert any("the weights were pre-trained" in note for note in table.notes)


# Augmentation


def images(count: int = 64, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def changed(augmentation: Augmentation, given: torch.Tensor, seed: int = 0, size: int | None = None) -> torch.Tensor:
    return augmentation(given, size or given.shape[-1], torch.Generator().manual_seed(seed))


NONE = {"flip": False, "rotate": 0.0, "zoom": 1.0, "brightness": 0.0, "contrast": 0.0}


def test_half_of_the_images_are_mirrored() -> None:
    given = images(400, 16)
    found = changed(Augmentation(**{**NONE, "flip": True}), given)  # type: ignore[arg-type]
    mirrored = (found == given.flip(3)).flatten(1).all(1)
    same = (found == given).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 160 < mirrored.sum() < 240


def test_nothing_asked_for_changes_nothing() -> None:
    given = images()
    torch.testing.assert_close(changed(Augmentation(**NONE), given), given)  # type: ignore[arg-type]


def test_a_quarter_turn_turns() -> None:
    class Quarter(torch.Generator):
        pass

    ramp = torch.linspace(0, 1, 33).expand(1, 3, 33, 33).contiguous()
    angles = []
    for seed in range(20):
        found = changed(Augmentation(**{**NONE, "rotate": 90.0}), ramp, seed)[0, 0]  # type: ignore[arg-type]
        across, down = found[16, 20] - found[16, 12], found[20, 16] - found[12, 16]
        angles.append(float(torch.atan2(down, across)))
        assert float(torch.hypot(across, down)) == pytest.approx(0.25, abs=0.01)
    assert min(angles) < -0.5
    assert max(angles) > 0.5


def test_zoom_enlarges_up_to_its_limit_and_shows_no_edge() -> None:
    frame = torch.ones(200, 3, 40, 40)
    frame[:, :, 4:-4, 4:-4] = 0.5
    found = changed(Augmentation(**{**NONE, "zoom": 2.0}), frame)  # type: ignore[arg-type]
    assert found.min() >= 0.5 - 1e-6
    inner = (found < 0.75).float().mean(dim=(1, 2, 3))
    assert inner.min() >= 0.6
    assert inner.max() > 0.8


def test_brightness_and_contrast_move_mean_and_spread() -> None:
    given = 0.4 + 0.2 * images(300)
    bright = changed(Augmentation(**{**NONE, "brightness": 0.1}), given)  # type: ignore[arg-type]
    shift = (bright - given).mean(dim=(1, 2, 3))
    assert shift.min() < -0.08
    assert shift.max() > 0.08
    hard = changed(Augmentation(**{**NONE, "contrast": 0.5}), given)  # type: ignore[arg-type]
    ratio = hard.std(dim=(1, 2, 3)) / given.std(dim=(1, 2, 3))
    assert 0.5 <= ratio.min() < 0.6
    assert 1.4 < ratio.max() <= 1.501
    torch.testing.assert_close(hard.mean(dim=(1, 2, 3)), given.mean(dim=(1, 2, 3)), atol=0.01, rtol=0)


def test_the_same_generator_changes_alike_and_another_differently() -> None:
    given, usual = images(), Augmentation()
    torch.testing.assert_close(changed(usual, given, 1), changed(usual, given, 1), rtol=0, atol=0)
    assert (changed(usual, given, 1) - changed(usual, given, 2)).abs().mean() > 0.01


def test_smaller_images_are_the_mean_of_what_they_show() -> None:
    given = images(4, 64)
    found = scaled(given, 16)
    assert found.shape == (4, 3, 16, 16)
    torch.testing.assert_close(found.mean(dim=(2, 3)), given.mean(dim=(2, 3)), atol=0.02, rtol=0)
    assert scaled(given, 64) is given
    assert changed(Augmentation(), given, size=48).shape == (4, 3, 48, 48)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 1, 1), (3, 3, 4, 1)])
def test_the_order_in_memory_does_not_change_what_is_standardised(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape)
    last = images.contiguous(memory_format=torch.channels_last)
    found = standardised(last)
    assert torch.equal(found, standardised(images))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, images), "the images themselves are changed"


def test_pixels_are_normalised_by_the_colours_of_imagenet() -> None:
    pixels = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8).expand(1, 16, 16, 3)
    found = normalised(pixels, 16)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(found[0, :, 3, 3], expected)


# Layouts and names that are easily misread


def test_gaps_in_other_columns_and_classes_named_na_are_read(here: Path) -> None:
    write(here / "pics", cats_and_dogs(4))
    kinds = ["NA"] * 4 + ["1"] * 4
    rows = pd.DataFrame({"file": list(cats_and_dogs(4)), "kind": kinds, "note": ["", "x"] * 4})
    rows.to_csv(here / "pics" / "all.csv", index=False)
    table = read(here / "pics" / "all.csv", target="kind")
    assert table.target.classes == ["1", "NA"]
    rows.assign(file=["", *rows["file"][1:]]).to_csv(here / "pics" / "all.csv", index=False)
    with pytest.raises(DataError, match="row 2: the file is missing"):
        read(here / "pics" / "all.csv", target="kind")


def test_folders_around_and_images_beside_the_parts_change_nothing(here: Path) -> None:
    files = {f"{part}/{name}": each for part in ("training", "validation") for name, each in cats_and_dogs(3).items()}
    with zipfile.ZipFile(here / "deep.zip", "w") as archive:
        for name, each in files.items():
            archive.writestr(f"pets/images/{name}", each)
        archive.writestr("pets/cover.png", content(plain((1, 1, 1))))
        archive.writestr("pets/images/training/cat/.ipynb_checkpoints/0.png", content(plain((1, 1, 1))))
        archive.writestr("pets/images/training/@eaDir/0.png", content(plain((1, 1, 1))))
    table = read(here / "deep.zip")
    assert table.target.classes == ["cat", "dog"]
    parts = {"training": TRAIN, "validation": VALID}
    assert [parts[name.split("/")[0]] for name in table.names] == table.split.tolist()


def test_kaggles_test_folder_without_classes_is_no_part(here: Path) -> None:
    files = {f"train/{name}": each for name, each in cats_and_dogs(5).items()} | {
        "test/1.png": content(plain((1, 1, 1)))
    }
    table = read(write(here / "pets", files))
    assert len(table.names) == 10
    assert (table.split == VALID).sum() == 2


def labelled(here: Path, ids: list[str], files: list[str]) -> Path:
    kinds = ["cat", "dog"] * (len(ids) // 2) + ["cat"] * (len(ids) % 2)
    folder = write(here / "k", {f"train/{name}": content(plain((9, 9, 9))) for name in files})
    pd.DataFrame({"id": ids, "breed": kinds}).to_csv(folder / "labels.csv", index=False)
    return folder


def test_a_label_means_one_file_and_a_file_has_one_label(here: Path) -> None:
    with pytest.raises(DataError, match=r"listed more than once, the first is train/x0.png"):
        read(labelled(here / "a", ["x0", "x0.png", "x1"], ["x0.png", "x1.png"]))
    with pytest.raises(DataError, match=r"x0 may be train/x0.jpg or train/x0.png; name it with its suffix"):
        read(labelled(here / "b", ["x0", "x1"], ["x0.png", "x0.jpg", "x1.png"]))
    exact = read(
        labelled(here / "c", ["x0.png", "x1", "x2", "x3"], ["x0.png", "x0.png.jpg", "x1.png", "x2.png", "x3.png"]),
        valid=0.5,
    )
    assert exact.names[0] == "train/x0.png"


def test_ids_keep_their_zeros_and_paths_may_lead_elsewhere(here: Path) -> None:
    zeros = read(
        labelled(here / "z", ["0001", "0002", "0003", "0004"], ["0001.png", "0002.png", "0003.png", "0004.png"]),
        valid=0.5,
    )
    assert zeros.names[0] == "train/0001.png"
    write(here / "pics", cats_and_dogs(4))
    (here / "tables").mkdir()
    paths = [f"../pics/{name}" for name in cats_and_dogs(4)]
    paths[0] = str(here / "pics" / "cat" / "0.png")
    kinds = [0] * 4 + [1] * 4
    pd.DataFrame({"file": paths, "kind": kinds}).to_csv(here / "tables" / "t.csv", index=False)
    before = read(here / "tables" / "t.csv", valid=0.5)
    assert before.target.classes == ["0", "1"]
    (here / "pics" / "cat" / "0.png").write_bytes(content(plain((0, 255, 0))))
    assert read(here / "tables" / "t.csv", valid=0.5).key != before.key


def test_digits_are_classes(here: Path) -> None:
    files = {f"{digit}/{i}.png": content(plain((20 * digit, 0, 0))) for digit in range(4) for i in range(3)}
    assert read(write(here / "digits", files)).target.classes == ["0", "1", "2", "3"]


def test_integer_images_are_scaled_by_their_range() -> None:
    for mode, high in (("I", 200), ("F", 200.0), ("F", 200 / 255)):
        grey, _ = decode(content(Image.new(mode, (32, 32), high), "TIFF"), 32)
        assert abs(int(grey[5, 5, 0]) - 200) <= 1, (mode, high)


def test_a_full_disk_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("DLRUNNER_CACHE", str(here / "cache"))
    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(DataError, match=r"cannot be written to the cache, .*No space left"):
        read(write(here / "pets", cats_and_dogs(3)))
    assert not list((here / "cache" / "pixels").iterdir())


def test_the_whole_image_is_kept_unless_a_setting_says_otherwise(here: Path) -> None:
    for name, colours in (("a", ("red", "blue")), ("b", ("green", "blue"))):
        (here / "pets" / name).mkdir(parents=True)
        for index in range(4):
            image = Image.new("RGB", (96, 32), "white")
            for column, colour in zip((0, 64), colours, strict=True):
                image.paste(colour, (column, 0, column + 32, 32))
            image.save(here / "pets" / name / f"{index}.png")

    def middle_row(**settings: Any) -> list[Any]:
        pixels = ImageData(here, path="pets", size=32, valid=2, split="last_rows", **settings).read().pixels
        return [pixels[0, 16, column].tolist() for column in (2, 16, 29)]

    red, white, blue, black = [255, 0, 0], [255, 255, 255], [0, 0, 255], [0, 0, 0]
    assert middle_row() == [red, white, blue]
    assert middle_row(fit="pad") == [red, white, blue]
    assert middle_row(fit="crop") == [white, white, white]
    assert black not in middle_row()
