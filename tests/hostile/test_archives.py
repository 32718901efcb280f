"""Archives and compressed files of any make: what is in them is read, nothing else, and no more than fits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlrunner.data.core import unpacking
from dlrunner.data.core.source import ArchiveOrFolder, place_of
from dlrunner.data.tables.table import read_table
from dlrunner.data.texts.documents import find_documents
from dlrunner.errors import DataError, DlrunnerError
from tests.conftest import QUICK, Dlrun

NAMES = (
    "/etc/evil.txt",
    "../../evil.txt",
    "a/../../evil.txt",
    "..\\evil.txt",
    "C:\\evil.txt",
    "//evil.txt",
    "~/evil.txt",
)

OPENED: dict[str, Any] = {"a.csv.gz": gzip.open, "b.csv.bz2": bz2.open, "c.csv.xz": lzma.open}


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "ROOM", 2**20)


def add(
    archive: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    archive.addfile(member, io.BytesIO(content))


def contents(path: Path) -> dict[str, bytes]:
    place = ArchiveOrFolder(path)
    return place.read_all(place.names())


def everything(here: Path) -> set[Path]:
    return {path for path in here.parent.rglob("*") if "cache" not in path.parts}


def test_names_in_an_archive_lead_nowhere(here: Path) -> None:
    with zipfile.ZipFile("a.zip", "w") as packed:
        for name in (*NAMES, "good.txt"):
            packed.writestr(name, "text")
    with tarfile.open("a.tar.gz", "w:gz") as archive:
        for name in (*NAMES, "good.txt"):
            add(archive, name, b"text")
    before = everything(here)
    for name in ("a.zip", "a.tar.gz"):
        place = ArchiveOrFolder(here / name)
        assert set(contents(here / name).values()) == {b"text"}
        assert place.read("good.txt") == b"text"
    assert everything(here) == before


def test_links_and_devices_in_an_archive_are_not_followed(here: Path) -> None:
    (here / "secret").write_text("secret")
    with tarfile.open("a.tar", "w") as archive:
        add(archive, "good.txt", b"text")
        add(archive, "a.txt", kind=tarfile.SYMTYPE, link=str(here / "secret"))
        add(archive, "b.txt", kind=tarfile.LNKTYPE, link=str(here / "secret"))
        add(archive, "c.txt", kind=tarfile.SYMTYPE, link="../../secret")
        add(archive, "d.txt", kind=tarfile.FIFOTYPE)
        add(archive, "e.txt", kind=tarfile.CHRTYPE)
        add(archive, "folder", kind=tarfile.SYMTYPE, link="/")
        add(archive, "folder/f.txt", b"text")
    assert contents(here / "a.tar") == {
        "folder/f.txt": b"text",
        "good.txt": b"text",
    }
    with zipfile.ZipFile("a.zip", "w") as packed:
        link = zipfile.ZipInfo("a.txt")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, str(here / "secret"))
    assert ArchiveOrFolder(here / "a.zip").read("a.txt") == str(here / "secret").encode()


def bombs(here: Path) -> Iterator[Path]:
    """Yield compressed files that unpack to 20 MB."""
    zeros, line = bytes(2**20), b"a,b\n1,2\n"
    for name, opened in OPENED.items():
        with opened(here / name, "wb") as file:
            file.write(line)
            for _ in range(20):
                file.write(zeros)
        yield here / name
    with zipfile.ZipFile(here / "d.csv.zip", "w", zipfile.ZIP_DEFLATED) as packed, packed.open("d.csv", "w") as file:
        for _ in range(20):
            file.write(zeros)
    yield here / "d.csv.zip"


def test_a_table_that_is_a_bomb_is_told(here: Path) -> None:
    for path in bombs(here):
        with pytest.raises(DataError, match="unpacks to"):
            read_table(path)


def test_an_archive_that_is_a_bomb_is_told(here: Path) -> None:
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as packed, packed.open("train/x.txt", "w") as file:
        for _ in range(20):
            file.write(bytes(2**20))
    with tarfile.open("a.tar.gz", "w:gz", compresslevel=9) as archive:
        member = tarfile.TarInfo("train/x.txt")
        member.size = 20 * 2**20
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    for name in ("a.zip", "a.tar.gz"):
        with pytest.raises(DataError, match="unpacks to"):
            contents(here / name)
        with pytest.raises(DataError, match="unpacks to"):
            list(ArchiveOrFolder(here / name).contents(["train/x.txt"]))
    with gzip.open("texts.txt.gz", "wb") as texts:
        for _ in range(20):
            texts.write(b"a" * 2**20)
    with pytest.raises(DataError, match="unpacks to"):
        find_documents(here / "texts.txt.gz", None)


def test_a_bomb_is_not_told_as_a_batch_that_is_too_large(dlrun: Dlrun, here: Path) -> None:
    path = next(bombs(here))
    status, _, err = dlrun("task=tabular", f"data.path={path.name}", "data.target=b", "epochs=1", *QUICK)
    assert status == 1
    assert "unpacks to" in err
    assert "batch_size" not in err


def test_what_does_not_fit_into_memory_is_told_of_the_data(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "a.csv").write_text("a,b\n1,2\n")
    with zipfile.ZipFile("a.zip", "w") as packed:
        packed.writestr("a.txt", "text")

    def full(*given: object, **named: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dlrunner.data.tables.files.open_text", full)
    monkeypatch.setattr(zipfile.ZipFile, "read", full)
    with pytest.raises(DataError, match="not fit into the memory"):
        read_table(here / "a.csv")
    with pytest.raises(DataError, match="not fit into the memory"):
        ArchiveOrFolder(here / "a.zip").read("a.txt")


def test_what_is_packed_well_is_no_bomb(here: Path) -> None:
    text = "a,b\n" + "1,2\n" * 100_000
    for name, opened in OPENED.items():
        with opened(here / name, "wt") as file:
            file.write(text)
        assert len(read_table(here / name).frame) == 100_000
    with zipfile.ZipFile("d.csv.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("d.csv", text)
    assert len(read_table(here / "d.csv.zip").frame) == 100_000


def test_archives_with_any_damage_are_told_in_a_sentence(here: Path) -> None:
    chance = random.Random(0)
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a/train.csv", "a,b\n1,2\n" * 50)
        packed.writestr("a/b.txt", "text" * 50)
    with tarfile.open("a.tar.gz", "w:gz") as archive:
        add(archive, "a/train.csv", b"a,b\n1,2\n" * 50)
        add(archive, "a/b.txt", b"text" * 50)
    with gzip.open("t.csv.gz", "wb") as table:
        table.write(b"a,b\n1,2\n" * 50)
    for name in ("a.zip", "a.tar.gz", "t.csv.gz"):
        whole = (here / name).read_bytes()
        for number in range(120):
            content = bytearray(whole)
            for _ in range(chance.randrange(1, 4)):
                content[chance.randrange(len(content))] = chance.randrange(256)
            path = here / f"{number}{name[1:] if name[0] == 'a' else '.csv.gz'}"
            path.write_bytes(content[: chance.randrange(len(content))] if number % 3 == 0 else content)
            try:
                if name == "t.csv.gz":
                    read_table(path)
                elif place := place_of(path, "train.csv"):
                    place.read_all(place.names())
                    place.has("b.txt")
                    list(place.contents(place.names()))
            except DlrunnerError:
                pass
            path.unlink()
