"""Rows in blocks: so that results of a row depend on no other row, or that no copy of all rows is in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS = 64
"""Of a block: a multiple of the rows and elements that vector instructions process at once."""

MANY_ROWS = 2**18
"""Of a block whose temporary copies need little memory."""


def blocks_of(num_rows: int) -> Iterator[slice]:
    """Yield all rows in blocks.

    >>> list(blocks_of(2**18 + 5))
    [slice(0, 262144, None), slice(262144, 262149, None)]
    """
    for start in range(0, num_rows, MANY_ROWS):
        yield slice(start, min(start + MANY_ROWS, num_rows))


def occurrences(codes: NDArray[np.int32], num_codes: int) -> NDArray[np.int64]:
    """Return how often each code occurs; `numpy.bincount` would copy all of them in 64 bits.

    >>> occurrences(np.array([2, 0, 2], np.int32), 4).tolist()
    [1, 0, 2, 0]
    """
    counts = np.zeros(num_codes, dtype=np.int64)
    for block in blocks_of(len(codes)):
        counts += np.bincount(codes[block], minlength=num_codes)
    return counts


class KeptRows:
    """The rows of many batches, in one tensor that grows.

    A list of them would be small tensors that stay, allocated between large ones that go. glibc before 2.38 does not
    use what is freed in between again: a language model's evaluation grew by 25 MB a batch.

    >>> kept = KeptRows()
    >>> kept.add(torch.tensor([[1, 2]]))
    >>> kept.add(torch.tensor([[3, 4], [5, 6]]))
    >>> len(kept), kept.joined().tolist()
    (3, [[1, 2], [3, 4], [5, 6]])
    """

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: Tensor) -> None:
        """Copy rows to the end; all have the device, type and shape of the first."""
        end = self._count + len(rows)
        if self._rows is None or end > len(self._rows):
            larger = rows.new_empty((max(end, 2 * self._count), *rows.shape[1:]))
            larger[: self._count] = larger[:0] if self._rows is None else self._rows[: self._count]
            self._rows = larger
        self._rows[self._count : end] = rows
        self._count = end

    def joined(self) -> Tensor:
        """Return all rows.

        Raises:
            ValueError: there is none, so that their type and shape are unknown.
        """
        if self._rows is None:
            raise ValueError("no rows were added")
        return self._rows if self._count == len(self._rows) else self._rows[: self._count].clone()


def in_blocks(function: Callable[..., Tensor], *inputs: Tensor, rows: int = ROWS) -> Tensor:
    """Apply a function in blocks of a fixed number of rows, the last one filled up with zeros.

    The last digits of a matrix product, and of functions such as exp, depend on the shape of what they are applied to.
    Here that is always the same, so that a row has the same result alone and among others. A block is computed by one
    thread: it is too small for several, which would wait for each other longer than they work.

    Args:
        function: of tensors whose first dimension is rows; it returns one row for each.
        inputs: all have the same number of rows.
        rows: in a block, a multiple of `ROWS`.
    """
    count = len(inputs[0])
    found = []
    with _one_thread():
        for start in range(0, max(1, count), rows):
            parts = []
            for each in inputs:
                part = each.new_zeros((rows, *each.shape[1:]))  # a new tensor is aligned in memory, a view need not be
                part[: min(rows, count - start)] = each[start : start + rows]
                parts.append(part)
            found.append(function(*parts)[: count - start])
    return torch.cat(found)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
