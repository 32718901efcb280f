"""The files below a folder, and their class and split from the folders they are in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dlrunner.errors import DataError

LEFTOVERS = ("thumbs.db", "desktop.ini")
"""Files that Windows leaves in folders."""
MOST_SHOWN = 3
"""Examples in a note."""

_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
PARTS = {name: part for part, names in _NAMES.items() for name in names}
"""The split of a folder of this name."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder or archive."""

    names: list[str] = field(default_factory=list)
    """Paths below the folder, sorted."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Links and folders that were not followed or opened, with the reason."""
    damages: list[str] = field(default_factory=list)
    """Where a tar archive is damaged and why: files may be lost there."""


def list_files(root: Path) -> Listing:
    """List the files below a folder; symbolic links are followed, but not those to a folder that they are in."""
    found = Listing()
    status = root.stat()
    _list(str(root), "", ((status.st_dev, status.st_ino),), found)
    found.names.sort()
    return found


def _list(folder: str, prefix: str, above: tuple[tuple[int, int], ...], found: Listing) -> None:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        found.skipped[prefix.rstrip("/")] = f"cannot be opened ({error.strerror})"
        return
    for entry in listed:
        name = prefix + entry.name
        try:
            if entry.is_file():
                found.names.append(name)
            elif entry.is_dir():
                status = entry.stat()
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    found.skipped[name] = "is a link to a folder that it is in"
                else:
                    _list(entry.path, f"{name}/", (*above, identity), found)
            elif entry.is_symlink():
                found.skipped[name] = "is a link to nothing"
        except OSError as error:  # a link to itself
            found.skipped[name] = f"cannot be opened ({error.strerror})"


def is_hidden(name: str) -> bool:
    """Tell whether a path is what systems leave behind: .cache/, @eaDir/, __MACOSX/, Thumbs.db.

    >>> is_hidden("a/.cache/b.txt"), is_hidden("a/b.txt")
    (True, False)
    """
    path = PurePosixPath(name)
    return path.name.lower() in LEFTOVERS or any(part.startswith((".", "@", "__MACOSX")) for part in path.parts)


def counted(names: Sequence[str], what: str) -> str:
    """Write how many there are, and the first of them.

    >>> counted(["a.jpg"], "image"), counted(["a", "b", "c", "d"], "label")
    ('1 image (a.jpg)', '4 labels (a, b, c …)')
    """
    shown = ", ".join(names[:MOST_SHOWN]) + " …" * (len(names) > MOST_SHOWN)
    return f"{len(names):,} {what}{'s' * (len(names) > 1)} ({shown})"


def skipped_notes(skipped: Mapping[str, str]) -> list[str]:
    """Return notes on links and folders that were not followed or opened, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        reasons.setdefault(reason, []).append(name)
    return [f"not read: {counted(names, 'path')}, which {reason}" for reason, names in reasons.items()]


def check_parts(names: Sequence[str], skipped: Mapping[str, str], place: Path) -> None:
    """Check that what validates or tests is not trained on because the folder train/ is missing.

    Raises:
        DataError: there are valid/ or test/ alone, or a folder of a split cannot be read.
    """
    for name, reason in skipped.items():
        if name.lower() in PARTS:
            raise DataError(f"{place}: {name} {reason}")
    tops = {path.parts[0] for path in map(PurePosixPath, names) if len(path.parts) > 1}
    if tops and all(PARTS.get(top.lower(), "train") != "train" for top in tops):
        folders = " and ".join(f"{top}/" for top in sorted(tops))
        raise DataError(
            f"{place} has {folders} but no train/: validation files would be trained on "
            f"(data.path={place / min(tops)} trains on those of {min(tops)}/)"
        )


def labels_and_parts(names: Sequence[str]) -> tuple[list[str], list[str | None] | None]:
    """Return each file's folder, and for files below folders train, valid or test the name of that split.

    The splits are None if no folder is for validation or test.

    >>> labels_and_parts(["train/pos/1.txt", "test/neg/2.txt", "3.txt"])
    (['pos', 'neg', ''], ['train', 'test', None])
    >>> labels_and_parts(["pos/1.txt", "neg/2.txt"])
    (['pos', 'neg'], None)
    """
    parents = [PurePosixPath(name).parent.parts for name in names]
    parts = [PARTS.get(parent[0].lower()) if parent else None for parent in parents]
    labels = [parent[-1] if parent else "" for parent in parents]
    if "train" in parts:  # train/ is not a class
        labels = ["" if part and len(p) == 1 else label for label, p, part in zip(labels, parents, parts, strict=True)]
    return labels, parts if "train" in parts and {"valid", "test"} & set(parts) else None
