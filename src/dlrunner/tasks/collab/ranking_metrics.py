"""Metrics of the first k items of a ranking, over all items that the user did not choose in training."""

from __future__ import annotations

import torch
from torch import Tensor

from dlrunner.metrics import Mean

CHOSEN, SEEN = 1, -1
"""Targets of a user's items: chosen in this split, or already before it; 0 for all others."""


def without_seen(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the scores with those of items that the user chose before at minus infinity."""
    return scores.float().masked_fill(targets == SEEN, -torch.inf)


class TopItems(Mean):
    """A mean over users, from which of their first k items they chose.

    Args:
        k: number of items that are shown to a user.
    """

    higher_is_better = True

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the metric of each user from scores and targets, both (users, items)."""
        first = without_seen(outputs, targets).topk(min(self.k, outputs.shape[1]), dim=1).indices
        hits = (targets.gather(1, first) == CHOSEN).float()
        return self.of_hits(hits, (targets == CHOSEN).sum(dim=1))

    def of_hits(self, hits: Tensor, num_chosen: Tensor) -> Tensor:
        """Return the metric from hits (1 or 0), (users, k), and how many items each user chose."""
        raise TypeError(f"{type(self).__name__} must override of_hits()")


class Recall(TopItems):
    """Recall@k: the fraction of the chosen items that are among the first k.

    >>> metric = Recall(2)
    >>> metric.update(torch.tensor([[0.9, 0.8, 0.7, 0.6]]), torch.tensor([[-1, 1, 0, 1]]))
    >>> metric.compute()
    0.5
    """

    def of_hits(self, hits: Tensor, num_chosen: Tensor) -> Tensor:
        """Return hits / chosen items."""
        return hits.sum(dim=1) / num_chosen


class NDCG(TopItems):
    """NDCG@k: the sum of 1 / log2(1 + rank) over the hits, relative to that of a perfect ranking.

    >>> metric = NDCG(2)
    >>> metric.update(torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[0, 1, 0]]))
    >>> round(metric.compute(), 4)
    0.6309
    """

    def of_hits(self, hits: Tensor, num_chosen: Tensor) -> Tensor:
        """Return DCG / ideal DCG."""
        gains = 1 / torch.log2(torch.arange(2, hits.shape[1] + 2))
        # On a GPU sums of floats in order are not deterministic.
        gains, ideal = (each.to(hits.device) for each in (gains, gains.cumsum(0)))
        return (hits * gains).sum(dim=1) / ideal[num_chosen.clamp(max=hits.shape[1]) - 1]


class MeanAveragePrecision(TopItems):
    """MAP@k: the precision at the rank of each hit, summed and divided by the hits that are possible.

    >>> metric = MeanAveragePrecision(3)
    >>> metric.update(torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[1, 0, 1]]))
    >>> round(metric.compute(), 4)
    0.8333
    """

    def of_hits(self, hits: Tensor, num_chosen: Tensor) -> Tensor:
        """Return the average precision."""
        precision = hits.long().cumsum(dim=1) / torch.arange(1, hits.shape[1] + 1, device=hits.device)
        return (precision * hits).sum(dim=1) / num_chosen.clamp(max=hits.shape[1])


class Coverage:
    """Coverage@k: the fraction of all items that are among the first k of at least one user.

    >>> metric = Coverage(1)
    >>> metric.update(torch.tensor([[0.9, 0.8], [0.9, 0.8]]), torch.tensor([[0, 1], [1, 0]]))
    >>> metric.compute()
    0.5
    >>> metric = Coverage(2)
    >>> metric.update(torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[-1, 1, -1]]))
    >>> round(metric.compute(), 4)
    0.3333
    """

    higher_is_better = True

    def __init__(self, k: int) -> None:
        self.k = k
        self._shown: Tensor | None = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Mark the items that are shown."""
        scores = without_seen(outputs, targets)
        first = scores.topk(min(self.k, scores.shape[1]), dim=1)
        num_items = scores.shape[1]
        # A user who has seen almost all items is shown fewer than k: the others are marked at the end, as none.
        items = first.indices.where(first.values.isfinite(), num_items)
        shown = scores.new_zeros(num_items + 1) if self._shown is None else self._shown
        self._shown = shown.index_fill(0, items.flatten(), 1.0)

    def compute(self) -> float:
        """Return the fraction."""
        return float("nan") if self._shown is None else float(self._shown[:-1].double().mean())
