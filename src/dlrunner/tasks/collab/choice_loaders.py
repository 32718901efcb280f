"""Batches of choices: training rows with sampled other items, and users with a target for every item."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.batching import TensorLoader, generator_of
from dlrunner.system.transfer import to_device
from dlrunner.task import Batch


class SampledLoader:
    """Training rows, each with its item first and then items sampled for (seed, epoch, batch).

    Args:
        rows: loader of users and items from batch `start` on.
        negatives: sampled items per row.
        num_items: of which to sample.
        key: seed and epoch.
        start: number of the first batch.
    """

    def __init__(self, rows: TensorLoader, negatives: int, num_items: int, key: tuple[int, int], start: int) -> None:
        self.rows, self.negatives, self.num_items, self.key, self.start = rows, negatives, num_items, key, start

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self.rows, start=self.start):
            users, items = batch.inputs
            shape = (len(users), self.negatives)
            sampled = torch.randint(self.num_items, shape, generator=generator_of(*self.key, number))
            together = torch.cat([items.unsqueeze(1), to_device(sampled, items.device)], dim=1)
            yield Batch((users, together), batch.targets)


class UserLoader:
    """Users in batches, with a target for each of all items (`ranking_metrics`).

    Args:
        users, items, targets: of the pairs whose target is not 0, sorted by users.
        num_items: of all.
        batch_size: users in a batch.
        device: of the batches.
    """

    def __init__(
        self,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        targets: NDArray[np.int8],
        num_items: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        distinct, begin, row = np.unique(users, return_index=True, return_inverse=True)
        self.codes = torch.from_numpy(distinct).to(device)
        self.places = torch.from_numpy(row % batch_size * num_items + items).to(device)
        self.targets = torch.from_numpy(targets).to(device)
        self.bounds = [*map(int, begin[::batch_size]), len(users)]
        self.num_items, self.batch_size, self.device = num_items, batch_size, device

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        parts = torch.split(self.codes, self.batch_size)
        for codes, first, last in zip(parts, self.bounds[:-1], self.bounds[1:], strict=True):
            targets: Tensor = torch.zeros(len(codes) * self.num_items, dtype=torch.int8, device=self.device)
            targets[self.places[first:last]] = self.targets[first:last]
            yield Batch((codes,), targets.view(len(codes), self.num_items))
