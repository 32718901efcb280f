"""Batches from tensors that live on the device, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.task import Batch, Split


def epoch_order(num_rows: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the training rows in an epoch, the same on every device."""
    return torch.randperm(num_rows, generator=generator_of(seed, epoch))


def generator_of(*key: int) -> torch.Generator:
    """Return a CPU generator seeded by the first 64 bits of `numpy.random.SeedSequence(key)`."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed % 2**63)


def by_split(
    inputs: Sequence[Tensor], targets: Tensor, valid: NDArray[np.bool_], device: torch.device
) -> dict[Split, tuple[list[Tensor], Tensor]]:
    """Return inputs and targets of each split, on the device.

    Args:
        inputs: tensors with one row per example.
        targets: likewise.
        valid: which rows validate, [rows].
        device: where they go.
    """
    splits: dict[Split, tuple[list[Tensor], Tensor]] = {}
    for split in ("train", "valid"):
        rows = torch.tensor(valid if split == "valid" else ~valid)
        splits[split] = ([each[rows].to(device) for each in inputs], targets[rows].to(device))
    return splits


class TensorLoader:
    """Batches of rows of some tensors.

    The rows are gathered once per epoch and batches are views of them: at 64 rows a batch, gathering per batch
    would take a third of the time of a step.

    Args:
        inputs: tensors with the same number of rows.
        targets: what the model should say for each row.
        batch_size: rows in a batch; the last one may have fewer.
        order: indices of the rows; without it they come as they stand.
    """

    def __init__(self, inputs: Sequence[Tensor], targets: Tensor, batch_size: int, order: Tensor | None = None) -> None:
        self.inputs, self.targets, self.batch_size, self.order = inputs, targets, batch_size, order

    def __len__(self) -> int:
        return -(-len(self.targets) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        tensors = [*self.inputs, self.targets]
        if self.order is not None:
            order = self.order.to(self.targets.device)
            tensors = [tensor[order] for tensor in tensors]
        for *inputs, targets in zip(*(torch.split(tensor, self.batch_size) for tensor in tensors), strict=True):
            yield Batch(tuple(inputs), targets)
