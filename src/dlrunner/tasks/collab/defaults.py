"""Settings that suit a ratings table by its numbers of training rows and of users.

Up to 64,000 ratings chosen on samples of MovieLens' release of 2016, three to four splits each, never on the rows that
are reported. For more, on ratings in which planted biases and factors explain as much as in MovieLens
(benchmarks/planted_ratings.py). How much factors explain differs between tables: less decay is tried on the training
rows.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Any

FEW, SOME, LARGE, MANY = 5_000, 50_000, 500_000, 1_000_000
LARGEST_BATCH = 65_536
"""Of ratings: larger ones take too much memory."""
FEWEST_TRIED, MOST_TRIED = 2_000, 2_000_000
"""Training rows with which less decay is tried: fewer decide by chance, more take minutes."""
MOVIELENS, PER_USER = 80_000, 119.2
"""Training rows of MovieLens, and how many a user has: with fewer the factors need more decay."""


def recommended_for(num_rows: int, settings: Container[str], num_users: int) -> dict[str, Any]:
    """Return epochs, batch size, and decay of factors and biases: with few ratings the factors learn little but noise.

    >>> sizes = (3_000, 600), (1_000_000, 50_000), (1_000_000, 2_000)
    >>> [recommended_for(rows, ["model.most_rated"], users)["optim.weight_decay"] for rows, users in sizes]
    [[12.91, 0.3], [6.1, 0.1], [2.5, 0.1]]

    Args:
        num_rows: training rows.
        settings: names of those that there are: they distinguish the models.
        num_users: of the table.
    """
    if "model.most_rated" in settings:
        return _of_svdpp(num_rows, num_rows / num_users)
    is_dot_bias = "model.start_at_mean" in settings
    if is_dot_bias and num_rows >= LARGE:
        return {
            "batch_size": _batch_size(num_rows, LARGEST_BATCH),
            "epochs": 8,
            "model.start_at_mean": True,
            "optim.weight_decay": [1.0, 0.1],
        }
    factors = round(min(5.0, max(0.2, 20_000 / num_rows)), 2)
    return {
        "batch_size": 128 if num_rows < MANY else 1024 if num_rows < 10 * MANY else 8192,
        "epochs": 20 if num_rows <= FEW else 10 if num_rows <= SOME else 5,
        "model.start_at_mean": True,
        "optim.weight_decay": [factors, round(factors / 5, 3)] if is_dot_bias else 0.1,
    }


def _of_svdpp(num_rows: int, per_user: float) -> dict[str, Any]:
    """Epochs of few and large steps; the sums over rated items are bounded for large tables."""
    scarcity = MOVIELENS / num_rows if num_rows < MOVIELENS else PER_USER / per_user
    factors = min(20.0, 2.5 * math.sqrt(max(1.0, scarcity)))
    return {
        "batch_size": _batch_size(num_rows, LARGEST_BATCH),
        "epochs": 15 if num_rows <= FEW else 8,
        "model.most_rated": 200 if num_rows <= 2 * MANY else 50 if num_rows <= 10 * MANY else 20,
        "optim.weight_decay": [round(factors, 2), 0.3 if num_rows <= FEW else 0.1],
    }


def less_decay(decay: Sequence[float], num_rows: int) -> list[list[float]]:
    """Return smaller decays of the factors, the largest first.

    >>> less_decay([7.9, 0.1], 8_000)
    [[2.63, 0.1], [0.88, 0.1], [0.29, 0.1]]
    >>> less_decay([20.0, 0.3], 500)
    []

    Args:
        decay: of factors and biases.
        num_rows: training rows.
    """
    factors, biases = decay
    is_tried = FEWEST_TRIED <= num_rows <= MOST_TRIED
    return [[round(factors / 3**times, 2), biases] for times in (1, 2, 3)] if is_tried else []


def recommended_for_choices(num_rows: int) -> dict[str, Any]:
    """Return epochs, batch size and decay for a table of choices.

    >>> [recommended_for_choices(rows)["batch_size"] for rows in (500, 20_000, 80_000, 10**7)]
    [32, 256, 1024, 8192]

    Args:
        num_rows: training rows.
    """
    return {
        "batch_size": _batch_size(num_rows),
        "epochs": 10,
        "model.most_rated": 200 if num_rows <= 2 * MANY else 50,
        "optim.weight_decay": [1.0, 0.1],
    }


def _batch_size(num_rows: int, most: int = 8192) -> int:
    """About 64 steps an epoch; of batches beyond 8,192 at least that many.

    >>> [_batch_size(rows, 65_536) for rows in (500, 20_000, 80_000, 800_000, 4_000_000, 20_000_000)]
    [32, 256, 1024, 8192, 32768, 65536]

    Args:
        num_rows: training rows.
        most: the largest one.
    """
    exponent = math.log2(max(1, num_rows / 64))
    nearest, below = 1 << round(exponent), 1 << int(exponent)
    return min(most, max(32, min(8192, nearest), below))
