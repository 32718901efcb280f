"""A damaged tar archive is one sentence, or all that can be found in it is read and the rest is told."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlrunner.data.core.source import ArchiveOrFolder
from dlrunner.data.core.splitting import UNUSED
from dlrunner.data.images.dataset import ImageData
from dlrunner.data.segmentation.dataset import SegmentationData
from dlrunner.data.tables.table import Reading
from dlrunner.data.texts.dataset import TextData
from dlrunner.data.texts.documents import Wanted, find_documents
from dlrunner.errors import DataError

TEXTS = {f"{label}/{n}.txt": f"{label} text number {n}\n".encode() * 60 for n in range(6) for label in ("neg", "pos")}
SETTINGS: dict[str, Any] = {"labels": True, "min_freq": 1, "tokenizer": "whitespace", "valid": 0.3}


def packed(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def damaged(path: Path, files: dict[str, bytes], kind: str, name: str) -> Path:
    """Write an archive that is damaged at a file: its header, or cut there, or in the compressed bytes."""
    whole = packed(files)
    content, header = whole.index(files[name]), whole.index(name.encode())
    if kind == "header":
        path.write_bytes(whole[: header + 100] + b"?" * 60 + whole[header + 160 :])
    elif kind == "cut":
        path.write_bytes(whole[: content + 100])
    elif kind == "cut gzip":
        path.write_bytes(gzip.compress(whole[:content], 0)[:-8] + gzip.compress(whole[content:])[:30])
    else:
        bad = bytearray(gzip.compress(whole, 0))
        bad[bad.index(files[name]) + 5] ^= 1
        path.write_bytes(bytes(bad))
    return path


@pytest.mark.parametrize(
    ("kind", "count", "told"),
    [
        ("header", 11, "after pos/2.txt: what follows is no file"),
        ("cut", 6, "at neg/3.txt: unexpected end of data"),
        ("cut gzip", 6, "at neg/3.txt: "),
    ],
)
def test_texts_of_a_damaged_tar_are_left_out_and_told(kind: str, count: int, told: str, tmp_path: Path) -> None:
    path = damaged(tmp_path / ("t.tar.gz" if "gzip" in kind else "t.tar"), TEXTS, kind, "neg/3.txt")
    with pytest.raises(DataError, match=rf"{path.name} is damaged {told}.* \(data\.skip_bad=true") as refusal:
        TextData(tmp_path, path=str(path), **SETTINGS).read()
    assert "\n" not in str(refusal.value)
    found = find_documents(path, Wanted(reading=Reading(skip_bad=True)))
    assert len(found.names) == count
    assert any(f"is damaged {told}" in note and "left out" in note for note in found.notes)
    assert any("1 of 7 files are left out: neg/3.txt" in note for note in found.notes) == (kind != "header")
    assert next(iter(found.texts())) == TEXTS["neg/0.txt"].decode(), "what is read is whole"
    kept = find_documents(path, Wanted(keep_bad=True))
    assert len(kept.problems) == (kind != "header")


def test_a_checksum_that_does_not_match_is_told(tmp_path: Path) -> None:
    path = damaged(tmp_path / "t.tar.gz", TEXTS, "checksum", "neg/3.txt")
    with pytest.raises(DataError, match=r"t\.tar\.gz is damaged at its end: CRC check failed"):
        TextData(tmp_path, path=str(path), **SETTINGS).read()


def test_a_sound_tar_is_not_damaged(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(packed(TEXTS))
    (tmp_path / "padded.tar").write_bytes(packed(TEXTS) + bytes(10240))
    (tmp_path / "unfinished.tar").write_bytes(packed(TEXTS).rstrip(b"\0"))
    (tmp_path / "t.tar.gz").write_bytes(gzip.compress(packed(TEXTS)))
    for name in ("t.tar", "padded.tar", "t.tar.gz"):
        assert ArchiveOrFolder(tmp_path / name).listing().damages == []
        assert len(find_documents(tmp_path / name).names) == 12


def images(size: int = 32) -> dict[str, bytes]:
    rng, files = np.random.default_rng(0), {}
    for n in range(16):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(stream, "png")
        files[f"{'cats' if n % 2 else 'dogs'}/{n}.png"] = stream.getvalue()
    return files


@pytest.mark.parametrize(("kind", "count"), [("header", 15), ("cut", 13)])
def test_images_of_a_damaged_tar_are_left_out_and_told(kind: str, count: int, tmp_path: Path) -> None:
    path = damaged(tmp_path / "t.tar", images(), kind, "cats/13.png")
    with pytest.raises(DataError, match=r"t\.tar is damaged a(t|fter) (cats/13|dogs/12)\.png"):
        ImageData(tmp_path, path=str(path), size=32, valid=0.4).read()
    table = ImageData(tmp_path, path=str(path), size=32, valid=0.4, skip_bad=True).read()
    assert int((table.split != UNUSED).sum()) == count
    assert any("is damaged" in note for note in table.notes)
    assert any("13.png cannot be read" in note for note in table.notes) == (kind == "cut")


def test_masks_of_a_damaged_tar_are_left_out_and_told(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) // 16, (32, 1))).save(stream, "png")
    files = {name.replace("cats", "images").replace("dogs", "images"): content for name, content in images().items()}
    files |= {name.replace("images", "masks"): stream.getvalue() for name in files}
    path = damaged(tmp_path / "t.tar", files, "header", "masks/5.png")
    settings: dict[str, Any] = {"path": str(path), "source": "real", "size": [32, 32], "valid": 0.4}
    with pytest.raises(DataError, match=r"t\.tar is damaged after masks/4\.png"):
        SegmentationData(tmp_path, **settings).read()
    table = SegmentationData(tmp_path, skip_bad=True, **settings).read()
    assert len(table.split) == 15
    assert any("images/5.png has no mask" in note for note in table.notes)


@pytest.mark.parametrize("name", ["texts.TAR", "Texts.Tar.gz", "TEXTS.TGZ"])
def test_the_suffix_of_an_archive_may_be_in_capitals(here: Path, name: str) -> None:
    content = packed(TEXTS)
    (here / name).write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    table = TextData(here, path=name, **SETTINGS).read()
    assert len(table.names) == len(TEXTS)
