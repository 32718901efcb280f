"""Class and split of files, from the folders they are in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
PARTS = {name: part for part, names in _NAMES.items() for name in names}
"""The split of a folder of this name."""


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
