"""What the folders that files stand in tell: their class, and the part of the data they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
PARTS = {name: part for part, names in _NAMES.items() for name in names}
"""Which part of the data a folder of this name holds."""


def labels_and_parts(names: Sequence[str]) -> tuple[list[str], list[str | None] | None]:
    """Return the folder that each file stands in, and of files in folders train, valid, test which one it is.

    The parts are None where the folders do not tell what validates.

    >>> labels_and_parts(["train/pos/1.txt", "test/neg/2.txt", "3.txt"])
    (['pos', 'neg', ''], ['train', 'test', None])
    >>> labels_and_parts(["pos/1.txt", "neg/2.txt"])
    (['pos', 'neg'], None)
    """
    parents = [PurePosixPath(name).parent.parts for name in names]
    parts = [PARTS.get(parent[0].lower()) if parent else None for parent in parents]
    labels = [parent[-1] if parent else "" for parent in parents]
    if "train" in parts:  # train/ is no class
        labels = ["" if part and len(p) == 1 else label for label, p, part in zip(labels, parents, parts, strict=True)]
    return labels, parts if "train" in parts and {"valid", "test"} & set(parts) else None
