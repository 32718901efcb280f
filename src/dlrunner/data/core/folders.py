"""The files below a folder, and their class and split from the folders they are in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dlrunner.errors import DataError

LEFTOVERS = ("thumbs.db", "desktop.ini")
"""Files that Windows leaves in folders."""
OF_SYSTEMS = (
    *("__macosx", "$recycle.bin", "system volume information", "lost+found"),
    *("@eadir", "@tmp", "#recycle", "@recycle", "@recently-snapshot"),
)
"""Folders of macOS, Windows and Linux, and of the NAS devices of Synology and QNAP, in lower case."""
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

    >>> is_hidden("a/.cache/b.txt"), is_hidden("@eaDir/b.txt"), is_hidden("@mentions/b.txt")
    (True, True, False)
    """
    path = PurePosixPath(name)
    of_systems = any(part.startswith(".") or part.lower() in OF_SYSTEMS for part in path.parts)
    return of_systems or path.name.lower() in LEFTOVERS


def hidden_notes(names: Sequence[str], what: str) -> list[str]:
    """Return a note on files that could be used, but are hidden.

    Args:
        names: of these files.
        what: they are.
    """
    of_a_user = [name for name in names if not PurePosixPath(name).name.startswith("._")]  # macOS's, of any file
    return [f"not used, hidden or in a folder of the system: {counted(of_a_user, what)}"] if of_a_user else []


def counted(names: Sequence[str], what: str) -> str:
    """Write how many there are, and the first of them.

    >>> counted(["a.jpg"], "image"), counted(["a", "b", "c", "d"], "label")
    ('1 image (a.jpg)', '4 labels (a, b, c …)')
    """
    return f"{len(names):,} {what}{'s' * (len(names) > 1)} ({shortened(names)})"


def shortened(names: Sequence[str]) -> str:
    """List the first names."""
    return ", ".join(names[:MOST_SHOWN]) + " …" * (len(names) > MOST_SHOWN)


def skipped_notes(skipped: Mapping[str, str]) -> list[str]:
    """Return notes on links and folders that were not followed or opened, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        reasons.setdefault(reason, []).append(name)
    return [f"not read: {counted(names, 'path')}, which {reason}" for reason, names in reasons.items()]


def check_parts(names: Sequence[str], skipped: Mapping[str, str], place: Path) -> None:
    """Check that what validates or tests is not trained on because the folder train/ is missing.

    Raises:
        DataError: there are valid/ or test/ alone, at the top or in all class folders, or a folder of a split cannot
            be read.
    """
    outer = common_folders(names)
    within = "".join(f"{folder}/" for folder in outer)
    for name, reason in skipped.items():
        if name.removeprefix(within).lower() in PARTS:
            raise DataError(f"{place}: {name} {reason}")
    parents = [PurePosixPath(name).parent.parts[len(outer) :] for name in names]
    tops = {parent[0] for parent in parents if parent}
    if tops and all(PARTS.get(top.lower(), "train") != "train" for top in tops):
        folders = " and ".join(f"{top}/" for top in sorted(tops))
        raise DataError(
            f"{place} has {folders} but no train/: validation files would be trained on "
            f"(data.path={place.joinpath(*outer, min(tops))} trains on those of {min(tops)}/)"
        )
    if parents and all((_part(parent, 1) or "train") != "train" for parent in parents):
        inner = "/".join([*outer, *min(parents)[:2]])
        raise DataError(
            f"{place}: its folders have splits such as {inner}/, but none has a train/: validation files would be "
            "trained on (move them out of these folders to train on them)"
        )


def common_folders(names: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that all others with files are in, such as the one that an archive packs.

    >>> common_folders(["pets/cat/1.jpg", "pets/dog/2.jpg", "cover.jpg"]), common_folders(["cat/1.jpg", "cat/2.jpg"])
    (('pets',), ())
    """
    folders = {PurePosixPath(name).parent.parts for name in names}
    within: list[str] = []
    while True:
        depth = len(within)
        tops = {parts[depth] for parts in folders if len(parts) > depth}
        below = [parts for parts in folders if len(parts) > depth + 1]
        if len(tops) != 1 or len(below) < 2 or next(iter(tops)).lower() in PARTS:
            return tuple(within)
        within += tops


class ByFolder(NamedTuple):
    """What the folders of files say about them."""

    labels: list[str]
    """Each file's class; empty: it is in no class folder."""
    parts: list[str | None] | None
    """Each file's split, train, valid, test, or None; None if no folder is for validation or test."""
    notes: list[str]
    """On files whose folders may have been meant otherwise."""


def labels_and_parts(names: Sequence[str]) -> ByFolder:
    """Return each file's class, the first level of folders, and its split: train/, valid/, test/ above or below it.

    Deeper folders belong to the class that they are in, as with torchvision's ImageFolder and Keras.

    >>> labels_and_parts(["train/pos/1.txt", "test/neg/2.txt", "3.txt"])[:2]
    (['pos', 'neg', ''], ['train', 'test', None])
    >>> labels_and_parts(["pos/train/1.txt", "pos/test/2.txt", "neg/train/3.txt", "neg/test/4.txt"])[:2]
    (['pos', 'pos', 'neg', 'neg'], ['train', 'test', 'train', 'test'])
    >>> labels_and_parts(["pos/2023/1.txt", "neg/2023/2.txt"])
    ByFolder(labels=['pos', 'neg'], parts=None, notes=['classes are the first level of folders (neg, pos): the 2 \
folders in them (neg/2023, pos/2023) belong to the class that they are in'])
    """
    outer = len(common_folders(names))
    parents = [PurePosixPath(name).parent.parts[outer:] for name in names]
    above, below = [_part(parent, 0) for parent in parents], [_part(parent, 1) for parent in parents]
    found = below if "train" not in above and _is_split(below) else above
    # Without train/ a class may be called test or dev.
    is_above = found is above and "train" in above
    starts = [1 if is_above and part else 0 for part in above]
    ends = [2 if found is below and part else start + 1 for part, start in zip(below, starts, strict=True)]
    labels = [parent[start] if len(parent) > start else "" for parent, start in zip(parents, starts, strict=True)]
    notes = []
    deeper = {
        "/".join(parent[start:]) for parent, start, end in zip(parents, starts, ends, strict=True) if parent[end:]
    }
    if deeper:
        classes = sorted(set(labels) - {""})
        notes.append(
            f"classes are the first level of folders ({shortened(classes)}): the {len(deeper):,} folder"
            f"{'s' * (len(deeper) > 1)} in them ({shortened(sorted(deeper))}) belong{'s' * (len(deeper) == 1)} to the "
            "class that they are in"
        )
    if not _is_split(found):
        return ByFolder(labels, None, notes)
    outside = [name for name, label, part in zip(names, labels, found, strict=True) if label and part is None]
    if outside:
        notes.append(f"in no folder train, valid or test, so trained on: {counted(outside, 'file')}")
    return ByFolder(labels, found, notes)


def _part(parent: Sequence[str], depth: int) -> str | None:
    """Return the split that the folder at a depth is named after."""
    return PARTS.get(parent[depth].lower()) if len(parent) > depth else None


def _is_split(parts: Sequence[str | None]) -> bool:
    return "train" in parts and bool({"valid", "test"} & set(parts))
