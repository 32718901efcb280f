"""Published data: in the data folder as an archive or unpacked, or downloaded from its publisher."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dlrunner.data.core.archives import is_tar, list_archive, read_archive, read_tar, zip_name
from dlrunner.data.core.cache import cache_dir, remembered, sha256_of, write_sealed
from dlrunner.data.core.checked import read_sealed
from dlrunner.data.core.folders import Listing, list_files
from dlrunner.data.core.unpacking import refuse_bomb
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import not_found

DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(EOFError, OSError, UnicodeDecodeError, RuntimeError),
)
"""What the readers of archives raise; the last is a zip file's: a password, or an unknown compression."""
ARCHIVES = (".zip", ".tgz", ".tar.gz", ".tar")
DELAY = 0.1
"""Seconds before a download shows its progress bar."""


@dataclass(frozen=True)
class Release:
    """One published release of a data set."""

    name: str
    title: str
    layouts: tuple[str, ...]
    """Files that identify the release, inside its archive or folder."""
    archives: tuple[str, ...]
    """Names under which the archive is searched for."""
    terms: str
    home: str
    url: str | None = None
    sha256: str | None = None
    """Of the archive at `url`."""
    suffix: str = ".zip"
    """Of the archive as it is published."""
    sha256_of_layout: str | None = None
    """Of the first layout file, to distinguish releases with the same file names."""
    generator: str | None = None
    """The function that writes the files of generated data into an empty folder, `module.function`."""


class Unreadable(bytes):
    """In place of the content of a file that cannot be read: no bytes, and the reason."""

    reason: str

    @classmethod
    def because(cls, error: Exception) -> Unreadable:
        """Return it for an error of reading."""
        content = cls()
        content.reason = f"cannot be read ({getattr(error, 'strerror', None) or str(error) or type(error).__name__})"
        return content


