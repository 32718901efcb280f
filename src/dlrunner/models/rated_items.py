"""Parts of rating and ranking models: the items that a user rated, and the attributes of items and users."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dlrunner.row_blocks import MANY_ROWS

USERS_AT_ONCE = 8192
"""Whose items are added up, where those of all users are asked for."""
USERS_PER_ROW = 2
"""Of all users for each row of a batch: with fewer the items of all are added up."""


class RatedItems(nn.Embedding):
    """Factors y of items, which describe a user: |N(u)|^-1/2 Σ y_j over the items N(u) of the training rows.

    Args:
        users, items: of the training rows.
        num_users, num_items: of all.
        factors: length of an embedding; all are 0 at first.
        most: N(u) of a user with more items is a random sample of so many, the same for the same rows.
    """

    flat: Tensor
    begin: Tensor
    count: Tensor

    def __init__(self, users: Tensor, items: Tensor, num_users: int, num_items: int, factors: int, most: int) -> None:
        super().__init__(num_items, factors)
        nn.init.zeros_(self.weight)
        count = torch.bincount(users, minlength=num_users).clamp(max=most)
        self._of_all: _Lists | None = None
        self.most, begin = int(count.max()), count.cumsum(0) - count
        lists = {"flat": _sampled(users, items, begin, count), "begin": begin, "count": count}
        for name, values in lists.items():
            self.register_buffer(name, values, persistent=False)  # made of the training rows again

    def of_users(self, users: Tensor) -> Tensor:
        """Return the sums of some users, (users, factors)."""
        if users.device.type != "cpu":  # a GPU would have to be waited for
            return self.of_each(users)
        if len(self.count) <= USERS_PER_ROW * len(users):  # nothing to look up, and nothing to sort
            return self._of_all_at_once()[users]
        distinct, position = torch.unique(users, return_inverse=True)
        return self.of_each(distinct)[position]

    def of_all(self) -> Tensor:
        """Return the sums of all users."""
        users = torch.arange(len(self.count), device=self.count.device)
        return torch.cat([self.of_each(part) for part in torch.split(users, USERS_AT_ONCE)])

    def of_each(self, users: Tensor, without: Tensor | None = None) -> Tensor:
        """Return the sums of some users, which may be repeated.

        Args:
            users: their codes.
            without: an item of each that does not count: it is to be predicted.
        """
        if users.device.type == "cpu":
            return self._of_each_without_padding(users, without)
        number = torch.arange(self.most, device=users.device)
        places = (self.begin[users].unsqueeze(1) + number).clamp(max=len(self.flat) - 1)
        items, counts = self.flat[places], number < self.count[users].unsqueeze(1)
        if without is not None:
            counts = counts & (items != without.unsqueeze(1))
        ones = counts.type_as(self.weight)
        total: Tensor = F.embedding_bag(items, self.weight, mode="sum", per_sample_weights=ones)
        return total * ones.sum(dim=1, keepdim=True).clamp(min=1).rsqrt()

    def _of_all_at_once(self) -> Tensor:
        """Return the sums of all users by lists that stay the same from batch to batch."""
        if self._of_all is None:
            self._of_all = _Lists(self.flat, self.count)
        return _scaled_sums(self.weight, self._of_all)

    def _of_each_without_padding(self, users: Tensor, without: Tensor | None) -> Tensor:
        """The same from lists of different lengths; a GPU would have to be waited for to know how long they are."""
        count = self.count[users]
        shift = self.begin[users] - count.cumsum(0) + count
        items = self.flat.index_select(0, torch.repeat_interleave(shift, count).add_(torch.arange(int(count.sum()))))
        if without is not None:
            kept = items != torch.repeat_interleave(without, count)
            count = torch.bincount(torch.repeat_interleave(count)[kept], minlength=len(users))
            items = items[kept]
        return _scaled_sums(self.weight, _Lists(items, count))

    def of_new(self, items: Tensor) -> Tensor:
        """Return the sum of a user who is not among those of the training rows, (factors)."""
        sample = items[: self.most]
        total: Tensor = self(sample).sum(dim=0) / max(len(sample), 1) ** 0.5
        return total


class _Lists:
    """Rows of a table to add up, list by list; each sum is divided by the root of its number of rows.

    Args:
        indices: rows of the table, int32, one list after the other.
        count: length of each list.
    """

    def __init__(self, indices: Tensor, count: Tensor) -> None:
        self.indices, self.count = indices, count
        self._by_row: tuple[Tensor, Tensor] | None = None

    @property
    def scale(self) -> Tensor:
        """What each sum is multiplied by, [lists, 1]."""
        return self.count.clamp(min=1).rsqrt().unsqueeze(1)

    def by_row(self, num_rows: int) -> tuple[Tensor, Tensor]:
        """Return the lists that each row of the table is in, row by row, and where those of a row begin."""
        if self._by_row is None:
            lists = torch.repeat_interleave(torch.arange(len(self.count), dtype=torch.int32), self.count)
            lists = lists.index_select(0, torch.argsort(self.indices, stable=True))
            self._by_row = lists, _begin(torch.bincount(self.indices, minlength=num_rows))
        return self._by_row


def _begin(count: Tensor) -> Tensor:
    """Return where each list begins, as `F.embedding_bag` takes it."""
    return (count.cumsum(0) - count).int()


def _scaled_sums(table: Tensor, lists: _Lists) -> Tensor:
    """Return the sum of each list, (lists, factors)."""
    total: Tensor = _ScaledSums.apply(table, lists)  # type: ignore[no-untyped-call]
    return total


class _ScaledSums(torch.autograd.Function):
    """Sums of rows of a table, as `F.embedding_bag` computes them, on a CPU.

    Its backward pass adds entry by entry to the gradient of the table. Here it is a sum like the one forward, of the
    entries sorted by row of the table, in less than half the time.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, lists: _Lists) -> Tensor:
        """Return the sums."""
        ctx.lists, ctx.num_rows = lists, len(table)
        total: Tensor = F.embedding_bag(lists.indices, table, _begin(lists.count), mode="sum")
        return total.mul_(lists.scale.type_as(table))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the table."""
        lists, begin = ctx.lists.by_row(ctx.num_rows)
        of_sums = gradient * ctx.lists.scale.type_as(gradient)
        return F.embedding_bag(lists, of_sums.contiguous(), begin, mode="sum"), None


def _sampled(users: Tensor, items: Tensor, begin: Tensor, count: Tensor) -> Tensor:
    """Return the items of each user, one user after the other: the first ones in a random order of the rows.

    Args:
        users, items: of the rows.
        begin, count: where each user's items begin, and how many they are.
    """
    flat, seen = torch.empty(int(count.sum()), dtype=torch.int32), torch.zeros_like(count)
    order = torch.randperm(len(users), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    for part in torch.split(order, MANY_ROWS):  # sorting all rows at once takes 40 bytes for each
        rows = part[torch.argsort(users[part], stable=True)]
        theirs = users[rows]
        distinct, counts = torch.unique_consecutive(theirs, return_counts=True)
        number = torch.arange(len(rows)) + (seen[distinct] - counts.cumsum(0) + counts).repeat_interleave(counts)
        seen[distinct] += counts
        kept = number < count[theirs]
        flat[(begin[theirs] + number)[kept]] = items[rows[kept]].int()
    return flat


class Attributes(nn.Module):
    """What the attributes of items, or of users, add to their factors and biases.

    Args:
        values: one row per item or user.
        factors: length of an embedding.
    """

    values: Tensor

    def __init__(self, values: Tensor, factors: int) -> None:
        super().__init__()
        self.register_buffer("values", values.float(), persistent=False)
        self.factors, self.bias = (nn.Linear(values.shape[1], size, bias=False) for size in (factors, 1))
        nn.init.zeros_(self.factors.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, codes: Tensor, factors: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors and biases of some items or users, with what their attributes add."""
        values = self.values[codes]
        return factors + self.factors(values), bias + self.bias(values)
