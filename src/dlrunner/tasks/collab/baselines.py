"""Simple predictions of ratings, with which a run is compared: the mean, biases, and similar items.

Source: Koren, Factor in the neighbors: scalable and accurate collaborative filtering, 2010; Surprise's KNNBaseline.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dlrunner.data.core.splitting import TRAIN
from dlrunner.data.ratings.dataset import RatingsTable
from dlrunner.row_blocks import blocks_of, occurrences

ITEM_SHRINKAGE, USER_SHRINKAGE = 10.0, 15.0
"""Ratings that a bias of 0 counts as."""
NEIGHBOURS = 40
SIMILARITY_SHRINKAGE = 100.0
"""Common users that a similarity of 0 counts as."""
MOST_CELLS = 50_000_000
"""Users times items; with more, similar items take too much memory."""
MOST_PRODUCTS = 50_000_000_000
"""Of one pass over the pairs of a user's items; with more, similar items take minutes."""

Ratings = NDArray[np.float64]


def rating_baselines(table: RatingsTable) -> dict[str, tuple[Ratings, float]]:
    """Return for each baseline its predictions of the rows that are not trained on, and the seconds it takes."""
    train = table.part(TRAIN)
    others = slice(train.stop, len(table.users))
    found = {
        "mean": _timed(lambda: np.full(others.stop - others.start, table.ratings[train].mean(dtype=np.float64))),
        "biases of users and items": _timed(lambda: _biased(table, others)),
    }
    counts = occurrences(table.users[train], len(table.user_ids)).astype(np.float64)
    cells, products = len(counts) * len(table.item_ids), float((counts**2).sum()) * len(counts)
    if cells <= MOST_CELLS and products <= MOST_PRODUCTS:
        found["similar items (kNN)"] = _timed(lambda: _neighbours(table))
    return found


def _timed(predict: Callable[[], Ratings]) -> tuple[Ratings, float]:
    started = time.perf_counter()
    predicted = predict()
    return predicted, round(time.perf_counter() - started, 2)


def _biased(table: RatingsTable, rows: slice) -> Ratings:
    """Predict mean + item bias + user bias of some rows, each the shrunken mean of what is left."""
    train = table.part(TRAIN)
    users, items, rest = table.users[train], table.items[train], table.ratings[train].astype(np.float64)
    mean = rest.mean()
    rest -= mean
    item = _shrunken(items, rest, len(table.item_ids), ITEM_SHRINKAGE)
    for block in blocks_of(len(rest)):
        rest[block] -= item[items[block]]
    user = _shrunken(users, rest, len(table.user_ids), USER_SHRINKAGE)
    return np.asarray(mean + item[table.items[rows]] + user[table.users[rows]])


def _shrunken(codes: NDArray[np.int32], values: Ratings, count: int, shrinkage: float) -> Ratings:
    sums = np.zeros(count)
    for block in blocks_of(len(codes)):
        np.add.at(sums, codes[block], values[block])
    return np.asarray(sums / (occurrences(codes, count) + shrinkage))


def _neighbours(table: RatingsTable) -> Ratings:
    """Add to the biases the user's deviations from them on the most similar items, weighted by similarity."""
    train = table.part(TRAIN)
    predicted = _biased(table, slice(None))
    users, items = table.users[train], table.items[train]
    rest = np.zeros((len(table.item_ids), len(table.user_ids)), dtype=np.float32)  # rows of items are read at once
    rated = np.zeros_like(rest)
    rest[items, users], rated[items, users] = table.ratings[train] - predicted[train], 1.0
    squares = rest**2
    answer, others = predicted.copy(), np.arange(train.stop, len(table.users))
    order = others[np.argsort(table.users[others], kind="stable")]
    starts = np.searchsorted(table.users[order], np.arange(len(table.user_ids) + 1))
    for user in range(len(table.user_ids)):
        rows, known = order[starts[user] : starts[user + 1]], np.flatnonzero(rated[:, user])
        if not len(rows) or not len(known):
            continue
        wanted = table.items[rows]
        our_marks, their_marks = rated[wanted], rated[known].T
        common = our_marks @ their_marks
        norms = np.sqrt(
            squares[wanted] @ their_marks * (our_marks @ squares[known].T)
        )  # over the users that rated both
        similarities = rest[wanted] @ rest[known].T / np.maximum(norms, 1e-12)
        weights = similarities * common / (common + SIMILARITY_SHRINKAGE)
        weights[weights <= 0] = 0
        if weights.shape[1] > NEIGHBOURS:
            least = np.partition(weights, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS, None]
            weights[weights < least] = 0
        total = weights.sum(axis=1)
        answer[rows] += np.divide(weights @ rest[known, user], total, out=np.zeros_like(total), where=total > 0)
    return answer[train.stop :]