@dataclass(frozen=True)
class ArchiveOrFolder:
    """A folder, or an archive (zip, tar.gz), with the files of a data set; `prefix` is the folder inside it."""

    path: Path
    prefix: str = ""

    @property
    def is_archive(self) -> bool:
        """Whether it is an archive."""
        return self.path.is_file()

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            DataError: the archive is truncated, or the file is not in it.
        """
        return self.read_all([name])[name]

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of files by name; a tar archive is unpacked once for all of them.

        Raises:
            DataError: the archive is truncated, or files are missing.
        """
        with _readable_errors(self.path):
            if self.is_archive:
                wanted = {self.prefix + name for name in names}
                found = read_archive(self.path, wanted.__contains__)
                found = {name.removeprefix(self.prefix): content for name, content in found.items()}
            else:
                found = {name: (self.path / name).read_bytes() for name in names if (self.path / name).is_file()}
        missing = [name for name in names if name not in found]
        if missing:
            raise DataError(f"{self.path} has no {', '.join(self.prefix + name for name in missing)}")
        return found

    def contents(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yield the content of files one after the other, or `Unreadable`; only a tar archive is held in memory.

        Raises:
            DataError: the archive is truncated.
        """
        with _readable_errors(self.path):
            if not self.is_archive:
                yield from (content_of((self.path / name).read_bytes) for name in names)
            elif is_tar(self.path):
                found = dict(read_tar(self.path, {self.prefix + name for name in names}.__contains__))
                for name in names:
                    content = found[self.prefix + name]
                    yield Unreadable.because(content) if isinstance(content, Exception) else content
            else:
                with zipfile.ZipFile(self.path) as archive:
                    members = {zip_name(member): member for member in archive.infolist()}
                    for name in names:
                        member = members[self.prefix + name]
                        refuse_bomb(self.path, member.file_size)
                        yield content_of(functools.partial(archive.read, member))

    def listing(self) -> Listing:
        """Return the paths of all files below this folder, and the links that were not followed: in archives all."""
        with _readable_errors(self.path):
            if not self.is_archive:
                return list_files(self.path)
            start, found = len(self.prefix), _files_in(self.path)
            names = [name[start:] for name in found.names if name.startswith(self.prefix)]
            skipped = {n[start:]: why for n, why in found.skipped.items() if n.startswith(self.prefix)}
            return Listing(names, skipped, found.damages)

    def damage_notes(self, skip_bad: bool) -> list[str]:
        """Return a note on a damaged tar archive, of which files may be lost.

        Raises:
            DataError: it is damaged, and bad files are not left out.
        """
        damages = self.listing().damages
        if not damages:
            return []
        more = f"; {len(damages):,} such places in all" if len(damages) > 1 else ""
        problem = f"{self.path} is damaged {damages[0]}{more}"
        if not skip_bad:
            raise DataError(f"{problem} (data.skip_bad=true reads its other files)")
        return [f"{problem}: the files that cannot be found there are left out (data.skip_bad)"]

    def names(self) -> list[str]:
        """Return the paths of all files below this folder."""
        return self.listing().names

    def heads(self, names: Sequence[str], count: int) -> dict[str, bytes]:
        """Return the first bytes of files by name.

        Raises:
            DataError: the archive is truncated.
        """
        with _readable_errors(self.path):
            if not self.is_archive:
                return {name: _head(self.path / name, count) for name in names}
            wanted = {self.prefix + name for name in names}.__contains__
            if is_tar(self.path):  # damage is reported when the content is read
                heads = dict(read_tar(self.path, wanted, count)) if names else {}
                found = {name: b"" if isinstance(head, Exception) else head for name, head in heads.items()}
            else:
                found = read_archive(self.path, wanted, count)
            return {name.removeprefix(self.prefix): content for name, content in found.items()}

    def digest_where(self, wanted: Callable[[str], bool], key: str) -> str:
        """Return a digest of names and content of the files that are wanted, sorted, cached under a key."""
        return self.digest_of(sorted(name for name in self.names() if wanted(name)), key)

    def digest_of(self, names: Sequence[str], key: str) -> str:
        """Return a digest of names and content of files, cached under a key.

        A folder is read again if the size or the time of change of any of these files differs.

        Raises:
            DataError: the name of a file is not UTF-8 and could not be written to a table.
        """
        for name in names:
            if not _is_utf8(name):
                raise DataError(f"the name of {self.path / name} is not UTF-8; rename it (convmv renames many at once)")

        unreadable: list[str] = []

        def digest() -> bytes:
            whole = hashlib.sha256()
            for name, content in zip(names, self.contents(names), strict=True):
                if isinstance(content, Unreadable):
                    unreadable.append(name)
                    content = os.fsencode(content.reason)
                whole.update(os.fsencode(f"{name}\0{len(content)}\0") + content)
            return json.dumps(whole.hexdigest()).encode()

        if self.is_archive:
            listed = hashlib.sha256(os.fsencode("\n".join(names))).hexdigest()
            state = f"{sha256_of(self.path)} {listed}"
        else:
            states = ((name, (self.path / name).stat()) for name in names)
            lines = [f"{name} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for name, s in states]
            state = hashlib.sha256(os.fsencode("\n".join([str(self.path.resolve()), *lines]))).hexdigest()
        found: str = json.loads(remembered(f"{key} {self.prefix} {state}", digest, lambda: not unreadable))
        return found

    def has(self, name: str) -> bool:
        """Return whether a file exists."""
        if self.is_archive:
            try:
                return self.prefix + name in _files_in(self.path).names
            except DAMAGED:
                return False
        return (self.path / name).is_file()

    def digest(self, names: Sequence[str]) -> str:
        """Return one digest of the files that exist."""
        if not self.is_archive:
            digests = {name: sha256_of(self.path / name) for name in names if self.has(name)}
        else:
            there = set(_files_in(self.path).names)
            digests = self._digests([name for name in names if self.prefix + name in there])
        parts = [f"{name} {digests[name]}" for name in names if name in digests]
        return hashlib.sha256(os.fsencode("\n".join(parts))).hexdigest()

    def sha256(self, name: str) -> str:
        """Return the sha256 of a file: of its content, so that archive and unpacked folder agree."""
        return self._digests([name])[name] if self.is_archive else sha256_of(self.path / name)

    def _digests(self, names: Sequence[str]) -> dict[str, str]:
        """Return the sha256 of files in an archive, cached."""
        memory = cache_dir() / "sha256" / f"{sha256_of(self.path)[:32]}.files"
        known: dict[str, str] = json.loads(read_sealed(memory) or b"{}")
        unknown = [name for name in names if name not in known]
        if unknown:
            known |= {name: hashlib.sha256(content).hexdigest() for name, content in self.read_all(unknown).items()}
            with contextlib.suppress(OSError):  # a cache that cannot be written is only slower
                write_sealed(memory, json.dumps(known).encode())
        return known


def content_of(read: Callable[[], bytes]) -> bytes:
    """Return what is read, or `Unreadable`."""
    try:
        return read()
    except DAMAGED as error:
        return Unreadable.because(error)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Turn the errors of archives into a DataError."""
    try:
        yield
    except MemoryError:
        raise DataError(f"the requested files of {path} do not fit into the memory of this machine") from None
    except DAMAGED as error:
        raise DataError(f"{path} is damaged or cannot be read ({error}); download it again") from None


def place_of(path: Path, layout: str, may_be_damaged: bool = False) -> ArchiveOrFolder | None:
    """Return the location of the file `layout`: in this folder or archive, or in its only sub-folder.

    Raises:
        DataError: it is no archive, or a tar archive is damaged (unless it may be).
    """
    if path.is_dir():
        candidates = [path, *sorted(p for p in path.iterdir() if p.is_dir())]
        return next((ArchiveOrFolder(p) for p in candidates if (p / layout).is_file()), None)
    try:
        listing = _files_in(path)
    except DAMAGED as error:
        raise DataError(f"{path} is damaged or not an archive ({error}); download it again") from None
    if listing.damages and not may_be_damaged:
        raise DataError(f"{path} is damaged {listing.damages[0]}; download it again")
    inside = [name for name in listing.names if name == layout or name.endswith(f"/{layout}")]
    return ArchiveOrFolder(path, min(inside, key=len)[: -len(layout)]) if inside else None


def given_place(path: Path, layout: str, hint: str) -> ArchiveOrFolder:
    """Return the location of the file `layout` at the path that the user gives.

    Args:
        path: `data.path`, an archive or a folder.
        layout: see `place_of`.
        hint: what to do if there is no such file, for the message.

    Raises:
        ConfigError: there is nothing at the path.
        DataError: it has no such file, or is damaged.
    """
    if not path.exists():
        raise ConfigError(f"data.path: {not_found(path, 'file or folder')}")
    place = place_of(path, layout)
    if place is None:
        raise DataError(f"data.path: {path} has no {layout}; {hint}")
    return place


def _head(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:  # reported when its content is read
        return b""


def _files_in(path: Path) -> Listing:
    """List the files in an archive, cached: a tar archive must be unpacked for it."""
    status = path.stat()
    return _list_archive(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _list_archive(path: Path, size: int, time: int) -> Listing:
    if not is_tar(path):
        return list_archive(path)
    found = json.loads(
        remembered(f"files and damages {sha256_of(path)}", lambda: json.dumps(asdict(list_archive(path))).encode())
    )
    return Listing(**found)


def find(data_dir: Path, releases: Sequence[Release]) -> tuple[Release, ArchiveOrFolder] | None:
    """Search the data folder for releases, in order.

    Raises:
        DataError: an archive is damaged.
    """
    for release in releases:
        for name in release.archives:
            for path in (*(data_dir / f"{name}{suffix}" for suffix in ARCHIVES), data_dir / name):
                if not path.exists():
                    continue
                place = place_of(path, release.layouts[0])
                if place is None:
                    continue
                wanted = release.sha256_of_layout
                if wanted is None or place.sha256(release.layouts[0]) == wanted:
                    return release, place
    return None


def download(release: Release, data_dir: Path) -> ArchiveOrFolder:
    """Download a release from its publisher into the data folder and verify its pinned sha256.

    Raises:
        DataError: no network, a time-out, a hash mismatch, or an archive without a download.
    """
    if release.url is None or release.sha256 is None:
        raise DataError(f"{release.title} cannot be downloaded unattended; get it at {release.home}")
    if os.environ.get("DLRUNNER_OFFLINE"):
        raise DataError("downloads are switched off by DLRUNNER_OFFLINE")
    import pooch  # imported when work begins: it takes a tenth of a second
    from tqdm import tqdm

    pooch.get_logger().setLevel("ERROR")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # Pooch sets the total; a bar without one cannot be tested for truth. None: only in a terminal.
        with tqdm(
            desc=release.title, total=1, unit="B", unit_scale=True, leave=False, delay=DELAY, disable=None
        ) as bar:
            fetched = pooch.retrieve(
                release.url,
                known_hash=f"sha256:{release.sha256}",
                fname=f"{release.archives[0]}{release.suffix}",
                path=data_dir,
                downloader=pooch.HTTPDownloader(progressbar=bar, timeout=5),
            )
    except Exception as error:  # requests, urllib3 and pooch raise a dozen kinds
        with contextlib.suppress(OSError):
            data_dir.rmdir()  # only if it is empty: it was made for this download
        reason = str(error) if "hash" in str(error) else f"no network? {type(error).__name__}"
        raise DataError(f"{release.title} could not be downloaded from {release.home} ({reason})") from None
    place = place_of(Path(fetched), release.layouts[0])
    if place is None:
        raise DataError(f"{fetched} has no {release.layouts[0]}")
    return place
