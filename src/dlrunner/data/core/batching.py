"""Batches from tensors that live on the device, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.splitting import PART_CODES
from dlrunner.system.transfer import to_device
from dlrunner.task import Batch, Split

GATHERED = 2**23
"""Values that are gathered at once."""


def epoch_order(num_rows: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the training rows in an epoch, the same on every device."""
    dtype = torch.int32 if num_rows < 2**31 else torch.int64  # the order is the same
    return torch.randperm(num_rows, generator=generator_of(seed, epoch), dtype=dtype)


def generator_of(*key: int) -> torch.Generator:
    """Return a CPU generator seeded by the first 64 bits of `numpy.random.SeedSequence(key)`."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed % 2**63)


def by_split(
    inputs: Sequence[Tensor], targets: Tensor, split: NDArray[np.int8], device: torch.device
) -> dict[Split, tuple[list[Tensor], Tensor]]:
    """Return inputs and targets of each split that has rows, on the device.

    Args:
        inputs: tensors with one row per example.
        targets: with as many rows.
        split: the part of each row (`PART_CODES`), [rows].
        device: of the returned tensors.
    """
    splits: dict[Split, tuple[list[Tensor], Tensor]] = {}
    names: Sequence[Split] = ("train", "valid", "test")
    for name in names:
        rows = torch.from_numpy(split == PART_CODES[name])
        if rows.any():
            splits[name] = ([each[rows].to(device) for each in inputs], targets[rows].to(device))
    return splits


def batch_sizes(num_rows: int, batch_size: int) -> list[int]:
    """Return the sizes of the batches that the rows are divided into; a single remaining row joins the batch before it.

    Batch norm is undefined for one row.

    >>> batch_sizes(10, 4), batch_sizes(9, 4), batch_sizes(1, 4), batch_sizes(3, 1)
    ([4, 4, 2], [4, 5], [1], [1, 1, 1])
    """
    full, left = divmod(num_rows, batch_size)
    sizes = [batch_size] * full + ([left] if left else [])
    if left == 1 and full:
        sizes[-2:] = [batch_size + 1]
    return sizes


def rows_in_batches(rows: NDArray[np.int64], batch_size: int) -> list[Tensor]:
    """Return rows in batches, in their own order; the last one may have fewer."""
    return list(torch.split(torch.from_numpy(rows), batch_size))


def shuffled_batches(rows: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Return the training rows in batches, in the order of an epoch; of the last one see `batch_sizes`."""
    order = epoch_order(len(rows), seed, epoch)
    return list(torch.split(torch.from_numpy(rows)[order], batch_sizes(len(rows), batch_size)))


class TensorLoader:
    """Batches of rows of some tensors.

    Many batches are gathered at once and are views of the result: at 64 rows a batch, gathering per batch would take a
    third of the time of a step. Not all rows are: that would be a second copy of the data.

    Args:
        inputs: tensors with the same number of rows; codes in 32 bits, which take half the memory, become batches of
            64 bits, which all functions of torch take.
        targets: of each row.
        batch_size: rows in a batch; the last one may have fewer, or one more (see `batch_sizes`).
        order: indices of the rows; None: in their own order.
        start: the first batch that is yielded.
    """

    def __init__(
        self,
        inputs: Sequence[Tensor],
        targets: Tensor,
        batch_size: int,
        order: Tensor | None = None,
        start: int = 0,
    ) -> None:
        self.inputs, self.targets, self.order, self.start = inputs, targets, order, start
        self.sizes = batch_sizes(len(targets), batch_size)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Batch]:
        values = sum(each[0].numel() for each in (*self.inputs, self.targets) if len(each))
        per_gathering = max(1, GATHERED // max(1, values * max(self.sizes, default=1)))
        # From where the epoch from its first batch on gathers too: some products differ in their last bits with the
        # place of a view in memory.
        begin = self.start - self.start % per_gathering if self.start < len(self.sizes) else self.start
        first = sum(self.sizes[:begin])
        for start in range(begin, len(self.sizes), per_gathering):
            sizes = self.sizes[start : start + per_gathering]
            rows = slice(first, first + sum(sizes))
            first = rows.stop
            tensors = [_wide(each) for each in self._gathered(rows)]
            batches = zip(*(torch.split(tensor, sizes) for tensor in tensors), strict=True)
            for *inputs, targets in itertools.islice(batches, max(0, self.start - start), None):
                yield Batch(tuple(inputs), targets)

    def _gathered(self, rows: slice) -> list[Tensor]:
        tensors = [*self.inputs, self.targets]
        if self.order is None:
            return [tensor[rows] for tensor in tensors]
        order = to_device(self.order[rows], self.targets.device).long()
        return [tensor[order] for tensor in tensors]


def _wide(values: Tensor) -> Tensor:
    return values.long() if values.dtype == torch.int32 else values
