"""The files in zip and tar archives; links in them are never followed."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from dlrunner.data.core.folders import Listing
from dlrunner.data.core.unpacking import refuse_bomb

LINK = "is a link in an archive"


def is_tar(path: Path) -> bool:
    """Tell by its name whether an archive is a tar file."""
    return path.name.endswith((".tgz", ".tar.gz", ".tar"))


def list_archive(path: Path) -> Listing:
    """List the files in an archive, in its own order."""
    links: list[str] = []
    if is_tar(path):
        with tarfile.open(path) as archive:
            names = [member.name.removeprefix("./") for member in _files_of(path, archive, links)]
    else:
        with zipfile.ZipFile(path) as packed:
            names = []
            for member in packed.infolist():
                if not member.is_dir():
                    (links if stat.S_ISLNK(member.external_attr >> 16) else names).append(member.filename)
    return Listing(names, dict.fromkeys(links, LINK))


def read_archive(path: Path, wanted: Callable[[str], bool], count: int = -1) -> dict[str, bytes]:
    """Return the content of those files in an archive whose names are wanted, or their first `count` bytes."""
    if is_tar(path):
        with tarfile.open(path) as archive:
            found = {}
            for member in _files_of(path, archive, []):
                name = member.name.removeprefix("./")
                file = archive.extractfile(member) if wanted(name) else None
                if file is not None:
                    found[name] = file.read(count)
            return found
    with zipfile.ZipFile(path) as packed:
        members = [member for member in packed.infolist() if wanted(member.filename)]
        if count < 0:
            refuse_bomb(path, sum(member.file_size for member in members))
            return {member.filename: packed.read(member) for member in members}
        heads = {}
        for each in members:
            with packed.open(each) as stream:
                heads[each.filename] = stream.read(count)
        return heads


def _files_of(path: Path, archive: tarfile.TarFile, links: list[str]) -> Iterator[tarfile.TarInfo]:
    """Yield the files of a tar archive; links, whose names are added to a list, and devices are never followed.

    Nothing is written under the names in an archive, so absolute ones and those with .. are harmless.
    """
    for member in archive:
        refuse_bomb(path, member.offset_data + member.size)
        if member.isreg():
            yield member
        elif member.issym() or member.islnk():
            links.append(member.name.removeprefix("./"))
