"""Settings that suit a ratings table by its number of training rows.

Chosen on samples of 500 to 64,000 ratings of MovieLens' release of 2016, three to four splits each, never on the rows
that are reported. How much factors explain differs between tables: less decay is tried on the training rows.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Any

FEW, SOME, MANY = 5_000, 50_000, 1_000_000
FEWEST_TRIED, MOST_TRIED = 2_000, 200_000
"""Training rows with which less decay is tried: fewer decide by chance, more take minutes."""


def recommended_for(num_rows: int, settings: Container[str]) -> dict[str, Any]:
    """Return epochs, batch size, and decay of factors and biases: with few ratings the factors learn little but noise.

    >>> recommended_for(3_000, ["model.most_rated"])["optim.weight_decay"]
    [12.91, 0.3]
    >>> [recommended_for(rows, ["model.most_rated"])["batch_size"] for rows in (500, 20_000, 80_000, 10**7)]
    [32, 256, 1024, 8192]

    Args:
        num_rows: training rows.
        settings: names of those that there are: they distinguish the models.
    """
    if "model.most_rated" in settings:
        return _of_svdpp(num_rows)
    is_dot_bias = "model.start_at_mean" in settings
    factors = round(min(5.0, max(0.2, 20_000 / num_rows)), 2)
    return {
        "batch_size": 128 if num_rows < MANY else 1024 if num_rows < 10 * MANY else 8192,
        "epochs": 20 if num_rows <= FEW else 10 if num_rows <= SOME else 5,
        "model.start_at_mean": True,
        "optim.weight_decay": [factors, round(factors / 5, 3)] if is_dot_bias else 0.1,
    }


def _of_svdpp(num_rows: int) -> dict[str, Any]:
    """About 64 steps an epoch, which are few and large ones; the sums over rated items are bounded for large tables."""
    factors = min(20.0, max(0.5, 2.5 * math.sqrt(80_000 / num_rows)))
    return {
        "batch_size": _batch_size(num_rows),
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


def _batch_size(num_rows: int) -> int:
    """About 64 steps an epoch."""
    return min(8192, max(32, int(2 ** round(math.log2(num_rows / 64)))))
