"""The files in zip and tar archives; links in them are never followed."""

from __future__ import annotations

import contextlib
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from dlrunner.data.core.folders import Listing
from dlrunner.data.core.unpacking import refuse_bomb

UTF_8 = 0x800
"""The flag of a zip file's name in UTF-8."""
LINK = "is a link in an archive"
DAMAGED_TAR = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)
"""What reading a tar archive raises, compressed or not."""


def is_tar(path: Path) -> bool:
    """Tell by its name whether an archive is a tar file."""
    return path.name.lower().endswith((".tgz", ".tar.gz", ".tar"))


def list_archive(path: Path) -> Listing:
    """List the files in an archive, in its own order; of a damaged tar archive those that can be found."""
    links: list[str] = []
    if is_tar(path):
        damages: list[str] = []
        with tarfile.open(path) as archive:
            names = [_name(member) for member in _files_of(path, archive, links, damages)]
        return Listing(names, dict.fromkeys(links, LINK), damages)
    with zipfile.ZipFile(path) as packed:
        names = []
        for member in packed.infolist():
            if not member.is_dir():
                (links if stat.S_ISLNK(member.external_attr >> 16) else names).append(zip_name(member))
    return Listing(names, dict.fromkeys(links, LINK))


def read_archive(path: Path, wanted: Callable[[str], bool], count: int = -1) -> dict[str, bytes]:
    """Return the content of those files in an archive whose names are wanted, or their first `count` bytes."""
    if is_tar(path):
        found: dict[str, bytes] = {}
        for name, content in read_tar(path, wanted, count):
            if isinstance(content, Exception):
                raise content
            found[name] = content
        return found
    with zipfile.ZipFile(path) as packed:
        members = {name: member for member in packed.infolist() if wanted(name := zip_name(member))}
        if count < 0:
            refuse_bomb(path, sum(member.file_size for member in members.values()))
            return {name: packed.read(member) for name, member in members.items()}
        heads = {}
        for name, member in members.items():
            with packed.open(member) as stream:
                heads[name] = stream.read(count)
        return heads


def zip_name(member: zipfile.ZipInfo) -> str:
    """Return the path of a file in a zip archive; names without the flag of UTF-8 that are UTF-8 are read as such.

    macOS and Info-ZIP leave the flag out, and Python takes such names for DOS's code page 437.
    """
    if not member.flag_bits & UTF_8:
        with contextlib.suppress(UnicodeError):
            return member.filename.encode("cp437").decode()
    return member.filename


def read_tar(path: Path, wanted: Callable[[str], bool], count: int = -1) -> Iterator[tuple[str, bytes | Exception]]:
    """Yield the content of wanted files in a tar archive; in place of one that is damaged, the error."""
    with tarfile.open(path) as archive:
        for member in _files_of(path, archive, [], []):
            name = _name(member)
            if not wanted(name):
                continue
            try:
                file = archive.extractfile(member)
                assert file is not None
                content = file.read(count)
                if len(content) < (member.size if count < 0 else min(count, member.size)):
                    raise tarfile.ReadError("unexpected end of data")
                yield name, content
            except DAMAGED_TAR as error:
                yield name, error


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")


def _files_of(path: Path, archive: tarfile.TarFile, links: list[str], damages: list[str]) -> Iterator[tarfile.TarInfo]:
    """Yield the files of a tar archive; links and devices are never followed.

    Nothing is written under the names in an archive, so absolute ones and those with .. are harmless.

    Args:
        path: of the archive.
        archive: the open archive.
        links: is extended by the names of links.
        damages: is extended by where the archive is damaged and why: files may be lost there.
    """
    last, where = "", ""
    while True:
        try:
            member = archive.next()
            if member is None:
                if not _skip_damage(archive):
                    break
                if where != last:  # one sentence for all blocks between two files
                    damages.append(f"after {last}: what follows is no file of an archive")
                    where = last
                continue
        except DAMAGED_TAR as error:
            if not last:
                raise
            damages.append(f"at {last}: {error or type(error).__name__}")
            return
        refuse_bomb(path, member.offset_data + member.size)
        last = _name(member)
        if member.isreg():
            yield member
        elif member.issym() or member.islnk():
            links.append(last)
    try:
        while archive.fileobj is not None and archive.fileobj.read(2**20):  # to its checksum, if it is compressed
            pass
    except DAMAGED_TAR as error:
        damages.append(f"at its end: {error or type(error).__name__}")


def _skip_damage(archive: tarfile.TarFile) -> bool:
    """Go on behind a block of a tar archive that is no header; False where it ends."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    block = archive.fileobj.read(tarfile.BLOCKSIZE)
    if not block.strip(b"\0"):
        return False
    archive.offset += tarfile.BLOCKSIZE
    return len(block) == tarfile.BLOCKSIZE
