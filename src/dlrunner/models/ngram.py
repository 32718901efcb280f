"""The baseline of language models: n-gram counts, smoothed after Kneser and Ney.

Source: Chen and Goodman, An empirical study of smoothing techniques for language modeling, 1998 (interpolated, with
three discounts an order), https://dash.harvard.edu/handle/1/25104739.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length: what is needed to look a word up in its context.

    Args:
        keys: context · words + word of each n-gram, sorted.
        fractions: its discounted count over its context's total, [n-grams].
        totals: of each context, 0 where it was never one.
        backoff: the probability mass that each context leaves to the shorter ones.
    """

    keys: Longs
    fractions: Floats
    totals: Longs
    backoff: Floats


class KneserNey:
    """Interpolated modified Kneser-Ney probabilities of the next word.

    Args:
        stream: the words it learns from, [words].
        num_words: of the vocabulary.
        order: length of the longest n-grams: a word and its `order - 1` predecessors.
    """

    def __init__(self, stream: NDArray[np.int32], num_words: int, order: int = 4) -> None:
        self.num_words = num_words
        self.orders: list[_Order] = []
        keys, num_contexts = np.zeros(1, dtype=np.int64), 0  # the empty n-gram
        places = np.zeros(len(stream) + 1, dtype=np.int32)  # which n-gram ends at each place of the stream
        counts = np.zeros(1, dtype=np.int64)
        for length in range(order):
            longer = places[:-1].astype(np.int64) * num_words + stream[length:]
            longer, first, next_places, next_counts = np.unique(
                longer, return_index=True, return_inverse=True, return_counts=True
            )
            if length:  # shorter n-grams count by how many words they follow, not how often
                counts = np.bincount(places[first + 1], minlength=len(keys))
                assert counts.sum() == len(longer)
                self.orders.append(_smoothed(keys, counts, keys // num_words, num_contexts))
            keys, num_contexts, counts, places = longer, len(keys), next_counts, next_places.astype(np.int32)
        self.orders.append(_smoothed(keys, counts, keys // num_words, num_contexts))

    def log_probabilities(self, stream: NDArray[np.int32]) -> Floats:
        """Return the logarithm of the probability of each word but the first, given those before, [words - 1]."""
        words = stream.astype(np.int64)
        probabilities = np.full(len(words), 1 / self.num_words)
        contexts = np.zeros(len(words), dtype=np.int64)  # which context precedes each word; -1: one never seen
        for order in self.orders:
            known = contexts >= 0
            usable = known & (order.totals[np.where(known, contexts, 0)] > 0)
            keys = np.where(usable, contexts * self.num_words + words, -1)
            found = np.minimum(np.searchsorted(order.keys, keys), len(order.keys) - 1)
            hit = usable & (order.keys[found] == keys)
            context = contexts[usable]
            probabilities[usable] = order.backoff[context] * probabilities[usable]
            probabilities[hit] += order.fractions[found[hit]]
            ended = np.where(order.keys[found] == keys, found, -1)  # the n-gram that ends at each place
            ended[~known] = -1
            contexts = np.concatenate([[-1], ended[:-1]])
        logs: Floats = np.log(probabilities[1:])
        return logs


def _smoothed(keys: Longs, counts: Longs, contexts: Longs, num_contexts: int) -> _Order:
    """Discount counts by D1, D2 or D3+, which the numbers of n-grams that occur once to four times give."""
    occur = np.bincount(np.minimum(counts, 5), minlength=5).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = occur[1] / (occur[1] + 2 * occur[2])
        estimated = np.array([c - (c + 1) * ratio * occur[c + 1] / occur[c] for c in (1, 2, 3)])
    few = not (np.isfinite(estimated).all() and (estimated > 0).all() and (estimated < (1, 2, 3)).all())
    discounts = np.array([0, *((0.5, 1.0, 1.5) if few else estimated)])  # where it is no estimate: what KenLM takes
    discount = discounts[np.minimum(counts, 3)]
    totals = np.bincount(contexts, counts, minlength=num_contexts)
    taken = np.bincount(contexts, np.where(counts > 0, discount, 0), minlength=num_contexts)
    with np.errstate(invalid="ignore", divide="ignore"):
        backoff = np.where(totals > 0, taken / totals, 1.0)
        fractions = np.where(counts > 0, (counts - discount) / totals[contexts], 0.0)
    return _Order(keys, fractions, totals.astype(np.int64), backoff)
