"""Archives as data that lead elsewhere, are larger than they look, or are damaged: read safely, or refused in a sentence.

Nothing is written by the names in them, no link in them is followed, and what they unpack to has bounds.
"""

from __future__ import annotations

import base64
import gzip
import io
import os
import random
import resource
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hostile.harness import ArchiveOrFolder, Failure, check, shared_value
from tests.hostile.samples import TRAINED, WITHOUT_PAGES, write_samples

LONGEST = 60.0
MEMORY = 8 * 2**30
SECRET = "neighbours7391secret"
BOMB = 2 * 2**30
"""Bytes that a bomb unpacks to."""

KINDS: dict[str, tuple[str, ...]] = {
    "language": ("texts",),
    "texts": ("texts",),
    "pictures": ("pictures",),
    "table": ("table.csv",),
    "ratings": ("ratings.csv",),
    "sales": ("sales",),
}
"""What is packed for each kind of data."""


def attempt(number: int, rng: random.Random, place: ArchiveOrFolder, shared: Path) -> Iterator[Failure]:
    """Train on one archive."""
    kind, (said, attack) = list(KINDS)[number % len(KINDS)], ATTACKS[number * 5 % len(ATTACKS)]
    form = rng.choice(("zip", "tar.gz"))
    data: Path = shared_value(shared, "data", _data)
    place.work.mkdir()
    place.canary.write_text(" ".join([SECRET] * 50))
    place.remember()
    archive = place.work / f"data.{form}"
    members = _members(data, KINDS[kind][0], place)
    if form == "zip":
        _write_zip(archive, members, attack, place)
    else:
        _write_tar(archive, members, attack, place)
    if said == "bomb":
        bomb: bytes = shared_value(shared, form.replace(".", "-"), lambda folder: _bomb(form))
        archive.write_bytes(bomb)
    elif said == "truncated":
        archive.write_bytes(archive.read_bytes()[: rng.randrange(archive.stat().st_size)])
    elif said == "flipped bits":
        content = bytearray(archive.read_bytes())
        for _ in range(20):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        archive.write_bytes(bytes(content))
    elif said == "the other format":
        archive = archive.rename(place.work / ("data.tar.gz" if form == "zip" else "data.zip"))
    if form == "tar.gz" and kind in ("table", "ratings"):  # a compressed table is one file
        archive = place.work / "data.csv.gz"
        archive.write_bytes(
            shared_value(shared, "gz", lambda folder: _zeros(BOMB))
            if said == "bomb"
            else _compressed(rng, data / KINDS[kind][0])
        )
    words = [word for word in TRAINED[kind] if not word.startswith("data.path=")]
    words += [f"data.path={archive.name}", "epochs=1", *WITHOUT_PAGES]
    where = f"{kind} from {archive.name}, {said}"
    before = set(place.work.iterdir())
    done = place.run(*words, longest=LONGEST, before=_limit_memory)
    yield from check(done, (0, 1, 2), where)
    if "batch_size" in done.err.replace(" ".join(words), ""):
        yield Failure("differences", f"{where}: the batch size is blamed: {done.err[-300:]!r}")
    yield from _leaked(place, where)
    for failure in place.left(place.work, place.cache):
        yield Failure(failure.fault, f"{where}: {failure.text}")
    if found := [path.name for path in place.work.iterdir() if path not in before and path.name != "runs"]:
        yield Failure("outside", f"{where}: {', '.join(found)} in the working directory")


STRANGE = (
    "a\nb.txt",
    "\x1b[31m.png",
    "ü\u202e.txt",
    "CON.txt",
    " .png",
    "-rf.txt",
    "'\";$(touch x).png",
    "n" * 200 + ".txt",
)

Entry = tuple[str, bytes]
Attack = Callable[[list[Entry], ArchiveOrFolder], list[tuple[str, str, str | bytes]]]
"""Returns further members as their type (link, hard link, pipe, device, file), their name, and where they lead."""

