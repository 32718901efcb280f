"""Functions of rows whose result for a row does not depend on the other rows, to the last bit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

ROWS = 64
"""Of a block: a multiple of the rows and elements that vector instructions process at once."""


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
