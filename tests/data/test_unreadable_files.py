"""A file that cannot be read is one sentence, or is left out with its path and a count."""

from __future__ import annotations

import ctypes
import gzip
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlrunner.data.images.dataset import ImageData
from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Reading, read_table
from dlrunner.data.texts.dataset import TextData
from dlrunner.data.texts.documents import Wanted, find_documents
from dlrunner.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def forbid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file unreadable, for root too."""
    read_bytes = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refused)


def with_damage(path: Path, files: dict[str, bytes], damaged: str) -> Path:
    """Write a zip archive of which one member has another content than its checksum says."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    whole = path.read_bytes()
    start = whole.index(files[damaged])
    path.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
    return path


def test_a_damaged_part_of_a_table_is_left_out_and_told(data: Path) -> None:
    (data / "1.csv.gz").write_bytes(gzip.compress(b"a,b\n1,x\n2,y\n"))
    (data / "2.csv.gz").write_bytes(gzip.compress(b"a,b\n" + bytes(range(48, 58)) * 500)[:40])
    (data / "3.csv").write_bytes(b"b,a\nz,3\n")
    (data / "4.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"2\.csv\.gz is damaged or cannot be read") as refusal:
        read_table(data)
    assert "\n" not in str(refusal.value)
    table = read_table(data, Reading(skip_bad=True))
    assert table.frame["a"].tolist() == [1, 2, 3]
    assert any(n.startswith("2 of 4 files are left out (data.skip_bad): ") and "2.csv.gz" in n for n in table.notes)
    assert len(TableFile(str(data), None, Reading(skip_bad=True)).identity().sha256) == 64
    for path in data.glob("[13]*"):
        path.unlink()
    with pytest.raises(DataError, match="no other file is left"):
        read_table(data, Reading(skip_bad=True))


READ_ALL = """
import sys
from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Reading, read_table
from dlrunner.errors import DataError

for path in sys.argv[1:]:
    for read in (lambda: read_table(path), TableFile(path, None, Reading()).identity):
        try:
            read()
        except DataError as error:
            print(str(error).replace(chr(10), " (a new line) "))
        else:
            print(path, "was read")
"""


def without_rights_of_root() -> None:
    """Take from a process that is started the right of root to open any file, so that it obeys permissions."""
    if os.geteuid() == 0:
        for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            assert ctypes.CDLL(None).prctl(24, right, 0, 0, 0) == 0  # PR_CAPBSET_DROP


@pytest.mark.slow  # a program as another user
@pytest.mark.skipif(sys.platform != "linux", reason="takes root's rights by a call of Linux")
def test_a_table_without_permission_is_one_sentence(data: Path) -> None:
    paths = [data / f"t.{kind}" for kind in ("csv", "csv.gz", "jsonl", "parquet", "xlsx", "db")]
    for path in paths:
        path.write_bytes(b"a,b\n1,2\n")
        path.chmod(0)
    command = [sys.executable, "-c", READ_ALL, *map(str, paths)]
    done = subprocess.run(command, preexec_fn=without_rights_of_root, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(paths)
    for path, of_table, of_identity in zip(paths, lines[::2], lines[1::2], strict=True):
        assert str(path) in of_table
        assert "cannot be read" in of_table
        assert "Permission denied" in of_identity
        assert "(a new line)" not in of_table + of_identity


@pytest.mark.parametrize("kind", ["csv", "jsonl", "xlsx"])
def test_a_table_that_the_system_refuses_to_open_is_one_sentence(
    kind: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / f"t.{kind}").write_bytes(b"a,b\n1,2\n")
    opened = Path.open

    def refused(path: Path, *arguments: Any, **keywords: Any) -> Any:
        if path.name == f"t.{kind}":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", refused)
    for read in (lambda: read_table(data / f"t.{kind}"), TableFile(str(data / f"t.{kind}"), None, Reading()).identity):
        with pytest.raises(DataError, match=rf"t\.{kind} is damaged or cannot be read: .*Permission denied") as refusal:
            read()
        assert "\n" not in str(refusal.value)
    if kind != "xlsx":
        good = {"csv": "a,b\n1,2\n", "jsonl": '{"a": 1, "b": 2}\n'}[kind]
        (data / f"u.{kind}").write_text(good)
        table = read_table(data, Reading(skip_bad=True))
        assert table.frame["a"].tolist() == [1]
        assert any("1 of 2 files are left out (data.skip_bad): " in n and f"t.{kind}" in n for n in table.notes)


def test_a_damaged_part_of_parquet_is_left_out_and_told(data: Path) -> None:
    read_table(Path(__file__).parent / "tables" / "corpus" / "ids_large.csv").frame.to_parquet(data / "1.parquet")
    (data / "2.parquet").write_bytes((data / "1.parquet").read_bytes()[:100])
    with pytest.raises(DataError, match=r"2\.parquet is damaged"):
        read_table(data)
    assert any("1 of 2 files are left out" in note for note in read_table(data, Reading(skip_bad=True)).notes)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_text_that_cannot_be_read_is_left_out_and_told(
    kind: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{label}/{n}.txt": f"{label} text number {n}".encode() for label in ("neg", "pos") for n in range(6)}
    bad = "pos/3.txt"
    if kind == "zip":
        path = with_damage(data / "t.zip", files, bad)
    else:
        path = data
        for name, content in files.items():
            (data / name).parent.mkdir(exist_ok=True)
            (data / name).write_bytes(content)
        (data / bad).rename(data / "pos/forbidden.txt")
        bad = "pos/forbidden.txt"
        forbid("forbidden.txt", monkeypatch)
    settings: dict[str, Any] = {"labels": True, "min_freq": 1, "tokenizer": "whitespace", "valid": 0.3}
    with pytest.raises(DataError, match=rf"{bad} cannot be read \(") as refusal:
        TextData(data, path=str(path), **settings).read()
    assert "\n" not in str(refusal.value)
    found = find_documents(path, Wanted(reading=Reading(skip_bad=True)))
    assert len(found.names) == 11
    assert any(f"1 of 12 files are left out: {bad} cannot be read" in note for note in found.notes)
    assert len(TextData(data, path=str(path), skip_bad=True, **settings).read().split) == 11
    kept = find_documents(path, Wanted(keep_bad=True))
    assert [row for row, _ in kept.problems] == [kept.names.index(bad)]
    assert list(kept.texts())[kept.names.index(bad)] == ""


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_an_image_that_cannot_be_read_is_left_out_and_told(
    kind: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for n in range(16):
        path = data / "in" / ("cats" if n % 2 else "dogs") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    place = data / "in"
    if kind == "zip":
        files = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*.png")}
        place = with_damage(data / "t.zip", files, "cats/3.png")
    else:
        forbid("3.png", monkeypatch)
    with pytest.raises(DataError, match=r"3\.png.*cannot be read \("):
        ImageData(data, path=str(place), size=32, valid=0.4).read()
    table = ImageData(data, path=str(place), size=32, valid=0.4, skip_bad=True).read()
    assert any("3.png" in note and "cannot be read" in note for note in table.notes)
    monkeypatch.undo()
    if kind == "folder":
        assert not any("3.png" in note for note in ImageData(data, path=str(place), size=32, valid=0.4).read().notes), (
            "not cached"
        )