ATTACKS: list[tuple[str, Attack]] = [
    ("a link out", lambda members, place: [("link", _beside(members), str(place.canary))]),
    ("a relative link out", lambda members, place: [("link", _beside(members), "../" * 9 + str(place.canary)[1:])]),
    ("bomb", lambda members, place: []),
    ("names with ..", lambda members, place: [("file", f"../../neighbour/x{_suffix(members)}", members[0][1])]),
    ("absolute names", lambda members, place: [("file", f"{place.neighbour}/y{_suffix(members)}", members[0][1])]),
    ("a hard link out", lambda members, place: [("hard link", _beside(members), str(place.canary))]),
    ("a link of a folder", lambda members, place: [("link", _folder(members), str(place.neighbour))]),
    ("a pipe", lambda members, place: [("pipe", _beside(members), "")]),
    ("a device", lambda members, place: [("device", _beside(members), "")]),
    ("links in a circle", lambda members, place: [("link", _beside(members), Path(_beside(members)).name)]),
    ("the same name twice", lambda members, place: [("file", members[0][0], members[-1][1])]),
    ("strange names", lambda members, place: [("file", _beside(members, name), members[0][1]) for name in STRANGE]),
    ("an archive inside", lambda members, place: [("file", _beside(members, "inner.zip"), b"PK\x05\x06" + bytes(18))]),
    ("truncated", lambda members, place: []),
    ("flipped bits", lambda members, place: []),
    ("the other format", lambda members, place: []),
    ("empty files", lambda members, place: [("file", _beside(members, f"e{n}{_suffix(members)}"), b"") for n in range(5)]),
]  # fmt: skip
COUNT = 2 * len(ATTACKS)


def _suffix(members: list[Entry]) -> str:
    return Path(members[0][0]).suffix


def _folder(members: list[Entry]) -> str:
    return f"{Path(members[0][0]).parent}/zz"


def _beside(members: list[Entry], name: str = "") -> str:
    return str(Path(members[0][0]).with_name(name or f"zz{_suffix(members)}"))


def _members(data: Path, name: str, place: ArchiveOrFolder) -> list[Entry]:
    root = data / name
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
    return [(str(path.relative_to(data)), path.read_bytes()) for path in files]


def _write_tar(archive: Path, members: list[Entry], attack: Attack, place: ArchiveOrFolder) -> None:
    types = {
        "link": tarfile.SYMTYPE,
        "hard link": tarfile.LNKTYPE,
        "pipe": tarfile.FIFOTYPE,
        "device": tarfile.CHRTYPE,
        "file": tarfile.REGTYPE,
    }
    with tarfile.open(archive, "w:gz") as tar:
        for kind, name, content in [*(("file", *member) for member in members), *attack(members, place)]:
            member = tarfile.TarInfo(name)
            member.type = types[kind]
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.linkname, member.devmajor, member.devminor = content, 1, 5  # /dev/zero
                tar.addfile(member)


def _write_zip(archive: Path, members: list[Entry], attack: Attack, place: ArchiveOrFolder) -> None:
    modes = {"link": 0o120777, "hard link": 0o120777, "pipe": 0o010644, "device": 0o020644, "file": 0o100644}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for kind, name, content in [*(("file", *member) for member in members), *attack(members, place)]:
            member = zipfile.ZipInfo(name)
            member.external_attr = modes[kind] << 16
            member.create_system = 3
            if name in file.namelist():
                member.compress_type = zipfile.ZIP_STORED
                file.NameToInfo.pop(name)  # it warns of a name that is there twice
            file.writestr(member, content)


def _zeros(size: int, chunk: int = 64 * 2**20) -> bytes:
    """Return what unpacks with gzip to so many zeros: parts that follow each other."""
    return gzip.compress(bytes(chunk), 9) * (size // chunk)


def _bomb(form: str) -> bytes:
    """Return an archive of a text, a table and a picture that unpack to gigabytes."""
    names = (
        "texts/x/a.txt",
        "a.csv",
        "ratings.csv",
        "table.csv",
        "pictures/a/0.png",
        "pictures/b/0.png",
        "sales/train.csv",
    )
    if form == "zip":
        with io.BytesIO() as made:
            with (
                zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive,
                archive.open(names[0], "w", force_zip64=True) as file,
            ):
                for _ in range(BOMB // 2**24):
                    file.write(bytes(2**24))
            return made.getvalue()
    parts = []
    for name in names:
        member = tarfile.TarInfo(name)
        member.size = BOMB
        parts += [gzip.compress(member.tobuf()), _zeros(BOMB)]
    return b"".join([*parts, gzip.compress(bytes(1024))])


def _compressed(rng: random.Random, table: Path) -> bytes:
    content = gzip.compress(table.read_bytes())
    return rng.choice(
        (content[: len(content) // 2], content + b"x", content + content, zlib.compress(b"x"), b"", content)
    )


def _leaked(place: ArchiveOrFolder, where: str) -> Iterator[Failure]:
    """Tell whether what a link in the archive leads to was read."""
    secrets = (SECRET.encode(), base64.b64encode(SECRET.encode()))
    for folder in (place.work / "runs", place.cache):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and any(secret in path.read_bytes() for secret in secrets):
                yield Failure("outside", f"{where}: {path.name} holds what a link leads to")


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _data(folder: Path) -> Path:
    write_samples(folder)
    for number, line in enumerate((folder / "texts.txt").read_text().splitlines()):
        path = folder / "texts" / "xy"[number % 2] / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line)
    return Path(os.fspath(folder))
