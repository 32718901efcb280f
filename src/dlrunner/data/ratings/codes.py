"""Codes of users and items: contiguous numbers in the order of their first appearance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.row_blocks import blocks_of


def coded(values: pd.Series[Any]) -> tuple[NDArray[np.int32], pd.Index[Any]]:
    """Return the code of each value, by first appearance, and the values; codes of categories stay as they are."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return np.asarray(values.cat.codes, dtype=np.int32), values.cat.categories
    codes, known = pd.factorize(values)
    return codes.astype(np.int32), pd.Index(known)


def renumbered(codes: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return codes by first appearance, and of each the given one.

    >>> codes, given = renumbered(np.array([4, 2, 4], np.int32))
    >>> codes.tolist(), given.tolist()
    ([0, 1, 0], [4, 2])
    """
    code_of, found, num_found = np.full(int(codes.max()) + 1, -1, dtype=np.int32), list[NDArray[np.int32]](), 0
    renumbered = np.empty_like(codes)
    for block in blocks_of(len(codes)):
        distinct = pd.unique(codes[block])
        found.append(distinct[code_of[distinct] < 0])
        code_of[found[-1]] = np.arange(num_found, num_found + len(found[-1]))
        num_found += len(found[-1])
        renumbered[block] = code_of[codes[block]]
    return renumbered, np.concatenate(found)


def plain(value: Any) -> int | str:
    """Ids are stored as whole numbers or text."""
    return int(value) if isinstance(value, int | np.integer) else str(value)
