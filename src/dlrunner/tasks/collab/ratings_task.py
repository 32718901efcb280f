"""What tasks on a table of ratings have in common: its rows, notes and split statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.splitting import PART_CODES, TEST, TRAIN, VALID, split_sizes
from dlrunner.data.ratings.dataset import RatingsData, RatingsTable
from dlrunner.data_audit import Digests, SplitStatistics, rows_digest
from dlrunner.row_blocks import occurrences
from dlrunner.task import Task


class RatingsTask(Task):
    """A task on a table of users and items."""

    def __init__(self, data: RatingsData, batch_size: int, seed: int, device: torch.device) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device

    @cached_property
    def table(self) -> RatingsTable:
        """The ratings, read once."""
        return self.data.read()

    def has_test(self) -> bool:
        """Return whether there are test rows."""
        return TEST in self.table.split[-1:]

    def sizes(self) -> Mapping[str, int]:
        """Rows, users and items."""
        table = self.table
        return {
            **split_sizes(table.split),
            "users": len(table.user_ids),
            "items": len(table.item_ids),
        }

    def notes(self) -> Sequence[str]:
        """Notes on reading, and validation ids without a training rating."""
        table = self.table
        notes = list(table.notes)
        for what, codes, ids in (("items", table.items, table.item_ids), ("users", table.users, table.user_ids)):
            of_valid, of_train = (occurrences(codes[table.part(part)], len(ids)) for part in (VALID, TRAIN))
            unseen = (of_valid > 0) & (of_train == 0)
            if unseen.any():
                rows_of_them = of_valid[unseen].sum()
                notes.append(
                    f"{unseen.sum():,} {what} have no training rating; {rows_of_them:,} validation rows have an "
                    f"unseen {what[:-1]}: predicted from biases and attributes"
                )
        return notes

    def data_columns(self) -> Sequence[Mapping[str, Any]]:
        """How each column of a user's table was read."""
        return self.table.described

    def statistics(self, fitted: Mapping[str, tuple[float, float]]) -> SplitStatistics:
        """Return user-item pairs and times of the splits, and fitted statistics of the training rows."""
        table, valid = self.table, self.table.part(VALID)
        users, items = (
            pd.Categorical.from_codes(codes[valid], categories=pd.Index(ids))  # type: ignore[type-var]
            for codes, ids in ((table.users, table.user_ids), (table.items, table.item_ids))
        )
        validation = rows_digest(pd.DataFrame({"user": users, "item": items, "rating": table.ratings[valid]}))
        times: dict[str, NDArray[np.datetime64]] = {}
        if table.times is not None:
            parts = {"train": table.part(TRAIN), "valid": valid}
            times = {name: table.times[rows].astype(np.int64).view("datetime64[s]") for name, rows in parts.items()}
        names = ["train", "valid", *(["test"] if self.has_test() else [])]
        return SplitStatistics(
            "ratings",
            {name: self._pairs(table.part(PART_CODES[name])) for name in names},
            times,
            dict(fitted),
            0 if table.of_test is None else int(table.of_test[valid].sum()),
            time_split="time",
            validation=validation,
        )

    def held_out_pairs(self) -> dict[str, Tensor]:
        """Return users and items of all rows but those of training: they are not recommended either."""
        held_out = slice(self.table.part(TRAIN).stop, None)
        users, items = (torch.from_numpy(codes[held_out]) for codes in (self.table.users, self.table.items))
        return {"held_out_users": users, "held_out_items": items}

    def _pairs(self, rows: slice) -> Digests:
        """Return a number for each pair of user and item."""
        pairs = self.table.users[rows].astype(np.uint64)
        pairs *= np.uint64(len(self.table.item_ids))
        np.add(pairs, self.table.items[rows], out=pairs, casting="unsafe")
        return pairs
