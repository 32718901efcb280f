"""Simple rankings, with which a run is compared: the most popular items, and items similar to those chosen.

Source: Sarwar, Karypis, Konstan and Riedl, Item-based collaborative filtering recommendation algorithms, 2001.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlrunner.data.core.splitting import TRAIN
from dlrunner.data.ratings.dataset import RatingsTable
from dlrunner.row_blocks import occurrences

NEIGHBOURS = 100
SHRINKAGE = 20.0
"""Common users that a similarity of 0 counts as."""
MOST_ITEMS = 12_000
"""With more, the similarities of all pairs take too much memory."""
MOST_CELLS = 200_000_000
"""Users times items."""

Scores = Callable[[Tensor], Tensor]
"""From codes of users to the scores of all items."""


def popularity(table: RatingsTable) -> Scores:
    """Score an item by its training rows."""
    counts = torch.from_numpy(occurrences(table.items[table.part(TRAIN)], len(table.item_ids))).float()
    return lambda users: counts.expand(len(users), -1)


def similar_items(table: RatingsTable) -> Scores | None:
    """Score an item by its shrunken cosines to the items that the user chose; None: the table is too large.

    Of the chosen items those count of which it is among the nearest neighbours.
    """
    num_users, num_items = len(table.user_ids), len(table.item_ids)
    if num_items > MOST_ITEMS or num_users * num_items > MOST_CELLS:
        return None
    chosen = torch.zeros(num_users, num_items)
    train = table.part(TRAIN)
    chosen[table.users[train], table.items[train]] = 1
    common = chosen.T @ chosen
    lengths = common.diagonal().clamp(min=1).sqrt()
    cosines = common / lengths / lengths.unsqueeze(1) * common / (common + SHRINKAGE)
    cosines.fill_diagonal_(0)
    if num_items > NEIGHBOURS:
        cosines[cosines < cosines.topk(NEIGHBOURS, dim=1).values[:, -1:]] = 0
    return lambda users: chosen[users] @ cosines.T
